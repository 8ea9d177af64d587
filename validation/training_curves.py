"""Test error and loss along training runs, from the files that ``implicitref train --json`` writes.

python validation/training_curves.py mon.json conv.json tiers.json --out curves.svg
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

from implicitref.plotting import style


def draw(histories: dict[str, list[dict[str, Any]]]) -> Any:
    """Test error in percent and training loss after every epoch, against the minutes of training, one line a run."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    axes = figure.subplots(1, 2)
    for index, (name, history) in enumerate(histories.items()):
        minutes = [t / 60 for t in itertools.accumulate(epoch["seconds"] for epoch in history)]
        errors = [100 * (1 - epoch["test_accuracy"]) for epoch in history]
        for ax, values in zip(axes, (errors, [epoch["loss"] for epoch in history]), strict=True):
            ax.loglog(minutes, values, label=name, **{**style.line_style(index, len(values)), "markevery": 1})
    for ax, label in zip(axes, ("test error, %", "training loss of the epoch"), strict=True):
        ax.set(xlabel="minutes of training", ylabel=label)
        ax.xaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_major_formatter("{x:g}")
        ax.grid(alpha=0.3, which="both")
    axes[0].set_yticks([0.5, 1, 2, 5], minor=False)
    axes[0].yaxis.set_minor_formatter("")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize="small")
    return figure


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="JSON")
    parser.add_argument("--out", type=Path, default=Path("curves.svg"), help="PNG, SVG or PDF (default curves.svg)")
    options = parser.parse_args()
    found = [json.loads(path.read_text(encoding="utf-8")) for path in options.runs]
    named = {_name(run["config"]): run["history"] for run in found}
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "curves"}):  # text as text, the same file again
        draw(named).savefig(options.out, metadata={"Date": None} if options.out.suffix == ".svg" else None)


def _name(config: dict[str, Any]) -> str:
    return config["model"] + (f", {config['rule']}" if "rule" in config else "")


if __name__ == "__main__":
    main()
