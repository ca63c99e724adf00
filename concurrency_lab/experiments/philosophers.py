"""Dining philosophers with real threads: who waits how long under which strategy (chapter 2).

The problem is from E. W. Dijkstra, "Hierarchical ordering of sequential processes", Acta
Informatica 1, 1971; the forks are C. A. R. Hoare's.
"""

import random
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from concurrency_lab.experiments.together import together
from concurrency_lab.timing import Sample


class CalledOff(Exception):
    """The dinner has ended: raised in a philosopher that waits for a fork or a condition."""


class Deadlock(RuntimeError):
    """Philosophers wait for one another in a circle; the message says who for whom."""


class Strategy(Protocol):
    """What tells philosophers how to come by their forks; made from a `Table`."""

    def forks_of(self, philosopher: int) -> AbstractContextManager:
        """Have both forks of this philosopher for a `with` block."""


class Table:
    """`size` philosophers and `forks`. Philosopher n sits between the forks n and n + 1.

    The last one's right fork is fork 0. Whoever waits at the table, for a fork or for a
    `condition()`, is sent home when the dinner is called off; so no thread is left behind.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._mutex = threading.Lock()
        self._conditions: list[TableCondition] = []
        self._over = False
        self.forks = [Fork(self, number) for number in range(size)]

    def neighbours(self, philosopher: int) -> tuple[int, int]:
        """The numbers of the forks to the left and to the right of this philosopher."""
        return philosopher, (philosopher + 1) % self.size

    def condition(self) -> threading.Condition:
        """A new `threading.Condition` whose `wait` ends when the dinner is called off."""
        return TableCondition(self, threading.RLock())

    def call_off(self) -> None:
        """Make everybody who waits, or is going to wait, raise `CalledOff`."""
        self._over = True
        for condition in self._conditions:
            # Whoever holds the lock for longer is not waiting, and will look before it waits.
            if condition.acquire(timeout=1.0):
                condition.notify_all()
                condition.release()


class TableCondition(threading.Condition):
    """See `Table.condition`."""

    def __init__(self, table: Table, lock) -> None:
        super().__init__(lock)
        self._table = table
        table._conditions.append(self)

    def wait(self, timeout: float | None = None) -> bool:
        if self._table._over:
            raise CalledOff
        heard = super().wait(timeout)
        if self._table._over:
            raise CalledOff
        return heard


class Fork:
    """A lock that knows its holder, so that waiting in a circle is noticed at once."""

    def __init__(self, table: Table, number: int) -> None:
        self.number = number
        self.holder: threading.Thread | None = None
        self._table = table
        self._free = TableCondition(table, table._mutex)
        self._wanted_by: set[threading.Thread] = set()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the fork, like `threading.Lock.acquire`; raises `Deadlock`, `CalledOff`."""
        me = threading.current_thread()
        with self._free:
            if self.holder is not None:
                if not blocking:
                    return False
                if timeout >= 0:  # gives up by itself: no deadlock
                    if not self._free.wait_for(lambda: self.holder is None, timeout):
                        return False
                else:
                    self._wanted_by.add(me)
                    try:
                        self._look_for_circle()
                        self._free.wait_for(lambda: self.holder is None)
                    finally:
                        self._wanted_by.discard(me)
            self.holder = me
            return True

    def release(self) -> None:
        """Put the fork back."""
        with self._free:
            if self.holder is not threading.current_thread():
                raise RuntimeError(f"fork {self.number} is put back by one who does not hold it")
            self.holder = None
            self._free.notify()

    def _look_for_circle(self) -> None:
        """Who holds this fork, what do they wait for, and who holds that?"""
        story, fork, seen = [], self, set()
        while fork is not None and fork.holder is not None and fork not in seen:
            seen.add(fork)
            story.append(f"{fork.holder.name} holds fork {fork.number}")
            waits = [f for f in self._table.forks if fork.holder in f._wanted_by]
            fork = waits[0] if waits else None
            if fork is not None:
                story[-1] += f" and waits for fork {fork.number}"
        if fork is self:
            raise Deadlock("; ".join(story))

    def __enter__(self) -> "Fork":
        self.acquire()
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()


@dataclass(frozen=True)
class Dinner:
    """What happened at a table: `waits[p]` has the seconds that philosopher p waited for each meal.

    `overtaken[p]` has, for each meal of p, how many meals one neighbour, the quicker of the two,
    began while p was hungry. `most_at_once` is the largest number that ate at the same time.
    """

    waits: list[list[float]]
    overtaken: list[list[int]]
    most_at_once: int
    others: float = 0.0

    @property
    def meals(self) -> list[int]:
        """How many meals each philosopher had."""
        return [len(waits) for waits in self.waits]

    @property
    def fairness(self) -> float:
        """Jain's index of the meals: 1 if all had the same, 1/n if one of n had everything.

        R. Jain, D. Chiu, W. Hawe, "A Quantitative Measure of Fairness and Discrimination for
        Resource Allocation in Shared Computer Systems", DEC-TR-301, 1984.
        """
        return jain(self.meals)

    def waited(self, philosopher: int | None = None) -> Sample:
        """Seconds from hungry to eating, of one philosopher or of all."""
        chosen = self.waits if philosopher is None else [self.waits[philosopher]]
        return Sample([wait for waits in chosen for wait in waits], "s", self.others)

    def overtaken_over(self, times: int) -> int:
        """How many meals came only after one and the same neighbour had begun more than `times`."""
        return sum(count > times for counts in self.overtaken for count in counts)

    @property
    def longest_wait(self) -> float:
        """Seconds of the longest wait for a meal."""
        return max(max(waits, default=0.0) for waits in self.waits)

    def plot(self, title: str | None = None):
        """A row for each philosopher, a dot for each wait."""
        return Dinners({title or "": self}).plot()


def jain(amounts) -> float:
    """Jain's fairness index: (sum x)^2 / (n * sum x^2)."""
    squares = sum(amount**2 for amount in amounts)
    if not squares:
        raise ValueError("fairness of nothing: nobody got anything")
    return sum(amounts) ** 2 / (len(amounts) * squares)


@dataclass(frozen=True)
class Dinners:
    """Dinners by the name of the strategy. `deadlocks` has the stories of those that got stuck."""

    dinners: dict[str, Dinner]
    deadlocks: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Dinner:
        if name in self.deadlocks:
            raise Deadlock(self.deadlocks[name])
        if name not in self.dinners:
            raise KeyError(f"no dinner {name!r}; there are {', '.join(self.dinners)}")
        return self.dinners[name]

    def __str__(self) -> str:
        from concurrency_lab.figures import duration

        lines = [f"{name}: DEADLOCK: {story}" for name, story in self.deadlocks.items()]
        for name, dinner in self.dinners.items():
            meals = " ".join(map(str, dinner.meals))
            lines.append(
                f"{name}: meals {meals}, Jain's index {dinner.fairness:.3f}, longest wait "
                f"{duration(dinner.longest_wait)}, overtaken more than once "
                f"{dinner.overtaken_over(1)}, at once at most {dinner.most_at_once}"
            )
        return "\n".join(lines)

    __repr__ = __str__

    def plot(self, title: str | None = None):
        """A panel for each strategy, a row for each philosopher, a dot for each wait."""
        from concurrency_lab import figures

        columns = min(2, len(self.dinners))
        rows = -(-len(self.dinners) // columns)
        size = len(next(iter(self.dinners.values())).waits)
        figure, panels = figures.new(
            height=0.8 + rows * (0.8 + 0.3 * size), rows=rows, columns=columns, sharex=True,
            squeeze=False,
        )  # fmt: skip
        longest = max(dinner.longest_wait for dinner in self.dinners.values())
        for spare in panels.flat[len(self.dinners) :]:
            spare.set_visible(False)
        for number, (axes, (name, dinner)) in enumerate(
            zip(panels.flat, self.dinners.items(), strict=False)
        ):
            # A fixed label a row; the meals stand at the right, where the medians usually are.
            groups = {f"{p}": waits or [0.0] for p, waits in enumerate(dinner.waits)}
            figures.dots(axes, groups, value=lambda _: "", series=dict.fromkeys(groups, number))
            for line in axes.lines:
                line.set(markersize=4, alpha=0.55)
            place = {"transform": axes.get_yaxis_transform(), "va": "center_baseline"}
            for p, meals in enumerate(dinner.meals):
                axes.text(1.02, p, str(meals), **place)
            axes.text(1.02, -0.75, "meals", fontsize=10, color=figures.PALETTE["muted"], **place)
            axes.set_title(name, fontsize=12)
            axes.set_xlim(-0.03 * longest, 1.03 * longest)
            if number % columns == 0:
                axes.set_ylabel("philosopher")
        for axes in panels[-1]:
            figures.time_axis(axes, label="wait for a meal")
        if len(self.dinners) % columns:
            above = panels[-2][-1]
            above.tick_params(labelbottom=True)
            figures.time_axis(above, label="wait for a meal")
        if title:
            figure.suptitle(title, x=0.02, ha="left", weight="bold", fontsize=13)
        return figure


def dine(
    strategy: Callable[[Table], Strategy],
    *,
    philosophers: int = 5,
    meals: int = 60,
    think: float = 0.0005,
    eat: float = 0.001,
    timeout: float = 20.0,
) -> Dinner:
    """Have `meals` meals in all, eaten by as many threads as there are philosophers.

    `strategy(table)` makes the object whose `with strategy.forks_of(philosopher):` holds both
    forks. Thinking and eating are `time.sleep`, eating for `eat` seconds, thinking for 0 to
    `2 * think`, the same times under every strategy. All begin hungry, and the dinner is over when
    the last meal is served: who was quick had more of them.

    Raises Deadlock as soon as philosophers wait in a circle for forks of the table; TimeoutError
    if the dinner takes longer than `timeout` seconds; RuntimeError if two neighbours ate at the
    same time. In any case all threads have ended, if they wait with the table's forks and
    conditions only.
    """
    if philosophers < 2 or meals < 1:
        raise ValueError("a dinner needs two philosophers and a meal at least")
    table = Table(philosophers)
    plan = strategy(table)
    waits: list[list[float]] = [[] for _ in range(philosophers)]
    overtaken: list[list[int]] = [[] for _ in range(philosophers)]
    begun = [0] * philosophers
    served = 0
    counter = threading.Lock()
    eating: set[int] = set()
    most = 0

    def begin(me: int, hungry: float, before: list[int]) -> bool:
        """Take a plate and note how it came to that; False if all plates are gone."""
        nonlocal served, most
        with counter:
            if served == meals:
                return False
            served += 1
            beside = {(me - 1) % philosophers, (me + 1) % philosophers}
            if beside & eating:
                both = f"philosophers {me} and {(beside & eating).pop()}"
                raise RuntimeError(f"{both} ate with the same fork")
            eating.add(me)
            most = max(most, len(eating))
            waits[me].append(time.perf_counter() - hungry)
            overtaken[me].append(max(begun[other] - before[other] for other in beside))
            begun[me] += 1
            return True

    def sit_down(me: int) -> None:
        threading.current_thread().name = f"philosopher {me}"
        thoughts = random.Random(me)
        try:
            while not table._over:
                hungry, before = time.perf_counter(), list(begun)
                with plan.forks_of(me):
                    if not begin(me, hungry, before):
                        return
                    time.sleep(eat)
                    with counter:
                        eating.discard(me)
                time.sleep(thoughts.uniform(0, 2 * think))
        except CalledOff:
            return

    jobs = [lambda me=me: sit_down(me) for me in range(philosophers)]
    together(jobs, call_off=table.call_off, timeout=timeout)
    return Dinner(waits, overtaken, most)


def dine_in_turns(
    strategies: Mapping[str, Callable[[Table], Strategy]],
    *,
    rounds: int = 5,
    budget: float = 5.0,
    **options,
) -> Dinners:
    """Have dinner under each strategy in turns, `rounds` times; `options` go to `dine`.

    Waits and meals of all rounds are put together. No round is begun after `budget` seconds. A
    strategy that deadlocks is not tried again, and is found in `deadlocks`.
    """
    from concurrency_lab.load import LoadMeter

    found: dict[str, list[Dinner]] = {name: [] for name in strategies}
    deadlocks: dict[str, str] = {}
    end = time.perf_counter() + budget
    with LoadMeter() as load:
        for turn in range(rounds):
            for name in strategies if turn % 2 == 0 else reversed(list(strategies)):
                if name not in deadlocks:
                    try:
                        found[name].append(dine(strategies[name], **options))
                    except Deadlock as story:
                        deadlocks[name] = str(story)
            if time.perf_counter() > end:
                break
    dinners = {
        name: Dinner(
            [sum(waits, []) for waits in zip(*(d.waits for d in several), strict=True)],
            [sum(counts, []) for counts in zip(*(d.overtaken for d in several), strict=True)],
            max(dinner.most_at_once for dinner in several),
            load.others,
        )
        for name, several in found.items()
        if name not in deadlocks
    }
    return Dinners(dinners, deadlocks)
