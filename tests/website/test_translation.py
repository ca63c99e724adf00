"""The Korean edition in step: what is noticed, what is mended, what is recorded."""

import nbformat
import pytest

from website import ROOT, Problem, translation
from website.notebooks import is_normal, read, write

NAME = "01-squares"


def notebook_of(book, edition):
    return book / f"notebooks/{edition}/{NAME}.ipynb"


@pytest.fixture
def change(small_book):
    """`change("ko", "square", source=…, **metadata)` edits a cell; None removes metadata."""

    def edit(edition, cell_id, source=None, **metadata):
        path = notebook_of(small_book, edition)
        notebook = read(path)
        cell = next(cell for cell in notebook.cells if cell.id == cell_id)
        if source is not None:
            cell.source = source
        for key, value in metadata.items():
            if value is None:
                cell.metadata.pop(key, None)
            else:
                cell.metadata[key] = nbformat.from_dict(value)
        write(notebook, path)

    return edit


def only(problems):
    assert len(problems) == 1, problems
    return problems[0]


# -- check


def test_the_course_is_in_step():
    assert translation.problems(ROOT) == []


def test_small_book_is_in_step(small_book):
    assert translation.problems(small_book) == []


def test_changed_english_text_is_stale(small_book, change):
    change("en", "claims", "## Claims\n\nAnd says much about them.")
    assert only(translation.problems(small_book)) == (
        "notebooks/ko/01-squares.ipynb: cell claims: text stale: the English changed since"
    )


def test_changed_korean_text_is_not(small_book, change):
    change("ko", "claims", "## 주장\n\n그리고 더 말합니다.")
    assert translation.problems(small_book) == []


def test_text_without_hash_is_not_translated(small_book, change):
    change("ko", "claims", i18n=None)
    assert "cell claims: text not translated" in only(translation.problems(small_book))


def test_code_differs(small_book, change):
    change("ko", "count-executions", "pass")
    assert "cell count-executions: code differs (update" in only(translation.problems(small_book))


def test_tags_and_roles_differ(small_book, change):
    change("ko", "square", tags=None)
    assert "cell square: metadata tags differs" in only(translation.problems(small_book))
    change("ko", "square", tags=["nbval-ignore-output"])
    change("en", "claims", course={"role": "summary"})
    assert "cell claims: metadata course differs" in only(translation.problems(small_book))


def test_changed_alt_text_is_stale(small_book, change):
    settings = {"figure": {"caption": "One square.", "name": "square"}, "image": {"alt": "New."}}
    change("en", "square", mystnb=settings)
    assert "cell square: alt text or caption stale" in only(translation.problems(small_book))


def test_figure_names_must_agree(small_book, change):
    settings = {"figure": {"caption": "정사각형.", "name": "other"}, "image": {"alt": "정사각형."}}
    change("ko", "square", mystnb=settings)
    assert "mystnb differs in more than texts" in only(translation.problems(small_book))


def test_claim_sentence_without_korean(small_book, change):
    change("ko", "claim-squares", i18n={"claims": {}})
    assert only(translation.problems(small_book)).endswith(
        "cell claim-squares: claim not translated in i18n.claims: Three squares are more than two."
    )


def test_reason_without_korean(small_book, change):
    change("ko", "claim-lock", i18n={"claims": {"A lock of no kind is here.": "락이 없습니다."}})
    problem = only(translation.problems(small_book))
    assert problem.endswith("not translated in i18n.claims: this book has no lock")


def test_sentence_that_nobody_claims(small_book, change):
    claims = {"Three squares are more than two.": "셋.", "Old sentence.": "옛 문장."}
    change("ko", "claim-squares", i18n={"claims": claims})
    assert "not claimed (update removes it): Old sentence." in only(
        translation.problems(small_book)
    )


def test_a_computed_sentence_cannot_be_translated(small_book, change):
    for edition in ("en", "ko"):
        change(edition, "claim-lock", "claim(f'{2} is two', 2, equals=2)", i18n=None)
    problem = only(translation.problems(small_book))
    assert "cell claim-lock: line 1: the claim's sentence is not a literal" in problem


@pytest.mark.parametrize(("unit", "own"), [("llamas", True), ("cores", False), ("ms", False)])
def test_a_chapters_own_unit_needs_korean(small_book, change, unit, own):
    code = f'claim("Two.", 2, equals=2, unit="{unit}")'
    change("en", "claim-lock", code)
    change("ko", "claim-lock", code, i18n={"claims": {"Two.": "둘."}})
    problems = translation.problems(small_book)
    assert [problem.endswith("i18n.claims: {} llamas") for problem in problems] == [True] * own


def test_missing_extra_and_moved_cells(small_book):
    path = notebook_of(small_book, "ko")
    notebook = read(path)
    title, *rest = notebook.cells
    rest.insert(1, nbformat.v4.new_markdown_cell("더.", id="more"))
    notebook.cells = [*rest[::-1]]
    write(notebook, path)
    problems = "\n".join(translation.problems(small_book))
    assert "cell title: missing (update copies it)" in problems
    assert "cell more: not in the English notebook (update removes it)" in problems
    assert "cells: another order (update mends it)" in problems


def test_missing_and_extra_notebooks(small_book):
    path = notebook_of(small_book, "ko")
    path.rename(path.with_name("99-other.ipynb"))
    problems = translation.problems(small_book)
    assert problems == [
        "notebooks/ko/99-other.ipynb: translates no notebook; remove it",
        "notebooks/ko/01-squares.ipynb: missing (update makes it)",
    ]


def test_pages(small_book):
    (small_book / "book/en/index.md").write_text("# Changed\n")
    (small_book / "book/ko/claims.md").write_text("# 주장\n")
    (small_book / "book/en/new.md").write_text("# New\n")
    (small_book / "book/ko/old.md").write_text("# 옛것\n")
    assert translation.problems(small_book) == [
        "book/ko/old.md: translates no page; remove it",
        "book/ko/claims.md: page not translated",
        "book/ko/index.md: page stale: the English changed since",
        "book/ko/new.md: missing (update makes it)",
    ]


# -- claims in code


def test_claims_are_found_in_code():
    code = """%matplotlib inline
import concurrency_lab as lab
for value in (1, 2):
    lab.claim("In a "
              "loop.", value, at_least=1, unit="cores", unless=[lab.no_gil(), "no lock here"])
claim(sentence, 1, equals=1, unless=machine.no_start_method("fork"))
"""
    first, second = translation.claim_calls(code)
    assert (first.sentence, first.reasons, first.unit) == (
        "In a loop.", ("no lock here",), "cores",
    )  # fmt: skip
    assert (second.sentence, second.reasons) == (None, ())


# -- update


def test_update_of_a_book_in_step_changes_nothing(small_book):
    assert translation.update(small_book) == []


def test_update_copies_code_and_keeps_korean(small_book, change):
    change("en", "count-executions", "x = 1")
    change("en", "claims", "## Claims\n\nNew.")
    change("en", "claim-squares", 'claim("A new sentence.", 3, at_least=2)')
    english = read(notebook_of(small_book, "en"))
    english.cells.insert(1, nbformat.v4.new_markdown_cell("Between.", id="between"))
    english.cells.append(english.cells.pop(2))
    write(english, notebook_of(small_book, "en"))

    assert translation.update(small_book) == ["notebooks/ko/01-squares.ipynb: updated"]
    korean = read(notebook_of(small_book, "ko"))
    assert [cell.id for cell in korean.cells] == [cell.id for cell in english.cells]
    cells = {cell.id: cell for cell in korean.cells}
    assert cells["count-executions"].source == "x = 1"
    assert cells["claims"].source.startswith("## 주장")
    assert cells["square"].metadata.mystnb.image.alt == "파란 정사각형."
    assert cells["claim-squares"].metadata.i18n.claims == {"A new sentence.": ""}
    assert translation.problems(small_book) == [
        "notebooks/ko/01-squares.ipynb: cell between: text not translated",
        "notebooks/ko/01-squares.ipynb: cell claims: text stale: the English changed since",
        "notebooks/ko/01-squares.ipynb: cell claim-squares: "
        "claim not translated in i18n.claims: A new sentence.",
    ]
    assert is_normal(notebook_of(small_book, "ko"))
    assert translation.update(small_book) == []


def test_update_makes_what_is_missing(small_book):
    notebook_of(small_book, "ko").unlink()
    (small_book / "book/ko/index.md").unlink()
    assert translation.update(small_book) == [
        "notebooks/ko/01-squares.ipynb: made",
        "book/ko/index.md: made, not translated",
    ]
    problems = "\n".join(translation.problems(small_book))
    assert "cell title: text not translated" in problems
    assert "cell square: alt text or caption not translated" in problems
    assert "cell claim-squares: claim not translated" in problems
    assert "book/ko/index.md: page not translated" in problems
    assert "missing" not in problems


# -- accept


def test_accept_records_the_named_cells_only(small_book, change):
    change("en", "claims", "## Claims\n\nNew.")
    change("en", "title", "# Squares\n\nNew.")
    assert translation.accept(NAME, ["claims"], small_book) == ["cell claims"]
    assert "cell title: text stale" in only(translation.problems(small_book))
    assert translation.accept(f"{NAME}.ipynb", [], small_book) == ["cell title"]
    assert translation.problems(small_book) == []


def test_accept_does_not_take_english_for_korean(small_book, change):
    change("ko", "claims", read(notebook_of(small_book, "en")).cells[3].source, i18n=None)
    assert translation.accept(NAME, [], small_book) == [
        "cell claims still has the English text: not accepted"
    ]
    assert translation.accept(NAME, ["claims"], small_book) == ["cell claims"]
    assert translation.problems(small_book) == []


def test_accept_a_page(small_book):
    (small_book / "book/en/index.md").write_text("# Changed\n")
    before = (small_book / "book/ko/index.md").read_text("utf-8")
    assert translation.accept("index", [], small_book) == ["book/ko/index.md"]
    assert translation.problems(small_book) == []
    after = (small_book / "book/ko/index.md").read_text("utf-8")
    assert after.splitlines()[2:] == before.splitlines()[2:]


def test_accept_keeps_other_front_matter(small_book):
    page = small_book / "book/ko/index.md"
    page.write_text("---\ntitle: 제목\n---\n# 책\n", "utf-8")
    translation.accept("index", [], small_book)
    lines = page.read_text("utf-8").splitlines()
    assert lines[0] == "---" and lines[1].startswith("translation_of: ")
    assert lines[2:] == ["title: 제목", "---", "# 책"]


@pytest.mark.parametrize(
    ("name", "ids", "message"),
    [
        ("02-circles", [], "There is no notebook notebooks/en/02-circles.ipynb"),
        (NAME, ["nowhere"], "has no cell nowhere in both editions"),
    ],
)
def test_accept_of_unknown_things_says_so(small_book, name, ids, message):
    with pytest.raises(Problem, match=message):
        translation.accept(name, ids, small_book)


# -- commands


def test_commands(small_book, change, capsys):
    arguments = ["--root", str(small_book)]
    assert translation.main(["check", *arguments]) == 0
    assert capsys.readouterr().out == "the Korean edition is in step\n"
    change("en", "claims", "## Claims\n\nNew.")
    assert translation.main(["check", *arguments]) == 1
    assert "cell claims: text stale" in capsys.readouterr().out
    assert translation.main(["accept", NAME, "claims", *arguments]) == 0
    assert translation.main(["check", *arguments]) == 0
