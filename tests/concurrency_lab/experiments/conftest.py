import multiprocessing

import psutil
import pytest


@pytest.fixture
def no_child_left():
    """Fails the test if it leaves a child process behind (Python's own trackers are let be)."""
    before = set(psutil.Process().children(recursive=True))
    yield
    left = [
        child
        for child in psutil.Process().children(recursive=True)
        if child not in before and not _is_pythons_own(child)
    ]
    assert not left, f"left running: {left}"
    assert not multiprocessing.active_children()


def _is_pythons_own(process: psutil.Process) -> bool:
    try:
        command = " ".join(process.cmdline())
    except psutil.Error:
        return True
    return "resource_tracker" in command or "forkserver" in command
