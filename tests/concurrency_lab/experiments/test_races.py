import sys
import threading
import time

import pytest

from concurrency_lab import figures, machine
from concurrency_lab.experiments.races import Races, lost_at_the_barrier, repeat_race

RACES = Races({"safe": [0, 0], "unsafe": [0, 30]}, updates=100, threads=2)


def plain(counter, n):
    for _ in range(n):
        counter.value += 1


def one():
    return 1


def with_a_call(counter, n):
    for _ in range(n):
        counter.value += one()


def read_sleep_write(counter, n):
    for _ in range(n):
        value = counter.value
        time.sleep(0)
        counter.value = value + 1


lock = threading.Lock()


def locked(counter, n):
    for _ in range(n):
        with lock:
            counter.value += one()


def test_counts_of_runs_and_updates():
    assert (RACES.runs("unsafe"), RACES.losing_runs("unsafe")) == (2, 1)
    assert (RACES.share_of_runs("unsafe"), RACES.share_of_runs("safe")) == (0.5, 0)
    assert (RACES.total_lost("unsafe"), RACES.most_lost("unsafe")) == (30, 0.3)
    assert "unsafe: 1 of 2 runs lost updates, 30 of 200 in all" in str(RACES)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(KeyError, match="safe, unsafe"):
        RACES.runs("other")


def test_a_plot_shows_none_lost_apart_from_one():
    axes = RACES.plot("title").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["safe", "unsafe"]
    none, one = axes.transData.transform([(0, 0), (1, 0)])[:, 0]
    assert one - none > 15  # pixels
    assert "<svg" in figures.to_svg(RACES.plot())


def test_a_lock_loses_nothing_and_everybody_has_the_same_number_of_runs():
    races = repeat_race({"a": locked, "b": locked}, threads=3, increments=200, runs=4)
    assert races.lost == {"a": [0] * 4, "b": [0] * 4}
    assert races.updates == 600


@pytest.mark.skipif(machine.no_gil() is not None, reason="without the GIL it loses updates")
def test_a_plain_addition_loses_nothing_with_the_gil():
    assert repeat_race({"plain": plain}, runs=5, increments=20_000).total_lost("plain") == 0


@pytest.mark.parametrize("function", [with_a_call, read_sleep_write])
def test_what_must_lose_is_run_until_it_does(function):
    n = 50_000 if function is with_a_call else 500
    races = repeat_race({"f": function}, increments=n, runs=1, must_lose=["f"], budget=60)
    assert races.losing_runs("f") >= 1


def test_a_run_goes_on_no_longer_than_the_budget():
    races = repeat_race({"f": locked}, increments=10, runs=1, must_lose=["f"], budget=0.2)
    assert races.runs("f") > 1
    assert races.losing_runs("f") == 0


def test_the_switch_interval_is_restored_and_no_thread_is_left_after_an_error():
    before, threads = sys.getswitchinterval(), threading.active_count()
    alone = []

    def fail(counter, n):
        if not alone:  # the check in one thread passes
            alone.append(True)
            counter.value = n
            return
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        repeat_race({"f": fail}, increments=10)
    assert sys.getswitchinterval() == before
    assert threading.active_count() == threads


def test_functions_that_do_other_work_are_refused():
    with pytest.raises(ValueError, match="was to add 100 and added 0"):
        repeat_race({"lazy": lambda counter, n: None})
    with pytest.raises(ValueError, match="none of the functions"):
        repeat_race({"plain": plain}, must_lose=["other"])
    with pytest.raises(ValueError, match="at least 1"):
        repeat_race({"plain": plain}, threads=0)


def test_a_barrier_between_reading_and_writing_loses_one_update_a_round():
    before = threading.active_count()
    assert lost_at_the_barrier(50) == 50
    assert threading.active_count() == before
