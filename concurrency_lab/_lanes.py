"""Where spans were recorded, in names for readers, and which of nested spans counts when."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concurrency_lab.timeline import Span

# Names that Python, and not the author of a program, gave to a thread or task.
_GIVEN_NAME = re.compile(
    r"(Thread-\d+( \(.*\))?|Dummy-\d+( \(.*\))?|ThreadPoolExecutor-\d+_\d+|asyncio_\d+|Task-\d+)$"
)


class Lanes:
    """Readable names, numbered in the order in which processes, threads and tasks appear."""

    def __init__(self, creator: str, found: Iterable[tuple[str, dict[str, Any], Any]]) -> None:
        found = list(found)
        self.creator = creator
        self.processes: dict[str, str] = {creator: "main"}
        self.names: dict[tuple[str, ...], str] = {}
        self.threads: dict[str, set[Any]] = {}
        for process, record, _ in found:
            self.processes.setdefault(process, f"process {len(self.processes)}")
            thread = record.get("thread")
            self.threads.setdefault(process, set()).add(tuple(thread) if thread else None)
            self._name(process, "thread", thread)
            self._name(process, "task", record.get("task"))
        self.several = len({process for process, _, _ in found} | {creator}) > 1

    def _name(self, process: str, what: str, name: list[Any] | None) -> str | None:
        if name is None:
            return None
        key = (process, what, *name)
        if key not in self.names:
            kin = [used for other, used in self.names.items() if other[:2] == (process, what)]
            base = what if _GIVEN_NAME.match(name[0]) else name[0]
            names = (f"{base} {number}" for number in itertools.count(1))
            if base == name[0]:
                names = itertools.chain([base], names)
            self.names[key] = next(unused for unused in names if unused not in kin)
        return self.names[key]

    def describe(
        self, process: str, record: dict[str, Any]
    ) -> tuple[str, str | None, str | None, str]:
        """Return process, thread, task and lane."""
        thread = self._name(process, "thread", record.get("thread"))
        task = self._name(process, "task", record.get("task"))
        label = self.processes[process]
        if "lane" in record:
            return label, thread, task, record["lane"]
        parts = [label] if self.several else []
        # A worker process with one thread needs no name for it.
        if thread and not (process != self.creator and len(self.threads[process]) == 1):
            parts.append(thread)
        if task:
            parts.append(task)
        return label, thread, task, " · ".join(parts) or label


def pieces(spans: Iterable[Span]) -> dict[str, list[tuple[str, float, float]]]:
    """Return for each lane what its innermost span was, piece by piece: (kind, start, end)."""
    lanes: dict[str, list[Span]] = {}
    for span in spans:
        lanes.setdefault(span.lane, []).append(span)
    found = {}
    for lane, group in lanes.items():
        last = max(span.start if span.end is None else span.end for span in group)
        closed = [(span.start, last if span.end is None else span.end, span) for span in group]
        times = sorted({t for start, end, _ in closed for t in (start, end)})
        found[lane] = _innermost(closed, times)
    return found


def _innermost(
    spans: list[tuple[float, float, Span]], times: list[float]
) -> list[tuple[str, float, float]]:
    """Sweep over `times`; of the spans that are open, the one that started last counts."""
    waiting = sorted(spans, key=lambda item: item[0], reverse=True)
    active: list[tuple[float, float, Span]] = []
    pieces = []
    for start, end in itertools.pairwise(times):
        while waiting and waiting[-1][0] <= start:
            active.append(waiting.pop())
        active = [item for item in active if item[1] > start]
        if active:
            pieces.append((active[-1][2].kind, start, end))
    return pieces
