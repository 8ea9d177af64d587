r"""Trials of the cross-checker on layers written in PyTorch and JAX, correct and broken on purpose.

Nothing of the library of mistakes is used here: every layer is its own code, `W z` by matrices or by conv2d, gradients
by the framework's autograd, and a plant changes what that code computes. From the repository:

    python validation/crosscheck_trials.py correct --trials 2000
    python validation/crosscheck_trials.py plants --trials 1500
    python validation/crosscheck_trials.py unknown --trials 100
    python validation/crosscheck_trials.py loose --trials 200
    python validation/crosscheck_trials.py times --trials 3
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import functools
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import implicitref as ir
from implicitref import crosscheck

Array = Any
SMOOTH = ("tanh", "sigmoid", "softplus", "elu", "arctan")
NAMES = ("relu", "leaky_relu", "hardtanh", "soft_threshold", *SMOOTH)
KINDS = ("mon-dense", "mon-conv", "mon-multitier", "fixed-point", "implicit")


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """A random layer: its parameters by the names of the package, how it is meant, inputs."""

    seed: int
    kind: str
    params: dict[str, np.ndarray]
    settings: dict[str, Any]
    activation: str
    x: np.ndarray
    dy: np.ndarray
    dtype: Any

    def __str__(self) -> str:
        shapes = {name: value.shape for name, value in self.params.items()}
        return (
            f"seed {self.seed}: {self.kind}, {self.activation}, {np.dtype(self.dtype).name}, {shapes}, {self.settings}"
        )


def draw(seed: int, kind: str | None = None, dtype: Any = None) -> Problem:
    """The problem of a seed; float32 for every fourth."""
    rng = np.random.default_rng([seed, 77])
    kind = kind or KINDS[seed % len(KINDS)]
    dtype = dtype or (np.float32 if rng.random() < 0.25 else np.float64)
    params, settings = _DRAWS[kind](rng)
    name = str(rng.choice(NAMES))
    batch, shape = int(rng.integers(1, 5)), settings.pop("input")
    params = {k: v.astype(dtype) for k, v in params.items()}
    x = rng.normal(size=(batch, *shape)).astype(dtype)
    outputs = params["C"].shape[:1] if "C" in params else settings.pop("state")
    settings.pop("state", None)
    dy = rng.normal(size=(batch, *outputs)).astype(dtype)
    return Problem(seed, kind, params, settings, name, x, dy, dtype)


def _scales(rng: np.random.Generator, params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    if rng.random() < 0.5:
        return params
    scales = {"A": "g", "B": "h", "S": "gs"}
    found = {}
    for name in params:
        letter, dot, tier = name.partition(".")
        if letter in scales and (letter != "B" or params[name].size):
            found[scales[letter] + dot + tier] = np.asarray(rng.uniform(0.3, 2.0))
    return {**params, **found}


def _dense(rng: np.random.Generator) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    n, d = int(rng.integers(1, 13)), int(rng.integers(1, 5))
    params = {k: rng.normal(size=(n, n)) * rng.uniform(0.3, 1.5) / n**0.5 for k in "AB"}
    params = _scales(rng, params)
    settings = {"m": float(rng.uniform(0.2, 2)), "input": (n,), "state": (n,)}
    if rng.random() < 0.7:
        params |= {"U": rng.normal(size=(n, d)), "b": rng.normal(size=n)}
        settings["input"] = (d,)
    return params, settings


def _conv(rng: np.random.Generator) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    c, k, size = int(rng.integers(1, 4)), int(rng.choice([1, 3, 3])), tuple(map(int, rng.integers(3, 6, size=2)))
    params = {name: rng.normal(size=(c, c, k, k)) * rng.uniform(0.3, 1.2) / (k * c**0.5) for name in "AB"}
    params, settings = _scales(rng, params), {"m": float(rng.uniform(0.2, 2)), "size": size, "state": (c, *size)}
    if rng.random() < 0.5:
        colours = int(rng.integers(1, 3))
        params |= {"U": rng.normal(size=(c, colours, 3, 3)), "b": rng.normal(size=c)}
        return params, {**settings, "image": (colours, *size), "input": (colours, *size)}
    return params, {**settings, "input": (c, *size)}


def _multitier(rng: np.random.Generator) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    c, k = (int(rng.integers(1, 3)), int(rng.integers(1, 3))), 3
    sizes, params = [(4, 4), (2, 2)], {}
    for i, n in enumerate(c):
        params |= {f"{name}.{i}": rng.normal(size=(n, n, k, k)) * rng.uniform(0.3, 0.9) / (k * n**0.5) for name in "AB"}
    params["S.0"] = rng.normal(size=(c[1], c[0], k, k)) * rng.uniform(0.5, 1.2) / (k * c[0] ** 0.5)
    n = 16 * c[0] + 4 * c[1]
    settings = {"m": float(rng.uniform(0.3, 2)), "sizes": sizes, "stride": 2, "input": (n,), "state": (n,)}
    return _scales(rng, params), settings


def _contraction(rng: np.random.Generator) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    n, d = int(rng.integers(1, 13)), int(rng.integers(1, 5))
    W = rng.normal(size=(n, n))
    W *= rng.uniform(0.1, 0.95) / np.linalg.norm(W, 2)
    return {"W": W, "U": rng.normal(size=(n, d)), "b": rng.normal(size=n)}, {"input": (d,), "state": (n,)}


def _implicit(rng: np.random.Generator) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    n, d, q = int(rng.integers(1, 11)), int(rng.integers(1, 5)), int(rng.integers(1, 4))
    A = rng.normal(size=(n, n))
    A *= rng.uniform(0.1, 0.9) / np.max(np.abs(A).sum(axis=1))
    params = {"A": A, "B": rng.normal(size=(n, d)), "C": rng.normal(size=(q, n)), "D": rng.normal(size=(q, d))}
    return params, {"input": (d,), "state": (n,)}


_DRAWS = {
    "mon-dense": _dense,
    "mon-conv": _conv,
    "mon-multitier": _multitier,
    "fixed-point": _contraction,
    "implicit": _implicit,
}


# ------------------------------------------------------------------------------------------------
# The layers in PyTorch. `o` is a set of words: what is wrong with this evaluation.


def _torch() -> Any:
    import torch

    torch.set_num_threads(1)
    return torch


def sigma(name: str, p: Array) -> Array:
    """The activation."""
    torch = _torch()
    F = torch.nn.functional
    return {
        "relu": torch.relu,
        "leaky_relu": lambda p: F.leaky_relu(p, 0.01),
        "hardtanh": F.hardtanh,
        "soft_threshold": lambda p: F.softshrink(p, 1.0),
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
        "softplus": F.softplus,
        "elu": F.elu,
        "arctan": torch.atan,
    }[name](p)


def activation(name: str) -> Any:
    """The package's record of it."""
    return {"elu": ir.activations.elu(1.0)}.get(name) or ir.activations.get(name)


def conv(K: Array, z: Array, o: frozenset[str]) -> Array:
    """A circular correlation centred at (k - 1)//2, or what somebody wrote instead."""
    torch = _torch()
    if "flip" in o:
        K = torch.flip(K, (2, 3))
    h, w = K.shape[2:]
    low, high = ((h - 1) // 2, (w - 1) // 2), (h // 2, w // 2)
    mode = "constant" if "zero" in o else "circular"
    # circular padding by more than the image is refused: index instead
    if mode == "circular":
        rows = (torch.arange(-low[0], z.shape[2] + high[0])) % z.shape[2]
        columns = (torch.arange(-low[1], z.shape[3] + high[1])) % z.shape[3]
        padded = z[:, :, rows][:, :, :, columns]
    else:
        padded = torch.nn.functional.pad(z, (low[1], high[1], low[0], high[0]))
    return torch.nn.functional.conv2d(padded, K)


def transposed(function: Callable[[Array], Array], y: Array, like: Array) -> Array:
    """The transpose of a linear function of z, by autograd, itself differentiable."""
    torch = _torch()
    at = torch.zeros_like(like, requires_grad=True)
    return torch.autograd.grad(function(at), at, y, create_graph=True)[0]


def acting(p: dict[str, Array], name: str, o: frozenset[str]) -> Array:
    """A kernel with its scale."""
    letter, dot, tier = name.partition(".")
    scale = p.get({"A": "g", "B": "h", "S": "gs"}[letter] + dot + tier)
    K = p[name]
    if scale is None or "raw" in o:
        return K
    length = (K * K).sum() ** 0.5
    if "constant-norm" in o:
        length = length.detach()
    return (scale if letter == "B" else scale**0.5) * K / length


def product(problem: Problem, p: dict[str, Array], z: Array, o: frozenset[str]) -> Array:
    """W z."""
    if problem.kind in ("fixed-point", "implicit"):
        W = p["W" if problem.kind == "fixed-point" else "A"]
        return z @ (W if "transposed" in o else W.T)
    if problem.kind == "mon-multitier":
        return _tiers(problem, p, z, o)
    m = problem.settings["m"]
    A, B = acting(p, "A", o), acting(p, "B", o)
    if problem.kind == "mon-dense":

        def apply(K: Array, v: Array) -> Array:
            return v @ K.T

        def back(K: Array, v: Array) -> Array:
            return v @ K
    else:

        def apply(K: Array, v: Array) -> Array:
            return conv(K, v, o)

        def back(K: Array, v: Array) -> Array:
            return transposed(lambda t: conv(K, t, o), v, v)

    return _monotone(m, A, B, z, apply, back, o) * 1.0


def _monotone(m: float, A: Array, B: Array, z: Array, apply: Any, back: Any, o: frozenset[str]) -> Array:
    if "transposed" in o:
        B = -B
    if "skew-sign" in o:
        B = -B
    one, other = (A.detach() if f"detach-{side}-A" in o else A for side in ("left", "right"))
    gram = apply(A, back(A, z)) if "rows" in o else back(one, apply(other, z))
    gram = (-1.0 if "gram-sign" in o else 1.0) * gram
    left, right = (B.detach() if f"detach-{side}-B" in o else B for side in ("left", "right"))
    skew = apply(left, z) + (1.0 if "symmetric-B" in o else -1.0) * back(right, z)
    if "one-B" in o:
        skew = apply(B, z)
    identity = 0.0 if "no-identity" in o else (1.0 if "no-m" in o else 1 - m)
    rest = -gram + skew
    for word in o:
        if word.startswith("fourier:"):
            rest = rest * float(word.partition(":")[2])
    return identity * z + rest


def _tiers(problem: Problem, p: dict[str, Array], z: Array, o: frozenset[str]) -> Array:
    torch = _torch()
    sizes, m = problem.settings["sizes"], problem.settings["m"]
    channels = [p[f"A.{i}"].shape[0] for i in range(2)]
    cut = channels[0] * math.prod(sizes[0])
    z0, z1 = z[:, :cut].reshape(-1, channels[0], *sizes[0]), z[:, cut:].reshape(-1, channels[1], *sizes[1])
    if "transposed" in o:
        return transposed(lambda t: _tiers(problem, p, t, o - {"transposed"}), z, z)
    A, B, S = ([acting(p, f"{k}.{i}", o) for i in range(2 if k != "S" else 1)] for k in "ABS")

    def apply(K: Array, v: Array) -> Array:
        return conv(K, v, o)

    def back(K: Array, v: Array) -> Array:
        return transposed(lambda t: conv(K, t, o), v, v)

    def strided(K: Array, v: Array) -> Array:
        start = 1 if "phase" in o else 0
        return conv(K, v, o)[:, :, start::2, start::2]

    def strided_back(K: Array, v: Array) -> Array:
        return transposed(lambda t: strided(K, t), v, z0)

    y0 = _monotone(m, A[0], B[0], z0, apply, back, o) - strided_back(
        S[0].detach() if "detach-left-S" in o else S[0], strided(S[0], z0)
    )
    couple = {"uncoupled": 0.0, "coupled-once": 1.0}
    factor = next((couple[word] for word in couple if word in o), 2.0)
    passed = factor * back(A[1], strided(S[0], z0))
    y1 = _monotone(m, A[1], B[1], z1, apply, back, o) - (passed.detach() if "detach-coupling" in o else passed)
    return torch.cat([y0.reshape(len(z), -1), y1.reshape(len(z), -1)], dim=1)


def injection(problem: Problem, p: dict[str, Array], x: Array, o: frozenset[str]) -> Array:
    """U x + b."""
    F, U = _torch().nn.functional, p.get("B" if problem.kind == "implicit" else "U")
    sign = -1.0 if "minus-injection" in o else 1.0
    if U is None:
        return sign * x
    b = 0.0 if problem.kind == "implicit" or "no-bias" in o else p["b"]
    if U.ndim == 2:
        return sign * (x @ U.T + b)
    return sign * F.conv2d(x, U, None if "no-bias" in o else p["b"], padding=1)


def step(problem: Problem, p: dict[str, Array], z: Array, x: Array, o: frozenset[str] = frozenset()) -> Array:
    """sigma(W z + U x + b); with "alpha:a" one step of the printed Algorithm 1, whose sigma stands for prox^alpha."""
    pre = product(problem, p, z, o) + injection(problem, p, x, o)
    for word in o:
        if word.startswith("alpha:"):
            alpha = float(word.partition(":")[2])
            pre = (1 - alpha) * z + alpha * pre
    return sigma(problem.activation, pre)


class Unsolved(Exception):
    """Newton's iteration did not find an equilibrium of a planted equation."""


def matrix(problem: Problem, p: dict[str, Array], o: frozenset[str]) -> Array:
    """W, its columns the products with unit states."""
    torch, n = _torch(), math.prod(state_shape(problem))
    eye = torch.eye(n, dtype=next(iter(p.values())).dtype)
    held = {name: value.detach() for name, value in p.items()}
    return product(problem, held, eye.reshape(n, *state_shape(problem)), o).detach().reshape(n, n).T.contiguous()


def state_shape(problem: Problem) -> tuple[int, ...]:
    """Of one sample."""
    if problem.kind == "mon-conv":
        return (problem.params["A"].shape[0], *problem.settings["size"])
    if problem.kind == "mon-multitier":
        return (problem.x.shape[1],)
    return (problem.params["W" if problem.kind == "fixed-point" else "A"].shape[0],)


def slope(problem: Problem, pre: Array) -> Array:
    """The derivative of the activation."""
    torch = _torch()
    at = pre.detach().requires_grad_(True)
    return torch.autograd.grad(sigma(problem.activation, at).sum(), at)[0]


def step_size(o: frozenset[str]) -> float:
    """The alpha of "alpha:a", else 1."""
    return next((float(word.partition(":")[2]) for word in o if word.startswith("alpha:")), 1.0)


def equilibrium(problem: Problem, p: dict[str, Array], x: Array, o: frozenset[str]) -> Array:
    """Damped Picard steps, then Newton steps as long as they shorten the residual, to the floor of the dtype."""
    torch = _torch()
    held, alpha = {name: value.detach() for name, value in p.items()}, step_size(o)
    b = injection(problem, held, x.detach(), o).reshape(len(x), -1)
    W = matrix(problem, held, o)
    M = (1 - alpha) * _eye(W) + alpha * W

    def change(z: Array) -> Array:
        return sigma(problem.activation, z @ M.T + alpha * b) - z

    def newton(z: Array) -> Array:
        return torch.linalg.solve(_eye(M) - slope(problem, z @ M.T + alpha * b)[:, :, None] * M, change(z)[:, :, None])

    z = torch.zeros_like(b)
    for damping in (0.3, 0.1, 0.03, 0.01):  # kinks may stop Newton's iteration: nearer by Picard's, and again
        for _ in range(60):
            z = z + damping * change(z)
        z = _newtons(change, newton, z)
        if float(change(z).abs().max()) <= 100 * torch.finfo(z.dtype).eps * (1 + float(z.abs().max())):
            return z.reshape(len(x), *state_shape(problem))
    raise Unsolved


def _newtons(change: Callable[[Array], Array], newton: Callable[[Array], Array], z: Array) -> Array:
    # of z, z + step, z + step/2, ... the one with the shortest residual, sample by sample
    torch = _torch()
    shares = torch.tensor([0.0, *(0.5**k for k in range(8))], dtype=z.dtype)[:, None, None]
    for _ in range(30):
        try:
            step = newton(z)[:, :, 0]
        except RuntimeError as singular:
            raise Unsolved from singular
        trials = z + shares * step
        lengths = torch.stack([change(trial).norm(dim=1) for trial in trials]).nan_to_num(math.inf)
        best = lengths.argmin(dim=0)
        z = trials[best, torch.arange(len(z))]
        if not best.any():
            break
    return z


# ------------------------------------------------------------------------------------------------
# Gradients: the adjoint by dense algebra on Jacobians from autograd, the rest by autograd


Adjoint = Callable[[Array, Array, Array, Array], Array]  # (W, jac, dz, pre) of one sample -> dpre


def right_adjoint(W: Array, jac: Array, dz: Array, pre: Array) -> Array:
    """``dpre = J (dz + W' dpre)``."""
    torch = _torch()
    return torch.linalg.solve(torch.eye(len(W), dtype=W.dtype) - jac[:, None] * W.T, jac * dz)


@dataclasses.dataclass(frozen=True, eq=False)
class Plant:
    """What is wrong: words for the forward pass, the linear map of the adjoint and the parameters' vjp; the adjoint
    itself; what is done to the blocks; the name that the checker should find.
    """

    name: str
    forward: frozenset[str] = frozenset()
    linear: frozenset[str] = frozenset()
    vjp: frozenset[str] = frozenset()
    adjoint: Adjoint | None = None
    blocks: Callable[[Problem, dict[str, np.ndarray]], dict[str, np.ndarray]] | None = None
    steps: int = 0
    where: Callable[[Problem], bool] = lambda problem: True


CORRECT = Plant("")


def layer(problem: Problem, plant: Plant = CORRECT) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Forward and backward in NumPy of a layer with that plant."""
    torch = _torch()
    params = {name: torch.tensor(value, requires_grad=True) for name, value in problem.params.items()}
    known: dict[bytes, Array] = {}

    def state(x: Array) -> Array:
        key = x.detach().numpy().tobytes()
        if key not in known:
            known[key] = (
                _stopped(problem, params, x, plant) if plant.steps else equilibrium(problem, params, x, plant.forward)
            )
        return known[key]

    def forward(x: np.ndarray) -> np.ndarray:
        return output(problem, params, state(torch.tensor(x)), torch.tensor(x)).detach().numpy()

    def backward(x: np.ndarray, dy: np.ndarray) -> dict[str, np.ndarray]:
        given = torch.tensor(x, requires_grad=True)
        z = state(given).detach()
        grads = _gradients(problem, params, given, z, torch.tensor(dy), plant)
        return plant.blocks(problem, grads) if plant.blocks else grads

    return forward, backward


def _stopped(problem: Problem, params: dict[str, Array], x: Array, plant: Plant) -> Array:
    z = equilibrium(problem, params, x, plant.forward) * 0
    for _ in range(plant.steps):
        z = step(problem, params, z, x, plant.forward).detach()
    return z


def output(problem: Problem, p: dict[str, Array], z: Array, x: Array) -> Array:
    """z, or C z + D x."""
    return z @ p["C"].T + x @ p["D"].T if problem.kind == "implicit" else z


def _gradients(
    problem: Problem, p: dict[str, Array], x: Array, z: Array, dy: Array, plant: Plant
) -> dict[str, np.ndarray]:
    torch = _torch()
    held = {name: value.detach() for name, value in p.items()}
    dz = dy @ held["C"] if problem.kind == "implicit" else dy
    linear, vjp = plant.forward | plant.linear, plant.forward | plant.vjp
    alpha = step_size(plant.forward)
    Wz = product(problem, held, z, plant.forward).reshape(len(z), -1)
    pre = Wz + injection(problem, held, x.detach(), plant.forward).reshape(len(z), -1)
    if alpha != 1:  # through the printed step itself
        pre = (1 - alpha) * z.reshape(len(z), -1) + alpha * pre
    W = matrix(problem, held, linear)
    W = (1 - alpha) * _eye(W) + alpha * W
    adjoint = plant.adjoint or right_adjoint
    flat = [adjoint(W, *sample) for sample in zip(slope(problem, pre), dz.reshape(len(z), -1), pre, strict=True)]
    dpre = alpha * torch.stack(flat).reshape(z.shape)
    value = product(problem, p, z, vjp) + injection(problem, p, x, plant.forward)
    return _collect(problem, p, x, dy, z, [(value, dpre)])


def _collect(
    problem: Problem, p: dict[str, Array], x: Array, dy: Array, z: Array, pairs: list[tuple[Array, Array]]
) -> dict[str, np.ndarray]:
    torch = _torch()
    if problem.kind == "implicit":
        pairs = [*pairs, (output(problem, p, z, x), dy)]
    loss = sum((value * cotangent).sum() for value, cotangent in pairs)
    grads = torch.autograd.grad(loss, [*p.values(), x], allow_unused=True)
    return {
        name: (torch.zeros_like(at) if g is None else g).numpy()
        for (name, at), g in zip([*p.items(), ("x", x)], grads, strict=True)
    }


def target(problem: Problem, plant: Plant = CORRECT) -> crosscheck.Target:
    """The layer as the checker sees it."""
    forward, backward = layer(problem, plant)
    return crosscheck.from_callable(
        forward,
        backward,
        problem.params,
        kind=problem.kind,
        activation=activation(problem.activation),
        **problem.settings,
    )


# ------------------------------------------------------------------------------------------------
# Plants


def _words(*words: str) -> frozenset[str]:
    return frozenset(words)


def _dense_adjoint(make: Callable[[Array, Array], tuple[Array, Array]]) -> Adjoint:
    """Dpre = J^a M^-1 J^b dz from a matrix and a pair of diagonals."""

    def adjoint(W: Array, jac: Array, dz: Array, pre: Array) -> Array:
        M, (before, after) = make(W, jac)
        return after * _torch().linalg.solve(M, before * dz)

    return adjoint


def _eye(W: Array) -> Array:
    return _torch().eye(len(W), dtype=W.dtype)


def _neumann(k: int) -> Adjoint:
    def adjoint(W: Array, jac: Array, dz: Array, pre: Array) -> Array:
        dpre = jac * dz
        for _ in range(k):
            dpre = jac * (dz + W.T @ dpre)
        return dpre

    return adjoint


def _edit(
    change: Callable[[Problem, str, np.ndarray], np.ndarray],
) -> Callable[[Problem, dict[str, np.ndarray]], dict[str, np.ndarray]]:
    return lambda problem, grads: {name: change(problem, name, block) for name, block in grads.items()}


def _mon(problem: Problem) -> bool:
    return problem.kind.startswith("mon")


def _of(*kinds: str) -> Callable[[Problem], bool]:
    return lambda problem: problem.kind in kinds


def _has(*names: str) -> Callable[[Problem], bool]:
    return lambda problem: all(name in problem.params for name in names)


def _smooth(problem: Problem) -> bool:
    return _mon(problem) and problem.activation in (*SMOOTH, "leaky_relu", "soft_threshold")


def _kernels(problem: Problem) -> bool:
    return problem.kind in ("mon-conv", "mon-multitier")


def _pixels(problem: Problem) -> int:
    return math.prod(problem.settings.get("size") or problem.settings["sizes"][0])


def _skew(problem: Problem, name: str, block: np.ndarray) -> np.ndarray:
    return -block if name[0] == "B" else block


def _turn(problem: Problem, name: str, block: np.ndarray) -> np.ndarray:
    return block[..., ::-1, ::-1] if name[0] in "ABS" and block.ndim == 4 else block


def plants(problem: Problem, rng: np.random.Generator) -> list[Plant]:
    """Every plant that makes sense for this problem."""
    k, alpha = int(rng.integers(1, 6)), float(rng.choice([0.5, 2.0]))
    c = float(rng.choice([2.0, 0.5]))
    only = str(rng.choice([*problem.params, "x"]))

    def post(W: Array, jac: Array, dz: Array, pre: Array) -> Array:
        return right_adjoint(W, slope(problem, sigma(problem.activation, pre)), dz, pre)

    def prox_slope(W: Array, jac: Array, dz: Array, pre: Array) -> Array:
        return right_adjoint(W, jac / (jac + alpha * (1 - jac)), dz, pre)

    def identity(W: Array, jac: Array, dz: Array, pre: Array) -> Array:
        return right_adjoint(W - (1 - problem.settings["m"]) * _eye(W), jac, dz, pre)

    every = [
        Plant("adjoint-not-transposed", adjoint=lambda W, *rest: right_adjoint(W.T, *rest)),
        Plant("slope-left-out-of-the-adjoint", adjoint=_dense_adjoint(lambda W, J: (_eye(W) - W.T, (1, J)))),
        Plant("slope-left-out-at-the-end", adjoint=_dense_adjoint(lambda W, J: (_eye(W) - W.T * J, (1, 1)))),
        Plant("slope-on-the-wrong-side", adjoint=_dense_adjoint(lambda W, J: (_eye(W) - W.T * J, (J, 1)))),
        Plant("slope-applied-twice", adjoint=_dense_adjoint(lambda W, J: (_eye(W) - J[:, None] * W.T, (J, J)))),
        Plant("printed-denominator", adjoint=lambda W, *rest: right_adjoint(W - _eye(W), *rest)),
        Plant("slope-at-the-wrong-place", adjoint=post),
        Plant("slope-of-another-prox", adjoint=prox_slope, where=_smooth),
        Plant("sign-of-w-in-the-adjoint", adjoint=lambda W, *rest: right_adjoint(-W, *rest)),
        Plant("identity-left-out-of-the-adjoint", adjoint=identity, where=_mon),
        Plant("no-adjoint", adjoint=lambda W, jac, dz, pre: dz),
        Plant("jfb", adjoint=_neumann(0)),
        Plant("neumann", adjoint=_neumann(k)),
        Plant("sign-of-the-skew-part", vjp=_words("skew-sign"), where=_mon),
        Plant(
            "weight-transposed",
            blocks=_edit(lambda p, n, g: g.T if n in "WA" else g),
            where=_of("fixed-point", "implicit"),
        ),
        Plant("gram-not-symmetrised", vjp=_words(f"detach-{rng.choice(['left', 'right'])}-A"), where=_mon),
        Plant("gram-of-rows", vjp=_words("rows"), where=_of("mon-dense")),
        Plant("sign-of-the-gram-part", vjp=_words("gram-sign"), where=_of("mon-dense", "mon-conv")),
        Plant("skew-part-not-skew", vjp=_words(f"detach-{rng.choice(['left', 'right'])}-B"), where=_mon),
        Plant("skew-part-not-skew", vjp=_words("symmetric-B"), where=_mon),
        Plant(
            "weight-normalisation-left-out",
            vjp=_words("constant-norm"),
            where=lambda p: bool({"g", "h", "g.0"} & set(p.params)),
        ),
        Plant("kernel-not-flipped", linear=_words("flip"), where=_kernels),
        Plant("kernel-gradient-flipped", blocks=_edit(_turn), where=_kernels),
        Plant(
            "kernel-channels-swapped",
            blocks=_edit(lambda p, n, g: g.swapaxes(0, 1) if n[0] in "AB" and g.ndim == 4 else g),
            where=_kernels,
        ),
        Plant("zero-padding-in-the-adjoint", linear=_words("zero"), where=_of("mon-conv")),
        Plant(
            "fourier-scale",
            blocks=_edit(lambda p, n, g: g / _pixels(p) if n[0] in "ABS" and g.ndim == 4 else g),
            where=_kernels,
        ),
        Plant("tiers-not-coupled-in-the-adjoint", linear=_words("uncoupled"), where=_of("mon-multitier")),
        Plant("tiers-not-coupled-in-the-adjoint", linear=_words("coupled-once"), where=_of("mon-multitier")),
        Plant("coupling-left-out-of-the-gradient", vjp=_words("detach-coupling"), where=_of("mon-multitier")),
        Plant("strided-gram-not-symmetrised", vjp=_words("detach-left-S"), where=_of("mon-multitier")),
        Plant("stride-phase", vjp=_words("phase"), where=_of("mon-multitier")),
        Plant("detached", blocks=_edit(lambda p, n, g: 0 * g if n == only else g)),
        Plant(
            "mean-for-sum", blocks=_edit(lambda p, n, g: g if n == "x" else g / len(p.x)), where=lambda p: len(p.x) > 1
        ),
        Plant("sum-for-mean", blocks=_edit(lambda p, n, g: g * len(p.x)), where=lambda p: len(p.x) > 1),
        Plant("factor-two", blocks=_edit(lambda p, n, g: 2 * g)),
        Plant("factor-half", blocks=_edit(lambda p, n, g: g / 2)),
        Plant("sign", blocks=_edit(lambda p, n, g: -g)),
        Plant("factor-in-one-block", blocks=_edit(lambda p, n, g: c * g if n == only else g)),
        Plant(
            "input-by-u-not-transposed",
            blocks=lambda p, grads: {**grads, "x": np.asarray(grads["b"] * 0)},
            where=lambda p: False,
        ),
        Plant("weight-transposed-in-the-forward-pass", forward=_words("transposed")),
        Plant("sign-of-the-injection", forward=_words("minus-injection")),
        Plant("sign-of-the-injection", forward=_words("no-bias"), where=_has("b")),
        Plant("identity-left-out", forward=_words("no-identity"), where=_mon),
        Plant("identity-left-out", forward=_words("no-m"), where=_mon),
        Plant("sign-of-the-gram-part-forward", forward=_words("gram-sign"), where=_of("mon-dense", "mon-conv")),
        Plant("gram-of-rows-forward", forward=_words("rows"), where=_of("mon-dense")),
        Plant("skew-part-not-skew-forward", forward=_words("symmetric-B"), where=_of("mon-dense")),
        Plant("skew-part-not-skew-forward", forward=_words("one-B"), where=_of("mon-dense")),
        Plant("scales-forward", forward=_words("raw"), where=lambda p: bool({"g", "g.0"} & set(p.params))),
        Plant("sigma-for-prox-alpha", forward=_words(f"alpha:{rng.uniform(0.2, 0.8):.3f}"), where=_smooth),
        Plant("kernel-flipped", forward=_words("flip"), where=_kernels),
        Plant("zero-padding-for-circular", forward=_words("zero"), where=_of("mon-conv")),
        Plant(
            "fourier-scale-forward",
            forward=_words(f"fourier:{_pixels(problem) ** -0.5 if _kernels(problem) else 1}"),
            where=_of("mon-conv"),
        ),
        Plant("tiers-not-coupled", forward=_words("uncoupled"), where=_of("mon-multitier")),
        Plant("tiers-not-coupled", forward=_words("coupled-once"), where=_of("mon-multitier")),
        Plant("stride-phase-forward", forward=_words("phase"), where=_of("mon-multitier")),
        Plant("forward-stopped", steps=k),
    ]
    hidden = problem.kind == "implicit"  # only C z + D x is seen: a wrong state cannot be read off
    return [plant for plant in every if plant.where(problem) and not (hidden and plant.forward)]


def unknown_plants(problem: Problem) -> list[Plant]:
    """Ten mistakes that are not in the library."""

    def symmetric(W: Array, *rest: Array) -> Array:
        return right_adjoint((W + W.T) / 2, *rest)

    def one_entry(W: Array, *rest: Array) -> Array:
        wrong = W.clone()
        wrong[0, -1] = 10 * wrong[0, -1] + 0.5
        return right_adjoint(wrong, *rest)

    def clipped(W: Array, *rest: Array) -> Array:
        found = right_adjoint(W, *rest)
        return found.clamp(-0.3, 0.3)

    def unit(W: Array, jac: Array, dz: Array, pre: Array) -> Array:
        return right_adjoint(W, jac, dz / (1.7 + dz.norm()), pre)

    return [
        Plant("symmetric part in the adjoint", adjoint=symmetric),
        Plant("one entry of W ten times too large", adjoint=one_entry),
        Plant("clipped", adjoint=clipped),
        Plant("dz normalised", adjoint=unit),
        Plant("root of J", adjoint=lambda W, J, *rest: right_adjoint(W, 0.5 * J + 0.3, *rest)),
        Plant("dpre reversed", adjoint=lambda W, *rest: right_adjoint(W, *rest).flip(0)),
        Plant("W damped", adjoint=lambda W, *rest: right_adjoint(0.8 * W, *rest)),
        Plant(
            "noise",
            blocks=_edit(
                lambda p, n, g: g * (1 + 0.05 * np.cos(7.0 * np.arange(g.size).reshape(g.shape))).astype(g.dtype)
            ),
        ),
        Plant("one block times 1.37", blocks=_edit(lambda p, n, g: 1.37 * g if n == next(iter(p.params)) else g)),
        Plant("absolute values", blocks=_edit(lambda p, n, g: abs(g))),
    ]


# ------------------------------------------------------------------------------------------------
# Layers of other routes, all correct


def unrolled(problem: Problem) -> crosscheck.Target | None:
    """Autograd through converged iterations, where they converge; None elsewhere."""
    torch = _torch()
    params = {name: torch.tensor(value, requires_grad=True) for name, value in problem.params.items()}
    eps = float(np.finfo(problem.dtype).eps)

    def run(x: Array) -> Array:
        z = torch.zeros_like(injection(problem, params, x, frozenset()))
        for k in range(400):
            following = step(problem, params, z, x)
            gap, size = (float(part.detach().abs().max()) for part in (following - z, z))
            z = following
            if gap <= 4 * eps * max(1.0, size):
                return _again(z, x, k)
        raise Unsolved

    def _again(z: Array, x: Array, k: int) -> Array:
        for _ in range(min(k, 200)):  # the derivative converges behind the state
            z = step(problem, params, z, x)
        return output(problem, params, z, x)

    def backward(x: np.ndarray, dy: np.ndarray) -> dict[str, np.ndarray]:
        given = torch.tensor(x, requires_grad=True)
        grads = torch.autograd.grad(run(given), [*params.values(), given], torch.tensor(dy), allow_unused=True)
        return {
            name: (torch.zeros_like(at) if g is None else g).numpy()
            for (name, at), g in zip([*params.items(), ("x", given)], grads, strict=True)
        }

    try:
        run(torch.tensor(problem.x))
    except Unsolved:
        return None
    return crosscheck.from_callable(
        lambda x: run(torch.tensor(x)).detach().numpy(),
        backward,
        problem.params,
        kind=problem.kind,
        activation=activation(problem.activation),
        **problem.settings,
    )


def by_the_package(problem: Problem) -> crosscheck.Target:
    """The package's own solvers, Algorithms 2 and 4 in the dtype of the problem."""
    equation = crosscheck.targets.equation(
        problem.kind, problem.params, activation(problem.activation), problem.settings
    )

    def forward(x: np.ndarray) -> np.ndarray:
        z = equation.solve(x.astype(np.float64)).z
        return equation.output(z, x).astype(problem.dtype)

    def backward(x: np.ndarray, dy: np.ndarray) -> dict[str, np.ndarray]:
        x, dy = x.astype(np.float64), dy.astype(np.float64)
        point = equation.point(equation.solve(x).z, x, dy)
        return {name: block.astype(problem.dtype) for name, block in point.blocks(point.dpre).items()}

    return crosscheck.from_callable(
        forward,
        backward,
        problem.params,
        kind=problem.kind,
        activation=activation(problem.activation),
        **problem.settings,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Products:
    """T of a problem as its products only, by autograd; see implicitref.fixed_point.maps."""

    problem: Problem
    params: dict[str, Array]

    def __call__(self, z: np.ndarray, x: np.ndarray) -> np.ndarray:
        """T(z, x)."""
        return step(self.problem, self.params, *self._tensors(z, x)).detach().numpy()

    def _tensors(self, *arrays: np.ndarray) -> list[Array]:
        return [_torch().tensor(np.asarray(a, dtype=self.problem.dtype)) for a in arrays]

    def vjp_state(self, z: np.ndarray, x: np.ndarray, g: np.ndarray) -> np.ndarray:
        """K' g."""
        at, given, cotangent = self._tensors(z, x, g)
        at.requires_grad_(True)
        return _torch().autograd.grad(step(self.problem, self.params, at, given), at, cotangent)[0].numpy()

    def jvp_state(self, z: np.ndarray, x: np.ndarray, v: np.ndarray) -> np.ndarray:
        """K v."""
        at, given, along = self._tensors(z, x, v)
        return (
            _torch().autograd.functional.jvp(lambda z: step(self.problem, self.params, z, given), at, along)[1].numpy()
        )

    def vjp_params(self, z: np.ndarray, x: np.ndarray, g: np.ndarray) -> dict[str, np.ndarray]:
        """Gradients by the parameters and by x."""
        at, given, cotangent = self._tensors(z, x, g)
        given.requires_grad_(True)
        pairs = [(step(self.problem, self.params, at, given), cotangent)]
        return _collect(self.problem, self.params, given, cotangent, at, pairs)


def by_products(problem: Problem) -> crosscheck.Target | None:
    """The same layer as a target of kind "generic"."""
    if problem.kind == "implicit":
        return None
    forward, backward = layer(problem)
    params = {name: _torch().tensor(value, requires_grad=True) for name, value in problem.params.items()}
    shape = state_shape(problem)
    return crosscheck.from_callable(
        forward,
        backward,
        problem.params,
        kind="generic",
        T=Products(problem, params),
        start=lambda x: np.zeros((len(x), *shape)),
        input_shape=problem.x.shape[1:],
    )


def in_jax(problem: Problem) -> crosscheck.Target | None:
    """In JAX: one Newton step from the equilibrium held constant, whose derivative is that of the equilibrium."""
    if problem.kind not in ("fixed-point", "implicit", "mon-dense"):
        return None
    import jax

    jax.config.update("jax_enable_x64", True)
    jnp, lax = jax.numpy, jax.lax
    tensors = {name: _torch().tensor(value) for name, value in problem.params.items()}
    sigmas = {
        "relu": jax.nn.relu,
        "leaky_relu": lambda p: jax.nn.leaky_relu(p, 0.01),
        "hardtanh": lambda p: jnp.clip(p, -1.0, 1.0),
        "soft_threshold": lambda p: p - jnp.clip(p, -1.0, 1.0),
        "tanh": jnp.tanh,
        "sigmoid": jax.nn.sigmoid,
        "softplus": jax.nn.softplus,
        "elu": jax.nn.elu,
        "arctan": jnp.arctan,
    }
    activate = sigmas[problem.activation]

    def weight(p: Any) -> Any:
        if problem.kind != "mon-dense":
            return p["W" if problem.kind == "fixed-point" else "A"]
        gram, skew = p["A"].T @ p["A"], p["B"] - p["B"].T
        gram = gram * p["g"] / jnp.sum(p["A"] ** 2) if "g" in p else gram
        skew = skew * p["h"] / jnp.sqrt(jnp.sum(p["B"] ** 2)) if "h" in p else skew
        return (1 - problem.settings["m"]) * jnp.eye(len(gram), dtype=gram.dtype) - gram + skew

    def inject(p: Any, x: Any) -> Any:
        U = p.get("B" if problem.kind == "implicit" else "U")
        return x if U is None else x @ U.T + p.get("b", 0)

    def run(p: Any, x: Any) -> Any:
        W, b = weight(p), inject(p, x)
        shape = jax.ShapeDtypeStruct(b.shape, b.dtype)
        z = jax.pure_callback(solved, shape, lax.stop_gradient(x))
        pre = z @ W.T + b
        slope = jax.vmap(jax.vmap(jax.grad(activate)))(lax.stop_gradient(pre))
        K = slope[:, :, None] * lax.stop_gradient(W)
        z = z + jnp.linalg.solve(jnp.eye(len(W), dtype=W.dtype) - K, (activate(pre) - z)[:, :, None])[:, :, 0]
        return z @ p["C"].T + x @ p["D"].T if problem.kind == "implicit" else z

    def solved(x: Any) -> np.ndarray:
        return equilibrium(problem, tensors, _torch().tensor(np.array(x)), frozenset()).numpy()

    return crosscheck.from_jax(
        run, problem.params, kind=problem.kind, activation=activation(problem.activation), **problem.settings
    )


# ------------------------------------------------------------------------------------------------
# Runs


def correct(first: int, trials: int) -> Iterator[tuple[str, str]]:
    """(what happened, where) for correct layers: "pass", "inconclusive" or "accused"."""
    for seed in range(first, first + trials):
        problem = draw(seed)
        made = ROUTES.get(seed % 12 if seed % 12 != 9 or seed % 5 == 0 else 0, lambda problem: None)(problem)
        try:
            report = crosscheck.check(made or target(problem), **_inputs(problem, seed))
        except Unsolved:
            yield "not solved by the layer itself", str(problem)
            continue
        words = {"pass": "pass", "fail": "accused"}.get(report.verdict, report.verdict)
        if "Unsolved" in report.reason:  # its own Newton iteration gave up on inputs that the checker drew
            words = "not solved by the layer itself"
        yield words, f"{problem}, route {seed % 12}: {report}"


ROUTES: dict[int, Callable[[Problem], Any]] = {1: unrolled, 4: by_the_package, 7: by_products, 9: in_jax}


def _inputs(problem: Problem, seed: int) -> dict[str, Any]:
    return {"x": problem.x, "dz": problem.dy} if seed % 2 else {"random_state": seed}


def _discrepancy(problem: Problem, plant: Plant) -> float:
    """How wrong the plant is: of the state and of the worst block, relative."""
    right, wrong = layer(problem), layer(problem, plant)
    pairs = [(right[0](problem.x), wrong[0](problem.x))]
    a, b = right[1](problem.x, problem.dy), wrong[1](problem.x, problem.dy)
    pairs += [(a[name], b[name]) for name in a]
    floor = 1e-6 * max(1e-30, *(float(np.linalg.norm(p)) for p, _ in pairs))  # blocks that vanish but for rounding
    return max(float(np.linalg.norm(p - q) / max(np.linalg.norm(p), floor)) for p, q in pairs)


def planted(
    first: int, trials: int, choose: Callable[[Problem, np.random.Generator], Plant]
) -> Iterator[tuple[str, str]]:
    """(what happened, where) for one plant a problem; plants that change less than 1e-3 are left out."""
    seed, done = first, 0
    while done < trials:
        problem, seed = draw(seed), seed + 1
        rng = np.random.default_rng([seed, 5])
        plant = choose(problem, rng)
        try:
            if not _discrepancy(problem, plant) > 1e-3:
                continue
            report = crosscheck.check(target(problem, plant), x=problem.x, dz=problem.dy)
        except Unsolved:
            continue
        done += 1
        yield _outcome(report, plant), f"{plant.name} -> {_named(report)}; {problem}"


def _named(report: crosscheck.Report) -> tuple[str, ...]:
    first = report.diagnosis[0] if report.diagnosis else None
    return (first.name, *first.also) if first else ()


def _outcome(report: crosscheck.Report, plant: Plant) -> str:
    if report.verdict == "pass":
        return "missed"
    return "named" if plant.name in _named(report) else ("unknown" if "unknown" in _named(report) else "misnamed")


def random_plant(problem: Problem, rng: np.random.Generator) -> Plant:
    """One of the plants."""
    every = plants(problem, rng)
    return every[int(rng.integers(len(every)))]


def random_unknown(problem: Problem, rng: np.random.Generator) -> Plant:
    """One of those outside the library."""
    every = unknown_plants(problem)
    return every[int(rng.integers(len(every)))]


def loose(first: int, trials: int) -> Iterator[tuple[str, str]]:
    """States off by 1e-3, relative, with the right adjoint at that state, or at the equilibrium."""
    for seed in range(first, first + trials):
        problem, rng = draw(seed, dtype=np.float64), np.random.default_rng([seed, 9])
        forward, backward = layer(problem)
        noise = rng.normal(size=1000)

        def near(x: np.ndarray, forward: Any = forward, noise: np.ndarray = noise) -> np.ndarray:
            y = forward(x)
            shift = np.resize(noise, y.shape[1:])
            return y + 1e-3 * np.linalg.norm(y) * shift / (np.linalg.norm(shift) * len(y) ** 0.5)

        made = crosscheck.from_callable(
            near,
            backward,
            problem.params,
            kind=problem.kind,
            activation=activation(problem.activation),
            **problem.settings,
        )
        try:
            if not np.any(near(problem.x)):  # of a state of zeros nothing is a relative distance
                continue
        except Unsolved:
            continue
        report = crosscheck.check(made, x=problem.x, dz=problem.dy)
        yield {"fail": "accused"}.get(report.verdict, report.verdict), f"{problem}: {report}"


def times(first: int, trials: int) -> Iterator[tuple[str, str]]:
    """Seconds that a check takes of a dense layer, n = 87, and of two tiers from 16 x 16, 6144 entries."""
    for seed in range(first, first + trials):
        for problem in (_wide(seed), _tall(seed)):
            made = by_the_package(problem)
            for inputs in ({"x": problem.x, "dz": problem.dy}, {"random_state": seed}):
                began = time.process_time()
                verdict = crosscheck.check(made, **inputs).verdict
                yield verdict, f"{time.process_time() - began:.2f} s, given {', '.join(inputs)}: {problem}"


def _wide(seed: int) -> Problem:
    rng = np.random.default_rng(seed)
    params = {name: rng.uniform(-1, 1, (87, 87)) / 87**0.5 for name in "AB"}
    params |= {"U": rng.uniform(-1, 1, (87, 784)) / 28, "b": rng.normal(size=87)}
    x, dy = rng.normal(size=(32, 784)), rng.normal(size=(32, 87))
    return Problem(seed, "mon-dense", params, {"m": 1.0}, "relu", x, dy, np.float64)


def _tall(seed: int) -> Problem:
    rng, channels = np.random.default_rng(seed), (16, 32)
    params = {
        f"{name}.{i}": rng.normal(size=(c, c, 3, 3)) / (6 * c**0.5) for i, c in enumerate(channels) for name in "AB"
    }
    params["S.0"] = rng.normal(size=(32, 16, 3, 3)) / 12
    x, dy = rng.normal(size=(2, 6144)), rng.normal(size=(2, 6144))
    settings = {"m": 1.0, "sizes": [(16, 16), (8, 8)], "stride": 2}
    return Problem(seed, "mon-multitier", params, settings, "relu", x, dy, np.float64)


RUNS: dict[str, Callable[[int, int], Iterator[tuple[str, str]]]] = {
    "correct": correct,
    "plants": functools.partial(planted, choose=random_plant),
    "unknown": functools.partial(planted, choose=random_unknown),
    "loose": loose,
    "times": times,
}
WELL = {"correct": ("pass",), "plants": ("named",), "unknown": ("unknown",), "loose": ("inconclusive",), "times": ()}


def main(argv: list[str] | None = None) -> int:
    """Run trials, print what did not come out well, then the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", choices=sorted(RUNS))
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    arguments = parser.parse_args(argv)
    counts: collections.Counter[str] = collections.Counter()
    for outcome, where in RUNS[arguments.run](arguments.first, arguments.trials):
        counts[outcome] += 1
        if outcome not in WELL[arguments.run]:
            print(f"{outcome}: {where}", flush=True)
    print(dict(counts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
