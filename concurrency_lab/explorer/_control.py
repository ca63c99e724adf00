"""Real threads of which one at a time is awake, and what `threading` is for them.

Each function runs in a thread of its own. A trace function (`sys.settrace`) stops the thread before
each step; a lock that is taken stops it, too. A thread that stops decides by itself who goes on
(`Director.next`) and wakes that thread, or goes on itself: the thread that called `explore` wakes
only at the end of a run.

`threading.Lock` is a lock made here while explored code runs. All the rest, RLock, Condition,
Semaphore, Event, Barrier and the queues, is the standard library's own Python code on top of it.
"""

from __future__ import annotations

import _queue
import _thread
import contextlib
import os
import queue
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from concurrency_lab.explorer._source import Program, Statement, is_library, program_of

_allocate = _thread.allocate_lock
_here = threading.local()  # .thread: the Controlled one this thread is; .setting_up: in setup()
_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_LIBRARY_FILES = {threading.__file__, queue.__file__}
CLOCK_START = 1000.0


class Stop(BaseException):
    """Unwinds a thread of a run that is over."""


class ExplorationError(RuntimeError):
    """The program cannot be explored; the message says why and what to do."""


class Director(Protocol):
    """Decides what happens at each stop of a `Run`."""

    def next(self, run: Run) -> int | None:
        """The index of the thread that takes the next step, or None: the run is over."""


# -- locks ------------------------------------------------------------------------------------


class Lock:
    """What `threading.Lock()` makes for explored code: it asks the explorer instead of blocking."""

    def __init__(self) -> None:
        self.owner: str | None = None

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if not blocking and timeout != -1:
            raise ValueError("can't specify a timeout for a non-blocking call")
        if timeout < 0 and timeout != -1:
            raise ValueError("timeout value must be a non-negative number")
        thread = _controlled()
        if self.owner is not None and blocking and timeout != 0:
            if thread is None:
                raise ExplorationError(
                    "setup, check or invariant waits for a lock that is taken: it runs while no "
                    "thread can release it"
                )
            if not thread.run.over:
                thread.block(self, timeout)
        if self.owner is not None:
            return thread is not None and thread.run.over
        self.owner = thread.name if thread else "setup"
        return True

    def release(self) -> None:
        if self.owner is None and not _unwinding():
            raise RuntimeError("release unlocked lock")
        self.owner = None

    def locked(self) -> bool:
        return self.owner is not None

    def _at_fork_reinit(self) -> None:
        self.owner = None

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


def _unwinding() -> bool:
    thread = _controlled()
    return thread is not None and thread.run.over


# -- threads ----------------------------------------------------------------------------------


class _Steps:
    """The local trace function of one call of an explored function."""

    __slots__ = ("at", "first", "program", "statement", "thread")

    def __init__(self, thread: Controlled, program: Program) -> None:
        self.thread, self.program = thread, program
        self.statement: Statement | None = None
        self.at = self.first = -1  # offsets: of the last stop, of the statement's first

    def line(self, frame: types.FrameType, event: str, arg: object) -> Any:
        if event == "line":
            at = frame.f_lasti
            statement = self.program.statement(frame.f_lineno)
            back = at <= (self.first if statement.loops else self.at)
            new = statement is not self.statement or back
            if new:
                self.first = at
            leaving = self.statement is not None and statement.holds(self.statement)
            self.statement, self.at = statement, at
            if new and statement.is_step:
                self.thread.stop(frame, statement, statement.plain, leaving)
        if _REFRESH:
            _refresh(frame)
        return self.line

    def opcode(self, frame: types.FrameType, event: str, arg: object) -> Any:
        if event == "opcode":
            at = frame.f_lasti
            if at in self.program.stops:
                statement = self.program.statement(frame.f_lineno)
                first = statement is not self.statement or at <= self.at
                self.statement, self.at = statement, at
                if not (self.thread.returned and self.program.stops[at] == "after a call"):
                    self.thread.stop(frame, statement, first and statement.plain)
            self.thread.returned = False
        elif event == "return":
            self.thread.returned = True
        if _REFRESH:
            _refresh(frame)
        return self.opcode


# Until Python 3.12 the end of a trace function writes a copy of the local variables back, also of
# those that closures share with other threads (PEP 667): take a new copy just before.
_REFRESH = sys.version_info < (3, 13)


def _refresh(frame: types.FrameType) -> None:
    if frame.f_code.co_freevars or frame.f_code.co_cellvars:
        frame.f_locals  # noqa: B018


class Controlled:
    """A thread under control. It lives as long as the exploration and runs its function anew."""

    def __init__(self, run: Run, index: int, name: str, function: Callable) -> None:
        self.run, self.index, self.name, self.function = run, index, name, function
        self.turn = _allocate()
        self.turn.acquire()
        self.closing = False  # ends when it comes back
        self.directing = False
        self.reset()
        self.thread = threading.Thread(target=self._live, name=name, daemon=True)

    def reset(self) -> None:
        self.done = False
        self.error: BaseException | None = None
        self.frame: types.FrameType | None = None  # of explored code
        self.top: types.FrameType | None = None  # the innermost, perhaps of the library
        self.statement: Statement | None = None
        self.plain = True
        self.leaving = False  # about to leave a with statement, not to enter it
        self.history = b""
        self.blocked: Lock | None = None
        self.timeout: float = -1
        self.waits: tuple[object, str] | None = None
        self.returned = False

    def can_run(self) -> bool:
        if self.done:
            return False
        return self.blocked is None or self.blocked.owner is None or self.timeout > 0

    def _live(self) -> None:
        _here.thread = self
        if self.run.core is not None:
            os.sched_setaffinity(0, {self.run.core})
        while True:
            self.turn.acquire()
            if self.closing:
                return
            self._once()

    def _once(self) -> None:
        sys.settrace(self._call)  # an exception in a trace function ends tracing: begin anew
        try:
            self.function(*self.run.arguments)
        except Stop:
            pass
        except ExplorationError as error:
            self.run.failure, self.run.over = error, True
        except BaseException as error:  # SystemExit too ends a thread, not the exploration
            self.error = error
        finally:
            sys.settrace(None)
        self.done, self.frame, self.top, self.blocked = True, None, None, None
        self.run.hand_over(self)

    def _call(self, frame: types.FrameType, event: str, arg: object) -> Any:
        if self.directing:
            return None
        code = frame.f_code
        programs = self.run.programs
        if code not in programs:
            programs[code] = program_of(frame, self.run.granularity)
        program = programs[code]
        if program is None or code.co_name == "<lambda>" and self.run.passes_on(frame):
            return None
        steps = _Steps(self, program)
        if self.run.granularity == "line":
            trace = steps.line
        else:
            trace = steps.opcode
            frame.f_trace_opcodes = True
        frame.f_trace = trace  # 3.13 wants it before the next line
        return trace

    def stop(
        self, frame: types.FrameType, statement: Statement, plain: bool, leaving: bool = False
    ) -> None:
        """Before a step: let the director decide who goes on."""
        if self.run.over:
            raise Stop
        self.frame, self.top, self.statement, self.plain = frame, frame, statement, plain
        self.leaving = leaving
        self.run.hand_over(self)
        if self.run.over:
            raise Stop

    def block(self, lock: Lock, timeout: float) -> None:
        """Wait for a lock until it is free, or, with a timeout, until the director says so."""
        self.blocked, self.timeout = lock, timeout
        self.top = sys._getframe(2)
        self.waits = _waiting_in(self.top, lock)
        since = self.run.clock
        self.run.hand_over(self)
        self.blocked, self.waits = None, None
        if self.run.over:
            raise Stop
        if lock.owner is not None:
            self.run.clock = max(self.run.clock, since + timeout)

    def frames(self) -> Iterator[types.FrameType]:
        """The calls in progress, innermost first, without the explorer's own."""
        frame = self.top
        while frame is not None:
            code = frame.f_code
            if code is Controlled._once.__code__:
                return
            if not code.co_filename.startswith(_HERE):
                yield frame
            frame = frame.f_back


def _waiting_in(frame: types.FrameType | None, lock: Lock) -> tuple[object, str]:
    """The object that a thread waits for and the method it called: (lock, "acquire")."""
    found: tuple[object, str] = (lock, "acquire")
    while frame is not None and frame.f_code.co_filename in _LIBRARY_FILES:
        own = frame.f_locals.get("self")
        if own is not None:
            method = frame.f_code.co_name
            if isinstance(own, threading.Condition) and getattr(own, "_lock", None) is not None:
                inner = own._lock
                if lock is inner or lock is getattr(inner, "_block", None):
                    method = "acquire"
            found = (own, method)
        frame = frame.f_back
    return found


# -- a run ------------------------------------------------------------------------------------


class Run:
    """Runs the functions again and again, each time as the director says."""

    def __init__(
        self,
        functions: list[Callable],
        names: list[str],
        setup: Callable | None,
        granularity: str,
        time_limit: float,
    ) -> None:
        self.setup, self.granularity, self.time_limit = setup, granularity, time_limit
        self.programs: dict[types.CodeType, Program | None] = {}
        self._passing: dict[types.CodeType, bool] = {}
        self.control = _allocate()
        self.control.acquire()
        self.director: Director | None = None
        self.failure: BaseException | None = None
        self.over = False
        self.steps = 0
        self.clock, self.clock_was_read = CLOCK_START, False
        self.state: Any = None
        self.arguments: tuple = ()
        self.priming: list[Controlled] = []
        self.awake: Controlled | None = None
        cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
        self.core = min(cores) if len(cores) > 1 else None  # handing over is faster on one core
        self.threads = [
            Controlled(self, i, name, function)
            for i, (name, function) in enumerate(zip(names, functions, strict=True))
        ]
        for thread in self.threads:
            thread.thread.start()

    def passes_on(self, frame: types.FrameType) -> bool:
        """Whether a lambda only calls an explored function: then it is no step of its own."""
        code = frame.f_code
        if code not in self._passing:
            target = None
            names = code.co_names
            if len(names) == 1:
                target = frame.f_globals.get(names[0])
            elif not names and len(code.co_freevars) == 1:
                target = frame.f_locals.get(code.co_freevars[0])
            self._passing[code] = isinstance(target, types.FunctionType) and not is_library(
                target.__code__
            )
        return self._passing[code]

    def once(self, director: Director) -> None:
        """Run everything once. Raises what the director raised, or ExplorationError."""
        self.director, self.failure, self.over = director, None, False
        self.steps, self.clock = 0, CLOCK_START
        _here.setting_up = True
        try:
            if self.setup is None:
                self.arguments = ()
            else:
                self.state = self.setup()
                self.arguments = () if self.state is None else (self.state,)
        finally:
            _here.setting_up = False
        for thread in self.threads:
            thread.reset()
        self.priming = list(self.threads)
        self.awake = self.priming.pop(0)
        try:
            self.awake.turn.release()
            self._wait()
        finally:
            self.over = True
            self._unwind()
        if self.failure is not None:
            raise self.failure

    def hand_over(self, me: Controlled) -> None:
        """(Called in a controlled thread at a stop) wake who is next; return when it is me."""
        if me.closing:
            return
        ended = me.done  # the next run may have begun when we are back here
        chosen: Controlled | None = None
        if not self.over:
            if self.priming:
                chosen = self.priming.pop(0)
            else:
                self.steps += 1
                me.directing = True
                try:
                    index = self.director.next(self)
                except BaseException as error:
                    self.failure, index = error, None
                me.directing = False
                if index is None:
                    self.over = True
                else:
                    chosen = self.threads[index]
        if chosen is me:
            return
        self.awake = chosen
        (chosen.turn if chosen else self.control).release()
        if not ended:
            me.turn.acquire()

    def _wait(self) -> None:
        """Until a controlled thread gives control back. Watches that they go on."""
        while True:
            before = self.steps
            if self.control.acquire(timeout=self.time_limit):
                return
            if self.steps == before:
                raise ExplorationError(self._stuck())

    def _stuck(self) -> str:
        frames = sys._current_frames()
        for thread in self.threads:
            frame = frames.get(thread.thread.ident)
            inside = frame
            while frame is not None and is_library(frame.f_code):
                frame = frame.f_back
            waiting = inside is not None and inside.f_code.co_filename.startswith(_HERE)
            if frame is not None and not waiting:
                program = self.programs.get(frame.f_code)
                text = program.text(frame.f_lineno) if program else frame.f_code.co_name
                return (
                    f"thread {thread.name} did not come back from {text!r} (line {frame.f_lineno}) "
                    f"within {self.time_limit:g} s. The explorer controls threading, queue and "
                    "time.sleep only. Make locks inside setup or inside the functions, leave out "
                    "files, sockets and processes, or give a longer time_limit"
                )
        return f"the program did not come back within {self.time_limit:g} s; give a longer time_limit"

    def _unwind(self) -> None:
        """Let the threads that have not ended end."""
        if self.awake is not None and not self.control.acquire(timeout=self.time_limit):
            self.awake.closing = True  # blocked outside
        for thread in self.threads:
            if thread.done or thread.closing or thread in self.priming:
                continue
            thread.turn.release()
            self.awake = thread
            if not self.control.acquire(timeout=self.time_limit):
                thread.closing = True
        self.priming = []

    def close(self) -> None:
        """End the threads."""
        self.over = True
        for thread in self.threads:
            thread.closing = True
            if thread.turn.locked():
                thread.turn.release()
        for thread in self.threads:
            thread.thread.join(timeout=1.0)


# -- what explored code finds in place of the real things ---------------------------------------


def _controlled() -> Controlled | None:
    """The controlled thread that asks; None also for what the director calls in it."""
    thread = getattr(_here, "thread", None)
    return None if thread is None or thread.directing else thread


def _inside() -> bool:
    return getattr(_here, "thread", None) is not None or getattr(_here, "setting_up", False)


def _clock(real: Callable[[], float]) -> Callable[[], float]:
    def read() -> float:
        thread = _controlled()
        if thread is None:
            return real()
        thread.run.clock_was_read = True
        return thread.run.clock

    return read


def _replacements() -> dict[int, tuple[Any, Any]]:
    """(the real thing, what explored code gets), by the identity of the real thing.

    Each asks which thread calls: other threads of the process get the real thing.
    """
    real_sleep, simple_queue = time.sleep, queue.SimpleQueue

    def make_lock():
        return Lock() if _inside() else _allocate()

    def sleep(seconds: float) -> None:
        thread = _controlled()
        if thread is None:
            return real_sleep(seconds)
        if seconds < 0:
            raise ValueError("sleep length must be non-negative")
        thread.run.clock += seconds
        return None

    def make_simple_queue():
        return queue._PySimpleQueue() if _inside() else simple_queue()

    pairs = [(real_sleep, sleep)]
    pairs += [(real, make_lock) for real in {id(r): r for r in (_allocate, threading.Lock)}.values()]
    pairs += [(real, _clock(real)) for real in (time.monotonic, time.time, time.perf_counter)]
    pairs += [(simple_queue, make_simple_queue)]
    if _queue.SimpleQueue is not simple_queue:
        pairs += [(_queue.SimpleQueue, make_simple_queue)]
    return {id(real): (real, other) for real, other in pairs}


def _no_thread(self: threading.Thread, *_: Any, **__: Any) -> None:
    raise ExplorationError(
        "explored code starts a thread (or a Timer) of its own. Give the function to explore() as "
        "one more argument instead: it starts the threads"
    )


def _notify(real: Callable) -> Callable:
    def notify(self: threading.Condition, n: int = 1) -> None:
        if not self._waiters and _controlled() is not None:
            self.unheard = True  # remembered with the state: it tells a lost wake-up
        real(self, n)

    return notify


@contextlib.contextmanager
def controlled_world(namespaces: list[dict]) -> Iterator[None]:
    """While it lasts, threads under control find the explorer's locks, clock and sleep.

    ``namespaces`` are the global variables of the explored functions: `from threading import Lock`
    put names there.
    """
    replacements = _replacements()
    undo: list[tuple[Any, str, Any]] = []

    def put(owner: Any, name: str, value: Any) -> None:
        if isinstance(owner, dict):
            undo.append((owner, name, owner[name]))
            owner[name] = value
        else:
            undo.append((owner, name, getattr(owner, name)))
            setattr(owner, name, value)

    real_start = threading.Thread.start

    def start(self: threading.Thread) -> None:
        if _inside():
            _no_thread(self)
        real_start(self)

    libraries = [vars(module) for module in (threading, queue, time)]
    try:
        for namespace in {id(n): n for n in (*libraries, *namespaces)}.values():
            for name, value in list(namespace.items()):
                if id(value) in replacements and replacements[id(value)][0] is value:
                    put(namespace, name, replacements[id(value)][1])
        put(threading, "_CRLock", None)  # RLock() makes the one that is written in Python
        put(threading.Thread, "start", start)
        put(threading.Condition, "notify", _notify(threading.Condition.notify))
        yield
    finally:
        for owner, name, value in reversed(undo):
            if isinstance(owner, dict):
                owner[name] = value
            else:
                setattr(owner, name, value)
