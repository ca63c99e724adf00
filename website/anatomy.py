"""What every chapter must have (CONTRIBUTING.md says why).

    python -m website.anatomy [FILE ...]

Reads the notebooks of both editions, or those named, and lists what is missing. The parts of a
chapter are found by the metadata of its cells, so only the head's prerequisites and the titles of
exercises are looked for as (English) words.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

from nbformat import NotebookNode

from website import EDITIONS, ROOT, Problem, command_line
from website.notebooks import CACHE, executed, is_compared, name_of, notebooks, read
from website.translation import claim_calls

KINDS = ("predict", "fix", "write", "measure")
"""The kinds of exercises; a chapter has at least one of each."""

LONG_CELL = 15
MOST = 0.8
"""At least this share of the code cells has at most LONG_CELL lines."""

ALT_LENGTH = 30
"""An alt text shorter than this cannot say what a figure shows."""

_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_RANDOM_ID = re.compile(r"[0-9a-f]{8}(-.*)?")
_FENCE = re.compile(r"^(```+|~~~+).*?^\1", re.MULTILINE | re.DOTALL)
_LIST_ITEM = re.compile(r"^(?:[-*+]|\d+\.) +\S", re.MULTILINE)
_QUESTION = re.compile(r"^\*\*(\d+)\.\*\*", re.MULTILINE)
_OPTION = re.compile(
    r'<details class="quiz-option quiz-(right|wrong)" name="([^"]*)">\s*'
    r"<summary>(.*?)</summary>(.*?)</details>",
    re.DOTALL,
)
_FIGURE = re.compile(r"^(:::+|```+)\{(figure|image)\} *(\S*)\n(.*?)^\1", re.MULTILINE | re.DOTALL)
_IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)[^)]*\)")
_EXERCISE = re.compile(r"\b(\d+)\.(\d+)\b")


def problems(notebook: NotebookNode, folder: Path | None = None) -> list[str]:
    """What is missing or wrong in a chapter, one line each.

    `folder` is where its pictures are looked for. If the notebook has outputs, every cell that drew
    a figure is known; otherwise those whose last line plots one.
    """
    chapter = _Chapter(notebook, folder)
    checks = (
        chapter.metadata,
        chapter.ids,
        chapter.title,
        chapter.head,
        chapter.predictions,
        chapter.exercises,
        chapter.quiz,
        chapter.ending,
        chapter.figures,
        chapter.pictures,
        chapter.claims,
        chapter.code,
    )
    return [text for check in checks for text in check()]


class _Chapter:
    def __init__(self, notebook: NotebookNode, folder: Path | None):
        self.notebook = notebook
        self.cells = notebook.cells
        self.folder = folder
        self.course = notebook.metadata.get("course", {})
        self.english = notebook.metadata.get("lang", EDITIONS[0]) == EDITIONS[0]

    def of_role(self, role: str) -> list[NotebookNode]:
        return [cell for cell in self.cells if _role(cell) == role]

    def of_type(self, kind: str) -> list[NotebookNode]:
        return [cell for cell in self.cells if cell.cell_type == kind]

    def metadata(self) -> Iterator[str]:
        if self.notebook.metadata.get("lang") not in EDITIONS:
            yield f"metadata: lang is not one of {', '.join(EDITIONS)}"
        for key in ("chapter", "reading_minutes", "running_seconds", "claims_at_least"):
            value = self.course.get(key)
            if not isinstance(value, int) or value < 1:
                yield f"metadata: course.{key} is not a positive whole number"

    def ids(self) -> Iterator[str]:
        seen = set()
        for cell in self.cells:
            name = cell.get("id", "")
            if not _SLUG.fullmatch(name) or _RANDOM_ID.fullmatch(name):
                yield f"cell {name}: its id does not say what it is; use one such as io-compare"
            if name in seen:
                yield f"cell {name}: another cell has this id"
            seen.add(name)

    def title(self) -> Iterator[str]:
        titles = [title for cell in self.of_type("markdown") for title in _headings(cell, 1)]
        if len(titles) != 1:
            yield f"title: {len(titles)} headings of the first level (#), there must be one"
        if not self.cells or not _headings(self.cells[0], 1):
            yield "title: the first cell does not have it"

    def head(self) -> Iterator[str]:
        objectives = self.of_role("objectives")
        count = sum(len(_LIST_ITEM.findall(cell.source)) for cell in objectives)
        if not 3 <= count <= 6:
            yield f"objectives: {count} of them, there must be 3 to 6 as a list"
        machine = [cell for cell in self.of_role("machine") if cell.cell_type == "code"]
        if not machine:
            yield "machine: no code cell of this role"
        head = self.cells[: self.cells.index(machine[0]) if machine else len(self.cells)]
        words = "\n".join(cell.source for cell in head if cell.cell_type == "markdown")
        if self.english and not re.search(r"\bprerequisites?\b", words, re.IGNORECASE):
            yield "prerequisites: not named before the machine cell"

    def predictions(self) -> Iterator[str]:
        cells = self.of_role("predict")
        if not cells:
            yield "predict: no prediction is asked for"
        for cell in cells:
            if ":class: predict" not in cell.source:
                yield f"cell {cell.id}: a prediction is an admonition with :class: predict"
            after = self.cells[self.cells.index(cell) + 1 :]
            if not any(other.cell_type == "code" for other in after):
                yield f"cell {cell.id}: no code cell after this prediction answers it"

    def exercises(self) -> Iterator[str]:
        cells = self.of_role("exercise")
        if not 3 <= len(cells) <= 6:
            yield f"exercises: {len(cells)} of them, there must be 3 to 6"
        kinds = [cell.metadata.get("course", {}).get("kind") for cell in cells]
        for kind in KINDS:
            if kind not in kinds:
                yield f"exercises: none of the kind {kind}"
        for place, (cell, kind) in enumerate(zip(cells, kinds, strict=True), start=1):
            if kind not in KINDS:
                yield f"cell {cell.id}: course.kind is not one of {', '.join(KINDS)}"
            if ":class: exercise" not in cell.source:
                yield f"cell {cell.id}: an exercise is an admonition with :class: exercise"
            number = (str(self.course.get("chapter")), str(place))
            name = ".".join(number)
            title = cell.source.split("\n", 1)[0]
            if _numbers(cell) != number or (self.english and f"({kind}" not in title):
                yield f"cell {cell.id}: its title is not 'Exercise {name} ({kind} …)'"
            yield from self._solution(cell, number)

    def _solution(self, exercise: NotebookNode, number: tuple[str, str]) -> Iterator[str]:
        after = self.cells[self.cells.index(exercise) + 1 :]
        until_next = takewhile(lambda cell: _role(cell) != "exercise", after)
        solution = [cell for cell in until_next if _role(cell) == "solution"]
        if not solution:
            yield f"cell {exercise.id}: no solution follows this exercise"
            return
        for cell in solution:
            if cell.cell_type == "code":
                if "hide-cell" not in cell.metadata.get("tags", []):
                    yield f"cell {cell.id}: a solution's code needs the tag hide-cell"
            elif "{dropdown}" not in cell.source:
                yield f"cell {cell.id}: a solution's text is a dropdown"
            elif _numbers(cell) != number:
                yield f"cell {cell.id}: its title is not 'Solution {'.'.join(number)}'"

    def quiz(self) -> Iterator[str]:
        text = "\n\n".join(cell.source for cell in self.of_role("quiz"))
        marks = list(_QUESTION.finditer(text))
        if not 4 <= len(marks) <= 6:
            yield f"quiz: {len(marks)} questions, there must be 4 to 6"
        if text.count("<details") != len(_OPTION.findall(text)):
            yield "quiz: a <details> is not written as the others (class, name, summary, text)"
        names = set()
        for mark, end in zip(
            marks, [*(m.start() for m in marks[1:]), len(text)], strict=bool(marks)
        ):
            question = f"quiz, question {mark[1]}"
            options = _OPTION.findall(text[mark.end() : end])
            right = sum(kind == "right" for kind, *_ in options)
            if len(options) < 3:
                yield f"{question}: {len(options)} options, there must be at least 3"
            if right != 1:
                yield f"{question}: {right} right options, there must be exactly one"
            for _, _, option, explanation in options:
                if not option.strip():
                    yield f"{question}: an option without words"
                if len(explanation.strip()) < 15:
                    yield f"{question}: no explanation for the option {option.strip()!r}"
                if not re.match(r"\n[ \t]*\n", explanation):
                    yield f"{question}: no empty line after the summary {option.strip()!r}"
            group = {name for _, name, *_ in options}
            if len(group) > 1 or group & names:
                yield f"{question}: its options need one name= that no other question has"
            names |= group

    def ending(self) -> Iterator[str]:
        for role in ("gotchas", "cheat-sheet", "summary", "further-reading"):
            cells = self.of_role(role)
            if not any(cell.cell_type == "markdown" and len(cell.source) > 40 for cell in cells):
                yield f"{role}: no text of this role"
        reading = "\n".join(cell.source for cell in self.of_role("further-reading"))
        if not re.search(r"\{cite(:\w+)?\}`", reading):
            yield "further-reading: it cites nothing, use {cite}`…`"

    def figures(self) -> Iterator[str]:
        names = set()
        for cell in self.of_type("code"):
            settings = cell.metadata.get("mystnb", {})
            figure, image = settings.get("figure", {}), settings.get("image", {})
            if not (figure or image or _draws(cell)):
                continue
            alt, caption, name = image.get("alt", ""), figure.get("caption", ""), figure.get("name")
            if len(alt) < ALT_LENGTH:
                yield f"cell {cell.id}: its figure needs an alt text (mystnb.image.alt) that says "\
                    "what it shows"  # fmt: skip
            if not caption:
                yield f"cell {cell.id}: its figure needs a caption (mystnb.figure.caption)"
            elif alt == caption:
                yield f"cell {cell.id}: alt text and caption say the same"
            if not name:
                yield f"cell {cell.id}: its figure needs a name (mystnb.figure.name)"
            elif name in names:
                yield f"cell {cell.id}: another figure has the name {name}"
            names.add(name)

    def pictures(self) -> Iterator[str]:
        for cell in self.of_type("markdown"):
            for _, kind, file, body in _FIGURE.findall(cell.source):
                alt = re.search(r"^:alt: *(.*)$", body, re.MULTILINE)
                caption = re.sub(r"^:\w+:.*$", "", body, flags=re.MULTILINE).strip()
                if not alt or len(alt[1]) < ALT_LENGTH:
                    yield f"cell {cell.id}: the picture {file} needs :alt: that says what it shows"
                if kind == "image" or not caption:
                    yield f"cell {cell.id}: the picture {file} needs a caption, use {{figure}}"
                if self.folder and "://" not in file and not (self.folder / file).exists():
                    yield f"cell {cell.id}: there is no picture {file}"
            for _, file in _IMAGE.findall(_FENCE.sub("", cell.source)):
                yield f"cell {cell.id}: the picture {file} needs a caption, use {{figure}}"
            if "<img" in _FENCE.sub("", cell.source):
                yield f"cell {cell.id}: an <img> needs alt text and a caption, use {{figure}}"

    def claims(self) -> Iterator[str]:
        count = 0
        for cell in self.of_type("code"):
            calls = claim_calls(cell.source)
            count += len(calls)
            if calls and not is_compared(cell):
                yield f"cell {cell.id}: its claims are not checked by nbval, remove the tag"
        least = self.course.get("claims_at_least", 0)
        if isinstance(least, int) and count < least:
            yield f"claims: {count} of them, course.claims_at_least is {least}"

    def code(self) -> Iterator[str]:
        lengths = [len(cell.source.splitlines()) for cell in self.of_type("code")]
        short = sum(length <= LONG_CELL for length in lengths)
        if short < MOST * len(lengths):
            yield (
                f"code: {len(lengths) - short} of {len(lengths)} cells are longer than "
                f"{LONG_CELL} lines; move functions to concurrency_lab/experiments"
            )


def _role(cell: NotebookNode) -> str:
    return cell.metadata.get("course", {}).get("role", "")


def _headings(cell: NotebookNode, level: int) -> list[str]:
    if cell.cell_type != "markdown":
        return []
    return re.findall(rf"^#{{{level}}} +(.+)$", _FENCE.sub("", cell.source), re.MULTILINE)


def _numbers(cell: NotebookNode) -> tuple[str, str] | None:
    """The 1.2 of an exercise's or a solution's title, the first line."""
    found = _EXERCISE.search(cell.source.split("\n", 1)[0])
    return (found[1], found[2]) if found else None


def _draws(cell: NotebookNode) -> bool:
    """Whether the cell shows a figure: it did when executed, or its last line plots one."""
    if any(
        mime.startswith("image/") for out in cell.get("outputs", []) for mime in out.get("data", {})
    ):
        return True
    try:
        last = ast.parse(cell.source).body[-1]
    except (SyntaxError, IndexError):
        return False
    if not isinstance(last, ast.Expr) or not isinstance(last.value, ast.Call):
        return False
    function = last.value.func
    return "plot" in getattr(function, "attr", getattr(function, "id", ""))


def main(arguments: list[str] | None = None) -> int:
    parser = command_line("website.anatomy", __doc__)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    every = [path for edition in EDITIONS for path in notebooks(ROOT, edition)]
    bad = 0
    try:
        for path in [path.resolve() for path in options.files] or every:
            found = problems(executed(path, ROOT / CACHE) or read(path), path.parent)
            bad += len(found)
            print("\n".join(f"{name_of(path)}: {text}" for text in found) or f"{name_of(path)}: ok")
    except Problem as problem:
        print(problem, file=sys.stderr)
        return 1
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
