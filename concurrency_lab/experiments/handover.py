"""Who gets a lock next? The order in which threads got it, for several kinds of lock (chapter 2).

`threading.Lock` promises no order (https://docs.python.org/3/library/threading.html#lock-objects:
"which one of the waiting threads proceeds is not defined"). A lock that serves in the order of
arrival is the ticket lock of J. M. Mellor-Crummey and M. L. Scott, "Algorithms for Scalable
Synchronization on Shared-Memory Multiprocessors", ACM TOCS 9(1), 1991.
"""

import itertools
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from concurrency_lab.experiments.together import together
from concurrency_lab.workloads import spin

SETTLE = 0.02
"""Seconds for which the lock is held in the beginning, so that all threads come to wait for it.

Otherwise the first one may be done before the others have had the GIL for the first time."""


@dataclass(frozen=True)
class Handovers:
    """The owners of each lock, in order: for each of its rounds, a list of thread numbers."""

    owners: dict[str, list[list[int]]]
    threads: int

    def streaks(self, name: str) -> list[int]:
        """How many times in a row a thread got the lock: one length for each streak."""
        return [
            len(list(same))
            for order in self._of(name)
            for _, same in itertools.groupby(order)
        ]  # fmt: skip

    def longest_streak(self, name: str) -> int:
        """The longest of these."""
        return max(self.streaks(name))

    def back_to_same(self, name: str) -> float:
        """The part of releases, from 0 to 1, after which the same thread got the lock again."""
        turns = sum(len(order) - 1 for order in self._of(name))
        return 1 - (len(self.streaks(name)) - len(self._of(name))) / turns

    def shares(self, name: str) -> list[float]:
        """The part of all turns, from 0 to 1, that each thread got; the first is thread 0."""
        order = [owner for order in self._of(name) for owner in order]
        return [order.count(thread) / len(order) for thread in range(self.threads)]

    def _of(self, name: str) -> list[list[int]]:
        if name not in self.owners:
            raise KeyError(f"no lock named {name!r}; there are {', '.join(self.owners)}")
        return self.owners[name]

    def __str__(self) -> str:
        return "\n".join(
            f"{name}: longest streak {self.longest_streak(name):,}; back to the same thread "
            f"{self.back_to_same(name):.0%}; shares "
            + " ".join(f"{share:.0%}" for share in self.shares(name))
            for name in self.owners
        )

    __repr__ = __str__

    def plot(self, title: str | None = None, first: int = 300):
        """A strip for each lock, a mark where a thread had it; below, the lengths of streaks.

        The strips show the `first` turns of one round: of the one in the middle.
        """
        from concurrency_lab import figures

        rows, height = len(self.owners), 0.55 + 0.18 * self.threads
        figure, axes = figures.new(
            height=height * rows + 1.5 + 0.4 * rows,
            rows=rows + 1,
            height_ratios=[height] * rows + [1.1 + 0.4 * rows],
        )
        for number, (name, rounds) in enumerate(self.owners.items()):
            strip = axes[number]
            shown = rounds[len(rounds) // 2][:first]
            for thread in range(self.threads):
                turns = [turn for turn, owner in enumerate(shown) if owner == thread]
                strip.vlines(
                    turns, thread - 0.36, thread + 0.36, linewidth=360 / len(shown),
                    color=figures.SERIES[number % len(figures.SERIES)],
                )  # fmt: skip
            strip.set_yticks(range(self.threads), [f"thread {n}" for n in range(self.threads)])
            strip.tick_params(axis="y", length=0, labelsize=10)
            strip.set_ylim(self.threads - 0.5, -0.5)
            strip.set_xlim(-1, len(shown))
            strip.grid(False)
            strip.tick_params(axis="x", labelbottom=number == rows - 1)
            strip.set_title(name, fontsize=12)
            if number == rows - 1:
                strip.set_xlabel("turn")
        streaks = {name: _thinned(self.streaks(name)) for name in self.owners}
        figures.dots(axes[-1], streaks, value=lambda _: "")
        longest = [max(lengths) for lengths in streaks.values()]
        for row, length in enumerate(longest):  # the median says little: most turns are in few
            place = {"transform": axes[-1].get_yaxis_transform(), "va": "center_baseline"}
            axes[-1].text(1.02, row, f"\u2264 {length:,}", weight="bold", **place)
        axes[-1].set_xlim(0.8, max(longest) * 1.3 + 1)
        figures.log_axis(axes[-1], label="turns in a row (logarithmic)", value="{:,.0f}".format)
        if title:
            figure.suptitle(title, x=0.02, ha="left", weight="bold", fontsize=13)
        return figure


def _thinned(lengths: list[int], most: int = 200) -> list[int]:
    """At most `most` of the lengths, evenly spread over their sorted list, ends included."""
    if len(lengths) <= most:
        return lengths
    ordered = sorted(lengths)
    return [ordered[round(i * (len(ordered) - 1) / (most - 1))] for i in range(most)]


def handover(
    locks: Mapping[str, Callable[[], AbstractContextManager]],
    *,
    threads: int = 4,
    turns: int = 300,
    work: Callable[[], object] | None = None,
    rounds: int = 9,
    budget: float = 5.0,
) -> Handovers:
    """Let `threads` threads take a lock again and again; note who has it, `turns` times in all.

    `locks` maps a name to what makes a lock, such as `threading.Lock`; it is used by `with`.
    `work` is done with the lock held (default: some tens of microseconds of pure Python). Each
    lock has `rounds` rounds, in turns; no new round is begun when `budget` seconds are over.

    Raises RuntimeError for a lock that lets two threads in at once; TimeoutError for one that is
    not handed on for `budget` + 20 seconds.
    """
    if not locks or threads < 2 or turns < 2 or rounds < 1:
        raise ValueError("handover needs a lock, two threads, two turns and a round at least")
    work = work or (lambda: spin(1000))
    owners: dict[str, list[list[int]]] = {name: [] for name in locks}
    end = time.perf_counter() + budget
    for turn in range(rounds):
        for name in locks if turn % 2 == 0 else reversed(list(locks)):
            owners[name].append(_one_round(name, locks[name](), threads, turns, work, budget + 20))
        if time.perf_counter() > end:
            break
    return Handovers(owners, threads)


def _one_round(name, lock, threads, turns, work, timeout) -> list[int]:
    order: list[int] = []
    inside: list[int] = []
    here, called_off = threading.Event(), threading.Event()

    def call_off() -> None:
        called_off.set()
        here.set()

    def take_turns(me: int) -> None:
        while len(order) < turns and not called_off.is_set():
            with lock:
                inside.append(me)
                work()
                order.append(me)
                if inside != [me]:
                    raise RuntimeError(f"{name} let threads {sorted(inside)} in at once")
                inside.remove(me)

    def open_the_door() -> None:
        with lock:
            here.set()
            time.sleep(SETTLE)

    def after_the_door(me: int) -> None:
        here.wait()
        take_turns(me)

    jobs = [lambda me=me: after_the_door(me) for me in range(threads)]
    together([open_the_door, *jobs], call_off=call_off, timeout=timeout)
    return order[:turns]
