import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path

import psutil
import pytest

from concurrency_lab import isolation, workloads
from concurrency_lab.isolation import Outcome, run_isolated

LONG = 120  # a limit that is not reached, however loaded the machine is


OURS = uuid.uuid4().hex  # other tests may run on this machine


def marked_processes():
    """Processes of a run of these tests that has not tidied up."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            variables = process.environ()
            if isolation._MARK in variables and variables.get("ISOLATION_TEST") == OURS:
                found.append(process)
    return found


def gone(process):
    # Whether an orphan's entry is collected is the affair of the machine's first process.
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture(autouse=True)
def nothing_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("ISOLATION_TEST", OURS)
    yield
    assert not marked_processes()
    assert not list(tmp_path.glob("isolated-*"))


def test_source_is_run_and_its_output_comes_back():
    outcome = run_isolated(
        """
        import sys
        print("héllo", __name__)
        print("problem", file=sys.stderr)
        """,
        timeout=LONG,
    )
    assert outcome.output == "héllo __main__\n"
    assert outcome.errors == "problem\n"
    assert (outcome.exit_code, outcome.signal, outcome.timed_out) == (0, None, False)
    assert not outcome.crashed
    assert outcome.stacks == ""
    assert outcome.seconds > 0


def test_a_function_gets_arguments_and_returns():
    outcome = run_isolated(workloads.count_primes, 100, timeout=LONG)
    assert outcome.result == 25
    assert run_isolated(workloads.spin, 10, timeout=LONG).result == 45


def test_an_exception_is_told_without_frames_of_the_child():
    outcome = run_isolated("def f():\n    1 / 0\nf()", timeout=LONG)
    assert outcome.exit_code == 1
    assert 'File "isolated.py", line 2, in f' in outcome.errors
    assert "ZeroDivisionError" in outcome.errors
    assert "_isolated_child" not in outcome.errors
    assert str(tempfile.gettempdir()) not in outcome.errors


def test_an_exception_of_a_function_is_told():
    outcome = run_isolated(workloads.count_primes, "ten", timeout=LONG)
    assert outcome.exit_code == 1
    assert outcome.result is None
    assert "TypeError" in outcome.errors


@pytest.mark.parametrize(("code", "exit_code"), [("sys.exit(3)", 3), ("sys.exit()", 0)])
def test_exit_codes(code, exit_code):
    assert run_isolated(f"import sys; {code}", timeout=LONG).exit_code == exit_code


def test_a_segmentation_fault_is_survived_and_shown():
    outcome = run_isolated(
        """
        import ctypes
        print("before")
        def touch():
            ctypes.string_at(0)
        touch()
        """,
        timeout=LONG,
    )
    assert outcome.crashed
    assert outcome.signal == ("ACCESS_VIOLATION" if os.name == "nt" else "SIGSEGV")
    assert outcome.exit_code is None
    assert outcome.output == "before\n"
    assert "'MainThread'" in outcome.stacks
    assert 'File "isolated.py", line 5 in touch\n    ctypes.string_at(0)' in outcome.stacks


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_killed_child_is_a_crash():
    outcome = run_isolated("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", timeout=LONG)
    assert (outcome.signal, outcome.crashed, outcome.timed_out) == ("SIGKILL", True, False)


DEADLOCK = """
    import threading
    a, b = threading.Lock(), threading.Lock()
    both = threading.Barrier(2)
    def take(first, second):
        with first:
            both.wait()
            with second:
                print("never")
    pairs = {"A then B": (a, b), "B then A": (b, a)}
    threads = [threading.Thread(target=take, args=p, name=n) for n, p in pairs.items()]
    for thread in threads:
        thread.start()
    print("started", flush=True)
    threads[0].join()
"""


def test_a_deadlock_is_stopped_and_all_threads_are_shown():
    outcome = run_isolated(DEADLOCK, timeout=2)
    assert outcome.timed_out
    assert (outcome.exit_code, outcome.signal, outcome.crashed) == (None, None, False)
    assert outcome.output == "started\n"
    assert outcome.seconds >= 2
    for name in ("'A then B'", "'B then A'", "'MainThread'"):
        assert f"hread {name} (most recent call first)" in outcome.stacks
    assert outcome.stacks.count("with second:") == 2
    assert "threads[0].join()" in outcome.stacks


def test_code_that_never_lets_the_gil_go_is_stopped():
    outcome = run_isolated("(3**20_000) ** 1_000_000", timeout=0.5)
    assert outcome.timed_out
    assert 'File "isolated.py", line 1 in <module>' in outcome.stacks


GRANDCHILDREN = """
    import subprocess, sys, time
    sleep = [sys.executable, "-c", "import time; time.sleep(3600)"]
    apart = {"start_new_session": True} if sys.platform != "win32" else {"creationflags": 0x208}
    subprocess.Popen(sleep)
    subprocess.Popen(sleep, **apart)
    nested = f"import subprocess, time; subprocess.Popen({sleep!r}, **{apart!r}); time.sleep(3600)"
    subprocess.Popen([sys.executable, "-c", nested])
    print("started", flush=True)
"""


@pytest.mark.parametrize("end", ["", "    time.sleep(3600)"], ids=["child ends", "child hangs"])
def test_grandchildren_are_killed_wherever_they_went(end, monkeypatch):
    seen = []
    kill = isolation._kill_tree

    def kill_after_a_look(process, mark):
        wait_until(lambda: len(marked_processes()) >= 4)
        seen.extend(marked_processes())
        kill(process, mark)

    monkeypatch.setattr(isolation, "_kill_tree", kill_after_a_look)
    outcome = run_isolated(GRANDCHILDREN + end, timeout=4 if end else LONG)
    assert outcome.timed_out == bool(end)
    assert outcome.output == "started\n"
    assert len(seen) >= 4
    # A process that dies gives its memory back first, the mark in it too, and is a zombie later.
    wait_until(lambda: all(gone(process) for process in seen))


def test_processes_can_be_spawned_from_the_source():
    outcome = run_isolated(
        """
        import multiprocessing
        def double(x):
            return 2 * x
        if __name__ == "__main__":
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                print(pool.map(double, [1, 2]))
        """,
        timeout=LONG,
    )
    assert outcome.output == "[2, 4]\n", outcome.errors


def wait_until(condition, seconds=60):
    limit = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < limit, "waited too long"
        time.sleep(0.05)
    return value


def test_the_child_is_gone_after_keyboard_interrupt(monkeypatch):
    def interrupt(self, timeout=None):
        if timeout is not None:
            raise KeyboardInterrupt
        return wait(self)

    wait = subprocess.Popen.wait
    monkeypatch.setattr(subprocess.Popen, "wait", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_isolated("import time; time.sleep(3600)", timeout=LONG)


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_real_interrupt_stops_the_tree_and_tidies_up():
    code = (
        "from concurrency_lab.isolation import run_isolated\n"
        "run_isolated('import subprocess, sys, time\\n'\n"
        '    \'subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])\\n\'\n'
        "    'time.sleep(3600)', timeout=3600)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": tempfile.gettempdir()},
    )
    try:
        tree = wait_until(
            lambda: len(found := psutil.Process(parent.pid).children(recursive=True)) == 2 and found
        )
        parent.send_signal(signal.SIGINT)
        assert parent.wait(60) != 0
        assert [process for process in tree if not gone(process)] == []
    finally:
        parent.kill()
        parent.wait()


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_the_child_ends_at_its_limit_although_the_parent_was_killed():
    code = (
        "from concurrency_lab.isolation import run_isolated\n"
        "run_isolated('import time; time.sleep(3600)', timeout=3)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "TMPDIR": tempfile.gettempdir()}
    )
    (child,) = wait_until(lambda: psutil.Process(parent.pid).children())
    parent.kill()
    parent.wait()
    wait_until(lambda: gone(child))
    for folder in Path(tempfile.gettempdir()).glob("isolated-*"):
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()


def test_the_child_does_not_see_what_only_this_process_has(monkeypatch):
    monkeypatch.setenv("PYTHONSTARTUP", "nowhere.py")
    code = "import os, sys; print(sys.flags.isolated, os.environ['COLOUR'])"
    assert run_isolated(code, timeout=LONG, env={"COLOUR": "red"}).output == "1 red\n"


def test_the_package_and_the_path_are_there(tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("def answer(): return 42\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import only_here

    code = "import concurrency_lab.workloads, only_here; print(only_here.answer())"
    assert run_isolated(code, timeout=LONG).output == "42\n"
    assert run_isolated(only_here.answer, timeout=LONG).result == 42


def test_another_interpreter_sees_the_package():
    package = run_isolated(
        "import importlib.util; print(importlib.util.find_spec('concurrency_lab') is not None)",
        timeout=LONG,
        python=sys.executable,
    )
    assert package.output == "True\n", package.errors
    outcome = run_isolated(workloads.spin, 10, timeout=LONG, python=sys.executable)
    assert outcome.result == 45, outcome.errors


def test_options_reach_the_interpreter():
    code = "import sys; print(sys.flags.dev_mode)"
    assert run_isolated(code, timeout=LONG, options=("-X", "dev")).output == "True\n"


def test_very_long_output_is_cut(monkeypatch):
    monkeypatch.setattr(isolation, "_LONGEST", 100)
    output = run_isolated("print('x' * 1000)", timeout=LONG).output
    assert output.startswith("x" * 100 + "\n... 901 more")


def test_functions_that_a_child_cannot_import_are_refused():
    def inner():
        pass

    def outside():
        pass

    outside.__module__ = "__main__"
    with pytest.raises(ValueError, match="script: move it to a module"):
        run_isolated(outside)
    with pytest.raises(ValueError, match="top level of a module"):
        run_isolated(inner)
    with pytest.raises(ValueError, match="top level of a module"):
        run_isolated(lambda: 1)


def test_bad_calls_are_refused():
    with pytest.raises(ValueError, match="arguments cannot be sent"):
        run_isolated(workloads.spin, threading.Lock())
    with pytest.raises(ValueError, match="put them into the source"):
        run_isolated("print(1)", 1)
    with pytest.raises(ValueError, match="positive"):
        run_isolated("print(1)", timeout=0)
    with pytest.raises(FileNotFoundError, match="interpreters\\(\\) lists"):
        run_isolated("print(1)", python="python-of-nowhere")


def test_an_outcome_can_be_read():
    outcome = Outcome("out <1>\n", "", None, "SIGSEGV", False, "Thread\n", 1.25)
    assert str(outcome) == "[killed by SIGSEGV, 1.25 s]\noutput:\n  out <1>\nstacks:\n  Thread"
    page = outcome._repr_html_()
    assert "out &lt;1&gt;" in page
    assert "killed by SIGSEGV" in page
    assert "errors" not in page
    assert Outcome("", "", None, None, True, "", 2.0).verdict == "stopped at the time limit"
    assert Outcome("", "", 3, None, False, "", 2.0).verdict == "ended with exit code 3"


def test_what_the_child_keeps_in_the_temporary_folder_goes_with_it():
    kept = run_isolated("import os, tempfile; print(tempfile.mkdtemp(), flush=True); os._exit(1)")
    assert kept.exit_code == 1
    assert not Path(kept.output.strip()).exists()


def test_something_that_is_no_code_is_refused():
    with pytest.raises(TypeError, match="source code"):
        run_isolated(5)


def in_shared_memory():
    folder = Path("/dev/shm")
    return {file.name for file in folder.iterdir()} if folder.is_dir() else set()


needs_folder = pytest.mark.skipif(
    not Path("/dev/shm").is_dir(), reason="this system does not list its shared memory"
)
FORGETFUL = """
from multiprocessing.shared_memory import SharedMemory
print(SharedMemory(create=True, size=1000).name)
"""
STUCK = """
import multiprocessing, time
if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    locks = [context.Lock() for _ in range(3)]
    block = multiprocessing.shared_memory.SharedMemory(create=True, size=1000)
    child = context.Process(target=time.sleep, args=(600,))
    child.start()
    print(block.name, *(lock._semlock.name for lock in locks if lock._semlock.name))
    child.join()
""".replace("import multiprocessing", "import multiprocessing.shared_memory")


@needs_folder
def test_shared_memory_that_the_code_forgot_is_removed_and_python_says_so():
    before = in_shared_memory()
    outcome = run_isolated(FORGETFUL, timeout=LONG)
    assert outcome.exit_code == 0
    name = outcome.output.strip().lstrip("/")
    assert name and name not in in_shared_memory() and name not in before
    assert "leaked shared_memory" in outcome.errors


@needs_folder
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_nothing_is_left_in_shared_memory_by_code_that_hangs(method, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)  # the forkserver's socket needs a short path
    outcome = run_isolated(STUCK.format(method=method), timeout=4)
    names = outcome.output.split()
    assert outcome.timed_out and len(names) == (1 if method == "fork" else 4)
    names = {name.lstrip("/") for name in names}
    assert not [file for file in in_shared_memory() if file.removeprefix("sem.") in names]
    assert "leaked" not in outcome.errors  # that was our doing


def test_stacks_that_a_descendant_writes_show_the_source():
    outcome = run_isolated(
        """
import faulthandler, subprocess, sys

def here():
    faulthandler.dump_traceback()

if len(sys.argv) == 1:
    subprocess.run([sys.executable, __file__, "child"])
else:
    here()
print('File "nowhere.py", line 1 in nothing', file=sys.stderr)
""",
        timeout=LONG,
    )
    assert "line 5 in here\n    faulthandler.dump_traceback()\n" in outcome.errors
    assert "line 10 in <module>\n    here()\n" in outcome.errors
    assert outcome.errors.count("line 1 in nothing\n") == 2
