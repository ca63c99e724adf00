"""Executing notebooks: once, again when it matters, with clear failures and nothing left behind."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from concurrency_lab.claims import MIME_TYPE
from website import Problem, execute
from website.notebooks import CACHE, executed, read, record

ROOT = Path(__file__).resolve().parents[2]


def write(folder: Path, *sources: str, name: str = "01-trial.ipynb", **course) -> Path:
    """A notebook file with code cells cell-1, cell-2, …"""
    cells = [nbformat.v4.new_code_cell(text, id=f"cell-{n}") for n, text in enumerate(sources, 1)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["course"] = course
    path = folder / "notebooks/en" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def failure(path: Path, limit: float = 60.0) -> str:
    execution = execute.Execution(path)
    execution.limit = limit
    with pytest.raises(Problem) as caught:
        execution.run()
    return str(caught.value)


# -- one notebook


def test_outputs_and_environment(tmp_path):
    path = write(
        tmp_path,
        "import os, sys; print(os.environ['CONCURRENCY_LAB_PROGRESS'], sys.executable)",
        "import tempfile; print(tempfile.mkdtemp())",
    )
    execution = execute.Execution(path)
    assert execution.run() > 0
    first, second = (cell.outputs[0].text.strip() for cell in execution.notebook.cells)
    assert first == f"0 {sys.executable}"
    assert not Path(second).exists()


def test_a_failing_cell_is_named_with_its_source_and_error(tmp_path):
    path = write(tmp_path, "x = 1", "y = 2\nprint(x + z)")
    message = failure(path)
    assert "notebooks/en/01-trial.ipynb, cell 2 (id cell-2):" in message
    assert "    print(x + z)" in message
    assert "NameError: name 'z' is not defined" in message
    assert "x = 1" not in message
    assert "\x1b" not in message


def test_an_expected_exception_is_no_failure(tmp_path):
    path = write(tmp_path, "1 / 0", "print('on')")
    notebook = read(path)
    notebook.cells[0].metadata["tags"] = ["raises-exception"]
    nbformat.write(notebook, path)
    execution = execute.Execution(path)
    execution.run()
    assert execution.notebook.cells[0].outputs[0].ename == "ZeroDivisionError"
    assert execution.notebook.cells[1].outputs[0].text == "on\n"


def test_a_hanging_cell_is_named_with_the_limit(tmp_path):
    path = write(tmp_path, "x = 1", "import time\nwhile True:\n    time.sleep(0.1)")
    message = failure(path, limit=4.0)
    assert "cell 2 (id cell-2):" in message
    assert "this cell hung: it still ran when the notebook's limit of 4 s was over" in message
    assert "course.running_seconds" in message


def test_the_limit_follows_the_stated_running_time(tmp_path):
    assert execute.Execution(write(tmp_path, "1")).limit == execute.DEFAULT_LIMIT
    assert execute.Execution(write(tmp_path, "1", running_seconds=5)).limit == 120
    assert execute.Execution(write(tmp_path, "1", running_seconds=80)).limit == 400


def test_a_cell_that_takes_the_kernel_along_is_named(tmp_path):
    path = write(
        tmp_path, "import os, sys\nsys.stderr.write('last words'); sys.stderr.flush()\nos._exit(3)"
    )
    message = failure(path)
    assert "cell 1 (id cell-1):" in message
    assert "this cell took the kernel along" in message and "run_isolated" in message


# -- nothing left behind

DETACHED = """
import subprocess, sys, tempfile
child = subprocess.Popen(
    [sys.executable, "-c", "import time; time.sleep(600)", "course-test-{token}"],
    start_new_session=True,
)
folder = tempfile.mkdtemp()
"""


def processes_of(token: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if f"course-test-{token}" in process.cmdline():
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize("end", ["", "raise ValueError", "import os; os._exit(1)", "while True: 0"])
def test_no_process_or_folder_is_left(tmp_path, monkeypatch, end):
    token = f"{os.getpid()}-{time.monotonic_ns()}"
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(execute.tempfile, "tempdir", str(temporary))
    execution = execute.Execution(write(tmp_path, DETACHED.format(token=token), end))
    execution.limit = 6.0
    if end:
        with pytest.raises(Problem):
            execution.run()
    else:
        execution.run()
    assert processes_of(token) == []
    assert list(temporary.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows sends Ctrl-C to whole consoles only")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupting_kills_the_kernel_and_its_children(tmp_path, number):
    token = f"{os.getpid()}-{time.monotonic_ns()}"
    write(tmp_path, DETACHED.format(token=token), "import time; time.sleep(600)")
    build = subprocess.Popen(
        [sys.executable, "-m", "website.execute", "--root", str(tmp_path)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not processes_of(token):
            assert build.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        kernels = psutil.Process(build.pid).children(recursive=True)
        assert kernels
        build.send_signal(number)
        output, _ = build.communicate(timeout=60)
    finally:
        build.kill()
    assert build.returncode == 128 + number
    assert "01-trial  executing …  interrupted" in output
    assert processes_of(token) == []
    assert psutil.wait_procs(kernels, timeout=10)[1] == []


# -- what is executed again


@pytest.fixture
def executions(monkeypatch):
    """Names of the notebooks that `update` executes; executing them does nothing else."""
    names = []

    def pretend(path):
        names.append(path.stem)
        return read(path), 0.1

    monkeypatch.setattr(execute, "execute", pretend)
    return names


def test_a_notebook_is_executed_once(tmp_path, executions, capsys):
    write(tmp_path, "1")
    write(tmp_path, "2", name="02-other.ipynb")
    execute.update(tmp_path)
    execute.update(tmp_path)
    assert executions == ["01-trial", "02-other"]
    assert capsys.readouterr().out == "01-trial  unchanged\n02-other  unchanged\n"


def test_a_notebook_is_executed_again_if_its_code_changed(tmp_path, executions):
    write(tmp_path, "1")
    write(tmp_path, "2", name="02-other.ipynb")
    execute.update(tmp_path)
    write(tmp_path, "3", name="02-other.ipynb")
    execute.update(tmp_path)
    assert executions == ["01-trial", "02-other", "02-other"]


def test_text_alone_executes_nothing(tmp_path, executions):
    path = write(tmp_path, "1")
    execute.update(tmp_path)
    notebook = read(path)
    notebook.cells.append(nbformat.v4.new_markdown_cell("More.", id="more"))
    nbformat.write(notebook, path)
    execute.update(tmp_path)
    assert executions == ["01-trial"]


def test_another_python_executes_again(tmp_path, executions, monkeypatch):
    write(tmp_path, "1")
    execute.update(tmp_path)
    monkeypatch.setattr(sys, "version", "3.99.0")
    execute.update(tmp_path)
    execute.update(tmp_path)
    assert executions == ["01-trial", "01-trial"]


def test_a_lost_output_file_executes_again(tmp_path, executions):
    write(tmp_path, "1")
    execute.update(tmp_path)
    for file in (tmp_path / CACHE).rglob("base.ipynb"):
        file.unlink()
    execute.update(tmp_path)
    assert executions == ["01-trial", "01-trial"]


def test_old_outputs_do_not_pile_up(tmp_path, executions):
    for source in "123":
        write(tmp_path, source)
        execute.update(tmp_path)
    assert len(list((tmp_path / CACHE / "executed").iterdir())) == 1


@pytest.fixture
def instruments(tmp_path, monkeypatch):
    """A pretended concurrency_lab: core, and three experiments of which one uses another."""
    package = tmp_path / "concurrency_lab"
    (package / "experiments").mkdir(parents=True)
    for name, text in {
        "__init__.py": "",
        "timing.py": "1",
        "experiments/__init__.py": "",
        "experiments/convoy.py": "from concurrency_lab.experiments import sockets",
        "experiments/sockets.py": "1",
        "experiments/memory.py": "1",
    }.items():
        (package / name).write_text(text)
    spec = type("Spec", (), {"origin": str(package / "__init__.py")})
    monkeypatch.setattr(execute.importlib.util, "find_spec", lambda name: spec)
    return package


@pytest.mark.parametrize(
    ("changed", "matters"),
    [
        ("timing.py", True),
        ("experiments/__init__.py", True),
        ("experiments/convoy.py", True),
        ("experiments/sockets.py", True),  # through convoy
        ("experiments/memory.py", False),
    ],
)
def test_stamp_follows_the_instruments_that_a_notebook_uses(instruments, changed, matters):
    code = "from concurrency_lab.experiments.convoy import beside_thread"
    before = execute.stamp(code)
    path = instruments / changed
    path.write_text(path.read_text() + "\n# changed\n")
    assert (execute.stamp(code) != before) is matters


# -- the Korean edition


def test_korean_outputs_are_the_english_ones_in_korean_words(built_book):
    cache = built_book / CACHE
    english, korean = (
        executed(built_book / f"notebooks/{edition}/01-squares.ipynb", cache)
        for edition in ("en", "ko")
    )
    claim = korean.cells[4].outputs[0].data
    assert claim[MIME_TYPE]["sentence"] == "정사각형 셋은 둘보다 많습니다."
    assert claim[MIME_TYPE]["expected"] == "2배 이상"
    assert claim[MIME_TYPE]["verdict"] == english.cells[4].outputs[0].data[MIME_TYPE]["verdict"]
    assert "성립" in claim["text/html"] and "holds<" not in claim["text/html"]
    assert claim["text/plain"].startswith("[성립] 정사각형 셋은")
    assert korean.cells[2].outputs == english.cells[2].outputs
    assert "holds" in english.cells[4].outputs[0].data["text/plain"]


def test_korean_notebook_is_not_executed(built_book):
    assert (built_book / "_build/executions").read_text() == "x"


def test_korean_words_follow_without_execution(small_book, built_book):
    import shutil

    shutil.copytree(built_book / "_build", small_book / "_build")
    path = small_book / "notebooks/ko/01-squares.ipynb"
    text = path.read_text("utf-8")
    path.write_text(text.replace("둘보다 많습니다", "둘을 넘습니다"), "utf-8")
    execute.update(small_book)
    notebook = executed(path, small_book / CACHE)
    assert "정사각형 셋은 둘을 넘습니다." in notebook.cells[4].outputs[0].data["text/html"]
    assert (small_book / "_build/executions").read_text() == "x"


def test_korean_notebook_out_of_step_says_what_to_do(small_book, executions):
    path = small_book / "notebooks/ko/01-squares.ipynb"
    path.write_text(path.read_text("utf-8").replace("Square()", "Circle()"), "utf-8")
    with pytest.raises(Problem, match="(?s)notebooks/ko/01-squares.*translation update"):
        execute.update(small_book)
    assert executions == []  # said before anything is executed
    execute.update(small_book, translations=())
    assert executions == ["01-squares"]


def test_korean_notebook_without_english_is_named(small_book, executions):
    (small_book / "notebooks/en/01-squares.ipynb").unlink()
    with pytest.raises(Problem, match="there is no notebooks/en/01-squares.ipynb"):
        execute.update(small_book)


def test_the_cache_knows_where_and_when(built_book):
    known = record(built_book / "notebooks/en/01-squares.ipynb", built_book / CACHE)
    assert known["python"] == ".".join(map(str, sys.version_info[:3]))
    assert re.fullmatch(r"\S+ \S+, [\d.]+ usable cores", known["machine"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", known["time"])


# -- pages


class Env:
    found_docs = {"index", "other"}

    def __init__(self, *titles):
        self.name(*titles)

    def name(self, *titles):
        from docutils import nodes

        pairs = zip(("index", "other"), titles, strict=True)
        self.titles = {name: nodes.title("", title) for name, title in pairs}


def test_a_changed_title_rewrites_every_page():
    env = Env("A", "B")
    assert execute._retitled(None, env) == []
    assert execute._retitled(None, env) == []
    env.name("A", "C")
    assert execute._retitled(None, env) == ["index", "other"]
    assert execute._retitled(None, env) == []
