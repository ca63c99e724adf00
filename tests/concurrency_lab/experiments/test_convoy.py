import sys
import threading

import pytest

from concurrency_lab.experiments import convoy


def test_every_case_is_visited_every_round(no_child_left):
    latency = convoy.ping_latency(intervals=(0.001,), pings=2, rounds=2)
    assert list(latency.values) == [convoy.ALONE, convoy.PROCESS, convoy.beside_thread(0.001)]
    assert {len(values) for values in latency.values.values()} == {2}


def test_the_switch_interval_is_restored_and_the_thread_ends_after_an_error():
    before, threads = sys.getswitchinterval(), threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        with convoy.busy_thread(0.02):
            assert sys.getswitchinterval() == pytest.approx(0.02)
            raise KeyboardInterrupt
    assert sys.getswitchinterval() == before
    assert threading.active_count() == threads


def test_the_busy_process_ends_after_an_error(no_child_left):
    with pytest.raises(KeyboardInterrupt):
        with convoy.busy_process():
            raise KeyboardInterrupt
