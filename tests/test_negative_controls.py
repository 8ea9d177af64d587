"""Every checker can fail: bugs are planted one at a time, and a named check of the suite sees each of them."""

from __future__ import annotations

import dataclasses
import functools
import sys

import laws
import numpy as np
import pytest
from laws import ACTIVATIONS, NUMPY, OPERATORS

import implicitref as ir
from implicitref import activations, mon
from implicitref.activations import Activation
from implicitref.operators import DenseMap, FourierMap, MonotoneConv, MonotoneDense, conv, dense, dft, fourier
from implicitref.splitting import Inclusion, certificates, rates

# ------------------------------------------------------------------------------------------------
# The bugs: each takes monkeypatch.setattr


def sign_of_the_skew_part(plant):
    right = dense.weight
    plant(dense, "weight", lambda A, B, m, g=None, h=None: right(A, B.T, m, g, h))


def m_left_out_of_w(plant):
    right = dense.weight
    plant(dense, "weight", lambda A, B, m, g=None, h=None: right(A, B, 0.0, g, h))


def g_not_divided_by_the_norm(plant):
    right = dense.weight
    plant(dense, "weight", lambda A, B, m, g=None, h=None: right(A * (1 if g is None else g**0.5), B, m, None, h))


def transpose_dropped_in_rmatvec(plant):
    plant(DenseMap, "rmatvec", lambda self, y: y @ self.matrix.T)


def transpose_dropped_in_the_vjp(plant):
    right = MonotoneDense.vjp
    plant(MonotoneDense, "vjp", lambda self, z, dy: right(self, dy, z))


def factor_two_in_da(plant):
    right = MonotoneDense.vjp
    plant(MonotoneDense, "vjp", lambda self, z, dy: (grads := right(self, z, dy)) | {"A": 2 * grads["A"]})


def skew_part_missing_in_db(plant):
    right = MonotoneDense.vjp
    plant(MonotoneDense, "vjp", lambda self, z, dy: right(self, z, dy) | {"B": dy.T @ z})


def quotient_rule_forgotten(plant):
    def vjp(self, z, dy):
        grads = MonotoneDense(self.A, self.B, self.m).vjp(z, dy)
        return right(self, z, dy) | {"A": grads["A"] * float(self.g) / float((self.A**2).sum())}

    right = MonotoneDense.vjp
    plant(MonotoneDense, "vjp", lambda self, z, dy: right(self, z, dy) if self.g is None else vjp(self, z, dy))


def batch_averaged_in_the_vjp(plant):
    right = MonotoneDense.vjp
    plant(MonotoneDense, "vjp", lambda self, z, dy: {name: p / len(z) for name, p in right(self, z, dy).items()})


def frobenius_norm_for_the_lipschitz_constant(plant):
    plant(MonotoneDense, "lipschitz", lambda self: float(np.linalg.norm(np.eye(self.size) - self.to_dense())))


def replace_forgets_g(plant):
    right = MonotoneDense.replace
    plant(MonotoneDense, "replace", lambda self, **params: right(self, **(params | {"g": None})))


def resolvent_of_the_transpose(plant):
    right = MonotoneDense.resolvent
    plant(MonotoneDense, "resolvent", lambda self, alpha: DenseMap(right(self, alpha).matrix.T))


def alpha_missing_in_the_shift(plant):
    plant(Inclusion, "resolvent_A", lambda self, alpha: lambda u: self.W.resolvent(alpha).matvec(u + self.b))


def minus_sign_of_equation_9(plant):
    plant(Inclusion, "resolvent_A", lambda self, alpha: lambda u: self.W.resolvent(alpha).matvec(u - alpha * self.b))


def minus_sign_of_equation_9_in_the_fast_path(plant):
    right = Inclusion.cayley_A
    plant(Inclusion, "cayley_A", lambda self, alpha: right(dataclasses.replace(self, b=-self.b), alpha))


def injection_forgotten_by_the_fast_path(plant):
    right = Inclusion.cayley_A
    plant(Inclusion, "cayley_A", lambda self, alpha: right(dataclasses.replace(self, b=0 * self.b), alpha))


def sigma_for_the_prox(plant):
    plant(Activation, "prox", lambda self, x, alpha=1.0: self.sigma(x))


def alpha_upside_down_in_the_prox(plant):
    right = Activation.root
    plant(Activation, "root", lambda self, x, alpha: right(self, x, 1 / alpha))


def newton_gives_up_early(plant):
    plant(activations, "MAX_NEWTON", 2)


def alpha_missing_in_the_derivative(plant):
    plant(Activation, "derivative", lambda self, x, alpha=1.0: self.slope(self.root(x, alpha)))


def reflection_without_the_two(plant):
    plant(Activation, "reflection", lambda self, alpha: lambda u: self.prox(u, alpha) - u)


def value_with_the_wrong_sign(plant):
    plant(Activation, "value", lambda self, z: -self.f(z))


def _printed(self, alpha):
    # Algorithms 3 and 4 as printed: 1 + alpha (1 + D); J + alpha after multiplication with J
    scale = self.jac / (self.jac + alpha)
    return lambda u: scale * (u + alpha * self.dz)


def printed_denominator(plant):
    plant(mon.AdjointProx, "resolvent", _printed)
    plant(mon.AdjointProx, "prox", lambda self, u, alpha=1.0: _printed(self, alpha)(u))
    plant(mon.AdjointProx, "reflection", lambda self, alpha: lambda u: 2 * _printed(self, alpha)(u) - u)


def printed_denominator_and_a_certificate_that_believes_it(plant):
    printed_denominator(plant)
    right = certificates.distance

    def distance(inclusion, alpha, u):
        z, bound = right(inclusion, alpha, u)
        return (_printed(inclusion.B, alpha)(u), 0 * bound) if isinstance(inclusion.B, mon.AdjointProx) else (z, bound)

    plant(sys.modules["implicitref.splitting.solve"], "distance", distance)  # the name `solve` is the function


def jacobian_left_out(plant):
    right = mon._backward_inclusion
    plant(mon, "_backward_inclusion", lambda W, jac, dz: right(W, 0 * jac + 1, dz))


def backward_with_the_forward_weight(plant):
    plant(mon, "Transpose", lambda W: W)


def _vjp_changed(plant, change):
    right = mon.equilibrium_vjp

    def changed(W, injection, activation, z, dz, **options):
        grads, solution = right(W, injection, activation, z, dz, **options)
        return change(W, z, dz, grads), solution

    plant(mon, "equilibrium_vjp", changed)


def u_star_for_dpre(plant):
    def change(W, z, dz, grads):
        u_star = mon.adjoint_state(W, grads["injection"], dz)
        return {"injection": u_star, **W.vjp(z, u_star), "m": -(u_star * z).sum()}

    _vjp_changed(plant, change)


def sign_of_dm(plant):
    _vjp_changed(plant, lambda W, z, dz, grads: grads | {"m": -grads["m"]})


def jacobian_free_instead_of_implicit(plant):
    def change(W, z, dz, grads):
        return grads | {"injection": dz}

    _vjp_changed(plant, change)


def certificate_without_one_over_m(plant):
    right = certificates.distance

    def distance(inclusion, alpha, u):
        z, bound = right(inclusion, alpha, u)
        return z, bound * inclusion.m

    plant(certificates, "distance", distance)


def ball_of_half_its_radius(plant):
    right = certificates.ball
    plant(certificates, "ball", lambda *a: (right(*a)[0], right(*a)[1] / 2))


def c2_without_its_denominator(plant):
    right = certificates.distance_from_state

    def distance_from_state(inclusion, alpha, z):
        y, *bounds = right(inclusion, alpha, z)
        return y, *(alpha * inclusion.m * bound for bound in bounds)

    plant(certificates, "distance_from_state", distance_from_state)


def rate_squared(plant):
    right = rates.peaceman_rachford
    plant(rates, "peaceman_rachford", lambda G, alpha: right(G, alpha) ** 4)


def strong_convexity_that_is_not_there(plant):
    right = mon.forward_inclusion
    plant(mon, "forward_inclusion", lambda W, b, act: dataclasses.replace(right(W, b, act), m=W.m + 30))


# Convolutions


def conjugate_dropped_in_the_adjoint_of_a_map(plant):
    plant(fourier.FourierMap, "rmatvec", lambda K, y: fourier.product(np.swapaxes(K.D, -1, -2), y))


def conjugate_dropped_in_the_gram_matrix(plant):
    plant(conv, "adjoint", lambda D: np.swapaxes(D, -1, -2))


def convolution_for_correlation(plant):
    right = fourier.skew_part
    plant(conv, "skew_part", lambda B, size: right(np.flip(B, axis=(2, 3)), size))


def even_kernels_centred_at_half_their_side(plant):
    right = fourier._folding
    plant(fourier, "_folding", lambda k, n: np.roll(right(k, n), -1 + k % 2, axis=0))


def wrapped_entries_cut_off(plant):
    right = fourier._folding
    plant(fourier, "_folding", lambda k, n: right(k, n) * (np.abs(np.arange(k) - (k - 1) // 2) <= n // 2))


def alpha_missing_at_b(plant):
    def resolvent(self, alpha):  # (28) and (B5) as printed
        W, star = self._map().D, fourier.adjoint(self._map().D)
        inverse = (1 + alpha) * np.eye(self.channels) - alpha * (W + star) / 2 - (W - star) / 2
        return FourierMap(np.linalg.inv(inverse), self.size)

    plant(MonotoneConv, "resolvent", resolvent)


def half_spectrum_weighted_like_a_whole_one(plant):
    plant(dft, "shares", lambda size: np.full((size[0] // 2 + 1, size[1]), 1 / (size[0] * size[1])))


def norms_of_the_matrix_for_those_of_the_kernel(plant):
    right = conv.square
    plant(conv, "square", lambda K: 16 * right(K))


def mirror_term_missing_in_the_kernel_gradients(plant):
    right = conv.cross_spectrum
    plant(conv, "cross_spectrum", lambda y, z: (right(y, z) + right(z, y)) / 2)


def reflection_of_a_map_without_the_two(plant):
    plant(FourierMap, "cayley", lambda self: FourierMap(self.D - fourier.identity_like(self.D), self.size))


def lipschitz_constant_of_the_first_block(plant):
    right = MonotoneConv.spectral_blocks
    plant(MonotoneConv, "spectral_blocks", lambda self: right(self)[:1])


def monotonicity_as_promised(plant):
    plant(MonotoneConv, "monotonicity", lambda self: self.m)


def magnitude_with_signs(plant):
    plant(MonotoneConv, "magnitude", lambda self: self._map())


def frobenius_norm_of_the_kernel_alone(plant):
    right = MonotoneConv.frobenius
    plant(MonotoneConv, "frobenius", lambda self: right(self) / np.prod(self.size))


def rounding_left_out_of_the_certificate(plant):
    plant(certificates, "_rounding", lambda inclusion, z, product: 0 * product)


def border_that_moves(plant):
    plant(activations.ZeroBorder, "derivative", lambda self, x, alpha=1.0: self.inner.derivative(x, alpha))


def border_that_is_not_reflected(plant):
    plant(activations.ZeroBorder, "reflection", lambda self, alpha: self.inner.reflection(alpha))


def border_one_pixel_too_wide(plant):
    right, strips = activations._interior.__wrapped__, activations.ZeroBorder._strips
    plant(activations, "_interior", lambda width, shapes: right(width + 1, shapes))
    plant(activations.ZeroBorder, "_strips", lambda self, x: strips(dataclasses.replace(self, width=self.width + 1), x))


# ------------------------------------------------------------------------------------------------
# Who sees it: (bug, check, its arguments, made without the bug)


def op(name: str):
    return lambda: (OPERATORS[name](np.asarray), NUMPY)


@functools.cache
def _tanh_problem():
    return laws.problem("tanh", m=0.3, seed=3)


def problem(*more):
    return lambda: (_tanh_problem()[0].replace(), *_tanh_problem()[1:], *more)


@functools.cache
def _conv_problem(border: int | None):
    return laws.conv_problem("tanh", border=border, size=(4, 5), m=0.5, seed=3)


def conv_problem(border: int | None, *more):
    return lambda: (_conv_problem(border)[0].replace(), *_conv_problem(border)[1:], *more)


def at_the_floor():
    W = laws.conv(np.asarray, **laws.kernels(1, (1, 1), (1, 1), 0.5, (1, 1), seed=6))
    return W, np.random.default_rng(7).normal(size=(40, *W.state_shape))  # for some the computed defect is exactly 0


def of(name: str, *more):
    return lambda: (ACTIVATIONS[name], *more)


def steps(method: str):
    def make():
        W, b, activation = problem()()
        return method, mon.forward_inclusion(W, b, activation), 0.4, np.ones_like(b)

    return make


POINTS = np.array([-3.0, -0.4, 0.3, 2.0])
CONTROLS = [
    (sign_of_the_skew_part, laws.check_dense_equality, op("plain")),
    (sign_of_the_skew_part, laws.check_vjp_taylor, op("plain")),
    (m_left_out_of_w, laws.check_monotone, op("plain")),
    (m_left_out_of_w, laws.check_fixed_point, problem(None, 1e-12)),
    (g_not_divided_by_the_norm, laws.check_dense_equality, op("with g")),
    (transpose_dropped_in_rmatvec, laws.check_dot, op("plain")),
    (transpose_dropped_in_rmatvec, laws.check_resolvent, op("plain")),
    (transpose_dropped_in_rmatvec, laws.check_cayley, op("skew")),
    (transpose_dropped_in_rmatvec, laws.check_gradients_dense, problem(0.5, 1e-10)),
    (transpose_dropped_in_the_vjp, laws.check_vjp, op("plain")),
    (transpose_dropped_in_the_vjp, laws.check_vjp_taylor, op("with h")),
    (factor_two_in_da, laws.check_vjp, op("plain")),
    (factor_two_in_da, laws.check_gradients_difference, problem(0.5, 1e-10)),
    (skew_part_missing_in_db, laws.check_vjp, op("plain")),
    (quotient_rule_forgotten, laws.check_vjp, op("with g")),
    (batch_averaged_in_the_vjp, laws.check_vjp, op("plain")),
    (frobenius_norm_for_the_lipschitz_constant, laws.check_lipschitz, op("plain")),
    (replace_forgets_g, laws.check_round_trip, op("with g")),
    (resolvent_of_the_transpose, laws.check_resolvent, op("skew")),
    (resolvent_of_the_transpose, laws.check_cayley, op("plain")),
    (alpha_missing_in_the_shift, laws.check_generator, steps("peaceman-rachford")),
    (alpha_missing_in_the_shift, laws.check_generator, steps("douglas-rachford")),
    (minus_sign_of_equation_9, laws.check_generator, steps("peaceman-rachford")),
    (minus_sign_of_equation_9_in_the_fast_path, laws.check_fixed_point, problem(0.5, 1e-12)),
    (injection_forgotten_by_the_fast_path, laws.check_generator, steps("peaceman-rachford")),
    (sigma_for_the_prox, laws.check_prox, of("tanh", (0.3,), POINTS)),
    (sigma_for_the_prox, laws.check_fixed_point, problem(0.5, 1e-12)),
    (alpha_upside_down_in_the_prox, laws.check_prox, of("leaky_relu(0.3)", (4.0,), POINTS)),
    (alpha_upside_down_in_the_prox, laws.check_root, of("softplus", NUMPY, 3.0)),
    (newton_gives_up_early, laws.check_root, of("tanh", NUMPY, 1e-3)),
    (alpha_missing_in_the_derivative, laws.check_derivative, of("sigmoid", 3.0)),
    (alpha_missing_in_the_derivative, laws.check_derivative, of("leaky_relu(0.3)", 0.3)),
    (reflection_without_the_two, laws.check_reflection, of("tanh", NUMPY, 1.0)),
    (value_with_the_wrong_sign, laws.check_subgradient, of("tanh")),
    (printed_denominator, laws.check_gradients_dense, problem(0.5, 1e-10)),
    (printed_denominator_and_a_certificate_that_believes_it, laws.check_gradients_dense, problem(0.5, 1e-10)),
    (jacobian_left_out, laws.check_gradients_dense, problem(0.5, 1e-10)),
    (jacobian_left_out, laws.check_gradients_difference, problem(0.5, 1e-10)),
    (backward_with_the_forward_weight, laws.check_gradients_dense, problem(0.5, 1e-10)),
    (u_star_for_dpre, laws.check_gradients_dense, problem(0.5, 1e-10)),
    (u_star_for_dpre, laws.check_gradients_difference, problem(0.5, 1e-10)),
    (sign_of_dm, laws.check_gradients_difference, problem(0.5, 1e-10)),
    (jacobian_free_instead_of_implicit, laws.check_gradients_difference, problem(0.5, 1e-10)),
    (certificate_without_one_over_m, laws.check_certificates, problem(1.0)),
    (ball_of_half_its_radius, laws.check_certificates, problem(1.0)),
    (c2_without_its_denominator, laws.check_certificates, problem(0.2)),
    (rate_squared, laws.check_certificates, problem(1.0)),
    (strong_convexity_that_is_not_there, laws.check_certificates, problem(1.0)),
    (conjugate_dropped_in_the_adjoint_of_a_map, laws.check_dot, op("conv")),
    (conjugate_dropped_in_the_adjoint_of_a_map, laws.check_gradients_dense, conv_problem(None, None, 1e-10)),
    (conjugate_dropped_in_the_gram_matrix, laws.check_dense_equality, op("conv")),
    (conjugate_dropped_in_the_gram_matrix, laws.check_vjp, op("conv 3 x 5 with g and h")),
    (convolution_for_correlation, laws.check_dense_equality, op("conv with h")),
    (even_kernels_centred_at_half_their_side, laws.check_dense_equality, op("conv 6 x 4, kernels of 4 and 2")),
    (wrapped_entries_cut_off, laws.check_dense_equality, op("conv 3 x 2, kernels beyond the image")),
    (alpha_missing_at_b, laws.check_resolvent, op("conv")),
    (alpha_missing_at_b, laws.check_cayley, op("conv 65 x 1")),
    (half_spectrum_weighted_like_a_whole_one, laws.check_vjp, op("conv")),
    (half_spectrum_weighted_like_a_whole_one, laws.check_vjp_taylor, op("conv 3 x 5 with g and h")),
    (norms_of_the_matrix_for_those_of_the_kernel, laws.check_dense_equality, op("conv with g")),
    (mirror_term_missing_in_the_kernel_gradients, laws.check_vjp, op("conv")),
    (mirror_term_missing_in_the_kernel_gradients, laws.check_gradients_difference, conv_problem(None, None, 1e-10)),
    (reflection_of_a_map_without_the_two, laws.check_cayley, op("conv")),
    (reflection_of_a_map_without_the_two, laws.check_fixed_point, conv_problem(1, None, 1e-12)),
    (lipschitz_constant_of_the_first_block, laws.check_lipschitz, op("conv")),
    (lipschitz_constant_of_the_first_block, laws.check_spectral_blocks, op("conv 5 x 7")),
    (monotonicity_as_promised, laws.check_monotonicity, op("conv")),
    (magnitude_with_signs, laws.check_magnitude, op("conv")),
    (frobenius_norm_of_the_kernel_alone, laws.check_magnitude, op("conv 5 x 7")),
    (rounding_left_out_of_the_certificate, laws.check_floor, at_the_floor),
    (border_that_moves, laws.check_gradients_dense, conv_problem(1, None, 1e-10)),
    (border_that_is_not_reflected, laws.check_fixed_point, conv_problem(1, None, 1e-12)),
    (border_one_pixel_too_wide, laws.check_fixed_point, conv_problem(1, None, 1e-12)),
]


@pytest.mark.parametrize(
    ("bug", "check", "make"),
    CONTROLS,
    ids=[f"{bug.__name__}-{check.__name__}-{k}" for k, (bug, check, _) in enumerate(CONTROLS)],
)
def test_planted_bug_is_seen(bug, check, make, monkeypatch):
    check(*make())  # the code as it is passes
    arguments = make()
    bug(monkeypatch.setattr)
    with pytest.raises((AssertionError, ir.ConvergenceError)):
        check(*arguments)


def test_every_law_has_a_negative_control():
    controlled = {check for _, check, _ in CONTROLS}
    checks = {value for name, value in vars(laws).items() if name.startswith("check_")}
    unseen = checks - controlled - {laws.check_never_violated, laws.check_firmly_nonexpansive}
    assert not unseen, sorted(check.__name__ for check in unseen)
    with pytest.raises(AssertionError):
        laws.check_never_violated(np.array([1.0 + 1e-6]), np.array([1.0]), 1.0)


@pytest.mark.parametrize("gain", [1.5, -0.5])
def test_firm_nonexpansiveness_is_seen_to_fail(gain):
    wrong = dataclasses.replace(ACTIVATIONS["tanh"], sigma=lambda x: gain * np.tanh(x))
    with pytest.raises(AssertionError):
        laws.check_firmly_nonexpansive(wrong, NUMPY, 1.0)


def test_there_are_many_bugs():
    assert len({bug for bug, _, _ in CONTROLS}) >= 30
