"""What explore() refuses and how it says so, what it takes, and that it leaves nothing behind."""

import functools
import gc
import os
import queue
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Condition, Lock, RLock
from types import SimpleNamespace as Shared

import other_module
import pytest

from concurrency_lab.explorer import ExplorationError, explore

DEVICES = ("Lock", "RLock", "_CRLock", "_allocate_lock", "Condition", "Event", "Thread")


def real_things():
    parts = [getattr(threading, name) for name in DEVICES]
    parts += [threading.Thread.start, threading.Condition.notify, queue.SimpleQueue]
    parts += [queue.deque, time.sleep, time.monotonic, time.time, time.perf_counter]
    parts += [Lock, RLock, SimpleQueue, other_module.Lock, other_module.SimpleQueue]
    return parts


@pytest.fixture(autouse=True)
def nothing_is_left():
    before, threads = real_things(), set(threading.enumerate())
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    tracer = sys.gettrace()
    yield
    assert all(a is b for a, b in zip(before, real_things(), strict=True))
    assert set(threading.enumerate()) <= threads
    assert sys.gettrace() is tracer
    if cores is not None:
        assert os.sched_getaffinity(0) == cores


def setup():
    return Shared(x=0, lock=Lock())


def add(s):
    s.x += 1


def locked(s):
    with s.lock:
        s.x += 1


# -- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ((), {}, TypeError, "takes one to"),
        ((add,) * 30, {}, TypeError, "takes one to"),
        ((add(setup()),), {}, TypeError, "None is not a function: give the function, do not call"),
        ((add,), {"granularity": "word"}, ValueError, "'line', 'bytecode' or 'interpreter', not"),
        ((add,), {"max_steps": 0}, ValueError, "positive"),
        ((add,), {"max_states": 0}, ValueError, "positive"),
        ((add,), {"time_limit": 0}, ValueError, "positive"),
        ((add,), {"preemptions": -1}, ValueError, "from 0 on"),
        ((print,), {}, ExplorationError, "cannot be cut into steps: it is not written in Python"),
        ((time.sleep,), {}, ExplorationError, "cannot be cut into steps"),
        ((textwrap.dedent,), {}, ExplorationError, "steps: it belongs to a library"),
        ((setup,), {}, TypeError, r"setup is called with the object that setup made"),
        ((lambda: None,), {}, TypeError, "called with the object that setup made"),
        ((add,), {"check": lambda: True}, TypeError, "called with the object that setup made"),
        ((add,), {"invariant": lambda a, b: 1}, TypeError, "called with the object that setup"),
        ((add,), {"setup": None}, TypeError, "called with no argument"),
        ((add,), {"setup": add}, TypeError, "missing 1 required positional argument"),
    ],
)
def test_refused(arguments, options, error, words):
    with pytest.raises(error, match=words):
        explore(*arguments, **{"setup": setup, **options})


def test_code_without_source_cannot_be_cut():
    namespace = {}
    exec("def made(s):\n    s.x += 1\n", namespace)
    with pytest.raises(ExplorationError, match="cut into steps: its source code is not known"):
        explore(namespace["made"], namespace["made"], setup=setup)


MADE_BEFORE = Lock()


def takes_old_lock(s):
    with MADE_BEFORE:
        s.x += 1


def test_lock_made_before():
    words = "a lock was made before explore.*Make all locks inside setup"
    with pytest.raises(ExplorationError, match=words):
        explore(takes_old_lock, takes_old_lock, setup=setup)
    lock = Lock()
    with pytest.raises(ExplorationError, match=words):
        explore(locked, setup=lambda: Shared(x=0, lock=lock))
    assert not lock.locked() and not MADE_BEFORE.locked()


def throws_dice(s):
    s.dice = random.random()
    s.x += 1


def test_not_deterministic_names_the_variable():
    with pytest.raises(ExplorationError, match=r"not deterministic|dice was .* and is now"):
        explore(throws_dice, throws_dice, setup=setup)


KEPT = Shared(total=0)


def changes_what_is_kept():
    KEPT.total += 1


def test_state_that_setup_does_not_make_anew():
    with pytest.raises(ExplorationError, match="let setup make anew whatever a run changes"):
        explore(changes_what_is_kept, changes_what_is_kept)


def reads_forever(s):
    s.x = 1
    os.read(s.end, 1)


def test_blocking_outside():
    end, other = os.pipe()
    try:
        with pytest.raises(ExplorationError) as error:
            explore(reads_forever, setup=lambda: Shared(x=0, end=end), time_limit=0.3)
        assert "thread A did not come back from 'os.read(s.end, 1)'" in str(error.value)
        assert "within 0.3 s" in str(error.value)
        assert threading.Lock is Lock  # although the thread hangs
        assert explore(locked, locked, setup=setup).ok
    finally:
        os.write(other, b"x")
        for _ in range(100):
            if "A" not in [thread.name for thread in threading.enumerate()]:
                break
            time.sleep(0.1)
        os.close(end)
        os.close(other)


def starts_thread(s):
    threading.Thread(target=add, args=(s,)).start()


def starts_timer(s):
    threading.Timer(1, add, (s,)).start()


@pytest.mark.parametrize("function", [starts_thread, starts_timer])
def test_threads_of_its_own(function):
    with pytest.raises(ExplorationError, match="starts a thread.*Give the function to explore"):
        explore(function, add, setup=setup)


def explores(s):
    explore(add, setup=setup)


@pytest.mark.parametrize(
    "options",
    [
        {"function": explores},
        {"setup": lambda: explore(add, setup=setup)},
        {"check": lambda s: explore(add, setup=setup)},
        {"invariant": lambda s: explore(add, setup=setup)},
    ],
)
def test_explore_inside_explore(options):
    options = {"setup": setup, **options}
    with pytest.raises(ExplorationError, match="called in code that is being explored"):
        explore(options.pop("function", add), **options)


def keeps_lock(s):
    s.lock.acquire()


@pytest.mark.parametrize("name", ["check", "invariant"])
def test_check_that_waits(name):
    def waits(s):
        with s.lock:
            return True

    with pytest.raises(ExplorationError, match="waits for a lock that is taken"):
        explore(keeps_lock, setup=setup, **{name: waits})
    assert explore(locked, setup=setup, check=waits).ok  # a lock that is free can be taken


@pytest.mark.parametrize("name", ["check", "invariant", "setup"])
def test_errors_of_ones_own_reach_the_caller(name):
    def breaks(*_):
        return Shared().missing

    with pytest.raises(AttributeError, match="missing"):
        explore(add, add, **{"setup": setup, name: breaks})


def test_setup_that_breaks_later():
    calls = []

    def breaks():
        calls.append(1)
        if len(calls) == 3:
            raise OSError("third time")
        return setup()

    with pytest.raises(OSError, match="third time"):
        explore(three_steps, three_steps, setup=breaks)


def three_steps(s):
    s.x = 1
    s.x = 2
    s.x = 3


def test_too_many_states(monkeypatch):
    monkeypatch.setattr("concurrency_lab.explorer.MAX_STATES", 10)
    with pytest.raises(ExplorationError, match="more than 10 states. Make the program smaller"):
        explore(three_steps, three_steps, setup=setup)


# -- what is taken ------------------------------------------------------------------------------


def test_locks_by_name_in_another_module():
    def use(vault):
        vault.add()
        vault.queue.get()

    result = explore(use, use, setup=other_module.Vault, check=lambda v: v.amount == 2)
    assert result.ok and result.schedules > 10
    assert isinstance(other_module.Vault().lock, type(Lock()))


def waits_and_tells(vault):
    with vault.told:
        vault.told.notify()
    with vault.rlock:
        with vault.rlock:
            vault.amount += 1


def test_condition_and_rlock_by_name():
    result = explore(
        waits_and_tells, waits_and_tells, setup=other_module.Vault, check=lambda v: v.amount == 2
    )
    assert result.ok


def test_globals_of_another_module():
    def start():
        other_module.number = 0

    result = explore(
        other_module.count, other_module.count, setup=start,
        check=lambda: other_module.number == 2,
    )  # fmt: skip
    assert (result.schedules, result.failing) == (6, 4)
    result = explore(counts_there, counts_there, setup=start)
    assert len(result.outcomes) == 2


def counts_there():
    value = other_module.number
    other_module.number = value + 1


def test_globals_through_a_module():
    def start():
        other_module.number = 0

    merged = explore(counts_there, counts_there, setup=start)
    plain = explore(counts_there, counts_there, setup=start, merge=False)
    assert set(merged.outcomes) == set(plain.outcomes)
    assert merged.schedules == 6


def uses_registry(s):
    with s.registry("a"):
        s.x += 1


def test_locks_made_on_the_way():
    result = explore(
        uses_registry, uses_registry, check=lambda s: s.x == 2,
        setup=lambda: Shared(x=0, registry=other_module.Registry()),
    )  # fmt: skip
    assert result.ok and result.schedules > 2


@dataclass
class Account:
    balance: int = 0
    lock: Lock = field(default_factory=Lock)
    told: Condition = field(default_factory=Condition)

    def deposit(self, amount=1):
        with self.lock:
            self.balance += amount


def test_dataclass():
    result = explore(
        Account.deposit, Account.deposit, setup=Account, check=lambda a: a.balance == 2
    )
    assert (result.schedules, result.ok) == (6, True)
    assert type(Account().lock) is type(Lock())


def deposit(account, amount):
    account.deposit(amount)


def test_partial_method_lambda_and_callable_object():
    class Saver:
        def __init__(self, amount):
            self.amount = amount

        def __call__(self, account):
            deposit(account, self.amount)

        def save(self, account):
            self(account)

    counts = []
    for one in (
        functools.partial(deposit, amount=1),
        lambda account: deposit(account, 1),
        Saver(1),
        Saver(1).save,
        functools.partial(Saver(1).save),
    ):
        result = explore(one, one, setup=Account, check=lambda a: a.balance == 2)
        assert result.ok
        counts.append(result.schedules)
    assert counts[0] == counts[1] < counts[2] < counts[3] == counts[4]


number = 0


def count_globally():
    global number
    value = number
    number = value + 1


def start_at_zero():
    global number
    number = 0


def test_globals():
    result = explore(
        count_globally, count_globally, setup=start_at_zero, check=lambda: number == 2
    )
    assert (result.schedules, result.failing) == (6, 4)
    assert {o.lines for o in result.outcomes} == {("number = 1",), ("number = 2",)}


def swallows(s):
    try:
        s.lock.acquire()
        s.lock.acquire()
    except BaseException:
        s.x = -1
    finally:
        s.x += 1
        s.lock.acquire()


def test_code_that_catches_everything_ends():
    result = explore(swallows, swallows, setup=setup)
    assert result.kinds == ("deadlock",)


def waits_in_finally(s):
    try:
        s.x += 1
    finally:
        while s.x < 5:
            with s.told:
                s.told.wait()


def test_waiting_in_finally_ends():
    result = explore(waits_in_finally, setup=lambda: Shared(x=0, told=Condition()), time_limit=5)
    assert result.kinds == ("deadlock",)


def test_other_thread_may_explore():
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(explore(locked, locked, setup=setup)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [r.schedules for r in found] == [6, 6, 6]


def test_tracing_of_the_caller_goes_on():
    def trace(frame, event, arg):
        return None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        explore(locked, locked, setup=setup)
        assert sys.gettrace() is trace
    finally:
        sys.settrace(before)


def test_nothing_is_remembered():
    class Big:
        x = 0

    made = []

    def big():
        made.append(__import__("weakref").ref(thing := Big()))
        return thing

    explore(three_steps, three_steps, setup=big)
    gc.collect()
    assert len(made) > 2
    assert not any(ref() for ref in made)


# -- others are not disturbed -------------------------------------------------------------------


def test_other_threads_of_the_process_are_not_disturbed():
    stop, problems, rounds = threading.Event(), [], [0]
    numbers, answers = queue.Queue(), queue.SimpleQueue()

    def works():
        while not stop.is_set():
            try:
                lock, condition, again = threading.Lock(), threading.Condition(), threading.RLock()
                with lock, again, again:
                    pass
                with condition:
                    assert condition.wait(0.001) is False
                began = time.monotonic()
                time.sleep(0.002)
                assert time.monotonic() - began >= 0.001
                assert type(lock).__module__ == "_thread"
                mine = queue.SimpleQueue()
                mine.put(1)
                assert mine.get() == 1
                numbers.put(rounds[0])
                rounds[0] += 1
                child = threading.Thread(target=lambda: answers.put(numbers.get()))
                child.start()
                child.join()
            except BaseException as error:
                problems.append(error)
                return

    thread = threading.Thread(target=works)
    thread.start()
    try:
        while rounds[0] < 20 and not problems:
            assert explore(locked, locked, setup=setup, check=lambda s: s.x == 2).schedules == 6
    finally:
        stop.set()
        thread.join()
    assert not problems
    assert answers.qsize() == rounds[0]


# -- Ctrl-C -------------------------------------------------------------------------------------

INTERRUPTED = """
import sys, threading, time, queue
sys.path.insert(0, {here!r})
from threading import Lock
from concurrency_lab.explorer import explore
from explorer_programs import Shared

def setup():
    return Shared(x=0, lock=Lock())

def long(s):
    for i in range(20):
        s.x += 1

begun = []

def runs(s):
    if not begun:
        begun.append(print("begin", flush=True))
    return True

real = threading.Lock, time.sleep, queue.SimpleQueue, threading.Thread.start
try:
    explore(long, long, long, long, setup=setup, max_states=10_000_000, invariant=runs)
except KeyboardInterrupt:
    assert real == (threading.Lock, time.sleep, queue.SimpleQueue, threading.Thread.start)
    for _ in range(50):
        if threading.active_count() == 1:
            break
        time.sleep(0.1)
    print("threads:", threading.active_count(), flush=True)
    print("again:", explore(setup=setup, *[lambda s: s.lock.acquire()] * 2).kinds, flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("delay", [0, 0.1, 0.3])
def test_ctrl_c(tmp_path, delay):
    script = tmp_path / "interrupted.py"
    script.write_text(INTERRUPTED.format(here=os.path.dirname(__file__)))
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "begin\n"
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert "threads: 1" in out, err
    assert "again: ('deadlock',)" in out, err


def test_state_in_a_file_is_not_merged(tmp_path):
    file = tmp_path / "count"

    def increment_in_file():
        value = int(file.read_text())
        file.write_text(str(value + 1))

    result = explore(
        increment_in_file,
        increment_in_file,
        setup=lambda: file.write_text("0") and None,
        check=lambda: file.read_text() == "2",
    )
    assert (result.schedules, result.failing) == (6, 4)
    assert any("outside the program" in limit for limit in result.limits)


def test_a_search_that_was_stopped_is_not_ok():
    def count(s):
        s["n"] += 1
        s["n"] += 1

    result = explore(count, count, setup=lambda: {"n": 0}, max_states=3)
    assert not result.failing and not result.ok and not result.complete


def test_an_exploration_is_neither_true_nor_false():
    with pytest.raises(TypeError, match=r"\.ok"):
        bool(explore(lambda: None))


def test_check_that_returns_nothing_is_refused():
    with pytest.raises(ExplorationError, match="check returned None"):
        explore(lambda s: s.append(1), setup=list, check=lambda s: None)


def test_functions_that_a_call_does_not_run_are_refused():
    async def later():
        pass

    def generator():
        yield

    for function in (later, generator):
        with pytest.raises(TypeError, match="would run nothing"):
            explore(function)
