"""Compare how long functions take, side by side on the same computer, and how many cores they use.

Absolute times differ between computers and between minutes; what a chapter claims is a ratio of
two functions that took turns. Every result is a `Sample`: all values, their median, its interval.
"""

from __future__ import annotations

import concurrent.futures
import html
import math
import numbers
import statistics
import time
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from concurrency_lab import claims, load
from concurrency_lab.progress import Progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Sample:
    """Measured values of one quantity.

    ``others``: cores that other programs used meanwhile. ``slowdown``: how many times longer any
    two threads took side by side than one alone, see `load.SlowdownMeter`; 1 if it cannot
    matter. ``lowered_by_load``: other programs can only have made the values smaller.

    ``low`` and ``high`` enclose the median of all values there could be with 95 % confidence or
    more, whatever their distribution: they are the k-th smallest and k-th largest value, where k
    follows from the binomial distribution (E. L. Lehmann, Nonparametrics: Statistical Methods
    Based on Ranks, 1975, pages 182-183; recommended for measurements like these by T. Hoefler and
    R. Belli, Scientific Benchmarking of Parallel Computing Systems, SC15,
    https://doi.org/10.1145/2807591.2807644). For 5 values or fewer they are the extremes, with
    less confidence: 94 % for 5, 75 % for 3.
    """

    values: tuple[float, ...]
    unit: str = ""
    others: float = 0.0
    slowdown: float = 1.0
    lowered_by_load: bool = False

    def __post_init__(self) -> None:
        values = tuple(float(value) for value in self.values)
        if not values:
            raise ValueError("a Sample needs at least one value")
        if any(math.isnan(value) for value in values):
            raise ValueError("a Sample cannot hold NaN: leave out what was not measured")
        object.__setattr__(self, "values", values)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        return sorted(self.values)[_rank(len(self.values)) - 1]

    @property
    def high(self) -> float:
        return sorted(self.values)[-_rank(len(self.values))]

    def __float__(self) -> float:
        return float(self.median)

    def __str__(self) -> str:
        return format(self, "")

    def __format__(self, spec: str) -> str:
        return claims.spread(self.median, self.low, self.high, self.unit, spec)

    def _repr_html_(self) -> str:
        title = f"median of {len(self.values)} values [95 % interval]"
        return f'<span class="sample" title="{title}">{html.escape(str(self))}</span>'


def _rank(n: int, confidence: float = 0.95) -> int:
    """The greatest k for which P(Binomial(n, 1/2) < k) <= (1 - confidence) / 2, at least 1."""
    k, below = 0, 1
    while below <= (1 - confidence) / 2 * 2**n:
        k += 1
        below += math.comb(n, k)
    return max(k, 1)


class Timings:
    """Wall and CPU time of several functions that took turns. Made by `compare` and `sweep`."""

    def __init__(
        self, calls: Mapping[Hashable, list[_Call]], others: float = 0.0, slowdown: float = 1.0
    ) -> None:
        self._calls = calls
        self.others = others
        self.slowdown = slowdown

    @property
    def names(self) -> list[Hashable]:
        """What was compared; the first is the baseline."""
        return list(self._calls)

    @property
    def rounds(self) -> int:
        """How often each function was timed."""
        return len(self._of(self.names[0]))

    def seconds(self, name: Hashable) -> Sample:
        """Wall time of a call."""
        return self._sample((call.wall for call in self._of(name)), "s")

    def cores(self, name: Hashable) -> Sample:
        """CPU time over wall time of a call, of this process and all its descendants."""
        values = tuple(call.cpu / call.wall for call in self._of(name))
        return Sample(values, "cores", self.others, lowered_by_load=True)

    def fewer_cores_than(self, name: Hashable, cores: float) -> str | None:
        """A reason if calls of `name` kept fewer cores busy; for `claim(..., undecided=...)`.

        "Threads keep one core busy" tells something only if more than one was there to be had.
        """
        kept = self.cores(name).median
        if kept >= cores:
            return None
        return f"meanwhile {name} kept only {claims.number(kept)} cores busy"

    def ratio(self, a: Hashable, b: Hashable) -> Sample:
        """Time of `a` over time of `b`, paired by round: "a takes so many times as long as b"."""
        pairs = zip(self._of(a), self._of(b), strict=True)
        return self._sample((call_a.wall / call_b.wall for call_a, call_b in pairs), "times")

    def speedup(self, name: Hashable, over: Hashable | None = None) -> Sample:
        """How many times as fast as `over` (default: the first function) `name` is."""
        return self.ratio(self.names[0] if over is None else over, name)

    def results(self, name: Hashable) -> Any:
        """What the last call returned: compare it, to be sure that the same work was done."""
        return self._of(name)[-1].result

    def same_results(self) -> bool:
        """Whether the last calls of all functions returned equal values."""
        return all(self.results(name) == self.results(self.names[0]) for name in self.names)

    @property
    def table(self) -> list[dict[str, Any]]:
        """One dict for each function: name, seconds, speedup, cores (each a `Sample`)."""
        return [
            {
                "name": name,
                "seconds": self.seconds(name),
                "speedup": self.speedup(name),
                "cores": self.cores(name),
            }
            for name in self.names
        ]

    def __str__(self) -> str:
        rows = self._rows()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(f"{t:<{w}}" for t, w in zip(row, widths, strict=True)) for row in rows]
        return "\n".join(line.rstrip() for line in lines)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        head, *body = ([html.escape(text) for text in row] for row in self._rows())
        columns = "".join(f'<th scope="col">{text}</th>' for text in head)
        lines = "".join(
            f'<tr><th scope="row">{row[0]}</th>' + "".join(f"<td>{t}</td>" for t in row[1:])
            + "</tr>"
            for row in body
        )  # fmt: skip
        return (
            f'<table class="timings"><caption>Medians [95 % intervals] of {self.rounds} rounds'
            f"</caption><thead><tr>{columns}</tr></thead><tbody>{lines}</tbody></table>"
        )

    def _rows(self) -> list[list[str]]:
        return [["", "time", f"speed-up over {self.names[0]}", "cores busy"]] + [
            [
                str(row["name"]),
                str(row["seconds"]),
                "1" if row["name"] == self.names[0] else _bare(row["speedup"]),
                _bare(row["cores"]),
            ]
            for row in self.table
        ]

    def _sample(self, values: Iterable[float], unit: str) -> Sample:
        return Sample(tuple(values), unit, self.others, self.slowdown)

    def _of(self, name: Hashable) -> list[_Call]:
        if name not in self._calls:
            raise KeyError(f"{name!r} was not timed: use one of {self.names}")
        return self._calls[name]


class Comparison(Timings):
    """What `compare` measured."""

    def plot(self, title: str | None = None) -> Figure:
        """The speed-up of each round as a dot, the medians marked, and a line at 1 (no change)."""
        from concurrency_lab import figures

        names = self.names[1:]
        figure, axes = figures.new(height=1.4 + 0.55 * len(names))
        groups = {str(name): self.speedup(name).values for name in names}
        figures.dots(axes, groups, value=lambda x: claims.number(x) + "\u00d7", reference=1.0)
        low, high = axes.get_xlim()
        axes.set_xlim(min(low, 0.0), max(high, 1.25))
        axes.set_xlabel(f"times as fast as {self.names[0]}")
        if title:
            axes.set_title(title)
        return figure


class Sweep(Timings):
    """What `sweep` measured. Values take the place of names."""

    def __init__(self, calls, others=0.0, slowdown=1.0, name: str = "", unit: str = "") -> None:
        super().__init__(calls, others, slowdown)
        self._name = name
        self._label = f"{name} ({unit})" if name and unit else name or unit

    def plot(
        self, y: str = "seconds", *, xlabel: str = "", log: bool = False, title: str | None = None
    ) -> Figure:
        """Times, or speed-ups over the first value: a dot for each call and a line of medians.

        `log` makes the axis of the values logarithmic, and that of times. Values that are not
        numbers are drawn at equal distances, in the order they were given.
        """
        from concurrency_lab import figures

        if y not in ("seconds", "speedup"):
            raise ValueError(f"y must be 'seconds' or 'speedup', not {y!r}")
        numeric = all(isinstance(value, numbers.Real) for value in self.names)
        if log and numeric and min(self.names) <= 0:
            raise ValueError("log=True needs values greater than 0")
        names = sorted(self.names) if numeric else self.names
        xs = names if numeric else range(len(names))
        samples = [getattr(self, y)(value) for value in names]
        medians = [sample.median for sample in samples]

        figure, axes = figures.new()
        axes.plot(xs, medians, "-", color=figures.SERIES[0])
        for x, sample in zip(xs, samples, strict=True):
            dots = [x] * len(sample.values)
            axes.plot(dots, sample.values, "o", color=figures.SERIES[0], alpha=0.45, markersize=5)
        axes.plot(xs, medians, "_", color=figures.PALETTE["ink"], markersize=14, markeredgewidth=2)
        axes.set_xlabel(xlabel or self._label)
        if not numeric:
            axes.set_xticks(xs, [str(value) for value in names])
        elif log:
            figures.log_axis(axes, "x")
            axes.set_xticks(xs, [f"{value:g}" for value in names])
        if y == "speedup":
            axes.axhline(1.0, color=figures.PALETTE["muted"], linewidth=1.2, linestyle="--")
            axes.set_ylabel(" ".join(f"times as fast as {self.names[0]} {self._name}".split()))
            axes.set_ylim(bottom=0)
        elif log:
            figures.log_axis(axes, "y", label="time", value=figures.duration)
        else:
            axes.set_ylim(bottom=0)
            figures.time_axis(axes, "y")
        if title:
            axes.set_title(title)
        return figure


def compare(
    funcs: Mapping[str, Callable[[], Any]] | None = None,
    /,
    *,
    budget: float = 5.0,
    min_rounds: int = 5,
    max_rounds: int = 50,
    precision: float = 0.1,
    warmup: int = 1,
    **named: Callable[[], Any],
) -> Comparison:
    """Time functions in turns: ``compare(sequential=f, threads=g)``; the first is the baseline.

    Functions take no arguments and return when their work is done. After `warmup` calls of each,
    every round calls each once, in an order that changes from round to round, so that a computer
    that gets slower favours none.

    Stops after at least `min_rounds` rounds when the interval of every speed-up over the baseline
    is narrower than `precision` times its median, when another round would exceed `budget`
    seconds, or after `max_rounds`.

    Raises TypeError for what cannot be timed: not a function, or one that only starts the work (it
    returns a coroutine, a generator or a future). What a function raises is not caught.
    """
    if funcs is not None and not isinstance(funcs, Mapping):
        raise TypeError("give functions names: compare(sequential=f, threads=g)")
    both = set(funcs or ()) & set(named)
    if both:
        raise TypeError(f"two functions are called {both.pop()!r}")
    functions = {**(funcs or {}), **named}
    if len(functions) < 2:
        raise ValueError("compare needs at least two functions: compare(sequential=f, threads=g)")
    return Comparison(
        *_take_turns(functions, budget, min_rounds, max_rounds, precision, warmup, "comparing")
    )


def sweep(
    func: Callable[[Any], Any],
    values: Iterable[Hashable],
    *,
    name: str = "",
    unit: str = "",
    budget: float = 5.0,
    min_rounds: int = 3,
) -> Sweep:
    """Time ``func(value)`` for each of `values`, in turns like `compare`, for `budget` seconds.

    `name` and `unit` say what the values are; they label the plot.
    """
    values = list(values)
    if len(set(values)) != len(values) or len(values) < 2:
        raise ValueError(f"sweep needs at least two values, all different, not {values}")
    if not callable(func):
        raise TypeError(f"sweep needs a function of one value, not {func!r}")
    functions = {value: lambda value=value: func(value) for value in values}
    return Sweep(
        *_take_turns(functions, budget, min_rounds, 50, 0.0, 1, name or "sweep"), name, unit
    )


def busy_cores(work: Callable[[], Any], *, rounds: int = 5) -> Sample:
    """How many cores calls of `work` keep busy: CPU time of the process tree over wall time."""
    calls, others, _ = _take_turns({"work": work}, math.inf, rounds, rounds, 0.0, 0, "measuring")
    return Timings(calls, others).cores("work")


@dataclass(frozen=True)
class _Call:
    wall: float
    cpu: float
    result: Any


def _take_turns(
    functions: Mapping[Hashable, Callable[[], Any]],
    budget: float,
    min_rounds: int,
    max_rounds: int,
    precision: float,
    warmup: int,
    task: str,
) -> tuple[dict[Hashable, list[_Call]], float, float]:
    """Call the functions in rounds; return their calls, the load and the slowdown meanwhile."""
    for name, func in functions.items():
        if not callable(func):
            raise TypeError(f"{name}={func!r} is not a function: leave out the call's brackets")
    if min_rounds < 1 or max_rounds < 1 or not budget > 0 or warmup < 0:
        raise ValueError("rounds and budget must be positive, warmup must not be negative")
    calls: dict[Hashable, list[_Call]] = {name: [] for name in functions}
    start = time.perf_counter()
    control = load.SlowdownMeter()
    with Progress(task) as progress:
        for name in [name for name in functions for _ in range(warmup)]:
            progress.update(f"warming up, {name}")
            _timed(name, functions[name])
        with load.LoadMeter() as meter:
            first = time.perf_counter()
            for done in range(max_rounds):
                if done >= min_rounds:
                    now = time.perf_counter()
                    if now + (now - first) / done > start + budget or _precise(calls, precision):
                        break
                for name in _order(list(functions), done):
                    progress.update(f"round {done + 1}, {name}")
                    calls[name].append(_timed(name, functions[name]))
                while control.spent < 0.05 * (time.perf_counter() - first):
                    control.probe()
    return calls, meter.others, control.slowdown


def _order(names: list, round_: int) -> list:
    """Rotated by one each round and, after each full turn, reversed: AB BA BA AB for two."""
    shift = round_ % len(names)
    order = names[shift:] + names[:shift]
    return order[::-1] if round_ // len(names) % 2 else order


def _precise(calls: Mapping[Hashable, list[_Call]], precision: float) -> bool:
    timings = Timings(calls)
    speedups = [timings.speedup(name) for name in timings.names[1:]]
    return all(s.high - s.low < precision * s.median for s in speedups)


def _timed(name: Hashable, func: Callable[[], Any]) -> _Call:
    """Call `func` once. The CPU time of descendants is read outside the timed part: it takes ms."""
    descendants = load.descendants_cpu_seconds()
    cpu = load.own_cpu_seconds()
    start = time.perf_counter()
    result = func()
    wall = time.perf_counter() - start
    cpu = load.own_cpu_seconds() - cpu
    cpu += load.descendants_cpu_seconds() - descendants
    if isinstance(result, Awaitable | Iterator | concurrent.futures.Future):
        if hasattr(result, "close"):
            result.close()  # a coroutine would warn that it was never awaited
        raise TypeError(
            f"{name} returned a {type(result).__name__}: the work is not done yet. Call a function "
            "that waits for it: asyncio.run(...), list(...) or future.result()"
        )
    return _Call(max(wall, 1e-9), max(cpu, 0.0), result)


def _bare(sample: Sample) -> str:
    """Without the unit, which the column's head tells."""
    return claims.spread(sample.median, sample.low, sample.high)
