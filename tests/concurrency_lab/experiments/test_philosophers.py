import threading
import time
from contextlib import contextmanager

import pytest

from concurrency_lab import figures
from concurrency_lab.experiments.philosophers import (
    CalledOff,
    Deadlock,
    Dinner,
    Table,
    dine,
    dine_in_turns,
    jain,
)


class LeftFirst:
    def __init__(self, table):
        self.table = table
        self.everybody = threading.Barrier(table.size)

    @contextmanager
    def forks_of(self, me):
        left, right = self.table.neighbours(me)
        with self.table.forks[left]:
            self.everybody.wait()  # so that the first meal is the last
            with self.table.forks[right]:
                yield


class Ordered:
    def __init__(self, table):
        self.table = table

    @contextmanager
    def forks_of(self, me):
        low, high = sorted(self.table.neighbours(me))
        with self.table.forks[low], self.table.forks[high]:
            yield


class OneFewer:
    def __init__(self, table):
        self.table = table
        self.chairs = threading.Semaphore(table.size - 1)

    @contextmanager
    def forks_of(self, me):
        left, right = self.table.neighbours(me)
        with self.chairs, self.table.forks[left], self.table.forks[right]:
            yield


class Waiter:
    def __init__(self, table):
        self.table, self.taken, self.changed = table, set(), table.condition()

    @contextmanager
    def forks_of(self, me):
        pair = set(self.table.neighbours(me))
        with self.changed:
            self.changed.wait_for(lambda: not pair & self.taken)
            self.taken |= pair
        try:
            yield
        finally:
            with self.changed:
                self.taken -= pair
                self.changed.notify_all()


class ChandyMisra:
    """K. M. Chandy, J. Misra, "The Drinking Philosophers Problem", ACM TOPLAS 6(4), 1984.

    Only the owner of a fork gives it away: when asked, if it is dirty and not in use. It is clean
    when it arrives, so its new owner will eat before giving it away.
    """

    def __init__(self, table):
        self.table, self.changed = table, table.condition()
        self.sharers = [((fork - 1) % table.size, fork) for fork in range(table.size)]
        self.owner = [min(two) for two in self.sharers]  # no circle in the beginning
        self.dirty, self.asked = [True] * table.size, [False] * table.size
        self.eating = [False] * table.size

    def pass_on(self, fork):
        owner = self.owner[fork]
        if self.asked[fork] and self.dirty[fork] and not self.eating[owner]:
            self.owner[fork] = sum(self.sharers[fork]) - owner  # the other one
            self.dirty[fork] = self.asked[fork] = False
            self.changed.notify_all()

    def has_both(self, me):
        mine = self.table.neighbours(me)
        for fork in mine:
            if self.owner[fork] != me:
                self.asked[fork] = True
                self.pass_on(fork)
        return all(self.owner[fork] == me for fork in mine)

    @contextmanager
    def forks_of(self, me):
        with self.changed:
            self.changed.wait_for(lambda: self.has_both(me))
            self.eating[me] = True
        try:
            yield
        finally:
            with self.changed:
                self.eating[me] = False
                for fork in self.table.neighbours(me):
                    self.dirty[fork] = True
                    self.pass_on(fork)


class WithoutForks:
    def __init__(self, table):
        pass

    @contextmanager
    def forks_of(self, me):
        yield


class Sleeper:
    """Waits for a word that nobody says."""

    def __init__(self, table):
        self.changed = table.condition()

    @contextmanager
    def forks_of(self, me):
        with self.changed:
            self.changed.wait()
            yield


CURES = {"order": Ordered, "one fewer": OneFewer, "waiter": Waiter, "Chandy-Misra": ChandyMisra}


@pytest.fixture(autouse=True)
def nobody_stays():
    before = threading.active_count()
    yield
    assert threading.active_count() == before


@pytest.mark.parametrize("strategy", CURES.values(), ids=CURES)
@pytest.mark.parametrize("philosophers", [2, 3, 5, 8])
def test_a_cure_serves_all_meals(strategy, philosophers):
    dinner = dine(strategy, philosophers=philosophers, meals=80, think=0, eat=0.0002)
    assert sum(dinner.meals) == 80
    assert dinner.most_at_once <= philosophers // 2
    assert [len(counts) for counts in dinner.overtaken] == dinner.meals


def test_left_first_deadlocks_in_a_circle_and_the_message_tells_it():
    with pytest.raises(Deadlock) as caught:
        dine(LeftFirst, philosophers=3)
    story = str(caught.value)
    assert all(f"philosopher {n} holds fork {n} and waits for fork" in story for n in range(3))


def test_a_neighbour_overtakes_hardly_ever_twice_under_chandy_and_misra():
    dinner = dine(ChandyMisra, meals=200, think=0, eat=0.0005)
    # A thread may be stopped between "hungry" and its first request, so not "never".
    assert dinner.overtaken_over(1) <= 10
    assert dinner.fairness > 0.95


def test_neighbours_that_eat_together_are_found_out():
    with pytest.raises(RuntimeError, match="ate with the same fork"):
        dine(WithoutForks, eat=0.05)


def test_a_dinner_that_gets_stuck_elsewhere_is_called_off():
    with pytest.raises(TimeoutError, match="after 0.3 s"):
        dine(Sleeper, timeout=0.3)


def test_an_error_in_a_strategy_ends_the_dinner():
    class Clumsy(Ordered):
        @contextmanager
        def forks_of(self, me):
            with super().forks_of(me):
                raise ZeroDivisionError
            yield

    with pytest.raises(ZeroDivisionError):
        dine(Clumsy)


def test_a_fork_is_a_lock():
    table = Table(2)
    fork, other = table.forks
    assert fork.acquire()
    found = []
    thread = threading.Thread(
        target=lambda: found.extend((fork.acquire(blocking=False), fork.acquire(timeout=0.01)))
    )
    thread.start()
    thread.join()
    assert found == [False, False]
    fork.release()
    with pytest.raises(RuntimeError, match="fork 1 is put back"):
        other.release()


def test_whoever_waits_at_the_table_is_sent_home():
    table, outcome = Table(2), []
    condition = table.condition()

    def wait():
        try:
            with condition:
                condition.wait()
        except CalledOff:
            outcome.append("sent home")

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.01)
    table.call_off()
    thread.join(10)
    assert outcome == ["sent home"]
    with pytest.raises(CalledOff), condition:
        condition.wait()


def test_jain():
    assert jain([7, 7, 7, 7]) == 1
    assert jain([12, 0, 0, 0]) == 1 / 4
    with pytest.raises(ValueError, match="nobody got anything"):
        jain([0, 0])


def test_numbers_of_a_dinner():
    dinner = Dinner([[0.1, 0.3], [0.2]], [[0, 2], [1]], most_at_once=1)
    assert (dinner.meals, dinner.longest_wait) == ([2, 1], 0.3)
    assert dinner.fairness == pytest.approx(0.9)
    assert (dinner.overtaken_over(0), dinner.overtaken_over(1)) == (2, 1)
    assert dinner.waited(0).values == (0.1, 0.3)
    assert dinner.waited().median == 0.2
    assert "<svg" in figures.to_svg(dinner.plot("one"))


def test_dinners_in_turns_keep_a_deadlock_as_a_story():
    dinners = dine_in_turns({"left first": LeftFirst, "order": Ordered}, rounds=2, meals=10)
    assert list(dinners.dinners) == ["order"]
    assert sum(dinners["order"].meals) == 20
    assert "holds fork" in dinners.deadlocks["left first"]
    assert "left first: DEADLOCK" in str(dinners)
    with pytest.raises(Deadlock):
        dinners["left first"]
    with pytest.raises(KeyError, match="there are order"):
        dinners["other"]


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_plot_has_a_panel_for_each_strategy(number):
    chosen = dict(list(CURES.items())[:number])
    figure = dine_in_turns(chosen, rounds=1, meals=5).plot("title")
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in panels] == list(chosen)
    assert "<svg" in figures.to_svg(figure)


def test_a_dinner_for_one_is_refused():
    with pytest.raises(ValueError, match="two philosophers"):
        dine(Ordered, philosophers=1)
