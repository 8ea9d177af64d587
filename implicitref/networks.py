r"""The networks of the papers' tables. Today the dense MON: ``z* = sigma(W z* + U x + b)``, logits ``W_o z* + b_o``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from numbers import Integral
from typing import Any, NamedTuple, TypedDict, Unpack

import numpy as np

from . import mon
from .activations import Activation, relu
from .arrays import Array, checked, is_array, largest, like, norm, to_numpy
from .errors import HypothesisError, ShapeError
from .layers import affine, affine_vjp, affine_vjp_params
from .losses import cross_entropy
from .operators import MonotoneDense
from .splitting import Solution

__all__ = ["Gradients", "MonNetwork", "SolveOptions", "mon_fc", "mon_network"]

OUTSIDE_W = ("U", "b", "readout_weight", "readout_bias")


class SolveOptions(TypedDict, total=False):
    """The keywords of `mon.equilibrium` that a network hands on, with the same defaults."""

    method: str
    alpha: float | None
    tol: float
    max_iter: int
    stop: str


class Gradients(NamedTuple):
    """A loss, its gradient by the names of `MonNetwork.params`, and the two solves that gave them."""

    loss: float
    grads: dict[str, Array]
    forward: Solution
    backward: Solution


@dataclasses.dataclass(frozen=True, eq=False)
class MonNetwork:
    r"""The dense MON: ``z* = sigma(W z* + U x + b)`` and ``logits = W_o z* + b_o`` [MON-Eq1, MON-AppD.1-readout].

    Parameters
    ----------
    W : MonotoneDense, n -> n
    U : array (n, d)
    b : array (n,)
    readout_weight : array (classes, n)
    readout_bias : array (classes,)
    activation : Activation

    Raises
    ------
    ShapeError, HypothesisError

    Examples
    --------
    >>> import numpy as np
    >>> network = mon_fc(np.random.default_rng(0), 784)
    >>> sum(p.size for p in network.params.values())       # Table D1
    84313
    >>> network.logits(np.zeros((2, 784), dtype=np.float32), tol=1e-3).shape
    (2, 10)
    """

    W: MonotoneDense
    U: Array
    b: Array
    readout_weight: Array
    readout_bias: Array
    activation: Activation = relu

    def __post_init__(self) -> None:
        n = self.W.size
        U, weight = checked("U", self.U, 2), checked("readout_weight", self.readout_weight, 2)
        wanted = {"U": (n, U.shape[1]), "b": (n,)}
        wanted |= {"readout_weight": (weight.shape[0], n), "readout_bias": (weight.shape[0],)}
        for name, shape in wanted.items():
            value = checked(name, getattr(self, name))
            if tuple(value.shape) != shape:
                raise ShapeError(f"{name} must have shape {shape}, since W is {n} x {n}; got {tuple(value.shape)}.")
            object.__setattr__(self, name, value)

    @property
    def params(self) -> dict[str, Array]:
        """Every trained array by name; m is not trained."""
        return {**self.W.params, **{name: getattr(self, name) for name in OUTSIDE_W}}

    def replace(self, **params: Array) -> MonNetwork:
        """The same network with other parameters, by the names of `params`."""
        unknown = sorted(set(params) - set(self.params))
        if unknown:
            raise TypeError(f"this network has no parameter {', '.join(unknown)}; it has {', '.join(self.params)}.")
        outside = {name: params.pop(name) for name in OUTSIDE_W if name in params}
        W = self.W.replace(**params) if params else self.W
        return dataclasses.replace(self, W=W, **outside)

    def following(self, x: Array) -> MonNetwork:
        """The network with the library, device and dtype of `x`; itself where they agree already."""
        moved = {name: like(x, p) for name, p in self.params.items()}
        return self if all(moved[name] is p for name, p in self.params.items()) else self.replace(**moved)

    def inject(self, x: Array) -> Array:
        """U x + b: (batch, d) to (batch, n)."""
        x = self._inputs(x)
        return affine(x, like(x, self.U), like(x, self.b))

    def readout(self, z: Array) -> Array:
        """W_o z + b_o: (batch, n) to (batch, classes)."""
        return affine(z, like(z, self.readout_weight), like(z, self.readout_bias))

    def solve(self, x: Array, **options: Unpack[SolveOptions]) -> Solution:
        """The equilibrium of every row of x (batch, d); keywords and errors of `mon.equilibrium`."""
        return mon.equilibrium(self.W, self.inject(x), self.activation, **options)

    def logits(self, x: Array, **options: Unpack[SolveOptions]) -> Array:
        """W_o z* + b_o: (batch, d) to (batch, classes)."""
        return self.readout(self.solve(x, **options).z)

    def gradients(self, x: Array, labels: Array, *, inputs: bool = False, **options: Unpack[SolveOptions]) -> Gradients:
        r"""Mean cross-entropy and its gradient, by Theorem 2 and Theorem 3 [MON-Thm2, MON-Thm3].

        Parameters
        ----------
        x : array (batch, d)
        labels : integer array (batch,)
        inputs : bool
            Also give ``grads["x"]``, (batch, d).
        **options
            As in `mon.equilibrium`. The cotangents carry 1/batch, so under stop="certificate" the backward pass is
            certified to ``tol * max_i ||dz_i||``.

        Examples
        --------
        >>> import numpy as np
        >>> network = mon_fc(np.random.default_rng(0), 4, hidden=3, classes=2, dtype=np.float64)
        >>> loss, grads, forward, backward = network.gradients(np.ones((1, 4)), np.array([1]))
        >>> sorted(grads) == sorted(network.params)
        True
        """
        # logits = W_o z + b_o, z = sigma(W z + U x + b): the chain rule, last layer first
        x = self._inputs(x)
        network = self.following(x)
        injection = affine(x, network.U, network.b)
        forward = mon.equilibrium(network.W, injection, network.activation, **options)
        loss, dlogits = cross_entropy(network.readout(forward.z), labels)
        dz, dweight, dbias = affine_vjp(forward.z, network.readout_weight, dlogits)
        hidden, backward = mon.equilibrium_vjp(
            network.W, injection, network.activation, forward.z, dz, **_scaled(options, dz)
        )
        dU, db = affine_vjp_params(x, hidden["injection"])
        grads = {name: hidden[name] for name in network.W.params}
        grads |= {"U": dU, "b": db, "readout_weight": dweight, "readout_bias": dbias}
        if inputs:
            grads["x"] = hidden["injection"] @ network.U
        return Gradients(loss, grads, forward, backward)

    def _inputs(self, x: Array) -> Array:
        x = checked("x", x, 2)
        if x.shape[1] != self.U.shape[1]:
            raise ShapeError(f"x must have shape (batch, {self.U.shape[1]}); got {tuple(x.shape)}.")
        return x


def _scaled(options: SolveOptions, dz: Array) -> SolveOptions:
    if options.get("stop", "certificate") != "certificate":
        return options
    tol = options.get("tol", 1e-6)
    return {**options, "tol": tol * largest(norm(dz)) or tol}


def mon_fc(
    rng: np.random.Generator,
    inputs: int,
    hidden: int = 87,
    classes: int = 10,
    m: float = 1.0,
    activation: Activation = relu,
    dtype: Any = np.float32,
) -> MonNetwork:
    """The initial dense MON of Table D1: every entry uniform in (-1/sqrt(fan_in), 1/sqrt(fan_in)).

    Examples
    --------
    >>> import numpy as np
    >>> network = mon_fc(np.random.default_rng(0), 64, hidden=5)
    >>> network.U.shape, network.U.dtype.name, network.W.m
    ((5, 64), 'float32', 1.0)
    """
    for name, value in (("inputs", inputs), ("hidden", hidden), ("classes", classes)):
        if not isinstance(value, Integral) or value < 1:
            raise HypothesisError(f"{name} must be an integer >= 1; got {value!r}.")

    def uniform(fan_in: int, *shape: int) -> Array:
        return rng.uniform(-1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in), shape).astype(dtype)

    U, b = uniform(inputs, hidden, inputs), uniform(inputs, hidden)
    A, B = uniform(hidden, hidden, hidden), uniform(hidden, hidden, hidden)
    weight, bias = uniform(hidden, classes, hidden), uniform(hidden, classes)
    return MonNetwork(MonotoneDense(A, B, m), U, b, weight, bias, activation)


def mon_network(arrays: Mapping[str, Array], activation: Activation = relu) -> MonNetwork:
    """A dense MON from a mapping with the names U, b, A, B, m, Wout, bout (an open .npz file serves)."""
    missing = [name for name in ("U", "b", "A", "B", "m", "Wout", "bout") if name not in arrays]
    if missing:
        raise HypothesisError(f"arrays must hold U, b, A, B, m, Wout, bout; {', '.join(missing)} missing.")
    m = arrays["m"]
    W = MonotoneDense(arrays["A"], arrays["B"], float(to_numpy(m) if is_array(m) else m))
    return MonNetwork(W, arrays["U"], arrays["b"], arrays["Wout"], arrays["bout"], activation)
