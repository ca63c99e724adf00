"""The notebooks: reading them, with or without outputs, and what a stored file may contain.

    python -m website.notebooks strip [FILE ...]     rewrite files in normal form
    python -m website.notebooks check [FILE ...]     list files that are not so, or lack outputs
    python -m website.notebooks store [FILE ...]     execute English notebooks, store their outputs

Normal form: of the outputs only what nbval compares, that is text and streams of cells without the
tag `nbval-ignore-output`, with the sanitising patterns of tests/notebooks/sanitize.cfg applied; no
execution counts; no metadata of editors; one way of writing JSON. So executing a notebook again
changes no file. Translations store no outputs. Without FILE: every notebook of the course.
"""

from __future__ import annotations

import re
import sys
from functools import cache as once
from pathlib import Path

import nbformat
from jupyter_cache import get_cache
from nbformat import NotebookNode

from website import EDITIONS, ROOT, Problem, command_line

CACHE = Path("_build/.jupyter_cache")
"""Where executed notebooks are kept, from the repository's root."""

SANITIZE = ROOT / "tests/notebooks/sanitize.cfg"
"""The patterns that nbval, too, applies to outputs before it compares them."""

IGNORED = {"nbval-ignore-output", "nbval-skip"}
"""Tags of cells whose outputs are not compared."""

NOTEBOOK_METADATA = {"kernelspec", "language_info", "lang", "course", "i18n"}
CELL_METADATA = {"tags", "course", "mystnb", "i18n"}
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}

_NO_NOTEBOOK = (nbformat.reader.NotJSONError, nbformat.ValidationError, KeyError, AttributeError)


# -- reading ----------------------------------------------------------------------------------


def notebooks(root: Path, edition: str) -> list[Path]:
    """The notebooks of an edition, in chapter order (their names begin with the number)."""
    return sorted((root / "notebooks" / edition).glob("*.ipynb"))


def name_of(path: Path) -> str:
    """A notebook's name for messages: `notebooks/en/01-threads-and-processes.ipynb`."""
    return "/".join(path.parts[-3:])


def read(path: Path) -> NotebookNode:
    """The notebook of a file, as myst-nb reads it. Raises Problem if it is none."""
    try:
        return nbformat.read(path, as_version=4)
    except FileNotFoundError:
        raise Problem(f"There is no notebook {name_of(path)}.") from None
    except _NO_NOTEBOOK as error:
        raise Problem(f"{name_of(path)} is not a notebook file: {error}") from None


def code(notebook: NotebookNode) -> list[str]:
    """The sources of the code cells."""
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def executed(path: Path, cache: Path) -> NotebookNode | None:
    """A notebook with its outputs from the cache; None if they are not there."""
    try:
        return get_cache(cache).merge_match_into_notebook(read(path))[1]
    except KeyError:
        return None


def record(path: Path, cache: Path) -> dict | None:
    """What the cache knows of a notebook's execution, None if it is not there.

    `execution_seconds`, `stamp` (see `website.execute.stamp`), `python`, `machine`, `time` and
    `outputs`, a digest of the outputs.
    """
    try:
        return get_cache(cache).match_cache_notebook(read(path)).data
    except KeyError:
        return None


def cache_of(app) -> Path | None:
    """The cache that a Sphinx build reads outputs from; None if it does not use one."""
    settings = app.env.mystnb_config
    return Path(settings.execution_cache_path) if settings.execution_mode == "cache" else None


# -- normal form ------------------------------------------------------------------------------


@once
def _patterns() -> list[tuple[str, str]]:
    from nbval.plugin import get_sanitize_patterns  # as nbval reads them

    return get_sanitize_patterns(SANITIZE.read_text("utf-8"))


def sanitize(text: str) -> str:
    """Replace what differs from run to run, as nbval does before it compares."""
    for pattern, replacement in _patterns():
        text = re.sub(pattern, replacement, text)
    return text


def is_compared(cell: NotebookNode) -> bool:
    """Whether nbval compares the outputs of this code cell."""
    return not IGNORED & set(cell.metadata.get("tags", []))


def normalise(notebook: NotebookNode) -> NotebookNode:
    """The notebook in normal form (a copy)."""
    notebook = nbformat.from_dict(notebook)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    keep_outputs = notebook.metadata.get("lang", EDITIONS[0]) == EDITIONS[0]
    for key in notebook.metadata.keys() - NOTEBOOK_METADATA:
        del notebook.metadata[key]
    notebook.metadata["kernelspec"] = nbformat.from_dict(KERNEL)
    notebook.metadata["language_info"] = nbformat.from_dict({"name": "python"})
    for cell in notebook.cells:
        for key in cell.metadata.keys() - CELL_METADATA:
            del cell.metadata[key]
        cell.source = cell.source.rstrip()
        if not cell.get("attachments", True):
            del cell["attachments"]
        if cell.cell_type == "code":
            cell.execution_count = None
            compared = keep_outputs and is_compared(cell)
            cell.outputs = _normal_outputs(cell.outputs) if compared else []
    return notebook


def _normal_outputs(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """What nbval compares of the outputs, sanitised; the pieces of a stream as one."""
    normal: list[NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream":
            before = [o for o in normal if o.output_type == "stream" and o.name == output.name]
            if before:
                before[0].text += output.text
            else:
                normal.append(nbformat.from_dict(dict(output)))
        elif output.output_type == "error":
            kept = {"ename": output.ename, "evalue": output.evalue, "traceback": []}
            normal.append(nbformat.v4.new_output("error", **kept))
        elif "text/plain" in output.data:
            text = sanitize(output.data["text/plain"])
            new = nbformat.v4.new_output(output.output_type, {"text/plain": text})
            normal.append(new)
    for output in normal:
        if output.output_type == "stream":
            output.text = sanitize(output.text)
    return normal


def write(notebook: NotebookNode, path: Path) -> None:
    """Write a notebook file, in normal form."""
    path.write_text(_text(notebook), encoding="utf-8", newline="\n")


def _text(notebook: NotebookNode) -> str:
    return nbformat.writes(normalise(notebook)).rstrip("\n") + "\n"


def is_normal(path: Path) -> bool:
    """Whether the file is in normal form, byte for byte."""
    return path.read_bytes() == _text(read(path)).encode()


# -- commands ---------------------------------------------------------------------------------


def strip(paths: list[Path]) -> int:
    for path in paths:
        if not is_normal(path):
            write(read(path), path)
            print(f"{name_of(path)}  rewritten")
    return 0


def without_outputs(notebook: NotebookNode) -> list[str]:
    """The ids of cells whose claims have no stored outputs that nbval could compare."""
    if notebook.metadata.get("lang") != EDITIONS[0]:
        return []
    return [
        cell.id
        for cell in notebook.cells
        if cell.cell_type == "code" and is_compared(cell)
        if re.search(r"\bclaim\(", cell.source) and not cell.outputs
    ]


def check(paths: list[Path]) -> int:
    cures = set()
    for path in paths:
        if not is_normal(path):
            print(f"{name_of(path)}  is not in normal form")
            cures.add("strip")
        if cells := without_outputs(read(path)):
            print(f"{name_of(path)}  no stored outputs of the claims in {', '.join(cells)}")
            cures.add("store")
    for cure in sorted(cures):
        print(f"Run python -m website.notebooks {cure}")
    return 1 if cures else 0


def store(paths: list[Path]) -> int:
    from website.execute import execute  # it imports this module

    for path in paths:
        if path.parent.name in EDITIONS[1:]:
            continue
        notebook, _ = execute(path)
        failing = [
            f"cell {cell.id}: {line}"
            for cell in notebook.cells
            if cell.cell_type == "code"
            for output in cell.outputs
            for line in output.get("data", {}).get("text/plain", "").splitlines()
            if line.startswith("[fails]")
        ]
        if failing:
            raise Problem(
                f"{name_of(path)}: claims fail on this computer, so nothing was stored:\n"
                + "\n".join(f"    {line}" for line in failing)
            )
        write(notebook, path)
    return 0


def main(arguments: list[str] | None = None) -> int:
    parser = command_line("website.notebooks", __doc__)
    parser.add_argument("command", choices=("strip", "check", "store"))
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    every = [path for edition in EDITIONS for path in notebooks(ROOT, edition)]
    paths = [path.resolve() for path in options.files] or every
    try:
        return {"strip": strip, "check": check, "store": store}[options.command](paths)
    except Problem as problem:
        print(problem, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
