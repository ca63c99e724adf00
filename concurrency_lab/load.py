"""How much of the computer is in use: by this program, and by others while it measures."""

from __future__ import annotations

import random
import sys
import threading
import time
import zlib

import psutil

try:
    import resource
except ImportError:  # Windows
    resource = None


def tree_cpu_seconds() -> float:
    """CPU seconds that this process and its descendants have used, running or ended.

    On Windows, descendants that have ended are not known and not counted.
    """
    return descendants_cpu_seconds() + own_cpu_seconds()


def own_cpu_seconds() -> float:
    seconds = time.process_time()
    if resource is not None:
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds += ended.ru_utime + ended.ru_stime
    return seconds


def descendants_cpu_seconds() -> float:
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        try:
            times = process.cpu_times()
            total += times.children_user + times.children_system
            if sys.platform == "linux":
                # The clock that clock_getcpuclockid(3) returns: nanoseconds, not 10 ms ticks.
                total += time.clock_gettime((~process.pid << 3) | 2)
            else:
                total += times.user + times.system
        except (psutil.Error, OSError):
            continue  # ended in between
    return total


class LoadMeter:
    """Measures, round a ``with`` block, how many cores *other* programs used meanwhile.

    ``meter.others``: the CPU time of the whole computer (with time that a hypervisor gave to
    other guests, "steal") minus that of this process and its descendants, over the wall time.
    The computer counts in ticks, often of 10 ms: blocks of less than 0.2 s tell little. In a
    container the whole computer is the host.
    """

    others: float = 0.0

    def __enter__(self) -> LoadMeter:
        self._start = self._read()
        return self

    def __exit__(self, *exception: object) -> None:
        wall, system, own = (b - a for a, b in zip(self._start, self._read(), strict=True))
        self.others = max(0.0, (system - own) / wall) if wall > 0 else 0.0

    @staticmethod
    def _read() -> tuple[float, float, float]:
        times = psutil.cpu_times()
        busy = times.user + times.system  # includes guests; on Windows, interrupts as well
        busy += sum(getattr(times, k, 0.0) for k in ("nice", "irq", "softirq", "steal"))
        return time.perf_counter(), busy, tree_cpu_seconds()


class SlowdownMeter:
    """A control experiment: how many times longer two threads take side by side than one alone.

    Each compresses the same bytes; zlib lets go of the GIL meanwhile, so with two cores at hand
    the answer is 1. It is more if other programs are busy, and also if what they or this computer
    do cannot be seen from here: other guests of the hypervisor, two "cores" that are threads of
    one core, a processor that gets hot. Then everything that runs in parallel is slowed down.
    """

    # 64 different bytes at random, which take a few milliseconds to compress.
    _DATA = random.Random(0).randbytes(150_000).translate(bytes(range(64)) * 4)

    def __init__(self) -> None:
        self.spent = 0.0  # seconds
        self._alone = self._both = 0.0

    @property
    def slowdown(self) -> float:
        return max(1.0, self._both / self._alone) if self._alone else 1.0

    def probe(self) -> None:
        start = time.perf_counter()
        self._compress()
        between = time.perf_counter()
        other = threading.Thread(target=self._compress)
        other.start()
        self._compress()
        other.join()
        end = time.perf_counter()
        self._alone += between - start
        self._both += end - between
        self.spent += end - start

    def _compress(self) -> None:
        zlib.compress(self._DATA)
