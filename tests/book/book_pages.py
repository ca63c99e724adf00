"""Read the book's Markdown pages: headings, code blocks, links, glossary entries."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
LANGUAGES = ("en", "ko")

_FENCE = re.compile(r"^(`{3,}|:{3,})(\S*)[^\n]*\n(.*?)^\1\s*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def names(language: str) -> set[str]:
    """The file names of an edition's pages."""
    return {path.name for path in (BOOK / language).glob("*.md")}


def body(path: Path) -> str:
    """A page without its front matter."""
    return re.sub(r"\A---\n.*?\n---\n", "", path.read_text("utf-8"), flags=re.DOTALL)


def code_blocks(text: str, *languages: str) -> list[str]:
    """The contents of fenced code blocks in one of the languages."""
    return [code for _, language, code in _FENCE.findall(text) if language in languages]


def prose(text: str) -> str:
    """The text without fenced code, code spans and literal output."""
    without = _FENCE.sub(lambda m: m[0] if m[2].startswith("{") else "", text)
    return re.sub(r"(\{[\w:-]+\})?`[^`]*`", lambda m: m[0] if m[1] else "", without)


def headings(text: str) -> list[tuple[int, str]]:
    """(level, text) of each heading outside code."""
    return [
        (len(marks), title)
        for marks, title in re.findall(r"^(#+) (.+)$", _FENCE.sub("", text), re.MULTILINE)
    ]


def anchors(text: str) -> set[str]:
    """The headings as MyST and GitHub make them into link targets."""
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for _, title in headings(text)}


def links(text: str) -> list[str]:
    """Targets of Markdown links outside code."""
    return _LINK.findall(prose(text))


def glossary(language: str) -> dict[tuple[str, ...], tuple[tuple[str, ...], str]]:
    """Glossary entries: the terms, and what stands in brackets and after them."""
    (content,) = code_blocks(body(BOOK / language / "glossary.md"), "{glossary}")
    entries = {}
    for block in re.split(r"\n\s*\n", content.strip()):
        lines = block.splitlines()
        terms = tuple(line for line in lines if not line.startswith((" ", ":")))
        definition = " ".join(line.strip() for line in lines if line.startswith(" "))
        if terms:
            other, text = _in_brackets(definition)
            entries[terms] = (tuple(other.split(", ")), text)
    return entries


def _in_brackets(definition: str) -> tuple[str, str]:
    """What stands in the brackets that the definition begins with, and the rest."""
    depth = 0
    for position, character in enumerate(definition):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            return definition[1:position], definition[position + 1 :].strip()
    raise ValueError(f"brackets do not close: {definition}")
