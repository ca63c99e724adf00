"""Run small threaded functions under every possible schedule.

    from types import SimpleNamespace

    def setup():
        return SimpleNamespace(count=0)

    def increment(shared):
        value = shared.count
        shared.count = value + 1

    result = explore(increment, increment, setup=setup, check=lambda s: s.count == 2)
    print(result)       # 6 schedules, 4 fail; one of those, step by step
    assert result.ok    # in a test

Real threads run the functions, one step at a time; at each step the explorer decides which.
"""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable
from typing import Any

from concurrency_lab.explorer._control import (
    ExplorationError,
    Run,
    _inside,
    controlled_world,
)
from concurrency_lab.explorer._search import Search
from concurrency_lab.explorer._source import check_granularity, why_no_steps
from concurrency_lab.explorer._state import Shared
from concurrency_lab.explorer.result import KINDS, PHRASES, Exploration, Outcome, Schedule, overview

__all__ = [
    "KINDS",
    "PHRASES",
    "Exploration",
    "ExplorationError",
    "Outcome",
    "Schedule",
    "explore",
    "overview",
]

MAX_STATES = 50_000
NAMES = "ABCDEF"
_one_at_a_time = threading.Lock()


def explore(
    *functions: Callable[..., Any],
    setup: Callable[[], Any] | None = None,
    check: Callable[..., Any] | None = None,
    invariant: Callable[..., Any] | None = None,
    granularity: str = "line",
    preemptions: int | None = None,
    max_steps: int = 500,
    max_states: int | None = None,
    merge: bool = True,
    time_limit: float = 10.0,
) -> Exploration:
    """Run one to six functions, each in a thread, under every schedule.

    ``setup()`` makes what the threads share, anew for each run, locks included; each function,
    ``check`` and ``invariant`` get it as their argument. Without ``setup`` they get none and share
    global variables. ``check`` says whether the final state is right, ``invariant`` must be true
    after every step.

    The code is ordinary Python with `threading`, `queue` and `time.sleep`. Threads may switch

    - ``granularity="line"``: before each statement;
    - ``"bytecode"``: before each instruction that touches something that can be shared: all that
      the language allows;
    - ``"interpreter"``: where CPython with the GIL looks whether another thread wants to run: at
      the start of a function, after a call and at the end of a loop's round.

    What stands on one line is one step for "line", also `n += 1`. A call into Python's library is
    one step, up to where it blocks. A time-out may expire at any
    moment. `time.sleep` takes no time, because any thread may be slow.

    ``preemptions`` leaves out schedules in which threads that could go on are interrupted more
    often. ``max_steps`` ends a schedule that does not end, ``max_states`` the exploration (if not
    given, more than 50 000 states are an error). With ``merge=False`` equal states are not
    recognised: slower, for comparison. ``time_limit`` is how many seconds a step may take.

    Raises ExplorationError for programs that cannot be explored: not deterministic, blocked by
    something else than the library's locks, too large. Raises TypeError and ValueError for wrong
    arguments.
    """
    if not 1 <= len(functions) <= len(NAMES):
        raise TypeError(
            f"explore() takes one to {len(NAMES)} functions, one for each thread, "
            f"not {len(functions)}"
        )
    for function in functions:
        if not callable(function):
            raise TypeError(f"{function!r} is not a function: give the function, do not call it")
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            raise TypeError(f"{function!r} is a generator or coroutine: a call would run nothing")
    check_granularity(granularity)
    if max_steps < 1 or (max_states is not None and max_states < 1) or time_limit <= 0:
        raise ValueError("max_steps, max_states and time_limit are positive numbers")
    if preemptions is not None and preemptions < 0:
        raise ValueError("preemptions is a number from 0 on, or None for no limit")
    if _inside():
        raise ExplorationError("explore() was called in code that is being explored")
    for function in functions:
        if reason := why_no_steps(function):
            raise ExplorationError(f"{function!r} cannot be cut into steps: {reason}")
    names = list(NAMES[: len(functions)])
    others = [f for f in (setup, check, invariant) if f is not None]
    everything = Shared([*functions, *others])
    began = time.perf_counter()
    with _one_at_a_time, controlled_world(everything.namespaces, everything.helpers) as ours:
        functions = tuple(map(ours, functions))
        setup, check, invariant = ours(setup), ours(check), ours(invariant)
        run = Run(list(functions), names, setup, granularity, time_limit)
        try:
            limit = MAX_STATES if max_states is None else max_states
            search = Search(
                run, Shared(functions), check, invariant, preemptions, max_steps, limit, merge
            )
            with run.watching():
                search.explore()
        finally:
            run.close()
    if max_states is None and len(search.states) > MAX_STATES:
        raise ExplorationError(
            f"more than {MAX_STATES:,} states. Make the program smaller (fewer threads, rounds or "
            "lines), leave out schedules with preemptions=1 (or 0, 2), or stop with max_states="
        )
    return Exploration(search, names, time.perf_counter() - began)
