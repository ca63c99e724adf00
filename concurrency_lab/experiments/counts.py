"""Processes that add to one shared number at once, with and without a lock (chapter 8)."""

import multiprocessing
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from concurrency_lab.timing import Sample

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NO_LOCK, OWN_LOCK, GET_LOCK = "no lock", "its own lock", "get_lock()"
WAYS = (NO_LOCK, OWN_LOCK, GET_LOCK)
"""`RawValue` and `value += 1`; `Value` and `value += 1`, where reading and writing are locked,
each for itself; `Value`, and `value += 1` in `with get_lock()`."""

_PATIENCE = 60.0  # seconds that a process waits for the others before it takes them for dead
_TOGETHER = 0.005  # seconds that one that is ready waits, awake, for the others
_FEWEST = 10  # repetitions, whatever the budget
_END = -1
_PARALLEL = 1.3  # cores busy, from which on processes have clearly run at the same time


@dataclass(frozen=True, repr=False)
class Counts:
    """The sums that came out, by way (see `WAYS`); each should have been `expected`.

    `cores` is how many cores the processes kept busy while they added, a value a repetition.
    """

    results: Mapping[str, Sequence[int]]
    expected: int
    processes: int
    cores: Mapping[str, Sequence[float]]
    others: float = 0.0

    def values(self, way: str) -> list[int]:
        """The sum of each repetition."""
        return list(self._of(self.results, way))

    def wrong(self, way: str) -> int:
        """How many repetitions ended with another sum than the expected one."""
        return sum(value != self.expected for value in self.values(way))

    def share_wrong(self, way: str) -> float:
        """The part of the repetitions, from 0 to 1, that ended with a wrong sum."""
        return self.wrong(way) / len(self.values(way))

    def lost(self, way: str) -> Sample:
        """How many of the increments of a repetition were lost."""
        lost = [self.expected - value for value in self.values(way)]
        return Sample(tuple(lost), "", self.others)

    def busy(self, way: str) -> Sample:
        """Cores that the processes kept busy while they added."""
        values = self._of(self.cores, way)
        return Sample(tuple(values), "cores", self.others, lowered_by_load=True)

    def undecided(self, way: str = NO_LOCK) -> str | None:
        """A reason if nothing went wrong this way, and hardly anything ran at the same time.

        For `claim(..., undecided=counts.undecided())`: on one core it tells nothing that no
        increment was lost.
        """
        from concurrency_lab.claims import number

        busy = self.busy(way).median
        if self.wrong(way) or busy >= _PARALLEL:
            return None
        return f"meanwhile {self.processes} processes kept only {number(busy)} cores busy"

    @staticmethod
    def _of(found: Mapping[str, Sequence[Any]], way: str) -> Sequence[Any]:
        if way not in found:
            raise KeyError(f"no way {way!r}; there are {', '.join(found)}")
        return found[way]

    def __str__(self) -> str:
        lines = []
        for way in self.results:
            values = self.values(way)
            text = f"{way}: {self.wrong(way)} of {len(values)} sums wrong"
            if self.wrong(way):
                text += f", the least {min(values):,} instead of {self.expected:,}"
            lines.append(text)
        return "\n".join(lines)

    __repr__ = __str__

    def plot(self, title: str | None = None) -> "Figure":
        """A dot for each repetition at the sum that came out; dashed, the right one."""
        from concurrency_lab import figures

        figure, axes = figures.new(height=1.4 + 0.75 * len(self.results))
        rows = {
            f"{way}\n{self.wrong(way)} of {len(self.values(way))} wrong": self.values(way)
            for way in self.results
        }
        figures.dots(axes, rows, value="{:,.0f}".format, reference=self.expected)
        for line in axes.lines[1:]:  # the first is the reference
            line.set(markersize=5, alpha=0.5)
        ends = min(map(min, rows.values())), max(self.expected, *map(max, rows.values()))
        room = max(ends[1] - ends[0], 0.1 * self.expected) * 0.06
        axes.set_xlim(ends[0] - room, ends[1] + room)
        axes.locator_params(axis="x", nbins=5)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.set_xlabel(f"sum after {self.expected:,} increments by {self.processes} processes")
        if title:
            axes.set_title(title)
        return figure


def unlocked_counts(
    repetitions: int = 200,
    increments: int = 5000,
    processes: int = 2,
    method: str | None = None,
    budget: float = 6.0,
) -> Counts:
    """Let processes add 1 to one shared number, each `increments` times, all at the same time.

    In every way of `WAYS`, `repetitions` times; the ways take turns. After ten repetitions, none
    is begun when `budget` seconds are over. The processes stay the same; a barrier releases them,
    and each waits awake for the others, so that with enough cores they begin within microseconds.
    `method` is a start method (default: this system's). Measured in a child interpreter, because
    the calling process may have threads and must not be forked.

    Raises ValueError for numbers that are too small and for an unknown start method.
    """
    from concurrency_lab.isolation import run_isolated

    if min(repetitions, increments) < 1 or processes < 2 or not budget > 0:
        raise ValueError(
            "unlocked_counts needs a budget, and a repetition, an increment and two processes at "
            f"least, not {budget}, {repetitions}, {increments} and {processes}"
        )
    if increments * processes >= 2**31:
        raise ValueError(f"the sum, {increments * processes:,}, must be less than 2**31")
    available = multiprocessing.get_all_start_methods()
    if method is not None and method not in available:
        raise ValueError(f"no start method {method!r} here; there are {', '.join(available)}")
    arguments = repetitions, increments, processes, method, budget
    outcome = run_isolated(_measure, *arguments, timeout=budget + 120)
    if outcome.exit_code != 0:
        raise RuntimeError(f"the measurement did not finish:\n{outcome}")
    return outcome.result


def _measure(
    repetitions: int, increments: int, processes: int, method: str | None, budget: float
) -> Counts:
    from concurrency_lab.load import LoadMeter

    context = multiprocessing.get_context(method)
    numbers = [context.RawValue("i"), context.Value("i"), context.Value("i")]  # as in WAYS
    task = context.RawValue("i")
    barrier = context.Barrier(processes + 1)
    ready = context.RawArray("q", processes)
    pipes, workers = [], []
    for me in range(processes):
        ours, theirs = context.Pipe(duplex=False)
        arguments = me, numbers, task, barrier, ready, increments, theirs
        worker = context.Process(target=_work, args=arguments, daemon=True)
        worker.start()
        theirs.close()
        pipes.append(ours)
        workers.append(worker)
    barrier.wait(_PATIENCE)  # all have started
    results: dict[str, list[int]] = {way: [] for way in WAYS}
    end = time.perf_counter() + budget
    with LoadMeter() as load:
        for turn in range(repetitions):
            if turn >= _FEWEST and time.perf_counter() > end:
                break
            for way in range(len(WAYS)) if turn % 2 == 0 else reversed(range(len(WAYS))):
                numbers[way].value, task.value = 0, way
                barrier.wait(_PATIENCE)  # they begin
                barrier.wait(_PATIENCE)  # and are done
                results[WAYS[way]].append(numbers[way].value)
        task.value = _END
        barrier.wait(_PATIENCE)
        times = [pipe.recv() for pipe in pipes]
    for worker in workers:
        worker.join()
    cores = {
        name: [_cores(together) for together in zip(*(one[way] for one in times), strict=True)]
        for way, name in enumerate(WAYS)
    }
    return Counts(results, processes * increments, processes, cores, load.others)


def _cores(together: Sequence[tuple[float, float, float]]) -> float:
    """CPU time of all over the time from the first one's beginning to the last one's end."""
    begun, ended, cpu = zip(*together, strict=True)
    return sum(cpu) / max(max(ended) - min(begun), 1e-9)


def _work(me, numbers, task, barrier, ready, increments, results) -> None:
    """What each process does. Its times can be compared: the clock is the computer's."""
    times: list[list[tuple[float, float, float]]] = [[] for _ in numbers]
    number = 0
    barrier.wait(_PATIENCE)
    while True:
        barrier.wait(_PATIENCE)
        if (way := task.value) == _END:
            break
        add = _add_locked if WAYS[way] == GET_LOCK else _add
        # Those that sleep at the barrier wake up one after the other, which takes longer than
        # many increments. Each writes in a place of its own, so this needs no lock.
        number += 1
        ready[me] = number
        limit = time.perf_counter() + _TOGETHER
        while min(ready) < number and time.perf_counter() < limit:
            pass
        begun, cpu = time.perf_counter(), time.process_time()
        add(numbers[way], increments)
        ended, cpu = time.perf_counter(), time.process_time() - cpu
        times[way].append((begun, ended, cpu))
        barrier.wait(_PATIENCE)
    results.send(times)
    results.close()


def _add(number, increments: int) -> None:
    for _ in range(increments):
        number.value += 1


def _add_locked(number, increments: int) -> None:
    for _ in range(increments):
        with number.get_lock():
            number.value += 1
