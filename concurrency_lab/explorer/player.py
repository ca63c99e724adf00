"""Play the scheduler: a recorded exploration that the reader goes through step by step.

`Player` shows a recording (see `concurrency_lab.explorer`) in a notebook, the site shows the same
with `render`. Every state comes from the recording; ``player.js`` only follows its arrows. Without
a script there is the program, the goal and, behind a fold, a schedule that reaches it.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

MIME_TYPE = "application/vnd.concurrency-lab.schedules+json"

SCRIPT = Path(__file__).with_name("player.js")
STYLE = Path(__file__).with_name("player.css")

WORDS = {
    "title": "Play the scheduler",
    "goal": "Goal",
    "counts": "Possible schedules: {}. Failing: {}.",
    "counts_partly": "Schedules explored: {}; there are more. Failing: {}.",
    "counts_endless": "A loop can go on for ever, so the schedules cannot be counted.",
    "shared": "Shared variables",
    "thread": "Thread {}",
    "threads": "Threads {}",
    "program": "Program of {}",
    "step": "{}: take a step",
    "next_line": "Next line: {}",
    "leave": "# leave",
    "waits_for": "waits for {}",
    "done": "Done",
    "unexplored": "Not explored any further",
    "choose": "Which thread takes the first step? You decide.",
    "ran": "{} ran {}.",
    "is_now": "{} is now {}.",
    "is_blocked": "{} is blocked: {}.",
    "goes_on": "{} can go on.",
    "is_done": "{} is done.",
    "raised": "{} ends with an exception: {}.",
    "went_back": "One step back.",
    "loop": "This is the state after step {} again: it can go on like this for ever.",
    "reached": "Goal reached",
    "missed": "Not this time",
    "end": "The end",
    "ok": "Right result",
    "wrong": "Wrong result",
    "exception": "Exception",
    "invariant": "Broken invariant",
    "deadlock": "Deadlock",
    "lost wake-up": "Lost wake-up",
    "livelock": "Livelock",
    "cut": "Stopped here",
    "back": "One step back",
    "restart": "Start again",
    "solve": "Show me a solution",
    "solve_next": "Next step of the solution",
    "steps": "Steps so far",
    "changes": "What changed",
    "solution": "A solution",
    "keys": "Keys, while you are in this box: {}. Backspace takes one step back.",
}
"""The words of the interface; a translation maps each of these texts, ``{}`` included."""


class Player:
    """A recording to be played. Its "goal" says what to reach, its "shortest" how."""

    def __init__(self, recording: Mapping[str, Any]):
        self.recording = dict(recording)
        if goal := recording["goal"]:  # spaces as translations know them
            self.recording["goal"] = {**goal, "text": " ".join(goal["text"].split())}

    def __str__(self) -> str:
        return self.text()

    def text(self, words: Mapping[str, str] | None = None) -> str:
        """Goal and number of schedules, one line each; `words` as in `render`."""
        says, goal = _say(words), self.recording["goal"]
        lines = [f"{says['goal']}: {goal['text']}"] if goal else []
        return "\n".join([*lines, _counts(self.recording, says)])

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        return {
            "text/plain": str(self),
            "text/html": render(self.recording, alone=True),
            MIME_TYPE: self.recording,
        }


def render(
    recording: Mapping[str, Any], words: Mapping[str, str] | None = None, *, alone: bool = False
) -> str:
    """HTML of a recording (the `MIME_TYPE` data).

    ``words`` maps the texts of `WORDS` to another language; the recording's own texts are left as
    they are. ``alone`` adds script and style, for pages that do not load `SCRIPT` and `STYLE`:
    the player then lives in a shadow tree, so that neither side's styles reach the other.
    """
    says = _say(words)
    data = {"words": says, "counts": _counts(recording, says), **_packed(recording)}
    if alone:
        data["style"] = _text(STYLE)
    # JupyterLab would take a letter as its own shortcut otherwise, and insert or delete cells
    return (
        '<div class="player" data-player data-lm-suppress-shortcuts="true">'
        f'<div class="player-static">{_static(recording, says)}</div>'
        f'<script type="application/json">{_json(data)}</script></div>'
        + (f"<script>{_text(SCRIPT)}</script>" if alone else "")
    )


def _say(words: Mapping[str, str] | None) -> dict[str, str]:
    return {key: (words or {}).get(text, text) for key, text in WORDS.items()}


@cache
def _text(path: Path) -> str:
    return path.read_text("utf-8")


def _json(data: Any) -> str:
    """JSON that may stand inside a script element."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _counts(recording: Mapping[str, Any], says: Mapping[str, str]) -> str:
    if recording["schedules"] is None:
        return says["counts_endless"]
    kind = "counts" if recording["complete"] else "counts_partly"
    return says[kind].format(f"{recording['schedules']:,}", f"{recording['failing']:,}")


def _packed(recording: Mapping[str, Any]) -> dict[str, Any]:
    """The recording with each thread's place stored once: states share nearly all of them."""
    places: dict[tuple, int] = {}
    states = []
    for state in recording["states"]:
        here = [
            places.setdefault(_place(thread), len(places))
            for thread in state["t"]
        ]
        states.append([state["v"], here, state["n"], state["o"]])
    return {**recording, "states": states, "places": list(places)}


def _place(thread: Mapping[str, Any]) -> tuple:
    """A thread's function and line (-1 if it has ended), status, why, local variables, leaving."""
    default = {"f": -1, "l": -1, "e": 0}
    return tuple(thread.get(key, default.get(key)) for key in "flswxe")


# -- without a script -------------------------------------------------------------------------


def _static(recording: Mapping[str, Any], says: Mapping[str, str]) -> str:
    goal = recording["goal"]
    parts = []
    if goal:
        parts.append(
            f'<p class="player-goal"><strong>{_escape(says["goal"])}:</strong> '
            f"{_escape(goal['text'])}</p>"
        )
    parts.append(f'<p class="player-counts">{_escape(_counts(recording, says))}</p>')
    for number, function in enumerate(recording["functions"]):
        names = [t["name"] for t in recording["threads"] if t["function"] == number]
        if names:
            title = says["thread" if len(names) == 1 else "threads"].format(", ".join(names))
            parts.append(f'<p class="player-of">{_escape(title)}</p>')
        lines = _escape("\n".join(function["lines"]))
        parts.append(f'<pre class="player-code"><code>{lines}</code></pre>')
    if recording["shortest"]:
        parts.append(
            f'<details class="player-solution" data-pagefind-ignore><summary>'
            f"{_escape(says['solution'])}</summary>{_table(recording, says)}</details>"
        )
    return "".join(parts)


def _table(recording: Mapping[str, Any], says: Mapping[str, str]) -> str:
    """The schedule ``shortest``, with a column for each thread."""
    states, threads = recording["states"], recording["threads"]
    heads = ["#", *(says["thread"].format(thread["name"]) for thread in threads), says["changes"]]
    rows = ["".join(f'<th scope="col">{_escape(head)}</th>' for head in heads)]
    before = states[recording["start"]]
    for number, thread in enumerate(recording["shortest"], start=1):
        after = states[before["n"][thread]]
        place = before["t"][thread]
        line = recording["functions"][place["f"]]["lines"][place["l"]].strip()
        if place.get("e"):
            line += f"  {says['leave']}"
        code = f"<code>{_escape(line)}</code>"
        cells = [code if column == thread else "" for column in range(len(threads))]
        changes = "<br>".join(map(_escape, _changes(recording, says, before, after, thread)))
        rows.append("".join(f"<td>{cell}</td>" for cell in (str(number), *cells, changes)))
        before = after
    body = "".join(f"<tr>{row}</tr>" for row in rows[1:])
    end = ""
    if before["o"] >= 0:
        outcome = recording["outcomes"][before["o"]]
        text = "; ".join(outcome["lines"])
        kind = _escape(says.get(outcome["kind"], outcome["kind"]))
        end = f'<p class="player-end"><strong>{kind}:</strong> {_escape(text)}</p>'
    return (
        f'<div class="table-scroll"><table><thead><tr>{rows[0]}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{end}"
    )


def _changes(recording, says, before, after, thread: int) -> list[str]:
    """What a step of a thread changed, one text each."""
    texts = recording["texts"]
    changes = [
        f"{name} = {texts[new]}"
        for name, old, new in zip(recording["variables"], before["v"], after["v"], strict=True)
        if old != new and new >= 0
    ]
    place = after["t"][thread]
    if place["s"] == "blocked":
        changes.append(says["waits_for"].format(texts[place["w"]]))
    elif place["s"] == "raised" and place["w"] >= 0:
        changes.append(texts[place["w"]])
    return changes


def _escape(text: str) -> str:
    return html.escape(text, quote=False)
