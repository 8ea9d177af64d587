"""Equilibria of convolutional networks: definitions, dense formulas, differences, certificates (MON section 4.2)."""

from __future__ import annotations

import laws
import numpy as np
import oracles
import pytest
import strategies
from hypothesis import example, given
from hypothesis import strategies as st
from laws import ACTIVATIONS
from oracles import assert_close, size

import implicitref as ir
from implicitref.splitting import rates

SHAPES = {
    "circular": {},
    "circular with g and h": {"g": 0.8, "h": 1.2},
    "rectangular, odd, even kernels": {"size": (3, 5), "A": (2, 2), "B": (4, 3), "h": -0.9},
    "kernels beyond the image": {"size": (2, 3), "A": (5, 4), "B": (3, 7), "g": 1.4},
    "zero-padded": {"size": (5, 6), "border": 1},
    "zero-padded with g and h": {"size": (5, 5), "border": 1, "g": 1.1, "h": 0.7},
    "zero-padded by 2": {"n": 1, "size": (7, 6), "A": (5, 5), "B": (5, 4), "border": 2},
}
SMOOTH_AND_NOT = ("relu", "leaky_relu(0.3)", "tanh", "softplus", "elu(0.5)", "soft_threshold(0.5)")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", SMOOTH_AND_NOT)
@pytest.mark.claim("MON-Thm2")
@pytest.mark.claim("MON-Thm3")
@pytest.mark.claim("MON-Sec4.2-padding")
def test_defect_and_every_gradient(name, shape):
    W, b, activation = laws.conv_problem(name, m=0.5, seed=40, **SHAPES[shape])
    laws.check_fixed_point(W, b, activation, None, 2e-12)
    laws.check_gradients_dense(W, b, activation, None, 5e-12)
    laws.check_gradients_difference(W, b, activation, None, 5e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("alpha", [0.2, 3.0])
def test_certificates_hold(shape, alpha):
    laws.check_certificates(*laws.conv_problem("tanh", m=0.5, seed=41, **SHAPES[shape]), alpha)


@pytest.mark.parametrize("shape", ["circular with g and h", "zero-padded"])
@pytest.mark.parametrize("method", ["forward-backward", "peaceman-rachford", "douglas-rachford"])
@pytest.mark.claim("MON-Alg1")
@pytest.mark.claim("MON-Alg3")
def test_every_method_forward_and_backward(method, shape):
    W, b, activation = laws.conv_problem("tanh", seed=42, **SHAPES[shape])
    solution = ir.mon.equilibrium(W, b, activation, method=method, tol=1e-10, max_iter=20000)
    z = laws.exact(W, b, activation)
    error = np.linalg.norm(laws.flat(solution.z - z), axis=1)
    assert (error <= solution.bound).all()
    assert (solution.bound <= 1e-10).all()
    dz = np.random.default_rng(3).normal(size=b.shape)
    grads, back = ir.mon.equilibrium_vjp(W, b, activation, z, dz, method=method, tol=1e-10, max_iter=20000)
    jac = laws.sigma_of(activation, W)["slope"](laws.flat(z) @ W.to_dense().T + laws.flat(b))
    dpre = oracles.implicit_dpre(W.to_dense(), jac, laws.flat(dz))
    assert_close(laws.flat(grads["injection"]), dpre, scale=1, tol=1e-10)
    np.testing.assert_array_equal(back.z, grads["injection"])
    assert solution.residuals.shape == (solution.iterations, 2)


def test_picard_on_a_contraction():
    W, b, tanh = laws.conv_problem("tanh", seed=43)
    small = W.replace(A=W.A * 0.3, B=W.B * 0.3)
    assert np.linalg.norm(small.to_dense(), 2) < 1
    z = ir.mon.equilibrium(small, b, tanh, method="picard", tol=1e-11).z
    assert_close(z, laws.exact(small, b, tanh), scale=1, tol=1e-11)


@pytest.mark.parametrize("method", laws.METHODS)
@pytest.mark.parametrize("shape", ["circular", "zero-padded with g and h"])
def test_the_same_generators(method, shape):
    W, b, activation = laws.conv_problem("relu", seed=44, **SHAPES[shape])
    small = W.replace(A=W.A * 0.3, B=W.B * 0.3) if method == "picard" else W
    laws.check_generator(method, ir.mon.forward_inclusion(small, b, activation), 0.4, np.ones_like(b))


# ------------------------------------------------------------------------------------------------
# Zero padding


@pytest.mark.claim("MON-Sec4.2-padding")
@pytest.mark.parametrize("k", [2, 3, 5])
def test_zero_padding_solves_the_network_of_the_interior(k):
    # the equilibrium on the padded image is that of the interior alone, border exactly zero, gradients too
    W = laws.conv(np.asarray, **laws.kernels(2, (k, k), (k, k), 1.0, (4 + 2 * (k // 2), 5 + 2 * (k // 2)), seed=45))
    border = ir.operators.zero_padded(W, ir.activations.tanh)
    p = border.width
    assert p == k // 2
    inside = np.zeros(W.state_shape, bool)
    inside[:, p:-p, p:-p] = True
    b = np.random.default_rng(46).normal(size=(2, *W.state_shape))
    z = ir.mon.equilibrium(W, b, border, tol=1e-12).z
    interior = W.to_dense()[np.ix_(inside.ravel(), inside.ravel())]
    desired = oracles.newton_equilibria(interior, b[:, inside], "tanh", z[:, inside])
    assert_close(z[:, inside], desired, scale=1, tol=1e-12)
    assert (z[:, ~inside] == 0).all()
    grads, _ = ir.mon.equilibrium_vjp(W, b, border, z, np.ones_like(z), tol=1e-12)
    assert (grads["injection"][:, ~inside] == 0).all()
    other = b + 100.0 * ~inside  # what enters on the border is never seen
    np.testing.assert_array_equal(ir.mon.equilibrium(W, other, border, tol=1e-12).z[:, ~inside], 0.0)
    assert_close(ir.mon.equilibrium(W, other, border, tol=1e-11).z, z, scale=1, tol=2e-11)


# ------------------------------------------------------------------------------------------------
# Certificates at the rounding floor

EXTENDED = pytest.mark.skipif(np.finfo(np.longdouble).eps > 1e-18, reason="longdouble is float64 on this platform")


@EXTENDED
@pytest.mark.claim("NEW-cert-C1")
@given(
    seed=strategies.seeds,
    shape=st.tuples(st.integers(1, 4), st.integers(1, 5)),
    sides=st.tuples(*[st.integers(1, 5)] * 4),
    n=st.integers(1, 2),
    m=st.sampled_from([0.01, 1.0, 10.0]),
    large=st.tuples(*[st.sampled_from([1e-3, 1.0, 1e3])] * 3),
    tol=st.sampled_from([1e-10, 1e-13, 1e-17]),
    mean=st.booleans(),
)
@example(seed=0, shape=(1, 1), sides=(1, 1, 1, 1), n=1, m=1.0, large=(1.0, 1.0, 1.0), tol=1e-17, mean=False)
def test_certificates_cover_the_rounding(seed, shape, sides, n, m, large, tol, mean):
    params = laws.kernels(n, sides[:2], sides[2:], m, shape, seed)
    if mean:  # A z nearly vanishes for smooth z, and its rounding does not
        params["A"] -= params["A"].mean(axis=(2, 3), keepdims=True)
    W = laws.conv(np.asarray, **(params | {"A": params["A"] * large[0], "B": params["B"] * large[1]}))
    b = np.random.default_rng(seed).normal(size=(2, *W.state_shape)) * large[2]
    laws.check_floor(W, np.abs(b) if mean else b, tol=tol)


@EXTENDED
@pytest.mark.parametrize("large", [1e3, 1e6, 1e9])
def test_certificates_know_of_a_large_symmetric_part_of_b(large):
    # W sees B - B' alone; transforming B first would round at the size of the symmetric part
    params, rng = laws.kernels(seed=47, m=1.0), np.random.default_rng(48)
    symmetric = rng.normal(size=params["B"].shape) * large
    symmetric += np.flip(symmetric, axis=(2, 3)).transpose(1, 0, 2, 3)
    W = laws.conv(np.asarray, **(params | {"B": params["B"] + symmetric}))
    solution = laws.check_floor(W, rng.normal(size=(2, *W.state_shape)), tol=1e-17)
    assert (solution.bound < 1e-12).all()


@EXTENDED
def test_float32_states_are_certified_at_their_own_rounding():
    W, b, _ = laws.conv_problem("relu", seed=49)
    narrow = laws.moved(W, lambda p: np.asarray(p, np.float32))
    solution = laws.check_floor(narrow, b.astype(np.float32), tol=2e-5)
    assert solution.z.dtype == np.float32
    assert solution.converged.all()


# ------------------------------------------------------------------------------------------------
# One operator, two forms


def test_a_convolution_of_one_pixel_is_a_dense_network():
    params = laws.factors(3, seed=50, g=0.8, h=1.1)
    images = {name: params[name][:, :, None, None] for name in ("A", "B")}
    W, D = laws.conv(np.asarray, **(params | images), size=(1, 1)), laws.dense(np.asarray, **params)
    b, dz = np.random.default_rng(51).normal(size=(2, 4, 3))
    z = ir.mon.equilibrium(D, b, ir.activations.relu, tol=1e-12).z
    found = ir.mon.equilibrium(W, b[:, :, None, None], ir.activations.relu, tol=1e-12).z
    assert_close(found[:, :, 0, 0], z, scale=1, tol=2e-12)
    grads, _ = ir.mon.equilibrium_vjp(D, b, ir.activations.relu, z, dz, tol=1e-12)
    there, _ = ir.mon.equilibrium_vjp(W, b[..., None, None], ir.activations.relu, found, dz[..., None, None], tol=1e-12)
    for name, gradient in grads.items():
        assert_close(there[name].reshape(gradient.shape), gradient, scale=size(gradient), tol=1e-11)


@pytest.mark.parametrize("name", [name for name in laws.OPERATORS if name.startswith("conv")])
def test_rates_from_the_blocks_are_those_of_the_matrix(name):
    W = laws.OPERATORS[name](np.asarray)
    blocks, matrix = rates.gap(W), np.eye(laws.count(W)) - W.to_dense()
    for of in (lambda G: rates.constants(G)[0], lambda G: rates.constants(G)[1], rates.forward_backward_limit):
        assert_close(of(blocks), of(matrix), scale=of(matrix) + 1, tol=1e-10)
    for alpha in (0.1, 1.0):
        for method in laws.METHODS:
            assert_close(rates.factor(blocks, method, alpha), rates.factor(matrix, method, alpha), scale=4, tol=1e-11)
        of = rates.peaceman_rachford_h
        assert_close(of(blocks, alpha), of(matrix, alpha), scale=of(matrix, alpha), tol=1e-9)
    for method in laws.METHODS:
        best, dense = (rates.search(G, W.m, method) for G in (blocks, matrix))
        assert rates.factor(matrix, method, best) <= rates.factor(matrix, method, dense) + 1e-5
    transposed = rates.gap(ir.operators.Transpose(W))
    assert_close(rates.constants(transposed)[1], rates.constants(matrix)[1], scale=size(matrix), tol=1e-12)


def test_advice_beyond_the_affordable_spectrum(monkeypatch):
    monkeypatch.setattr(rates, "EXACT_UP_TO", 1)
    W, b, relu = laws.conv_problem("relu", seed=52)
    W = W.replace(A=3 * W.A)
    L = W.lipschitz()
    best = rates.best_alpha(W, "peaceman-rachford")
    assert best > 5 / L  # by the cocoercivity
    steps = (ir.mon.equilibrium(W, b, relu, alpha=alpha, tol=1e-6).iterations for alpha in (best, 1 / L))
    assert next(steps) < next(steps) / 2
    assert rates.best_alpha(W, "forward-backward") == W.m / L**2
    with pytest.raises(ir.ConvergenceError, match=rf"guaranteed only for alpha < {2 * W.m / L**2:.4g}") as caught:
        ir.mon.equilibrium(W, b, relu, method="forward-backward", alpha=10.0, max_iter=50)
    assert not caught.value.solution.converged.any()


@given(seed=strategies.seeds, shift=st.tuples(st.integers(0, 3), st.integers(0, 4)))
def test_equilibria_shift_with_their_inputs(seed, shift):
    W = laws.conv(np.asarray, **laws.kernels(size=(4, 5), m=1.0, seed=seed))
    b = np.random.default_rng(seed).normal(size=(1, 2, 4, 5))
    z, moved = (ir.mon.equilibrium(W, x, ACTIVATIONS["tanh"], tol=1e-11).z for x in (b, np.roll(b, shift, axis=(2, 3))))
    assert_close(moved, np.roll(z, shift, axis=(2, 3)), scale=1, tol=3e-11)


# ------------------------------------------------------------------------------------------------
# What users pass


@pytest.mark.parametrize("border", [None, 1])
def test_every_backend_gives_the_numpy_answer(border, backend):
    if border and backend.name == "jax":
        pytest.skip("JAX compiles every shape anew")
    W, b, relu = laws.conv_problem("relu", border=border, seed=53, size=(4, 5), g=0.9, h=1.1)
    dz = np.random.default_rng(54).normal(size=b.shape)
    tol = {"numpy-float32": 3e-5, "strict-no_float64": 5e-4}.get(backend.name, 1e-9)  # the floor of their certificates
    z = laws.exact(W, b, relu)
    grads, _ = ir.mon.equilibrium_vjp(W, b, relu, z, dz, tol=1e-11)
    there = laws.moved(W, backend)
    solution = ir.mon.equilibrium(there, backend(b), relu, tol=tol)
    assert solution.z.dtype == backend(b).dtype
    assert_close(backend.numpy(solution.z), z, scale=1, tol=tol + 1e2 * backend.eps)
    found, _ = ir.mon.equilibrium_vjp(there, backend(b), relu, solution.z, backend(dz), tol=tol)
    for key, gradient in found.items():
        assert gradient.dtype == backend(b).dtype
        assert_close(backend.numpy(gradient), grads[key], scale=10 * size(grads[key]), tol=tol + 1e2 * backend.eps)


@pytest.mark.parametrize(
    ("argument", "value", "error", "message"),
    [
        ("injection", np.ones((2, 4, 4)), ir.ShapeError, r"Add the batch axis: injection\[None\]"),
        ("injection", np.ones((2, 32)), ir.ShapeError, r"injection must have shape \(batch, 2, 4, 4\); got \(2, 32\)"),
        ("injection", np.ones((2, 2, 4, 5)), ir.ShapeError, "injection must have shape"),
        ("injection", np.ones((2, 2, 4, 4), np.float16), ir.HypothesisError, "injection must be float32 or float64"),
        ("injection", np.full((2, 2, 4, 4), np.nan), ir.HypothesisError, "injection must be finite; it holds 64"),
        ("z", np.ones((2, 2, 4, 5)), ir.ShapeError, "z must have the shape of injection"),
        ("dz", np.ones((1, 2, 4, 4)), ir.ShapeError, "dz must have the shape of injection"),
        ("dz", np.full((2, 2, 4, 4), np.inf), ir.HypothesisError, "dz must be finite"),
        ("start", np.ones((2, 32)), ir.ShapeError, "start must have the shape of injection"),
    ],
)
def test_bad_states_are_refused_by_name(argument, value, error, message):
    W, b, relu = laws.conv_problem("relu", seed=55)
    given_ = {"injection": b, "z": b, "dz": b, "start": b} | {argument: value}
    with pytest.raises(error, match=message):
        ir.mon.equilibrium_vjp(W, activation=relu, **given_)


def test_nothing_is_mutated_and_states_are_independent():
    W, b, relu = laws.conv_problem("relu", seed=56, batch=3)
    before = b.copy()
    solution = ir.mon.equilibrium(W, b, relu, tol=1e-10, keep=True)
    np.testing.assert_array_equal(b, before)
    assert len({state.z.tobytes() for state in solution.states[:5]}) == 5
    for sample, z in zip(b, solution.z, strict=True):  # an image alone and in a batch
        assert_close(ir.mon.equilibrium(W, sample[None], relu, tol=1e-10).z[0], z, scale=1, tol=2e-10)
