"""Chapter 8 under every start method, and its programs that must lose and leave nothing.

They are taken from the notebook, cell by cell, so that what is tested is what the reader sees.
"""

import importlib
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import wait as wait_for_futures
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from types import ModuleType, SimpleNamespace

import nbformat
import numpy as np
import psutil
import pytest
from nbclient import NotebookClient

from concurrency_lab.claims import MIME_TYPE
from website import ROOT

NOTEBOOK = ROOT / "notebooks/en/08-multiprocessing.ipynb"
METHODS = multiprocessing.get_all_start_methods()
CELLS = {cell.id: cell for cell in nbformat.read(NOTEBOOK, 4).cells}
MODULES = {}  # those that the notebook writes: their names and sources
for cell in CELLS.values():
    if found := re.match(r"%%writefile \{folder.name\}/(\w+)\.py\n", cell.source):
        MODULES[found[1]] = cell.source[found.end() :] + "\n"

TASKS = """
import time
from pathlib import Path

import psutil

def begin(folder, item):
    with open(Path(folder, str(item)), "a") as file:
        file.write(".")
        return file.tell()

def square(folder, deaths, item):
    "Kills its own process the first times, as often as `deaths` says of the item."
    if begin(folder, item) <= deaths.get(item, 0):
        psutil.Process().kill()
    return item * item

def root(folder, item):
    begin(folder, item)
    if item < 0:
        raise ValueError(f"no root of {item}")
    return item ** 0.5

def megabytes(folder, item):
    begin(folder, item)
    return bytes([item]) * 5_000_000

def unsendable(folder, item):
    return (lambda: item) if begin(folder, item) < 5 else "tried for ever"

class Refused(Exception):
    "It is pickled without `reason`, so nobody can build it again."

    def __init__(self, item, reason):
        super().__init__(item)

def refuse(item):
    raise Refused(item, "not today")

def sleep(item):
    time.sleep(600)
"""


def source(*ids):
    return "\n\n".join(CELLS[name].source for name in ids)


def shared_memory():
    """What `multiprocessing` keeps blocks and locks in: the names of files, and their numbers."""
    found = {}
    for path in Path("/dev/shm").glob("*"):  # nothing, where there is no such folder
        if path.name.startswith(("psm_", "pym-", "sem.mp-")):
            with suppress(FileNotFoundError):
                found[path.name] = path.stat().st_ino
    return found


def used_by_others(mine):
    """The numbers of files there that other processes have mapped: other programs, at work."""
    numbers = set()
    for process in psutil.process_iter() if psutil.LINUX else ():
        if process not in mine:
            with suppress(OSError):
                maps = Path(f"/proc/{process.pid}/maps").read_text("utf-8", "replace")
                numbers.update(map(int, re.findall(r" (\d+) +/dev/shm/", maps)))
    return numbers


def what_is_left(processes, before, seconds=10):
    """Processes (a function finds them) and shared memory that nobody takes away in that time."""
    end = time.monotonic() + seconds
    while True:
        running = set(processes())
        more = shared_memory().items() - before.items()
        if more:
            others = used_by_others(running | {psutil.Process()})
            still = shared_memory()
            more = {name for name, number in more if name in still and number not in others}
        if not (running or more) or time.monotonic() > end:
            return running, set(more)
        time.sleep(0.05)


def children():
    """All processes below this one, but for the forkserver and the resource tracker themselves."""
    multiprocessing.active_children()  # takes away those that have ended
    me = psutil.Process()
    for process in me.children(recursive=True):
        with suppress(psutil.Error):
            command = " ".join(process.cmdline())
            helps = "resource_tracker" in command or "multiprocessing.forkserver" in command
            if not helps or process.ppid() != me.pid:
                yield process


def kill(processes):
    """The commands of those that it had to kill."""
    commands = []
    for process in processes:
        with suppress(psutil.Error):
            commands.append(" ".join(process.cmdline()))
            process.kill()
    return commands


# -- the whole notebook -------------------------------------------------------------------------


@pytest.fixture
def short_folder(monkeypatch):
    """A folder for temporary files that none is left in, nor a process that was told of it."""
    before = shared_memory()
    with tempfile.TemporaryDirectory(prefix="c8-") as folder:  # sockets need a short path
        for variable in ("TMPDIR", "TEMP", "TMP"):
            monkeypatch.setenv(variable, folder)

        def told():
            for process in psutil.process_iter():
                with suppress(psutil.Error, OSError):
                    if process.environ().get("TMPDIR") == folder:
                        yield process

        yield folder
        running, more = what_is_left(told, before)
        assert (kill(running), more) == ([], set())
        assert not list(Path(folder).glob("chapter8-*"))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("method", ["fork"])  # the site is built with forkserver, nbval spawns
def test_the_notebook_runs_unchanged_under_another_start_method(method, short_folder, monkeypatch):
    if method not in METHODS:
        pytest.skip(f"no start method {method}")
    monkeypatch.setenv("CONCURRENCY_LAB_PROGRESS", "0")
    notebook = nbformat.read(NOTEBOOK, 4)
    choice = f'import multiprocessing; multiprocessing.set_start_method("{method}", force=True)'
    notebook.cells.insert(0, nbformat.v4.new_code_cell(choice))
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": short_folder}}
    ).execute()
    outputs = {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    assert outputs["method"][0].data["text/plain"] == repr(method)
    claims = [
        output.data[MIME_TYPE]
        for several in outputs.values()
        for output in several
        if MIME_TYPE in output.get("data", {})
    ]
    assert len(claims) >= notebook.metadata.course.claims_at_least
    assert [claim for claim in claims if claim["verdict"] == "fails"] == []


# -- parts of it --------------------------------------------------------------------------------


@pytest.fixture(params=METHODS)
def chapter(request, tmp_path, monkeypatch):
    """What the notebook's cells define, under each start method; nothing is left of it.

    They are executed in a `__main__` of their own, which has no file, as it is in a notebook.
    """
    before, method = shared_memory(), multiprocessing.get_start_method(allow_none=True)
    for name, text in {**MODULES, "chapter_tasks": TASKS}.items():
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    main = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    multiprocessing.set_start_method(request.param, force=True)
    main.wait = wait  # a cell about something else imports it
    exec(source("imports", "recover", "solution-2-code", "solution-3-code"), vars(main))
    assert list(children()) == []
    yield vars(main)
    multiprocessing.set_start_method(method, force=True)
    for name in (*MODULES, "chapter_tasks"):
        sys.modules.pop(name, None)
    running, more = what_is_left(children, before)
    assert (kill(running), more) == ([], set())


@pytest.fixture
def tasks(chapter):
    return importlib.import_module("chapter_tasks")


@pytest.fixture
def begun(tmp_path):
    """How often each item was begun; the tasks note it in the folder."""
    folder = tmp_path / "begun"
    folder.mkdir()

    def count():
        return {int(path.name): path.stat().st_size for path in folder.iterdir()}

    count.folder = folder
    return count


SQUARES = [n * n for n in range(8)]


@pytest.mark.parametrize("deaths", [{}, {3: 1}, {0: 1, 7: 1}, {5: 2}], ids=str)
def test_every_result_is_there_once_and_in_order(chapter, tasks, begun, deaths):
    square = partial(tasks.square, begun.folder, deaths)
    assert chapter["every_result"](square, range(8)) == SQUARES
    counts = begun()
    assert all(counts[item] > times for item, times in deaths.items())
    assert len(counts) == 8 and max(counts.values()) <= 1 + sum(deaths.values())


def test_every_result_with_more_deaths_and_more_attempts(chapter, tasks, begun):
    square = partial(tasks.square, begun.folder, {1: 2, 2: 1, 6: 2})
    assert chapter["every_result"](square, range(7, -1, -1), attempts=6) == SQUARES[::-1]


def test_every_result_of_equal_items_and_of_none(chapter, tasks, begun):
    square = partial(tasks.square, begun.folder, {2: 1})
    assert chapter["every_result"](square, [2, 3, 2]) == [4, 9, 4]
    assert chapter["every_result"](square, []) == []


def test_every_result_when_a_worker_dies_before_all_is_submitted(chapter, tasks, begun):
    class Waits(ProcessPoolExecutor):
        submitted = []

        def submit(self, function, item):
            self.submitted.append(item)
            future = super().submit(function, item)
            if item <= 2:
                wait_for_futures([future])  # of 2, the worker is dead now, the first time
            return future

    chapter["ProcessPoolExecutor"] = Waits
    square = partial(tasks.square, begun.folder, {2: 1})
    assert chapter["every_result"](square, range(8)) == SQUARES
    assert Waits.submitted == [0, 1, 2, 3, 2, 3, 4, 5, 6, 7]  # 3 was refused; 0 and 1 are kept
    assert begun() == dict.fromkeys(range(8), 1) | {2: 2}


def test_every_result_when_a_worker_dies_anywhere_in_the_submitting(chapter, tasks, begun):
    square = partial(tasks.square, begun.folder, {0: 1, 30: 1})
    assert chapter["every_result"](square, range(300)) == [n * n for n in range(300)]


def test_every_result_gives_up_an_item_that_always_kills_and_names_it(chapter, tasks, begun):
    square = partial(tasks.square, begun.folder, {3: 1000})
    with pytest.raises(BrokenProcessPool, match=r"given up: \[.*\b3\b.*\]"):
        chapter["every_result"](square, range(8))
    assert begun()[3] == 3


def test_every_result_raises_what_a_task_raises(chapter, tasks, begun):
    with pytest.raises(ValueError, match="no root of -4"):
        chapter["every_result"](partial(tasks.root, begun.folder), [9, -4, 16])


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("deaths", [{}, {0: 1, 3: 3, 7: 1}], ids=str)
def test_supervise_loses_nothing_and_does_again_only_what_was_lost(
    chapter, tasks, begun, deaths, workers
):
    """Exercise 8.3."""
    square = partial(tasks.square, begun.folder, deaths)
    assert chapter["supervise"](square, range(8), workers) == SQUARES
    assert begun() == {item: 1 + deaths.get(item, 0) for item in range(8)}


def test_supervise_of_equal_items_and_of_none(chapter, tasks, begun):
    square = partial(tasks.square, begun.folder, {2: 1})
    assert chapter["supervise"](square, [2, 3, 2]) == [4, 9, 4]
    assert chapter["supervise"](square, []) == []


def test_to_supervise_an_exception_is_an_answer(chapter, tasks, begun):
    nine, error, sixteen = chapter["supervise"](partial(tasks.root, begun.folder), [9, -4, 16])
    assert (nine, sixteen) == (3, 4) and begun() == {9: 1, -4: 1, 16: 1}
    assert isinstance(error, RuntimeError) and "ValueError('no root of -4')" in str(error)


def test_to_supervise_an_exception_that_cannot_be_sent_is_an_answer(chapter, tasks):
    (error,) = chapter["supervise"](tasks.refuse, [7])
    assert isinstance(error, RuntimeError) and "Refused" in str(error)


@pytest.mark.skipif(not psutil.LINUX, reason="asks the kernel what is in a pipe")
def test_supervise_when_a_worker_is_killed_in_the_middle_of_its_answer(chapter, tasks, begun):
    import fcntl
    import termios

    killed = []

    def kill_one_that_answers(crew):
        ready = wait(crew)
        if not killed:
            killed.append(crew[ready[0]][0])
            size = bytearray(4)
            while int.from_bytes(size, sys.byteorder) < 1000:  # more than the head of a message
                fcntl.ioctl(ready[0].fileno(), termios.FIONREAD, size)
                time.sleep(0.01)
            killed[0].kill()
        return ready

    chapter["wait"] = kill_one_that_answers
    answers = chapter["supervise"](partial(tasks.megabytes, begun.folder), range(4))
    assert [(answer[0], len(answer)) for answer in answers] == [(n, 5_000_000) for n in range(4)]
    assert killed and sorted(begun().values()) == [1, 1, 1, 2]


def test_to_supervise_an_answer_that_cannot_be_sent_is_an_error(chapter, tasks, begun):
    (error,) = chapter["supervise"](partial(tasks.unsendable, begun.folder), [7])
    assert isinstance(error, Exception) and "pickle" in str(error) and begun() == {7: 1}


def test_supervise_leaves_no_process_when_it_is_interrupted(chapter, tasks):
    def interrupted(crew):
        raise KeyboardInterrupt

    chapter["wait"] = interrupted
    with pytest.raises(KeyboardInterrupt):
        chapter["supervise"](tasks.sleep, range(4))


# -- shared memory ------------------------------------------------------------------------------


def exists(name):
    try:
        block = multiprocessing.shared_memory.SharedMemory(name=name)
    except FileNotFoundError:
        return False
    block.close()
    block.unlink()  # for the tests that come after
    return True


class Interrupts(list):
    """Numbers, or notes, of which somebody who uses them gets a Ctrl-C."""

    def __array__(self, *arguments, **options):
        raise KeyboardInterrupt

    append = __array__


@pytest.fixture
def blocks(chapter, monkeypatch):
    """The names of the blocks that the chapter creates."""
    names, create = [], multiprocessing.shared_memory.SharedMemory

    def noted(*arguments, **options):
        block = create(*arguments, **options)
        names.append(block.name)
        return block

    monkeypatch.setitem(chapter, "shared_memory", SimpleNamespace(SharedMemory=noted))
    return names


def test_shared_sum(chapter, blocks):
    """Exercise 8.2."""
    total = chapter["shared_sum"]([1, 2, 3.5])
    assert total == 6.5 and type(total) is float
    assert not exists(*blocks)


@pytest.mark.parametrize(
    "numbers, error",
    [([1, "two"], ValueError), ([1, [2, 3]], ValueError), (Interrupts("ab"), KeyboardInterrupt)],
)
def test_shared_sum_leaves_no_block_when_something_is_raised(chapter, blocks, numbers, error):
    with pytest.raises(error):
        chapter["shared_sum"](numbers)
    assert not exists(*blocks)


def test_shared_sum_leaves_no_block_when_it_is_interrupted_early(chapter, blocks):
    chapter["names"] = Interrupts()
    with suppress(KeyboardInterrupt):
        chapter["shared_sum"]([1, 2, 3.5])
    assert not exists(*blocks)


@pytest.mark.parametrize("name, nth", [("start", 1), ("start", 2), ("join", 1), ("join", 2)])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_the_painters_leave_no_block_when_something_is_raised(
    chapter, monkeypatch, name, nth, error
):
    real, calls = getattr(multiprocessing.Process, name), []

    def fails(painter):
        calls.append(painter)
        if len(calls) == nth:
            raise error("in the middle")
        real(painter)

    monkeypatch.setattr(multiprocessing.Process, name, fails)
    with pytest.raises(error, match="in the middle"):
        exec(source("paint"), chapter)
    assert not exists(chapter["block"].name)


def test_the_picture_is_what_was_painted_until_a_painter_was_killed(chapter, tmp_path):
    canvas = importlib.import_module("canvas")  # under fork it has the real rows otherwise
    (tmp_path / "fractal.py").write_text(
        "import psutil\n\ndef row(y):\n    return [y] if y != 81 else psutil.Process().kill()\n"
    )
    sys.modules.pop("fractal")
    canvas.fractal = importlib.import_module("fractal")
    exec(source("paint"), chapter)
    exit_codes = [painter.exitcode for painter in chapter["painters"]]
    assert exit_codes[0] == 0 and exit_codes[1] not in (0, 1)
    expected = [0 if y % 2 and y >= 81 else y for y in range(160)]
    assert chapter["painted"].tolist() == [[shade] * 240 for shade in expected]
    assert not exists(chapter["block"].name)


def test_a_block_is_not_left_when_a_painter_is_killed_from_outside(chapter):
    canvas = importlib.import_module("canvas")
    block = multiprocessing.shared_memory.SharedMemory(create=True, size=160 * 240)
    try:
        endless = list(range(160)) * 1000
        painter = multiprocessing.Process(target=canvas.paint, args=(block.name, endless))
        painter.start()
        while not block.buf[5 * 240]:  # five rows are finished
            assert painter.is_alive()
            time.sleep(0.01)
        painter.kill()
        painter.join()
        pixels = np.frombuffer(block.buf, np.uint8, 160 * 240).reshape(160, 240)
        assert pixels[:5].all()
        del pixels
    finally:
        block.close()
        block.unlink()
    assert painter.exitcode not in (0, 1) and not exists(block.name)


# -- the modules --------------------------------------------------------------------------------


def test_the_modules_are_those_that_the_text_writes():
    written = [cell for cell in CELLS.values() if cell.source.startswith("%%writefile")]
    assert len(MODULES) == len(written) >= 8


@pytest.mark.parametrize("name", MODULES)
def test_ruff_finds_nothing_in_the_modules(name, tmp_path):
    """It passes over cells with %%writefile; the rules are those for notebooks."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text("utf-8"), "utf-8")
    (tmp_path / f"notebooks/{name}.py").write_text(MODULES[name], encoding="utf-8")
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "notebooks"]
    result = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "NO_COLOR": "1"}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_ctrl_c_cannot_stop_a_worker_that_holds_the_lock_of_the_queue(chapter):
    """Its pool would never do a task again."""
    import primes

    with multiprocessing.Pool(1, primes.watch, [primes.NoFlag()]) as pool:
        assert pool.apply(signal.getsignal, [signal.SIGINT]) == signal.SIG_IGN
