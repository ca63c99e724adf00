"""How full queues are while a program runs: sampled by a thread of its own (chapter 3)."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GRACE = 5.0
"""Seconds that a read of a depth may take at the end, before `watch` gives up on it."""


class Depths:
    """The depths of queues over time: what `watch` gives. Can be read while it still grows.

    Between two samples a depth counts as unchanged. What happened in between was not seen, so the
    queue may have been fuller than `highest` for a moment.
    """

    def __init__(
        self,
        bounds: Mapping[str, int | None],
        samples: Iterable[tuple[float, tuple[float, ...]]] = (),
    ) -> None:
        self._bounds = dict(bounds)
        # A sample, the time and all depths, is one tuple: a reader never sees half of it.
        self._samples = list(samples)

    @property
    def names(self) -> list[str]:
        """The names of the queues."""
        return list(self._bounds)

    @property
    def seconds(self) -> float:
        """Time from the first sample to the last."""
        return self._samples[-1][0]

    def times(self, name: str) -> list[float]:
        """When the depth was read, in seconds since the first time."""
        self._column(name)
        return [moment for moment, _ in self._samples]

    def depths(self, name: str) -> list[float]:
        """How many items were in the queue, one number for each of `times(name)`."""
        column = self._column(name)
        return [depths[column] for _, depths in self._samples]

    def bound(self, name: str) -> int | None:
        """How many items the queue can hold; None if that is not limited, or not known."""
        self._column(name)
        return self._bounds[name]

    def highest(self, name: str) -> float:
        """The largest depth that was seen."""
        return max(self.depths(name))

    def mean(self, name: str) -> float:
        """The mean depth over time: a depth counts for as long as it lasted."""
        return self._over_time(name, lambda depth: depth)

    def share_full(self, name: str) -> float:
        """The part of the time, from 0 to 1, in which the queue was full.

        Raises ValueError for a queue without a bound.
        """
        bound = self.bound(name)
        if bound is None:
            raise ValueError(
                f"{name!r} has no bound that is known, so it is never full: "
                f"give one, watch(..., bounds={{{name!r}: 20}})"
            )
        return self._over_time(name, lambda depth: depth >= bound)

    def share_empty(self, name: str) -> float:
        """The part of the time, from 0 to 1, in which the queue was empty."""
        return self._over_time(name, lambda depth: depth <= 0)

    def _column(self, name: str) -> int:
        if name not in self._bounds:
            raise KeyError(f"no queue named {name!r}; there are {', '.join(self._bounds)}")
        return list(self._bounds).index(name)

    def _points(self, name: str) -> tuple[list[float], list[float]]:
        """Times and depths for a step line, equally many also while the record grows."""
        column, samples = self._column(name), list(self._samples)
        return _thinned([moment for moment, _ in samples], [seen[column] for _, seen in samples])

    def _over_time(self, name: str, value: Callable[[float], float]) -> float:
        column, samples = self._column(name), list(self._samples)
        total = samples[-1][0] - samples[0][0]
        if total <= 0:
            return float(value(samples[-1][1][column]))
        lasted = zip(samples, samples[1:], strict=False)
        return sum((b[0] - a[0]) * value(a[1][column]) for a, b in lasted) / total

    def __str__(self) -> str:
        return "\n".join(f"{name}: {self._line(name)}" for name in self.names)

    __repr__ = __str__

    def _line(self, name: str) -> str:
        parts = [f"highest {self.highest(name):,g}", f"mean {self.mean(name):,.3g}"]
        if self.bound(name) is not None:
            parts[0] += f" of {self.bound(name):,}"
            parts.append(f"full {self.share_full(name):.0%} of the time")
        parts.append(f"empty {self.share_empty(name):.0%} of the time")
        return ", ".join(parts)

    def plot(self, title: str | None = None) -> "Figure":
        """Depth over time, a panel for each queue from the top down, its bound as a dashed line."""
        from concurrency_lab import figures

        rows = len(self.names)
        figure, panels = figures.new(
            height=(3.0 if rows == 1 else 0.9 + 1.45 * rows), rows=rows, sharex=True, squeeze=False
        )
        for number, (axes, name) in enumerate(zip(panels[:, 0], self.names, strict=True)):
            colour = figures.SERIES[number % len(figures.SERIES)]
            xs, ys = self._points(name)
            axes.fill_between(xs, ys, step="post", color=colour, alpha=0.2, linewidth=0)
            axes.plot(xs, ys, drawstyle="steps-post", color=colour, linestyle="-", linewidth=1.5)
            _finish(axes, [self.highest(name)], [self.bound(name)])
            if rows > 1:
                axes.set_title(name, fontsize=12)
            axes.set_ylabel("items" if rows > 1 else f"items in {name}")
        last = panels[-1, 0]
        last.set_xlim(0, max(self.seconds, 1e-6))
        figures.time_axis(last, "x")
        if title and rows == 1:
            last.set_title(title)
        elif title:
            figure.suptitle(title, x=0.02, ha="left", weight="bold", fontsize=13)
        return figure


def plot_depths(
    records: Mapping[str, Depths], title: str | None = None, *, name: str | None = None
) -> "Figure":
    """One queue under several conditions, `{"no bound": record, ...}`, on one pair of axes.

    `name` says which queue, if the records have several.
    """
    from concurrency_lab import figures

    if not isinstance(records, Mapping):
        raise TypeError('give each record a name: plot_depths({"no bound": depths})')
    if not records:
        raise ValueError("plot_depths needs at least one record")
    series = {}
    for label, record in records.items():
        if name is None and len(record.names) > 1:
            raise ValueError(
                f"{label!r} has the queues {', '.join(record.names)}: say which, "
                f"plot_depths(..., name={record.names[0]!r})"
            )
        series[label] = (record, record.names[0] if name is None else name)
    figure, axes = figures.new(height=3.4)
    for number, (label, (record, of)) in enumerate(series.items()):
        xs, ys = record._points(of)
        axes.plot(
            xs, ys, drawstyle="steps-post", label=label, linewidth=1.8,
            color=figures.SERIES[number % len(figures.SERIES)],
            linestyle=("-", (0, (5, 1.2)), (0, (1.5, 1)))[number % 3],
        )  # fmt: skip
    _finish(
        axes,
        [record.highest(of) for record, of in series.values()],
        [record.bound(of) for record, of in series.values()],
    )
    axes.set_xlim(0, max(max(record.seconds for record in records.values()), 1e-6))
    figures.time_axis(axes, "x")
    axes.set_ylabel("items in the queue")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    if title:
        axes.set_title(title)
    return figure


def _finish(axes: Any, highest: list[float], bounds: list[int | None]) -> None:
    """Bounds as dashed lines, and an axis from 0 with whole numbers."""
    from matplotlib.ticker import MaxNLocator

    from concurrency_lab import figures

    known = sorted({bound for bound in bounds if bound is not None})
    top = max([*highest, *known, 1])
    for bound in known:
        axes.axhline(
            bound, color=figures.PALETTE["muted"], linewidth=1.2, linestyle=(0, (4, 3)), zorder=1.5
        )
        axes.text(
            1.01, bound, f"at most {bound:,}", color=figures.PALETTE["muted"],
            transform=axes.get_yaxis_transform(), va="center_baseline",
        )  # fmt: skip
    axes.set_ylim(0, top * 1.1)
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10], integer=True))


def _thinned(xs: list[float], ys: list[float], most: int = 400) -> tuple[list, list]:
    """The points that a step line needs: of `most` equal parts of the time, ends and extremes."""
    if len(xs) <= 4 * most:
        return xs, ys
    span = xs[-1] - xs[0]
    parts: dict[int, list[int]] = {}
    for i, x in enumerate(xs):
        parts.setdefault(int((x - xs[0]) / span * most), []).append(i)
    keep = set()
    for part in parts.values():
        keep |= {part[0], part[-1], min(part, key=ys.__getitem__), max(part, key=ys.__getitem__)}
    order = sorted(keep)
    return [xs[i] for i in order], [ys[i] for i in order]


@contextmanager
def watch(
    queues: Mapping[str, Any] | None = None,
    /,
    *,
    every: float = 0.002,
    bounds: Mapping[str, int] | None = None,
    **named: Any,
) -> Iterator[Depths]:
    """Sample how full queues are while a `with` block runs: `with watch(inbox=queue) as depths:`.

    A queue is anything with `qsize()` or `len()`, or a function without arguments that returns the
    number. A thread of its own reads all of them every `every` seconds (later if it does not get
    the GIL at once), the block's first and last moment included. `bounds` says how many items a
    queue can hold, if its `maxsize` does not (nor a `maxlen` or `capacity`).

    Raises TypeError for what has no depth. What a read raises in between is raised at the end.
    """
    if queues is not None and not isinstance(queues, Mapping):
        raise TypeError("give each queue a name: watch(inbox=queue)")
    both = set(queues or ()) & set(named)
    if both:
        raise TypeError(f"two queues are called {both.pop()!r}")
    watched = {**(queues or {}), **named}
    if not watched:
        raise ValueError("watch needs a queue: watch(inbox=queue)")
    if not 0 < every <= 3600:
        raise ValueError(f"every is a time in seconds, more than 0, at most an hour; not {every}")
    unknown = set(bounds or ()) - set(watched)
    if unknown:
        raise KeyError(f"a bound for {unknown.pop()!r}; there are {', '.join(map(str, watched))}")
    if min((bounds or {}).values(), default=1) < 1:
        raise ValueError(f"a bound is at least 1 item, not {min((bounds or {}).values())}")
    known = {name: (bounds or {}).get(name) or _bound_of(it) for name, it in watched.items()}
    depths = Depths(known)
    sampler = _Sampler(depths, {name: _reader(name, it) for name, it in watched.items()}, every)
    sampler.start()
    try:
        yield depths
    except BaseException as error:
        problem = sampler.end()
        if problem is not None:
            error.add_note(f"Besides, {problem!r}")
        raise
    problem = sampler.end()
    if problem is not None:
        raise problem


def _bound_of(it: Any) -> int | None:
    for attribute in ("maxsize", "maxlen", "capacity"):
        bound = getattr(it, attribute, None)
        if isinstance(bound, int) and bound > 0:
            return bound
    return None


def _reader(name: str, it: Any) -> Callable[[], Any]:
    if callable(getattr(it, "qsize", None)) and not isinstance(it, type):
        return it.qsize
    if hasattr(it, "__len__") and not isinstance(it, type):
        return lambda: len(it)
    if callable(it) and not isinstance(it, type):
        return it
    raise TypeError(
        f"{name}={it!r} has neither qsize() nor len(): give a function that returns how many "
        f"items are in it, watch({name}=lambda: ...)"
    )


class _Sampler:
    """The thread that fills a `Depths` record."""

    def __init__(self, depths: Depths, readers: dict[str, Callable], every: float) -> None:
        self._samples, self._readers, self._every = depths._samples, readers, every
        self._over = False
        self._reading = ""
        self._error: Exception | None = None
        self._last = 0.0
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        self._zero = time.perf_counter()
        self._look()
        self._thread.start()

    def end(self) -> Exception | None:
        """Have the thread take a last sample and end; return what went wrong."""
        self._last = time.perf_counter() - self._zero
        self._over = True
        patience = time.monotonic() + GRACE
        while self._thread.is_alive() and time.monotonic() < patience:
            self._thread.join(0.2)  # on Windows Ctrl-C cannot interrupt a longer wait
        if self._thread.is_alive():
            return TimeoutError(
                f"the depth of {self._reading!r} could not be read for {GRACE:g} s: perhaps a "
                "lock that it needs is still held. The thread that waits for it stays, as a daemon"
            )
        return self._error

    def _run(self) -> None:
        try:
            while not self._pause():
                self._look()
            self._look(max(self._last, self._samples[-1][0]))
        except Exception as error:
            self._error = error

    def _pause(self) -> bool:
        """Wait until the next sample is due; return True if there is to be none.

        By `sleep`, because on Windows a wait with a timeout is a multiple of some 15 ms.
        """
        due = time.perf_counter() + self._every
        while not self._over and (left := due - time.perf_counter()) > 0:
            time.sleep(min(left, 0.02))
        return self._over

    def _look(self, moment: float | None = None) -> None:
        moment = time.perf_counter() - self._zero if moment is None else moment
        seen = []
        for name, read in self._readers.items():
            self._reading = name
            try:
                depth = read()
            except Exception as error:
                error.add_note(f"while watch() read how many items are in {name!r}")
                if isinstance(error, NotImplementedError):  # multiprocessing.Queue on macOS
                    error.add_note(f"give a function that knows: watch({name}=lambda: ...)")
                raise
            if not isinstance(depth, Real):
                raise TypeError(f"the depth of {name!r} must be a number, not {depth!r}")
            seen.append(depth)
        self._samples.append((moment, tuple(seen)))
