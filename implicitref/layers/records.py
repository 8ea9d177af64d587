r"""Layers as data: frozen records of arrays that compose, each with a forward pass that returns its own adjoint.

``y, pull, statistics = layer.linearize(x)`` runs forward once; ``dx, grads = pull(dy)`` runs backward once, for any
number of cotangents. Names are dotted, as in a state dict: ``Sequential({"fc": Affine(...)})`` has ``fc.weight``.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

from ..activations import Activation, ZeroBorder, relu
from ..arrays import Array, alongside, as_number, checked, largest, like, owned
from ..errors import HypothesisError, ShapeError
from . import conv, norm, pool, rearrange
from .affine import affine, affine_vjp_params
from .windows import Pair, floating, pair, same_shape

__all__ = [
    "Activate",
    "Affine",
    "AveragePool",
    "BatchNorm",
    "Conv2d",
    "Dropout",
    "Flatten",
    "GlobalAveragePool",
    "Layer",
    "Linearized",
    "MaxPool",
    "Pad",
    "Scale",
    "Sequential",
    "Shortcut",
    "Sum",
    "basic_block",
    "residual",
]

Arrays = dict[str, Array]


class Pull(Protocol):
    """The adjoint of a layer at a point: dy to dx and the gradients of its parameters."""

    def __call__(self, dy: Array, *, inputs: bool = True, params: bool = True) -> tuple[Array | None, Arrays]:
        """dx (None without `inputs`) and the gradients by the names of `params` (empty without `params`)."""


class Linearized(NamedTuple):
    """A forward pass: the value, the adjoint there, and in training mode the new running statistics by name."""

    y: Array
    pull: Pull
    statistics: Arrays


class Layer(Protocol):
    """What every record of this module offers."""

    @property
    def params(self) -> Arrays:
        """The trained arrays by name."""

    @property
    def buffers(self) -> Arrays:
        """The other arrays by name: running statistics, masks."""

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that `replace` knows."""

    def replace(self, **arrays: Array) -> Any:
        """The same layer with other parameters or buffers, by name."""

    def linearize(self, x: Array, *, training: bool = False) -> Linearized:
        """The value at x and the adjoint there."""

    def __call__(self, x: Array, *, training: bool = False) -> Array:
        """The value at x."""


# ------------------------------------------------------------------------------------------------
# The methods that records share; a class lists the names of its arrays in TRAINED and KEPT


def _value(layer: Layer, x: Array, *, training: bool = False) -> Array:
    """The value at x; `training` as in `linearize`."""
    return layer.linearize(x, training=training).y


def _listed(layer: Any, role: str) -> tuple[str, ...]:
    return getattr(layer, role, ())


def _given(layer: Any, names: tuple[str, ...]) -> Arrays:
    return {name: getattr(layer, name) for name in names if getattr(layer, name) is not None}


def _params(layer: Any) -> Arrays:
    """The trained arrays by name."""
    return _given(layer, _listed(layer, "TRAINED"))


def _buffers(layer: Any) -> Arrays:
    """The arrays that are kept, not trained, by name."""
    return _given(layer, _listed(layer, "KEPT"))


def _names(layer: Any) -> tuple[str, ...]:
    """Every name that `replace` knows."""
    return (*_listed(layer, "TRAINED"), *_listed(layer, "KEPT"))


def _refuse_unknown(layer: Layer, arrays: Mapping[str, Array]) -> None:
    unknown = sorted(set(arrays) - set(layer.names))
    if unknown:
        known = ", ".join(layer.names) or "none"
        raise TypeError(f"this {type(layer).__name__} has no array {', '.join(unknown)}; it has {known}.")


def _replace(layer: Any, **arrays: Array) -> Any:
    """The same layer with other arrays, by name."""
    _refuse_unknown(layer, arrays)
    return dataclasses.replace(layer, **arrays) if arrays else layer


def _set(layer: Any, **values: Any) -> None:
    for name, value in values.items():
        object.__setattr__(layer, name, value)


def _own(layer: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
    # copies of the arrays that were given, checked, all with the dtype and device of the first
    first = None
    for name, shape in shapes.items():
        if (value := getattr(layer, name)) is not None:
            value = same_shape(name, checked(name, value), shape)
            first = value if first is None else first
            _set(layer, **{name: owned(alongside(name, value, first))})


def _linearized(y: Array, vjp: Callable[[Array, bool, bool], tuple[Any, Arrays]]) -> Linearized:
    def pull(dy: Array, *, inputs: bool = True, params: bool = True) -> tuple[Array | None, Arrays]:
        return vjp(same_shape("dy", dy, tuple(y.shape)), inputs, params)

    return Linearized(y, pull, {})


def _without_params(y: Array, vjp: Callable[[Array], Array]) -> Linearized:
    return _linearized(y, lambda dy, inputs, params: (vjp(dy) if inputs else None, {}))


# ------------------------------------------------------------------------------------------------
# Layers with parameters


@dataclasses.dataclass(frozen=True, eq=False)
class Affine:
    """``weight x + bias`` for every row: (batch, d) to (batch, n).

    Parameters
    ----------
    weight : array (n, d)
    bias : array (n,), optional

    Examples
    --------
    >>> import numpy as np
    >>> y, pull, _ = Affine(np.array([[3.0, 4.0]])).linearize(np.array([[1.0, 2.0]]))
    >>> y, pull(np.array([[1.0]]))
    (array([[11.]]), (array([[3., 4.]]), {'weight': array([[1., 2.]])}))
    """

    weight: Array
    bias: Array | None = None
    TRAINED: ClassVar = ("weight", "bias")
    params, buffers, names = property(_params), property(_buffers), property(_names)
    replace, __call__ = _replace, _value

    def __post_init__(self) -> None:
        rows, columns = checked("weight", self.weight, 2).shape
        _own(self, {"weight": (rows, columns), "bias": (rows,)})

    def linearize(self, x: Array, *, training: bool = False) -> Linearized:
        """The value and its adjoint; both modes are the same."""
        weight, bias = _following(self, floating("x", x))

        def vjp(dy: Array, inputs: bool, params: bool) -> tuple[Array | None, Arrays]:
            grads = affine_vjp_params(x, dy) if params else ()
            return dy @ weight if inputs else None, _by_name(("weight", "bias"), grads, self)

        return _linearized(affine(x, weight, bias), vjp)


@dataclasses.dataclass(frozen=True, eq=False)
class Conv2d:
    """`conv2d` with its weight and bias: (batch, c, h, w) to (batch, out, h', w').

    Parameters
    ----------
    weight : array (out, c, kh, kw)
    bias : array (out,), optional
    stride, padding : int or (int, int)
    padding_mode : "zeros" or "circular"

    Examples
    --------
    >>> import numpy as np
    >>> Conv2d(np.ones((1, 1, 3, 3)), padding=1)(np.ones((1, 1, 2, 2)))
    array([[[[4., 4.],
             [4., 4.]]]])
    """

    weight: Array
    bias: Array | None = None
    stride: int | Pair = 1
    padding: int | Pair = 0
    padding_mode: str = "zeros"
    TRAINED: ClassVar = ("weight", "bias")
    params, buffers, names = property(_params), property(_buffers), property(_names)
    replace, __call__ = _replace, _value

    def __post_init__(self) -> None:
        shape = tuple(checked("weight", self.weight, 4).shape)
        _own(self, {"weight": shape, "bias": shape[:1]})
        stride, padding = pair("stride", self.stride, 1), pair("padding", self.padding, 0)
        _set(self, stride=stride, padding=padding)
        conv.known_mode(self.padding_mode)

    def linearize(self, x: Array, *, training: bool = False) -> Linearized:
        """The value and its adjoint; both modes are the same."""
        weight, bias = _following(self, floating("x", x))
        how: dict[str, Any] = {"stride": self.stride, "padding": self.padding, "padding_mode": self.padding_mode}

        def vjp(dy: Array, inputs: bool, params: bool) -> tuple[Array | None, Arrays]:
            if inputs and params:
                dx, *grads = conv.conv2d_vjps(x, weight, dy, **how)
            else:
                dx = conv.conv2d_vjp(x.shape, weight, dy, **how) if inputs else None
                grads = [*conv.conv2d_vjp_params(x, weight.shape[2:], dy, **how)] if params else []
            return dx, _by_name(("weight", "bias"), grads, self)

        return _linearized(conv.conv2d(x, weight, bias, **how), vjp)


@dataclasses.dataclass(frozen=True, eq=False)
class BatchNorm:
    r"""`batch_norm` of (batch, c) or (batch, c, h, w), by the moments of the batch or by the running ones.

    In training mode ``linearize`` gives the next running moments as ``statistics``; nothing is changed in place.

    Parameters
    ----------
    running_mean, running_var : array (c,)
        0 and 1 before training; the variance is >= 0.
    weight, bias : array (c,), optional
        Both or neither.
    eps, momentum : float
        eps > 0; the share of the batch in the next running moments, in [0, 1].
    gather : function, optional
        In training mode x is one part of a batch whose moments are sought, see `implicitref.training.team`.

    Raises
    ------
    TypeError, ShapeError, HypothesisError

    Examples
    --------
    >>> import numpy as np
    >>> layer = BatchNorm(np.zeros(1), np.ones(1), eps=1e-9)
    >>> y, pull, statistics = layer.linearize(np.array([[1.0], [3.0]]), training=True)
    >>> y[:, 0], layer.replace(**statistics).running_mean
    (array([-1.,  1.]), array([0.2]))
    """

    running_mean: Array
    running_var: Array
    weight: Array | None = None
    bias: Array | None = None
    eps: float = 1e-5
    momentum: float = 0.1
    gather: norm.Gather | None = dataclasses.field(default=None, repr=False)
    TRAINED: ClassVar = ("weight", "bias")
    KEPT: ClassVar = ("running_mean", "running_var")
    params, buffers, names = property(_params), property(_buffers), property(_names)
    replace, __call__ = _replace, _value

    def __post_init__(self) -> None:
        shape = tuple(checked("running_mean", self.running_mean, 1).shape)
        checked("running_var", self.running_var, 1)  # the two others may be None
        _own(self, dict.fromkeys(("running_mean", "running_var", "weight", "bias"), shape))
        _check_batch_norm(self)

    def linearize(self, x: Array, *, training: bool = False) -> Linearized:
        """The value and its adjoint; with `training` through the moments of the batch."""
        x = norm.channelled(x, self.running_mean.shape[0])
        mean, var, weight, bias = (None if p is None else like(x, p) for p in self._arrays())
        backward, statistics = norm.batch_norm_vjp, dict[str, Array]()
        if training:
            running = mean, var
            backward = functools.partial(norm.batch_norm_through_moments_vjp, gather=self.gather)
            y, mean, var, count = norm.normalised(x, weight, bias, eps=self.eps, gather=self.gather)
            after = norm.running_moments(running, (mean, var), count, self.momentum)
            statistics = dict(zip(self.KEPT, after, strict=True))
        else:
            y = norm.batch_norm(x, mean, var, weight, bias, eps=self.eps)

        def vjp(dy: Array, inputs: bool, params: bool) -> tuple[Array | None, Arrays]:
            dx, *grads = backward(x, mean, var, weight, dy, eps=self.eps)
            return dx if inputs else None, _by_name(self.TRAINED, grads if params else (), self)

        return _linearized(y, vjp)._replace(statistics=statistics)

    def _arrays(self) -> Iterator[Array | None]:
        return (getattr(self, name) for name in (*self.KEPT, *self.TRAINED))


def _check_batch_norm(layer: BatchNorm) -> None:
    if (layer.weight is None) != (layer.bias is None):
        missing = "bias" if layer.bias is None else "weight"
        raise HypothesisError(f"weight and bias must be given both or neither; {missing} is None.")
    smallest = -largest(-layer.running_var)
    if smallest < 0:
        raise HypothesisError(f"running_var must be >= 0; its smallest entry is {smallest:g}.")
    eps, momentum = as_number(layer.eps), as_number(layer.momentum)
    if eps is None or not eps > 0:
        raise HypothesisError(f"eps must be a number > 0; got {layer.eps!r}.")
    if momentum is None or not 0 <= momentum <= 1:
        raise HypothesisError(f"momentum must lie in [0, 1]; got {layer.momentum!r}.")


def _following(layer: Affine | Conv2d, x: Array) -> tuple[Array, Array | None]:
    return like(x, layer.weight), None if layer.bias is None else like(x, layer.bias)


def _by_name(names: tuple[str, ...], grads: Any, layer: Any) -> Arrays:
    # the gradients of the parameters that the layer has
    return {name: grad for name, grad in zip(names, grads, strict=False) if getattr(layer, name) is not None}


# ------------------------------------------------------------------------------------------------
# Layers without parameters


@dataclasses.dataclass(frozen=True, eq=False)
class Activate:
    """An activation of `implicitref.activations`, with its Clarke derivative as adjoint.

    Examples
    --------
    >>> import numpy as np
    >>> Activate(relu)(np.array([[-1.0, 2.0]]))
    array([[0., 2.]])
    """

    activation: Activation | ZeroBorder
    params, buffers, names = property(_params), property(_buffers), property(_names)
    replace, __call__ = _replace, _value

    def __post_init__(self) -> None:
        if not isinstance(self.activation, (Activation, ZeroBorder)):
            raise HypothesisError(f"activation must be one of implicitref.activations; got {self.activation!r}.")

    def linearize(self, x: Array, *, training: bool = False) -> Linearized:
        """The value and its adjoint; both modes are the same."""
        return _without_params(self.activation(x), lambda dy: dy * self.activation.derivative(x))


@dataclasses.dataclass(frozen=True, eq=False)
class Scale:
    """``factor x``, with a factor that is not trained.

    Examples
    --------
    >>> import numpy as np
    >>> Scale(0.5)(np.array([[1.0, 2.0]]))
    array([[0.5, 1. ]])
    """

    factor: float
    params, buffers, names = property(_params), property(_buffers), property(_names)
    replace, __call__ = _replace, _value

    def __post_init__(self) -> None:
        _set(self, factor=_finite("factor", self.factor))

    def linearize(self, x: Array, *, training: bool = False) -> Linearized:
        """The value and its adjoint; both modes are the same."""
        return _without_params(self.factor * floating("x", x), lambda dy: self.factor * dy)


def _finite(name: str, value: Any) -> float:
    number = as_number(value)
    if number is None or number - number != 0:
        raise HypothesisError(f"{name} must be a finite number; got {value!r}.")
    return number


@dataclasses.dataclass(frozen=True, eq=False)
class MaxPool:
    """`max_pool` with its kernel and stride (the kernel if left out).

    Examples
    --------
    >>> import numpy as np
    >>> MaxPool(3)(np.ones((1, 1, 28, 28))).shape
    (1, 1, 9, 9)
    """

    kernel: int | Pair
    stride: int | Pair | None = None
    params, buffers, names = property(_params), property(_buffers), property(_names)
    replace, __call__ = _replace, _value

    def __post_init__(self) -> None:
        _window(self)

    def linearize(self, x: Array, *, training: bool = False) -> Linearized:
        """The value and its adjoint; both modes are the same."""
        y = pool.max_pool(x, self.kernel, self.stride)
        return _without_params(y, lambda dy: pool.max_pool_vjp(x, y, dy, self.kernel, self.stride))


@dataclasses.dataclass(frozen=True, eq=False)
class AveragePool:
    """`average_pool` with its kernel and stride (the kernel if left out).

    Examples
    --------
    >>> import numpy as np
    >>> AveragePool(2)(np.ones((1, 1, 8, 8))).shape
    (1, 1, 4, 4)
    """

    kernel: int | Pair
    stride: int | Pair | None = None
    params, buffers, names = property(_params), property(_buffers), property(_names)
    replace, __call__ = _replace, _value

    def __post_init__(self) -> None:
        _window(self)

    def linearize(self, x: Array, *, training: bool = False) -> Linearized:
        """The value and its adjoint; both modes are the same."""
        y = pool.average_pool(x, self.kernel, self.stride)
        return _without_params(y, lambda dy: pool.average_pool_vjp(x.shape, dy, self.kernel, self.stride))


def _window(layer: MaxPool | AveragePool) -> None:
    kernel = pair("kernel", layer.kernel, 1)
    _set(layer, kernel=kernel, stride=kernel if layer.stride is None else pair("stride", layer.stride, 1))


@dataclasses.dataclass(frozen=True, eq=False)
class GlobalAveragePool:
    """The mean of every channel: (batch, c, h, w) to (batch, c)."""

    params, buffers, names = property(_params), property(_buffers), property(_names)
    replace, __call__ = _replace, _value

    def linearize(self, x: Array, *, training: bool = False) -> Linearized:
        """The value and its adjoint; both modes are the same."""
        return _without_params(pool.global_average_pool(x), lambda dy: pool.global_average_pool_vjp(tuple(x.shape), dy))


@dataclasses.dataclass(frozen=True, eq=False)
class Flatten:
    """(batch, c, h, w) to (batch, c h w)."""

    params, buffers, names = property(_params), property(_buffers), property(_names)
    replace, __call__ = _replace, _value

    def linearize(self, x: Array, *, training: bool = False) -> Linearized:
        """The value and its adjoint; both modes are the same."""
        return _without_params(rearrange.flatten(x), lambda dy: rearrange.flatten_vjp(tuple(x.shape), dy))


@dataclasses.dataclass(frozen=True, eq=False)
class Dropout:
    """`dropout` with a given mask in training mode, the identity in evaluation mode.

    A new mask for every batch: ``layer.replace(mask=mask)``.

    Parameters
    ----------
    rate : float
        0 <= rate < 1: the probability of a 0 in the mask.
    mask : array of the shape of x, optional
        Of 0 and 1; training mode needs it.

    Examples
    --------
    >>> import numpy as np
    >>> layer, x = Dropout(0.5, mask=np.array([[1.0, 0.0]])), np.array([[1.0, 1.0]])
    >>> layer(x), layer(x, training=True)
    (array([[1., 1.]]), array([[2., 0.]]))
    """

    rate: float
    mask: Array | None = None
    KEPT: ClassVar = ("mask",)
    params, buffers, names = property(_params), property(_buffers), property(_names)
    replace, __call__ = _replace, _value

    def __post_init__(self) -> None:
        rate = as_number(self.rate)
        if rate is None or not 0 <= rate < 1:
            raise HypothesisError(f"rate must lie in [0, 1); got {self.rate!r}.")
        if self.mask is not None:
            _own(self, {"mask": tuple(checked("mask", self.mask).shape)})

    def linearize(self, x: Array, *, training: bool = False) -> Linearized:
        """The value and its adjoint; with `training` of ``mask x / (1 - rate)``, else of x."""
        x = floating("x", x)
        if not training:
            return _without_params(x, lambda dy: dy)
        if self.mask is None:
            raise HypothesisError("mask must be given in training mode; got None. Use replace(mask=...).")
        mask = like(x, self.mask)
        return _without_params(
            rearrange.dropout(x, mask, self.rate), lambda dy: rearrange.dropout_vjp(mask, self.rate, dy)
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Pad:
    """`pad` with its width and value: around an image that is constant there, replication does the same.

    Examples
    --------
    >>> import numpy as np
    >>> Pad(7, 0.449)(np.ones((1, 3, 32, 32))).shape
    (1, 3, 46, 46)
    """

    width: int | Pair
    value: float = 0.0
    params, buffers, names = property(_params), property(_buffers), property(_names)
    replace, __call__ = _replace, _value

    def __post_init__(self) -> None:
        _set(self, width=pair("width", self.width, 0), value=_finite("value", self.value))

    def linearize(self, x: Array, *, training: bool = False) -> Linearized:
        """The value and its adjoint; both modes are the same."""
        return _without_params(rearrange.pad(x, self.width, self.value), lambda dy: rearrange.pad_vjp(dy, self.width))


@dataclasses.dataclass(frozen=True, eq=False)
class Shortcut:
    """`shortcut` with its stride and the numbers of zero channels before and after.

    Examples
    --------
    >>> import numpy as np
    >>> Shortcut(2, (8, 8))(np.ones((1, 16, 32, 32))).shape
    (1, 32, 16, 16)
    """

    stride: int | Pair = 1
    channels: Pair = (0, 0)
    params, buffers, names = property(_params), property(_buffers), property(_names)
    replace, __call__ = _replace, _value

    def __post_init__(self) -> None:
        _set(self, stride=pair("stride", self.stride, 1), channels=pair("channels", self.channels, 0))

    def linearize(self, x: Array, *, training: bool = False) -> Linearized:
        """The value and its adjoint; both modes are the same."""
        y = rearrange.shortcut(x, self.stride, self.channels)
        return _without_params(y, lambda dy: rearrange.shortcut_vjp(x.shape, dy, self.stride, self.channels))


# ------------------------------------------------------------------------------------------------
# Compositions: a mapping from names to layers; the name "" leaves the names of its layer as they are


def _dotted(name: str, arrays: Mapping[str, Array]) -> Arrays:
    return {_join(name, key): value for key, value in arrays.items()}


def _join(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _all_params(layer: Sequential | Sum) -> Arrays:
    """The trained arrays of every layer, by dotted names."""
    return {key: value for name, part in layer.layers.items() for key, value in _dotted(name, part.params).items()}


def _all_buffers(layer: Sequential | Sum) -> Arrays:
    """The other arrays of every layer, by dotted names."""
    return {key: value for name, part in layer.layers.items() for key, value in _dotted(name, part.buffers).items()}


def _all_names(layer: Sequential | Sum) -> tuple[str, ...]:
    """Every name that `replace` knows."""
    return tuple(_join(name, key) for name, part in layer.layers.items() for key in part.names)


def _replace_all(layer: Any, **arrays: Array) -> Any:
    """The same composition with other arrays, by dotted names."""
    _refuse_unknown(layer, arrays)
    parts = {}
    for name, part in layer.layers.items():
        own = {key: arrays[_join(name, key)] for key in part.names if _join(name, key) in arrays}
        parts[name] = part.replace(**own) if own else part
    return type(layer)(parts)


def _check_layers(layer: Sequential | Sum) -> None:
    if not isinstance(layer.layers, Mapping) or not all(isinstance(name, str) for name in layer.layers):
        raise TypeError(f"layers must map names to layers; got {layer.layers!r}.")
    wrong = [name for name, part in layer.layers.items() if not hasattr(part, "linearize")]
    if wrong:
        raise TypeError(f"layers must hold layers of implicitref.layers; {wrong[0]!r} is {layer.layers[wrong[0]]!r}.")
    _set(layer, layers=dict(layer.layers))
    twice = sorted(name for name, uses in Counter(layer.names).items() if uses > 1)
    if twice:
        raise HypothesisError(f"layers must give every array a name of its own; {', '.join(twice)} occurs twice.")


@dataclasses.dataclass(frozen=True, eq=False)
class Sequential:
    r"""Layers one after another, the first applied first; without any layer the identity.

    Parameters
    ----------
    layers : mapping from name to layer
        Arrays are called ``name.array``. A name may hold dots; the name "" adds nothing.

    Examples
    --------
    >>> import numpy as np
    >>> net = Sequential({"fc": Affine(np.array([[1.0, -2.0]])), "act": Activate(relu)})
    >>> y, pull, _ = net.linearize(np.array([[3.0, 1.0]]))
    >>> dx, grads = pull(np.ones((1, 1)))
    >>> y, dx, grads
    (array([[1.]]), array([[ 1., -2.]]), {'fc.weight': array([[3., 1.]])})
    """

    layers: Mapping[str, Layer]
    params, buffers, names = property(_all_params), property(_all_buffers), functools.cached_property(_all_names)
    replace, __call__ = _replace_all, _value

    def __post_init__(self) -> None:
        _check_layers(self)

    def linearize(self, x: Array, *, training: bool = False) -> Linearized:
        """The value and its adjoint; `training` is handed to every layer."""
        # (f_n o ... o f_1)' = f_n' ... f_1': the cotangent goes through the transposes, last layer first
        y, pulls = floating("x", x), []
        statistics: Arrays = {}
        for name, layer in self.layers.items():
            y, pull, found = layer.linearize(y, training=training)
            pulls.append((name, pull))
            statistics |= _dotted(name, found)

        def vjp(dy: Array, inputs: bool, params: bool) -> tuple[Array | None, Arrays]:
            grads: Arrays = {}
            for k, (name, pull) in reversed(list(enumerate(pulls))):
                dy, found = pull(dy, inputs=inputs or k > 0, params=params)
                grads = _dotted(name, found) | grads
            return dy if inputs else None, grads

        return _linearized(y, vjp)._replace(statistics=statistics)


@dataclasses.dataclass(frozen=True, eq=False)
class Sum:
    r"""Layers side by side, added: ``y = sum_i f_i(x)``. See `residual`.

    Parameters
    ----------
    layers : mapping from name to layer
        At least one; as in `Sequential`.

    Examples
    --------
    >>> import numpy as np
    >>> Sum({"a": Scale(2.0), "b": Scale(3.0)})(np.array([[1.0]]))
    array([[5.]])
    """

    layers: Mapping[str, Layer]
    params, buffers, names = property(_all_params), property(_all_buffers), functools.cached_property(_all_names)
    replace, __call__ = _replace_all, _value

    def __post_init__(self) -> None:
        _check_layers(self)
        if not self.layers:
            raise HypothesisError("layers must hold at least one layer; got none.")

    def linearize(self, x: Array, *, training: bool = False) -> Linearized:
        """The value and its adjoint; `training` is handed to every layer."""
        # (sum f_i)' = sum f_i': each gets the same cotangent, and what they give back is added
        found = {name: layer.linearize(x, training=training) for name, layer in self.layers.items()}
        shapes = {name: tuple(part.y.shape) for name, part in found.items()}
        if len(set(shapes.values())) > 1:
            raise ShapeError(f"layers must give one shape, to be added; got {shapes}.")

        def vjp(dy: Array, inputs: bool, params: bool) -> tuple[Array | None, Arrays]:
            pulled = {name: part.pull(dy, inputs=inputs, params=params) for name, part in found.items()}
            grads = {key: g for name, (_, own) in pulled.items() for key, g in _dotted(name, own).items()}
            return _total([dx for dx, _ in pulled.values()]) if inputs else None, grads

        statistics = {key: s for name, part in found.items() for key, s in _dotted(name, part.statistics).items()}
        return _linearized(_total([part.y for part in found.values()]), vjp)._replace(statistics=statistics)


def gathering(layer: Any, gather: norm.Gather) -> Any:
    """The layer with batch norms that take the moments of a batch of which every member of a group has a part."""
    if isinstance(layer, (Sequential, Sum)):
        return type(layer)({name: gathering(part, gather) for name, part in layer.layers.items()})
    return dataclasses.replace(layer, gather=gather) if isinstance(layer, BatchNorm) else layer


def _total(terms: list[Any]) -> Array:
    return sum(terms[1:], start=terms[0])


def residual(body: Layer, shortcut: Layer | None = None) -> Sum:
    """``body(x) + shortcut(x)``, the shortcut being x if left out; arrays keep the names that they have in `body`.

    Examples
    --------
    >>> import numpy as np
    >>> residual(Affine(np.array([[1.0]])))(np.array([[2.0]]))
    array([[4.]])
    """
    return Sum({"": body, "shortcut": Sequential({}) if shortcut is None else shortcut})


def basic_block(
    conv1: Conv2d, bn1: BatchNorm, conv2: Conv2d, bn2: BatchNorm, activation: Activation = relu
) -> Sequential:
    r"""The basic block of a residual network: ``act(bn2(conv2(act(bn1(conv1(x))))) + shortcut(x))``.

    The shortcut has no parameters: it takes every stride-th pixel and, where channels grow, puts half of the new ones
    before and the rest after, all zero. Arrays are called ``conv1.weight``, ``bn1.running_mean``, ...

    Parameters
    ----------
    conv1, conv2 : Conv2d
        c to out channels with any stride, out to out channels; out >= c.
    bn1, bn2 : BatchNorm
    activation : Activation

    Raises
    ------
    HypothesisError

    Examples
    --------
    >>> import numpy as np
    >>> bn = BatchNorm(np.zeros(4), np.ones(4))
    >>> first, second = (Conv2d(np.ones((4, c, 3, 3)), stride=s, padding=1) for c, s in ((2, 2), (4, 1)))
    >>> basic_block(first, bn, second, bn)(np.ones((1, 2, 8, 8))).shape
    (1, 4, 4, 4)
    """
    grown = conv2.weight.shape[0] - conv1.weight.shape[1]
    if grown < 0:
        raise HypothesisError(f"conv2 must have at least the {conv1.weight.shape[1]} channels of x; got {-grown} less.")
    act = Activate(activation)
    body = Sequential({"conv1": conv1, "bn1": bn1, "act": act, "conv2": conv2, "bn2": bn2})
    stride = pair("stride", conv1.stride, 1), pair("stride", conv2.stride, 1)
    both = stride[0][0] * stride[1][0], stride[0][1] * stride[1][1]
    return Sequential({"": residual(body, Shortcut(both, (grown // 2, grown - grown // 2))), "act": act})
