"""Readers and writers: who waits while others keep coming (chapter 2).

The problem and its two preferences are from P. J. Courtois, F. Heymans, D. L. Parnas, "Concurrent
Control with 'Readers' and 'Writers'", CACM 14(10), 1971; the turnstile from A. B. Downey, The
Little Book of Semaphores, 2nd edition 2016, section 4.2.
"""

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from concurrency_lab.experiments.together import together

SETTLE = 0.02  # seconds that a thread gets to come to wait for a lock that cannot be free


class SharedLock(Protocol):
    """A lock for readers and writers, used by `with lock.reading():`, `with lock.writing():`."""

    def reading(self) -> AbstractContextManager: ...

    def writing(self) -> AbstractContextManager: ...


@dataclass(frozen=True)
class Overtaking:
    """How many newcomers entered before one that was waiting, for each trial, by name of the lock.

    `readers_first`: readers that came while a writer waited; `writers_first`: writers that came
    while a reader waited. Newcomers stop coming after `limit`: then whoever waits gets in at last.
    """

    readers_first: dict[str, list[int]]
    writers_first: dict[str, list[int]]
    limit: int

    def starved(self, name: str, waiting: str = "writer") -> int:
        """In how many trials the writer (or "reader") got in only when nobody came any more."""
        return sum(count >= self.limit for count in self.counts(name, waiting))

    def counts(self, name: str, waiting: str = "writer") -> list[int]:
        """Newcomers that overtook the waiting writer (or "reader"), one number a trial."""
        if waiting not in ("writer", "reader"):
            raise ValueError(f'waiting must be "writer" or "reader", not {waiting!r}')
        found = self.readers_first if waiting == "writer" else self.writers_first
        if name not in found:
            raise KeyError(f"no lock named {name!r}; there are {', '.join(found)}")
        return found[name]

    def typical(self, name: str, waiting: str = "writer") -> float:
        """The median of `counts`."""
        from statistics import median

        return median(self.counts(name, waiting))

    def __str__(self) -> str:
        return "\n".join(
            f"{name}: readers before a waiting writer {self.readers_first[name]}, "
            f"writers before a waiting reader {self.writers_first[name]}"
            for name in self.readers_first
        )

    __repr__ = __str__

    def plot(self, title: str | None = None):
        """Two panels, for a waiting writer and a waiting reader; a row a lock, a dot a trial."""
        from concurrency_lab import figures

        rows = len(self.readers_first)
        figure, panels = figures.new(height=2 * (0.85 + 0.45 * rows) + 0.6, rows=2, sharex=True)
        for axes, waiting, comers in zip(
            panels, ("writer", "reader"), ("readers", "writers"), strict=True
        ):
            counts = {name: self.counts(name, waiting) for name in self.readers_first}
            figures.dots(axes, counts, value="{:,.0f}".format, reference=self.limit)
            axes.set_title(f"{comers.capitalize()} before a waiting {waiting}", fontsize=12)
            axes.set_xlim(-0.04 * self.limit, 1.04 * self.limit)
        panels[-1].set_xlabel(f"entered before it (they stop after {self.limit}: dashed line)")
        if title:
            figure.suptitle(title, x=0.02, ha="left", weight="bold", fontsize=13)
        return figure


def share(
    locks: Mapping[str, Callable[[], SharedLock]],
    *,
    newcomers: int = 4,
    limit: int = 50,
    trials: int = 7,
    budget: float = 8.0,
    timeout: float = 20.0,
) -> Overtaking:
    """Let one side wait for a lock while `newcomers` threads of the other side keep coming.

    A trial: one is inside; one of the other side comes and waits (for `SETTLE` seconds nothing
    else happens, so that it does); then newcomers like the one inside go in and out. A reader
    stays until the next reader is in, if that can get in, so there is always one inside; a
    writer stays for a millisecond, in which the next ones come to wait. Counted is who enters
    before the waiting one; after `limit` the newcomers stop. The locks take turns; no new round
    is begun after `budget` seconds.

    Raises RuntimeError for a lock that lets a writer in while somebody else is inside,
    TimeoutError if a trial takes longer than `timeout` seconds.
    """
    if not locks or newcomers < 2 or min(limit, trials) < 1:
        raise ValueError("share needs a lock, two newcomers, and a limit and trials of at least 1")
    found: dict[str, dict[str, list[int]]] = {
        waiting: {name: [] for name in locks} for waiting in ("writer", "reader")
    }
    end = time.perf_counter() + budget
    for turn in range(trials):
        for name in locks if turn % 2 == 0 else reversed(list(locks)):
            for waiting, counts in found.items():
                trial = _Trial(locks[name](), waiting, limit, name)
                counts[name].append(trial.run(newcomers, timeout))
        if time.perf_counter() > end:
            break
    return Overtaking(found["writer"], found["reader"], limit)


class _Trial:
    def __init__(self, lock: SharedLock, waiting: str, limit: int, name: str) -> None:
        self.lock, self.waiting, self.limit, self.name = lock, waiting, limit, name
        self.changed = threading.Condition()
        self.inside = {"reader": 0, "writer": 0}
        self.entered = 0  # newcomers that went in
        self.overtook: int | None = None  # how many of them before the waiting one
        self.first_is_in = self.arrived = self.doors_open = self.over = False

    def run(self, newcomers: int, timeout: float) -> int:
        jobs = [self.first, self.wait_for_turn, *[self.come_and_go] * newcomers]
        together(jobs, call_off=self.call_off, timeout=timeout)
        assert self.overtook is not None
        return self.overtook

    def call_off(self) -> None:
        with self.changed:
            self.over = True
            self.changed.notify_all()

    # The three parts. Whoever comes is a reader if a writer waits, and the other way round.

    def first(self) -> None:
        with self.enter("newcomer"):
            with self.changed:
                self.first_is_in = True
                self.changed.notify_all()
                self.changed.wait_for(lambda: self.doors_open or self.over)
            self.stay(0)

    def wait_for_turn(self) -> None:
        self.until(lambda: self.first_is_in)
        with self.changed:
            self.arrived = True
            self.changed.notify_all()
        with self.enter("waiting"):
            with self.changed:
                self.overtook = min(self.entered, self.limit)
                self.changed.notify_all()

    def come_and_go(self) -> None:
        self.until(lambda: self.arrived)
        time.sleep(SETTLE)
        while True:
            with self.changed:
                if not self.doors_open:
                    self.doors_open = True
                    self.changed.notify_all()
                if self.over or self.overtook is not None or self.entered >= self.limit:
                    return
            with self.enter("newcomer"):
                with self.changed:
                    self.entered += 1
                    number = self.entered
                    self.changed.notify_all()
                self.stay(number)

    def stay(self, number: int) -> None:
        """Stay inside: a reader until the next one is in (or cannot get in), a writer for 1 ms."""
        if self.waiting == "reader":
            # The first writer lets all the others come to wait, as it let the reader.
            time.sleep(0.001 if number else SETTLE)
            return
        with self.changed:
            self.changed.wait_for(
                lambda: self.entered > number or self.entered >= self.limit or self.over,
                timeout=2 * SETTLE,
            )

    def enter(self, who: str):
        reads = (who == "waiting") == (self.waiting == "reader")
        return _Inside(self, "reader" if reads else "writer")

    def until(self, true: Callable[[], bool]) -> None:
        with self.changed:
            self.changed.wait_for(lambda: true() or self.over)


class _Inside:
    """The lock held for a `with` block, with a check that a writer is alone."""

    def __init__(self, trial: _Trial, role: str) -> None:
        self.trial, self.role = trial, role
        self.held = trial.lock.reading() if role == "reader" else trial.lock.writing()

    def __enter__(self) -> None:
        self.held.__enter__()
        trial = self.trial
        with trial.changed:
            trial.inside[self.role] += 1
            readers, writers = trial.inside["reader"], trial.inside["writer"]
        if writers and readers + writers > 1:
            self.__exit__(None, None, None)
            raise RuntimeError(
                f"{trial.name} let {readers} readers and {writers} writers in at once"
            )

    def __exit__(self, *exception) -> None:
        with self.trial.changed:
            self.trial.inside[self.role] -= 1
        self.held.__exit__(*exception)
