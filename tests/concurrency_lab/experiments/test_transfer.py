import _thread
import gc
import math
import multiprocessing
import os
import shutil
import sys
import tempfile
import threading
import uuid
from multiprocessing.shared_memory import SharedMemory
from multiprocessing.synchronize import SemLock
from types import SimpleNamespace

import psutil
import pytest
from matplotlib.text import Text

from concurrency_lab import figures, isolation
from concurrency_lab.experiments import transfer
from concurrency_lab.experiments.transfer import CHANNELS, TransferCosts, transfer_costs

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc and /dev/shm")
by_fork = pytest.mark.skipif(transfer.METHOD != "fork", reason="the echo must get what is patched")
MIB = transfer.MIB


def made_up(sizes, absent=None, **ratios):
    """A result in which a pipe takes a microsecond a byte, the others so many times as long."""
    values = {("Pipe", size): [size * 1e-6] * 3 for size in sizes}
    for name, factors in ratios.items():
        for size, factor in zip(sizes, factors, strict=True):
            values[name, size] = [size * 1e-6 * factor * noise for noise in (0.9, 1, 1.2)]
    for case in absent or ():
        del values[case]
    return TransferCosts(values, absent, others=0.1, slowdown=1.25)


# What is done with the values


def test_values_are_paired_and_know_the_load():
    found = made_up((10, 1000), Queue=(4, 2))
    ratio = found.ratio("Queue", "Pipe", 10)
    assert ratio.values == pytest.approx((3.6, 4, 4.8))
    assert (ratio.unit, ratio.others, ratio.slowdown) == ("times", 0.1, 1.25)
    assert found.seconds("Queue", 1000).values == pytest.approx((0.0018, 0.002, 0.0024))
    assert found.bandwidth("Queue", 1000).median == pytest.approx(500_000)
    assert found.bandwidth("Queue", 1000).unit == "bytes/s"


def test_channels_and_sizes_are_in_order():
    found = TransferCosts({("socket", 9): [1.0], ("Pipe", 9): [1.0], ("Pipe", 1): [1.0]})
    assert found.channels == ("Pipe", "socket")
    assert found.sizes == (1, 9)


@pytest.mark.parametrize("channel, size", [("Fax", 10), ("Pipe", 11)])
def test_what_was_not_measured_is_named_with_what_was(channel, size):
    with pytest.raises(KeyError, match="there are Pipe, Queue, for 10"):
        made_up((10,), Queue=(1,)).ratio("Queue", "Pipe", 10)
        made_up((10,), Queue=(1,)).seconds(channel, size)


def test_what_is_absent_has_no_ratio_and_says_why():
    found = made_up((10, 20), {("Queue", 20): "no room"}, Queue=(4, 2))
    assert found.ratio("Queue", "Pipe", 20) is None
    assert found.ratio("Pipe", "Queue", 20) is None
    assert found.ratio("Queue", "Pipe", 10) is not None
    with pytest.raises(KeyError, match="no room"):
        found.seconds("Queue", 20)
    assert found.sizes == (10, 20)


def test_a_crossing_lies_between_sizes_by_logarithms():
    # Four times as long at 16 bytes, half as long at 128: two thirds of the way down.
    found = made_up((1, 16, 128), Queue=(4, 4, 0.5))
    assert found.crossing("Queue", "Pipe") == pytest.approx(64)
    assert found.crossing("Pipe", "Queue") == pytest.approx(64)


def test_a_crossing_at_a_size_is_that_size():
    assert made_up((1, 16, 128), Queue=(4, 1, 0.5)).crossing("Queue", "Pipe") == pytest.approx(16)
    assert made_up((1, 16, 128), Queue=(0.5, 1, 2)).crossing("Queue", "Pipe") == pytest.approx(16)


@pytest.mark.parametrize("factors", [(4, 3, 2), (0.1, 0.2, 0.3), (2, 0.5, 2), (1, 1, 1)])
def test_no_crossing_or_several_are_none(factors):
    assert made_up((1, 16, 128), Queue=factors).crossing("Queue", "Pipe") is None


def test_a_crossing_is_looked_for_where_both_were_measured():
    found = made_up((1, 16, 256), {("Queue", 16): "no room"}, Queue=(4, 9, 0.25))
    assert found.crossing("Queue", "Pipe") == pytest.approx(16)


def test_the_text_is_a_table():
    found = made_up((1, 2048), {("Queue", 2048): "no room"}, Queue=(4, 2))
    assert str(found).splitlines() == [
        "one way   1 B    2 KiB",
        "Pipe     1 µs  2.05 ms",
        "Queue    4 µs        -",
    ]


# The figure


def all_channels(sizes=transfer.SIZES):
    values = {
        (name, size): [1e-5 * (1 + 0.01 * n) + size * 1e-9] * 2
        for n, name in enumerate(CHANNELS)
        for size in sizes
    }
    return TransferCosts(values)


def test_a_plot_has_two_panels_and_names_every_curve_in_both():
    figure = all_channels().plot("title")
    above, below = figure.axes
    assert figure.get_suptitle() == "title"
    for axes in (above, below):
        assert {axes.get_xscale(), axes.get_yscale()} == {"log"}
        assert sorted(text.get_text() for text in axes.texts) == sorted(CHANNELS)
        looks = {(line.get_color(), line.get_marker()) for line in axes.lines}
        assert len(looks) == len(CHANNELS)
        assert len({line.get_marker() for line in axes.lines}) == len(CHANNELS)
    assert "<svg" in figures.to_svg(figure)


def test_names_of_curves_that_end_together_do_not_lie_upon_each_other():
    figure = all_channels().plot()
    figure.draw_without_rendering()
    for axes in figure.axes:
        boxes = [Text.get_window_extent(text) for text in axes.texts]  # without its arrow
        boxes.sort(key=lambda box: box.y0)
        assert all(a.y1 <= b.y0 + 2 for a, b in zip(boxes, boxes[1:], strict=False))


def test_a_plot_leaves_out_what_is_absent():
    found = made_up((1, 16), {("Queue", 16): "no room"}, Queue=(4, 2))
    (pipe, queue) = found.plot().axes[0].lines
    assert (len(pipe.get_xdata()), len(queue.get_xdata())) == (2, 1)


def test_spread_heights_keep_order_and_distance_and_move_little():
    wanted = {"a": 0.1, "b": 0.5, "c": 0.51, "d": 0.9}
    found = transfer._spread(wanted, apart=0.1)
    assert (found["a"], found["d"]) == pytest.approx((0.1, 0.9))
    assert (found["b"], found["c"]) == pytest.approx((0.455, 0.555))
    tight = transfer._spread({"a": 0.3, "b": 0.39, "c": 0.48, "d": 0.5}, apart=0.1)
    heights = list(tight.values())
    assert list(tight) == ["a", "b", "c", "d"]
    assert all(b - a > 0.1 - 1e-9 for a, b in zip(heights, heights[1:], strict=False))


# What is measured


@pytest.mark.parametrize(
    "bad, words",
    [
        ({"sizes": ()}, "at least 1 each"),
        ({"sizes": (0, 1)}, "at least 1 each"),
        ({"sizes": (1.5,)}, "whole numbers"),
        ({"sizes": (8, 8)}, "once only"),
        ({"budget": 0}, "positive number of seconds"),
        ({"budget": math.inf}, "positive number of seconds"),
    ],
)
def test_bad_input_is_refused(bad, words):
    with pytest.raises(ValueError, match=words):
        transfer_costs(**bad)


def test_small_messages_make_several_trips_large_ones_one():
    assert transfer._trips(1e-9, 0.015) == 200
    assert transfer._trips(0.001, 0.015) == 8
    assert transfer._trips(1.0, 0.015) == 1


def test_the_slowest_cases_are_given_up_if_five_rounds_take_too_long():
    spent = {("Pipe", 1): 1.0, ("Queue", 1): 4.0, ("Pipe", 2): 2.0, ("Queue", 2): 8.0}
    assert not transfer._too_slow(spent, 75.1)
    absent = transfer._too_slow(spent, 30.1)
    assert list(absent) == [("Queue", 2), ("Queue", 1)]
    assert "8 s" in absent["Queue", 2]
    assert len(transfer._too_slow(spent, 0.0)) == 3  # one is always left


@linux
def test_there_must_be_room_for_shared_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=64 * MIB))
    absent = transfer._too_large([1, 8 * MIB, 64 * MIB], str(tmp_path))
    assert list(absent) == [("shared memory", 64 * MIB)]
    assert "only 64 MiB free" in absent["shared memory", 64 * MIB]
    assert transfer._too_large([64 * MIB], str(tmp_path / "none")) == {}


@pytest.fixture
def nothing_left(monkeypatch, no_child_left):
    """Fails the test if a run leaves a process, wherever it went, a segment, file or thread."""
    mark, names = {"TRANSFER_TEST": uuid.uuid4().hex}, []
    folder = tempfile.mkdtemp(prefix="t-")  # pytest's are too long for the address of a manager

    def marked(*arguments, **options):
        names.append(arguments[-1])
        return isolation.run_isolated(*arguments, env=mark, **options)

    monkeypatch.setattr(tempfile, "tempdir", folder)
    monkeypatch.setattr(transfer, "run_isolated", marked)
    threads = set(threading.enumerate())
    yield
    assert names, "nothing was run"
    os.rmdir(folder)  # refuses if something is in it
    assert set(threading.enumerate()) <= threads
    for process in psutil.process_iter():
        try:
            assert process.environ().get("TRANSFER_TEST") != mark["TRANSFER_TEST"]
        except (psutil.Error, OSError):
            continue
    for name in names:
        with pytest.raises(FileNotFoundError):
            SharedMemory(name)


def test_a_run_measures_every_channel_and_size_equally_often(nothing_left):
    sizes = (300_000, 1)
    found = transfer_costs(sizes, budget=4)
    assert found.channels == CHANNELS
    assert found.sizes == (1, 300_000)
    values = [found.seconds(name, size).values for name in CHANNELS for size in sizes]
    assert len({len(of_case) for of_case in values}) == 1
    assert len(values[0]) >= 5
    assert min(min(of_case) for of_case in values) > 0


def test_what_takes_too_long_is_absent(nothing_left):
    found = transfer_costs((1, 100, 8 * MIB), budget=0.02)
    assert ("Manager.Queue", 8 * MIB) in found.absent
    assert found.ratio("Manager.Queue", "Pipe", 8 * MIB) is None
    assert len(found.absent) < len(CHANNELS) * 3  # one at least was measured


@pytest.mark.parametrize("after", [0.1, 0.5, 0.9, 2.0])
def test_ctrl_c_leaves_nothing(nothing_left, after):
    timer = threading.Timer(after, _thread.interrupt_main)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        transfer_costs((1, 8 * MIB), budget=60)
    timer.join()


@by_fork
def test_a_failure_says_why_and_leaves_nothing(nothing_left, monkeypatch):
    monkeypatch.setattr(transfer, "_measure", measure_and_die)
    with pytest.raises(RuntimeError, match="the echo process has died"):
        transfer_costs((1,), budget=1)


def test_a_segment_is_removed_whose_creator_was_killed():
    segment = SharedMemory("transfer-test", create=True, size=10)
    segment.close()
    transfer._remove("transfer-test")
    if os.name == "posix":
        with pytest.raises(FileNotFoundError):
            SharedMemory("transfer-test")
    transfer._remove("transfer-test")


# Run by children


def measure_and_die(sizes, budget, name):
    here, receive = os.getpid(), transfer.File.receive
    transfer.File.receive = lambda self: receive(self) if os.getpid() == here else os._exit(3)
    return transfer._measure(sizes, budget, name)


def echo_all(method):
    transfer.METHOD = method
    with transfer.Echo(300_000, f"transfer-{os.getpid()}") as echo:
        for size in (1, 300_000):
            message = os.urandom(size)
            for channel in CHANNELS:
                echo.check(channel, message, transfer._digest(message))
                assert echo.measure(channel, message, 3) > 0
    assert not multiprocessing.active_children()
    assert threading.active_count() <= 3  # the feeder of the queue, and this one
    return os.listdir(tempfile.gettempdir())


def names_left():
    """What could be found by name, now that all are running: it would outlive a SIGKILL."""
    with transfer.Echo(1000, f"transfer-{os.getpid()}"):
        locks = [it._semlock.name for it in gc.get_objects() if isinstance(it, SemLock)]
        segment = os.path.exists(f"/dev/shm/transfer-{os.getpid()}")
        ports = [link for link in psutil.Process().net_connections() if link.status == "LISTEN"]
        return locks, segment, ports


def spoil(kind):
    flip = bytes(255 - n for n in range(256))
    here, send, receive = os.getpid(), transfer.File.send, transfer.File.receive

    def wrong(self):
        message = receive(self)
        if kind == "not bytes":
            return bytearray(message)
        return message.translate(flip) if os.getpid() == here else message

    if kind == "on the way there":  # and, where the echo is forked, undone on the way back
        transfer.File.send = lambda self, message: send(self, message.translate(flip))
    else:
        transfer.File.receive = wrong
    transfer._measure([100], 0.1, f"transfer-{here}")


@pytest.mark.parametrize("method", [transfer.METHOD, "spawn"])
def test_every_channel_brings_the_message_by_every_start_method(method, no_child_left):
    outcome = isolation.run_isolated(echo_all, method, timeout=60)
    assert outcome.exit_code == 0, str(outcome)
    assert not [name for name in outcome.result if name.startswith("transfer")]
    assert "leaked" not in outcome.errors


@linux
def test_while_it_runs_nothing_has_a_name_that_would_outlive_it(no_child_left):
    outcome = isolation.run_isolated(names_left, timeout=60)
    assert outcome.exit_code == 0, str(outcome)
    locks, segment, ports = outcome.result
    assert len(locks) >= 8
    assert set(locks) == {None}
    assert not segment
    assert not ports


@pytest.mark.parametrize(
    "kind", ["on the way there", "on the way back", pytest.param("not bytes", marks=by_fork)]
)
def test_a_message_that_is_changed_is_found_out(kind, no_child_left):
    outcome = isolation.run_isolated(spoil, kind, timeout=60)
    assert "file changed a message of 100 bytes" in outcome.errors, str(outcome)
