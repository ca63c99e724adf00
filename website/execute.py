"""Execute the English notebooks into the cache that the pages are made from.

    python -m website.execute

The notebooks measure, so they run one after another and nothing else runs meanwhile. Outputs are
kept in `_build/.jupyter_cache` (jupyter-cache), where myst-nb finds them by the notebook's code.
That key knows neither the instruments nor the Python: each record therefore carries a stamp of
both, and a record whose stamp is no longer right is executed anew.

A Korean notebook has the same code and is never executed: it is handed the English outputs, with
claims and recordings in Korean.

As a Sphinx extension this does the same before pages are read, so that `jupyter-book build .` alone
makes the same book, and reads those pages again whose outputs changed.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import json
import os
import platform
import re
import secrets
import selectors
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import ipykernel.kernelspec
import psutil
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from website import EDITIONS, ROOT, Problem, claims, command_line, unwind_on_terminate
from website.notebooks import CACHE, cache_of, code, name_of, notebooks, read, record

DEFAULT_LIMIT = 600.0
"""Seconds that a notebook may take if it does not state its running time."""

SHUTDOWN = 5.0
"""Seconds that a kernel gets to clean up before it is killed."""

_MARK = "CONCURRENCY_COURSE_KERNEL"
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


# -- what is in the cache ---------------------------------------------------------------------


def stamp(source: str) -> str:
    """A digest of everything besides its code that a notebook's outputs depend on.

    That is the Python, the packages that print and draw, and concurrency_lab; of its experiments
    only those that the source, or one of those experiments, names.
    """
    package = Path(importlib.util.find_spec("concurrency_lab").origin).parent
    experiments = {path.stem: path for path in (package / "experiments").glob("[!_]*.py")}
    files = {path for path in package.rglob("*.py") if path not in experiments.values()}
    texts = [source]
    while texts:
        words = set(re.findall(r"\w+", texts.pop()))
        for name in words & experiments.keys():
            path = experiments.pop(name)
            files.add(path)
            texts.append(path.read_text("utf-8"))
    digest = hashlib.sha256()
    for part in (sys.version, platform.system(), *map(version, ("ipython", "matplotlib", "numpy"))):
        digest.update(part.encode())
    for path in sorted(files):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _store(cache, path: Path, notebook: NotebookNode, **data) -> None:
    """Put an executed notebook into the cache, in place of what that file gave before."""
    outputs = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    data["outputs"] = _digest(outputs)
    uri = name_of(path)
    _, key = cache.create_hashed_notebook(notebook)
    for old in cache.list_cache_records():
        if old.uri == uri and old.hashkey != key:
            with suppress(KeyError):
                cache.remove_cache(old.pk)
    # jupyter-cache cannot overwrite a folder that lost its notebook
    shutil.rmtree(cache.path / "executed" / key, ignore_errors=True)
    cache.cache_notebook_bundle(
        CacheBundleIn(notebook, uri, data=data), check_validity=False, overwrite=True
    )


def _digest(value) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


# -- executing one notebook -------------------------------------------------------------------


class _ThisPython(KernelSpecManager):
    """Kernels of the Python that builds the book, whatever else is installed on this computer."""

    def get_kernel_spec(self, kernel_name):
        return self.kernel_spec_class(
            resource_dir=ipykernel.kernelspec.RESOURCES, **ipykernel.kernelspec.get_kernel_dict()
        )


class _Client(NotebookClient):
    """nbclient that leaves Ctrl-C to its caller and gives the kernel our environment."""

    def __init__(self, notebook: NotebookNode, folder: Path, environment: dict, errors, **options):
        manager = AsyncKernelManager(kernel_spec_manager=_ThisPython(), shutdown_wait_time=SHUTDOWN)
        super().__init__(notebook, km=manager, record_timing=False, **options)
        self._start = {"cwd": str(folder), "env": environment, "stderr": errors}

    @asynccontextmanager
    async def async_setup_kernel(self, **_):
        try:
            await self.async_start_new_kernel(**self._start)
            await self.async_start_new_kernel_client()
            yield
        except BaseException:
            with suppress(Exception):  # a cell may still run: let its `finally` blocks work
                await self.km.interrupt_kernel()
            raise
        finally:
            if self.km is not None:  # None if the kernel did not even start
                await self._async_cleanup_kernel()


class Execution:
    """One notebook being executed: which cell, since when, and what to say if it fails."""

    def __init__(self, path: Path, progress: Callable[[str], None] = lambda text: None):
        self.path = path
        self.notebook = read(path)
        seconds = self.notebook.metadata.get("course", {}).get("running_seconds")
        self.limit = max(120.0, 5.0 * seconds) if seconds else DEFAULT_LIMIT
        self._progress = progress
        self._index = 0
        self._traceback: list[str] = []

    def run(self) -> float:
        """Execute; the outputs are in `notebook` then. Returns the seconds it took.

        Raises Problem if a cell fails, hangs or takes the kernel along. Whatever happens, the
        kernel, every process that it started and its folder for temporary files are gone after.
        """
        began = time.perf_counter()
        with (
            tempfile.TemporaryDirectory(prefix="pc-", ignore_cleanup_errors=True) as temporary,
            tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
            _no_survivors() as mark,
        ):
            folders = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), temporary)
            environment = {**os.environ, **folders, **mark, "CONCURRENCY_LAB_PROGRESS": "0"}
            client = _Client(
                self.notebook,
                self.path.parent,
                environment,
                errors,
                timeout_func=lambda cell: max(0.01, began + self.limit - time.perf_counter()),
                on_cell_execute=self._on_cell,
                on_cell_error=self._on_error,
            )
            try:
                with asyncio.Runner(loop_factory=_selector_loop) as runner:
                    runner.run(_interruptible(client.async_execute()))
            except CellTimeoutError:
                self._fail(
                    f"this cell hung: it still ran when the notebook's limit of {self.limit:.0f} s "
                    "was over.\nThe limit is five times the notebook's metadata "
                    "course.running_seconds, at least 120 s."
                )
            except CellExecutionError as error:
                self._fail(f"{error.ename}: {error.evalue}", self._traceback)
            except DeadKernelError:
                errors.seek(0)
                self._fail(
                    "this cell took the kernel along. Code that may crash belongs in "
                    "run_isolated().",
                    errors.read().splitlines(),
                )
        return time.perf_counter() - began

    def _on_cell(self, cell, cell_index):
        self._index = cell_index
        self._progress(f"cell {cell_index + 1} of {len(self.notebook.cells)} ({cell.id})")

    def _on_error(self, cell, cell_index, execute_reply):
        self._traceback = "\n".join(execute_reply["content"].get("traceback", [])).splitlines()

    def _fail(self, message: str, details: Iterable[str] = ()):
        cell = self.notebook.cells[self._index]
        lines = [f"{name_of(self.path)}, cell {self._index + 1} (id {cell.id}):", ""]
        source = cell.source.splitlines()
        lines += [f"    {line}" for line in source[:12]]
        if len(source) > 12:
            lines.append(f"    … {len(source) - 12} more lines")
        lines += ["", message]
        details = [_ANSI.sub("", line) for line in details if "-----" not in line]
        if details:
            lines += ["", *(f"    {line}" for line in details[-15:])]
        lines += ["", "Mend the cell and build again; notebooks that succeeded are kept."]
        raise Problem("\n".join(line.rstrip() for line in lines))


def _selector_loop() -> asyncio.AbstractEventLoop:
    return asyncio.SelectorEventLoop(selectors.DefaultSelector())  # zmq needs it on Windows


async def _interruptible(work) -> None:
    """Await; nbclient takes a cancellation (Ctrl-C) for a dead kernel: say again what it was."""
    try:
        await work
    except DeadKernelError:
        if asyncio.current_task().cancelling():
            raise asyncio.CancelledError from None
        raise


@contextmanager
def _no_survivors() -> Iterator[dict[str, str]]:
    """Kill, at the end, every process that has the environment variable that this yields.

    A process group would miss workers that made a session of their own, and a walk down the tree
    those whose parent ended before them. An environment is inherited by all.
    """
    mark = {_MARK: secrets.token_hex(8)}
    try:
        yield mark
    finally:
        survivors = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.environ().get(_MARK) == mark[_MARK]:
                    process.kill()
                    survivors.append(process)
        psutil.wait_procs(survivors, timeout=SHUTDOWN)


# -- the whole book ---------------------------------------------------------------------------


def execute(path: Path) -> tuple[NotebookNode, float]:
    """Execute a notebook with a progress line: `01-threads-and-processes  executing …  42.3 s`.

    Returns it with its outputs, and the seconds it took. Raises Problem like `Execution.run`.
    """
    live = sys.stdout.isatty()
    line = f"{path.stem}  executing … "

    def show(text: str, end: str = "") -> None:
        again = f"\r\x1b[K{line}" if live else ""
        print(f"{again} {text}", end=end, flush=True)

    print(line, end="", flush=True)
    execution = Execution(path, show if live else lambda text: None)
    try:
        seconds = execution.run()
    except BaseException as error:
        show("failed" if isinstance(error, Problem) else "interrupted", end="\n")
        raise
    show(f"{seconds:.1f} s", end="\n")
    return execution.notebook, seconds


def update(
    root: Path = ROOT, cache: Path | None = None, translations: Iterable[str] = EDITIONS[1:]
) -> None:
    """Bring the cache up to date: execute what changed, hand the outputs to the translations.

    Raises Problem for a translation that is not in step, or at the first notebook that fails.
    """
    translated = [(path, edition) for edition in translations for path in notebooks(root, edition)]
    for path, _ in translated:
        _check_step(path, _source_of(path))
    store = get_cache(cache or root / CACHE)
    for path in notebooks(root, EDITIONS[0]):
        _update_one(store, path)
    for path, edition in translated:
        _hand_over(store, path, edition)


def _update_one(store, path: Path) -> None:
    wanted = stamp("\n".join(code(read(path))))
    with suppress(KeyError):
        key, _ = store.merge_match_into_notebook(read(path))
        if store.get_cache_record(key).data.get("stamp") == wanted:
            print(f"{path.stem}  unchanged", flush=True)
            return
    notebook, seconds = execute(path)
    _store(
        store,
        path,
        notebook,
        execution_seconds=seconds,
        stamp=wanted,
        python=".".join(map(str, sys.version_info[:3])),
        machine=_machine(),
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _machine() -> str:
    from concurrency_lab import machine

    return f"{platform.system()} {platform.machine()}, {machine.usable_cores():g} usable cores"


def _source_of(path: Path) -> Path:
    """The English notebook that a notebook translates."""
    return path.parents[1] / EDITIONS[0] / path.name


def _check_step(path: Path, source: Path) -> None:
    """Raise Problem unless a notebook has the cells and the code of the one it translates."""
    if not source.exists():
        raise Problem(f"{name_of(path)} translates no notebook: there is no {name_of(source)}.")
    mine, theirs = (
        [(cell.id, cell.source if cell.cell_type == "code" else "") for cell in read(file).cells]
        for file in (path, source)
    )
    if mine != theirs:
        raise Problem(
            f"{name_of(path)}: its cells or code are not those of the English notebook.\n"
            "Run python -m website.translation update"
        )


def _hand_over(store, path: Path, edition: str) -> None:
    """Give a translated notebook the outputs of the English one, localised."""
    notebook = read(path)
    key, original = store.merge_match_into_notebook(read(_source_of(path)))
    if store.create_hashed_notebook(notebook)[1] == store.create_hashed_notebook(original)[1]:
        return  # the same key, the same outputs: it has nothing to localise
    for cell, english in zip(notebook.cells, original.cells, strict=True):
        if cell.cell_type == "code":
            cell.execution_count = english.execution_count
            cell.outputs = claims.localise_outputs(english.outputs, edition, cell.metadata)
    notebook.metadata["language_info"] = original.metadata.get("language_info", {})
    data = store.get_cache_record(key).data
    outputs = _digest([cell.outputs for cell in notebook.cells if cell.cell_type == "code"])
    with suppress(KeyError):
        known = store.match_cache_notebook(notebook).data
        if (known.get("outputs"), known.get("stamp")) == (outputs, data["stamp"]):
            return
    _store(store, path, notebook, **data)


# -- Sphinx -----------------------------------------------------------------------------------


def _before_reading(app) -> None:
    from sphinx.errors import ExtensionError

    cache = cache_of(app)
    if cache is None:
        return
    try:
        update(Path(app.srcdir), cache, {app.config.language} & set(EDITIONS[1:]))
    except Problem as problem:
        raise ExtensionError(str(problem)) from None


def _outputs(app, docname: str) -> str:
    path = Path(app.env.doc2path(docname))
    cache = cache_of(app)
    known = record(path, cache) if cache and path.suffix == ".ipynb" else None
    return known.get("outputs", "") if known else ""


def _outdated(app, env, added, changed, removed) -> list[str]:
    """Pages whose outputs are not those that they were read with."""
    return [
        docname
        for docname in env.found_docs - added - changed
        if _outputs(app, docname) != env.metadata[docname].get("outputs", "")
    ]


def _remember_outputs(app, doctree) -> None:
    if outputs := _outputs(app, app.env.docname):
        app.env.metadata[app.env.docname]["outputs"] = outputs


def _retitled(app, env) -> list[str]:
    """Every page, if a title changed: each shows the titles of others."""
    titles = _digest({name: title.astext() for name, title in env.titles.items()})
    known, env.course_titles = getattr(env, "course_titles", titles), titles
    return [] if known == titles else sorted(env.found_docs)


def _offer_downloads(app, exception) -> None:
    """Put the edition's notebooks beside its pages: `notebooks/<name>.ipynb`."""
    if exception or app.builder.format != "html":
        return
    folder = Path(app.outdir, "notebooks")
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.ipynb"):
        old.unlink()
    for path in notebooks(Path(app.srcdir), app.config.language):
        shutil.copy(path, folder)


def _drop_old_pictures(app, exception) -> None:
    """Remove pictures that no page shows any more: those that cells drew in earlier executions."""
    if exception or app.builder.format != "html":
        return
    shown = {name for _, name in app.env.images.values()}
    for path in Path(app.outdir, app.builder.imagedir).glob("*"):
        if path.name not in shown:
            path.unlink()


def setup(app):
    # after myst-nb has made its settings
    app.connect("builder-inited", _before_reading, priority=900)
    app.connect("env-get-outdated", _outdated)
    app.connect("doctree-read", _remember_outputs)
    app.connect("env-updated", _retitled)
    app.connect("build-finished", _offer_downloads)
    app.connect("build-finished", _drop_old_pictures)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def main(arguments: list[str] | None = None) -> int:
    parser = command_line("website.execute", __doc__)
    parser.add_argument("--root", type=Path, default=ROOT, help="folder of the book")
    options = parser.parse_args(arguments)
    unwind_on_terminate()
    try:
        update(options.root.resolve())
    except Problem as problem:
        print(f"\n{problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
