"""Every chapter has all its parts; and the checker notices each part that is missing."""

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from website import EDITIONS, ROOT
from website.anatomy import problems
from website.notebooks import CACHE, executed, name_of, notebooks, read

CHAPTERS = [path for edition in EDITIONS for path in notebooks(ROOT, edition)]


def test_there_are_chapters():
    assert {path.parent.name for path in CHAPTERS} == set(EDITIONS)


@pytest.mark.parametrize("path", CHAPTERS, ids=name_of)
def test_chapter_has_all_its_parts(path):
    assert problems(executed(path, ROOT / CACHE) or read(path), path.parent) == []


# -- a chapter as small as can be


def text(name, source, role=None, **course):
    cell = new_markdown_cell(source, id=name)
    if role:
        cell.metadata["course"] = {"role": role, **course}
    return cell


def code(name, source, role=None, tags=(), **metadata):
    cell = new_code_cell(source, id=name)
    if role:
        cell.metadata["course"] = {"role": role}
    if tags:
        cell.metadata["tags"] = list(tags)
    cell.metadata.update(metadata)
    return cell


def exercise(number, kind):
    title = f"Exercise 7.{number} ({kind})"
    return [
        text(
            f"exercise-{kind}",
            f":::{{admonition}} {title}\n:class: exercise\nDo it.\n:::",
            "exercise",
            kind=kind,
        ),
        text(f"solution-{kind}", f":::{{dropdown}} Solution 7.{number}\nSo.\n:::", "solution"),
        code(f"solution-{kind}-code", "1 + 1", "solution", tags=["hide-cell"]),
    ]


def question(number, right=1):
    options = "\n".join(
        f'<details class="quiz-option quiz-{"right" if n == right else "wrong"}" name="q{number}">'
        f"<summary>Option {n}</summary>\n\nBecause it is as it is, {n}.\n\n</details>"
        for n in range(3)
    )
    return f"**{number}.** What is it?\n\n{options}"


FIGURE = {
    "figure": {"caption": "What came out.", "name": "fig-speed"},
    "image": {"alt": "Three rows of dots: the first at 1, the others near 2."},
}
PICTURE = (
    "```{figure} diagrams/a.svg\n:alt: Two boxes, and an arrow from the left to the right.\n"
    "A caption.\n```"
)
ENDING = "A text that is long enough to say something to a reader."


@pytest.fixture
def chapter(tmp_path):
    (tmp_path / "diagrams").mkdir()
    (tmp_path / "diagrams/a.svg").touch()
    cells = [
        text("title", "# A chapter\n\nWhat it is about.\n\n```python\n# no title\n```"),
        text("objectives", "You can\n\n- do this\n- do that\n- explain", "objectives"),
        text("before", "**Prerequisites:** none."),
        code("machine", "machine.describe()", "machine"),
        text("concept", "## A concept\n\n" + PICTURE),
        text("prediction", ":::{admonition} Predict\n:class: predict\nWhat?\n:::", "predict"),
        code("speed", "speed.plot()", tags=["nbval-ignore-output"], mystnb=FIGURE),
        code("claim-speed", 'claim("It is fast.", speed, at_least=2)'),
        text("gotchas", ENDING, "gotchas"),
        *exercise(1, "predict"),
        *exercise(2, "fix"),
        *exercise(3, "write"),
        *exercise(4, "measure"),
        text("quiz", "\n\n".join(question(n) for n in range(1, 5)), "quiz"),
        text("cheat-sheet", ENDING, "cheat-sheet"),
        text("summary", ENDING, "summary"),
        text("further-reading", ENDING + " {cite}`someone`", "further-reading"),
    ]
    notebook = new_notebook(cells=cells)
    notebook.metadata["lang"] = "en"
    notebook.metadata["course"] = {
        "chapter": 7, "reading_minutes": 9, "running_seconds": 9, "claims_at_least": 1,
    }  # fmt: skip
    return Chapter(notebook, tmp_path)


class Chapter:
    def __init__(self, notebook, folder):
        self.notebook, self.folder = notebook, folder

    def problems(self):
        return problems(self.notebook, self.folder)

    def __getitem__(self, name):
        return next(cell for cell in self.notebook.cells if cell.id == name)

    def remove(self, *names):
        self.notebook.cells = [cell for cell in self.notebook.cells if cell.id not in names]

    def replace(self, name, old, new):
        assert old in self[name].source
        self[name].source = self[name].source.replace(old, new)


def test_a_good_chapter_passes(chapter):
    assert chapter.problems() == []


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["title"], ["title: 0 headings", "title: the first cell"]),
        (["objectives"], ["objectives: 0 of them"]),
        (["before"], ["prerequisites: not named"]),
        (["machine"], ["machine: no code cell"]),
        (["prediction"], ["predict: no prediction"]),
        (["claim-speed"], ["claims: 0 of them, course.claims_at_least is 1"]),
        (["gotchas"], ["gotchas: no text"]),
        (
            ["exercise-measure", "solution-measure", "solution-measure-code"],
            ["exercises: none of the kind measure"],
        ),
        (["solution-fix", "solution-fix-code"], ["cell exercise-fix: no solution follows"]),
        (["quiz"], ["quiz: 0 questions"]),
        (["cheat-sheet"], ["cheat-sheet: no text"]),
        (["summary"], ["summary: no text"]),
        (["further-reading"], ["further-reading: no text", "further-reading: it cites nothing"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_each_missing_part_is_named(chapter, names, expected):
    chapter.remove(*names)
    found = chapter.problems()
    assert len(found) == len(expected), found
    for problem, start in zip(found, expected, strict=True):
        assert problem.startswith(start)


@pytest.mark.parametrize(
    ("name", "old", "new", "expected"),
    [
        ("concept", "## A concept", "# A concept", "title: 2 headings"),
        ("objectives", "- explain", "", "objectives: 2 of them"),
        ("objectives", "- explain", "- a\n- b\n- c\n- d\n- e", "objectives: 7 of them"),
        ("prediction", ":class: predict", "", "cell prediction: a prediction is"),
        ("concept", ":alt: Two boxes, and an arrow from", ":alt: A", "cell concept: the picture"),
        ("concept", "A caption.", "", "cell concept: the picture diagrams/a.svg needs a caption"),
        ("concept", "{figure}", "{image}", "cell concept: the picture diagrams/a.svg needs a cap"),
        ("concept", "a.svg", "b.svg", "cell concept: there is no picture diagrams/b.svg"),
        ("concept", PICTURE, "![](a.svg)", "cell concept: the picture a.svg needs a caption"),
        ("concept", PICTURE, '<img src="a.svg">', "cell concept: an <img> needs alt text"),
        ("exercise-fix", "(fix)", "(write)", "cell exercise-fix: its title is not 'Exercise 7.2"),
        ("exercise-fix", "7.2", "7.3", "cell exercise-fix: its title is not 'Exercise 7.2"),
        ("exercise-fix", ":class: exercise", "", "cell exercise-fix: an exercise is an"),
        ("solution-fix", "7.2", "7.3", "cell solution-fix: its title is not 'Solution 7.2'"),
        ("solution-fix", "{dropdown}", "{note}", "cell solution-fix: a solution's text is a drop"),
        ("quiz", "**4.**", "4.", "quiz: 3 questions"),
        ("quiz", "quiz-right", "quiz-wrong", "quiz, question 1: 0 right options"),
        ("quiz", "quiz-wrong", "quiz-right", "quiz, question 1: 3 right options"),
        ("quiz", "Because it is as it is, 1.", "No.", "quiz, question 1: no explanation for"),
        ("quiz", "<summary>Option 2</summary>\n", "<summary>Option 2</summary>", "quiz, question"),
        ("quiz", 'name="q2"', 'name="q1"', "quiz, question 2: its options need one name="),
        ("quiz", 'class="quiz-option quiz-right"', 'class="right"', "quiz: a <details> is not"),
        ("further-reading", "{cite}`someone`", "", "further-reading: it cites nothing"),
    ],
)
def test_each_wrong_text_is_named(chapter, name, old, new, expected):
    chapter.replace(name, old, new)
    found = chapter.problems()
    assert found and found[0].startswith(expected), found


@pytest.mark.parametrize(
    ("group", "key", "value", "expected"),
    [
        ("image", "alt", "", "its figure needs an alt text"),
        ("image", "alt", "A plot.", "its figure needs an alt text"),
        ("image", "alt", "The same words in alt text and caption.", "alt text and caption say"),
        ("figure", "caption", "", "its figure needs a caption"),
        ("figure", "name", "", "its figure needs a name"),
    ],
)
def test_each_wrong_figure_is_named(chapter, group, key, value, expected):
    settings = {name: dict(part) for name, part in FIGURE.items()}
    settings[group][key] = value
    if "same" in value:
        settings["figure"]["caption"] = value
    chapter["speed"].metadata["mystnb"] = settings
    found = chapter.problems()
    assert [problem.startswith(f"cell speed: {expected}") for problem in found] == [True], found


def test_a_figure_is_known_by_its_last_line_or_its_output(chapter):
    del chapter["speed"].metadata["mystnb"]
    assert len(chapter.problems()) == 3
    chapter["speed"].source = "speed"
    assert chapter.problems() == []
    chapter["speed"].outputs = [new_output("display_data", {"image/svg+xml": "<svg/>"})]
    assert len(chapter.problems()) == 3


def test_two_figures_need_two_names(chapter):
    again = code("again", "speed.plot()", tags=["nbval-ignore-output"], mystnb=FIGURE)
    chapter.notebook.cells.append(again)
    assert chapter.problems() == ["cell again: another figure has the name fig-speed"]


def test_claims_must_be_compared(chapter):
    chapter["claim-speed"].metadata["tags"] = ["nbval-ignore-output"]
    assert chapter.problems() == [
        "cell claim-speed: its claims are not checked by nbval, remove the tag"
    ]


def test_solutions_are_hidden(chapter):
    chapter["solution-fix-code"].metadata["tags"] = []
    assert chapter.problems() == [
        "cell solution-fix-code: a solution's code needs the tag hide-cell"
    ]


@pytest.mark.parametrize("name", ["a1b2c3d4", "8f3a22bc-41d0-4c6e", "Io_Compare", ""])
def test_ids_say_what_a_cell_is(chapter, name):
    chapter["concept"]["id"] = name
    assert chapter.problems()[0].startswith(f"cell {name}: its id does not say")


def test_ids_are_unique(chapter):
    chapter["concept"]["id"] = "title"
    assert chapter.problems() == ["cell title: another cell has this id"]


@pytest.mark.parametrize(
    "key", ["chapter", "reading_minutes", "running_seconds", "claims_at_least"]
)
@pytest.mark.parametrize("value", [None, 0, "5"])
def test_metadata(chapter, key, value):
    chapter.notebook.metadata["course"][key] = value
    found = chapter.problems()
    assert found[0] == f"metadata: course.{key} is not a positive whole number"


def test_language(chapter):
    chapter.notebook.metadata["lang"] = "de"
    assert chapter.problems()[0] == "metadata: lang is not one of en, ko"


def test_a_prediction_stands_before_its_answer(chapter):
    cells = chapter.notebook.cells
    cells.append(cells.pop(cells.index(chapter["prediction"])))
    assert chapter.problems() == [
        "cell prediction: no code cell after this prediction answers it"
    ]


def test_most_code_cells_are_short(chapter):
    for name in ("machine", "claim-speed"):
        chapter[name].source += "\n# a line" * 20
    assert chapter.problems()[0].startswith("code: 2 of 7 cells are longer than 15 lines")


def test_a_long_cell_among_many_is_allowed(chapter):
    chapter["machine"].source += "\n# a line" * 20
    assert chapter.problems() == []


def test_the_korean_chapter_is_not_searched_for_english_words(chapter):
    chapter.notebook.metadata["lang"] = "ko"
    chapter.replace("before", "Prerequisites", "미리 알아 둘 것")
    chapter.replace("exercise-fix", "Exercise 7.2 (fix)", "연습 문제 7.2 (버그 고치기)")
    chapter.replace("solution-fix", "Solution", "풀이")
    assert chapter.problems() == []
