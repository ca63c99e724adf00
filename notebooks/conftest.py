"""How nbval runs the notebooks: `pytest --nbval notebooks/en`.

Executes every cell, with processes started by spawn, and compares what is stored: text and streams
of cells without the tag `nbval-ignore-output`. HTML and pictures say the same again and are not
stored.
"""

import os
import tempfile
from pathlib import Path

import psutil
import pytest
from nbval.kernel import RunningKernel

os.environ["CONCURRENCY_LAB_PROGRESS"] = "0"

_running = []  # the kernel of the notebook that is being run
NOT_COMPARED = (
    "text/html",
    "image/svg+xml",
    "application/vnd.concurrency-lab.claim+json",
    "application/vnd.concurrency-lab.exploration+json",
    "application/vnd.concurrency-lab.schedules+json",
    "application/vnd.concurrency-lab.arrivals+json",
)


def pytest_configure(config):
    if config.option.nbval:
        config.option.nbval_current_env = True  # the kernel is this Python, whatever is installed
        folder = tempfile.TemporaryDirectory(prefix="nbval-", ignore_cleanup_errors=True)
        config.add_cleanup(folder.cleanup)
        os.environ |= dict.fromkeys(("TMPDIR", "TEMP", "TMP"), folder.name)
        _spawn_in_kernels(Path(folder.name, "ipython"))
        RunningKernel.stop = _stop


def _spawn_in_kernels(profiles):
    """Let kernels start processes as macOS and Windows do; the book was built with the default."""
    startup = profiles / "profile_default/startup/spawn.py"
    startup.parent.mkdir(parents=True)
    startup.write_text('__import__("multiprocessing").set_start_method("spawn")\n')
    os.environ["IPYTHONDIR"] = str(profiles)


def _stop(kernel):
    """Ask the kernel to end. nbval kills it at once, and the resource tracker along with it."""
    kernel.kc.stop_channels()
    kernel.km.shutdown_kernel()
    del kernel.km


def pytest_collectstart(collector):
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += NOT_COMPARED


def pytest_itemcollected(item):
    if not hasattr(item, "cell"):
        return
    if item.options["check"]:
        # nbval compares only cells that have a count, and none is stored: it would change for no
        # reason. So a cell without stored output, too, is compared: it must not have any.
        item.cell.execution_count = 0


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Say which cell failed, and what it printed before numbers were sanitised away."""
    report = yield
    if report.failed and hasattr(item, "cell"):
        texts = [
            output.get("text") or output.get("data", {}).get("text/plain", "")
            for output in item.test_outputs or []
        ]
        report.sections += [("cell", f"id: {item.cell.id}"), ("output", "\n".join(texts))]
    return report


def pytest_keyboard_interrupt(excinfo):
    """End the kernel and its workers, but not Python's resource tracker: it tidies up after them.

    Killed with its process group, a kernel would leave its semaphores in /dev/shm; killed alone,
    the workers of its pools.
    """
    for kernel in _running:
        process = psutil.Process(kernel.km.provisioner.pid)
        family = [process, *process.children(recursive=True)]
        trackers = [one for one in family if "resource_tracker" in " ".join(one.cmdline())]
        for one in family:
            if one not in trackers:
                one.kill()
        psutil.wait_procs(trackers, timeout=10)


def pytest_runtest_setup(item):
    kernel = getattr(item.parent, "kernel", None)
    if hasattr(item, "cell") and kernel is not None and kernel not in _running:
        _running[:] = [kernel]
