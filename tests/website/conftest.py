"""Small whole books, built for real."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from published_site import address, browser, site, visit  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
BOOKS = Path(__file__).parent / "books"


def run(module: str, *arguments: object, **options) -> subprocess.CompletedProcess:
    """Run `python -m module` from the repository, as an author does; output as text."""
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONUTF8": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=240,
        **options,
    )


@pytest.fixture
def small_book(tmp_path) -> Path:
    """A fresh copy of the small book, not built."""
    return Path(shutil.copytree(BOOKS / "small", tmp_path / "book"))


@pytest.fixture(scope="session")
def built_book(tmp_path_factory) -> Path:
    """The small book, built by website.build. Tests must not change it: copy it."""
    root = Path(shutil.copytree(BOOKS / "small", tmp_path_factory.mktemp("built") / "book"))
    result = run("website.build", "--root", root)
    assert result.returncode == 0, result.stdout
    (root / "_build/printed").write_text(result.stdout, "utf-8")
    return root


@pytest.fixture
def command():
    """`command(module, *arguments)` runs `python -m module` from the repository."""
    return run
