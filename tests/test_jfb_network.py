"""Fixed point networks: every gradient rule against an independent network, batches, counts, refusals."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import oracles
import pytest
import scipy.special
from oracles import assert_close, size

from implicitref import activations, errors, fixed_point, layers, networks
from implicitref.networks.jfb import LatentMap, _capped

BATCH, CLASSES, IMAGE = 3, 3, (1, 5, 6)
DATA = Path(os.environ.get("IMPLICITREF_DATA", ""))
WEIGHTS, IMAGES = DATA / "jfb_mnist_weights.npz", DATA / "mnist.npz"
needs_data = pytest.mark.skipif(
    not (os.environ.get("IMPLICITREF_DATA") and WEIGHTS.exists() and IMAGES.exists()),
    reason="IMPLICITREF_DATA names no folder with jfb_mnist_weights.npz and mnist.npz",
)


def randomised(network, seed=0):
    """Every array away from its initial value, so that every gradient matters."""
    rng = np.random.default_rng(seed)
    arrays = {k: p + 0.1 * rng.normal(size=p.shape) for k, p in network.params.items()}
    arrays |= {k: rng.uniform(0.5, 1.5, b.shape) for k, b in network.buffers.items() if k.endswith("var")}
    arrays |= {k: 0.1 * rng.normal(size=b.shape) for k, b in network.buffers.items() if k.endswith("mean")}
    return network.replace(**arrays)


def contractive(seed=0, dtype=np.float64, gamma=0.3, scale=0.3, **options):
    rng = np.random.default_rng(seed)
    network = randomised(networks.jfb_mnist(rng, IMAGE, CLASSES, gamma=gamma, dtype=dtype, **options), seed)
    network = network.replace(**{k: scale * p for k, p in network.params.items() if k.startswith("latent")})
    return network, rng.normal(size=(BATCH, *IMAGE)).astype(dtype), rng.integers(CLASSES, size=BATCH)


def state_dict(network, gamma):
    return {
        **network.params,
        **network.buffers,
        "__meta__.gamma": np.asarray(gamma),
        "__meta__.leaky_slope": np.asarray(0.1),
        "__meta__.bn_eps": np.asarray(1e-5),
    }


# ------------------------------------------------------------------------------------------------
# The network by its definition: of the package nothing is used but the arrays


def conv(x, arrays, name, padding):
    weight, bias = arrays[f"{name}.weight"], arrays[f"{name}.bias"]
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2:], axis=(2, 3))
    return np.tensordot(windows, weight, ((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2) + bias[:, None, None]


def leaky(x, slope=0.1):
    return np.where(x > 0, x, slope * x)


def bn(x, arrays, name, training):
    def over(v):
        return v[:, None, None]

    if training:
        mean, var = x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3))
    else:
        mean, var = arrays[f"{name}.running_mean"], arrays[f"{name}.running_var"]
    y = (x - over(mean)) / np.sqrt(over(var) + 1e-5)
    return over(arrays[f"{name}.weight"]) * y + over(arrays[f"{name}.bias"]) if f"{name}.weight" in arrays else y


def pooled(x, k):
    h, w = x.shape[2] // k, x.shape[3] // k
    return x[:, :, : h * k, : w * k].reshape(*x.shape[:2], h, k, w, k).max(axis=(3, 5))


def operator(z, v, arrays, gamma, training):
    w, i = z + v, 0
    while f"latent_convs.{i}.0.weight" in arrays:
        inner = leaky(conv(w, arrays, f"latent_convs.{i}.0", 1))
        w = w + leaky(leaky(conv(inner, arrays, f"latent_convs.{i}.3", 1)))
        w = bn(w, arrays, f"lat_batch_norm.{i}", training) if f"lat_batch_norm.{i}.running_mean" in arrays else w
        i += 1
    return gamma * w


def features(x, arrays, training, pool):
    d1 = pooled(leaky(bn(conv(x, arrays, "conv_d1", 1), arrays, "bn_1", training)), pool)
    return leaky(bn(conv(d1, arrays, "conv_d2", 1), arrays, "bn_2", training))


def loss_by_definition(x, labels, arrays, gamma, training=False, pool=1, steps=200):
    v = features(x, arrays, training, pool)
    z = np.zeros_like(v)
    for _ in range(steps):
        z = operator(z, v, arrays, gamma, training)
    y = leaky(conv(z, arrays, "conv_y", 0)).reshape(len(x), -1) @ arrays["fc_y.weight"].T
    return float(np.mean(scipy.special.logsumexp(y, axis=1) - y[np.arange(len(x)), labels]))


def compare_with_differences(grads, arrays, loss, tol=2e-6):
    rng = np.random.default_rng(7)
    for name, gradient in grads.items():
        direction = rng.normal(size=gradient.shape)
        desired = oracles.central_difference(
            lambda p, name=name: loss({**arrays, name: p}), arrays[name], direction, 1e-7
        )
        scale = float(np.sum(np.abs(gradient * direction)))
        assert gradient.shape == arrays[name].shape
        assert_close(np.sum(gradient * direction), desired, scale=scale + 1e-2, tol=tol)


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.claim("JFB-Eq13")
@pytest.mark.claim("JFB-Eq14")
def test_the_implicit_gradient_of_every_parameter_is_the_derivative(blocks):
    network, x, labels = contractive(blocks=blocks)
    arrays = {**network.params, **network.buffers}
    grads, solution = network.gradients(x, labels, fixed_point.implicit(tol=1e-11), tol=1e-12)
    assert set(grads) == set(network.params)
    assert solution.converged.all()
    compare_with_differences(grads, arrays, lambda a: loss_by_definition(x, labels, a, 0.3, steps=25))


@pytest.mark.claim("JFB-Eq13")
@pytest.mark.parametrize("solver", ["picard", "cgnr"])
def test_in_training_mode_too_through_the_moments_of_the_batch(solver):
    network, x, labels = contractive(blocks=2)
    arrays = {**network.params, **network.buffers}
    found = network.training_pass(x, labels, fixed_point.implicit(solver, tol=1e-10), tol=1e-11, max_iter=500)

    def loss(a):
        return loss_by_definition(x, labels, a, 0.3, training=True, steps=40)

    assert_close(found.loss, loss(arrays), scale=1.0, tol=1e-9)
    # biases in front of a batch norm do nothing: their derivative is 0, and rounding is all there is to compare
    compare_with_differences(found.grads, arrays, loss)


@pytest.mark.claim("JFB-Eq16")
@pytest.mark.claim("JFB-Eq22")
def test_jfb_is_the_zeroth_neumann_rule_and_the_series_converges_to_the_implicit_one():
    network, x, labels = contractive()
    exact = network.gradients(x, labels, "implicit:dense", tol=1e-12)[0]
    runs = {k: network.gradients(x, labels, f"neumann:{k}", tol=1e-12)[0] for k in (0, 1, 5, 60)}
    direct = network.gradients(x, labels, "jfb", tol=1e-12)[0]
    assert all(np.array_equal(direct[name], runs[0][name]) for name in direct)
    errors_of = {k: max(np.abs(g[n] - exact[n]).max() / size(exact[n]) for n in g) for k, g in runs.items()}
    assert errors_of[0] > 1e-3
    assert errors_of[5] < errors_of[1] < errors_of[0]
    assert errors_of[60] < 1e-10


@pytest.mark.parametrize("k", [0, 1, 3])
@pytest.mark.claim("JFB-Eq22")
def test_neumann_in_training_mode_is_backpropagation_through_k_more_steps(k):
    network, x, labels = contractive()
    found = network.training_pass(x, labels, f"neumann:{k}", tol=1e-12, max_iter=500)
    assert found.products == k
    z, chain = found.solution.z[0], {"Q": network.Q}
    data = network.Q.linearize(x, training=True)
    pulls, dv, total = [], 0.0, {}
    for _ in range(k + 1):
        body = network.R.linearize(z + data.y, training=True)
        z, _ = body.y, pulls.append(body.pull)
    readout = network.S.linearize(z, training=True)
    p = scipy.special.softmax(readout.y, axis=1)
    g, total = readout.pull((p - np.eye(CLASSES)[labels]) / BATCH)
    for pull in reversed(pulls):
        g, grads = pull(g)
        dv, total = dv + g, {**total, **{n: total.get(n, 0.0) + d for n, d in grads.items()}}
    total |= data.pull(dv)[1]
    assert set(chain["Q"].params) < set(total) == set(found.grads)
    for name, gradient in found.grads.items():
        assert_close(gradient, total[name], scale=size(total[name]) + 1e-3, tol=1e-9)


def test_training_mode_gives_the_next_running_moments_and_changes_nothing():
    network, x, labels = contractive()
    before = {k: b.copy() for k, b in network.buffers.items()}
    found = network.training_pass(x, labels, "jfb", tol=1e-10, max_iter=500)
    assert set(found.statistics) == set(network.buffers)
    first = conv(x, network.params, "conv_d1", 1)
    desired = 0.9 * before["bn_1.running_mean"] + 0.1 * first.mean(axis=(0, 2, 3))
    assert_close(found.statistics["bn_1.running_mean"], desired, scale=1.0, tol=1e-12)
    assert all(np.array_equal(network.buffers[k], before[k]) for k in before)


def test_the_cap_ends_a_training_solve_without_an_error_and_divergence_does_not():
    network, x, labels = contractive()
    assert network.training_pass(x, labels, "jfb", tol=1e-12, max_iter=4).solution.iterations == 4
    name = "latent_convs.0.0.weight"
    wild, x, labels = contractive(batch_norm=False, gamma=0.9)
    with pytest.raises(errors.ConvergenceError, match="diverged"):
        wild.replace(**{name: 100 * wild.params[name]}).training_pass(x, labels, "jfb", max_iter=500)
    with pytest.raises(errors.ConvergenceError, match="measured ratio"):
        wild.replace(**{name: 100 * wild.params[name]}).solve(x)


# ------------------------------------------------------------------------------------------------
# Batches, maps, backends


def test_no_answer_depends_on_its_batch_mates():
    network, _, _ = contractive(dtype=np.float32)
    x = np.random.default_rng(1).normal(size=(20, *IMAGE)).astype(np.float32)
    together, order = network.logits(x, tol=1e-4), np.random.default_rng(2).permutation(20)
    assert together.dtype == np.float32
    assert_close(network.logits(x[order], tol=1e-4), together[order], scale=1.0, tol=1e-6)
    alone = np.concatenate([network.logits(x[i : i + 1], tol=1e-4) for i in range(20)])
    assert_close(alone, together, scale=1.0, tol=1e-6)


@pytest.mark.claim("JFB-Eq6")
def test_the_map_takes_images_or_features_and_is_the_definition():
    network, x, _ = contractive(gamma=0.4)
    v, rng = network.data_map(x), np.random.default_rng(3)
    arrays = {**network.params, **network.buffers}
    z, g = rng.normal(size=v.shape), rng.normal(size=v.shape)
    assert_close(v, features(x, arrays, False, 1), scale=size(v), tol=1e-12)
    desired = operator(z, v, arrays, 0.4, False)
    for data in (x, v):
        assert_close(network.T(z, data), desired, scale=size(desired), tol=1e-12)
    assert set(network.T.vjp_params(z, x, g)) == {*network.Q.params, *network.R.params}
    assert set(network.T.vjp_params(z, v, g)) == set(network.R.params)
    u = rng.normal(size=v.shape)
    left, right = np.vdot(g, network.T.jvp_state(z, x, u)), np.vdot(network.T.vjp_state(z, x, g), u)
    assert_close(left, right, scale=np.linalg.norm(g) * np.linalg.norm(u), tol=1e-13)
    solution = fixed_point.iterate(network.T, x, 0 * v, tol=1e-6)
    assert_close(solution.z, network.solve(x, tol=1e-6).z, scale=1.0, tol=1e-12)


def test_gradients_agree_across_libraries(backend):
    network, x, labels = contractive()
    tol = 1e-9 if backend.double else 1e-3
    desired = network.gradients(x, labels, "jfb", tol=1e-11)[0]
    found = network.gradients(backend(x), labels, "jfb", tol=tol)[0]
    for name, gradient in found.items():
        assert_close(backend.numpy(gradient), desired[name], scale=10 * size(desired[name]) + 0.1, tol=10 * tol)


def test_the_explicit_counterpart_is_one_step_from_zero():
    network, x, _ = contractive()
    assert_close(network.explicit(x), network.S(network.T(0 * network.data_map(x), x)), scale=1.0, tol=1e-12)


def test_a_training_pass_applies_the_map_once_for_every_residual_and_no_more(monkeypatch):
    network, x, labels = contractive()
    desired, original, applied = network.training_pass(x, labels, "jfb", tol=1e-6), type(network.R).linearize, []

    def counted(layer, *arguments, **options):
        applied.extend([0] if layer is network.R else [])
        return original(layer, *arguments, **options)

    monkeypatch.setattr(type(network.R), "linearize", counted)
    found = network.training_pass(x, labels, "jfb", tol=1e-6)
    assert len(applied) == found.solution.iterations
    for name, gradient in found.grads.items():
        np.testing.assert_array_equal(gradient, desired.grads[name])
    # the record is that of T at z: with another state in its place the readout, and with it the loss, are others
    T = LatentMap(network.R, training=True)
    v = network.Q(x, training=True)
    assert_close(network.S(T(found.solution.z[0], v), training=True), found.logits, scale=1.0, tol=1e-12)


@pytest.mark.claim("JFB-Tab1")
@pytest.mark.parametrize(("blocks", "count"), [(1, 35_856), (2, 54_352)])
def test_counts_of_the_mnist_networks(blocks, count):
    for batch_norm in (True, False):
        network = networks.jfb_mnist(np.random.default_rng(0), blocks=blocks, batch_norm=batch_norm)
        assert sum(p.size for p in network.params.values()) == count
        assert sum(p.size for p in network.explicit.params.values()) == count
        assert {p.dtype for p in network.params.values()} == {np.dtype(np.float32)}
        assert any("lat" in name for name in network.buffers) == batch_norm


@pytest.mark.claim("JFB-Tab1")
def test_counts_of_the_svhn_network():
    # 163,744 are counted in the table; 2 x 128 of them belong to batch norms that no image passes
    for batch_norm in (True, False):
        network = networks.jfb_svhn(np.random.default_rng(0), batch_norm=batch_norm)
        assert sum(p.size for p in network.params.values()) == 163_744 - 256
        assert network.state == (64, 8, 8)


@pytest.mark.claim("JFB-Tab1")
@pytest.mark.parametrize("batch_norm", [True, False])
def test_counts_of_the_cifar10_network(batch_norm):
    network = networks.jfb_cifar10(np.random.default_rng(0), batch_norm=batch_norm)
    # 7 x 7 from colours to 35 channels, 32 + 5 double convolutions, one with stride 2, 25 x 35 features to 10 classes
    convolution = 35 * 35 * 9 + 35
    count = 35 * 3 * 49 + 35 + 2 * (32 + 5) * convolution + convolution + 10 * 25 * 35
    for params in (network.params, network.explicit.params):
        assert sum(p.size for p in params.values()) == count == 843_430
    assert network.state == (35, 10, 10)
    assert any(name.startswith("latent_batch") for name in network.buffers) == batch_norm


def test_the_cifar10_network_is_that_of_its_authors_with_the_state_times_gamma():
    # u = R(u, v), w = v + gamma u, then w := BN(leaky(w + conv(leaky(conv w)))) block after block; S reads u
    network = networks.jfb_cifar10(np.random.default_rng(5), channels=3, depth=1, blocks=2, gamma=0.3, dtype=np.float64)
    network = randomised(network)
    a, x, u = {**network.params, **network.buffers}, np.random.default_rng(6).normal(size=(2, 3, 32, 32)), 0.0

    def block(w, name, i):
        inner = leaky(conv(w, a, f"{name}_convs.{i}.0", 1))
        return bn(leaky(w + conv(inner, a, f"{name}_convs.{i}.3", 1)), a, f"{name}_batch_norm.{i}", False)

    replicated = np.pad(
        np.pad(x, ((0, 0), (0, 0), (4, 4), (4, 4)), constant_values=0.449), ((0, 0), (0, 0), (3, 3), (3, 3)), "edge"
    )
    w = leaky(conv(replicated, a, "conv_d", 0))
    for i in range(2):
        w = block(w, "data", i)
        w = w.reshape(2, 3, w.shape[2] // 2, 2, w.shape[3] // 2, 2).mean(axis=(3, 5))
    assert_close(network.data_map(x), w, scale=size(w), tol=1e-12)
    z = 0 * w
    for _ in range(3):
        z, u = network.latent(z, w), block(block(w + 0.3 * u, "latent", 0), "latent", 1)
        assert_close(z, 0.3 * u, scale=size(u), tol=1e-12)
    logits = leaky(conv(u, a, "conv_y", 1)[:, :, ::2, ::2]).reshape(2, -1) @ a["fc_y.weight"].T
    assert_close(network.S(z), logits, scale=size(logits), tol=1e-12)


@pytest.mark.claim("JFB-Eq13")
def test_residual_features_have_the_gradient_of_the_loss_in_training_mode():
    rng = np.random.default_rng(4)
    network = networks.jfb_svhn(rng, (1, 12, 16), CLASSES, widths=(2, 3, 4), gamma=0.3, dtype=np.float64)
    network = network.replace(**{k: 0.3 * p for k, p in network.params.items() if k.startswith("latent")})
    x, labels, exact = rng.normal(size=(2, 1, 12, 16)), np.array([0, 2]), fixed_point.implicit(tol=1e-11)

    def found(arrays):
        return network.replace(**arrays).training_pass(x, labels, exact, tol=1e-12, max_iter=500)

    compare_with_differences(found({}).grads, network.params, lambda arrays: found(arrays).loss)


# ------------------------------------------------------------------------------------------------
# Refusals


def weights(blocks=1):
    network = randomised(networks.jfb_mnist(np.random.default_rng(0), blocks=blocks))
    return network, state_dict(network, 0.5)


@pytest.mark.parametrize("blocks", [1, 2])
def test_a_state_dict_gives_the_network_back(blocks):
    network, arrays = weights(blocks)
    x = np.random.default_rng(1).normal(size=(2, 1, 28, 28))
    again = networks.jfb_network({**arrays, "bn_1.num_batches_tracked": np.asarray(7)})
    assert set(again.params) == set(network.params)
    z = network.data_map(x)
    assert_close(again.T(z, x), network.T(z, x), scale=size(z), tol=1e-12)


def test_missing_and_misshapen_arrays_are_named():
    _, arrays = weights()
    for name in arrays:
        kept = {k: v for k, v in arrays.items() if k != name}
        with pytest.raises(errors.HypothesisError, match=f"missing: .*{name}"):
            networks.jfb_network(kept)
    with pytest.raises(errors.ShapeError, match=r"fc_y.weight must have shape \(10, 784\); got \(10, 783\)"):
        networks.jfb_network({**arrays, "fc_y.weight": np.ones((10, 783))})
    with pytest.raises(errors.ShapeError, match=r"latent_convs.0.3.bias must have shape \(32,\)"):
        networks.jfb_network({**arrays, "latent_convs.0.3.bias": np.ones(31)})
    with pytest.raises(errors.HypothesisError, match=r"bn_1\.bias"):
        networks.jfb_network({**arrays, "bn_1.bias": np.full(16, np.nan)})
    with pytest.raises(TypeError, match="arrays must be a mapping"):
        networks.jfb_network(list(arrays))
    with pytest.raises(errors.HypothesisError, match=r"__meta__\.gamma must be a number"):
        networks.jfb_network({**arrays, "__meta__.gamma": "0.9"})


def test_wrong_inputs_are_refused_by_name():
    network, x, labels = contractive()
    with pytest.raises(errors.ShapeError, match=r"x must have shape \(batch, 1, 5, 6\)"):
        network.logits(x[:, :, :4])
    with pytest.raises(errors.ShapeError, match=r"x\[None\]"):
        network.logits(x[0])
    with pytest.raises(errors.ShapeError, match=r"z must have shape \(3, 32, 5, 6\); got \(2, 32, 5, 6\)"):
        network.T(np.zeros((2, 32, 5, 6)), x)
    for rule in ("jbf", "neumann:-1", "neumann", 3):
        with pytest.raises(errors.HypothesisError, match="rule must be"):
            network.gradients(x, labels, rule)
        with pytest.raises(errors.HypothesisError, match="rule must be"):
            network.training_pass(x, labels, rule)
    with pytest.raises(errors.HypothesisError, match="labels must lie in"):
        network.gradients(x, labels + CLASSES, "jfb")
    for empty in (lambda: network.solve(x[:0]), lambda: network.training_pass(x[:0], labels[:0], "jfb")):
        with pytest.raises(errors.ShapeError, match="x must hold at least one image"):
            empty()
    for z, data, name in (([1.0], x, "z"), (network.data_map(x), "images", "x")):
        with pytest.raises(TypeError, match=f"{name} must be an array"):
            network.T(z, data)
    with pytest.raises(errors.HypothesisError, match="tol must be a number > 0; got 'small'"):
        network.training_pass(x, labels, "jfb", tol="small")
    with pytest.raises(TypeError, match=r"bn_1\.bias must be an array"):
        network.replace(**{"bn_1.bias": [0.0] * 16})
    with pytest.raises(TypeError, match=r"no array lat_batch_norm\.0\.weight"):  # a batch norm without affine part
        network.replace(**{"lat_batch_norm.0.weight": np.ones(32)})
    with pytest.raises(TypeError, match=r"no array conv_d9.weight"):
        network.replace(**{"conv_d9.weight": np.ones(1)})
    with pytest.raises(errors.ShapeError, match=r"conv_d1.bias must have shape \(16,\)"):
        network.replace(**{"conv_d1.bias": np.ones(1)})


def test_batch_norm_refuses_a_single_value_in_training_mode():
    # images of 3 x 3 have 9 values a channel; a single value is what a batch of one leaves to a latent space of 1 x 1
    tiny = layers.BatchNorm(np.zeros(2), np.ones(2))
    network, x, labels = contractive()
    alone = network.training_pass(x[:1], labels[:1], "jfb", max_iter=200)
    assert np.isfinite(alone.loss)
    with pytest.raises(errors.HypothesisError, match="at least 2 values a channel in training mode"):
        tiny.linearize(np.ones((1, 2, 1, 1)), training=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": 1.0}, "gamma must lie in"),
        ({"blocks": 0}, "blocks"),
        ({"image": (1, 2, 9)}, "sides >= 3"),
        ({"blocks": 1.5}, "blocks must be an integer"),
        ({"image": (28, 28)}, "image must be"),
    ],
)
def test_bad_sizes_are_refused(options, message):
    with pytest.raises(errors.HypothesisError, match=message):
        networks.jfb_mnist(np.random.default_rng(0), **options)


# ------------------------------------------------------------------------------------------------
# Weights that others trained


@pytest.mark.claim("JFB-Tab2")
def test_the_papers_cg_stops_after_one_step():
    network, x, labels = contractive()
    loose = fixed_point.implicit("cgnr", tol=0.1, stop="absolute")
    runs = {name: network.training_pass(x, labels, rule, tol=1e-10, max_iter=500)
            for name, rule in (("loose", loose), ("tight", fixed_point.implicit("cgnr", tol=1e-10)))}  # fmt: skip
    assert runs["loose"].products == 4  # two for the first residual and its transpose, two for the step
    assert runs["tight"].products > 20
    name = "latent_convs.0.0.weight"
    left, right = runs["loose"].grads[name], runs["tight"].grads[name]
    assert np.linalg.norm(left - right) > 0.01 * np.linalg.norm(right)


@pytest.mark.data
@needs_data
@pytest.mark.claim("JFB-Tab1")
def test_trained_weights_on_test_images():
    with np.load(WEIGHTS) as arrays, np.load(IMAGES) as data:
        network = networks.jfb_network(arrays)
        x = ((data["x_test"][:300, None] / 255 - arrays["__meta__.norm_mean"]) / arrays["__meta__.norm_std"]).astype(
            "f4"
        )
        labels = data["y_test"][:300]
    solution = network.solve(x, tol=1e-4)
    residual = np.linalg.norm((network.T(solution.z, x) - solution.z).reshape(300, -1), axis=1)
    assert residual.max() < 1.1e-4
    together = network.logits(x, tol=1e-4)
    assert np.sum(together.argmax(axis=1) == labels) >= 297
    hundred, order = np.concatenate([network.logits(x[i : i + 100]) for i in (0, 100, 200)]), np.arange(300)[::-1]
    alone = np.concatenate([network.logits(x[i : i + 1]) for i in range(10)])
    for found, desired in ((hundred, together), (alone, together[:10]), (network.logits(x[order]), together[order])):
        assert_close(found, desired, scale=1.0, tol=1e-5)


@pytest.mark.parametrize(("last", "ends"), [(4.0, "raises"), (0.9, "goes on")])
def test_a_capped_solve_goes_on_unless_it_ends_above_its_first_residual(last, ends):
    steps = iter([1.0, 0.5, 2.0, last])
    arguments = (lambda z, v: z + next(steps)), np.zeros((1, 1)), 1e-9, 4
    if ends == "raises":
        with pytest.raises(errors.ConvergenceError):
            _capped(*arguments)
    else:
        assert_close(_capped(*arguments).residuals[:, 0], np.array([1.0, 0.5, 2.0, 0.9]), scale=1, tol=1e-12)


def test_parameters_of_the_latent_map_against_differences():
    rng = np.random.default_rng(0)
    R = layers.Sequential({"fc": layers.Affine(rng.normal(size=(3, 3))), "act": layers.Activate(activations.tanh)})
    z, v, g = rng.normal(size=(3, 5, 3))
    direction, h = rng.normal(size=(3, 3)), 1e-5

    def along(t):
        return np.sum(g * LatentMap(R.replace(**{"fc.weight": R.params["fc.weight"] + t * direction}))(z, v))

    found = LatentMap(R).vjp_params(z, v, g)["fc.weight"]
    assert_close(np.sum(found * direction), (along(h) - along(-h)) / (2 * h), scale=1, tol=1e-8)


@pytest.mark.parametrize("name", ["latent_convs.0.0.bias", "conv_d2.bias"])
def test_parameters_of_the_network_map_against_differences(name):
    rng = np.random.default_rng(0)
    net = networks.jfb_mnist(rng, (1, 6, 6), blocks=1, dtype=np.float64)
    x, z, g = rng.normal(size=(2, 1, 6, 6)), *rng.normal(size=(2, 2, *net.state))
    direction, h = rng.normal(size=net.params[name].shape), 1e-6

    def along(t):
        return np.sum(g * net.replace(**{name: net.params[name] + t * direction}).T(z, x))

    found = net.T.vjp_params(z, x, g)[name]
    assert_close(np.sum(found * direction), (along(h) - along(-h)) / (2 * h), scale=size(found), tol=1e-6)
