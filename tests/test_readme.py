"""The README: its Python block runs, and its commands are the ones that continuous integration calls."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_python_blocks_run_one_after_another():
    code, images = blocks("python")
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    solution, grads, W = names["solution"], names["grads"], names["W"]
    assert np.all(solution.bound <= 1e-10)
    assert np.max(np.abs(solution.z - np.maximum(W.matvec(solution.z) + names["injection"], 0))) < 1e-9
    assert set(grads) == {"injection", "A", "B", "m"}
    exec(compile(images, "README.md", "exec"), names)
    z = names["solution"].z
    assert z.shape == (2, 4, 10, 10)
    assert not z[:, :, 0].any()  # the border
    pre = names["W"].matvec(z) + names["images"]
    assert np.max(np.abs(z - np.maximum(pre, 0))[:, :, 1:-1, 1:-1]) < 1e-7


@pytest.mark.parametrize("name", ["verify", "tests", "docs"])
def test_each_command_stands_under_its_mark(name):
    command = README.read_text(encoding="utf-8").split(f"<!-- {name} -->\n```sh\n", 1)[1].split("```", 1)[0]
    assert command.startswith("python3 -m venv .venv")
    assert all(line.endswith("&&") for line in command.splitlines()[:-1])


def test_every_linked_file_exists():
    links = re.findall(r"\]\(((?!https?:)[^)]+)\)", README.read_text(encoding="utf-8"))
    assert links
    assert all((ROOT / link).exists() for link in links), links
