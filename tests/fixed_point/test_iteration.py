"""Banach's iteration and Anderson's: what they promise for every sample, and how they fail."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import DEFINITIONS, assert_close, newton_equilibria, size

import implicitref as ir

fp = ir.fixed_point
relu, tanh, leaky = ir.activations.relu, ir.activations.tanh, ir.activations.leaky_relu(0.3)
identity = ir.activations.leaky_relu(1.0)
METHODS = pytest.mark.parametrize("acceleration", [None, "anderson"])


def layer(kind="general", n=8, gamma=0.9, activation=relu, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    W = rng.normal(size=(n, n))
    W = {"general": W, "symmetric": W + W.T, "definite": W @ W.T, "positive": np.abs(W)}[kind]
    W *= gamma / np.linalg.norm(W, 2)
    return fp.OneLayer(*(a.astype(dtype) for a in (W, rng.normal(size=(n, 3)), rng.normal(size=n))), activation)


def data(batch=6, n=8, seed=1, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(batch, 3)).astype(dtype), rng.normal(size=(batch, n)).astype(dtype)


def exact(T, x):
    b = x @ T.U.T + T.b
    start = fp.iterate(T, x, np.zeros_like(b), tol=1e-12, max_iter=20000).z
    return newton_equilibria(T.W, b, repr(T.activation), start)


# ------------------------------------------------------------------------------------------------
# What is promised


@pytest.mark.claim("JFB-Thm2.1")
@pytest.mark.claim("FPN-Thm2.1")
@pytest.mark.claim("FPN-Eq7")
@pytest.mark.claim("JFB-Eq10")
@pytest.mark.claim("NEW-cert-F1")
@given(seed=st.integers(0, 10**6), gamma=st.sampled_from([0.1, 0.5, 0.9, 0.97]), tol=st.sampled_from([1e-2, 1e-8]))
def test_the_bound_holds_for_every_sample_and_every_iterate(seed, gamma, tol):
    T, (x, z) = layer(gamma=gamma, activation=tanh, seed=seed), data(seed=seed)
    z_star = exact(T, x)
    for acceleration in (None, "anderson"):
        solution = fp.iterate(T, x, z, tol=tol, max_iter=2000, acceleration=acceleration, keep=True)
        error = np.linalg.norm(solution.z - z_star, axis=1)
        assert (error <= solution.bound + 1e-13 * size(z_star)).all()
        assert (solution.bound <= tol * (1 + 1e-12)).all()
        low, high = fp.theory.residual_interval(solution.residuals, T.gamma)
        errors = np.linalg.norm(np.stack(solution.states) - z_star, axis=2)
        assert (low <= errors + 1e-13 * size(z_star)).all()
        assert (errors <= high + 1e-13 * size(z_star)).all()


@pytest.mark.claim("JFB-Thm2.1")
def test_every_step_contracts_by_gamma():
    T, (x, z) = layer(gamma=0.9, activation=leaky), data()
    z_star = exact(T, x)
    errors = [np.linalg.norm(s.z - z_star, axis=1) for s, _ in zip(fp.picard_steps(T, x, z), range(40), strict=False)]
    for before, after in itertools.pairwise(errors):
        assert (after <= T.gamma * before + 1e-14 * size(z_star)).all()


@pytest.mark.claim("JFB-Alg1")
@pytest.mark.claim("FPN-Alg1")
@METHODS
def test_the_driver_walks_the_generator(acceleration):
    T, (x, z) = layer("definite"), data()
    steps = (fp.picard_steps if acceleration is None else fp.anderson_steps)(T, x, z)
    solution = fp.iterate(T, x, z, tol=1e-8, acceleration=acceleration, keep=True)
    assert len(solution.states) == solution.iterations == solution.steps.max()
    assert solution.residuals.shape == (solution.iterations, 6)
    for k, (state, kept) in enumerate(zip(steps, solution.states, strict=False)):
        working = k < solution.steps
        assert_close(kept[working], state.z[working], scale=size(kept), tol=1e-11 if acceleration else 1e-14)
        length = np.linalg.norm(T(kept, x) - kept, axis=1)
        assert_close(solution.residuals[k], length, scale=size(length), tol=1e-13)
    assert (solution.residuals[-1] <= 1e-8 * (1 - T.gamma)).all()
    for i, stop in enumerate(solution.steps):  # it stopped at the first iterate that passes
        assert (solution.residuals[: stop - 1, i] > 1e-8 * (1 - T.gamma)).all()


@pytest.mark.claim("JFB-Alg1")
def test_the_number_of_iterations_is_bounded_as_the_theory_says():
    for seed in range(100):
        gamma = [0.3, 0.7, 0.95][seed % 3]
        T, (x, z) = layer(gamma=gamma, seed=seed), data(seed=seed)
        free = fp.Map(T.__call__, T.vjp_state, T.vjp_params)
        solution = fp.iterate(free, x, z, tol=1e-5, max_iter=5000)
        for first, steps in zip(solution.residuals[0], solution.steps, strict=True):
            assert steps <= fp.theory.iterations_bound(first, 1e-5, T.gamma)
    assert fp.theory.iterations_bound(1e-6, 1e-5, 0.5) == 1
    assert fp.theory.iterations_bound(1.0, 1e-5, 0.0) == 2
    with_gamma = fp.LinearMap(np.array([[0.5]]), np.array([[1.0]]), np.zeros(1))  # attained by K = gamma I
    one = np.array([[1.0]])
    found = fp.iterate(fp.Map(with_gamma.__call__, None, None), one, 0 * one, tol=2.0**-20)
    assert found.iterations == fp.theory.iterations_bound(1.0, 2.0**-20, 0.5) == 21


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@METHODS
def test_no_answer_depends_on_batch_mates(acceleration, dtype):
    T, (x, z) = layer("symmetric", n=12, gamma=0.95, dtype=dtype), data(100, 12, dtype=dtype)
    free = fp.Map(T.__call__, T.vjp_state, T.vjp_params)  # stops by its residual, as a network without gamma does
    options = {"tol": 1e-4, "max_iter": 500, "acceleration": acceleration}
    order = np.random.default_rng(3).permutation(100)
    together = fp.iterate(free, x, z, **options)
    permuted = fp.iterate(free, x[order], z[order], **options)
    alone = [fp.iterate(free, x[i : i + 1], z[i : i + 1], **options) for i in range(100)]
    alone_z, alone_steps = np.concatenate([s.z for s in alone]), np.array([s.iterations for s in alone])
    # In float32 the residual of a sample may round to either side of the tolerance: then the answers differ by one
    # step, for Picard no longer than the tolerance.
    tol = (1e-11 if dtype == np.float64 else 1e-4) * (1 if acceleration is None else 10)
    assert_close(permuted.z, together.z[order], scale=1.0, tol=tol)
    assert_close(alone_z, together.z, scale=1.0, tol=tol)
    same = alone_steps == together.steps
    assert same.mean() > 0.9
    if acceleration is None:
        assert_close(alone_z[same], together.z[same], scale=size(together.z), tol=1e-6)
        assert same.all() or dtype == np.float32
    assert together.steps.min() < together.steps.max()
    assert together.z.dtype == dtype


def test_one_sample_far_away_does_not_move_the_others():
    T, (x, z) = layer(activation=tanh), data(5)
    far = z.copy()
    far[2] *= 1e6
    near, moved = (fp.iterate(T, x, start, tol=1e-3, max_iter=5000) for start in (z, far))
    others = [0, 1, 3, 4]
    assert_close(near.z[others], moved.z[others], scale=1.0, tol=1e-14)
    np.testing.assert_array_equal(near.steps[others], moved.steps[others])


def test_where_no_gamma_is_known_nothing_is_called_a_bound():
    T, (x, z) = layer("definite", gamma=0.95), data()
    free = fp.Map(T.__call__, T.vjp_state, T.vjp_params)
    solution = fp.iterate(free, x, z, tol=1e-7)
    error = np.linalg.norm(solution.z - exact(T, x), axis=1)
    assert np.isnan(solution.bound).all()
    assert solution.gamma is None
    assert (solution.residuals[-1] <= 1e-7).all()
    assert (np.abs(np.log(solution.estimate / error)) < np.log(2)).all()  # symmetric: one eigenvalue rules
    passed = fp.iterate(free, x, z, tol=1e-7, gamma=0.96)
    assert (passed.bound <= 1e-7 * (1 + 1e-12)).all()
    assert passed.gamma == 0.96


def test_images_and_tuples_of_data():
    rng = np.random.default_rng(0)
    shift, scale = rng.normal(size=(7, 2, 3, 3)), rng.uniform(0.1, 0.9, size=(7, 1, 1, 1))
    T = fp.Map(lambda z, x: x[1] * z + x[0], lambda z, x, g: x[1] * g, lambda z, x, g: {})
    for acceleration in (None, "anderson"):
        z = fp.iterate(T, (shift, scale), 0 * shift, tol=1e-11, acceleration=acceleration).z
        assert_close(z, shift / (1 - scale), scale=size(z), tol=1e-9)


# ------------------------------------------------------------------------------------------------
# Anderson


@pytest.mark.parametrize("kind", ["symmetric", "definite", "positive"])
@pytest.mark.parametrize("activation", [relu, leaky, tanh], ids=repr)
def test_anderson_takes_six_tenths_of_picards_iterations(kind, activation):
    ratios = []
    for seed in range(6):
        T, (x, z) = layer(kind, n=20, gamma=0.95, activation=activation, seed=seed), data(20, 20, seed)
        plain, fast = (fp.iterate(T, x, z, tol=1e-6, max_iter=3000, acceleration=a) for a in (None, "anderson"))
        ratios.append(fast.iterations / plain.iterations)
    assert np.mean(ratios) <= 0.6


def test_anderson_never_loses_more_than_its_trials():
    # a rotation: every direction is new, acceleration finds nothing; and a kinked map that misleads it
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(60, 60)))[0] * 0.9
    for activation in (identity, relu, ir.activations.hardtanh):
        T = fp.OneLayer(turn, rng.normal(size=(60, 3)), rng.normal(size=60), activation)
        x, z = data(10, 60)
        plain, fast = (fp.iterate(T, x, z, tol=1e-6, acceleration=a) for a in (None, "anderson"))
        assert fast.iterations <= plain.iterations + 5


def test_anderson_residuals_never_grow_after_an_accelerated_step():
    T, (x, z) = layer("general", n=20, gamma=0.99, activation=tanh), data(10, 20)
    rows = fp.iterate(T, x, z, tol=1e-8, max_iter=3000, acceleration="anderson").residuals
    assert (rows[1:] <= rows[:-1] * (1 + 1e-12)).all()  # T is a contraction: plain steps shrink it too


# ------------------------------------------------------------------------------------------------
# Failure


@pytest.mark.claim("JFB-Sec1-mon-case")
def test_a_map_that_is_no_contraction():
    plain, step, x, z_star = fp.examples.mon_that_cycles()
    with pytest.raises(ir.ConvergenceError, match=r"measured ratio of residuals is 1: T is no contraction") as caught:
        fp.iterate(plain, x, 0 * x, tol=1e-6, max_iter=100)
    assert "forward-backward" in str(caught.value)
    assert caught.value.solution.iterations == 100
    assert not caught.value.solution.converged.any()
    assert_close(fp.iterate(step, x, 0 * x, tol=1e-10).z, z_star, scale=1.0, tol=1e-10)


def test_divergence_is_noticed_and_spares_the_other_samples():
    T = fp.Map(lambda z, x: x * z + 1, lambda z, x, g: x * g, lambda z, x, g: {})
    x, z = np.array([[0.5], [3.0], [0.25]]), np.zeros((3, 1))
    with pytest.raises(ir.ConvergenceError, match=r"Picard diverged: 1 of 3 samples.*measured ratio .* 3") as caught:
        fp.iterate(T, x, z, tol=1e-9)
    solution = caught.value.solution
    np.testing.assert_array_equal(solution.converged, [True, False, True])
    assert_close(solution.z[[0, 2]], [[2.0], [4 / 3]], scale=1.0, tol=1e-8)
    assert solution.iterations < 60
    assert_close(solution.ratio[1], 3.0, scale=3.0, tol=1e-9)


@METHODS
def test_nan_ends_as_failure(acceleration):
    T = fp.Map(lambda z, x: np.where(z > 3, np.nan, z + x), lambda z, x, g: g, lambda z, x, g: {})
    one = np.ones((2, 1))
    with pytest.raises(ir.ConvergenceError, match="diverged: 2 of 2 samples"):
        fp.iterate(T, one, 0 * one, tol=1e-3, acceleration=acceleration)


def test_too_few_iterations_say_how_many_would_do():
    T, (x, z) = layer("definite", gamma=0.95, activation=identity), data()
    with pytest.raises(ir.ConvergenceError, match=r"after max_iter = 30 iterations.*more iterations") as caught:
        fp.iterate(T, x, z, tol=1e-6, max_iter=30)
    more = int(str(caught.value).split("about ")[1].split()[0])
    needed = fp.iterate(T, x, z, tol=1e-6).iterations - 30
    assert needed / 2 <= more <= 2 * needed


def test_the_floor_of_the_dtype_is_named():
    T, (x, z) = layer(dtype=np.float32), data(dtype=np.float32)
    with pytest.raises(ir.ConvergenceError, match=r"floor of float32 .* pass float64 arrays") as caught:
        fp.iterate(T, x, z, tol=1e-12, max_iter=10**6)
    assert caught.value.solution.iterations < 1000


@pytest.mark.claim("JFB-Asm2.1")
def test_a_gamma_that_is_wrong_is_caught():
    T, (x, z) = layer("definite", gamma=0.95, activation=identity), data()
    with pytest.raises(ir.ConvergenceError, match=r"T is no 0.5-contraction") as caught:
        fp.iterate(T, x, z, tol=1e-4, gamma=0.5)
    assert np.isnan(caught.value.solution.bound).all()


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"tol": 0.0}, ir.HypothesisError, "tol must be a finite number > 0"),
        ({"max_iter": 0}, ir.HypothesisError, "max_iter must be an integer >= 1"),
        ({"max_iter": 2.5}, ir.HypothesisError, "max_iter must be an integer >= 1"),
        ({"acceleration": "broyden"}, ir.HypothesisError, "acceleration must be None or 'anderson'"),
        ({"gamma": 1.0}, ir.HypothesisError, r"gamma must lie in \[0, 1\)"),
        ({"gamma": "x"}, ir.HypothesisError, r"gamma must lie in \[0, 1\)"),
        ({"z": np.zeros(8)}, ir.ShapeError, r"z must have shape \(batch, ...\)"),
        ({"z": np.zeros((6, 7))}, ValueError, "7"),
        ({"z": np.zeros((5, 8))}, ir.ShapeError, "same number of samples"),
        ({"z": np.full((6, 8), np.nan)}, ir.HypothesisError, "z must be finite"),
        ({"z": [[0.0]]}, TypeError, "z must be an array"),
        ({"z": np.zeros((6, 8), dtype=int)}, ir.HypothesisError, "float32 or float64"),
        ({"x": "digits"}, TypeError, "x must be an array"),
        ({"T": fp.Map(lambda z, x: z[:, :3], None, None)}, ir.ShapeError, r"T\(z; x\) must have the shape of z"),
    ],
)
def test_bad_input(arguments, error, words):
    x, z = data()
    arguments = {"T": layer(), "x": x, "z": z, **arguments}
    with pytest.raises(error, match=words):
        fp.iterate(arguments.pop("T"), arguments.pop("x"), arguments.pop("z"), **arguments)


# ------------------------------------------------------------------------------------------------
# Arrays and memory


@METHODS
def test_every_backend(backend, acceleration):
    T, (x, z) = layer("symmetric", gamma=0.6), data(2)
    wide = fp.iterate(T, x, z, tol=1e-4)
    moved = fp.OneLayer(backend(T.W), backend(T.U), backend(T.b), relu)
    solution = fp.iterate(moved, backend(x), backend(z), tol=1e-4, acceleration=acceleration)
    assert isinstance(solution.z, type(backend(z)))
    assert solution.z.dtype == backend(z).dtype
    assert_close(backend.numpy(solution.z), wide.z, scale=1.0, tol=2e-4)
    assert bool(backend.numpy(solution.converged).all())
    assert (backend.numpy(solution.bound) <= 1e-4 * (1 + 4 * backend.eps)).all()
    assert DEFINITIONS[repr(relu)]["sigma"](backend.numpy(solution.z)).shape == z.shape


def peak(function) -> int:
    tracemalloc.start()
    function()
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


@METHODS
def test_memory_does_not_grow_with_the_iterations(acceleration):
    T = fp.Map(lambda z, x: 0.999 * z + x, lambda z, x, g: 0.999 * g, lambda z, x, g: {"x": g}, gamma=0.999)
    x = np.random.default_rng(0).normal(size=(8, 1000))
    if acceleration == "anderson":  # one eigenvalue: it would end at once
        T = fp.Map(lambda z, x: np.abs(np.roll(z, 1, axis=1)) * 0.999 + x, T.vjp_state, T.vjp_params)

    def run(max_iter):
        with pytest.raises(ir.ConvergenceError):
            fp.iterate(T, x, 0 * x, tol=1e-13, max_iter=max_iter, acceleration=acceleration)

    run(3)
    few = 10 if acceleration is None else 100  # by then the window is full and has been dropped once
    residuals, states = 1000 * 8 * 8 * 3, 5 * x.nbytes  # of 1000, in case an earlier run's are not collected yet
    assert peak(lambda: run(1000)) <= 1.1 * peak(lambda: run(few)) + residuals + states
