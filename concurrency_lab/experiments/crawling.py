"""How many workers a crawl should have: requests a second against what limits them (chapter 3)."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from concurrency_lab.timing import Sample, Sweep, sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class CrawlSpeeds:
    """What `crawl_speeds` measured: requests a second by workers and politeness limit."""

    def __init__(self, timings: Sweep, requests: int, latency: float) -> None:
        self._timings, self._requests, self.latency = timings, requests, latency

    @property
    def workers(self) -> list[int]:
        """The numbers of workers that were tried."""
        return list(dict.fromkeys(workers for workers, _ in self._timings.names))

    @property
    def limits(self) -> list[int | None]:
        """The politeness limits that were tried; None is no limit."""
        return list(dict.fromkeys(limit for _, limit in self._timings.names))

    def rate(self, workers: int, limit: int | None = None) -> Sample:
        """Requests a second."""
        seconds = self._timings.seconds((workers, limit))
        rates = tuple(self._requests / wall for wall in seconds.values)
        return Sample(rates, "/s", seconds.others, seconds.slowdown)

    def speedup(self, workers: int, over: int = 1, *, limit: int | None = None) -> Sample:
        """How many times as fast as `over` workers, with the same limit."""
        return self._timings.speedup((workers, limit), over=(over, limit))

    def most(self, workers: int, limit: int | None = None) -> float:
        """Requests a second at which all of these workers would wait all of the time.

        A limit of so many requests at once is a limit on the workers that wait. That requests in
        progress = rate x latency is Little's law.
        """
        return min(workers, limit or workers) / self.latency

    def share_of_limit(self, workers: int, limit: int | None = None) -> Sample:
        """The rate over what the latency, or the politeness, would allow."""
        rate = self.rate(workers, limit)
        most = self.most(workers, limit)
        values = tuple(value / most for value in rate.values)
        return Sample(values, "", rate.others, rate.slowdown)

    def best_share_of_limit(self) -> float:
        """The greatest share that any crawl reached: above 1 something was not waited for."""
        return max(max(self.share_of_limit(*name).values) for name in self._timings.names)

    def __str__(self) -> str:
        lines = []
        for limit in self.limits:
            rates = ", ".join(
                f"{self.rate(*name).median:.0f}/s with {name[0]}"
                for name in self._timings.names
                if name[1] == limit
            )
            lines.append(f"{_name(limit)}: {rates}")
        return "\n".join(lines)

    __repr__ = __str__

    def plot(self, title: str | None = None) -> "Figure":
        """Requests a second by workers: a dot for each crawl, medians joined, limits dashed."""
        from concurrency_lab import figures

        figure, axes = figures.new(height=4.0)
        workers = self.workers
        muted, paper = figures.PALETTE["muted"], figures.PALETTE["paper"]
        for number, limit in enumerate(self.limits):
            look = {"color": figures.SERIES[number], "marker": figures.MARKERS[number]}
            shift = 1.04 ** (number - (len(self.limits) - 1) / 2)
            counts = [count for count in workers if (count, limit) in self._timings.names]
            for count in counts:
                rates = self.rate(count, limit).values
                axes.plot(
                    [count * shift] * len(rates), rates, linestyle="none", alpha=0.55,
                    markersize=5.5, markeredgecolor=paper, markeredgewidth=0.5, **look,
                )  # fmt: skip
            medians = [self.rate(count, limit).median for count in counts]
            axes.plot(
                [count * shift for count in counts], medians, label=_name(limit),
                linestyle=("-", "--", "-.", ":")[number % 4], markersize=6.5, **look,
            )  # fmt: skip
        dashes = {"color": muted, "linewidth": 1.2, "linestyle": (0, (4, 3))}
        axes.plot(workers, [self.most(count) for count in workers], **dashes)
        words = {"color": muted, "fontsize": 10.5, "textcoords": "offset points"}
        middle = workers[(len(workers) - 1) // 2]
        axes.annotate(
            "latency", (middle, self.most(middle)), xytext=(-6, 5), ha="right", **words
        )  # fmt: skip
        for limit in self.limits:
            if limit is not None and limit < workers[-1]:
                most = self.most(workers[-1], limit)
                axes.axhline(most, **dashes)
                axes.annotate("politeness", (workers[0], most), xytext=(0, 5), **words)
        figures.log_axis(axes, "x", "workers (logarithmic)")
        axes.set_xticks(workers, [str(count) for count in workers])
        figures.log_axis(axes, "y", "requests a second (logarithmic)", "{:,.0f}".format)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
        if title:
            axes.set_title(title)
        return figure


def _name(limit: int | None) -> str:
    return "no limit" if limit is None else f"at most {limit} at once"


def crawl_speeds(
    crawl: Callable[[int, int | None], int],
    *,
    workers: Sequence[int],
    limits: Sequence[int | None] = (None,),
    latency: float,
    budget: float = 15.0,
) -> CrawlSpeeds:
    """Time `crawl(workers, limit)` for each pair, in turns; it returns how many requests it made.

    Fewer workers than a limit are not tried with it: for them it is none.
    `latency` is the mean time of an answer in seconds, from which the limits are calculated. At
    least three rounds are made, more within `budget` seconds.

    Raises ValueError if two crawls did not make equally many requests.
    """
    if not workers or not limits or min(workers) < 1 or not latency > 0:
        raise ValueError("crawl_speeds needs workers, limits and a latency above 0 seconds")
    if min((limit for limit in limits if limit is not None), default=1) < 1:
        raise ValueError(f"a limit is at least 1 request at once, or None; not {list(limits)}")
    pairs = [
        (count, limit) for count in workers for limit in limits if limit is None or count >= limit
    ]
    if len(pairs) < 2:
        raise ValueError("crawl_speeds compares: give at least two numbers of workers")
    timings = sweep(lambda pair: crawl(*pair), pairs, name="workers", budget=budget)
    requests = {timings.results(pair) for pair in pairs}
    if not all(isinstance(made, int) and made > 0 for made in requests):
        raise TypeError(f"crawl(workers, limit) returns how many requests it made, not {requests}")
    if len(requests) != 1:
        raise ValueError(
            f"the crawls made {', '.join(map(str, sorted(requests)))} requests: "
            "they must do the same work to be compared"
        )
    return CrawlSpeeds(timings, requests.pop(), latency)
