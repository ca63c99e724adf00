"""One CPU-bound thread against the latency of a thread that waits for a socket (chapter 1).

The effect and its name are from David Beazley, "Understanding the Python GIL" (PyCon 2010). It
needs a core for the calculating thread while the other one waits: on one core, or on a busy
machine, that thread does not run in the short moment in which the GIL is free.
"""

import subprocess
import sys
import threading
import time
from contextlib import contextmanager, nullcontext

from concurrency_lab.experiments.costs import Costs
from concurrency_lab.experiments.echo import EchoSocket

ALONE, PROCESS = "alone", "beside a process"


def beside_thread(interval: float) -> str:
    """The name of the case: beside a CPU-bound thread, with this switch interval in seconds."""
    return f"beside a thread, {interval * 1000:g} ms"


@contextmanager
def busy_thread(interval: float):
    """A pure-Python thread that never waits, with `sys.setswitchinterval(interval)` meanwhile."""
    stop, before = threading.Event(), sys.getswitchinterval()

    def count() -> None:
        n = 0
        while not stop.is_set():
            n += 1

    thread = threading.Thread(target=count, name="busy", daemon=True)
    sys.setswitchinterval(interval)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(before)


@contextmanager
def busy_process():
    """A child interpreter that counts; it ends when its input closes, so never outlives us."""
    code = (
        "import sys, threading, os\n"
        "threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0))).start()\n"
        "print('busy', flush=True)\n"
        "while True: pass\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def ping_latency(intervals=(0.0005, 0.001, 0.005, 0.02), pings: int = 10, rounds: int = 6) -> Costs:
    """Seconds for one byte to an echo process and back: alone, beside a process, beside a thread.

    Each round visits every case; a value is the median of `pings` round trips. `intervals` are
    the switch intervals (seconds) to try beside the CPU-bound thread.
    """
    from statistics import median

    from concurrency_lab.load import LoadMeter

    values: dict[str, list[float]] = {}

    def ping(echo: EchoSocket) -> float:
        taken = []
        for _ in range(pings):
            begin = time.perf_counter()
            echo.round_trip(b"!")
            taken.append(time.perf_counter() - begin)
        return median(taken)

    def case(name: str, neighbour) -> None:
        with neighbour:
            values.setdefault(name, []).append(ping(echo))

    with EchoSocket() as echo, LoadMeter() as load:
        ping(echo)
        for turn in range(rounds):
            cases = [(ALONE, nullcontext()), (PROCESS, busy_process())]
            cases += [(beside_thread(interval), busy_thread(interval)) for interval in intervals]
            for name, neighbour in cases if turn % 2 == 0 else reversed(cases):
                case(name, neighbour)
    # The busy process is a child of ours: the meter does not count it among the others.
    return Costs(values, what="round trip of one byte", others=load.others)
