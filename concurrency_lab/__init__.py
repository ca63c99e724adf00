"""Instruments for experiments with concurrent Python code.

| name | what it does |
| --- | --- |
| `machine` | which cores, Python, start methods there are, and how many cores' worth of work gets done |
| `compare`, `sweep`, `busy_cores` | time functions side by side in one run, as paired ratios (`Sample`) |
| `Timeline` | record and draw who ran when: threads, processes, asyncio tasks |
| `claim` | a sentence, what was measured, what was expected, and the verdict |
| `run_isolated` | run code that may hang or crash, in a child interpreter with a time limit |
| `workloads`, `LocalServer` | work to do: bound by Python, by C code, by waiting; a real HTTP server |
| `figures` | one style for all plots, in light and dark |

The `experiments` package holds what single chapters measure.
"""

from concurrency_lab import figures, machine, workloads
from concurrency_lab.claims import claim
from concurrency_lab.isolation import run_isolated
from concurrency_lab.server import LocalServer
from concurrency_lab.timeline import Timeline
from concurrency_lab.timing import Sample, busy_cores, compare, sweep

__all__ = [
    "LocalServer",
    "Sample",
    "Timeline",
    "busy_cores",
    "claim",
    "compare",
    "figures",
    "machine",
    "run_isolated",
    "sweep",
    "workloads",
]
