"""What the start methods of `multiprocessing` do: a script under each, and what a child finds.

What https://docs.python.org/3/library/multiprocessing.html#contexts-and-start-methods says of
them is not repeated here but tried out.
"""

import html
import json
import multiprocessing
import sys
import textwrap
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concurrency_lab.isolation import Outcome

METHODS = ("fork", "forkserver", "spawn")

MIME_TYPE = "application/vnd.concurrency-lab.arrivals+json"


# -- a script under every start method ----------------------------------------------------------


def each_start_method(script: str, timeout: float = 20) -> "dict[str, Outcome]":
    """Run the source of a script by `run_isolated` once under every start method of this system.

    The start method is set before the script begins, and holds in its children too; a script that
    sets one itself gets RuntimeError. `timeout` is in seconds, for each run. Line numbers in
    tracebacks are those of the script, which needs its own `if __name__ == "__main__":`.
    """
    from concurrency_lab.isolation import run_isolated

    if not isinstance(script, str):
        raise TypeError(f"each_start_method needs the source of a script, not {script!r}")
    source = textwrap.dedent(script)
    available = multiprocessing.get_all_start_methods()
    return {
        method: _without_own_frames(run_isolated(_run, method, source, timeout=timeout))
        for method in METHODS
        if method in available
    }


def _run(method: str, source: str) -> None:
    """Run a script as `__main__`, in the child interpreter of `run_isolated`."""
    from concurrency_lab._isolated_child import run_source

    script = sys.argv[0]  # in the run's folder; a spawned process imports it from there
    Path(script).write_text(source, encoding="utf-8")
    multiprocessing.set_start_method(method)
    try:
        run_source(script)
    except SystemExit:
        raise
    except BaseException as error:
        here = error.__traceback__
        while here and here.tb_frame.f_code.co_filename != script:
            here = here.tb_next
        traceback.print_exception(type(error), error, here)
        sys.exit(1)


def _without_own_frames(outcome: "Outcome") -> "Outcome":
    own = f'{Path(__file__).name}", line '
    lines = outcome.stacks.splitlines(keepends=True)
    return replace(outcome, stacks="".join(line for line in lines if own not in line))


# -- what a child finds -------------------------------------------------------------------------

ROWS = {
    "top": "the top level of the script runs again",
    "global": "global variable changed at run time",
    "argument": "argument of the function",
    "pickled": "the argument is a pickled copy",
    "imported": "module that only the parent has imported",
    "early": "os.environ changed before the first child",
    "late": "os.environ changed after the first child",
    "folder": "current folder changed",
    "path": "sys.path changed",
    "logging": "logging set up at run time",
    "handler": "signal handler set at run time",
    "file": "open file, under the same number",
    "position": "reading moves the parent's place in that file",
    "thread": "another thread of the parent runs in the child",
    "lock": "lock held by that thread stays locked for ever",
    "random": "two children draw the same number from random",
    "numpy": "two children draw the same number from numpy.random",
}

HEAD = "what a child finds"

#: Every fixed phrase in the table of `arrivals`. A translation maps each of them.
PHRASES = (HEAD, *ROWS.values(), "yes", "no", "not known")

_SCRIPT = """\
import json
import logging
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(HERE, "runs-of-the-top-level"), "a") as file:
    file.write("x")

CHANGED = "at the top level"
BEATS = 0
LOCK = threading.Lock()
LET_GO = threading.Event()


class Argument:
    def __init__(self, text, pickled=False):
        self.text, self.pickled = text, pickled

    def __reduce__(self):
        return Argument, (self.text, True)


def beat():
    global BEATS
    with LOCK:
        while not LET_GO.wait(0.001):
            BEATS += 1


def on_signal(number, frame):
    pass


def is_set(pipe, variable):
    pipe.send(variable in os.environ)


def draw(pipe):
    import numpy

    pipe.send([random.random(), numpy.random.random()])


def look(pipe, argument, folder, entry, number, identity):
    try:
        status = os.fstat(number)
        same_file = [status.st_dev, status.st_ino] == identity
    except OSError:
        same_file = False
    if same_file:
        os.read(number, 10)
    before = BEATS
    time.sleep(0.1)
    pipe.send({
        "global": CHANGED == "at run time",
        "argument": argument.text == "sent",
        "pickled": argument.pickled,
        "imported": "colorsys" in sys.modules,
        "late": "LATE" in os.environ,
        "folder": os.path.samefile(os.getcwd(), folder),
        "path": entry in sys.path,
        "logging": logging.getLogger().hasHandlers(),
        "handler": signal.getsignal(signal.SIGTERM) is on_signal,
        "file": same_file,
        "thread": BEATS != before,
    })
    pipe.recv()  # in the parent the lock is now free
    pipe.send(not LOCK.acquire(blocking=False))


def child(function, *arguments):
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=function, args=(theirs, *arguments))
    process.start()
    theirs.close()
    return process, ours


def answer(function, *arguments):
    process, pipe = child(function, *arguments)
    found = pipe.recv()
    process.join()
    return found


def main():
    global CHANGED
    import colorsys

    os.environ["EARLY"] = "1"
    early = answer(is_set, "EARLY")

    CHANGED = "at run time"
    os.environ["LATE"] = "1"
    os.chdir(tempfile.mkdtemp(dir=HERE))
    sys.path.append(os.path.join(HERE, "nowhere"))
    logging.basicConfig()
    signal.signal(signal.SIGTERM, on_signal)
    file = tempfile.TemporaryFile(dir=HERE)
    file.write(b"0123456789" * 10)
    file.flush()
    os.lseek(file.fileno(), 0, os.SEEK_SET)
    status = os.fstat(file.fileno())
    thread = threading.Thread(target=beat)
    thread.start()
    while not BEATS:
        time.sleep(0.001)
    try:
        process, pipe = child(
            look, Argument("sent"), os.getcwd(), sys.path[-1],
            file.fileno(), [status.st_dev, status.st_ino],
        )
        found = pipe.recv()
    finally:
        LET_GO.set()
        thread.join()
    pipe.send("released")
    found |= {"lock": pipe.recv(), "early": early}
    process.join()
    found["position"] = os.lseek(file.fileno(), 0, os.SEEK_CUR) != 0
    file.close()
    found["top"] = os.path.getsize(os.path.join(HERE, "runs-of-the-top-level")) > 1

    import numpy

    numpy.random.random()
    one, two = answer(draw), answer(draw)
    found["random"], found["numpy"] = one[0] == two[0], one[1] == two[1]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
"""


@dataclass(frozen=True, repr=False)
class Arrivals:
    """What `arrivals` found: `found["fork", "sys.path changed"]` is True, False or None.

    `absent` says of start methods that this system lacks why, for `claim(..., unless=...)`.
    """

    answers: dict[str, dict[str, bool]]
    absent: dict[str, str] = field(default_factory=dict)

    @property
    def methods(self) -> tuple[str, ...]:
        """The start methods of this system: the columns of the table."""
        return tuple(self.answers)

    @property
    def rows(self) -> tuple[str, ...]:
        """What was looked for."""
        return tuple(ROWS.values())

    def of(self, method: str, row: str) -> bool | None:
        """Whether a child started so finds it; None if this system lacks the start method."""
        if method not in METHODS:
            raise KeyError(f"no start method {method!r}; there are {', '.join(METHODS)}")
        if row not in self.rows:
            raise KeyError(f"no row {row!r}; there are {'; '.join(map(repr, self.rows))}")
        return self.answers.get(method, {}).get(row)

    def __getitem__(self, key: tuple[str, str]) -> bool | None:
        if not (isinstance(key, tuple) and len(key) == 2):
            raise KeyError(f'give a start method and a row, found["fork", "..."], not {key!r}')
        return self.of(*key)

    def _data(self) -> dict[str, Any]:
        rows = [[row, [self.of(method, row) for method in self.methods]] for row in self.rows]
        return {"methods": list(self.methods), "rows": rows}

    def __str__(self) -> str:
        table = [["", *self.methods]]
        table += [[row, *map(_word, found)] for row, found in self._data()["rows"]]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join(t.ljust(w) for t, w in zip(row, widths, strict=True)) for row in table]
        return "\n".join(line.rstrip() for line in lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return render_html(self._data())

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        data = self._data()
        return {"text/plain": str(self), "text/html": render_html(data), MIME_TYPE: data}


def render_html(data: Mapping[str, Any], words: Mapping[str, str] | None = None) -> str:
    """HTML of the table from its `MIME_TYPE` data. ``words`` translates `PHRASES`."""
    from concurrency_lab.claims import translate

    def say(text: str) -> str:
        return html.escape(translate(text, words or {}))

    def cell(found: bool | None) -> str:
        text = say(_word(found))
        if found:
            text = f"<strong>{text}</strong>"
        return f'<td style="text-align:center">{text}</td>'

    methods = "".join(
        f'<th scope="col" style="text-align:center">{html.escape(method)}</th>'
        for method in data["methods"]
    )
    rows = "".join(
        f'<tr><th scope="row" style="text-align:start">{say(row)}</th>'
        + "".join(map(cell, found))
        + "</tr>"
        for row, found in data["rows"]
    )
    return (
        f'<table class="arrivals"><thead><tr><th scope="col" style="text-align:start">{say(HEAD)}'
        f"</th>{methods}</tr></thead><tbody>{rows}</tbody></table>"
    )


def _word(found: bool | None) -> str:
    return "not known" if found is None else "yes" if found else "no"


def arrivals() -> Arrivals:
    """What a child process finds of its parent, under every start method of this system.

    A script changes and opens things, then starts children that look for them. Takes some seconds.
    Raises RuntimeError if the script fails.
    """
    from concurrency_lab.machine import no_start_method

    answers = {}
    for method, outcome in each_start_method(_SCRIPT, timeout=60).items():
        if outcome.exit_code != 0:
            raise RuntimeError(f"the script did not finish under {method}:\n{outcome}")
        found = json.loads(outcome.output.splitlines()[-1])
        answers[method] = {row: found[key] for key, row in ROWS.items()}
    reasons = {method: no_start_method(method) for method in METHODS}
    return Arrivals(answers, {method: reason for method, reason in reasons.items() if reason})
