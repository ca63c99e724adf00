"""What an idle thread and an idle process cost in memory (chapter 1)."""

import mmap
import multiprocessing
import threading
from contextlib import ExitStack
from dataclasses import replace

from concurrency_lab.experiments.costs import Costs, in_child

PAGE = mmap.PAGESIZE
KINDS = ("USS", "PSS", "RSS")


def memory_costs(count: int = 8, rounds: int = 3) -> Costs:
    """Bytes for each of `count` idle threads, and of `count` idle processes per start method.

    Three ways to count, after psutil's documentation of `memory_full_info`: "RSS" all pages that
    the process holds; "PSS" the same, but a page shared by n processes counts 1/n (Linux only);
    "USS" only the pages that nobody else has: what comes free when the process ends. The names of
    the costs are "thread, USS", "process (fork), PSS" and so on.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}")
    # Every round in a child of its own: freed stacks of threads are used again.
    found = [in_child(_measure, count, timeout=120) for _ in range(rounds)]
    values = {name: [one.values[name][0] for one in found] for name in found[0].values}
    return replace(found[0], values=values)


def park(connection) -> None:
    """What an idle process does: say that it is there, then wait to be told to go."""
    connection.send(True)
    connection.recv()


def _measure(count: int) -> Costs:
    from concurrency_lab.machine import no_start_method

    values, absent = {"thread, USS": [_threads(count)]}, {}
    for method in ("fork", "forkserver", "spawn"):
        names = {kind: f"process ({method}), {kind}" for kind in KINDS}
        if reason := no_start_method(method):
            absent |= dict.fromkeys(names.values(), reason)
            continue
        sizes = _processes(count, method)
        for kind, name in names.items():
            if kind in sizes:
                values[name] = [sizes[kind]]
            else:
                absent[name] = f"this system does not tell {kind} of other processes"
    return Costs(values, unit="bytes", what="memory each", absent=absent)


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


def _processes(count: int, method: str) -> dict[str, float]:
    context = multiprocessing.get_context(method)
    with ExitStack() as leave:
        started = []
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=park, args=(theirs,), daemon=True)
            process.start()
            leave.callback(process.join)
            leave.callback(ours.send, None)
            started.append((process, ours))
        for _, connection in started:
            connection.recv()
        sizes = [_sizes(process.pid) for process, _ in started]
    return {kind: sum(size[kind] for size in sizes) / count for kind in sizes[0]}


def _sizes(pid: int) -> dict[str, int]:
    import psutil

    process = psutil.Process(pid)
    try:
        info = process.memory_full_info()
    except psutil.AccessDenied:  # macOS shows a process its own pages only
        info = process.memory_info()
    return {kind: getattr(info, kind.lower()) for kind in KINDS if hasattr(info, kind.lower())}
