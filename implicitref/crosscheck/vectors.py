r"""Conformance vectors: problems, answers and what the answers are worth, as files for people who never import Python.

A folder holds manifest.json, its JSON schema, and one npz archive a case. `write` makes them, `read` refuses what does
not agree with the schema and the checksums, `verify` computes every answer again. docs/vectors.md has the protocol.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..archives import read_npz, write_atomically
from ..errors import HypothesisError
from . import vector_cases
from .vector_cases import FLAGS, Case, Problem

__all__ = ["arrays", "mismatches", "read", "schema", "verify", "violations", "write"]

FORMAT, VERSION = "implicitref-vectors", 1
MANIFEST, SCHEMA = "manifest.json", "vectors.schema.json"
LARGEST_MANIFEST, LARGEST_CASE = 32 * 2**20, 64 * 2**20  # bytes
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip archive can hold

Blocks = dict[str, np.ndarray]


# ------------------------------------------------------------------------------------------------
# Writing


def write(folder: Path) -> int:
    """Write every case into `folder`, new or empty; the number of cases.

    The bytes do not depend on the time, on the order of a dictionary or on what ran before: on one machine with one
    BLAS, two runs write the same files. Elsewhere the problems are the same numbers, answers agree to tolerance.

    Raises
    ------
    HypothesisError
        The folder holds something.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise HypothesisError(f"{folder} is not an empty folder; vectors are written into a new or an empty one.")
    (folder / "cases").mkdir(parents=True, exist_ok=True)
    entries = [_written(folder, case) for case in vector_cases.cases()]
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "generator": f"implicitref {__version__}",
        "count": len(entries),
        "notes": FLAGS,
        "cases": entries,
    }
    _store(folder / SCHEMA, _schema_text().encode())
    _store(folder / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
    return len(entries)


def _written(folder: Path, case: Case) -> dict[str, Any]:
    data = packed(arrays(case.problem) | case.answer.values)
    entry = _entry(case, hashlib.sha256(data).hexdigest())
    _store(folder / entry["file"], data)
    return entry


def _store(path: Path, data: bytes) -> None:
    write_atomically(path, lambda file: file.write(data))


def arrays(problem: Problem) -> Blocks:
    """What a case's archive holds beside the answers: ``parameter.NAME``, x and dz."""
    return {
        **{f"parameter.{name}": value for name, value in problem.params.items()},
        "x": problem.x,
        "dz": problem.dz,
    }


def packed(members: Mapping[str, np.ndarray]) -> bytes:
    """An npz archive: float64, C order, little-endian, not compressed, members by name, no time of day."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            info, member = zipfile.ZipInfo(f"{name}.npy", EPOCH), io.BytesIO()
            info.create_system, info.external_attr = 3, 0o644 << 16  # the same on every system
            np.lib.format.write_array(member, np.asarray(members[name], "<f8", order="C"), (1, 0), allow_pickle=False)
            archive.writestr(info, member.getvalue())
    return buffer.getvalue()


def _entry(case: Case, digest: str) -> dict[str, Any]:
    name, parameters, border = case.problem.activation
    variant = {"name": case.variant, "form": case.place, "detail": case.answer.detail, "alike": list(case.alike)}
    return {
        "id": case.id,
        "kind": case.problem.kind,
        "comment": case.comment,
        "activation": {"name": name, "parameters": list(parameters), "border": border},
        "settings": dict(case.problem.settings),
        "shapes": {name: list(value.shape) for name, value in (arrays(case.problem) | case.answer.values).items()},
        "hypotheses": list(case.hypotheses),
        "certificate": float(f"{case.answer.certificate:.2g}"),
        "tolerance": dict(case.tolerance),
        "flags": list(case.flags),
        "result": case.result,
        "variant": variant if case.variant else None,
        "file": f"cases/{case.id}.npz",
        "sha256": digest,
    }


# ------------------------------------------------------------------------------------------------
# Reading


def read(folder: Path) -> Iterator[tuple[dict[str, Any], Blocks]]:
    """Every entry of the manifest with its arrays, refused where anything is not as it must be.

    Raises
    ------
    HypothesisError
        The manifest is none, or breaks its schema; a file is missing, too large, outside of the folder, or not the one
        whose SHA-256 the manifest has; it is no npz archive of plain arrays, or not of those named.
    OSError
    """
    for entry in manifest(folder)["cases"]:
        yield entry, members(Path(folder), entry)


def manifest(folder: Path) -> dict[str, Any]:
    """The manifest, as its schema has it."""
    path = Path(folder) / MANIFEST
    found = _parsed(path, _bytes(path, LARGEST_MANIFEST))
    wrong = list(violations(found, schema()))
    if wrong:
        raise HypothesisError(f"{path} is no manifest of conformance vectors, version {VERSION}: {wrong[0]}.")
    ids = [entry["id"] for entry in found["cases"]]
    if len(set(ids)) != len(ids) or found["count"] != len(ids):
        raise HypothesisError(f"{path} has {len(ids)} cases, {len(set(ids))} ids, and says count {found['count']}.")
    return dict(found)


def _parsed(path: Path, data: bytes) -> Any:
    try:
        return json.loads(data, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise HypothesisError(f"{path} is no JSON: {error}.") from error


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")  # an infinite tolerance would accept everything


def _bytes(path: Path, limit: int) -> bytes:
    with open(path, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise HypothesisError(f"{path} is larger than {limit} bytes.")
    return data


def members(folder: Path, entry: Mapping[str, Any]) -> Blocks:
    """The arrays of an entry, those that its shapes name and no others."""
    path = folder / entry["file"]
    if not path.resolve().is_relative_to(folder.resolve()):
        raise HypothesisError(f"{path} leads out of the folder.")
    if hashlib.sha256(_bytes(path, LARGEST_CASE)).hexdigest() != entry["sha256"]:
        raise HypothesisError(f"{path} is not the file of the manifest: its SHA-256 differs.")
    found = read_npz(path, limit=LARGEST_CASE)
    shapes = {name: list(value.shape) for name, value in found.items()}
    if shapes != entry["shapes"] or any(value.dtype != np.float64 for value in found.values()):
        raise HypothesisError(f"{path} does not hold float64 arrays of the shapes in the manifest.")
    if not all(np.all(np.isfinite(value)) for value in found.values()):
        raise HypothesisError(f"{path} holds NaN or infinite entries.")
    return found


# ------------------------------------------------------------------------------------------------
# Verifying


def verify(folder: Path) -> Iterator[tuple[str, str]]:
    """(id, what is wrong, or nothing) for every case: its file is read, and its answer computed again.

    Raises
    ------
    HypothesisError, OSError
        There is no manifest, or it breaks its schema. What is wrong with a case is reported instead.
    """
    for entry in manifest(folder)["cases"]:
        try:
            yield entry["id"], "; ".join(_wrong(entry, members(Path(folder), entry)))
        except Exception as error:  # whatever problems that were made up provoke
            yield entry["id"], f"{type(error).__name__}: {error}"


def _wrong(entry: Mapping[str, Any], found: Mapping[str, np.ndarray]) -> list[str]:
    solved, variant = vector_cases.solve(problem(entry, found)), entry["variant"] or {"name": "", "form": 0}
    if variant["name"] not in ("", vector_cases.CLARKE, *vector_cases.STATES, *vector_cases.GRADIENTS):
        return [f"{variant['name']} is no variant that this package knows"]
    again = vector_cases.answer(solved, variant["name"], variant["form"])
    if set(entry["tolerance"]) != set(again.values):
        return [f"its tolerances are for {', '.join(entry['tolerance']) or 'nothing'}, not for every answer"]
    wrong = [f"{name} differs by {ratio:.1e} tolerances" for name, ratio in mismatches(entry, found, again.values)]
    truth = vector_cases.answer(solved).values
    if entry["result"] == "invalid" and not any(mismatches(entry, truth, again.values)):
        wrong.append("the answer that is called invalid is right")
    return wrong


def mismatches(
    entry: Mapping[str, Any], expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]
) -> list[tuple[str, float]]:
    """Blocks that are farther apart than their tolerance, in tolerances; ``||found - expected||`` over all entries."""
    distances = {name: _distance(expected[name], found[name]) / limit for name, limit in entry["tolerance"].items()}
    return [(name, ratio) for name, ratio in distances.items() if not ratio <= 1]


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b)) if a.shape == b.shape else float("inf")


def problem(entry: Mapping[str, Any], found: Mapping[str, np.ndarray]) -> Problem:
    """The problem of an entry and its arrays."""
    params = {name.removeprefix("parameter."): found[name] for name in found if name.startswith("parameter.")}
    activation = entry["activation"]
    names = activation["name"], tuple(activation["parameters"]), activation["border"]
    return Problem(entry["kind"], names, _tupled(entry["settings"]), params, found["x"], found["dz"])


def _tupled(settings: Mapping[str, Any]) -> dict[str, Any]:
    def tupled(value: Any) -> Any:
        return tuple(map(tupled, value)) if isinstance(value, list) else value

    return {name: tupled(value) for name, value in settings.items()}


# ------------------------------------------------------------------------------------------------
# The part of JSON Schema that the manifest's schema uses


def _schema_text() -> str:
    return resources.files(__package__).joinpath(SCHEMA).read_text(encoding="utf-8")


def schema() -> dict[str, Any]:
    """The manifest's JSON schema."""
    return dict(json.loads(_schema_text()))


TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "integer": (int,), "number": (int, float),
    "null": (type(None),),
}  # fmt: skip


def violations(value: Any, schema: Mapping[str, Any], at: str = "$") -> Iterator[str]:
    """Where `value` breaks a schema made of type, const, enum, pattern, bounds, items, properties.

    Examples
    --------
    >>> list(violations({"m": -1}, {"type": "object", "properties": {"m": {"exclusiveMinimum": 0}}}))
    ['$.m must be > 0']
    """
    types = schema.get("type", list(TYPES))
    allowed = [kind for name in ([types] if isinstance(types, str) else types) for kind in TYPES[name]]
    if not isinstance(value, tuple(allowed)) or isinstance(value, bool):
        yield f"{at} must be of type {types}"
        return
    yield from (f"{at} must be {what}" for holds, what in _simple(value, schema) if not holds)
    children = value if isinstance(value, dict) else {}
    yield from (
        f"{at} lacks {name}" for name in schema.get("required", ()) if isinstance(value, dict) and name not in value
    )
    known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    for name, child in children.items():
        rule = known.get(name, others)
        yield from [f"{at} has an unknown entry {name}"] if rule is False else []
        yield from violations(child, rule, f"{at}.{name}") if isinstance(rule, dict) else ()
    for i, child in enumerate(value if isinstance(value, list) else ()):
        yield from violations(child, schema.get("items", {}), f"{at}[{i}]")


def _simple(value: Any, schema: Mapping[str, Any]) -> Iterator[tuple[bool, str]]:
    if "const" in schema:
        yield value == schema["const"], repr(schema["const"])
    if "enum" in schema:
        yield value in schema["enum"], f"one of {', '.join(map(str, schema['enum']))}"
    if "pattern" in schema:
        yield re.search(schema["pattern"].replace("$", r"\Z"), value) is not None, f"like {schema['pattern']}"
    if "minimum" in schema:
        yield value >= schema["minimum"], f">= {schema['minimum']}"
    if "exclusiveMinimum" in schema:
        yield value > schema["exclusiveMinimum"], f"> {schema['exclusiveMinimum']}"
