r"""The MONs of Table D1: ``z* = sigma(W z* + U x + b)``, a dense layer on features of z*, the mean cross-entropy."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple, TypedDict, Unpack

from .. import mon
from ..activations import Activation, relu
from ..arrays import Array, checked, count, is_array, largest, like, mapped, namespace, norm, owned, quiet, to_numpy
from ..errors import HypothesisError, ShapeError
from ..layers import affine, affine_vjp
from ..losses import count_correct, cross_entropy
from ..operators import MonotoneDense
from ..splitting import Solution
from .ends import ROWS, Images, Rows

__all__ = ["Accumulated", "Gradients", "MonNetwork", "SolveOptions", "mon_network"]

OUTSIDE_W = ("U", "b", "readout_weight", "readout_bias")
SCALES, SMALLEST = ("g", "gs"), 1e-6  # of appendix D.2, > 0 where a root is taken


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


class Accumulated(NamedTuple):
    """The sums over the parts of a batch: what a training step needs of two solves, none of whose states is kept."""

    loss: float
    grads: dict[str, Array]
    correct: int
    forward_iterations: int
    backward_iterations: int
    certified_error: float | None


@dataclasses.dataclass(frozen=True, eq=False)
class MonNetwork:
    r"""A MON: ``z* = sigma(W z* + U x + b)`` and ``logits = W_o features(z*) + b_o`` [MON-Eq1, MON-AppD.1-readout].

    Parameters
    ----------
    W : operator of implicitref.operators
    U : array (n, d), or kernels (n_1, c, 3, 3) with ends of images
    b : array (n,) or (n_1,)
    readout_weight : array (classes, features)
    readout_bias : array (classes,)
    activation : Activation or ZeroBorder
    ends : `ends.Rows` or `ends.Images`
        How inputs enter the state and which features leave it.

    Raises
    ------
    ShapeError, HypothesisError

    Examples
    --------
    >>> import numpy as np
    >>> from implicitref.networks import mon_fc
    >>> network = mon_fc(np.random.default_rng(0), 784)
    >>> sum(p.size for p in network.params.values())       # Table D1
    84313
    >>> network.logits(np.zeros((2, 784), dtype=np.float32), tol=1e-3).shape
    (2, 10)
    """

    W: Any
    U: Array
    b: Array
    readout_weight: Array
    readout_bias: Array
    activation: Any = relu
    ends: Rows | Images = ROWS

    def __post_init__(self) -> None:
        weight = checked("readout_weight", self.readout_weight, 2)
        wanted = self.ends.shapes(self.W, checked("U", self.U).shape[-1])
        wanted["readout_weight"] = weight.shape[0], math.prod(wanted.pop("features"))
        wanted["readout_bias"] = (weight.shape[0],)
        for name, shape in wanted.items():
            value = checked(name, getattr(self, name))
            if tuple(value.shape) != shape:
                n = " x ".join(map(str, self.W.state_shape))
                raise ShapeError(f"{name} must have shape {shape}, since states are {n}; got {tuple(value.shape)}.")
            object.__setattr__(self, name, value)

    @property
    def params(self) -> dict[str, Array]:
        """Every trained array by name, those of tier i as ``A.i``; m is not trained."""
        return {**_flat(self.W.params), **{name: getattr(self, name) for name in OUTSIDE_W}}

    def replace(self, **params: Array) -> MonNetwork:
        """The same network with other parameters, by the names of `params`."""
        unknown = sorted(set(params) - set(self.params))
        if unknown:
            raise TypeError(f"this network has no parameter {', '.join(unknown)}; it has {', '.join(self.params)}.")
        outside = {name: params.pop(name) for name in OUTSIDE_W if name in params}
        W = self.W.replace(**_nested(params, self.W.params)) if params else self.W
        return dataclasses.replace(self, W=W, **outside)

    def projected(self, params: Mapping[str, Array]) -> dict[str, Array]:
        """The nearest parameters that the network may have: the scales g, gs are >= 1e-6 [MON-AppD.2-weightnorm]."""

        def at_least(p: Array) -> Array:
            return namespace(p).maximum(p, like(p, SMALLEST))

        return {name: at_least(p) if name.split(".")[0] in SCALES else p for name, p in params.items()}

    def following(self, x: Array) -> MonNetwork:
        """The network with the library, device and dtype of `x`; itself where they agree already."""
        moved = {name: like(x, p) for name, p in self.params.items()}
        return self if all(moved[name] is p for name, p in self.params.items()) else self.replace(**moved)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, (d,) or (channels, height, width)."""
        return self.ends.input_shape(self.U)

    def inject(self, x: Array) -> Array:
        """U x + b: inputs (batch, *input_shape) to states."""
        x = self._inputs(x)
        return self.ends.inject(self.W, x, like(x, self.U), like(x, self.b))

    def readout(self, z: Array) -> Array:
        """W_o features(z) + b_o: states to (batch, classes)."""
        return affine(self.ends.features(self.W, z), like(z, self.readout_weight), like(z, self.readout_bias))

    def solve(self, x: Array, **options: Unpack[SolveOptions]) -> Solution:
        """The equilibrium of every input; keywords and errors of `mon.equilibrium`."""
        return mon.equilibrium(self.W, self.inject(x), self.activation, **options)

    def logits(self, x: Array, **options: Unpack[SolveOptions]) -> Array:
        """W_o features(z*) + b_o: inputs to (batch, classes)."""
        return self.readout(self.solve(x, **options).z)

    def gradients(self, x: Array, labels: Array, *, inputs: bool = False, **options: Unpack[SolveOptions]) -> Gradients:
        r"""Mean cross-entropy and its gradient, by Theorem 2 and Theorem 3 [MON-Thm2, MON-Thm3].

        Parameters
        ----------
        x : array (batch, *input_shape)
        labels : integer array (batch,)
        inputs : bool
            Also give ``grads["x"]``, like x.
        **options
            As in `mon.equilibrium`. The cotangents carry 1/batch, so under stop="certificate" the backward pass is
            certified to ``tol * max_i ||dz_i||``.

        Examples
        --------
        >>> import numpy as np
        >>> from implicitref.networks import mon_fc
        >>> network = mon_fc(np.random.default_rng(0), 4, hidden=3, classes=2, dtype=np.float64)
        >>> loss, grads, forward, backward = network.gradients(np.ones((1, 4)), np.array([1]))
        >>> sorted(grads) == sorted(network.params)
        True
        """
        # logits = W_o features(z) + b_o, z = sigma(W z + U x + b): the chain rule, last layer first
        network, x = self._alongside(x)
        forward = network._settled(x, options)
        loss, _, grads, dz = network._above(forward.z, labels)
        backward = network._adjoint(network._jacobian(forward), dz, options)
        grads |= _flat(network.W.vjp(forward.z, backward.z)) | network._below(x, backward.z)
        if inputs:
            grads["x"] = network.ends.inject_vjp(network.W, network.U, backward.z)
        return Gradients(loss, grads, forward, backward)

    def accumulate(
        self,
        x: Array,
        labels: Array,
        parts: int,
        *,
        workers: int = 1,
        certify: bool = False,
        **options: Unpack[SolveOptions],
    ) -> Accumulated:
        r"""`gradients` of a batch that is solved in `parts`: of each nothing is kept but sums over its samples.

        Parameters
        ----------
        x, labels
            As in `gradients`.
        parts : int, >= 1
        workers : int
            Parts that are solved at a time, each in a thread; the result does not depend on it.
        certify : bool
            Also give the largest certified error.
        """
        (network, x), found, sums = self._alongside(x), list[Accumulated](), list[Array]()
        batch, workers = x.shape[0], count("workers", workers)
        size = max(1, -(-batch // count("parts", parts)))

        def solved(i: int) -> tuple[Accumulated, list[Array]]:
            part, share = slice(i, i + size), min(size, batch - i) / max(1, batch)
            with quiet():  # which threads do not inherit
                terms, z, dpre = network._part(x[part, ...], labels[part], share, certify, options)
                return terms, [*network.W.correlate(z, dpre)]

        for terms, correlations in mapped(solved, range(0, max(1, batch), size), workers):
            found, sums = [*found, terms], _onto(sums, correlations)
        total: Accumulated = functools.reduce(_added, found)
        return total._replace(grads=total.grads | _flat(network.W.vjp_from(sums)))

    def _part(
        self, x: Array, labels: Array, share: float, certify: bool, options: SolveOptions
    ) -> tuple[Accumulated, Array, Array]:
        # one after the other each array of the size of a state goes as soon as it has served
        forward = self._settled(x, options)
        z, jac, steps = forward.z, self._jacobian(forward), forward.iterations
        error = largest(forward.bound) if certify else None
        del forward
        loss, correct, grads, dz = self._above(z, labels, share)
        backward = self._adjoint(jac, dz, options)
        dpre, back_steps = backward.z, backward.iterations
        del backward, jac, dz
        return Accumulated(loss, grads | self._below(x, dpre), correct, steps, back_steps, error), z, dpre

    def _alongside(self, x: Array) -> tuple[MonNetwork, Array]:
        x = self._inputs(x)
        return self.following(x), x

    def _settled(self, x: Array, options: SolveOptions) -> Solution:
        injection = owned(self.ends.inject(self.W, x, self.U, self.b), self.W.memory)  # which no solve copies again
        start = self.start(injection, options.get("alpha"))
        return mon.equilibrium(self.W, injection, self.activation, start=start, **options)

    def _above(self, z: Array, labels: Array, share: float = 1.0) -> tuple[float, int, dict[str, Array], Array]:
        # the loss, times the share of these samples in the batch, how many are right, gradients by readout and by z
        features = self.ends.features(self.W, z)
        logits = affine(features, self.readout_weight, self.readout_bias)
        loss, dlogits = cross_entropy(logits, labels)
        dfeatures, dweight, dbias = affine_vjp(features, self.readout_weight, share * dlogits)
        dz = owned(self.ends.features_vjp(self.W, dfeatures), self.W.memory)
        return share * loss, count_correct(logits, labels), {"readout_weight": dweight, "readout_bias": dbias}, dz

    def _jacobian(self, forward: Solution) -> Array:
        # at the pre-activation w of the forward solve, sigma(w) = z: the product W z is not needed
        return owned(self.activation.derivative(self.activation.root(forward.u, forward.alpha)), self.W.memory)

    def _adjoint(self, jac: Array, dz: Array, options: SolveOptions) -> Solution:
        return mon.adjoint(self.W, jac, dz, **_scaled(options, dz))

    def _below(self, x: Array, dpre: Array) -> dict[str, Array]:
        dU, db = self.ends.inject_vjp_params(self.W, x, dpre)
        return {"U": dU, "b": db}

    def start(self, injection: Array, alpha: float | None) -> Array | None:
        """Where an iteration with that step may start: the u that would be the solution if W z were 0.

        None, which is 0, for dense networks, where an iteration costs less than the passes over this formula.
        """
        # u* = z* + alpha (w* - z*) with the pre-activation w* = W z* + injection
        if self.ends is ROWS or alpha is None:
            return None
        z = self.activation(injection)
        return z + alpha * (injection - z)

    def _inputs(self, x: Array) -> Array:
        x = checked("x", x)
        if tuple(x.shape[1:]) != self.input_shape or x.ndim != len(self.input_shape) + 1:
            wanted = ", ".join(map(str, self.input_shape))
            raise ShapeError(f"x must have shape (batch, {wanted}); got {tuple(x.shape)}.")
        return x


def _added(a: Accumulated, b: Accumulated) -> Accumulated:
    """What two parts of a batch give together."""
    return Accumulated(
        loss=a.loss + b.loss,
        grads={name: a.grads[name] + b.grads[name] for name in a.grads},
        correct=a.correct + b.correct,
        forward_iterations=max(a.forward_iterations, b.forward_iterations),
        backward_iterations=max(a.backward_iterations, b.backward_iterations),
        certified_error=max((e for e in (a.certified_error, b.certified_error) if e is not None), default=None),
    )


def _onto(sums: list[Array], terms: list[Array]) -> list[Array]:
    """The sums, arrays that nobody else holds, with the terms added one by one; the terms where there are none yet."""
    if not sums:
        return terms
    for i, term in enumerate(terms):
        sums[i] += term
    return sums


def _flat(params: Mapping[str, Any]) -> dict[str, Array]:
    """Lists of parameters entry by entry, as ``name.i``."""
    flat: dict[str, Array] = {}
    for name, value in params.items():
        flat |= {f"{name}.{i}": p for i, p in enumerate(value)} if isinstance(value, list | tuple) else {name: value}
    return flat


def _nested(flat: Mapping[str, Array], old: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `_flat`: whole lists, what `flat` does not name from `old`."""
    return {
        name: [flat.get(f"{name}.{i}", p) for i, p in enumerate(value)]
        if isinstance(value, list | tuple)
        else flat.get(name, value)
        for name, value in old.items()
    }


def _scaled(options: SolveOptions, dz: Array) -> SolveOptions:
    if options.get("stop", "certificate") != "certificate":
        return options
    tol = options.get("tol", 1e-6)
    return {**options, "tol": tol * largest(norm(dz)) or tol}


def mon_network(arrays: Mapping[str, Array], activation: Activation = relu) -> MonNetwork:
    """A dense MON from a mapping with the names U, b, A, B, m, Wout, bout (an open .npz file serves)."""
    missing = [name for name in ("U", "b", "A", "B", "m", "Wout", "bout") if name not in arrays]
    if missing:
        raise HypothesisError(f"arrays must hold U, b, A, B, m, Wout, bout; {', '.join(missing)} missing.")
    m = arrays["m"]
    W = MonotoneDense(arrays["A"], arrays["B"], float(to_numpy(m) if is_array(m) else m))
    return MonNetwork(W, arrays["U"], arrays["b"], arrays["Wout"], arrays["bout"], activation)
