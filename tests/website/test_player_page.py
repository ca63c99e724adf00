"""Play the scheduler on the site: in the edition's words, playable by keyboard, loaded only there.

The book is built here, with the course's own pages' frame, from a recording that is stored with the
tests.
"""

import json
import re
import shutil

import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe
from published_site import chromium

from concurrency_lab import explorer
from concurrency_lab.experiments import channel_suite
from concurrency_lab.explorer.player import MIME_TYPE, WORDS, Player
from website import ROOT, claims, player, translation
from website.notebooks import write

RECORDINGS = ROOT / "tests/concurrency_lab/explorer/recordings"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
PHONE = {"viewport": {"width": 360, "height": 740}}
GOALS = {
    "Lose an update": "갱신 하나를 잃어버리게 하세요",
    "Reach the deadlock": "교착 상태에 이르세요",
}
FILES = re.compile(r"_static/player\.(?:css|js)")


def recording(name, goal):
    one = json.loads((RECORDINGS / f"{name}.json").read_text("utf-8"))
    return one | {"goal": {"text": goal, "outcomes": [1]}}


# -- Korean


def test_every_word_of_the_interface_is_korean():
    assert player.WORDS["ko"].keys() == set(WORDS.values())


def test_every_phrase_of_recordings_is_korean():
    assert set(explorer.PHRASES) | set(channel_suite.PHRASES) <= player.PHRASES["ko"].keys()


@pytest.mark.parametrize("words", [player.WORDS["ko"], player.PHRASES["ko"]])
def test_korean_words_keep_every_gap(words):
    for english, korean in words.items():
        assert korean.count("{}") == english.count("{}"), english
        assert re.search("[가-힣]|{} = {}", korean), english


def test_recording_in_korean():
    english = Player(recording("deadlock", "Reach the deadlock"))
    korean = player.localise(english.recording, "ko", GOALS)
    assert {"풀려 있음", "A가 보유", "b(B가 보유)"} <= set(korean["texts"])
    assert "free" in english.recording["texts"]  # a copy was translated
    assert korean["outcomes"][1]["lines"][0] == (
        "A: a 보유, b(B가 보유) 기다림"
    )
    assert korean["goal"] == {"text": "교착 상태에 이르세요", "outcomes": [1]}
    assert korean["states"] == english.recording["states"]
    assert player.localise(english.recording, "en", {}) == english.recording


def test_without_a_translation_the_english_stays():
    english = Player(recording("deadlock", "Reach the deadlock"))
    assert player.localise(english.recording, "ko", {"Reach the deadlock": ""})["goal"] == (
        english.recording["goal"]
    )


def test_localised_outputs():
    one = Player(recording("lost_update", "Lose an update"))
    output = nbformat.v4.new_output("execute_result", one._repr_mimebundle_())
    before = json.dumps(output)
    korean = claims.localise_outputs([output], "ko", {"i18n": {"claims": GOALS}})[0].data
    assert json.dumps(output) == before
    assert korean["text/plain"] == (
        "목표: 갱신 하나를 잃어버리게 하세요\n가능한 스케줄 6개, 그중 실패 4개."
    )
    assert korean[MIME_TYPE]["goal"]["text"] in korean["text/html"]


# -- goals in step


def test_goals_need_a_translation():
    source = 'result.play("Lose  an update", reach="wrong")\nother.play(goal="G")\nresult.play()'
    assert translation.goal_calls(source) == [(1, "Lose an update"), (2, "G")]
    cell = nbformat.v4.new_code_cell(source)
    assert translation.claim_texts(cell) == ["Lose an update", "G"]


def test_untranslated_and_computed_goals_are_reported():
    def notebook(language, **metadata):
        cell = nbformat.v4.new_code_cell('r.play("A")\nr.play("B" + x)', id="c", metadata=metadata)
        return nbformat.v4.new_notebook(cells=[cell], metadata={"lang": language})

    assert list(translation.compare(notebook("en"), notebook("ko"))) == [
        "cell c: line 2: the goal is not a literal, so it has no Korean",
        "cell c: claim not translated in i18n.claims: A",
    ]
    done = translation.updated(notebook("en"), notebook("ko", i18n={"claims": {"A": "가"}}))
    assert done.cells[0].metadata["i18n"] == {"claims": {"A": "가"}}


# -- a book with players


SETUP = """import json
from pathlib import Path

from concurrency_lab.explorer.player import Player

class Result:
    def __init__(self, name):
        text = Path.cwd().parents[1].joinpath(f"{name}.json").read_text()
        self.recording = json.loads(text)

    def play(self, goal):
        failing = [n for n, o in enumerate(self.recording["outcomes"]) if not o["ok"]]
        return Player(self.recording | {"goal": {"text": goal, "outcomes": failing}})"""


def chapter(language, title):
    code = [
        ("setup", SETUP),
        ("lost", 'Result("lost_update").play("Lose an update")'),
        ("stuck", 'Result("deadlock").play("Reach the deadlock")'),
    ]
    cells = [nbformat.v4.new_markdown_cell(f"# {title}\n\n## {title}", id="title")]
    for name, source in code:
        cell = nbformat.v4.new_code_cell(source, id=name)
        goals = {goal: korean for goal, korean in GOALS.items() if goal in source}
        if language == "ko" and goals:
            cell.metadata["i18n"] = {"claims": goals}
        cells.append(cell)
    return nbformat.v4.new_notebook(cells=cells, metadata={"lang": language})


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """The folder of a built site whose page 01-play has two players and whose index has none."""
    from conftest import BOOKS, run

    root = tmp_path_factory.mktemp("players") / "book"
    shutil.copytree(BOOKS / "small", root)
    for name in ("templates", "static"):
        shutil.copytree(ROOT / "website" / name, root / "website" / name)
    shutil.copy(ROOT / "_config.yml", root)
    (root / "book/references.bib").write_text("")
    toc = (root / "_toc.yml").read_text("utf-8").replace("01-squares", "01-play")
    (root / "_toc.yml").write_text(toc, "utf-8")
    for file in RECORDINGS.glob("*.json"):
        shutil.copy(file, root)
    for language, title in (("en", "Play"), ("ko", "놀이")):
        (root / f"notebooks/{language}/01-squares.ipynb").unlink()
        (root / f"book/{language}/index.md").write_text(f"# {title}\n\n{title * 10}\n", "utf-8")
        write(chapter(language, title), root / f"notebooks/{language}/01-play.ipynb")
    result = run("website.build", "--root", root)
    assert result.returncode == 0, result.stdout
    return root / "_build/site"


@pytest.mark.parametrize("language", ["en", "ko"])
def test_script_and_style_are_loaded_only_where_there_is_a_player(book, language):
    page = (book / language / "01-play.html").read_text("utf-8")
    other = (book / language / "index.html").read_text("utf-8")
    assert sorted(FILES.findall(page)) == ["_static/player.css", "_static/player.js"]
    assert FILES.findall(other) == []
    assert page.count('class="player"') == 2
    assert '"style":' not in page and "attachShadow" not in page  # a notebook's form is left out
    for name in ("player.css", "player.js"):
        assert (book / language / "_static" / name).exists()


@pytest.mark.parametrize(("language", "goals"), [("en", GOALS), ("ko", GOALS.values())])
def test_static_form_is_in_the_editions_language(book, language, goals):
    page = (book / language / "01-play.html").read_text("utf-8")
    found = re.findall(r'class="player-goal"><strong>(.+?):</strong> (.*?)</p>', page)
    assert [goal for _, goal in found] == list(goals)
    assert {title for title, _ in found} == {"Goal" if language == "en" else "목표"}
    assert page.count("<details class=\"player-solution\"") == 2


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def visit(book, browser):
    """Open the page with the players: ``visit("ko", color_scheme="dark")``."""
    contexts = []

    def open_page(language="en", **settings):
        context = browser.new_context(**settings)
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(20_000)
        tab.problems = []
        tab.on("pageerror", lambda error: tab.problems.append(str(error)))
        tab.goto((book / language / "01-play.html").as_uri())
        return tab

    yield open_page
    for context in contexts:
        context.close()


def press(tab, keys, game=0):
    """Type into a player, beginning with its first button."""
    tab.locator(".player").nth(game).locator("button").first.focus()
    for key in keys.split():
        tab.keyboard.press(key)


def said(tab, game=0):
    return tab.locator("[role=status]").nth(game).inner_text()


def shared(tab, game=0):
    return tab.locator(".player-shared").nth(game).inner_text().split()


def test_lost_update_by_keyboard(visit):
    tab = visit()
    press(tab, "a b a")
    assert "Thread A ran s.count = value + 1. count is now 1. Thread A is done." in said(tab)
    assert tab.locator(".player-changed").count() == 1
    press(tab, "A")  # it is done: nothing happens but a word about it
    assert "Thread A: Done" in said(tab)
    assert tab.locator(".player-steps").first.locator("li").count() == 3
    press(tab, "B")
    assert "Goal reached: Wrong result" in said(tab) and "count = 1" in said(tab)
    assert tab.locator(".player-good").count() == 1
    press(tab, "Backspace")
    assert "Goal reached" not in said(tab)
    press(tab, "Backspace Backspace Backspace Backspace")
    assert "Which thread takes the first step" in said(tab)
    press(tab, "A A B B")
    assert "Not this time: Right result" in said(tab) and "count = 2" in said(tab)
    assert tab.locator(".player-steps").nth(1).locator("li").count() == 0  # the other game
    assert tab.problems == []


def test_every_schedule_is_playable(visit):
    """All 22 schedules of the deadlock, by the buttons that are enabled."""
    tab = visit()
    endings = tab.evaluate("""() => {
        const game = document.querySelectorAll(".player")[1];
        const [a, b] = game.querySelectorAll(".player-step");
        const back = game.querySelector(".player-tool");
        const verdict = game.querySelector(".player-verdict");
        const found = [];
        (function go() {
            if (!verdict.hidden) found.push(verdict.classList.contains("player-good"));
            for (const step of [a, b]) {
                if (step.getAttribute("aria-disabled") === "true") continue;
                step.click();
                go();
                back.click();
            }
        })();
        return found;
    }""")
    assert (len(endings), sum(endings)) == (22, 4)
    assert tab.problems == []


def test_blocked_threads_say_why(visit):
    tab = visit()
    press(tab, "A B A B", game=1)
    step = tab.get_by_role("button", name="Thread A: take a step").nth(1)
    assert step.get_attribute("aria-disabled") == "true"
    why = step.evaluate(
        "s => s.getRootNode().getElementById(s.getAttribute('aria-describedby')).textContent"
    )
    assert "waits for b (held by B)" in why and "Next line: with s.b:" in why
    assert "Thread B is blocked: waits for a (held by A)." in said(tab, game=1)
    assert "Goal reached: Deadlock" in said(tab, game=1)


def test_a_thread_is_said_to_go_on_when_another_lets_it(visit):
    tab = visit()
    press(tab, "A A B", game=1)
    step = tab.get_by_role("button", name="Thread B: take a step").nth(1)
    assert "Thread B is blocked" in said(tab, 1)
    assert step.get_attribute("aria-disabled") == "true"
    press(tab, "A A", game=1)
    assert said(tab, 1) == (
        "Thread A ran with s.b: # leave. b is now free. Thread B can go on."
    )
    assert step.get_attribute("aria-disabled") == "false"


@pytest.mark.parametrize("game", [0, 1])
def test_solution_is_shown_step_by_step(visit, game):
    tab = visit()
    press(tab, "A", game)
    box = tab.locator(".player").nth(game)
    box.get_by_role("button", name="Show me a solution").click()
    assert box.locator(".player-steps li").count() == 1
    while box.get_by_role("button", name="Next step of the solution").count():
        assert box.locator(".player-hinted").count() == 1
        box.get_by_role("button", name="Next step of the solution").click()
    assert "Goal reached" in said(tab, game)


def test_keys_are_taken_only_inside_and_without_modifiers(visit):
    tab = visit()
    tab.evaluate("window.seen = []")
    tab.evaluate("addEventListener('keydown', e => seen.push([e.key, e.defaultPrevented]))")
    tab.locator("h1").click()
    tab.keyboard.press("a")
    press(tab, "Control+a Alt+a Shift+a z ArrowDown")
    assert tab.locator(".player-steps li").count() == 0
    assert not any(prevented for _, prevented in tab.evaluate("seen"))
    assert tab.evaluate("seen.length") >= 6


def test_letters_work_where_the_keyboard_is_hangul(visit):
    tab = visit("ko")
    tab.locator(".player-step").first.focus()
    tab.evaluate("""() => document.activeElement.dispatchEvent(
        new KeyboardEvent("keydown", {key: "ㅠ", code: "KeyB", bubbles: true}))""")
    assert "스레드 B가 실행한 줄: value = s.count." in said(tab)


def test_focus_stays_where_it_is(visit):
    tab = visit()
    press(tab, "A A")
    focused = "document.activeElement.textContent"
    assert "Thread A: take a step" in tab.evaluate(focused)  # although it is done


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
@pytest.mark.parametrize("settings", [{}, PHONE], ids=["laptop", "phone"])
@pytest.mark.parametrize("language", ["en", "ko"])
def test_accessible_in_every_state_and_fits(visit, language, settings, color_scheme):
    tab = visit(language, color_scheme=color_scheme, reduced_motion="reduce", **settings)
    for keys in ("", "A", "B", "A", "B"):
        press(tab, keys, 0)
        press(tab, keys, 1)
        options = {"runOnly": {"type": "tag", "values": RULES}, "resultTypes": ["violations"]}
        found = Axe().run(tab, context=".page", options=options).response["violations"]
        assert [(rule["id"], node["html"]) for rule in found for node in rule["nodes"]] == []
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert tab.evaluate("""() => [...document.querySelectorAll(".player-live *")].filter(
            e => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== "inline"
                && !e.matches(".player-unseen")).map(e => e.outerHTML.slice(0, 90))""") == []
    small = tab.locator(".player-live button").evaluate_all(
        "all => all.filter(b => b.offsetHeight < 44 || b.offsetWidth < 44).length"
    )
    assert small == 0


def test_interface_of_the_korean_edition_is_korean(visit):
    tab = visit("ko")
    press(tab, "A B A", 1)
    words = tab.evaluate("""() => {
        const live = document.querySelectorAll(".player-live")[1].cloneNode(true);
        for (const part of live.querySelectorAll("code, dt, dd, .player-chip, .player-note"))
            part.remove();
        const labels = [...live.querySelectorAll("[aria-label]")].map(e => e.ariaLabel);
        return [live.textContent, live.ariaLabel, ...labels].join(" ");
    }""")
    english = set(re.findall("[A-Za-z-]{2,}", words)) - {"with"}  # of a line of the program
    assert english == set()


def test_without_script_and_in_print_the_static_form_is_seen(visit):
    tab = visit(java_script_enabled=False, **PHONE)
    assert tab.is_visible(".player-static pre")
    tab.locator(".player-solution summary").first.click()
    assert tab.is_visible(".player-solution table")
    tab = visit()
    assert not tab.is_visible(".player-static")
    tab.emulate_media(media="print")
    assert tab.is_visible(".player-static pre")
    assert not tab.is_visible(".player-live")


def test_nothing_moves_for_readers_who_asked_for_that(visit):
    tab = visit(reduced_motion="reduce")
    press(tab, "A B A")
    moving = "document.querySelector('.player-changed .player-now').getAnimations().length"
    assert tab.evaluate(moving) == 0
    tab = visit(reduced_motion="no-preference")
    press(tab, "A B A")
    assert tab.evaluate(moving) == 1


# -- in a notebook


def test_players_of_a_notebook_keep_their_styles_to_themselves(browser):
    html = [
        Player(recording(name, "G"))._repr_mimebundle_()["text/html"]
        for name in ("lost_update", "deadlock")
    ]
    tab = browser.new_page()
    tab.set_content(
        "<!doctype html><style>p { margin: 3rem; color: red } button { display: none }</style>"
        "<body style='--jp-layout-color0: #111; --jp-content-font-color1: #fff'><p>text</p>"
        "<main></main>"
    )
    # as JupyterLab does it: the HTML, then each script again, so that it runs
    for one in html:
        tab.evaluate("""html => {
            const output = document.createElement("div");
            output.innerHTML = html;
            document.querySelector("main").append(output);
            for (const script of output.querySelectorAll("script")) {
                const again = document.createElement("script");
                for (const { name, value } of script.attributes) again.setAttribute(name, value);
                again.textContent = script.textContent;
                script.replaceWith(again);
            }
        }""", one)  # fmt: skip
    assert tab.locator(".player-live").count() == 2
    step = tab.get_by_role("button", name="Thread A: take a step").nth(1)
    step.click()
    assert "Thread A ran with s.a." in tab.locator("[role=status]").nth(1).inner_text()
    assert "first step" in tab.locator("[role=status]").first.inner_text()
    style = "e => [getComputedStyle(e).marginTop, getComputedStyle(e).color]"
    assert tab.locator("body > p").evaluate(style) == ["48px", "rgb(255, 0, 0)"]
    goal = tab.locator(".player-live .player-goal").first
    assert goal.evaluate(style) == ["0px", "rgb(255, 255, 255)"]
    # letters are not JupyterLab's shortcuts in here
    assert tab.locator("[data-lm-suppress-shortcuts=true]").count() == 2
    tab.close()


def test_a_row_that_looks_like_a_phrase_is_translated_as_a_whole():
    """ "a for loop waits for an item" is no thread that waits for something."""
    data = {"overview": [["a for loop waits for an item", "146", "0", "ok"]]}
    shown = player.exploration_bundle(data, "ko", {})["text/html"]
    assert "for 문이 항목을 기다림" in shown


def test_the_state_of_a_lock_inside_an_object_is_korean_in_the_outcomes():
    outcomes = [["2", "ok", ["seen = Seen(lock=free, items=set())"]]]
    data = {"summary": "2 schedules", "limits": [], "outcomes": outcomes, "failure": None}
    shown = player.exploration_bundle(data, "ko", {})["text/html"]
    assert "Seen(lock=풀려 있음, items=set())" in shown
