"""nbval, with the course's settings, on notebooks whose names say how it must end."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from website.notebooks import is_normal

ROOT = Path(__file__).resolve().parents[2]
PLANTED = sorted((Path(__file__).parent / "planted").glob("*.ipynb"))
HANGING = [path for path in PLANTED if path.stem.startswith("hanging")]


def printed_by_nbval(paths: list[Path], folder: Path, cell_seconds: float) -> str:
    """What nbval prints about copies of notebooks, under the settings of notebooks/conftest.py."""
    folder.mkdir()
    shutil.copy(ROOT / "notebooks/conftest.py", folder)
    for path in paths:
        shutil.copy(path, folder)
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "--nbval", "-rA", "-q",
         "-p", "no:cacheprovider", f"--nbval-cell-timeout={cell_seconds}", str(folder)],
        cwd=ROOT, env={**os.environ, "NO_COLOR": "1"}, encoding="utf-8", timeout=240,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return result.stdout


def outcomes_of(paths: list[Path], folder: Path, cell_seconds: float) -> dict[str, set[str]]:
    """The outcomes of each notebook's cells."""
    printed = printed_by_nbval(paths, folder, cell_seconds)
    found: dict[str, set[str]] = {path.stem: set() for path in paths}
    for outcome, name in re.findall(r"^([A-Z]+) \S*?([\w-]+)\.ipynb::", printed, re.MULTILINE):
        found[name].add(outcome)
    assert all(found.values()), printed
    return found


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    quick = [path for path in PLANTED if path not in HANGING]
    found = outcomes_of(quick, folder / "quick", cell_seconds=120)
    return found | outcomes_of(HANGING, folder / "hanging", cell_seconds=2)


@pytest.mark.parametrize("name", [path.stem for path in PLANTED])
def test_outcome_is_the_one_in_the_name(outcomes, name):
    wanted = name.rsplit("-", 1)[1]
    assert wanted in ("passes", "fails")
    assert outcomes[name] <= {"PASSED", "FAILED"}
    assert ("FAILED" in outcomes[name]) == (wanted == "fails")


def test_both_outcomes_are_planted():
    endings = [path.stem.rsplit("-", 1)[1] for path in PLANTED]
    assert endings.count("passes") >= 5 and endings.count("fails") >= 10


@pytest.mark.parametrize("path", PLANTED, ids=lambda path: path.stem)
def test_planted_notebooks_are_in_normal_form(path):
    assert is_normal(path)


@pytest.mark.skipif(
    not Path("/dev/shm").is_dir(), reason="this system does not list its shared memory"
)
def test_a_notebook_starts_processes_by_spawn_and_leaves_no_lock_behind(tmp_path):
    notebook = nbformat.v4.new_notebook()
    code = """
import multiprocessing
from multiprocessing.shared_memory import SharedMemory
lock, block = multiprocessing.Lock(), SharedMemory(create=True, size=1)
print(multiprocessing.get_start_method(), lock._semlock.name, block.name)"""
    notebook.cells = [nbformat.v4.new_code_cell(code)]
    path = tmp_path / "locks.ipynb"
    nbformat.write(notebook, path)
    printed = printed_by_nbval([path], tmp_path / "one", cell_seconds=120)
    method, *names = re.search(r"^(\w+) /(mp-\w+) (\w+)$", printed, re.MULTILINE).groups()
    assert method == "spawn"
    end = time.monotonic() + 10  # the resource tracker ends after the kernel
    while left := [file for file in os.listdir("/dev/shm") if file.endswith(tuple(names))]:
        assert time.monotonic() < end, left
        time.sleep(0.05)


def test_a_failure_names_the_cell_and_the_difference(tmp_path):
    path = Path(__file__).parent / "planted/false-claim-fails.ipynb"
    printed = printed_by_nbval([path], tmp_path / "one", cell_seconds=120)
    assert "id: claim" in printed
    assert "[fails] Three is more than two.\n  expected: at least 2\n  measured: 1\n" in printed
