"""The site in Chromium: accessible, quiet, at home on a phone, and usable with the keyboard."""

import gzip
import io
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from published_site import CHAPTER, PAGES, each_page

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
PHONE = {"width": 390, "height": 844}
NOWHERE = "ŋqyplugh"  # Pagefind also tries words that begin the query, such as the x of a program
FIRST_LOAD_LIMIT = 100_000  # bytes gzipped, without figures
FIRST_LOAD_LIMIT_WITH_RECORDINGS = 130_000  # chapter 2 holds eight to play

KOREAN_QUERIES = (
    "스레드", "스레드를", "스레드가", "스레드들이", "프로세스", "프로세스가", "프로세스를",
    "동시성", "병렬성을", "멀티스레딩", "멀티프로세싱은", "서브스레드", "락을", "큐", "코어를",
    "측정합니다", "교착", "타임라인", "주장", "GIL을", "운영 체제", "메모리는",
)  # fmt: skip
ENGLISH_QUERIES = (
    "thread", "threads", "process", "deadlock", "GIL", "timeline", "core", "claims",
    "threading.Thread", "measured", "Amdahl",
)  # fmt: skip


def everything_open(tab):
    """Open each answer, solution and hidden cell (answers of one question no longer close others),
    and load every picture."""
    tab.evaluate("""() => {
        for (const box of document.querySelectorAll("details")) {
            box.removeAttribute("name");
            box.open = true;
        }
        for (const picture of document.images) picture.loading = "eager";
    }""")


def violations(tab):
    options = {"runOnly": {"type": "tag", "values": RULES}, "resultTypes": ["violations"]}
    result = Axe().run(tab, options=options)
    return [
        f"{rule['id']}: {node['target']} {node['failureSummary']}"
        for rule in result.response["violations"]
        for node in rule["nodes"]
    ]


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [{}, PHONE], ids=["laptop", "phone"])
@each_page
def test_page_is_accessible_quiet_and_fits(visit, address, page, size, color_scheme):
    tab = visit(page, color_scheme=color_scheme, **size)
    everything_open(tab)
    tab.wait_for_load_state("networkidle")
    assert violations(tab) == []
    assert [url for url in tab.requests if not url.startswith((address, "data:"))] == []
    assert tab.problems == []
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("size", [{}, PHONE], ids=["laptop", "phone"])
@pytest.mark.parametrize("code", ["en", "ko"])
def test_dialogs_and_menus_are_accessible(visit, size, code):
    tab = visit(f"{code}/preface.html", **size)
    tab.keyboard.press("Control+k")
    tab.keyboard.type("GIL")
    tab.wait_for_selector(".search-results a")
    assert violations(tab) == []
    tab.keyboard.press("Escape")
    for button in (".menu-button", ".toc-button"):
        if tab.is_visible(button):
            tab.click(button)
            assert violations(tab) == []
            tab.keyboard.press("Escape")


def test_root_page_is_accessible(browser, address):
    for scheme in ("light", "dark"):
        context = browser.new_context(java_script_enabled=False, color_scheme=scheme)
        tab = context.new_page()
        tab.goto(address)
        links = tab.locator("a")
        assert links.count() == 2  # works without a script
        assert [links.nth(i).get_attribute("hreflang") for i in (0, 1)] == ["en", "ko"]
        context.close()
    context = browser.new_context()
    tab = context.new_page()
    # the same page without its redirection, for axe needs a script
    tab.route(address, lambda route: route.fulfill(
        body=route.fetch().text().replace("location.replace", "void"), content_type="text/html"
    ))  # fmt: skip
    tab.goto(address)
    assert violations(tab) == []
    context.close()


@pytest.mark.parametrize(
    ("locale", "edition"), [("ko-KR", "ko"), ("en-US", "en"), ("fr-FR", "en"), ("ko", "ko")]
)
def test_root_page_leads_to_the_readers_language(browser, address, locale, edition):
    context = browser.new_context(locale=locale)
    tab = context.new_page()
    tab.goto(address)
    tab.wait_for_url(f"**/{edition}/index.html")
    assert tab.evaluate("localStorage.length + document.cookie.length") == 0
    context.close()


@each_page
def test_first_load_is_light(visit, site, page):
    tab = visit(page)
    tab.wait_for_load_state("networkidle")
    paths = {urlsplit(url).path.lstrip("/") for url in tab.requests}
    paths = {path for path in paths if "/_images/" not in path}
    assert not any("pagefind" in path for path in paths)  # search is loaded on first use
    recordings = "data-player" in (site / page).read_text("utf-8")
    limit = FIRST_LOAD_LIMIT_WITH_RECORDINGS if recordings else FIRST_LOAD_LIMIT
    assert sum(len(gzip.compress((site / path).read_bytes())) for path in paths) < limit


@pytest.mark.parametrize("size", [{}, PHONE], ids=["laptop", "phone"])
def test_language_switch_leads_to_the_same_page_and_back(visit, address, size):
    tab = visit(f"en/{CHAPTER}", **size)
    tab.click(".editions a")
    assert tab.url == f"{address}ko/{CHAPTER}"
    tab.click(".editions a")
    assert tab.url == f"{address}en/{CHAPTER}"


def brightness(tab, selector, corner=(3, 3)):
    """How bright the pixel at the corner of something on the page is, 0..255."""
    box = tab.locator(selector).first
    box.scroll_into_view_if_needed()
    picture = Image.open(io.BytesIO(box.screenshot())).convert("L")
    return picture.getpixel(corner)


def test_theme_button_changes_page_and_figures_and_is_remembered(visit):
    tab = visit(f"en/{CHAPTER}", color_scheme="light")
    button = tab.get_by_role("button", name="Dark theme")
    assert button.get_attribute("aria-pressed") == "false"
    assert brightness(tab, "article img") > 240
    assert brightness(tab, "body") > 240
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    assert brightness(tab, "article img") < 40
    assert brightness(tab, "body") < 40
    tab.reload()
    assert button.get_attribute("aria-pressed") == "true"
    assert brightness(tab, "article img") < 40
    button.click()  # as the system again: nothing needs to be remembered
    assert brightness(tab, "article img") > 240
    assert tab.evaluate("localStorage.length") == 0


def test_figures_are_not_filtered_and_fit_their_column(visit):
    for size in ({}, PHONE):
        tab = visit(f"en/{CHAPTER}", color_scheme="dark", **size)
        everything_open(tab)
        tab.wait_for_load_state("networkidle")
        faults = tab.evaluate("""() => [...document.querySelectorAll("article img")].filter(p => {
            const box = p.getBoundingClientRect();
            const natural = p.naturalWidth / p.naturalHeight;
            return getComputedStyle(p).filter !== "none" || !p.complete || !box.width
                || box.right > innerWidth || Math.abs(box.width / box.height - natural) > 0.05;
        }).map(p => p.alt)""")
        assert faults == []


def search_results(tab, query):
    tab.get_by_role("searchbox").fill(query)
    status = tab.locator(".search-status")
    tab.wait_for_function(
        "q => document.querySelector('.search-status').textContent.includes(q)", arg=query
    )
    return tab.locator(".search-results > li").count(), status.text_content()


@pytest.mark.parametrize(
    ("code", "queries"), [("ko", KOREAN_QUERIES), ("en", ENGLISH_QUERIES)], ids=["ko", "en"]
)
def test_search_finds(visit, code, queries):
    tab = visit(f"{code}/index.html")
    tab.click("[data-opens-search]")
    missed = [query for query in queries if search_results(tab, query)[0] == 0]
    assert missed == []
    links = tab.eval_on_selector_all(".search-results a", "links => links.map(a => a.pathname)")
    assert all(link.startswith(f"/{code}/") for link in links)
    count, status = search_results(tab, NOWHERE)
    assert count == 0
    assert NOWHERE in status
    assert tab.problems == []


def test_search_finds_a_part_of_a_korean_compound(visit, address):
    """스레딩 alone would not do: Pagefind matches beginnings of words."""
    tab = visit("ko/glossary.html")
    found = tab.evaluate("""async () => {
        const pagefind = await import(new URL("../pagefind/pagefind.js", location.href));
        const terms = document.querySelectorAll("article dt, article dd, article p");
        const compound = [...terms].find(e => /멀티스레딩/.test(e.textContent));
        const marks = compound.querySelector("[data-pagefind-index-attrs]");
        const { results } = await pagefind.search("스레드");
        return { words: marks?.dataset.words, count: results.length };
    }""")
    assert "스레드" in found["words"]
    assert found["count"] > 0


@pytest.mark.parametrize("keys", ["Control+k", "/"])
def test_search_with_the_keyboard(visit, address, keys):
    tab = visit(f"en/{CHAPTER}")
    assert not any("pagefind" in url for url in tab.requests)
    tab.keyboard.press(keys)
    box = tab.get_by_role("dialog", name="Search the course").get_by_role("searchbox")
    assert box.get_attribute("aria-label")
    assert box.evaluate("box => box === document.activeElement")
    tab.keyboard.type("timeline")
    tab.wait_for_selector(".search-results a")
    tab.keyboard.press("ArrowDown")
    assert tab.evaluate("document.activeElement.matches('.search-results a')")
    tab.keyboard.press("ArrowUp")
    assert box.evaluate("box => box === document.activeElement")
    tab.keyboard.press("Escape")
    assert not tab.is_visible("dialog.search")
    tab.keyboard.press("/")
    tab.keyboard.press("Enter")
    tab.wait_for_function("() => !document.querySelector('dialog.search').open")


@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
@pytest.mark.parametrize(
    ("code", "right", "wrong"),
    [("en", "Right", "Wrong"), ("ko", "맞음", "틀림")],
)
def test_quiz_answers_with_the_keyboard(visit, code, right, wrong, script):
    tab = visit(f"{code}/{CHAPTER}", java_script_enabled=script)
    for kind, sign, word in (("right", "✓", right), ("wrong", "✗", wrong)):
        option = tab.locator(f".quiz-{kind}").first
        summary = option.locator("summary")
        shown = "(summary, part) => getComputedStyle(summary, part).content"
        assert option.get_attribute("open") is None
        assert summary.evaluate(shown, "::after") == "none"
        summary.focus()
        tab.keyboard.press("Enter")
        assert option.get_attribute("open") is not None
        assert sign in summary.evaluate(shown, "::before")
        assert word in summary.evaluate(shown, "::after")
        assert len(option.inner_text().strip()) > 20  # says why
    colours = tab.eval_on_selector_all(
        ".quiz-right, .quiz-wrong", "all => all.map(o => getComputedStyle(o).borderLeftColor)"
    )
    assert len(set(colours)) >= 2
    name = tab.locator(".quiz-option").first.get_attribute("name")
    assert tab.locator(f".quiz-option[name={name}][open]").count() == 1  # one answer at a time


def test_page_works_without_script(visit):
    tab = visit(f"en/{CHAPTER}", java_script_enabled=False, **PHONE)
    assert tab.is_visible("article h1")
    tab.click(".menu-button")
    assert tab.is_visible("#site-nav a")
    tab.keyboard.press("Escape")
    assert not tab.is_visible("#site-nav a")


def test_menus_with_the_keyboard(visit):
    tab = visit(f"ko/{CHAPTER}", **PHONE)
    tab.focus(".toc-button")
    tab.keyboard.press("Enter")
    link = tab.locator("#page-toc a").first
    link.click()
    assert tab.url.endswith(link.get_attribute("href")) or "#" in tab.url
    assert not tab.is_visible("#page-toc a")


def test_focus_is_visible(visit):
    tab = visit(f"en/{CHAPTER}")
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip-link"
    assert tab.locator(".skip-link").bounding_box()["x"] >= 0
    for _ in range(12):
        tab.keyboard.press("Tab")
        style = tab.evaluate("""() => {
            const style = getComputedStyle(document.activeElement);
            return [document.activeElement.outerHTML.slice(0, 80), style.outlineStyle];
        }""")
        assert style[1] != "none", style[0]


@pytest.mark.parametrize("code", ["en", "ko"])
def test_landing_page_says_what_the_course_is_on_one_screen(visit, code):
    tab = visit(f"{code}/index.html")
    parts = ["h1", ".promise", ".picture img", ".audience", ".start a", ".chapters li:last-child"]
    for part in parts:
        box = tab.locator(part).first.bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= 800, part
        assert box["x"] >= 0 and box["x"] + box["width"] <= 1280, part
    assert tab.locator(".chapters li").count() == 12
    ready = [page for page in PAGES if page.startswith(f"{code}/") and page[3:5].isdecimal()]
    assert tab.locator(".chapters li a").count() == len(ready)  # the others are planned
    tab = visit(f"{code}/index.html", **PHONE)
    for part in ["h1", ".promise", ".start a", ".picture img"]:
        box = tab.locator(part).first.bounding_box()
        assert box["y"] + box["height"] <= 844, part


def test_reduced_motion_is_respected(visit):
    motion = """() => [...document.querySelectorAll("*")].filter(e => {
        const style = getComputedStyle(e);
        return style.scrollBehavior === "smooth" || parseFloat(style.transitionDuration) > 0
            || style.animationName !== "none";
    }).length"""
    assert visit(f"en/{CHAPTER}", reduced_motion="reduce").evaluate(motion) == 0
    assert visit(f"en/{CHAPTER}", reduced_motion="no-preference").evaluate(motion) > 0


def test_printed_page_is_text_only(visit):
    tab = visit(f"en/{CHAPTER}", color_scheme="dark")
    tab.emulate_media(media="print")
    for part in (".site-header", ".site-nav", ".page-toc", ".neighbours", ".site-footer"):
        assert not tab.is_visible(part), part
    assert tab.is_visible("article h1")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(20, 24, 30)"


def test_wide_code_and_tables_scroll_inside_themselves_and_can_be_reached(visit):
    tab = visit(f"en/{CHAPTER}", **PHONE)
    everything_open(tab)
    tab.wait_for_timeout(100)
    unreachable = tab.evaluate("""() =>
        [...document.querySelectorAll("article pre, article .table-scroll")]
            .filter(e => e.scrollWidth > e.clientWidth + 1)
            .filter(e => e.tabIndex !== 0 || !e.getAttribute("aria-label")).length""")
    assert unreachable == 0
    assert tab.locator("article pre[tabindex='0']").count() > 0
