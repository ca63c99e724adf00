"""Numbers of schedules that can be worked out by hand, and the kinds of outcomes."""

import math
import sys
import threading
import time
from queue import Queue
from threading import Condition, Lock
from types import SimpleNamespace as Shared

import pytest

from concurrency_lab.explorer import KINDS, explore


def outcomes(result):
    return {(o.kind, o.lines, o.schedules) for o in result.outcomes}


def counter():
    return Shared(count=0, lock=Lock())


def is_count(number):
    return lambda s: s.count == number


def steps(number):
    """A function of so many steps."""
    return {1: one_step, 2: two_steps, 3: three_steps}[number]


def one_step(s):
    s.a = 1


def two_steps(s):
    s.a = 1
    s.b = 1


def three_steps(s):
    s.a = 1
    s.b = 1
    s.c = 1


@pytest.mark.parametrize(
    "lengths", [(1,), (3,), (1, 1), (2, 2), (3, 3), (1, 3), (1, 2, 3), (3, 3, 3), (2, 2, 2, 2)]
)
@pytest.mark.parametrize("merge", [True, False])
def test_schedules_are_the_multinomial_of_the_steps(lengths, merge):
    expected = math.factorial(sum(lengths)) // math.prod(map(math.factorial, lengths))
    if expected > 1000 and not merge:
        pytest.skip("2520 runs")
    result = explore(*map(steps, lengths), setup=Shared, merge=merge)
    assert result.schedules == expected
    assert (result.failing, result.ok, result.complete) == (0, True, True)
    assert result.kinds == ("ok",)
    if not merge:
        assert result.runs == expected


def increment(s):
    value = s.count
    value += 1
    s.count = value


def increment_with_lock(s):
    with s.lock:
        value = s.count
        value += 1
        s.count = value


def plus(s):
    s.count += 1


def plus_int(s):
    s.count += int(1)


def check_then_act(s):
    if s.count == 0:
        s.count += 1


@pytest.mark.parametrize(
    ("function", "threads", "final", "schedules", "failing"),
    [
        (increment, 2, 2, 20, 18),
        (increment, 3, 3, 1680, 1674),
        (increment_with_lock, 2, 2, 10, 0),
        (plus, 2, 2, 2, 0),
        (check_then_act, 2, 1, 6, 4),
    ],
)
def test_small_races(function, threads, final, schedules, failing):
    result = explore(*[function] * threads, setup=counter, check=is_count(final))
    assert (result.schedules, result.failing) == (schedules, failing)
    assert result.ok is (failing == 0)


@pytest.mark.parametrize(
    ("function", "granularity", "schedules", "failing"),
    [
        (plus, "bytecode", 6, 4),
        (plus, "interpreter", 2, 0),
        (plus_int, "interpreter", 6, 4),
    ],
)
def test_switches_between_instructions(function, granularity, schedules, failing):
    result = explore(
        function, function, setup=counter, check=is_count(2), granularity=granularity
    )
    assert (result.schedules, result.failing) == (schedules, failing)


def takes_second_from_call(s):
    s.ready = True
    s.count += int(1)


@pytest.mark.parametrize("granularity", ["bytecode", "interpreter"])
def test_a_value_between_two_instructions_is_part_of_the_state(granularity):
    found = [
        outcomes(
            explore(
                takes_second_from_call, takes_second_from_call, setup=counter,
                check=is_count(2), granularity=granularity, merge=merge,
            )
        )
        for merge in (True, False)
    ]  # fmt: skip
    assert found[0] == found[1]
    assert {kind for kind, *_ in found[0]} == {"ok", "wrong"}


@pytest.mark.skipif(not hasattr(sys, "monitoring"), reason="from Python 3.12 on")
def test_nothing_is_monitored_any_more():
    tools = [sys.monitoring.get_tool(number) for number in range(6)]
    for _ in range(20):
        explore(plus, plus_int, setup=counter, granularity="bytecode")
    assert [sys.monitoring.get_tool(number) for number in range(6)] == tools
    with pytest.raises(AttributeError):
        explore(plus, setup=counter, granularity="bytecode", check=lambda s: s.missing)
    assert [sys.monitoring.get_tool(number) for number in range(6)] == tools


def spins_by_instruction(s):
    while s.items:
        s.items.pop()


def test_the_interpreter_may_switch_after_a_loops_condition():
    def setup():
        return Shared(items=[1, 2])

    result = explore(
        spins_by_instruction, spins_by_instruction, setup=setup, granularity="interpreter"
    )
    assert "exception" in result.kinds  # looks, is interrupted, pops from an empty list
    assert any("IndexError" in line for o in result.outcomes for line in o.lines)


# -- deadlocks, conditions -----------------------------------------------------------------------


def a_then_b(s):
    with s.a:
        with s.b:
            pass


def b_then_a(s):
    with s.b:
        with s.a:
            pass


def two_locks():
    return Shared(a=Lock(), b=Lock())


def test_deadlock_says_who_holds_and_waits_for_what():
    result = explore(a_then_b, b_then_a, setup=two_locks)
    assert (result.schedules, result.failing) == (22, 4)
    deadlock = next(o for o in result.outcomes if o.kind == "deadlock")
    assert deadlock.lines == (
        "A holds a and waits for b (held by B)",
        "B holds b and waits for a (held by A)",
    )
    assert deadlock.schedules == 4
    assert explore(a_then_b, a_then_b, setup=two_locks).ok


def philosopher(number):
    def dine(s):
        with s.forks[number]:
            with s.forks[(number + 1) % 3]:
                pass

    return dine


def table():
    return Shared(forks=[Lock() for _ in range(3)])


PHILOSOPHERS = [philosopher(i) for i in range(3)]


def test_philosophers():
    result = explore(*PHILOSOPHERS, setup=table)
    assert (result.schedules, result.failing) == (6570, 48)
    assert result.kinds == ("ok", "deadlock")
    assert result.complete
    deadlock = next(o for o in result.outcomes if o.kind == "deadlock")
    assert deadlock.lines[0] == "A holds forks[0] and waits for forks[1] (held by B)"


def test_philosophers_with_few_preemptions():
    result = explore(*PHILOSOPHERS, setup=table, preemptions=2)
    assert (result.schedules, result.failing) == (603, 21)
    assert not result.complete
    assert result.limits == ("at most 2 preemptions",)
    assert "Not everything was explored: at most 2 preemptions." in str(result)
    none = explore(*PHILOSOPHERS, setup=table, preemptions=0)
    assert (none.schedules, none.failing) == (6, 0)  # one after the other, in every order
    assert none.limits == ("at most 0 preemptions",)


def test_a_bound_that_leaves_nothing_out_is_not_mentioned():
    result = explore(one_step, one_step, setup=Shared, preemptions=5)
    assert result.complete and result.limits == ()


@pytest.mark.parametrize("bound", [0, 1, 2])
def test_bounded_counts_are_those_of_all_schedules_with_so_few_preemptions(bound):
    """In a tree of all schedules, found without merging, count those with few preemptions."""
    everything = explore(increment, check_then_act, setup=counter, merge=False)

    def count(state, last, used):
        if state.end is not None:
            return 1
        found = 0
        for by, other in state.next.items():
            now = used + (by != last and last in state.choices)
            if now <= bound:
                found += count(other, by, now)
        return found

    expected = count(everything._states[0], -1, 0)
    result = explore(increment, check_then_act, setup=counter, preemptions=bound)
    assert result.schedules == expected < everything.schedules


def shop():
    return Shared(items=[], cond=Condition())


def if_consumer(s):
    with s.cond:
        if not s.items:
            s.cond.wait()
        s.items.pop()


def while_consumer(s):
    with s.cond:
        while not s.items:
            s.cond.wait()
        s.items.pop()


def producer(s):
    with s.cond:
        s.items.append(1)
        s.cond.notify_all()
    with s.cond:
        s.items.append(2)
        s.cond.notify()


def test_condition_needs_while():
    wrong = explore(if_consumer, if_consumer, producer, setup=shop, preemptions=1)
    assert wrong.kinds == ("ok", "exception")
    assert {o.lines for o in wrong.outcomes if o.kind == "exception"} <= {
        (f"{name} raised IndexError: pop from empty list",) for name in "AB"
    }
    right = explore(while_consumer, while_consumer, producer, setup=shop, preemptions=1)
    assert right.ok and right.schedules > 100


def waits_without_looking(s):
    with s.cond:
        s.cond.wait()


def tells(s):
    with s.cond:
        s.cond.notify()


def test_lost_wake_up():
    result = explore(waits_without_looking, tells, setup=shop)
    assert result.kinds == ("ok", "lost wake-up")
    lost = next(o for o in result.outcomes if o.kind == "lost wake-up")
    assert lost.lines == ("A waits for a notify on cond",)


def test_nobody_tells():
    result = explore(waits_without_looking, setup=shop)
    assert result.kinds == ("deadlock",)
    assert result.outcomes[0].lines == ("A waits for a notify on cond",)


def waits_for_everything(s):
    getattr(s.thing, s.method)()


@pytest.mark.parametrize(
    ("make", "method", "line"),
    [
        (lambda: Queue(), "get", "A waits for an item in thing"),
        (lambda: threading.Event(), "wait", "A waits for thing to be set"),
        (lambda: threading.Barrier(2), "wait", "A waits for the others at thing"),
        (lambda: threading.Semaphore(0), "acquire", "A waits for a release of thing"),
        (lambda: threading.Condition(), "acquire", None),
    ],
)
def test_what_a_thread_waits_for(make, method, line):
    result = explore(waits_for_everything, setup=lambda: Shared(thing=make(), method=method))
    if line is None:
        assert result.ok
    else:
        assert [o.lines for o in result.outcomes] == [(line,)]
        assert result.kinds == ("deadlock",)


def fills(s):
    s.queue.put(1)
    s.queue.put(2)


def joins(s):
    s.queue.join()


def test_waiting_for_a_queue():
    result = explore(fills, setup=lambda: Shared(queue=Queue(1)))
    assert result.outcomes[0].lines == ("A waits for room in queue",)
    result = explore(fills, joins, setup=lambda: Shared(queue=Queue()))
    assert ("B waits for all items of queue to be done",) in [o.lines for o in result.outcomes]


def keeps_lock(s):
    s.lock.acquire()


def test_a_lock_that_is_never_given_back():
    result = explore(keeps_lock, keeps_lock, setup=counter)
    assert {o.lines for o in result.outcomes} == {
        ("B waits for lock (held by A)",), ("A waits for lock (held by B)",),
    }  # fmt: skip
    assert result.kinds == ("deadlock",)


# -- other ends -----------------------------------------------------------------------------------


def raises(s):
    s.count += 1
    raise ValueError("on purpose")


def test_exceptions_and_wrong_results():
    result = explore(raises, plus, setup=counter, check=is_count(3))
    assert result.kinds == ("exception",)
    assert {o.lines for o in result.outcomes} == {("A raised ValueError: on purpose",)}
    wrong = explore(plus, setup=counter, check=is_count(3))
    assert wrong.outcomes[0].lines == ("count = 1",)
    assert wrong.kinds == ("wrong",)


def exits(s):
    raise SystemExit


def test_exit_ends_a_thread_not_the_exploration():
    assert explore(exits, plus, setup=counter).schedules == 2


def withdraw(s):
    if s.count >= 1:
        s.count -= 1


def test_invariant_is_checked_after_every_step():
    def one():
        return Shared(count=1)

    result = explore(withdraw, withdraw, setup=one, invariant=lambda s: s.count >= 0)
    assert result.kinds == ("ok", "invariant")
    assert [o.lines for o in result.outcomes if o.kind == "invariant"] == [("count = -1",)]
    assert (result.schedules, result.failing) == (6, 4)


def breaks_for_a_moment(s):
    s.count = -1
    s.count = 0


def test_invariant_sees_what_is_right_again_at_the_end():
    result = explore(breaks_for_a_moment, setup=counter, invariant=lambda s: s.count >= 0)
    assert result.kinds == ("invariant",)
    assert len(result.failure.steps) == 1


def asserting(s):
    assert s.count == 2


def test_assertion_in_check_says_false():
    assert explore(plus, setup=counter, check=asserting).kinds == ("wrong",)


def spins(s):
    while not s.flag:
        pass
    s.seen = True


def sets_flag(s):
    s.flag = True


def flags():
    return Shared(flag=False, seen=False, mine=[False, False])


def test_an_unfair_spin_is_no_livelock():
    result = explore(spins, sets_flag, setup=flags, check=lambda s: s.seen)
    assert result.ok and result.complete
    assert result.schedules == math.inf
    assert result.kinds == ("ok",)
    assert "no finite number of schedules, none fails" in str(result)


def test_spinning_for_ever_is_a_livelock():
    result = explore(spins, setup=flags)
    assert result.kinds == ("livelock",)
    assert result.failing == math.inf and not result.ok
    assert len(result.outcomes[0].lines) == 1
    assert "again and again" in result.outcomes[0].lines[0]


def polite(me):
    def go(s):
        s.mine[me] = True
        while s.mine[1 - me]:
            s.mine[me] = False
            s.mine[me] = True
        s.mine[me] = False

    return go


def test_two_polite_threads_live_lock():
    result = explore(polite(0), polite(1), setup=flags)
    assert "livelock" in result.kinds and "ok" in result.kinds
    assert "deadlock" not in result.kinds
    livelock = result.example("livelock")
    assert {step.thread for step in livelock.steps} == {"A", "B"}


def counts_on(s):
    while True:
        s.count += 1


def test_max_steps_is_reported():
    result = explore(counts_on, plus, setup=counter, max_steps=20)
    assert not result.complete
    assert result.limits == ("at most 20 steps",)
    assert "cut" in result.kinds and not result.failing
    assert not result.ok, "what was not seen to end is not said to be right"


def test_a_long_program_that_ends_is_no_livelock():
    def counts_to_30(s):
        for _ in range(30):
            s.count += 1

    result = explore(counts_to_30, plus, setup=counter, max_steps=20)
    assert result.kinds == ("cut",)
    assert explore(counts_to_30, plus, setup=counter).ok


def test_cut_when_a_thread_had_no_turn():
    result = explore(counts_on, plus, setup=counter, max_steps=20, preemptions=0)
    assert not result.complete
    assert "at most 20 steps" in result.limits
    assert "cut" in result.kinds


def test_max_states_is_reported():
    result = explore(increment, increment, increment, setup=counter, max_states=20)
    assert not result.complete
    assert result.limits == ("20 states",)
    assert result.states <= 22


def sleeps(s):
    time.sleep(1000)
    s.count += 1


def test_sleep_takes_no_time_and_orders_nothing():
    began = time.monotonic()
    result = explore(sleeps, sleeps, setup=counter, check=is_count(2))
    assert time.monotonic() - began < 500
    assert result.ok
    assert result.schedules == 6


def test_kinds_are_those_that_there_are():
    assert set(KINDS) >= {"ok", "wrong", "deadlock", "lost wake-up", "livelock", "cut"}


def test_same_answer_each_time_also_beside_a_busy_thread():
    stop = threading.Event()
    busy = threading.Thread(target=lambda: [None for _ in iter(stop.is_set, True)])
    first = None
    try:
        for turn in range(20):
            if turn == 10:
                busy.start()
            results = [
                explore(increment, increment, setup=counter, check=is_count(2)),
                explore(a_then_b, b_then_a, setup=two_locks),
                explore(if_consumer, tells, setup=shop),
            ]
            now = [(r.outcomes, r.states, r.runs, str(r.failure)) for r in results]
            first = first or now
            assert now == first
    finally:
        stop.set()
        busy.join()
