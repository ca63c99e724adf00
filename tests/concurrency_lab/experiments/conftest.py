import contextlib
import multiprocessing
import tempfile
import threading
import time
import uuid
from pathlib import Path

import psutil
import pytest

from concurrency_lab import isolation

MARK = "CONCURRENCY_LAB_TESTS"


@pytest.fixture
def no_child_left():
    """Fails the test if it leaves a child process behind (Python's own helpers are let be)."""
    before, threads = _children(), threading.active_count()
    yield
    end = time.monotonic() + 10
    while (left := _children() - before) and time.monotonic() < end:
        time.sleep(0.01)
    assert not left, f"left running: {left}"
    assert not multiprocessing.active_children()
    assert threading.active_count() <= threads


@pytest.fixture(scope="module")
def own_runs(tmp_path_factory):
    """The processes and folders of a module's isolated runs can be told from those of others."""
    mark, folder = uuid.uuid4().hex, tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        patch.setenv(MARK, mark)
        yield mark, folder


@pytest.fixture
def no_run_left(own_runs):
    """Fails the test if its isolated runs leave a process, a folder or shared memory behind."""
    before = _shared_memory()
    yield
    mark, folder = own_runs
    left = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            variables = process.environ()
            if isolation._MARK in variables and variables.get(MARK) == mark:
                left.append(process)
    assert not left
    assert not list(folder.iterdir())
    end = time.monotonic() + 5  # other programs make such names too, and take them away
    while (more := _shared_memory() - before) and time.monotonic() < end:
        time.sleep(0.05)
    assert not more


def _children() -> set[psutil.Process]:
    """All processes below this one, but for the forkserver and the resource tracker themselves."""
    me = psutil.Process()
    return set(me.children(recursive=True)) - set(filter(_is_pythons_own, me.children()))


def _is_pythons_own(process: psutil.Process) -> bool:
    try:
        command = " ".join(process.cmdline())
    except psutil.Error:
        return True
    return "resource_tracker" in command or "forkserver" in command


def _shared_memory() -> set[str]:
    """What `multiprocessing` keeps blocks and locks in, while they have a name."""
    found = Path("/dev/shm").glob("*")  # nothing, where there is no such folder
    return {path.name for path in found if path.name.startswith(("psm_", "pym-", "sem.mp-"))}
