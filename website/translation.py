"""Keep the Korean edition in step with the English one.

    python -m website.translation check               list what is missing, stale or different
    python -m website.translation update              copy code, new cells, ids and order
    python -m website.translation accept FILE [ID …]  this is a translation of the English as it is

Every translated text remembers a hash of the English text that it was made from, so that a later
change of the English shows up as stale. In notebooks, cells are matched by id, and the hash is in
the cell's metadata `i18n.source`: of a Markdown cell's source, or of a code cell's alt text and
caption. The sentences, reasons and units (`{} steps`) of claims, and the goals of `play("…")`, are
keys of the code cell's `i18n.claims`. A page of `book/ko` has the hash in its front matter,
`translation_of`.

FILE is a notebook or a page, such as `01-threads-and-processes` or `glossary`.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode

from website import EDITIONS, ROOT, Problem, claims, command_line
from website.notebooks import name_of, notebooks, read, write

ENGLISH, KOREAN = EDITIONS

_FRONT_MATTER = re.compile(r"\A---\n(.*?)^---\n", re.DOTALL | re.MULTILINE)
_REMEMBERED = re.compile(r"^translation_of:[ \t]*([0-9a-f]{12})?[ \t]*\n", re.MULTILINE)


def digest(text: str) -> str:
    """The hash by which a translation remembers an English text."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def described(cell: NotebookNode) -> str:
    """The alt text and caption of a code cell, empty if it has none."""
    settings = cell.metadata.get("mystnb", {})
    texts = settings.get("image", {}).get("alt", ""), settings.get("figure", {}).get("caption", "")
    return "\n".join(texts) if any(texts) else ""


@dataclass(frozen=True)
class ClaimCall:
    """A call of `claim` in a cell: its literal texts that a reader sees, None for computed ones."""

    line: int
    sentence: str | None
    reasons: tuple[str, ...]
    unit: str


def claim_calls(source: str) -> list[ClaimCall]:
    """The calls of `claim(...)` in a cell's code, in order."""
    calls = []
    for node, sentence, options in _calls(source, "claim", "sentence"):
        reasons = [
            reason
            for option in ("unless", "undecided")
            for part in _outside_calls(options.get(option))
            if (reason := _literal(part))
        ]
        unit = _literal(options.get("unit")) or ""
        calls.append(ClaimCall(node.lineno, _literal(sentence), tuple(reasons), unit))
    return sorted(calls, key=lambda call: call.line)


def goal_calls(source: str) -> list[tuple[int, str | None]]:
    """The line and the goal of each `….play("…")` in a cell's code; None for a computed goal."""
    calls = [
        (node.lineno, _literal(goal))
        for node, goal, _ in _calls(source, "play", "goal")
        if isinstance(node.func, ast.Attribute) and goal is not None
    ]
    return sorted(calls, key=lambda call: call[0])


def row_names(source: str) -> list[str]:
    """The rows of each `overview({"…": …})` in a cell's code that are named in words there."""
    return [
        key.value
        for _, rows, _ in _calls(source, "overview", "explorations")
        if isinstance(rows, ast.Dict)
        for key in rows.keys
        if isinstance(key, ast.Constant) and isinstance(key.value, str)
    ]


def _calls(source: str, name: str, first: str) -> Iterator[tuple[ast.Call, ast.expr | None, dict]]:
    """The calls of a name, each with its first argument, which has a name too, and its options."""
    for node in ast.walk(_parse(source)):
        if isinstance(node, ast.Call):
            if getattr(node.func, "id", getattr(node.func, "attr", "")) == name:
                options = {keyword.arg: keyword.value for keyword in node.keywords}
                yield node, node.args[0] if node.args else options.get(first), options


def _outside_calls(node: ast.expr | None) -> Iterator[ast.AST]:
    """The parts of an expression; arguments of functions, no_start_method("fork"), are left out."""
    if node is None or isinstance(node, ast.Call | ast.Subscript):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _outside_calls(child)


def _literal(node: ast.expr | None) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return " ".join(node.value.split())  # as claim() does
    return None


def _parse(source: str) -> ast.Module:
    lines = ["pass" if line.lstrip()[:1] in "%!" and line.strip() else line
             for line in source.splitlines()]  # fmt: skip
    try:
        return ast.parse("\n".join(lines))
    except SyntaxError:
        return ast.Module([], [])  # executing it says so


def claim_texts(cell: NotebookNode) -> list[str]:
    """The sentences, reasons and units of a code cell's claims that need a translation, and the
    goals of what it plays, and the rows of its overviews."""
    if cell.cell_type != "code":
        return []
    texts = []
    for call in claim_calls(cell.source):
        texts += [call.sentence or "", *call.reasons]
        if claims.needs_translation(call.unit, KOREAN):
            texts.append(f"{{}} {call.unit}")
    texts += [goal for _, goal in goal_calls(cell.source)]
    texts += row_names(cell.source)
    return list(dict.fromkeys(filter(None, texts)))


# -- check ------------------------------------------------------------------------------------


def problems(root: Path = ROOT) -> list[str]:
    """Everything that is not in step, one line each."""
    return [*_notebook_problems(root), *_page_problems(root)]


def _notebook_problems(root: Path) -> Iterator[str]:
    english = {path.name: path for path in notebooks(root, ENGLISH)}
    korean = {path.name: path for path in notebooks(root, KOREAN)}
    for name in sorted(korean.keys() - english.keys()):
        yield f"{name_of(korean[name])}: translates no notebook; remove it"
    for name, path in english.items():
        if name not in korean:
            yield f"notebooks/{KOREAN}/{name}: missing (update makes it)"
            continue
        where = name_of(korean[name])
        for text in compare(read(path), read(korean[name])):
            yield f"{where}: {text}"


def compare(english: NotebookNode, korean: NotebookNode) -> Iterator[str]:
    """What is not in step in a pair of notebooks, as `cell <id>: <what>`."""
    if korean.metadata.get("lang") != KOREAN:
        yield f"metadata lang is not {KOREAN}"
    if korean.metadata.get("course") != english.metadata.get("course"):
        yield "metadata course differs (update copies it)"
    ids = [cell.id for cell in english.cells]
    translated = {cell.id: cell for cell in korean.cells}
    for extra in [cell.id for cell in korean.cells if cell.id not in ids]:
        yield f"cell {extra}: not in the English notebook (update removes it)"
    common = [cell.id for cell in korean.cells if cell.id in ids]
    if common != [name for name in ids if name in translated]:
        yield "cells: another order (update mends it)"
    for cell in english.cells:
        if cell.id not in translated:
            yield f"cell {cell.id}: missing (update copies it)"
        else:
            for text in _compare_cells(cell, translated[cell.id]):
                yield f"cell {cell.id}: {text}"


def _compare_cells(english: NotebookNode, korean: NotebookNode) -> Iterator[str]:
    if english.cell_type != korean.cell_type:
        yield f"is {korean.cell_type}, in English {english.cell_type} (update mends it)"
        return
    for key in ("tags", "course"):
        if english.metadata.get(key) != korean.metadata.get(key):
            yield f"metadata {key} differs (update copies it)"
    remembered = korean.metadata.get("i18n", {})
    if english.cell_type == "markdown":
        yield from _compare_text(english.source, remembered.get("source"), "text")
        return
    if english.source != korean.source:
        yield "code differs (update copies it)"
    if _plain_settings(english) != _plain_settings(korean):
        yield "metadata mystnb differs in more than texts (update copies it)"
    if described(english):
        yield from _compare_text(
            described(english), remembered.get("source"), "alt text or caption"
        )
    sentences = remembered.get("claims", {})
    needed = claim_texts(english)
    for call in claim_calls(english.source):
        if call.sentence is None:
            yield f"line {call.line}: the claim's sentence is not a literal, so it has no Korean"
    for line, goal in goal_calls(english.source):
        if goal is None:
            yield f"line {line}: the goal is not a literal, so it has no Korean"
    for sentence in needed:
        if not sentences.get(sentence):
            yield f"claim not translated in i18n.claims: {sentence}"
    for sentence in sentences.keys() - set(needed):
        yield f"i18n.claims has a sentence that is not claimed (update removes it): {sentence}"


def _compare_text(english: str, remembered: str | None, what: str) -> Iterator[str]:
    if remembered is None:
        yield f"{what} not translated"
    elif remembered != digest(english):
        yield f"{what} stale: the English changed since"


def _plain_settings(cell: NotebookNode) -> dict:
    """The myst-nb settings of a cell without the texts that are translated."""
    settings = copy.deepcopy(dict(cell.metadata.get("mystnb", {})))
    settings.get("image", {}).pop("alt", None)
    settings.get("figure", {}).pop("caption", None)
    return settings


def _pages(root: Path, edition: str) -> dict[str, Path]:
    return {path.name: path for path in sorted((root / "book" / edition).glob("*.md"))}


def _page_problems(root: Path) -> Iterator[str]:
    english, korean = _pages(root, ENGLISH), _pages(root, KOREAN)
    for name in sorted(korean.keys() - english.keys()):
        yield f"book/{KOREAN}/{name}: translates no page; remove it"
    for name, path in english.items():
        if name not in korean:
            yield f"book/{KOREAN}/{name}: missing (update makes it)"
            continue
        remembered = _remembered(korean[name].read_text("utf-8"))
        for text in _compare_text(path.read_text("utf-8"), remembered, "page"):
            yield f"book/{KOREAN}/{name}: {text}"


def _remembered(page: str) -> str | None:
    """The hash in a translated page's front matter."""
    front = _FRONT_MATTER.match(page)
    found = _REMEMBERED.search(front[1]) if front else None
    return found[1] if found else None


def _remember(page: str, value: str) -> str:
    """The page with another hash in its front matter."""
    line = f"translation_of: {value}".rstrip() + "\n"
    front = _FRONT_MATTER.match(page)
    if not front:
        return f"---\n{line}---\n{page}"
    return f"---\n{line}{_REMEMBERED.sub('', front[1])}---\n{page[front.end() :]}"


# -- update -----------------------------------------------------------------------------------


def update(root: Path = ROOT) -> list[str]:
    """Bring everything but the Korean text into step; returns what changed, one line each."""
    changes = []
    for path in notebooks(root, ENGLISH):
        target = root / "notebooks" / KOREAN / path.name
        old = read(target) if target.exists() else None
        before = target.read_bytes() if old else b""
        target.parent.mkdir(parents=True, exist_ok=True)
        write(updated(read(path), old), target)
        if target.read_bytes() != before:
            changes.append(f"{name_of(target)}: {'updated' if old else 'made'}")
    for name, path in _pages(root, ENGLISH).items():
        target = root / "book" / KOREAN / name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(_remember(path.read_text("utf-8"), ""), "utf-8")
            changes.append(f"book/{KOREAN}/{name}: made, not translated")
    return changes


def updated(english: NotebookNode, korean: NotebookNode | None) -> NotebookNode:
    """The Korean notebook in step with the English one: its code and cells, the Korean texts."""
    old = {cell.id: cell for cell in korean.cells} if korean else {}
    new = copy.deepcopy(english)
    new.metadata["lang"] = KOREAN
    for cell in new.cells:
        known = old.get(cell.id)
        if known is not None and known.cell_type != cell.cell_type:
            known = None
        remembered = dict(known.metadata.get("i18n", {})) if known else {}
        if cell.cell_type == "markdown":
            cell.metadata["i18n"] = {"source": remembered.get("source")}
            if known:
                cell.source = known.source
        elif cell.cell_type == "code":
            own = {}
            if described(cell):
                own["source"] = remembered.get("source")
                if known:
                    _keep_texts(known, cell)
            if texts := claim_texts(cell):
                own["claims"] = {text: remembered.get("claims", {}).get(text, "") for text in texts}
            if own:
                cell.metadata["i18n"] = own
    return new


def _keep_texts(korean: NotebookNode, cell: NotebookNode) -> None:
    settings = korean.metadata.get("mystnb", {})
    for group, key in (("image", "alt"), ("figure", "caption")):
        if key in cell.metadata["mystnb"].get(group, {}) and settings.get(group, {}).get(key):
            cell.metadata["mystnb"][group][key] = settings[group][key]


# -- accept -----------------------------------------------------------------------------------


def accept(name: str, ids: list[str], root: Path = ROOT) -> list[str]:
    """Record that texts are translations of the English as it is now; returns what was recorded.

    Without `ids` all of the file's. Cells that still have the English text are then left out and
    reported: name them to accept them as they are. Raises Problem for an unknown file or id.
    """
    stem = Path(name).stem
    if (page := root / "book" / ENGLISH / f"{stem}.md").exists():
        target = root / "book" / KOREAN / page.name
        if not target.exists():
            raise Problem(f"There is no {target.name} in Korean. Run update first.")
        text = target.read_text("utf-8")
        value = digest(page.read_text("utf-8"))
        target.write_text(_remember(text, value), "utf-8")
        return [f"book/{KOREAN}/{page.name}"]
    target = root / "notebooks" / KOREAN / f"{stem}.ipynb"
    english, korean = read(root / "notebooks" / ENGLISH / f"{stem}.ipynb"), read(target)
    originals = {cell.id: cell for cell in english.cells}
    translated = {cell.id: cell for cell in korean.cells}
    if unknown := [name for name in ids if name not in originals.keys() & translated.keys()]:
        raise Problem(f"{name_of(target)} has no cell {unknown[0]} in both editions.")
    messages = []
    for cell_id in ids or originals.keys() & translated.keys():
        source, cell = originals[cell_id], translated[cell_id]
        pair = (source.source, cell.source)
        if source.cell_type == "code":
            pair = (described(source), described(cell))
        if not pair[0] or cell.metadata.get("i18n", {}).get("source") == digest(pair[0]):
            continue
        if not ids and pair[0] == pair[1]:
            messages.append(f"cell {cell_id} still has the English text: not accepted")
            continue
        cell.metadata.setdefault("i18n", {})["source"] = digest(pair[0])
        messages.append(f"cell {cell_id}")
    write(korean, target)
    return sorted(messages)


# -- commands ---------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    parser = command_line("website.translation", __doc__)
    parser.add_argument("command", choices=("check", "update", "accept"))
    parser.add_argument("file", nargs="?", metavar="FILE")
    parser.add_argument("ids", nargs="*", metavar="ID")
    parser.add_argument("--root", type=Path, default=ROOT, help="folder of the book")
    options = parser.parse_args(arguments)
    if (options.command == "accept") != bool(options.file):
        parser.error("accept needs a FILE" if not options.file else "only accept takes a FILE")
    try:
        if options.command == "update":
            print("\n".join(update(options.root)) or "nothing to update")
        if options.command == "accept":
            print("\n".join(accept(options.file, options.ids, options.root)) or "nothing to accept")
            return 0
        found = problems(options.root)
    except Problem as problem:
        print(problem, file=sys.stderr)
        return 1
    print("\n".join(found) if found else "the Korean edition is in step")
    if found and options.command == "check":
        print(
            "\nTranslate what is not translated or stale, then python -m website.translation accept"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
