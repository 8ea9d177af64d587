"""Files that are read with suspicion and written at once: npz archives, atomic replacement."""

from __future__ import annotations

import math
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import HypothesisError

__all__ = ["DEFLATE_LIMIT", "read_npz", "write_atomically"]

DEFLATE_LIMIT = 1032  # no deflate stream expands further, so a larger declared size is a lie


def read_npz(path: str | os.PathLike[str], names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of an npz file, all or those of the given names.

    Every declared size is compared with the bytes that are there before anything is allocated, and pickled
    objects are never loaded.

    Raises
    ------
    HypothesisError
        The file is truncated, damaged, no npz archive, lacks a name or holds Python objects.
    OSError
        The file cannot be read.
    """
    path = Path(path)
    with open(path, "rb") as file:
        try:
            return _arrays(path, file, names)
        except HypothesisError:
            raise
        except DAMAGE as error:
            raise HypothesisError(f"{path} is no intact npz archive, perhaps it is truncated: {error}.") from error


# what zipfile, zlib and the npy reader raise on damaged bytes; OSError comes from seeking to nonsense
DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, ValueError, EOFError, OSError, RuntimeError, OverflowError)


def _arrays(path: Path, file: IO[bytes], names: Iterable[str] | None) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        found = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        wanted = list(found) if names is None else list(names)
        missing = [name for name in wanted if name not in found]
        if missing:
            raise HypothesisError(f"{path} lacks {', '.join(missing)}; it holds {', '.join(found) or 'nothing'}.")
        return {name: _array(path, archive, found[name]) for name in wanted}


def _array(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    if info.file_size > DEFLATE_LIMIT * (info.compress_size + 1) or info.compress_size > path.stat().st_size:
        raise HypothesisError(f"{path}: {info.filename} declares {info.file_size} bytes, more than the file can hold.")
    with archive.open(info) as member:
        shape, dtype, read = _header(member)
    if dtype.hasobject:
        raise HypothesisError(f"{path}: {info.filename} holds pickled Python objects, which are never loaded.")
    if read + math.prod(shape) * dtype.itemsize != info.file_size:
        raise HypothesisError(
            f"{path}: {info.filename} declares shape {shape} of {dtype}, but holds {info.file_size - read} bytes."
        )
    with archive.open(info) as member:
        return np.asarray(np.lib.format.read_array(member, allow_pickle=False))


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    version = np.lib.format.read_magic(member)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"npy version {version} is not supported")
    shape, _, dtype = readers[version](member)
    return shape, dtype, member.tell()


def write_atomically(path: str | os.PathLike[str], write: Callable[[IO[bytes]], object]) -> None:
    """Call ``write(file)`` on a temporary file beside `path`, flush it to the disk, then put it in place.

    Whoever opens `path`, whenever the process dies, finds the old contents or the new, never a part.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    with open(part, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    # the renaming itself reaches the disk with the folder; Windows opens no folders and needs no such call
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
