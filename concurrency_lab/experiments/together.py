"""Run functions in threads that set off together, and leave none of them behind (chapter 2)."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

GRACE = 5.0  # seconds that threads have to end after they were called off


def nothing() -> None:
    """What calls off work that ends by itself."""


def together(
    jobs: Sequence[Callable[[], Any]],
    *,
    call_off: Callable[[], None] = nothing,
    timeout: float = 60.0,
) -> list[Any]:
    """Run every job in a thread of its own, released by a barrier; return what they returned.

    When a job raises, when `timeout` (seconds) is over, or on Ctrl-C, `call_off()` is called once:
    it must make the other jobs end, for example by setting an event that they look at.

    Raises what the first job to fail raised; TimeoutError that names the threads that were still
    at work. A thread that is blocked for ever cannot be ended from outside: it stays behind, as a
    daemon, and the message says so.
    """
    start = threading.Barrier(len(jobs))
    results: list[Any] = [None] * len(jobs)
    errors: list[BaseException] = []
    stopped = threading.Event()

    def run(number: int, job: Callable[[], Any]) -> None:
        try:
            start.wait()
            results[number] = job()
        except BaseException as error:
            if not stopped.is_set():  # else it is a consequence of being called off
                errors.append(error)
            stop()

    def stop() -> None:
        if not stopped.is_set():
            stopped.set()
            start.abort()
            call_off()

    threads = [
        threading.Thread(target=run, args=(number, job), name=f"together-{number}", daemon=True)
        for number, job in enumerate(jobs)
    ]
    late: list[str] = []
    try:
        for thread in threads:
            thread.start()
        end = time.monotonic() + timeout
        for thread in threads:
            while thread.is_alive() and (left := end - time.monotonic()) > 0:
                thread.join(min(left, 0.2))  # on Windows Ctrl-C cannot interrupt a longer wait
        late = [thread.name for thread in threads if thread.is_alive()]
    finally:
        if any(thread.is_alive() for thread in threads):
            stop()
            end = time.monotonic() + GRACE
            for thread in threads:
                if thread.ident is not None:
                    thread.join(max(0.0, end - time.monotonic()))
    stuck = [thread.name for thread in threads if thread.is_alive()]
    rest = f"{', '.join(stuck)} cannot be ended, and wait on as daemons" if stuck else ""
    if errors:
        if rest:
            errors[0].add_note(rest)
        raise errors[0]
    if late:
        message = f"after {timeout:g} s still at work: {', '.join(late)}"
        raise TimeoutError(f"{message}; {rest}" if rest else message)
    return results
