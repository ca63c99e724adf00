"""Build the site: both editions, with search, in `_build/site`.

    python -m website.build [--force]

Executes what changed, builds the editions with Jupyter Book (a warning is an error), puts the site
together beside the old one and swaps them: a build that fails leaves the old site as it was. If
nothing changed since the last build, nothing is done (`--force` builds all the same).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distributions
from pathlib import Path

from concurrency_lab.claims import outcome
from website import EDITIONS, ROOT, Problem, command_line, unwind_on_terminate

# Heavy modules are imported where they are used: an unchanged book is known without them.

CONTENT = ("book", "notebooks", "website", "concurrency_lab")
SETTINGS = ("_config.yml", "_toc.yml")
PLAYER = tuple(f"concurrency_lab/explorer/player.{kind}" for kind in ("css", "js", "py"))
SKIPPED = {"__pycache__", ".ipynb_checkpoints", ".DS_Store"}

JUNK = (
    "*/.buildinfo*",
    "**/*.map",
    "pagefind/pagefind-*ui.*",
    "pagefind/pagefind-highlight.js",
)
"""What Sphinx and Pagefind write and no page of the site loads."""


class Site:
    """The folders of one book: its sources at `root`, what is made of them in `_build`."""

    def __init__(self, root: Path = ROOT):
        self.root = root.resolve()
        self.build = self.root / "_build"
        self.site = self.build / "site"
        self.new = self.build / "site.new"
        self.old = self.build / "site.old"
        self.known = self.build / "site-inputs"

    def html(self, edition: str) -> Path:
        return self.build / edition / "_build" / "html"

    # -- what changed

    def inputs(self) -> str:
        """A digest of everything that the site is made from."""
        digest = hashlib.sha256(_environment().encode())
        for path in self._files(*CONTENT, *SETTINGS):
            digest.update(path.relative_to(self.root).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()

    def machinery(self) -> str:
        """A digest of what Sphinx does not watch: our extensions, the player, the settings, which
        pages exist.

        If it changed, an edition is built from nothing; otherwise only the pages that changed.
        """
        digest = hashlib.sha256(_environment().encode())
        for path in self._files("website", *PLAYER, *SETTINGS):
            digest.update(path.relative_to(self.root).as_posix().encode() + b"\0")
            digest.update(path.read_bytes())
        for path in self._files("book", "notebooks"):
            digest.update(path.relative_to(self.root).as_posix().encode() + b"\0")
        return digest.hexdigest()

    def _files(self, *names: str) -> Iterator[Path]:
        for name in names:
            top = self.root / name
            paths = sorted(top.rglob("*")) if top.is_dir() else [top]
            for path in paths:
                if path.is_file() and not SKIPPED & set(path.parts) and path.suffix != ".mo":
                    yield path

    def is_current(self) -> bool:
        """Whether `_build/site` is what a build would make."""
        self._finish_swap()
        return (
            self.site.is_dir() and self.known.exists() and self.known.read_text() == self.inputs()
        )

    # -- building

    def settings(self, edition: str) -> tuple[Path, Path]:
        """The files that Jupyter Book reads for an edition: its config and table of contents.

        Those of a translation are made from the English ones and website/i18n/<edition>.yml, whose
        `config` is merged over `_config.yml` and whose `toc` translates captions and titles.
        """
        import yaml

        files = tuple(self.root / name for name in SETTINGS)
        if edition == EDITIONS[0]:
            return files
        config, toc = (yaml.safe_load(path.read_text("utf-8")) for path in files)
        source = self.root / f"website/i18n/{edition}.yml"
        if not source.exists():
            raise Problem(f"There is no {source.relative_to(self.root)} for this edition.")
        own = yaml.safe_load(source.read_text("utf-8")) or {}
        config = merge(config, own.get("config", {}))
        # the merged file stands elsewhere, so paths in it must not be relative to it
        extensions = config.get("sphinx", {}).get("local_extensions", {})
        for name, folder in extensions.items():
            extensions[name] = str(self.root / folder)
        toc = translate_toc(toc, edition, own.get("toc", {}), source.name)
        for name in pages(toc):
            if not any((self.root / f"{name}{suffix}").exists() for suffix in (".md", ".ipynb")):
                raise Problem(
                    f"The page {name} is missing in this edition.\n"
                    "Run python -m website.translation update, then translate it."
                )
        made = self.build / edition / "_config.yml", self.build / edition / "_toc.yml"
        for path, content in zip(made, (config, toc), strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(yaml.safe_dump(content, allow_unicode=True, sort_keys=False), "utf-8")
        return made

    def editions(self) -> None:
        """Build the editions side by side. Raises Problem with what Jupyter Book said."""
        machinery = self.machinery()
        processes: dict[str, subprocess.Popen] = {}
        try:
            for edition in EDITIONS:
                stamp = self.build / edition / "machinery"
                if not stamp.exists() or stamp.read_text() != machinery:
                    shutil.rmtree(stamp.parent, ignore_errors=True)
                stamp.unlink(missing_ok=True)  # back when the build has succeeded
                processes[edition] = self._jupyter_book(edition)
            failures = []
            for edition, process in processes.items():
                output, _ = process.communicate()
                if process.returncode:
                    failures.append(f"The {edition} edition failed:\n\n{_relevant(output)}")
                else:
                    (self.build / edition / "machinery").write_text(machinery)
        finally:
            for process in processes.values():
                if process.poll() is None:
                    process.terminate()
                    process.communicate()
        if failures:
            raise Problem("\n\n".join(failures))

    def _jupyter_book(self, edition: str) -> subprocess.Popen:
        config, toc = self.settings(edition)
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        return subprocess.Popen(
            [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", ".",
             "-W", "--keep-going", "-q", "--config", str(config), "--toc", str(toc),
             "--path-output", str(self.build / edition)],
            cwd=self.root,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                 "PYTHONUTF8": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        )  # fmt: skip

    def assemble(self) -> None:
        """Put the site together in `site.new`."""
        shutil.rmtree(self.new, ignore_errors=True)
        self.new.mkdir(parents=True)
        for edition in EDITIONS:
            shutil.copytree(self.html(edition), self.new / edition)
        shutil.copy(self.root / "website/i18n/index.html", self.new)
        (self.new / ".nojekyll").touch()

    def index(self) -> None:
        """Make the search index of both editions and remove what no page loads."""
        result = subprocess.run(
            [sys.executable, "-m", "pagefind", "--site", str(self.new), "--quiet"],
            capture_output=True, text=True, encoding="utf-8", errors="replace",
        )  # fmt: skip
        if result.returncode:
            raise Problem(f"The search index failed:\n\n{result.stdout}{result.stderr}")
        for pattern in JUNK:
            for path in list(self.new.glob(pattern)):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def swap(self, inputs: str) -> None:
        """Make `site.new` the site."""
        self.known.unlink(missing_ok=True)
        shutil.rmtree(self.old, ignore_errors=True)
        if self.site.exists():
            self.site.rename(self.old)
        self.new.rename(self.site)
        shutil.rmtree(self.old, ignore_errors=True)
        self.known.write_text(inputs)

    def _finish_swap(self) -> None:
        """Mend what a build left that was killed between the two renames."""
        if self.old.exists() and not self.site.exists():
            self.old.rename(self.site)


def merge(base: dict, over: dict) -> dict:
    """`base` with `over` laid over it, mapping by mapping; neither is changed."""
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        result[key] = merge(base[key], value) if both else value
    return result


def translate_toc(toc, edition: str, words: dict[str, str], source: str):
    """A table of contents for another edition: its pages, its captions."""
    if isinstance(toc, list):
        return [translate_toc(item, edition, words, source) for item in toc]
    if not isinstance(toc, dict):
        return toc
    result = {}
    for key, value in toc.items():
        if key in ("root", "file"):
            result[key] = value.replace(f"/{EDITIONS[0]}/", f"/{edition}/")
        elif key in ("caption", "title"):
            if value not in words:
                raise Problem(f"The {key} {value!r} of _toc.yml is not translated in {source}.")
            result[key] = words[value]
        else:
            result[key] = translate_toc(value, edition, words, source)
    return result


def pages(toc) -> Iterator[str]:
    """The pages of a table of contents, in order."""
    if isinstance(toc, list):
        for item in toc:
            yield from pages(item)
    elif isinstance(toc, dict):
        for key, value in toc.items():
            if key in ("root", "file"):
                yield value
            else:
                yield from pages(value)


def _environment() -> str:
    """Python and every installed package with its version."""
    packages = sorted({f"{d.name}=={d.version}" for d in distributions()})
    return "\n".join([sys.version, *packages])


def _relevant(output: str) -> str:
    """The warnings and errors in what Jupyter Book printed; all of it if there are none."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", output).splitlines()
    wanted = [line for line in lines if "WARNING" in line or "ERROR" in line or "Error" in line]
    return "\n".join(wanted if "WARNING" in output and "Traceback" not in output else lines)


@contextmanager
def _step(text: str) -> Iterator[None]:
    print(f"{text} … ", end="", flush=True)
    began = time.perf_counter()
    try:
        yield
    except BaseException:
        print(" failed", flush=True)
        raise
    print(f" {time.perf_counter() - began:.1f} s", flush=True)


def _summary(claims: list[dict]) -> str:
    """How many claims hold; those that do not, one a line."""
    counts = Counter(claim["verdict"] for claim in claims)
    verdicts = ("holds", "fails", "not measured", "not applicable")
    parts = [f"{counts[verdict]} {verdict}" for verdict in verdicts if counts[verdict]]
    lines = ["claims       " + (", ".join(parts) or "none")]
    for claim in claims:
        if claim["verdict"] in ("fails", "not measured"):
            lines.append(f"  {claim['verdict']}: {claim['sentence']}")
            lines.append(f"    expected {claim['expected']}; measured {outcome(claim)}")
            lines.append(f"    {claim['chapter']}, cell {claim['cell']}")
    return "\n".join(lines)


def build(root: Path = ROOT, *, force: bool = False) -> None:
    """Build the site of the book at `root`. Raises Problem and leaves the old site on failure."""
    began = time.perf_counter()
    site = Site(root)
    if not force and site.is_current():
        _finish(site, began, "unchanged")
        return
    from website import execute

    inputs = site.inputs()
    for edition in EDITIONS:
        site.settings(edition)  # what is missing there need not wait for the notebooks
    execute.update(site.root)
    with _step(f"editions {', '.join(EDITIONS)}"):
        site.editions()
    try:
        with _step("site and search index"):
            site.assemble()
            site.index()
        site.swap(inputs)
    finally:
        shutil.rmtree(site.new, ignore_errors=True)
    _finish(site, began, "built")


def _finish(site: Site, began: float, what: str) -> None:
    report = json.loads((site.site / EDITIONS[0] / "claims.json").read_text("utf-8"))
    print(_summary(report["claims"]))
    print(f"{what:<12} {time.perf_counter() - began:.1f} s  {site.site / 'index.html'}")


def main(arguments: list[str] | None = None) -> int:
    parser = command_line("website.build", __doc__)
    parser.add_argument("--force", action="store_true", help="build even if nothing changed")
    parser.add_argument("--root", type=Path, default=ROOT, help="folder of the book")
    options = parser.parse_args(arguments)
    unwind_on_terminate()
    try:
        build(options.root, force=options.force)
    except Problem as problem:
        print(f"\n{problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; the site is as it was", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
