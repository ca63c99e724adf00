"""Play the scheduler: what a notebook gets, and the form without a script."""

import gzip
import json
import re
from html import unescape
from pathlib import Path
from threading import Lock
from types import SimpleNamespace

import pytest

from concurrency_lab.explorer import explore, player
from concurrency_lab.explorer.player import MIME_TYPE, SCRIPT, STYLE, WORDS, Player, render

RECORDINGS = Path(__file__).parent / "recordings"
WEIGHT_LIMIT = 15_000  # bytes of script, gzipped


def recording(name, goal=None):
    one = json.loads((RECORDINGS / f"{name}.json").read_text("utf-8"))
    failing = [n for n, outcome in enumerate(one["outcomes"]) if not outcome["ok"]]
    return one | {"goal": goal and {"text": goal, "outcomes": failing}}


@pytest.fixture
def lost_update():
    return recording("lost_update")


@pytest.fixture
def deadlock():
    return recording("deadlock")


def data_in(html):
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', html)[1])


# -- what a notebook gets


def test_text_says_goal_and_number_of_schedules(lost_update):
    assert str(Player(lost_update)) == "Possible schedules: 6. Failing: 4."
    played = Player(recording("lost_update", "Lose\n  an update"))
    assert str(played) == "Goal: Lose an update\nPossible schedules: 6. Failing: 4."


def test_text_of_an_exploration_without_end(lost_update):
    assert "there are more" in str(Player({**lost_update, "complete": False}))
    endless = {**lost_update, "schedules": None, "failing": None}
    assert "cannot be counted" in str(Player(endless))


def test_bundle():
    bundle = Player(recording("lost_update", "Lose\nit"))._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html", MIME_TYPE}
    assert bundle[MIME_TYPE] == recording("lost_update", "Lose it")
    assert json.loads(json.dumps(bundle)) == bundle


def test_html_of_a_notebook_needs_nothing_else(lost_update):
    html = Player(lost_update)._repr_mimebundle_()["text/html"]
    assert SCRIPT.read_text("utf-8") in html
    assert data_in(html)["style"] == STYLE.read_text("utf-8")
    assert not re.search(r"https?:|\bsrc=|<link", html)


def test_html_of_the_site_loads_script_and_style(lost_update):
    html = render(lost_update)
    assert "<style" not in html and "style" not in data_in(html)
    assert html.count("<script") == 1


def test_packed_recording_is_the_recording(deadlock):
    packed = data_in(render(deadlock))
    for (values, threads, following, outcome), state in zip(
        packed["states"], deadlock["states"], strict=True
    ):
        assert (values, following, outcome) == (state["v"], state["n"], state["o"])
        places = [dict(zip("flswxe", packed["places"][p], strict=True)) for p in threads]
        assert places == [{"f": -1, "l": -1, "e": 0} | thread for thread in state["t"]]
    assert {key: packed[key] for key in deadlock.keys() - {"states"}} == {
        key: deadlock[key] for key in deadlock.keys() - {"states"}
    }


def test_a_programs_text_cannot_end_the_script(lost_update):
    line = "    text = '</script><b>&amp;'"
    lost_update["functions"][0]["lines"][1] = line
    html = render(lost_update)
    assert data_in(html)["functions"][0]["lines"][1] == line
    static = re.search(r"<pre.*?</pre>", html, re.DOTALL)[0]
    assert "<b>" not in static and line in unescape(static)


# -- without a script


def test_static_form_has_program_and_goal_and_hides_a_solution():
    html = render(recording("deadlock", "Get <stuck>"))
    static, solution = html.split("<script")[0].split("<details")
    assert "Goal:</strong> Get &lt;stuck&gt;</p>" in static
    assert static.count("<pre") == 2
    assert "Thread A</p><pre" in static and "Thread B</p><pre" in static
    rows = re.findall(r"<tr>(.*?)</tr>", solution)
    heads, *steps = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]
    assert heads == ["#", "Thread A", "Thread B", "What changed"]
    assert steps[0] == ["1", "<code>with s.a:</code>", "", "a = held by A"]
    assert steps[1] == ["2", "", "<code>with s.b:</code>", "b = held by B"]
    assert steps[2] == ["3", "", "<code>with s.a:</code>", "waits for a (held by A)"]
    assert "<strong>Deadlock:</strong> A holds a and waits for b (held by B); B holds" in solution


def test_an_exploration_can_be_played():
    def turn(shared):
        with shared.lock:
            shared.order.append(shared.lock)

    def setup():
        return SimpleNamespace(order=[], lock=Lock())

    result = explore(turn, turn, setup=setup, check=lambda shared: False)
    played = result.play("Reach the end")
    counts = f"Possible schedules: {result.schedules}. Failing: {result.failing}."
    assert str(played) == f"Goal: Reach the end\n{counts}"
    html = played._repr_mimebundle_()["text/html"]
    assert "<code>with shared.lock:  # leave</code>" in html.split("<script")[0]
    assert [-1, -1] in [place[:2] for place in data_in(html)["places"]]  # a thread that has ended


def test_threads_with_the_same_function_share_a_listing(lost_update):
    html = render(lost_update).split("<script")[0]
    assert html.count("<pre") == 1 and "Threads A, B</p><pre" in html


def test_words_are_exchanged(lost_update):
    words = {text: f"«{text}»" for text in WORDS.values()}
    html = render(lost_update, words)
    assert data_in(html)["words"] == {key: f"«{text}»" for key, text in WORDS.items()}
    assert "«Threads A, B»</p><pre" in html and "«A solution»" in html
    assert data_in(html)["counts"] == "«Possible schedules: 6. Failing: 4.»"


# -- the script


def test_script_uses_the_words_there_are():
    used = set(re.findall(r"\bwords\.(\w+)", SCRIPT.read_text("utf-8")))
    in_python = set(re.findall(r"""says\[["'](\w+)""", Path(player.__file__).read_text("utf-8")))
    kinds = {"ok", "wrong", "exception", "invariant", "deadlock", "lost wake-up", "livelock", "cut"}
    counts = {"counts", "counts_partly", "counts_endless"}
    assert used <= WORDS.keys()
    assert WORDS.keys() == used | in_python | kinds | counts | {"thread", "threads"}


def test_script_is_small():
    assert len(gzip.compress(SCRIPT.read_bytes())) < WEIGHT_LIMIT / 2
    assert len(gzip.compress(STYLE.read_bytes())) < WEIGHT_LIMIT / 2
