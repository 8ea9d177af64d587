"""Algorithm 1, its solvers and their gradients: differences, definitions, second sources, and what is refused."""

from __future__ import annotations

import functools
import time

import numpy as np
import pytest
from oracles import assert_close, central_difference, size

import implicitref as ir
from implicitref import datasets
from implicitref.sequential import problem as subproblem
from implicitref.sequential import solvers

seq = ir.sequential
relu, tanh = ir.activations.relu, ir.activations.tanh
QUICK = {
    "variable-projection": functools.partial(seq.variable_projection, starts=2, max_iter=20),
    "alternating": functools.partial(seq.alternating, rounds=3, steps=5),
    "l-bfgs": functools.partial(seq.lbfgs, starts=1, max_iter=30),
    "adam": functools.partial(seq.adam, epochs=10, batch=16, learning_rate=1e-2),
}


def drawn(seed=0, loss="squared", activation=relu, m=40, before=3, p=2, q=2, units=2):
    """A subproblem whose u holds `before` features and p inputs, and some V and C."""
    rng = np.random.default_rng(seed)
    u = np.concatenate([np.abs(rng.normal(size=(m, before))), rng.normal(size=(m, p))], axis=1)
    target = rng.normal(size=(m, q)) if loss == "squared" else rng.integers(q, size=m)
    problem = seq.Problem(u, target, rng.normal(size=(q, before)), units, loss, activation)
    return problem, seq.Solved(rng.normal(size=(units, before + p)), rng.normal(size=(q, units + before))), rng


def circles(m=60, seed=0):
    """Two classes, one inside the other."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(m, 2))
    return seq.augment(x), (np.linalg.norm(x, axis=1) > 1.1).astype(int)


def wave(m=60, seed=0):
    x = np.random.default_rng(seed).uniform(-2, 2, (m, 1))
    return seq.augment(x), np.concatenate([np.sin(3 * x), np.abs(x)], axis=1)


# ------------------------------------------------------------------------------------------------
# least squares

RANKS = [(30, 5, 5), (30, 8, 3), (6, 10, 6), (20, 4, 0)]


def of_rank(m, n, rank, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(m, rank)) @ rng.normal(size=(rank, n)), rng.normal(size=(m, 3))


@pytest.mark.claim("GREEDY-Eq11")
@pytest.mark.parametrize(("m", "n", "rank"), RANKS)
def test_least_squares_whatever_the_rank(m, n, rank):
    z, y = of_rank(m, n, rank)
    C = seq.least_squares(z, y)
    assert seq.normal_residual(z, y, C) <= 1e-11
    assert_close(C.T, np.linalg.lstsq(z, y, rcond=1e-12)[0], scale=size(C), tol=1e-10)  # also of least norm


@pytest.mark.claim("GREEDY-Eq11")
@pytest.mark.parametrize("ridge", [1e-3, 10.0])
def test_ridge_is_least_squares_with_rows_more(ridge):
    z, y = of_rank(20, 6, 3)
    more = np.concatenate([z, ridge**0.5 * np.eye(6)]), np.concatenate([y, np.zeros((6, 3))])
    C = seq.least_squares(z, y, ridge)
    assert seq.normal_residual(z, y, C, ridge) <= 1e-11
    assert_close(C.T, np.linalg.lstsq(*more)[0], scale=size(C), tol=1e-9)


def test_the_residual_of_the_normal_equations_notices_a_wrong_solution():
    z, y = of_rank(30, 5, 5)
    assert seq.normal_residual(z, y, seq.least_squares(z, y) * (1 + 1e-9)) > 1e-11


def test_least_squares_on_every_backend(backend):
    z, y = of_rank(12, 4, 4)
    C = seq.least_squares(backend(z), backend(y))
    assert_close(backend.back(C), seq.least_squares(z, y), scale=size(z, y), tol=1e5 * backend.eps)


# ------------------------------------------------------------------------------------------------
# losses and gradients


@pytest.mark.claim("GREEDY-Eq8", "GREEDY-Rem1")
def test_the_squared_loss_keeps_its_half():
    problem, solved, _ = drawn()
    z = np.concatenate([np.maximum(problem.u @ solved.V.T, 0), problem.u[:, :3]], axis=1)
    wanted = 0.5 * np.linalg.norm(problem.target.T - solved.C @ z.T, "fro") ** 2 / 40
    assert_close(seq.value(problem, solved), wanted, scale=1, tol=1e-13)


@pytest.mark.claim("GREEDY-Eq9", "GREEDY-Rem1")
def test_the_cross_entropy_is_that_of_9_over_the_samples():
    problem, solved, _ = drawn(loss="cross-entropy", q=3)
    z = np.concatenate([np.maximum(problem.u @ solved.V.T, 0), problem.u[:, :3]], axis=1)
    Y, hat = np.eye(3)[problem.target].T, solved.C @ z.T
    wanted = (np.log(np.ones(3) @ np.exp(hat)) @ np.ones(40) - np.trace(Y.T @ hat)) / 40
    assert_close(seq.value(problem, solved), wanted, scale=1, tol=1e-13)


@pytest.mark.claim("GREEDY-Eq7", "GREEDY-Rem2")
@pytest.mark.parametrize("loss", ["squared", "cross-entropy"])
@pytest.mark.parametrize("activation", [relu, tanh], ids=repr)
@pytest.mark.parametrize("before", [0, 3])
def test_gradients_against_differences(loss, activation, before):
    problem, solved, rng = drawn(1, loss, activation, before=before)
    value, grads = seq.value_and_gradients(problem, solved)
    assert value == seq.value(problem, solved)
    for name in ("V", "C"):
        at, direction = getattr(solved, name), rng.normal(size=getattr(solved, name).shape)
        slope = central_difference(
            lambda a, name=name: seq.value(problem, solved._replace(**{name: a})), at, direction, 1e-5
        )
        assert_close(np.vdot(getattr(grads, name), direction), slope, scale=1 + abs(slope), tol=1e-7)


@pytest.mark.parametrize("activation", [relu, tanh], ids=repr)
@pytest.mark.parametrize("before", [0, 3])
def test_gradient_with_C_eliminated_against_differences(activation, before):
    problem, solved, rng = drawn(2, activation=activation, before=before)
    reduced = solvers.Eliminated(problem, 1e-2)
    at, direction = solved.V.ravel(), rng.normal(size=solved.V.size)
    slope = central_difference(lambda a: reduced.value_and_gradient(a)[0], at, direction, 1e-5)
    assert_close(reduced.value_and_gradient(at)[1] @ direction, slope, scale=1 + abs(slope), tol=1e-7)


def test_the_eliminated_loss_is_the_least_over_C():
    problem, solved, rng = drawn(3)
    reduced = solvers.Eliminated(problem, 1e-2)
    flat = (solved.V * reduced.scale).ravel()
    found = reduced.solved(flat)

    def penalised(C):
        penalty = np.vdot(C, C) + flat @ flat
        return seq.value(problem, found._replace(C=C)) + reduced.lam * penalty / 80

    assert_close(reduced.value_and_gradient(flat)[0], penalised(found.C), scale=1, tol=1e-12)
    assert all(penalised(found.C + 1e-3 * rng.normal(size=found.C.shape)) > penalised(found.C) for _ in range(20))


# ------------------------------------------------------------------------------------------------
# Algorithms 1 and 2


@pytest.mark.claim("GREEDY-Alg1", "GREEDY-Eq6", "GREEDY-Eq7", "GREEDY-Rem6")
@pytest.mark.parametrize("solver", QUICK)
def test_every_block_lowers_the_loss_and_leaves_the_ones_before(solver):
    x, y = wave()
    before = None
    for model in seq.greedy(x, y, (2, 1, 3), solver=QUICK[solver], random_state=0):
        loss = ir.losses.squared_error(model.predict(x), y)[0]
        record = model.history[-1]
        assert record.loss <= record.before
        assert_close(record.loss, loss, scale=record.loss, tol=1e-9)
        if before is not None:
            n = sum(before.sizes)
            assert_close(record.before, before.history[-1].loss, scale=record.before, tol=1e-9)
            assert np.array_equal(model.A[-n:, -n:], before.A)
            assert np.array_equal(model.B[-n:], before.B)
        before = model
    assert model.sizes == (2, 1, 3)
    assert model.history[-1].loss < (0.95 if solver == "adam" else 0.5) * model.history[0].before


@pytest.mark.claim("GREEDY-Alg2", "GREEDY-Eq10", "GREEDY-Eq12", "GREEDY-SecIV-cost")
def test_alternation_never_raises_the_loss_and_ends_in_least_squares():
    for seed in range(4):
        problem, _, rng = drawn(seed)
        iterates = list(seq.alternation(problem, rng, rounds=5, steps=5))
        losses = [seq.value(problem, solved) for solved in iterates]
        assert len(iterates) == 11
        assert max(np.diff(losses)) <= 1e-14 * losses[0]
        assert losses[-1] < losses[0]
        z = subproblem.extended(problem.u, iterates[-1].V, relu)[:, :5]
        assert seq.normal_residual(z, problem.target, iterates[-1].C) <= 1e-11


@pytest.mark.claim("GREEDY-Eq12")
def test_the_shallow_problem_has_a_flat_bad_minimum():
    u, one = np.array([[1.0]]), np.array([[1.0]])
    problem = seq.Problem(u, one, np.zeros((1, 0)), 1, "squared", relu)
    value, grads = seq.value_and_gradients(problem, seq.Solved(-one, one))
    assert (2 * value, grads.V.item()) == (1.0, 0.0)
    assert seq.value(problem, seq.Solved(one, one)) == 0


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_hyperplanes_pass_through_samples_at_every_scale(scale):
    u = np.random.default_rng(0).normal(size=(50, 3)) * scale
    problem = seq.Problem(np.column_stack([u, np.full(50, 2.0)]), u, np.zeros((1, 3)), 4, "squared", relu)
    V = subproblem.hyperplanes(problem, np.random.default_rng(1), 200)
    pre = problem.u @ V.T
    assert np.abs(pre).min(axis=0).max() <= 1e-12  # of every kink, a sample on it
    assert 0.5 < pre.std() < 2
    through_0 = subproblem.hyperplanes(problem._replace(u=u), np.random.default_rng(1), 200)
    assert 0.5 < (u @ through_0.T).std() < 2


def test_the_history_has_blocks_and_seconds():
    began = time.perf_counter()
    history = seq.fit(*wave(), 5, 3, solver="adam", random_state=0).history
    took = time.perf_counter() - began
    assert [record.block for record in history] == [1, 2, 3]
    assert 0 < sum(record.seconds for record in history) <= took


def test_features_that_are_rounding_are_not_read():
    # a unit on at the outermost sample only, by what rounding leaves of 0
    rng, seen = np.random.default_rng(0), 0
    for _ in range(100):
        u = np.column_stack([np.sort(rng.normal(size=9)), np.ones(9)])
        V = rng.uniform(0.1, 2) * np.array([[1.0, -u[-1, 0]]])
        problem = seq.Problem(u, rng.normal(size=(9, 1)), np.zeros((1, 0)), 1, "squared", relu)
        moved = np.add(V, [[0, 1e-16]])
        noise = np.maximum(u @ moved.T, 0).max()
        for row in (V, moved):
            found = solvers._least_squares_step(problem, seq.Solved(row, np.zeros((1, 1))))
            assert abs(found.C) <= 1e3
        seen += 0 < noise < 1e-14
    assert seen > 20


@pytest.mark.claim("GREEDY-Alg1")
@pytest.mark.parametrize("seed", [497, 0, 1])
def test_the_recorded_loss_is_that_of_the_model(seed):
    rng = np.random.default_rng(seed)
    x, y = np.column_stack([rng.uniform(-2, 2, 20), np.ones(20)]), rng.normal(size=(20, 2))
    for model in seq.greedy(x, y, (1, 2, 1), solver="alternating", random_state=seed):
        assert model.history[-1].loss == pytest.approx(((model.predict(x) - y) ** 2).sum() / 40, rel=1e-9)


def test_a_block_with_dead_units_is_drawn_again():
    tries = []

    def solver(problem, rng):
        tries.append(len(tries))
        V = subproblem.hyperplanes(problem, rng, problem.units)
        V = -np.ones_like(V) if len(tries) == 1 else V
        return seq.Solved(V, subproblem.unread(problem))

    x = np.abs(wave()[0])
    model = next(seq.greedy(x, wave()[1], (2, 1), solver=solver, random_state=0))
    assert len(tries) == 2
    assert model.history[0].dead == 0


def test_alternation_revives_dead_units():
    problem, _, rng = drawn(before=0, p=2)
    problem = problem._replace(u=np.abs(problem.u))
    off = seq.Solved(-np.ones((2, 2)), np.ones((2, 2)))
    revived = solvers._revived(problem, off, rng)
    assert solvers.dead(problem, off.V).all()
    assert not solvers.dead(problem, revived.V).all()
    assert seq.value(problem, revived) == seq.value(problem, off._replace(C=0 * off.C))


def test_a_solver_that_makes_it_worse_is_refused():
    def worse(problem, rng):
        return seq.Solved(np.ones((problem.units, problem.u.shape[1])), 1e3 + subproblem.unread(problem))

    x, y = wave()
    model = seq.fit(x, y, 4, 2, solver=worse, random_state=0)
    assert [record.loss == record.before for record in model.history] == [True, True]


@pytest.mark.claim("GREEDY-Alg1")
@pytest.mark.parametrize(("loss", "solver"), [("squared", "variable-projection"), ("cross-entropy", "adam")])
def test_a_resumed_run_is_the_uninterrupted_one(loss, solver):
    x, y = wave() if loss == "squared" else circles()
    run = functools.partial(seq.greedy, x, y, (2, 2, 1), loss=loss, solver=QUICK[solver], random_state=3)
    whole = list(run())
    for stopped in whole[:2]:
        resumed = list(run(start=stopped))
        assert len(resumed) == 3 - len(stopped.sizes)
        for name in ("A", "B", "C"):
            assert np.array_equal(getattr(resumed[-1], name), getattr(whole[-1], name))
        assert [r.loss for r in resumed[-1].history] == [r.loss for r in whole[-1].history]


@pytest.mark.claim("GREEDY-Rem3")
def test_any_partition():
    x, y = wave()
    assert seq.fit(x, y, 7, 3, solver=QUICK["adam"], random_state=0).sizes == (2, 2, 3)
    assert seq.fit(x, y, 7, (4, 1, 2), solver=QUICK["adam"], random_state=0).sizes == (4, 1, 2)
    with pytest.raises(ir.HypothesisError, match="sum to order = 7"):
        seq.fit(x, y, 7, (4, 4))


@pytest.mark.claim("GREEDY-Rem5")
def test_memory_counts_what_each_stage_optimises():
    x, y = wave()
    m, p, q, counted, blocks = 60, 2, 2, [], (2, 1, 3)
    for model in seq.greedy(x, y, blocks, solver=QUICK["adam"], random_state=0):
        last, z = model.blocks[-1], model.split(model.features(x))[-1]
        counted.append(last.A.size + last.B.size + z.size + model.C.size)
    stages, whole = seq.memory(blocks, m, p, q)
    assert stages == tuple(counted)
    assert whole == 6 * (6 + m + p + q)


# ------------------------------------------------------------------------------------------------
# both tasks


def test_the_smooth_task_in_one_resampling():
    task = datasets.interpolation("smooth", 0)
    model = seq.fit(seq.augment(task.x_train), task.y_train, 30, 10, random_state=0)
    error = model.predict(seq.augment(task.x_test)) - task.y_test
    assert np.sqrt(np.mean(error**2)) < 0.25


@pytest.mark.parametrize("solver", ["adam", "l-bfgs"])
def test_classes_are_learned_from_labels_and_from_one_hot(solver):
    x, labels = circles()
    quick = functools.partial(seq.adam, epochs=300, batch=None, learning_rate=0.05) if solver == "adam" else solver
    models = [
        seq.fit(x, y, 6, 2, loss="cross-entropy", solver=quick, random_state=1) for y in (labels, np.eye(2)[labels])
    ]
    assert np.mean(np.argmax(models[0].predict(x), axis=1) == labels) > 0.9
    assert np.array_equal(models[0].A, models[1].A)


def test_a_class_without_samples_keeps_its_output():
    x, labels = circles()
    run = functools.partial(seq.fit, x, order=2, n_blocks=2, loss="cross-entropy", solver=QUICK["adam"], random_state=1)
    assert run(y=np.eye(4)[labels]).predict(x).shape == (60, 4)
    assert run(y=labels).predict(x).shape == (60, 2)


def test_defaults_follow_the_loss():
    assert solvers.SOLVERS[seq.training.DEFAULTS["squared"]] is seq.variable_projection
    assert solvers.SOLVERS[seq.training.DEFAULTS["cross-entropy"]] is seq.adam


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("solver", QUICK)
def test_dtype_stays_and_arguments_are_left_alone(solver, dtype):
    x, y = (a.astype(dtype) for a in wave())
    kept = x.copy(), y.copy()
    model = seq.fit(x, y, 3, 2, solver=QUICK[solver], random_state=0)
    assert model.A.dtype == model.B.dtype == model.C.dtype == dtype
    assert np.array_equal(x, kept[0])
    assert np.array_equal(y, kept[1])


def test_the_model_comes_back_on_the_backend_of_x(backend):
    x, y = wave()
    model = seq.fit(backend(x), backend(y), 3, 2, solver=QUICK["l-bfgs"], random_state=0)
    here = seq.fit(x, y, 3, 2, solver=QUICK["l-bfgs"], random_state=0)
    assert type(model.A) is type(backend(x))
    if backend.double:  # searches in float32 go another way
        assert_close(backend.back(model.C), here.C, scale=size(here.C), tol=1e-12)


def test_random_state():
    x, y = wave()
    runs = [seq.fit(x, y, 3, 2, solver=QUICK["adam"], random_state=s).B for s in (5, np.int64(5), None, None)]
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[2], runs[3])
    draws = [seq.fit(x, y, 3, 2, solver=QUICK["adam"], random_state=np.random.default_rng(5)).B for _ in range(2)]
    assert np.array_equal(*draws)


def test_adam_in_principal_directions():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 4)) @ rng.normal(size=(4, 12)) + 1e-3 * rng.normal(size=(80, 12))
    labels = (x[:, 0] > 0).astype(int)
    quick = functools.partial(seq.adam, epochs=30, batch=16, components=4)
    model = seq.fit(x, labels, 4, 2, loss="cross-entropy", solver=quick, random_state=0)
    span = np.linalg.svd(x.T @ x)[0][:, :4]
    assert_close(model.B @ span @ span.T, model.B, scale=size(model.B), tol=1e-10)
    assert np.mean(np.argmax(model.predict(x), axis=1) == labels) > 0.9


def test_full_batch_adam_stops_where_nothing_improves():
    problem, _, _ = drawn(before=0)
    calls = []
    counted = problem._replace(activation=_counting(calls))
    seq.adam(counted, np.random.default_rng(0), epochs=500, batch=None, learning_rate=1e-9, patience=3)
    assert 4 <= len(calls) < 20


def _counting(calls):
    class Counting:
        def __call__(self, x):
            calls.append(1)
            return relu(x)

        derivative = staticmethod(relu.derivative)

    return Counting()


# ------------------------------------------------------------------------------------------------
# what is refused

X, Y = wave(10)
REFUSED = [
    ({"n_blocks": 5}, ir.HypothesisError, "n_blocks = 5"),
    ({"n_blocks": 1}, ir.HypothesisError, "n_blocks = 1"),
    ({"x": X[:1], "y": Y[:1]}, ir.ShapeError, "at least 2 samples"),
    ({"x": np.ones((10, 2))}, ir.HypothesisError, "constant"),
    ({"x": np.where(X[0] == X, np.nan, X)}, ir.HypothesisError, "x must be finite"),
    ({"y": np.where(Y[0] == Y, np.inf, Y)}, ir.HypothesisError, "y must be finite"),
    ({"y": Y[:, 0]}, ir.ShapeError, "y must have 2 axes"),
    ({"y": Y[:9]}, ir.ShapeError, "10 samples"),
    ({"y": Y[:, :0]}, ir.ShapeError, "at least one column"),
    ({"x": X.astype(int)}, ir.HypothesisError, "float32 or float64"),
    ({"x": X.tolist()}, TypeError, "x must be an array"),
    ({"loss": "hinge"}, ir.HypothesisError, "loss must be one of"),
    ({"solver": "newton"}, ir.HypothesisError, "solver must be one of"),
    ({"loss": "cross-entropy"}, ir.HypothesisError, "one-hot"),
    ({"loss": "cross-entropy", "y": np.full((10, 2), 0.5)}, ir.HypothesisError, "one-hot"),
    ({"loss": "cross-entropy", "y": np.arange(10) - 1}, ir.HypothesisError, "labels"),
    ({"loss": "cross-entropy", "y": np.linspace(0, 1, 10)}, ir.ShapeError, "integer labels"),
    ({"loss": "cross-entropy", "y": [0, 1]}, TypeError, "y must be an array"),
    ({"loss": "cross-entropy", "y": np.arange(10), "solver": "alternating"}, ir.HypothesisError, "GREEDY-Asm4"),
    ({"random_state": -1}, ir.HypothesisError, "random_state"),
    ({"activation": np.tanh}, ir.HypothesisError, "activation"),
    ({"solver": functools.partial(seq.variable_projection, ridge=0.0)}, ir.HypothesisError, "ridge"),
]


@pytest.mark.parametrize(("change", "error", "message"), REFUSED, ids=[f"{c}"[:40] for c, *_ in REFUSED])
def test_bad_input_is_refused(change, error, message):
    arguments = {"x": X, "y": Y, "order": 4, "n_blocks": 2, "random_state": 0} | change
    with pytest.raises(error, match=message):
        seq.fit(**arguments)


def test_a_start_that_does_not_fit_is_refused():
    first = next(seq.greedy(X, Y, (2, 2), solver=QUICK["adam"], random_state=0))
    with pytest.raises(ir.ShapeError, match="start must be of blocks"):
        seq.greedy(X, Y, (3, 2), start=first)
    with pytest.raises(ir.ShapeError, match=r"2 inputs and 1 outputs; got blocks .* with 2 and 2"):
        seq.greedy(X, Y[:, :1], (2, 2), start=first)
    with pytest.raises(ir.HypothesisError, match="activation"):
        seq.greedy(X, Y, (2, 2), start=first, activation=tanh)
    with pytest.raises(TypeError, match="start must be"):
        seq.greedy(X, Y, (2, 2), start=first.A)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((X, Y[:3]), ir.ShapeError, "a row for each"),
        ((X, Y, -1.0), ir.HypothesisError, "ridge"),
        ((X[0], Y), ir.ShapeError, "2 axes"),
    ],
)
def test_least_squares_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        seq.least_squares(*arguments)
