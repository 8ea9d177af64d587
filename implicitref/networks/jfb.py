r"""Fixed point networks: ``y = S(z*)``, ``z* = T(z*; x) = R(z* + Q(x))``, trained by Jacobian-free backpropagation.

Q, R, S are layers; T is R after an addition, so that dT/dz = dR/dw and the features v = Q(x) enter as z does.

Evaluation mode: batch norm by running moments, so that T acts on every sample by itself. Training mode: batch norm by
the moments of the batch, which couple its samples. The batch as a whole is then the one state whose fixed point is
sought, and every gradient rule is applied to that state.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..activations import leaky_relu
from ..arrays import Array, as_number, checked, in_double, is_array, like, namespace, norm, positive, to_numpy
from ..errors import ConvergenceError, HypothesisError, ShapeError
from ..fixed_point import Jacobian, Rule, Solution, iterate, rule_named
from ..fixed_point.theory import clipped, product_bound, spectral_norm
from ..layers import (
    Activate,
    Affine,
    BatchNorm,
    Conv2d,
    Flatten,
    Layer,
    MaxPool,
    Scale,
    Sequential,
    Sum,
    affine,
    conv2d,
    residual,
)
from ..layers.norm import Gather
from ..layers.records import Linearized, gathering
from ..layers.windows import floating, same_shape
from ..losses import cross_entropy

__all__ = ["FixedPointNetwork", "LatentMap", "NetworkMap", "TrainingPass", "jfb_network", "tangent"]

POOL = 3
META = ("gamma", "leaky_slope", "bn_eps")


class TrainingPass(NamedTuple):
    """A training step's yield: loss, logits, gradients, the solve, new running moments, and products with dT/dz'."""

    loss: float
    logits: Array
    grads: dict[str, Array]
    solution: Solution
    statistics: dict[str, Array]
    products: int


@dataclasses.dataclass(frozen=True, eq=False)
class FixedPointNetwork:
    r"""``logits = S(z*)`` with ``z* = R(z* + Q(x))`` [JFB-Eq6, JFB-Eq8].

    Parameters
    ----------
    Q, R, S : layers
        Images to features, latent space to itself, latent space to logits.
    image, state : tuple of int
        Shape of one input, (channels, height, width), and of one latent state.
    bounded : names of matrices
        Those of R that `projected` keeps at ``||W||_2 <= 1``.

    Examples
    --------
    >>> import numpy as np
    >>> from implicitref.networks import jfb_mnist
    >>> net = jfb_mnist(np.random.default_rng(0))
    >>> sum(p.size for p in net.params.values())
    54352
    >>> net.logits(np.zeros((2, 1, 28, 28), dtype=np.float32), tol=1e-3).shape
    (2, 10)
    """

    Q: Sequential
    R: Sequential
    S: Sequential
    image: tuple[int, int, int]
    state: tuple[int, ...]
    bounded: tuple[str, ...] = ()

    @property
    def params(self) -> dict[str, Array]:
        """Every trained array by name."""
        return {**self.Q.params, **self.R.params, **self.S.params}

    @property
    def buffers(self) -> dict[str, Array]:
        """The running moments by name."""
        return {**self.Q.buffers, **self.R.buffers, **self.S.buffers}

    def replace(self, **arrays: Array) -> FixedPointNetwork:
        """The same network with other parameters or running moments, by name."""
        own = {**self.params, **self.buffers}
        if unknown := sorted(set(arrays) - set(own)):
            raise TypeError(f"this network has no array {', '.join(unknown)}; it has {', '.join(own)}.")
        for name, value in arrays.items():
            same_shape(name, value, tuple(own[name].shape))
        parts = {p: {k: v for k, v in arrays.items() if k in getattr(self, p).names} for p in ("Q", "R", "S")}
        return dataclasses.replace(
            self, **{p: getattr(self, p).replace(**found) for p, found in parts.items() if found}
        )

    def projected(self, params: Mapping[str, Array]) -> Mapping[str, Array]:
        """The nearest parameters that the network may have: any, but for the matrices that are `bounded`."""
        return {name: clipped(p) if name in self.bounded else p for name, p in params.items()}

    def following(self, x: Array) -> FixedPointNetwork:
        """The same network with every array in the library and on the device of x."""
        return self.replace(**{name: like(x, value) for name, value in {**self.params, **self.buffers}.items()})

    @property
    def layers(self) -> dict[str, tuple[str, ...]]:
        """The names of the layers of Q, R and S; two networks with equal names and arrays are one but for gamma."""
        return {part: tuple(getattr(self, part).layers) for part in ("Q", "R", "S")}

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return self.image

    @property
    def explicit(self) -> Sequential:
        """The explicit counterpart of the tables, S(R(Q(x))): the fixed point is replaced by one step from 0."""
        return Sequential({"Q": self.Q, "R": self.R, "S": self.S})

    @property
    def T(self) -> NetworkMap:
        """``T(z, x) = R(z + Q(x))``, x the images."""
        return NetworkMap(self)

    @property
    def latent(self) -> LatentMap:
        """``(z, v) -> R(z + v)``, v the features Q(x)."""
        return LatentMap(self.R)

    def data_map(self, x: Array) -> Array:
        """The features Q(x), shaped like states."""
        return self.Q(self.images(x))

    def solve(self, x: Array, *, tol: float = 1e-4, max_iter: int = 1000, acceleration: str | None = None) -> Solution:
        """The fixed point of every image, each until its own ``||T(z) - z||_2 <= tol``; errors of `iterate`."""
        v = self.data_map(x)
        return iterate(self.latent, v, _origin(v), tol=tol, max_iter=max_iter, acceleration=acceleration)

    def logits(self, x: Array, *, tol: float = 1e-4, max_iter: int = 1000, acceleration: str | None = None) -> Array:
        """S(z*): images to (batch, classes), evaluation mode, errors of `iterate`.

        Computed in float64 where the device has it: in float32 rounding moves logits by 1e-5, and sometimes the
        application at which a sample stops, so that an answer would depend on the batch it was computed in.
        """
        z = self.solve(in_double(x), tol=tol, max_iter=max_iter, acceleration=acceleration).z
        return like(x, self.S(z))

    def gradients(
        self, x: Array, labels: Array, rule: Rule | str, *, tol: float = 1e-4, max_iter: int = 1000
    ) -> tuple[dict[str, Array], Solution]:
        r"""Gradient of the mean cross-entropy for every parameter, as the rule has it; evaluation mode [JFB-Eq13].

        Parameters
        ----------
        x : array (batch, *image)
        labels : integer array (batch,)
        rule : function ``(T, z, x, g) -> w``, or its name
            See `implicitref.fixed_point.rules`.
        tol, max_iter
            As in `solve`.

        Raises
        ------
        TypeError, ShapeError, HypothesisError, ConvergenceError

        Examples
        --------
        >>> import numpy as np
        >>> from implicitref.networks import jfb_mnist
        >>> net, x = jfb_mnist(np.random.default_rng(0), (1, 6, 6)), np.ones((1, 1, 6, 6))
        >>> grads, solution = net.gradients(x, np.array([3]), "jfb")
        >>> set(grads) == set(net.params), solution.converged
        (True, array([ True]))
        """
        # y = S(z), z = T(z; v), v = Q(x): g = S' dy, w = (I - K')^-1 g as the rule approximates it, dR = M' w, and
        # since T depends on z + v only, the cotangent of v is K' w
        rule, data = _rule(rule), self.Q.linearize(self.images(x))
        z = (solution := iterate(self.latent, data.y, _origin(data.y), tol=tol, max_iter=max_iter)).z
        readout = self.S.linearize(z)
        g, dS = readout.pull(cross_entropy(readout.y, labels)[1])
        dv, dR = self.R.linearize(z + data.y).pull(rule(self.latent, z, data.y, g))
        return {**data.pull(dv, inputs=False)[1], **dR, **dS}, solution

    def training_pass(
        self,
        x: Array,
        labels: Array,
        rule: Rule | str,
        *,
        tol: float = 1e-1,
        max_iter: int = 50,
        gather: Gather | None = None,
    ) -> TrainingPass:
        r"""The same in training mode, the batch being one state; the readout sees ``T(z)`` [JFB-Eq21].

        With jfb this is backpropagation through ``S(T(z; Q(x)))``, z constant. The iteration stops at
        ``||T(z) - z||_2 <= tol sqrt(batch)`` or, as the papers', after `max_iter` applications: training goes on
        from there, and the residual tells.

        With `gather` the images are one member's part of a batch, see `implicitref.training.team`: moments and
        residuals are those of the whole, loss and gradients this member's terms.

        Raises
        ------
        HypothesisError
            A channel of the batch has a single value, for which batch norm is not defined.
        ConvergenceError
            The iteration diverged, or the rule's did not converge.
        """
        Q, R, S = (part if gather is None else gathering(part, gather) for part in (self.Q, self.R, self.S))
        rule, data = _rule(rule), Q.linearize(self.images(x), training=True)
        T, v = Batch(LatentMap(R, training=True), [], [], gather), data.y[None, ...]
        batch = x.shape[0] if gather is None else int(gather(np.asarray([x.shape[0]])).sum())
        solution = _capped(T, v, positive("tol", tol) * math.sqrt(batch), max_iter)
        body = T.recorded(solution.z, v)
        readout = S.linearize(body.y, training=True)
        loss, dlogits = cross_entropy(readout.y, labels)
        share = x.shape[0] / batch
        g: Any
        g, dS = readout.pull(share * dlogits)
        w = rule(T, solution.z, v, g[None, ...])
        dv, dR = body.pull(w[0, ...])
        grads = {**data.pull(dv, inputs=False)[1], **dR, **dS}
        statistics = {**data.statistics, **body.statistics, **readout.statistics}
        return TrainingPass(share * loss, readout.y, grads, solution, statistics, len(T.products))

    def images(self, x: Array) -> Array:
        """The argument x, refused unless it is (batch, *image)."""
        return _shaped("x", checked("x", x), self.image)


def _shaped(name: str, x: Array, shape: tuple[int, ...]) -> Array:
    if tuple(x.shape[1:]) != shape:
        hint = f" Add the batch axis: {name}[None]." if tuple(x.shape) == shape else ""
        raise ShapeError(f"{name} must have shape (batch, {', '.join(map(str, shape))}); got {tuple(x.shape)}.{hint}")
    if not x.shape[0]:
        raise ShapeError(f"{name} must hold at least one image; got shape {tuple(x.shape)}.")
    return x


def _origin(v: Array) -> Array:
    return namespace(v).zeros_like(v)


def _rule(rule: Any) -> Rule:
    found: Any = rule_named(rule) if isinstance(rule, str) else rule
    if not callable(found):
        raise HypothesisError(f"rule must be a function (T, z, x, g) -> cotangent, or its name; got {rule!r}.")
    return found  # type: ignore[no-any-return]


def _capped(T: Any, v: Array, tol: float, max_iter: int) -> Solution:
    try:
        return iterate(T, v, _origin(v), tol=tol, max_iter=max_iter)
    except ConvergenceError as error:
        solution: Solution = error.solution
        if not float(solution.residuals[-1, 0]) <= float(solution.residuals[0, 0]):  # NaN too
            raise
        return solution


# ------------------------------------------------------------------------------------------------
# The maps


@dataclasses.dataclass(frozen=True, eq=False)
class LatentMap:
    """``T(z, v) = R(z + v)`` on features v; a fixed-point map in the sense of `implicitref.fixed_point.maps`."""

    R: Sequential
    training: bool = False

    @functools.cached_property
    def gamma(self) -> float | None:
        """A proven contraction factor, ``prod ||W||_2 |factor|``, of a chain of dense layers, activations and
        scalings; None for another chain, or where the product is not below 1 [JFB-Asm2.1]."""
        layers = self.R.layers.values()
        if not all(isinstance(layer, (Affine, Activate, Scale)) for layer in layers):
            return None
        norms = (spectral_norm(layer.weight) for layer in layers if isinstance(layer, Affine))
        bound = product_bound(*norms, *(abs(layer.factor) for layer in layers if isinstance(layer, Scale)))
        return bound if bound < 1 else None

    def __call__(self, z: Array, v: Array) -> Array:
        """R(z + v)."""
        return self.R(z + v, training=self.training)

    def linearise(self, z: Array, v: Array) -> Jacobian:
        """K = R'(z + v)."""
        pull = self.R.linearize(z + v, training=self.training).pull
        forward: list[Callable[[Array], Array]] = []

        def matvec(u: Array) -> Array:
            if not forward:  # what only CG on the normal equations needs
                forward.append(tangent(self.R, z + v, training=self.training)[1])
            return forward[0](u)

        return Jacobian(matvec, lambda g: pull(g, params=False)[0])

    def vjp_state(self, z: Array, v: Array, g: Array) -> Array:
        """K' g."""
        return self.linearise(z, v).rmatvec(g)

    def jvp_state(self, z: Array, v: Array, u: Array) -> Array:
        """K u."""
        return self.linearise(z, v).matvec(u)

    def vjp_params(self, z: Array, v: Array, g: Array) -> dict[str, Array]:
        """Gradient of <g, T> for every parameter of R."""
        return self.R.linearize(z + v, training=self.training).pull(g, inputs=False)[1]


@dataclasses.dataclass(frozen=True, eq=False)
class NetworkMap:
    """``T(z, x) = R(z + Q(x))`` in evaluation mode. x may also be the features Q(x): then Q's parameters play no part.

    Raises
    ------
    ShapeError
        z or x has another shape than the network's states, images or features.
    """

    network: FixedPointNetwork

    def __call__(self, z: Array, x: Array) -> Array:
        """R(z + Q(x))."""
        return self.at(x)(z)

    def at(self, x: Array) -> Callable[[Array], Array]:
        """``z -> R(z + v)``, the features v = Q(x) computed once."""
        v, network = self._features(x), self.network
        return lambda z: network.latent(self._state(z, v), v)

    def linearise(self, z: Array, x: Array) -> Jacobian:
        """K = R'(z + Q(x))."""
        v = self._features(x)
        return self.network.latent.linearise(self._state(z, v), v)

    def vjp_state(self, z: Array, x: Array, g: Array) -> Array:
        """K' g."""
        return self.linearise(z, x).rmatvec(g)

    def jvp_state(self, z: Array, x: Array, u: Array) -> Array:
        """K u."""
        return self.linearise(z, x).matvec(u)

    def vjp_params(self, z: Array, x: Array, g: Array) -> dict[str, Array]:
        """Gradient of <g, T> for every parameter of R and, unless x holds features, of Q."""
        v, network = self._features(x), self.network
        dv, grads = network.R.linearize(self._state(z, v) + v).pull(g)
        if self._holds_features(x):
            return grads
        return {**network.Q.linearize(x).pull(dv, inputs=False)[1], **grads}

    def _holds_features(self, x: Array) -> bool:
        return self.network.state != self.network.image and tuple(floating("x", x).shape[1:]) == self.network.state

    def _features(self, x: Array) -> Array:
        return x if self._holds_features(x) else self.network.data_map(x)

    def _state(self, z: Array, v: Array) -> Array:
        return same_shape("z", z, tuple(v.shape))


class Batch(NamedTuple):
    """A map whose samples depend on each other, as a map of one sample: the whole batch, shaped (1, batch, ...).

    `products` gets an entry for every product with K or K'; `last` holds the latest argument and the record of T there.
    """

    T: LatentMap
    products: list[str]
    last: list[tuple[Array, Linearized]]
    gather: Gather | None = None

    def __call__(self, z: Array, v: Array) -> Array:
        """T on the batch."""
        self.last[:] = [(z, self.T.R.linearize(z[0, ...] + v[0, ...], training=self.T.training))]
        return self.last[0][1].y[None, ...]

    def norm(self, u: Array) -> Array:
        """Of the whole batch, where others have parts of it."""
        own = norm(u)
        return own if self.gather is None else like(own, np.sqrt((self.gather(to_numpy(own)) ** 2).sum(axis=0)))

    def recorded(self, z: Array, v: Array) -> Linearized:
        """T at z with its adjoint: the latest application where that was at z, as that of a residual is."""
        if not (self.last and bool(namespace(z).all(self.last[0][0] == z))):
            self(z, v)
        return self.last[0][1]

    def linearise(self, z: Array, v: Array) -> Jacobian:
        """K of the batch."""
        K = self.T.linearise(z[0, ...], v[0, ...])

        def counted(name: str, product: Callable[[Array], Array]) -> Callable[[Array], Array]:
            def apply(u: Array) -> Array:
                self.products.append(name)
                return product(u[0, ...])[None, ...]

            return apply

        return Jacobian(counted("K", K.matvec), counted("K'", K.rmatvec))


def tangent(layer: Layer, x: Array, *, training: bool = False) -> tuple[Array, Callable[[Array], Array]]:
    """The value of a layer at x and its derivative ``u -> f'(x) u``, forward through the chain.

    A convolution or a dense layer is its own derivative without its bias. The derivatives of the other layers of a
    latent space, elementwise functions and batch norm in both modes, are symmetric, so that their adjoints serve.
    """
    if isinstance(layer, Sequential):
        maps = []
        for part in layer.layers.values():
            x, f = tangent(part, x, training=training)
            maps.append(f)
        return x, lambda u: _chain(maps, u)
    if isinstance(layer, Sum):
        parts = [tangent(part, x, training=training) for part in layer.layers.values()]
        return sum(y for y, _ in parts), lambda u: sum(f(u) for _, f in parts)
    if isinstance(layer, Conv2d):
        how: Any = {"stride": layer.stride, "padding": layer.padding, "padding_mode": layer.padding_mode}
        return layer(x), lambda u: conv2d(u, like(u, layer.weight), **how)
    if isinstance(layer, Affine):
        return layer(x), lambda u: affine(u, like(u, layer.weight))
    if not isinstance(layer, (Activate, BatchNorm, Scale)):
        raise HypothesisError(f"a latent space must be made of shape-keeping layers; got {type(layer).__name__}.")
    y, pull, _ = layer.linearize(x, training=training)
    return y, lambda u: pull(u, params=False)[0]


def _chain(maps: list[Callable[[Array], Array]], u: Array) -> Array:
    for f in maps:
        u = f(u)
    return u


# ------------------------------------------------------------------------------------------------
# The network on MNIST


def assemble(
    arrays: Mapping[str, Array],
    *,
    blocks: int,
    gamma: float,
    slope: float,
    eps: float,
    pool: int,
    side: tuple[int, int],
) -> FixedPointNetwork:
    r"""The network on MNIST from arrays by name: two convolutions as Q, residual blocks as R, one convolution as S.

    ``w_0 = z + v``, ``w_i = BN_i(w_(i-1) + leaky(leaky(conv(leaky(conv(w_(i-1)))))))``, ``R = gamma w_blocks``, without
    BN_i where `arrays` has none.
    """
    act = Activate(leaky_relu(slope))

    def conv(name: str, padding: int = 1) -> Conv2d:
        return Conv2d(arrays[f"{name}.weight"], arrays[f"{name}.bias"], padding=padding)

    def bn(name: str) -> BatchNorm:
        mean, var = (arrays[f"{name}.{field}"] for field in ("running_mean", "running_var"))
        return BatchNorm(mean, var, arrays.get(f"{name}.weight"), arrays.get(f"{name}.bias"), eps=eps)

    features: dict[str, Layer] = {"conv_d1": conv("conv_d1"), "bn_1": bn("bn_1"), "act_1": act, "pool": MaxPool(pool)}
    features |= {"conv_d2": conv("conv_d2"), "bn_2": bn("bn_2"), "act_2": act}
    latent: dict[str, Layer] = {}
    for i in range(blocks):
        name = f"latent_convs.{i}"
        latent[name] = double_convolution(conv(f"{name}.0"), conv(f"{name}.3"), slope)
        if f"lat_batch_norm.{i}.running_mean" in arrays:
            latent[f"lat_batch_norm.{i}"] = bn(f"lat_batch_norm.{i}")
    readout: dict[str, Layer] = {
        "conv_y": conv("conv_y", 0),
        "act_y": act,
        "flatten": Flatten(),
        "fc_y": Affine(arrays["fc_y.weight"]),
    }
    state = arrays["conv_d2.weight"].shape[0], side[0] // pool, side[1] // pool
    image = arrays["conv_d1.weight"].shape[1], *side
    return FixedPointNetwork(
        Sequential(features), Sequential({**latent, "gamma": Scale(gamma)}), Sequential(readout), image, state
    )


def double_convolution(first: Conv2d, second: Conv2d, slope: float) -> Sum:
    """``w + leaky(leaky(conv(leaky(conv w))))``, the last two as one leaky relu with the slope squared."""
    body: dict[str, Layer] = {
        "0": first,
        "1": Activate(leaky_relu(slope)),
        "3": second,
        "4": Activate(leaky_relu(slope**2)),
    }
    return residual(Sequential(body))


def jfb_network(arrays: Mapping[str, Array]) -> FixedPointNetwork:
    r"""The network on 28 x 28 images of the paper's authors, from the arrays of its state dict [JFB-Tab1].

    Q = conv, bn, leaky relu, max pooling 3, conv, bn, leaky relu; see `assemble` for R; S = conv, leaky relu, dense.

    Parameters
    ----------
    arrays : mapping from name to array
        ``conv_d1``, ``conv_d2``, ``latent_convs.i.0``, ``latent_convs.i.3``, ``conv_y`` (weight and bias), ``fc_y``
        (weight), ``bn_1``, ``bn_2`` (weight, bias, running_mean, running_var), ``lat_batch_norm.i`` (running_mean,
        running_var, or none), and ``__meta__.gamma``, ``__meta__.leaky_slope``, ``__meta__.bn_eps``. An open .npz
        file serves; other names are passed over.

    Raises
    ------
    TypeError, ShapeError, HypothesisError
        Something is missing, is no array, or has a shape that does not fit; the message names it.
    """
    found = _given(arrays)
    blocks = _blocks(found)
    shapes = _shapes(found, blocks)
    if missing := [name for name in shapes if name not in found]:
        raise HypothesisError(f"arrays must have the names of a JFB network on MNIST; missing: {', '.join(missing)}.")
    for name, shape in shapes.items():
        if shape is not None and tuple(checked(name, found[name]).shape) != shape:
            raise ShapeError(f"{name} must have shape {shape}; got {tuple(found[name].shape)}.")
    meta = {name: _number(found, f"__meta__.{name}") for name in META}
    return assemble(
        found, blocks=blocks, gamma=meta["gamma"], slope=meta["leaky_slope"], eps=meta["bn_eps"], pool=POOL,
        side=(28, 28),
    )  # fmt: skip


def _given(arrays: Any) -> dict[str, Array]:
    if not isinstance(arrays, Mapping):
        raise TypeError(f"arrays must be a mapping from names to arrays; got {type(arrays).__name__}.")
    return {name: arrays[name] for name in arrays if not name.endswith("num_batches_tracked")}


def _blocks(arrays: Mapping[str, Array]) -> int:
    numbers = {int(name.split(".")[1]) for name in arrays if name.startswith("latent_convs.")}
    return max(numbers) + 1 if numbers else 1


def _number(arrays: Mapping[str, Array], name: str) -> float:
    value = arrays[name]
    number = as_number(to_numpy(value).item() if is_array(value) and math.prod(value.shape) == 1 else value)
    if number is None:
        raise HypothesisError(f"{name} must be a number; got {value!r}.")
    return number


def _channels(arrays: Mapping[str, Array], name: str, default: int) -> int:
    weight: Any = arrays.get(f"{name}.weight")
    return int(weight.shape[0]) if is_array(weight) and weight.ndim == 4 else default


def _shapes(arrays: Mapping[str, Array], blocks: int) -> dict[str, tuple[int, ...] | None]:
    """The shape that every array must have, given how many filters the convolutions have; None for the numbers."""
    first, latent, last = (_channels(arrays, name, n) for name, n in (("conv_d1", 16), ("conv_d2", 32), ("conv_y", 16)))
    shapes = {**_conv_shapes("conv_d1", first, 1), **_conv_shapes("conv_d2", latent, first)}
    shapes |= {**_norm_shapes("bn_1", first), **_norm_shapes("bn_2", latent)}
    for i in range(blocks):
        shapes |= {k: v for j in (0, 3) for k, v in _conv_shapes(f"latent_convs.{i}.{j}", latent, latent).items()}
        if any(name.startswith("lat_batch_norm.") for name in arrays):
            shapes |= dict.fromkeys((f"lat_batch_norm.{i}.running_mean", f"lat_batch_norm.{i}.running_var"), (latent,))
    shapes |= _conv_shapes("conv_y", last, latent)
    classes = arrays["fc_y.weight"].shape[0] if is_array(arrays.get("fc_y.weight")) else 10
    shapes["fc_y.weight"] = (classes, last * (28 // POOL - 2) ** 2)
    return {**shapes, **dict.fromkeys(f"__meta__.{name}" for name in META)}


def _conv_shapes(name: str, out: int, channels: int) -> dict[str, tuple[int, ...] | None]:
    return {f"{name}.weight": (out, channels, 3, 3), f"{name}.bias": (out,)}


def _norm_shapes(name: str, channels: int) -> dict[str, tuple[int, ...] | None]:
    return dict.fromkeys((f"{name}.{f}" for f in ("weight", "bias", "running_mean", "running_var")), (channels,))
