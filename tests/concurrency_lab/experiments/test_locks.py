import hashlib
import threading
import time

import pytest

from concurrency_lab import figures
from concurrency_lab.experiments.locks import (
    CALL,
    OWN,
    SHARED,
    contention,
    granularity,
    hold_time,
    lock_costs,
)


class StripedMap:
    def __init__(self, stripes):
        self.locks = [threading.Lock() for _ in range(stripes)]
        self.parts = [{} for _ in range(stripes)]

    def update(self, key, change):
        n = hash(key) % len(self.locks)
        with self.locks[n]:
            self.parts[n][key] = change(self.parts[n].get(key, 0))

    def items(self):
        return [item for part in self.parts for item in part.items()]


class Forgetful(StripedMap):
    def update(self, key, change):
        change(0)


class Unlocked(StripedMap):
    def update(self, key, change):
        value = self.parts[0].get(0, 0)
        change(value)
        self.parts[0][0] = value + 1


@pytest.fixture(autouse=True)
def nobody_stays():
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def test_every_device_and_locks_of_ones_own_are_measured_in_every_round():
    mine = threading.Lock()
    costs = lock_costs({"mine": mine}, budget=0.1, max_rounds=5)
    assert {len(values) for values in costs.values.values()} == {5}
    assert "mine" in costs.values and CALL in costs.values
    assert set(costs.calls(CALL).values) == {1.0}
    assert not mine.locked()
    assert all(value > 0 for values in costs.values.values() for value in values)


def test_a_semaphore_made_in_python_costs_more_than_a_lock_made_in_c():
    assert lock_costs(budget=0.2).ratio("Semaphore", "Lock").median > 1.5


def test_costs_are_drawn_as_multiples_of_a_call():
    axes = lock_costs(budget=0.1, max_rounds=5).plot("title").axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert "Lock" in names and CALL not in names
    assert axes.get_xscale() == "log"


def test_a_name_that_is_taken_is_refused():
    with pytest.raises(ValueError, match="measured already"):
        lock_costs({"Lock": threading.Lock()})


def test_sections_are_entered_equally_often_whatever_the_threads_and_locks():
    entered = []
    contended = contention({"count": lambda: entered.append(1)}, threads=(1, 2), times=4, budget=1)
    assert {len(contended.comparison.results(name)) for name in contended.comparison.names} == {4}
    # One call for warming up, then the rounds; four cases; each enters four times.
    assert len(entered) == (contended.comparison.rounds + 1) * 4 * 4


def test_one_lock_lets_one_thread_in_and_own_locks_let_all():
    inside, most = [], []

    def section():
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.002)
        inside.pop()

    contention({"s": section}, threads=(3,), times=6, budget=0.1)
    assert max(most) > 1  # with a lock each
    most.clear()
    the_only = threading.Lock()
    contention({"s": section}, threads=(3,), times=6, lock=lambda: the_only, budget=0.1)
    assert max(most) == 1


def test_one_lock_around_hashing_keeps_no_more_than_one_core_busy():
    data = bytes(2_000_000)
    contended = contention(
        {"hash": lambda: hashlib.sha256(data).digest()}, threads=(1, 2), times=12, budget=1
    )
    assert contended.cores("hash", SHARED, 2).median < 1.2
    assert contended.fewer_cores_than(0.01, "hash", OWN, 2) is None
    assert "cores busy" in contended.fewer_cores_than(1000, "hash", OWN, 2)
    figure = contended.plot("title")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["hash"]
    assert "<svg" in figures.to_svg(figure)


def test_times_must_be_divisible():
    with pytest.raises(ValueError, match="multiple of every number"):
        contention({"s": int}, threads=(1, 3), times=4)


def test_a_lock_for_each_stripe_lets_that_many_in_at_most():
    found = granularity(StripedMap, stripes=(1, 2, 16), budget=0.5)
    assert found.at_once(1) == 1
    assert found.at_once(2) <= 2
    assert found.at_once(16) >= 3
    axes = found.plot("title").axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "16"]


@pytest.mark.parametrize("broken", [Forgetful, Unlocked])
def test_a_map_that_loses_updates_is_found_out(broken):
    with pytest.raises(RuntimeError, match="lost .* updates"):
        granularity(broken, keys=1, budget=0.5)


def test_the_bound_is_one_over_the_locked_part_and_never_more_than_the_threads():
    held = hold_time(shares=(0.0, 0.5, 1.0), threads=4, times=4, seconds=0.002, budget=0.5)
    assert [held.bound(share) for share in held.shares] == [4, 2, 1]
    for measured, share in ((held.of_bound(1.0), held.speedup(1.0)),):
        assert measured.values == share.values
    assert held.plot("title").axes[0].get_xlim()[1] >= 100


def test_only_one_thread_at_a_time_holds_the_lock():
    inside, most = [], []

    class Watched:
        lock = threading.Lock()

        def __enter__(self):
            self.lock.acquire()
            inside.append(1)
            most.append(len(inside))

        def __exit__(self, *exception):
            inside.pop()
            self.lock.release()

    hold_time(shares=(0.5, 1.0), threads=4, times=4, seconds=0.001, lock=Watched, budget=0.1)
    assert max(most) == 1


def test_shares_are_parts():
    with pytest.raises(ValueError, match="from 0 to 1"):
        hold_time(shares=(0.5, 50))
