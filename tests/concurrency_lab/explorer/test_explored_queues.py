"""Programs with queues: how many schedules they have, how many fail, and how those end."""

import queue
import sys
import threading
from concurrent.futures import Future
from functools import partial
from queue import Empty, LifoQueue, PriorityQueue, Queue, SimpleQueue
from threading import Lock
from types import SimpleNamespace as Shared

import pytest

from concurrency_lab.explorer import ExplorationError, _source, _state, explore

NO_SHUTDOWN = not hasattr(Queue, "shutdown")
PROGRAMS = {}


def program(name, *functions, setup, check=None, found, states):
    """Register a program, (schedules, failing ones, kinds), and a bound on its states."""
    assert name not in PROGRAMS
    PROGRAMS[name] = functions, setup, check, found, states


def holding(*items, kind=Queue, maxsize=0):
    box = kind(maxsize) if maxsize else kind()
    for item in items:
        box.put(item)
    return Shared(q=box, done=0, got=None, joined=None)


def done(number):
    return lambda s: s.done == number


# -- empty() is out of date as soon as it is known ------------------------------------------------


def until_empty(s):
    while not s.q.empty():
        s.q.get()


def until_empty_nowait(s):
    while not s.q.empty():
        try:
            s.q.get_nowait()
        except Empty:
            pass


def produce_two(s):
    s.q.put(1)
    s.q.put(2)


def count_until_empty(s):
    while not s.q.empty():
        s.q.get()
        s.done += 1


program(
    "empty, get",
    until_empty,
    until_empty,
    setup=partial(holding, 1),
    found=(12, 8, "ok deadlock"),
    states=30,
)
program(
    "empty, get, two items",
    until_empty,
    until_empty,
    setup=partial(holding, 1, 2),
    found=(48, 32, "ok deadlock"),
    states=40,
)
program(
    "empty, get_nowait",
    until_empty_nowait,
    until_empty_nowait,
    setup=partial(holding, 1),
    found=(20, 0, "ok"),
    states=30,
)
program("producer later than empty", produce_two, count_until_empty, setup=holding,
        check=done(2), found=(6, 2, "ok wrong"), states=30)  # fmt: skip


# -- stop signs -----------------------------------------------------------------------------------


def produce_one_none(s):
    s.q.put(1)
    s.q.put(2)
    s.q.put(None)


def produce_two_nones(s):
    s.q.put(1)
    s.q.put(2)
    s.q.put(None)
    s.q.put(None)


def produce_one_and_none(s):
    s.q.put(1)
    s.q.put(None)


def consume(s):
    while True:
        item = s.q.get()
        if item is None:
            break
        s.done += 1


def consume_walrus(s):
    while (item := s.q.get()) is not None:
        s.done += item > 0


def put_two_nones(s):
    s.q.put(None)
    s.q.put(None)


def consume_and_put_back(s):
    while True:
        item = s.q.get()
        if item is None:
            s.q.put(None)
            break
        s.done += 1


program(
    "one None for two",
    produce_one_none,
    consume,
    consume,
    setup=holding,
    check=done(2),
    found=(35_416, 35_416, "deadlock"),
    states=600,
)
program(
    "None put back",
    produce_one_none,
    consume_and_put_back,
    consume_and_put_back,
    setup=holding,
    check=done(2),
    found=(61_550, 0, "ok"),
    states=600,
)
program(
    "a None each",
    produce_two_nones,
    consume,
    consume,
    setup=holding,
    check=done(2),
    found=(299_648, 0, "ok"),
    states=700,
)
program(
    "a None each, walrus",
    produce_two_nones,
    consume_walrus,
    consume_walrus,
    setup=holding,
    check=done(2),
    found=(14_244, 0, "ok"),
    states=500,
)
program(
    "only stop signs, walrus", put_two_nones, consume_walrus, consume_walrus, setup=holding,
    found=(24, 0, "ok"), states=50,
)  # fmt: skip
program("two producers, a None each", produce_one_and_none, produce_one_and_none, consume,
        setup=holding, check=done(2), found=(1_440, 232, "ok wrong"), states=200)  # fmt: skip


# -- task_done and join ---------------------------------------------------------------------------


def done_before_follow_up(s):
    while True:
        n = s.q.get()
        if n is None:
            break
        s.done += 1
        s.q.task_done()
        if n > 1:
            s.q.put(n - 1)


def done_after_follow_up(s):
    while True:
        n = s.q.get()
        if n is None:
            break
        s.done += 1
        if n > 1:
            s.q.put(n - 1)
        s.q.task_done()


def join_and_stop(s):
    s.q.join()
    s.joined = s.done
    s.q.put(None)


def both_before_join(s):
    return s.joined == 2


def fragile(s):
    for _ in range(2):
        text = s.q.get()
        s.done += int(text)
        s.q.task_done()


def sturdy(s):
    for _ in range(2):
        text = s.q.get()
        try:
            s.done += int(text)
        except ValueError:
            pass
        finally:
            s.q.task_done()


def join(s):
    s.q.join()
    s.joined = True


program(
    "task_done before the follow-up",
    done_before_follow_up,
    join_and_stop,
    setup=partial(holding, 2),
    check=both_before_join,
    found=(655, 305, "ok wrong"),
    states=200,
)
program(
    "task_done after the follow-up",
    done_after_follow_up,
    join_and_stop,
    setup=partial(holding, 2),
    check=both_before_join,
    found=(48, 0, "ok"),
    states=80,
)
program(
    "error before task_done",
    fragile,
    join,
    setup=partial(holding, "12", "twelve"),
    check=lambda s: s.joined,
    found=(8, 8, "deadlock"),
    states=30,
)
program("task_done in finally", sturdy, join, setup=partial(holding, "12", "twelve"),
        check=lambda s: s.joined, found=(30, 0, "ok"), states=60)  # fmt: skip


# -- bounds ---------------------------------------------------------------------------------------


def split(s):
    n = s.q.get()
    if n > 0:
        s.q.put(n - 1)
        s.q.put(n - 1)
    s.done += 1


def put_here_get_there(s):
    s.q.put(1)
    s.q.put(2)
    s.other.get()


def put_there_get_here(s):
    s.other.put(1)
    s.other.put(2)
    s.q.get()


def crossed():
    return Shared(q=Queue(1), other=Queue(1))


program(
    "bounded, fed by its workers",
    split,
    split,
    setup=partial(holding, 1, 1, maxsize=2),
    found=(118, 118, "deadlock"),
    states=60,
)
program(
    "the same without a bound",
    split,
    split,
    setup=partial(holding, 1, 1),
    check=done(2),
    found=(252, 0, "ok"),
    states=60,
)
program("two queues crossed", put_here_get_there, put_there_get_here, setup=crossed,
        found=(6, 6, "deadlock"), states=20)  # fmt: skip


# -- what is sent ---------------------------------------------------------------------------------


def send_and_change(s):
    order = ["tea"]
    s.q.put(order)
    order.append("milk")


def send_a_copy(s):
    order = ["tea"]
    s.q.put(list(order))
    order.append("milk")


def count_order(s):
    order = s.q.get()
    s.got = len(order)


def ask_by_queue(s):
    box = Queue()
    s.q.put(box)
    s.got = box.get()


def ask_by_future(s):
    box = Future()
    s.q.put(box)
    s.got = box.result()


def answer_queue(s):
    box = s.q.get()
    box.put("answer")


def answer_future(s):
    box = s.q.get()
    box.set_result("answer")


program(
    "list changed after sending",
    send_and_change,
    count_order,
    setup=holding,
    check=lambda s: s.got == 1,
    found=(9, 6, "ok wrong"),
    states=30,
)
program(
    "copy sent",
    send_a_copy,
    count_order,
    setup=holding,
    check=lambda s: s.got == 1,
    found=(9, 0, "ok"),
    states=30,
)
program(
    "a queue for the answer",
    ask_by_queue,
    answer_queue,
    setup=holding,
    check=lambda s: s.got == "answer",
    found=(9, 0, "ok"),
    states=30,
)
program("a future for the answer", ask_by_future, answer_future, setup=holding,
        check=lambda s: s.got == "answer", found=(9, 0, "ok"), states=30)  # fmt: skip


# -- the other queues -----------------------------------------------------------------------------


def put_2_1(s):
    s.q.put(2)
    s.q.put(1)


def get_two(s):
    first = s.q.get()
    second = s.q.get()
    s.got = [first, second]


def put_ties(s):
    s.q.put((1, {"a": 1}))
    s.q.put((1, {"b": 2}))


def ordered(s):
    return s.got == [1, 2]


for kind, expected in (
    (Queue, (6, 6, "wrong")), (SimpleQueue, (6, 6, "wrong")),
    (PriorityQueue, (6, 4, "ok wrong")), (LifoQueue, (6, 4, "ok wrong")),
):  # fmt: skip
    program(f"{kind.__name__}, sorted?", put_2_1, get_two, setup=partial(holding, kind=kind),
            check=ordered, found=expected, states=30)  # fmt: skip
program("ties in a PriorityQueue", put_ties, get_two, setup=partial(holding, kind=PriorityQueue),
        found=(6, 2, "ok exception"), states=40)  # fmt: skip


# -- shutdown, from Python 3.13 on ----------------------------------------------------------------


def get_or_end(s):
    try:
        s.q.get()
    except queue.ShutDown:
        s.done += 1


def put_or_end(s):
    try:
        s.q.put(1)
        s.q.put(2)
    except queue.ShutDown:
        s.done += 1


def shut(s):
    s.q.shutdown()


def shut_now(s):
    s.q.shutdown(immediate=True)


def produce_and_shut(s):
    s.q.put(1)
    s.q.put(2)
    s.q.shutdown()


def produce_and_shut_now(s):
    s.q.put(1)
    s.q.put(2)
    s.q.shutdown(immediate=True)


def drain(s):
    try:
        while True:
            s.q.get()
            s.done += 1
    except queue.ShutDown:
        s.got = "end"


if not NO_SHUTDOWN:
    program(
        "shutdown, two wait in get",
        get_or_end,
        get_or_end,
        shut,
        setup=holding,
        check=done(2),
        found=(30, 0, "ok"),
        states=40,
    )
    program(
        "shutdown, two wait in put",
        put_or_end,
        put_or_end,
        shut,
        setup=partial(holding, maxsize=1),
        check=done(2),
        found=(66, 0, "ok"),
        states=90,
    )
    program(
        "shutdown leaves items",
        produce_and_shut,
        drain,
        setup=holding,
        check=done(2),
        found=(38, 0, "ok"),
        states=60,
    )
    program(
        "shutdown now drops items",
        produce_and_shut_now,
        drain,
        setup=holding,
        check=done(2),
        found=(38, 14, "ok wrong"),
        states=60,
    )
    program("shutdown now wakes join", shut_now, join, setup=partial(holding, 1),
            check=lambda s: s.joined, found=(2, 0, "ok"), states=10)  # fmt: skip


# -- tests ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_with_queues(name):
    functions, setup, check, found, states = PROGRAMS[name]
    result = explore(*functions, setup=setup, check=check)
    assert result.complete and not result.limits
    assert (result.schedules, result.failing, " ".join(result.kinds)) == found
    assert result.states <= states


@pytest.mark.parametrize(
    "name", [name for name, (*_, found, _) in PROGRAMS.items() if found[0] <= 300]
)
def test_merging_of_states_changes_nothing(name):
    functions, setup, check, found, _ = PROGRAMS[name]
    result = explore(*functions, setup=setup, check=check, merge=False)
    assert (result.schedules, result.failing, " ".join(result.kinds)) == found


def test_waiting_is_told_in_words():
    functions, setup, check, *_ = PROGRAMS["one None for two"]
    ends = explore(*functions, setup=setup, check=check).outcomes
    assert {line for end in ends for line in end.lines} == {
        "B waits for an item in q", "C waits for an item in q"
    }  # fmt: skip
    functions, setup, check, *_ = PROGRAMS["error before task_done"]
    (end,) = explore(*functions, setup=setup, check=check).outcomes
    assert end.lines[1] == "B waits for all items of q to be done"
    functions, setup, check, *_ = PROGRAMS["two queues crossed"]
    (end,) = explore(*functions, setup=setup, check=check).outcomes
    assert end.lines == ("A waits for room in q", "B waits for room in other")


# -- where the real SimpleQueue and Lock can hide from the explorer -------------------------------


def put_one(s):
    s.q.put(1)


def get_one(s):
    s.got = s.q.get()


def queue_of(kind):
    return Shared(q=kind(), got=None)


def queue_by_default(kind=SimpleQueue):
    return Shared(q=kind(), got=None)


def by_closure(kind):
    return lambda: Shared(q=kind(), got=None)


@pytest.mark.parametrize(
    "setup",
    [partial(queue_of, SimpleQueue), partial(queue_of, kind=SimpleQueue),
     partial(partial(queue_of), SimpleQueue), queue_by_default, by_closure(SimpleQueue)],
)  # fmt: skip
def test_a_simple_queue_given_as_an_argument(setup):
    before = queue_by_default.__defaults__
    result = explore(put_one, get_one, setup=setup, check=lambda s: s.got == 1, time_limit=2)
    assert result.ok and result.schedules == 2
    assert queue_by_default.__defaults__ == before == (SimpleQueue,)
    assert type(setup().q) is queue.SimpleQueue is SimpleQueue


def locked(s):
    with s.q:
        s.got = 1


@pytest.mark.parametrize("setup", [partial(queue_of, Lock), by_closure(Lock)])
def test_a_lock_given_as_an_argument(setup):
    assert explore(locked, locked, setup=setup).schedules > 1


def test_a_partial_with_nothing_to_replace_stays_what_it_is():
    given = []

    def setup(marker):
        given.append(marker)

    marker = object()
    explore(lambda: None, setup=partial(setup, marker))
    assert given and all(one is marker for one in given)


def test_a_simple_queue_that_cannot_be_controlled_is_an_error_at_once():
    made_before = SimpleQueue()
    with pytest.raises(ExplorationError, match=r"SimpleQueue.*inside setup"):
        explore(put_one, get_one, setup=lambda: Shared(q=made_before, got=None), time_limit=2)


# -- what a run must not leave to the next one ----------------------------------------------------


def fails_and_passes(s):
    try:
        raise KeyError(s.x)
    except KeyError:
        pass


def waits_and_passes(s):
    try:
        with s.lock:
            while not s.x:
                s.lock.wait()
            raise KeyError
    except KeyError:
        pass


def wake(s):
    with s.lock:
        s.x = 1
        s.lock.notify_all()


def set_x(s):
    s.x = 1


def shared():
    return Shared(x=0, lock=threading.Condition())


@pytest.mark.parametrize(
    "functions",
    [(fails_and_passes, fails_and_passes, set_x), (waits_and_passes, waits_and_passes, wake)],
)
@pytest.mark.parametrize("granularity", ["line", "interpreter"])
def test_a_handled_exception_ends_with_its_run(functions, granularity):
    """A run that was stopped at the end of an except block left its exception to the next."""
    result = explore(*functions, setup=shared, granularity=granularity)
    assert result.ok and result.complete
    assert sys.exc_info() == (None, None, None)


# -- installed among the libraries ----------------------------------------------------------------


def test_the_course_s_own_programs_can_be_explored_where_it_is_installed(monkeypatch):
    from concurrency_lab.experiments import channel_suite

    folder = (_source.PACKAGE,)
    monkeypatch.setattr(_source, "_LIBRARIES", _source._LIBRARIES + folder)
    monkeypatch.setattr(_state, "_LIBRARY_FOLDERS", _state._LIBRARY_FOLDERS + folder)
    assert not _source.is_library_path(channel_suite.__file__)
    assert not _state.is_library_file(channel_suite.__file__)
    assert _source.is_library_path(_source.__file__)
    assert _state.is_library_file(_source.__file__)
    assert _source.is_library_path(pytest.__file__) and _state.is_library_file(queue.__file__)
    result = explore(
        channel_suite.put_x, get_from_channel, setup=lambda: Shared(channel=Queue(), got=None)
    )
    assert result.schedules == 2 and result.ok


def get_from_channel(s):
    s.got = s.channel.get()
