"""How much memory a forked child copies when it only looks at what its parent has (chapter 8).

fork gives the child the parent's pages; one that either of them writes to is copied then
(https://man7.org/linux/man-pages/man2/fork.2.html). In CPython looking at an object writes to
it: its count of references changes. The collector of garbage writes too, unless `gc.freeze` has
told it to leave the objects alone (https://docs.python.org/3/library/gc.html#gc.freeze).
"""

import gc
import mmap
import multiprocessing
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from concurrency_lab.experiments.costs import Costs, in_child

PAGE = mmap.PAGESIZE
FROZEN = ", after gc.freeze"
CASES = (
    "list, untouched",
    "list, read",
    "list, read" + FROZEN,
    "list, garbage collected",
    "list, garbage collected" + FROZEN,
    "bytes, read",
    "NumPy array, read",
    "NumPy array, written",
)


@dataclass(frozen=True, repr=False)
class Copies(Costs):
    """`Costs` that are drawn from 0 up to what the data takes."""

    megabytes: float = 100.0

    def share(self, name: str) -> float | None:
        """The median, as a part of what the data takes; None if it is absent."""
        return None if name in self.absent else self[name].median / (self.megabytes * 2**20)

    def __str__(self) -> str:
        from concurrency_lab import figures

        lines = [f"{name}: {figures.size(self[name].median)}" for name in self.values]
        return "\n".join(lines or sorted(set(self.absent.values())))

    __repr__ = __str__

    def plot(self, title: str | None = None):
        """A row for each case, a dot for each round, and a line at the size of the data."""
        from concurrency_lab import figures

        rows = {
            name.replace(FROZEN, f",\n{FROZEN[2:]}"): [n / 2**20 for n in found]
            for name, found in self.values.items()
        }
        figure, axes = figures.new(height=1.4 + 0.45 * len(rows or "."))
        if rows:
            series = {row: _LOOKS[row.partition(",")[0]] for row in rows}
            figures.dots(axes, rows, value=_mebibytes, reference=self.megabytes, series=series)
            axes.set_xlim(left=-0.03 * self.megabytes)
            axes.set_xlabel("memory copied (MiB); dashed: all the data")
        else:
            axes.axis("off")
            why = next(iter(self.absent.values()), "nothing was measured")
            axes.text(0.5, 0.5, why, ha="center", va="center", transform=axes.transAxes)
        if title:
            figure.suptitle(title, x=0.02, ha="left", weight="bold", fontsize=13)
        return figure


_LOOKS = {"list": 0, "bytes": 1, "NumPy array": 2}


def _mebibytes(amount: float) -> str:
    from concurrency_lab import figures

    return figures.size(amount * 2**20)


def copy_on_write(megabytes: float = 100, rounds: int = 3) -> Copies:
    """Bytes of memory of its own (USS) that a forked child gains by what it does.

    The parent has a list of small objects that take so many MiB (2**20 bytes) together, without
    the list's own pointers to them; `bytes` and a NumPy array of that size. Each child does one
    thing: nothing, read all, collect garbage, or write. The objects are empty lists: they are
    counted in every Python (None and small integers are not, since 3.12,
    https://peps.python.org/pep-0683/) and the collector of garbage looks after them. It runs only
    where a case says so. A value is at least a page. Linux only; elsewhere all are `absent`.
    """
    from concurrency_lab.machine import not_linux

    if not megabytes > 0 or rounds < 1:
        raise ValueError(
            f"copy_on_write needs megabytes above 0 and a round at least, not {megabytes} and "
            f"{rounds}"
        )
    if reason := not_linux():
        found = Costs({}, "bytes", "memory copied", absent=dict.fromkeys(CASES, reason))
    else:
        found = in_child(_measure, megabytes, rounds, timeout=120)
    return Copies(
        found.values, found.unit, found.what, found.others, found.absent, megabytes=megabytes
    )


def _measure(megabytes: float, rounds: int) -> Costs:
    import numpy

    size = int(megabytes * 2**20)
    gc.disable()  # of this child interpreter; that of the caller is let be
    each = -(-sys.getsizeof([]) // 16) * 16  # CPython hands out memory in steps of 16 bytes
    lists: list[list] = [[] for _ in range(max(1, size // each))]
    array = numpy.ones(max(1, size // 8))
    data = b"\x01" * size
    actions: dict[str, Callable[[], Any]] = {
        "list, untouched": _nothing,
        "list, read": lambda: _read(lists),
        "list, garbage collected": gc.collect,
        "bytes, read": lambda: data.count(b"x"),
        "NumPy array, read": array.sum,
        "NumPy array, written": lambda: array.fill(2.0),
    }
    values: dict[str, list[float]] = {case: [] for case in CASES}
    for _ in range(rounds):
        for case in CASES:
            gained = _gain(actions[case.removesuffix(FROZEN)], freeze=case.endswith(FROZEN))
            values[case].append(max(PAGE, gained))
    return Costs(values, "bytes", "memory copied")


def _nothing() -> None:
    pass


def _read(lists: list[list]) -> None:
    for _ in lists:
        pass


def _gain(action: Callable[[], Any], freeze: bool) -> float:
    """Bytes of its own that a forked child has more after the action than before."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    if freeze:
        gc.freeze()
    try:
        process = context.Process(target=_act, args=(theirs, action), daemon=True)
        process.start()
        theirs.close()  # else a child that fails would be waited for without end
        gain = ours.recv()
        process.join()
    finally:
        if freeze:
            gc.unfreeze()
        ours.close()
    return gain


def _act(connection, action: Callable[[], Any]) -> None:
    import psutil

    me = psutil.Process()
    me.memory_full_info()  # looking takes memory, too, the first time
    before = me.memory_full_info().uss
    action()
    connection.send(me.memory_full_info().uss - before)
