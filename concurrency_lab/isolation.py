"""Run code that may hang or crash the interpreter, in a child with a time limit."""

from __future__ import annotations

import contextlib
import html
import inspect
import json
import math
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

_CHILD = Path(__file__).with_name("_isolated_child.py")
_MARK = "CONCURRENCY_LAB_RUN"
_START_LIMIT = 30.0  # seconds beyond the time limit for the child to start and to stop
_LONGEST = 100_000  # characters of output that are kept

# Exit codes by which Windows says that a process crashed.
_WINDOWS_CRASHES = {0xC0000005: "ACCESS_VIOLATION", 0xC00000FD: "STACK_OVERFLOW"}


@dataclass(frozen=True)
class Outcome:
    """What became of an isolated run.

    `output` and `errors` are what was written to stdout and stderr. `exit_code` is None after a
    signal or a time-out. `signal` is a name such as "SIGSEGV" (on Windows of an exception:
    "ACCESS_VIOLATION"). `stacks` shows all threads when the time limit was reached or the
    interpreter crashed. `seconds` are counted from the start of the code, not of the child.
    `result` is what the function returned.
    """

    output: str
    errors: str
    exit_code: int | None
    signal: str | None
    timed_out: bool
    stacks: str
    seconds: float
    result: Any = None

    @property
    def crashed(self) -> bool:
        """Whether a signal (on Windows: an exception of the system) ended the child."""
        return self.signal is not None

    @property
    def verdict(self) -> str:
        """How the run ended, in a few words."""
        if self.timed_out:
            return "stopped at the time limit"
        if self.signal is not None:
            return f"killed by {self.signal}"
        return f"ended with exit code {self.exit_code}"

    def _parts(self) -> list[tuple[str, str]]:
        parts = [("output", self.output), ("errors", self.errors), ("stacks", self.stacks)]
        return [(name, text.rstrip()) for name, text in parts if text.strip()]

    def __str__(self) -> str:
        lines = [f"[{self.verdict}, {self.seconds:.2f} s]"]
        for name, text in self._parts():
            lines += [f"{name}:", textwrap.indent(text, "  ")]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        parts = "".join(
            f"<dt>{name}</dt><dd><pre>{html.escape(text)}</pre></dd>"
            for name, text in self._parts()
        )
        return (
            '<div class="isolated-run"><p><strong>Isolated run '
            f"{html.escape(self.verdict)}</strong> after {self.seconds:.2f} s</p>"
            f"<dl>{parts}</dl></div>"
        )


def run_isolated(
    code: str | Callable[..., Any],
    *args: Any,
    timeout: float = 10.0,
    python: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
) -> Outcome:
    """Run source code, or an importable function with `args`, in a child interpreter.

    The child has its own session (a process group on Windows). After `timeout` seconds it writes
    the stacks of all its threads and ends. It and every process it started, at whatever remove,
    are gone when this function returns or raises, also with KeyboardInterrupt.

    Source runs as `__main__` from a file, so processes can be spawned in it. `python` is another
    interpreter; it sees this package but not what is installed for the present one. `env` adds
    environment variables (but the child ignores `PYTHON*`), `options` adds options of the
    interpreter such as `("-X", "gil=0")`.

    Raises ValueError for a function that a child cannot import or arguments that cannot be
    pickled, FileNotFoundError if there is no such interpreter.
    """
    if not (timeout > 0 and math.isfinite(timeout)):
        raise ValueError(f"timeout must be a positive number of seconds, not {timeout!r}")
    if isinstance(code, str) and args:
        raise ValueError("arguments go with a function; put them into the source")
    executable = _executable(python)
    folder = Path(tempfile.mkdtemp(prefix="isolated-"))
    try:
        _write_job(folder, code, args, timeout, same_python=python is None)
        return _run([executable, "-I", "-u", "-X", "utf8", *options], folder, timeout, env)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _executable(python: str | os.PathLike[str] | None) -> str:
    found = shutil.which(sys.executable if python is None else os.fspath(python))
    if found is None:
        raise FileNotFoundError(
            f"no Python interpreter {os.fspath(python)!r}: give its path, or its name if it is on "
            "PATH; machine.interpreters() lists those that are found here"
        )
    return found


def _write_job(
    folder: Path,
    code: str | Callable[..., Any],
    args: tuple[Any, ...],
    timeout: float,
    same_python: bool,
) -> None:
    own = str(Path(__file__).resolve().parent.parent)
    job: dict[str, Any] = {"limit": timeout, "module": None, "function": None}
    job["script"] = str(folder / "isolated.py")
    # The child starts with -I and must find what this process finds.
    job["path"] = [os.path.abspath(entry) for entry in sys.path] if same_python else []
    job["more_path"] = [own]
    if isinstance(code, str):
        Path(job["script"]).write_text(textwrap.dedent(code), encoding="utf-8")
    else:
        job["module"], job["function"] = _importable(code)
        if not same_python:
            job["more_path"].append(_root_of(job["module"]))
        try:
            (folder / "arguments").write_bytes(pickle.dumps(args, protocol=4))
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise ValueError(f"the arguments cannot be sent to a child: {error}") from error
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")


def _importable(function: Callable[..., Any]) -> tuple[str, str]:
    """Return module and name by which a child finds the function."""
    if not callable(function):
        raise TypeError(
            f"run_isolated needs source code (a string) or a function, not {function!r}"
        )
    name = getattr(function, "__qualname__", repr(function))
    module = getattr(function, "__module__", None)
    if module in (None, "__main__", "__mp_main__"):
        raise ValueError(
            f"a child cannot import {name} from a notebook or script: move it to a module"
        )
    found = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not function:
        raise ValueError(
            f"a child cannot import {name}: move it to the top level of a module (no lambda, no "
            "function within a function)"
        )
    return module, name


def _root_of(module: str) -> str:
    """Return the folder from which a top-level package is imported."""
    top = sys.modules[module.partition(".")[0]]
    file = Path(inspect.getfile(top)).resolve()
    return str(file.parent.parent if file.name == "__init__.py" else file.parent)


def _run(
    command: list[str], folder: Path, timeout: float, env: Mapping[str, str] | None
) -> Outcome:
    mark = uuid.uuid4().hex
    # What the child keeps in the temporary folder goes with ours, also when it is killed.
    temporary = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
    began = time.perf_counter()
    overrun = False
    with open(folder / "output", "wb") as output, open(folder / "errors", "wb") as errors:
        process = subprocess.Popen(
            [*command, str(_CHILD), str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env={**os.environ, **temporary, **(env or {}), _MARK: mark},
            **_own_session(),
        )
        try:
            process.wait(timeout + _START_LIMIT)
        except subprocess.TimeoutExpired:  # stopped by a signal, or it cancelled its own limit
            overrun = True
        finally:
            ended = time.perf_counter()
            until_then = os.fstat(errors.fileno()).st_size
            _kill_tree(process, mark)
    return _outcome(folder, process.returncode, overrun, began, ended, until_then)


def _own_session() -> dict[str, Any]:
    if os.name == "nt":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    return {"start_new_session": True}


def _kill_tree(process: subprocess.Popen[bytes], mark: str) -> None:
    """Kill the child and all that it started, wherever they went.

    Python's resource trackers are not killed but waited for: when all others have gone, they
    remove the shared memory and the semaphores that are left, and end.
    """
    process.kill()
    process.wait()
    limit = time.monotonic() + 5
    while left := list(_family(process.pid, mark)):
        late = time.monotonic() > limit
        for other in left:
            with contextlib.suppress(psutil.Error):
                if late or "resource_tracker" not in " ".join(other.cmdline()):
                    other.kill()
        if late:
            return
        time.sleep(0.01)  # then look again: one may have started another meanwhile


def _family(group: int, mark: str) -> Iterable[psutil.Process]:
    """Those that still run of the child's process group, and that inherited its variable."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if os.name != "nt" and os.getpgid(process.pid) == group:
                if process.status() != psutil.STATUS_ZOMBIE:
                    yield process
            elif process.environ().get(_MARK) == mark:  # a zombie has no environment
                yield process


def _outcome(
    folder: Path, code: int, overrun: bool, began: float, ended: float, until_then: int
) -> Outcome:
    def text(name: str, size: int | None = None) -> str:
        file = folder / name
        if not file.exists():
            return ""
        return file.read_bytes()[:size].decode("utf-8", "replace").replace("\r\n", "\n")

    def cut(found: str) -> str:
        more = len(found) - _LONGEST
        return found if more <= 0 else f"{found[:_LONGEST]}\n... {more} more characters\n"

    started = json.loads(text("started") or "{}")
    paths = [str(folder), *started.get("paths", ())]
    stacks = _readable(text("stacks"), text("threads"), folder / "isolated.py")
    timed_out = overrun or stacks.startswith("Timeout")
    name = None if timed_out else _signal_name(code)
    # What is written while a run that hung is being tidied up was not caused by the code.
    errors = text("errors", until_then if timed_out else None)
    result = folder / "result"
    return Outcome(
        output=cut(text("output")),
        errors=_without_paths(_with_source(cut(errors), folder / "isolated.py"), paths),
        exit_code=None if timed_out or name else code,
        signal=name,
        timed_out=timed_out,
        stacks=_without_paths(stacks, paths),
        seconds=ended - started.get("at", began),
        result=pickle.loads(result.read_bytes()) if code == 0 and result.exists() else None,
    )


def _signal_name(code: int) -> str | None:
    if code < 0:
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"
    return _WINDOWS_CRASHES.get(code) if os.name == "nt" else None


def _readable(stacks: str, threads: str, script: Path) -> str:
    """Put names in place of numbers, add source lines, leave out how threads and child start."""
    names = dict(line.split(" ", 1) for line in threads.splitlines() if " " in line)

    def named(found: re.Match[str]) -> str:
        name = names.get(found[2].lstrip("0"))
        return f"{found[1]}hread {name!r} (" if name else found[0]

    lines = []
    for line in stacks.splitlines():
        if line.startswith("Extension modules:"):
            break
        if f'"{_CHILD}"' in line or re.search(r"threading\.py\", line \d+ in _bootstrap", line):
            continue
        lines.append(re.sub(r"^(T|Current t)hread 0x([0-9a-f]+) [^(]*\(", named, line))
    return _with_source("\n".join(lines).strip() + "\n", script) if lines else ""


def _with_source(text: str, script: Path) -> str:
    """Add the line of source to each frame of the script that `faulthandler` wrote."""
    if not script.exists():
        return text
    source = script.read_text(encoding="utf-8").splitlines()

    def with_line(frame: re.Match[str]) -> str:
        number = int(frame[1])
        lines = [f"    {line.strip()}" for line in source[number - 1 : number]]
        return "\n".join([frame[0], *lines])

    return re.sub(rf'(?m)^ +File "{re.escape(str(script))}", line (\d+) in .*$', with_line, text)


def _without_paths(text: str, folders: Iterable[str]) -> str:
    """Shorten file names: where things are installed tells the reader nothing."""
    for folder in sorted({f for f in folders if len(f) > 1}, key=len, reverse=True):
        text = text.replace(folder.rstrip(os.sep) + os.sep, "")
    return text
