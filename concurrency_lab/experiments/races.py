"""Lost updates: threads that add to one counter, run again and again (chapter 2).

Since CPython 3.10 a thread offers the GIL on calls and on backward jumps only, no longer between
any two instructions (https://github.com/python/cpython/issues/86908). So whether `x += 1` and
`x += int(1)` lose updates is not a matter of luck alone, and neither is promised.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from concurrency_lab.experiments.together import together


class Counter:
    """What the threads share: an object with a `value`, which is 0 in the beginning."""

    def __init__(self) -> None:
        self.value = 0


@dataclass(frozen=True)
class Races:
    """How many updates every run lost, by name of the function; a run made `updates` of them."""

    lost: dict[str, list[int]]
    updates: int
    threads: int

    def runs(self, name: str) -> int:
        """How often this function was raced."""
        return len(self._of(name))

    def losing_runs(self, name: str) -> int:
        """How many of the runs lost at least one update."""
        return sum(lost > 0 for lost in self._of(name))

    def share_of_runs(self, name: str) -> float:
        """The part of the runs, from 0 to 1, that lost at least one update."""
        return self.losing_runs(name) / self.runs(name)

    def total_lost(self, name: str) -> int:
        """Updates lost in all runs together."""
        return sum(self._of(name))

    def most_lost(self, name: str) -> float:
        """The greatest part of its updates, from 0 to 1, that a run lost."""
        return max(self._of(name)) / self.updates

    def _of(self, name: str) -> list[int]:
        if name not in self.lost:
            raise KeyError(f"no race of {name!r}; there are {', '.join(self.lost)}")
        return self.lost[name]

    def __str__(self) -> str:
        return "\n".join(
            f"{name}: {self.losing_runs(name)} of {self.runs(name)} runs lost updates, "
            f"{self.total_lost(name):,} of {self.runs(name) * self.updates:,} in all"
            for name in self.lost
        )

    __repr__ = __str__

    def plot(self, title: str | None = None):
        """A dot for each run: updates lost, from 0 and then on a logarithmic scale."""
        from concurrency_lab import figures

        figure, axes = figures.new(height=1.5 + 0.6 * len(self.lost))
        figures.dots(axes, self.lost, value="{:,.0f}".format)
        # 0 has no logarithm: it gets a place of its own, left of 1.
        axes.set_xscale("symlog", linthresh=1, linscale=0.6)
        axes.set_xlim(-0.35, self.updates * 1.6)
        ticks = [0, *(10**k for k in range(0, 9, 2) if 10**k <= self.updates)]
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel(f"updates lost in a run of {self.updates:,} (logarithmic)")
        if title:
            axes.set_title(title)
        return figure


def repeat_race(
    functions: Mapping[str, Callable[[Counter, int], object]],
    *,
    threads: int = 2,
    increments: int = 50_000,
    runs: int = 20,
    switch_interval: float = 1e-6,
    must_lose: Iterable[str] = (),
    budget: float = 5.0,
) -> Races:
    """Let `threads` threads call `function(counter, increments)` at once; count what is missing.

    A function adds 1 to `counter.value` so many times. The functions take turns, each in `runs`
    runs, fewer if `budget` seconds are over before. Of those that `must_lose` names, a function
    that has lost nothing by then is run on until it does, for at most as many seconds again: so a
    busy machine does not hide a race. `switch_interval` (seconds) is set meanwhile and restored in
    any case.

    Raises ValueError for a function that does not add right even in one thread, or that adds more.
    """
    if not functions or min(threads, increments, runs) < 1:
        raise ValueError("a race needs a function, and threads, increments and runs of at least 1")
    must_lose = list(must_lose)
    if unknown := set(must_lose) - set(functions):
        raise ValueError(f"must_lose names {unknown.pop()!r}, which is none of the functions")
    for name, function in functions.items():
        alone = Counter()
        function(alone, 100)
        if alone.value != 100:
            raise ValueError(f"{name}: one thread was to add 100 and added {alone.value}")
    lost: dict[str, list[int]] = {name: [] for name in functions}
    end = time.perf_counter() + budget

    def run(name: str) -> None:
        counter = Counter()
        together([lambda: functions[name](counter, increments)] * threads)
        missing = threads * increments - counter.value
        if missing < 0:
            raise ValueError(f"{name} added {-missing} more than it should have")
        lost[name].append(missing)

    with switch_interval_of(switch_interval):
        for turn in range(runs):
            for name in functions if turn % 2 == 0 else reversed(list(functions)):
                run(name)
            if time.perf_counter() > end:
                break
        end = time.perf_counter() + budget
        for name in must_lose:
            while not any(lost[name]) and time.perf_counter() < end:
                run(name)
    return Races(lost, threads * increments, threads)


@contextmanager
def switch_interval_of(seconds: float):
    """Set `sys.setswitchinterval(seconds)` for a `with` block."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(seconds)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def lost_at_the_barrier(rounds: int = 100) -> int:
    """How many updates two threads lose in `rounds` rounds when both read before either writes.

    A barrier between reading and writing makes the unlucky order certain: one update is lost in
    every round, on every machine and in every Python.
    """
    counter, both_have_read = Counter(), threading.Barrier(2)
    both_have_written = threading.Barrier(2)

    def add() -> None:
        for _ in range(rounds):
            value = counter.value
            both_have_read.wait()
            counter.value = value + 1
            both_have_written.wait()

    def call_off() -> None:
        both_have_read.abort()
        both_have_written.abort()

    together([add, add], call_off=call_off)
    return 2 * rounds - counter.value
