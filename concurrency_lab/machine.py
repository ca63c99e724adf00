"""What the computer and the Python at hand can do: cores, GIL, start methods, other Pythons."""

from __future__ import annotations

import html
import json
import math
import multiprocessing
import os
import platform
import subprocess
import sys
import sysconfig
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import psutil

from concurrency_lab.load import LoadMeter

if TYPE_CHECKING:
    from concurrency_lab.timing import Sample

# Cores


def usable_cores() -> float:
    """Cores that this process may use: CPU affinity, and the CPU quota of its container.

    A quota gives a fraction: 1.5 of 8 cores. `os.cpu_count` and, on Python 3.13 and later,
    `os.process_cpu_count` do not see quotas.
    """
    return min(_allowed_cores(), container_quota() or math.inf)


def container_quota(root: str | Path = "/") -> float | None:
    """The CPU quota in cores that Linux control groups set, or None. `root` is for tests.

    The strictest of the process' own group and the groups above it counts. Files: ``cpu.max``
    (version 2) and ``cpu.cfs_quota_us`` (version 1), see the kernel's documentation,
    https://docs.kernel.org/admin-guide/cgroup-v2.html and
    https://docs.kernel.org/scheduler/sched-bwc.html.
    """
    root = Path(root)
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return None
    quotas = []
    for line in lines:
        _, controllers, own = line.split(":", 2)
        if not controllers:
            mounts, read = ("", "unified"), _quota_v2
        elif "cpu" in controllers.split(","):
            mounts, read = (controllers, "cpu"), _quota_v1
        else:
            continue
        # In a container the path may be the host's: the group is then mounted at the top itself.
        group = PurePosixPath(*(part for part in own.split("/") if part not in ("", "..")))
        for mount in mounts:
            for path in (group, *group.parents):
                quotas.append(read(root / "sys/fs/cgroup" / mount / path))
    return min((quota for quota in quotas if quota), default=None)


def effective_cores(budget: float = 1.5) -> Sample:
    """How many cores' worth of work this computer does right now, measured in `budget` seconds.

    As many processes as there are usable cores count in a loop for a moment: one of them, all, one,
    and so on. Each value is the work of all over the mean work of one before and after. It is less
    than the number of usable cores if other programs are busy, if two "cores" are threads of one
    core, or if the clock slows down when all are in use.
    """
    from concurrency_lab.timing import Sample

    workers = math.ceil(usable_cores())
    if workers == 1:
        return Sample((1.0,), "cores")
    start = time.monotonic()
    with ExitStack() as stack:
        crew = [stack.enter_context(_Counter()) for _ in range(workers)]
        for counter in crew:
            counter.count(0.001)  # waits until it has started
        meter = stack.enter_context(LoadMeter())
        window = max(0.02, min(0.1, (budget - (time.monotonic() - start)) / 12))
        values: list[float] = []
        before = crew[0].count(window)
        while len(values) < 3 or time.monotonic() - start + 2 * window < budget:
            for counter in crew:
                counter.begin(window)
            everyone = sum([counter.end() for counter in crew])
            after = crew[(len(values) + 1) % workers].count(window)
            values.append(everyone / ((before + after) / 2))
            before = after
    return Sample(tuple(values), "cores", others=meter.others)


class _Counter:
    """A child interpreter that counts in a loop for as long as it is told. Killed on exit."""

    _CODE = """\
import sys, time
for line in sys.stdin:
    n, end = 0, time.perf_counter() + float(line)
    while time.perf_counter() < end:
        for _ in range(500): pass
        n += 1
    print(n, flush=True)
"""

    def __enter__(self) -> _Counter:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", self._CODE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # Ctrl-C reaches it too and would make it complain
            text=True,
        )
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.communicate()

    def count(self, seconds: float) -> int:
        self.begin(seconds)
        return self.end()

    def begin(self, seconds: float) -> None:
        with suppress(OSError):  # if it has ended, the answer will be missing
            self._process.stdin.write(f"{seconds}\n")
            self._process.stdin.flush()

    def end(self) -> int:
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{sys.executable} ended early: cannot measure effective cores")
        return int(answer)


def _allowed_cores() -> int:
    if hasattr(os, "process_cpu_count"):  # Python 3.13
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    if hasattr(psutil.Process, "cpu_affinity"):  # Windows
        return len(psutil.Process().cpu_affinity())
    return os.cpu_count() or 1


def _quota_v2(group: Path) -> float | None:
    try:
        quota, period = (group / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)


def _quota_v1(group: Path) -> float | None:
    try:
        quota = int((group / "cpu.cfs_quota_us").read_text())
        period = int((group / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 else None


# Python


@dataclass(frozen=True)
class Interpreter:
    """A CPython on this computer. ``gil``: it runs with the GIL unless told otherwise."""

    path: str
    version: str
    gil: bool
    free_threaded: bool

    def __str__(self) -> str:
        return self.version + (" free-threaded" if self.free_threaded else "")


def gil_enabled() -> bool:
    """Whether this interpreter runs with the global interpreter lock (GIL)."""
    return getattr(sys, "_is_gil_enabled", lambda: True)()


def interpreters() -> list[Interpreter]:
    """Other CPythons, newest first: from PATH, pyenv, uv and the Windows launcher.

    Each is asked by running it for at most 5 seconds; those that do not answer are left out.
    """
    with ThreadPoolExecutor(4) as pool:
        answers = pool.map(_ask, {os.path.realpath(path): path for path in _candidates()}.values())
        found = {_identity(answer): answer for answer in answers if answer}
    found.pop(_identity(_about_this()), None)
    newest_first = sorted(found.values(), key=lambda a: (a["numbers"], a["path"]), reverse=True)
    return [
        Interpreter(a["path"], a["version"], a["gil"], a["free_threaded"]) for a in newest_first
    ]


_ANSWER_WITHIN = 5.0  # seconds
_ABOUT = """\
import json, os, sys, sysconfig
print(json.dumps({
    "path": sys.executable, "version": sys.version.split()[0], "numbers": sys.version_info[:3],
    "gil": getattr(sys, "_is_gil_enabled", lambda: True)(),
    "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    "name": sys.implementation.name, "home": os.path.realpath(sys.base_prefix)}))
"""


def _ask(path: str) -> dict | None:
    try:
        answer = subprocess.run(
            [path, "-I", "-S", "-c", _ABOUT],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_ANSWER_WITHIN,
            check=True,
        )
        about = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return about if about["name"] == "cpython" else None


def _about_this() -> dict:
    return {
        "home": os.path.realpath(sys.base_prefix),
        "version": platform.python_version(),
        "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    }


def _identity(about: dict) -> tuple:
    return about["home"], about["version"], about["free_threaded"]


def _candidates() -> list[str]:
    """Paths that may be Python interpreters."""
    home = Path.home()
    pyenv = Path(os.environ.get("PYENV_ROOT", home / ".pyenv"))
    data = Path(os.environ.get("XDG_DATA_HOME", home / ".local/share"))
    if sys.platform == "win32":
        data = Path(os.environ.get("APPDATA", home / "AppData/Roaming"))
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR", data / "uv/python"))
    found = [
        *pyenv.glob("versions/*/bin/python3"),
        *pyenv.glob("pyenv-win/versions/*/python.exe"),
        *uv.glob("*/bin/python3"),
        *uv.glob("*/python.exe"),
    ]
    for folder in map(Path, os.get_exec_path()):
        # A shim or a shop's alias stands for another file, or opens the shop.
        if folder.name not in ("shims", "WindowsApps"):
            found += folder.glob("python3*[0-9t]") if os.name == "posix" else ()
            found += folder.glob("python.exe" if os.name == "nt" else "python3")
    paths = [str(path) for path in found if os.access(path, os.X_OK)]
    return paths + (_from_launcher() if sys.platform == "win32" else [])


def _from_launcher() -> list[str]:
    try:
        listing = subprocess.run(
            ["py", "-0p"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_ANSWER_WITHIN,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.split(maxsplit=1)[1].lstrip("* ") for line in listing.splitlines()
            if line.strip().endswith(".exe")]  # fmt: skip


# Reasons why a claim does not apply here: a sentence, or None


def no_gil() -> str | None:
    """A reason if this interpreter runs without the GIL."""
    return None if gil_enabled() else "this Python runs without the GIL"


def not_linux() -> str | None:
    """A reason if this system is not Linux."""
    return None if sys.platform == "linux" else f"this system is {_system_name()}, not Linux"


def fewer_cores_than(cores: float) -> str | None:
    """A reason if this process may use fewer than so many cores."""
    usable = usable_cores()
    return None if usable >= cores else f"{cores:g} cores are needed, usable here: {usable:g}"


def no_start_method(name: str) -> str | None:
    """A reason if `multiprocessing` has no such start method here ("fork", "forkserver")."""
    if name not in ("fork", "forkserver", "spawn"):
        raise ValueError(f"no start method is called {name!r}: use 'fork', 'forkserver' or 'spawn'")
    available = multiprocessing.get_all_start_methods()
    return None if name in available else f"{_system_name()} has no start method {name}"


# The whole


@dataclass(frozen=True, repr=False)
class Machine:
    """What `describe` found. Printed or shown by a notebook as a table."""

    usable_cores: float
    total_cores: int
    effective_cores: Sample | None
    python: str
    gil: str
    start_method: str
    start_methods: tuple[str, ...]
    system: str
    interpreters: tuple[Interpreter, ...]

    def rows(self) -> list[tuple[str, str]]:
        """What the table shows, as (name, value)."""
        effective = [] if self.effective_cores is None else [
            ("effective cores, now", str(self.effective_cores))
        ]  # fmt: skip
        others = [method for method in self.start_methods if method != self.start_method]
        return [
            ("usable cores", f"{self.usable_cores:g} of {self.total_cores}"),
            *effective,
            ("Python", self.python),
            ("GIL", self.gil),
            ("start method", f"{self.start_method} (also: {', '.join(others) or 'none'})"),
            ("system", self.system),
            ("other Pythons", ", ".join(map(str, self.interpreters)) or "none found"),
        ]

    def __str__(self) -> str:
        return "\n".join(f"{name:<22}{value}" for name, value in self.rows())

    def __repr__(self) -> str:  # a notebook's plain text; the fields would show paths
        return str(self)

    def _repr_html_(self) -> str:
        cells = "".join(
            f'<tr><th scope="row" style="text-align:start">{name}</th>'
            f'<td style="text-align:start">{html.escape(value)}</td></tr>'
            for name, value in self.rows()
        )
        return f'<table class="machine"><tbody>{cells}</tbody></table>'


def describe(effective: bool = True) -> Machine:
    """Describe this computer and this Python; takes about 2 seconds, less without `effective`."""
    # The list's first is the default; get_start_method() would also settle it for good.
    chosen = multiprocessing.get_start_method(allow_none=True)
    methods = multiprocessing.get_all_start_methods()
    gil = "on" if gil_enabled() else "off"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        gil += " (free-threaded build)"
    return Machine(
        usable_cores=usable_cores(),
        total_cores=os.cpu_count() or 1,
        effective_cores=effective_cores() if effective else None,
        python=f"{platform.python_implementation()} {platform.python_version()}",
        gil=gil,
        start_method=chosen or methods[0],
        start_methods=tuple(methods),
        system=f"{_system_name()}, {platform.machine()}",
        interpreters=tuple(interpreters()),
    )


def _system_name() -> str:
    return {"Darwin": "macOS"}.get(platform.system(), platform.system())
