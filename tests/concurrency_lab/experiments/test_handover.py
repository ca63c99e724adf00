import threading
import time
from collections import deque
from contextlib import nullcontext

import pytest

from concurrency_lab import figures, machine
from concurrency_lab.experiments.handover import Handovers, handover

GOT = Handovers({"unfair": [[0, 0, 0, 1], [1, 1]], "fair": [[0, 1, 0, 1]]}, threads=2)


class TicketLock:
    def __init__(self):
        self.changed = threading.Condition()
        self.next_ticket = self.serving = 0

    def __enter__(self):
        with self.changed:
            mine = self.next_ticket
            self.next_ticket += 1
            self.changed.wait_for(lambda: self.serving == mine)

    def __exit__(self, *exception):
        with self.changed:
            self.serving += 1
            self.changed.notify_all()


class HandOver:
    """The owner passes the lock on to the one who has waited longest."""

    def __init__(self):
        self.mutex, self.queue, self.taken = threading.Lock(), deque(), False

    def __enter__(self):
        with self.mutex:
            if not self.taken:
                self.taken = True
                return
            turn = threading.Lock()
            turn.acquire()
            self.queue.append(turn)
        turn.acquire()

    def __exit__(self, *exception):
        with self.mutex:
            if self.queue:
                self.queue.popleft().release()
            else:
                self.taken = False


def test_streaks_do_not_run_over_the_end_of_a_round():
    assert GOT.streaks("unfair") == [3, 1, 2]
    assert GOT.longest_streak("unfair") == 3
    assert GOT.shares("unfair") == [0.5, 0.5]
    assert GOT.back_to_same("unfair") == 3 / 4
    assert GOT.back_to_same("fair") == 0
    assert "unfair: longest streak 3" in str(GOT)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(KeyError, match="unfair, fair"):
        GOT.streaks("other")


def test_a_plot_has_a_strip_for_each_lock_and_one_for_the_streaks():
    figure = GOT.plot("title")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["unfair", "fair", ""]
    assert "<svg" in figures.to_svg(figure)


@pytest.mark.parametrize("fair", [TicketLock, HandOver])
def test_a_fair_lock_goes_round(fair):
    before = threading.active_count()
    got = handover({"fair": fair}, turns=400, rounds=1)
    assert len(got.owners["fair"][0]) == 400
    # On a busy machine a thread may be late to stand in line again, but seldom.
    assert got.back_to_same("fair") < 0.1
    assert min(got.shares("fair")) > 0.15
    assert threading.active_count() == before


@pytest.mark.skipif(machine.no_gil() is not None, reason="the GIL lets the owner come first")
def test_a_plain_lock_often_goes_back_to_the_same_thread():
    got = handover({"Lock": threading.Lock}, turns=1000, rounds=3)
    assert got.longest_streak("Lock") >= 5


def test_a_lock_that_is_none_is_found_out():
    before = threading.active_count()
    with pytest.raises(RuntimeError, match="none let threads"):
        handover({"none": nullcontext}, work=lambda: time.sleep(0.01))
    assert threading.active_count() == before


def test_work_that_fails_ends_the_threads():
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        handover({"Lock": threading.Lock}, work=lambda: 1 / 0)
    assert threading.active_count() == before


def test_it_takes_two():
    with pytest.raises(ValueError, match="two threads"):
        handover({"Lock": threading.Lock}, threads=1)
