import json
import multiprocessing
import os
import platform
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from concurrency_lab import machine
from concurrency_lab.timing import Sample

# Control groups


def tree(root, files):
    """A file system with these files."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V2 = {"proc/self/cgroup": "0::/user.slice/app\n"}
V1 = {"proc/self/cgroup": "4:memory:/m\n3:cpuset:/c\n2:cpu,cpuacct:/docker/abc\n0::/\n"}


@pytest.mark.parametrize(
    "files, cores",
    [
        ({}, None),  # macOS, Windows
        (V2, None),  # nothing mounted
        (V2 | {"sys/fs/cgroup/user.slice/app/cpu.max": "150000 100000\n"}, 1.5),
        (V2 | {"sys/fs/cgroup/user.slice/app/cpu.max": "max 100000\n"}, None),
        (V2 | {"sys/fs/cgroup/user.slice/cpu.max": "50000 100000\n"}, 0.5),
        (V2 | {"sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2.0),  # a container's own mount
        (V2 | {"sys/fs/cgroup/unified/user.slice/app/cpu.max": "50000 50000\n"}, 1.0),
        (V2 | {"sys/fs/cgroup/user.slice/app/cpu.max": ""}, None),
        (
            V2
            | {
                "sys/fs/cgroup/user.slice/app/cpu.max": "400000 100000\n",
                "sys/fs/cgroup/user.slice/cpu.max": "300000 100000\n",
            },
            3.0,
        ),
        (
            {"proc/self/cgroup": "0::/../../x\n", "sys/fs/cgroup/x/cpu.max": "70000 100000\n"},
            0.7,
        ),
        (
            V1
            | {
                "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000\n",
            },
            2.5,
        ),
        (
            V1
            | {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            0.5,
        ),
        (
            V1
            | {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
        (V1 | {"sys/fs/cgroup/cpuset/c/cpu.cfs_quota_us": "50000\n"}, None),
    ],
)
def test_container_quota(tmp_path, files, cores):
    assert machine.container_quota(tree(tmp_path, files)) == cores


def test_usable_cores_is_the_stricter_of_affinity_and_quota(monkeypatch):
    monkeypatch.setattr(machine, "_allowed_cores", lambda: 8)
    for quota, usable in ((None, 8), (1.5, 1.5), (16.0, 8)):
        monkeypatch.setattr(machine, "container_quota", lambda quota=quota: quota)
        assert machine.usable_cores() == usable


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs CPU affinity")
def test_usable_cores_follows_affinity():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert machine.usable_cores() <= 1
    finally:
        os.sched_setaffinity(0, before)
    assert 0 < machine.usable_cores() <= len(before)


def test_allowed_cores_on_every_platform(monkeypatch):
    monkeypatch.setattr(os, "process_cpu_count", lambda: 3, raising=False)
    assert machine._allowed_cores() == 3
    monkeypatch.delattr(os, "process_cpu_count")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 5}, raising=False)
    assert machine._allowed_cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(psutil.Process, "cpu_affinity", lambda self: [1, 2, 3, 4], raising=False)
    assert machine._allowed_cores() == 4
    monkeypatch.delattr(psutil.Process, "cpu_affinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    assert machine._allowed_cores() == 12


# Effective cores


@pytest.fixture
def no_children_left():
    before = {child.pid for child in psutil.Process().children()}
    yield
    assert {child.pid for child in psutil.Process().children()} <= before


def test_effective_cores_are_measured(monkeypatch, no_children_left):
    monkeypatch.setattr(machine, "usable_cores", lambda: 1.5)
    cores = machine.effective_cores(budget=0.2)
    assert isinstance(cores, Sample) and cores.unit == "cores"
    assert len(cores.values) >= 3 and all(value > 0 for value in cores.values)
    assert cores.others >= 0


def test_effective_cores_counts_the_work_of_all(monkeypatch):
    """Of two counters, each does beside the other three quarters of what it does alone."""

    class Counter:
        def __enter__(self):
            return self

        def __exit__(self, *exception):
            pass

        def count(self, seconds):
            return 100

        def begin(self, seconds):
            pass

        def end(self):
            return 75

    monkeypatch.setattr(machine, "_Counter", Counter)
    monkeypatch.setattr(machine, "usable_cores", lambda: 2)
    values = machine.effective_cores(budget=0.01).values
    assert len(values) >= 3 and set(values) == {1.5}


def test_effective_cores_of_one_core_need_no_measurement(monkeypatch):
    monkeypatch.setattr(machine, "usable_cores", lambda: 1.0)
    monkeypatch.setattr(machine, "_Counter", None)
    assert machine.effective_cores() == Sample((1.0,), "cores")


def test_effective_cores_leave_no_process_when_interrupted(monkeypatch, no_children_left):
    started = []
    end = machine._Counter.end

    def interrupted(self):
        started.append(self._process)
        if len(started) == 4:
            raise KeyboardInterrupt
        return end(self)

    monkeypatch.setattr(machine, "usable_cores", lambda: 2)
    monkeypatch.setattr(machine._Counter, "end", interrupted)
    with pytest.raises(KeyboardInterrupt):
        machine.effective_cores()
    assert started and all(process.poll() is not None for process in started)


def test_effective_cores_say_when_an_interpreter_ends_early(monkeypatch, no_children_left):
    monkeypatch.setattr(machine, "usable_cores", lambda: 2)
    monkeypatch.setattr(machine._Counter, "_CODE", "input()")
    with pytest.raises(RuntimeError, match="ended early"):
        machine.effective_cores()


# Python and its system


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty PATH folder, and no pyenv or uv."""
    for name in ("PYENV_ROOT", "UV_PYTHON_INSTALL_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def answer(**changes):
    about = {
        "path": "/opt/python", "version": "3.14.1", "numbers": [3, 14, 1], "gil": True,
        "free_threaded": False, "name": "cpython", "home": "/opt",
    }  # fmt: skip
    return f"echo '{json.dumps(about | changes)}'"


posix = pytest.mark.skipif(os.name != "posix", reason="uses shell scripts")


@posix
def test_interpreters_are_found_once_newest_first(folder, monkeypatch):
    script(folder / "python3.9", answer(version="3.9.1", numbers=[3, 9, 1]))
    script(folder / "python3.14", answer())
    script(folder / "python3", answer())
    free = answer(gil=False, free_threaded=True, home="/opt/t")
    script(folder / "uv/cpython-3.14+freethreaded/bin/python3", free)
    script(folder / "pyenv/versions/3.9.2/bin/python3", answer(version="3.9.2", numbers=[3, 9, 2]))
    monkeypatch.setenv("PYENV_ROOT", str(folder / "pyenv"))
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", str(folder / "uv"))
    found = machine.interpreters()
    assert sorted(map(str, found[:2])) == ["3.14.1", "3.14.1 free-threaded"]
    assert [str(interpreter) for interpreter in found[2:]] == ["3.9.2", "3.9.1"]
    assert {i.free_threaded: i.gil for i in found} == {False: True, True: False}


@posix
def test_interpreters_leave_out_what_does_not_answer(folder, monkeypatch):
    monkeypatch.setattr(machine, "_ANSWER_WITHIN", 0.5)
    script(folder / "python3.7", "exec sleep 60")
    script(folder / "python3.8", "echo garbage")
    script(folder / "python3.9", "exit 1")
    script(folder / "python3.10", answer(name="pypy"))
    (folder / "python3.11").write_text("not executable")
    script(folder / "python3-config", answer())
    script(folder / "shims/python3.12", answer())
    monkeypatch.setenv("PATH", os.pathsep.join([str(folder), str(folder / "shims")]))
    assert machine.interpreters() == []


@posix
def test_this_interpreter_is_not_an_other_one(folder):
    (folder / "python3").symlink_to(sys.executable)
    assert machine.interpreters() == []


def test_launcher_listing(monkeypatch):
    listing = (
        " -V:3.14t         C:\\Program Files\\Python314\\python3.14t.exe\n"
        " -V:3.13 *        C:\\Python313\\python.exe\n"
        "No others.\n"
    )

    def run(*args, **kwargs):
        return subprocess.CompletedProcess(args, 0, stdout=listing)

    monkeypatch.setattr(subprocess, "run", run)
    assert machine._from_launcher() == [
        "C:\\Program Files\\Python314\\python3.14t.exe",
        "C:\\Python313\\python.exe",
    ]


def test_reasons(monkeypatch):
    monkeypatch.setattr(machine, "usable_cores", lambda: 1.5)
    assert machine.fewer_cores_than(1.5) is None
    assert machine.fewer_cores_than(2) == "2 cores are needed, usable here: 1.5"
    monkeypatch.setattr(sys, "platform", "linux")
    assert machine.not_linux() is None
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert machine.not_linux() == "this system is macOS, not Linux"
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    assert machine.no_start_method("spawn") is None
    assert machine.no_start_method("fork") == "macOS has no start method fork"
    with pytest.raises(ValueError, match="'forkserver'"):
        machine.no_start_method("forks")


def test_gil_reason(monkeypatch):
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: True, raising=False)
    assert machine.no_gil() is None
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False)
    assert machine.no_gil() == "this Python runs without the GIL"
    monkeypatch.delattr(sys, "_is_gil_enabled")  # Python 3.12 and before
    assert machine.no_gil() is None


def test_describe_without_paths(monkeypatch):
    described = machine.describe(effective=False)
    assert platform.python_version() in str(described)
    assert described.start_method in multiprocessing.get_all_start_methods()
    assert 0 < described.usable_cores <= described.total_cores
    for text in (str(described), described._repr_html_()):
        assert "usable cores" in text and "effective" not in text
        for path in (sys.executable, str(Path.home()), os.getcwd(), platform.node()):
            assert path == "/" or path not in text


def test_describe_does_not_settle_the_start_method():
    code = """
import multiprocessing
from concurrency_lab import machine
machine.interpreters = list
machine.describe(effective=False)
multiprocessing.set_start_method("spawn")
print(machine.describe(effective=False).start_method)
"""
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (child.stdout, child.stderr) == ("spawn\n", "")


def test_table_shows_effective_cores_and_other_pythons():
    shown = machine.Machine(
        1.5, 8, Sample((1.2, 1.3, 1.4), "cores"), "CPython 3.14.1", "off (free-threaded build)",
        "forkserver", ("forkserver", "fork", "spawn"), "Linux, x86_64",
        (machine.Interpreter("/secret", "3.13.0", True, False),
         machine.Interpreter("/secret", "3.13.0", False, True)),
    )  # fmt: skip
    assert str(shown).splitlines() == [
        "usable cores          1.5 of 8",
        "effective cores, now  1.30 [1.20..1.40] cores",
        "Python                CPython 3.14.1",
        "GIL                   off (free-threaded build)",
        "start method          forkserver (also: fork, spawn)",
        "system                Linux, x86_64",
        "other Pythons         3.13.0, 3.13.0 free-threaded",
    ]
    assert shown._repr_html_().count("<tr>") == 7 and "secret" not in shown._repr_html_()
