"""Goes through all schedules of a program and records the states that it meets.

A run ends, or meets a state that is known already; what can follow from that state needs no second
look, so equal states are stored once. The states form a graph. Each schedule of the program is a
way through the graph, and can be counted without being run.

Method: stateless search by replay as in Godefroid, "Model checking for programming languages using
VeriSoft" (POPL 1997), bounds on preemptions as in Musuvathi and Qadeer, "Iterative context bounding
for systematic testing of multithreaded programs" (PLDI 2007), and stored states as in
explicit-state model checking.
"""

from __future__ import annotations

import inspect
import math
import threading
import types
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from concurrency_lab.explorer._control import Controlled, ExplorationError, Run
from concurrency_lab.explorer._state import (
    Canon,
    Incomparable,
    Names,
    Shared,
    digest,
    is_plain,
    is_shown,
    local_variables,
    outlook,
    show,
    thread_facts,
)

READY, BLOCKED, DONE, RAISED = "ready", "blocked", "done", "raised"


@dataclass(frozen=True)
class ThreadView:
    """What can be seen of a thread in a state."""

    code: types.CodeType | None
    line: int
    text: str
    status: str
    waits: str
    variables: str
    leaving: bool = False
    raised: str = ""


@dataclass(frozen=True)
class End:
    """How a run ended, in words."""

    kind: str
    lines: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return self.kind == "ok"


class State:
    """A state of the program, and where a step of each thread leads."""

    __slots__ = (
        "by", "choices", "closed", "depth", "digests", "end", "index", "last", "next", "parent",
        "signature", "threads", "used", "variables",
    )  # fmt: skip

    def __init__(self, index: int) -> None:
        self.index = index
        self.next: dict[int, State] = {}
        self.choices: tuple[int, ...] = ()
        self.parent: State | None = None
        self.by = self.last = -1
        self.depth = self.used = 0
        self.closed = False
        self.end: End | None = None
        self.digests: tuple[bytes, ...] = ()
        self.signature: tuple = ()
        self.variables: tuple[tuple[str, str], ...] = ()
        self.threads: tuple[ThreadView, ...] = ()

    def open_choice(self) -> int | None:
        """A thread that was not tried here yet, first of all the one that ran last."""
        if self.last in self.choices and self.last not in self.next:
            return self.last
        return next((c for c in self.choices if c not in self.next), None)


class Search:
    """The director that leads runs to what was not seen yet."""

    def __init__(
        self,
        run: Run,
        shared: Shared,
        check: Callable | None,
        invariant: Callable | None,
        preemptions: int | None,
        max_steps: int,
        max_states: int,
        merge: bool,
    ) -> None:
        self.run, self.shared, self.check, self.invariant = run, shared, check, invariant
        self.preemptions, self.max_steps, self.max_states = preemptions, max_steps, max_states
        self.merge = merge
        self.limits: list[str] = []
        self.again = False  # more is shared than was known: begin again
        self.hiding: set[tuple] = set()  # places from which a step led to hidden values
        self._begin()

    def _begin(self) -> None:
        self.states: list[State] = []
        self.known: dict[tuple, State] = {}
        self.codes: dict[types.CodeType, int] = {}
        self.open: list[State] = []
        self.runs = self.steps = 0
        self.at: State | None = None
        self.by = -1
        self.plan: deque[int] = deque()
        self.place: tuple = ()
        self.outlook: tuple[bytes, dict] | None = None

    def explore(self) -> None:
        """Run until nothing is left that was not tried, or a limit is reached."""
        clock_matters = False
        self._run([])
        while self.open or self.again:
            if self.again or self.run.clock_was_read and not clock_matters:
                clock_matters = self.run.clock_was_read  # the time is part of the state from now on
                self.again = False
                self._begin()
                self._run([])
                continue
            state = self.open[-1]
            if state.open_choice() is None:
                self.open.pop()
                continue
            if len(self.states) > self.max_states:
                self.limits.append(f"{self.max_states} states")
                return
            self._run(self._path(state))

    def _path(self, state: State) -> list[int]:
        path = []
        while state.parent is not None:
            path.append(state.by)
            state = state.parent
        return path[::-1]

    def _run(self, path: list[int]) -> None:
        self.at, self.plan = None, deque(path)
        self.runs += 1
        self.run.once(self)
        self.steps += self.run.steps - 1

    # -- called in the controlled threads -----------------------------------------------------

    def next(self, run: Run) -> int | None:
        came = self.at
        if self.again:
            return None
        if came is None:
            state = self.states[0] if self.states else self._record(run, None, -1)
            self._expect(run, state)
        else:
            if not self._remember(run):
                return None
            state = came.next.get(self.by)
            if state is None:
                state = came.next[self.by] = self._record(run, came, self.by)
            else:
                self._expect(run, state)
        if state.end is not None or len(self.states) > self.max_states:
            return None
        if self.plan:
            by = self.plan.popleft()
        else:
            by = state.open_choice()
            if by is None:
                if not self.merge or not self._plan_to_open(state):
                    return None
                by = self.plan.popleft()
        self.at, self.by = state, by
        if self.merge:
            self._look(run.threads[by], run)
        return by

    def prepared(self, run: Run) -> None:
        if self.runs > 1:
            return
        for function in (*self.shared.functions, self.check, self.invariant):
            try:
                if function is not None:
                    inspect.signature(function).bind(*run.arguments)
            except TypeError as error:
                name = getattr(function, "__qualname__", repr(function))
                what = "the object that setup made" if run.arguments else "no argument"
                raise TypeError(f"{name} is called with {what}: {error}") from None
            except ValueError:
                pass  # Python does not know the signature

    def discover(self, frame: types.FrameType) -> None:
        self.again |= self.shared.discover(frame)

    def _look(self, thread: Controlled, run: Run) -> None:
        """Before a step that may lead to hidden values: keep all that they can depend on."""
        code = thread.frame.f_code
        self.place = (code, thread.frame.f_lasti, thread.blocked is not None)
        self.outlook = None
        if self.place in self.hiding:
            try:
                self.outlook = outlook(thread, self.shared.roots(run), self.codes)
            except Incomparable as what:
                self._no_merging(what)

    def _remember(self, run: Run) -> bool:
        """Note what the thread that took the last step may have seen and hides.

        Python does not show the values that stand between two instructions. They are known all the
        same: they follow from what the thread saw in each step since nothing was hidden. Objects
        among them are some of those that it could reach. False: the run must be repeated, with a
        look around before this step.
        """
        thread = run.threads[self.by]
        if not self.merge or is_plain(thread):
            thread.history = b""
            thread.held.clear()
            return True
        try:
            if self.outlook is None:
                self.hiding.add(self.place)
                return False
            seen, before = self.outlook
            thread.history = digest((thread.history, seen))
            after = outlook(thread, self.shared.roots(run), self.codes)[1]
            thread.held |= before | after
        except Incomparable as what:
            self._no_merging(what)
        return True

    def _signature(self, run: Run) -> tuple:
        return tuple(
            (t.done, t.blocked is not None, t.frame.f_lasti if t.frame is not None else -1)
            for t in run.threads
        )

    def _expect(self, run: Run, state: State) -> None:
        """Compare a known state with what the same schedule led to now."""
        same = state.signature == self._signature(run)
        if same and not self.plan and state.digests:
            now = self._digests(run)
            same = not now or state.digests == now
        if not same:
            now = dict(self._variables(run))
            then = dict(state.variables)
            odd = [n for n in {**then, **now} if then.get(n) != now.get(n)]
            what = "".join(f" {n} was {then.get(n)} and is now {now.get(n)}." for n in odd[:1])
            raise ExplorationError(
                f"the same schedule did not lead to the same state.{what} The program is not "
                "deterministic: leave out random numbers, id() and sets of strings, and let setup "
                "make anew whatever a run changes (also global variables and class attributes)"
            )

    def _digests(self, run: Run) -> tuple[bytes, ...]:
        canon = Canon()
        try:
            if run.outside:
                raise Incomparable(f"what is outside the program ({run.outside})")
            found = [digest(canon(self.shared.roots(run)))]
            found += [digest(thread_facts(thread, canon, self.codes)) for thread in run.threads]
        except Incomparable as what:
            self._no_merging(what)
            return ()
        return tuple(found)

    def _no_merging(self, what: Incomparable) -> None:
        if self.merge:
            self.merge, self.again = False, True
            self.limits.append(f"equal states were not merged: cannot look into {what}")

    def _record(self, run: Run, came: State | None, by: int) -> State:
        """The state that the program is in, a known one if there is an equal one."""
        used = 0
        if came is not None and self.preemptions is not None:
            used = came.used + (came.last != by and came.last in came.choices)
        digests = self._digests(run)
        key: tuple = ()
        if self.merge and digests:
            key = (*digests, *(thread.history for thread in run.threads))
            if self.preemptions is not None:
                key += (by, used)
            if key in self.known:
                return self.known[key]
        state = State(len(self.states))
        self.states.append(state)
        if key:
            self.known[key] = state
        state.digests, state.signature = digests, self._signature(run)
        state.parent, state.by, state.last, state.used = came, by, by, used
        state.depth = came.depth + 1 if came is not None else 0
        able = tuple(t.index for t in run.threads if t.can_run())
        self._describe(run, state, able)
        if state.end is None:
            if self.preemptions is not None and used >= self.preemptions and by in able:
                if len(able) > 1:
                    self._limit(f"at most {self.preemptions} preemptions")
                able = (by,)
            state.choices = able
            self.open.append(state)
        return state

    def _limit(self, text: str) -> None:
        if text not in self.limits:
            self.limits.append(text)

    def _plan_to_open(self, state: State) -> bool:
        """Plan the shortest way from a state to one where a thread was not tried; False: none."""
        reached: dict[State, tuple[State, int] | None] = {state: None}
        waiting = deque([state])
        while waiting:
            one = waiting.popleft()
            choice = one.open_choice() if one.end is None else None
            if choice is not None:
                path = [choice]
                while (step := reached[one]) is not None:
                    one, by = step
                    path.append(by)
                if len(path) + self.run.steps > 4 * self.max_steps:
                    return False
                self.plan = deque(reversed(path))
                return True
            for by, other in one.next.items():
                if not other.closed and other not in reached:
                    reached[other] = (one, by)
                    waiting.append(other)
        for one in reached:
            one.closed = True  # nothing new can be reached from here, now or later
        return False

    # -- in words -----------------------------------------------------------------------------

    def _describe(self, run: Run, state: State, able: tuple[int, ...]) -> None:
        state.variables = self._variables(run)
        names = None
        if any(thread.blocked is not None for thread in run.threads):
            names = Names(self.shared.variables(run))
        state.threads = tuple(self._view(run, thread, names) for thread in run.threads)
        if self.invariant is not None and not self._holds(self.invariant, run):
            state.end = End("invariant", _values(state))
        elif not able:
            state.end = self._end(run, state, names)
        elif state.depth >= self.max_steps:
            state.end = self._cut()

    def _variables(self, run: Run) -> tuple[tuple[str, str], ...]:
        return tuple((n, show(v, run)) for n, v in self.shared.variables(run) if is_shown(v))

    def _view(self, run: Run, thread, names: Names | None) -> ThreadView:
        if thread.done:
            if thread.error is not None:
                return ThreadView(None, 0, "", RAISED, _error(thread.error), "")
            return ThreadView(None, 0, "", DONE, "", "")
        program = run.programs[thread.frame.f_code]
        waits = ""
        blocked = thread.blocked is not None and thread.blocked.owner is not None
        if blocked and names is not None:
            waits = waiting_for(*thread.waits, names, thread.blocked.owner)
        return ThreadView(
            thread.frame.f_code,
            thread.statement.line,
            self._text(thread, program),
            BLOCKED if blocked else READY,
            waits,
            local_variables(thread),
            thread.leaving,
            _error(thread.raised) if thread.raised is not None else "",
        )

    def _text(self, thread, program) -> str:
        text = program.text(thread.statement.line)
        what = program.stops.get(thread.frame.f_lasti)
        return f"{text}  [{what}]" if what else f"{text}  # leave" if thread.leaving else text

    def _holds(self, condition: Callable, run: Run) -> bool:
        try:
            good = condition(*run.arguments)
        except AssertionError:
            return False
        if good is None:
            name = "check" if condition is self.check else "invariant"
            raise ExplorationError(f"{name} returned None: let it return True or False")
        return bool(good)

    def _end(self, run: Run, state: State, names: Names | None) -> End:
        stuck = [thread for thread in run.threads if not thread.done]
        lines = [
            f"{thread.name} raised {_error(thread.error)}" for thread in run.threads if thread.error
        ]
        if stuck:
            lost = False
            for thread in stuck:
                thing, method = thread.waits
                lost |= method.startswith("wait") and _unheard(thing)
                text = waiting_for(thing, method, names, thread.blocked.owner)
                held = names.held_by(thread.name)
                holds = f" holds {', '.join(held)} and" if held else ""
                lines.append(f"{thread.name}{holds} waits for {text}")
            return End("lost wake-up" if lost else "deadlock", tuple(lines))
        if lines:
            return End("exception", tuple(lines))
        if self.check is None or self._holds(self.check, run):
            return End("ok", _values(state))
        return End("wrong", _values(state))

    def _cut(self) -> End:
        """The end of a path that is too long: no verdict, it may end or not."""
        self._limit(f"at most {self.max_steps} steps")
        return End("cut", (f"stopped after {self.max_steps} steps",))


def _error(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _unheard(thing: object) -> bool:
    """Whether a notify came while nobody waited."""
    condition = getattr(thing, "_cond", thing)
    return getattr(condition, "unheard", False) and isinstance(
        thing, threading.Condition | threading.Event
    )


#: What a thread waits for, by the method that it called.
WAITING_PHRASES = (
    "{} (held by {})", "a release of {}", "a notify on {}", "{} to be set", "the others at {}",
    "an item in {}", "room in {}", "all items of {} to be done",
)  # fmt: skip


def waiting_for(thing: object, method: str, names: Names, owner: str | None) -> str:
    """What a blocked thread waits for, in words."""
    name = names(thing)
    if method in ("acquire", "__enter__") and isinstance(thing, threading.Semaphore):
        return f"a release of {name}"
    if method in ("wait", "wait_for"):
        if isinstance(thing, threading.Event):
            return f"{name} to be set"
        if isinstance(thing, threading.Barrier):
            return f"the others at {name}"
        return f"a notify on {name}"
    if method == "get":
        return f"an item in {name}"
    if method == "put":
        return f"room in {name}"
    if method == "join":
        return f"all items of {name} to be done"
    return f"{name} (held by {owner})" if owner else name


def _values(state: State) -> tuple[str, ...]:
    return tuple(f"{name} = {text}" for name, text in state.variables if not _is_device(text))


_DEVICE_WORDS = ("free", "held by ", "set", "not set", "broken")


def _is_device(text: str) -> bool:
    return text.startswith(_DEVICE_WORDS) or text.endswith(" waiting")


# -- what the graph tells -------------------------------------------------------------------------


def components(states: list[State]) -> Iterator[list[State]]:
    """Strongly connected components, each after all those that it leads to (Tarjan 1972)."""
    number: dict[State, int] = {}
    low: dict[State, int] = {}
    stack: list[State] = []
    on_stack: set[State] = set()
    within = set(states)
    for root in states:
        if root in number:
            continue
        work = [(root, iter(root.next.values()))]
        number[root] = low[root] = len(number)
        stack.append(root)
        on_stack.add(root)
        while work:
            state, others = work[-1]
            for other in others:
                if other not in within:
                    continue
                if other not in number:
                    number[other] = low[other] = len(number)
                    stack.append(other)
                    on_stack.add(other)
                    work.append((other, iter(other.next.values())))
                    break
                if other in on_stack:
                    low[state] = min(low[state], number[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[state])
                if low[state] == number[state]:
                    found = []
                    while not found or found[-1] is not state:
                        found.append(stack.pop())
                        on_stack.discard(found[-1])
                    yield found


def is_cycle(component: list[State]) -> bool:
    return len(component) > 1 or component[0] in component[0].next.values()


def count_ways(states: list[State]) -> dict[State, float | int]:
    """In how many ways each state can be reached from the first: math.inf after a cycle."""
    ways: dict[State, float | int] = dict.fromkeys(states, 0)
    if not states:
        return ways
    ways[states[0]] = 1
    for component in reversed(list(components(states))):
        if is_cycle(component) and any(ways[state] for state in component):
            for state in component:
                ways[state] = math.inf
        for state in component:
            for other in state.next.values():
                if ways[state] and (ways[other] != math.inf):
                    ways[other] += ways[state]
    return ways


def fair_cycle(states: list[State]) -> list[State] | None:
    """States that the program can go through again and again although every thread that can run
    again and again also does (strong fairness): a livelock. None if there are none.

    The smallest such component is returned. Method: Emerson and Lei, "Modalities for model
    checking" (1987): leave out the states in which a thread could run that never does.
    """
    found: list[list[State]] = []
    waiting = [states]
    while waiting:
        for component in components(waiting.pop()):
            if not is_cycle(component):
                continue
            inside = set(component)
            moving = {by for s in component for by, other in s.next.items() if other in inside}
            starved = [s for s in component if any(c not in moving for c in s.choices)]
            if not starved:
                found.append(component)
            elif len(starved) < len(component):
                waiting.append([s for s in component if s not in set(starved)])
    return min(found, key=len) if found else None
