"""The examples that readers copy run as they stand."""

import os
import re
import subprocess
import sys

import pytest
from book_pages import BOOK, LANGUAGES, ROOT, body, code_blocks, headings

# The code comes from stdin, not from a file: like a notebook's cells, it is not imported again by
# the processes that it starts.
RUNNER = "import sys; exec(compile(sys.stdin.read(), 'example', 'exec'))"


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
