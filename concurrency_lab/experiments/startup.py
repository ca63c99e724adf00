"""What it costs to start a thread and a process (chapter 1)."""

import multiprocessing
import os
import threading
from functools import partial

from concurrency_lab.experiments.costs import Costs, in_child


def start_thread() -> None:
    """Start a thread, let it do nothing, and wait for its end."""
    thread = threading.Thread(target=os.getpid)
    thread.start()
    thread.join()


def start_process(method: str) -> None:
    """The same with a process, started by this start method."""
    process = multiprocessing.get_context(method).Process(target=os.getpid)
    process.start()
    process.join()
    process.close()


def startup_costs(budget: float = 4.0) -> Costs:
    """Seconds to start and join a thread, and a process under every start method of this system.

    Measured in a child interpreter, because fork must not be used in a process with threads.
    """
    return in_child(_measure, budget, timeout=budget + 60)


def _measure(budget: float) -> Costs:
    from concurrency_lab.machine import no_start_method
    from concurrency_lab.timing import compare

    cases = {"thread": start_thread}
    absent = {}
    for method in ("fork", "forkserver", "spawn"):
        if reason := no_start_method(method):
            absent[f"process ({method})"] = reason
        else:
            cases[f"process ({method})"] = partial(start_process, method)
    timed = compare(cases, budget=budget, min_rounds=7)
    seconds = {name: timed.seconds(name) for name in cases}
    others = max(sample.others for sample in seconds.values())
    return Costs(
        {name: list(sample.values) for name, sample in seconds.items()},
        what="time to start and join",
        others=others,
        absent=absent,
    )
