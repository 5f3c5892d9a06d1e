"""Bars are drawn on a terminal, and are few whole lines elsewhere."""

import io
import sys

import pytest

from seernet import progress
from seernet.progress import bar


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


def test_log_gets_few_lines_without_carriage_returns(capsys):
    with bar(1000, "measuring", "policy") as shown:
        for _ in range(1000):
            shown.set_postfix(score="0.5", refresh=False)
            shown.update()
    lines = capsys.readouterr().err.splitlines()
    assert 1 <= len(lines) <= 3
    assert all(line.startswith("measuring: ") and line.isascii() for line in lines)
    assert "1000/1000" in lines[-1]
    assert "score=0.5" in lines[-1]


def test_log_gets_a_line_at_each_interval(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with bar(3, "measuring", "policy") as shown:
        for _ in range(3):
            shown.update()
    text = capsys.readouterr().err
    assert "\r" not in text
    assert ["1/3" in text, "2/3" in text, "3/3" in text] == [True] * 3
    assert "\n\n" not in text


@pytest.mark.parametrize("total", [0, 2])
def test_terminal_is_drawn_over_and_left_clean(monkeypatch, total):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with bar(total, "training", "epoch") as shown:
        shown.update(total)
    text = terminal.getvalue()
    assert "\r" in text
    assert "\n" not in text
    assert text.rpartition("\r")[0].rpartition("\r")[2].strip() == ""


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_process_that_does_not_lead_shows_no_bar(monkeypatch, stream):
    log = stream()
    monkeypatch.setattr(sys, "stderr", log)
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        with bar(1, "training", "epoch") as shown:
            shown.update()
        assert bool(log.getvalue()) == (rank == "0")
