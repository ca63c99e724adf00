"""Whether a call lets other threads run (chapter 1)."""

import threading
import time
from collections.abc import Callable


def ticks_during(call: Callable[[], object], rounds: int = 3) -> int:
    """How far another thread counts while this thread is inside `call()`: the least of `rounds`.

    0 means that the call held the GIL from its first to its last moment. Counting is steadier than
    timing: a busy machine makes the count smaller, but cannot make it appear from nothing.
    """
    counted = 0
    stop = threading.Event()

    def count() -> None:
        nonlocal counted
        while not stop.is_set():
            counted += 1

    counter = threading.Thread(target=count, name="counter", daemon=True)
    counter.start()
    try:
        while counted == 0:
            time.sleep(0)
        ticks = []
        for _ in range(rounds):
            before = counted
            call()
            ticks.append(counted - before)
    finally:
        stop.set()
        counter.join()
    return min(ticks)
