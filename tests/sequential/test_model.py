"""Block-triangular models: features and gradients against definitions, blocks in and out, conversions, counts."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import oracles
import pytest
from oracles import assert_close, size

import implicitref as ir

seq = ir.sequential
relu, tanh, softplus = ir.activations.relu, ir.activations.tanh, ir.activations.softplus

SIZES = [(1, 1), (3, 3, 5), (2, 1, 4, 1), (4,), (1,) * 6]


def place(sizes):
    """The number of the block of every state, block L first."""
    return np.repeat(np.arange(len(sizes), 0, -1), sizes[::-1])


def drawn(sizes=(3, 3, 5), p=2, q=3, seed=0, activation=relu):
    """A model, 4 inputs and cotangents of the output; the triangle is written entry by entry."""
    rng, of, n = np.random.default_rng(seed), place(sizes), sum(sizes)
    A = np.array([[rng.normal() if of[i] > of[j] else 0.0 for j in range(n)] for i in range(n)])
    model = seq.BlockTriangularModel(A, rng.normal(size=(n, p)), rng.normal(size=(q, n)), sizes, activation)
    return model, rng.normal(size=(4, p)), rng.normal(size=(4, q)), rng


def on(backend, model):
    return dataclasses.replace(model, **{name: backend(value) for name, value in model.params.items()})


def one_entry_at_a_time(model, x):
    """Features by scalar substitution, from the last state to the first."""
    z, n = np.zeros((len(x), len(model.A))), len(model.A)
    for s in range(len(x)):
        for k in reversed(range(n)):
            pre = sum(model.A[k, r] * z[s, r] for r in range(n)) + sum(
                model.B[k, c] * x[s, c] for c in range(x.shape[1])
            )
            z[s, k] = model.activation(np.array([pre]))[0]
    return z


# ------------------------------------------------------------------------------------------------
# partition


@pytest.mark.claim("GREEDY-Asm3")
def test_partition_takes_the_floor_and_gives_the_rest_to_the_last():
    for n, L in itertools.product(range(2, 40), range(2, 9)):
        if n >= L:
            sizes = seq.partition(n, L)
            assert sizes[:-1] == (n // L,) * (L - 1)
            assert sizes[-1] == n - (L - 1) * (n // L) >= 1
    assert seq.partition(30, 10) == (3,) * 10
    assert seq.partition(np.int64(7), 2) == (3, 4)


@pytest.mark.parametrize(
    ("order", "n_blocks", "words"),
    [
        (3, 4, "n_blocks = 4, order = 3"),
        (5, 1, "2 <= n_blocks"),
        (5, 0, "2 <= n_blocks"),
        (5.0, 2, "order must be an integer"),
        (5, True, "n_blocks must be an integer"),
        (5, "2", "n_blocks must be an integer"),
    ],
)
def test_bad_partitions_are_refused(order, n_blocks, words):
    with pytest.raises(ir.HypothesisError, match=words):
        seq.partition(order, n_blocks)


# ------------------------------------------------------------------------------------------------
# features


@pytest.mark.claim("GREEDY-Asm3", "GREEDY-Eq5")
@pytest.mark.parametrize("activation", [relu, tanh, softplus], ids=repr)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_features_against_scalar_substitution_and_picard(sizes, activation):
    model, x, _, _ = drawn(sizes, activation=activation)
    z = model.features(x)
    assert_close(z, one_entry_at_a_time(model, x), scale=size(z), tol=1e-14)
    iterate = np.random.default_rng(1).normal(size=z.shape)  # from anywhere
    for _ in sizes:
        iterate = activation(iterate @ model.A.T + x @ model.B.T)
    assert_close(iterate, z, scale=size(z), tol=1e-14)
    assert model.defect(x, z).max() <= 1e-14 * size(z)
    assert_close(model.predict(x), z @ model.C.T, scale=size(z), tol=1e-14)


def test_backends_agree(backend):
    model, x, dy, _ = drawn((2, 3), activation=tanh)
    moved, z = on(backend, model), model.features(x)
    there = moved.features(backend(x))
    assert_close(backend.numpy(there), z, scale=size(z), tol=200 * backend.eps)
    if backend.name == "jax":  # every shape of every operation is compiled, two seconds in all
        return
    found = moved.predict_vjp(backend(x), there, backend(dy))
    for name, value in model.predict_vjp(x, z, dy).items():
        assert_close(backend.numpy(found[name]), value, scale=size(value), tol=500 * backend.eps)
    again = seq.BlockTriangularModel.from_blocks(moved.blocks, tanh)
    np.testing.assert_array_equal(backend.numpy(again.A), backend.numpy(moved.A))


def test_no_samples_and_one_sample():
    model, x, _, _ = drawn()
    assert model.features(x[:0]).shape == (0, 11)
    assert model.predict(x[:0]).shape == (0, 3)
    assert_close(model.features(x[:1]), model.features(x)[:1], scale=10, tol=1e-14)


def test_a_model_shares_no_memory_with_what_it_was_made_of():
    model, x, _, _ = drawn()
    A = np.array(model.A)
    copy, before = dataclasses.replace(model, A=A), model.predict(x)
    A += 1
    np.testing.assert_array_equal(copy.predict(x), before)
    with pytest.raises(ValueError, match="read-only"):
        copy.A[0, 0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        copy.sizes = (11,)


# ------------------------------------------------------------------------------------------------
# gradients


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("activation", [relu, tanh], ids=repr)
def test_gradients_against_central_differences(sizes, activation):
    model, x, dy, rng = drawn(sizes, activation=activation, seed=3)
    z = model.features(x)
    assert np.abs(model.pre(x, z)).min() > 1e-4, "a pre-activation near the kink"
    grads = model.predict_vjp(x, z, dy)
    assert set(grads) == {"A", "B", "C", "x"}
    for name, gradient in grads.items():
        at = x if name == "x" else model.params[name]
        direction = rng.normal(size=at.shape) * (model.mask() if name == "A" else 1)

        def loss(value, name=name):
            if name == "x":
                return (dy * model.predict(value)).sum()
            return (dy * dataclasses.replace(model, **{name: value}).predict(x)).sum()

        slope = oracles.central_difference(loss, at, direction, 1e-5)
        assert_close((gradient * direction).sum(), slope, scale=size(slope), tol=1e-7)


@pytest.mark.claim("GREEDY-Eq5")
@pytest.mark.parametrize("activation", [relu, tanh, softplus], ids=repr)
def test_gradients_against_implicit_differentiation(activation):
    model, x, dy, _ = drawn((3, 1, 4), activation=activation, seed=5)
    z = model.features(x)
    grads = model.predict_vjp(x, z, dy)
    A, jac = np.asarray(model.A), activation.derivative(x @ model.B.T + z @ model.A.T)
    # (I - A' J) w = dz and dpre = J w, by a dense solve
    dpre = np.stack([j * np.linalg.solve(np.eye(8) - A.T * j, g) for j, g in zip(jac, dy @ model.C, strict=True)])
    of = place(model.sizes)
    expected = {"A": (dpre.T @ z) * (of[:, None] > of), "B": dpre.T @ x, "C": dy.T @ z, "x": dpre @ model.B}
    for name, value in expected.items():
        assert_close(grads[name], value, scale=size(value), tol=1e-13)


def test_gradient_of_features_is_that_of_predictions_with_c_the_identity():
    model, x, _, rng = drawn()
    dz, z = rng.normal(size=(4, 11)), model.features(x)
    full = dataclasses.replace(model, C=np.eye(11)).predict_vjp(x, z, dz)
    for name, value in model.features_vjp(x, z, dz).items():
        np.testing.assert_array_equal(value, full[name])


# ------------------------------------------------------------------------------------------------
# blocks


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_blocks_and_back(sizes):
    model, x, _, _ = drawn(sizes)
    again = seq.BlockTriangularModel.from_blocks(model.blocks)
    for name, value in model.params.items():
        np.testing.assert_array_equal(getattr(again, name), value)
    assert again.sizes == sizes
    z = model.features(x)
    parts = model.split(z)
    for i, (block, part) in enumerate(zip(model.blocks, parts, strict=True)):
        before = np.hstack([*reversed(parts[:i]), x])  # the inputs of the shallow problem (12)
        expected = relu(before @ np.hstack([block.A, block.B]).T)
        assert_close(part, expected, scale=size(z), tol=1e-14)
    total = sum(part @ block.C.T for part, block in zip(parts, model.blocks, strict=True))
    assert_close(model.predict(x), total, scale=size(total), tol=1e-13)


def test_single_blocks_are_views_numbered_as_in_the_paper():
    model, _, _, _ = drawn((1, 2, 3))
    assert [[model.block(i, j).shape for j in (1, 2, 3)] for i in (1, 2, 3)] == [
        [(i, j) for j in (1, 2, 3)] for i in (1, 2, 3)
    ]
    np.testing.assert_array_equal(model.block(3, 2), model.A[:3, 3:5])
    np.testing.assert_array_equal(model.block(2, 1), model.A[3:5, 5:])
    assert np.shares_memory(model.block(3, 1), model.A)
    assert not model.block(1, 3).any()
    with pytest.raises(ir.HypothesisError, match="blocks are numbered 1 to 3; got 0"):
        model.block(0, 1)


def test_appending_leaves_earlier_features_alone():
    model, x, _, rng = drawn((2, 3))
    block = seq.Block(rng.normal(size=(4, 5)), rng.normal(size=(4, 2)), np.zeros((3, 4)))
    more = dataclasses.replace(model, history=("first",)).append(block)
    assert more.sizes == (2, 3, 4)
    assert more.history == ("first",)
    np.testing.assert_array_equal(more.features(x)[:, 4:], model.features(x))
    assert_close(more.predict(x), model.predict(x), scale=size(model.predict(x)), tol=1e-13)


# ------------------------------------------------------------------------------------------------
# conversions


@pytest.mark.claim("GREEDY-SecIII-feedforward")
@pytest.mark.parametrize("widths", [(3, 4), (2, 5, 3), (1, 4, 1, 3, 2)], ids=str)
@pytest.mark.parametrize("activation", [relu, tanh], ids=repr)
def test_feed_forward_networks_are_block_triangular(widths, activation):
    rng = np.random.default_rng(len(widths))
    weights = [rng.normal(size=(b, a)) for a, b in itertools.pairwise((*widths, 2))]
    model, x = seq.feed_forward(weights, activation), rng.normal(size=(5, widths[0]))
    hidden, states = x, []
    for W in weights[:-1]:
        hidden = activation(hidden @ W.T)
        states.append(hidden)
    for ours, theirs in zip(model.split(model.features(x)), states, strict=True):
        assert_close(ours, theirs, scale=size(theirs), tol=1e-14)
    assert_close(model.predict(x), hidden @ weights[-1].T, scale=size(hidden), tol=1e-14)
    L = len(model.sizes)
    assert {(i, j) for i, j in itertools.product(range(1, L + 1), repeat=2) if model.block(i, j).any()} == {
        (i, i - 1) for i in range(2, L + 1)
    }
    # the printed j = i + 1 lies on the other side of the diagonal, where Assumption 3 wants zeros
    flipped = np.asarray(model.A).T
    if L > 1:
        with pytest.raises(ir.HypothesisError, match="strictly block upper triangular"):
            seq.BlockTriangularModel(flipped, model.B, model.C, model.sizes, activation)


@pytest.mark.parametrize("seed", range(6))
def test_an_acyclic_model_in_any_order_is_found_again(seed):
    model, x, _, rng = drawn((2, 3, 1, 2), seed=seed)
    shuffle = rng.permutation(8)
    A, B, C = model.A[np.ix_(shuffle, shuffle)], model.B[shuffle], model.C[:, shuffle]
    found, order = seq.from_implicit(A, B, C)
    assert found.sizes == model.sizes  # all connections are there: no fewer blocks, and no other
    z = found.features(x)
    assert_close(z, model.features(x)[:, shuffle][:, list(order)], scale=size(z), tol=1e-14)
    assert_close(found.predict(x), model.predict(x), scale=size(found.predict(x)), tol=1e-13)
    given = np.empty_like(z)
    given[:, list(order)] = z
    assert np.abs(given - relu(given @ A.T + x @ B.T)).max() <= 1e-12


def test_the_fewest_blocks():
    A = np.zeros((5, 5))
    A[0, 4] = A[2, 0] = 1.0  # 4 to 0 to 2; 1 and 3 alone
    found, order = seq.from_implicit(A, np.ones((5, 1)), np.ones((1, 5)))
    assert found.sizes == (3, 1, 1)
    assert order == (2, 0, 1, 3, 4)


@pytest.mark.parametrize("cycle", [[(0, 0)], [(0, 1), (1, 0)], [(0, 1), (1, 2), (2, 0)]])
def test_cycles_are_refused(cycle):
    A = np.zeros((4, 4))
    for i, j in cycle:
        A[i, j] = 1.0
    with pytest.raises(ir.HypothesisError, match="form a cycle"):
        seq.from_implicit(A, np.ones((4, 1)), np.ones((1, 4)))


# ------------------------------------------------------------------------------------------------
# counts


@pytest.mark.claim("GREEDY-SecIII-count", "GREEDY-SecV-capacity")
def test_counts_against_masks():
    counts = seq.counts
    for n, L in itertools.product(range(2, 14), range(2, 7)):
        if n < L:
            continue
        sizes, p, q = seq.partition(n, L), 3, 2
        of = place(sizes)
        strict, step = (of[:, None] > of).sum(), (of[:, None] == of + 1).sum()
        assert counts.strict(sizes, p, q) == (strict, n * p, q * n)
        assert counts.feed_forward_count(sizes, p, q) == (step, p * sizes[0], q * sizes[-1])
        more = np.subtract(counts.strict(sizes, p, q), counts.feed_forward_count(sizes, p, q))
        assert counts.surplus(sizes, p, q) == tuple(more)
    assert counts.surplus((2, 2, 2), 1, 1) == (4, 4, 4)


@pytest.mark.claim("GREEDY-SecV-capacity")
def test_the_numbers_of_section_v():
    counts = seq.counts
    model, _, _, _ = drawn((3,) * 10, p=1, q=1)
    assert counts.dense(30, 1, 1).total == 960
    assert counts.strict((3,) * 10, 1, 1).total == 465 == sum(np.count_nonzero(v) for v in model.params.values())
    assert counts.layered((784, 64, 32, 16, 10)) == 52_896
    assert counts.layered((1, 25, 25, 25, 25, 1)) == 1925  # 1900 is printed
    assert counts.strict((2,) * 16, 784, 10).total == 25_888


@pytest.mark.claim("GREEDY-SecIII-connections")
@pytest.mark.parametrize("L", [1, 2, 5, 10])
def test_connections_of_a_full_model(L):
    model, _, _, _ = drawn((2,) * L)
    edges = seq.counts.connections(model)
    inside = {(e.source, e.target) for e in edges if e.target <= L}
    assert inside == set(itertools.combinations(range(L + 1), 2))
    assert len(inside) == L * (L + 1) // 2
    assert {(e.source, e.target) for e in edges} - inside == {(i, L + 1) for i in range(1, L + 1)}
    strengths = {(e.source, e.target): e.strength for e in edges}
    assert strengths[0, 1] == pytest.approx(np.linalg.norm(model.B[-2:]), rel=1e-14)
    if L > 1:
        assert strengths[1, L] == pytest.approx(np.linalg.norm(model.A[:2, -2:]), rel=1e-14)


# ------------------------------------------------------------------------------------------------
# what is refused

ONE = np.ones((1, 1))


def model_of(A=None, B=None, C=None, sizes=(1, 1), activation=relu):
    given = (np.zeros((2, 2)), np.ones((2, 1)), np.ones((1, 2)))
    return seq.BlockTriangularModel(
        *(g if v is None else v for g, v in zip(given, (A, B, C), strict=True)), sizes, activation
    )


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: model_of(A=np.eye(2)), ir.HypothesisError, r"strictly block upper triangular.*remove_self_loops"),
        (lambda: model_of(A=np.array([[0.0, 0.0], [1e-300, 0.0]])), ir.HypothesisError, "1e-300"),
        (lambda: model_of(A=np.array([[0.0, 1.0], [0.0, 0.0]]), sizes=(2,)), ir.HypothesisError, "strictly block"),
        (lambda: model_of(A=np.full((2, 2), np.nan)), ir.HypothesisError, "A must be finite"),
        (lambda: model_of(B=np.full((2, 1), np.inf)), ir.HypothesisError, "B must be finite"),
        (lambda: model_of(A=np.zeros((2, 3))), ir.ShapeError, r"A, B, C must have shapes \(n, n\)"),
        (lambda: model_of(B=ONE), ir.ShapeError, r"got \(2, 2\), \(1, 1\)"),
        (lambda: model_of(C=np.ones((1, 3))), ir.ShapeError, "A, B, C must have shapes"),
        (lambda: model_of(C=np.ones(2)), ir.ShapeError, "C must have 2 axes"),
        (lambda: model_of(sizes=(1, 2)), ir.ShapeError, "n = 3 = sum"),
        (lambda: model_of(sizes=(2, 0)), ir.HypothesisError, "each at least 1"),
        (lambda: model_of(sizes=()), ir.HypothesisError, r"each at least 1; got \(\)"),
        (lambda: model_of(sizes=2), ir.HypothesisError, "sizes must be a sequence of integers"),
        (lambda: model_of(sizes=(1.0, 1.0)), ir.HypothesisError, "sizes must be an integer; got 1.0"),
        (lambda: model_of(A=[[0.0, 0.0], [0.0, 0.0]]), TypeError, "A must be an array"),
        (lambda: model_of(A=np.zeros((2, 2), dtype=int)), ir.HypothesisError, "A must be float32 or float64"),
        (lambda: model_of(activation=np.tanh), ir.HypothesisError, "activation must be one of"),
        (lambda: model_of().features(np.ones((3, 2))), ir.ShapeError, "x must have 1 columns"),
        (lambda: model_of().features(np.ones(1)), ir.ShapeError, r"x\[None\]"),
        (lambda: model_of().predict(np.array([[np.nan]])), ir.HypothesisError, "x must be finite"),
        (lambda: model_of().append(seq.Block(ONE, ONE, ONE)), ir.ShapeError, "block.A must have 2 columns"),
        (lambda: model_of().append(seq.Block(np.ones((1, 2)), np.ones((1, 2)), ONE)), ir.ShapeError, "block.B 1"),
        (lambda: model_of().append(seq.Block(np.ones((1, 2)), ONE, np.ones((2, 1)))), ir.ShapeError, r"shape \(1, k\)"),
        (lambda: model_of().append(seq.Block([[1.0, 1.0]], ONE, ONE)), TypeError, "block.A must be an array"),
        (lambda: seq.BlockTriangularModel.from_blocks([seq.Block(ONE, ONE, ONE)]), ir.ShapeError, "no block is before"),
        (lambda: seq.BlockTriangularModel.from_blocks([]), ir.HypothesisError, "at least one block"),
        (lambda: seq.feed_forward([ONE]), ir.ShapeError, "L >= 1 hidden layers; got 1"),
        (lambda: seq.feed_forward([ONE, np.ones((1, 2))]), ir.ShapeError, r"weights\[1\] must have 1 columns"),
        (lambda: seq.counts.surplus((1, 2, 3), 1, 1), ir.HypothesisError, "n_1 = ... = n_"),
    ],
)
def test_bad_input_is_refused(make, error, words):
    with pytest.raises(error, match=words):
        make()
