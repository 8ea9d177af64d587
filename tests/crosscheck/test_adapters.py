"""PyTorch and JAX layers as targets, and the arrays that DLPack refuses or hides."""

from __future__ import annotations

import importlib.metadata
import sys

import numpy as np
import pytest
import small_layers

import implicitref as ir
from implicitref.crosscheck import check, from_jax, from_torch
from implicitref.crosscheck.transfer import host, is_single

NAMES = {"W": "inner.W", "U": "inject.weight", "b": "inject.bias"}
TANH = ir.activations.tanh


def module(torch, dtype, **options):
    """A torch layer with the numbers of small_layers: unrolled, or detached, or by an implicit backward hook."""

    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.nn.ParameterDict({"W": torch.tensor(small_layers.W, dtype=dtype)})
            self.inject = torch.nn.Linear(2, 3, dtype=dtype)
            with torch.no_grad():
                self.inject.weight.copy_(torch.tensor(small_layers.U))
                self.inject.bias.copy_(torch.tensor(small_layers.b))
            self.drop = torch.nn.Dropout(options.get("drop", 0.0))

        def step(self, z, x):
            return torch.tanh(z @ self.inner["W"].T + self.inject(x))

        def forward(self, x):
            z = torch.zeros(len(x), 3, dtype=dtype)
            with torch.set_grad_enabled(not options.get("detach")):
                for _ in range(60):
                    z = self.step(z, x)
            return self.drop(self.step(z, x))

    return Layer()


@pytest.fixture
def torch():
    found = pytest.importorskip("torch")
    found.set_num_threads(1)
    return found


@pytest.mark.parametrize("precision", ["float64", "float32", "float16", "bfloat16"])
def test_torch_autograd_through_a_converged_layer_passes(torch, precision):
    layer = module(torch, getattr(torch, precision))
    target = from_torch(layer, kind="fixed-point", names=NAMES, activation=TANH, second=precision == "float64")
    report = check(target)
    assert report.verdict == "pass", report
    assert report.state.distance > 1e-4 if precision.endswith("float16") else report.state.distance < 1e-6


def test_torch_detached_iterations_are_jfb(torch):
    report = check(
        from_torch(module(torch, torch.float64, detach=True), kind="fixed-point", names=NAMES, activation=TANH)
    )
    assert report.verdict == "inconclusive"
    assert report.diagnosis[0].name == "jfb"


def test_torch_dropout_is_named_and_gone_in_evaluation_mode(torch):
    layer = module(torch, torch.float64, drop=0.5)
    keywords = {"kind": "fixed-point", "names": NAMES, "activation": TANH}
    assert check(from_torch(layer, **keywords)).diagnosis[0].name == "random"
    assert check(from_torch(layer.eval(), **keywords)).verdict == "pass"


@pytest.mark.parametrize("detach", [False, True])
def test_torch_map_known_by_its_products(torch, detach):
    layer = module(torch, torch.float64, detach=detach)
    report = check(from_torch(layer, kind="generic", T=layer.step, input_shape=(2,)))
    assert report.verdict == ("inconclusive" if detach else "pass")
    assert {block.name for block in report.blocks} == {"inner.W", "inject.weight", "inject.bias", "x"}
    assert not report.state.certified  # nothing is known of this T


def test_torch_wrong_backward_is_named(torch):
    W = torch.tensor(small_layers.W)

    class Solve(torch.autograd.Function):
        @staticmethod
        def forward(ctx, W, x):
            z = torch.linalg.solve(torch.eye(3, dtype=W.dtype) - W, x.T).T
            ctx.save_for_backward(W, z)
            return z

        @staticmethod
        def backward(ctx, dz):
            W, z = ctx.saved_tensors
            w = torch.linalg.solve(torch.eye(3, dtype=W.dtype) - W, dz.T).T  # W for W'
            return w.T @ z, w

    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.W = torch.nn.Parameter(W.clone())

        def forward(self, x):
            return Solve.apply(self.W, x)

    identity = ir.activations.leaky_relu(1.0)
    report = check(from_torch(Layer(), kind="fixed-point", activation=identity))
    assert report.verdict == "fail"
    assert report.diagnosis[0].name == "adjoint-not-transposed"


def test_jax_layer_passes_and_a_stopped_one_does_not():
    jax = pytest.importorskip("jax")
    jnp = jax.numpy

    def layer(params, x, stop=False):
        injection = x @ params["inject"][0].T + params["inject"][1]
        z = jnp.tanh(injection)
        for _ in range(1 if stop else 30):
            z = jnp.tanh((jax.lax.stop_gradient(z) if stop else z) @ params["W"].T + injection)
        return z

    names = {"W": "W", "U": "inject.0", "b": "inject.1"}
    keywords = {"kind": "fixed-point", "names": names, "activation": TANH}
    arrays = {"W": small_layers.W, "inject": (small_layers.U, small_layers.b)}
    report = check(from_jax(layer, arrays, **keywords))
    assert report.verdict == "pass", report
    single = jax.tree_util.tree_map(lambda leaf: jnp.asarray(leaf, jnp.float32), arrays)
    assert from_jax(layer, single, **keywords).dtype == np.float32
    closed = from_jax(lambda params, x: x, {}, kind="generic", T=lambda params, z, x: x, input_shape=(2,))
    assert closed.dtype == jnp.asarray(0.5).dtype  # float32 unless x64 is enabled
    stopped = check(from_jax(lambda params, x: layer(params, x, stop=True), arrays, **keywords))
    assert stopped.verdict == "inconclusive"


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_without_the_library_the_error_says_what_to_install(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=f"pip install {name}"):
        from_torch(None) if name == "torch" else from_jax(None, {})


def test_unknown_names_are_refused(torch):
    with pytest.raises(ir.HypothesisError, match=r"the module has no inner\.V; it has"):
        from_torch(module(torch, torch.float64), kind="fixed-point", names={"W": "inner.V"})


def test_arrays_that_dlpack_refuses(torch):
    x = torch.arange(6, dtype=torch.float64).reshape(2, 3)
    awkward = {
        "requires grad": x.clone().requires_grad_(True),
        "not contiguous": x.T.contiguous().T,
        "negated": torch.complex(x, -x).conj().imag,
        "bfloat16": x.to(torch.bfloat16),
        "byte-swapped": x.numpy().astype(">f8"),
        "read-only": np.broadcast_to(x.numpy(), (2, 3)),
        "list": x.tolist(),
    }
    for name, array in awkward.items():
        found = host(array)
        assert np.array_equal(found, x.numpy()), name
        assert found.dtype.isnative
        assert found.flags.writeable
    conjugated = torch.complex(x, x).conj()
    assert np.array_equal(host(conjugated), x.numpy() - 1j * x.numpy())


def test_host_is_a_copy(torch):
    x = torch.zeros(3, dtype=torch.float64)
    host(x)[0] = 1.0
    assert x[0] == 0


def test_is_single():
    x = np.random.default_rng(0).normal(size=9)
    assert is_single(x.astype(np.float32).astype(np.float64))
    assert not is_single(x)
    assert not is_single(x.astype(np.float32))  # it says so itself
    assert not is_single(np.zeros(9))


def test_the_pytest_plugin(tmp_path, capsys):
    test = tmp_path / "test_with_the_plugin.py"
    test.write_text(
        f"import sys\nsys.path.insert(0, {small_layers.__file__.rpartition('/')[0]!r})\nimport small_layers\n"
        "def test_right(crosscheck):\n    assert crosscheck(small_layers.target()).passed\n"
        "def test_wrong(crosscheck):\n"
        "    crosscheck(small_layers.target(backward=lambda x, dz: small_layers.gradient(x, -dz)))\n",
        encoding="utf-8",
    )
    # an installed package brings the plugin along; pytest refuses the same one twice
    known = any(point.name == "implicitref" for point in importlib.metadata.entry_points(group="pytest11"))
    options = [
        "-q",
        *([] if known else ["-p", "implicitref.crosscheck.plugin"]),
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-c",
        "/dev/null",
    ]
    assert pytest.main([*options, "--rootdir", str(tmp_path), str(test)]) == 1
    output = capsys.readouterr().out
    assert "1 failed, 1 passed" in output
    assert "sign: minus the gradient" in output
