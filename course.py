"""The course's tasks, for any machine: python course.py book | test | lab | clean | lock.

Makes the environment `.venv` from requirements.txt on first use, then works inside it. Needs only
the standard library of Python 3.11 or later.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
ENVIRONMENT = ROOT / ".venv"
PYTHON = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = ENVIRONMENT / "installed-from"
OLDEST = (3, 11)


def run(*command: str, **environment: str) -> None:
    """Run a command in the repository's folder; stop with its exit code if it fails."""
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment})
    while True:
        try:
            code = process.wait()
            break
        except KeyboardInterrupt:  # the child got Ctrl-C too and is cleaning up: wait for it
            continue
    if code:
        sys.exit(code if code > 0 else 128 - code)


def python(*arguments: str, **environment: str) -> None:
    run(str(PYTHON), *arguments, **environment)


def set_up() -> None:
    """Create or refresh `.venv` if requirements.txt, pyproject.toml or this Python changed."""
    sources = [ROOT / "requirements.txt", ROOT / "pyproject.toml"]
    text = sys.version + str(ROOT) + "".join(source.read_text("utf-8") for source in sources)
    wanted = hashlib.sha256(text.encode()).hexdigest()
    if PYTHON.exists() and STAMP.exists() and STAMP.read_text() == wanted:
        return
    print(f"environment  creating {ENVIRONMENT.name} from requirements.txt ...", flush=True)
    try:
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
    except subprocess.CalledProcessError:
        sys.exit("This Python cannot make environments. On Debian: apt install python3-venv")
    python("-m", "pip", "install", "--quiet", "--disable-pip-version-check",
           "-r", "requirements.txt")  # fmt: skip
    STAMP.write_text(wanted)


def book() -> None:
    """Execute the notebooks that changed and build both editions into _build/site."""
    set_up()
    python("-m", "website.build")


def test() -> None:
    """Lint, unit tests, nbval on every notebook, then the tests of the built site."""
    set_up()
    python("-m", "ruff", "check", ".")
    python("-m", "website.notebooks", "check")
    python("-m", "website.translation", "check")
    python("-m", "website.build")
    python("-m", "pytest", "tests")
    print("nbval  executing every English notebook and comparing its outputs", flush=True)
    python("-m", "pytest", "--nbval", "notebooks/en", CONCURRENCY_LAB_PROGRESS="0")


def lab() -> None:
    """Open JupyterLab on the notebooks."""
    set_up()
    python("-m", "jupyter", "lab", "--notebook-dir", "notebooks")


def clean() -> None:
    """Remove what was built; the environment stays."""
    shutil.rmtree(ROOT / "_build", ignore_errors=True)


def lock() -> None:
    """Pin every package of requirements.in for Python 3.11-3.14 on Linux, macOS and Windows."""
    set_up()
    python("-m", "uv", "pip", "compile", "--quiet", "--universal", "--upgrade",
           "--python-version", ".".join(map(str, OLDEST)), "--no-annotate",
           "--custom-compile-command", "python course.py lock",
           "requirements.in", "--output-file", "requirements.txt")  # fmt: skip


TASKS = {task.__name__: task for task in (book, test, lab, clean, lock)}

if __name__ == "__main__":
    if sys.version_info < OLDEST:
        sys.exit(
            f"The course needs Python {OLDEST[0]}.{OLDEST[1]} or later; this is "
            f"{sys.version.split()[0]}. Run it with a newer one, e.g. python3.13 course.py book"
        )
    if len(sys.argv) != 2 or sys.argv[1] not in TASKS:
        print("usage: python course.py TASK\n")
        for name, task in TASKS.items():
            print(f"  {name:6} {task.__doc__}")
        sys.exit(2)
    TASKS[sys.argv[1]]()
