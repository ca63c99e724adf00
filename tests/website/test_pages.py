"""The pages' HTML: complete, in one language, self-contained. No browser needed."""

import gzip
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from babel.messages import pofile
from bs4 import BeautifulSoup
from published_site import CHAPTER, PAGES, ROOT, each_page

from website import extension

TEMPLATES = ROOT / "website" / "templates"
KOREAN = ROOT / "website" / "i18n" / "locale" / "ko" / "LC_MESSAGES"
WEIGHT_LIMIT = 100_000  # bytes gzipped, without figures
WEIGHT_LIMIT_WITH_RECORDINGS = 130_000  # chapter 2 holds eight to play
NAMES = re.compile(r"GitHub|Ctrl K|HTTP|English|©|\d+")  # not Korean in a Korean page's frame


@pytest.fixture
def html(site, page):
    return BeautifulSoup((site / page).read_text("utf-8"), "html.parser")


def other(page):
    return {"en": "ko", "ko": "en"}[page[:2]] + page[2:]


def test_both_editions_have_the_same_pages(site):
    english, korean = ([page[3:] for page in PAGES if page[:2] == code] for code in ("en", "ko"))
    assert english == korean
    assert {"index.html", CHAPTER, "glossary.html", "claims.html"} <= set(english)


@each_page
def test_head_says_language_title_and_summary(html, page):
    assert html.html["lang"] == page[:2]
    assert len(html.title.text) > 5
    assert 40 <= len(html.find("meta", {"name": "description"})["content"]) <= 200
    for name in ("title", "description", "url", "type", "site_name", "locale"):
        assert html.find("meta", {"property": f"og:{name}"})["content"]


@each_page
def test_head_leads_to_this_page_in_each_language(site, html, page):
    here = html.find("link", rel="canonical")["href"]
    assert here.endswith("/" + page)
    base = here.removesuffix(page)
    found = {link["hreflang"]: link["href"] for link in html("link", rel="alternate")}
    expected = {code: f"{base}{code}{page[2:]}" for code in ("en", "ko")}
    assert found == expected | {"x-default": expected["en"]}


@each_page
def test_language_switch_leads_to_the_same_page_and_back(site, html, page):
    link = html.find("nav", class_="editions").a
    assert link["lang"] == link["hreflang"] == other(page)[:2]
    assert (site / page).parent.joinpath(link["href"]).resolve() == (site / other(page)).resolve()
    assert (site / other(page)).exists()


@each_page
def test_page_has_one_main_heading_and_no_level_is_skipped(html, page):
    levels = [int(heading.name[1]) for heading in html(re.compile("^h[1-6]$"))]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False))


@each_page
def test_pictures_have_a_text(html, page):
    for picture in html("img"):
        text = picture.get("alt", "")
        assert len(text) > 15, picture
        assert not re.search(r"\.(svg|png)$|_images/", text), picture
    for icon in html("svg"):
        assert icon.get("aria-hidden") == "true", icon


@each_page
def test_nothing_is_loaded_from_elsewhere(html, page):
    loaded = [tag.get("src") for tag in html(["script", "img", "iframe", "source", "video"])]
    kinds = {"stylesheet", "icon", "preload", "modulepreload", "preconnect", "dns-prefetch"}
    loaded += [tag["href"] for tag in html("link") if kinds & set(tag["rel"])]
    assert [link for link in loaded if link and urlsplit(link).netloc] == []


@each_page
def test_links_inside_the_site_lead_somewhere(site, html, page):
    broken = []
    for link in html("a", href=True):
        target = urlsplit(link["href"])
        if target.scheme or target.netloc:
            continue
        file = (site / page).parent / unquote(target.path) if target.path else site / page
        if not file.exists():
            broken.append(link["href"])
        elif target.fragment and file.suffix == ".html":
            text = file.read_text("utf-8") if target.path else str(html)
            if f'id="{unquote(target.fragment)}"' not in text:
                broken.append(link["href"])
    assert broken == []


@each_page
def test_page_is_light(site, html, page):
    """What the first visit loads besides pictures, gzipped."""
    files = {site / page}
    for tag in html(["script", "link"]):
        link = tag.get("src") or (
            tag.get("href") if {"stylesheet", "icon"} & set(tag.get("rel", [])) else None
        )
        if link:
            files.add((site / page).parent / urlsplit(link).path)
    plays = "data-player" in (site / page).read_text("utf-8")
    limit = WEIGHT_LIMIT_WITH_RECORDINGS if plays else WEIGHT_LIMIT
    assert sum(len(gzip.compress(file.read_bytes())) for file in files) < limit


@each_page
def test_frame_of_a_korean_page_is_korean(html, page):
    if page[:2] != "ko":
        pytest.skip("an English page")
    for tag in html(lang="en") + html(["script", "style", "kbd", "code"]):
        tag.decompose()
    article = html.article.extract()
    frame = [text for text in html.body.stripped_strings]
    spoken = ("aria-label", "title", "placeholder", "alt")
    frame += [tag[name] for tag in html.body(True) for name in spoken if tag.get(name)]
    frame += [v for k, v in html.body.attrs.items() if k.startswith("data-")]
    dialog = html.find("dialog")
    frame += [v for k, v in dialog.attrs.items() if k.startswith("data-") and k != "data-index"]
    # in the text: labels that Sphinx and its extensions wrote
    for tag in article.select(":not(a.reference)"):  # a citation's title is the work cited
        frame += [tag[name] for name in ("aria-label", "title", "placeholder") if tag.get(name)]
    for tag in article.select("summary, .admonition-title, .caption-number, .claim-verdict"):
        frame.append(tag.get_text(" ", strip=True))
    titles = {link.get_text(strip=True) for link in html.select(".site-nav a, .page-toc a")}
    titles |= {link.get_text(strip=True) for link in html.select(".neighbour")}
    for text in frame:
        if any(text in title for title in titles):
            continue  # a page's or section's own title, which may be a name such as asyncio
        words = re.findall(r"[A-Za-z]{2,}", NAMES.sub("", text))
        assert not words or re.search("[가-힣]", text), text


def test_every_word_of_the_templates_is_translated():
    with (KOREAN / "course.po").open("rb") as file:
        catalogue = {str(m.id): m.string for m in pofile.read_po(file) if m.id}
    source = (TEMPLATES / "layout.html").read_text("utf-8")
    used = {text for _, text in re.findall(r"translated\((['\"])(.+?)\1\)", source)}
    code = Path(extension.__file__).read_text("utf-8")
    used |= set(re.findall(r'\b_\("(.+?)"\)', code))
    assert used == set(catalogue)
    for english, korean in catalogue.items():
        assert re.search("[가-힣]", korean), english
        assert english.count("{}") == korean.count("{}")


def test_root_page_offers_both_languages_and_remembers_nothing(site):
    source = (site / "index.html").read_text("utf-8")
    html = BeautifulSoup(source, "html.parser")
    links = {link["hreflang"]: link["href"] for link in html("a")}
    assert links == {"en": "en/index.html", "ko": "ko/index.html"}
    assert all((site / link).exists() for link in links.values())
    assert not re.search("Storage|cookie|http-equiv", source)


def test_notebook_can_be_downloaded(site):
    for code in ("en", "ko"):
        page = site / code / CHAPTER
        link = BeautifulSoup(page.read_text("utf-8"), "html.parser").find("a", class_="download")
        assert link.has_attr("download")
        assert (page.parent / link["href"]).read_text("utf-8").startswith("{")


@pytest.mark.parametrize("code", ["en", "ko"])
def test_landing_page_and_reading_paths_announce_the_same_chapters(site, code):
    def read(page):
        return BeautifulSoup((site / code / page).read_text("utf-8"), "html.parser")

    announced = [
        f"{number} {entry.get_text(' ', strip=True)}"
        for number, entry in enumerate(read("index.html").select(".chapters li"), 1)
    ]
    cells = [row.td for row in read("reading-paths.html")("tr") if row.td]
    assert announced == [cell.get_text(" ", strip=True) for cell in cells]


def test_no_theme_is_left_in_the_output(site):
    for code in ("en", "ko"):
        files = {path.name for path in (site / code / "_static").rglob("*") if path.is_file()}
        assert files == {"course.css", "course.js", "favicon.svg", "player.css", "player.js"}


# --- parts of the extension ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("docname", "name"),
    [
        ("book/en/index", "index"),
        ("notebooks/ko/01-threads-and-processes", "01-threads-and-processes"),
        ("book/references", "book/references"),
    ],
)
def test_flat_name(docname, name):
    assert extension.flat_name(docname) == name


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("멀티스레딩을 씁니다", {"스레드"}),
        ("멀티프로세싱과 서브스레드", {"프로세스", "스레드"}),
        ("스레드와 프로세스", set()),
        ("no Korean here", set()),
    ],
)
def test_compound_parts(text, parts):
    assert extension.compound_parts(text) == parts


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ('width="72pt" height="36pt"', (96, 48)),
        ('width="640" height="320px"', (640, 320)),
        ('viewBox="0 0 300.4 150"', (300, 150)),
        ('width="100%" height="50%"', None),
        ("", None),
    ],
)
def test_svg_size(tmp_path, attributes, size):
    picture = tmp_path / "picture.svg"
    picture.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" {attributes}/>')
    assert extension.svg_size(picture) == size


def test_svg_size_of_something_else():
    assert extension.svg_size(Path("picture.png")) is None


def test_inner_toc():
    toc = '<ul>\n<li><a href="#">T</a><ul><li><a href="#a">A</a></li></ul></li>\n</ul>\n'
    assert extension.inner_toc(toc) == '<ul><li><a href="#a">A</a></li></ul>'
    assert extension.inner_toc('<ul><li><a href="#">T</a></li></ul>') == ""


def test_clean_body_gives_headings_the_ids_of_their_sections():
    body = '<section class="x" id="a">\n<span id="alias"></span><h2>A</h2><p id="b">text</p>'
    assert extension.clean_body(body) == (
        '<section>\n<span id="alias"></span><h2 id="a">A</h2><p id="b">text</p>'
    )


def test_clean_body_makes_no_header_of_a_tables_empty_corner():
    body = '<tr><th scope="col"></th><th class="head"><p>threads</p></th></tr>'
    assert extension.clean_body(body) == ('<tr><td></td><th class="head"><p>threads</p></th></tr>')
