"""Several costs measured side by side, compared as ratios and drawn on one logarithmic axis."""

import json
import time
import timeit
from collections.abc import Callable, Hashable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from concurrency_lab.load import LoadMeter, SlowdownMeter
from concurrency_lab.progress import Progress
from concurrency_lab.timing import Sample

CALL = "call of an empty function"


@dataclass(frozen=True)
class Costs:
    """Paired values by name: the n-th value of every name comes from the same round.

    `unit` is "s" or "bytes"; `others` is the cores that other programs used meanwhile; `absent`
    says of costs that cannot be measured on this system why, for `claim(..., unless=...)`.
    """

    values: dict[str, list[float]]
    unit: str = "s"
    what: str = "time"
    others: float = 0.0
    absent: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Sample:
        return Sample(self._of(name), self.unit, self.others)

    def ratio(self, a: str, b: str) -> Sample | None:
        """How many times more `a` costs than `b`, one ratio a round; None if one is absent."""
        if a in self.absent or b in self.absent:
            return None
        pairs = zip(self._of(a), self._of(b), strict=True)
        return Sample([x / y for x, y in pairs], "times", self.others)

    def __str__(self) -> str:
        return "\n".join(f"{name}: {self[name]}" for name in self.values)

    __repr__ = __str__

    def _of(self, name: str) -> list[float]:
        if name not in self.values:
            raise KeyError(f"no cost named {name!r}; there are {', '.join(self.values)}")
        return self.values[name]

    def _series(self) -> dict[str, int]:
        """Names that end alike after a comma ("pipe, 64 B") belong together."""
        kinds = {name: name.rpartition(", ")[2] for name in self.values}
        order = list(dict.fromkeys(kinds.values()))
        return {name: order.index(kind) for name, kind in kinds.items()}

    def plot(self, title: str | None = None):
        """Every value as a dot, the median marked, on a logarithmic axis."""
        from concurrency_lab import figures

        words = figures.size if self.unit == "bytes" else figures.duration
        figure, axes = figures.new(height=1.3 + 0.42 * len(self.values))
        figures.dots(axes, self.values, value=words, series=self._series())
        figures.log_axis(axes, label=f"{self.what} (logarithmic)", value=words)
        if title:
            axes.set_title(title)
        return figure


class CallCosts(Costs):
    """`Costs` that are drawn as multiples of the call of an empty function, the cost `CALL`."""

    def calls(self, name: str) -> Sample:
        """How many times as long as the call of an empty function this takes."""
        return self.ratio(name, CALL)

    def plot(self, title: str | None = None):
        """A row for each device, a dot for each round, on a logarithmic axis."""
        from concurrency_lab import figures

        ratios = {name: self.calls(name).values for name in self.values if name != CALL}
        figure, axes = figures.new(height=1.4 + 0.4 * len(ratios))
        self._draw(axes, ratios, dict.fromkeys(ratios, 0))
        figures.log_axis(axes, label="times the call of an empty function (logarithmic)")
        if title:
            axes.set_title(title)
        return figure

    @staticmethod
    def _draw(axes, ratios: Mapping[str, tuple[float, ...]], series: Mapping[str, int]) -> None:
        from concurrency_lab import figures

        figures.dots(axes, ratios, value=_times, reference=1.0, series=series)
        for line in axes.lines:
            line.set(markersize=5, alpha=0.6)
        low, high = axes.get_xlim()
        axes.set_xlim(min(min(min(values) for values in ratios.values()), 1.0) / 1.3, high)


def _times(ratio: float) -> str:
    return f"{ratio:.0f}\u00d7" if ratio >= 10 else f"{ratio:.1f}\u00d7"


def one_use(statement: str, it: Any, repeated: int = 20) -> Callable[[], float]:
    """A function that times `statement`, which uses `it`, for a millisecond or two: seconds a use.

    The statement stands `repeated` times in the body of a loop, so that the loop costs next to
    nothing. Of three times it returns the shortest: the others were disturbed
    (https://docs.python.org/3/library/timeit.html#timeit.Timer.repeat). The collector of garbage
    is off meanwhile.
    """
    timer = timeit.Timer("\n".join([statement] * repeated), globals={"it": it})
    number = 1
    while timer.timeit(number) < 0.0005:
        number *= 2
    return lambda: min(timer.repeat(3, number)) / number / repeated


def in_turns(
    cases: Mapping[Hashable, Callable[[], float]],
    *,
    budget: float,
    max_rounds: int,
    min_rounds: int = 5,
    control: SlowdownMeter | None = None,
) -> tuple[dict[Any, list[float]], float]:
    """Call the functions in rounds, every other one backwards; return values and `others`.

    After `min_rounds`, no round is begun that would exceed `budget` seconds. `control` is probed
    for a twentieth of the time.
    """
    values: dict[Hashable, list[float]] = {name: [] for name in cases}
    start = time.perf_counter()
    with Progress("measuring") as progress, LoadMeter() as load:
        for turn in range(max_rounds):
            now = time.perf_counter()
            if turn >= min_rounds and now + (now - start) / turn > start + budget:
                break
            for name in cases if turn % 2 == 0 else reversed(list(cases)):
                progress.update(f"round {turn + 1}")
                values[name].append(cases[name]())
            while control and control.spent < 0.05 * (time.perf_counter() - start):
                control.probe()
    return values, load.others


def in_child(function: Callable, *arguments, timeout: float = 60.0) -> Costs:
    """Run a function that returns Costs in a child interpreter, so that it may fork safely.

    A notebook's kernel has several threads; a fork of a process with threads may hang.
    """
    from concurrency_lab.isolation import run_isolated

    target = [function.__module__, function.__qualname__]
    outcome = run_isolated(_print_costs, target, list(arguments), timeout=timeout)
    if outcome.exit_code != 0:
        raise RuntimeError(f"the measurement did not finish:\n{outcome}")
    found = json.loads(outcome.output.splitlines()[-1])
    return Costs(**found)


def _print_costs(target: list[str], arguments: list) -> None:
    from importlib import import_module

    module, name = target
    costs = getattr(import_module(module), name)(*arguments)
    print("\n" + json.dumps(asdict(costs)))
