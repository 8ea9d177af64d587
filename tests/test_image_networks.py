"""Networks on images: counts of Table D1, gradients against differences of an independent loss, their errors."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import oracles
import pytest
import scipy.signal
import scipy.special
from oracles import assert_close, size

from implicitref import activations, errors, networks

BATCH, CLASSES = 3, 3
SMALL = {
    "conv": (networks.mon_conv, (2, 3, 5), 2),
    "multitier": (networks.mon_multitier, (1, 4, 4), (2, 3)),
    "three tiers": (networks.mon_multitier, (2, 4, 8), (2, 1, 2)),
    "one tier": (networks.mon_multitier, (1, 3, 4), (2,)),
}


def network_of(kind, activation=activations.tanh, seed=0, m=0.5, dtype=np.float64):
    """Scales and biases away from their initial values, so that every gradient matters."""
    build, image, channels = SMALL[kind]
    rng = np.random.default_rng(seed)
    network = build(rng, image, channels, CLASSES, m, activation, dtype)
    scales = {k: np.asarray(rng.uniform(1, 3), dtype) for k in network.params if k.split(".")[0] in ("g", "gs", "h")}
    return network.replace(b=rng.normal(size=network.b.shape).astype(dtype), **scales)


def problem(kind, seed=0, **options):
    network, rng = network_of(kind, seed=seed, **options), np.random.default_rng(100 + seed)
    return network, rng.normal(size=(BATCH, *network.input_shape)), rng.integers(CLASSES, size=BATCH)


def tiers_of(kind):
    (_, height, width), channels = SMALL[kind][1:]
    counts = channels if isinstance(channels, tuple) else (channels,)
    return [(n, height // 2**i + 2, width // 2**i + 2) for i, n in enumerate(counts)]


def interior(kind):
    masks = []
    for shape in tiers_of(kind):
        mask = np.zeros(shape, dtype=bool)
        mask[:, 1:-1, 1:-1] = True
        masks.append(mask.ravel())
    return np.concatenate(masks)


def injection_by_definition(kind, x, U, b):
    """The image in its border of zeros, correlated, as SciPy has it; nothing enters the other tiers."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    first = np.stack(
        [
            [sum(scipy.signal.correlate2d(c, k, "same", "wrap") for c, k in zip(image, K, strict=True)) for K in U]
            for image in padded
        ]
    )
    rows = (first + b[:, None, None]).reshape(len(x), -1)
    return np.pad(rows, ((0, 0), (0, sum(map(math.prod, tiers_of(kind))) - rows.shape[1])))


def features_by_definition(kind, z):
    shape = tiers_of(kind)[-1]
    last = z[:, z.shape[1] - math.prod(shape) :].reshape(-1, *shape)
    if kind != "conv":
        return last.reshape(len(z), -1)
    c, height, width = shape
    windows = last[:, :, : height // 4 * 4, : width // 4 * 4].reshape(-1, c, height // 4, 4, width // 4, 4)
    return windows.mean(axis=(3, 5)).reshape(len(z), -1)


def loss_by_definition(kind, network, params, x, labels, start):
    """Cross-entropy at the equilibrium that dense Newton steps find; of the package only the matrix W is used."""
    W = network.replace(**{k: params[k] for k in network.params}).W.to_dense()
    sigma = oracles.bordered(repr(network.activation.inner), interior(kind))
    z = oracles.newton_equilibria(W, injection_by_definition(kind, x, params["U"], params["b"]), sigma, start)
    logits = features_by_definition(kind, z) @ params["readout_weight"].T + params["readout_bias"]
    return float(np.mean(scipy.special.logsumexp(logits, axis=1) - logits[np.arange(len(x)), labels]))


@pytest.mark.parametrize("activation", [activations.tanh, activations.softplus], ids=repr)
@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.claim("MON-AppD.1-readout")
@pytest.mark.claim("MON-AppD.2-weightnorm")
def test_gradient_of_every_parameter_is_the_derivative(kind, activation):
    network, x, labels = problem(kind, activation=activation)
    z = network.solve(x, tol=1e-11).z.reshape(BATCH, -1)
    loss, grads, _, _ = network.gradients(x, labels, inputs=True, tol=1e-11)
    at = {**network.params, "x": x}
    assert set(grads) == set(at)
    assert_close(loss, loss_by_definition(kind, network, at, x, labels, z), scale=1.0, tol=1e-10)
    rng = np.random.default_rng(5)
    for name, value in at.items():
        direction = rng.normal(size=value.shape)

        def moved(values, name=name):
            params = {**at, name: values}
            return loss_by_definition(kind, network, params, params["x"], labels, z)

        desired = oracles.central_difference(moved, value, direction, 1e-4)
        scale = float(np.sum(np.abs(grads[name] * direction)))
        assert grads[name].shape == value.shape
        assert_close(np.sum(grads[name] * direction), desired, scale=scale + 1e-3, tol=1e-7)


@pytest.mark.parametrize("kind", SMALL)
def test_relu_networks_have_the_gradient_of_their_own_loss(kind):
    # along one direction in the space of all parameters; this seed has no kink within the difference
    network, x, labels = problem(kind, activation=activations.relu)
    grads, rng = network.gradients(x, labels, tol=1e-11).grads, np.random.default_rng(6)
    direction = {name: rng.normal(size=value.shape) for name, value in network.params.items()}

    def loss(t):
        moved = {name: value + t * direction[name] for name, value in network.params.items()}
        return network.replace(**moved).gradients(x, labels, tol=1e-11).loss

    terms = [float(np.sum(grads[name] * direction[name])) for name in grads]
    desired = oracles.central_difference(loss, 0.0, 1.0, 1e-6)
    assert_close(sum(terms), desired, scale=float(np.sum(np.abs(terms))), tol=1e-6)


def test_a_wrong_gradient_is_noticed():
    network, x, labels = problem("conv")
    z = network.solve(x, tol=1e-11).z.reshape(BATCH, -1)
    gradient, direction = network.gradients(x, labels, tol=1e-11).grads["U"], np.ones(network.U.shape)
    desired = oracles.central_difference(
        lambda U: loss_by_definition("conv", network, {**network.params, "U": U}, x, labels, z),
        network.U, direction, 1e-4,
    )  # fmt: skip
    scale = float(np.sum(np.abs(gradient)))
    assert_close(np.sum(gradient), desired, scale=scale, tol=1e-7)
    for wrong in (-gradient, gradient[..., :2], 2 * gradient, gradient * BATCH):
        with pytest.raises(AssertionError, match="error"):
            assert_close(np.sum(wrong), desired, scale=scale, tol=1e-7)


@pytest.mark.parametrize("kind", ["conv", "multitier"])
def test_the_start_is_the_solution_where_W_does_nothing_and_elsewhere_nearer_than_zero(kind):
    network, x, _ = problem(kind, m=1.0, activation=activations.softplus)
    scales = {k: np.asarray(1e-6) for k in network.params if k.split(".")[0] in ("g", "gs", "h")}
    idle = network.replace(**scales)
    solution = idle.solve(x, tol=1e-11, alpha=0.25)
    assert_close(idle.start(idle.inject(x), 0.25), solution.u, scale=size(solution.u), tol=1e-4)
    weak = network.replace(**{name: 0.3 * network.params[name] for name in scales})
    u = weak.solve(x, tol=1e-11, alpha=0.25).u
    assert np.linalg.norm(weak.start(weak.inject(x), 0.25) - u) < 0.7 * np.linalg.norm(u)
    assert network.start(network.inject(x), None) is None


@pytest.mark.parametrize("kind", SMALL)
def test_the_border_of_the_equilibrium_is_zero(kind):
    network, x, _ = problem(kind, activation=activations.softplus)
    z = network.solve(x).z.reshape(BATCH, -1)
    assert np.array_equal(z == 0, np.broadcast_to(~interior(kind), z.shape))


@pytest.mark.parametrize("kind", SMALL)
def test_order_in_memory_does_not_matter(kind):
    network, x, labels = problem(kind)
    desired = network.gradients(x, labels, inputs=True)
    for order in (np.asfortranarray(x), x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)):
        found = network.gradients(order, labels, inputs=True)
        for name, gradient in found.grads.items():
            assert_close(gradient, desired.grads[name], scale=size(desired.grads[name]), tol=1e-12)


@pytest.mark.parametrize("kind", ["conv", "multitier"])
def test_backends_agree(kind, backend):
    network, x, labels = problem(kind, activation=activations.softplus)
    tol = 1e-9 if backend.double else 1e-3
    desired = network.gradients(x, labels, tol=1e-11, inputs=True)
    loss, grads, _, _ = network.gradients(backend(x), labels, tol=tol, inputs=True)
    assert_close(loss, desired.loss, scale=1.0, tol=10 * tol)
    for name, gradient in grads.items():
        assert_close(backend.numpy(gradient), desired.grads[name], scale=10 * size(desired.grads[name]), tol=10 * tol)


@pytest.mark.claim("MON-TabD1")
@pytest.mark.parametrize(
    ("build", "image", "channels", "count"),
    [
        (networks.mon_conv, (1, 28, 28), 56, 84_460),
        (networks.mon_conv, (1, 28, 28), 54, 79_500),  # as printed; the count printed beside it needs 56
        (networks.mon_conv, (3, 32, 32), 81, 172_218),
        (networks.mon_conv, (3, 32, 32), 200, 853_612),
        (networks.mon_multitier, (1, 28, 28), (16, 32, 32), 81_394),
        (networks.mon_multitier, (3, 32, 32), (16, 32, 60), 170_194),
        (networks.mon_multitier, (3, 32, 32), (64, 128, 128), 1_014_546),
    ],
)
def test_table_d1_counts(build, image, channels, count):
    network = build(np.random.default_rng(0), image, channels)
    assert sum(p.size for p in network.params.values()) == count
    assert {p.dtype for p in network.params.values()} == {np.dtype(np.float32)}


@pytest.mark.claim("MON-TabD1")
def test_only_56_channels_have_84460_parameters():
    counts = {n: sum(p.size for p in networks.mon_conv(np.random.default_rng(0), (1, 28, 28), n).params.values())
              for n in range(50, 62)}  # fmt: skip
    assert [n for n, count in counts.items() if count == 84_460] == [56]


@pytest.mark.parametrize(("image", "sides"), [((1, 28, 28), (30, 16, 9)), ((3, 32, 32), (34, 18, 10))])
def test_tiers_have_the_authors_sides(image, sides):
    W = networks.mon_multitier(np.random.default_rng(0), image, (2, 2, 2)).W
    assert W.shapes == [(2, side, side) for side in sides]


@pytest.mark.parametrize("kind", SMALL)
def test_replace_changes_only_what_is_named(kind):
    network = network_of(kind)
    name = next(iter(network.params))
    changed = network.replace(**{name: 2 * network.params[name]})
    for key, value in changed.params.items():
        assert np.array_equal(value, (2 if key == name else 1) * network.params[key])
    with pytest.raises(TypeError, match=r"no parameter A\.7"):
        network.replace(**{"A.7": np.ones(1)})


def test_projection_keeps_scales_positive_and_leaves_the_rest():
    network = network_of("multitier")
    params = {**network.params, "g.1": np.asarray(-1.0), "gs.0": np.asarray(0.0), "h.0": np.asarray(-2.0)}
    projected = network.projected(params)
    assert projected["g.1"] == projected["gs.0"] == 1e-6
    assert all(projected[k] is params[k] or np.array_equal(projected[k], params[k]) for k in params
               if k not in ("g.1", "gs.0"))  # fmt: skip
    network.replace(**projected)


@pytest.mark.parametrize(
    ("build", "arguments", "message"),
    [
        (networks.mon_multitier, ((1, 30, 28), (2, 2, 2)), r"divisible by 2\^\(tiers - 1\) = 4 for 3 tiers.*30 x 28"),
        (networks.mon_multitier, ((1, 28, 28), ()), "channels must hold"),
        (networks.mon_multitier, ((1, 28, 28), 16), "channels must hold"),
        (networks.mon_multitier, ((1, 28, 28), (4, 0)), r"channels\[1\] must be an integer >= 1"),
        (networks.mon_multitier, ((28, 28), (4, 4)), "image must be"),
        (networks.mon_conv, ((1, 28), 4), "image must be"),
        (networks.mon_conv, ((1, 1, 28), 4), "sides >= 2"),
        (networks.mon_conv, ((0, 8, 8), 4), "image must be"),
        (networks.mon_conv, ((1, 8, 8), 0), "channels must be an integer >= 1"),
        (networks.mon_conv, ((1, 8, 8), 4, 0), "classes must be an integer >= 1"),
    ],
)
def test_bad_sizes_are_refused_by_name(build, arguments, message):
    with pytest.raises(errors.HypothesisError, match=message):
        build(np.random.default_rng(0), *arguments)


@pytest.mark.parametrize("kind", SMALL)
def test_wrong_parameters_and_inputs_are_refused_by_name(kind):
    network = network_of(kind)
    for name in ("U", "b", "readout_weight", "readout_bias"):
        with pytest.raises(errors.ShapeError, match=name):
            network.replace(**{name: np.ones((1, *network.params[name].shape))[:, 1:]})
    c, height, width = network.input_shape
    for shape in ((c, height, width), (2, c * height * width), (2, c + 1, height, width), (2, c, height, width + 1)):
        with pytest.raises(errors.ShapeError, match=r"x must have shape \(batch, "):
            network.logits(np.ones(shape))


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize(("parts", "workers"), [(1, 1), (2, 1), (3, 2), (7, 4)])
def test_a_batch_solved_in_parts_gives_the_gradient_of_the_whole(kind, parts, workers):
    network, x, labels = problem(kind)
    whole = network.gradients(x, labels, tol=1e-11)
    found = network.accumulate(x, labels, parts, workers=workers, certify=True, tol=1e-11)
    again = network.accumulate(x, labels, parts, workers=1, tol=1e-11)
    assert all(np.array_equal(again.grads[name], gradient) for name, gradient in found.grads.items())
    assert found.loss == pytest.approx(whole.loss, rel=1e-11)
    assert found.correct == np.count_nonzero(network.logits(x, tol=1e-11).argmax(axis=1) == labels)
    assert set(found.grads) == set(network.params)
    for name, gradient in found.grads.items():
        assert_close(gradient, whole.grads[name], scale=1 + size(whole.grads[name]), tol=1e-9)
    assert found.forward_iterations <= whole.forward.iterations + 1
    assert 0 < found.certified_error <= 1e-11


def test_uneven_parts_count_by_their_samples():
    network, x, labels = problem("conv")
    losses = [network.gradients(x[i : i + 1], labels[i : i + 1], tol=1e-11).loss for i in range(BATCH)]
    assert network.accumulate(x, labels, 2, tol=1e-11).loss == pytest.approx(
        np.mean(losses), rel=1e-10
    )  # 2 + 1 samples


@pytest.mark.parametrize(("kind", "parts"), [("conv", 2), ("multitier", 3)])
def test_memory_of_a_step_is_that_of_a_part_whatever_the_iterations(kind, parts):
    # the peaks of steps whose iterations differ tenfold are one, and lie under six states besides the factors
    build, image, channels = {
        "conv": (networks.mon_conv, (1, 16, 16), 12),
        "multitier": (networks.mon_multitier, (1, 16, 16), (16, 8)),
    }[kind]
    network, rng = build(np.random.default_rng(0), image, channels), np.random.default_rng(1)
    x, labels = rng.normal(size=(192, *image)).astype(np.float32), rng.integers(10, size=192)
    network.accumulate(x[:1], labels[:1], 1, alpha=3e-2, tol=0.9, stop="relative-change")
    peaks, counts = [], []
    for tol in (2e-2, 5e-4):
        tracemalloc.start()
        found = network.accumulate(x, labels, parts, alpha=3e-2, tol=tol, stop="relative-change")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        counts.append(found.forward_iterations)
    assert counts[1] > 10 * counts[0]
    assert peaks[1] == pytest.approx(peaks[0], rel=0.02)
    assert max(peaks) < 6 * 4 * 192 * math.prod(network.W.state_shape)
