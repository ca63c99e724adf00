"""The course's web site: execution of the notebooks, two editions, claims page, checks.

| command | what it does |
| --- | --- |
| `python -m website.build` | execute what changed, build both editions into `_build/site` |
| `python -m website.execute` | only execute what changed |
| `python -m website.notebooks strip`, `store`, `check` | what a notebook file may contain |
| `python -m website.translation check`, `update`, `accept` | the Korean edition in step |
| `python -m website.anatomy` | what every chapter must have |
"""

import argparse
import signal
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The repository's root folder."""

EDITIONS = ("en", "ko")
"""Languages of the course; the first is the one that is executed and translated from."""


class Problem(Exception):
    """Something that the author of a chapter can mend; the message says what to do next."""


def unwind_on_terminate() -> None:
    """Let SIGTERM end the program like Ctrl-C, so that what it started is cleaned up."""

    def stop(number, frame):
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)


def command_line(module: str, description: str) -> argparse.ArgumentParser:
    """An argument parser for `python -m module` that shows the module's docstring as it is."""
    return argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
