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
BUSY = ROOT / ".venv-in-the-making"
OLDEST = (3, 11)


def call(*command: str, **environment: str) -> int:
    """Run a command in the repository's folder and return its exit code."""
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment})
    while True:
        try:
            code = process.wait()
            return code if code >= 0 else 128 - code
        except KeyboardInterrupt:  # the child got Ctrl-C too and is cleaning up: wait for it
            continue


def python(*arguments: str, **environment: str) -> None:
    """Run the environment's Python; stop with its exit code if it fails."""
    if code := call(str(PYTHON), *arguments, **environment):
        sys.exit(code)


def set_up() -> None:
    """Make or renew `.venv` if requirements.txt, pyproject.toml or this Python changed."""
    files = [(ROOT / name).read_text("utf-8") for name in ("requirements.txt", "pyproject.toml")]
    text = sys.version + str(ROOT) + "".join(files)
    wanted = hashlib.sha256(text.encode()).hexdigest()
    if PYTHON.exists() and STAMP.exists() and STAMP.read_text() == wanted:
        return
    try:
        BUSY.touch(exist_ok=False)
    except FileExistsError:
        sys.exit(
            f"Another command is making {ENVIRONMENT.name}: wait for it. "
            f"If there is none, delete the file {BUSY.name}."
        )
    try:
        print(f"environment  making {ENVIRONMENT.name}: a few minutes, about 1 GB", flush=True)
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
        python("-m", "pip", "install", "--quiet", "--disable-pip-version-check",
               "-r", "requirements.txt")  # fmt: skip
        STAMP.write_text(wanted)
    except subprocess.CalledProcessError:
        sys.exit("This Python cannot make environments. On Debian: apt install python3-venv")
    except KeyboardInterrupt:
        sys.exit("interrupted; the next command makes the environment anew")
    finally:
        BUSY.unlink(missing_ok=True)


def book() -> None:
    """Execute the notebooks that changed and build both editions into _build/site."""
    set_up()
    python("-m", "website.build")


CHECKS = {
    "lint": ("ruff", "check", "."),
    "stored notebooks": ("website.notebooks", "check"),
    "translation": ("website.translation", "check"),
    "book": ("website.build",),
    "tests": ("pytest", "tests"),
    "nbval": ("pytest", "--nbval", "notebooks/en"),
}


def test() -> None:
    """Everything CI checks: lint, translation, the book, all tests, nbval on every notebook."""
    set_up()
    failed = []
    for name, command in CHECKS.items():
        print(f"\n--- {name}", flush=True)
        code = call(str(PYTHON), "-m", *command, CONCURRENCY_LAB_PROGRESS="0")
        if code in (2, 130) and command[0] == "pytest":
            sys.exit(code)  # interrupted
        if code:
            failed.append(name)
    print("\n--- " + (f"failed: {', '.join(failed)}" if failed else "all checks passed"))
    sys.exit(1 if failed else 0)


def lab(*options: str) -> None:
    """Open JupyterLab on the notebooks; further words are its options, such as --no-browser."""
    set_up()
    python("-m", "jupyter", "lab", "--notebook-dir", "notebooks", *options)


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
    task, *options = sys.argv[1:] or [""]
    if task not in TASKS or (options and task != "lab"):
        print("usage: python course.py TASK\n")
        for name, task in TASKS.items():
            print(f"  {name:6} {task.__doc__}")
        sys.exit(2)
    TASKS[task](*options)
