"""The two glossaries define the same terms, each in its language."""

import re

import pytest
from book_pages import BOOK, LANGUAGES, body, glossary, prose

# The terms that the chapters rely on most. A chapter may use `{term}` for any entry.
ESSENTIAL = {
    "concurrency", "parallelism", "thread", "process", "GIL", "race condition", "deadlock", "lock",
    "critical section", "CPU-bound", "I/O-bound", "start method", "speed-up", "effective cores",
    "life cycle", "context switch", "address space", "IPC", "claim", "timeline",
}  # fmt: skip


def test_editions_define_the_same_terms():
    english, korean = (glossary(language) for language in LANGUAGES)
    pairs = {(terms, other) for terms, (other, _) in english.items()}
    assert pairs == {(other, terms) for terms, (other, _) in korean.items()}


def test_one_term_in_the_other_language_for_each():
    for language in LANGUAGES:
        entries = glossary(language)
        terms = [term for names in entries for term in names]
        assert len(terms) == len(set(map(str.lower, terms)))
        others = [other for other, _ in entries.values()]
        assert len(others) == len(set(others))


def test_essential_terms_are_defined():
    assert {term for terms in glossary("en") for term in terms} >= ESSENTIAL


@pytest.mark.parametrize("language", LANGUAGES)
def test_definitions_are_one_to_three_sentences(language):
    for terms, (_, text) in glossary(language).items():
        assert text.endswith((".", "`.")), f"{terms}: {text!r}"
        sentences = re.findall(r"[.:](?=\s|$)", re.sub(r"\{\w+\}`[^`]*`", "x", text))
        assert 1 <= len(sentences) <= 4, f"{terms} needs a shorter definition"


def test_korean_definitions_are_korean():
    for terms, (_, text) in glossary("ko").items():
        assert re.search(r"[가-힣]", text), terms


@pytest.mark.parametrize("language", LANGUAGES)
def test_term_references_are_defined(language):
    defined = {term for terms in glossary(language) for term in terms}
    for path in sorted((BOOK / language).glob("*.md")):
        for reference in re.findall(r"\{term\}`([^`]+)`", body(path)):
            shown, _, target = reference.rstrip(">").partition(" <")
            assert (target or shown) in defined, f"{path.name}: {reference}"


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_definition_differs(language):
    texts = [text for _, text in glossary(language).values()]
    assert len(texts) == len(set(texts))


def test_prose_helper_drops_code():
    assert "GIL" not in prose("a `GIL` b\n\n```python\nGIL\n```\n")
