"""Every checker can fail: bugs are planted one at a time, and a named check of the suite sees each of them."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import sys
from pathlib import Path

import laws
import numpy as np
import planted
import pytest
import tiered
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
# Bugs in one expression of one function: (module, function, what stands there, what is planted)

EDITS = {
    # losses, optimisers
    "sum_for_mean_in_the_gradient_of_cross_entropy": (
        "losses", "cross_entropy", "(exponentials / total - targets) / batch", "exponentials / total - targets"),
    "half_forgotten_in_the_squared_error": ("losses", "squared_error", "/ (2 * batch)", "/ batch"),
    "probabilities_that_do_not_sum_to_one": (
        "losses", "cross_entropy", "total = xp", "total = 1 + xp"),
    "second_moment_without_its_square": ("optimisers", "adam_step", "g * g", "abs(g)"),
    "bias_correction_of_adam_left_out": (
        "optimisers", "adam_step", "learning_rate * root / (1 - beta1 ** t)", "learning_rate"),
    "momentum_on_the_wrong_side": (
        "optimisers", "sgd_step", "momentum * state.velocity[k] + g", "state.velocity[k] + momentum * g"),
    # layers
    "kernel_not_flipped_in_the_adjoint": (
        "layers.conv", "conv2d_vjp", "namespace(weight).flip(weight, axis=(2, 3))", "weight"),
    "channels_not_exchanged_in_the_adjoint": ("layers.conv", "conv2d_vjp", "(1, 0, 2, 3)", "(0, 1, 2, 3)"),
    "adjoint_of_a_convolution_one_pixel_off": (
        "layers.conv", "conv2d_vjp", "-at.start[0] - (at.kernel[0] - 1)", "-at.start[0] - at.kernel[0]"),
    "mean_for_sum_in_the_gradient_of_a_bias": (
        "layers.affine", "affine_vjp_params", "xp.sum(dy, axis=0)", "xp.mean(dy, axis=0)"),
    "batch_norm_blind_to_its_own_mean": (
        "layers.norm", "batch_norm_through_moments_vjp", "order.over(shift)", "0 * order.over(shift)"),
    "batch_norm_blind_to_its_own_variance": (
        "layers.norm", "batch_norm_through_moments_vjp", "-inverse * slope", "0 * slope"),
    "eps_outside_the_root": (
        "layers.norm", "_slope", "namespace(var).sqrt(var + eps)", "(namespace(var).sqrt(var) + eps)"),
    "running_variance_biased": ("layers.norm", "running_moments", "moments[1] * (count / (count - 1))", "moments[1]"),
    "moments_of_one_part": ("layers.norm", "_moments", "spread / count", "spread / values_a_channel(x)"),
    "ties_of_a_window_counted_twice": ("layers.pool", "_max_pool_vjp_in_place", "hit &= free", "pass"),
    "bias_at_another_point": ("layers.winograd", "correlation", "M[1, :, 1] += bias", "M[1, :, 2] += bias"),
    "tiles_of_one_row_only": ("layers.winograd", "adjoints", ".sum(axis=1)", "[:, 0]"),
    "average_pool_as_a_sum": ("layers.pool", "average_pool_vjp", " / (kernel[0] * kernel[1])", " / 1"),
    "borders_not_folded_back": ("layers.windows", "folded", " + spread(last, axis, size - p, size)", ""),
    # several tiers
    "norms_of_the_strided_kernels_left_out": ("operators.multitier", "_scaled", "c * K / square(K) ** 0.5", "c * K"),
    "root_of_g_forgotten": (
        "operators.multitier", "MonotoneMultiTier._factors", "value ** 0.5 if scale in ROOTED else value", "value"),
    "one_product_for_two_below_the_diagonal": ("operators.cascade", "weight", "-2.0", "-1.0"),
    "gram_matrix_of_the_strided_kernel_left_out": (
        "operators.cascade", "_diagonal", "D if tier.S is None else D - adjoint(tier.S) @ tier.S", "D"),
    "alpha_missing_in_what_is_passed_on": ("operators.cascade", "resolvent", "-2.0 * alpha", "-2.0"),
    "alpha_for_its_root_at_the_strided_kernel": ("operators.cascade", "_inverse", "alpha ** 0.5", "alpha"),
    "adjoint_missing_in_the_gradient_of_a": ("operators.cascade", "vjp_from", "H + adjoint(H)", "2 * H"),
    "tiers_above_forgotten_in_the_gradient_of_a": (
        "operators.cascade", "vjp_from", "dA - 2 * blocks(down[i - 1], grid.coarse)", "dA"),
    "correlations_kept_at_half_their_lags": ("operators.cascade", "_at_lags", "-(-d // r)", "(d // (2 * r))"),
    "transposed_tiers_fed_by_the_wrong_side": (
        "operators.cascade", "Stage.apply_transposed", "else x if self.before else z", "else z if self.before else x"),
    # strided convolutions
    "square_of_the_stride_times_the_square_of_the_side": (
        "operators.strided", "coupled_inverse", "r ** 2 *", "s ** 2 * r ** 2 *"),
    "shuffle_for_its_transpose": ("operators.strided", "gather", "S.T @ J", "S @ J"),
    "fourier_matrix_not_unitary": ("operators.strided", "dft", "math.sqrt(s)", "s"),
    "stride_missing_in_the_alias_form": (
        "operators.strided", "alias_inverse", "math.prod(stride) * identity_like(M) + M", "identity_like(M) + M"),
    "conjugate_missing_in_the_alias_form": (
        "operators.strided", "AliasInverse.matvec", "adjoint(B)", "adjoint(B).conj()"),
    # splittings
    "forward_step_with_a_plus": (
        "splitting.iterations", "forward_backward", "z - alpha * inclusion.A(z)", "z + alpha * inclusion.A(z)"),
    "half_step_not_reflected": ("splitting.iterations", "peaceman_rachford", "2 * z_half - u_half", "z_half"),
    "douglas_rachford_not_averaged": ("splitting.iterations", "_douglas_rachford_map", "(u + C(u)) / 2", "C(u)"),
    "class_bound_without_its_two": ("splitting.rates", "forward_backward_class", "2 * alpha * m", "alpha * m"),
    "class_bound_with_two_for_four": ("splitting.rates", "peaceman_rachford_class", "4 * alpha * m", "2 * alpha * m"),
    "cocoercivity_from_half_of_the_symmetric_part": (
        "splitting.rates", "cocoercivity", "(V.T @ GV + GV.T @ V) / 2", "(V.T @ GV + GV.T @ V) / 4"),
    "a_step_from_zero_that_hands_out_its_constant": (
        "operators.linear", "about", "result.copy(order='K')", "result"),
    "limit_from_one_inverse": ("splitting.rates", "forward_backward_limit", "inverse + _adjoint(inverse)", "inverse"),
    "c3_with_rho_for_one_minus_rho": ("splitting.certificates", "distance_from_step", "rho / (1 - rho)", "rho"),
    "b1_without_its_one": (
        "splitting.certificates", "adjoint_state_bound", "1 + norm_W / inclusion.m", "norm_W / inclusion.m"),
    # fixed points
    "off_by_one_neumann": ("fixed_point.rules", "neumann", "range(k)", "range(k - 1)"),
    "gradient_rule_without_the_transpose": (
        "fixed_point.maps", "OneLayer.linearise", "jac * g @ self.W", "(jac * g) @ self.W.T"),
    "slope_before_the_transposed_weight": (
        "fixed_point.maps", "OneLayer.linearise", "jac * g @ self.W", "jac * (g @ self.W)"),
    "gamma_for_its_power_in_the_threshold": (
        "fixed_point.theory", "descent_threshold", "_factor(gamma) ** (k + 1)", "_factor(gamma)"),
    "gamma_for_gamma_squared": ("fixed_point.theory", "descent_constant", "gamma ** 2", "gamma"),
    "interval_without_gamma": ("fixed_point.theory", "residual_interval", "r / (1 - gamma)", "r"),
    "neumann_bound_one_power_too_high": ("fixed_point.theory", "neumann_error", "k + 1", "k + 2"),
    "reflection_of_the_slope_without_the_one": (
        "fixed_point.maps", "PeacemanRachford.linearise", "derivative(u, self.alpha) - 1", "derivative(u, self.alpha)"),
    "alpha_missing_in_the_gradient_of_a_step": (
        "fixed_point.maps", "ForwardBackward.vjp_params", "self.alpha * self._slope", "self._slope"),
    # well-posedness
    "column_sums_for_row_sums": ("well_posed", "norm_inf", "axis=1", "axis=0"),
    "threshold_of_the_projection_one_entry_late": (
        "well_posed", "project", "(sums - radius) / counts", "(sums - radius) / (counts + 1)"),
    "adjoint_bound_of_the_forward_matrix": ("well_posed", "adjoint_bound", "namespace(A).matrix_transpose(A)", "A"),
    "signed_matrix_in_the_perron_bound": ("well_posed", "_comparison", "xp.abs(A)", "A"),
    "negative_pivots_forgiven": ("well_posed", "_is_p", "nodes[:, 0, 0] < -errors[:, 0, 0]", "nodes[:, 0, 0] < -9"),
    "picard_with_the_transposed_matrix": ("well_posed", "picard", "namespace(A).matrix_transpose(A)", "A"),
    # block-triangular models
    "slope_forgotten_in_substitution": (
        "sequential.model", "BlockTriangularModel.features_vjp", "jac[s, :] * dz", "dz"),
    "mask_forgotten_in_the_gradient": (
        "sequential.model", "BlockTriangularModel.features_vjp", "dpre @ z * self.mask()", "dpre @ z"),
    "other_block_fed_back": (
        "sequential.model", "BlockTriangularModel.features_vjp", ":, :] + xp.matrix", ":, :] - xp.matrix"),
    "remainder_lost_in_the_partition": ("sequential.model", "partition", "order - size * (n_blocks - 1)", "size"),
    "self_loop_of_the_input_forgotten": ("sequential.theorems", "remove_self_loops", "B / (1 - a)", "B"),
    "self_loops_not_differentiated": (
        "sequential.theorems", "remove_self_loops_vjp", "loops * _identity(A)", "0 * loops * _identity(A)"),
    "eps_for_one_minus_eps": (
        "sequential.theorems", "add_self_loops", "(1 - scale) * _identity(gamma)", "scale * _identity(gamma)"),
    "slope_of_the_shallow_problem_at_z": (
        "sequential.problem", "value_and_gradients", "derivative(pre)", "derivative(z[:, :problem.units])"),
    "ridge_not_squared_with_s": ("sequential.least_squares", "_solved", "s * s + ridge", "s * s + ridge * ridge"),
    "rank_of_least_squares_ignored": (
        "sequential.least_squares", "_solved", "s > max(z.shape) * eps(z) * s[0]", "s > -1"),
    # networks
    "solution_of_another_pre_activation": (
        "networks.mon", "MonNetwork._jacobian", "self.activation.root(forward.u, forward.alpha)", "forward.z"),
    "pooled_features_as_sums": (
        "networks.ends", "Images.features", "average_pool(last, self.pool)", "4 * average_pool(last, self.pool)"),
    "m_with_the_sign_of_w": ("mon", "equilibrium_vjp", "-inner(dpre, z)", "inner(dpre, z)"),
    "adjoint_state_without_its_cotangent": ("mon", "adjoint_state", "dz + W.rmatvec(dpre)", "W.rmatvec(dpre)"),
    "root_of_the_adjoint_without_its_cotangent": ("mon", "AdjointProx.root", " - self.dz", ""),
}  # fmt: skip


def edit(name):
    def bug(plant):
        function, code = planted.edited(*EDITS[name])
        plant(function, "__code__", code)

    bug.__name__ = name
    return bug


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


def suite(path, name, *arguments):
    """A test of another file as a check, and its arguments; of a Hypothesis test one example."""
    return functools.partial(_test, path, name), lambda: arguments


def _test(path, name, *arguments):
    test = getattr(_module(path), name)
    getattr(getattr(test, "hypothesis", None), "inner_test", test)(*arguments)


@functools.cache
def _module(path):
    spec = importlib.util.spec_from_file_location(
        f"seen_{path.replace('/', '_')}", Path(__file__).parent / f"{path}.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def tiered_case(law, case):
    return law, lambda: (tiered.tiers(np.asarray, **tiered.CASES[case]), NUMPY)


def differences(layer):
    return suite("layers/test_laws", "test_adjoints_against_differences", layer)


ROTATION = np.array([[1.0, -2.0], [2.0, 1.0]]), 1.0
TWO, MANY = "two tiers, scales", "three tiers, even kernels"
RULES, MAPS, THEORY = "fixed_point/test_rules", "fixed_point/test_maps", "fixed_point/test_theory"
POSED, MODEL, LOOPS = "test_well_posed", "sequential/test_model", "sequential/test_theorems"
SOLVED = "sequential/test_training"
BILINEAR = (2, 3, 4, 5), (2, 3, 3, 3), (1, 1), "zeros"  # more than one tile a way
SEEN = {
    "sum_for_mean_in_the_gradient_of_cross_entropy": suite(
        "test_losses", "test_gradient_against_differences", "cross_entropy"),
    "half_forgotten_in_the_squared_error": suite("test_losses", "test_squared_error", NUMPY),
    "probabilities_that_do_not_sum_to_one": suite("test_losses", "test_cross_entropy", NUMPY),
    "second_moment_without_its_square": suite(
        "training/test_optimisers", "test_adam_is_pytorchs", (1e-3, 0.9, 0.999, 1e-8)),
    "bias_correction_of_adam_left_out": suite(
        "training/test_optimisers", "test_adam_is_pytorchs", (1e-3, 0.9, 0.999, 1e-8)),
    "momentum_on_the_wrong_side": suite("training/test_optimisers", "test_sgd_is_pytorchs", 0.9),
    "kernel_not_flipped_in_the_adjoint": differences("conv"),
    "channels_not_exchanged_in_the_adjoint": differences("residual"),
    "adjoint_of_a_convolution_one_pixel_off": differences("conv, stride"),
    "mean_for_sum_in_the_gradient_of_a_bias": differences("affine"),
    "batch_norm_blind_to_its_own_mean": differences("batch norm, training"),
    "batch_norm_blind_to_its_own_variance": differences("batch norm, training, vectors"),
    "eps_outside_the_root": suite(
        "layers/test_laws", "test_values_adjoints_and_statistics_are_those_of_pytorch", "batch norm, evaluation"),
    "running_variance_biased": suite(
        "layers/test_laws", "test_values_adjoints_and_statistics_are_those_of_pytorch", "batch norm, training"),
    "moments_of_one_part": suite("training/test_team", "test_batch_norm_of_parts_is_that_of_the_whole", [2, 3], 0.0, 0),
    "bias_at_another_point": suite(
        "layers/test_winograd", "test_the_form_is_the_sums_and_their_adjoints", BILINEAR, 1, 0),
    "tiles_of_one_row_only": suite(
        "layers/test_winograd", "test_the_form_is_the_sums_and_their_adjoints", BILINEAR, 2**18, 0),
    "ties_of_a_window_counted_twice": suite("layers/test_laws", "test_ties_go_to_the_first_of_the_window"),
    "average_pool_as_a_sum": differences("average pool"),
    "borders_not_folded_back": differences("conv, circular"),
    "norms_of_the_strided_kernels_left_out": tiered_case(laws.check_dense_equality, TWO),
    "root_of_g_forgotten": tiered_case(laws.check_dense_equality, "two tiers, g alone"),
    "one_product_for_two_below_the_diagonal": tiered_case(laws.check_dense_equality, MANY),
    "gram_matrix_of_the_strided_kernel_left_out": tiered_case(laws.check_monotone, MANY),
    "alpha_missing_in_what_is_passed_on": tiered_case(laws.check_resolvent, MANY),
    "alpha_for_its_root_at_the_strided_kernel": tiered_case(laws.check_resolvent, "stride 3"),
    "adjoint_missing_in_the_gradient_of_a": tiered_case(laws.check_vjp, MANY),
    "tiers_above_forgotten_in_the_gradient_of_a": tiered_case(laws.check_vjp, TWO),
    "correlations_kept_at_half_their_lags": tiered_case(laws.check_vjp, TWO),
    "transposed_tiers_fed_by_the_wrong_side": tiered_case(laws.check_dot, "stride by axis"),
    "square_of_the_stride_times_the_square_of_the_side": suite(
        "operators/test_strided", "test_proposition_c1_in_matrices", 1, 1, 2, 2),
    "shuffle_for_its_transpose": suite("operators/test_strided", "test_the_matrices_of_the_proof", 6, 3),
    "fourier_matrix_not_unitary": suite("operators/test_strided", "test_unitary_dft_and_the_printed_one"),
    "stride_missing_in_the_alias_form": suite(
        "operators/test_multitier", "test_the_form_tier_by_tier_on_every_case", TWO),
    "conjugate_missing_in_the_alias_form": suite(
        "operators/test_multitier", "test_the_form_tier_by_tier_on_every_case", MANY),
    "forward_step_with_a_plus": (laws.check_generator, steps("forward-backward")),
    "half_step_not_reflected": (laws.check_generator, steps("peaceman-rachford")),
    "douglas_rachford_not_averaged": (laws.check_generator, steps("douglas-rachford")),
    "class_bound_without_its_two": suite(
        "splitting/test_rates", "test_class_bound_is_attained_by_a_scaled_rotation", 0.1, 1.0, 2.0),
    "class_bound_with_two_for_four": suite(
        "splitting/test_rates", "test_class_bound_is_attained_by_a_scaled_rotation", 0.1, 1.0, 2.0),
    "cocoercivity_from_half_of_the_symmetric_part": suite(
        "splitting/test_rates", "test_a_dozen_products_find_the_cocoercivity_of_a_large_operator", 1.0),
    "a_step_from_zero_that_hands_out_its_constant": suite(
        "splitting/test_iterations", "test_a_step_from_zero_is_what_the_others_are", "dense", np.float64),
    "limit_from_one_inverse": suite(
        "splitting/test_rates", "test_forward_backward_limit_is_sharp_and_no_smaller_than_the_papers", ROTATION),
    "c3_with_rho_for_one_minus_rho": suite("splitting/test_certificates", "test_c3_is_attained", 0.2),
    "b1_without_its_one": suite("splitting/test_certificates", "test_b1_is_attained"),
    "off_by_one_neumann": suite(RULES, "test_neumann_is_backpropagation_through_k_plus_one_steps", 2, 0),
    "gradient_rule_without_the_transpose": suite(RULES, "test_implicit_gradient_is_the_derivative_of_the_loss", 0),
    "slope_before_the_transposed_weight": suite(
        MAPS, "test_jacobian_products_against_differences_and_each_other", "one layer"),
    "gamma_for_its_power_in_the_threshold": suite(THEORY, "test_the_worst_case_turns_at_the_threshold", 0.8, 1),
    "gamma_for_gamma_squared": suite(THEORY, "test_the_descent_constant_is_the_least", 0.8, 4.0),
    "interval_without_gamma": suite(
        "fixed_point/test_iteration", "test_the_bound_holds_for_every_sample_and_every_iterate", 0, 0.9, 1e-6),
    "neumann_bound_one_power_too_high": suite(RULES, "test_neumann_error_is_attained"),
    "reflection_of_the_slope_without_the_one": suite(
        MAPS, "test_jacobian_products_against_differences_and_each_other", "Peaceman-Rachford"),
    "alpha_missing_in_the_gradient_of_a_step": suite(
        MAPS, "test_steps_of_a_mon_have_its_equilibrium_and_its_gradients",
        ir.fixed_point.ForwardBackward, ir.activations.tanh),
    "column_sums_for_row_sums": suite(POSED, "test_projection_is_the_nearest_matrix", 0, 10, 0.9, 0),
    "threshold_of_the_projection_one_entry_late": suite(POSED, "test_projection_is_the_nearest_matrix", 0, 5, 0.9, 0),
    "adjoint_bound_of_the_forward_matrix": suite(POSED, "test_adjoint_bound_holds_and_is_attained", 0, 4),
    "signed_matrix_in_the_perron_bound": suite(POSED, "test_bound_holds_for_any_state", ir.activations.tanh),
    "negative_pivots_forgiven": suite(POSED, "test_p_matrix_test_against_all_minors", 5, 3, False),
    "picard_with_the_transposed_matrix": suite(
        POSED, "test_picard_finds_the_solution_from_any_start", ir.activations.relu),
    "slope_forgotten_in_substitution": suite(
        MODEL, "test_gradients_against_central_differences", (3, 3, 5), ir.activations.tanh),
    "mask_forgotten_in_the_gradient": suite(
        MODEL, "test_gradients_against_implicit_differentiation", ir.activations.tanh),
    "other_block_fed_back": suite(MODEL, "test_gradients_against_implicit_differentiation", ir.activations.tanh),
    "remainder_lost_in_the_partition": suite(MODEL, "test_partition_takes_the_floor_and_gives_the_rest_to_the_last"),
    "self_loop_of_the_input_forgotten": suite(LOOPS, "test_explicit_rows_have_the_features_of_implicit_ones", 0),
    "self_loops_not_differentiated": suite(LOOPS, "test_gradients_against_differences_and_implicit_differentiation", 0),
    "eps_for_one_minus_eps": suite(LOOPS, "test_round_trip_of_a_strict_model", 0.1),
    "slope_of_the_shallow_problem_at_z": suite(
        SOLVED, "test_gradients_against_differences", "squared", ir.activations.tanh, 3),
    "ridge_not_squared_with_s": suite(SOLVED, "test_ridge_is_least_squares_with_rows_more", 10.0),
    "rank_of_least_squares_ignored": suite(SOLVED, "test_least_squares_whatever_the_rank", 30, 8, 3),
    "solution_of_another_pre_activation": suite(
        "test_networks", "test_gradient_of_every_parameter_is_the_derivative", ir.activations.tanh, {}),
    "pooled_features_as_sums": suite(
        "test_image_networks", "test_relu_networks_have_the_gradient_of_their_own_loss", "conv"),
    "m_with_the_sign_of_w": (laws.check_gradients_difference, problem(0.5, 1e-10)),
    "adjoint_state_without_its_cotangent": suite("test_mon", "test_zero_of_the_backward_inclusion", "plain"),
    "root_of_the_adjoint_without_its_cotangent": (laws.check_gradients_dense, problem(0.5, 1e-10)),
}  # fmt: skip
CONTROLS += [(edit(name), *seen) for name, seen in SEEN.items()]


@pytest.mark.parametrize(
    ("bug", "check", "make"),
    CONTROLS,
    ids=[f"{bug.__name__}-{k}" for k, (bug, *_) in enumerate(CONTROLS)],
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


def test_there_are_many_bugs_in_many_modules():
    assert set(SEEN) == set(EDITS)
    assert len({bug.__name__ for bug, _, _ in CONTROLS}) >= 100
    assert len({module for module, *_ in EDITS.values()}) >= 20
    table = (Path(__file__).parents[1] / "docs" / "evidence-mutants.md").read_text(encoding="utf-8")
    rows = {line.split(" | ")[0].removeprefix("| ") for line in table.splitlines() if line.startswith("| ")}
    assert {bug.__name__.replace("_", " ") for bug, _, _ in CONTROLS} <= rows
