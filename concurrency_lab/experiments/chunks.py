"""How many items a pool's worker should get at a time (chapter 8).

Large chunks save messages, small ones spread the work evenly. `chunk_overhead` measures the first,
`chunk_balance` the second.
"""

import heapq
import operator
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from concurrency_lab import workloads
from concurrency_lab.experiments.costs import Costs, in_turns
from concurrency_lab.experiments.scaling import (
    Pools,
    ignore_interrupts,
    no_child_on_failure,
    wait_for_workers,
    worker_context,
)
from concurrency_lab.timing import Sample

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOOP = "loop"

HOWS = ("Pool.map", "Pool.imap", "ProcessPoolExecutor.map")
"""The costs are named ("Pool.map", 64) and so on."""

KINDS = ("equal", "sorted, long last", "sorted, long first", "shuffled")
"""The orders of tasks in a `Balance`."""


class ChunkCosts(Costs):
    """`Costs` of an item by (how, chunk size), and in a loop without any process, `LOOP`."""

    @property
    def chunks(self) -> tuple[int, ...]:
        """The chunk sizes that were measured."""
        return tuple(dict.fromkeys(name[1] for name in self.values if name != LOOP))

    def _of(self, name: Any) -> list[float]:
        if name not in self.values:
            raise KeyError(
                f"no cost named {name!r}; there are {LOOP!r} and (how, chunk), where how is one "
                f"of {', '.join(map(repr, HOWS))} and chunk of {', '.join(map(str, self.chunks))}"
            )
        return self.values[name]

    def __str__(self) -> str:
        from concurrency_lab.figures import duration

        lines = [f"an item in a loop: {duration(self[LOOP].median)}"]
        for chunk in self.chunks:
            each = (f"{how} {duration(self[how, chunk].median)}" for how in HOWS)
            lines.append(f"in chunks of {chunk}: {'; '.join(each)}")
        return "\n".join(lines)

    __repr__ = __str__

    def plot(self, title: str | None = None) -> "Figure":
        """Time per item over chunk size, both logarithmic: medians, and their 95 % intervals."""
        from concurrency_lab import figures

        figure, axes = figures.new(height=4.2)
        muted = figures.PALETTE["muted"]
        for number, how in enumerate(HOWS):
            colour = figures.SERIES[number]
            xs = [chunk * (0.95, 1.0, 1.05)[number] for chunk in self.chunks]
            samples = [self[how, chunk] for chunk in self.chunks]
            ends = [[sample.low for sample in samples], [sample.high for sample in samples]]
            axes.vlines(xs, *ends, color=colour, linewidth=1.6, alpha=0.6)
            axes.plot(
                xs, [sample.median for sample in samples], label=how, color=colour,
                marker=figures.MARKERS[number], linestyle=("-", "--", "-.")[number],
            )  # fmt: skip
        loop = self[LOOP].median
        axes.axhline(loop, color=muted, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.annotate(
            "in a loop, no process", (self.chunks[0], loop), xytext=(0, 4),
            textcoords="offset points", va="bottom", color=muted, fontsize=11,
        )  # fmt: skip
        figures.log_axis(axes, "x", "items in a chunk (logarithmic)")
        axes.set_xticks(self.chunks, [str(chunk) for chunk in self.chunks])
        every = [value for values in self.values.values() for value in values]
        axes.set_ylim(min(every) / 1.5, max(every) * 1.3)
        figures.log_axis(axes, "y", "time per item (logarithmic)", figures.duration)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
        if title:
            figure.suptitle(title, x=0.02, ha="left", weight="bold", fontsize=13)
        return figure


def chunk_overhead(
    chunks: Sequence[int] = (1, 4, 16, 64, 256, 1024, 4096),
    *,
    workers: int = 2,
    budget: float = 6.0,
    rounds: int = 20,
) -> ChunkCosts:
    """Seconds for each item of a stream of tiny tasks: a number is negated by `operator.neg`.

    By `Pool.map`, `Pool.imap` and `ProcessPoolExecutor.map` in chunks of every size, and in a
    loop. The workers have started before the clock does. A value is the mean of so many items that
    they take 15 ms or more, and that every worker gets four chunks. The cases take turns, for at
    most `rounds` rounds; after five, none is begun that would exceed `budget` seconds. Processes
    start as `scaling.worker_context` says.

    Raises RuntimeError if wrong results come back.
    """
    chunks = _sizes(chunks)
    if workers < 1 or rounds < 1 or not budget > 0:
        raise ValueError("chunk_overhead needs a budget of more than 0 seconds and a worker")
    begun = time.perf_counter()
    with Pools([workers]) as pools, _executor(workers) as executor:
        pool = pools[workers]
        maps = {
            HOWS[0]: lambda items, chunk: pool.map(operator.neg, items, chunk),
            HOWS[1]: lambda items, chunk: list(pool.imap(operator.neg, items, chunk)),
            HOWS[2]: lambda items, chunk: list(executor.map(operator.neg, items, chunksize=chunk)),
        }
        cases: dict[Any, Callable[[], float]] = {LOOP: _stream(_in_a_loop, 1, 1000)}
        for chunk in chunks:
            for how, function in maps.items():
                cases[how, chunk] = _stream(function, chunk, 4 * workers * chunk)
        left = max(budget - (time.perf_counter() - begun), 0.1)
        values, others = in_turns(cases, budget=left, max_rounds=rounds)
    return ChunkCosts(values, what="time per item", others=others)


def _in_a_loop(items: Iterable[int], _chunk: int) -> list[int]:
    return [operator.neg(item) for item in items]


def _stream(
    function: Callable[[Iterable[int], int], list[int]], chunk: int, count: int
) -> Callable[[], float]:
    """A function that times a stream of at least `count` items: seconds for each."""
    while True:
        items = range(count)
        expected = [-item for item in items]

        def timed(items=items, expected=expected) -> float:
            begun = time.perf_counter()
            found = function(items, chunk)
            seconds = time.perf_counter() - begun
            if found != expected:
                raise RuntimeError(f"wrong results came back, in chunks of {chunk}")
            return seconds / len(items)

        if timed() * count >= 0.015 or count > 1 << 24:
            return timed
        count *= 2


@contextmanager
def _executor(workers: int) -> Iterator[ProcessPoolExecutor]:
    initializer, arguments = ignore_interrupts()
    executor = ProcessPoolExecutor(
        workers, mp_context=worker_context(), initializer=initializer, initargs=arguments
    )

    def ask(functions: list[Callable[[], Any]], seconds: float) -> Iterable[Any]:
        return executor.map(operator.call, functions, timeout=seconds)

    try:
        with no_child_on_failure():
            try:
                wait_for_workers(ask, workers)
            except BaseException:
                executor.shutdown(cancel_futures=True)
                raise
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def predict(durations: Iterable[float], workers: int, chunk: int) -> float:
    """Seconds that a pool takes for tasks of these durations, in this order and such chunks.

    A worker takes the next chunk as soon as it is free; messages cost nothing. It is the list
    scheduling of R. L. Graham, "Bounds for certain multiprocessing anomalies", Bell System
    Technical Journal 45(9), 1966: at most 2 - 1/workers times as long as the best there could be
    for these chunks.
    """
    durations = list(durations)
    if not durations or min(durations) < 0 or workers < 1 or chunk < 1:
        raise ValueError(
            "predict needs at least one duration, none of them negative, and workers and a chunk "
            f"of at least 1; not workers={workers}, chunk={chunk}"
        )
    free = [0.0] * workers
    for first in range(0, len(durations), chunk):
        heapq.heapreplace(free, free[0] + sum(durations[first : first + chunk]))
    return max(free)


def default_chunksize(items: int, workers: int) -> int:
    """The chunk size that `Pool.map` takes by itself: four chunks for each worker, rounded up."""
    if items < 1 or workers < 1:
        raise ValueError(f"at least one item and one worker are needed, not {items}, {workers}")
    return -(-items // (workers * 4))


class Balance:
    """What `chunk_balance` measured: tasks of each of `kinds`, in chunks of each of `chunks`.

    `durations` are the seconds of the tasks by kind, in the order they were given to the pool.
    """

    def __init__(
        self,
        values: Mapping[tuple[str, int], list[float]],
        durations: Mapping[str, Sequence[float]],
        workers: int,
        others: float = 0.0,
    ) -> None:
        self.kinds = tuple(durations)
        self.chunks = tuple(dict.fromkeys(chunk for _, chunk in values))
        self.workers = workers
        self.durations = {kind: tuple(seconds) for kind, seconds in durations.items()}
        self._values, self._others = values, others

    def seconds(self, kind: str, chunk: int) -> Sample:
        """Measured time until the last result is there."""
        return Sample(tuple(self._of(kind, chunk)), "s", self._others)

    def predicted(self, kind: str, chunk: int) -> float:
        """Seconds that `predict` says, for any chunk size."""
        return predict(self._tasks(kind), self.workers, chunk)

    def over_prediction(self, kind: str, chunk: int) -> Sample:
        """Measured time over predicted: what is more than 1 is messages, wake-ups and load."""
        predicted = self.predicted(kind, chunk)
        ratios = tuple(value / predicted for value in self._of(kind, chunk))
        return Sample(ratios, "times", self._others)

    def ratio(self, kind: str, a: int, b: int) -> Sample:
        """Time in chunks of `a` over time in chunks of `b`, one ratio a round."""
        return self.compared((kind, a), (kind, b))

    def compared(self, a: tuple[str, int], b: tuple[str, int]) -> Sample:
        """Time of one (kind, chunk) over that of another, one ratio a round."""
        pairs = zip(self._of(*a), self._of(*b), strict=True)
        return Sample(tuple(x / y for x, y in pairs), "times", self._others)

    def _tasks(self, kind: str) -> tuple[float, ...]:
        if kind not in self.durations:
            known = ", ".join(map(repr, self.kinds))
            raise KeyError(f"no tasks named {kind!r}; there are {known}")
        return self.durations[kind]

    def _of(self, kind: str, chunk: int) -> list[float]:
        self._tasks(kind)
        if (kind, chunk) not in self._values:
            known = ", ".join(map(str, self.chunks))
            raise KeyError(f"not measured in chunks of {chunk!r}; there are {known}")
        return self._values[kind, chunk]

    def __str__(self) -> str:
        from concurrency_lab.figures import duration

        lines = []
        for kind in self.kinds:
            each = (
                f"{chunk}: {duration(self.seconds(kind, chunk).median)} "
                f"({duration(self.predicted(kind, chunk))})"
                for chunk in self.chunks
            )
            lines.append(f"{kind}: {', '.join(each)}")
        return "\n".join(["chunk: measured (predicted)", *lines])

    __repr__ = __str__

    def plot(self, title: str | None = None) -> "Figure":
        """Time over chunk size, both logarithmic: a dot for each round, the prediction as a line.

        One panel each for equal, sorted and shuffled tasks. Dashed: all workers busy all the time.
        """
        from concurrency_lab import figures

        panels: dict[str, list[str]] = {}
        for kind in self.kinds:
            panels.setdefault(kind.partition(", ")[0], []).append(kind)
        figure, all_axes = figures.new(
            height=1.5 + 1.95 * len(panels), rows=len(panels), sharex=True, sharey=True,
            squeeze=False,
        )  # fmt: skip
        for axes, (head, kinds) in zip(all_axes.flat, panels.items(), strict=True):
            self._draw(axes, kinds)
            axes.set_title(f"{head} tasks", fontsize=12)
        every = [self.predicted(kind, chunk) for kind in self.kinds for chunk in self._line()]
        every += [value for values in self._values.values() for value in values]
        for axes in all_axes.flat:
            axes.set_ylim(min(every) / 1.35, max(every) * 1.2)
            figures.log_axis(axes, "x")
            figures.log_axis(axes, "y", "time", figures.duration)
            axes.set_xticks(self.chunks, [str(chunk) for chunk in self.chunks])
        all_axes.flat[-1].set_xlabel("tasks in a chunk (both axes logarithmic)")
        self._explain(figure)
        if title:
            figure.suptitle(title, x=0.02, ha="left", weight="bold", fontsize=13)
        return figure

    def _line(self) -> range:
        return range(min(self.chunks), max(self.chunks) + 1)

    def _draw(self, axes: Any, kinds: list[str]) -> None:
        from concurrency_lab import figures

        muted, ink = figures.PALETTE["muted"], figures.PALETTE["ink"]
        ideal = sum(self._tasks(kinds[0])) / self.workers
        axes.axhline(ideal, color=muted, linewidth=1.2, linestyle=(0, (4, 3)))
        for number, kind in enumerate(kinds):
            look = {"color": figures.SERIES[number], "marker": figures.MARKERS[number]}
            dash = ("-", "--")[number % 2]
            predicted = [self.predicted(kind, chunk) for chunk in self._line()]
            axes.plot(self._line(), predicted, linestyle=dash, **(look | {"marker": None}))
            # Kinds stand side by side: their spreads must not hide one another.
            aside = 1 + 0.03 * (2 * number + 1 - len(kinds))
            xs = {chunk: chunk * aside for chunk in self.chunks}
            dots = [(xs[chunk], value) for chunk in self.chunks for value in self._of(kind, chunk)]
            axes.plot(
                *zip(*dots, strict=True), linestyle="none", markersize=4.5, alpha=0.45, **look
            )
            medians = [self.seconds(kind, chunk).median for chunk in self.chunks]
            places = list(xs.values())
            axes.plot(places, medians, "_", color=ink, markersize=9, markeredgewidth=1.8)
            axes.plot([], [], label=kind.partition(", ")[2], linestyle=dash, markersize=5, **look)
        if len(kinds) > 1:
            axes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.1), fontsize=10.5)

    @staticmethod
    def _explain(figure: Any) -> None:
        """A legend of what all panels have."""
        from matplotlib.lines import Line2D

        from concurrency_lab import figures

        muted, ink = figures.PALETTE["muted"], figures.PALETTE["ink"]
        looks = {
            "a round": {"marker": "o", "linestyle": "none", "markersize": 4.5, "color": muted},
            "median": {"marker": "_", "linestyle": "none", "markersize": 9, "color": ink},
            "predicted": {"color": figures.SERIES[0], "linestyle": "-"},
            "no worker idle": {"color": muted, "linestyle": (0, (4, 3)), "linewidth": 1.2},
        }
        handles = [Line2D([], [], label=label, **look) for label, look in looks.items()]
        figure.legend(
            handles=handles, loc="outside lower center", ncols=4, fontsize=10.5,
            columnspacing=1.2, handlelength=1.6,
        )  # fmt: skip


def unequal(tasks: int, total: float) -> list[float]:
    """Durations of so many tasks, short to long, that add up to `total`: as squares grow."""
    squares = [(number + 0.5) ** 2 for number in range(tasks)]
    return [total * square / sum(squares) for square in squares]


def chunk_balance(
    tasks: int = 48,
    seconds: float = 0.004,
    workers: int = 8,
    chunks: Sequence[int] = (1, 2, 3, 4, 5, 6, 8, 12, 24),
    *,
    seed: int = 1,
    budget: float = 11.0,
    rounds: int = 7,
) -> Balance:
    """Time of `Pool.map` for tasks that wait, in chunks of every size.

    The tasks only sleep, so that cores do not matter, only how the tasks are handed out. They are
    of `KINDS`: all of `seconds`; or of lengths that grow as squares, with the same total: the
    long ones last, first, or shuffled by `seed`. The workers have started before the clock does.
    The cases take turns, for at most `rounds` rounds; after five, none is begun that would exceed
    `budget` seconds. Processes start as `scaling.worker_context` says.
    """
    chunks = _sizes(chunks)
    if workers < 1 or tasks < 1 or rounds < 1:
        raise ValueError("chunk_balance needs at least one task, worker and round")
    if not (seconds > 0 and budget > 0):
        raise ValueError("chunk_balance needs tasks and a budget of more than 0 seconds")
    growing = unequal(tasks, tasks * seconds)
    shuffled = random.Random(seed).sample(growing, tasks)
    orders = [[seconds] * tasks, growing, growing[::-1], shuffled]
    durations = dict(zip(KINDS, orders, strict=True))
    with Pools([workers]) as pools:
        cases = {
            (kind, chunk): lambda waits=waits, chunk=chunk: _waited(pools[workers], waits, chunk)
            for kind, waits in durations.items()
            for chunk in chunks
        }
        next(iter(cases.values()))()  # the workers have imported what they need
        values, others = in_turns(cases, budget=budget, max_rounds=rounds)
    return Balance(values, durations, workers, others)


def _sizes(chunks: Sequence[int]) -> list[int]:
    if isinstance(chunks, Sequence) and chunks:
        if all(isinstance(chunk, int) and chunk >= 1 for chunk in chunks):
            return sorted(set(chunks))
    raise ValueError(f"chunks are whole numbers from 1, such as (1, 16, 256), not {chunks!r}")


def _waited(pool: Any, waits: list[float], chunk: int) -> float:
    begun = time.perf_counter()
    found = pool.map(workloads.wait, waits, chunk)
    seconds = time.perf_counter() - begun
    if found != waits:
        raise RuntimeError(f"wrong results came back, in chunks of {chunk}")
    return seconds
