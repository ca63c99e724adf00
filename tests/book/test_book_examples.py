"""The examples that readers copy run as they stand."""

import os
import re
import subprocess
import sys

import pytest
from book_pages import BOOK, LANGUAGES, ROOT, body, code_blocks, headings

# The code comes from stdin, not from a file: like a notebook's cells, it is not imported again by
# the processes that it starts.
# linecache has the source, as it has that of cells: the explorer looks for it there.
RUNNER = """
import linecache, sys
source = sys.stdin.read()
linecache.cache["example"] = len(source), None, source.splitlines(True), "example"
exec(compile(source, "example", "exec"))
"""


def examples():
    for path in (BOOK / "en/instruments.md", ROOT / "README.md"):
        for number, code in enumerate(code_blocks(body(path), "python"), 1):
            yield pytest.param(code, id=f"{path.name}-{number}")


@pytest.mark.parametrize("code", list(examples()))
def test_example_runs(code, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", RUNNER],
        input=code,
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=tmp_path,
        env={**os.environ, "CONCURRENCY_LAB_PROGRESS": "0", "PYTHONIOENCODING": "utf-8"},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "[fails]" not in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("locked", [True, False])
def test_readme_example_for_pytest(locked, tmp_path):
    (code,) = (c for c in code_blocks(body(ROOT / "README.md"), "python") if "def test_" in c)
    if not locked:
        without = code.replace("        with self.lock:\n", "        if True:\n")
        assert without != code
        code = without
    (tmp_path / "test_account.py").write_text(code, "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
    )
    assert done.returncode == (0 if locked else 1), done.stdout + done.stderr
    assert ("failing schedule" in done.stdout) is not locked
    assert ("wrong: balance = -60" in done.stdout) is not locked


def test_every_instrument_has_an_example():
    import concurrency_lab

    shown = "\n".join(code_blocks(body(BOOK / "en/instruments.md"), "python", "text"))
    prose = body(BOOK / "en/instruments.md")
    for name in concurrency_lab.__all__:
        shows = re.search(rf"\b{name}\b", shown) or re.search(rf"`{name}\b", prose)
        assert shows, f"instruments.md does not show {name}"


def test_both_editions_show_the_same_code():
    pages = [body(BOOK / language / "instruments.md") for language in LANGUAGES]
    english, korean = (code_blocks(page, "python", "bash") for page in pages)
    assert english == korean
    assert len(english) > len(headings(pages[0])) / 2
