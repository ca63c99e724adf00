"""What an idle thread and an idle process cost in memory (chapter 1)."""

import multiprocessing
import sys
import threading
from contextlib import ExitStack

from concurrency_lab.experiments.costs import Costs, in_child

UNIQUE, PROPORTIONAL, RESIDENT = "uss", "pss", "rss"


def memory_costs(count: int = 8, rounds: int = 3) -> dict[str, Costs]:
    """Bytes for each of `count` idle threads, and of `count` idle processes per start method.

    Three ways to count a process, after psutil's documentation of `memory_full_info`:
    "rss" all pages it holds; "pss" the same, but a page shared by n processes counts 1/n (Linux);
    "uss" only the pages that nobody else has: what comes free when the process ends.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}")
    kinds = (UNIQUE, PROPORTIONAL, RESIDENT) if sys.platform == "linux" else (UNIQUE, RESIDENT)
    everything = in_child(_measure, count, rounds, kinds, timeout=120)
    return {
        kind: Costs(
            {
                name.removesuffix(f" {kind}"): values
                for name, values in everything.values.items()
                if name.endswith(f" {kind}")
            },
            unit="bytes",
            what=f"memory each ({kind.upper()})",
            others=0.0,
        )
        for kind in kinds
    }


def park(connection) -> None:
    """What an idle process does: say that it is there, then wait to be told to go."""
    connection.send(True)
    connection.recv()


def _measure(count: int, rounds: int, kinds: list[str]) -> Costs:
    found: dict[str, list[float]] = {}
    methods = [
        method
        for method in ("fork", "forkserver", "spawn")
        if method in multiprocessing.get_all_start_methods()
    ]
    for _ in range(rounds):
        for kind, size in _threads(count, kinds).items():
            found.setdefault(f"thread {kind}", []).append(size)
        for method in methods:
            for kind, size in _processes(count, method, kinds).items():
                found.setdefault(f"process ({method}) {kind}", []).append(size)
    return Costs(found, unit="bytes")


def _threads(count: int, kinds: list[str]) -> dict[str, float]:
    import psutil

    me, leave = psutil.Process(), threading.Event()
    arrived = threading.Barrier(count + 1)

    def park_thread() -> None:
        arrived.wait()
        leave.wait()

    before = me.memory_full_info()
    threads = [threading.Thread(target=park_thread) for _ in range(count)]
    for thread in threads:
        thread.start()
    arrived.wait()
    after = me.memory_full_info()
    leave.set()
    for thread in threads:
        thread.join()
    return {k: max(getattr(after, k) - getattr(before, k), 1024) / count for k in kinds}


def _processes(count: int, method: str, kinds: list[str]) -> dict[str, float]:
    import psutil

    context = multiprocessing.get_context(method)
    with ExitStack() as leave:
        infos, started = [], []
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=park, args=(theirs,), daemon=True)
            process.start()
            leave.callback(process.join)
            leave.callback(ours.send, None)
            started.append((process, ours))
        for _, connection in started:
            connection.recv()
        for process, _ in started:
            infos.append(psutil.Process(process.pid).memory_full_info())
        return {k: sum(getattr(info, k) for info in infos) / count for k in kinds}
