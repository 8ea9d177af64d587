"""Multi-tier operators: the laws against the definition of appendix C in matrices, equilibria, gradients, bad input."""

from __future__ import annotations

import functools
import math

import laws
import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from laws import NUMPY, flat
from oracles import assert_close, size
from tiered import CASES, draw, factors, tiers, weight

import implicitref as ir
from implicitref.errors import HypothesisError, ShapeError
from implicitref.operators import MonotoneConv, MonotoneMultiTier
from implicitref.splitting import rates

# ------------------------------------------------------------------------------------------------
# Laws

LAWS = {name: law for name, law in laws.OPERATOR_LAWS.items() if name != "check_round_trip"}


@pytest.mark.claim("MON-Sec4.3-tiers", "MON-EqC1", "MON-EqC2", "MON-EqC3", "MON-EqC4", "MON-EqC5")
@pytest.mark.claim("MON-EqC6", "MON-EqC7", "MON-AppD.2-weightnorm")
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("case", CASES)
def test_laws(case, law):
    LAWS[law](tiers(np.asarray, **CASES[case]), NUMPY)


def test_laws_on_every_backend(backend):
    W = tiers(backend, **draw([(2, 4), (2, 2)], [1, 2], seed=14, g=True, gs=True, h=True))
    for law in ("check_dense_equality", "check_resolvent", "check_vjp"):  # JAX compiles every call
        LAWS[law](W, backend)


@pytest.mark.parametrize("case", CASES)
def test_vjp_against_differences(case):
    laws.check_vjp_taylor(tiers(np.asarray, **CASES[case]), NUMPY)


@st.composite
def operators(draw_from):
    """Tiers of any sizes, from the last upwards: a tier is stride times anything up to the size of the next."""
    L = draw_from(st.integers(1, 3))
    axes = []
    for _ in range(2):
        r, side = draw_from(st.integers(1, 3 if L < 3 else 2)), draw_from(st.integers(1, 3))
        sides = [side]
        for _ in range(L - 1):
            sides.append(r * draw_from(st.integers(max(1, sides[-1] - 2), sides[-1])))
        axes.append((r, sides[::-1]))
    (r1, rows), (r2, columns) = axes
    side = st.tuples(st.integers(1, 7), st.integers(1, 7))
    channels = [draw_from(st.integers(1, 2)) for _ in range(L)]
    scales = {name: draw_from(st.booleans()) for name in ("g", "gs", "h")}
    kernel, seed = tuple(draw_from(side) for _ in range(3)), draw_from(st.integers(0, 2**32 - 1))
    return draw(list(zip(rows, columns, strict=True)), channels, (r1, r2), kernel, 0.4, seed, **scales)


@pytest.mark.claim("MON-Sec4.3-tiers", "MON-PropC1", "MON-EqC6", "MON-EqC7")
@given(params=operators(), alpha=st.sampled_from([0.1, 1.0, 5.0]))
def test_products_and_resolvents_are_their_matrices(params, alpha):
    W, M = tiers(np.asarray, **params), weight(**params)
    z = np.random.default_rng(0).normal(size=(2, W.size))
    scale = 1 + float(np.abs(M).sum(axis=0).max() + np.abs(M).sum(axis=1).max())
    shifted = (1 + alpha) * np.eye(len(M)) - alpha * M
    for product in (W, W.by_tiers()):
        assert_close(product.matvec(z), z @ M.T, scale=scale * np.abs(z).max(), tol=1e-13)
        assert_close(product.rmatvec(z), z @ M, scale=scale * np.abs(z).max(), tol=1e-13)
    for V in (W.resolvent(alpha), W.resolvent_by_tiers(alpha)):
        assert_close(V.matvec(z), np.linalg.solve(shifted, z.T).T, scale=size(z), tol=1e-11)
        assert_close(V.rmatvec(z), np.linalg.solve(shifted.T, z.T).T, scale=size(z), tol=1e-11)
        assert_close(V.matvec(z) @ shifted.T, z, scale=size(z) * scale, tol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_the_form_tier_by_tier_on_every_case(case):
    params, (z, dy) = CASES[case], np.random.default_rng(5).normal(size=(2, 3, tiers(np.asarray, **CASES[case]).size))
    W, M = tiers(np.asarray, **params), weight(**params)
    named = {key: value for key, value in params.items() if key not in ("sizes", "stride")}
    desired = oracles.weight_gradient(dy.T @ z, named, functools.partial(weight, sizes=W.sizes, stride=W.stride))
    for name, gradients in W.vjp_by_tiers(z, dy).items():
        for gradient, wanted in zip(gradients, desired[name], strict=True):
            assert_close(gradient, wanted, scale=size(wanted, z, dy), tol=1e-12)
    V, desired_V = W.resolvent_by_tiers(0.7), np.linalg.inv(1.7 * np.eye(W.size) - 0.7 * M)
    assert_close(W.by_tiers().to_dense(), M, scale=size(M), tol=1e-13)
    assert_close(V.to_dense(), desired_V, scale=1, tol=1e-12)
    assert_close(V.rmatvec(z), z @ desired_V, scale=size(z), tol=1e-12)


@pytest.mark.claim("MON-EqC1", "MON-EqC2", "MON-EqC4", "MON-EqC5")
def test_nothing_flows_upwards_and_every_block_is_the_papers():
    params = draw([(4, 4), (2, 2), (1, 1)], [1, 2, 2], seed=21)
    (A, _, ends), M = factors(**params), weight(**params)
    tier = [slice(ends[i], ends[i + 1]) for i in range(3)]
    for i, j in ((0, 1), (0, 2), (1, 2), (2, 0)):
        assert_close(M[tier[i], tier[j]], np.zeros_like(M[tier[i], tier[j]]), scale=1, tol=1e-15)
    for i in range(2):
        below = -2 * A[tier[i + 1], tier[i + 1]].T @ A[tier[i + 1], tier[i]]
        assert_close(M[tier[i + 1], tier[i]], below, scale=size(below), tol=1e-14)
    assert_close(tiers(np.asarray, **params).to_dense(), M, scale=size(M), tol=1e-13)


@pytest.mark.claim("MON-EqC8")
def test_the_printed_sign_of_c8():
    params, alpha = draw([(4, 4), (2, 2)], [2, 1], seed=22), 0.7
    (A, B, ends), m = factors(**params), params["m"]
    first, gram = slice(0, ends[1]), (A.T @ A)[: ends[1], : ends[1]]
    skew = (B - B.T)[first, first]
    printed = (1 + alpha * m) * np.eye(ends[1]) + alpha * (gram + skew)
    W = tiers(np.asarray, **params).to_dense()[first, first]
    assert_close(
        printed - ((1 + alpha) * np.eye(ends[1]) - alpha * W), 2 * alpha * skew, scale=size(printed), tol=1e-13
    )
    assert np.abs(2 * alpha * skew).max() > 0.1


def test_shift_equivariance_by_the_total_stride():
    W = tiers(np.asarray, **draw([(8, 4), (4, 2), (2, 1)], [2, 1, 2], seed=23))
    z = np.random.default_rng(1).normal(size=(1, W.size))

    def moved(state):
        return W.join([np.roll(x, (4 // 2**i, 4 // 2**i), axis=(2, 3)) for i, x in enumerate(W.split(state))])

    for function in (W.matvec, W.rmatvec, W.resolvent(0.5).matvec, W.resolvent(0.5).rmatvec):
        assert_close(function(moved(z)), moved(function(z)), scale=10, tol=1e-14)


# ------------------------------------------------------------------------------------------------
# One tier, many tiers, long states


def test_one_tier_is_a_convolution():
    params = CASES["one tier, scales"]
    W = tiers(np.asarray, **params)
    conv = MonotoneConv(params["A"][0], params["B"][0], 0.5, (3, 4), g=params["g"][0], h=params["h"][0])
    z, dy = np.random.default_rng(2).normal(size=(2, 3, *conv.state_shape))
    for name in ("matvec", "rmatvec"):
        assert_close(getattr(W, name)(flat(z)), flat(getattr(conv, name)(z)), scale=10, tol=1e-14)
        assert_close(
            getattr(W.resolvent(0.7), name)(flat(z)), flat(getattr(conv.resolvent(0.7), name)(z)), scale=10, tol=1e-14
        )
    assert_close(W.lipschitz(), conv.lipschitz(), scale=10, tol=1e-14)
    assert_close(W.monotonicity(), conv.monotonicity(), scale=10, tol=1e-14)
    ours, theirs = W.vjp(flat(z), flat(dy)), conv.vjp(z, dy)
    assert ours["S"] == ours["gs"] == []
    for name, gradient in theirs.items():
        assert_close(ours[name][0], gradient, scale=size(gradient), tol=1e-13)


@pytest.mark.claim("MON-Sec4.3-tiers")
def test_the_sizes_of_the_zero_padded_networks():
    params = draw([(10, 10), (6, 6), (4, 4)], [2, 2, 1], seed=24, g=True, gs=True, h=True)
    W, M = tiers(np.asarray, **params), weight(**params)
    z = np.random.default_rng(3).normal(size=(2, W.size))
    assert_close(W.matvec(z), z @ M.T, scale=10, tol=1e-13)
    assert_close(
        W.resolvent(0.3).rmatvec(z), np.linalg.solve(1.3 * np.eye(W.size) - 0.3 * M.T, z.T).T, scale=10, tol=1e-12
    )
    assert W.shapes == [(2, 10, 10), (2, 6, 6), (1, 4, 4)]
    received = W.split(W.matvec(W.join([W.split(z)[0], *(0 * x for x in W.split(z)[1:])])))[1]
    assert np.abs(received[:, :, :5, :5]).min() > 0  # A_22' reaches one pixel into the rows that receive nothing


def test_the_frobenius_bound_is_attained_by_images_of_one_pixel():
    W = tiers(np.asarray, **draw([(1, 1)] * 3, [1, 1, 1], stride=1, kernel=(1, 1, 1), seed=3))
    magnitudes = W.magnitude()
    assert_close(
        magnitudes.frobenius_bound(), np.linalg.norm(magnitudes.matvec(np.eye(3))), scale=W.frobenius(), tol=1e-14
    )


def test_states_that_are_not_long_have_their_norms_exactly():
    params = draw([(14, 14), (7, 7)], [2, 2], seed=25)
    W, G = tiers(np.asarray, **params), np.eye(490) - weight(**params)
    assert W.size == 490
    assert_close(W.lipschitz(), np.linalg.norm(G, 2), scale=W.lipschitz(), tol=1e-13)
    assert_close(W.monotonicity(), np.linalg.eigvalsh((G + G.T) / 2)[0], scale=W.lipschitz(), tol=1e-13)


def test_long_states_have_their_norms_from_lanczos():
    params = draw([(16, 16), (8, 8)], [2, 2], seed=25)
    W, G = tiers(np.asarray, **params), np.eye(640) - weight(**params)
    assert W.size > 512
    assert_close(W.lipschitz(), np.linalg.norm(G, 2), scale=W.lipschitz(), tol=1e-3)
    assert_close(W.monotonicity(), np.linalg.eigvalsh((G + G.T) / 2)[0], scale=W.lipschitz(), tol=1e-3)


@pytest.mark.claim("NEW-best-alpha")
def test_the_step_of_long_states_is_that_of_their_cocoercivity():
    params = draw([(16, 16), (8, 8)], [2, 2], seed=25)
    W, G = tiers(np.asarray, **params), np.eye(640) - weight(**params)
    best = np.sqrt(rates.forward_backward_limit(G) / 2 / W.m)
    assert best * (1 - 1e-9) <= rates.best_alpha(W, "peaceman-rachford") <= 1.05 * best


@pytest.mark.parametrize(("limit", "norm", "least"), [(512, None, None), (1, 2.0, 4.0)])
def test_only_the_norms_of_long_states_are_iterated_for(monkeypatch, limit, norm, least):
    multitier = ir.operators.multitier
    monkeypatch.setattr(multitier, "EXACT_UP_TO", limit)
    monkeypatch.setattr(multitier, "_extreme_eigenvalue", lambda *_: 4.0)
    W = tiers(np.asarray, **draw([(4, 4), (2, 2)], [2, 2], seed=25))
    G = np.eye(W.size) - W.to_dense()
    assert W.lipschitz() == pytest.approx(norm or np.linalg.norm(G, 2), rel=1e-12)
    assert W.monotonicity() == pytest.approx(least or np.linalg.eigvalsh((G + G.T) / 2)[0], rel=1e-12)


def test_split_and_join_are_inverse():
    W = tiers(np.asarray, **CASES["three tiers, even kernels"])
    z = np.random.default_rng(4).normal(size=(2, W.size))
    np.testing.assert_array_equal(W.join(W.split(z)), z)
    assert [x.shape[1:] for x in W.split(z)] == W.shapes
    np.testing.assert_array_equal(W.split(z)[1], z[:, 16:32].reshape(2, 2, 4, 2))


def test_round_trip_and_copies():
    params = CASES["two tiers, scales"]
    mine = [np.array(K) for K in params["A"]]
    W = tiers(np.asarray, **(params | {"A": mine}))
    again, before = W.replace(**W.params), W.to_dense()
    np.testing.assert_array_equal(again.to_dense(), before)
    mine[0][:] = 7
    np.testing.assert_array_equal(W.replace(m=0.5).to_dense(), before)
    doubled = W.replace(S=[2 * K for K in W.S], m=2.0)
    assert doubled.m == 2.0
    np.testing.assert_array_equal(doubled.params["S"][0], 2 * params["S"][0])
    np.testing.assert_array_equal(doubled.params["A"][0], params["A"][0])
    with pytest.raises(TypeError, match="no parameter size; it has A, B, S, m, sizes, stride, g, gs, h"):
        W.replace(size=3)


def test_resolvents_are_factored_once():
    W = tiers(np.asarray, **CASES["two tiers"])
    assert W.resolvent(0.5) is W.resolvent(0.5)
    assert W.resolvent(0.5).cayley() is W.resolvent(0.5).cayley()
    assert W.resolvent(0.5) is not W.resolvent(0.25)


# ------------------------------------------------------------------------------------------------
# Equilibria and their gradients

PROBLEMS = {
    "one tier": draw([(4, 5)], [2], m=1.0, seed=31),
    "one tier, scales": draw([(4, 5)], [2], m=1.0, seed=32, g=True, gs=True, h=True),
    "two tiers": draw([(4, 4), (3, 3)], [2, 1], m=1.0, seed=33),
    "two tiers, scales": draw([(4, 4), (3, 3)], [1, 2], m=1.0, seed=34, g=True, gs=True, h=True),
    "three tiers": draw([(8, 8), (4, 4), (3, 3)], [1, 1, 1], m=1.0, seed=35),
    "three tiers, scales": draw([(8, 8), (4, 4), (3, 3)], [1, 1, 1], m=1.0, seed=36, g=True, gs=True, h=True),
}


def problem(name, border, batch=2):
    """W, M, an injection clear of the kinks, the activation, its oracle and the equilibrium to rounding."""
    params, inside = PROBLEMS[name], None
    W, M = tiers(np.asarray, **params), weight(**params)
    relu = ir.activations.relu
    activation = ir.activations.zero_border(relu, 1, shapes=W.shapes) if border else relu
    inside = np.concatenate(
        [(np.pad(np.ones((c, h - 2, w - 2)), [(0, 0), (1, 1), (1, 1)])).ravel() for c, h, w in W.shapes]
    )
    sigma = oracles.bordered("relu", inside > 0) if border else oracles.DEFINITIONS["relu"]
    for attempt in range(100):
        b = np.random.default_rng(attempt).normal(size=(batch, W.size)) * 1.5
        start = ir.mon.equilibrium(W, b, activation, tol=1e-9, max_iter=20000).z
        z = oracles.newton_equilibria(M, b, sigma, start)
        if oracles.clear_of_kinks("relu", z @ M.T + b, 1e-3):
            return W, M, b, activation, sigma, z
    raise AssertionError("unreachable")


@pytest.mark.parametrize("border", [False, True])
@pytest.mark.parametrize("name", PROBLEMS)
def test_equilibria_and_gradients(name, border):
    W, M, b, activation, sigma, z_star = problem(name, border)
    z = ir.mon.equilibrium(W, b, activation, tol=1e-11).z
    assert_close(z, sigma["sigma"](z @ M.T + b), scale=size(z), tol=1e-11)
    assert_close(z, z_star, scale=size(z), tol=1e-11)
    dz = np.random.default_rng(41).normal(size=z.shape)
    grads, _ = ir.mon.equilibrium_vjp(W, b, activation, z, dz, tol=1e-11)
    params = PROBLEMS[name]
    dpre = oracles.implicit_dpre(M, sigma["slope"](z @ M.T + b), dz)
    assert_close(grads["injection"], dpre, scale=size(dpre), tol=1e-10)
    assert set(grads) == {"injection", "m", *W.params}
    for parameter in W.params:
        for k, gradient in enumerate(grads[parameter]):
            _check_against_differences(params, parameter, k, gradient, (b, sigma, z_star, dz))


def _check_against_differences(params, parameter, k, gradient, at):
    b, sigma, z_star, dz = at
    values = params[parameter]

    def loss(value):
        M = weight(**(params | {parameter: [*values[:k], value, *values[k + 1 :]]}))
        return float((dz * oracles.newton_equilibria(M, b, sigma, z_star)).sum())

    direction = np.random.default_rng(k).normal(size=np.shape(values[k]))
    direction /= np.linalg.norm(direction)
    difference = oracles.central_difference(loss, values[k], direction, 1e-4)
    scale = float(np.linalg.norm(gradient)) + 1e-3
    assert_close((gradient * direction).sum(), difference, scale=scale, tol=1e-6)


@pytest.mark.parametrize("name", PROBLEMS)
def test_gradients_by_the_dense_formula(name):
    W, M, b, activation, sigma, z = problem(name, border=False)
    dz = np.random.default_rng(42).normal(size=z.shape)
    grads, _ = ir.mon.equilibrium_vjp(W, b, activation, z, dz, tol=1e-11)
    dpre = oracles.implicit_dpre(M, sigma["slope"](z @ M.T + b), dz)
    named = {key: value for key, value in PROBLEMS[name].items() if key not in ("sizes", "stride")}
    fixed = functools.partial(weight, sizes=W.sizes, stride=W.stride)
    desired = oracles.weight_gradient(dpre.T @ z, named, fixed)
    assert_close(grads["m"], desired["m"], scale=size(desired["m"]), tol=1e-10)
    for parameter in W.params:
        for gradient, wanted in zip(grads[parameter], desired[parameter], strict=True):
            assert_close(gradient, wanted, scale=size(wanted), tol=1e-10)


@pytest.mark.parametrize("method", laws.METHODS[:3])
def test_the_splittings_are_the_same(method):
    W, _, b, activation, _, z_star = problem("two tiers, scales", border=True)
    inclusion = ir.mon.forward_inclusion(W, b, activation)
    laws.check_generator(method, inclusion, 0.1, b)
    laws.check_generator(method, ir.mon.backward_inclusion(W, activation.derivative(b), b), 0.1, b)
    z = ir.mon.equilibrium(W, b, activation, method=method, tol=1e-10, max_iter=20000).z
    assert_close(z, z_star, scale=size(z_star), tol=1e-9)


def test_float32_states_are_certified_in_double():
    W, M, b, activation, _, z_star = problem("three tiers, scales", border=True)
    solution = ir.mon.equilibrium(W, b.astype(np.float32), activation, tol=1e-4)
    assert solution.z.dtype == np.float32
    error = np.linalg.norm(solution.z - z_star, axis=1)
    assert (error <= solution.bound + 1e-6 * np.abs(z_star).max() * len(M) ** 0.5).all()


# ------------------------------------------------------------------------------------------------
# Bad input


def refused(error, match, **changed):
    with pytest.raises(error, match=match):
        MonotoneMultiTier(**(draw([(4, 4), (2, 2)], [2, 1], seed=51) | changed))


@pytest.mark.claim("MON-Sec4.3-tiers", "MON-AppD.2-weightnorm", "MON-PropC1")
def test_refused_by_name():
    K = lambda *shape: np.ones((*shape, 3, 3))  # noqa: E731
    refused(ShapeError, r"S\[0\] must be kernels \(out, 2, kh, kw\)", S=[K(1, 3)])
    refused(ShapeError, r"S\[0\] must have 1 output channels, those of A\[1\] \[MON-Sec4.3-tiers\]", S=[K(2, 2)])
    refused(ShapeError, r"B\[1\] must have 1 output channels, those of A\[1\]", B=[K(2, 2), K(2, 2)])
    refused(ShapeError, r"A\[1\] must be kernels \(n, n, kh, kw\)", A=[K(2, 2), K(2, 1)])
    refused(ShapeError, r"A\[0\] must be kernels .* nowhere empty", A=[K(0, 0), K(1, 1)])
    refused(ShapeError, r"A must have at least one entry.*\[MON-Sec4.3-tiers\]; got 0", A=[], B=[], S=[], sizes=[])
    refused(ShapeError, r"B must have 2 entries, a kernel for each tier of A", B=[K(2, 2)])
    refused(ShapeError, r"S must have 1 entries", S=[])
    refused(ShapeError, r"sizes must have 2 entries", sizes=[(4, 4)])
    refused(ShapeError, r"g must have 2 entries", g=[1.0])
    refused(
        ShapeError, r"sizes\[1\] must be at least sizes\[0\]/stride = \(2, 2\).*got \(2, 1\)", sizes=[(4, 4), (2, 1)]
    )
    refused(HypothesisError, r"stride must divide sizes\[0\] \[MON-PropC1\].*side of 5.*4 or 6", sizes=[(4, 5), (3, 3)])
    refused(HypothesisError, r"sizes\[1\] must be \(height, width\)", sizes=[(4, 4), (0, 2)])
    refused(HypothesisError, r"stride must be an integer >= 1", stride=0)
    refused(HypothesisError, r"m must be a finite number > 0", m=0.0)
    refused(HypothesisError, r"g\[1\] must be > 0 \[MON-AppD.2-weightnorm\]; got -1", g=[1.0, -1.0])
    refused(HypothesisError, r"gs\[0\] must be > 0 \[MON-AppD.2-weightnorm\]; got 0", gs=[0.0])
    refused(HypothesisError, r"h\[0\] must be a finite scalar", h=[math.nan, 1.0])
    refused(HypothesisError, r"S\[0\] must not be zero where its norm divides", S=[0 * K(1, 2)], gs=[1.0])
    refused(
        HypothesisError,
        r"A\[0\] must be float32 or float64; got dtype float16",
        A=[K(2, 2).astype(np.float16), K(1, 1)],
    )
    refused(HypothesisError, r"S\[0\] must be finite", S=[math.nan * K(1, 2)])
    refused(TypeError, r"A must be a list, a kernel for each tier; got ndarray", A=K(2, 2))
    refused(TypeError, r"B\[1\] must be an array", B=[K(2, 2), [[1.0]]])


def test_states_are_refused_by_name():
    W = tiers(np.asarray, **CASES["two tiers"])
    with pytest.raises(ShapeError, match=r"z must have shape \(batch, 40\); got \(2, 39\)"):
        W.matvec(np.ones((2, 39)))
    with pytest.raises(ShapeError, match=r"tiers\[1\] must have shape \(batch, 2, 2, 2\)"):
        W.join([np.ones((1, 2, 4, 4)), np.ones((1, 2, 3, 2))])
    with pytest.raises(ShapeError, match="tiers must have 2 entries"):
        W.join([np.ones((1, 2, 4, 4))])
    with pytest.raises(HypothesisError, match="alpha must be a finite number > 0"):
        W.resolvent(-1.0)


def test_scales_may_come_as_one_array():
    params = CASES["two tiers, scales"]
    W = tiers(np.asarray, **params).replace(g=np.array(params["g"]))
    np.testing.assert_array_equal(W.to_dense(), tiers(np.asarray, **params).to_dense())
