"""Instruments for experiments with concurrent Python code.

| name | what it does |
| --- | --- |
| `machine` | cores, Python, start methods, and how many cores' worth of work gets done now |
| `compare`, `sweep`, `busy_cores` | time functions in turn, as paired ratios (`Sample`) |
| `Timeline`, `plot_timelines` | record and draw who ran when: threads, processes, asyncio tasks |
| `claim` | a sentence, what was measured, what was expected, and the verdict |
| `explore` | run small threaded functions under every schedule and show those that fail |
| `run_isolated` | run code that may hang or crash, in a child interpreter with a time limit |
| `workloads`, `LocalServer` | work bound by Python, C code or waiting; a real HTTP server |
| `figures` | one style for all plots, in light and dark |

The `experiments` package holds what single chapters measure.

Names are imported on first use: a worker process that needs only `workloads` must not pay for
Matplotlib, or every start-up time in the book would be wrong.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from concurrency_lab import figures, machine, workloads
    from concurrency_lab.claims import claim
    from concurrency_lab.explorer import explore
    from concurrency_lab.isolation import run_isolated
    from concurrency_lab.server import LocalServer
    from concurrency_lab.timeline import Timeline, plot_timelines
    from concurrency_lab.timing import Sample, busy_cores, compare, sweep

__all__ = [
    "LocalServer",
    "Sample",
    "Timeline",
    "busy_cores",
    "claim",
    "compare",
    "explore",
    "figures",
    "machine",
    "plot_timelines",
    "run_isolated",
    "sweep",
    "workloads",
]

_HOME = {
    "LocalServer": "server",
    "Sample": "timing",
    "Timeline": "timeline",
    "busy_cores": "timing",
    "claim": "claims",
    "compare": "timing",
    "explore": "explorer",
    "plot_timelines": "timeline",
    "run_isolated": "isolation",
    "sweep": "timing",
}


def __getattr__(name: str):
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
