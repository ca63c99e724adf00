"""Record who ran when - in threads, processes and asyncio tasks - and draw it.

Every process appends to a file of its own, one JSON line at the start and one at the end of a
span, so that what a killed worker did until then can still be read. Times come from
`time.perf_counter`, whose clock is the same for all processes of a machine
(https://docs.python.org/3/library/time.html#time.perf_counter: "system-wide").
"""

from __future__ import annotations

import inspect
import itertools
import json
import os
import re
import shutil
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from concurrency_lab._lanes import Lanes, pieces

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = ("run", "wait", "blocked")
"""What a span can be: running, waiting (sleep, I/O, a queue), blocked by a lock or the GIL."""

# A notebook runs its cells within a task of its own, which nobody asked for.
_NOTEBOOK = re.compile(r"[\\/](ipykernel|IPython)[\\/]")


def _name_process() -> None:
    global _process
    _process = f"{os.getpid()}-{time.perf_counter_ns()}"  # process ids are used again


_name_process()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_name_process)


@dataclass(frozen=True)
class Span:
    """Something that took time. `start` and `end` are seconds since the timeline was made.

    `end` is None if no end was recorded: still going on, or the process was killed. `process` is
    "main" or "process 1", "process 2" ...; `thread` and `task` are None for a main thread and
    outside asyncio. `lane` is the row in the figure; `pid` the process id.
    """

    label: str
    kind: str
    start: float
    end: float | None
    process: str
    thread: str | None
    task: str | None
    lane: str
    pid: int


@dataclass(frozen=True)
class Mark:
    """An instant, `time` seconds after the timeline was made."""

    label: str
    time: float
    process: str
    lane: str
    pid: int


class Timeline:
    """A record of spans and marks that threads, processes and tasks write at the same time.

        with Timeline() as timeline:
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(timeline.record(work), range(4)))
        timeline.plot()

    It can be pickled to workers of any kind on this machine. The records are kept in a temporary
    folder, which `close()` (or the end of the `with` block, or of the creating process) reads and
    removes; spans can be read and drawn before and after. Recording takes some microseconds.
    """

    def __init__(self) -> None:
        _remove_abandoned()
        self._folder = Path(tempfile.mkdtemp(prefix=f"timeline-{os.getpid()}-"))
        self._creator = _process
        self._zero = time.perf_counter()
        self._files: dict[str, int] = {}
        self._kept: tuple[list[Span], list[Mark]] | None = None
        self._original = True
        weakref.finalize(self, _remove, self._folder, self._files, os.getpid())

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self._folder, "creator": self._creator, "zero": self._zero}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._folder, self._creator, self._zero = state["folder"], state["creator"], state["zero"]
        self._files = {}
        self._kept = None
        self._original = False  # the folder is not ours to remove
        weakref.finalize(self, _close, self._files)

    def __enter__(self) -> Timeline:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop recording and remove the folder. A copy, in a worker, does nothing."""
        if self._original and self._creator == _process and self._kept is None:
            self._kept = self._read()
            if os.name == "nt":
                _close(self._files)  # Windows does not remove open files
            # Elsewhere they stay open as long as the timeline lives: a thread may be writing.
            shutil.rmtree(self._folder, ignore_errors=True)

    # Recording

    def span(self, label: str, kind: str = "run", *, lane: str | None = None) -> _OpenSpan:
        """Return a context manager that records its block, also across `await`.

        `kind` is one of `KINDS`. The lane is found from process, thread and task unless given.
        """
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
        return _OpenSpan(self, str(label), kind, lane)

    def waiting(self, label: str = "wait", *, lane: str | None = None) -> _OpenSpan:
        """Return `span(label, "wait")`: for a sleep, I/O, a queue."""
        return self.span(label, "wait", lane=lane)

    def blocked(self, label: str = "blocked", *, lane: str | None = None) -> _OpenSpan:
        """Return `span(label, "blocked")`: for a lock."""
        return self.span(label, "blocked", lane=lane)

    def mark(self, label: str, *, lane: str | None = None) -> None:
        """Record an instant."""
        self._write({"mark": str(label), "at": time.perf_counter(), **_whereabouts(lane)})

    def record(
        self, func: Callable[..., Any], label: str | None = None, kind: str = "run"
    ) -> Callable[..., Any]:
        """Return `func` with a span around each call; it can be pickled if `func` can.

        The label is the function's name unless given, and may use the call's arguments as
        `str.format` does: "page {0}". A coroutine function stays one.
        """
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
        if not callable(func):
            raise TypeError(f"record needs a function, not {func!r}")
        made = _RecordedCoroutine if inspect.iscoroutinefunction(func) else _Recorded
        return made(self, func, label, kind)

    def _write(self, record: dict[str, Any]) -> None:
        # One write of one line to a file opened for appending: threads do not mix their lines,
        # and no lock can be left locked by a fork.
        if self._kept is not None:
            raise RuntimeError("this timeline is closed: record within its `with` block")
        file = self._files.get(_process)
        os.write(self._open() if file is None else file, json.dumps(record).encode() + b"\n")

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
        try:
            file = os.open(self._folder / f"{_process}.jsonl", flags, 0o600)
        except FileNotFoundError:
            raise RuntimeError("this timeline was closed by the process that made it") from None
        first = self._files.setdefault(_process, file)
        if first != file:  # another thread was faster
            os.close(file)
        return first

    # Reading

    @property
    def spans(self) -> list[Span]:
        """All spans recorded so far, in order of their start."""
        return list((self._kept or self._read())[0])

    @property
    def marks(self) -> list[Mark]:
        """All marks recorded so far, in order of time."""
        return list((self._kept or self._read())[1])

    def max_running(self) -> int:
        """Return the greatest number of lanes that were in a "run" span at the same moment.

        A "wait" or "blocked" span inside a "run" span counts as not running. A span without an
        end counts until the last record of its lane.
        """
        changes = []
        for lane in pieces(self.spans).values():
            for kind, start, end in lane:
                if kind == "run" and end > start:
                    changes += [(start, 1), (end, -1)]
        return max(itertools.accumulate(change for _, change in sorted(changes)), default=0)

    def _read(self) -> tuple[list[Span], list[Mark]]:
        found = []
        for file in self._folder.glob("*.jsonl"):
            # The last line may be incomplete if its process was killed while writing.
            *lines, _ = file.read_bytes().split(b"\n")
            records = [json.loads(line) for line in lines]
            ends = {r["end"]: r["at"] for r in records if "end" in r}
            found += [(file.stem, r, ends.get(r.get("id"))) for r in records if "end" not in r]
        found.sort(key=lambda item: item[1]["at"])
        lanes = Lanes(self._creator, found)
        spans, marks = [], []
        for process, record, end in found:
            where = lanes.describe(process, record)
            pid = int(process.split("-")[0])
            start = record["at"] - self._zero
            if "mark" in record:
                marks.append(Mark(record["mark"], start, where[0], where[3], pid))
            else:
                stop = None if end is None else end - self._zero
                spans.append(Span(record["label"], record["kind"], start, stop, *where, pid))
        return spans, marks

    # Drawing

    def plot(self, title: str | None = None, order: Iterable[str] | None = None) -> Figure:
        """Return the figure: a row for each lane, a bar for each span, a diamond for each mark.

        `order` lists lanes from the top; the rest follow as they appeared. Labels are written
        where they fit.
        """
        from concurrency_lab._timeline_figure import draw

        return draw({title: self}, order)

    def __repr__(self) -> str:
        spans, marks = self._kept or self._read()
        lanes = len({item.lane for item in [*spans, *marks]})
        return f"<Timeline: spans {len(spans)}, marks {len(marks)}, lanes {lanes}>"


def plot_timelines(timelines: Mapping[str, Timeline]) -> Figure:
    """Return a figure of several timelines, one below the other, with one time axis."""
    from concurrency_lab._timeline_figure import draw

    if not timelines:
        raise ValueError("plot_timelines needs at least one timeline")
    return draw(dict(timelines), None)


class _OpenSpan:
    """What `Timeline.span` returns."""

    _numbers = itertools.count()

    def __init__(self, timeline: Timeline, label: str, kind: str, lane: str | None) -> None:
        self._timeline = timeline
        self._record = {"label": label, "kind": kind}
        self._lane = lane
        self._open: list[int] = []  # a span object may be entered again

    def __enter__(self) -> None:
        number = next(_OpenSpan._numbers)
        self._timeline._write(
            {"id": number, "at": time.perf_counter(), **self._record, **_whereabouts(self._lane)}
        )
        self._open.append(number)

    def __exit__(self, *exc: object) -> None:
        number = self._open.pop()
        if self._timeline._kept is None:  # else it outlived the timeline and has no end
            self._timeline._write({"end": number, "at": time.perf_counter()})


class _Recorded:
    """A function with a span around each call."""

    def __init__(
        self, timeline: Timeline, func: Callable[..., Any], label: str | None, kind: str
    ) -> None:
        self.timeline, self.func, self.kind = timeline, func, kind
        self.label = getattr(func, "__name__", type(func).__name__) if label is None else label
        self.formatted = label is not None
        self.__name__ = getattr(func, "__name__", type(func).__name__)
        self.__doc__ = func.__doc__

    def _span(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _OpenSpan:
        label = self.label.format(*args, **kwargs) if self.formatted else self.label
        return self.timeline.span(label, self.kind)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self._span(args, kwargs):
            return self.func(*args, **kwargs)


class _RecordedCoroutine(_Recorded):
    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self._span(args, kwargs):
            return await self.func(*args, **kwargs)


def _whereabouts(lane: str | None) -> dict[str, Any]:
    """Say which thread and task this is; `None` means the main thread and no task."""
    where: dict[str, Any] = {}
    if lane is not None:
        where["lane"] = str(lane)
    thread = threading.current_thread()
    if thread is not threading.main_thread():
        where["thread"] = [thread.name, thread.ident]
    asyncio = sys.modules.get("asyncio")  # a worker without tasks need not import it
    if asyncio is not None:
        try:
            task = asyncio.current_task()
        except RuntimeError:  # no event loop runs in this thread
            task = None
        if task is not None and not _NOTEBOOK.search(_source(task)):
            where["task"] = [task.get_name(), id(task)]
    return where


def _source(task: Any) -> str:
    """Return the file that a task's coroutine function stands in, or ""."""
    return getattr(getattr(task.get_coro(), "cr_code", None), "co_filename", "")


def _close(files: dict[str, int]) -> None:
    while files:
        os.close(files.popitem()[1])


def _remove_abandoned() -> None:
    """Remove folders of creators that were killed, and could not tidy up, over an hour ago."""
    for folder in Path(tempfile.gettempdir()).glob("timeline-*-*"):
        creator = folder.name.split("-")[1]
        try:
            recent = time.time() - folder.stat().st_mtime < 3600
        except OSError:
            continue
        if creator.isdecimal() and not recent and not psutil.pid_exists(int(creator)):
            shutil.rmtree(folder, ignore_errors=True)


def _remove(folder: Path, files: dict[str, int], owner: int) -> None:
    if os.getpid() == owner:
        _close(files)
        shutil.rmtree(folder, ignore_errors=True)
