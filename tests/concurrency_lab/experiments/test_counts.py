import multiprocessing
import subprocess
import time

import pytest

from concurrency_lab import figures
from concurrency_lab.claims import evaluate
from concurrency_lab.experiments.counts import (
    GET_LOCK,
    NO_LOCK,
    OWN_LOCK,
    WAYS,
    Counts,
    unlocked_counts,
)
from concurrency_lab.isolation import run_isolated

METHODS = multiprocessing.get_all_start_methods()


pytestmark = pytest.mark.usefixtures("no_run_left")


@pytest.mark.parametrize("method", METHODS)
def test_only_the_lock_round_the_whole_sum_keeps_every_increment(method):
    counts = unlocked_counts(12, 300, method=method)
    assert counts.expected == 600
    assert list(counts.results) == list(WAYS)
    for way in WAYS:
        assert len(counts.values(way)) == 12
        assert all(0 < value <= 600 for value in counts.values(way))
        assert 0 < counts.busy(way).median
    assert counts.wrong(GET_LOCK) == 0
    assert set(counts.values(GET_LOCK)) == {600}


def test_updates_are_lost_without_a_lock_unless_there_was_one_core_only():
    counts = unlocked_counts(60, budget=2)
    for way in (NO_LOCK, OWN_LOCK):
        assert counts.wrong(way) or counts.undecided(way)
        assert counts.lost(way).median <= counts.expected


def test_three_processes_add_too():
    counts = unlocked_counts(3, 50, processes=3)
    assert counts.expected == counts.values(GET_LOCK)[0] == 150


def test_a_budget_is_kept_but_for_ten_repetitions():
    counts = unlocked_counts(10_000, 10, budget=0.001)
    assert {len(counts.values(way)) for way in WAYS} == {10}


def made(no_lock, cores):
    results = {NO_LOCK: no_lock, OWN_LOCK: [51, 60, 100, 100], GET_LOCK: [100] * 4}
    return Counts(results, 100, 2, {way: [cores] * 4 for way in WAYS})


def test_results_can_be_counted():
    counts = made([90, 40, 100, 70], 1.9)
    assert [counts.wrong(way) for way in WAYS] == [3, 2, 0]
    assert counts.share_wrong(NO_LOCK) == 0.75
    assert counts.lost(NO_LOCK).values == (10, 60, 0, 30)
    assert str(counts).splitlines() == [
        "no lock: 3 of 4 sums wrong, the least 40 instead of 100",
        "its own lock: 2 of 4 sums wrong, the least 51 instead of 100",
        "get_lock(): 0 of 4 sums wrong",
    ]
    with pytest.raises(KeyError, match="there are no lock, its own lock"):
        counts.wrong("a wish")


def test_too_many_is_wrong_as_well():
    assert made([101, 100, 100, 100], 1.9).wrong(NO_LOCK) == 1


@pytest.mark.parametrize(
    "values, cores, verdict",
    [
        ([100] * 4, 1.9, "fails"),
        ([100] * 4, 0.9, "not measured"),
        ([100, 100, 99, 100], 0.9, "holds"),
        ([100, 100, 99, 100], 1.9, "holds"),
    ],
)
def test_a_claim_of_lost_updates_is_decided_by_a_loss_or_by_two_cores(values, cores, verdict):
    counts = made(values, cores)
    claim = evaluate("Lost.", counts.wrong(NO_LOCK), at_least=1, undecided=counts.undecided())
    assert claim.verdict == verdict


@pytest.mark.parametrize("values", [[90, 40, 100, 70], [100] * 4])
def test_a_plot_has_a_row_for_each_way_and_marks_the_right_sum(values):
    figure = made(values, 1.9).plot("title")
    (axes,) = figure.axes
    labels = [label.get_text().partition("\n") for label in axes.get_yticklabels()]
    assert [label[0] for label in labels] == list(WAYS)
    assert labels[2][2] == "0 of 4 wrong"
    assert list(axes.lines[0].get_xdata()) == [100, 100]
    low, high = axes.get_xlim()
    assert low < min(values) and high > 100
    assert "<svg" in figures.to_svg(figure)


@pytest.mark.parametrize(
    "bad, told",
    [
        ({"repetitions": 0}, "at least"),
        ({"increments": 0}, "at least"),
        ({"processes": 1}, "at least"),
        ({"budget": 0}, "a budget"),
        ({"increments": 2**30}, "less than 2"),
        ({"method": "clone"}, "there are .*spawn"),
    ],
)
def test_bad_input_is_refused(bad, told):
    with pytest.raises(ValueError, match=told):
        unlocked_counts(**bad)


@pytest.mark.skipif("fork" not in METHODS, reason="another function is put in place by a fork")
def test_a_process_that_dies_is_told_and_the_others_end():
    source = """
        import os
        from concurrency_lab.experiments import counts

        def die(me, *arguments):
            os._exit(1)

        counts._work, counts._PATIENCE = die, 0.5
        counts._measure(5, 5, 2, "fork", 1.0)
    """
    outcome = run_isolated(source, timeout=60)
    assert outcome.exit_code == 1 and not outcome.timed_out
    assert "BrokenBarrierError" in outcome.errors


def test_nothing_is_left_after_ctrl_c(monkeypatch):
    def interrupt(self, timeout=None):
        if timeout is not None:
            time.sleep(1)  # let it begin
            raise KeyboardInterrupt
        return wait(self)

    wait = subprocess.Popen.wait
    monkeypatch.setattr(subprocess.Popen, "wait", interrupt)
    with pytest.raises(KeyboardInterrupt):
        unlocked_counts()
