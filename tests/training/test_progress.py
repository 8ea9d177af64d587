"""What is shown: plain lines without a terminal, a bar with one."""

from __future__ import annotations

import io

import pytest

from implicitref.training import Record, Step, progress

RECORD = Record(3, 0.1234, 0.961, 0.9553, 8.25, 4.5, 9.1e-3, 0.25, 1e-3, 1.5)
STEP = Step(0, 0.5, 128, 64, 9, 5, 2e-3, 0.5, 0.1)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(stream):
    with progress.display(5, 10, stream=stream) as show:
        for minibatch in range(10):
            show.step(STEP._replace(minibatch=minibatch))
        show.epoch(RECORD)
    return stream.getvalue()


def test_plain_lines_hold_everything():
    text = shown(io.StringIO())
    assert text == progress.line(RECORD, 5) + "\n"
    for part in ("3/5", "0.1234", "96.10 %", "95.53 %", "8.2 + 4.5", "9.1e-03", "0.25", "1.50 s"):
        assert part in text
    assert "\x1b" not in text


def test_a_terminal_gets_a_bar_with_loss_accuracy_iterations_and_error(monkeypatch):
    pytest.importorskip("rich")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "200")
    text = shown(Terminal())
    for part in ("loss 0.500", "accuracy 50.0 %", "iterations 9+5", "error <= 2e-03", "20%", "95.53 %"):
        assert part in text


def test_no_color_is_respected(monkeypatch):
    pytest.importorskip("rich")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "200")
    coloured = shown(Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    plain = shown(Terminal())
    assert "\x1b[38;5;" in coloured or "\x1b[3" in coloured
    assert "\x1b[38;5;" not in plain
    assert "\x1b[3" not in plain


def test_without_rich_a_terminal_gets_plain_lines(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert shown(Terminal()) == progress.line(RECORD, 5) + "\n"
