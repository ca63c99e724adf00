"""What locks cost: alone, contended, fine and coarse, held for long and for short (chapter 2).

Everything is a ratio of things that took turns in the same minute. The waiting work is
`time.sleep`: it stands for a disk or a network, and needs no core.
"""

import math
import queue
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from concurrency_lab.experiments.costs import CALL, CallCosts, in_turns, one_use
from concurrency_lab.experiments.together import together
from concurrency_lab.timing import Comparison, Sample, compare


class LockCosts(CallCosts):
    """What `lock_costs` measured."""


def lock_costs(
    mine: Mapping[str, AbstractContextManager] | None = None,
    *,
    budget: float = 3.0,
    max_rounds: int = 40,
) -> LockCosts:
    """Seconds that each device of `threading` and `queue` takes when no other thread wants it.

    A lock is entered and left by `with`; one is also taken and given back by calls.
    `mine` adds locks of your own, which are entered and left by `with`. Each statement stands 20
    times in the body of a loop, so that the loop costs next to nothing; the statements take
    turns. The collector of garbage is off meanwhile, as `timeit` does it.
    """
    statements: dict[str, tuple[str, Any]] = {
        CALL: ("it()", _empty),
        "Lock, acquire + release": ("it.acquire(); it.release()", threading.Lock()),
        "Lock": (_WITH, threading.Lock()),
        "RLock": (_WITH, threading.RLock()),
        "Condition": (_WITH, threading.Condition()),
        "Semaphore": (_WITH, threading.Semaphore()),
        "BoundedSemaphore": (_WITH, threading.BoundedSemaphore()),
        "Event.is_set": ("it.is_set()", threading.Event()),
        "Event.set": ("it.set()", threading.Event()),
        "SimpleQueue put + get": ("it.put(None); it.get()", queue.SimpleQueue()),
        "Queue put + get": ("it.put(None); it.get()", queue.Queue()),
    }
    if both := set(mine or {}) & set(statements):
        raise ValueError(f"{both.pop()!r} is measured already: choose another name")
    statements |= {name: (_WITH, lock) for name, lock in (mine or {}).items()}
    cases = {name: one_use(statement, it) for name, (statement, it) in statements.items()}
    values, others = in_turns(cases, budget=budget, max_rounds=max_rounds)
    return LockCosts(values, what="time of one use", others=others)


_WITH = "with it: pass"


def _empty() -> None:
    pass


# One lock for all threads, or one for each

SHARED, OWN = "one lock", "a lock each"


class Contention:
    """What `contention` measured: `comparison` has the timings, the rest is shorter to say."""

    def __init__(self, comparison: Comparison, sections: Sequence[str], threads: Sequence[int]):
        self.comparison = comparison
        self.sections, self.threads = tuple(sections), tuple(threads)

    def throughput(self, section: str, locks: str, threads: int) -> Sample:
        """Critical sections in a second, over those of one thread with the same kind of lock."""
        return self.comparison.speedup(
            _case(section, locks, threads), over=_case(section, locks, self.threads[0])
        )

    def cores(self, section: str, locks: str, threads: int) -> Sample:
        """How many cores were kept busy."""
        return self.comparison.cores(_case(section, locks, threads))

    def fewer_cores_than(self, cores: float, section: str, locks: str, threads: int) -> str | None:
        """A reason if fewer cores were kept busy; for `claim(..., undecided=...)`."""
        return self.comparison.fewer_cores_than(_case(section, locks, threads), cores)

    def plot(self, title: str | None = None):
        """A panel for each kind of section: throughput by threads, a line for each kind of lock."""
        from concurrency_lab import figures

        figure, panels = figures.new(
            height=3.6, columns=len(self.sections), sharey=True, squeeze=False
        )
        places = range(len(self.threads))
        for axes, section in zip(panels[0], self.sections, strict=True):
            for number, locks in enumerate((SHARED, OWN)):
                samples = [self.throughput(section, locks, n) for n in self.threads]
                look = {"color": figures.SERIES[number], "marker": figures.MARKERS[number]}
                where = [x + (-0.08, 0.08)[number] for x in places]
                for x, sample in zip(where, samples, strict=True):
                    dots = [x] * len(sample.values)
                    axes.plot(dots, sample.values, linestyle="", markersize=4, alpha=0.4, **look)
                axes.plot(
                    where, [sample.median for sample in samples], label=locks,
                    linestyle=("-", "--")[number], markersize=8, **look,
                )  # fmt: skip
            axes.axhline(1.0, color=figures.PALETTE["muted"], linewidth=1.2, linestyle=(0, (4, 3)))
            axes.set_xticks(places, [str(n) for n in self.threads])
            axes.set_xlim(-0.4, len(self.threads) - 0.6)
            axes.set_ylim(bottom=0)
            axes.set_title(section, fontsize=12)
            axes.set_xlabel("threads")
        panels[0][0].set_ylabel(f"throughput (times that\nof {self.threads[0]} thread)")
        figure.legend(
            *panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2
        )
        if title:
            figure.suptitle(title, x=0.02, ha="left", weight="bold", fontsize=13)
        return figure


def _case(section: str, locks: str, threads: int) -> str:
    return f"{section}, {locks}, threads: {threads}"


def contention(
    sections: Mapping[str, Callable[[], Any]],
    *,
    threads: Sequence[int] = (1, 2, 4),
    times: int = 24,
    lock: Callable[[], AbstractContextManager] = threading.Lock,
    budget: float = 5.0,
) -> Contention:
    """Have each critical section entered `times` times in all, by more and more threads.

    With one lock for all of them, and with a lock for each: then nobody ever has to wait for a
    lock, and what is missing to a full speed-up is not the lock's fault. `sections` maps names to
    functions of about a millisecond without arguments; `times` must be a multiple of each number
    of `threads`, so that all do equal work.
    """
    if not sections or not threads or any(n < 1 or times % n for n in threads):
        raise ValueError(f"times={times} must be a multiple of every number of threads {threads}")

    def job(section: Callable[[], Any], locks: list, n: int) -> Callable[[], list]:
        def one(mine: AbstractContextManager) -> list:
            found = []
            for _ in range(times // n):
                with mine:
                    found.append(section())
            return found

        return lambda: sum(together([lambda mine=mine: one(mine) for mine in locks]), [])

    cases = {}
    for name, section in sections.items():
        for n in threads:
            cases[_case(name, SHARED, n)] = job(section, [lock()] * n, n)
            cases[_case(name, OWN, n)] = job(section, [lock() for _ in range(n)], n)
    return Contention(compare(cases, budget=budget, min_rounds=3), list(sections), threads)


# A map in stripes


class Granularity:
    """What `granularity` measured, by number of stripes."""

    def __init__(self, comparison: Comparison, at_once: dict[int, int], threads: int):
        self.comparison = comparison
        self.stripes, self.threads = tuple(at_once), threads
        self._at_once = at_once

    def speedup(self, stripes: int) -> Sample:
        """How many times as fast as with the first number of stripes."""
        return self.comparison.speedup(_stripes(stripes))

    def at_once(self, stripes: int) -> int:
        """The largest number of threads that were inside the map at the same moment."""
        return self._at_once[stripes]

    def plot(self, title: str | None = None):
        """Speed-up by stripes, a dot a round, and the bound: no more stripes than threads help."""
        from concurrency_lab import figures

        figure, axes = figures.new(height=3.4)
        places = range(len(self.stripes))
        bounds = [min(n, self.threads) / min(self.stripes[0], self.threads) for n in self.stripes]
        muted = figures.PALETTE["muted"]
        axes.plot(places, bounds, "--", color=muted, label="all stripes, or threads, busy")
        _medians_and_dots(axes, places, [self.speedup(n) for n in self.stripes])
        axes.set_xticks(places, [str(n) for n in self.stripes])
        axes.set_xlabel(f"stripes, each with a lock (threads: {self.threads})")
        axes.set_ylabel("speed-up (times)")
        axes.set_ylim(bottom=0)
        axes.legend(loc="upper left")
        if title:
            axes.set_title(title)
        return figure


def _medians_and_dots(axes, places, samples) -> None:
    from concurrency_lab import figures

    blue = figures.SERIES[0]
    for x, sample in zip(places, samples, strict=True):
        every = [x] * len(sample.values)
        axes.plot(every, sample.values, "o", color=blue, alpha=0.45, markersize=5)
    medians = [sample.median for sample in samples]
    axes.plot(places, medians, "D-", color=blue, markersize=8, label="measured (median)")


def _stripes(n: int) -> str:
    return f"stripes: {n}"


def granularity(
    make_map: Callable[[int], Any],
    *,
    stripes: Sequence[int] = (1, 2, 4, 8, 16),
    threads: int = 8,
    updates: int = 6,
    wait: float = 0.001,
    keys: int = 1000,
    budget: float = 3.0,
) -> Granularity:
    """Update a map that is divided into more and more parts, each with a lock of its own.

    `make_map(stripes)` makes it; `map.update(key, change)` must replace the value v of a key, 0
    in the beginning, by `change(v)` under the right lock, and `map.items()` must give all keys and
    values. `change` waits `wait` seconds, as for a disk, so the locks alone decide how many
    threads get on; the keys are the same numbers at random for every map.

    Raises RuntimeError for a map that lost an update.
    """
    if threads < 1 or updates < 1 or len(set(stripes)) != len(stripes) or min(stripes) < 1:
        raise ValueError("granularity needs threads, updates and different numbers of stripes")
    draw = random.Random(0)
    plans = [[draw.randrange(keys) for _ in range(updates)] for _ in range(threads)]
    expected: dict[int, int] = {}
    for key in (key for plan in plans for key in plan):
        expected[key] = expected.get(key, 0) + 1
    at_once = dict.fromkeys(stripes, 0)

    def fill(n: int) -> bool:
        table, inside, counter = make_map(n), 0, threading.Lock()

        def change(value: int) -> int:
            nonlocal inside
            with counter:
                inside += 1
                at_once[n] = max(at_once[n], inside)
            time.sleep(wait)
            with counter:
                inside -= 1
            return value + 1

        def work(plan: list[int]) -> None:
            for key in plan:
                table.update(key, change)

        together([lambda plan=plan: work(plan) for plan in plans])
        found = dict(table.items())
        if found != expected:
            missing = sum(expected.values()) - sum(found.values())
            raise RuntimeError(f"the map with {n} stripes lost {missing} updates")
        return True

    cases = {_stripes(n): lambda n=n: fill(n) for n in stripes}
    return Granularity(compare(cases, budget=budget, min_rounds=3), at_once, threads)


# How long a lock is held


class HoldTime:
    """What `hold_time` measured, by the part of the work that is done with the lock held."""

    def __init__(self, comparison: Comparison, shares: Sequence[float], threads: int):
        self.comparison = comparison
        self.shares, self.threads = tuple(shares), threads

    def speedup(self, share: float) -> Sample:
        """How many times as fast as one thread all threads together do the same work."""
        return self.comparison.speedup(_held(share, self.threads), over=_held(share, 1))

    def bound(self, share: float) -> float:
        """What no lock can beat: 1 / share, or the number of threads; see `hold_time`."""
        return min(self.threads, 1 / share if share else math.inf)

    def of_bound(self, share: float) -> Sample:
        """Measured speed-up over `bound`."""
        sample, bound = self.speedup(share), self.bound(share)
        values = tuple(value / bound for value in sample.values)
        return Sample(values, "of the bound", sample.others)

    def plot(self, title: str | None = None):
        """Speed-up by the part that is locked, a dot a round, below the bound."""
        from concurrency_lab import figures

        figure, axes = figures.new(height=3.4)
        curve = [n / 200 for n in range(201)]
        axes.plot(
            [100 * x for x in curve], [self.bound(x) for x in curve], "--",
            color=figures.PALETTE["muted"], label=f"bound: 1 / part, at most {self.threads}",
        )  # fmt: skip
        places = [100 * share for share in self.shares]
        _medians_and_dots(axes, places, [self.speedup(share) for share in self.shares])
        axes.set_xlabel("part of the work that is done with the lock held (%)")
        axes.set_ylabel(f"speed-up of {self.threads} threads (times)")
        axes.set_ylim(bottom=0)
        axes.legend(loc="upper right")
        if title:
            axes.set_title(title)
        return figure


def _held(share: float, threads: int) -> str:
    return f"held {share:.0%}, threads: {threads}"


def hold_time(
    *,
    shares: Sequence[float] = (0.0, 0.125, 0.25, 0.5, 0.75, 1.0),
    threads: int = 8,
    times: int = 16,
    seconds: float = 0.003,
    lock: Callable[[], AbstractContextManager] = threading.Lock,
    budget: float = 4.0,
) -> HoldTime:
    """Do work that waits `seconds`, `times` times in all, a part of it with one lock held.

    Once by one thread, once by `threads`. The lock lets the locked parts happen one after another,
    so they take at least `times * share * seconds`, and the speed-up is at most 1 / share, however
    many threads there are: the asymptotic bound of P. J. Denning and J. P. Buzen, "The Operational
    Analysis of Queueing Network Models", ACM Computing Surveys 10(3), 1978. It has the form of
    Amdahl's law for unlimited cores.
    """
    if any(not 0 <= share <= 1 for share in shares) or threads < 1 or times % threads:
        raise ValueError("shares are from 0 to 1, and times is a multiple of threads")

    def work(n: int, share: float) -> bool:
        guard = lock()

        def one() -> None:
            for _ in range(times // n):
                if share < 1:
                    time.sleep(seconds * (1 - share))
                if share:
                    with guard:
                        time.sleep(seconds * share)

        together([one] * n)
        return True

    cases = {
        _held(share, n): lambda n=n, share=share: work(n, share)
        for share in shares
        for n in (1, threads)
    }
    return HoldTime(compare(cases, budget=budget, min_rounds=3), shares, threads)
