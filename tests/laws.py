"""The laws that operators, activations, splittings and gradients obey, each as a check that raises AssertionError.

Test modules apply them to everything in the registries below; test_negative_controls.py plants bugs and shows
that the checks see them. A new operator that registers in OPERATORS gets every law for nothing.
"""

from __future__ import annotations

import functools
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


def kernels(
    n: int = 2,
    A: tuple[int, int] = (3, 3),
    B: tuple[int, int] = (3, 3),
    m: float = 0.5,
    size: tuple[int, int] = (4, 4),
    seed: int = 0,
    **scales: float,
) -> dict[str, Any]:
    """Random parameters of a MonotoneConv with kernels of these sides."""
    rng, sides = np.random.default_rng(seed), {"A": A, "B": B}
    drawn = {name: rng.normal(size=(n, n, *k)) / (n * k[0] * k[1]) ** 0.5 for name, k in sides.items()}
    return drawn | {"m": m, "size": size, **scales}


def conv(to: Callable[[Any], Any], A: Any, B: Any, m: float, size: tuple[int, int], **scales: float) -> Any:
    """MonotoneConv in the backend's arrays."""
    return operators.MonotoneConv(to(A), to(B), m, size, **{name: to(value) for name, value in scales.items()})


for _name, _params in {
    "conv": kernels(seed=20),
    "conv with g": kernels(seed=21, g=1.7),
    "conv with h": kernels(seed=22, h=-0.8),
    "conv 3 x 5 with g and h": kernels(size=(3, 5), seed=23, g=0.6, h=1.3),
    "conv g = 0": kernels(n=1, seed=24, g=0.0),
    "conv 5 x 7": kernels(n=1, size=(5, 7), seed=25),
    "conv 6 x 4, kernels of 4 and 2": kernels(size=(6, 4), A=(4, 4), B=(2, 2), seed=26, m=0.1),
    "conv, kernels of 1": kernels(size=(2, 3), A=(1, 1), B=(1, 1), seed=27),
    "conv, kernels of 5 x 4 and 1 x 3": kernels(n=1, size=(6, 5), A=(5, 4), B=(1, 3), seed=28, g=0.9),
    "conv 3 x 2, kernels beyond the image": kernels(size=(3, 2), A=(5, 5), B=(7, 4), seed=29, h=0.7),
    "conv 1 x 1": kernels(n=3, size=(1, 1), seed=30, g=1.1, h=1.2),
    "conv 1 x 6": kernels(size=(1, 6), A=(1, 3), seed=31, m=2.0),
    "conv 65 x 1": kernels(n=1, size=(65, 1), A=(3, 1), B=(2, 1), seed=32),
}.items():
    operator(_name)(lambda to, params=_params: conv(to, **params))

# A new class of operators: its definition from W and the parameters here, and one entry a case in OPERATORS.
WEIGHTS: dict[type, Callable[[Any], Callable[..., np.ndarray]]] = {
    operators.MonotoneDense: lambda W: oracles.dense_weight,
    operators.MonotoneConv: lambda W: functools.partial(oracles.conv_weight, size=W.size),
}


def entries(value: Any) -> list[Any]:
    """The arrays of a parameter: itself, or those of the list that it is."""
    return value if isinstance(value, list) else [value]


def each(function: Callable[[Any], Any], value: Any) -> Any:
    """`function` of every array of a parameter."""
    return [function(entry) for entry in value] if isinstance(value, list) else function(value)


def moved(W: Any, to: Callable[[Any], Any]) -> Any:
    """W with its parameters in other arrays."""
    return W.replace(**{name: each(to, p) for name, p in W.params.items()})


def count(W: Any) -> int:
    """Entries of a state."""
    return int(np.prod(W.state_shape))


def flat(z: Any) -> np.ndarray:
    """States as rows (batch, entries)."""
    return np.asarray(z).reshape(len(z), -1)


def definition(W: Any, backend: Backend) -> tuple[np.ndarray, dict[str, Any]]:
    """W as a matrix from its parameters by the oracle, and the parameters in NumPy float64."""
    params = {name: each(lambda x: backend.numpy(x).astype(np.float64), p) for name, p in W.params.items()}
    params |= {"m": W.m}
    return WEIGHTS[type(W)](W)(**params), params


def states(backend: Backend, shape: tuple[int, ...], batch: int = 3, seed: int = 11) -> tuple[np.ndarray, np.ndarray]:
    """Two batches of states, rounded to the backend's dtype but held in NumPy float64."""
    rng = np.random.default_rng(seed)
    draw = lambda: backend.numpy(backend(rng.normal(size=(batch, *shape)))).astype(np.float64)  # noqa: E731
    return draw(), draw()


def applied(matvec: Callable[[Any], Any], x: np.ndarray, backend: Backend) -> np.ndarray:
    """The image of a batch under a map of the backend's arrays, as rows in float64."""
    return flat(backend.numpy(matvec(backend(x)))).astype(np.float64)


def symmetric(M: np.ndarray) -> np.ndarray:
    """(M + M')/2."""
    return (M + M.T) / 2


# ------------------------------------------------------------------------------------------------
# Operators


def check_dense_equality(W: Any, backend: Backend) -> None:
    """matvec, rmatvec and to_dense are W as its definition has it."""
    M, _ = definition(W, backend)
    z, y = states(backend, W.state_shape)
    for actual, desired in (
        (backend.numpy(W.to_dense()), M),
        (applied(W.matvec, z, backend), flat(z) @ M.T),
        (applied(W.rmatvec, y, backend), flat(y) @ M),
    ):
        assert_close(actual, desired, scale=size(M) * size(z, y) * count(W), tol=16 * backend.eps)


def check_dot(W: Any, backend: Backend) -> None:
    """<W z, y> = <z, W'y>."""
    z, y = states(backend, W.state_shape)
    left = (applied(W.matvec, z, backend) * flat(y)).sum()
    right = (flat(z) * applied(W.rmatvec, y, backend)).sum()
    scale = np.linalg.norm(z) * np.linalg.norm(y) * size(definition(W, backend)[0])
    assert_close(left, right, scale=scale, tol=32 * backend.eps)


def check_resolvent(W: Any, backend: Backend) -> None:
    """(I + alpha (I - W)) V u = u, and the same for the transposes."""
    M, _ = definition(W, backend)
    n, (u, _) = count(W), states(backend, W.state_shape)
    for alpha in (0.05, 1.0, 7.0):
        V, shifted = W.resolvent(alpha), np.eye(n) + alpha * (np.eye(n) - M)
        tol = 64 * backend.eps * np.linalg.cond(shifted)
        for matvec, matrix in ((V.matvec, shifted), (V.rmatvec, shifted.T)):
            assert_close(applied(matvec, u, backend) @ matrix.T, flat(u), scale=size(u) * n, tol=tol)


def check_cayley(W: Any, backend: Backend) -> None:
    """2 V - I = (I - alpha G)(I + alpha G)^-1, nonexpansive; and its transpose."""
    M, _ = definition(W, backend)
    n, (u, _) = count(W), states(backend, W.state_shape)
    G = np.eye(n) - M
    for alpha in (0.05, 1.0, 7.0):
        C = W.resolvent(alpha).cayley()
        desired = (np.eye(n) - alpha * G) @ np.linalg.inv(np.eye(n) + alpha * G)
        tol = 64 * backend.eps * (1 + alpha * np.linalg.norm(G, 2))
        assert_close(applied(C.matvec, u, backend), flat(u) @ desired.T, scale=size(u) * n, tol=tol)
        assert_close(applied(C.rmatvec, u, backend), flat(u) @ desired, scale=size(u) * n, tol=tol)
        assert np.linalg.norm(desired, 2) < 1


def check_monotone(W: Any, backend: Backend) -> None:
    """The symmetric part of I - W is at least m I."""
    G = np.eye(count(W)) - backend.numpy(W.to_dense()).astype(float)
    assert np.linalg.eigvalsh(symmetric(G))[0] >= W.m - 16 * backend.eps * count(W) * size(G)


def check_monotonicity(W: Any, backend: Backend) -> None:
    """monotonicity() is the smallest eigenvalue of the symmetric part of I - W, and at least m."""
    G = np.eye(count(W)) - definition(W, backend)[0]
    smallest, scale = np.linalg.eigvalsh(symmetric(G))[0], size(G) * count(W)
    assert_close(W.monotonicity(), smallest, scale=scale, tol=32 * backend.eps)
    assert W.monotonicity() >= W.m - 32 * backend.eps * scale


def check_lipschitz(W: Any, backend: Backend) -> None:
    """lipschitz() is ||I - W||_2 of the dense matrix."""
    G = np.eye(count(W)) - definition(W, backend)[0]
    assert_close(W.lipschitz(), np.linalg.svd(G, compute_uv=False)[0], scale=size(G) * count(W), tol=32 * backend.eps)


def check_magnitude(W: Any, backend: Backend) -> None:
    """magnitude() is at least |W| entry by entry, and frobenius() at least its norm: what the certificates rest on."""
    M, (z, _) = definition(W, backend)[0], states(backend, W.state_shape)
    magnitude, slack = backend.numpy(W.magnitude().to_dense()).astype(float), 32 * backend.eps * size(M) * count(W)
    assert (magnitude >= np.abs(M) - slack).all()
    assert W.frobenius() >= np.linalg.norm(magnitude, 2) - slack * count(W)
    product = applied(W.magnitude().matvec, np.abs(z), backend)
    assert_close(
        product, flat(np.abs(z)) @ magnitude.T, scale=size(magnitude) * size(z) * count(W), tol=16 * backend.eps
    )


def check_spectral_blocks(W: Any, backend: Backend) -> None:
    """The blocks are as many and as large as said, and the singular values of I - W are those of the blocks' I - W."""
    blocks = backend.numpy(W.spectral_blocks())
    assert blocks.shape == (W.spectral_shape[0], *[W.spectral_shape[1]] * 2)
    of = lambda M: np.linalg.svd(np.eye(M.shape[-1]) - M, compute_uv=False).ravel()  # noqa: E731
    desired, found = of(definition(W, backend)[0]), of(blocks)
    nearest = np.abs(desired[:, None] - found[None]).min(axis=1)  # a block stands for its conjugate too
    assert_close(nearest, np.zeros_like(desired), scale=size(desired) * count(W), tol=32 * backend.eps)


def check_vjp(W: Any, backend: Backend) -> None:
    """vjp is the derivative of <dy, W z> with respect to every parameter: by complex steps of the definition."""
    _, params = definition(W, backend)
    z, dy = states(backend, W.state_shape)
    grads = W.vjp(backend(z), backend(dy))
    desired = oracles.weight_gradient(flat(dy).T @ flat(z), params, WEIGHTS[type(W)](W))
    assert set(grads) == set(W.params)
    for name in grads:
        for gradient, wanted in zip(entries(grads[name]), entries(desired[name]), strict=True):
            scale = size(wanted, z, dy) * count(W)
            assert_close(backend.numpy(gradient), wanted, scale=scale, tol=64 * backend.eps)


def check_vjp_taylor(W: Any, backend: Backend) -> None:
    """f(p + t d) - f(p) - t <grad, d> falls like t^2 for every parameter, f = <dy, W(p) z>."""
    _, params = definition(W, backend)
    z, dy = states(backend, W.state_shape)
    grads = W.vjp(backend(z), backend(dy))
    rng = np.random.default_rng(5)

    def value(**changed: Any) -> float:
        other = W.replace(**{name: each(backend, p) for name, p in changed.items()})
        return float((dy * backend.numpy(other.matvec(backend(z)))).sum())

    for name in W.params:
        upwards = lambda p: np.abs(rng.normal(size=np.shape(p))) * 0.3  # noqa: E731  (g = 0 has no other side)
        direction = each(upwards, params[name])
        pairs = list(zip(entries(grads[name]), entries(direction), strict=True))
        slope = sum(float((backend.numpy(gradient) * d).sum()) for gradient, d in pairs)

        def remainder(t: float, name: str = name, direction: Any = direction, slope: float = slope) -> float:
            at = [p + t * d for p, d in zip(entries(params[name]), entries(direction), strict=True)]
            return abs(value(**{name: at if isinstance(params[name], list) else at[0]}) - value() - t * slope)

        first, second = remainder(1e-2), remainder(1e-4)
        rounding = 1e-12 * size(z, dy) ** 2 * max(1.0, count(W) / 16)
        assert second <= first / 5000 + rounding, f"{name}: remainders {first:.2e}, {second:.2e}"


def check_round_trip(W: Any, backend: Backend) -> None:
    """replace(**params) is the same operator; replacing one parameter changes that one alone."""
    again = W.replace(**W.params)
    assert set(again.params) == set(W.params)
    np.testing.assert_array_equal(backend.numpy(again.to_dense()), backend.numpy(W.to_dense()))
    doubled = W.replace(A=each(lambda p: p * 2, W.A), m=W.m + 1)
    assert doubled.m == W.m + 1
    for name, factor in (("A", 2), ("B", 1)):
        pairs = zip(entries(doubled.params[name]), entries(W.params[name]), strict=True)
        for new, old in pairs:
            np.testing.assert_array_equal(backend.numpy(new), factor * backend.numpy(old))


OPERATOR_LAWS = {
    check.__name__: check
    for check in (
        check_dense_equality,
        check_dot,
        check_resolvent,
        check_cayley,
        check_monotone,
        check_lipschitz,
        check_magnitude,
        check_spectral_blocks,
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
    """A dense operator, an injection and an activation; redrawn until no pre-activation is within 1e-3 of a kink."""
    return _clear_of_kinks(
        lambda seed: dense(np.asarray, **factors(n, m, seed, **scales)), ACTIVATIONS[name], batch, seed
    )


def conv_problem(
    name: str = "relu", border: int | None = None, batch: int = 2, seed: int = 0, **shape: Any
) -> tuple[Any, np.ndarray, Any]:
    """`problem` with a MonotoneConv, `kernels` of that shape; with a border of zeros if one is given."""
    activation = ACTIVATIONS[name] if border is None else activations.zero_border(ACTIVATIONS[name], border)
    return _clear_of_kinks(lambda seed: conv(np.asarray, **kernels(seed=seed, **shape)), activation, batch, seed)


def _clear_of_kinks(make: Callable[[int], Any], activation: Any, batch: int, seed: int) -> tuple[Any, np.ndarray, Any]:
    for attempt in itertools.count(seed, 1000):
        W = make(attempt)
        b = np.random.default_rng(attempt + 1).normal(size=(batch, *W.state_shape)) * 1.5
        z = ir.mon.equilibrium(W, b, activation, tol=1e-8, max_iter=20000).z
        if oracles.clear_of_kinks(_name(activation), flat(z) @ W.to_dense().T + flat(b)):
            return W, b, activation
    raise AssertionError("unreachable")


def _name(activation: Any) -> str:
    return repr(getattr(activation, "inner", activation))


def sigma_of(activation: Any, W: Any) -> dict[str, Any]:
    """The oracle's definition of an activation on flat states of W; a border of zeros included."""
    if not isinstance(activation, activations.ZeroBorder):
        return oracles.DEFINITIONS[repr(activation)]
    (_, height, width), p = W.state_shape, activation.width
    row, column = np.arange(height), np.arange(width)
    inside = ((row >= p) & (row < height - p))[:, None] & ((column >= p) & (column < width - p))
    return oracles.bordered(_name(activation), np.broadcast_to(inside, W.state_shape).ravel())


def exact(W: Any, b: np.ndarray, activation: Any) -> np.ndarray:
    """The equilibrium to rounding, by the oracle's Newton steps."""
    start = ir.mon.equilibrium(W, b, activation, tol=1e-9, max_iter=50000).z
    return oracles.newton_equilibria(W.to_dense(), flat(b), sigma_of(activation, W), flat(start)).reshape(b.shape)


def check_fixed_point(W: Any, b: np.ndarray, activation: Any, alpha: float | None, tol: float) -> np.ndarray:
    """z = sigma(W z + b) to 1e-12, W and sigma by the oracles."""
    z = ir.mon.equilibrium(W, b, activation, alpha=alpha, tol=tol, max_iter=50000).z
    M, _ = definition(W, NUMPY)
    desired = sigma_of(activation, W)["sigma"](flat(z) @ M.T + flat(b))
    assert_close(flat(z), desired, scale=size(z), tol=1e-12)
    return z


def check_gradients_dense(W: Any, b: np.ndarray, activation: Any, alpha: float | None, tol: float) -> None:
    """Every gradient against the dense implicit-function formula at the same z."""
    z = exact(W, b, activation)
    dz = np.random.default_rng(17).normal(size=z.shape)
    grads, _ = ir.mon.equilibrium_vjp(W, b, activation, z, dz, alpha=alpha, tol=tol, max_iter=50000)
    M, params = definition(W, NUMPY)
    jac = sigma_of(activation, W)["slope"](flat(z) @ M.T + flat(b))
    dpre = oracles.implicit_dpre(M, jac, flat(dz))
    desired = {"injection": dpre.reshape(b.shape)}
    desired |= oracles.weight_gradient(dpre.T @ flat(z), params, WEIGHTS[type(W)](W))
    assert set(grads) == set(desired)
    for name in desired:
        for gradient, wanted in zip(entries(grads[name]), entries(desired[name]), strict=True):
            assert_close(gradient, wanted, scale=size(wanted, z), tol=1e-11)


def check_gradients_difference(W: Any, b: np.ndarray, activation: Any, alpha: float | None, tol: float) -> None:
    """Every gradient of <dz, z*> against five-point differences of the oracle's equilibrium, 1e-7 relative."""
    z = exact(W, b, activation)
    rng = np.random.default_rng(23)
    dz = rng.normal(size=z.shape)
    grads, _ = ir.mon.equilibrium_vjp(W, b, activation, z, dz, alpha=alpha, tol=tol, max_iter=50000)
    _, params = definition(W, NUMPY)
    weight, sigma = WEIGHTS[type(W)](W), sigma_of(activation, W)

    def loss(name: str, k: int, value: Any) -> float:
        injection = value if name == "injection" else b
        changed = {} if name == "injection" else {name: value}
        if name != "injection" and isinstance(params[name], list):
            changed = {name: [*params[name][:k], value, *params[name][k + 1 :]]}
        M = weight(**(params | changed))
        return float((flat(dz) * oracles.newton_equilibria(M, flat(injection), sigma, flat(z))).sum())

    for name in grads:
        at = entries(b if name == "injection" else params[name])
        for k, (gradient, point) in enumerate(zip(entries(grads[name]), at, strict=True)):
            direction = rng.normal(size=np.shape(point))
            direction /= max(np.linalg.norm(direction), 1e-3)
            step = 2e-4 * min(1.0, W.m * 4)
            along = functools.partial(loss, name, k)
            difference = oracles.central_difference(along, point, direction, step)
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
    G, scale = np.eye(count(W)) - M, size(z_star, b, M) / min(1.0, inclusion.m * alpha)
    error = lambda z: np.linalg.norm(flat(z - z_star), axis=1)  # noqa: E731
    u = np.random.default_rng(29).normal(size=b.shape) * 3
    u_star = flat(z_star) + alpha * (flat(z_star) @ M.T) - alpha * flat(z_star) + alpha * flat(b)
    rho = splitting.rates.peaceman_rachford(G, alpha)
    for state in itertools.islice(splitting.peaceman_rachford(inclusion, alpha, u), steps):
        z, bound = certificates.distance(inclusion, alpha, state.u)
        check_never_violated(error(z), bound, scale)
        y, e = certificates.defect(inclusion, state.u)
        check_never_violated(error(y), np.linalg.norm(flat(e), axis=1) / inclusion.m, scale)
        delta, S = flat(y - z_star), symmetric(G)
        check_never_violated(((delta @ S) * delta).sum(1), (flat(e) * delta).sum(1), scale**2)
        center, radius = certificates.ball(inclusion, alpha, state.u)
        check_never_violated(error(center), radius, scale)
        y, bound_y, bound_z = certificates.distance_from_state(inclusion, alpha, state.u)
        check_never_violated(error(y), bound_y, scale)
        check_never_violated(error(state.u), bound_z, scale)
        bound_u = certificates.distance_from_step(rho, u, state.u)
        check_never_violated(np.linalg.norm(flat(state.u) - u_star, axis=1), bound_u, scale / (1 - rho))
        u = state.u


def check_floor(W: Any, b: np.ndarray, tol: float = 1e-17) -> Any:
    """The bound covers the distance to the relu equilibrium of the definition, in extended precision."""
    long = lambda p: np.asarray(p).astype(np.longdouble)  # noqa: E731
    M = WEIGHTS[type(W)](W)(**{name: each(long, p) for name, p in W.params.items()}, m=np.longdouble(W.m))
    try:
        solution = ir.mon.equilibrium(W, b, activations.relu, max_iter=500, tol=tol)
    except ir.ConvergenceError as error:
        solution = error.solution
    for z, row, bound in zip(flat(solution.z), flat(b), solution.bound, strict=True):
        error = z - oracles.long_relu_equilibrium(M, row, z)
        assert np.sqrt((error**2).sum()) <= bound
    return solution


NUMPY = Backend("numpy-float64", np.array, np.asarray)
