"""Small programs that hide what they know in many ways: `PROGRAMS`, by name.

Each is (functions, setup). The tests explore each with and without merging of equal states, and
the two must agree on every outcome and on how many schedules end so.
"""

import collections
import contextlib
import functools
import itertools
import queue
import threading
import time
from dataclasses import dataclass, field
from threading import Lock
from types import SimpleNamespace as Shared

PROGRAMS = {}
total = 0
fresh_lock = None


def program(*functions, **shared):
    """Register functions that share what ``shared`` makes: values, or callables that make them."""

    def setup():
        return Shared(**{k: v() if callable(v) else v for k, v in shared.items()})

    _register(functions, setup)


def _register(functions, setup):
    name = functions[0].__name__
    assert name not in PROGRAMS, name
    PROGRAMS[name] = (functions, setup)


def set_x(s):
    s.x = 1


def add_x(s):
    s.x += 1


# -- devices ------------------------------------------------------------------------------------


def rlock_twice(s):
    with s.lock:
        with s.lock:
            s.x += 1


program(rlock_twice, rlock_twice, lock=threading.RLock, x=0)


def rlock_in_part(s):
    with s.lock:
        value = s.x
    s.x = value + 1


program(rlock_in_part, rlock_in_part, lock=threading.RLock, x=0)


def semaphore_for_two(s):
    with s.sem:
        value = s.x
        s.x = value + 1


program(
    semaphore_for_two, semaphore_for_two, rlock_in_part,
    sem=lambda: threading.Semaphore(2), lock=threading.RLock, x=0,
)  # fmt: skip


def released_too_often(s):
    s.sem.release()
    s.x += 1
    s.sem.acquire()


program(released_too_often, released_too_often, sem=lambda: threading.BoundedSemaphore(1), x=0)


def if_consumer(s):
    with s.cond:
        if not s.items:
            s.cond.wait()
        s.out.append(s.items.pop())


def while_producer(s):
    with s.cond:
        s.items.append(len(s.items))
        s.cond.notify_all()


program(if_consumer, if_consumer, while_producer, cond=threading.Condition, items=list, out=list)


def lost_waiter(s):
    with s.cond:
        s.cond.wait()
    s.out.append("woken")


def lost_notifier(s):
    with s.cond:
        s.cond.notify()
    s.out.append("told")


program(lost_waiter, lost_notifier, cond=threading.Condition, out=list)


def wait_for_it(s):
    with s.cond:
        s.out.append(s.cond.wait_for(lambda: s.x == 1))


def make_it_so(s):
    with s.cond:
        s.x = 1
        s.cond.notify()


program(wait_for_it, make_it_so, cond=threading.Condition, x=0, out=list)


def wait_with_timeout(s):
    with s.cond:
        s.out.append(s.cond.wait(1))


program(wait_with_timeout, make_it_so, cond=threading.Condition, x=0, out=list)


def event_waiter(s):
    s.event.wait()
    s.out.append(s.x)


def event_setter(s):
    s.event.set()
    s.x = 1


program(event_waiter, event_setter, event=threading.Event, x=0, out=list)


def barrier_party(s):
    s.x += 1
    place = s.barrier.wait()
    s.out.append((place, s.x))


program(barrier_party, barrier_party, barrier=lambda: threading.Barrier(2), x=0, out=list)


def barrier_impatient(s):
    try:
        s.barrier.wait(1)
    except threading.BrokenBarrierError:
        s.out.append("broken")


program(barrier_impatient, barrier_impatient, barrier=lambda: threading.Barrier(2), out=list)


def queue_getter(s):
    s.out.append(s.queue.get())
    s.queue.task_done()


def queue_putter(s):
    s.queue.put(2)
    s.queue.put(1)


program(queue_getter, queue_getter, queue_putter, queue=queue.Queue, out=list)


def full_putter(s):
    s.queue.put(s.x)
    s.x = 1


program(full_putter, full_putter, queue_getter, queue=lambda: queue.LifoQueue(1), x=0, out=list)


def priority_getter(s):
    s.out.append(s.queue.get())


program(priority_getter, queue_putter, queue=queue.PriorityQueue, out=list)


def get_with_timeout(s):
    try:
        s.out.append(s.queue.get(timeout=0.1))
    except queue.Empty:
        s.out.append("empty")


program(get_with_timeout, queue_putter, queue=queue.Queue, out=list)


def simple_getter(s):
    s.out.append(s.queue.get())


def simple_putter(s):
    s.queue.put(s.x)
    s.x = 1


program(
    simple_getter, simple_getter, simple_putter, simple_putter,
    queue=lambda: queue.SimpleQueue(), x=0, out=list,
)  # fmt: skip


def lock_with_timeout(s):
    if s.lock.acquire(timeout=1):
        s.x += 1
        s.lock.release()
    else:
        s.out.append("gave up")


program(lock_with_timeout, lock_with_timeout, lock=lambda: Lock(), x=0, out=list)


def lock_without_waiting(s):
    got = s.lock.acquire(blocking=False)
    s.out.append(got)
    if got:
        s.lock.release()


program(lock_without_waiting, lock_without_waiting, lock=lambda: Lock(), out=list)


def sleeper(s):
    before = time.monotonic()
    time.sleep(1)
    s.out.append(time.monotonic() - before)


def sleeper_too(s):
    time.sleep(2)
    s.x = 1


program(sleeper, sleeper_too, x=0, out=list)


def deadline(s):
    end = time.monotonic() + 2
    with s.cond:
        while s.x == 0:
            if not s.cond.wait(end - time.monotonic()):
                s.out.append("late")
                break


program(deadline, make_it_so, cond=threading.Condition, x=0, out=list)


def takes_with_queue_sum(s):
    s.x = s.x + s.queue.get()


def puts_and_changes(s):
    s.x = 10
    s.queue.put(1)


program(takes_with_queue_sum, puts_and_changes, queue=queue.Queue, x=0)


def waits_with_sum(s):
    s.out.append(s.x + s.lock.acquire())


def holds_a_while(s):
    with s.lock:
        s.x = 5


program(waits_with_sum, holds_a_while, lock=lambda: Lock(), x=0, out=list)


# -- hidden values ------------------------------------------------------------------------------


def read(s):
    value = s.x
    return value


def sum_with_call(s):
    s.y = s.x + read(s)


program(sum_with_call, add_x, x=0, y=0)


def call_in_argument(s):
    s.out.append(read(s))
    s.out.append(read(s))


program(call_in_argument, add_x, x=0, out=list)


def returned_in_with(s):
    with s.lock:
        return s.x


def uses_returned(s):
    value = returned_in_with(s)
    s.out.append(value)


program(uses_returned, set_x, lock=lambda: Lock(), x=0, out=list)


def returned_in_two_withs(s):
    with s.lock:
        with s.other:
            return s.x


def uses_returned_twice(s):
    value = returned_in_two_withs(s)
    s.out.append(value)


program(uses_returned_twice, set_x, lock=lambda: Lock(), other=lambda: Lock(), x=0, out=list)


def returned_in_finally(s):
    with s.lock:
        try:
            return s.x
        finally:
            s.y = 1


def uses_returned_finally(s):
    value = returned_in_finally(s)
    s.out.append(value)


program(uses_returned_finally, set_x, lock=lambda: Lock(), x=0, y=0, out=list)


def raised_in_with(s):
    with s.lock:
        raise ValueError(s.x)


def catches_raised(s):
    try:
        raised_in_with(s)
    except ValueError as error:
        s.out.append(error.args)


program(catches_raised, set_x, lock=lambda: Lock(), x=0, out=list)


def raises_through_finally(s):
    try:
        raise ValueError(s.x)
    finally:
        s.y = 1


def catches_through_finally(s):
    with contextlib.suppress(TypeError), s.lock:
        try:
            raises_through_finally(s)
        except ValueError as error:
            s.out.append(error.args)


program(catches_through_finally, set_x, lock=lambda: Lock(), x=0, y=0, out=list)


def raises_again(s):
    try:
        raise ValueError(s.x)
    except ValueError:
        s.y = 1
        raise


program(raises_again, set_x, x=0, y=0)


class Refused(Exception):
    def __init__(self, code):
        super().__init__()
        self.code = code


def error_with_attribute(s):
    try:
        raise Refused(s.x)
    except Refused as error:
        s.y = 1
        s.out.append(error.code)


program(error_with_attribute, set_x, x=0, y=0, out=list)


def loop_over_copy(s):
    for item in list(s.items):
        s.out.append(item)


def append_item(s):
    s.items.append(3)


program(loop_over_copy, append_item, items=lambda: [1, 2], out=list)


def loop_over_shared(s):
    for item in s.items:
        s.out.append(item)


program(loop_over_shared, append_item, items=lambda: [1, 2], out=list)


def loop_over_same_values(s):
    for item in s.items:
        if item:
            s.out.append(item)


program(loop_over_same_values, append_item, items=lambda: [1, 1], out=list)


def loop_by_index(s):
    for i in range(len(s.items)):
        s.out.append(s.items[i])


def take_item(s):
    s.items.pop()


program(loop_by_index, take_item, items=lambda: [1, 2], out=list)


def loop_over_dict(s):
    for key in s.table:
        s.out.append(key)


def grow_dict(s):
    s.table["c"] = 3


program(loop_over_dict, grow_dict, table=lambda: {"a": 1, "b": 2}, out=list)


def loop_with_known_place(s):
    for i in range(2):
        for j in (5, 6):
            s.out.append(i * j)


program(loop_with_known_place, set_x, x=0, out=list)


def loop_variable_of_all(s):
    global total
    for total in range(3):
        s.out.append(total)


def sets_loop_variable(s):
    global total
    total = 0


def setup_loop_variable():
    global total
    total = 0
    return Shared(out=[])


_register((loop_variable_of_all, sets_loop_variable), setup_loop_variable)


def zipped(s):
    for a, b in zip(s.items, itertools.count()):
        s.out.append((a, b))


program(zipped, append_item, items=lambda: [1, 2], out=list)


def comprehension(s):
    values = [read(s) for _ in range(2)]
    s.out.extend(values)


program(comprehension, add_x, x=0, out=list)


def generator_expression(s):
    s.out.append(sum(read(s) for _ in range(2)))


program(generator_expression, add_x, x=0, out=list)


def values_of(s):
    for _ in range(2):
        yield s.x


def generator_loop(s):
    for value in values_of(s):
        s.out.append(value)


program(generator_loop, add_x, x=0, out=list)


def generator_by_hand(s):
    values = values_of(s)
    first = next(values)
    s.out.append(first + next(values))


program(generator_by_hand, add_x, x=0, out=list)


def iterator_by_hand(s):
    items = iter(s.items)
    s.out.append(next(items))
    s.out.append(next(items))


program(iterator_by_hand, append_item, items=lambda: [1, 2], out=list)


def sorts_with_key(s):
    s.out = sorted([2, 1], key=lambda item: item * read(s))


def turns_sign(s):
    s.x = -1


program(sorts_with_key, turns_sign, x=1, out=list)


def chained_comparison(s):
    s.out.append(read(s) < read(s) < 5)


program(chained_comparison, add_x, x=0, out=list)


def conditional_argument(s):
    s.out.append((read(s), s.y if s.x else read(s)))


def set_both(s):
    s.x = 1
    s.y = 2


program(conditional_argument, set_both, x=0, y=0, out=list)


def recursion(s, depth=2):
    if depth == 0:
        return s.x
    value = recursion(s, depth - 1)
    s.out.append(value)
    return value + s.x


program(recursion, set_x, x=0, out=list)


def recursion_hidden(s, depth=1):
    if depth == 0:
        return s.x
    s.out.append(s.x + recursion_hidden(s, depth - 1))
    return 0


program(recursion_hidden, add_x, x=0, out=list)


class Doors:
    def __init__(self, s):
        self.s = s

    def run(self):
        self.s.out.append("ran")

    @property
    def number(self):
        value = self.s.x
        return value


def run(s):
    value = s.x
    return value % 2


def called_by_the_same_name(s):
    s.tables[run(s)].run()
    s.out.append(len(s.tables))


def exchanges_tables(s):
    s.tables = []
    s.x = 1


def setup_tables():
    s = Shared(x=0, out=[])
    s.tables = [Doors(s), Doors(s)]
    return s


_register((called_by_the_same_name, exchanges_tables), setup_tables)


def number(a, b):
    return a - b


def property_of_the_same_name(s):
    value = number(s.x, s.doors.number)
    s.out.append(value)


def setup_doors():
    s = Shared(x=0, out=[])
    s.doors = Doors(s)
    return s


_register((property_of_the_same_name, add_x), setup_doors)


# -- aliases ------------------------------------------------------------------------------------


def replaces_if_asked(s):
    if s.flag:
        s.items = list(s.items)
    s.items.append(3)


def asks(s):
    s.flag = True


def loop_over_old(s):
    for item in s.items:
        s.out.append(item)


program(loop_over_old, replaces_if_asked, asks, items=lambda: [1], flag=False, out=list)


def private_alias(s):
    mine = s.items
    mine.append(1)
    s.items = list(mine)
    mine.append(2)


program(private_alias, private_alias, items=list)


def handed_over(s):
    box = [0]
    s.boxes.append(box)
    box[0] = 1
    box[0] = 2


def takes_hand(s):
    if s.boxes:
        box = s.boxes.pop()
        s.out.append(box[0] + look(box))


def look(box):
    value = box[0]
    return value


program(handed_over, takes_hand, boxes=list, out=list)


def same_or_equal(s):
    s.b = s.a


def changes_a(s):
    s.a.append(1)
    s.out.append(list(s.b))


def equal_again(s):
    s.b = []


program(same_or_equal, equal_again, changes_a, a=list, b=list, out=list)


def locks_what_is_there(s):
    with s.lock:
        s.out.append("in")


def exchanges_lock(s):
    s.lock = Lock()
    s.out.append("new")


program(locks_what_is_there, locks_what_is_there, exchanges_lock, lock=lambda: Lock(), out=list)


class Gate:
    def __init__(self):
        self.passed = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.passed += 1


def passes_gate(s):
    with s.gate:
        s.x = 1
    s.out.append([gate.passed for gate in s.gates])


def exchanges_gate(s):
    s.gate = s.gates[1]


def gates():
    one, two = Gate(), Gate()
    return Shared(gate=one, gates=[one, two], x=0, out=[])


_register((passes_gate, exchanges_gate), gates)


def passes_by_number(s):
    i = s.x
    with s.sems[i]:
        i = 0
        s.out.append(s.x)
    s.out.append([sem._value for sem in s.sems])


program(passes_by_number, set_x, sems=lambda: [threading.Semaphore(1) for _ in range(2)], x=0,
        out=list)  # fmt: skip


@contextlib.contextmanager
def remembering(s):
    before = s.x
    yield before
    s.out.append(before)


def own_manager(s):
    with remembering(s) as value:
        s.y = value


program(own_manager, add_x, x=0, y=0, out=list)


# -- where state can be -------------------------------------------------------------------------


class Account:
    opened = 0

    def __init__(self):
        self.balance = 0
        self._lock = Lock()

    @property
    def rich(self):
        value = self.balance
        return value > 1

    def deposit(self):
        Account.opened += 1
        with self._lock:
            self.balance += 1


def uses_account(s):
    s.account.deposit()
    s.out.append((s.account.rich, Account.opened))


def setup_account():
    Account.opened = 0
    return Shared(account=Account(), out=[])


_register((uses_account, uses_account), setup_account)


class Slotted:
    __slots__ = ("value",)

    def __init__(self):
        self.value = 0


def uses_slots(s):
    value = s.thing.value
    s.thing.value = value + 1


program(uses_slots, uses_slots, thing=Slotted)


@dataclass
class Point:
    x: int = 0
    lock: Lock = field(default_factory=Lock)
    seen: list = field(default_factory=list)


def moves_point(p):
    with p.lock:
        p.x += 1
    p.seen.append(p.x)


_register((moves_point, moves_point), Point)


def uses_global(s):
    global total
    value = total
    total = value + 1
    s.out.append(total)


def setup_global():
    global total
    total = 0
    return Shared(out=[])


_register((uses_global, uses_global), setup_global)


def makes_global(s):
    global made_late
    made_late = s.x
    s.x = 1
    s.out.append(made_late)


def unmake_global():
    globals().pop("made_late", None)
    return Shared(x=0, out=[])


_register((makes_global, makes_global), unmake_global)


def global_lock(s):
    with fresh_lock:
        s.x += 1
    s.out.append(s.x)


def setup_global_lock():
    global fresh_lock
    fresh_lock = Lock()
    return Shared(x=0, out=[])


_register((global_lock, global_lock), setup_global_lock)


def static_counter(s):
    counts(s)
    s.out.append(counts.number)


def counts(s):
    value = counts.number
    counts.number = value + 1


def setup_static():
    counts.number = 0
    return Shared(out=[])


_register((static_counter, static_counter), setup_static)


def remembers(item, seen=[]):  # noqa: B006
    seen.append(item)
    return len(seen)


def mutable_default(s):
    number = remembers(s.x)
    s.x = 1
    s.out.append(number)


def setup_default():
    remembers.__defaults__[0].clear()
    return Shared(x=0, out=[])


_register((mutable_default, mutable_default), setup_default)


def by_closure():
    count = 0
    out = []

    def nonlocal_counter():
        nonlocal count
        value = count
        count = value + 1
        out.append(count)

    def setup():
        nonlocal count
        count = 0
        out.clear()

    _register((nonlocal_counter, nonlocal_counter), setup)


by_closure()


def inner_function(s):
    mine = 0

    def step():
        nonlocal mine
        mine += s.x
        s.x = 1

    step()
    step()
    s.out.append(mine)


program(inner_function, inner_function, x=0, out=list)


def bound_method_kept(s):
    append = s.items.append
    append(1)
    s.out.append(len(s.items))


def new_items(s):
    s.items = []


program(bound_method_kept, new_items, items=list, out=list)


def partial_kept(s):
    later = functools.partial(s.out.append, s.x)
    s.y = 1
    later()


program(partial_kept, set_x, x=0, y=0, out=list)


def set_order(s):
    s.seen.add(0)
    s.out.append(0)


def set_order_too(s):
    s.seen.add(8)
    s.out.append(0)


def set_reader(s):
    s.out.append(list(s.seen))


program(set_order, set_order_too, set_reader, seen=set, out=list)


def dict_order(s):
    s.table["a"] = 1


def dict_order_too(s):
    s.table["b"] = 1


def dict_reader(s):
    s.out.append(list(s.table))


program(dict_order, dict_order_too, dict_reader, table=dict, out=list)


def takes_number(s):
    number = next(s.numbers)
    s.out.append(number)


program(takes_number, takes_number, takes_number, numbers=itertools.count, out=list)


def counts_words(s):
    s.counter["a"] += 1
    s.table["a"].append(s.counter["a"])
    s.ordered.move_to_end("x")


def counts_more(s):
    s.ordered["y"] = s.counter["a"]


program(
    counts_words, counts_more, counter=collections.Counter,
    table=lambda: collections.defaultdict(list), ordered=lambda: collections.OrderedDict(x=1, z=2),
)  # fmt: skip


def local_storage(s):
    s.local.value = s.x
    s.x = 1
    s.out.append(s.local.value)


program(local_storage, local_storage, local=threading.local, x=0, out=list)


def walrus(s):
    while (value := s.x) < 2:
        s.x = value + 1


program(walrus, walrus, x=0)


def unpacking(s):
    s.x, s.y = s.y, s.x
    s.out.append((s.x, s.y))


program(unpacking, unpacking, x=0, y=1, out=list)


def matching(s):
    match s.x:
        case 0:
            s.out.append("zero")
        case other:
            s.out.append(other)


program(matching, add_x, x=0, out=list)


def deletes(s):
    if hasattr(s, "x"):
        del s.x


program(deletes, deletes, x=0)


def asserts(s):
    assert read(s) == 0, s.x
    s.x = 1


program(asserts, asserts, x=0)


def one_line(s):
    value = s.x; s.x = value + 1  # noqa: E702
    with s.lock: s.out.append(read(s))  # noqa: E701
    for item in s.items: s.out.append(item + read(s))  # noqa: E701


program(one_line, set_x, x=0, lock=lambda: Lock(), items=lambda: [1, 2], out=list)


def suppressed(s):
    with contextlib.suppress(IndexError):
        s.out.append(s.items.pop())


program(suppressed, suppressed, items=lambda: [1], out=list)


def catches_everything(s):
    try:
        s.lock.acquire()
        s.x += 1
    except BaseException:
        s.x = -1
    finally:
        s.lock.release()


program(catches_everything, catches_everything, lock=lambda: Lock(), x=0)
