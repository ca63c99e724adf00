"""Examine a channel of the reader's own under every schedule of some small programs (chapter 3).

class Channel:
    def __init__(self, capacity): ...  # ValueError below 1
    def put(self, item): ...           # waits while full; raises Closed once it is closed
    def get(self): ...                 # waits while empty; closed and empty: raises Closed
    def close(self): ...               # wakes everybody who waits; a second time: nothing
    def __iter__(self): ...            # the items, until closed and empty

report = examine(Channel)
print(report)                          # a row for each program
assert report.ok
"""

import copy
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace as Shared
from typing import Any

from concurrency_lab.explorer import Exploration, ExplorationError, explore
from concurrency_lab.explorer.result import Overview


class Closed(Exception):
    """The channel is closed: it takes nothing more, or nothing is left in it."""


# -- what the threads do: each line is a step, so there are few ----------------------------------


def make_too_small(s):
    try:
        s.make(0)
    except ValueError:
        try:
            s.make(-1)
        except ValueError:
            s.ended = True


def make_one(s):
    try:
        s.make(1)
    except Exception as error:
        s.error = error


def put_x(s):
    s.channel.put("x")


def put_two(s):
    s.channel.put(1)
    s.channel.put(2)


def get_one(name, s):
    s.got[name] = s.channel.get()


def get_two(s):
    s.got["first"] = s.channel.get()
    s.got["second"] = s.channel.get()


def put_or_be_refused(name, s):
    try:
        s.channel.put(name)
    except s.closed:
        s.refused[name] = True


def get_or_closed(name, s):
    try:
        s.got[name] = s.channel.get()
    except s.closed:
        s.got[name] = "Closed"


def close(s):
    s.channel.close()


def close_twice(s):
    s.channel.close()
    s.channel.close()


def get_then_close(s):
    s.channel.get()
    s.channel.close()


def put_then_close(s):
    s.channel.put("x")
    s.channel.close()


def close_then_put(s):
    s.channel.close()
    try:
        s.channel.put("late")
    except s.closed:
        s.refused["A"] = True


def get_until_closed(s):
    try:
        s.got["B"] = s.channel.get()
        s.channel.get()
    except s.closed:
        s.ended = True


def close_then_get(s):
    s.channel.close()
    get_until_closed(s)


def loop_for_one(s):
    for item in s.channel:
        s.items.append(item)
        break


def fill_close_loop(s):
    s.channel.put(0)  # not true, and still items
    s.channel.put(None)
    s.channel.close()
    for item in s.channel:
        s.items.append(item)


def get_when_closed(s):
    s.channel.close()
    try:
        s.channel.get()
    except Exception as error:
        s.error = error


# -- the programs -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Program:
    name: str
    functions: tuple[Callable[[Any], None], ...]
    shared: dict[str, Any]  # what they share besides the channel
    check: Callable[[Any], bool]
    capacity: int = 1
    full: bool = False  # one item is in the channel when they begin
    loops: bool = False  # waits in a generator, whose state cannot be seen: nothing is merged


# All the keys are there from the start, so that the order of the answers makes no new states.
_EXCHANGE = "one item from A to B"
_PROGRAMS = (
    _Program(
        "no capacity below 1",
        (make_too_small,),
        {"ended": False},
        lambda s: s.ended,
    ),
    _Program(
        _EXCHANGE,
        (put_x, partial(get_one, "B")),
        {"got": {"B": None}},
        lambda s: s.got == {"B": "x"},
    ),
    _Program(
        "the order is kept",
        (put_two, get_two),
        {"got": {"first": None, "second": None}},
        lambda s: s.got == {"first": 1, "second": 2},
        capacity=2,
    ),
    _Program(
        "nothing lost, nothing twice",
        (put_two, partial(get_one, "B"), partial(get_one, "C")),
        {"got": {"B": None, "C": None}},
        lambda s: set(s.got.values()) == {1, 2},
    ),
    _Program(
        "never more in it than fits",
        (partial(put_or_be_refused, "A"), partial(put_or_be_refused, "B"), get_then_close),
        {"refused": {"A": False, "B": False}},
        lambda s: any(s.refused.values()),  # three items, one taken out: one does not fit
        full=True,
    ),
    _Program(
        "close wakes all who wait in get",
        (partial(get_or_closed, "A"), partial(get_or_closed, "B"), close),
        {"got": {"A": None, "B": None}},
        lambda s: s.got == {"A": "Closed", "B": "Closed"},
    ),
    _Program(
        "close wakes all who wait in put",
        (partial(put_or_be_refused, "A"), partial(put_or_be_refused, "B"), close),
        {"refused": {"A": False, "B": False}},
        lambda s: all(s.refused.values()),
        full=True,
    ),
    _Program(
        "put before close is delivered",
        (put_then_close, get_until_closed),
        {"got": {"B": None}, "ended": False},
        lambda s: s.got == {"B": "x"} and s.ended,
    ),
    _Program(
        "put after close is refused",
        (close_then_put, partial(get_or_closed, "B")),
        {"refused": {"A": False}, "got": {"B": None}},
        lambda s: s.refused["A"] and s.got == {"B": "Closed"},
    ),
    _Program(
        "put during close: delivered or refused",
        (partial(put_or_be_refused, "A"), close_then_get),
        {"refused": {"A": False}, "got": {"B": None}, "ended": False},
        lambda s: s.ended and s.got["B"] == (None if s.refused["A"] else "A"),
    ),
    _Program(
        "closed twice",
        (close_twice, partial(get_or_closed, "B")),
        {"got": {"B": None}},
        lambda s: s.got == {"B": "Closed"},
    ),
    _Program(
        "a for loop takes all and ends",
        (fill_close_loop,),
        {"items": []},
        lambda s: s.items == [0, None],
        capacity=2,
    ),
    _Program(
        "a for loop waits for an item",
        (loop_for_one, put_x),
        {"items": []},
        lambda s: s.items == ["x"],
        loops=True,
    ),
    _Program(
        "close ends a for loop that waits",
        (loop_for_one, close),
        {"items": []},
        lambda s: s.items == [],
        loops=True,
    ),
)

_MOST_STEPS = 200  # the longest schedule of a right channel takes about 60

BUSY = "busy waiting"
NOT_RUN = "not run"

#: Every fixed phrase in what `examine` shows, besides the explorer's. A translation maps each.
PHRASES = (*(program.name for program in _PROGRAMS), BUSY, NOT_RUN)


class Examination(Overview):
    """What `examine` found: the table of an `overview`, and whether the channel is right.

    ``report["closed twice"]`` is the `Exploration` of one program, ``ok`` says whether the channel
    passed all, ``failed`` are the names of those that it did not pass.
    """

    @property
    def ok(self) -> bool:
        return not self.failed

    @property
    def failed(self) -> tuple[str, ...]:
        """The names of the programs that the channel did not pass, in the order of the table."""
        passed = {name for name, found in self.explorations.items() if _passed(found)}
        return tuple(p.name for p in _PROGRAMS if p.name not in passed)

    def rows(self) -> list[list[str]]:
        """Name, schedules, failing ones and kinds of outcomes of each, as in an `overview`.

        "busy waiting" says that a thread looks again and again where it should wait.
        """
        rows = {row[0]: row for row in super().rows()}
        for name, exploration in self.explorations.items():
            if _is_busy(exploration):
                rows[name][3] += f", {BUSY}"
        return [rows.get(p.name, [p.name, "", "", NOT_RUN]) for p in _PROGRAMS]


def _passed(exploration: Exploration) -> bool:
    return exploration.ok and not _is_busy(exploration)


def _is_busy(exploration: Exploration) -> bool:
    """Whether threads can go in circles that others let them leave. None of the programs does."""
    return exploration.schedules == math.inf and "livelock" not in exploration.kinds


def examine(channel: type, closed: type[Exception] = Closed) -> Examination:
    """Run small programs with a channel under every schedule; the result is a table.

    ``channel`` is the class, ``closed`` the exception that its put() and get() raise once it is
    closed (default: `Closed` of this module).

    Raises TypeError if that is no class, if methods are missing or take other arguments, if
    there is no channel for one item, or if a closed channel raises an exception that looks like
    ``closed`` but is another. Raises ExplorationError for a class that cannot be explored, for
    example because it makes its lock once for all channels.
    """
    _look_at(channel, closed)
    _look_at_exception(channel, closed)
    explorations: dict[str, Exploration] = {}
    for program in _PROGRAMS:
        if (program.full or program.loops) and not _passed(explorations[_EXCHANGE]):
            continue  # setup might wait for ever, or there would be very many states
        try:
            explorations[program.name] = explore(
                *program.functions,
                setup=partial(_setup, program, channel, closed),
                check=program.check,
                max_steps=_MOST_STEPS,
            )
        except ExplorationError as error:
            error.add_note(f"{channel.__name__} in the program {program.name!r}")
            raise
    return Examination(explorations)


def _setup(program: _Program, channel: type, closed: type[Exception]) -> Shared:
    own = copy.deepcopy(program.shared)
    s = Shared(channel=channel(program.capacity), **own, closed=closed, make=channel)
    if program.full:
        s.channel.put("first")
    return s


_METHODS = {"put": ("put(item)", 1), "get": ("get()", 0), "close": ("close()", 0),
            "__iter__": ("__iter__()", 0)}  # fmt: skip


def _look_at(channel: Any, closed: Any) -> None:
    """Say what is missing before anything runs."""
    if not isinstance(channel, type):
        raise TypeError(f"examine() takes the class itself, examine(Channel), not {channel!r}")
    if not (isinstance(closed, type) and issubclass(closed, Exception)):
        raise TypeError(f"closed= is a class of exceptions, not {closed!r}")
    name = channel.__name__
    missing = [text for method, (text, _) in _METHODS.items() if not hasattr(channel, method)]
    if missing:
        raise TypeError(f"{name} has no {' and no '.join(missing)}")
    for method, (text, arguments) in _METHODS.items():
        function = getattr(channel, method)
        if inspect.iscoroutinefunction(function) or (
            inspect.isgeneratorfunction(function) and method != "__iter__"
        ):
            raise TypeError(f"{name}.{method} is a coroutine or generator: a call runs nothing")
        try:
            inspect.signature(function).bind(*range(1 + arguments))
        except TypeError as error:
            raise TypeError(f"{name}.{text} cannot be called: {error}") from None
        except ValueError:
            pass  # Python does not know the signature
    _look_at_constructor(channel)


def _look_at_constructor(channel: type) -> None:
    """Make a channel as the programs do, so that one that hangs is noticed."""
    found: list[Exception | None] = []

    def note(s: Shared) -> bool:
        found.append(s.error)
        return True

    one = f"{channel.__name__}(1), a channel for one item,"
    setup = partial(Shared, make=channel, error=None)
    try:
        made = explore(make_one, setup=setup, check=note, max_steps=_MOST_STEPS, time_limit=5)
    except ExplorationError as error:
        error.add_note(f"{one} was being made")
        raise
    if not made.ok:
        raise TypeError(f"{one} did not come back:\n{made}")
    for error in filter(None, found):
        raise TypeError(f"{one} raised {error!r}") from error


def _look_at_exception(channel: type, closed: type[Exception]) -> None:
    """Say so if the exception of a closed channel is another one of the same purpose."""
    found: list[type] = []

    def note(s: Shared) -> bool:
        found.append(type(s.error))
        return True

    program = _Program("", (), {"error": None}, note)
    setup = partial(_setup, program, channel, closed)
    explore(get_when_closed, setup=setup, check=note, max_steps=_MOST_STEPS)
    for kind in found:
        if kind.__module__ != "builtins" and not issubclass(kind, closed):
            raise TypeError(
                f"a closed {channel.__name__} raises {kind.__module__}.{kind.__qualname__}, not "
                f"{closed.__module__}.{closed.__qualname__}: import the right one, or say which "
                f"one it is, examine({channel.__name__}, closed={kind.__name__})"
            )
