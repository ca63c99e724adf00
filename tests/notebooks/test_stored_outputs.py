"""What a notebook file may contain: normal form, and how it is made."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from website import EDITIONS, ROOT, Problem, notebooks

CLAIM = "[{}] S.\n  expected: at least 2 times\n  measured: {}"


def code(source="f()", *outputs, tags=(), **metadata):
    cell = new_code_cell(source, id="cell", outputs=list(outputs), execution_count=7)
    cell.metadata.update(metadata)
    if tags:
        cell.metadata["tags"] = list(tags)
    return cell


def display(text, **others):
    data = {"text/plain": text, **{key.replace("_", "/"): value for key, value in others.items()}}
    return new_output("display_data", data)


def normal(*cells, lang="en"):
    notebook = new_notebook(cells=list(cells))
    notebook.metadata["lang"] = lang
    return notebooks.normalise(notebook)


@pytest.mark.parametrize("edition", EDITIONS)
def test_the_notebooks_of_the_course_are_in_normal_form(edition):
    paths = notebooks.notebooks(ROOT, edition)
    assert paths
    assert [path.name for path in paths if not notebooks.is_normal(path)] == []


def test_claims_of_the_course_have_stored_outputs():
    for path in notebooks.notebooks(ROOT, EDITIONS[0]):
        assert notebooks.without_outputs(notebooks.read(path)) == [], path.name


def test_a_claim_without_stored_output_is_named(tmp_path, capsys):
    path = tmp_path / "notebooks/en/01-x.ipynb"
    path.parent.mkdir(parents=True)
    notebook = new_notebook(cells=[code('claim("S.", 1, equals=1)')])
    notebook.metadata["lang"] = "en"
    notebooks.write(notebook, path)
    assert notebooks.main(["check", str(path)]) == 1
    printed = capsys.readouterr().out
    assert "01-x.ipynb  no stored outputs of the claims in cell\n" in printed
    assert "website.notebooks store" in printed and "strip" not in printed


@pytest.mark.parametrize("verdict", ["holds", "not measured", "not applicable"])
@pytest.mark.parametrize("measured", ["1.87 [1.80..1.95] times", "nothing: other programs"])
def test_a_claim_is_stored_without_what_varies(verdict, measured):
    cell = normal(code("c()", display(CLAIM.format(verdict, measured), text_html="<p>"))).cells[0]
    assert cell.outputs == [display(CLAIM.format("holds", "<value>"))]


def test_a_failing_claim_is_never_stored_as_holding():
    cell = normal(code("c()", display(CLAIM.format("fails", "1")))).cells[0]
    assert cell.outputs[0].data["text/plain"].startswith("[fails] S.")


def test_counts_and_editors_metadata_are_removed():
    cell = code(tags=["a"], collapsed=True, jupyter={"x": 1}, course={"role": "quiz"})
    notebook = new_notebook(cells=[cell])
    notebook.metadata.update({"widgets": {}, "language_info": {"name": "python", "version": "3"}})
    result = notebooks.normalise(notebook)
    assert result.cells[0].execution_count is None
    assert result.cells[0].metadata == {"tags": ["a"], "course": {"role": "quiz"}}
    assert result.metadata == {
        "kernelspec": notebooks.KERNEL,
        "language_info": {"name": "python"},
    }


def test_outputs_that_are_not_compared_are_removed():
    ignored = code("f()", display("1"), tags=["nbval-ignore-output"])
    assert normal(ignored).cells[0].outputs == []
    picture = new_output("display_data", {"image/svg+xml": "<svg/>"})
    assert normal(code("f()", picture)).cells[0].outputs == []


def test_translations_store_no_outputs():
    assert normal(code("f()", display("1")), lang="ko").cells[0].outputs == []


def test_pieces_of_a_stream_become_one():
    pieces = [new_output("stream", name="stdout", text=text) for text in ("a\n", "b\n")]
    outputs = normal(code("f()", pieces[0], display("x"), pieces[1])).cells[0].outputs
    assert [(o.get("text"), o.output_type) for o in outputs] == [
        ("a\nb\n", "stream"),
        (None, "display_data"),
    ]


def test_normalising_leaves_its_argument_alone():
    cell = code("f()  \n", display("1"), collapsed=True)
    notebook = new_notebook(cells=[cell])
    before = nbformat.writes(notebook)
    notebooks.normalise(notebook)
    assert nbformat.writes(notebook) == before


def test_normal_form_is_a_fixed_point(tmp_path):
    path = tmp_path / "notebooks/en/01-x.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(
        new_notebook(cells=[new_markdown_cell("# 제목\n", id="t"), code("f()", display("1"))]), path
    )
    assert not notebooks.is_normal(path)
    assert notebooks.main(["check", str(path)]) == 1
    assert notebooks.main(["strip", str(path)]) == 0
    assert notebooks.main(["check", str(path)]) == 0
    text = path.read_bytes()
    assert text.endswith(b"}\n") and "제목".encode() in text
    assert notebooks.main(["strip", str(path)]) == 0
    assert path.read_bytes() == text


def test_storing_twice_changes_nothing_and_failing_claims_are_refused(tmp_path):
    path = tmp_path / "notebooks/en/01-x.ipynb"
    path.parent.mkdir(parents=True)
    source = "import time\nfrom concurrency_lab import claim\n"
    claim = code(source + 'claim("S.", time.time(), at_least=2, unit="times")')
    notebooks.write(new_notebook(cells=[claim]), path)
    assert notebooks.main(["store", str(path)]) == 0
    stored = path.read_bytes()
    output = notebooks.read(path).cells[0].outputs[0]
    assert output.data["text/plain"] == CLAIM.format("holds", "<value>")
    assert notebooks.main(["store", str(path)]) == 0
    assert path.read_bytes() == stored

    claim.source = source + 'claim("S.", 1, at_least=2)'
    notebooks.write(new_notebook(cells=[claim]), path)
    before = path.read_bytes()
    with pytest.raises(Problem, match=r"(?s)nothing was stored.*cell cell: \[fails\] S\."):
        notebooks.store([path])
    assert path.read_bytes() == before


@pytest.mark.parametrize("text", ["", "no JSON", "{}", "[]"])
def test_a_file_that_is_no_notebook_is_named(tmp_path, text):
    path = tmp_path / "notebooks/en/01-x.ipynb"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(Problem, match="notebooks/en/01-x.ipynb is not a notebook file"):
        notebooks.read(path)
