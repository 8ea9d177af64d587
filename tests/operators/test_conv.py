"""MonotoneConv and zero padding: exact reach, counterexamples, printed forms, refusals (MON section 4.2)."""

from __future__ import annotations

import laws
import numpy as np
import oracles
import pytest
import scipy.signal
import strategies
from hypothesis import given
from hypothesis import strategies as st
from laws import OPERATORS
from oracles import assert_close, size

import implicitref as ir
from implicitref.operators import MonotoneConv, fourier, zero_padded

CONVS = [name for name in OPERATORS if name.startswith("conv")]


@pytest.mark.parametrize("name", CONVS)
def test_monotonicity(name):
    laws.check_monotonicity(OPERATORS[name](np.asarray), laws.NUMPY)


def test_monotonicity_on_every_backend(backend):
    laws.check_monotonicity(OPERATORS["conv with h"](backend), backend)


@pytest.mark.claim("MON-Sec4.2-kernel")
@given(
    seed=strategies.seeds,
    shape=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    A=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    B=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    n=st.integers(1, 2),
    m=st.sampled_from([0.05, 1.0, 3.0]),
)
def test_any_kernels_on_any_image(seed, shape, A, B, n, m):
    W = laws.conv(np.asarray, **laws.kernels(n, A, B, m, shape, seed))
    for check in (laws.check_dense_equality, laws.check_resolvent, laws.check_monotonicity, laws.check_magnitude):
        check(W, laws.NUMPY)


@pytest.mark.claim("MON-Sec4.2-kernel")
@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_two_kernels_of_side_k_reach_2k_minus_1_pixels(k):
    W = laws.conv(np.asarray, **laws.kernels(1, (k, k), (k, k), 1.0, (13, 13), seed=k))
    point = np.zeros((1, 1, 13, 13))
    point[0, 0, 6, 6] = 1.0
    rows = np.flatnonzero((np.abs(W.matvec(point))[0, 0] > 1e-12).any(axis=1))
    assert rows.tolist() == list(range(6 - (k - 1), 6 + k))


@pytest.mark.claim("MON-AppD.2-weightnorm")
@pytest.mark.parametrize("t", [1e-3, 7.0])
def test_weight_norms_are_those_of_the_kernels(t):
    params = laws.kernels(seed=1, g=0.8, h=-1.1)
    W, scaled = laws.conv(np.asarray, **params), laws.conv(np.asarray, **(params | {"A": t * params["A"]}))
    assert_close(scaled.to_dense(), W.to_dense(), scale=size(W.to_dense()), tol=1e-14)
    trace = np.trace(laws.symmetric(np.eye(32) - W.to_dense()) - 0.5 * np.eye(32))
    assert_close(trace, 16 * 0.8, scale=16, tol=1e-13)  # tr A'A = (pixels) ||k||_F^2


def test_a_symmetric_part_of_b_is_never_seen():
    params = laws.kernels(A=(2, 3), B=(4, 3), seed=2)
    padded = np.pad(params["B"], [(0, 0), (0, 0), (1, 0), (0, 0)])  # an odd side, so that it can be symmetric
    large = np.round(1e9 * np.random.default_rng(3).normal(size=padded.shape))
    exact = np.round(padded * 2**20) / 2**20  # added without rounding
    symmetric = large + np.flip(large, axis=(2, 3)).transpose(1, 0, 2, 3)
    W, other = (laws.conv(np.asarray, **(params | {"B": B})) for B in (exact, exact + symmetric))
    assert_close(other.to_dense(), W.to_dense(), scale=size(W.to_dense()), tol=1e-15)


# ------------------------------------------------------------------------------------------------
# As printed


@pytest.mark.claim("MON-Eq28")
@pytest.mark.claim("MON-EqB4")
@pytest.mark.claim("MON-EqB5")
@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
def test_printed_resolvent_lacks_alpha_at_b(alpha):
    W = OPERATORS["conv"](np.asarray)
    DA, DB = fourier.blocks(W.A, W.size), fourier.blocks(W.B, W.size)
    star, identity = fourier.adjoint, np.eye(2)

    def residual(beta):  # of the inverse with - beta D_B + beta D_B*
        blocks = (1 + alpha * W.m) * identity + alpha * star(DA) @ DA - beta * (DB - star(DB))
        V = fourier.FourierMap(np.linalg.inv(blocks), W.size).to_dense()
        return np.abs(V @ (np.eye(32) + alpha * (np.eye(32) - W.to_dense())) - np.eye(32)).max()

    assert residual(alpha) <= 1e-13
    assert (residual(1.0) <= 1e-13) == (alpha == 1.0)
    assert alpha == 1.0 or residual(1.0) > 0.1


# ------------------------------------------------------------------------------------------------
# Zero padding


def unbounded(z, kernel):
    """A z on the plane, zero outside the image: (i, h, w) to (o, h + kh - 1, w + kw - 1), all that it reaches."""
    return np.stack([sum(scipy.signal.correlate2d(x, k) for x, k in zip(z, row, strict=True)) for row in kernel])


def transposed(y, kernel):
    """A' y of such an image, back on the pixels of the original image."""
    rows = zip(*kernel, strict=True)
    return np.stack([sum(scipy.signal.convolve2d(x, k, "valid") for x, k in zip(y, row, strict=True)) for row in rows])


def same(z, kernel):
    """The zero-padded convolution centred at (k - 1)//2."""
    kh, kw = kernel.shape[2:]
    top, left = kh - 1 - (kh - 1) // 2, kw - 1 - (kw - 1) // 2
    return unbounded(z, kernel)[:, top : top + z.shape[1], left : left + z.shape[2]]


def mirrored(kernel):
    """The kernel of the transpose, on odd sides."""
    return np.flip(np.pad(kernel, [(0, 0), (0, 0), *((1 - k % 2, 0) for k in kernel.shape[2:])]), (2, 3)).swapaxes(0, 1)


def zero_padded_operator(W, z):
    """(1 - m) z - A'A z + B z - B'z on the plane, by scipy.signal, for z of the interior."""
    return (1 - W.m) * z - transposed(unbounded(z, W.A), W.A) + same(z, W.B) - same(z, mirrored(W.B))


def interior_error(A, B, p, seed=0, shape=(4, 5), n=2):
    """How far the interior of W with a border p is from the zero-padded operator, relative to the largest entry."""
    rng = np.random.default_rng(seed)
    A, B = rng.normal(size=(n, n, *A)), rng.normal(size=(n, n, *B))
    W = MonotoneConv(A, B, 1.0, (shape[0] + 2 * p, shape[1] + 2 * p))
    z = np.eye(n * shape[0] * shape[1]).reshape(-1, n, *shape)
    circular = W.matvec(np.pad(z, [(0, 0), (0, 0), (p, p), (p, p)]))[:, :, p : shape[0] + p, p : shape[1] + p]
    desired = np.stack([zero_padded_operator(W, column) for column in z])
    return np.abs(circular - desired).max() / np.abs(desired).max()


@pytest.mark.claim("MON-Sec4.2-padding")
@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("p", [0, 1, 2, 3])
def test_nothing_wraps_exactly_where_2p_reaches_k_minus_1(k, p):
    error = interior_error((k, k), (k, k), p)
    assert error <= 1e-13 if 2 * p >= k - 1 else error > 1e-2


@pytest.mark.claim("MON-Sec4.2-padding")
@pytest.mark.parametrize(
    ("A", "B", "p", "right"),
    [
        ((3, 3), (5, 5), 1, True),  # B - B' reaches half as far as A'A
        ((3, 3), (4, 5), 1, True),
        ((3, 3), (6, 3), 1, False),
        ((1, 1), (2, 1), 0, False),
        ((1, 1), (3, 1), 1, True),
        ((4, 1), (1, 1), 1, False),
        ((1, 4), (3, 3), 2, True),
        ((1, 1), (1, 1), 0, True),
    ],
)
def test_kernels_of_two_sizes(A, B, p, right):
    assert (interior_error(A, B, p) <= 1e-13) == right
    ones = [np.ones((1, 1, *k)) for k in (A, B)]
    W = MonotoneConv(*ones, 1.0, (9, 9))
    if right:
        assert zero_padded(W, ir.activations.relu, p).width == p
    else:
        with pytest.raises(ir.HypothesisError, match=r"width must be at least \d.*MON-Sec4.2-padding.*got \d"):
            zero_padded(W, ir.activations.relu, p)
        assert interior_error(A, B, zero_padded(W, ir.activations.relu).width) <= 1e-13


@pytest.mark.claim("MON-Sec4.2-padding")
def test_the_interior_stays_monotone():
    W = laws.conv(np.asarray, **laws.kernels(size=(6, 7), m=0.3, seed=4))
    inside = np.zeros(W.state_shape, bool)
    inside[:, 1:-1, 1:-1] = True
    G = (np.eye(inside.size) - W.to_dense())[np.ix_(inside.ravel(), inside.ravel())]
    assert np.linalg.eigvalsh(laws.symmetric(G))[0] >= 0.3 - 1e-13


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"W": OPERATORS["plain"](np.asarray)}, TypeError, "W must be a MonotoneConv; got MonotoneDense"),
        ({"activation": np.tanh}, ir.HypothesisError, "activation must be one of"),
        ({"width": 0}, ir.HypothesisError, r"width must be at least 1.*MON-Sec4.2-padding.*got 0"),
        ({"width": -1}, ir.HypothesisError, "width must be an integer >= 0; got -1"),
        ({"width": 1.5}, ir.HypothesisError, "width must be an integer >= 0; got 1.5"),
        ({"width": "2"}, ir.HypothesisError, "width must be an integer >= 0; got '2'"),
    ],
)
def test_zero_padding_refuses_by_name(arguments, error, message):
    with pytest.raises(error, match=message):
        zero_padded(**({"W": OPERATORS["conv"](np.asarray), "activation": ir.activations.relu} | arguments))


# ------------------------------------------------------------------------------------------------
# Refusals

KERNEL = np.ones((2, 2, 3, 3))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"A": np.ones((2, 3, 3, 3))}, ir.ShapeError, r"A must be kernels \(n, n, kh, kw\).*got shape \(2, 3, 3, 3\)"),
        ({"B": np.ones((2, 3, 3, 3))}, ir.ShapeError, r"B must be kernels \(n, n, kh, kw\)"),
        ({"B": np.ones((3, 3, 3, 3))}, ir.ShapeError, r"B must have the channels of A, 2; got shape \(3, 3, 3, 3\)"),
        ({"A": np.ones((2, 2))}, ir.ShapeError, r"A must have 4 axes; got shape \(2, 2\)"),
        ({"B": np.ones((2, 3, 3))}, ir.ShapeError, "B must have 4 axes"),
        ({"A": np.ones((2, 2, 0, 3))}, ir.ShapeError, "A must be kernels.*nowhere empty"),
        ({"A": np.ones((0, 0, 3, 3))}, ir.ShapeError, "A must be kernels.*nowhere empty"),
        ({"A": KERNEL.astype(np.float16)}, ir.HypothesisError, "A must be float32 or float64; got dtype float16"),
        ({"B": KERNEL.astype(np.float16)}, ir.HypothesisError, "B must be float32 or float64; got dtype float16"),
        ({"A": KERNEL.astype(int)}, ir.HypothesisError, "A must be float32 or float64"),
        ({"A": KERNEL * 1j}, ir.HypothesisError, "A must be float32 or float64"),
        ({"A": KERNEL * np.nan}, ir.HypothesisError, "A must be finite; it holds 36 NaN"),
        ({"B": KERNEL * np.inf}, ir.HypothesisError, "B must be finite"),
        ({"A": KERNEL.tolist()}, TypeError, "A must be an array.*got list"),
        ({"B": None}, TypeError, "B must be an array.*got NoneType"),
        ({"g": -0.5}, ir.HypothesisError, r"g must be >= 0 \[MON-AppD.2-weightnorm\]; got -0.5"),
        ({"g": np.nan}, ir.HypothesisError, "g must be a finite scalar"),
        ({"h": np.ones(2)}, ir.HypothesisError, "h must be a finite scalar"),
        ({"A": 0 * KERNEL, "g": 1.0}, ir.HypothesisError, "A must not be zero where its norm divides"),
        ({"B": 0 * KERNEL, "h": 1.0}, ir.HypothesisError, "B must not be zero where its norm divides"),
        ({"m": 0}, ir.HypothesisError, "m must be a finite number > 0.*MON-Prop1.*got 0"),
        ({"m": -1.0}, ir.HypothesisError, "m must be"),
        ({"m": np.inf}, ir.HypothesisError, "m must be"),
        ({"m": "one"}, ir.HypothesisError, "m must be"),
        ({"size": (0, 3)}, ir.HypothesisError, r"size must be \(height, width\), two integers >= 1; got \(0, 3\)"),
        ({"size": (-2, 3)}, ir.HypothesisError, "size must be"),
        ({"size": (2.5, 3)}, ir.HypothesisError, "size must be"),
        ({"size": (2.0, 3)}, ir.HypothesisError, r"size must be.*got \(2.0, 3\)"),
        ({"size": 4}, ir.HypothesisError, "size must be.*got 4"),
        ({"size": (4,)}, ir.HypothesisError, "size must be"),
        ({"size": (2, 4, 4)}, ir.HypothesisError, "size must be"),
        ({"size": "44"}, ir.HypothesisError, "size must be"),
        ({"size": None}, ir.HypothesisError, "size must be"),
    ],
)
def test_bad_parameters_are_refused_by_name(arguments, error, message):
    with pytest.raises(error, match=message):
        MonotoneConv(**({"A": KERNEL, "B": KERNEL, "m": 1.0, "size": (4, 5)} | arguments))


def test_libraries_may_not_be_mixed():
    torch = pytest.importorskip("torch")
    with pytest.raises(
        TypeError, match="B must come from the library of the first array, numpy; got an array of torch"
    ):
        MonotoneConv(KERNEL, torch.ones((2, 2, 3, 3)), 1.0, (4, 5))


@pytest.mark.parametrize("sides", [[4, 5], np.array([4, 5]), (np.int64(4), np.int32(5))])
def test_sides_may_be_any_integers(sides):
    W = MonotoneConv(KERNEL, KERNEL, 1.0, sides)
    assert W.size == (4, 5)
    assert W.state_shape == (2, 4, 5)
    assert all(type(side) is int for side in W.size)


@pytest.mark.parametrize(("method", "name"), [("matvec", "z"), ("rmatvec", "y")])
def test_bad_states_are_refused_by_name(method, name):
    apply = getattr(OPERATORS["conv"](np.asarray), method)
    with pytest.raises(ir.ShapeError, match=rf"got \(2, 4, 4\). Add the batch axis: {name}\[None\]"):
        apply(np.ones((2, 4, 4)))
    for shape in ((3, 2, 4, 5), (3, 3, 4, 4), (3, 32), (32,), (1, 3, 2, 4, 4)):
        with pytest.raises(ir.ShapeError, match=rf"{name} must have shape \(batch, 2, 4, 4\)"):
            apply(np.ones(shape))
    for dtype in (int, bool, complex, np.float16):
        with pytest.raises(ir.HypothesisError, match=f"{name} must be float32 or float64"):
            apply(np.ones((1, 2, 4, 4), dtype))
    with pytest.raises(TypeError, match=f"{name} must be an array; got list"):
        apply(np.ones((1, 2, 4, 4)).tolist())


def test_vjp_needs_states_of_one_batch():
    W = OPERATORS["conv"](np.asarray)
    with pytest.raises(ir.ShapeError, match=r"dy must have the shape of z, \(2, 2, 4, 4\); got \(3, 2, 4, 4\)"):
        W.vjp(np.ones((2, 2, 4, 4)), np.ones((3, 2, 4, 4)))


@pytest.mark.parametrize("alpha", [0, -2.0, np.nan, np.inf, "1 m"])
def test_resolvent_needs_a_positive_step(alpha):
    with pytest.raises(ir.HypothesisError, match="alpha must be"):
        OPERATORS["conv"](np.asarray).resolvent(alpha)


def test_replace_refuses_unknown_parameters_and_changes_the_size():
    W = OPERATORS["conv"](np.asarray)
    with pytest.raises(TypeError, match="MonotoneConv has no parameter S"):
        W.replace(S=KERNEL)
    assert W.replace(size=(3, 9)).matvec(np.ones((1, 2, 3, 9))).shape == (1, 2, 3, 9)


def test_an_image_alone_and_in_a_batch_are_treated_alike():
    W, z = OPERATORS["conv"](np.asarray), np.random.default_rng(5).normal(size=(7, 2, 4, 4))
    for matvec in (W.matvec, W.rmatvec, W.resolvent(0.7).matvec):
        assert_close(np.concatenate([matvec(image[None]) for image in z]), matvec(z), scale=size(z), tol=1e-14)
        assert matvec(z[:0]).shape == (0, 2, 4, 4)
    grads = W.vjp(z[:0], z[:0])
    assert all((gradient == 0).all() and gradient.shape == W.params[name].shape for name, gradient in grads.items())


def test_oracle_and_operator_share_no_code():
    # equal to rounding and yet not bit for bit: both were computed
    W = OPERATORS["conv"](np.asarray)
    M, _ = laws.definition(W, laws.NUMPY)
    assert (W.to_dense() != M).any()
    assert oracles.correlation(np.ones((1, 1, 1, 2)), (1, 3)).tolist() == [[1, 1, 0], [0, 1, 1], [1, 0, 1]]
