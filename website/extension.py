"""Sphinx extension: the site's pages, from their addresses to their words and formulas.

The frame of a page is ``templates/``, its look and behaviour are ``static/``; no theme's style
sheets, scripts or fonts are used, so a page weighs little and asks no other host for anything.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from datetime import datetime
from html import escape
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

from babel.messages import mofile, pofile
from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from myst_nb.ext.execution_tables import ExecutionStatsNode, ExecutionStatsPostTransform
from myst_nb.sphinx_ import NbMetadataCollector
from sphinx.application import Sphinx
from sphinx.builders.html import StandaloneHTMLBuilder
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.environment.collectors.toctree import TocTreeCollector
from sphinx.locale import get_translation
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.fileutil import copy_asset
from sphinx.util.math import get_node_equation_number
from sphinx.writers.html5 import HTML5Translator

from website import player

ROOM = Path(__file__).resolve().parent
STATIC = ROOM / "static"
LOCALES = ROOM / "i18n" / "locale"
DESCRIPTION_LENGTH = 160
_ = get_translation("course")
logger = logging.getLogger(__name__)

# Korean words that a reader looks for by a part that is not their beginning. Pagefind matches
# beginnings only, so these parts are added to the index where such a word stands.
COMPOUND_PARTS = {
    "스레딩": "스레드",
    "프로세싱": "프로세스",
    "스케줄러": "스케줄링",
    **{
        part: part
        for part in (
            "동시성", "병렬성", "스레드", "프로세스", "인터프리터", "스케줄링", "컨텍스트",
            "생명주기", "경합", "교착", "동기화", "메모리", "세마포어", "이벤트", "루프", "코루틴",
            "태스크", "익스큐터", "워커", "직렬화", "저장소", "클러스터", "오버헤드", "처리량",
            "노트북",
        )
    },
}  # fmt: skip
# What others write into pages and accessibility rules (or Korean readers) object to: myst-nb names
# every hidden cell in English, over its own words; docutils gives citations a withdrawn role.
UNWANTED = (' aria-label="Toggle hidden content"', ' role="doc-biblioentry"', ' role="list"')
_EMPTY_HEADER = re.compile(r"<th\b[^>]*>(?:\s|<p>\s*</p>)*</th>")  # a table's corner
_SECTION_START = re.compile(
    r'<section(?: class="[^"]*")? id="([^"]+)">((?:\s*<span id="[^"]*"></span>)*\s*)<(h[1-6])>'
)
_HANGUL_WORD = re.compile(r"[가-힣]{3,}")


class CourseBuilder(StandaloneHTMLBuilder):
    """Sphinx' HTML builder with flat addresses, our files as the only static ones, no search page.

    ``book/en/glossary`` and ``notebooks/en/01-threads-and-processes`` become ``glossary.html`` and
    ``01-threads-and-processes.html``: the language is the folder that the edition is put in.
    """

    search = False

    def get_target_uri(self, docname: str, typ: str | None = None) -> str:
        return quote(flat_name(docname)) + self.link_suffix

    def get_outfilename(self, pagename: str) -> str:
        return str(Path(self.outdir, flat_name(pagename) + self.out_suffix))

    def copy_static_files(self) -> None:
        copy_asset(STATIC, Path(self.outdir, "_static"))
        player.copy_files(Path(self.outdir, "_static"))

    def cleanup(self) -> None:
        """Remove the style sheets of extensions, myst-nb's above all: ours has their rules."""
        super().cleanup()
        ours = {file.name for file in (*STATIC.iterdir(), *player.FILES)}
        for file in Path(self.outdir, "_static").glob("*"):
            if file.name not in ours:
                file.unlink()

    def dump_inventory(self) -> None:
        """No inventory: nobody links here by Sphinx references."""


class CourseTranslator(HTML5Translator):
    """HTML of a page: tables scroll inside themselves, pictures have a size and load late."""

    def visit_table(self, node: nodes.Element) -> None:
        self.body.append('<div class="table-scroll">')
        super().visit_table(node)

    def depart_table(self, node: nodes.Element) -> None:
        super().depart_table(node)
        self.body.append("</div>\n")

    def visit_image(self, node: nodes.Element) -> None:
        source = Path(self.builder.srcdir, node["uri"])
        super().visit_image(node)
        attributes = 'loading="lazy" decoding="async"'
        if not {"width", "height", "scale"} & set(node.attributes):
            size = svg_size(source)
            if size is not None:  # the page does not jump when the picture arrives
                attributes += f' width="{size[0]}" height="{size[1]}"'
        self.body[-1] = self.body[-1].replace("<img ", f"<img {attributes} ", 1)

    def add_permalink_ref(self, node: nodes.Element, title: str) -> None:
        before = len(self.body)
        super().add_permalink_ref(node, title)
        if len(self.body) > before:
            self.body[-1] = self.body[-1].replace("<a ", "<a data-pagefind-ignore ", 1)


class ExecutionTable(SphinxPostTransform):
    """myst-nb's table of executed notebooks, with their titles and in the edition's language."""

    default_priority = ExecutionStatsPostTransform.default_priority - 1

    def run(self, **kwargs: object) -> None:
        places = list(self.document.findall(ExecutionStatsNode))
        if not places:
            return
        rows = [[_("Chapter"), _("Executed on"), _("Seconds needed")]]
        for docname, data in sorted(NbMetadataCollector.get_doc_data(self.env).items()):
            if executed := data.get("exec_data"):
                day = datetime.fromtimestamp(executed["mtime"]).strftime("%Y-%m-%d")
                link = nodes.reference("", self.env.titles[docname].astext(), internal=True)
                link["refuri"] = self.app.builder.get_relative_uri(self.env.docname, docname)
                rows.append([link, day, f"{executed['runtime'] or 0:.0f}"])
        for place in places:
            place.replace_self(simple_table(rows))


def simple_table(rows: list[list[str | nodes.Node]]) -> nodes.table:
    """A table of texts or inline nodes; the first row is its header."""
    table_rows = []
    for cells in rows:
        row = nodes.row()
        for cell in cells:
            content = cell if isinstance(cell, nodes.Node) else nodes.Text(str(cell))
            row += nodes.entry("", nodes.paragraph("", "", content))
        table_rows.append(row)
    group = nodes.tgroup("", cols=len(rows[0]))
    group += [nodes.colspec(colwidth=1) for _column in rows[0]]
    group += nodes.thead("", table_rows[0])
    group += nodes.tbody("", *table_rows[1:])
    return nodes.table("", group)


def flat_name(docname: str) -> str:
    """A page's address without folders and ending: ``book/en/index`` is ``index``."""
    return re.sub(r"^(book|notebooks)/\w\w/", "", docname)


def svg_size(path: Path) -> tuple[int, int] | None:
    """Width and height of an SVG file in CSS pixels, or None if it is no SVG or does not say."""
    if path.suffix != ".svg" or not path.is_file():
        return None
    root = next(iter(ElementTree.iterparse(path, events=["start"])))[1]
    box = root.get("viewBox", "").replace(",", " ").split()
    sizes = []
    for name, fallback in zip(("width", "height"), box[2:] or ("", ""), strict=True):
        match = re.fullmatch(r"([\d.]+)(px|pt|)", root.get(name) or fallback)
        if match is None:
            return None
        sizes.append(round(float(match[1]) * (4 / 3 if match[2] == "pt" else 1)))
    return sizes[0], sizes[1]


def render_math(translator: HTML5Translator, node: nodes.Element, block: bool) -> None:
    """Write a formula as MathML, which browsers draw without script or font."""
    try:
        formula = tex2mathml(node.astext(), as_block=block)
    except (SyntaxError, ValueError) as error:
        logger.warning("cannot draw this formula: %s", error, location=node)
        formula = f"<code>{escape(node.astext())}</code>"
    if not block:
        translator.body.append(f'<span class="math">{formula}</span>')
        raise nodes.SkipNode
    translator.body.append(translator.starttag(node, "div", "", CLASS="math-block"))
    translator.body.append(f'<div class="table-scroll">{formula}</div>')
    if node.get("number"):
        number = get_node_equation_number(translator, node)
        translator.body.append(f'<span class="equation-number">({number})</span>')
    translator.body.append("</div>\n")
    raise nodes.SkipNode


def configure(app: Sphinx, config: Config) -> None:
    """Adapt Jupyter Book's settings to our pages."""
    config.course_repository = config.html_theme_options.get("repository_url", "")
    config.html_theme_options = {}  # Jupyter Book's are for another theme
    config.html_use_index = False
    config.html_domain_indices = False
    if config.html_baseurl:
        config.html_baseurl = f"{config.html_baseurl.rstrip('/')}/{config.language}/"


def compile_catalogues(app: Sphinx) -> None:
    """Register our translations; the compiled ones stand with the build, not in the sources."""
    for source in LOCALES.glob("*/LC_MESSAGES/*.po"):
        target = Path(app.doctreedir, "locale", source.relative_to(LOCALES)).with_suffix(".mo")
        target.parent.mkdir(parents=True, exist_ok=True)
        with source.open("rb") as catalogue, target.open("wb") as compiled:
            mofile.write_mo(compiled, pofile.read_po(catalogue))
    for domain in ("course", "sphinx"):
        app.add_message_catalog(domain, str(Path(app.doctreedir, "locale")))


def index_compounds(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Let a search for a part of a Korean compound find it: 스레드 finds 멀티스레딩."""
    if app.config.language != "ko":
        return
    for block in list(doctree.findall(lambda node: isinstance(node, nodes.TextElement))):
        inside_other = isinstance(block.parent, nodes.TextElement)
        if inside_other or isinstance(block, nodes.FixedTextElement | nodes.raw):
            continue
        parts = sorted(compound_parts(block.astext()))
        if parts:
            words = " ".join(parts)
            mark = f'<span data-words="{words}" data-pagefind-index-attrs="data-words"></span>'
            block += nodes.raw("", mark, format="html")


def compound_parts(text: str) -> set[str]:
    """The words to index for compounds in ``text``: those of COMPOUND_PARTS inside its words."""
    words = set(_HANGUL_WORD.findall(text))
    return {
        found
        for word in words
        for part, found in COMPOUND_PARTS.items()
        if word.find(part) > 0 or (part != found and word.startswith(part))
    }


def page_context(
    app: Sphinx, pagename: str, templatename: str, context: dict, doctree: nodes.document | None
) -> None:
    """What the page template needs besides Sphinx' own variables."""
    language = app.config.language
    name = flat_name(pagename)
    site = app.config.html_baseurl.removesuffix(f"{language}/")
    context["translated"] = _
    context["site_name"] = app.config.html_title
    context["author"] = app.config.author
    context["repository"] = app.config.course_repository
    context["is_landing"] = pagename == app.config.root_doc
    context["static_hash"] = static_hash()
    context["page_address"] = f"{site}{language}/{name}.html"
    context["editions"] = [
        {
            **edition,
            "language": other,
            "current": other == language,
            "link": f"../{other}/{quote(name)}.html",
            "address": f"{site}{other}/{quote(name)}.html",
        }
        for other, edition in app.config.course_editions.items()
    ]
    context["description"] = app.config.course_summary
    if doctree is not None and not context["is_landing"]:
        context["description"] = first_sentences(doctree) or app.config.course_summary
    context["notebook"] = notebook_facts(app, pagename)
    context["page_toc"] = inner_toc(context.get("toc", ""))
    context["body"] = clean_body(context.get("body", ""))
    context["has_player"] = player.is_on(context["body"])


def clean_body(body: str) -> str:
    """HTML without UNWANTED and empty table headers, and with the ids of sections on their
    headings: search leads to those."""
    for wrong in UNWANTED:
        body = body.replace(wrong, "")
    body = _EMPTY_HEADER.sub("<td></td>", body)
    return _SECTION_START.sub(r'<section>\2<\3 id="\1">', body)


def static_hash() -> str:
    """A short hash of style sheets and scripts, so that browsers fetch them anew after a change."""
    digest = hashlib.sha256()
    for path in (*sorted(STATIC.glob("course.*")), *player.FILES):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


def first_sentences(doctree: nodes.document) -> str:
    """The start of the page's first paragraph of running text, for search engines."""
    for paragraph in doctree.findall(nodes.paragraph):
        text = re.sub(r"\s+", " ", paragraph.astext()).strip()
        if isinstance(paragraph.parent, nodes.section) and len(text) > 40:
            if len(text) <= DESCRIPTION_LENGTH:
                return text
            return text[:DESCRIPTION_LENGTH].rsplit(" ", 1)[0].rstrip(",;:") + " …"
    return ""


def notebook_facts(app: Sphinx, pagename: str) -> dict | None:
    """A chapter's notebook: where to download it, its number, minutes to read, seconds to run."""
    source = Path(app.env.doc2path(pagename)) if pagename in app.env.found_docs else None
    if source is None or source.suffix != ".ipynb":
        return None
    course = json.loads(source.read_text("utf-8"))["metadata"].get("course", {})
    return {
        "file": posixpath.join("notebooks", source.name),
        "chapter": course.get("chapter"),
        "minutes": course.get("reading_minutes"),
        "seconds": course.get("running_seconds"),
    }


def number_chapters(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Give each chapter the number in its metadata: Sphinx counts those that are written by now.

    Returns the pages to write, as an `env-get-updated` listener does.
    """
    changed = []
    for page, numbers in env.toc_secnumbers.items():
        chapter = (notebook_facts(app, page) or {}).get("chapter")
        title = env.titles[page]
        if chapter is None or not title.get("secnumber") or title["secnumber"][0] == chapter:
            continue
        for anchor, number in numbers.items():
            numbers[anchor] = (chapter, *number[1:])
        for entry in (title, *env.tocs[page].findall(nodes.reference)):
            if entry.get("secnumber"):
                entry["secnumber"] = [chapter, *entry["secnumber"][1:]]
        changed.append(page)
    return changed + TocTreeCollector().assign_figure_numbers(env)


def inner_toc(toc: str) -> str:
    """Sphinx' table of contents of a page without its first level, which is the page's title."""
    match = re.fullmatch(r"\s*<ul>\s*<li>\s*<a .*?</a>(.*)</li>\s*</ul>\s*", toc, re.DOTALL)
    return match[1].strip() if match else ""


def setup(app: Sphinx) -> dict:
    compile_catalogues(app)
    app.add_config_value("course_editions", {}, "html")
    app.add_config_value("course_summary", "", "html")
    app.add_config_value("course_repository", "", "html")
    app.add_builder(CourseBuilder, override=True)
    app.set_translator("html", CourseTranslator, override=True)
    app.add_post_transform(ExecutionTable)
    app.add_html_math_renderer(
        "mathml",
        (lambda translator, node: render_math(translator, node, False), None),
        (lambda translator, node: render_math(translator, node, True), None),
    )
    app.connect("config-inited", configure)
    app.connect("env-get-updated", number_chapters, priority=600)  # after Sphinx has counted
    app.connect("doctree-resolved", index_compounds)
    app.connect("html-page-context", page_context, priority=900)
    app.setup_extension("website.claims")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
