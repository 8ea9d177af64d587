"""The laws that operators, activations, splittings and gradients obey, each as a check that raises AssertionError.

Test modules apply them to everything in the registries below; test_negative_controls.py plants bugs and shows
that the checks see them. A new operator that registers in OPERATORS gets every law for nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import oracles
from backends import Backend
from oracles import assert_close, size

import implicitref as ir

activations, operators, splitting = ir.activations, ir.operators, ir.splitting

# ------------------------------------------------------------------------------------------------
# Registries

ACTIVATIONS = {
    repr(activation): activation
    for activation in (
        activations.relu,
        activations.leaky_relu(0.01),
        activations.leaky_relu(0.3),
        activations.leaky_relu(1.0),
        activations.tanh,
        activations.sigmoid,
        activations.softplus,
        activations.elu(1.0),
        activations.elu(0.5),
        activations.arctan,
        activations.hardtanh,
        activations.soft_threshold(0.5),
    )
}

METHODS = ("forward-backward", "peaceman-rachford", "douglas-rachford", "picard")


def factors(n: int = 4, m: float = 0.5, seed: int = 0, **scales: float) -> dict[str, Any]:
    """Random parameters of a MonotoneDense."""
    rng = np.random.default_rng(seed)
    return {"A": rng.normal(size=(n, n)) / n**0.5, "B": rng.normal(size=(n, n)) / n**0.5, "m": m, **scales}


def _singular_weight() -> np.ndarray:
    # rank 2, symmetric part <= 0: W = C [[-1, 2], [-2, -1]] C'
    C = np.random.default_rng(3).normal(size=(4, 2))
    return C @ np.array([[-1.0, 2.0], [-2.0, -1.0]]) @ C.T / 4


OPERATORS: dict[str, Callable[[Callable[[Any], Any]], Any]] = {}


def operator(name: str) -> Callable[[Any], Any]:
    """Register a function from `to` (NumPy to the backend's arrays) to an operator."""

    def add(make: Callable[[Callable[[Any], Any]], Any]) -> Callable[[Callable[[Any], Any]], Any]:
        OPERATORS[name] = make
        return make

    return add


def dense(to: Callable[[Any], Any], A: Any, B: Any, m: float, **scales: float) -> Any:
    """MonotoneDense in the backend's arrays."""
    return operators.MonotoneDense(to(A), to(B), m, **{name: to(value) for name, value in scales.items()})


for _name, _params in {
    "plain": factors(),
    "with g": factors(seed=1, g=1.7),
    "with h": factors(seed=2, h=-0.8),
    "with g and h": factors(seed=3, g=0.6, h=1.3),
    "g = 0": factors(seed=4, g=0.0),
    "n = 1": factors(n=1, seed=5),
    "m small": factors(m=0.01, seed=6),
    "m large": factors(m=3.0, seed=7),
    "skew": factors(m=1.0, seed=8) | {"A": np.zeros((4, 4))},
}.items():
    operator(_name)(lambda to, params=_params: dense(to, **params))


@operator("from_weight")
def _from_weight(to: Callable[[Any], Any]) -> Any:
    return operators.MonotoneDense.from_weight(to(oracles.dense_weight(**factors(seed=9))), 0.4)


@operator("singular W")
def _from_singular_weight(to: Callable[[Any], Any]) -> Any:
    return operators.MonotoneDense.from_weight(to(_singular_weight()), 0.9)


def definition(W: Any, backend: Backend) -> tuple[np.ndarray, dict[str, Any]]:
    """W as a matrix from its parameters by the oracle, and the parameters in NumPy float64."""
    params = {name: backend.numpy(p).astype(np.float64) for name, p in W.params.items()} | {"m": W.m}
    return oracles.dense_weight(**params), params


def states(backend: Backend, n: int, batch: int = 3, seed: int = 11) -> tuple[np.ndarray, np.ndarray]:
    """Two batches of states, rounded to the backend's dtype but held in NumPy float64."""
    rng = np.random.default_rng(seed)
    draw = lambda: backend.numpy(backend(rng.normal(size=(batch, n)))).astype(np.float64)  # noqa: E731
    return draw(), draw()


def symmetric(M: np.ndarray) -> np.ndarray:
    """(M + M')/2."""
    return (M + M.T) / 2


# ------------------------------------------------------------------------------------------------
# Operators


def check_dense_equality(W: Any, backend: Backend) -> None:
    """matvec, rmatvec and to_dense are W as its definition has it."""
    M, _ = definition(W, backend)
    z, y = states(backend, W.size)
    for actual, desired in (
        (W.to_dense(), M),
        (W.matvec(backend(z)), z @ M.T),
        (W.rmatvec(backend(y)), y @ M),
    ):
        assert_close(backend.numpy(actual), desired, scale=size(M) * size(z, y) * W.size, tol=16 * backend.eps)


def check_dot(W: Any, backend: Backend) -> None:
    """<W z, y> = <z, W'y>."""
    z, y = states(backend, W.size)
    left = (backend.numpy(W.matvec(backend(z))).astype(float) * y).sum()
    right = (z * backend.numpy(W.rmatvec(backend(y))).astype(float)).sum()
    scale = np.linalg.norm(z) * np.linalg.norm(y) * size(definition(W, backend)[0])
    assert_close(left, right, scale=scale, tol=32 * backend.eps)


def check_resolvent(W: Any, backend: Backend) -> None:
    """(I + alpha (I - W)) V u = u, and the same for the transposes."""
    M, _ = definition(W, backend)
    G, (u, _) = np.eye(W.size) - M, states(backend, W.size)
    for alpha in (0.05, 1.0, 7.0):
        V, shifted = W.resolvent(alpha), np.eye(W.size) + alpha * G
        tol = 64 * backend.eps * np.linalg.cond(shifted)
        for image, matrix in ((V.matvec(backend(u)), shifted), (V.rmatvec(backend(u)), shifted.T)):
            assert_close(backend.numpy(image).astype(float) @ matrix.T, u, scale=size(u) * W.size, tol=tol)


def check_cayley(W: Any, backend: Backend) -> None:
    """2 V - I = (I - alpha G)(I + alpha G)^-1, nonexpansive; and its transpose."""
    M, _ = definition(W, backend)
    G, (u, _) = np.eye(W.size) - M, states(backend, W.size)
    for alpha in (0.05, 1.0, 7.0):
        C = W.resolvent(alpha).cayley()
        desired = (np.eye(W.size) - alpha * G) @ np.linalg.inv(np.eye(W.size) + alpha * G)
        tol = 64 * backend.eps * (1 + alpha * np.linalg.norm(G, 2))
        assert_close(backend.numpy(C.matvec(backend(u))), u @ desired.T, scale=size(u) * W.size, tol=tol)
        assert_close(backend.numpy(C.rmatvec(backend(u))), u @ desired, scale=size(u) * W.size, tol=tol)
        assert np.linalg.norm(desired, 2) < 1


def check_monotone(W: Any, backend: Backend) -> None:
    """The symmetric part of I - W is at least m I."""
    G = np.eye(W.size) - backend.numpy(W.to_dense()).astype(float)
    assert np.linalg.eigvalsh(symmetric(G))[0] >= W.m - 16 * backend.eps * W.size * size(G)


def check_lipschitz(W: Any, backend: Backend) -> None:
    """lipschitz() is ||I - W||_2 of the dense matrix."""
    G = np.eye(W.size) - definition(W, backend)[0]
    assert_close(W.lipschitz(), np.linalg.svd(G, compute_uv=False)[0], scale=size(G) * W.size, tol=32 * backend.eps)


def check_vjp(W: Any, backend: Backend) -> None:
    """vjp is the derivative of <dy, W z> with respect to every parameter: by complex steps of the definition."""
    _, params = definition(W, backend)
    z, dy = states(backend, W.size)
    grads = W.vjp(backend(z), backend(dy))
    desired = oracles.weight_gradient(dy.T @ z, params)
    assert set(grads) == set(W.params)
    for name, gradient in grads.items():
        assert_close(
            backend.numpy(gradient), desired[name], scale=size(desired[name], z, dy) * W.size, tol=64 * backend.eps
        )


def check_vjp_taylor(W: Any, backend: Backend) -> None:
    """f(p + t d) - f(p) - t <grad, d> falls like t^2 for every parameter, f = <dy, W(p) z>."""
    _, params = definition(W, backend)
    z, dy = states(backend, W.size)
    grads = W.vjp(backend(z), backend(dy))
    rng = np.random.default_rng(5)

    def value(**changed: Any) -> float:
        moved = W.replace(**{name: backend(p) for name, p in changed.items()})
        return float((dy * backend.numpy(moved.matvec(backend(z)))).sum())

    for name in W.params:
        direction = np.abs(rng.normal(size=np.shape(params[name]))) * 0.3  # upwards: g = 0 has no other side
        slope = float((backend.numpy(grads[name]) * direction).sum())
        first, second = (abs(value(**{name: params[name] + t * direction}) - value() - t * slope) for t in (1e-2, 1e-4))
        assert second <= first / 5000 + 1e-12 * size(z, dy) ** 2, f"{name}: remainders {first:.2e}, {second:.2e}"


def check_round_trip(W: Any, backend: Backend) -> None:
    """replace(**params) is the same operator; replacing one parameter changes that one alone."""
    again = W.replace(**W.params)
    assert set(again.params) == set(W.params)
    np.testing.assert_array_equal(backend.numpy(again.to_dense()), backend.numpy(W.to_dense()))
    doubled = W.replace(A=W.A * 2, m=W.m + 1)
    assert doubled.m == W.m + 1
    np.testing.assert_array_equal(backend.numpy(doubled.A), 2 * backend.numpy(W.A))
    np.testing.assert_array_equal(backend.numpy(doubled.B), backend.numpy(W.B))


OPERATOR_LAWS = {
    check.__name__: check
    for check in (
        check_dense_equality,
        check_dot,
        check_resolvent,
        check_cayley,
        check_monotone,
        check_lipschitz,
        check_vjp,
        check_round_trip,
    )
}


# ------------------------------------------------------------------------------------------------
# Activations


def grid(far: float = 1e8) -> np.ndarray:
    """Points dense near 0 and the kinks, sparse out to `far`; never a kink itself."""
    near = np.linspace(-3, 3, 61) + 1e-3
    powers = np.logspace(-8, np.log10(far), 60)
    return np.concatenate([near, powers, -powers])


def check_prox(activation: Any, alphas: tuple[float, ...], points: np.ndarray) -> None:
    """prox^alpha minimises (x - z)^2/2 + alpha f(z): brute force in 50 digits."""
    slope = oracles.DEFINITIONS[repr(activation)]["slope"]
    for alpha in alphas:
        desired = np.array([oracles.prox(repr(activation), float(x), alpha) for x in points])
        w = desired + (points - desired) / alpha
        # the equation of w is solved to a few eps of its terms; dz/dx <= J_alpha carries that to z
        terms = alpha * np.abs(w) + abs(1 - alpha) * np.abs(desired) + np.abs(points)
        scale = 1 + np.abs(desired) + terms * slope(w) / (slope(w) + alpha * (1 - slope(w)))
        assert_close(activation.prox(points, alpha) / scale, desired / scale, scale=1, tol=1e-14)


def check_root(activation: Any, backend: Backend, alpha: float) -> None:
    """alpha w + (1 - alpha) sigma(w) = x and prox^alpha(x) = sigma(w) (Moreau: the two resolvents agree)."""
    x = backend.numpy(backend(grid(1e3))).astype(float)
    w = backend.numpy(activation.root(backend(x), alpha)).astype(float)
    s, slope = (oracles.DEFINITIONS[repr(activation)][of](w) for of in ("sigma", "slope"))
    terms = alpha * np.abs(w) + abs(1 - alpha) * (np.abs(s) + slope * np.abs(w)) + np.abs(x)
    assert_close((alpha * w + (1 - alpha) * s - x) / terms, np.zeros_like(x), scale=1, tol=32 * backend.eps)
    z = backend.numpy(activation.prox(backend(x), alpha)).astype(float)
    # sigma(w) again, in float64: off by the rounding of w, which sigma does not enlarge
    error = np.abs(z - s) / (1 + np.abs(w) * slope + np.abs(s))
    assert error.max() <= 8 * backend.eps


def check_derivative(activation: Any, alpha: float) -> None:
    """The derivative of prox^alpha against central differences, away from the kinks."""
    step = 1e-5 * min(1.0, alpha)
    x = np.linspace(-3, 3, 41) * max(1.0, alpha**0.5) + 0.0137
    w = activation.root(x, alpha)
    kinks = oracles.DEFINITIONS[repr(activation)]["kinks"]
    x = x[np.all([np.abs(w - kink) > 1e-3 for kink in kinks], axis=0)] if kinks else x
    difference = (activation.prox(x + step, alpha) - activation.prox(x - step, alpha)) / (2 * step)
    assert_close(activation.derivative(x, alpha), difference, scale=1, tol=1e-8 if alpha >= 1 else 1e-6)


def check_firmly_nonexpansive(activation: Any, backend: Backend, alpha: float) -> None:
    """<p - q, x - y> >= (p - q)^2, hence 0 <= p - q <= x - y for x >= y."""
    x = np.sort(backend.numpy(backend(grid(1e3))).astype(float))
    p = backend.numpy(activation.prox(backend(x), alpha)).astype(float)
    slack = 32 * backend.eps * (1 + np.abs(x[1:]))
    assert (np.diff(p) >= -slack).all()
    assert (np.diff(p) <= np.diff(x) + slack).all()


def check_reflection(activation: Any, backend: Backend, alpha: float) -> None:
    """The Cayley operator is 2 prox - I."""
    u = grid(1e3)
    reflected = backend.numpy(activation.reflection(alpha)(backend(u)))
    desired = 2 * backend.numpy(activation.prox(backend(u), alpha)) - backend.numpy(backend(u))
    assert_close(reflected / (1 + abs(desired)), desired / (1 + abs(desired)), scale=1, tol=4 * backend.eps)


def check_subgradient(activation: Any) -> None:
    """w - z in df(z) at z = sigma(w): f(y) >= f(z) + (w - z)(y - z) for every y."""
    w = np.linspace(-6, 6, 49)
    z = activation(w)
    y = np.concatenate([np.linspace(-2, 2, 41), z])
    value = activation.value(y)
    lower = activation.value(z)[:, None] + (w - z)[:, None] * (y[None] - z[:, None])
    assert np.isfinite(activation.value(z)).all()
    assert (value[None] >= lower - 1e-12 * (1 + np.abs(lower))).all()


# ------------------------------------------------------------------------------------------------
# Problems and splittings


def problem(
    name: str = "relu", n: int = 4, m: float = 1.0, batch: int = 2, seed: int = 0, **scales: float
) -> tuple[Any, np.ndarray, Any]:
    """An operator, an injection and an activation; redrawn until no pre-activation is within 1e-3 of a kink."""
    for attempt in itertools.count(seed, 1000):
        W = dense(np.asarray, **factors(n, m, attempt, **scales))
        b = np.random.default_rng(attempt + 1).normal(size=(batch, n)) * 1.5
        z = ir.mon.equilibrium(W, b, ACTIVATIONS[name], tol=1e-8, max_iter=20000).z
        if oracles.clear_of_kinks(name, z @ W.to_dense().T + b):
            return W, b, ACTIVATIONS[name]
    raise AssertionError("unreachable")


def exact(W: Any, b: np.ndarray, activation: Any) -> np.ndarray:
    """The equilibrium to rounding, by the oracle's Newton steps."""
    start = ir.mon.equilibrium(W, b, activation, tol=1e-9, max_iter=50000).z
    return oracles.newton_equilibria(W.to_dense(), b, repr(activation), start)


def check_fixed_point(W: Any, b: np.ndarray, activation: Any, alpha: float | None, tol: float) -> np.ndarray:
    """z = sigma(W z + b) to 1e-12, W and sigma by the oracles."""
    z = ir.mon.equilibrium(W, b, activation, alpha=alpha, tol=tol, max_iter=50000).z
    M, _ = definition(W, NUMPY)
    desired = oracles.DEFINITIONS[repr(activation)]["sigma"](z @ M.T + b)
    assert_close(z, desired, scale=size(z), tol=1e-12)
    return z


def check_gradients_dense(W: Any, b: np.ndarray, activation: Any, alpha: float | None, tol: float) -> None:
    """Every gradient against the dense implicit-function formula at the same z."""
    z = exact(W, b, activation)
    dz = np.random.default_rng(17).normal(size=z.shape)
    grads, _ = ir.mon.equilibrium_vjp(W, b, activation, z, dz, alpha=alpha, tol=tol, max_iter=50000)
    M, params = definition(W, NUMPY)
    jac = oracles.DEFINITIONS[repr(activation)]["slope"](z @ M.T + b)
    dpre = oracles.implicit_dpre(M, jac, dz)
    desired = {"injection": dpre, **oracles.weight_gradient(dpre.T @ z, params)}
    assert set(grads) == set(desired)
    for name, gradient in desired.items():
        assert_close(grads[name], gradient, scale=size(gradient, z), tol=1e-11)


def check_gradients_difference(W: Any, b: np.ndarray, activation: Any, alpha: float | None, tol: float) -> None:
    """Every gradient of <dz, z*> against five-point differences of the oracle's equilibrium, 1e-7 relative."""
    z = exact(W, b, activation)
    rng = np.random.default_rng(23)
    dz = rng.normal(size=z.shape)
    grads, _ = ir.mon.equilibrium_vjp(W, b, activation, z, dz, alpha=alpha, tol=tol, max_iter=50000)
    _, params = definition(W, NUMPY)

    def loss(injection: np.ndarray, **changed: Any) -> float:
        M = oracles.dense_weight(**(params | changed))
        return float((dz * oracles.newton_equilibria(M, injection, repr(activation), z)).sum())

    for name, gradient in grads.items():
        at = b if name == "injection" else np.asarray(params[name], dtype=float)
        direction = rng.normal(size=at.shape)
        direction /= max(np.linalg.norm(direction), 1e-3)
        step = 2e-4 * min(1.0, W.m * 4)
        along = loss if name == "injection" else lambda p, name=name: loss(b, **{name: p})
        difference = oracles.central_difference(along, at, direction, step)
        scale = float(np.linalg.norm(gradient)) + 1e-3
        assert_close((gradient * direction).sum(), difference, scale=scale, tol=1e-7)


def check_generator(method: str, inclusion: Any, alpha: float, u: np.ndarray, steps: int = 6) -> None:
    """The readable generator and the driver's map take the same steps."""
    advance = splitting.iterations.MAPS[method](inclusion, alpha)
    step_B = 1.0 if method == "picard" else alpha
    start = inclusion.B.prox(u, step_B)
    generator = {
        "forward-backward": lambda: splitting.forward_backward(inclusion, alpha, start),
        "picard": lambda: splitting.picard(inclusion, start),
        "peaceman-rachford": lambda: splitting.peaceman_rachford(inclusion, alpha, u),
        "douglas-rachford": lambda: splitting.douglas_rachford(inclusion, alpha, u),
    }[method]()
    for state in itertools.islice(generator, steps):
        u = advance(u)
        assert_close(state.u, u, scale=size(u), tol=1e-13)
        assert_close(state.z, inclusion.B.prox(u, step_B), scale=size(u), tol=1e-13)


def check_never_violated(left: np.ndarray, right: np.ndarray, scale: float) -> None:
    """An error is never above its bound, up to the rounding of both."""
    assert (left <= right * (1 + 1e-9) + 1e-13 * scale).all(), f"error {left} above bound {right}"


def check_certificates(W: Any, b: np.ndarray, activation: Any, alpha: float, steps: int = 8) -> None:
    """C1, its ball and ellipsoid, C2 and C3 at iterates of Peaceman-Rachford, against the exact equilibrium."""
    certificates = splitting.certificates
    z_star, M = exact(W, b, activation), definition(W, NUMPY)[0]
    inclusion = ir.mon.forward_inclusion(W, b, activation)
    G, scale = np.eye(W.size) - M, size(z_star, b, M) / min(1.0, inclusion.m * alpha)
    error = lambda z: np.linalg.norm(z - z_star, axis=1)  # noqa: E731
    u = np.random.default_rng(29).normal(size=b.shape) * 3
    u_star = z_star + alpha * (M @ z_star.T).T - alpha * z_star + alpha * b
    rho = splitting.rates.peaceman_rachford(G, alpha)
    for state in itertools.islice(splitting.peaceman_rachford(inclusion, alpha, u), steps):
        z, bound = certificates.distance(inclusion, alpha, state.u)
        check_never_violated(error(z), bound, scale)
        y, e = certificates.defect(inclusion, state.u)
        check_never_violated(error(y), np.linalg.norm(e, axis=1) / inclusion.m, scale)
        delta, S = y - z_star, symmetric(G)
        check_never_violated(((delta @ S) * delta).sum(1), (e * delta).sum(1), scale**2)
        center, radius = certificates.ball(inclusion, alpha, state.u)
        check_never_violated(error(center), radius, scale)
        y, bound_y, bound_z = certificates.distance_from_state(inclusion, alpha, state.u)
        check_never_violated(error(y), bound_y, scale)
        check_never_violated(error(state.u), bound_z, scale)
        bound_u = certificates.distance_from_step(rho, u, state.u)
        check_never_violated(np.linalg.norm(state.u - u_star, axis=1), bound_u, scale / (1 - rho))
        u = state.u


NUMPY = Backend("numpy-float64", np.array, np.asarray)
