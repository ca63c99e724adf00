"""Amdahl's law: the curve, and points measured under it (chapter 1).

Source: G. M. Amdahl, "Validity of the single processor approach to achieving large scale computing
capabilities", AFIPS 1967; J. L. Gustafson, "Reevaluating Amdahl's law", CACM 31(5), 1988.
"""

import math
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from concurrency_lab.timing import Sample


def amdahl(parallel: float, cores: float) -> float:
    """Speed-up of a fixed job of which the part `parallel` (0 to 1) spreads over `cores`."""
    _check(parallel, cores)
    return 1 / ((1 - parallel) + parallel / cores)


def gustafson(parallel: float, cores: float) -> float:
    """Speed-up of a job that grows with the cores: `parallel` is its part on the big machine."""
    _check(parallel, cores)
    return (1 - parallel) + parallel * cores


def _check(parallel: float, cores: float) -> None:
    if not 0 <= parallel <= 1:
        raise ValueError(f"parallel is a part of the work, from 0 to 1; not {parallel}")
    if cores <= 0:
        raise ValueError(f"cores must be more than 0, not {cores}")


def too_few_cores(cores: Sample, needed: float) -> str | None:
    """A reason if the median of the effective cores is less than `needed`."""
    from concurrency_lab.claims import number

    if cores.median >= needed:
        return None
    return f"only {number(cores.median)} effective cores were to be had"


@dataclass(frozen=True)
class Points:
    """Measured speed-ups by parallel part, and the effective cores of the same minutes."""

    speedups: dict[float, Sample]
    cores: Sample
    workers: int

    def too_few_cores(self, needed: float) -> str | None:
        """A reason if fewer effective cores were to be had; for `claim(..., undecided=...)`."""
        return too_few_cores(self.cores, needed)

    def efficiency(self, parallel: float) -> Sample:
        """Measured speed-up over Amdahl's for the effective cores: 1 is all that they allow."""
        measured = self.speedups[parallel]
        limit = amdahl(parallel, min(max(self.cores.median, 1.0), self.workers))
        return Sample([value / limit for value in measured.values], "", measured.others)

    def plot(self, title: str | None = None):
        """Amdahl's curve for the effective cores, and every measured speed-up as a dot."""
        from concurrency_lab import figures

        figure, axes = figures.new(height=3.4)
        xs = [n / 100 for n in range(101)]
        spread = (self.cores.low, self.cores.median, self.cores.high)
        cores = [min(max(value, 1.0), self.workers) for value in spread]
        curves = [[amdahl(x, n) for x in xs] for n in cores]
        axes.fill_between(xs, curves[0], curves[2], color=figures.PALETTE["blue"], alpha=0.2, lw=0)
        axes.plot(xs, curves[1], color=figures.PALETTE["blue"], label=(
            f"Amdahl's law with {cores[1]:.2f} effective cores"))  # fmt: skip
        orange = figures.PALETTE["vermillion"]
        for parallel, speedup in self.speedups.items():
            every = [parallel] * len(speedup.values)
            axes.plot(every, speedup.values, "o", markersize=4, alpha=0.5, color=orange)
        medians = [speedup.median for speedup in self.speedups.values()]
        axes.plot(list(self.speedups), medians, "D", color=orange, label="measured (median)")
        axes.set_xlabel("part of the work that can run in parallel")
        axes.set_ylabel("speed-up (times)")
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False, loc="lower right")
        if title:
            axes.set_title(title)
        return figure


def measure_amdahl(
    parts=(0.0, 0.25, 0.5, 0.75, 0.9, 1.0), seconds: float = 0.12, rounds: int = 5
) -> Points:
    """Run one job with more and more of it in worker processes; compare with all of it in one.

    `seconds` is about how long the whole job takes in one process. The workers are started before
    the clock. The effective cores are measured between the rounds.
    """
    from concurrency_lab.load import LoadMeter
    from concurrency_lab.machine import effective_cores, usable_cores
    from concurrency_lab.workloads import calibrate, spin

    workers = min(math.ceil(usable_cores()), 8)
    total = calibrate(spin, seconds)
    speedups: dict[float, list[float]] = {part: [] for part in parts}
    cores: list[float] = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool, LoadMeter() as load:
        list(pool.map(time.sleep, [0.05] * workers * 2))
        for turn in range(rounds):
            if turn % 2 == 0:
                cores.extend(effective_cores(budget=0.6).values)
            for part in parts if turn % 2 == 0 else reversed(parts):
                begin = time.perf_counter()
                spin(total)
                sequential = time.perf_counter() - begin
                begin = time.perf_counter()
                spin(round(total * (1 - part)))
                if part:
                    pieces = 4 * workers  # so that a slow core does not make all others wait
                    list(pool.map(spin, [round(total * part / pieces)] * pieces))
                speedups[part].append(sequential / (time.perf_counter() - begin))
    return Points(
        {part: Sample(values, "times", load.others) for part, values in speedups.items()},
        Sample(cores, "cores", load.others),
        workers,
    )
