"""The bibliography is well formed and covers every citation of the book."""

import json
import re

import pytest
from book_pages import BOOK, LANGUAGES, ROOT, body
from pybtex.database import parse_file

REFERENCES = parse_file(BOOK / "references.bib").entries
REQUIRED = {
    "article": {"author", "title", "journal", "volume", "year"},
    "book": {"author", "title", "publisher", "year"},
    "inproceedings": {"author", "title", "booktitle", "year"},
    "misc": {"author", "title", "url", "year"},
}


def sources():
    """(name, Markdown) of every page and chapter."""
    for language in LANGUAGES:
        for path in sorted((BOOK / language).glob("*.md")):
            yield path.name, body(path)
        for path in sorted((ROOT / "notebooks" / language).glob("*.ipynb")):
            cells = json.loads(path.read_text("utf-8"))["cells"]
            for cell in cells:
                if cell["cell_type"] == "markdown":
                    yield f"{path.name} {cell.get('id')}", "".join(cell["source"])


@pytest.mark.parametrize("key", REFERENCES)
def test_entry_is_complete(key):
    entry = REFERENCES[key]
    fields = {name for name in entry.fields if entry.fields[name].strip()} | set(entry.persons)
    assert REQUIRED[entry.type] <= fields
    assert re.fullmatch(r"(1[89]|20)\d\d", entry.fields["year"])
    assert re.fullmatch(r"[a-z0-9-]+", key)
    if doi := entry.fields.get("doi"):
        assert re.fullmatch(r"10\.\d{4,}/\S+", doi)


def test_keys_are_in_order():
    assert list(REFERENCES) == sorted(REFERENCES)


def test_isbn_check_digits():
    for key, entry in REFERENCES.items():
        if isbn := entry.fields.get("isbn"):
            digits = [int(digit) for digit in isbn.replace("-", "")]
            weighted = sum(digit * (1, 3)[place % 2] for place, digit in enumerate(digits))
            assert len(digits) == 13 and weighted % 10 == 0, key


def test_citations_are_in_the_bibliography():
    cited = {
        (name, key.strip())
        for name, text in sources()
        for keys in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", text)
        for key in keys.split(",")
    }
    assert cited
    assert {pair for pair in cited if pair[1] not in REFERENCES} == set()
