"""What an idle thread and an idle process cost in memory (chapter 1)."""

import mmap
import multiprocessing
import sys
import threading
from contextlib import ExitStack

from concurrency_lab.experiments.costs import Costs, in_child

PAGE = mmap.PAGESIZE


def memory_costs(count: int = 8, rounds: int = 3) -> Costs:
    """Bytes for each of `count` idle threads, and of `count` idle processes per start method.

    Three ways to count, after psutil's documentation of `memory_full_info`: "RSS" all pages that
    the process holds; "PSS" the same, but a page shared by n processes counts 1/n (Linux only);
    "USS" only the pages that nobody else has: what comes free when the process ends. The names of
    the costs are "thread, USS", "process (fork), PSS" and so on.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}")
    kinds = ("USS", "PSS", "RSS") if sys.platform == "linux" else ("USS", "RSS")
    return in_child(_measure, count, rounds, kinds, timeout=120)


def park(connection) -> None:
    """What an idle process does: say that it is there, then wait to be told to go."""
    connection.send(True)
    connection.recv()


def _measure(count: int, rounds: int, kinds: list[str]) -> Costs:
    methods = [
        method
        for method in ("fork", "forkserver", "spawn")
        if method in multiprocessing.get_all_start_methods()
    ]
    found: dict[str, list[float]] = {"thread, USS": []}
    for _ in range(rounds):
        found["thread, USS"].append(_threads(count))
        for method in methods:
            for kind, size in _processes(count, method, kinds).items():
                found.setdefault(f"process ({method}), {kind}", []).append(size)
    return Costs(found, unit="bytes", what="memory each")


def _threads(count: int) -> float:
    import psutil

    me, leave = psutil.Process(), threading.Event()
    arrived = threading.Barrier(count + 1)

    def park_thread() -> None:
        arrived.wait()
        leave.wait()

    before = me.memory_full_info().uss
    threads = [threading.Thread(target=park_thread) for _ in range(count)]
    for thread in threads:
        thread.start()
    arrived.wait()
    after = me.memory_full_info().uss
    leave.set()
    for thread in threads:
        thread.join()
    # The smallest that the system can tell is a page; free pages may already have been there.
    return max(after - before, PAGE) / count


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
        return {k: sum(getattr(info, k.lower()) for info in infos) / count for k in kinds}
