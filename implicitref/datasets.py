"""Data sets: scikit-learn's embedded digits, npz and IDX files, MNIST and Fashion-MNIST from OpenML."""

from __future__ import annotations

import dataclasses
import gzip
import importlib.util
import math
import os
import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from .errors import HypothesisError, ShapeError
from .training.archives import DEFLATE_LIMIT, read_npz

__all__ = ["Dataset", "digits", "load"]

FIELDS = ("x_train", "y_train", "x_test", "y_test")
OPENML = {"mnist": "mnist_784", "fashion-mnist": "Fashion-MNIST"}
IDX = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Images as flat normalised float32 rows, labels 0..classes-1.

    Attributes
    ----------
    name : str
    x_train, x_test : float32 array (count, d)
        ``(image/top - mean)/std``, top the largest grey value.
    y_train, y_test : int64 array (count,)
    classes : int
    mean, std : float
        Of the training images over top, to four digits as is customary (0.1307 and 0.3081 for MNIST).
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: int
    mean: float
    std: float

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
        x_train, y_train, x_test, y_test (uint8 images, integer labels), or a folder with the four IDX files of MNIST,
        plain or as .gz.

    Raises
    ------
    ShapeError, HypothesisError
        The message names the file and what is wrong with it.

    Examples
    --------
    >>> data = load("digits")
    >>> data.x_train.shape, data.x_test.shape, data.classes
    ((1437, 64), (360, 64), 10)
    """
    name = os.fspath(source)
    if name == "digits":
        return digits()
    if name in OPENML:
        return _openml(name)
    path = Path(name)
    if path.is_dir():
        return _dataset(name, {field: _idx(path, stem) for field, stem in IDX.items()})
    if path.is_file():
        return _dataset(name, read_npz(path, FIELDS))
    raise HypothesisError(
        f"data must be digits, mnist, fashion-mnist, an npz file or a folder of IDX files; {name!r} is none of them, "
        "and no such file exists."
    )


def digits() -> Dataset:
    """The 1,797 images of 8 x 8 embedded in scikit-learn, a fixed stratified fifth of them for testing."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images.astype(np.uint8), labels, test_size=0.2, stratify=labels, random_state=0)
    return _dataset("digits", dict(zip(("x_train", "x_test", "y_train", "y_test"), parts, strict=True)), top=16)


def _dataset(name: str, arrays: dict[str, np.ndarray], top: int = 255) -> Dataset:
    """Checked, flattened, normalised."""
    for part in ("train", "test"):
        _check_images(name, f"x_{part}", arrays[f"x_{part}"])
        _check_labels(name, f"y_{part}", arrays[f"y_{part}"], arrays[f"x_{part}"].shape[0])
    if arrays["x_train"].shape[1:] != arrays["x_test"].shape[1:]:
        raise ShapeError(
            f"{name}: x_test must have images of the size in x_train, {arrays['x_train'].shape[1:]}; "
            f"got {arrays['x_test'].shape[1:]}."
        )
    classes = _classes(name, arrays["y_train"], arrays["y_test"])
    mean, std = _moments(name, arrays["x_train"], top)
    x_train, x_test = (_normalised(arrays[field], top, mean, std) for field in ("x_train", "x_test"))
    y_train, y_test = (arrays[field].astype(np.int64) for field in ("y_train", "y_test"))
    return Dataset(name, x_train, y_train, x_test, y_test, classes, mean, std)


def _check_images(name: str, field: str, images: np.ndarray) -> None:
    if images.dtype != np.uint8:
        raise HypothesisError(f"{name}: {field} must be uint8 grey values 0..255; got dtype {images.dtype}.")
    if images.ndim < 2 or images.size == 0:
        raise ShapeError(f"{name}: {field} must have shape (count, height, width); got {images.shape}.")


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
    parts = images[:60000], labels[:60000], images[60000:], labels[60000:]
    return _dataset(name, dict(zip(FIELDS, parts, strict=True)))
