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
import ast
import contextlib
import dataclasses
import dis
import functools
import os
import queue
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from concurrency_lab.explorer import _instructions
from concurrency_lab.explorer._source import (
    AFTER_CALL,
    UNKNOWN,
    Program,
    Statement,
    is_library,
    is_library_path,
    look_up,
    program_of,
)

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

    def prepared(self, run: Run) -> None:
        """setup() was called, the functions are about to run."""

    def discover(self, frame: types.FrameType) -> None:
        """Code that was not met before is about to run."""


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

    __slots__ = ("at", "before", "carries", "contexts", "first", "program", "statement", "thread")

    def __init__(self, thread: Controlled, program: Program) -> None:
        self.thread, self.program = thread, program
        self.statement: Statement | None = None
        self.at = self.first = -1  # offsets: of the last stop, of the statement's first
        self.before = -1  # offset of the instruction before
        self.carries = False  # an exception or a result may be on its way out
        self.contexts: dict[int, object] = {}  # what with statements will leave, by their lines

    def line(self, frame: types.FrameType, event: str, arg: object) -> Any:
        if event == "exception":
            self.carries = True
            self.thread.note_exception(arg[1])
        elif event == "line":
            at = frame.f_lasti
            statement = self.program.statement(frame.f_lineno)
            back = at <= (self.first if statement.loops else self.at)
            new = statement is not self.statement or back
            if new:
                self.first = at
            leaving = self._leaving(statement)
            plain = statement.plain and not (leaving and self.carries)
            self.statement, self.at = statement, at
            if new and statement.is_step:
                if statement.context is not None and not leaving:
                    self.contexts.pop(statement.line, None)
                self.thread.stop(frame, statement, plain, leaving)
                if statement.context is not None and not leaving:
                    self._enter(frame, statement)
        if _REFRESH:
            _refresh(frame)
        return self.line

    def _leaving(self, statement: Statement) -> bool:
        """Whether the thread comes to a with statement to leave its block."""
        leaving = self.statement is not None and statement.holds(self.statement)
        if leaving:
            self.carries = self.carries or self.statement.returns or statement.guards
        else:
            self.carries = False
        return leaving

    def _enter(self, frame: types.FrameType, statement: Statement) -> None:
        """Remember what a with statement is about to enter: Python keeps it out of sight."""
        path, depth = statement.context, 0
        while not isinstance(path, ast.Name):
            path, depth = path.value, depth + 1
        if self.program.granularity != "line" and (depth > 1 or path.id not in frame.f_locals):
            self.contexts[statement.line] = UNKNOWN  # threads may switch on the way to it
        else:
            self.contexts[statement.line] = look_up(statement.context, frame)

    def within(self, line: int | None) -> list[object]:
        """What the with statements around a line will leave."""
        line = line or 0
        if self.program.granularity == "interpreter":
            return [UNKNOWN] * self.program.is_within(line)
        return [
            thing
            for begin, thing in self.contexts.items()
            if begin <= line <= self.program.lines[begin].end
        ]

    def opcode(self, frame: types.FrameType, event: str, arg: object) -> Any:
        if event == "opcode":
            at = frame.f_lasti
            stop = self.program.stops.get(at) or self.program.jumps.get((self.before, at))
            self.before = at
            if stop:
                statement = self.program.statement(frame.f_lineno)
                back = at <= (self.first if statement.loops else self.at)
                first = statement is not self.statement or back
                leaving = self._leaving(statement) if first else False
                if first:
                    self.first = at
                self.statement, self.at = statement, at
                plain = statement.plain and self.program.is_empty(at, statement, first)
                if not (self.thread.returned and stop == AFTER_CALL):
                    self.thread.stop(frame, statement, plain and not (leaving and self.carries))
                if first and not leaving and statement.context is not None:
                    if self.program.granularity == "bytecode":
                        self._enter(frame, statement)
            self.thread.returned = False
        elif event == "exception":
            self.carries = True
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
        self.held: dict[int, object] = {}  # what it may know besides its variables
        self.blocked: Lock | None = None
        self.timeout: float = -1
        self.since: float = 0
        self.waits: tuple[object, str] | None = None
        self.raised: BaseException | None = None  # in the last step
        self.last_raised: BaseException | None = None
        self.returned = False
        self.quiet = False  # its run is over, no more steps

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
            if self.closing:
                return  # Ctrl-C came while this run was being ended

    def _once(self) -> None:
        for _ in self._attempt():  # a generator, see there
            pass
        self.done, self.frame, self.top, self.blocked = True, None, None, None
        self.run.hand_over(self)

    def _attempt(self) -> Iterator[None]:
        """Run the function.

        Where an except block ends, `Stop` leaves the exception that was handled there behind as the
        thread's current one, for all later runs. In a generator it is gone with the generator.
        """
        if not self.run.monitored:
            sys.settrace(self._call)  # an exception in a trace function ends tracing: begin anew
        try:
            self.function(*self.run.arguments)
        except Stop as stop:
            # raised in an except block, it stays this thread's current exception (Python 3.11)
            stop.__traceback__ = stop.__context__ = None
        except ExplorationError as error:
            self.run.failure, self.run.over = error, True
        except BaseException as error:  # SystemExit too ends a thread, not the exploration
            self.error = error
        finally:
            if not self.run.monitored:
                sys.settrace(None)
        yield

    def _call(self, frame: types.FrameType, event: str, arg: object) -> Any:
        if self.directing:
            return None
        code = frame.f_code
        programs = self.run.programs
        if code not in programs:
            self.directing = True  # it is the explorer who reads the source
            try:
                programs[code] = program_of(frame, self.run.granularity)
                if programs[code] is not None:
                    self.run.director.discover(frame)
            finally:
                self.directing = False
        program = programs[code]
        if program is None or code.co_name == "<lambda>" and self.run.passes_on(frame):
            return None
        steps = _Steps(self, program)
        if self.run.granularity == "line":
            trace = steps.line
        else:
            trace = steps.opcode
            if not self.run.monitored:
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
        self.raised = None

    def note_exception(self, error: BaseException) -> None:
        """Remember what was raised in this step, once, not in each call that it passes."""
        if error is not self.last_raised:
            self.raised = self.last_raised = error

    def block(self, lock: Lock, timeout: float) -> None:
        """Wait for a lock until it is free, or, with a timeout, until the director says so."""
        self.blocked, self.timeout = lock, timeout
        self.top = sys._getframe(2)
        self.waits = _waiting_in(self.top, lock)
        self.since = since = self.run.clock
        tracer = sys.gettrace()
        sys.settrace(None)  # the director is not to be traced, that is slow
        try:
            self.run.hand_over(self)
        finally:
            sys.settrace(tracer)
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


def _core() -> int | None:
    """The core that this thread runs on, where the system has just found room for it."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    if len(cores) < 2:
        return None
    try:
        with open("/proc/thread-self/stat") as file:
            core = int(file.read().rpartition(")")[2].split()[36])
    except (OSError, ValueError, IndexError):
        return min(cores)
    return core if core in cores else min(cores)


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
        self.monitored = _instructions.NEEDED and granularity != "line"
        self.programs: dict[types.CodeType, Program | None] = {}
        self._passing: dict[types.CodeType, bool] = {}
        self.control = _allocate()
        self.control.acquire()
        self.director: Director | None = None
        self.failure: BaseException | None = None
        self.over = False
        self.steps = 0
        self.clock, self.clock_was_read = CLOCK_START, False
        self.outside = ""  # what the program did that no state shows, such as opening a file
        self.state: Any = None
        self.arguments: tuple = ()
        self.priming: list[Controlled] = []
        self.awake: Controlled | None = None
        self.core = _core()  # handing over is faster on one core
        self.threads = [
            Controlled(self, i, name, function)
            for i, (name, function) in enumerate(zip(names, functions, strict=True))
        ]
        try:
            for thread in self.threads:
                thread.thread.start()
        except BaseException:
            self.close()
            raise

    def passes_on(self, frame: types.FrameType) -> bool:
        """Whether a lambda only calls an explored function: then it is no step of its own."""
        code = frame.f_code
        if code not in self._passing:
            target = None
            names = code.co_names
            calls = sum(i.opname.startswith("CALL") for i in dis.get_instructions(code))
            if calls != 1:
                pass
            elif len(names) == 1:
                target = frame.f_globals.get(names[0])
            elif not names and len(code.co_freevars) == 1:
                target = frame.f_locals.get(code.co_freevars[0])
            self._passing[code] = isinstance(target, types.FunctionType) and not is_library(
                target.__code__
            )
        return self._passing[code]

    def watching(self) -> contextlib.AbstractContextManager:
        """Around all runs: lets threads stop between instructions, where that needs more."""
        if self.monitored:
            return _instructions.monitored(_controlled)
        return contextlib.nullcontext()

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
        director.prepared(self)
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
        limit = f"{self.time_limit:g} s"
        return f"the program did not come back within {limit}; give a longer time_limit"

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
            if thread.thread.ident is not None:
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
    pairs += [(real, make_lock) for real in (_allocate, threading.Lock)]
    pairs += [(real, _clock(real)) for real in (time.monotonic, time.time, time.perf_counter)]
    pairs += [(simple_queue, make_simple_queue)]
    if _queue.SimpleQueue is not simple_queue:
        pairs += [(_queue.SimpleQueue, make_simple_queue)]
    return {id(real): (real, other) for real, other in pairs}


def _is_own_module(module: Any) -> bool:
    """Whether a module may be part of the explored program."""
    file = vars(module).get("__file__") if isinstance(module, types.ModuleType) else None
    return isinstance(file, str) and not is_library_path(file)


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


_OUTSIDE = frozenset(
    "open os.listdir os.scandir os.mkdir os.remove os.rename os.rmdir os.system os.truncate "
    "shutil.copyfile socket.connect socket.bind sqlite3.connect subprocess.Popen".split()
)
_audited = False


def _note_outside(event: str, arguments: tuple) -> None:
    if event in _OUTSIDE and (thread := _controlled()) is not None:
        thread.run.outside = event


def _audit() -> None:
    """Notice files, sockets and processes. An audit hook cannot be removed; this one is idle."""
    global _audited
    if not _audited:
        _audited = True
        sys.addaudithook(_note_outside)


def _in_arguments(function: Any, replace: Callable[[Any], Any]) -> Any:
    """`partial(setup, SimpleQueue)` with what takes the place of SimpleQueue."""
    if not isinstance(function, functools.partial):
        return replace(function)
    inner = _in_arguments(function.func, replace)
    args = [_in_arguments(value, replace) for value in function.args]
    keywords = {name: _in_arguments(value, replace) for name, value in function.keywords.items()}
    pairs = zip((inner, *args, *keywords.values()),
                (function.func, *function.args, *function.keywords.values()), strict=True)
    if all(new is old for new, old in pairs):
        return function
    return functools.partial(inner, *args, **keywords)  # fmt: skip


@contextlib.contextmanager
def controlled_world(
    namespaces: list[dict], helpers: list[types.FunctionType]
) -> Iterator[Callable[[Any], Any]]:
    """While it lasts, threads under control find the explorer's locks, clock and sleep.

    ``namespaces`` are the global variables of the explored functions: `from threading import Lock`
    put names there. ``helpers`` are these functions: they may keep such things in closures and
    default values. Gives a function that replaces them in the arguments of a partial.
    """
    _audit()
    replacements = _replacements()
    undo: list[tuple[Any, str, Any]] = []

    def put(owner: Any, name: str, value: Any) -> None:
        if isinstance(owner, types.CellType):
            undo.append((owner, "cell_contents", owner.cell_contents))
            owner.cell_contents = value
        elif isinstance(owner, dict):
            undo.append((owner, name, owner[name]))
            owner[name] = value
        else:
            undo.append((owner, name, getattr(owner, name)))
            setattr(owner, name, value)

    def replace(value: Any) -> Any:
        real, ours = replacements.get(id(value), (None, value))
        return ours if real is value else value

    real_start = threading.Thread.start

    def start(self: threading.Thread) -> None:
        if _inside():
            _no_thread(self)
        real_start(self)

    told = sys.unraisablehook

    def tell(raised: Any) -> None:
        if not issubclass(raised.exc_type, Stop):  # a generator that was left when its run ended
            told(raised)

    libraries = [vars(module) for module in (threading, queue, time)]
    others = [vars(module) for module in list(sys.modules.values()) if _is_own_module(module)]
    try:
        put(sys, "unraisablehook", tell)
        for namespace in {id(n): n for n in (*libraries, *namespaces, *others)}.values():
            for name, value in list(namespace.items()):
                if replace(value) is not value:
                    put(namespace, name, replace(value))
                elif isinstance(value, type) and dataclasses.is_dataclass(value):
                    for cell in getattr(value.__init__, "__closure__", None) or ():
                        made = cell.cell_contents  # field(default_factory=Lock)
                        if replace(made) is not made:
                            put(cell, "", replace(made))
        for helper in helpers:
            for cell in helper.__closure__ or ():
                with contextlib.suppress(ValueError):  # an empty cell
                    if replace(cell.cell_contents) is not cell.cell_contents:
                        put(cell, "", replace(cell.cell_contents))
            if any(replace(value) is not value for value in helper.__defaults__ or ()):
                put(helper, "__defaults__", tuple(map(replace, helper.__defaults__)))
        put(threading, "_CRLock", None)  # RLock() makes the one that is written in Python
        put(threading.Thread, "start", start)
        put(threading.Condition, "notify", _notify(threading.Condition.notify))
        yield lambda function: _in_arguments(function, replace)
    finally:
        for owner, name, value in reversed(undo):
            if isinstance(owner, dict):
                owner[name] = value
            else:
                setattr(owner, name, value)
