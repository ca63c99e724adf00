import itertools
import multiprocessing
import multiprocessing.pool
import operator
import time

import pytest

from concurrency_lab import figures
from concurrency_lab.experiments import chunks as instrument
from concurrency_lab.experiments.chunks import (
    HOWS,
    KINDS,
    LOOP,
    Balance,
    ChunkCosts,
    chunk_balance,
    chunk_overhead,
    default_chunksize,
    predict,
    unequal,
)

COSTS = ChunkCosts(
    {LOOP: [1e-7, 2e-7, 3e-7]}
    | {(how, n): [4e-5 / n, 6e-5 / n, 3e-5 / n] for how in HOWS for n in (1, 8)},
    what="time per item",
    others=0.25,
)

DURATIONS = {
    "equal": [1.0, 1.0, 1.0, 1.0],
    "sorted, long last": [0.5, 0.5, 1.0, 2.0],
    "sorted, long first": [2.0, 1.0, 0.5, 0.5],
}
BALANCE = Balance(
    {
        (kind, chunk): [chunk * 1.0, chunk * 3.0, chunk * 2.0]
        for kind in DURATIONS
        for chunk in (1, 2)
    },
    DURATIONS,
    workers=2,
    others=0.25,
)


pytestmark = pytest.mark.usefixtures("no_child_left")


# Overhead


def test_a_cost_is_named_by_how_and_chunk():
    ratio = COSTS.ratio(("Pool.map", 1), ("Pool.map", 8))
    assert ratio.values == pytest.approx((8, 8, 8))
    assert ratio.others == 0.25
    assert COSTS["Pool.imap", 8].median == pytest.approx(5e-6)
    assert COSTS.ratio(("Pool.imap", 8), LOOP).values == pytest.approx((50, 37.5, 12.5))
    assert COSTS.chunks == (1, 8)


@pytest.mark.parametrize("name", ["Pool.map", ("Pool.map", 2), ("map", 1)])
def test_an_unknown_cost_lists_the_known_ones(name):
    with pytest.raises(KeyError, match="'loop' and .how, chunk.*'Pool.imap'.* of 1, 8"):
        COSTS[name]


def test_costs_say_what_was_found():
    loop, one, eight = str(COSTS).splitlines()
    assert loop == "an item in a loop: 200 ns"
    assert one.startswith("in chunks of 1: Pool.map 40 µs; Pool.imap 40 µs; ProcessPoolExecutor")
    assert eight.startswith("in chunks of 8: Pool.map 5 µs")


def test_a_plot_of_costs_has_a_curve_for_each_way():
    figure = COSTS.plot("title")
    axes = figure.axes[0]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(HOWS)
    assert {axes.get_xscale(), axes.get_yscale()} == {"log"}
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "8"]
    low, high = axes.get_ylim()
    assert low < 1e-7 and 6e-5 < high
    assert "<svg" in figures.to_svg(figure)


def test_overhead_is_measured_for_every_way_and_chunk():
    costs = chunk_overhead((16, 1), workers=2, budget=0.1, rounds=2)
    assert costs.chunks == (1, 16)
    assert set(costs.values) == {LOOP, *itertools.product(HOWS, (1, 16))}
    for values in costs.values.values():
        assert len(values) == 2 and all(value > 0 for value in values)
    assert costs.unit == "s"


def test_every_worker_gets_four_chunks_at_least():
    seen = []

    def slow(items, chunk):
        seen.append(len(items))
        time.sleep(0.02)
        return [-item for item in items]

    assert instrument._stream(slow, 16, 128)() >= 0.02 / 128
    assert seen == [128, 128]


def test_a_short_stream_is_made_longer():
    seen = []

    def quick(items, chunk):
        seen.append(len(items))
        time.sleep(len(items) * 1e-3)
        return [-item for item in items]

    instrument._stream(quick, 1, 2)
    assert seen[:3] == [2, 4, 8] and seen[-1] <= 16


@pytest.mark.parametrize("spoil", [lambda found: found[:-1], lambda found: found[::-1]])
def test_wrong_results_are_found_out(spoil):
    with pytest.raises(RuntimeError, match="wrong results came back, in chunks of 4"):
        instrument._stream(lambda items, chunk: spoil([-item for item in items]), 4, 32)


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_an_error_while_overhead_is_measured_leaves_nobody(monkeypatch, error):
    def failing(*_arguments, **_options):
        raise error

    monkeypatch.setattr(instrument, "in_turns", failing)
    with pytest.raises(error):
        chunk_overhead((64,), budget=0.1, rounds=1)


@pytest.mark.parametrize("starts", [0, 1])
def test_ctrl_c_while_an_executor_starts_leaves_nobody(monkeypatch, starts):
    started = []
    start = multiprocessing.process.BaseProcess.start

    def interrupted(process):
        if len(started) == starts:
            raise KeyboardInterrupt
        started.append(process)
        start(process)

    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", interrupted)
    with pytest.raises(KeyboardInterrupt), instrument._executor(2):
        pass
    assert len(started) == starts


def test_an_executor_that_is_left_by_an_error_does_not_finish_its_tasks():
    with pytest.raises(ZeroDivisionError), instrument._executor(1) as executor:
        tasks = [executor.submit(time.sleep, 0.1) for _ in range(200)]
        raise ZeroDivisionError
    assert all(task.done() for task in tasks)
    assert tasks[-1].cancelled()


def test_all_workers_of_an_executor_have_started():
    with instrument._executor(2) as executor:
        assert len(multiprocessing.active_children()) == 2
        assert list(executor.map(operator.neg, [1, 2])) == [-1, -2]


@pytest.mark.parametrize("bad", [{"workers": 0}, {"rounds": 0}, {"budget": 0}])
def test_overhead_refuses_bad_input(bad):
    with pytest.raises(ValueError, match="chunk_overhead needs"):
        chunk_overhead(**bad)


# Prediction


@pytest.mark.parametrize(
    ("durations", "workers", "chunk", "expected"),
    [
        ([1] * 6, 1, 1, 6),
        ([1] * 6, 2, 1, 3),
        ([1] * 6, 2, 2, 4),  # three chunks of 2
        ([1] * 6, 2, 3, 3),
        ([1] * 6, 2, 4, 4),  # one of 4, one of 2
        ([1] * 6, 2, 100, 6),
        ([1] * 6, 10, 1, 1),
        ([1, 1, 2, 4], 2, 1, 5),  # the long one last: one worker idles
        ([4, 2, 1, 1], 2, 1, 4),
        ([4, 2, 1, 1], 2, 2, 6),
        ([0, 0], 2, 1, 0),
        (iter([3.0]), 2, 1, 3),
    ],
)
def test_predict(durations, workers, chunk, expected):
    assert predict(durations, workers, chunk) == expected


def test_a_prediction_is_within_grahams_bounds():
    durations = unequal(48, 1.0)
    for workers, chunk in itertools.product((1, 2, 3, 8), (1, 2, 5, 7)):
        lumps = [sum(durations[i : i + chunk]) for i in range(0, 48, chunk)]
        least = max(1.0 / workers, max(lumps))
        found = predict(durations, workers, chunk)
        assert least - 1e-9 <= found <= (2 - 1 / workers) * least + 1e-9


@pytest.mark.parametrize("bad", [([], 1, 1), ([-1.0], 1, 1), ([1.0], 0, 1), ([1.0], 1, 0)])
def test_predict_refuses_bad_input(bad):
    with pytest.raises(ValueError, match="at least one duration"):
        predict(*bad)


@pytest.mark.parametrize(("items", "workers"), [(1, 1), (8, 2), (9, 2), (48, 8), (1000, 3)])
def test_the_default_is_that_of_the_pool(monkeypatch, items, workers):
    sizes = []
    split = multiprocessing.pool.Pool._get_tasks

    def noted(function, iterable, size):
        sizes.append(size)
        return split(function, iterable, size)

    monkeypatch.setattr(multiprocessing.pool.Pool, "_get_tasks", staticmethod(noted))
    with multiprocessing.pool.ThreadPool(workers) as pool:
        pool.map(abs, range(items))
        pool.close()
        pool.join()
    assert sizes == [default_chunksize(items, workers)]


@pytest.mark.parametrize("bad", [(0, 1), (1, 0)])
def test_the_default_needs_items_and_workers(bad):
    with pytest.raises(ValueError, match="at least one item and one worker"):
        default_chunksize(*bad)


def test_unequal_tasks_grow_and_have_the_total():
    found = unequal(48, 2.0)
    assert found == sorted(found) and len(set(found)) == 48
    assert sum(found) == pytest.approx(2.0)


# Balance


def test_a_balance_knows_times_predictions_and_ratios():
    assert BALANCE.kinds == tuple(DURATIONS)
    assert BALANCE.chunks == (1, 2)
    seconds = BALANCE.seconds("equal", 2)
    assert (seconds.values, seconds.unit, seconds.others) == ((2.0, 6.0, 4.0), "s", 0.25)
    assert BALANCE.predicted("sorted, long last", 1) == 2.5
    assert BALANCE.predicted("sorted, long first", 1) == 2.0
    assert BALANCE.predicted("sorted, long first", 3) == 3.5
    assert BALANCE.over_prediction("equal", 1).values == (0.5, 1.5, 1.0)
    assert BALANCE.ratio("equal", 2, 1).values == (2.0, 2.0, 2.0)
    pairs = BALANCE.compared(("sorted, long last", 2), ("sorted, long first", 1))
    assert (pairs.values, pairs.unit, pairs.others) == ((2.0, 2.0, 2.0), "times", 0.25)


def test_an_unknown_kind_or_chunk_lists_the_known_ones():
    with pytest.raises(KeyError, match="there are 'equal', 'sorted, long last'"):
        BALANCE.predicted("long", 1)
    with pytest.raises(KeyError, match="in chunks of 3; there are 1, 2"):
        BALANCE.ratio("equal", 3, 1)


def test_a_balance_says_what_was_found():
    head, equal, *_ = str(BALANCE).splitlines()
    assert head == "chunk: measured (predicted)"
    assert equal == "equal: 1: 2 s (2 s), 2: 4 s (2 s)"


def test_a_plot_of_a_balance_has_panels_with_dots_and_predictions():
    figure = BALANCE.plot("title")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["equal tasks", "sorted tasks"]
    equal, both = figure.axes
    lines = [list(line.get_ydata()) for line in equal.lines]
    assert [2.0, 2.0] in lines  # predicted
    assert [1.0, 3.0, 2.0, 2.0, 6.0, 4.0] in lines  # every round
    assert [text.get_text() for text in both.get_legend().get_texts()] == [
        "long last",
        "long first",
    ]
    low, high = equal.get_ylim()
    assert low < 1.0 and high > 6.0
    assert "<svg" in figures.to_svg(figure)


def test_a_balance_is_measured_for_every_kind_and_chunk():
    found = chunk_balance(6, 0.001, 2, (3, 1), budget=0.1, rounds=2)
    assert found.kinds == KINDS
    assert found.chunks == (1, 3)
    for kind in KINDS:
        assert sum(found.durations[kind]) == pytest.approx(0.006)
        for chunk in found.chunks:
            assert len(found.seconds(kind, chunk).values) == 2
            # Nobody can wait less than the worker that waits longest.
            assert min(found.over_prediction(kind, chunk).values) > 0.9
    assert found.durations[KINDS[1]] == found.durations[KINDS[2]][::-1]
    assert sorted(found.durations["shuffled"]) == sorted(found.durations[KINDS[1]])


def test_a_seed_makes_the_same_order_again(monkeypatch):
    monkeypatch.setattr(instrument, "_waited", lambda pool, waits, chunk: 1.0)
    orders = [
        chunk_balance(9, 0.001, 1, (1,), seed=seed, rounds=1).durations["shuffled"]
        for seed in (3, 3, 4)
    ]
    assert orders[0] == orders[1] != orders[2]


def test_workers_that_wait_wrongly_are_found_out():
    class Broken:
        def map(self, function, waits, chunk):
            return waits[:-1]

    with pytest.raises(RuntimeError, match="in chunks of 2"):
        instrument._waited(Broken(), [0.1, 0.2], 2)


def test_ctrl_c_while_a_balance_is_measured_leaves_nobody(monkeypatch):
    def interrupted(pool, waits, chunk):
        pool.map_async(time.sleep, [60] * 4, 1)
        raise KeyboardInterrupt

    monkeypatch.setattr(instrument, "_waited", interrupted)
    with pytest.raises(KeyboardInterrupt):
        chunk_balance(4, 0.001, 2, (1,), rounds=1)


@pytest.mark.parametrize(
    "bad",
    [
        {"tasks": 0}, {"workers": 0}, {"rounds": 0}, {"seconds": 0}, {"budget": 0},
    ],
)  # fmt: skip
def test_balance_refuses_bad_input(bad):
    with pytest.raises(ValueError, match="chunk_balance needs"):
        chunk_balance(**bad)


@pytest.mark.parametrize("measure", [chunk_balance, chunk_overhead])
@pytest.mark.parametrize("chunks", [(), (0, 2), (1.5,), 5, "many"])
def test_chunks_are_whole_numbers(measure, chunks):
    with pytest.raises(ValueError, match="chunks are whole numbers from 1"):
        measure(chunks=chunks)
