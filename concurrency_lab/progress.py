"""One line that tells how far a measurement has come, and that is gone when it is done."""

from __future__ import annotations

import os
import sys
import time


class Progress:
    """Shows ``task: text`` in one place while a ``with`` block takes longer than `after` seconds.

    In a notebook the line is an output that is updated and emptied; in a terminal it is a line on
    stderr that is erased. Elsewhere, and if the environment variable CONCURRENCY_LAB_PROGRESS is
    0, nothing is shown. There is no thread: it is redrawn by `update`, at most every `every`
    seconds.
    """

    def __init__(self, task: str, *, after: float = 1.0, every: float = 0.25) -> None:
        self._task = task
        self._next = time.monotonic() + after
        self._every = every
        self._width = 0
        self._handle = None
        self._show = None
        if os.environ.get("CONCURRENCY_LAB_PROGRESS") != "0":
            self._show = self._in_notebook if _in_kernel() else self._in_terminal

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._handle is not None:
            self._handle.update({"text/plain": "", "text/html": ""}, raw=True)
        if self._width:
            self._in_terminal("")

    def update(self, text: str) -> None:
        """Show `text`, unless it is too early."""
        now = time.monotonic()
        if self._show is not None and now >= self._next:
            self._next = now + self._every
            self._show(f"{self._task}: {text}")

    def _in_notebook(self, line: str) -> None:
        if self._handle is None:
            from IPython.display import DisplayHandle

            self._handle = DisplayHandle()
            self._handle.display({"text/plain": line}, raw=True)
        else:
            self._handle.update({"text/plain": line}, raw=True)

    def _in_terminal(self, line: str) -> None:
        if sys.stderr is not None and sys.stderr.isatty():
            # Spaces, because not every terminal knows the escape sequence that erases a line.
            sys.stderr.write(f"\r{line:<{self._width}}" + ("" if line else "\r"))
            sys.stderr.flush()
            self._width = len(line)


def _in_kernel() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None
