import math
import multiprocessing
import operator
import os
import signal
import sys
import threading
import time
import types
from functools import partial

import numpy
import pytest

from concurrency_lab import figures, workloads
from concurrency_lab.experiments import scaling as instrument
from concurrency_lab.experiments.scaling import (
    CORES,
    LOOP,
    Pools,
    Scaling,
    no_child_on_failure,
    plot_scaling,
    scaling,
    wait_for_workers,
    worker_context,
)
from concurrency_lab.timing import Sample

MADE_UP = Scaling(
    "job",
    {LOOP: [4.0, 6.0, 8.0], 1: [4.0, 6.0, 4.0], 4: [2.0, 2.0, 8.0], CORES: [2.0, 6.0, 0.5]},
    Sample((2.0, 6.0, 0.5), "cores", others=0.25),
    slowdown=1.5,
)


pytestmark = pytest.mark.usefixtures("no_child_left")


_calls = []


def die_at_the_fourth(item):
    if multiprocessing.parent_process():
        _calls.append(item)
        if len(_calls) == 4:
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
    return item


def hang_in_a_worker(item):
    if multiprocessing.parent_process():
        time.sleep(60)
    return item


# Results


def test_a_speedup_is_paired_and_knows_the_load():
    speedup = MADE_UP.speedup(4)
    assert speedup.values == (2.0, 3.0, 1.0)
    assert (speedup.unit, speedup.others, speedup.slowdown) == ("times", 0.25, 1.5)
    assert MADE_UP.seconds(0).values == (4.0, 6.0, 8.0)
    assert MADE_UP.seconds(4).unit == "s"
    assert MADE_UP.workers == (1, 4)


def test_efficiency_counts_the_cores_of_the_round_but_no_more_than_processes():
    # 2 of 2 cores; 3 of 4 processes, although there are 6 cores; 1 of 1 core, although half of it.
    assert MADE_UP.efficiency(4).values == (1.0, 0.75, 1.0)
    assert MADE_UP.efficiency(1).values == (1.0, 1.0, 2.0)


def test_too_few_cores_is_a_reason():
    assert MADE_UP.too_few_cores(2.0) is None
    assert MADE_UP.too_few_cores(3.0) == "only 2.00 effective cores were to be had"


def test_an_unknown_number_of_workers_lists_the_known_ones():
    with pytest.raises(KeyError, match="0 .the loop., 1, 4"):
        MADE_UP.speedup(2)
    with pytest.raises(KeyError, match="2 workers"):
        MADE_UP.efficiency(2)


def test_a_result_says_what_was_found():
    first, one, four = str(MADE_UP).splitlines()
    assert first == "job in a loop: 6.00 [4.00..8.00] s; effective cores: 2.00 [0.50..6.00] cores"
    assert one.startswith("1 process: speed-up 1.00 [1.00..2.00] times; efficiency 1.00")
    assert four.startswith("4 processes: speed-up 2.00")


def test_a_plot_shows_jobs_cores_and_the_ideal():
    figure = plot_scaling({"a": MADE_UP, "b": MADE_UP}, "title")
    axes = figure.axes[0]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["a", "b", "ideal", "effective cores"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "4"]
    (a,) = (line for line in axes.lines if line.get_label() == "a")
    assert list(a.get_ydata()) == [1.0, 2.0]
    highest = max(value for n in (1, 4) for value in MADE_UP.speedup(n).values)
    assert axes.get_ylim()[0] == 0 and axes.get_ylim()[1] > highest
    assert figure.get_suptitle() == "title"
    assert "<svg" in figures.to_svg(figure)


def test_a_plot_of_one_number_of_workers():
    values = {LOOP: [1.0], 1: [2.0], CORES: [1.0]}
    figure = Scaling("job", values, Sample((1.0,), "cores")).plot()
    low, high = figure.axes[0].get_xlim()
    assert low < 1 < high


@pytest.mark.parametrize("number", [0, 6])
def test_a_plot_of_no_job_or_too_many_is_refused(number):
    with pytest.raises(ValueError, match="job"):
        plot_scaling({str(n): MADE_UP for n in range(number)})


# A measurement


def test_a_run_measures_every_way_in_every_round():
    items = (n for n in [2000] * 6)
    found = scaling(workloads.spin, items, (2, 1), rounds=2)
    assert found.name == "spin"
    assert found.workers == (1, 2)
    for n in (0, 1, 2):
        assert len(found.seconds(n).values) == 2
        assert all(value > 0 for value in found.seconds(n).values)
    assert len(found.efficiency(2).values) == 2
    assert found.effective.unit == "cores"
    assert all(0 < value for value in found.effective.values)


def test_chunks_reach_the_pool(monkeypatch):
    asked = []
    pooled = instrument._pooled

    def noted(pool, n, task, items, chunksize, *rest):
        asked.append(chunksize)
        return pooled(pool, n, task, items, chunksize, *rest)

    monkeypatch.setattr(instrument, "_pooled", noted)
    found = scaling(partial(operator.add, 1), range(5), (1,), chunksize=3, rounds=1)
    assert asked == [3, 3]  # once before the clock is looked at
    assert found.name == "add"


def test_other_results_than_those_of_the_loop_are_found_out():
    with pytest.raises(RuntimeError, match="result 0 of 1 worker processes is"):
        scaling(operator.call, [os.getpid], (1,), rounds=1)


def test_other_results_in_a_later_round_are_found_out():
    with Pools([1]) as pools, pytest.raises(RuntimeError, match="result 1 of 1 worker"):
        instrument._pooled(pools[1], 1, abs, [1, -2], None, [1, -2], 60)


def test_what_the_task_raises_is_not_caught():
    with pytest.raises(ZeroDivisionError):
        scaling(partial(operator.truediv, 1), [1, 0], (1,), rounds=1)


def test_ctrl_c_in_a_measurement_leaves_nobody(monkeypatch):
    def interrupted(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(instrument, "_probe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        scaling(workloads.spin, [1000] * 4, (1, 2), rounds=1)


def test_a_job_that_hangs_in_workers_is_an_error(monkeypatch):
    monkeypatch.setattr(instrument, "JOB_LIMIT", 0.2)
    with pytest.raises(RuntimeError, match="1 worker processes did not do in"):
        scaling(hang_in_a_worker, [1, 2], (1,), rounds=1)


def test_a_worker_that_is_killed_in_mid_measurement_is_an_error(monkeypatch):
    monkeypatch.setattr(instrument, "JOB_LIMIT", 2)
    with pytest.raises(RuntimeError, match="has a worker been killed"):
        scaling(die_at_the_fourth, [1], (1,), budget=60)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (1, 1, True),
        (1, 2, False),
        (math.nan, math.nan, True),
        (numpy.arange(3), numpy.arange(3), True),
        (numpy.arange(3), numpy.array([0, 1, 9]), False),
        ([numpy.arange(3)], [numpy.arange(3)], True),
        ([numpy.arange(3)], [numpy.arange(4)], False),
    ],
)
def test_results_are_compared_by_value(one, other, same):
    assert instrument._same(one, other) is same


@pytest.mark.parametrize(
    ("error", "match", "bad"),
    [
        (TypeError, "a function of one item", {"task": 3}),
        (ValueError, "at least one item", {"items": []}),
        (ValueError, "different numbers of at least 1", {"workers": ()}),
        (ValueError, "different numbers of at least 1", {"workers": (1, 1)}),
        (ValueError, "different numbers of at least 1", {"workers": (0, 1)}),
        (ValueError, "chunksize must be at least 1", {"chunksize": 0}),
        (ValueError, "a budget", {"budget": 0}),
        (ValueError, "a round at least", {"rounds": 0}),
        (ValueError, "no lambda", {"task": lambda item: item}),
        (ValueError, "or its items", {"items": [threading.Lock()]}),
    ],
)
def test_bad_input_is_refused(error, match, bad):
    with pytest.raises(error, match=match):
        scaling(**{"task": abs, "items": [1], **bad})


def test_a_function_of_a_notebook_is_refused(monkeypatch):
    notebook = types.ModuleType("__main__")
    exec("def task(item): return item", notebook.__dict__)
    monkeypatch.setitem(sys.modules, "__main__", notebook)
    with pytest.raises(ValueError, match="from a notebook: put it into a module"):
        scaling(notebook.task, [1])
    with pytest.raises(ValueError, match="from a notebook"):
        scaling(partial(notebook.task, 2), [1])
    notebook.__file__ = "script.py"
    instrument.check_sendable(notebook.task, [1])


# Pools


@pytest.mark.parametrize("chosen", [None, *multiprocessing.get_all_start_methods()])
def test_the_start_method_is_the_callers_but_never_fork(monkeypatch, chosen):
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda allow_none: chosen)
    others = [m for m in multiprocessing.get_all_start_methods() if m != "fork"]
    default = "forkserver" if "forkserver" in others else "spawn"
    expected = default if chosen in (None, "fork") else chosen
    assert worker_context().get_start_method() == expected


def test_asking_for_a_context_sets_no_start_method():
    before = multiprocessing.get_start_method(allow_none=True)
    worker_context()
    assert multiprocessing.get_start_method(allow_none=True) == before


def test_all_workers_of_all_pools_have_started():
    with Pools([1, 2]) as pools:
        assert len(multiprocessing.active_children()) == 3
        assert pools[2].map(abs, [-1, 2]) == [1, 2]


def test_workers_are_waited_for_until_all_have_answered():
    answers = [[None, 7], [None, 7], [None, 8]]
    asked = []

    def ask(functions, seconds):
        asked.append(functions)
        assert 0 < seconds <= instrument.START_LIMIT
        return answers.pop(0)

    wait_for_workers(ask, 2)
    assert len(asked) == 3
    assert asked[0].count(os.getpid) == 2


@pytest.mark.parametrize("error", [TimeoutError, multiprocessing.TimeoutError])
def test_workers_that_do_not_start_are_an_error(error):
    def ask(functions, seconds):
        raise error

    with pytest.raises(RuntimeError, match="0 of 3 worker processes have started"):
        wait_for_workers(ask, 3)


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_workers_at_work_are_ended_by_an_error(error):
    with pytest.raises(error), Pools([2]) as pools:
        pools[2].map_async(time.sleep, [60] * 4, 1)
        raise error


@pytest.mark.parametrize("starts", [1, 2, 3])
def test_ctrl_c_while_workers_start_leaves_nobody(monkeypatch, starts):
    # The first pool has one worker, the second two.
    started = []
    start = multiprocessing.process.BaseProcess.start

    def interrupted(process):
        if len(started) == starts:
            raise KeyboardInterrupt
        started.append(process)
        start(process)

    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", interrupted)
    with pytest.raises(KeyboardInterrupt), Pools([1, 2, 1]):
        pass
    assert len(started) == starts


def test_workers_that_do_not_answer_are_ended(monkeypatch):
    monkeypatch.setattr(instrument, "START_LIMIT", 0.0)
    with pytest.raises(RuntimeError, match="of 2 worker processes"), Pools([2]):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot be sent SIGINT there")
def test_workers_leave_ctrl_c_to_this_process():
    with Pools([2]) as pools:
        before = {child.pid for child in multiprocessing.active_children()}
        for pid in before:
            os.kill(pid, signal.SIGINT)
        assert pools[2].map(abs, range(-20, 0), 1) == list(range(20, 0, -1))
        assert {child.pid for child in multiprocessing.active_children()} == before


def test_only_children_of_a_block_that_fails_are_ended():
    context = worker_context()
    mine = context.Process(target=time.sleep, args=(60,))
    mine.start()
    try:
        with pytest.raises(ZeroDivisionError), no_child_on_failure():
            theirs = context.Process(target=time.sleep, args=(60,))
            theirs.start()
            raise ZeroDivisionError
        assert not theirs.is_alive() and mine.is_alive()
        with no_child_on_failure():
            kept = context.Process(target=time.sleep, args=(60,))
            kept.start()
        assert kept.is_alive()
    finally:
        for process in multiprocessing.active_children():
            process.terminate()
            process.join()
