"""The life of a thread as the operating system sees it (chapter 1).

A second process reads the state of every thread of this one about every millisecond. It must be a
second process: a thread that looked from inside would need the GIL, and would make the watched
thread wait for it.
"""

import json
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

NEW, RUNNABLE, RUNNING, NOT_RUNNING, DEAD = "New", "Runnable", "Running", "Not Running", "Dead"
ORDER = (NEW, RUNNABLE, RUNNING, NOT_RUNNING, DEAD)

# Runs in the watching process. `stat` tells R (running, or able to) from S and D (waiting);
# `schedstat` tells how many nanoseconds were spent on a core and how many in the run queue.
# Source: proc_pid_stat(5) and the kernel's Documentation/scheduler/sched-stats.rst.
_WATCHER = """
import json, os, select, sys, time
folder, pause = f"/proc/{sys.argv[1]}/task", float(sys.argv[2])
rows = []
print("watching", flush=True)
while not select.select([sys.stdin], [], [], pause)[0]:
    now = time.perf_counter()
    for thread in os.listdir(folder):
        try:
            with open(f"{folder}/{thread}/stat") as stat, open(f"{folder}/{thread}/schedstat") as s:
                state = stat.read().rpartition(")")[2].split()[0]
                on_core, queued, _ = s.read().split()
        except OSError:
            continue
        rows.append((now, int(thread), state, int(on_core), int(queued)))
json.dump(rows, sys.stdout)
"""


@dataclass(frozen=True)
class Interval:
    """One thread in one state, from `start` to `end` (seconds since the watch began)."""

    thread: str
    state: str
    start: float
    end: float


class StateWatch:
    """Watch the states of threads from outside; Linux only.

        with StateWatch(thread) as watch:
            thread.start()
            thread.join()
        watch.plot()

    The time between two readings is divided by the system's own count: so much on a core
    (Running), so much in the run queue (Runnable), and the rest Not Running.
    """

    def __init__(self, *threads: threading.Thread, interval: float = 0.001):
        if not threads:
            raise ValueError("StateWatch needs at least one thread, for example StateWatch(thread)")
        self.threads = threads
        self.interval = interval
        self.intervals: list[Interval] = []
        self._on_core: list[tuple[float, float, float]] = []
        self._watcher = None
        self._begin = self._end = 0.0
        self._unborn: list[threading.Thread] = []

    def __enter__(self) -> "StateWatch":
        self._unborn = [thread for thread in self.threads if thread.ident is None]
        self._begin = time.perf_counter()
        if sys.platform != "linux":
            return self
        import os

        self._watcher = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _WATCHER, str(os.getpid()), str(self.interval)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._watcher.stdout.readline()
        self._begin = time.perf_counter()
        return self

    def __exit__(self, *_exception) -> None:
        self._end = time.perf_counter()
        if self._watcher is None:
            return
        try:
            out, _ = self._watcher.communicate("stop", timeout=10)
            self._read(json.loads(out))
        finally:
            self._watcher.kill()
            self._watcher.wait()

    def _read(self, rows: list) -> None:
        for thread in self.threads:
            seen = [row for row in rows if row[1] == thread.native_id]
            if not seen:
                self._add(thread.name, NEW, self._begin, self._end)
                continue
            if thread in self._unborn:
                self._add(thread.name, NEW, self._begin, seen[0][0])
            used = (seen[-1][3] - seen[0][3]) / 1e9
            self._on_core.append((seen[0][0], seen[-1][0], used))
            for window in _windows(seen):
                self._share_out(thread.name, window)
            if not thread.is_alive():
                self._add(thread.name, DEAD, seen[-1][0], self._end)

    def _share_out(self, thread: str, window: list) -> None:
        """Divide the time between two readings among the states."""
        start, end = window[0][0], window[-1][0]
        on_core = min((window[-1][3] - window[0][3]) / 1e9, end - start)
        queued = min((window[-1][4] - window[0][4]) / 1e9, end - start - on_core)
        rest = end - start - on_core - queued
        if all(row[2] == "R" for row in window):
            rest = 0.0  # not yet booked; divided like what is
            on_core, queued = (on_core, queued) if on_core + queued else (1.0, 0.0)
        parts = {RUNNING: on_core, RUNNABLE: queued, NOT_RUNNING: rest}
        least = 0.05 * sum(parts.values())
        parts = {state: part for state, part in parts.items() if part > least}
        scale = (end - start) / sum(parts.values())
        last = self.intervals[-1].state if self.intervals else None
        for state in sorted(parts, key=lambda state: state != last):
            self._add(thread, state, start, start + parts[state] * scale)
            start += parts[state] * scale

    def _add(self, thread: str, state: str, start: float, end: float) -> None:
        start, end = start - self._begin, end - self._begin
        last = self.intervals[-1] if self.intervals else None
        if last and (last.thread, last.state) == (thread, state):
            self.intervals[-1] = Interval(thread, state, last.start, end)
        else:
            self.intervals.append(Interval(thread, state, start, end))

    def states(self, thread: threading.Thread) -> set[str]:
        """The states in which this thread was seen."""
        return {interval.state for interval in self.intervals if interval.thread == thread.name}

    def seconds(self, thread: threading.Thread, state: str) -> float:
        """Seconds that this thread was seen in this state."""
        return sum(
            interval.end - interval.start
            for interval in self.intervals
            if (interval.thread, interval.state) == (thread.name, state)
        )

    def history(self, thread: threading.Thread, shortest: float = 0.02) -> list[str]:
        """The states in their order, without Runnable and without waits shorter than `shortest`.

        Which program gets the core, and for how long, is the machine's affair and not the thread's.
        """
        found: list[str] = []
        for interval in (i for i in self.intervals if i.thread == thread.name):
            brief = interval.end - interval.start < shortest
            if interval.state == RUNNABLE or (interval.state == NOT_RUNNING and brief):
                continue
            if not found or found[-1] != interval.state:
                found.append(interval.state)
        return found

    def blind(self) -> str | None:
        """A reason if the system showed nothing; for `claim(..., unless=...)`."""
        return None if self._on_core else "this system does not tell the states of threads"

    def cores(self) -> float | None:
        """Cores that the threads kept busy together: their time on a core over the time it took.

        Taken from the system's own count of nanoseconds; None if it was not to be had.
        """
        if not self._on_core:
            return None
        begin = min(start for start, _, _ in self._on_core)
        end = max(end for _, end, _ in self._on_core)
        return sum(used for _, _, used in self._on_core) / max(end - begin, 1e-9)

    def plot(self, title: str | None = None):
        """A row a thread and a bar an interval, coloured by state."""
        from concurrency_lab import figures

        paint = {
            NEW: {"color": figures.PALETTE["muted"], "height": 0.16},
            RUNNABLE: {"color": figures.PALETTE["orange"], "height": 0.4},
            RUNNING: {"color": figures.PALETTE["blue"], "height": 0.72},
            NOT_RUNNING: {
                "facecolor": figures.PALETTE["paper"],
                "edgecolor": figures.PALETTE["muted"],
                "hatch": "////",
                "height": 0.4,
            },
            DEAD: {"color": figures.PALETTE["ink"], "height": 0.16},
        }
        names = [thread.name for thread in self.threads]
        figure, axes = figures.new(height=1.5 + 0.55 * len(names))
        for state in ORDER:
            for interval in (i for i in self.intervals if i.state == state):
                axes.barh(
                    names.index(interval.thread),
                    (interval.end - interval.start) * 1000,
                    left=interval.start * 1000,
                    linewidth=0,
                    **paint[state],
                )
            axes.barh(0, 0, linewidth=0, label=state, **paint[state])
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(0, (self._end - self._begin) * 1000)
        axes.set_xlabel("time since the watch began (ms)")
        if title:
            axes.set_title(title)
        figure.legend(
            *axes.get_legend_handles_labels(),
            loc="outside lower center",
            ncols=5,
            handlelength=1.2,
            columnspacing=1.0,
        )
        return figure


def _windows(rows: list):
    """Runs of readings of one thread, each long enough for the kernel to have booked its time.

    While a thread is on a core or queued, its counts move only now and then. So a run goes on
    until most of it is accounted for, or until the thread waits: then everything is booked.
    """
    window = [rows[0]]
    for row in rows[1:]:
        window.append(row)
        length = row[0] - window[0][0]
        booked = (row[3] - window[0][3] + row[4] - window[0][4]) / 1e9
        if row[2] != "R" or booked > 0.8 * length:
            yield window
            window = [row]
    if len(window) > 1:
        yield window
