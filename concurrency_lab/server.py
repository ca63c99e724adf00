"""A real HTTP server on this machine, in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlencode

_CHILD = Path(__file__).with_name("_http_child.py")
_START_LIMIT = 30.0  # seconds; a start takes about 0.1


class LocalServer:
    """An HTTP/1.1 server on 127.0.0.1 that answers every request after `latency` seconds.

    It runs on asyncio in its own process, so it does not compete for this process' GIL and can
    hold thousands of requests at once. It ends with the `with` block, with `close()`, or with this
    process, however that ends.

        with LocalServer(latency=0.05) as server:
            fetch(server.url_for(1))

    `pages` maps paths to HTML, for example `{"/": "<a href='/a'>a</a>", "/a": "..."}`; other paths
    then answer 404. Without it every path answers a short page. A request may override: with
    `?latency=0.2&size=1000` the answer comes after 0.2 s and has 1000 bytes.

    `redirects` maps paths to paths: such a request is answered with status 302 and the other
    path as its Location. `latencies` maps paths to seconds, for those that do not take `latency`.
    With `at_most` the server refuses what is too much: while it holds that many requests, a
    further one gets status 429 at once. A request is held until just before its answer is sent,
    so a client that waits for each answer keeps to its own limit.

    Raises ValueError for a bad latency, path or limit, RuntimeError if the server cannot start.
    """

    def __init__(
        self,
        latency: float = 0.05,
        *,
        pages: Mapping[str, str] | None = None,
        redirects: Mapping[str, str] | None = None,
        latencies: Mapping[str, float] | None = None,
        at_most: int | None = None,
    ) -> None:
        _check_latency("latency", latency)
        _check_table("pages", pages, _check_text)
        _check_table("redirects", redirects, _check_path)
        _check_table("latencies", latencies, _check_latency)
        if both := (pages or {}).keys() & (redirects or {}).keys():
            raise ValueError(f"{min(both)!r} is a page and a redirect; it can be one of them only")
        if at_most is not None and not (isinstance(at_most, int) and at_most >= 1):
            raise ValueError(f"at_most must be a whole number from 1, or None, not {at_most!r}")
        self.latency = latency
        self.pages = None if pages is None else dict(pages)
        self.redirects = dict(redirects or {})
        self.latencies = dict(latencies or {})
        self.at_most = at_most
        self._url: str | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._stop: weakref.finalize | None = None

    def start(self) -> LocalServer:
        """Start the server, unless it runs; return it."""
        if self._url is not None:
            if self._process.poll() is None:
                return self
            self.close()  # its process has died: tidy up and begin anew
        self._process = process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            **_apart(),
        )
        # From here on an interrupt must not leave the process behind.
        self._stop = weakref.finalize(self, _end, process, os.getpid())
        try:
            names = ("latency", "pages", "redirects", "latencies", "at_most")
            server = {name: getattr(self, name) for name in names}
            config = {"server": server, "parent": os.getpid()}
            with contextlib.suppress(OSError):  # it died: told below
                process.stdin.write(json.dumps(config).encode() + b"\n")
                process.stdin.flush()
            self._url = f"http://127.0.0.1:{_port(process)}"
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """End the server and wait until its process is gone. May be called again."""
        self._url = None
        if self._stop is not None:
            self._stop()

    def __enter__(self) -> LocalServer:
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The server's address, without a slash at the end: "http://127.0.0.1:50123"."""
        if self._url is None:
            use = f"`with {type(self).__name__}() as ...:`"
            raise RuntimeError(f"the server is not running: use {use}")
        return self._url

    def url_for(
        self, page: int | str, *, latency: float | None = None, size: int | None = None
    ) -> str:
        """Return the address of page number `page`, or of a path that starts with '/'."""
        path = page if isinstance(page, str) and page.startswith("/") else f"/page/{page}"
        options = {"latency": latency, "size": size}
        query = urlencode({key: value for key, value in options.items() if value is not None})
        return f"{self.url}{path}{'?' if query else ''}{query}"

    @property
    def requests(self) -> int:
        """How many requests have come so far, in all connections."""
        return self._statistics()["requests"]

    @property
    def requested(self) -> Counter[str]:
        """How many requests have come for each path so far; 0 for a path without any."""
        return Counter(self._statistics()["requested"])

    @property
    def refused(self) -> int:
        """How many requests have got status 429 so far, because of `at_most`."""
        return self._statistics()["refused"]

    @property
    def most_at_once(self) -> int:
        """The greatest number of requests that the server held at the same time so far."""
        return self._statistics()["most_at_once"]

    def forget(self) -> None:
        """Set all statistics to zero; only requests that the server holds now stay counted."""
        self._statistics(forget=True)

    def _statistics(self, *, forget: bool = False) -> dict[str, Any]:
        from http.client import HTTPConnection

        connection = HTTPConnection(self.url.removeprefix("http://"), timeout=30)
        with contextlib.closing(connection):
            method = "DELETE" if forget else "GET"
            connection.request(method, "/-/statistics", headers={"Connection": "close"})
            return json.load(connection.getresponse())

    def __repr__(self) -> str:
        return f"<LocalServer {self._url or 'not running'}, latency {self.latency:g} s>"


def _check_latency(name: str, seconds: float) -> None:
    if not (isinstance(seconds, int | float) and 0 <= seconds <= 3600):
        raise ValueError(f"{name} must be 0 to 3600 seconds, not {seconds!r}")


def _check_text(name: str, text: str) -> None:
    if not isinstance(text, str):
        raise TypeError(f"{name} must be text, not {text!r}")


def _check_path(name: str, path: str) -> None:
    _check_text(name, path)
    if not path.startswith("/"):
        raise ValueError(f"{name} must be a path, which starts with '/'; {path!r} does not")


def _check_table(name: str, table: Any, check: Callable[[str, Any], None]) -> None:
    if table is None:
        return
    if not isinstance(table, Mapping):
        raise TypeError(f"{name} maps paths, {{'/': ...}}; it is not {table!r}")
    for path, value in table.items():
        _check_path(f"each key of {name}", path)
        check(f"{name}[{path!r}]", value)


def _apart() -> dict[str, Any]:
    """Keep the child out of Ctrl-C and Jupyter's interrupt, which go to a whole process group."""
    if os.name == "nt":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    return {"start_new_session": True}


def _port(process: subprocess.Popen[bytes]) -> int:
    """Wait for the child's "ready" line and return the port in it."""
    lines: list[bytes] = []

    def read() -> None:
        with contextlib.suppress(OSError, ValueError):  # closed meanwhile
            lines.append(process.stdout.readline())

    reader = threading.Thread(target=read, daemon=True, name="LocalServer start")
    reader.start()
    reader.join(_START_LIMIT)
    line = lines[0] if lines else b""
    if line.startswith(b"ready "):
        return int(line.split()[1])
    if lines:  # a complaint: let it come to its end
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
    process.kill()
    reader.join()
    rest = b"".join(lines) + (process.stdout.read() if lines else b"")
    told = rest.decode(errors="replace").strip() or f"no answer within {_START_LIMIT:g} s"
    raise RuntimeError(f"the local HTTP server did not start: {told}")


def _end(process: subprocess.Popen[bytes], owner: int) -> None:
    if os.getpid() != owner:
        return  # a copy of the object in a forked process
    process.kill()  # it holds nothing that needs tidying
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            pipe.close()
