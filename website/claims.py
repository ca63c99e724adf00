"""The claims of the book: collected from what was executed, in each edition's language.

Directives for pages (MyST):

- `{claims-table}`: every claim of the edition with its measured value, by chapter, each linked to
  its cell, and how many hold.
- `{chapter-figure}` with `:chapter:`, `:cell:`, `:alt:` (default: the cell's own) and the caption
  as its content: the figure that a chapter's cell drew, shown on another page.

Both read the outputs that this build's pages are made from, and a page that uses them is read again
when one of those outputs changes. As a Sphinx extension this module also gives every code cell the
HTML id `cell-<its id>`, and sets up `website.execute` and `website.player`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from docutils import nodes
from docutils.parsers.rst import directives
from nbformat import NotebookNode
from sphinx.util.docutils import SphinxDirective

from concurrency_lab.claims import MIME_TYPE, outcome, render_html, singular, translate
from website import Problem, arrivals, player
from website.notebooks import cache_of, executed, name_of, read, record

VERDICTS = ("holds", "fails", "not measured", "not applicable")

WORDS: dict[str, dict[str, str]] = {
    "en": {},
    "ko": {
        "holds": "성립",
        "fails": "불성립",
        "not measured": "판정 보류",
        "not applicable": "해당 없음",
        "expected": "기대",
        "measured": "측정",
        "{}; no verdict: {}": "{} (까닭: {})",
        "nothing: {}": "없음 ({})",
        "at least {}": "{} 이상",
        "at most {}": "{} 이하",
        "between {} and {}": "{}~{}",
        "exactly {}": "정확히 {}",
        "yes": "예",
        "no": "아니요",
        # why there is no verdict
        "other programs used {} cores": "그동안 다른 프로그램이 코어 {}개를 씀",
        "the spread is too wide to decide": "값이 너무 넓게 퍼짐",
        "meanwhile {} kept only {} cores busy": "그동안 {}도 코어를 {}개만 씀",
        "only {} effective cores were to be had": "쓸 수 있던 유효 코어 수가 {}뿐임",
        "this system does not tell {} of other processes": "다른 프로세스의 {}은 알 수 없음",
        "this system does not tell the states of threads": "스레드의 상태를 알 수 없음",
        "two threads slowed each other down {} times": "스레드 두 개가 서로를 {}배 느리게 함",
        "this Python runs without the GIL": "이 파이썬은 GIL 없이 실행됨",
        "this system is {}, not Linux": "이 시스템은 리눅스가 아니라 {}",
        "{} cores are needed, usable here: {}": "코어 {}개가 필요하나 쓸 수 있는 것은 {}개",
        "{} has no start method {}": "{}에는 {} 시작 방식이 없음",
        # the claims page
        "claim": "주장",
        "verdict": "판정",
        "{} claims": "주장 {}개",
        "{} claim": "주장 {}개",
        "Chapter {}. {}": "{}장. {}",
        "Measured on {} with Python {} ({}).": "{}, 파이썬 {}에서 측정 ({}).",
        "{} {}, {} usable cores": "{} {}, 쓸 수 있는 코어 {}개",
    },
}
"""For each edition, the words that claims are made of (`concurrency_lab.claims.PHRASES`, reasons)
and those of the claims page. A chapter's own words stand in its cells' metadata `i18n.claims`."""

UNITS: dict[str, dict[str, str]] = {
    "en": {},
    "ko": {"{} cores": "{}코어", "{} times": "{}배", "{} processes": "프로세스 {}개"},
}
"""For each edition, the units that several chapters use."""


def words(edition: str, own: Mapping[str, str] | None = None) -> dict[str, str]:
    """What `concurrency_lab.claims.translate` needs for an edition, with a chapter's own words.

    Units come last, because "{} cores" fits whatever ends so, and the chapter's before the others.
    """
    found = dict(WORDS.get(edition, {}))
    for units in (own or {}, UNITS.get(edition, {})):
        for phrase, translation in units.items():
            if translation:
                found.setdefault(phrase, translation)
                if phrase.endswith("s"):  # "1 core", "1 address"
                    found.setdefault(singular(phrase), translation)
    return found


def needs_translation(unit: str, edition: str) -> bool:
    """Whether a chapter must translate a unit itself; symbols such as ms stay as they are."""
    return len(unit) > 2 and f"{{}} {unit}" not in UNITS.get(edition, {})


# -- claims of a notebook ---------------------------------------------------------------------


@dataclass(frozen=True)
class Chapter:
    """An executed chapter: its page's name, number and title, and (cell id, claim) in order."""

    name: str
    number: str
    title: str
    claims: list[tuple[str, dict[str, str]]]
    execution: Mapping[str, str] = field(default_factory=dict)


def of_notebook(notebook: NotebookNode) -> list[tuple[str, dict[str, str]]]:
    """The (cell id, claim) of an executed notebook, in order."""
    return [
        (cell.id, dict(output.data[MIME_TYPE]))
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if MIME_TYPE in output.get("data", {})
    ]


def title_of(notebook: NotebookNode) -> str:
    """The text of the notebook's first heading."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            if match := re.search(r"^# +(.+?) *$", cell.source, re.MULTILINE):
                return match[1]
    return ""


def chapter(path: Path, cache: Path) -> Chapter:
    """An executed chapter. Raises Problem if it is not in the cache."""
    notebook = executed(path, cache)
    if notebook is None:
        raise Problem(f"{name_of(path)} was not executed. Run python -m website.execute")
    return Chapter(
        path.stem,
        str(notebook.metadata.get("course", {}).get("chapter", "")),
        title_of(notebook),
        of_notebook(notebook),
        record(path, cache) or {},
    )


def report(chapters: list[Chapter]) -> dict:
    """What claims.json holds: the claims in the edition's words, and where they were measured.

    Verdicts stay the English ones of `VERDICTS`, so that programs can tell them in each edition.
    """
    last = max((c.execution for c in chapters), key=lambda e: e.get("time", ""), default={})
    return {
        "build": {key: last.get(key, "") for key in ("machine", "python", "time")},
        "claims": [
            {"chapter": chapter.name, "cell": cell, **claim}
            for chapter in chapters
            for cell, claim in chapter.claims
        ],
    }


# -- claims in another language ---------------------------------------------------------------


def localise(claim: Mapping[str, str], edition: str, own: Mapping[str, str] | None = None) -> dict:
    """A claim in the words of an edition; `own` are those of its chapter.

    The verdict stays as it is. Text without a translation stays English.
    """
    known = words(edition, own)
    return {
        key: value if key == "verdict" else translate(value, known) for key, value in claim.items()
    }


def localise_outputs(outputs: list[NotebookNode], edition: str, metadata: Mapping) -> list:
    """Copies of a cell's outputs with claims and recordings in the words of an edition.

    `metadata` is that of the translated cell; its `i18n.claims` has the sentences and goals.
    """
    outputs = nbformat.from_dict(outputs)
    own = metadata.get("i18n", {}).get("claims", {})
    for output in outputs:
        data = output.get("data", {})
        for kind in _BUNDLES.keys() & data.keys():
            data.update(nbformat.from_dict(_BUNDLES[kind](data[kind], edition, own)))
    return outputs


def bundle(claim: Mapping[str, str], edition: str, own: Mapping[str, str]) -> dict[str, object]:
    """The output of a claim in the words of an edition."""
    claim = localise(claim, edition, own)
    return {
        MIME_TYPE: claim,
        "text/html": render_html(claim, words(edition)),
        "text/plain": _plain(claim, edition),
    }


_BUNDLES = {
    MIME_TYPE: bundle,
    player.MIME_TYPE: player.bundle,
    player.EXPLORATION: player.exploration_bundle,
    arrivals.MIME_TYPE: arrivals.bundle,
}


def _plain(claim: Mapping[str, str], edition: str) -> str:
    own = words(edition)
    measured = outcome(claim)
    return (
        f"[{translate(claim['verdict'], own)}] {claim['sentence']}\n"
        f"  {translate('expected', own)}: {claim['expected']}\n"
        f"  {translate('measured', own)}: {translate(measured, own)}"
    )


# -- pages ------------------------------------------------------------------------------------


def _chapter_docs(env) -> list[str]:
    """The pages of the edition's chapters, in order."""
    folder = f"notebooks/{env.config.language}/"
    return sorted(name for name in env.found_docs if name.startswith(folder))


def _fingerprint(env, docname: str) -> str:
    known = record(Path(env.doc2path(docname)), cache_of(env.app))
    return known.get("outputs", "") if known else ""


class _FromChapters(SphinxDirective):
    """A directive whose result depends on the outputs of chapters."""

    def uses(self, docnames: list[str]) -> None:
        used = self.env.metadata[self.env.docname].setdefault("uses_outputs", {})
        for docname in docnames:
            self.env.note_dependency(str(self.env.doc2path(docname)))
            used[docname] = _fingerprint(self.env, docname)

    def cache(self) -> Path:
        cache = cache_of(self.env.app)
        if cache is None:
            raise self.error(f"{self.name} needs execute_notebooks: cache in _config.yml")
        return cache


class ClaimsTable(_FromChapters):
    """Every claim of the edition, by chapter."""

    def run(self) -> list[nodes.Node]:
        cache = self.cache()
        docnames = _chapter_docs(self.env)
        self.uses(docnames)
        self.env.metadata[self.env.docname]["uses_chapters"] = docnames
        try:
            chapters = [chapter(Path(self.env.doc2path(name)), cache) for name in docnames]
        except Problem as problem:
            raise self.error(str(problem)) from None
        result: list[nodes.Node] = [self.summary(chapters)]
        for docname, one in zip(docnames, chapters, strict=True):
            if one.claims:
                result.append(self.section(docname, one))
        return result

    def say(self, text: str) -> str:
        return translate(text, words(self.config.language))

    def summary(self, chapters: list[Chapter]) -> nodes.Node:
        claims = [claim for one in chapters for _, claim in one.claims]
        counts = Counter(claim["verdict"] for claim in claims)
        box = nodes.container(classes=["claims-summary"])
        box += nodes.paragraph("", self.say(_count(len(claims))), classes=["claims-total"])
        listing = nodes.bullet_list(classes=["claims-counts"])
        for verdict in VERDICTS:
            if counts[verdict]:
                text = nodes.paragraph()
                text += nodes.inline("", self.say(verdict), classes=["claims-count-verdict"])
                text += nodes.Text(" ")
                text += nodes.inline("", str(counts[verdict]), classes=["claims-count-number"])
                listing += nodes.list_item("", text, classes=[_slug(verdict)])
        box += listing
        return box

    def section(self, docname: str, one: Chapter) -> nodes.Node:
        title = f"Chapter {one.number}. {one.title}" if one.number else one.title
        section = nodes.section(ids=[f"claims-{one.name}"], names=[])
        section += nodes.title("", self.say(title))
        if one.execution.get("time"):
            text = "Measured on {} with Python {} ({}).".format(
                one.execution["time"][:10],
                one.execution.get("python", "?"),
                self.say(one.execution.get("machine", "?")),
            )
            section += nodes.paragraph("", self.say(text), classes=["claims-measured-on"])
        table = nodes.table(classes=["claims-table"])
        group = nodes.tgroup(cols=4)
        group += [nodes.colspec(colwidth=width) for width in (12, 50, 18, 20)]
        heads = [self.say(key) for key in ("verdict", "claim", "expected", "measured")]
        row = nodes.row()
        row += [nodes.entry("", nodes.paragraph("", head[:1].upper() + head[1:])) for head in heads]
        group += nodes.thead("", row)
        group += nodes.tbody("", *(self.row(docname, cell, claim) for cell, claim in one.claims))
        table += group
        section += table
        return section

    def row(self, docname: str, cell: str, claim: dict[str, str]) -> nodes.Node:
        link = nodes.reference("", claim["sentence"], internal=True, refuri="")
        link["course_target"] = (docname, f"cell-{cell}")
        row = nodes.row(classes=[_slug(claim["verdict"])])
        for name, content in (
            ("verdict", nodes.Text(self.say(claim["verdict"]))),
            ("sentence", link),
            ("expected", nodes.Text(claim["expected"])),
            ("measured", nodes.Text(self.say(outcome(claim)))),
        ):
            row += nodes.entry("", nodes.paragraph("", "", content), classes=[f"claim-{name}"])
        return row


class ChapterFigure(_FromChapters):
    """The figure that a cell of a chapter drew."""

    has_content = True
    option_spec = {
        "chapter": directives.unchanged_required,
        "cell": directives.unchanged_required,
        "alt": directives.unchanged,
    }

    def run(self) -> list[nodes.Node]:
        missing = [option for option in ("chapter", "cell") if not self.options.get(option)]
        if missing:
            raise self.error(f"chapter-figure needs :{missing[0]}:")
        docname = f"notebooks/{self.config.language}/{self.options['chapter']}"
        if docname not in self.env.found_docs:
            raise self.error(f"chapter-figure: there is no chapter {docname}")
        notebook = executed(Path(self.env.doc2path(docname)), self.cache())
        if notebook is None:
            raise self.error(f"{docname} was not executed. Run python -m website.execute")
        self.uses([docname])
        figures = {
            cell.id: (cell, output.data["image/svg+xml"])
            for cell in notebook.cells
            if cell.cell_type == "code"
            for output in cell.outputs
            if "image/svg+xml" in output.get("data", {})
        }
        if self.options["cell"] not in figures:
            raise self.error(
                f"chapter-figure: the cell {self.options['cell']} of {docname} draws no figure. "
                f"Cells that do: {', '.join(figures) or 'none'}"
            )
        cell, svg = figures[self.options["cell"]]
        own = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        alt = self.options.get("alt") or own
        if not alt:
            raise self.error("chapter-figure needs :alt:, the cell has no alt text either")
        return [self.figure(svg, alt)]

    def figure(self, svg: str, alt: str) -> nodes.Node:
        figure = nodes.figure("", nodes.image(uri=self.file(svg), alt=alt))
        figure["classes"].append("chapter-figure")
        if self.content:
            text = nodes.Element()
            self.state.nested_parse(self.content, self.content_offset, text)
            first, *rest = text.children
            figure += nodes.caption("", "", *first.children)
            if rest:
                figure += nodes.legend("", *rest)
        self.set_source_info(figure)
        return figure

    def file(self, svg: str) -> str:
        """Write the picture where myst-nb writes those of notebooks, under the same name."""
        content = os.linesep.join(svg.splitlines()).encode()
        folder = Path(self.env.app.outdir).parent / "jupyter_execute"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{hashlib.sha256(content).hexdigest()}.svg"
        if not path.exists():
            path.write_bytes(content)
        if os.name == "nt":  # there may be no relative path between drives
            return path.resolve().as_posix()
        return "/" + os.path.relpath(path.resolve(), self.env.srcdir)


def _count(number: int) -> str:
    return f"{number} claim" if number == 1 else f"{number} claims"


def _slug(verdict: str) -> str:
    return "claim-" + verdict.replace(" ", "-")


# -- Sphinx -----------------------------------------------------------------------------------


def _allow_claims(app, config) -> None:
    # myst-nb warns of each kind of output that it does not show, of which claims are one
    config.suppress_warnings = [*config.suppress_warnings, "mystnb.unknown_mime_type"]


def _outdated(app, env, added, changed, removed) -> list[str]:
    """Pages that show outputs of chapters which have others now."""
    now: dict[str, str] = {}
    pages = []
    for page in env.found_docs - added - changed:
        used = env.metadata[page].get("uses_outputs", {})
        chapters = env.metadata[page].get("uses_chapters")
        for docname in used.keys() & env.found_docs:
            now.setdefault(docname, _fingerprint(env, docname))
        if chapters not in (None, _chapter_docs(env)) or any(
            now.get(docname) != known for docname, known in used.items()
        ):
            pages.append(page)
    return pages


def _name_cells(app, doctree) -> None:
    path = Path(app.env.doc2path(app.env.docname))
    if path.suffix != ".ipynb":
        return
    cells = read(path).cells
    for node in doctree.findall(nodes.container):
        if node.get("nb_element") == "cell_code" and "id" in cells[node["cell_index"]]:
            node["ids"].append(f"cell-{cells[node['cell_index']].id}")


def _link_cells(app, doctree, docname) -> None:
    for node in doctree.findall(nodes.reference):
        if target := node.attributes.pop("course_target", None):
            page, anchor = target
            node["refuri"] = f"{app.builder.get_relative_uri(docname, page)}#{anchor}"


def _publish(app, exception) -> None:
    """Write the edition's claims as claims.json beside its pages."""
    cache = cache_of(app)
    if exception or cache is None or app.builder.format != "html":
        return
    env = app.env
    chapters = [chapter(Path(env.doc2path(name)), cache) for name in _chapter_docs(env)]
    text = json.dumps(report(chapters), ensure_ascii=False, indent=1)
    Path(app.outdir, "claims.json").write_text(text + "\n", "utf-8")


def setup(app):
    app.setup_extension("website.execute")
    app.setup_extension("website.player")
    app.connect("config-inited", _allow_claims)
    app.connect("env-get-outdated", _outdated)
    app.connect("doctree-read", _name_cells)
    app.connect("doctree-resolved", _link_cells)
    app.connect("build-finished", _publish)
    app.add_directive("claims-table", ClaimsTable)
    app.add_directive("chapter-figure", ChapterFigure)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
