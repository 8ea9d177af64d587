"""Data sets: scikit-learn's embedded digits, npz and IDX files, CIFAR-10 and SVHN, MNIST and Fashion-MNIST; and the
interpolation tasks of GREEDY section V-A."""

from __future__ import annotations

import dataclasses
import gzip
import importlib.util
import math
import os
import pickle
import struct
import zlib
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from .archives import DEFLATE_LIMIT, read_npz
from .errors import HypothesisError, ShapeError

__all__ = ["TASKS", "Dataset", "Interpolation", "damped_cosine", "damped_sawtooth", "digits", "interpolation", "load"]

FIELDS = ("x_train", "y_train", "x_test", "y_test")
OPENML = {"mnist": "mnist_784", "fashion-mnist": "Fashion-MNIST"}
IDX = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}
CIFAR_TRAIN, CIFAR_TEST = tuple(f"data_batch_{i}" for i in range(1, 6)), "test_batch"
SVHN = {"train": "train_32x32.mat", "test": "test_32x32.mat"}


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Images as flat normalised float32 rows, channels first, and labels 0..classes-1.

    Attributes
    ----------
    name : str
    x_train, x_test : float32 array (count, d)
        ``(image/top - mean)/std``, top the largest grey value.
    y_train, y_test : int64 array (count,)
    classes : int
    mean, std : float
        Of the training images over top, all channels together, to four digits as is customary (0.1307 and 0.3081
        for MNIST).
    shape : (channels, height, width)
        Of one image; (d,) where the source has rows.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: int
    mean: float
    std: float
    shape: tuple[int, ...]

    @property
    def black(self) -> float:
        """What the grey value 0 has become."""
        return -self.mean / self.std

    def fingerprint(self) -> int:
        """A checksum of the labels, the sizes and the first images: the same data under another name has the same."""
        parts = (self.y_train, self.y_test, self.x_train[:100], self.x_test[:100])
        return zlib.crc32(b"".join(np.ascontiguousarray(part).tobytes() for part in parts))


def load(source: str | os.PathLike[str]) -> Dataset:
    r"""A data set by name or place.

    Parameters
    ----------
    source : str or path
        "digits" (embedded), "mnist" or "fashion-mnist" (OpenML, needs a network the first time), an npz file with
        x_train, y_train, x_test, y_test (uint8 images, grey or (height, width, channels), and integer labels), or a
        folder: the four IDX files of MNIST, plain or as .gz; the python version of CIFAR-10; train_32x32.mat and
        test_32x32.mat of SVHN.

    Raises
    ------
    ShapeError, HypothesisError
        The message names the file and what is wrong with it.

    Examples
    --------
    >>> data = load("digits")
    >>> data.x_train.shape, data.x_test.shape, data.classes, data.shape
    ((1437, 64), (360, 64), 10, (1, 8, 8))
    """
    name = os.fspath(source)
    if name == "digits":
        return digits()
    if name in OPENML:
        return _openml(name)
    path = Path(name)
    if path.is_dir():
        return _dataset(name, _folder(path))
    if path.is_file():
        return _dataset(name, read_npz(path, FIELDS))
    raise HypothesisError(
        f"data must be digits, mnist, fashion-mnist, an npz file or a folder of IDX, CIFAR-10 or SVHN files; "
        f"{name!r} is none of them, and no such file exists."
    )


def _folder(path: Path) -> dict[str, np.ndarray]:
    for folder in (path, path / "cifar-10-batches-py"):
        if (folder / CIFAR_TEST).exists():
            return _cifar(folder)
    if (path / SVHN["test"]).exists():
        return _svhn(path)
    return {field: _idx(path, stem) for field, stem in IDX.items()}


def digits() -> Dataset:
    """The 1,797 images of 8 x 8 embedded in scikit-learn, a fixed stratified fifth of them for testing."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = images.astype(np.uint8).reshape(-1, 8, 8)
    parts = train_test_split(images, labels, test_size=0.2, stratify=labels, random_state=0)
    return _dataset("digits", dict(zip(("x_train", "x_test", "y_train", "y_test"), parts, strict=True)), top=16)


def _dataset(name: str, arrays: dict[str, np.ndarray], top: int = 255) -> Dataset:
    """Checked, flattened, normalised."""
    arrays = dict(arrays)
    for part in ("train", "test"):
        _check_images(name, f"x_{part}", arrays[f"x_{part}"])
        _check_labels(name, f"y_{part}", arrays[f"y_{part}"], arrays[f"x_{part}"].shape[0])
    if arrays["x_train"].shape[1:] != arrays["x_test"].shape[1:]:
        raise ShapeError(
            f"{name}: x_test must have images of the size in x_train, {arrays['x_train'].shape[1:]}; "
            f"got {arrays['x_test'].shape[1:]}."
        )
    shape = _shape(arrays["x_train"])
    for field in ("x_train", "x_test"):
        arrays[field] = _channels_first(arrays[field])
    classes = _classes(name, arrays["y_train"], arrays["y_test"])
    mean, std = _moments(name, arrays["x_train"], top)
    x_train, x_test = (_normalised(arrays[field], top, mean, std) for field in ("x_train", "x_test"))
    y_train, y_test = (arrays[field].astype(np.int64) for field in ("y_train", "y_test"))
    return Dataset(name, x_train, y_train, x_test, y_test, classes, mean, std, shape)


def _shape(images: np.ndarray) -> tuple[int, ...]:
    return tuple(_channels_first(images[:1]).shape[1:]) if images.ndim > 2 else (images.shape[1],)


def _channels_first(images: np.ndarray) -> np.ndarray:
    """(count, h, w) and (count, h, w, c) to (count, c, h, w); rows as they are."""
    return images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2) if images.ndim == 4 else images


def _check_images(name: str, field: str, images: np.ndarray) -> None:
    if images.dtype != np.uint8:
        raise HypothesisError(f"{name}: {field} must be uint8 grey values 0..255; got dtype {images.dtype}.")
    if not 2 <= images.ndim <= 4 or images.size == 0:
        raise ShapeError(
            f"{name}: {field} must have shape (count, height, width), with channels last (count, height, width, "
            f"channels), or (count, d); got {images.shape}."
        )


def _check_labels(name: str, field: str, labels: np.ndarray, count: int) -> None:
    if labels.shape != (count,):
        raise ShapeError(f"{name}: {field} must have shape ({count},), one label an image; got {labels.shape}.")
    if labels.dtype.kind not in "iu":
        raise HypothesisError(f"{name}: {field} must be integers; got dtype {labels.dtype}.")


def _classes(name: str, y_train: np.ndarray, y_test: np.ndarray) -> int:
    found = np.unique(y_train)
    if not np.array_equal(found, np.arange(found.size)):
        shown = ", ".join(map(str, found[:12]))
        raise HypothesisError(f"{name}: y_train must hold every label 0..k-1 and no other; got {shown}.")
    if not np.isin(y_test, found).all():
        raise HypothesisError(f"{name}: y_test must lie in 0..{found.size - 1}; got {y_test.min()}..{y_test.max()}.")
    return int(found.size)


def _moments(name: str, images: np.ndarray, top: int) -> tuple[float, float]:
    # exact, from the histogram of grey values, without a float copy of the images
    pieces = (np.bincount(images[i : i + 1000].ravel(), minlength=256) for i in range(0, images.shape[0], 1000))
    counts, grey = sum(pieces), np.arange(256) / top
    mean = float(counts @ grey / images.size)
    std = math.sqrt(counts @ (grey - mean) ** 2 / images.size)
    if round(std, 4) == 0:
        raise HypothesisError(f"{name}: x_train is constant, so it cannot be normalised to standard deviation 1.")
    return round(mean, 4), round(std, 4)


def _normalised(images: np.ndarray, top: int, mean: float, std: float) -> np.ndarray:
    # in place on the one float32 copy
    x = images.reshape(images.shape[0], -1).astype(np.float32)
    x /= np.float32(top)
    x -= np.float32(mean)
    x /= np.float32(std)
    return x


# ------------------------------------------------------------------------------------------------
# IDX: a big-endian header 0, 0, type (8 = uint8), axes; the sizes; the bytes


def _idx(folder: Path, stem: str) -> np.ndarray:
    for name, opened in ((stem, open), (f"{stem}.gz", gzip.open)):
        path = folder / name
        if path.is_file():
            limit = path.stat().st_size * (1 if opened is open else DEFLATE_LIMIT)
            with opened(path, "rb") as file:
                return _read_idx(path, file, limit, axes=3 if "idx3" in stem else 1)  # type: ignore[arg-type]
    raise HypothesisError(f"{folder} lacks {stem} (or {stem}.gz); it must hold {', '.join(IDX.values())}.")


def _read_idx(path: Path, file: IO[bytes], limit: int, axes: int) -> np.ndarray:
    try:
        head = file.read(4 + 4 * axes)
        if head[:4] != bytes((0, 0, 8, axes)):
            raise HypothesisError(
                f"{path} must begin with the IDX magic number {0x800 + axes:#010x}; got {head[:4]!r}."
            )
        shape = struct.unpack(f">{axes}I", head[4:])
        size = math.prod(shape)
        if size > limit:
            raise HypothesisError(f"{path} declares shape {shape}, {size} bytes, more than the file can hold.")
        content = file.read(size + 1)
    except (EOFError, OSError, zlib.error, struct.error) as error:
        raise HypothesisError(f"{path} is truncated or damaged: {error}.") from error
    if len(content) != size:
        more = "more bytes" if len(content) > size else f"{len(content)} bytes"
        raise HypothesisError(f"{path} declares shape {shape}, {size} bytes, but holds {more} after its header.")
    return np.frombuffer(content, np.uint8).reshape(shape)


# ------------------------------------------------------------------------------------------------
# CIFAR-10: pickled dictionaries with rows of 3 x 32 x 32 bytes. A pickle may call anything that it names, so that here
# it may name five things only, each replaced by one that merely keeps what it was given.


class _Pickled:
    """What a pickled array or its dtype was made from and what it was told."""

    def __init__(self, *made_from: Any) -> None:
        self.made_from = made_from

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _latin1(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("only text in latin1 is encoded")
    return text.encode("latin1")


_ARRAYS = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
_NAMED = {(module, name): _Pickled for module in _ARRAYS for name in ("ndarray", "dtype", "_reconstruct")}
_NAMED_TOO: dict[tuple[str, str], Any] = {**_NAMED, ("_codecs", "encode"): _latin1}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMED_TOO:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no file of CIFAR-10 does")
        return _NAMED_TOO[module, name]


def _cifar(folder: Path) -> dict[str, np.ndarray]:
    train = [_cifar_batch(folder / name) for name in CIFAR_TRAIN]
    x_test, y_test = _cifar_batch(folder / CIFAR_TEST)
    x_train, y_train = (np.concatenate(parts) for parts in zip(*train, strict=True))
    return dict(zip(FIELDS, (x_train, y_train, x_test, y_test), strict=True))


def _cifar_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    if not path.is_file():
        raise HypothesisError(f"{path.parent} lacks {path.name}; CIFAR-10 is {', '.join((*CIFAR_TRAIN, CIFAR_TEST))}.")
    with open(path, "rb") as file:
        try:
            return _cifar_content(_Unpickler(file, encoding="bytes").load())
        except Exception as error:  # damaged pickles raise nearly everything
            raise HypothesisError(f"{path} is no intact file of CIFAR-10: {error or type(error).__name__}.") from error


def _cifar_content(content: Any) -> tuple[np.ndarray, np.ndarray]:
    entries = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in content.items()}
    _, shape, dtype, fortran, values = entries["data"].state
    labels = np.array(entries["labels"], np.int64)
    if dtype.made_from[0] not in ("u1", b"u1") or fortran or shape != (len(labels), 3072) or labels.ndim != 1:
        raise ValueError(f"it must hold rows of 3072 bytes, one for each of {len(labels)} labels; got {shape}")
    images = np.frombuffer(values, np.uint8).reshape(-1, 3, 32, 32)
    if len(images) != len(labels):
        raise ValueError(f"it holds {len(images)} images and {len(labels)} labels")
    return images.transpose(0, 2, 3, 1), labels


# ------------------------------------------------------------------------------------------------
# SVHN: MATLAB files with X (32, 32, 3, count) and y (count, 1), where 10 is the digit 0


def _svhn(folder: Path) -> dict[str, np.ndarray]:
    parts = [part for name in SVHN.values() for part in _svhn_part(folder / name)]
    return dict(zip(FIELDS, parts, strict=True))


def _svhn_part(path: Path) -> tuple[np.ndarray, np.ndarray]:
    from scipy.io import loadmat

    if not path.is_file():
        raise HypothesisError(f"{path.parent} lacks {path.name}; SVHN is {', '.join(SVHN.values())}.")
    try:
        content = loadmat(path, variable_names=("X", "y"))
        images, labels = content["X"].transpose(3, 0, 1, 2), content["y"][:, 0]
    except Exception as error:  # whatever damaged bytes provoke in a parser
        raise HypothesisError(f"{path} is no intact file of SVHN: {error or type(error).__name__}.") from error
    return images, labels % 10


# ------------------------------------------------------------------------------------------------
# OpenML


def _openml(name: str) -> Dataset:
    from sklearn.datasets import fetch_openml

    parser = "pandas" if importlib.util.find_spec("pandas") else "liac-arff"  # the slow one needs nothing
    try:
        fetched = fetch_openml(OPENML[name], version=1, as_frame=False, parser=parser)
    except OSError as error:  # urllib's errors and timeouts are OSErrors
        raise HypothesisError(
            f"data {name!r} comes from OpenML, which could not be reached ({error}). Give an npz file or a folder of "
            "IDX files instead, or 'digits', which needs no network."
        ) from error
    images, labels = fetched.data.astype(np.uint8), fetched.target.astype(np.int64)
    side = math.isqrt(images.shape[1])
    images = images.reshape(-1, side, side)
    parts = images[:60000], labels[:60000], images[60000:], labels[60000:]
    return _dataset(name, dict(zip(FIELDS, parts, strict=True)))


# ------------------------------------------------------------------------------------------------
# interpolation of a function of one variable from noisy samples


def damped_cosine(u: np.ndarray) -> np.ndarray:
    r"""``f_1(u) = 5 cos(pi u) exp(-|u|/2)`` [GREEDY-Eq14].

    The paper calls it smooth: it is, but for a kink at 0, where the slope is 2.5 on the left and -2.5 on the right.

    Examples
    --------
    >>> damped_cosine(np.array([0.0, 0.5, 1.0])).round(4)
    array([ 5.    ,  0.    , -3.0327])
    """
    return np.asarray(5 * np.cos(np.pi * u) * np.exp(-np.abs(u) / 2))


def damped_sawtooth(u: np.ndarray) -> np.ndarray:
    r"""``f_2(u) = 5 s(u) exp(-|u|/2)`` with the sawtooth ``s(u) = 2 (u/2 - floor(u/2)) - 1``.

    Of period 2 as the cosine of `damped_cosine`; s rises from -1 to 1 and jumps back at even u. The paper says "the
    product of a sawtooth waveform and a decaying exponential" and no more; amplitude, period and decay are here those
    of its f_1.

    Examples
    --------
    >>> damped_sawtooth(np.array([-1e-9, 0.0, 1.0, 1.5])).round(4)
    array([ 5.    , -5.    ,  0.    ,  1.1809])
    """
    sawtooth = 2 * (u / 2 - np.floor(u / 2)) - 1
    return np.asarray(5 * sawtooth * np.exp(-np.abs(u) / 2))


TASKS = {"smooth": damped_cosine, "nonsmooth": damped_sawtooth}


class Interpolation(NamedTuple):
    """Noisy samples of a function of one variable, (500, 1) each, and the function itself on a grid, (1000, 1)."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def interpolation(task: str, random_state: int | np.random.Generator) -> Interpolation:
    r"""One resampling of an interpolation task of GREEDY section V-A.

    500 inputs ``u ~ U(-5, 5)`` with ``y ~ U(f(u) - 1, f(u) + 1)``; tested against f itself at 1000 uniformly spaced
    points of [-5, 5]. No constant is among the inputs: a ReLU model needs one [GREEDY-SecV-bias].

    Parameters
    ----------
    task : {"smooth", "nonsmooth"}
        `damped_cosine` or `damped_sawtooth`.
    random_state : int >= 0 or numpy Generator

    Examples
    --------
    >>> task = interpolation("smooth", 0)
    >>> task.x_train.shape, task.x_test.shape, float(np.abs(task.y_train - damped_cosine(task.x_train)).max()) < 1
    ((500, 1), (1000, 1), True)
    """
    if task not in TASKS:
        raise HypothesisError(f"task must be one of {', '.join(TASKS)}; got {task!r}.")
    rng, f = np.random.default_rng(random_state), TASKS[task]
    u, grid = rng.uniform(-5, 5, size=(500, 1)), np.linspace(-5, 5, 1000)[:, None]
    return Interpolation(u, rng.uniform(f(u) - 1, f(u) + 1), grid, f(grid))
