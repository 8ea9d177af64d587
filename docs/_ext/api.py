"""The API pages: one a public module, from the `__all__` of each, so that no public name is forgotten."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple

import implicitref
from implicitref import claims

NOT_FOR_IMPORT = (
    "implicitref.__main__",
    "implicitref.commands",
    "implicitref.validation",
    "implicitref.crosscheck.plugin",
)


class Entry(NamedTuple):
    """A public name, and where the object behind it is documented (another module, where it comes from there)."""

    module: str
    name: str
    kind: str
    home: str

    @property
    def path(self) -> str:
        """The dotted path under which the object is documented."""
        return f"{self.home}.{self.name}"


def public(name: str) -> bool:
    """Whether a module is one that users import."""
    return not any(name == m or name.startswith(m + ".") for m in NOT_FOR_IMPORT) and "._" not in name


@functools.cache
def modules() -> tuple[ModuleType, ...]:
    """Every public module, packages before what is in them."""
    walked = (found.name for found in pkgutil.walk_packages(implicitref.__path__, "implicitref.") if public(found.name))
    return tuple(importlib.import_module(name) for name in ("implicitref", *sorted(walked, key=lambda n: n.count("."))))


def names(module: ModuleType) -> list[str]:
    """`__all__`; without one, what the module itself defines under a name without underscore."""
    own = [
        n for n, x in vars(module).items() if not n.startswith("_") and getattr(x, "__module__", "") == module.__name__
    ]
    return sorted(getattr(module, "__all__", own))


@functools.cache
def entries() -> tuple[Entry, ...]:
    """Every public name of every public module; an object that several modules offer has the first as its home."""
    homes: dict[int, str] = {}
    return tuple(_entry(module, name, homes) for module in modules() for name in names(module))


def _entry(module: ModuleType, name: str, homes: dict[int, str]) -> Entry:
    thing = getattr(module, name) if hasattr(module, name) else importlib.import_module(f"{module.__name__}.{name}")
    kind = next((kind for kind, test in KINDS.items() if test(thing)), "data")
    if kind == "module":
        return Entry(module.__name__, name, kind, module.__name__)
    # constants are equal by value: small ones are one object under many names
    shared = kind != "data" or type(thing).__module__.startswith("implicitref.")
    home = homes.setdefault(id(thing), module.__name__) if shared else module.__name__
    return Entry(module.__name__, name, kind, home)


KINDS = {"module": inspect.ismodule, "class": inspect.isclass, "function": inspect.isfunction}
HEADINGS = {"class": "Classes", "function": "Functions", "data": "Constants and instances"}


def page(module: ModuleType) -> str:
    """One module as reStructuredText."""
    own = [entry for entry in entries() if entry.module == module.__name__]
    lines = [module.__name__, "=" * len(module.__name__), "", f".. automodule:: {module.__name__}", "   :no-members:"]
    # a function of the package may have the name of its module
    lines += ["   :no-index:", ""] if module.__name__ in documented() else [""]
    elsewhere = [e for e in own if e.kind != "module" and e.home != e.module]
    inside = [e for e in own if e.kind == "module"]
    for kind, heading in HEADINGS.items():
        chosen = [e for e in own if e.kind == kind and e.home == e.module]
        if chosen:
            lines += [heading, "-" * len(heading), "", *(line for e in chosen for line in _description(e))]
    if elsewhere:
        lines += ["Described elsewhere", "-------------------", "", *(f"* :py:obj:`{e.path}`" for e in elsewhere), ""]
    if inside:
        lines += ["Modules", "-------", "", *(f"* :py:mod:`{e.module}.{e.name}`" for e in inside), ""]
    return "\n".join(lines)


def _description(entry: Entry) -> Iterator[str]:
    path = f"{entry.module}.{entry.name}"
    if entry.kind == "data":
        thing = getattr(importlib.import_module(entry.module), entry.name)
        text = repr(thing)
        yield from (f".. py:data:: {path}", "")
        shown = f"``{text}``" if len(text) <= 90 and " at 0x" not in text and "\n" not in text else ""
        yield from (f"   {_article(type(thing).__name__)} {shown}".rstrip(" ,") + ".", "")
    else:
        yield from (f".. auto{entry.kind}:: {path}", *(["   :members:"] if entry.kind == "class" else []), "")


def _article(name: str) -> str:
    return f"{'An' if name[0].lower() in 'aeiou' else 'A'} ``{name}``,"


def documented() -> MappingProxyType[str, Entry]:
    """Dotted paths, all under which an object can be imported, to what documents it."""
    return MappingProxyType({f"{e.module}.{e.name}": e for e in entries() if e.kind != "module"})


# ------------------------------------------------------------------------------------------------
# docstrings


CODE = re.compile(r"(``.+?``|`[^`]+`_?_?)")
ID = r"(?:MON|GREEDY|FPN|JFB|NEW)-[A-Za-z0-9.-]*[A-Za-z0-9]"
CITATION = re.compile(rf"\[({ID}(?:, {ID})*)\]")


def readable(lines: list[str]) -> list[str]:
    """Docstring lines in which `*`, `|` and a trailing `_` are letters, and [ID] leads to the claim."""
    found, verbatim = [], False
    for line in re.sub(r" *\\\n *", " ", "\n".join(lines)).split("\n"):  # a backslash at its end continues a line
        verbatim = line.lstrip().startswith(">>>") or (verbatim and bool(line.strip()))
        found.append(line if verbatim else _prose(line))
    return found


# what would start emphasis or a substitution, or end a reference
MARKUP = re.compile(r"""(?<![^\s'"(\[{<\-/:])([*|]+)(?=\S)|(?<=\w)(_)(?![\w(])|(\\)""")


def _prose(line: str) -> str:
    parts = CODE.split(line)
    parts[::2] = [CITATION.sub(_cited, MARKUP.sub(_escaped, part)) for part in parts[::2]]
    return "".join(parts)


def _escaped(match: re.Match[str]) -> str:
    return "".join("\\" + sign for sign in match[0])


def _cited(match: re.Match[str]) -> str:
    known = (f":ref:`{i} <{i.lower()}>`" if i in claims.load() else i for i in match[1].split(", "))
    return f"[{', '.join(known)}]"


def _docstring(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    lines[:] = readable(lines)


def _skip(app: Any, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    # the fields of a NamedTuple are described in its docstring; what routes metadata is scikit-learn's
    routing = name.startswith("set_") and name.endswith("_request")
    return True if routing or type(thing).__name__ == "_tuplegetter" else None


def _source_page(app: Any, name: str, template: str, context: dict[str, Any], tree: Any) -> None:
    # the links back of a page of source: they have one prefix each page, whatever module describes the object
    if name.startswith("_modules/") and "body" in context:
        context["body"] = re.sub(r'(href="[^"]*/generated/(implicitref[\w.]*)\.html#)([\w.]+)"', _back, context["body"])


def _back(match: re.Match[str]) -> str:
    start, module, anchor = match.groups()
    prefix = max((m.__name__ + "." for m in modules() if anchor.startswith(m.__name__ + ".")), key=len)
    return f'{start}{module}.{anchor.removeprefix(prefix)}"'


def _write(app: Any) -> None:
    folder = Path(app.srcdir) / "api" / "generated"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {f"{module.__name__}.rst": page(module) for module in modules()}
    for stale in {path.name for path in folder.glob("*.rst")} - set(wanted):
        (folder / stale).unlink()
    for file, text in wanted.items():
        target = folder / file
        if not target.is_file() or target.read_text(encoding="utf-8") != text:
            target.write_text(text, encoding="utf-8")


def setup(app: Any) -> dict[str, bool]:
    """Write the pages before Sphinx looks for them; mend docstrings before numpydoc reads them."""
    app.connect("builder-inited", _write)
    app.connect("autodoc-process-docstring", _docstring, priority=100)
    app.connect("autodoc-skip-member", _skip)
    app.connect("html-page-context", _source_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
