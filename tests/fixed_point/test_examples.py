"""The counterexamples of the register, each shown to be what it is said to be."""

from __future__ import annotations

import numpy as np
import pytest
from oracles import assert_close

import implicitref as ir

fp = ir.fixed_point
examples, theory = fp.examples, fp.theory


def both(problem):
    return (fp.gradients(problem.T, problem.z, problem.x, problem.g, rule) for rule in (fp.implicit("dense"), fp.jfb))


@pytest.mark.claim("NEW-jfb-batch")
@pytest.mark.claim("JFB-Rem3.1")
@pytest.mark.claim("FPN-Rem3.1")
def test_two_samples():
    problem = examples.two_samples()
    exact, direction = both(problem)
    assert_close(exact["theta"], [2 / 3], scale=1.0, tol=1e-15)  # halved by the mean
    assert_close(-direction["theta"], [1.0], scale=1.0, tol=1e-15)
    for i in range(2):  # each sample by itself descends, with kappa = 1
        one = problem._replace(x=problem.x[i : i + 1], z=problem.z[i : i + 1], g=problem.g[i : i + 1])
        assert examples.slope(one) < 0
        assert theory.conditioning(theory.parameter_jacobian(one.T, one.z, one.x)) == 1
    assert fp.iterate(problem.T, problem.x, problem.z + 1, tol=1e-9).converged.all()


@pytest.mark.claim("NEW-jfb-threshold")
@pytest.mark.claim("JFB-Thm3.1")
def test_ascent_as_registered():
    problem = examples.ascent_as_registered()
    exact, direction = both(problem)
    assert_close(exact["theta"], [1.0, 1.0], scale=1.0, tol=1e-14)
    assert_close(-direction["theta"], [1.4, -2.2 / 3], scale=1.0, tol=1e-14)
    assert_close(problem.T.gamma, 0.8, scale=1.0, tol=1e-15)
    M = theory.parameter_jacobian(problem.T, problem.z, problem.x)
    assert_close(theory.conditioning(M), 9.0, scale=9.0, tol=1e-14)
    assert theory.descent_threshold(problem.T.gamma) < 9


@pytest.mark.claim("JFB-Asm3.3")
def test_dead_unit():
    problem = examples.dead_unit()
    exact, direction = both(problem)
    assert exact["theta"] == 0
    assert direction["theta"] == -0.5
    assert theory.conditioning(theory.parameter_jacobian(problem.T, problem.z, problem.x)) == np.inf


@pytest.mark.claim("JFB-Cor3.1")
@pytest.mark.claim("FPN-Cor3.1")
@pytest.mark.claim("FPN-Eq61")
@pytest.mark.claim("FPN-Eq64")
@pytest.mark.parametrize("delta", [1.0, 1e-3])
def test_dropped_gradient(delta):
    problem, cotangent = examples.dropped_gradient(delta)
    u = problem.z + delta
    exact, direction = both(problem)
    assert fp.gradients(problem.T, u, problem.x, cotangent(u), fp.jfb)["theta"] == 0
    # the printed margin (61): (low - gamma high) ||w||^2/||gradient||, low = high = 1, is what p moved by: admitted
    w2, length = exact["theta"][0] ** 2, abs(exact["theta"][0])
    assert abs(direction["theta"][0] - 0.0) <= (1 - 0.5) * w2 / length
    # the corrected radius, with L_p = 1/delta, excludes it and everything inside it descends
    c = theory.descent_constant(0.5, 1.0, 1.0)
    radius = theory.corollary_radius(c, exact["theta"], exact["theta"], 1 / delta)
    assert radius <= delta
    for distance in np.linspace(-1, 1, 41)[1:-1] * radius:
        moved = fp.gradients(problem.T, problem.z + distance, problem.x, cotangent(problem.z + distance), fp.jfb)
        assert exact["theta"] @ moved["theta"] > 0


@pytest.mark.claim("JFB-Cor3.1")
def test_the_radius_of_the_corollary_keeps_descent_on_random_problems():
    # T linear and l(S(u)) = g(u)'u quadratic with Hessian H: p(u) = -M (v + H (u - u*)), L_p = ||M H||
    rng = np.random.default_rng(0)
    for _ in range(300):
        n, gamma = int(rng.integers(1, 5)), float(rng.uniform(0.1, 0.95))
        K = rng.normal(size=(n, n))
        K *= gamma / np.linalg.norm(K, 2)
        M = np.linalg.qr(rng.normal(size=(n + 3, n)))[0] * np.sqrt(rng.uniform(1, theory.descent_threshold(gamma), n))
        v, H = rng.normal(size=n), rng.normal(size=(n, n))
        gradient = M @ np.linalg.solve(np.eye(n) - K.T, v)
        low, high = 1 / np.linalg.eigvalsh(M.T @ M)[[-1, 0]]
        c = theory.descent_constant(gamma, low, high)
        radius = theory.corollary_radius(c, M.T @ gradient, gradient, np.linalg.norm(M @ H, 2))
        _, _, V = np.linalg.svd(M @ H)
        for e in (V[0], -V[0], rng.normal(size=n)):
            step = 0.999 * radius * e / np.linalg.norm(e)
            assert gradient @ -(M @ (v + H @ step)) < 0


@pytest.mark.claim("JFB-Sec1-mon-case")
def test_mon_that_cycles():
    plain, step, x, z_star = examples.mon_that_cycles()
    states = [float(s.z[0, 0]) for s, _ in zip(fp.picard_steps(plain, x, 0 * x), range(6), strict=False)]
    assert states == [0.0, 1.0, 0.0, 1.0, 0.0, 1.0]
    assert plain.gamma is None
    assert step.gamma < 1
    assert_close(plain(z_star, x), z_star, scale=1.0, tol=1e-15)
    assert_close(step(z_star, x), z_star, scale=1.0, tol=1e-15)


# ------------------------------------------------------------------------------------------------
# The toy


@pytest.mark.claim("JFB-Eq4")
@pytest.mark.claim("JFB-Eq5")
def test_toy():
    d = np.linspace(-0.5, 0.5, 101)[:, None]
    found = fp.iterate(examples.toy(), d, 0 * d, tol=1e-15, max_iter=300).z[:, 0]
    for value, y in zip(d[:, 0], found, strict=True):
        roots = np.roots([1, 0, 0, 0, -1, value])
        real = roots[np.abs(roots.imag) < 1e-9].real
        assert_close(y, real[np.argmin(np.abs(real))], scale=1.0, tol=1e-13)
        assert_close(y, examples.toy_series(value), scale=1.0, tol=4e-15)
        assert len(real) == 3  # "exactly characterised": no
    assert_close(found[-1], 0.5506065793341349, scale=1.0, tol=4e-15)


@pytest.mark.claim("JFB-Eq4")
def test_limits_of_the_toy():
    assert_close(examples.TOY_LIMIT, 0.534992, scale=1.0, tol=1e-6)
    y = 5**-0.25  # the double root, where T' = 1
    assert_close(y - y**5, examples.TOY_LIMIT, scale=1.0, tol=1e-15)
    half = np.array([[0.5]])
    y_star = fp.iterate(examples.toy(), half, 0 * half, tol=1e-14).z
    slope = fp.linearise(examples.toy(), y_star, half).rmatvec(np.ones((1, 1)))
    assert_close(slope, [[0.459553]], scale=1.0, tol=1e-6)
    with pytest.raises(ir.ConvergenceError, match="diverged"):
        fp.iterate(examples.toy(), half, half + 0.4, tol=1e-6)
    beyond = np.array([[examples.TOY_LIMIT + 0.01]])
    with pytest.raises(ir.ConvergenceError):
        fp.iterate(examples.toy(), beyond, 0 * beyond, tol=1e-9)
