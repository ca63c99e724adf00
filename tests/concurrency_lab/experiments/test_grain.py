import hashlib
import math
import queue
import threading

import pytest

from concurrency_lab import figures
from concurrency_lab.experiments import grain
from concurrency_lab.experiments.grain import Grain, grain_sweep

ONE, TWO, BATCHES = "one worker", "two workers", "two workers, batches"


def made_up(sizes, **ratios):
    """A result in which work takes a microsecond a byte, and the ratios are as given."""
    values = {("direct", size): [size * 1e-6] * 3 for size in sizes}
    for how, name in ((ONE, "one"), (TWO, "two"), (BATCHES, "batches")):
        for size, ratio in zip(sizes, ratios.get(name, [1.0] * len(sizes)), strict=True):
            values[how, size] = [size * 1e-6 * ratio] * 3
    return Grain(values, sizes, 2, others=0.25, slowdown=1.5)


@pytest.fixture(autouse=True)
def nobody_stays():
    before = threading.active_count()
    yield
    assert threading.active_count() == before


@pytest.fixture(scope="module")
def swept():
    return grain_sweep((64, 4096), budget=0.1, rounds=2)


def test_every_way_is_measured_for_every_size(swept):
    assert swept.sizes == (64, 4096)
    assert swept.hows == (ONE, TWO, BATCHES)
    for size in swept.sizes:
        assert all(value > 0 for value in swept.work(size).values)
        for how in swept.hows:
            assert len(swept.ratio(size, how).values) == 2
    assert swept.work(4096).median > swept.work(64).median


def test_ratios_are_paired_and_know_the_load():
    values = {("direct", 64): [1.0, 2.0], (ONE, 64): [3.0, 4.0]}
    found = Grain(values, [64], 2, others=0.25, slowdown=1.5)
    ratio = found.ratio(64, ONE)
    assert ratio.values == (3.0, 2.0)
    assert found.ratio(64, "direct", over=ONE).values == (1 / 3, 0.5)
    assert (ratio.unit, ratio.others, ratio.slowdown) == ("times", 0.25, 1.5)
    assert found.handover.values == (2.0, 2.0)
    assert (found.handover.unit, found.work(64).unit) == ("s", "s")


def test_the_handover_is_that_of_the_smallest_size():
    assert made_up((10, 1000), one=(3, 1)).handover.median == pytest.approx(20e-6)


def test_a_break_even_lies_between_sizes_by_logarithms():
    # From 4 times at 100 bytes to 1 time at 10,000: twice in the middle, that is, at 1000 bytes.
    found = made_up((100, 10_000), one=(4, 1)).break_even()
    assert found.size == pytest.approx(1000)
    assert found.seconds == pytest.approx(1000e-6)
    assert made_up((100, 10_000), two=(4, 0.25)).break_even(TWO, at=1).size == pytest.approx(1000)


def test_a_break_even_at_a_size_is_that_size():
    assert made_up((10, 100, 1000), one=(3, 2, 1)).break_even().size == pytest.approx(100)


@pytest.mark.parametrize("ratios", [(1.9, 1.5, 1), (5, 4, 3), (1, 2, 3)])
def test_without_a_way_down_there_is_no_break_even(ratios):
    assert made_up((10, 100, 1000), one=ratios).break_even() is None


def test_of_several_break_evens_the_last_counts():
    found = made_up((1, 10, 100, 1000), one=(3, 1, 3, 1)).break_even()
    assert 100 < found.size < 1000


def test_an_unknown_way_or_size_lists_the_known_ones():
    found = made_up((10, 100))
    with pytest.raises(KeyError, match="one worker, two workers, two workers, batches"):
        found.ratio(10, "three workers")
    with pytest.raises(KeyError, match="10, 100"):
        found.work(11)


def test_a_result_says_what_was_found():
    lines = str(made_up((64, 1024), one=(4, 1.5))).splitlines()
    assert lines[0].startswith("64 B (64 µs): one worker 4.00; two workers 1.00;")
    assert lines[1].startswith("1 KiB (1.02 ms): one worker 1.50")


def test_a_plot_marks_both_break_evens():
    found = made_up((64, 1024, 16_384), one=(4, 1, 1), two=(5, 1.1, 0.5))
    figure = found.plot("title")
    axes = figure.axes[0]
    assert axes.get_legend_handles_labels()[1] == [ONE, TWO, BATCHES]
    marks = [text.get_text() for text in axes.texts]
    assert len(marks) == 2
    assert marks[0].startswith("2× at") and marks[1].startswith("1× at")
    assert {axes.get_xscale(), axes.get_yscale()} == {"log"}
    assert "<svg" in figures.to_svg(figure)


def test_a_plot_does_not_mark_a_crossing_that_may_be_chance():
    found = made_up((64, 1024), two=(3, 0.9))
    found._values[TWO, 1024][0] *= 2
    assert found.break_even(TWO, at=1) is not None
    assert not found.plot().axes[0].texts


def test_a_plot_needs_no_break_even():
    axes = made_up((64, 1024), one=(1.5, 1), two=(1.5, 1.4)).plot().axes[0]
    assert not axes.texts


def test_labels_keep_their_distance():
    assert grain._apart([1.0, 1.1, 3.0, 9.0], 2.0) == [1, 2, 3]


def test_messages_of_a_batch_are_few(monkeypatch):
    puts = []

    class Counted(queue.Queue):
        def put(self, item, block=True, timeout=None):
            puts.append(item)
            super().put(item, block, timeout)

    monkeypatch.setattr(queue, "Queue", Counted)
    blocks = [bytes([n]) for n in range(100)]
    seconds, found = grain._by_queue(blocks, 2, 30)
    assert [len(message) for message in puts if message] == [30, 30, 30, 10]
    assert sorted(found) == sorted(grain._directly(blocks)[1])
    assert seconds > 0


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("batch", [1, 7])
def test_every_block_is_hashed_once_whatever_the_workers_and_batches(workers, batch):
    blocks = [n.to_bytes(2, "big") for n in range(500)]
    _, found = grain._by_queue(blocks, workers, batch)
    assert sorted(found) == sorted(hashlib.sha256(block).digest() for block in blocks)


@pytest.mark.parametrize("spoil", [lambda found: found[:-1], lambda found: found[:-1] + [b""]])
def test_a_lost_or_wrong_hash_is_found_out(monkeypatch, spoil):
    right = grain._by_queue

    def wrong(blocks, workers, batch):
        seconds, found = right(blocks, workers, batch)
        return seconds, spoil(found)

    monkeypatch.setattr(grain, "_by_queue", wrong)
    with pytest.raises(RuntimeError, match="hashes came back"):
        grain_sweep((64,), budget=0.1, rounds=1)


def test_a_worker_that_fails_is_an_error_and_leaves_nobody(monkeypatch):
    def fail(block):
        raise ZeroDivisionError

    monkeypatch.setattr(hashlib, "sha256", fail)
    with pytest.raises(ZeroDivisionError):
        grain._by_queue([b"a", b"b"], 2, 1)


@pytest.mark.parametrize("batch", [1, 3])
def test_ctrl_c_leaves_no_worker_and_does_not_wait_for_what_is_left(monkeypatch, batch):
    boxes = []

    class Interrupted(queue.Queue):
        def put(self, item, block=True, timeout=None):
            boxes.append(self)
            super().put(item, block, timeout)
            if len(boxes) == 5:
                raise KeyboardInterrupt

    monkeypatch.setattr(queue, "Queue", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        grain._by_queue([b"block"] * 100, 2, batch)
    assert len(boxes) == 5 + 2  # and the two stop signs
    assert boxes[0].empty()


@pytest.mark.parametrize(
    "bad", [{"sizes": ()}, {"sizes": (0, 64)}, {"workers": 1}, {"rounds": 0}, {"budget": 0}]
)
def test_bad_input_is_refused(bad):
    with pytest.raises(ValueError, match="at least 1 byte"):
        grain_sweep(**bad)


def test_sizes_are_those_of_the_powers_of_four():
    assert grain.SIZES[0] == 64 and grain.SIZES[-1] == 1024 * 1024
    assert {b / a for a, b in zip(grain.SIZES, grain.SIZES[1:], strict=False)} == {4}
    assert math.log2(grain.BATCH) == 18
