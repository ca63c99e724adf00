"""Several costs measured side by side, compared as ratios and drawn on one logarithmic axis."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from concurrency_lab.timing import Sample


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
