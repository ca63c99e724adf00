"""Whether a call lets other threads run (chapter 1)."""

import sys
import threading
import time
from collections.abc import Callable


def ticks_during(call: Callable[[], object], rounds: int = 3) -> int:
    """How far another thread counts while this thread is inside `call()`: the least of `rounds`.

    0 means that the call held the GIL from its first to its last moment. Nobody is made to give
    the GIL up meanwhile: the switch interval is a minute, and the counter offers it after every
    step. So the count moves only while the call itself has let go. (With the usual interval the
    counter would get a turn at the end of every long call, before it is looked at.) Counting is
    steadier than timing: a busy machine makes the count smaller, but cannot make it appear.
    """
    counted = 0
    stop = threading.Event()

    def count() -> None:
        nonlocal counted
        while not stop.is_set():
            counted += 1
            time.sleep(0)

    counter = threading.Thread(target=count, name="counter", daemon=True)
    interval = sys.getswitchinterval()
    counter.start()
    try:
        while counted == 0:
            time.sleep(0)
        sys.setswitchinterval(60)
        ticks = []
        for _ in range(rounds):
            before = counted
            call()
            ticks.append(counted - before)
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        counter.join()
    return min(ticks)
