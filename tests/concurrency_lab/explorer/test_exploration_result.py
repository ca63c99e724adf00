"""How an exploration is shown, and what is in its recording."""

import json
import math
from threading import Condition, Lock
from types import SimpleNamespace as Shared

import pytest
from explorer_programs import PROGRAMS

from concurrency_lab.explorer import KINDS, explore


def setup():
    return Shared(count=0, lock=Lock())


def increment(s):
    value = s.count
    s.count = value + 1


def increment_with_lock(s):
    with s.lock:
        value = s.count
        s.count = value + 1


def both(s):
    return s.count == 2


def spins(s):
    while not s.flag:
        pass


def raises_flag(s):
    s.flag = True


@pytest.fixture(scope="module")
def race():
    return explore(increment, increment, setup=setup, check=both)


def test_printed(race):
    text = str(race)
    assert text.startswith("6 schedules, 4 fail\n")
    assert "wrong: count = 1" in text
    assert "ok: count = 2" in text
    assert "A failing schedule, step by step" in text
    assert repr(race).startswith("<6 schedules, 4 fail, e.g. A")


def test_schedule_is_a_table(race):
    lines = str(race.failure).splitlines()
    assert lines[0].split() == ["step", "thread", "A", "thread", "B", "shared"]
    assert set(lines[1]) == {"-", " "}
    assert lines[2].split()[0] == "count" or "count = 0" in lines[2]
    steps = lines[3:-1]
    assert [line.split()[0] for line in steps] == ["1", "2", "3", "4"]
    column = lines[0].index("thread B")
    for step, line in zip(race.failure.steps, steps, strict=True):
        assert line[column:].startswith(step.text) == (step.thread == "B")
    assert "count = 1" in steps[-2] + steps[-1]
    assert lines[-1] == "wrong: count = 1"


def test_failure_has_the_fewest_preemptions(race):
    assert race.failure.switches == 2
    assert race.failure.order in ("ABBA", "BAAB")
    assert race.failure.outcome.kind == "wrong"
    assert race.failure.outcome.schedules == 4
    for bound in (0, 1):
        bounded = explore(increment, increment, setup=setup, check=both, preemptions=bound)
        assert (bounded.failing > 0) is (bound == 1)


def test_failure_is_replayed_as_it_was(race):
    """Taking the steps by hand ends as the table says."""
    state = Shared(count=0)
    values = {}
    for step in race.failure.steps:
        if step.text == "value = s.count":
            values[step.thread] = state.count
        else:
            state.count = values[step.thread] + 1
        assert dict(step.shared)["count"] == str(state.count)
    assert state.count == 1


def test_example_by_kind(race):
    good = race.example("ok")
    assert good.order == "AABB"
    assert good.switches == 1
    assert race.example("deadlock") is None
    assert race.example(lambda outcome: "count = 1" in outcome.lines).outcome.kind == "wrong"
    with pytest.raises(ValueError, match="kinds of outcomes are ok, wrong"):
        race.example("dead lock")


def test_nothing_fails():
    result = explore(increment_with_lock, increment_with_lock, setup=setup, check=both)
    assert str(result).startswith("8 schedules, none fails") or result.schedules != 8
    assert result.ok and result.failure is None
    assert "step by step" not in str(result)


def test_html_and_data_say_the_same(race):
    bundle = race._repr_mimebundle_()
    assert bundle["text/plain"] == str(race)
    data = next(value for key, value in bundle.items() if key.endswith("+json"))
    assert json.loads(json.dumps(data)) == data
    assert "4 fail" in data["summary"]
    assert bundle["text/html"].count("<table") == 2


def test_html_is_escaped():
    def compares(s):
        s.count = "<b>" if s.count < 1 else "&"

    result = explore(compares, setup=setup, check=lambda s: False)
    text = result._repr_mimebundle_()["text/html"]
    assert "<b>" not in text and "&lt;b&gt;" in text


def ways(recording):
    """Every path of a recording without cycles, by its threads, with its outcome."""
    states = recording["states"]
    found = {}

    def go(number, path):
        state = states[number]
        nexts = [(by, to) for by, to in enumerate(state["n"]) if to >= 0]
        if state["o"] >= 0:
            assert not nexts
            found[path] = state["o"]
            return
        assert nexts, "a path that ends nowhere"
        for by, to in nexts:
            go(to, (*path, by))

    go(recording["start"], ())
    return found


SMALL = ["rlock_in_part", "if_consumer", "lost_waiter", "handed_over", "barrier_impatient",
         "returned_in_two_withs", "queue_getter", "raises_again", "inner_loop"]  # fmt: skip


@pytest.mark.parametrize("name", [n for n in SMALL if n in PROGRAMS])
def test_paths_of_a_recording_are_the_schedules(name):
    functions, make = PROGRAMS[name]
    result = explore(*functions, setup=make)
    recording = result.recording()
    assert json.loads(json.dumps(recording)) == recording
    found = ways(recording)
    assert len(found) == result.schedules == recording["schedules"]
    for number, outcome in enumerate(recording["outcomes"]):
        counted = sum(end == number for end in found.values())
        known = [o.schedules for o in result.outcomes
                 if (o.kind, list(o.lines)) == (outcome["kind"], outcome["lines"])]  # fmt: skip
        assert known == [counted]
        assert outcome["ok"] is (outcome["kind"] == "ok")
    failing = [path for path, end in found.items() if not recording["outcomes"][end]["ok"]]
    assert len(failing) == result.failing == recording["failing"]
    if failing:
        assert tuple(recording["shortest"]) in failing
    else:
        assert recording["shortest"] is None


@pytest.mark.parametrize("name", ["if_consumer", "lost_waiter", "rlock_in_part"])
def test_indices_of_a_recording_are_good(name):
    functions, make = PROGRAMS[name]
    recording = explore(*functions, setup=make).recording()
    assert recording["format"] == 1
    assert [t["name"] for t in recording["threads"]] == list("ABCD"[: len(functions)])
    texts = range(-1, len(recording["texts"]))
    shown = []
    for state in recording["states"]:
        assert len(state["v"]) == len(recording["variables"])
        assert len(state["t"]) == len(state["n"]) == len(functions)
        assert all(text in texts for text in state["v"])
        assert all(-1 <= to < len(recording["states"]) for to in state["n"])
        for number, thread in enumerate(state["t"]):
            assert thread["s"] in ("ready", "blocked", "done", "raised")
            assert thread["w"] in texts and thread["x"] in texts
            if thread["s"] in ("done", "raised"):
                assert state["n"][number] == -1
            if "f" in thread:
                lines = recording["functions"][thread["f"]]["lines"]
                shown.append(lines[thread["l"]])
    assert any("with s." in line for line in shown)
    for thread in recording["threads"]:
        assert recording["functions"][thread["function"]]["lines"][0].startswith("def ")


def test_blocked_threads_of_a_recording_say_why():
    functions, make = PROGRAMS["lost_waiter"]
    recording = explore(*functions, setup=make).recording()
    reasons = {
        recording["texts"][thread["w"]]
        for state in recording["states"]
        for thread in state["t"]
        if thread["s"] == "blocked" and thread["w"] >= 0
    }
    assert "a notify on cond" in reasons
    assert any(reason.startswith("cond (held by ") for reason in reasons)


def test_goal_of_a_recording(race):
    recording = race.recording("Lose an update", lambda outcome: outcome.kind == "wrong")
    goal = recording["goal"]
    assert goal["text"] == "Lose an update"
    assert [recording["outcomes"][i]["kind"] for i in goal["outcomes"]] == ["wrong"]
    assert ways(recording)[tuple(recording["shortest"])] in goal["outcomes"]
    right = race.recording("Count to two", lambda outcome: outcome.kind == "ok")
    assert right["outcomes"][ways(right)[tuple(right["shortest"])]]["ok"]
    with pytest.raises(ValueError, match="no schedule reaches the goal"):
        race.recording("Get stuck", lambda outcome: outcome.kind == "deadlock")


def test_recording_of_a_loop():
    result = explore(spins, raises_flag, setup=lambda: Shared(flag=False))
    recording = result.recording()
    assert recording["schedules"] is None and result.schedules == math.inf
    json.dumps(recording, allow_nan=False)
    seen, waiting = {recording["start"]}, [recording["start"]]
    for number in waiting:
        for to in recording["states"][number]["n"]:
            if to >= 0 and to not in seen:
                seen.add(to)
                waiting.append(to)
    assert seen == set(range(len(recording["states"])))
    assert any(recording["states"][number]["o"] >= 0 for number in seen)


def waits(s):
    with s.cond:
        s.cond.wait()


def test_outcomes_are_sorted_by_kind_and_number():
    functions, make = PROGRAMS["queue_getter"]
    result = explore(*functions, setup=make)
    places = [KINDS.index(outcome.kind) for outcome in result.outcomes]
    assert places == sorted(places)
    assert sum(outcome.schedules for outcome in result.outcomes) == result.schedules


def test_a_thread_that_nobody_wakes_has_a_table():
    result = explore(waits, setup=lambda: Shared(cond=Condition()))
    assert "waits for a notify on cond" in str(result.failure)
