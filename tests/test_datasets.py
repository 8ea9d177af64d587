"""Data sets: what is read, and what is refused with the name of the file."""

from __future__ import annotations

import gzip
import os
import pickle
import struct
import urllib.error
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.signal
import scipy.stats
from oracles import assert_close

from implicitref import datasets, errors

REFUSED = (errors.HypothesisError, errors.ShapeError)


def images(seed=0, train=12, test=6, side=4, classes=3):
    rng = np.random.default_rng(seed)
    return {
        "x_train": rng.integers(256, size=(train, side, side)).astype(np.uint8),
        "y_train": np.arange(train) % classes,
        "x_test": rng.integers(256, size=(test, side, side)).astype(np.uint8),
        "y_test": np.arange(test) % classes,
    }


def write_idx(folder, arrays, pack=False):
    for field, stem in datasets.IDX.items():
        values = arrays[field].astype(np.uint8)
        head = bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape)
        content = head + values.tobytes()
        path = folder / (stem + ".gz" if pack else stem)
        path.write_bytes(gzip.compress(content) if pack else content)


def same(a, b):
    return all(np.array_equal(getattr(a, field), getattr(b, field)) for field in datasets.FIELDS)


def test_digits_is_fixed_stratified_and_normalised():
    data = datasets.load("digits")
    assert data.x_train.shape == (1437, 64)
    assert data.x_test.shape == (360, 64)
    assert data.x_train.dtype == np.float32
    assert data.classes == 10
    assert same(data, datasets.digits())
    assert np.bincount(data.y_test).min() >= 34
    assert_close(data.x_train.astype(float).mean(), 0.0, scale=1.0, tol=1e-3)
    assert_close(data.x_train.astype(float).std(), 1.0, scale=1.0, tol=1e-3)


def test_shapes_put_channels_first(tmp_path):
    assert datasets.digits().shape == (1, 8, 8)
    arrays = images()
    colour = {field: np.stack([arrays[field]] * 3, axis=-1) for field in ("x_train", "x_test")}
    colour["x_train"][..., 1] //= 2
    np.savez(tmp_path / "colour.npz", **{**arrays, **colour})
    np.savez(tmp_path / "grey.npz", **arrays)
    rows = {field: arrays[field].reshape(-1, 16) for field in ("x_train", "x_test")}
    np.savez(tmp_path / "rows.npz", **{**arrays, **rows})
    found = {name: datasets.load(tmp_path / f"{name}.npz") for name in ("colour", "grey", "rows")}
    assert {name: data.shape for name, data in found.items()} == {
        "colour": (3, 4, 4),
        "grey": (1, 4, 4),
        "rows": (16,),
    }
    assert same(found["grey"], found["rows"])
    data = found["colour"]
    back = (data.x_train.reshape(-1, 3, 4, 4) * data.std + data.mean) * 255
    assert_close(back, colour["x_train"].transpose(0, 3, 1, 2), scale=255.0, tol=1e-5)
    assert_close(data.black, (0 - data.mean) / data.std, scale=1.0, tol=1e-12)


def write_cifar(folder, protocol=2, count=4, keys=bytes):
    """Files with the layout of CIFAR-10's, by Python's own pickling."""
    rng, written = np.random.default_rng(0), {}
    for name in (*datasets.CIFAR_TRAIN, datasets.CIFAR_TEST):
        rows, labels = rng.integers(256, size=(count, 3072)).astype(np.uint8), list(range(count))
        content = {"batch_label": name, "labels": labels, "data": rows, "filenames": ["a.png"] * count}
        content = {k.encode() if keys is bytes else k: v for k, v in content.items()}
        (folder / name).write_bytes(pickle.dumps(content, protocol))
        written[name] = rows
    return written


@pytest.mark.parametrize("keys", [bytes, str])
@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("inside", [False, True])
def test_cifar_is_read(tmp_path, protocol, keys, inside):
    folder = tmp_path / "cifar-10-batches-py" if inside else tmp_path
    folder.mkdir(exist_ok=True)
    written = write_cifar(folder, protocol, keys=keys)
    data = datasets.load(tmp_path)
    assert (data.shape, data.classes) == ((3, 32, 32), 4)
    rows = np.concatenate([written[name] for name in datasets.CIFAR_TRAIN])
    assert_close((data.x_train * data.std + data.mean) * 255, rows, scale=255.0, tol=1e-5)
    assert np.array_equal(data.y_train, np.tile(np.arange(4), 5))


class Trap:
    """Would say so if it were unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a pickled object was built",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(Trap()), "names _pytest"),
        (pickle.dumps(os.getcwd), "names posix.getcwd|names nt.getcwd"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.uint8)}), "labels"),
        (pickle.dumps({"data": np.zeros((2, 3072)), "labels": [0, 1]}), "rows of 3072 bytes"),
        (pickle.dumps({"data": np.zeros((2, 7), np.uint8), "labels": [0, 1]}), "rows of 3072 bytes"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0]}), "for each of 1 labels"),
        (pickle.dumps([1, 2]), "no intact file"),
        (b"words", "no intact file"),
        (b"", "no intact file"),
    ],
    ids=["trap", "function", "no labels", "doubles", "small", "few labels", "list", "text", "empty"],
)
def test_other_pickles_are_refused_unbuilt(tmp_path, content, message):
    write_cifar(tmp_path)
    (tmp_path / "data_batch_3").write_bytes(content)
    with pytest.raises(errors.HypothesisError, match=message) as caught:
        datasets.load(tmp_path)
    assert "data_batch_3" in str(caught.value)


def test_truncated_and_missing_cifar_files_are_named(tmp_path):
    write_cifar(tmp_path)
    content = (tmp_path / "data_batch_2").read_bytes()
    for length in range(0, len(content), 1009):
        (tmp_path / "data_batch_2").write_bytes(content[:length])
        with pytest.raises(errors.HypothesisError, match="data_batch_2 is no intact"):
            datasets.load(tmp_path)
    (tmp_path / "data_batch_2").unlink()
    with pytest.raises(errors.HypothesisError, match="lacks data_batch_2"):
        datasets.load(tmp_path)


def write_svhn(folder, count=10):
    rng, written = np.random.default_rng(0), {}
    for part, name in datasets.SVHN.items():
        X = rng.integers(256, size=(32, 32, 3, count)).astype(np.uint8)
        scipy.io.savemat(folder / name, {"X": X, "y": np.arange(1, count + 1, dtype=np.uint8)[:, None]})
        written[part] = X
    return written


def test_svhn_is_read_and_its_ten_is_the_digit_zero(tmp_path):
    X = write_svhn(tmp_path)["train"]
    data = datasets.load(tmp_path)
    assert (data.shape, data.classes) == ((3, 32, 32), 10)
    assert np.array_equal(data.y_train, [1, 2, 3, 4, 5, 6, 7, 8, 9, 0])
    back = (data.x_train.reshape(10, 3, 32, 32) * data.std + data.mean) * 255
    assert_close(back, X.transpose(3, 2, 0, 1), scale=255.0, tol=1e-5)


def test_bad_svhn_files_are_named(tmp_path):
    write_svhn(tmp_path)
    path = tmp_path / datasets.SVHN["train"]
    scipy.io.savemat(tmp_path / "other.mat", {"Z": np.ones(2)})
    for content in (path.read_bytes()[:1000], b"", b"words", (tmp_path / "other.mat").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(errors.HypothesisError, match=r"train_32x32\.mat is no intact file of SVHN"):
            datasets.load(tmp_path)
    path.unlink()
    with pytest.raises(errors.HypothesisError, match=r"lacks train_32x32\.mat"):
        datasets.load(tmp_path)


def test_npz_is_normalised_by_the_training_images(tmp_path):
    arrays = images()
    np.savez(tmp_path / "d.npz", **arrays)
    data = datasets.load(tmp_path / "d.npz")
    scaled = arrays["x_train"] / 255
    assert (data.mean, data.std) == (round(scaled.mean(), 4), round(scaled.std(), 4))
    desired = (arrays["x_test"].reshape(6, 16) / 255 - data.mean) / data.std
    assert_close(data.x_test, desired, scale=2.0, tol=1e-6)
    assert data.y_train.dtype == np.int64
    assert data.classes == 3


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_every_source_gives_the_same_data(tmp_path, save):
    arrays = images()
    save(tmp_path / "d.npz", **arrays)
    (tmp_path / "plain").mkdir()
    (tmp_path / "packed").mkdir()
    write_idx(tmp_path / "plain", arrays)
    write_idx(tmp_path / "packed", arrays, pack=True)
    first, *others = (datasets.load(tmp_path / name) for name in ("d.npz", "plain", "packed"))
    assert all(same(first, other) for other in others)
    assert all(first.fingerprint() == other.fingerprint() for other in others)
    np.savez(tmp_path / "e.npz", **images(seed=1))
    assert datasets.load(tmp_path / "e.npz").fingerprint() != first.fingerprint()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_train": np.zeros((12, 4, 4))}, "x_train must be uint8"),
        ({"x_train": np.zeros(12, np.uint8)}, "x_train must have shape"),
        ({"x_train": np.zeros((0, 4, 4), np.uint8)}, "x_train must have shape"),
        ({"x_train": np.full((12, 4, 4), 7, np.uint8)}, "constant"),
        ({"x_test": np.zeros((6, 5, 4), np.uint8)}, "x_test must have images of the size"),
        ({"y_train": np.arange(11) % 3}, "y_train must have shape"),
        ({"y_train": (np.arange(12) % 3).astype(float)}, "y_train must be integers"),
        ({"y_train": np.arange(12) % 3 + 1}, "every label 0..k-1"),
        ({"y_train": np.arange(12) % 3 - 1}, "every label 0..k-1"),
        ({"y_train": np.arange(12) * 2}, "every label 0..k-1"),
        ({"y_test": np.arange(6)}, "y_test must lie in 0..2"),
        ({"y_test": np.arange(6) - 1}, "y_test must lie in 0..2"),
        ({"y_train": np.array([None] * 12)}, "pickled Python objects"),
    ],
)
def test_bad_contents_are_refused_by_name(tmp_path, change, message):
    path = tmp_path / "bad.npz"
    np.savez(path, **{**images(), **change})
    with pytest.raises(REFUSED, match=message) as caught:
        datasets.load(path)
    assert "bad.npz" in str(caught.value)


def test_missing_arrays_are_named(tmp_path):
    np.savez(tmp_path / "d.npz", x_train=images()["x_train"])
    with pytest.raises(errors.HypothesisError, match="lacks y_train, x_test, y_test"):
        datasets.load(tmp_path / "d.npz")


def test_every_truncation_of_an_npz_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "d.npz", **images())
    content = (tmp_path / "d.npz").read_bytes()
    for length in range(0, len(content), 37):
        (tmp_path / "t.npz").write_bytes(content[:length])
        with pytest.raises(errors.HypothesisError, match=r"t\.npz"):
            datasets.load(tmp_path / "t.npz")


def test_flipped_bytes_are_refused_or_harmless(tmp_path):
    np.savez(tmp_path / "d.npz", **images())
    content, desired = bytearray((tmp_path / "d.npz").read_bytes()), datasets.load(tmp_path / "d.npz")
    rng, refused = np.random.default_rng(0), 0
    for position in rng.integers(len(content), size=200):
        damaged = content.copy()
        damaged[position] ^= 1 << int(rng.integers(8))
        (tmp_path / "f.npz").write_bytes(damaged)
        try:
            assert same(datasets.load(tmp_path / "f.npz"), desired)
        except REFUSED:
            refused += 1
    assert refused > 100


def test_a_declared_size_beyond_the_file_is_refused_before_allocation(tmp_path):
    arrays = images()
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as archive:
        for name, value in arrays.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array_header_1_0(
                    member, {"shape": (10**12, 4, 4), "fortran_order": False, "descr": "|u1"}
                )
                member.write(value.tobytes())
    with pytest.raises(errors.HypothesisError, match="declares shape"):
        datasets.load(tmp_path / "huge.npz")


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: b"\x00\x00\x0d\x03" + c[4:], "magic number 0x00000803"),
        (lambda c: b"\x00\x00\x08\x01" + c[4:], "magic number 0x00000803"),
        (lambda c: c[:10], "truncated"),
        (lambda c: c[:-1], "but holds"),
        (lambda c: c + b"\x00", "more bytes"),
        (lambda c: c[:4] + struct.pack(">I", 2**32 - 1) + c[8:], "declares shape"),
        (lambda c: b"", "got b''"),
    ],
    ids=["double", "labels", "header", "short", "long", "huge", "empty"],
)
def test_bad_idx_files_are_refused_by_name(tmp_path, damage, message, pack):
    write_idx(tmp_path, images(), pack)
    path = tmp_path / (datasets.IDX["x_train"] + (".gz" if pack else ""))
    content = gzip.decompress(path.read_bytes()) if pack else path.read_bytes()
    path.write_bytes(gzip.compress(damage(content)) if pack else damage(content))
    with pytest.raises(errors.HypothesisError, match=message) as caught:
        datasets.load(tmp_path)
    assert path.name in str(caught.value)


def test_a_truncated_gzip_stream_is_refused(tmp_path):
    write_idx(tmp_path, images(), pack=True)
    path = tmp_path / (datasets.IDX["y_test"] + ".gz")
    for content in (path.read_bytes()[:-9], path.read_bytes()[:5], b"no gzip at all, only words"):
        path.write_bytes(content)
        with pytest.raises(errors.HypothesisError, match=path.name):
            datasets.load(tmp_path)


def test_a_missing_idx_file_is_named(tmp_path):
    write_idx(tmp_path, images())
    (tmp_path / datasets.IDX["y_test"]).unlink()
    with pytest.raises(errors.HypothesisError, match="lacks t10k-labels-idx1-ubyte"):
        datasets.load(tmp_path)


def test_unknown_sources_list_the_known_ones(tmp_path):
    with pytest.raises(errors.HypothesisError, match="digits, mnist, fashion-mnist, an npz file"):
        datasets.load(tmp_path / "nothing.npz")


def test_openml_without_a_network_says_what_to_do(monkeypatch):
    def unreachable(*args, **options):
        raise urllib.error.URLError("no route")

    monkeypatch.setattr("sklearn.datasets.fetch_openml", unreachable)
    with pytest.raises(errors.HypothesisError, match=r"'mnist' comes from OpenML.*no route.*npz"):
        datasets.load("mnist")


def test_openml_is_split_where_mnist_is(monkeypatch):
    class Fetched:
        data = np.repeat(np.arange(60_500) % 251, 4).reshape(-1, 4)
        target = (np.arange(60_500) % 10).astype(str)

    monkeypatch.setattr("sklearn.datasets.fetch_openml", lambda *args, **options: Fetched)
    data = datasets.load("fashion-mnist")
    assert data.x_train.shape == (60_000, 4)
    assert np.array_equal(data.y_test, np.arange(60_000, 60_500) % 10)


@pytest.mark.data
def test_mnist_has_its_customary_moments():
    path = Path(os.environ.get("IMPLICITREF_DATA", "")) / "mnist.npz"
    if not os.environ.get("IMPLICITREF_DATA") or not path.exists():
        pytest.skip("IMPLICITREF_DATA does not name a folder with mnist.npz")
    data = datasets.load(path)
    assert (data.mean, data.std) == (0.1307, 0.3081)
    assert data.x_train.shape == (60_000, 784)
    assert data.classes == 10


# ------------------------------------------------------------------------------------------------
# interpolation tasks


@pytest.mark.claim("GREEDY-Eq14")
def test_the_smooth_function_has_a_kink_at_zero():
    u, h = np.linspace(-5, 5, 41), 1e-6
    desired = 5 * np.real(np.exp(1j * np.pi * u)) * np.sqrt(np.exp(-np.abs(u)))
    assert_close(datasets.damped_cosine(u), desired, scale=1.0, tol=1e-14)
    slopes = [float(datasets.damped_cosine(np.float64(s * h)) - 5) / (s * h) for s in (-1, 1)]
    assert_close(np.array(slopes), np.array([2.5, -2.5]), scale=1.0, tol=1e-4)


def test_the_nonsmooth_function_is_the_customary_sawtooth_times_the_same_decay():
    u = np.random.default_rng(0).uniform(-5, 5, 200)  # away from the jumps, where rounding decides the side
    desired = 5 * scipy.signal.sawtooth(np.pi * u) * np.exp(-np.abs(u) / 2)
    assert_close(datasets.damped_sawtooth(u), desired, scale=5.0, tol=1e-13)
    for jump in (-4.0, -2.0, 0.0, 2.0, 4.0):
        assert_close(
            float(datasets.damped_sawtooth(np.float64(jump - 1e-9)) - datasets.damped_sawtooth(np.float64(jump))),
            10 * np.exp(-abs(jump) / 2),
            scale=10.0,
            tol=1e-7,
        )


@pytest.mark.parametrize("task", datasets.TASKS)
def test_samples_scatter_uniformly_about_the_function(task):
    f = datasets.TASKS[task]
    drawn = [datasets.interpolation(task, seed) for seed in range(10)]
    u, y = (np.concatenate([getattr(d, name) for d in drawn]) for name in ("x_train", "y_train"))
    for values, low, high in ((u, -5, 5), (y - f(u), -1, 1)):
        assert scipy.stats.kstest(values[:, 0], "uniform", args=(low, high - low)).pvalue > 1e-3
    assert np.array_equal(drawn[0].x_test, drawn[1].x_test)
    assert np.array_equal(drawn[0].y_test, f(drawn[0].x_test))
    assert_close(np.diff(drawn[0].x_test, axis=0), np.full((999, 1), 10 / 999), scale=1.0, tol=1e-14)
    assert drawn[0].x_test[0, 0] == -5


def test_a_resampling_is_that_of_its_seed():
    a, b, c = (datasets.interpolation("smooth", seed) for seed in (3, np.random.default_rng(3), 4))
    assert np.array_equal(a.y_train, b.y_train)
    assert not np.array_equal(a.y_train, c.y_train)


def test_unknown_tasks_list_the_known_ones():
    with pytest.raises(errors.HypothesisError, match="smooth, nonsmooth; got 'rough'"):
        datasets.interpolation("rough", 0)
