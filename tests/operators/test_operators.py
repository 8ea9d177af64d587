"""Every registered operator obeys every law, on every backend (MON section 3.3, appendix D.2)."""

from __future__ import annotations

import copy
import pickle

import laws
import numpy as np
import oracles
import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st
from laws import OPERATORS
from oracles import assert_close, size

import implicitref as ir
from implicitref.operators.dense import weight

each = pytest.mark.parametrize("name", OPERATORS)


@each
@pytest.mark.parametrize("check", laws.OPERATOR_LAWS.values(), ids=laws.OPERATOR_LAWS)
def test_law(check, name):
    check(OPERATORS[name](np.asarray), laws.NUMPY)


@pytest.mark.parametrize("check", laws.OPERATOR_LAWS.values(), ids=laws.OPERATOR_LAWS)
def test_law_on_every_backend(check, backend):
    names = ["with g and h", "n = 1", "conv 3 x 5 with g and h"]
    for name in names + ["conv, kernels of 5 x 4 and 1 x 3"] * (backend.name != "jax"):  # JAX compiles every shape
        check(OPERATORS[name](backend), backend)


@each
def test_vjp_taylor_slope(name):
    laws.check_vjp_taylor(OPERATORS[name](np.asarray), laws.NUMPY)


@each
def test_transpose_is_the_transpose_everywhere(name):
    W = OPERATORS[name](np.asarray)
    T, (z, _) = ir.operators.Transpose(W), laws.states(laws.NUMPY, W.state_shape)
    for of in (lambda M: M, lambda M: M.resolvent(0.7), lambda M: M.resolvent(0.7).cayley(), lambda M: M.magnitude()):
        straight, crossed = of(W), of(T)
        np.testing.assert_array_equal(crossed.to_dense(), straight.to_dense().T)
        np.testing.assert_array_equal(crossed.matvec(z), straight.rmatvec(z))
        np.testing.assert_array_equal(crossed.rmatvec(z), straight.matvec(z))


@each
def test_caller_cannot_change_an_operator(name):
    params = {key: laws.each(np.array, value) for key, value in OPERATORS[name](np.asarray).params.items()}
    W = OPERATORS[name](np.asarray).replace(**params, m=0.7)
    before, resolvent = W.to_dense().copy(), W.resolvent(1.0).to_dense().copy()
    for value in params.values():
        for entry in laws.entries(value):
            entry[...] = 99.0
    fresh = W.replace(m=0.7)
    for again in (W, fresh):
        np.testing.assert_array_equal(again.to_dense(), before)
        np.testing.assert_array_equal(again.resolvent(1.0).to_dense(), resolvent)
    for held in (*(entry for value in W.params.values() for entry in laws.entries(value)), W.spectral_blocks()):
        with pytest.raises(ValueError, match="read-only"):
            held[...] = 0.0
    with pytest.raises(AttributeError):
        W.A = params["A"]


@pytest.mark.parametrize("name", ["plain", "conv"])
def test_the_factors_of_a_resolvent_are_read_only(name):
    V = OPERATORS[name](np.asarray).resolvent(1.0)
    with pytest.raises(ValueError, match="read-only"):
        (V.matrix if name == "plain" else V.D)[...] = 0.0


@each
def test_pickle_and_copy(name):
    W = OPERATORS[name](np.asarray)
    W.resolvent(1.0), W.lipschitz()  # what is memoised travels or is found again, either way the same
    for again in (pickle.loads(pickle.dumps(W)), copy.copy(W), copy.deepcopy(W)):
        np.testing.assert_array_equal(again.to_dense(), W.to_dense())
        np.testing.assert_array_equal(again.resolvent(1.0).to_dense(), W.resolvent(1.0).to_dense())
        assert again.lipschitz() == W.lipschitz()
        laws.check_vjp(again, laws.NUMPY)


@pytest.mark.claim("MON-Sec4.1-cost")
def test_resolvent_is_factored_once_for_each_alpha_and_serves_both_passes():
    W = OPERATORS["plain"](np.asarray)
    assert W.resolvent(0.5) is W.resolvent(0.5)
    assert ir.operators.Transpose(W).resolvent(0.5).of is W.resolvent(0.5)
    assert W.resolvent(0.25) is not W.resolvent(0.5)
    laws.check_resolvent(W, laws.NUMPY)


# ------------------------------------------------------------------------------------------------
# Proposition 1


@pytest.mark.claim("MON-Prop1")
@pytest.mark.claim("MON-Eq5")
@pytest.mark.claim("MON-Eq6")
@pytest.mark.claim("MON-Eq7")
@given(seed=strategies.seeds, n=st.integers(1, 6), m=st.floats(-2, 3))
def test_proposition_1_for_any_factors_and_any_m(seed, n, m):
    rng = np.random.default_rng(seed)
    A, B = rng.normal(size=(2, n, n))
    W = weight(A, B, m)
    assert_close(W, oracles.dense_weight(A, B, m), scale=size(W) * n, tol=1e-14)
    G = np.eye(n) - W
    assert np.linalg.eigvalsh(laws.symmetric(G))[0] >= m - 1e-13 * size(W) * n


@pytest.mark.claim("MON-Prop1")
@given(gap=strategies.gaps(), shift=st.floats(-3, 1), upper=st.booleans())
def test_proposition_1_every_monotone_w_has_factors(gap, shift, upper):
    # I - W >= m I, any real m: A from the symmetric part, B = W/2 or strictly upper triangular
    G, m = gap[0] + shift * np.eye(len(gap[0])), gap[1] + shift
    W = np.eye(len(G)) - G
    values, vectors = np.linalg.eigh(laws.symmetric(G) - m * np.eye(len(G)))
    A = np.sqrt(np.maximum(values, 0))[:, None] * vectors.T
    B = np.triu(W - W.T, 1) / 2 if upper else W / 2
    assert_close(weight(A, B, m), W, scale=size(W) * len(G), tol=1e-13)


@pytest.mark.claim("MON-Prop1")
@given(gap=strategies.gaps())
def test_from_weight_round_trip(gap):
    G, m = gap
    W = np.eye(len(G)) - G
    operator = ir.operators.MonotoneDense.from_weight(W, m * (1 - 1e-12))
    assert_close(operator.to_dense(), W, scale=size(W) * len(G), tol=1e-13)
    with pytest.raises(ir.HypothesisError, match="MON-Prop1"):
        ir.operators.MonotoneDense.from_weight(W, m * 1.001)


@pytest.mark.claim("MON-Sec3.3-cholesky")
def test_lower_triangular_factor_is_a_flipped_cholesky_factor():
    # A'A with A lower is a UL factorisation: reverse, factor, reverse. Standard Cholesky LL' gives A = L' upper.
    W = OPERATORS["plain"](np.asarray).to_dense()
    gram = laws.symmetric(np.eye(4) - W) - 0.5 * np.eye(4) + 1e-9 * np.eye(4)
    flip = slice(None, None, -1)
    lower = np.linalg.cholesky(gram[flip, flip])[flip, flip].T
    upper = np.linalg.cholesky(gram).T
    for A, triangle in ((lower, np.tril), (upper, np.triu)):
        np.testing.assert_array_equal(A, triangle(A))
        assert_close(weight(A, W / 2, 0.5), W, scale=size(W), tol=1e-8)
    assert np.abs(weight(upper.T, W / 2, 0.5) - W).max() > 1e-2  # the Cholesky factor L itself, read as A, is wrong


@pytest.mark.claim("MON-AppD.2-weightnorm")
def test_weight_norm_needs_g_nonnegative():
    one = np.ones((1, 1))
    assert 1 - weight(one, one, 1.0, g=-3.0)[0, 0] == -2.0
    with pytest.raises(ir.HypothesisError, match=r"g must be >= 0 \[MON-AppD.2-weightnorm\]; got -3"):
        ir.operators.MonotoneDense(one, one, 1.0, g=-3.0)


@pytest.mark.claim("MON-AppD.2-weightnorm")
@given(seed=strategies.seeds, n=st.integers(1, 5), g=st.floats(-3, 3))
def test_weight_norm_loses_at_most_the_negative_part_of_g(seed, n, g):
    A, B = np.random.default_rng(seed).normal(size=(2, n, n))
    G = np.eye(n) - weight(A, B, 1.0, g=g, h=2.0)
    assert np.linalg.eigvalsh(laws.symmetric(G))[0] >= 1 + min(g, 0) - 1e-13 * size(G)


@pytest.mark.parametrize("which", ["A", "B"])
def test_norms_that_would_divide_by_zero_are_refused(which):
    matrices = {"A": np.ones((2, 2)), "B": np.ones((2, 2))} | {which: np.zeros((2, 2))}
    with pytest.raises(ir.HypothesisError, match=f"{which} must not be zero"):
        ir.operators.MonotoneDense(**matrices, m=1.0, g=1.0, h=1.0)
    ir.operators.MonotoneDense(**matrices, m=1.0)  # without scales zero is fine


# ------------------------------------------------------------------------------------------------
# Gauge


@given(seed=strategies.seeds, n=st.integers(1, 5))
def test_gauge_of_the_factors(seed, n):
    rng = np.random.default_rng(seed)
    A, B, S = rng.normal(size=(3, n, n))
    Q = strategies.orthogonal(rng, n)
    same = weight(Q @ A, B + S + S.T, 0.3)
    assert_close(same, weight(A, B, 0.3), scale=size(same) * n, tol=1e-14)
    normalised = weight(Q @ A * 5, B * 7, 0.3, g=0.8, h=-1.1)
    assert_close(normalised, weight(A, B, 0.3, g=0.8, h=-1.1), scale=size(normalised) * n, tol=1e-14)


@given(seed=strategies.seeds, n=st.integers(1, 5))
def test_gauge_of_the_gradients(seed, n):
    rng = np.random.default_rng(seed)
    A, B = rng.normal(size=(2, n, n))
    z, dy = rng.normal(size=(2, 3, n))
    plain = ir.operators.MonotoneDense(A, B, 1.0).vjp(z, dy)
    scale = size(z, dy, A) ** 4 * n
    assert_close(plain["A"] @ A.T, (plain["A"] @ A.T).T, scale=scale, tol=1e-13)
    assert_close(plain["B"], -plain["B"].T, scale=scale, tol=1e-13)
    scaled = ir.operators.MonotoneDense(A, B, 1.0, g=0.7, h=1.4).vjp(z, dy)
    assert_close((scaled["A"] * A).sum(), 0.0, scale=scale, tol=1e-13)
    assert_close((scaled["B"] * B).sum(), 0.0, scale=scale, tol=1e-13)


# ------------------------------------------------------------------------------------------------
# Refusals

SQUARE = np.eye(3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"A": np.ones((2, 3))}, ir.ShapeError, "A must be square"),
        ({"A": np.ones((0, 0)), "B": np.ones((0, 0))}, ir.ShapeError, "A must be square.*n >= 1"),
        ({"A": np.ones(3)}, ir.ShapeError, "A must have 2 axes"),
        ({"B": np.ones((2, 2))}, ir.ShapeError, "B must have the shape of A"),
        ({"A": np.full((3, 3), np.nan)}, ir.HypothesisError, "A must be finite"),
        ({"B": np.full((3, 3), np.inf)}, ir.HypothesisError, "B must be finite"),
        ({"A": np.eye(3, dtype=int)}, ir.HypothesisError, "A must be float32 or float64"),
        ({"A": SQUARE * 1j}, ir.HypothesisError, "A must be float32 or float64"),
        ({"A": SQUARE.astype(np.float16)}, ir.HypothesisError, "A must be float32 or float64"),
        ({"A": [[1.0]]}, TypeError, "A must be an array"),
        ({"m": 0.0}, ir.HypothesisError, "m must be a finite number > 0.*MON-Prop1"),
        ({"m": -1.0}, ir.HypothesisError, "m must be"),
        ({"m": np.nan}, ir.HypothesisError, "m must be"),
        ({"m": "1 m"}, ir.HypothesisError, "m must be"),
        ({"g": np.nan}, ir.HypothesisError, "g must be a finite scalar"),
        ({"h": np.ones(2)}, ir.HypothesisError, "h must be a finite scalar"),
    ],
)
def test_bad_parameters_are_refused_by_name(arguments, error, message):
    with pytest.raises(error, match=message):
        ir.operators.MonotoneDense(**({"A": SQUARE, "B": SQUARE, "m": 1.0} | arguments))


def test_replace_refuses_unknown_parameters_and_bad_values():
    W = OPERATORS["plain"](np.asarray)
    with pytest.raises(TypeError, match="no parameter C"):
        W.replace(C=SQUARE)
    with pytest.raises(ir.HypothesisError, match="m must be"):
        W.replace(m=-1.0)


@pytest.mark.parametrize("alpha", [0, -2.0, np.nan, np.inf])
def test_resolvent_needs_a_positive_step(alpha):
    with pytest.raises(ir.HypothesisError, match="alpha"):
        OPERATORS["plain"](np.asarray).resolvent(alpha)


@pytest.mark.parametrize("method", ["matvec", "rmatvec"])
def test_states_must_have_a_batch_axis_and_the_right_length(method):
    W = OPERATORS["plain"](np.asarray)
    name = "z" if method == "matvec" else "y"
    with pytest.raises(ir.ShapeError, match=rf"{name}\[None\]"):
        getattr(W, method)(np.ones(4))
    with pytest.raises(ir.ShapeError, match=rf"{name} must have shape \(batch, 4\); got \(2, 3\)"):
        getattr(W, method)(np.ones((2, 3)))


@pytest.mark.parametrize("method", ["matvec", "rmatvec"])
def test_states_must_be_floating_arrays(method):
    # integers would round W to integers, and nobody would know
    W = OPERATORS["plain"](np.asarray)
    name = "z" if method == "matvec" else "y"
    for dtype in (int, bool, complex, np.float16):
        with pytest.raises(ir.HypothesisError, match=f"{name} must be float32 or float64"):
            getattr(W, method)(np.ones((2, 4), dtype=dtype))
    with pytest.raises(TypeError, match=f"{name} must be an array; got list"):
        getattr(W, method)([[1.0] * 4])


def test_vjp_needs_batches_of_one_length():
    with pytest.raises(ir.ShapeError, match=r"dy must have the shape of z, \(2, 4\); got \(3, 4\)"):
        OPERATORS["plain"](np.asarray).vjp(np.ones((2, 4)), np.ones((3, 4)))


def test_from_weight_names_the_largest_m():
    with pytest.raises(ir.HypothesisError, match=r"needs m <= 0\.5.*got m = 1"):
        ir.operators.MonotoneDense.from_weight(np.eye(2) * 0.5, 1.0)
    with pytest.raises(ir.ShapeError, match="W must be square"):
        ir.operators.MonotoneDense.from_weight(np.ones((2, 3)), 1.0)


def test_a_norm_whose_square_underflows_is_refused_where_it_divides():
    A = np.full((2, 2), 1e-160)
    assert ir.operators.MonotoneDense(A, A, 1.0).to_dense().shape == (2, 2)
    with pytest.raises(ir.HypothesisError, match="float64; it underflows"):
        ir.operators.MonotoneDense(A, A, 1.0, g=1.0)


@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_a_step_that_leaves_the_range_is_refused_by_name(kind):
    big, none = (np.full((2, 2) if kind == "dense" else (1, 1, 1, 1), v) for v in (1e150, 0.0))
    dense, conv = ir.operators.MonotoneDense, lambda A, B, m: ir.operators.MonotoneConv(A, B, m, (2, 2))
    with pytest.raises(ir.HypothesisError, match=r"^I \+ 1e\+12 \(I - W\) is singular, or beyond the range, in"):
        (dense if kind == "dense" else conv)(big, none, 1.0).resolvent(1e12)
