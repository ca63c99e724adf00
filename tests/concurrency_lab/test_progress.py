import io
import sys
from types import SimpleNamespace

import IPython.display
import pytest

from concurrency_lab import progress
from concurrency_lab.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True

    @property
    def screen(self):
        """The line as a terminal shows it."""
        line = ""
        for part in self.getvalue().split("\r"):
            line = part + line[len(part) :]
        return line


def stderr(monkeypatch, stream):
    """Let `progress` write to `stream`. (Pytest itself replaces sys.stderr during a test.)"""
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=stream, modules=sys.modules))
    return stream


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.delenv("CONCURRENCY_LAB_PROGRESS", raising=False)
    return stderr(monkeypatch, Terminal())


@pytest.fixture
def outputs(monkeypatch):
    """What a notebook shows, one entry for each output that was made."""
    shown = []

    class Handle:
        def display(self, data, raw):
            self.index = len(shown)
            shown.append(data)

        def update(self, data, raw):
            shown[self.index] = data

    monkeypatch.delenv("CONCURRENCY_LAB_PROGRESS", raising=False)
    monkeypatch.setattr(progress, "_in_kernel", lambda: True)
    monkeypatch.setattr(IPython.display, "DisplayHandle", Handle)
    return shown


def test_one_line_in_a_terminal_gone_afterwards(terminal):
    with Progress("comparing", after=0, every=0) as line:
        line.update("round 10, threads")
        assert terminal.screen.rstrip() == "comparing: round 10, threads"
        line.update("round 11")
        assert terminal.screen.rstrip() == "comparing: round 11"
    assert terminal.screen.strip() == ""
    assert "\n" not in terminal.getvalue()


def test_one_output_in_a_notebook_emptied_afterwards(outputs):
    with Progress("comparing", after=0, every=0) as line:
        line.update("round 1")
        line.update("round 2")
        assert outputs == [{"text/plain": "comparing: round 2"}]
    assert outputs == [{"text/plain": "", "text/html": ""}]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_gone_after_an_interruption(terminal, error):
    with pytest.raises(error), Progress("comparing", after=0, every=0) as line:
        line.update("round 1")
        raise error
    assert terminal.getvalue() and terminal.screen.strip() == ""


def test_short_tasks_show_nothing(terminal, outputs):
    with Progress("comparing", after=1000) as line:
        line.update("round 1")
    assert outputs == [] and terminal.getvalue() == ""


def test_is_redrawn_at_intervals_only(terminal):
    with Progress("comparing", after=0, every=1000) as line:
        line.update("round 1")
        line.update("round 2")
        assert terminal.screen.rstrip() == "comparing: round 1"


def test_can_be_turned_off(terminal, outputs, monkeypatch):
    monkeypatch.setenv("CONCURRENCY_LAB_PROGRESS", "0")
    with Progress("comparing", after=0, every=0) as line:
        line.update("round 1")
    assert outputs == [] and terminal.getvalue() == ""


def test_nothing_is_written_to_a_file(monkeypatch):
    monkeypatch.delenv("CONCURRENCY_LAB_PROGRESS", raising=False)
    for stream in (io.StringIO(), None):
        stderr(monkeypatch, stream)
        with Progress("comparing", after=0, every=0) as line:
            line.update("round 1")
        assert stream is None or stream.getvalue() == ""
