"""What the queues of the standard library cost: in one thread, and between two (chapter 3)."""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from concurrency_lab.experiments.costs import CALL, CallCosts, in_turns, one_use

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PUT_GET, HAND_OVER, THERE_AND_BACK = "put + get", "hand over", "there and back"
USES = (PUT_GET, HAND_OVER, THERE_AND_BACK)
"""The costs are named "Queue, put + get" and so on."""

KINDS: dict[str, Callable[[], Any]] = {
    "Queue": queue.Queue,
    "Queue(maxsize=1000)": lambda: queue.Queue(maxsize=1000),
    "LifoQueue": queue.LifoQueue,
    "PriorityQueue": queue.PriorityQueue,
    "SimpleQueue": queue.SimpleQueue,
}
"""What makes a queue of each kind that threads can wait for."""


class QueueCosts(CallCosts):
    """`Costs` of the uses of queues, and of the call of an empty function (`CALL`)."""

    def plot(self, title: str | None = None) -> "Figure":
        """A panel for each use, a row for each kind of queue, a dot for each round."""
        from concurrency_lab import figures

        panels = {
            use: {
                name.removesuffix(f", {use}"): self.calls(name).values
                for name in self.values
                if name.endswith(f", {use}")
            }
            for use in USES
        }
        rows = [len(ratios) for ratios in panels.values()]
        figure, all_axes = figures.new(
            height=1.5 + 0.36 * sum(rows) + 0.35 * len(rows),
            rows=len(rows), sharex=True, height_ratios=[n + 0.2 for n in rows],
        )  # fmt: skip
        heads = ("put + get in one thread", "handed over to another thread", "there and back")
        for number, (axes, ratios) in enumerate(zip(all_axes, panels.values(), strict=True)):
            self._draw(axes, ratios, dict.fromkeys(ratios, number))
            axes.set_title(heads[number], fontsize=12)
        lowest = min(min(values) for ratios in panels.values() for values in ratios.values())
        highest = max(max(values) for ratios in panels.values() for values in ratios.values())
        for axes in all_axes:
            axes.set_xlim(min(lowest, 1.0) / 1.4, highest * 1.4)
            figures.log_axis(axes)
        all_axes[-1].set_xlabel("times the call of an empty function (logarithmic)")
        if title:
            figure.suptitle(title, x=0.02, ha="left", weight="bold", fontsize=13)
        return figure


def queue_costs(
    *, rounds: int = 30, budget: float = 6.0, stream: float = 0.04, trips: int = 200
) -> QueueCosts:
    """Seconds for the uses of every kind of queue; the cases take turns.

    "put + get": an item is put in and taken out by one thread. "hand over": the time for each
    item of a stream from this thread to another one, neither of which does anything else; it
    lasts about `stream` seconds, so that the GIL changes hands many times. "there and back": a
    message to another thread and its answer, by two queues; the mean of `trips`. A `deque`
    (append + popleft) has no way to wait, so it is measured in one thread only.

    At most `rounds` rounds; after five, none is begun that would exceed `budget` seconds.
    """
    if rounds < 1 or trips < 1 or not (budget > 0 and stream > 0):
        raise ValueError("queue_costs needs a budget, a stream, a round and a trip at least")
    cases = {CALL: one_use("it()", _empty)}
    for name, make in KINDS.items():
        cases[f"{name}, {PUT_GET}"] = one_use("it.put(1); it.get()", make())
    cases[f"deque, {PUT_GET}"] = one_use("it.append(1); it.popleft()", deque())
    for name, make in KINDS.items():
        items = max(1000, min(1_000_000, round(stream / hand_over(make(), 2000))))
        cases[f"{name}, {HAND_OVER}"] = lambda make=make, n=items: hand_over(make(), n)
    for name, make in KINDS.items():
        cases[f"{name}, {THERE_AND_BACK}"] = lambda make=make: there_and_back(make, trips)
    values, others = in_turns(cases, budget=budget, max_rounds=rounds)
    return QueueCosts(values, what="time of one use", others=others)


def _empty() -> None:
    pass


def hand_over(stream: Any, items: int) -> float:
    """Seconds for each of `items` that this thread puts into `stream` and another takes out."""
    ended = 0.0

    def consume() -> None:
        nonlocal ended
        get = stream.get
        for _ in range(items):
            get()
        ended = time.perf_counter()

    consumer = threading.Thread(target=consume, name="consumer", daemon=True)
    try:
        consumer.start()
        put = stream.put
        begun = time.perf_counter()
        for _ in range(items):
            put(0)
        consumer.join()
    finally:
        while consumer.is_alive():  # interrupted: it gets what it still waits for
            try:
                stream.put_nowait(0)
            except queue.Full:
                time.sleep(0.0001)
    return (ended - begun) / items


def there_and_back(make: Callable[[], Any], trips: int) -> float:
    """Seconds for a number to go to another thread by one queue and come back by a second one."""
    there, back = make(), make()

    def answer() -> None:
        while (number := there.get()) >= 0:
            back.put(number)

    other = threading.Thread(target=answer, name="answerer", daemon=True)
    try:
        other.start()
        there.put(0)
        back.get()
        begun = time.perf_counter()
        for number in range(trips):
            there.put(number)
            back.get()
        return (time.perf_counter() - begun) / trips
    finally:
        there.put(-1)
        if other.ident is not None:
            other.join()
