"""What a check found, as data, text, JSON, Markdown and one page of HTML."""

from __future__ import annotations

import dataclasses
import html
import json
import math
from typing import Any

from .judge import Block, State
from .probes import Finding, Probe

__all__ = ["Approximation", "Report"]

SCHEMA = "implicitref-crosscheck"


@dataclasses.dataclass(frozen=True)
class Approximation:
    """How a legitimate approximation relates to the gradient.

    Attributes
    ----------
    angle : float
        To the gradient, in degrees.
    descends : bool
        Whether minus it descends here.
    guaranteed : bool or None
        Whether it must, for every loss, at the first sample; None where that was not decided.
    because : str
    """

    angle: float
    descends: bool
    guaranteed: bool | None
    because: str


@dataclasses.dataclass(frozen=True)
class Report:
    r"""The outcome of `check`.

    Attributes
    ----------
    name, kind : str
    verdict : {"pass", "fail", "inconclusive"}
    reason : str
        A sentence.
    state : State or None
        Distance of the forward pass to the equilibrium.
    blocks : tuple of Block
    diagnosis : tuple of Finding
        The most likely first; empty where nothing is wrong. "unknown" where the library has no explanation.
    probes : tuple of Probe
        Invariances.
    kinks : int
        Entries of the state at which the layer is not differentiable within rounding.
    approximation : Approximation or None
    seconds : float
    """

    name: str
    kind: str
    verdict: str
    reason: str
    state: State | None = None
    blocks: tuple[Block, ...] = ()
    diagnosis: tuple[Finding, ...] = ()
    probes: tuple[Probe, ...] = ()
    kinks: int = 0
    approximation: Approximation | None = None
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether the verdict is "pass"."""
        return self.verdict == "pass"

    def __str__(self) -> str:
        return self.to_text()

    def to_text(self) -> str:
        """For a terminal."""
        return "\n".join([f"{self.name} ({self.kind}): {self.verdict.upper()}. {self.reason}", *self._details()])

    def _details(self) -> list[str]:
        lines = [] if self.state is None else [f"  forward   {_forward(self.state)}"]
        lines += [f"  {block.name:<9} {_words(block)}" for block in self.blocks]
        for finding in self.diagnosis:
            lines += [f"  {finding.name}: {finding.says}{_source(finding)}.", f"    {_remedy(finding)}"]
        return lines + [f"  {remark}" for remark in self._remarks()]

    def _remarks(self) -> list[str]:
        remarks = [f"{p.name}: {p.difference:.1e} > {p.allowed:.1e}." for p in self.probes if not p.holds]
        remarks += [f"{self.kinks} entries at a kink: judged by the interval of Clarke."] if self.kinks else []
        return remarks + ([_approximation(self.approximation)] if self.approximation else [])

    def to_dict(self) -> dict[str, Any]:
        """For JSON; numbers that are not finite become None."""
        found = {
            **dataclasses.asdict(self),
            "state": self.state and self.state._asdict(),
            "blocks": [block._asdict() for block in self.blocks],
            "diagnosis": [finding._asdict() for finding in self.diagnosis],
            "probes": [{**probe._asdict(), "holds": probe.holds} for probe in self.probes],
        }
        cleaned: dict[str, Any] = _finite({"schema": SCHEMA, "version": 1, **found})
        return cleaned

    def to_json(self) -> str:
        """As JSON."""
        return json.dumps(self.to_dict(), indent=1)

    def to_markdown(self) -> str:
        """As Markdown, with a table of the blocks."""
        lines = [f"## {self.name} ({self.kind}): {self.verdict}", "", self.reason, ""]
        lines += [] if self.state is None else [f"Forward: {_forward(self.state)}.", ""]
        if self.blocks:
            lines += [
                "| block | verdict | relative error | allowed | cosine | best factor |",
                "|---|---|---|---|---|---|",
            ]
            lines += ["| " + " | ".join(_cells(block)) + " |" for block in self.blocks]
        lines += [f"\n**{f.name}**: {f.says}{_source(f)}. {_remedy(f)}" for f in self.diagnosis]
        lines += [f"\n{remark}" for remark in self._remarks()]
        return "\n".join(lines) + "\n"

    def to_html(self) -> str:
        """As one self-contained page: a bar a block, its error beside what is allowed, on a logarithmic scale."""
        head = f"<h1>{html.escape(self.name)} ({self.kind}): {self.verdict}</h1><p>{html.escape(self.reason)}</p>"
        state = "" if self.state is None else f"<p>Forward: {html.escape(_forward(self.state))}.</p>"
        rows = "".join(
            f"<tr class={block.verdict.split()[0]}>{''.join(f'<td>{html.escape(c)}</td>' for c in _cells(block))}"
            f"<td>{_bar(block)}</td></tr>"
            for block in self.blocks
        )
        titles = "".join(f"<th>{t}</th>" for t in ("block", "verdict", "error", "allowed", "cosine", "factor", ""))
        table = f"<table><tr>{titles}</tr>{rows}</table>" if rows else ""
        said = "".join(
            f"<h2>{html.escape(f.name)}</h2><p>{html.escape(f.says + _source(f))}.</p><p>{html.escape(_remedy(f))}</p>"
            for f in self.diagnosis
        )
        said += "".join(f"<p>{html.escape(remark)}</p>" for remark in self._remarks())
        title = html.escape(self.name)
        start = f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>"
        return f"{start}{head}{state}{table}{said}"


_STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
    "td,th{padding:.2em .8em;text-align:left}"
    ".wrong td:nth-child(2){color:#a00}.right td:nth-child(2){color:#070}"
)


def _source(finding: Finding) -> str:
    detail = f" ({finding.detail})" if finding.detail else ""
    return f"{detail} [{finding.source}]" if finding.source else detail


def _remedy(finding: Finding) -> str:
    same = f" Here the same as: {', '.join(finding.also)}." if finding.also else ""
    return finding.remedy + same


def _forward(state: State) -> str:
    how = "certified" if state.certified else "estimated"
    return (
        f"{state.verdict}: {state.distance:.1e} from the equilibrium, {state.allowed:.1e} allowed "
        f"(residual {state.residual:.1e}; the reference is {how} to {state.certificate:.1e})"
    )


def _words(block: Block) -> str:
    if block.verdict == "not given":
        return "not given"
    factor = "" if block.verdict != "wrong" else f", best factor {block.factor:.4g}"
    return f"{block.verdict}: error {block.error:.1e}, allowed {block.tolerance:.1e}, cosine {block.cosine:.6f}{factor}"


def _cells(block: Block) -> list[str]:
    numbers = (f"{block.error:.1e}", f"{block.tolerance:.1e}", f"{block.cosine:.6f}", f"{block.factor:.4g}")
    return [block.name, block.verdict, *("" if n == "nan" else n for n in numbers)]


def _bar(block: Block) -> str:
    def place(value: float) -> float:
        return 0.0 if not value > 0 else 10 * max(0.0, min(18.0, 16 + math.log10(value)))

    return (
        f'<svg width="180" height="12"><rect width="{place(block.error):.0f}" height="12" fill="#69c"/>'
        f'<rect x="{place(block.tolerance):.0f}" width="2" height="12" fill="#000"/></svg>'
    )


def _approximation(found: Approximation) -> str:
    here = "descends" if found.descends else "does not descend"
    always = {True: "guaranteed", False: "not guaranteed", None: "not decided"}[found.guaranteed]
    angle = f"{found.angle:.1f} degrees from the gradient"
    return f"A legitimate approximation: {angle}, {here} here; descent of one sample {always}: {found.because}"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
