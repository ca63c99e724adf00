import subprocess
import sys
import threading
import time
from collections import namedtuple
from contextlib import contextmanager
from types import SimpleNamespace

import psutil
import pytest

from concurrency_lab import load
from concurrency_lab.load import LoadMeter

BURN = """\
import sys, time
while time.process_time() < 0.3: pass
print("done", flush=True)
sys.stdin.read()
"""


@contextmanager
def burning():
    """A child that uses 0.3 s of CPU time, says so, and waits to be ended."""
    with subprocess.Popen(
        [sys.executable, "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        yield child


def test_tree_counts_this_process():
    before = load.tree_cpu_seconds()
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    assert load.tree_cpu_seconds() - before >= 0.09


def test_tree_counts_running_descendants_and_those_that_ended():
    idle = load.descendants_cpu_seconds()
    before = load.tree_cpu_seconds()
    with burning() as child:
        assert child.stdout.readline() == "done\n"
        assert load.descendants_cpu_seconds() - idle >= 0.28
        running = load.tree_cpu_seconds()
        assert running - before >= 0.28
    if load.resource is not None:
        assert load.tree_cpu_seconds() >= running - 0.03  # what it used is not forgotten


@pytest.mark.skipif(sys.platform != "linux", reason="the clock is Linux'")
def test_clock_of_another_process_agrees_with_its_ticks():
    with burning() as child:
        assert child.stdout.readline() == "done\n"
        time.sleep(0.05)  # until it waits
        ticks = sum(psutil.Process(child.pid).cpu_times()[:2])
        clock = time.clock_gettime((~child.pid << 3) | 2)
    assert clock == pytest.approx(ticks, abs=0.05)


def test_load_meter_sees_a_stranger_and_not_its_own(monkeypatch):
    Times = namedtuple("Times", "user nice system idle steal")
    system = iter([Times(10, 1, 5, 99, 0), Times(13, 1.5, 5.5, 99, 1)])  # 5 s in all
    own = iter([2.0, 3.0])  # 1 s of it by this tree
    clock = iter([100.0, 102.0])
    monkeypatch.setattr(psutil, "cpu_times", lambda: next(system))
    monkeypatch.setattr(load, "tree_cpu_seconds", lambda: next(own))
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    with LoadMeter() as meter:
        pass
    monkeypatch.undo()
    assert meter.others == pytest.approx(2.0)


def test_load_meter_never_goes_below_zero():
    with LoadMeter() as meter:
        pass
    assert meter.others >= 0


def test_load_meter_is_read_after_an_error():
    meter = LoadMeter()
    with pytest.raises(ZeroDivisionError), meter:
        1 / 0  # noqa: B018
    assert meter.others >= 0


def test_slowdown_of_two_threads():
    threads = threading.active_count()
    meter = load.SlowdownMeter()
    assert meter.slowdown == 1
    for _ in range(3):
        meter.probe()
    # At worst the two take turns, or wait for other programs.
    assert meter.slowdown >= 1
    assert meter.spent > 0 and threading.active_count() == threads


def test_slowdown_is_both_over_alone(monkeypatch):
    clock = iter([0, 1, 3, 10, 11, 12])  # 2 s and 1 s side by side, 1 s alone
    monkeypatch.setattr(load, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    meter = load.SlowdownMeter()
    meter.probe()
    assert meter.slowdown == 2
    meter.probe()
    assert meter.slowdown == 1.5 and meter.spent == 5
