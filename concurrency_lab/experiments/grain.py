"""How much work an item must be for a queue to be worth it (chapter 3).

The work is a SHA-256 of a block of bytes. `hashlib` lets go of the GIL for blocks of more than
2047 bytes (https://docs.python.org/3/library/hashlib.html), so smaller ones are never hashed in
parallel, whatever the queue costs.
"""

import hashlib
import math
import queue
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from concurrency_lab.experiments.costs import in_turns
from concurrency_lab.load import SlowdownMeter
from concurrency_lab.timing import Sample

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZES = tuple(4**n for n in range(3, 11))
"""64 B, 256 B ... 1 MiB."""

BATCH = 256 * 1024
"""Bytes of the blocks in a message, if they are sent in batches."""

DIRECT = "direct"


class BreakEven(NamedTuple):
    """Where a ratio crosses a limit: a size of block in bytes, and the work for it in seconds."""

    size: float
    seconds: float


class Grain:
    """What `grain_sweep` measured. The ways to do the work are `hows`, see there."""

    def __init__(
        self,
        values: dict[tuple[str, int], list[float]],
        sizes: Sequence[int],
        workers: int,
        others: float = 0.0,
        slowdown: float = 1.0,
    ) -> None:
        self.sizes, self.workers = tuple(sizes), workers
        self._values, self._others, self._slowdown = values, others, slowdown

    @property
    def hows(self) -> tuple[str, str, str]:
        """ "one worker", "two workers", "two workers, batches" (by the number of workers)."""
        return _hows(self.workers)

    def work(self, size: int) -> Sample:
        """Seconds for one item without a queue."""
        return self._sample(self._of(DIRECT, size), "s")

    def ratio(self, size: int, how: str, over: str = DIRECT) -> Sample:
        """Time in this way over time without a queue (or in the way `over`), paired by round."""
        pairs = zip(self._of(how, size), self._of(over, size), strict=True)
        return self._sample([a / b for a, b in pairs], "times")

    @property
    def handover(self) -> Sample:
        """Seconds that a queue and one worker add to an item of the smallest size."""
        size = min(self.sizes)
        pairs = zip(self._of(self.hows[0], size), self._of(DIRECT, size), strict=True)
        return self._sample([by_queue - direct for by_queue, direct in pairs], "s")

    def break_even(self, how: str = "one worker", at: float = 2.0) -> BreakEven | None:
        """Where the median ratio goes down through `at`, between sizes by logarithms.

        The largest such place, if there are several; None if there is none.
        """
        medians = [self.ratio(size, how).median for size in self.sizes]
        for i in reversed(range(len(self.sizes) - 1)):
            if medians[i] > at >= medians[i + 1]:
                part = math.log(medians[i] / at) / math.log(medians[i] / medians[i + 1])
                sizes = self.sizes[i : i + 2]
                return BreakEven(
                    _between(*sizes, part), _between(*(self.work(n).median for n in sizes), part)
                )
        return None

    def _of(self, how: str, size: int) -> list[float]:
        if (how, size) not in self._values:
            raise KeyError(
                f"{how!r} was not measured for {size!r} bytes; there are {', '.join(self.hows)}, "
                f"for {', '.join(map(str, self.sizes))}"
            )
        return self._values[how, size]

    def _sample(self, values: list[float], unit: str) -> Sample:
        return Sample(tuple(values), unit, self._others, self._slowdown)

    def __str__(self) -> str:
        from concurrency_lab import claims, figures

        lines = []
        for size in self.sizes:
            ratios = (f"{how} {claims.number(self.ratio(size, how).median)}" for how in self.hows)
            work = figures.duration(self.work(size).median)
            lines.append(f"{figures.size(size)} ({work}): {'; '.join(ratios)} times as long")
        return "\n".join(lines)

    __repr__ = __str__

    def plot(self, title: str | None = None) -> "Figure":
        """Time over that without a queue, by the work for an item: medians, 95 % intervals.

        Two places are marked: where one worker takes twice as long, and from where on several
        workers are faster than no queue at all (if they clearly are for the largest size: without
        a second core at hand the curve ends near 1, and crosses it by chance).
        """
        from concurrency_lab import figures

        figure, axes = figures.new(height=4.2)
        muted = figures.PALETTE["muted"]
        work = [self.work(size).median for size in self.sizes]
        lowest = 1.0
        for number, how in enumerate(self.hows):
            colour = figures.SERIES[number]
            xs = [x * (0.965, 1.0, 1.035)[number] for x in work]
            samples = [self.ratio(size, how) for size in self.sizes]
            lowest = min([lowest, *(sample.low for sample in samples)])
            ends = [[sample.low for sample in samples], [sample.high for sample in samples]]
            axes.vlines(xs, *ends, color=colour, linewidth=1.6, alpha=0.6)
            axes.plot(
                xs, [sample.median for sample in samples], label=how, color=colour,
                marker=figures.MARKERS[number], linestyle=("-", "--", "-.")[number],
            )  # fmt: skip
        axes.axhline(1.0, color=muted, linewidth=1.2, linestyle=(0, (4, 3)))
        figures.log_axis(axes, "x", "work for one item (logarithmic)", figures.duration)
        axes.set_ylim(bottom=min(lowest / 1.15, 0.33))
        figures.log_axis(axes, "y", value=lambda ratio: f"{ratio:g}\u00d7")
        axes.set_ylabel("times as long as\nwithout a queue")
        self._mark(axes, self.hows[0], 2.0, "above")
        if self.ratio(self.sizes[-1], self.hows[1]).high < 1:
            self._mark(axes, self.hows[1], 1.0, "below")
        above = axes.secondary_xaxis("top")
        above.spines["top"].set_visible(False)
        places = _apart(work, (work[-1] / work[0]) ** 0.12)
        above.set_xticks([work[i] for i in places], [figures.size(self.sizes[i]) for i in places])
        above.tick_params(labelsize=10, length=3, labelcolor=muted, pad=1)
        above.minorticks_off()
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
        if title:
            figure.suptitle(title, x=0.02, ha="left", weight="bold", fontsize=13)
        return figure

    def _mark(self, axes, how: str, at: float, side: str) -> None:
        from concurrency_lab import figures

        found = self.break_even(how, at)
        if found is None:
            return
        ink = figures.PALETTE["ink"]
        bottom = axes.get_ylim()[0]
        axes.plot(
            found.seconds, at, "o", markersize=13, markerfacecolor="none", markeredgecolor=ink
        )
        axes.vlines(found.seconds, bottom, at, color=ink, linewidth=1, linestyle=":")
        text = f"{at:g}\u00d7 at {figures.duration(found.seconds)}"
        # Above and to the right of a falling curve there is room.
        place = (at, (10, 6)) if side == "above" else (bottom, (5, 5))
        axes.annotate(
            text, (found.seconds, place[0]), xytext=place[1],
            textcoords="offset points", ha="left", va="bottom", fontsize=10.5,
            bbox={"facecolor": figures.PALETTE["paper"], "edgecolor": "none", "pad": 1.5},
        )  # fmt: skip


def _apart(values: list[float], factor: float) -> list[int]:
    """Positions of values, from the largest down, that are at least so many times apart."""
    chosen: list[int] = []
    for i in reversed(range(len(values))):
        if not chosen or values[chosen[-1]] >= factor * values[i]:
            chosen.append(i)
    return chosen[::-1]


def _hows(workers: int) -> tuple[str, str, str]:
    many = f"{_NUMBERS.get(workers, workers)} workers"
    return "one worker", many, f"{many}, batches"


_NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight"}


def _between(a: float, b: float, part: float) -> float:
    return math.exp(math.log(a) + part * (math.log(b) - math.log(a)))


def grain_sweep(
    sizes: Sequence[int] = SIZES, *, workers: int = 2, budget: float = 10.0, rounds: int = 30
) -> Grain:
    """Hash many blocks of each size directly, and by a `queue.Queue` in worker threads.

    Four ways that take turns: in a loop; a block a message to one worker; to `workers` workers;
    to `workers` workers in batches, as many blocks a message as make 256 KiB, at least one. This
    thread puts, the workers are waiting before the clock starts; it stops when the last one is
    done. At most `rounds` rounds; after three, none is begun that would exceed `budget`
    seconds.

    Raises RuntimeError if the ways do not give the same hashes.
    """
    sizes = sorted(set(sizes))
    if not sizes or sizes[0] < 1 or workers < 2 or rounds < 1 or not budget > 0:
        raise ValueError("grain_sweep needs sizes of at least 1 byte, a budget and two workers")
    one, many, batches = _hows(workers)
    cases: dict[tuple[str, int], Callable[[], float]] = {}
    for size in sizes:
        blocks = _blocks(size)
        batch = max(1, BATCH // size)
        correct = sorted(_hashes([blocks]))
        cases[DIRECT, size] = lambda b=blocks, c=correct: _checked(_directly(b), c)
        cases[one, size] = lambda b=blocks, c=correct: _checked(_by_queue(b, 1, 1), c)
        cases[many, size] = lambda b=blocks, c=correct: _checked(_by_queue(b, workers, 1), c)
        cases[batches, size] = lambda b=blocks, c=correct, n=batch: _checked(
            _by_queue(b, workers, n), c
        )
    control = SlowdownMeter()
    values, others = in_turns(
        cases, budget=budget, max_rounds=rounds, min_rounds=3, control=control
    )
    return Grain(values, sizes, workers, others, control.slowdown)


def _blocks(size: int, least: float = 0.01) -> list[bytes]:
    """So many blocks that hashing them takes 10 ms or more: a few that are different, repeated."""
    some = [random.Random(n).randbytes(size) for n in range(8)]
    begun = time.perf_counter()
    rounds = 0
    while time.perf_counter() < begun + 0.002:
        _hashes([some])
        rounds += 1
    work = (time.perf_counter() - begun) / rounds / len(some)
    count = max(16, math.ceil(least / work), 8 * BATCH // size)
    return [some[n % len(some)] for n in range(count)]


def _hashes(messages) -> list[bytes]:
    return [hashlib.sha256(block).digest() for message in messages for block in message]


def _directly(blocks: list[bytes]) -> tuple[float, list[bytes]]:
    begun = time.perf_counter()
    found = []
    for block in blocks:
        found.append(hashlib.sha256(block).digest())
    return time.perf_counter() - begun, found


def _by_queue(blocks: list[bytes], workers: int, batch: int) -> tuple[float, list[bytes]]:
    inbox: queue.Queue = queue.Queue()
    found: list[list[bytes]] = [[] for _ in range(workers)]
    ended: list[float] = [0.0] * workers
    errors: list[BaseException] = []

    def work(me: int) -> None:
        try:
            mine = found[me]
            if batch == 1:
                while (block := inbox.get()) is not None:
                    mine.append(hashlib.sha256(block).digest())
            else:
                while (message := inbox.get()) is not None:
                    for block in message:
                        mine.append(hashlib.sha256(block).digest())
            ended[me] = time.perf_counter()
        except BaseException as error:
            errors.append(error)

    threads = [
        threading.Thread(target=work, args=(me,), name=f"worker-{me}", daemon=True)
        for me in range(workers)
    ]
    begun = 0.0
    try:
        for thread in threads:
            thread.start()
        begun = time.perf_counter()
        if batch == 1:
            for block in blocks:
                inbox.put(block)
        else:
            for first in range(0, len(blocks), batch):
                inbox.put(blocks[first : first + batch])
    except BaseException:
        _empty(inbox)
        raise
    finally:
        for _ in threads:
            inbox.put(None)
        for thread in threads:
            if thread.ident is not None:
                thread.join()
    if errors:
        raise errors[0]
    return max(ended) - begun, [one for mine in found for one in mine]


def _empty(inbox: queue.Queue) -> None:
    try:
        while True:
            inbox.get_nowait()
    except queue.Empty:
        pass


def _checked(outcome: tuple[float, list[bytes]], correct: list[bytes]) -> float:
    seconds, found = outcome
    if sorted(found) != correct:
        raise RuntimeError(
            f"{len(found):,} hashes came back for {len(correct):,} blocks, or other ones"
        )
    return seconds / len(correct)
