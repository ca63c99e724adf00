"""Trees, overviews and tables of explorations, and what they say of exceptions and livelocks."""

import json
import math
import re
from threading import Lock
from types import SimpleNamespace as Shared

import pytest

from concurrency_lab import explore, figures
from concurrency_lab.explorer import overview
from concurrency_lab.explorer.result import MIME_TYPE, render_html, translate_value


def increment(s):
    value = s.count
    s.count = value + 1


def pop(s):
    with s.lock:
        s.items.pop()


def retry(first, second):
    def take_both(s):
        one, other = getattr(s, first), getattr(s, second)
        one.acquire()
        while not other.acquire(blocking=False):
            one.release()
            one.acquire()
        other.release()
        one.release()

    return take_both


@pytest.fixture(scope="module")
def lost():
    return explore(
        increment, increment, setup=lambda: Shared(count=0), check=lambda s: s.count == 2
    )


@pytest.fixture(scope="module")
def livelock():
    setup = lambda: Shared(a=Lock(), b=Lock())  # noqa: E731
    return explore(retry("a", "b"), retry("b", "a"), setup=setup)


def test_tree_has_a_leaf_for_each_schedule(lost):
    figure = lost.tree()
    markers = {line.get_label(): len(line.get_xdata()) for line in figure.axes[0].lines}
    assert markers["ok"] == 2 and markers["fails"] == 4
    assert figure.axes[0].get_title(loc="left") == "6 schedules, 4 fail"
    assert "<svg" in figures.to_svg(figure)


def test_tree_of_too_many_schedules_is_refused(lost, livelock):
    with pytest.raises(ValueError, match="6 schedules are too many to draw"):
        lost.tree(most=5)
    with pytest.raises(ValueError, match="endlessly many"):
        livelock.tree()


def test_overview_lists_explorations(lost, livelock):
    both = overview({"a race": lost, "polite": livelock})
    assert both["a race"] is lost
    assert both.rows() == [
        ["a race", "6", "4", "ok, wrong"],
        ["polite", "endlessly many", "endlessly many", "ok, livelock"],
    ]
    assert re.search(r"a race +6 +4 +ok, wrong", str(both))
    bundle = both._repr_mimebundle_()
    assert json.loads(json.dumps(bundle[MIME_TYPE])) == bundle[MIME_TYPE]
    words = {"a race": "경합", "wrong": "잘못된 결과", "schedules": "스케줄"}
    translated = render_html(bundle[MIME_TYPE], words)
    assert all(word in translated for word in words.values())
    assert "a race" not in translated


def test_exception_is_shown_in_the_step_that_raised():
    found = explore(pop, setup=lambda: Shared(items=[], lock=Lock()))
    notes = {step.text: step.note for step in found.failure.steps}
    assert notes["s.items.pop()"] == "IndexError: pop from empty list"
    assert notes["with s.lock:"] == ""
    texts = found.recording()["texts"]
    assert "IndexError: pop from empty list" in texts


def test_livelock_says_which_steps_repeat(livelock):
    schedule = livelock.failure
    begin, end = map(int, re.findall(r"\d+", schedule.outcome.lines[0]))
    assert end == len(schedule.steps)
    turns = schedule.steps[begin - 1 :]
    assert {step.thread for step in turns} == {"A", "B"}
    before = schedule.steps[begin - 2].shared if begin > 1 else schedule.start
    assert before == turns[-1].shared, "the circle closes"
    assert livelock.failing == math.inf


def test_livelock_can_be_played(livelock):
    recording = livelock.play("Go round for ever", reach="livelock")._repr_mimebundle_()
    data = next(value for key, value in recording.items() if key.endswith("schedules+json"))
    (wanted,) = data["goal"]["outcomes"]
    assert data["outcomes"][wanted]["kind"] == "livelock"


def test_schedule_shows_as_a_table_with_a_column_for_each_thread(lost):
    page = lost.failure._repr_mimebundle_()["text/html"]
    assert page.count("<th>") == 4
    assert page.count('data-thread="A"') == len(lost.failure.steps) + 1


@pytest.mark.parametrize(
    ("text", "translated"),
    [
        ("forks = [held by A, free], meals = 0", "forks = [A hat es, frei], meals = 0"),
        ("fresh = held by B; waiting: A, C, n = 1", "fresh = B hat es (warten: A, C), n = 1"),
        ("gate = 1 of 2 waiting", "gate = 1/2"),
        ("seen = ['free']", "seen = ['free']"),
    ],
)
def test_states_of_devices_are_translated(text, translated):
    words = {
        "{}; waiting: {}": "{} (warten: {})", "held by {}": "{} hat es", "free": "frei",
        "{} of {} waiting": "{}/{}",
    }  # fmt: skip
    assert translate_value(text, words) == translated
