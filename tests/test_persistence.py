"""Files of models and solutions: exact, small, refused when anything is wrong with them, and never half written."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import re
import tracemalloc
import zipfile

import laws
import numpy as np
import pytest

import implicitref as ir
from implicitref import activations, fixed_point, layers, networks, persistence

RNG = np.random.default_rng(0)
B, X = RNG.normal(size=(3, 4)), RNG.normal(size=(3, 1, 8, 8)).astype(np.float32)
W, _, TANH = laws.problem("tanh", n=4, batch=3, seed=1)


def multitier():
    return networks.mon_multitier(np.random.default_rng(1), (1, 8, 8), (2, 3), activation=activations.elu(1 / 3))


def solved():
    return ir.mon.equilibrium(W, B, TANH, tol=1e-9, keep=True)


def failed():
    with pytest.raises(ir.ConvergenceError) as caught:
        ir.mon.equilibrium(W, B, TANH, tol=1e-9, max_iter=2)
    return caught.value.solution


def iterated():
    one = np.array([[1.0]])
    return fixed_point.iterate(fixed_point.OneLayer(one / 2, one, one[0], TANH), one, one, tol=1e-6, max_iter=99)


def layered():
    block = layers.residual(layers.Sequential({"": layers.Affine(np.eye(2)), "../a b": layers.Affine(2 * np.eye(2))}))
    return layers.Sequential({"res": block, "drop": layers.Dropout(0.5, np.ones((1, 2))), "s": layers.Scale(0.5)})


# name -> something, and what it does, as an array: the same bits before and after
THINGS = {
    "dense": (lambda: ir.operators.MonotoneDense(W.A, W.B, 0.3, g=0.5, h=2.0), lambda w: w.resolvent(0.7).matvec(B)),
    "conv": (lambda: networks.mon_conv(RNG, (1, 8, 8), 3), lambda net: net.logits(X, tol=1e-2, max_iter=2000)),
    "multitier": (multitier, lambda net: net.logits(X, tol=1e-2, max_iter=2000)),
    "mon": (lambda: networks.mon_fc(RNG, 64, hidden=5), lambda net: net.logits(X.reshape(3, 64), tol=1e-3)),
    "jfb": (lambda: networks.jfb_mnist(RNG, (1, 8, 8)), lambda net: net.logits(X)),
    "fpn": (lambda: networks.fpn_mnist_dense(RNG), lambda net: net.logits(np.ones((1, 1, 28, 28), np.float32), tol=1)),
    "implicit": (lambda: networks.implicit_model(RNG, 5, 4, 2, feedthrough=True), lambda model: model.predict(B)),
    "sequential": (lambda: ir.sequential.fit(B, B[:, :2], 4, 2, random_state=0), lambda model: model.predict(B)),
    "layers": (layered, lambda layer: layer(np.ones((1, 2)))),
    "solution": (solved, lambda solution: np.stack([s.z for s in solution.states] + [solution.z])),
    "its history": (solved, lambda solution: solution.residuals),
    "its bound": (solved, lambda solution: solution.bound),
    "failed": (failed, lambda solution: solution.bound),
    "backward": (lambda: ir.mon.equilibrium_vjp(W, B, TANH, B, B)[1], lambda solution: solution.residuals),
    "iterated": (iterated, lambda solution: solution.residuals),
    "componentwise": (lambda: ir.well_posed.solve(W.A / 9, B, TANH), lambda solution: solution.bound),
    "parameters": (lambda: dict(networks.mon_fc(RNG, 4, hidden=3).params), lambda params: params["readout_weight"]),
    "fortran": (lambda: np.asfortranarray(B), lambda array: array),
    "not finite": (lambda: [(np.inf, float("nan"), -0.0, None, True, 2**130)], lambda values: np.array(values[0][:3])),
}  # fmt: skip


@pytest.mark.parametrize("name", THINGS)
def test_what_is_saved_comes_back_bit_for_bit(tmp_path, name):
    make, act = THINGS[name]
    thing = make()
    ir.save(tmp_path / "t.npz", thing)
    loaded = ir.load(tmp_path / "t.npz")
    assert type(loaded) is type(thing)
    np.testing.assert_array_equal(act(loaded), act(thing), strict=True)
    assert repr(persistence.architecture(loaded)) == repr(persistence.architecture(thing))  # NaN is not NaN
    assert [path.name for path in tmp_path.iterdir()] == ["t.npz"]


def test_equal_things_give_equal_bytes(tmp_path):
    for name in "ab":
        ir.save(tmp_path / name, W)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("kind", sorted(persistence.KINDS))
def test_every_kind_is_a_record_of_the_package(kind):
    cls = persistence._class(kind)
    assert dataclasses.is_dataclass(cls) or issubclass(cls, tuple)
    assert persistence._kind_of(cls) == kind


@pytest.mark.parametrize("name", laws.ACTIVATIONS)
def test_every_activation_comes_back_with_all_digits(tmp_path, name):
    activation = laws.ACTIVATIONS[name]
    ir.save(tmp_path / "a.npz", activation)
    np.testing.assert_array_equal(ir.load(tmp_path / "a.npz").prox(B, 0.7), activation.prox(B, 0.7))


def test_arrays_of_every_library_are_written(tmp_path, backend):
    ir.save(tmp_path / "w.npz", ir.operators.MonotoneDense(backend(W.A), backend(W.B), W.m))
    dtype = np.float64 if backend.double else np.float32
    np.testing.assert_array_equal(ir.load(tmp_path / "w.npz").A, W.A.astype(dtype), strict=True)


OWN = activations.Activation("relu", np.abs, np.sign, np.abs)
LEAKY = dataclasses.replace(activations.leaky_relu(0.5), sigma=activations.leaky_relu(0.4).sigma)


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (object(), "a object cannot be saved"),
        ({"a": [1, {2, 3}]}, "a set at a.1 cannot be saved"),
        ({"a": 1j}, "a complex at a"),
        ({1: 2.0}, "a dict cannot be saved"),
        (np.array([None]), "array of object at the top"),
        (networks.mon_fc(RNG, 4, hidden=2, activation=OWN), "activation relu at activation cannot be saved"),
        (LEAKY, r"activation leaky_relu\(0.5\) at the top cannot be saved"),
        (fixed_point.Map(max, max, max), "a Map cannot be saved"),
    ],
)
def test_what_no_file_can_hold_is_refused_before_anything_is_written(tmp_path, thing, message):
    (tmp_path / "t.npz").write_bytes(b"old")
    with pytest.raises(TypeError, match=message):
        ir.save(tmp_path / "t.npz", thing)
    assert (tmp_path / "t.npz").read_bytes() == b"old"


# ------------------------------------------------------------------------------------------------
# Damage and malice


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "w.npz"
    ir.save(path, W)
    return path


def members(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def npy(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=array.dtype.hasobject)
    return file.getvalue()


def rezipped(path, files, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items() if isinstance(files, dict) else files:
            archive.writestr(name, content)
    return path


def header_of(path):
    return json.loads(str(np.load(path)["header"]))


def forged(path, saved, change, sign=True):
    """The file `saved` with another header, with a SHA-256 that fits it if `sign`."""
    header = header_of(saved)
    signature = header.pop("sha256")
    change(header)
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()
    header["sha256"] = digest if sign else signature
    return rezipped(path, members(saved) | {"header.npy": npy(np.array(json.dumps(header)))})


def at(header, *place, value):
    for key in place[:-1]:
        header = header[key]
    header[place[-1]] = value


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("version",), 2, "version 2 of the format.*this package reads version 1. Install"),
        (("schema",), "other", "was not written by implicitref"),
        (("content", "kind"), "os.system", "names the kind 'os.system'"),
        (("content", "kind"), [], "makes up nothing"),
        (("content", "kind"), "operators.MonotoneConv", "a operators.MonotoneConv has the fields A, B, m, size"),
        (("content", "fields", "m"), -1.0, "m must be a finite number > 0"),
        (("content", "fields", "m"), {"float": "nan"}, "m must be a finite number > 0"),
        (("content", "fields", "m"), {"what": 1}, "an entry with what"),
        (("content", "fields", "A"), {"array": "none"}, "makes up nothing"),
        (("content", "fields", "A"), 3, "A must be an array"),
        (("content", "fields", "A"), {"activation": ["gelu"]}, "not a proximal operator"),
        (("content", "fields"), [], "has the fields"),
        (("content", "fields"), 1, "makes up nothing"),
        (("content",), json.loads("[" * 400 + "]" * 400), None),
        (("arrays",), [], "does not hold the arrays that its header lists"),
        (("arrays", "A"), {"shape": [4, 4], "dtype": "<f8", "sha256": "0"}, "A is not the array that was written"),
        (("arrays", "../../B"), {}, "does not hold the arrays"),
    ],
)
def test_forged_headers_are_refused(tmp_path, saved, place, value, message):
    path = forged(tmp_path / "f.npz", saved, lambda header: at(header, *place, value=value))
    if message is None:  # lists in lists are harmless
        assert isinstance(ir.load(path), list)
        return
    with pytest.raises(ir.HypothesisError, match=rf"f\.npz.*{message}"):
        ir.load(path)


def test_an_altered_header_is_noticed(tmp_path, saved):
    path = forged(tmp_path / "f.npz", saved, lambda header: at(header, "content", "fields", "m", value=2.0), sign=False)
    with pytest.raises(ir.HypothesisError, match=r"the header was altered.*SHA-256"):
        ir.load(path)


def test_every_other_header_makes_a_record_or_is_refused(tmp_path, saved):
    # leaves of the tree replaced one by one by what JSON can hold
    def places(tree, place=()):
        yield place
        for key, entry in tree.items() if isinstance(tree, dict) else ():
            yield from places(entry, (*place, key))

    refused = 0
    for place in [p for p in places(header_of(saved)) if p and p[0] in ("content", "arrays")]:
        for value in (None, True, -1, 1e400, "x", [], {}, [[]], {"dict": {}}, {"tuple": 3}, {"array": []}):
            path = forged(tmp_path / "f.npz", saved, lambda h, p=place, v=value: at(h, *p, value=v))
            try:
                ir.load(path)
            except ir.HypothesisError:
                refused += 1
    assert refused > 100


def with_member(name, content):
    return lambda files: {**files, name: content}


MALICE = {
    "an array altered": (lambda files: {**files, "A.npy": npy(np.zeros((4, 4)))}, "A is not the array that was"),
    "an array of another shape": (lambda files: {**files, "A.npy": npy(np.asarray(W.A).reshape(2, 8))}, "A is not the"),
    "an array more": (with_member("C.npy", npy(np.zeros(3))), "does not hold the arrays that its header lists"),
    "an array less": (lambda files: {k: v for k, v in files.items() if k != "A.npy"}, "does not hold the arrays"),
    "a way through folders": (with_member("../../evil.npy", npy(np.zeros(3))), "does not hold the arrays"),
    "an absolute path": (with_member("/etc/passwd.npy", npy(np.zeros(3))), "does not hold the arrays"),
    "objects": (with_member("A.npy", npy(np.array([None]))), "pickled Python objects"),
    "objects as header": (with_member("header.npy", npy(np.array([None]))), "pickled Python objects"),
    "records": (with_member("A.npy", npy(np.zeros(4, "f8,f8"))), "A is not the array"),
    "text": (with_member("A.npy", b"no array"), "no intact npz archive"),
    "no header": (lambda files: {"A.npy": files["A.npy"]}, "was not written by implicitref"),
    "a header of numbers": (with_member("header.npy", npy(np.zeros(3))), "was not written by implicitref"),
    "a header without end": (with_member("header.npy", npy(np.array("[" * 100_000))), "was not written by implicitref"),
}  # fmt: skip


@pytest.mark.parametrize("name", MALICE)
def test_other_archives_are_refused(tmp_path, saved, name):
    change, message = MALICE[name]
    with pytest.raises(ir.HypothesisError, match=rf"f\.npz.*{message}"):
        ir.load(rezipped(tmp_path / "f.npz", change(members(saved))))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_arrays_of_one_name_are_refused(tmp_path, saved):
    files = [*members(saved).items(), ("A.npy", npy(np.zeros((4, 4))))]
    with pytest.raises(ir.HypothesisError, match="two arrays of one name"):
        ir.load(rezipped(tmp_path / "f.npz", files))


def bombs(saved):
    zeros = npy(np.zeros(2**24))
    liar = zeros[:128] + zeros[128:1000]  # a header that promises 128 MiB, and 872 bytes
    return {
        "compressed": (members(saved) | {"A.npy": zeros}, zipfile.ZIP_DEFLATED, "more than the"),
        "promises": (members(saved) | {"A.npy": liar}, zipfile.ZIP_STORED, "declares shape"),
    }


@pytest.mark.parametrize("name", ["compressed", "promises"])
def test_bombs_are_refused_within_bounded_memory(tmp_path, saved, name):
    files, compression, message = bombs(saved)[name]
    path = rezipped(tmp_path / "f.npz", files, compression)
    tracemalloc.start()
    try:
        with pytest.raises(ir.HypothesisError, match=message):
            ir.load(path)
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


def test_members_that_share_their_bytes_are_refused(tmp_path, saved):
    content = bytearray(saved.read_bytes())
    # the directory of the archive lets every entry begin where the first does
    places = [match.start() for match in re.finditer(b"PK\x01\x02", content)]
    for place in places:
        content[place + 42 : place + 46] = bytes(4)
    (tmp_path / "f.npz").write_bytes(content)
    with pytest.raises(ir.HypothesisError, match=r"f\.npz"):
        ir.load(tmp_path / "f.npz")


def test_every_truncation_is_refused(tmp_path, saved):
    content = saved.read_bytes()
    for length in range(0, len(content), 13):
        (tmp_path / "t.npz").write_bytes(content[:length])
        with pytest.raises(ir.HypothesisError, match=r"t\.npz"):
            ir.load(tmp_path / "t.npz")


def test_flipped_bits_are_refused_or_change_nothing(tmp_path, saved):
    content, rng, refused = saved.read_bytes(), np.random.default_rng(0), 0
    for position in rng.integers(len(content), size=200):
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(rng.integers(8))
        (tmp_path / "f.npz").write_bytes(damaged)
        try:
            np.testing.assert_array_equal(ir.load(tmp_path / "f.npz").to_dense(), W.to_dense())
        except ir.HypothesisError:
            refused += 1
    assert refused > 150


def test_a_damaged_npy_header_is_refused(tmp_path, saved):
    # the file keeps its checksums: only the text that says shape and dtype is another
    files, rng = members(saved), np.random.default_rng(0)
    for position in range(118):
        damaged = bytearray(files["A.npy"])
        damaged[position] ^= 1 << int(rng.integers(8))
        try:
            same = ir.load(rezipped(tmp_path / "f.npz", files | {"A.npy": bytes(damaged)}))
        except ir.HypothesisError:
            continue
        np.testing.assert_array_equal(same.A, W.A)  # a space more or less


def test_a_missing_file_is_an_oserror(tmp_path):
    for read in (ir.load, persistence.read_arrays):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "none.npz")


# ------------------------------------------------------------------------------------------------
# Parameters of others


def renamed(params, names):
    return {names.get(name, name): value for name, value in params.items()}


@pytest.mark.parametrize("name", ["dense", "conv", "multitier", "mon", "jfb", "implicit"])
def test_parameters_under_other_names(tmp_path, name):
    model = THINGS[name][0]()
    arrays = {key: value for key, value in {**model.params, **getattr(model, "buffers", {})}.items()}
    if name == "dense":
        arrays = {key: np.asarray(value) for key, value in arrays.items()}
    names = {key: f"module.{key}.weight" for key in arrays}
    np.savez(tmp_path / "theirs.npz", unused=np.zeros(3), **renamed({k: v + 0 * v for k, v in arrays.items()}, names))
    other = persistence.with_arrays(model, persistence.read_arrays(tmp_path / "theirs.npz"), names)
    for key, value in arrays.items():
        np.testing.assert_array_equal({**other.params, **getattr(other, "buffers", {})}[key], value)
    with pytest.raises(ir.HypothesisError, match="arrays must hold"):
        persistence.with_arrays(model, arrays, {next(iter(arrays)): "nowhere"})
    with pytest.raises(ir.HypothesisError, match="names must be among"):
        persistence.with_arrays(model, arrays, {"wings": "A"})


def test_state_dicts_of_torch(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    lin = torch.nn.Linear(4, 3).to(torch.bfloat16)
    torch.save(lin.state_dict(), tmp_path / "s.pt")
    arrays = persistence.read_arrays(tmp_path / "s.pt")
    np.testing.assert_array_equal(arrays["weight"], lin.weight.detach().float().numpy(), strict=True)
    content = (tmp_path / "s.pt").read_bytes()
    for length in range(0, len(content), 101):
        (tmp_path / "t.pt").write_bytes(content[:length])
        with pytest.raises(ir.HypothesisError, match=r"t\.pt is no state dict"):
            persistence.read_arrays(tmp_path / "t.pt")
    for thing in (lin, {"a": "text"}, [1, 2]):  # a module would have to be unpickled
        torch.save(thing, tmp_path / "t.pt")
        with pytest.raises(ir.HypothesisError, match=r"t\.pt is no state dict"):
            persistence.read_arrays(tmp_path / "t.pt")
    with pytest.raises(ir.HypothesisError, match="more than it can hold or may take"):
        persistence.read_arrays(tmp_path / "s.pt", limit=100)
    torch.save({"a": torch.zeros(1).expand(2**40)}, tmp_path / "t.pt")  # four bytes in the file
    with pytest.raises(ir.HypothesisError, match="tensors take"):
        persistence.read_arrays(tmp_path / "t.pt")


def test_without_torch_a_state_dict_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(ir.HypothesisError, match="torch, which is not installed"):
        persistence.read_arrays(tmp_path / "s.pt")


def test_the_limit_of_foreign_archives(tmp_path):
    np.savez_compressed(tmp_path / "z.npz", a=np.zeros(2**20))
    assert persistence.read_arrays(tmp_path / "z.npz")["a"].size == 2**20
    with pytest.raises(ir.HypothesisError, match="declares 8388736 bytes, more than the 1000000"):
        persistence.read_arrays(tmp_path / "z.npz", limit=1_000_000)


def test_a_copy_of_an_archive_by_numpy_is_still_read(tmp_path, saved):
    with np.load(saved) as archive:
        np.savez(tmp_path / "copy.npz", **archive)
    np.testing.assert_array_equal(ir.load(tmp_path / "copy.npz").to_dense(), W.to_dense())
