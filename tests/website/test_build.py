"""The build: what comes out, what is left alone, what stops it."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from website import Problem, build

ROOT = Path(__file__).resolve().parents[2]


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")


@pytest.fixture
def own_copy(built_book, tmp_path) -> Path:
    return Path(shutil.copytree(built_book, tmp_path / "book"))


# -- a build that succeeds


def test_site_has_both_editions_and_their_notebooks(built_book):
    site = built_book / "_build/site"
    assert (site / "index.html").read_text("utf-8").startswith("<!doctype html>")
    for edition in ("en", "ko"):
        assert (site / edition / f"book/{edition}/claims.html").exists()
        copy = site / edition / "notebooks/01-squares.ipynb"
        source = built_book / f"notebooks/{edition}/01-squares.ipynb"
        assert copy.read_bytes() == source.read_bytes()


def test_site_has_one_search_index_for_both_languages(built_book):
    index = json.loads((built_book / "_build/site/pagefind/pagefind-entry.json").read_text())
    assert sorted(index["languages"]) == ["en", "ko"]


def test_site_has_no_junk(built_book):
    names = contents(built_book / "_build/site")
    junk = [name for name in names if re.search(r"\.map$|\.buildinfo|pagefind.*-ui\.", name)]
    assert junk == []
    assert "pagefind/pagefind.js" in names


def test_build_says_what_it_does(built_book):
    printed = (built_book / "_build/printed").read_text("utf-8")
    assert re.search(r"^01-squares  executing …  \d+\.\d s$", printed, re.MULTILINE)
    assert re.search(r"^editions en, ko …  \d+\.\d s$", printed, re.MULTILINE)
    assert re.search(r"^claims +1 holds, 1 not applicable$", printed, re.MULTILINE)
    assert printed.rstrip().endswith(str(built_book / "_build/site/index.html"))


def test_nothing_is_left_beside_the_site(built_book):
    names = {path.name for path in (built_book / "_build").iterdir()}
    assert not names & {"site.new", "site.old"}


def test_unchanged_book_is_not_built_again(built_book, command):
    before = (built_book / "_build/site").stat().st_mtime_ns
    result = command("website.build", "--root", built_book)
    assert result.returncode == 0
    assert result.stdout.splitlines()[-1].startswith("unchanged")
    assert "executing" not in result.stdout and "editions" not in result.stdout
    assert (built_book / "_build/site").stat().st_mtime_ns == before


def test_every_input_counts(own_copy):
    assert build.Site(own_copy).is_current()
    for name in (
        "_config.yml",
        "_toc.yml",
        "book/ko/index.md",
        "notebooks/ko/01-squares.ipynb",
        "website/i18n/ko.yml",
    ):
        path = own_copy / name
        text = path.read_text("utf-8")
        path.write_text(text + "\n", "utf-8")
        assert not build.Site(own_copy).is_current(), name
        path.write_text(text, "utf-8")
    assert build.Site(own_copy).is_current()


# -- builds that fail


def test_failing_cell_stops_the_build_and_leaves_the_site(own_copy, command):
    before = contents(own_copy / "_build/site")
    for edition in ("en", "ko"):
        path = own_copy / f"notebooks/{edition}/01-squares.ipynb"
        edit(path, "Square()", "Sqare()")
    result = command("website.build", "--root", own_copy)
    assert result.returncode == 1
    assert "01-squares  executing …  failed" in result.stdout
    assert "notebooks/en/01-squares.ipynb, cell 3 (id square)" in result.stdout
    assert "NameError: name 'Sqare' is not defined" in result.stdout
    assert "Traceback (most recent call last)" not in result.stdout.split("NameError")[0]
    assert contents(own_copy / "_build/site") == before


def test_warning_stops_the_build_each_time_and_leaves_the_site(own_copy, command):
    before = contents(own_copy / "_build/site")
    edit(own_copy / "book/ko/claims.md", "# 모든 주장", "# 모든 주장\n\n[없는 곳](missing.md)")
    edit(own_copy / "book/ko/index.md", ":cell: square", ":cell: circle")
    result = command("website.build", "--root", own_copy)
    assert result.returncode == 1
    assert "The ko edition failed" in result.stdout and "The en edition" not in result.stdout
    assert "missing.md" in result.stdout
    assert "the cell circle of notebooks/ko/01-squares draws no figure" in result.stdout
    assert "Cells that do: square" in result.stdout
    assert contents(own_copy / "_build/site") == before
    assert not (own_copy / "_build/site.new").exists()
    # Sphinx would not warn again of a page that it has read: the next build starts from nothing
    assert not (own_copy / "_build/ko/machinery").exists()
    assert (own_copy / "_build/en/machinery").exists()


def test_missing_korean_page_is_named(small_book):
    (small_book / "book/ko/claims.md").unlink()
    with pytest.raises(Problem, match="(?s)book/ko/claims.*translation update"):
        build.Site(small_book).settings("ko")


def test_missing_caption_is_named(small_book):
    edit(small_book / "website/i18n/ko.yml", "  Chapters: 본문\n", "")
    with pytest.raises(Problem, match="'Chapters' of _toc.yml is not translated in ko.yml"):
        build.Site(small_book).settings("ko")


def test_interrupted_swap_is_finished(own_copy):
    site = build.Site(own_copy)
    before = contents(site.site)
    site.site.rename(site.old)  # killed between the two renames
    assert site.is_current()
    assert contents(site.site) == before


# -- Jupyter Book alone


def jupyter_book(root: Path) -> str:
    result = subprocess.run(
        [sys.executable, "-c", "from jupyter_book.cli.main import main; main()",
         "build", ".", "-W", "--keep-going"],
        cwd=root, env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", timeout=240,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout
    return result.stdout


def test_jupyter_book_alone_builds_english_and_follows_changes(own_copy):
    # the Korean edition is not in step: that must not keep an English author from building
    edit(own_copy / "notebooks/en/01-squares.ipynb", "Three squares are", "Four squares are")
    assert "01-squares  executing" in jupyter_book(own_copy)
    page = own_copy / "_build/html/book/en/claims.html"
    assert "Four squares are more than two." in page.read_text("utf-8")
    assert (own_copy / "_build/html/notebooks/01-squares.ipynb").exists()

    # claims.md and index.md themselves do not change, and their pages follow all the same
    edit(own_copy / "notebooks/en/01-squares.ipynb", "Four squares are", "Five squares are")
    edit(own_copy / "notebooks/en/01-squares.ipynb", "#0072b2", "#d55e00")
    jupyter_book(own_copy)
    assert "Five squares are more than two." in page.read_text("utf-8")
    pictures = list((own_copy / "_build/html/_images").iterdir())
    assert ["#d55e00" in path.read_text("utf-8") for path in pictures] == [True]
    assert pictures[0].name in (own_copy / "_build/html/book/en/index.html").read_text("utf-8")
    claims = json.loads((own_copy / "_build/html/claims.json").read_text("utf-8"))["claims"]
    assert claims[0]["sentence"] == "Five squares are more than two."


# -- pieces


def test_merge_goes_into_mappings_and_replaces_the_rest():
    base = {"a": {"b": 1, "c": [1]}, "d": 1}
    over = {"a": {"c": [2]}, "d": {"e": 3}}
    assert build.merge(base, over) == {"a": {"b": 1, "c": [2]}, "d": {"e": 3}}
    assert base == {"a": {"b": 1, "c": [1]}, "d": 1}


def test_summary_lists_claims_that_do_not_hold():
    claim = {"chapter": "01", "cell": "x", "sentence": "S.", "expected": "at least 2", "reason": ""}
    lines = build._summary(
        [
            {**claim, "verdict": "holds", "measured": "3"},
            {**claim, "verdict": "fails", "measured": "1"},
            {**claim, "verdict": "not measured", "measured": "1", "reason": "busy"},
        ]
    ).splitlines()
    assert lines[0].split(maxsplit=1)[1] == "1 holds, 1 fails, 1 not measured"
    assert lines[1:3] == ["  fails: S.", "    expected at least 2; measured 1"]
    assert lines[4:6] == [
        "  not measured: S.",
        "    expected at least 2; measured 1; no verdict: busy",
    ]
