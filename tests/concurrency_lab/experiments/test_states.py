import sys
import threading
import time

import pytest

from concurrency_lab.experiments.states import DEAD, NEW, NOT_RUNNING, RUNNING, StateWatch

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, which only Linux has")


def test_needs_a_thread():
    with pytest.raises(ValueError, match="at least one thread"):
        StateWatch()


@linux
def test_sees_a_thread_that_waits(no_child_left):
    gate = threading.Event()
    thread = threading.Thread(target=gate.wait, name="waiter")
    with StateWatch(thread) as watch:
        time.sleep(0.02)
        thread.start()
        time.sleep(0.1)
        gate.set()
        thread.join()
        time.sleep(0.02)
    assert {NEW, NOT_RUNNING, DEAD} <= watch.states(thread)
    assert [state for state in watch.history(thread) if state != RUNNING] == [
        NEW,
        NOT_RUNNING,
        DEAD,
    ]
    assert watch.seconds(thread, NOT_RUNNING) > watch.seconds(thread, RUNNING)
    assert watch.cores() < 0.5


@linux
def test_sees_a_thread_that_calculates(no_child_left):
    thread = threading.Thread(target=sum, args=(range(8_000_000),), name="worker")
    with StateWatch(thread) as watch:
        thread.start()
        thread.join()
    assert RUNNING in watch.states(thread)
    assert 0 < watch.cores() < 1.1


@linux
def test_intervals_of_a_thread_follow_each_other_without_a_gap():
    thread = threading.Thread(target=time.sleep, args=(0.05,), name="sleeper")
    with StateWatch(thread) as watch:
        thread.start()
        thread.join()
    ends = [(i.start, i.end) for i in watch.intervals]
    assert all(a[1] == pytest.approx(b[0]) for a, b in zip(ends, ends[1:], strict=False))
    assert watch.intervals[0].state == NEW


@linux
def test_a_thread_that_is_never_started_stays_new():
    thread = threading.Thread(name="unborn")
    with StateWatch(thread) as watch:
        time.sleep(0.01)
    assert watch.states(thread) == {NEW}


@linux
def test_a_thread_that_runs_already_is_not_new():
    gate = threading.Event()
    thread = threading.Thread(target=gate.wait, name="old")
    thread.start()
    with StateWatch(thread) as watch:
        time.sleep(0.05)
    gate.set()
    thread.join()
    assert watch.states(thread) == {NOT_RUNNING}


def test_a_watch_that_saw_nothing_says_so():
    watch = StateWatch(threading.Thread())
    assert watch.cores() is None
    assert watch.blind() == "this system does not tell the states of threads"


@linux
def test_the_watcher_ends_after_an_error(no_child_left):
    with pytest.raises(KeyboardInterrupt):
        with StateWatch(threading.current_thread()):
            raise KeyboardInterrupt


@linux
def test_plot_has_a_row_a_thread():
    thread = threading.Thread(target=time.sleep, args=(0.01,), name="sleeper")
    with StateWatch(thread) as watch:
        thread.start()
        thread.join()
    axes = watch.plot("title").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["sleeper"]
