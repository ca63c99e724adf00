"""What an exploration found: in words, as tables, as a figure, as data."""

from __future__ import annotations

import heapq
import html
import itertools
import json
import math
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from concurrency_lab.claims import translate
from concurrency_lab.explorer import _search, _state
from concurrency_lab.explorer._source import source_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from concurrency_lab.explorer.player import Player

MIME_TYPE = "application/vnd.concurrency-lab.exploration+json"

KINDS = (
    "ok", "wrong", "exception", "invariant", "deadlock", "lost wake-up", "livelock", "cut",
)  # fmt: skip
"""How schedules end. ``wrong``: ``check`` is false; ``invariant``: it was broken on the way;
``deadlock``: threads wait for each other, or for a lock that nobody gives back; ``lost wake-up``: a
thread waits for a notify that came while nobody waited; ``livelock``: no end, although every thread
has its turns again and again; ``cut``: stopped at ``max_steps``, no verdict."""

#: Every fixed phrase in what an exploration shows. A translation maps each of them, `{}` included.
PHRASES = (
    *KINDS,
    *_state.VALUE_PHRASES,
    *_search.WAITING_PHRASES,
    "{} holds {} and waits for {}", "{} waits for {}", "{} raised {}",
    "stopped after {} steps",
    "the same {} states again and again",
    "steps {} to {} again and again",
    "{} schedules, {} fail", "{} schedule, {} fail", "{} schedules, none fails",
    "{} schedule, none fails", "no finite number of schedules, {} fail",
    "no finite number of schedules, some fail", "no finite number of schedules, none fails",
    "Not everything was explored: {}.", "{} states", "at most {} preemptions", "at most {} steps",
    "equal states were not merged: cannot look into {}",
    "program", "fail", "schedules", "how they end", "endlessly many", "thread {}", "step", "shared",
    "A failing schedule, step by step", "waits for {}", "{} = {}", "# leave",
)  # fmt: skip


last_not_ok: Exploration | None = None
"""The last exploration whose `ok` was asked and was False: the pytest plugin shows it."""


@dataclass(frozen=True)
class Outcome:
    """One way to end, and how many schedules end so (math.inf: endlessly many)."""

    kind: str
    lines: tuple[str, ...]
    schedules: float

    @property
    def ok(self) -> bool:
        return self.kind == "ok"

    def __str__(self) -> str:
        return f"{self.kind}: {'; '.join(self.lines)}" if self.lines else self.kind


@dataclass(frozen=True)
class Step:
    """A step of a schedule: which thread did what, and how things stood after it."""

    thread: str
    text: str
    note: str
    variables: str
    shared: tuple[tuple[str, str], ...]


@dataclass(frozen=True, repr=False)
class Schedule:
    """One schedule, step by step. Printed as a table with a column for each thread."""

    threads: tuple[str, ...]
    start: tuple[tuple[str, str], ...]
    steps: tuple[Step, ...]
    outcome: Outcome

    @property
    def order(self) -> str:
        """The threads in the order of their steps: "AABB"."""
        return "".join(step.thread for step in self.steps)

    @property
    def switches(self) -> int:
        """How often another thread went on than the one before."""
        return sum(a.thread != b.thread for a, b in itertools.pairwise(self.steps))

    def table(self) -> list[list[str]]:
        """The rows: number, a cell for each thread, what was shared then (only what changed)."""
        rows = [["", *("" for _ in self.threads), _changes((), self.start)]]
        before = self.start
        for number, step in enumerate(self.steps, 1):
            cell = step.text + (f"  \u2192 {step.note}" if step.note else "")
            if step.variables and not step.note:
                cell += f"  ({step.variables})"
            cells = [cell if name == step.thread else "" for name in self.threads]
            rows.append([str(number), *cells, _changes(before, step.shared)])
            before = step.shared
        return rows

    def __str__(self) -> str:
        head = ["step", *(f"thread {name}" for name in self.threads), "shared"]
        rows = [head, *self.table()]
        widths = [max(len(row[c]) for row in rows) for c in range(len(head))]
        lines = ["  ".join(t.ljust(w) for t, w in zip(row, widths, strict=True)) for row in rows]
        lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join([line.rstrip() for line in lines] + [f"{self.outcome}"])

    def _data(self) -> dict[str, Any]:
        return {"threads": list(self.threads), "rows": self.table(),
                "outcome": self.outcome.kind, "lines": list(self.outcome.lines)}  # fmt: skip

    __repr__ = __str__

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        data = {"schedule": self._data()}
        return {"text/plain": str(self), "text/html": render_html(data), MIME_TYPE: data}


def _changes(before: tuple, after: tuple) -> str:
    old = dict(before)
    return ", ".join(f"{name} = {text}" for name, text in after if old.get(name) != text)


class Exploration:
    """All schedules of a program. Made by `explore`.

    ``ok``: no schedule fails, and ``max_steps`` and ``max_states`` stopped nothing. ``complete``:
    none was left out; if one was, ``limits`` says why.
    ``schedules`` and ``failing`` count them (math.inf if the program can go in circles), and
    ``outcomes`` says how they end. ``failure`` is a failing `Schedule` with the fewest preemptions.
    ``states`` is the number of different states that were met, ``runs`` how often the program was
    run for it, ``steps`` how many steps that took, ``seconds`` the time.
    """

    def __init__(
        self, search: _search.Search, names: list[str], seconds: float
    ) -> None:
        self._states = search.states
        self._names = tuple(names)
        self.limits = tuple(search.limits)
        self.complete = not self.limits or all(t.startswith("equal states") for t in self.limits)
        self.states, self.runs, self.steps = len(search.states), search.runs, search.steps
        self.seconds = seconds
        self._cycle = _search.fair_cycle(self._states)
        ways = _search.count_ways(self._states)
        counted: dict[_search.End, float] = {}
        for state in self._states:
            if state.end is not None:
                counted[state.end] = counted.get(state.end, 0) + ways[state]
        if self._cycle is not None:
            counted[self._livelock()] = math.inf
        self._ways = ways
        order = {kind: n for n, kind in enumerate(KINDS)}
        self.outcomes = tuple(
            Outcome(end.kind, end.lines, number)
            for end, number in sorted(
                counted.items(), key=lambda item: (order[item[0].kind], -item[1], item[0].lines)
            )
        )
        self.schedules = sum(outcome.schedules for outcome in self.outcomes)
        self.failing = sum(o.schedules for o in self.outcomes if o.kind not in ("ok", "cut"))
        self._failure: Schedule | None = None

    def _livelock(self) -> _search.End:
        return _search.End("livelock", (f"the same {len(self._cycle)} states again and again",))

    @property
    def ok(self) -> bool:
        global last_not_ok
        stopped = "cut" in self.kinds or any(limit.endswith(" states") for limit in self.limits)
        good = not self.failing and not stopped
        if not good:
            last_not_ok = self
        return good

    def __bool__(self) -> bool:
        raise TypeError("is it right? Ask for .ok: assert explore(...).ok")

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of outcomes, of `KINDS`, that there are."""
        return tuple(kind for kind in KINDS if any(o.kind == kind for o in self.outcomes))

    @property
    def failure(self) -> Schedule | None:
        """A failing schedule with as few preemptions, then switches, then steps as possible."""
        if self._failure is None and self.failing:
            self._failure = self.example(lambda outcome: outcome.kind not in ("ok", "cut"))
        return self._failure

    def example(self, wanted: str | Callable[[Outcome], bool]) -> Schedule | None:
        """The simplest schedule whose outcome is of a kind, or satisfies a condition."""
        path = self._shortest(_condition(wanted))
        return None if path is None else self._schedule(*path)

    def _shortest(self, wanted: Callable) -> tuple[list[tuple[Any, int]], _search.End] | None:
        """The (state, thread) steps to a wanted end."""
        livelock = self._livelock() if self._cycle is not None else None
        goals = {}
        for state in self._states:
            if state.end is not None and wanted(Outcome(state.end.kind, state.end.lines, 1)):
                goals[state] = state.end
        turning = set()
        if livelock is not None and wanted(Outcome(livelock.kind, livelock.lines, 1)):
            turning = set(self._cycle)
        tie = itertools.count()
        queue: list = [(0, 0, 0, next(tie), self._states[0], -1, None)]
        done: set[tuple[Any, int]] = set()
        while queue:
            preempted, switched, steps, _, state, last, link = heapq.heappop(queue)
            if (state, last) in done:
                continue
            done.add((state, last))
            if state in goals or state in turning:
                path = []
                while link is not None:
                    *step, link = link
                    path.append(tuple(step))
                path.reverse()
                if state in goals:
                    return path, goals[state]
                turns = self._round(state)
                steps = f"steps {len(path) + 1} to {len(path) + len(turns)} again and again"
                return path + turns, _search.End("livelock", (steps,))
            for by, other in state.next.items():
                switch = last not in (-1, by)
                forced = last not in state.choices
                cost = (preempted + (switch and not forced), switched + switch, steps + 1)
                heapq.heappush(queue, (*cost, next(tie), other, by, (state, by, link)))
        return None

    def _round(self, start: Any) -> list[tuple[Any, int]]:
        """A way through the livelock's states back to its start in which every thread steps."""
        inside = set(self._cycle)
        moving = {by for s in inside for by, o in s.next.items() if o in inside}
        everyone = frozenset(moving)
        waiting = [(start, frozenset(), None)]
        seen = {(start, frozenset())}
        for state, moved, link in waiting:
            for by, other in state.next.items():
                now = moved | {by}
                if other not in inside or (other, now) in seen:
                    continue
                step = (state, by, link)
                if other is start and now == everyone:
                    path = []
                    while step is not None:
                        path.append(step[:2])
                        step = step[2]
                    return path[::-1]
                seen.add((other, now))
                waiting.append((other, now, step))
        return []

    def _schedule(self, path: list[tuple[Any, int]], end: _search.End) -> Schedule:
        steps = []
        for state, by in path:
            after = state.next[by]
            view, later = state.threads[by], after.threads[by]
            note = later.waits if later.status == _search.BLOCKED else ""
            note = f"waits for {note}" if note else later.raised or later.waits
            steps.append(
                Step(self._names[by], view.text, note, later.variables, after.variables)
            )
        ways = next((o.schedules for o in self.outcomes if o.lines == end.lines), math.inf)
        outcome = Outcome(end.kind, end.lines, ways)
        return Schedule(self._names, self._states[0].variables, tuple(steps), outcome)

    # -- shown ----------------------------------------------------------------------------------

    def summary(self) -> str:
        """One sentence: how many schedules there are, and how many fail."""
        if self.schedules == math.inf:
            fail = "some fail" if self.failing else "none fails"
            return f"no finite number of schedules, {fail}"
        word = "schedule" if self.schedules == 1 else "schedules"
        fail = f"{self.failing:,} fail" if self.failing else "none fails"
        return f"{self.schedules:,} {word}, {fail}"

    def __str__(self) -> str:
        counts = [_count(outcome.schedules) for outcome in self.outcomes]
        width = max(map(len, counts), default=0)
        lines = [self.summary()]
        if not self.complete:
            lines.append(f"Not everything was explored: {', '.join(self.limits)}.")
        lines += [f"{n.rjust(width)}  {o}" for n, o in zip(counts, self.outcomes, strict=True)]
        if self.failure is not None:
            lines += ["", "A failing schedule, step by step", str(self.failure)]
        return "\n".join(lines)

    def __repr__(self) -> str:
        text = self.summary()
        if self.failure is not None:
            text += f", e.g. {self.failure.order}: {self.failure.outcome}"
        if not self.complete:
            text += f" (not everything was explored: {', '.join(self.limits)})"
        return f"<{text}>"

    def _data(self) -> dict[str, Any]:
        return {
            "summary": self.summary(),
            "limits": [] if self.complete else list(self.limits),
            "outcomes": [[_count(o.schedules), o.kind, list(o.lines)] for o in self.outcomes],
            "failure": self.failure._data() if self.failure is not None else None,
        }

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        data = json.loads(json.dumps(self._data()))
        return {"text/plain": str(self), "text/html": render_html(data), MIME_TYPE: data}

    def tree(self, most: int = 400) -> Figure:
        """Draw the tree of schedules. Raises ValueError if it has more than ``most`` leaves."""
        from concurrency_lab.explorer._tree import draw

        return draw(self, most)

    def play(self, goal: str, reach: str | Callable[[Outcome], bool] | None = None) -> Player:
        """A puzzle: the reader chooses which thread takes each step, until the goal is reached.

        ``goal`` says in words what to do. ``reach`` is the kind of outcome that solves it, of
        `KINDS`, or a condition on an `Outcome` (default: any that fails). Raises ValueError if
        no schedule reaches it.
        """
        from concurrency_lab.explorer.player import Player

        wanted = _condition(reach or (lambda outcome: outcome.kind not in ("ok", "cut")))
        return Player(self.recording(goal, wanted))

    def recording(self, goal: str = "", wanted: Callable[[Outcome], bool] | None = None) -> dict:
        """Every state and step as data for JSON. `play` and the published site show it."""
        texts: dict[str, int] = {}

        def number(text: str) -> int:
            return texts.setdefault(text, len(texts)) if text else -1

        codes: dict[types.CodeType, int] = {}
        names = list(dict.fromkeys(n for state in self._states for n, _ in state.variables))
        first: list[int] = []
        for view in self._states[0].threads:
            first.append(codes.setdefault(view.code, len(codes)) if view.code else 0)
        ends = list(dict.fromkeys(s.end for s in self._states if s.end is not None))
        if self._cycle is not None:
            ends.append(self._livelock())
        states = []
        for state in self._states:
            values = dict(state.variables)
            threads = []
            for view in state.threads:
                known = "; ".join(filter(None, (view.variables, view.raised)))
                one = {"s": view.status, "w": number(view.waits), "x": number(known)}
                if view.code is not None:
                    function = codes.setdefault(view.code, len(codes))
                    one |= {"f": function, "l": view.line - view.code.co_firstlineno}
                    if view.leaving:
                        one["e"] = 1
                threads.append(one)
            states.append(
                {
                    "v": [number(values[name]) if name in values else -1 for name in names],
                    "t": threads,
                    "n": [state.next[i].index if i in state.next else -1
                          for i in range(len(self._names))],
                    "o": ends.index(state.end) if state.end is not None else -1,
                }
            )  # fmt: skip
        target, shortest = None, None
        if wanted is None:
            wanted = _condition(lambda outcome: outcome.kind not in ("ok", "cut"))
        solving = [i for i, e in enumerate(ends) if wanted(Outcome(e.kind, e.lines, 1))]
        if goal:
            if not solving:
                kinds = ", ".join(self.kinds)
                raise ValueError(f"no schedule reaches the goal {goal!r}: they end with {kinds}")
            target = {"text": goal, "outcomes": solving}
        path = self._shortest(
            lambda o: any((ends[i].kind, ends[i].lines) == (o.kind, o.lines) for i in solving)
        )
        shortest = [by for _, by in path[0]] if path else None
        finite = self.schedules != math.inf
        named = zip(self._names, first, strict=True)
        return {
            "format": 1,
            "threads": [{"name": name, "function": function} for name, function in named],
            "functions": [{"name": c.co_name, "lines": source_lines(c)} for c in codes],
            "variables": names,
            "texts": list(texts),
            "states": states,
            "outcomes": [{"kind": e.kind, "ok": e.ok, "lines": list(e.lines)} for e in ends],
            "start": 0,
            "schedules": self.schedules if finite else None,
            "failing": self.failing if finite else None,
            "complete": self.complete,
            "shortest": shortest,
            "goal": target,
        }


def _condition(wanted: str | Callable[[Outcome], bool]) -> Callable[[Outcome], bool]:
    if not isinstance(wanted, str):
        return wanted
    if wanted not in KINDS:
        raise ValueError(f"kinds of outcomes are {', '.join(KINDS)}, not {wanted!r}")
    return lambda outcome: outcome.kind == wanted


def _count(number: float) -> str:
    return "endlessly many" if number == math.inf else f"{number:,}"


class Overview:
    """Several explorations side by side, such as wrong and right versions of a program."""

    def __init__(self, explorations: Mapping[str, Exploration]) -> None:
        self.explorations = dict(explorations)

    def __getitem__(self, name: str) -> Exploration:
        if name not in self.explorations:
            rows = "; ".join(map(repr, self.explorations))
            raise KeyError(f"no program {name!r}; there are {rows}")
        return self.explorations[name]

    def rows(self) -> list[list[str]]:
        """Name, schedules, failing ones and kinds of outcomes of each."""
        return [
            [name, _count(e.schedules), _count(e.failing), ", ".join(e.kinds)]
            for name, e in self.explorations.items()
        ]

    def __str__(self) -> str:
        rows = [["program", "schedules", "fail", "how they end"], *self.rows()]
        widths = [max(len(row[c]) for row in rows) for c in range(4)]
        return "\n".join(
            "  ".join(t.ljust(w) for t, w in zip(row, widths, strict=True)).rstrip() for row in rows
        )

    __repr__ = __str__

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        data = {"overview": self.rows()}
        return {"text/plain": str(self), "text/html": render_html(data), MIME_TYPE: data}


def overview(explorations: Mapping[str, Exploration]) -> Overview:
    """A table of several explorations: `overview({"wrong": explore(...), "right": ...})`."""
    return Overview(explorations)


_DEVICE_STATES = re.compile(
    r"\b((free|held by \w+); waiting: [A-Z]\b(, [A-Z]\b)*|\d+ of \d+ waiting"
    r"|held by \w+(, \d+ times)?|free|not set|set|broken)\b(?=[,;\])]|$)"
)


def translate_value(text: str, words: Mapping[str, str]) -> str:
    """Values of variables in another language: the states of locks, also inside a list."""
    return _DEVICE_STATES.sub(lambda match: translate(match[0], words), text)


# -- HTML -----------------------------------------------------------------------------------------


def render_html(data: Mapping[str, Any], words: Mapping[str, str] | None = None) -> str:
    """HTML of an exploration from its `MIME_TYPE` data, in the language of ``words``."""
    words = words or {}

    def say(text: str) -> str:
        return html.escape(translate_value(translate(text, words), words))

    if "schedule" in data:
        return f'<div class="exploration">{render_schedule(data["schedule"], words)}</div>'
    if "overview" in data:
        head = [say(text) for text in ("program", "schedules", "fail", "how they end")]
        rows = "".join(
            f'<tr><th scope="row" style="text-align:left">{say(name)}</th>'
            f'<td style="text-align:right">{say(number)}</td>'
            f'<td style="text-align:right">{say(failing)}</td>'
            f'<td style="text-align:left">{", ".join(map(say, kinds.split(", ")))}</td></tr>'
            for name, number, failing, kinds in data["overview"]
        )
        return (
            f'<table class="exploration-overview"><thead><tr><th>{"</th><th>".join(head)}</th></tr>'
            f"</thead><tbody>{rows}</tbody></table>"
        )
    parts = [f'<p class="exploration-summary"><strong>{say(data["summary"])}</strong>']
    if data["limits"]:
        limits = ", ".join(translate(limit, words) for limit in data["limits"])
        parts.append(f" {say('Not everything was explored: {}.').format(html.escape(limits))}")
    parts.append("</p>")
    rows = "".join(
        f'<tr class="outcome-{kind.replace(" ", "-")}">'
        f'<td style="text-align:right">{say(count)}</td>'
        f'<td style="text-align:left"><strong>{say(kind)}</strong>'
        + "".join(f"<br>{say(line)}" for line in lines)
        + "</td></tr>"
        for count, kind, lines in data["outcomes"]
    )
    parts.append(
        f'<table class="exploration-outcomes"><thead><tr><th>{say("schedules")}</th>'
        f'<th style="text-align:left">{say("how they end")}</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )
    if data["failure"]:
        parts.append(
            f'<p class="exploration-failure">{say("A failing schedule, step by step")}</p>'
            + render_schedule(data["failure"], words)
        )
    return f'<div class="exploration">{"".join(parts)}</div>'


def render_schedule(data: Mapping[str, Any], words: Mapping[str, str]) -> str:
    """HTML of a schedule: a table with a column for each thread."""

    def say(text: str) -> str:
        return html.escape(translate(text, words))

    def cell(text: str) -> str:
        line, arrow, note = text.partition("  \u2192 ")
        line, _, values = line.partition("  (")
        code, leave, _ = line.partition("# leave")
        line = code + (translate(leave, words) if leave else "")
        parts = [f"<code>{html.escape(line)}</code>"] if line else []
        if arrow:
            parts.append(f"<br>\u2192 {say(note)}")
        if values:
            parts.append(f"<br><small>{html.escape(values.removesuffix(')'))}</small>")
        return "".join(parts)

    def shared(text: str) -> str:
        return html.escape(translate_value(text, words))

    def columns(row: list[str]) -> str:
        return "".join(
            f'<td role="cell" style="text-align:left" data-thread="{html.escape(name)}">'
            f"{cell(text)}</td>"
            for name, text in zip(data["threads"], row[1:-1], strict=True)
        )

    names = [say("thread {}").format(html.escape(name)) for name in data["threads"]]
    head = "".join(f"<th>{name}</th>" for name in (say("step"), *names, say("shared")))
    body = "".join(
        f'<tr role="row"><td role="cell">{row[0]}</td>{columns(row)}'
        f'<td role="cell" class="shared" style="text-align:left">{shared(row[-1])}</td></tr>'
        for row in data["rows"]
    )
    end = "".join(f"<br>{say(line)}" for line in data["lines"])
    return (
        f'<table class="schedule" role="table"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>"
        f'<p class="schedule-end"><strong>{say(data["outcome"])}</strong>{end}</p>'
    )
