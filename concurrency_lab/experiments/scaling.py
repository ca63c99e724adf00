"""How much sooner a job is done by 1, 2, 4 ... worker processes (chapter 8)."""

import multiprocessing
import operator
import os
import pickle
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from concurrency_lab.experiments.amdahl import too_few_cores
from concurrency_lab.experiments.costs import in_turns
from concurrency_lab.load import SlowdownMeter
from concurrency_lab.timing import Sample

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOOP, CORES = "loop", "effective cores"

START_LIMIT = 60.0
"""Seconds in which all workers of a pool must have started."""

JOB_LIMIT = 60.0
"""Seconds, beyond 20 times those of a loop, in which a pool must have done the job once."""


class Scaling:
    """What `scaling` measured: a job in a loop, and by pools of `workers` processes.

    `effective` are the effective cores of the same seconds, see `machine.effective_cores`;
    `name` is that of the task.
    """

    def __init__(
        self,
        name: str,
        values: Mapping[Any, list[float]],
        effective: Sample,
        slowdown: float = 1.0,
    ) -> None:
        self.name, self.effective = name, effective
        self.workers = tuple(n for n in values if n not in (LOOP, CORES))
        self._values, self._slowdown = values, slowdown

    def seconds(self, n: int) -> Sample:
        """Time of the job by `n` worker processes; 0 is the loop, without any."""
        return self._sample(self._of(n), "s")

    def speedup(self, n: int) -> Sample:
        """Time of the loop over that by `n` worker processes, one ratio a round."""
        pairs = zip(self._of(0), self._of(n), strict=True)
        return self._sample([loop / pool for loop, pool in pairs], "times")

    def efficiency(self, n: int) -> Sample:
        """Speed-up over min(n, effective cores in the same round): 1 is all that there was.

        Less than one effective core counts as one, because the loop needs one as well.
        """
        limits = [min(max(cores, 1.0), n) for cores in self._values[CORES]]
        pairs = zip(self.speedup(n).values, limits, strict=True)
        return self._sample([speedup / limit for speedup, limit in pairs], "")

    def too_few_cores(self, needed: float) -> str | None:
        """A reason if fewer effective cores were to be had; for `claim(..., undecided=...)`."""
        return too_few_cores(self.effective, needed)

    def _of(self, n: int) -> list[float]:
        if n != 0 and n not in self.workers:
            known = ", ".join(map(str, self.workers))
            raise KeyError(f"not measured with {n!r} workers; there are 0 (the loop), {known}")
        return self._values[n or LOOP]

    def _sample(self, values: list[float], unit: str) -> Sample:
        return Sample(tuple(values), unit, self.effective.others, self._slowdown)

    def __str__(self) -> str:
        from concurrency_lab.claims import number

        lines = [f"{self.name} in a loop: {self.seconds(0)}; effective cores: {self.effective}"]
        for n in self.workers:
            many = "process" if n == 1 else "processes"
            efficiency = number(self.efficiency(n).median)
            lines.append(f"{n} {many}: speed-up {self.speedup(n)}; efficiency {efficiency}")
        return "\n".join(lines)

    __repr__ = __str__

    def plot(self, title: str | None = None) -> "Figure":
        """Speed-up over the number of processes, see `plot_scaling`."""
        return plot_scaling({self.name: self}, title)


def plot_scaling(jobs: Mapping[str, Scaling], title: str | None = None) -> "Figure":
    """Speed-ups of one or several jobs over the number of processes.

    A small dot for each round, a line through the medians; a dashed line where n processes are n
    times as fast; a band for the 95 % interval of the effective cores, dotted their median.
    """
    from concurrency_lab import figures

    if not jobs:
        raise ValueError('plot_scaling needs at least one job: {"primes": scaling(...)}')
    if len(jobs) > len(figures.SERIES):
        raise ValueError(f"{len(jobs)} jobs are too many for a figure: {len(figures.SERIES)} fit")
    figure, axes = figures.new(height=4.2)
    muted = figures.PALETTE["muted"]
    cores = [job.effective for job in jobs.values()]
    ends = min(sample.low for sample in cores), max(sample.high for sample in cores)
    band = axes.axhspan(*ends, color=figures.PALETTE["grey_soft"], lw=0)
    middle = statistics.median(value for sample in cores for value in sample.values)
    dotted = axes.axhline(middle, color=muted, linewidth=1.2, linestyle=":")
    counts = sorted({n for job in jobs.values() for n in job.workers})
    highest = ends[1]
    for number, (name, job) in enumerate(jobs.items()):
        look = {"color": figures.SERIES[number], "marker": figures.MARKERS[number]}
        # Jobs stand side by side: their spreads must not hide one another.
        aside = 0.018 * (counts[-1] - counts[0] or 1) * (number - (len(jobs) - 1) / 2)
        speedups = [job.speedup(n) for n in job.workers]
        for n, speedup in zip(job.workers, speedups, strict=True):
            dots = [n + aside] * len(speedup.values)
            axes.plot(dots, speedup.values, linestyle="none", markersize=4, alpha=0.45, **look)
            highest = max(highest, *speedup.values)
        xs = [n + aside for n in job.workers]
        axes.plot(
            xs, [speedup.median for speedup in speedups], label=name, markersize=8,
            linestyle=("-", "--", "-.", ":", (0, (6, 1.5, 1, 1.5)))[number], **look,
        )  # fmt: skip
    top = min(max(highest * 1.3, 1.5), max(counts[-1] * 1.06, highest * 1.05))
    axes.plot([0, top], [0, top], color=muted, linewidth=1.4, linestyle=(0, (4, 3)), label="ideal")
    axes.set_ylim(0, top)
    space = max(0.35, 0.08 * (counts[-1] - counts[0]))
    axes.set_xlim(max(counts[0] - space, 0), counts[-1] + space)
    axes.set_xticks(counts, [str(n) for n in counts])
    axes.set_xlabel("worker processes")
    axes.set_ylabel("times as fast as a loop")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        [*handles, (band, dotted)], [*labels, "effective cores"],
        loc="outside lower center", ncols=3,
    )  # fmt: skip
    if title:
        figure.suptitle(title, x=0.02, ha="left", weight="bold", fontsize=13)
    return figure


def scaling(
    task: Callable[[Any], Any],
    items: Iterable[Any],
    workers: Sequence[int] = (1, 2, 4),
    *,
    chunksize: int | None = None,
    budget: float = 8.0,
    rounds: int = 15,
) -> Scaling:
    """Do `task(item)` for all items in a loop here, and by `Pool.map` in so many processes.

    The task is an importable function (or a `functools.partial` of one). Every pool has done the
    whole job once before the clock starts. The ways take turns; in the middle of every round the
    effective cores are measured, for 0.4 s. At most `rounds` rounds; after five, none is begun
    that would exceed `budget` seconds: choose items that take about a quarter of a second.
    Processes start as `worker_context` says.

    Raises ValueError for a task or items that workers cannot get, RuntimeError if a pool's results
    are other than those of the loop. What the task raises is not caught.
    """
    items, workers = list(items), sorted(workers)
    _check(task, items, workers, chunksize)
    if rounds < 1 or not budget > 0:
        raise ValueError("scaling needs a budget of more than 0 seconds and a round at least")
    begun = time.perf_counter()
    expected = [task(item) for item in items]
    patience = JOB_LIMIT + 20 * (time.perf_counter() - begun)
    effective: list[float] = []
    control = SlowdownMeter()
    with Pools(workers) as pools:
        for n in workers:  # whatever happens in a worker's first call only
            _pooled(pools[n], n, task, items, chunksize, expected, patience)
        cases: dict[Any, Callable[[], float]] = {LOOP: lambda: _looped(task, items)}
        for n in workers:
            cases[n] = lambda n=n: _pooled(pools[n], n, task, items, chunksize, expected, patience)
        # In the middle it is as near as can be to every way, also in rounds that go backwards.
        names = list(cases)
        names.insert((len(names) + 1) // 2, CORES)
        cases[CORES] = lambda: _probe(effective)
        values, others = in_turns(
            {name: cases[name] for name in names},
            budget=budget, max_rounds=rounds, control=control,
        )  # fmt: skip
    return Scaling(
        getattr(getattr(task, "func", task), "__name__", "task"),
        {name: values[name] for name in (LOOP, *workers, CORES)},
        Sample(tuple(effective), "cores", others),
        control.slowdown,
    )


def _looped(task: Callable[[Any], Any], items: list[Any]) -> float:
    begun = time.perf_counter()
    for item in items:
        task(item)
    return time.perf_counter() - begun


def _pooled(
    pool, n: int, task, items: list[Any], chunksize: int | None, expected, patience: float
) -> float:
    begun = time.perf_counter()
    try:
        found = pool.map_async(task, items, chunksize).get(patience)
    except multiprocessing.TimeoutError:
        raise RuntimeError(
            f"{n} worker processes did not do in {patience:.0f} s what a loop does: does the task "
            "wait for something, can workers not import it, or has a worker been killed?"
        ) from None
    seconds = time.perf_counter() - begun
    _compare(found, expected, n)
    return seconds


def _probe(effective: list[float]) -> float:
    from concurrency_lab.machine import effective_cores

    values = effective_cores(budget=0.4).values
    effective.extend(values)
    return statistics.median(values)


def _compare(found: list[Any], expected: list[Any], n: int) -> None:
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        if not _same(one, other):
            raise RuntimeError(
                f"result {number} of {n} worker processes is {one!r:.80}, that of the loop is "
                f"{other!r:.80}: the task must depend on its argument only"
            )


def _same(one: Any, other: Any) -> bool:
    try:
        equal = one == other
        equal = bool(equal.all()) if hasattr(equal, "all") else bool(equal)
    except ValueError:  # arrays within lists
        equal = False
    return equal or pickle.dumps(one) == pickle.dumps(other)  # NaN is not equal to itself


def _check(task, items: list[Any], workers: list[int], chunksize: int | None) -> None:
    if not callable(task):
        raise TypeError(f"scaling needs a function of one item, not {task!r}")
    if not items:
        raise ValueError("scaling needs at least one item")
    if not workers or len(set(workers)) < len(workers) or min(workers) < 1:
        raise ValueError(f"workers are different numbers of at least 1, not {workers}")
    if chunksize is not None and chunksize < 1:
        raise ValueError(f"chunksize must be at least 1, not {chunksize}")
    check_sendable(task, items)


def check_sendable(task: Callable[..., Any], items: list[Any]) -> None:
    """Raise ValueError if worker processes could not get the task or the items.

    A `Pool` whose workers cannot import a task starts new ones for ever.
    """
    try:
        sent = pickle.dumps((task, items))
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise ValueError(
            f"worker processes cannot get {task!r} or its items ({error}): use a function at the "
            "top level of a module (no lambda, no function within a function)"
        ) from error
    if b"__main__" in sent and not hasattr(sys.modules["__main__"], "__file__"):
        raise ValueError(
            f"worker processes cannot import {task!r} from a notebook: put it into a module"
        )


def worker_context() -> Any:
    """The `multiprocessing` context of the start method that this process has set.

    If none is set: forkserver, or spawn where there is none. Never fork, which copies locks that
    other threads hold: a notebook's kernel has threads, and so has every process with a pool.
    """
    method = multiprocessing.get_start_method(allow_none=True)
    if method in (None, "fork"):
        there = multiprocessing.get_all_start_methods()
        method = "forkserver" if "forkserver" in there else "spawn"
    return multiprocessing.get_context(method)


class Pools:
    """Pools of 1, 2, 4 ... workers that have all started, by number; use as a context manager.

    At the end their workers are terminated, also if they are at work. Ctrl-C, which a terminal
    and a notebook send to the workers too, they leave to this process.
    """

    def __init__(self, workers: Iterable[int]) -> None:
        self._workers = list(workers)
        self._pools: dict[int, Any] = {}

    def __getitem__(self, n: int) -> Any:
        return self._pools[n]

    def __enter__(self) -> "Pools":
        with no_child_on_failure():
            try:
                for n in self._workers:
                    self._pools[n] = worker_context().Pool(n, *ignore_interrupts())
                for n, pool in self._pools.items():
                    wait_for_workers(partial(_ask, pool), n)
            except BaseException:
                self.__exit__()
                raise
        return self

    def __exit__(self, *_exception: object) -> None:
        for pool in self._pools.values():
            pool.terminate()
        for pool in self._pools.values():
            pool.join()


def _ask(pool: Any, functions: list[Callable[[], Any]], seconds: float) -> list[Any]:
    return pool.map_async(operator.call, functions, 1).get(seconds)


def ignore_interrupts() -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Initializer and its arguments, with which workers take no notice of Ctrl-C."""
    return signal.signal, (signal.SIGINT, signal.SIG_IGN)


@contextmanager
def no_child_on_failure() -> Iterator[None]:
    """Terminate the child processes that a block has started if it is left by an exception.

    A pool that is interrupted while it starts its workers does not end them.
    """
    before = set(multiprocessing.active_children())
    try:
        yield
    except BaseException:
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()
            child.join()
        raise


def wait_for_workers(
    ask: Callable[[list[Callable[[], Any]], float], Iterable[Any]], n: int
) -> None:
    """Ask until `n` worker processes have answered.

    `ask(functions, seconds)` has them called in workers, one at a time; it gives their results,
    or raises TimeoutError after so many seconds.
    """
    # Those that sleep leave the question to the others.
    questions = [partial(time.sleep, 0.01)] * n + [os.getpid] * n
    seen: set[int] = set()
    end = time.monotonic() + START_LIMIT
    while len(seen) < n:
        try:
            answers = list(ask(questions, max(end - time.monotonic(), 0.0)))
        except (TimeoutError, multiprocessing.TimeoutError):
            raise RuntimeError(
                f"{len(seen)} of {n} worker processes have started in {START_LIMIT:.0f} s"
            ) from None
        seen.update(pid for pid in answers if pid is not None)
