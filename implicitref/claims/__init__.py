"""The register of claims: every statement of the papers, what is true of it, and where it is coded, tested, validated.

`load` reads claims.toml; `validation` is the module that checks the claims numerically.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import sys
import tomllib
from importlib import resources
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

__all__ = ["STATUSES", "Claim", "anchor", "entries", "formulas", "load", "validation"]

STATUSES = ("holds", "corrected", "false", "definition")


@dataclasses.dataclass(frozen=True)
class Claim:
    """One entry of the register; formulas and remarks in plain text.

    Attributes
    ----------
    id : str
    covers : tuple of str
        Further ids that this entry answers for.
    title, source, hypotheses, as_printed, as_implemented : str
    status : str
        holds: true as printed, under the hypotheses. corrected: true after the change shown in `as_implemented`.
        false: not true, and nothing close to it is. definition: nothing to prove.
    code, tests : tuple of str
        Dotted paths; test files, or file::name.
    validation : str
        module:function of `implicitref.validation`, or empty.
    formula, formula_printed : tuple of str
        What is implemented, and what the paper prints where that differs: LaTeX, a string a line, from formulas.toml.
    """

    id: str
    title: str
    source: str
    status: str
    as_implemented: str
    hypotheses: str = ""
    as_printed: str = ""
    covers: tuple[str, ...] = ()
    code: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    validation: str = ""
    formula: tuple[str, ...] = ()
    formula_printed: tuple[str, ...] = ()

    @property
    def ids(self) -> tuple[str, ...]:
        """All ids that this entry answers for, its own first."""
        return (self.id, *self.covers)

    @property
    def docs(self) -> str:
        """Where the documentation shows this entry: the `anchor` of its own id."""
        return anchor(self.id)


def anchor(identifier: str) -> str:
    """Where the documentation speaks of an id: one page a paper, the id in small letters.

    Examples
    --------
    >>> anchor("MON-Eq1"), anchor("NEW-cert-C1")
    ('papers/mon.html#mon-eq1', 'papers/new.html#new-cert-c1')
    """
    name = identifier.lower()
    return f"papers/{name.partition('-')[0]}.html#{name}"


@functools.cache
def entries() -> tuple[Claim, ...]:
    """Every entry, in the order of the register.

    Raises
    ------
    ValueError
        An entry has an unknown status, or two entries answer for one id.
    """
    found = tuple(_claim(table) for table in _read("claims.toml")["claim"])
    seen: set[str] = set()
    for claim in found:
        if claim.status not in STATUSES:
            raise ValueError(f"{claim.id}: status must be one of {', '.join(STATUSES)}; got {claim.status!r}.")
        if seen & set(claim.ids):
            raise ValueError(f"two entries answer for {', '.join(sorted(seen & set(claim.ids)))}.")
        seen |= set(claim.ids)
    return found


@functools.cache
def formulas() -> dict[str, dict[str, tuple[str, ...]]]:
    r"""The formulas by the id of their entry, under the names of the attributes of `Claim`.

    Examples
    --------
    >>> formulas()["MON-EqA8"]["formula"]
    ('0 \\in (A + B)(x)',)
    """
    return {
        identifier: {"formula": tuple(table["formula"]), "formula_printed": tuple(table.get("printed", ()))}
        for identifier, table in _read("formulas.toml").items()
    }


def load() -> MappingProxyType[str, Claim]:
    """The register by id; an id that an entry covers leads to that entry.

    Examples
    --------
    >>> load()["MON-Alg4"].status
    'corrected'
    >>> load()["MON-Eq6"].id
    'MON-Prop1'
    """
    return MappingProxyType({identifier: claim for claim in entries() for identifier in claim.ids})


def validation() -> ModuleType:
    """The module implicitref.validation: installed with the wheel, or the folder beside the package in a checkout.

    Raises
    ------
    ModuleNotFoundError
        Neither is there.
    """
    name = "implicitref.validation"
    if name in sys.modules or importlib.util.find_spec(name) is not None:
        return importlib.import_module(name)
    folder = Path(__file__).resolve().parents[2] / "validation"
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None or not (folder / "__init__.py").is_file():
        raise ModuleNotFoundError(f"the validations are not installed, and there is no folder {folder}.", name=name)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    sys.modules["implicitref"].validation = module  # type: ignore[attr-defined]
    return module


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads(resources.files(__package__).joinpath(name).read_text(encoding="utf-8"))


def _claim(table: dict[str, Any]) -> Claim:
    lists: dict[str, Any] = {key: tuple(table[key]) for key in ("covers", "code", "tests") if key in table}
    return Claim(**{**table, **lists, **formulas().get(table["id"], {})})
