"""Files that are read with suspicion and written at once: npz archives, atomic replacement."""

from __future__ import annotations

import contextlib
import math
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from .errors import HypothesisError

__all__ = ["DEFLATE_LIMIT", "check_settings", "read_npz", "unwritable", "write_atomically", "write_npz"]

DEFLATE_LIMIT = 1032  # no deflate stream expands further, so a larger declared size is a lie


def read_npz(
    path: str | os.PathLike[str], names: Iterable[str] | None = None, limit: float = math.inf
) -> dict[str, np.ndarray]:
    """The arrays of an npz file, all or those of the given names, if together they take at most `limit` bytes.

    Every declared size is compared with the bytes that are there before anything is allocated, and pickled
    objects are never loaded.

    Raises
    ------
    HypothesisError
        The file is truncated, damaged, no npz archive, too large, lacks a name or holds Python objects.
    OSError
        The file cannot be read.
    """
    path = Path(path)
    with open(path, "rb") as file:
        try:
            return _arrays(path, file, names, limit)
        except HypothesisError:
            raise
        except Exception as error:  # damaged bytes reach zipfile, zlib and, through npy headers, Python's own parser
            raise HypothesisError(f"{path} is no intact npz archive, perhaps it is truncated: {error}.") from error


def _arrays(path: Path, file: IO[bytes], names: Iterable[str] | None, limit: float) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        found = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        if len(found) < len(archive.infolist()):
            raise HypothesisError(f"{path} holds two arrays of one name; no package that writes npz files does that.")
        wanted = list(found) if names is None else list(names)
        missing = [name for name in wanted if name not in found]
        if missing:
            raise HypothesisError(f"{path} lacks {', '.join(missing)}; it holds {', '.join(found) or 'nothing'}.")
        declared = sum(found[name].file_size for name in wanted)
        if declared > limit:
            raise HypothesisError(f"{path} declares {declared} bytes, more than the {limit} that it may take here.")
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


def write_npz(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write `arrays` to `path` in one instant, uncompressed: equal arrays give equal bytes, whenever and wherever."""

    def write(file: IO[bytes]) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for name, value in arrays.items():
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, value, allow_pickle=False)

    write_atomically(path, write)


def check_settings(path: str | os.PathLike[str], saved: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """HypothesisError naming what differs, unless the training kept in `path` had all these settings."""
    differing = sorted(name for name in settings if saved.get(name) != settings[name])
    if differing:
        found = ", ".join(f"{name} = {saved.get(name)!r} (now {settings[name]!r})" for name in differing)
        raise HypothesisError(f"{path} was trained with other settings: {found}. Give the same to resume.")


def write_atomically(path: str | os.PathLike[str], write: Callable[[IO[bytes]], object]) -> None:
    """Call ``write(file)`` on a temporary file beside `path`, flush it to the disk, then put it in place.

    Whoever opens `path`, whenever the process dies, finds the old contents or the new, never a part.
    """
    path = Path(os.path.realpath(path))  # a symbolic link stays one
    part = path.with_name(f".{path.name}.part")
    try:
        with open(part, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException as error:  # a full disk, an interrupt
        with contextlib.suppress(OSError):
            part.unlink()
        if isinstance(error, OSError):
            error.filename = os.fspath(path)  # the file that was asked for
        raise
    _sync_folder(path.parent)


def unwritable(path: str | os.PathLike[str]) -> str:
    """Why nothing can be written to `path`, in a sentence; empty where nothing speaks against it."""
    shown, path = repr(os.fspath(path)), Path(path)
    if path.is_dir():
        return f"{shown} is a folder; give the name of a file."
    folder = Path(os.path.realpath(path)).parent
    if not path.exists() and not folder.is_dir():
        return f"{shown} cannot be written: there is no such folder."
    if not os.access(path if path.exists() else folder, os.W_OK):
        return f"{shown} cannot be written: permission is missing or the file system is read-only."
    return ""


def _sync_folder(folder: Path) -> None:
    # the renaming itself reaches the disk with the folder; Windows opens no folders and needs no such call
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
