"""What a program knows at a moment: as a key that tells equal states, and in words."""

from __future__ import annotations

import _queue
import builtins
import collections
import dis
import enum
import functools
import hashlib
import inspect
import itertools
import queue
import site
import sys
import sysconfig
import threading
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from concurrency_lab.explorer._control import Controlled, ExplorationError, Lock, Run, Stop
from concurrency_lab.explorer._source import (
    PACKAGE,
    UNKNOWN,
    global_names,
    is_library,
    is_library_path,
)

_ATOMS = (int, float, complex, str, bytes, bool, type(None), type(...), type(NotImplemented))
_ROUTINES = (types.BuiltinFunctionType, types.MethodWrapperType, types.WrapperDescriptorType)
_REAL_LOCKS = (type(threading.Lock()), type(threading.RLock()))
_CODE_LIKE = (types.FunctionType, types.ModuleType, *_ROUTINES, functools.partial)
_ITERATORS = tuple(type(iter(c)) for c in ({}, {}.keys(), {}.values(), {}.items(), set()))
LONGEST = 60


class Incomparable(Exception):
    """Something holds a value whose inside cannot be looked at, such as a generator."""


class Canon:
    """Turns values into nested tuples that are equal for equal values, and only for those.

    An object that appears again becomes a reference to its first appearance, so that two names for
    one list differ from two equal lists.
    """

    def __init__(self) -> None:
        self.seen: dict[int, int] = {}
        self.keep: list[Any] = []

    def __call__(self, value: Any) -> Any:
        kind = type(value)
        if kind in _ATOMS:
            return value
        if kind is tuple:
            return ("tuple", *map(self, value))
        if kind is Stop:
            return None
        if id(value) in self.seen:
            return ("again", self.seen[id(value)])
        self.seen[id(value)] = len(self.seen)
        self.keep.append(value)  # its id must not be given to another
        if kind is Lock:
            return ("lock", value.owner)
        if kind is list:
            return ("list", *map(self, value))
        if kind is collections.deque:
            return ("deque", value.maxlen, *map(self, value))
        if kind is itertools.count:
            return ("count", repr(value))
        if kind is dict:
            return ("dict", *((self(k), self(v)) for k, v in value.items()))
        if kind in (set, frozenset):
            if not all(type(item) in _ATOMS for item in value):
                raise Incomparable("a set of objects")
            # equal sets can have different orders and so go on differently
            return (kind.__name__, sys.getsizeof(value), *map(repr, value))
        if kind in _REAL_LOCKS:
            raise ExplorationError(
                "a lock was made before explore() began, and so the explorer cannot see who waits "
                "for it. Make all locks inside setup, anew for each run; a lock of a module, too: "
                "`module.lock = Lock()`"
            )
        if kind is _queue.SimpleQueue:
            raise ExplorationError(
                "a SimpleQueue that the explorer cannot look into: call queue.SimpleQueue() inside "
                "setup, by this name"
            )
        return self._object(value, kind)

    def _object(self, value: Any, kind: type) -> Any:
        if isinstance(value, types.FunctionType):
            code = value.__code__
            return ("function", value.__qualname__, code.co_firstlineno, self._kept(value))
        if isinstance(value, types.MethodType):
            return ("method", value.__name__, self(value.__self__))
        if isinstance(value, types.CellType):
            return ("cell", self(_cell(value)))
        if isinstance(value, types.ModuleType):
            if not is_library_file(getattr(value, "__file__", None)):
                raise Incomparable(f"the module {value.__name__}")
            return ("module", value.__name__)
        if isinstance(value, _ROUTINES):
            owner = value.__self__
            known = isinstance(owner, types.ModuleType | type) or owner is None
            return ("routine", value.__qualname__, None if known else self(owner))
        if isinstance(value, functools.partial):
            return ("partial", self(value.func), self(value.args), self(value.keywords))
        if isinstance(value, type):
            return ("class", value.__qualname__, *self._class(value))
        if isinstance(value, enum.Enum):
            return ("enum", kind.__qualname__, value.name)
        if isinstance(value, BaseException):
            more = tuple((name, self(v)) for name, v in vars(value).items())
            origin = self(value.__cause__), self(value.__context__)
            return ("error", kind.__qualname__, self(value.args), more, origin)
        if isinstance(value, threading.Thread):
            return ("thread", value.name)
        if isinstance(value, threading.local) or kind in _ITERATORS:
            raise Incomparable(f"a {kind.__name__}")
        fields = _fields(value)
        if fields is None:
            return self._reduced(value, kind)
        content = ()
        if isinstance(value, dict):
            content = tuple((self(k), self(v)) for k, v in value.items())
        elif isinstance(value, list | tuple | collections.deque):
            content = tuple(map(self, value))
        elif kind is not types.SimpleNamespace and (
            kind.__reduce__ is not object.__reduce__
            or kind.__reduce_ex__ is not object.__reduce_ex__
            or kind.__basicsize__ > object.__basicsize__ + 8 * (2 + len(fields))
        ):
            return self._reduced(value, kind)  # written in C: more than its attributes
        parts = tuple((name, self(v)) for name, v in fields.items())
        return ("object", kind.__qualname__, content, parts, *self._class(kind))

    def _kept(self, function: types.FunctionType) -> Any:
        """What a function keeps between its calls."""
        return (
            *(self(_cell(cell)) for cell in function.__closure__ or ()),
            self(function.__defaults__),
            self(function.__kwdefaults__),
            self(vars(function)) if vars(function) else None,
        )

    def _class(self, cls: type) -> Iterator[Any]:
        """What the classes of the program itself keep: data, and what their methods keep."""
        for base in cls.__mro__:
            if is_own_class(base) and id(base) not in self.seen:
                self.seen[id(base)] = len(self.seen)
                for name, value in class_data(base):
                    yield (name, self(value))
                for method in vars(base).values():
                    method = inspect.unwrap(getattr(method, "fget", None) or method)
                    method = getattr(method, "__func__", method)
                    if isinstance(method, types.FunctionType) and keeps(method):
                        yield self._kept(method)

    def _reduced(self, value: Any, kind: type) -> Any:
        if inspect.isgenerator(value) or inspect.iscoroutine(value):
            raise Incomparable(f"a {kind.__name__}")
        try:
            reduced = value.__reduce_ex__(2)
        except Exception:
            raise Incomparable(f"a {kind.__qualname__}") from None
        if isinstance(reduced, str):
            return ("global", kind.__qualname__, reduced)
        parts = (*reduced[1:3], *map(_items, reduced[3:5]))
        return ("reduced", kind.__qualname__, *map(self, parts))


def _items(iterator: Iterator | None) -> tuple:
    return () if iterator is None else tuple(iterator)


def _cell(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return ...


def _fields(value: Any) -> dict[str, Any] | None:
    """The attributes of an object, or None if it keeps its content elsewhere."""
    fields = dict(getattr(value, "__dict__", None) or {})
    has_any = hasattr(value, "__dict__")
    for base in type(value).__mro__:
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__"):
                has_any = True
                if hasattr(value, name):
                    fields[name] = getattr(value, name)
    return fields if has_any else None


_LIBRARY_FOLDERS = tuple(
    sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")
) + tuple(site.getsitepackages() if hasattr(site, "getsitepackages") else ())


@functools.cache
def is_own_class(cls: type) -> bool:
    """Whether a class is written in the explored program, not in a library."""
    if cls.__module__ == "builtins" or not hasattr(cls, "__dict__"):
        return False
    module = sys.modules.get(cls.__module__)
    file = getattr(module, "__file__", None)
    if file is None:
        return cls.__module__ == "__main__"
    return not is_library_file(file)


def is_library_file(file: str | None) -> bool:
    """Whether a module's file belongs to a library or the explorer; True for built-in modules."""
    if file is None or is_library_path(file):
        return True
    return file.startswith(_LIBRARY_FOLDERS) and not file.startswith(PACKAGE)


def keeps(function: types.FunctionType) -> bool:
    """Whether a function has something of its own that lasts from call to call."""
    return bool(
        function.__closure__ or function.__defaults__ or function.__kwdefaults__ or vars(function)
    )


def class_data(cls: type) -> Iterator[tuple[str, Any]]:
    """The attributes of a class that are data, not methods."""
    for name, value in list(vars(cls).items()):
        if name.startswith("__") or callable(value) or hasattr(type(value), "__get__"):
            continue
        yield name, value


def digest(value: Any) -> bytes:
    return hashlib.blake2b(repr(value).encode("utf-8", "surrogatepass"), digest_size=16).digest()


# -- what is shared -----------------------------------------------------------------------------


class Shared:
    """What the explored functions share: the object of setup, global variables, closures."""

    def __init__(self, functions: Iterable[Callable]) -> None:
        self.functions = list(functions)
        self.names: list[tuple[dict, str]] = []
        self.helpers: list[types.FunctionType] = []
        self.namespaces: list[dict] = []
        self._codes: set[types.CodeType] = set()
        for function in self.functions:
            self._follow(function)

    def _follow(self, function: Any) -> None:
        while isinstance(function, functools.partial):
            for argument in (*function.args, *function.keywords.values()):
                if callable(argument):
                    self._follow(argument)
            function = function.func
        if isinstance(function, type):
            if is_own_class(function):
                for base in function.__mro__:
                    if is_own_class(base):
                        for member in vars(base).values():
                            self._follow(member)
            return
        if isinstance(function, property):
            for one in (function.fget, function.fset):
                self._follow(one)
            return
        function = getattr(function, "__func__", function)
        if not isinstance(function, types.FunctionType) and callable(function):
            function = inspect.getattr_static(type(function), "__call__", None)
        if not isinstance(function, types.FunctionType) or is_library(function.__code__):
            return
        if function.__code__ in self._codes:
            return
        self.helpers.append(function)
        self._code(function.__code__, function.__globals__)
        for cell in function.__closure__ or ():
            content = _cell(cell)
            if callable(content):
                self._follow(content)

    def _code(self, code: types.CodeType, namespace: dict) -> None:
        self._codes.add(code)
        if not any(namespace is known for known in self.namespaces):
            self.namespaces.append(namespace)
        for name in global_names(code):
            if name not in namespace:
                if not hasattr(builtins, name):
                    self._add(namespace, name)  # made on the way
                continue
            value = namespace[name]
            if isinstance(value, types.ModuleType):
                if not is_library_file(getattr(value, "__file__", None)):
                    self._module(vars(value), code)
            elif isinstance(value, types.FunctionType | type):
                self._follow(value)
                if isinstance(value, type) and is_own_class(value):
                    self._add(namespace, name)
            elif not isinstance(value, _CODE_LIKE):
                self._add(namespace, name)
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self._code(constant, namespace)

    def _module(self, namespace: dict, code: types.CodeType) -> None:
        """What code may find as attributes of a module: `settings.debug`."""
        for name in code.co_names:
            value = namespace.get(name)
            if isinstance(value, types.FunctionType | type):
                self._follow(value)
            elif name in namespace and not isinstance(value, _CODE_LIKE):
                self._add(namespace, name)

    def discover(self, frame: types.FrameType) -> bool:
        """Look at code that is about to run. Returns whether more is shared than was known."""
        if frame.f_code in self._codes:
            return False
        known = len(self.names), len(self.helpers)
        self._code(frame.f_code, frame.f_globals)
        return known != (len(self.names), len(self.helpers))

    def _add(self, namespace: dict, name: str) -> None:
        if not any(n is namespace and m == name for n, m in self.names):
            self.names.append((namespace, name))

    def roots(self, run: Run) -> tuple[Any, ...]:
        """Everything shared, for `Canon`."""
        found: list[Any] = [run.state, *self.functions]
        found += [helper for helper in self.helpers if keeps(helper)]
        found += [namespace.get(name, ...) for namespace, name in self.names]
        if run.clock_was_read:
            found.append(run.clock)
        return tuple(found)

    def variables(self, run: Run) -> Iterator[tuple[str, Any]]:
        """Names and values of what is shared, as the reader knows them."""
        state = run.state
        if isinstance(state, dict):
            yield from ((str(key), value) for key, value in state.items())
        elif state is not None:
            fields = _fields(state)
            if fields is None or isinstance(state, list | collections.deque | queue.Queue):
                yield "state", state
            else:
                yield from fields.items()
            if is_own_class(type(state)):
                for name, value in class_data(type(state)):
                    yield f"{type(state).__name__}.{name}", value
        for namespace, name in self.names:
            value = namespace.get(name, ...)
            if value is ...:
                continue
            if isinstance(value, type):
                yield from ((f"{name}.{n}", v) for n, v in class_data(value))
            elif not isinstance(value, str) and not name.isupper():
                yield name, value
        for function in self.functions:
            inner = inspect.unwrap(getattr(function, "__func__", function))
            if isinstance(inner, types.FunctionType) and inner.__closure__:
                for name, cell in zip(inner.__code__.co_freevars, inner.__closure__, strict=True):
                    yield name, _cell(cell)


# -- keys ---------------------------------------------------------------------------------------


def thread_facts(thread: Controlled, canon: Canon, codes: dict) -> Any:
    """What a thread is about to do and what its variables hold."""
    if thread.done:
        return ("done", canon(thread.error))
    frames = []
    handles = False
    for frame in thread.frames():
        number = codes.setdefault(frame.f_code, len(codes))
        local = tuple((name, canon(value)) for name, value in frame.f_locals.items())
        within: Any = ()
        steps = steps_of(frame)
        if steps is not None:
            within = tuple(map(canon, steps.within(frame.f_lineno)))
            handles |= steps.program.statement(frame.f_lineno).handles
        frames.append((number, position(frame), local, within))
    blocked = None if thread.blocked is None else (canon(thread.blocked), thread.timeout > 0)
    if blocked and thread.run.clock_was_read:
        blocked += (thread.timeout, thread.since)
    error = sys._current_exceptions().get(thread.thread.ident) if handles else None
    if isinstance(error, tuple):
        error = error[1]  # Python 3.11
    return (tuple(frames), blocked, canon(error), tuple(map(canon, thread.held.values())))


def position(frame: types.FrameType) -> int:
    """The offset of the instruction that a call is at.

    Python 3.12 and later count on into the instruction's cache, if it was specialised meanwhile.
    """
    offset = frame.f_lasti
    known = _instructions(frame.f_code)
    while offset not in known and offset > 0:
        offset -= 2
    return offset


@functools.cache
def _instructions(code: types.CodeType) -> dict[int, str]:
    return {i.offset: i.opname for i in dis.get_instructions(code)}


def steps_of(frame: types.FrameType) -> Any:
    """The tracer of a frame of explored code."""
    return getattr(frame.f_trace, "__self__", None)


def outlook(thread: Controlled, roots: tuple, codes: dict) -> tuple[bytes, dict[int, object]]:
    """All that a thread can see: as a digest, and the objects that it can reach."""
    canon = Canon()
    seen = digest((canon(roots), thread_facts(thread, canon, codes)))
    return seen, {id(value): value for value in canon.keep}


def is_plain(thread: Controlled) -> bool:
    """Whether the variables of the thread's calls tell all that the thread knows.

    If not, a value may stand where Python does not let us look: between two instructions, or in
    the iterator of a loop.
    """
    if thread.done:
        return True
    if not thread.plain:
        return False
    inner: types.FrameType | None = None
    for frame in thread.frames():
        program = thread.run.programs.get(frame.f_code)
        if program is not None and frame.f_code.co_name == "<lambda>":
            if thread.run.passes_on(frame):
                continue
        if program is not None:
            statement = program.statement(frame.f_lineno)
            if inner is not None:
                if not (statement.plain and _is_call_of(statement.calls, frame, inner.f_code)):
                    return False
            elif thread.blocked is not None and not (statement.calls or statement.context):
                return False
            steps = steps_of(frame)
            if steps is not None and any(t is UNKNOWN for t in steps.within(frame.f_lineno)):
                return False
            inner = frame
        elif inner is not None:
            return False  # library code that calls the program back
    return True


def _is_call_of(name: str | None, frame: types.FrameType, code: types.CodeType) -> bool:
    """Whether a call by this name in a frame is what led to the code."""
    if not _instructions(frame.f_code)[position(frame)].startswith("CALL"):
        return False  # a property or an operator, perhaps of the same name
    if name is None or name == code.co_name:
        return name is not None
    function = frame.f_locals.get(name, frame.f_globals.get(name))
    while isinstance(function, functools.partial):
        function = function.func
    function = getattr(function, "__func__", function)
    return isinstance(function, types.FunctionType) and function.__code__ is code


# -- words --------------------------------------------------------------------------------------

#: Every fixed phrase in what the explorer shows. A translation maps each of them, `{}` included.
VALUE_PHRASES = (
    "free", "held by {}", "held by {}, {} times", "set", "not set", "{} of {} waiting", "broken",
    "{}; waiting: {}",
)  # fmt: skip


def show(value: Any, run: Run, depth: int = 0) -> str:
    """A value in a few words: a lock by who holds it, a queue by its items."""
    return _short(_show(value, run, depth))


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "\u2026"


def _show(value: Any, run: Run, depth: int) -> str:
    kind = type(value)
    if kind in _ATOMS:
        return repr(value)
    if kind is Lock:
        return f"held by {value.owner}" if value.owner else "free"
    if isinstance(value, threading._PyRLock):
        held = value._block.owner
        if not held:
            return "free"
        count = value._count
        return f"held by {held}, {count} times" if count > 1 else f"held by {held}"
    if isinstance(value, threading.Semaphore):
        return str(value._value)
    if isinstance(value, threading.Event):
        return "set" if value._flag else "not set"
    if isinstance(value, threading.Barrier):
        if value._state == -2:
            return "broken"
        return f"{value._count} of {value._parties} waiting"
    if isinstance(value, threading.Condition):
        waiting = [
            thread.name
            for thread in run.threads
            if thread.blocked is not None and any(thread.blocked is w for w in value._waiters)
        ]
        lock = _show(value._lock, run, depth)
        return f"{lock}; waiting: {', '.join(waiting)}" if waiting else lock
    if isinstance(value, queue.Queue):
        return _show(list(value.queue), run, depth)
    if isinstance(value, queue._PySimpleQueue):
        return _show(list(value._queue), run, depth)
    if depth > 3:
        return "\u2026"
    inside = functools.partial(_show, run=run, depth=depth + 1)
    if kind in (list, collections.deque):
        return f"[{', '.join(map(inside, value))}]"
    if kind is tuple:
        return f"({', '.join(map(inside, value))}{',' if len(value) == 1 else ''})"
    if kind is dict:
        return f"{{{', '.join(f'{inside(k)}: {inside(v)}' for k, v in value.items())}}}"
    if kind in (set, frozenset):
        return f"{{{', '.join(sorted(map(inside, value)))}}}" if value else "set()"
    if isinstance(value, type | types.FunctionType):
        return value.__name__
    if isinstance(value, BaseException):
        return repr(value)
    if type(value).__repr__ is object.__repr__ or kind is types.SimpleNamespace:
        fields = _fields(value) or {}
        name = "" if kind is types.SimpleNamespace else kind.__name__
        return f"{name}({', '.join(f'{k}={inside(v)}' for k, v in fields.items())})"
    return repr(value)


def is_shown(value: Any) -> bool:
    """Whether a variable is worth showing: data and locks, not functions or modules."""
    return not isinstance(value, _CODE_LIKE) and not isinstance(value, type | types.MethodType)


def local_variables(thread: Controlled) -> str:
    """The local variables of the call that a thread is in: `value = 0, i = 1`."""
    frame = thread.frame
    if thread.done or frame is None:
        return ""
    shared = thread.run.state
    own = [
        f"{name} = {show(value, thread.run)}"
        for name, value in frame.f_locals.items()
        if value is not shared
        and is_shown(value)
        and name != "self"
        and not name.startswith((".", "_"))
        and name not in frame.f_code.co_freevars
        and not isinstance(value, Lock | threading.Condition | threading.Semaphore)
    ]
    return _short(", ".join(own))


class Names:
    """What the locks and other things are called, to say who waits for what."""

    def __init__(self, variables: Iterable[tuple[str, Any]]) -> None:
        self.of: dict[int, str] = {}
        self.things: list[tuple[str, Any]] = []
        for name, value in variables:
            self._add(name, value, 0)

    def _add(self, name: str, value: Any, depth: int) -> None:
        if type(value) in _ATOMS or id(value) in self.of or depth > 4:
            return
        self.of[id(value)] = name
        self.things.append((name, value))
        if isinstance(value, list | tuple):
            for i, item in enumerate(value):
                self._add(f"{name}[{i}]", item, depth + 1)
        elif isinstance(value, dict):
            for key, item in value.items():
                self._add(f"{name}[{key!r}]", item, depth + 1)
        elif isinstance(value, threading.Condition):
            lock = value._lock
            self.of.setdefault(id(lock), name)
        elif type(value).__module__ not in ("threading", "queue") and type(value) is not Lock:
            for key, item in (_fields(value) or {}).items():
                self._add(f"{name}.{key}", item, depth + 1)

    def __call__(self, thing: Any) -> str:
        return self.of.get(id(thing), type(thing).__name__.lstrip("_").removeprefix("Py"))

    def held_by(self, owner: str) -> list[str]:
        """The names of the locks that a thread holds."""
        held = []
        for name, thing in self.things:
            inner = thing._lock if isinstance(thing, threading.Condition) else thing
            if isinstance(inner, threading._PyRLock):
                inner = inner._block
            if type(inner) is Lock and inner.owner == owner and name not in held:
                held.append(name)
        return held
