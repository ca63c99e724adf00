"""The suite for channels: a right channel passes, every wrong one is caught, and by which row."""

import inspect
import linecache
import queue
import subprocess
import sys
import textwrap
import threading
from collections import deque
from threading import Condition, Lock

import pytest

from concurrency_lab.experiments import channel_suite
from concurrency_lab.experiments.channel_suite import Closed, examine
from concurrency_lab.explorer import KINDS, ExplorationError
from concurrency_lab.explorer.result import MIME_TYPE, render_html

ROWS = [program.name for program in channel_suite._PROGRAMS]


class Channel:
    def __init__(self, capacity):
        if capacity < 1:
            raise ValueError(f"a channel has room for at least one item, not {capacity}")
        self._capacity, self._items, self._closed = capacity, deque(), False
        self._lock = Lock()
        self._not_empty = Condition(self._lock)
        self._not_full = Condition(self._lock)

    def put(self, item):
        with self._lock:
            while len(self._items) == self._capacity and not self._closed:
                self._not_full.wait()
            if self._closed:
                raise Closed
            self._items.append(item)
            self._not_empty.notify()

    def get(self):
        with self._lock:
            while not self._items and not self._closed:
                self._not_empty.wait()
            if not self._items:
                raise Closed
            item = self._items.popleft()
            self._not_full.notify()
            return item

    def close(self):
        with self._lock:
            self._closed = True
            self._not_empty.notify_all()
            self._not_full.notify_all()

    def __iter__(self):
        while True:
            try:
                item = self.get()
            except Closed:
                return
            yield item


SOURCE = inspect.getsource(Channel)
PUT = SOURCE[SOURCE.index("    def put") : SOURCE.index("    def get")]
GET = SOURCE[SOURCE.index("    def get") : SOURCE.index("    def close")]
CLOSE = SOURCE[SOURCE.index("    def close") : SOURCE.index("    def __iter__")]
ITER = SOURCE[SOURCE.index("    def __iter__") :]

# What is wrong, what becomes of the source, a row that catches it.
MUTANTS = {
    "if for while in put": (
        "        while len(", "        if len(", "never more in it than fits"),
    "if for while in get": (
        "while not self._items and", "if not self._items and", "nothing lost, nothing twice"),
    "put waits although it is closed": (
        "== self._capacity and not self._closed:", "== self._capacity:",
        "close wakes all who wait in put"),
    "close wakes one consumer": (
        "_not_empty.notify_all", "_not_empty.notify", "close wakes all who wait in get"),
    "close wakes one producer": (
        "_not_full.notify_all", "_not_full.notify", "close wakes all who wait in put"),
    "close wakes no producer": (
        "            self._not_full.notify_all()\n", "", "close wakes all who wait in put"),
    "close wakes no consumer": (
        "            self._not_empty.notify_all()\n", "", "close wakes all who wait in get"),
    "one condition, notify": (
        "self._not_full = Condition(self._lock)", "self._not_full = self._not_empty",
        "nothing lost, nothing twice"),
    "lock forgotten in put": (
        PUT,
        """\
    def put(self, item):
        while len(self._items) == self._capacity and not self._closed:
            with self._lock:
                self._not_full.wait()
        if self._closed:
            raise Closed
        self._items.append(item)
        with self._lock:
            self._not_empty.notify()

""",
        "put during close: delivered or refused"),
    "flag checked before the lock in put": (
        PUT,
        """\
    def put(self, item):
        if self._closed:
            raise Closed
        with self._lock:
            while len(self._items) == self._capacity:
                self._not_full.wait()
            self._items.append(item)
            self._not_empty.notify()

""",
        "put during close: delivered or refused"),
    "flag checked before the lock in put, and when woken": (
        PUT,
        """\
    def put(self, item):
        if self._closed:
            raise Closed
        with self._lock:
            while len(self._items) == self._capacity:
                self._not_full.wait()
                if self._closed:
                    raise Closed
            self._items.append(item)
            self._not_empty.notify()

""",
        "put during close: delivered or refused"),
    "flag checked before the lock in get": (
        GET,
        """\
    def get(self):
        if self._closed and not self._items:
            raise Closed
        with self._lock:
            while not self._items:
                self._not_empty.wait()
                if self._closed and not self._items:
                    raise Closed
            item = self._items.popleft()
            self._not_full.notify()
            return item

""",
        "close wakes all who wait in get"),
    "flag set after the call for attention": (
        CLOSE,
        """\
    def close(self):
        with self._lock:
            self._not_empty.notify_all()
            self._not_full.notify_all()
        self._closed = True

""",
        "put before close is delivered"),
    "items dropped at close": (
        "            self._closed = True\n",
        "            self._closed = True\n            self._items.clear()\n",
        "put before close is delivered"),
    "get looks at the flag first": (
        "            if not self._items:\n", "            if self._closed:\n",
        "put before close is delivered"),
    "last in, first out": ("popleft()", "pop()", "the order is kept"),
    "room for one more": (
        "== self._capacity", "> self._capacity", "never more in it than fits"),
    "room for one fewer": (
        "== self._capacity", ">= self._capacity - 1", "one item from A to B"),
    "get returns None at the end": (
        "            if not self._items:\n                raise Closed\n",
        "            if not self._items:\n                return None\n",
        "close wakes all who wait in get"),
    "put accepts after close": (
        "            if self._closed:\n                raise Closed\n", "",
        "put after close is refused"),
    "put tells nobody": (
        "            self._not_empty.notify()\n", "", "one item from A to B"),
    "get tells nobody": (
        "            self._not_full.notify()\n", "", "nothing lost, nothing twice"),
    "item stays in it": ("self._items.popleft()", "self._items[0]", "the order is kept"),
    "busy loop in get": (
        "                self._not_empty.wait()\n",
        "                self._lock.release()\n                self._lock.acquire()\n",
        "one item from A to B"),
    "busy loop in put": (
        "                self._not_full.wait()\n",
        "                self._lock.release()\n                self._lock.acquire()\n",
        "close wakes all who wait in put"),
    "looks every 0.1 s": (
        "self._not_empty.wait()", "self._not_empty.wait(0.1)", "one item from A to B"),
    "busy loop under the lock": (
        "                self._not_empty.wait()\n", "                pass\n",
        "one item from A to B"),
    "second close is an error": (
        "            self._closed = True\n",
        "            assert not self._closed\n            self._closed = True\n",
        "closed twice"),
    "lock kept after Closed": (
        GET,
        """\
    def get(self):
        self._lock.acquire()
        while not self._items and not self._closed:
            self._not_empty.wait()
        if not self._items:
            raise Closed
        item = self._items.popleft()
        self._not_full.notify()
        self._lock.release()
        return item

""",
        "close wakes all who wait in get"),
    "any capacity": ("if capacity < 1:", "if False:", "no capacity below 1"),
    "a negative capacity": ("if capacity < 1:", "if capacity == 0:", "no capacity below 1"),
    "loop ends when it is empty": (
        ITER, "    def __iter__(self):\n        while self._items:\n            yield self.get()\n",
        "a for loop waits for an item"),
    "loop ends at an item that is not true": (
        ITER,
        "    def __iter__(self):\n        while item := self.get():\n            yield item\n",
        "a for loop takes all and ends"),
    "loop ends at close": (
        ITER,
        "    def __iter__(self):\n        while not self._closed:\n            yield self.get()\n",
        "a for loop takes all and ends"),
    "loop lets Closed out": (
        ITER, "    def __iter__(self):\n        while True:\n            yield self.get()\n",
        "close ends a for loop that waits"),
}  # fmt: skip


def mutant(name):
    old, new, row = MUTANTS[name]
    assert old in SOURCE
    return made(SOURCE.replace(old, new), name), row


def made(source, name, **names):
    """The class Channel of a source text, as if it stood in a file."""
    file = f"<{name}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    namespace = globals() | names
    exec(compile(source, file, "exec"), namespace)
    return namespace["Channel"]


def only(monkeypatch, *rows):
    """Let examine() run these programs only, and the one that it needs first."""
    wanted = [p for p in channel_suite._PROGRAMS if p.name in (channel_suite._EXCHANGE, *rows)]
    monkeypatch.setattr(channel_suite, "_PROGRAMS", tuple(wanted))


@pytest.fixture(autouse=True)
def nothing_is_left():
    threads, tracer = set(threading.enumerate()), sys.gettrace()
    before = threading.Lock, threading.Condition.notify, queue.SimpleQueue
    yield
    assert set(threading.enumerate()) <= threads
    assert sys.gettrace() is tracer
    assert before == (threading.Lock, threading.Condition.notify, queue.SimpleQueue)


@pytest.fixture(scope="module")
def report():
    return examine(Channel)


# -- right and wrong channels -----------------------------------------------------------------


def test_a_right_channel_passes_everything_and_everything_was_explored(report):
    assert report.ok, report
    assert report.failed == ()
    assert list(report.explorations) == ROWS
    for name, exploration in report.explorations.items():
        assert exploration.ok and exploration.complete and not exploration.limits, name
        assert exploration.kinds == ("ok",), name
        assert exploration.schedules < float("inf"), name


def test_programs_with_two_threads_and_more_have_many_schedules(report):
    assert len(ROWS) == len(set(ROWS)) >= 10
    alone = [name for name in ROWS if report[name].schedules == 1]
    assert alone == ["no capacity below 1", "a for loop takes all and ends"]


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_channel_is_caught(name, monkeypatch):
    wrong, row = mutant(name)
    only(monkeypatch, row)
    report = examine(wrong)
    assert not report.ok
    assert row in report.failed, report


def test_every_row_catches_something():
    assert {row for *_, row in MUTANTS.values()} == set(ROWS)


def test_busy_waiting_is_named(monkeypatch):
    only(monkeypatch)
    report = examine(mutant("busy loop in get")[0])
    assert report.rows() == [
        [channel_suite._EXCHANGE, "endlessly many", "0", f"ok, {channel_suite.BUSY}"]
    ]
    assert report[channel_suite._EXCHANGE].ok  # it is the suite that does not take it
    locked = examine(mutant("busy loop under the lock")[0])
    assert locked.rows()[0][3] == "ok, livelock"


def test_what_needs_a_working_channel_is_not_run_with_a_broken_one(monkeypatch):
    only(monkeypatch, "never more in it than fits", "close ends a for loop that waits")
    report = examine(mutant("room for one fewer")[0])
    names = [channel_suite._EXCHANGE, *ROWS]
    assert set(report.failed) < set(names) and len(report.failed) == 3
    assert [row[3] for row in report.rows()] == ["deadlock", "not run", "not run"]
    with pytest.raises(KeyError):
        report["never more in it than fits"]


def test_other_right_channels_pass(monkeypatch):
    """One condition, wait_for, an iterator of its own, try and finally: all are right."""
    source = """
class Channel:
    def __init__(self, capacity):
        if capacity < 1:
            raise ValueError(capacity)
        self.capacity, self.items, self.closed = capacity, [], False
        self.changed = Condition()

    def put(self, item):
        self.changed.acquire()
        try:
            self.changed.wait_for(lambda: self.closed or len(self.items) < self.capacity)
            if self.closed:
                raise Closed("no more")
            self.items.append(item)
            self.changed.notify_all()
        finally:
            self.changed.release()

    def get(self):
        with self.changed:
            while not self.items:
                if self.closed:
                    raise Closed("nothing left")
                self.changed.wait()
            self.changed.notify_all()
            return self.items.pop(0)

    def close(self):
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def __iter__(self):
        return self

    def __next__(self):
        try:
            return self.get()
        except Closed:
            raise StopIteration from None
"""
    heavy = {"nothing lost, nothing twice", "never more in it than fits"}
    only(monkeypatch, *set(ROWS) - heavy)
    report = examine(made(source, "another right one"))
    assert report.ok, report


@pytest.mark.skipif(not hasattr(queue, "ShutDown"), reason="queues shut down from Python 3.13 on")
def test_a_queue_that_shuts_down_is_a_channel():
    class Shutting:
        def __init__(self, capacity):
            if capacity < 1:
                raise ValueError
            self.queue = queue.Queue(capacity)
            self.put, self.get, self.close = self.queue.put, self.queue.get, self.queue.shutdown

        def put(self, item): ...

        def get(self): ...

        def close(self): ...

        def __iter__(self):
            while True:
                try:
                    item = self.get()
                except queue.ShutDown:
                    return
                yield item

    assert examine(Shutting, closed=queue.ShutDown).ok


# -- the exception ----------------------------------------------------------------------------


class OwnClosed(Exception):
    pass


OWN = SOURCE.replace("Closed", "OwnClosed")


def test_the_reader_may_have_an_exception_of_their_own(monkeypatch):
    only(monkeypatch, "put after close is refused", "close wakes all who wait in get")
    assert examine(made(OWN, "own exception"), closed=OwnClosed).ok


def test_an_own_exception_that_was_not_named_is_pointed_out():
    with pytest.raises(TypeError, match=r"OwnClosed.*examine\(Channel, closed=OwnClosed\)"):
        examine(made(OWN, "own exception"))


def test_a_subclass_of_closed_will_do(monkeypatch):
    only(monkeypatch, "put after close is refused")

    class Shut(Closed):
        pass

    channel = made(SOURCE.replace("raise Closed", "raise Shut"), "subclass", Shut=Shut)
    assert examine(channel).ok


def test_a_builtin_exception_is_an_outcome_that_names_it(monkeypatch):
    only(monkeypatch, "put after close is refused")
    report = examine(made(SOURCE.replace("raise Closed", "raise IndexError(7)"), "wrong error"))
    assert any(
        "A raised IndexError: 7" in outcome.lines
        for outcome in report["put after close is refused"].outcomes
    )


# -- what is missing --------------------------------------------------------------------------


def without(*methods):
    return type("Channel", (), {k: v for k, v in vars(Channel).items() if k not in methods})


@pytest.mark.parametrize(
    "channel, message",
    [
        (without("close", "__iter__"), r"Channel has no close\(\) and no __iter__\(\)"),
        (without("put"), r"Channel has no put\(item\)"),
        (Channel(1), "takes the class itself"),
        (lambda: None, "takes the class itself"),
        (made(SOURCE.replace("def put(self, item)", "def put(self)"), "no item"),
         r"Channel.put\(item\) cannot be called"),
        (made(SOURCE.replace("def get(self)", "def get(self, timeout)"), "timeout"),
         r"Channel.get\(\) cannot be called"),
        (made(SOURCE.replace("def get", "async def get"), "async"), "Channel.get is a coroutine"),
        (made(SOURCE.replace("self, capacity", "self"), "no capacity"),
         r"Channel\(1\), a channel for one item, raised TypeError"),
        (made(SOURCE.replace("capacity < 1", "capacity < 2"), "too strict"),
         r"Channel\(1\), a channel for one item, raised ValueError"),
    ],
)  # fmt: skip
def test_what_is_missing_is_said(channel, message):
    with pytest.raises(TypeError, match=message):
        examine(channel)


@pytest.mark.parametrize("closed", ["Closed", Closed(), int, KeyboardInterrupt])
def test_closed_must_be_a_class_of_exceptions(closed):
    with pytest.raises(TypeError, match="class of exceptions"):
        examine(Channel, closed=closed)


def test_a_lock_for_all_channels_cannot_be_explored():
    source = SOURCE.replace("        self._lock = Lock()\n", "").replace(
        "    def put", "    _lock = Lock()\n\n    def put"
    )
    with pytest.raises(ExplorationError, match="lock was made before"):
        examine(made(source, "lock of the class"))


def test_ctrl_c_leaves_nothing_behind(monkeypatch):
    real, calls = channel_suite._setup, []

    def setup(*arguments):
        calls.append(arguments)
        if len(calls) > 20:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(channel_suite, "_setup", setup)
    with pytest.raises(KeyboardInterrupt):
        examine(Channel)
    assert len(calls) == 21  # the fixture looks at the threads


# -- shown ------------------------------------------------------------------------------------


def test_it_is_shown_as_a_table(report):
    text, html = str(report), report._repr_mimebundle_()["text/html"]
    assert text.splitlines()[0].split() == "program schedules fail how they end".split()
    assert len(text.splitlines()) == 1 + len(ROWS)
    for name in ROWS:
        assert name in text and name in html
    assert report._repr_mimebundle_()[MIME_TYPE] == {"overview": report.rows()}


def test_a_translation_can_map_every_phrase(report, monkeypatch):
    only(monkeypatch, "never more in it than fits")
    busy = examine(mutant("busy loop in get")[0])
    for shown in (report, busy):
        words = {phrase: f"[{n}]" for n, phrase in enumerate((*channel_suite.PHRASES, *KINDS))}
        html = render_html({"overview": shown.rows()}, words)
        for phrase in (*channel_suite.PHRASES, "livelock"):
            assert f">{phrase}<" not in html and f", {phrase}<" not in html
    assert set(ROWS) < set(channel_suite.PHRASES)


def test_in_a_notebook_the_class_stands_in_a_cell():
    cells = [
        "from collections import deque\nfrom threading import Condition, Lock\n"
        "from concurrency_lab.experiments import channel_suite\n"
        "from concurrency_lab.experiments.channel_suite import Closed, examine\n"
        "wanted = ('one item from A to B', 'close wakes all who wait in get')\n"
        "channel_suite._PROGRAMS = "
        "tuple(p for p in channel_suite._PROGRAMS if p.name in wanted)",
        SOURCE,
        "report = examine(Channel)\nprint(report.ok)",
        SOURCE.replace("_not_empty.notify_all", "_not_empty.notify"),  # edited and run again
        "report = examine(Channel)\nprint(report.failed, '\\n', report[report.failed[0]].failure)",
    ]
    program = textwrap.dedent(
        f"""
        from IPython.core.interactiveshell import InteractiveShell
        shell = InteractiveShell.instance()
        for cell in {cells!r}:
            shell.run_cell(cell, store_history=True).raise_error()
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = done.stdout.split("\n", 1)
    assert first == "True"
    assert second.startswith("('close wakes all who wait in get',)")
    assert "self._not_empty.wait()" in second  # the schedule shows the lines of the cell


class Waits(Channel):
    def __init__(self, capacity):
        lock = Lock()
        lock.acquire()
        lock.acquire()


class Spins(Channel):
    def __init__(self, capacity):
        while True:
            pass


def test_a_channel_whose_making_does_not_end_is_noticed():
    with pytest.raises(TypeError, match=r"Waits\(1\), a channel for one item, did not come back"):
        examine(Waits)
    with pytest.raises(TypeError, match=r"Spins\(1\), a channel for one item, did not come back"):
        examine(Spins)


def test_a_generator_that_is_left_by_break_prints_nothing(capfd):
    looped = SOURCE.replace(
        ITER,
        "    def __iter__(self):\n        while True:\n            try:\n"
        "                yield self.get()\n            except Closed:\n                return\n",
    )
    assert ITER in SOURCE
    assert examine(made(looped, "looped")).ok
    assert capfd.readouterr().err == ""


def test_an_unknown_row_is_refused_with_the_names(report):
    with pytest.raises(KeyError, match="no program 'nothing lost'; there are .*'closed twice'"):
        report["nothing lost"]
