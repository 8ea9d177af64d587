"""The other implementations: PyTorch forms written from the paper, TorchDEQ, jaxopt. Each is absent where a library is.

TorchDEQ and jaxopt solve the same equation as the fixed point of the forward-backward map
``z -> relu(z + alpha (W z + b - z))`` with the alpha of its smallest provable factor, gradients by their own implicit
differentiation. jaxopt is compiled before it is timed; XLA sets its own number of threads.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...splitting import rates
from .. import bench_conv, bench_dense, bench_jfb
from .layers import Layer
from .machine import Place
from .measure import Found, Side
from .ours import following

__all__ = [
    "BEST", "PEERS", "PUBLISHED", "REFLECTED", "Peer", "absent", "dense_steps", "image_gradients", "image_steps",
    "missing", "product", "sides", "steps", "versions",
]  # fmt: skip

PUBLISHED, BEST = f"{bench_conv.PUBLISHED} (PyTorch)", f"{bench_conv.BEST} (PyTorch)"
REFLECTED = "reflected step (PyTorch)"
LIBRARIES = {"torch": "torch", "torchdeq": "torchdeq==0.1.0", "jax": "jax", "jaxopt": "jaxopt==0.8.5"}
MOST, MOST_BROYDEN = 1000, 150  # iterations; Broyden's grow dearer one by one
OUTSIDE = ("U", "b", "readout_weight", "readout_bias")


class Peer(NamedTuple):
    """Which libraries it needs, what it solves, and how: build(layer, place, alpha, passes)."""

    name: str
    needs: tuple[str, ...]
    build: Callable[[Layer, Place, float, int], Side]
    images: bool
    dense: bool = True
    passes: int = 2  # that it has


def missing(needs: Sequence[str]) -> str:
    """The first library that is not there, and how to install it; empty where all are."""
    for name in needs:
        try:
            _imported(name)
        except ImportError as error:
            return f"{name} cannot be imported ({error}): pip install {LIBRARIES[name]}"
    return ""


def _imported(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # jaxopt announces its retirement
        return importlib.import_module(name)


def versions() -> dict[str, str | None]:
    """Of every library of a peer, None where it is absent."""
    return {name: None if missing((name,)) else importlib.metadata.version(name) for name in LIBRARIES}


def chosen(layer: Layer, passes: int, names: Sequence[str] | None = None) -> list[Peer]:
    """The peers that solve such a layer, or those of them with these names."""
    fits = [p for p in PEERS if passes <= p.passes and (p.dense if layer.images is None else p.images)]
    return [p for p in fits if names is None or p.name in names]


def sides(layer: Layer, where: Place, alpha: float, passes: int, names: Sequence[str] | None = None) -> list[Side]:
    """Of the peers that are there."""
    return [
        p.build(layer, where, alpha, passes)._replace(name=p.name)
        for p in chosen(layer, passes, names)
        if not missing(p.needs)
    ]


def absent(layer: Layer, passes: int, names: Sequence[str] | None = None) -> dict[str, str]:
    """The others, and what they lack."""
    return {p.name: why for p in chosen(layer, passes, names) if (why := missing(p.needs))}


# ---- PyTorch ----


def _on(where: Place) -> contextlib.AbstractContextManager[Any]:
    """What is created inside is created on the device; on the CPU the default stays, which costs nothing."""
    torch = importlib.import_module("torch")
    return contextlib.nullcontext() if where.torch_device == "cpu" else torch.device(where.torch_device)


def _published(layer: Layer, where: Place, alpha: float, passes: int) -> Side:
    build = _published_dense if layer.images is None else _published_images
    with _on(where):
        return Side(PUBLISHED, build(layer, alpha, passes), (1e-3,) * passes)


def _published_dense(layer: Layer, alpha: float, passes: int) -> Callable[[tuple[float, ...]], Found]:
    torch = importlib.import_module("torch")
    module, injection, dz = bench_dense.torch_layer(layer.W, alpha), _tensor(layer.injection), _tensor(layer.dz)

    def run(tols: tuple[float, ...]) -> Found:
        module.tols = (tols[0], tols[-1])
        if passes == 1:
            with torch.no_grad():
                z = module(injection)
            return Found((z,), module.iterations[:1])
        x = injection.clone().requires_grad_()
        module.zero_grad()
        z = module(x)
        z.backward(dz)
        return Found((z, x.grad), module.iterations)

    return run


def _published_images(layer: Layer, alpha: float, passes: int) -> Callable[[tuple[float, ...]], Found]:
    p, forms, torch = layer.images, bench_conv.forms(), importlib.import_module("torch")
    assert p is not None
    published = forms.Published(bench_conv.torch_weights(p), alpha, bench_conv.BORDER)
    injection, dz = (tuple(map(_tensor, x)) for x in (p.injection, p.dz))

    def run(tols: tuple[float, ...]) -> Found:
        if passes == 1:
            with torch.inference_mode():
                (z, _), count = forms.iterate(lambda z, u: published.step(z, u, injection), injection, tols[0])
            return Found((_flat(p, z),), (count,))
        found = published.forward_backward(injection, dz, *tols)
        return Found((_flat(p, found.z), _flat(p, found.dpre)), found.iterations)

    return run


def _best(layer: Layer, where: Place, alpha: float, passes: int) -> Side:
    torch, forms, p = importlib.import_module("torch"), bench_conv.forms(), layer.images
    assert p is not None
    with _on(where), torch.inference_mode():
        form = forms.Reflected(bench_conv.torch_weights(p), alpha, bench_conv.BORDER)
        injection = tuple(map(_tensor, p.injection))
        constant = form.constant(injection, alpha)
        masks = [forms.mask(size, bench_conv.BORDER) for size in p.case.sizes]

    def step(z: Any, u: Any) -> Any:
        u = form.step(u, constant)
        return tuple(torch.relu(x) * inside for x, inside in zip(u, masks, strict=True)), u

    def run(tols: tuple[float, ...]) -> Found:
        with torch.inference_mode():
            (z, _), count = forms.iterate(step, injection, tols[0])
        return Found((_flat(p, z),), (count,))

    return Side(BEST, run, (1e-3,))


def _reflected(layer: Layer, where: Place, alpha: float, passes: int) -> Side:
    torch = importlib.import_module("torch")
    advance, zero = _reflected_step(layer, where, alpha)

    def run(tols: tuple[float, ...]) -> Found:
        with torch.inference_mode():
            (z, _), count = bench_conv.forms().iterate(
                lambda z, u: ((torch.relu(v := advance(u[0])),), (v,)), (zero,), tols[0]
            )
        return Found(z, (count,))

    return Side(REFLECTED, run, (1e-3,))


def _reflected_step(layer: Layer, where: Place, alpha: float) -> tuple[Callable[[Any], Any], Any]:
    """u -> C |u| + 2 V alpha b with one fused product, and the u to start from."""
    torch, V = importlib.import_module("torch"), layer.W.resolvent(alpha)
    with _on(where):
        C_T = _tensor(np.ascontiguousarray(V.cayley().matrix.T))
        constant = _tensor(2 * V.matvec(np.float32(alpha) * layer.injection))
    return lambda u: torch.addmm(constant, u.abs(), C_T), torch.zeros_like(constant)


def steps(layer: Layer, where: Place, alpha: float) -> list[Side]:
    """One Peaceman-Rachford iteration of the forms in PyTorch."""
    torch, p = importlib.import_module("torch"), layer.images
    if p is None:
        advance = torch.inference_mode()(_reflected_step(layer, where, alpha)[0])
        return [Side(REFLECTED, following(advance, _reflected_step(layer, where, alpha)[1]))]
    with _on(where):
        found = bench_conv.iterations(p, alpha)
    names = {PUBLISHED: bench_conv.PUBLISHED, BEST: bench_conv.BEST}
    return [Side(name, _called(found[key])) for name, key in names.items()]


def _called(run: Callable[[], object]) -> Callable[[tuple[float, ...]], Found]:
    def called(tols: tuple[float, ...]) -> Found:
        run()
        return Found(iterations=(1,))

    return called


def dense_steps(
    network: Any, x: np.ndarray, labels: np.ndarray, alpha: float, tol: float, where: Place
) -> Callable[[tuple[float, ...]], Found]:
    """Training steps of a dense network: the published layer between two affine maps, W factored anew in every step."""
    torch = importlib.import_module("torch")
    with _on(where):
        layer, data, target = bench_dense.torch_layer(network.W, alpha), _tensor(x), _tensor(labels)
        outside = [_tensor(network.params[name]).requires_grad_() for name in OUTSIDE]
    U, b, weight, bias = outside
    layer.tols = (tol, tol)
    optimiser, first = torch.optim.Adam([*layer.parameters(), *outside], lr=bench_jfb.RATE), list[Found]()

    def run(tols: tuple[float, ...]) -> Found:
        optimiser.zero_grad()
        layer.factor()
        z = layer(data @ U.T + b)
        loss = torch.nn.functional.cross_entropy(z @ weight.T + bias, target)
        loss.backward()
        optimiser.step()
        first.append(Found((float(loss.detach()),), layer.iterations))
        return first[0]  # what is compared is the loss of the first step

    return run


def image_steps(
    network: Any, x: np.ndarray, labels: np.ndarray, alpha: float, tol: float, where: Place
) -> Callable[[tuple[float, ...]], Found]:
    """The same of `mon_conv` and `mon_multitier`."""
    torch = importlib.import_module("torch")
    params, differentiated = image_gradients(network, x, labels, alpha, tol, where)
    optimiser, first = torch.optim.Adam(params.values(), lr=bench_jfb.RATE), list[Found]()

    def run(tols: tuple[float, ...]) -> Found:
        loss, iterations = differentiated()
        optimiser.step()
        first.append(Found((loss,), iterations))
        return first[0]

    return run


def image_gradients(
    network: Any, x: np.ndarray, labels: np.ndarray, alpha: float, tol: float, where: Place
) -> tuple[dict[str, Any], Callable[[], tuple[float, tuple[int, ...]]]]:
    """The parameters of a network on images by our names; what gives them their gradients, W factored in complex64."""
    torch, forms, W, ends = importlib.import_module("torch"), bench_conv.forms(), network.W, network.ends
    with _on(where):
        params = {name: _tensor(p).requires_grad_() for name, p in network.params.items()}
        data, target, shapes = _tensor(x), _tensor(labels), getattr(W, "shapes", [W.state_shape])
        others = tuple(torch.zeros(len(x), *shape) for shape in shapes[1:])
    lists = {k: [p for name, p in params.items() if name.split(".")[0] == k] for k in ("A", "B", "S", "g", "gs", "h")}
    w = forms.Weights(**lists, sizes=[shape[1:] for shape in shapes], m=W.m)
    U, b, weight, bias = (params[name] for name in OUTSIDE)

    def differentiated() -> tuple[float, tuple[int, ...]]:
        with _on(where):
            layer = forms.Published(w, alpha, ends.border, torch.complex64)
        first = torch.nn.functional.conv2d(data, U, b, padding=ends.border + 1)
        injection = (first.detach(), *others)
        z, _, forward = layer.forward(injection, tol)
        features = torch.nn.functional.avg_pool2d(z[-1].requires_grad_(), ends.pool).flatten(1)
        loss = torch.nn.functional.cross_entropy(features @ weight.T + bias, target)
        above = torch.autograd.grad(loss, (z[-1], weight, bias))
        dz = (*map(torch.zeros_like, z[:-1]), above[0])
        found = layer.backward(tuple(tier.detach() for tier in z), injection, dz, tol)
        below = torch.autograd.grad(first, (U, b), found.dpre[0])
        for p, gradient in zip((*w.parameters, U, b, weight, bias), (*found.grads, *below, *above[1:]), strict=True):
            p.grad = gradient
        return float(loss.detach()), (forward, found.iterations)

    return params, differentiated


def product(name: str, layer: Layer, where: Place) -> Side | None:
    """W z and W' z in PyTorch: a product, or convolutions with borders wrapped around."""
    torch = importlib.import_module("torch")
    if name not in ("W z", "W' z"):
        return None
    with _on(where):
        apply = _dense_product(name, layer) if layer.images is None else _image_product(name, layer)

    def run(tols: tuple[float, ...]) -> Found:
        with torch.inference_mode():
            return Found((apply(),))

    return Side(PUBLISHED, run)


def _dense_product(name: str, layer: Layer) -> Callable[[], Any]:
    W, x = _tensor(layer.W.to_dense()), _tensor(layer.injection)
    return (lambda: x @ W.T) if name == "W z" else (lambda: x @ W)


def _image_product(name: str, layer: Layer) -> Callable[[], Any]:
    p, forms = layer.images, bench_conv.forms()
    assert p is not None
    w, x = bench_conv.torch_weights(p), tuple(map(_tensor, p.injection))
    apply = forms.matvec if name == "W z" else forms.rmatvec
    return lambda: _flat(p, apply(w, x))


def _tensor(x: np.ndarray) -> Any:
    return importlib.import_module("torch").tensor(np.asarray(x))  # a copy on the device in force


def _flat(p: bench_conv.Problem, tiers: Any) -> Any:
    """Tiers as our operator takes them, on their device."""
    if len(tiers) == 1:
        return tiers[0]
    return importlib.import_module("torch").cat([t.flatten(1) for t in tiers], dim=1)


# ---- TorchDEQ and jaxopt ----


def _step_size(layer: Layer) -> float:
    """The smallest exact factor of forward-backward, searched at every size: these peers have no better step."""
    return rates.search(rates.gap(layer.W), layer.W.m, "forward-backward")


def _torchdeq(solver: str) -> Callable[[Layer, Place, float, int], Side]:
    def build(layer: Layer, where: Place, alpha: float, passes: int) -> Side:
        torch, torchdeq = importlib.import_module("torch"), importlib.import_module("torchdeq")
        size, most = _step_size(layer), MOST_BROYDEN if solver == "broyden" else MOST
        with _on(where):
            module = bench_dense.torch_layer(layer.W, alpha)  # the parameters
            injection, dz = _tensor(layer.injection), _tensor(layer.dz)

        def run(tols: tuple[float, ...]) -> Found:
            deq = torchdeq.get_deq(
                f_solver=solver, b_solver=solver, ift=True, f_tol=tols[0], b_tol=tols[-1], f_max_iter=most,
                b_max_iter=most, f_stop_mode="rel", b_stop_mode="rel",
            )  # fmt: skip
            x = injection.clone().requires_grad_(passes == 2)
            with torch.set_grad_enabled(passes == 2):
                module.zero_grad()
                W = module.weight()
                states, info = deq(lambda z: torch.relu(z + size * (z @ W.T + x - z)), torch.zeros_like(x))
                z, count = states[-1], int(info["nstep"].max())
            if passes == 1:
                return Found((z,), (count,))
            z.backward(dz)
            return Found((z, x.grad), (count,))

        return Side(solver, run, (1e-3,) * passes)

    return build


def _jaxopt(solver: str) -> Callable[[Layer, Place, float, int], Side]:
    def build(layer: Layer, where: Place, alpha: float, passes: int) -> Side:
        jax, jnp = importlib.import_module("jax"), importlib.import_module("jax.numpy")
        size, n, m = _step_size(layer), layer.W.size, layer.W.m
        params = tuple(jnp.asarray(np.asarray(x)) for x in (layer.W.A, layer.W.B, layer.injection))
        dz, compiled = jnp.asarray(layer.dz), dict[tuple[float, ...], Any]()

        def solve(tols: tuple[float, ...], A: Any, B: Any, x: Any) -> Any:
            W = (1 - m) * jnp.eye(n, dtype=x.dtype) - A.T @ A + B - B.T
            found = _jaxopt_solver(solver, tols).run(jnp.zeros_like(x), W, x, size)
            return found.params, found.state.iter_num

        def both(tols: tuple[float, ...], *params: Any) -> Any:
            z, pull, count = jax.vjp(lambda *p: solve(tols, *p), *params, has_aux=True)
            return z, pull(dz), count

        def run(tols: tuple[float, ...]) -> Found:
            if tols not in compiled:
                compiled[tols] = jax.jit(lambda *p: (both if passes == 2 else solve)(tols, *p))
            found = jax.block_until_ready(compiled[tols](*params))
            state = (found[0],) if passes == 1 else (found[0], found[1][2])
            return Found(state, (int(found[-1]),))

        return Side(solver, run, (1e-2,) * passes)

    return build


def _jaxopt_solver(name: str, tols: tuple[float, ...]) -> Any:
    jax, jaxopt = importlib.import_module("jax"), _imported("jaxopt")

    def step(z: Any, W: Any, x: Any, size: float) -> Any:
        return jax.nn.relu(z + size * (z @ W.T + x - z))

    def adjoint(matvec: Any, b: Any, **_: Any) -> Any:
        # what jaxopt takes by default, with the tolerance asked for
        return jaxopt.linear_solve.solve_normal_cg(matvec, b, tol=tols[-1], maxiter=MOST)

    return getattr(jaxopt, name)(step, tol=tols[0], maxiter=MOST, implicit_diff_solve=adjoint)


PEERS = (
    Peer(PUBLISHED, ("torch",), _published, images=True),
    Peer(BEST, ("torch",), _best, images=True, dense=False, passes=1),
    Peer(REFLECTED, ("torch",), _reflected, images=False, passes=1),
    Peer("TorchDEQ, Anderson", ("torch", "torchdeq"), _torchdeq("anderson"), images=False),
    Peer("TorchDEQ, Broyden", ("torch", "torchdeq"), _torchdeq("broyden"), images=False),
    Peer("jaxopt, fixed-point iteration", ("jax", "jaxopt"), _jaxopt("FixedPointIteration"), images=False),
    Peer("jaxopt, Anderson", ("jax", "jaxopt"), _jaxopt("AndersonAcceleration"), images=False),
)
