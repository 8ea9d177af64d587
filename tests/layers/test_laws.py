"""Every layer times every law: PyTorch's values and gradients, differences, every library, every order of memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import oracles
import pytest
from oracles import assert_close, size

import implicitref as ir
from implicitref import layers as L
from implicitref.activations import elu, leaky_relu, relu


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def norm_of(channels: int, seed: int = 0, affine: bool = True, **options: float) -> L.BatchNorm:
    moments = draw(channels, seed=seed), 0.5 + draw(channels, seed=seed + 1) ** 2
    trained = (1 + draw(channels, seed=seed + 2), draw(channels, seed=seed + 3)) if affine else ()
    return L.BatchNorm(*moments, *trained, **options)


def kernel_of(out: int, channels: int, kh: int, kw: int, bias: bool = True, **options: Any) -> L.Conv2d:
    return L.Conv2d(0.3 * draw(out, channels, kh, kw), draw(out) if bias else None, **options)


def block(stride: int = 2, channels: int = 3, out: int = 6) -> L.Sequential:
    first = kernel_of(out, channels, 3, 3, bias=False, stride=stride, padding=1)
    second = kernel_of(out, out, 3, 3, bias=False, padding=1)
    return L.basic_block(first, norm_of(out), second, norm_of(out, 7), leaky_relu(0.1))


def jfb_step() -> L.Sequential:
    """gamma BN(w + F(w)), the map R of the trained MNIST network in small."""
    convs = {"0": kernel_of(4, 4, 3, 3, padding=1), "3": kernel_of(4, 4, 3, 3, padding=1)}
    act = L.Activate(leaky_relu(0.1))
    body = L.Sequential({"0": convs["0"], "1": act, "3": convs["3"], "4": act})
    return L.Sequential(
        {"latent_convs.0": L.residual(body), "lat_batch_norm.0": norm_of(4, affine=False), "gamma": L.Scale(0.9)}
    )


def network() -> L.Sequential:
    """A data map, a latent block and a readout."""
    return L.Sequential(
        {
            "conv_d1": kernel_of(4, 1, 3, 3, padding=1),
            "bn_1": norm_of(4),
            "leaky": L.Activate(leaky_relu(0.1)),
            "pool": L.MaxPool(3),
            "": jfb_step(),
            "conv_y": kernel_of(2, 4, 3, 3),
            "flatten": L.Flatten(),
            "fc_y": L.Affine(draw(5, 2)),
        }
    )


@dataclasses.dataclass(frozen=True)
class Case:
    layer: Any
    shape: tuple[int, ...]
    training: bool = False
    linear: bool = False  # the map without its bias


IMAGES = (2, 3, 7, 6)
CASES = {
    "affine": Case(L.Affine(draw(4, 5), draw(4)), (3, 5)),
    "affine, no bias": Case(L.Affine(draw(4, 5)), (3, 5), linear=True),
    "conv": Case(kernel_of(4, 3, 3, 3, padding=1), IMAGES),
    "conv, no padding": Case(kernel_of(4, 3, 3, 2), IMAGES),
    "conv, stride": Case(kernel_of(4, 3, 3, 3, padding=1, stride=2), IMAGES),
    "conv, strides, wide padding": Case(kernel_of(4, 3, 2, 3, padding=(3, 4), stride=(3, 2)), IMAGES),
    "conv, stride above the kernel": Case(kernel_of(4, 3, 1, 1, bias=False, stride=3), IMAGES, linear=True),
    "conv, circular": Case(kernel_of(4, 3, 3, 3, bias=False, padding=1, padding_mode="circular"), IMAGES, linear=True),
    "conv, circular, stride": Case(
        kernel_of(4, 3, 5, 3, padding=(2, 1), stride=2, padding_mode="circular"), (2, 3, 6, 6)
    ),
    "conv, whole image": Case(kernel_of(4, 3, 7, 6), IMAGES),
    "conv, many channels": Case(kernel_of(3, 20, 3, 3, padding=1), (2, 20, 4, 5)),
    "batch norm, training": Case(norm_of(3), IMAGES, training=True),
    "batch norm, training, vectors": Case(norm_of(3, momentum=0.3), (5, 3), training=True),
    "batch norm, training, no affine": Case(norm_of(3, affine=False, eps=1e-3), IMAGES, training=True),
    "batch norm, evaluation": Case(norm_of(3), IMAGES),
    "batch norm, evaluation, no affine": Case(norm_of(3, affine=False), (5, 3)),
    "relu": Case(L.Activate(relu), IMAGES),
    "leaky relu": Case(L.Activate(leaky_relu(0.1)), IMAGES),
    "elu": Case(L.Activate(elu(1.0)), (3, 5)),
    "scale": Case(L.Scale(-0.7), IMAGES, linear=True),
    "max pool": Case(L.MaxPool(3), IMAGES),
    "max pool, overlapping": Case(L.MaxPool((3, 2), 2), IMAGES),
    "max pool, gaps": Case(L.MaxPool(2, (3, 4)), IMAGES),
    "average pool": Case(L.AveragePool((3, 2)), IMAGES, linear=True),
    "average pool, overlapping": Case(L.AveragePool(3, (1, 2)), IMAGES, linear=True),
    "global average pool": Case(L.GlobalAveragePool(), IMAGES, linear=True),
    "dropout": Case(L.Dropout(0.4, (draw(*IMAGES) > 0) * 1.0), IMAGES, training=True, linear=True),
    "dropout, evaluation": Case(L.Dropout(0.4), IMAGES, linear=True),
    "flatten": Case(L.Flatten(), IMAGES, linear=True),
    "pad": Case(L.Pad((1, 2)), IMAGES, linear=True),
    "pad by a value": Case(L.Pad((2, 0), 0.449), IMAGES),
    "shortcut": Case(L.Shortcut(2, (1, 2)), IMAGES, linear=True),
    "residual": Case(L.residual(kernel_of(3, 3, 3, 3, padding=1)), IMAGES),
    "basic block, training": Case(block(), IMAGES, training=True),
    "basic block, evaluation": Case(block(1, 3, 3), IMAGES),
    "step of a fixed-point network": Case(jfb_step(), (3, 4, 4, 5), training=True),
    "network": Case(network(), (3, 1, 10, 9), training=True),
    "identity": Case(L.Sequential({}), IMAGES, linear=True),
}
every_case = pytest.mark.parametrize("name", CASES)


def at(name: str) -> tuple[Any, np.ndarray, np.ndarray, bool]:
    """A layer, an input, a cotangent."""
    case = CASES[name]
    x = draw(*case.shape, seed=1)
    return case.layer, x, draw(*case.layer(x, training=case.training).shape, seed=2), case.training


# ------------------------------------------------------------------------------------------------
# PyTorch


def by_torch(layer: Any, x: Any, params: dict[str, Any], training: bool, statistics: dict[str, Any]) -> Any:
    """The same map in PyTorch, written from the fields of the records."""
    import torch
    from torch.nn import functional as F

    def inner(prefix: str) -> dict[str, Any]:
        start = f"{prefix}." if prefix else ""
        return {key.removeprefix(start): value for key, value in params.items() if key.startswith(start)}

    def run(name: str, part: Any, u: Any) -> Any:
        found: dict[str, Any] = {}
        y = by_torch(part, u, inner(name), training, found)
        statistics.update({f"{name}.{key}" if name else key: value for key, value in found.items()})
        return y

    weight, bias = params.get("weight"), params.get("bias")
    match layer:
        case L.Sequential():
            for name, part in layer.layers.items():
                x = run(name, part, x)
            return x
        case L.Sum():
            return sum(run(name, part, x) for name, part in layer.layers.items())
        case L.Affine():
            return F.linear(x, weight, bias)
        case L.Conv2d(padding_mode="circular"):
            (ph, pw) = layer.padding
            return F.conv2d(F.pad(x, (pw, pw, ph, ph), mode="circular"), weight, bias, stride=layer.stride)
        case L.Conv2d():
            return F.conv2d(x, weight, bias, stride=layer.stride, padding=layer.padding)
        case L.BatchNorm():
            mean, var = torch.tensor(layer.running_mean.copy()), torch.tensor(layer.running_var.copy())
            y = F.batch_norm(x, mean, var, weight, bias, training, layer.momentum, layer.eps)
            if training:
                statistics |= {"running_mean": mean, "running_var": var}
            return y
        case L.Activate():
            name, _, parameter = layer.activation.name.partition("(")
            return getattr(F, name)(x, *([float(parameter[:-1])] if parameter else []))
        case L.Scale():
            return layer.factor * x
        case L.MaxPool():
            return F.max_pool2d(x, layer.kernel, layer.stride)
        case L.AveragePool():
            return F.avg_pool2d(x, layer.kernel, layer.stride)
        case L.GlobalAveragePool():
            return F.adaptive_avg_pool2d(x, 1)[:, :, 0, 0]
        case L.Dropout():
            return x * torch.tensor(layer.mask.copy()) / (1 - layer.rate) if training else x
        case L.Flatten():
            return torch.flatten(x, 1)
        case L.Pad():
            (ph, pw) = layer.width
            return F.pad(x, (pw, pw, ph, ph), value=layer.value)
        case L.Shortcut():
            (sh, sw), (before, after) = layer.stride, layer.channels
            return F.pad(x[:, :, ::sh, ::sw], (0, 0, 0, 0, before, after))
    raise AssertionError(f"no counterpart of {layer!r}")


@every_case
def test_values_adjoints_and_statistics_are_those_of_pytorch(name):
    torch = pytest.importorskip("torch")
    layer, x, dy, training = at(name)
    params = {key: torch.tensor(p.copy(), requires_grad=True) for key, p in layer.params.items()}
    at_x, theirs = torch.tensor(x, requires_grad=True), {}
    desired = by_torch(layer, at_x, params, training, theirs)
    desired.backward(torch.tensor(dy))

    y, pull, statistics = layer.linearize(x, training=training)
    dx, grads = pull(dy)
    assert_close(y, desired.detach(), scale=size(y), tol=1e-12)
    assert_close(dx, at_x.grad, scale=size(at_x.grad), tol=1e-12)
    assert list(grads) == list(params)
    for key, gradient in grads.items():
        assert_close(gradient, params[key].grad, scale=size(params[key].grad, dy), tol=1e-12)
    assert statistics.keys() == theirs.keys()
    for key, value in statistics.items():
        assert_close(value, theirs[key], scale=size(theirs[key]), tol=1e-12)


# ------------------------------------------------------------------------------------------------
# Laws that need no other library


@every_case
def test_adjoints_against_differences(name):
    layer, x, dy, training = at(name)
    dx, grads = layer.linearize(x, training=training).pull(dy)
    rng = np.random.default_rng(3)

    def agree(loss: Callable[[Any], float], where: np.ndarray, gradient: np.ndarray) -> None:
        direction = rng.normal(size=where.shape)
        difference = oracles.central_difference(loss, where, direction, 1e-5)
        assert_close((gradient * direction).sum(), difference, scale=size(gradient) * np.abs(dy).sum(), tol=1e-9)

    agree(lambda at_x: float((dy * layer(at_x, training=training)).sum()), x, dx)
    for key, p in layer.params.items():
        agree(lambda q, key=key: float((dy * layer.replace(**{key: q})(x, training=training)).sum()), p, grads[key])


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.linear])
def test_dot_test_of_linear_layers(name, backend):
    layer, x, dy, training = at(name)
    y, pull, _ = layer.linearize(backend(x), training=training)
    dx = backend.numpy(pull(backend(dy))[0]).astype(float)
    forward, back = (dy * backend.numpy(y).astype(float)).sum(), (dx * x).sum()
    assert_close(forward, back, scale=size(x) * size(dx) * x.size, tol=8 * backend.eps)


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("network", "step of a fixed-point network")])
def test_every_library_gives_the_same(name, backend):
    layer, x, dy, training = at(name)
    desired, pull, statistics = layer.linearize(x, training=training)
    dx, grads = pull(dy)
    their_y, their_pull, their_statistics = layer.linearize(backend(x), training=training)
    their_dx, their_grads = their_pull(backend(dy))
    pairs = [(their_y, desired), (their_dx, dx), *((their_statistics[key], statistics[key]) for key in statistics)]
    pairs += [(their_grads[key], grads[key]) for key in grads]
    assert their_grads.keys() == grads.keys()
    for actual, wanted in pairs:
        assert type(actual) is type(backend(x))
        assert_close(backend.numpy(actual), wanted, scale=size(wanted, dy) * 10, tol=32 * backend.eps)


def batch_last(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(np.moveaxis(x, 0, -1).copy(), -1, 0)


def channels_last(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(np.moveaxis(x, (0, 1), (-2, -1)).copy(), (-2, -1), (0, 1)) if x.ndim == 4 else x.copy()


def with_gaps(x: np.ndarray) -> np.ndarray:
    wide = np.full((*x.shape[:-1], 2 * x.shape[-1]), np.nan)
    wide[..., ::2] = x
    return wide[..., ::2]


ORDERS = {
    "batch last": batch_last,
    "channels last": channels_last,
    "Fortran": np.asfortranarray,
    "gaps": with_gaps,
    "negative strides": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
    "byte-swapped": lambda x: x.astype(">f8"),
}


@every_case
@pytest.mark.parametrize("order", ORDERS)
def test_every_order_of_memory_gives_the_same(name, order):
    layer, x, dy, training = at(name)
    y, pull, _ = layer.linearize(x, training=training)
    dx, grads = pull(dy)
    given = ORDERS[order](x), ORDERS[order](dy)
    again, pull_again, _ = layer.linearize(given[0], training=training)
    dx_again, grads_again = pull_again(given[1])
    for actual, wanted in [(again, y), (dx_again, dx), *((grads_again[key], grads[key]) for key in grads)]:
        assert_close(actual, wanted, scale=size(wanted, dy) * 10, tol=1e-14)
    np.testing.assert_array_equal(given[0], x)
    np.testing.assert_array_equal(given[1], dy)


@every_case
def test_a_pull_gives_what_is_asked_for_and_can_be_asked_again(name):
    layer, x, dy, training = at(name)
    y, pull, _ = layer.linearize(x, training=training)
    dx, grads = pull(dy)
    nothing, only = pull(dy, inputs=False)
    assert nothing is None
    same, none = pull(dy, params=False)
    assert none == {}
    np.testing.assert_array_equal(same, dx)
    assert list(only) == list(grads) == list(layer.params)
    for key, gradient in grads.items():
        np.testing.assert_array_equal(only[key], gradient)
        assert gradient.shape == layer.params[key].shape
    twice = pull(2 * dy)[0]
    np.testing.assert_array_equal(twice, 2 * dx)  # powers of two are exact
    np.testing.assert_array_equal(layer(x, training=training), y)


@every_case
def test_replace_puts_arrays_where_their_names_say(name):
    layer, x, _, training = at(name)
    arrays = layer.params | layer.buffers
    assert set(arrays) <= set(layer.names)
    moved = layer.replace(**{key: value + 1 for key, value in arrays.items() if key.split(".")[-1] != "mask"})
    for key, value in (moved.params | moved.buffers).items():
        np.testing.assert_array_equal(value, arrays[key] + (key.split(".")[-1] != "mask"))
    back = moved.replace(**arrays)
    np.testing.assert_array_equal(back(x, training=training), layer(x, training=training))
    with pytest.raises(TypeError, match=r"has no array nothing; it has"):
        layer.replace(nothing=np.ones(1))


def test_records_own_their_arrays():
    weight = np.ones((1, 2))
    layer = L.Affine(weight)
    weight[:] = 0
    assert_close(layer.weight, np.ones((1, 2)), scale=1, tol=1e-15)
    with pytest.raises(ValueError, match="read-only"):
        layer.params["weight"][:] = 0


def test_chains_stay_in_the_fast_order():
    x = draw(4, 1, 10, 9).astype(np.float32)
    net = L.Sequential({name: part for name, part in network().layers.items() if name not in ("flatten", "fc_y")})
    y, pull, _ = net.linearize(x, training=True)
    dx, _ = pull(batch_last(np.ones_like(y)))
    for array in (y, dx):
        assert array.dtype == np.float32
        assert np.moveaxis(array, 0, -1).flags.c_contiguous


def test_names_are_those_of_a_state_dict():
    assert list(jfb_step().params) == [f"latent_convs.0.{k}.{p}" for k in (0, 3) for p in ("weight", "bias")]
    assert list(jfb_step().buffers) == ["lat_batch_norm.0.running_mean", "lat_batch_norm.0.running_var"]
    assert list(block().params)[:3] == ["conv1.weight", "bn1.weight", "bn1.bias"]


def test_evaluation_does_not_depend_on_batch_mates():
    net, x = network(), draw(5, 1, 10, 9)
    together = net(x)
    for k in range(5):
        assert_close(net(x[k : k + 1]), together[k : k + 1], scale=size(together), tol=1e-13)


def test_ties_go_to_the_first_of_the_window():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).integers(0, 2, size=(3, 2, 8, 9)).astype(float)  # nothing but ties
    for kernel, stride in ((3, 3), (3, 2), ((2, 3), 1), (2, (3, 4))):
        at_x = torch.tensor(x, requires_grad=True)
        desired = torch.nn.functional.max_pool2d(at_x, kernel, stride)
        dy = draw(*desired.shape)
        desired.backward(torch.tensor(dy))
        y = L.max_pool(x, kernel, stride)
        np.testing.assert_array_equal(y, desired.detach())
        assert_close(L.max_pool_vjp(x, y, dy, kernel, stride), at_x.grad, scale=size(dy), tol=1e-14)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_batch_norm_far_from_zero(offset):
    x = offset + draw(6, 3, 4, 4)
    mean, var = L.batch_moments(x)
    assert_close(mean, x.mean(axis=(0, 2, 3)), scale=size(x), tol=1e-14)
    assert_close(var, x.var(axis=(0, 2, 3)), scale=size(x), tol=1e-14)
    y = L.batch_norm(x, mean, var, eps=1e-12)
    assert_close(y.std(axis=(0, 2, 3)), np.ones(3), scale=1, tol=1e-11)


def test_gradient_of_batch_norm_is_blind_to_what_it_removes():
    # y does not change when a channel of x is shifted, nor (eps = 0) when it is scaled
    x, dy = draw(6, 3, 4, 4), draw(6, 3, 4, 4, seed=1)
    dx = L.batch_norm_through_moments_vjp(x, *L.batch_moments(x), None, dy, eps=0.0)[0]
    assert_close(dx.sum(axis=(0, 2, 3)), np.zeros(3), scale=size(dx), tol=1e-13)
    assert_close((dx * x).sum(axis=(0, 2, 3)), np.zeros(3), scale=size(dx), tol=1e-12)


def test_an_input_that_is_integer_is_refused_everywhere():
    for name, case in CASES.items():
        with pytest.raises(ir.HypothesisError, match=r"x must be float32 or float64; got dtype int64"):
            case.layer(np.ones(case.shape, dtype=np.int64))
        with pytest.raises(TypeError, match=r"x must be an array"):
            case.layer([[1.0]])
        assert name in CASES


@every_case
def test_a_cotangent_of_another_shape_is_refused(name):
    layer, x, dy, training = at(name)
    pull = layer.linearize(x, training=training).pull
    with pytest.raises(ir.ShapeError, match=r"dy must have shape"):
        pull(dy[:1])
