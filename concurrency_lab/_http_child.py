"""The process behind `LocalServer`: an HTTP/1.1 server on asyncio.

Run as a script with the standard library only. Reads one line of JSON from stdin, writes
"ready <port>" to stdout, then serves until stdin ends or its parent is gone.
"""

import asyncio
import contextlib
import json
import os
import sys
import threading
import time
from collections import Counter
from urllib.parse import parse_qs, quote, unquote

PREFIX = "/-/statistics"
LARGEST = 256 * 2**20
REASONS = {
    200: "OK",
    302: "Found",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    429: "Too Many Requests",
}


class Server:
    def __init__(self, latency, pages, redirects, latencies, at_most):
        self.latency = latency
        self.pages = pages
        self.redirects = redirects
        self.latencies = latencies
        self.at_most = at_most
        self.in_progress = 0
        self.forget()

    def forget(self):
        self.requests = self.refused = 0
        self.requested = Counter()
        self.most_at_once = self.in_progress

    async def connection(self, reader, writer):
        try:
            while await self.exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the client has gone, or speaks something else
        finally:
            writer.close()

    async def exchange(self, reader, writer):
        """Answer one request; return whether the connection stays open."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request, *headers = head.split("\r\n")
        method, _, rest = request.partition(" ")
        target, _, version = rest.partition(" ")
        closing = version != "HTTP/1.1" or any(
            line.lower().replace(" ", "") == "connection:close" for line in headers
        )
        if target == PREFIX:
            if method == "DELETE":
                self.forget()
            status, more, body = 200, "", json.dumps(self.statistics()).encode()
        else:
            status, more, body = await self.counted(method, target)
        head = (
            f"HTTP/1.1 {status} {REASONS[status]}\r\n"
            "Content-Type: text/html; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\n{more}"
            f"Connection: {'close' if closing else 'keep-alive'}\r\n\r\n".encode()
        )
        writer.write(head if method == "HEAD" else head + body)
        if closing:
            # At once: the side that ends first keeps its port waiting, and a busy client has few.
            with contextlib.suppress(OSError):  # the client has gone
                writer.write_eof()
        await writer.drain()
        return not closing

    async def counted(self, method, target):
        """Return status, more header lines and body, with the statistics kept."""
        path, _, query = target.partition("?")
        path = unquote(path)
        self.requests += 1
        self.requested[path] += 1
        if self.at_most is not None and self.in_progress >= self.at_most:
            self.refused += 1
            return 429, "Retry-After: 1\r\n", b"too many requests at once\n"
        self.in_progress += 1
        self.most_at_once = max(self.most_at_once, self.in_progress)
        try:
            return await self.answer(method, path, query)
        finally:
            # Before the answer is written: a client that has its answer is not counted any more.
            self.in_progress -= 1

    async def answer(self, method, path, query):
        if method not in ("GET", "HEAD"):
            return 405, "", b"only GET and HEAD\n"
        options = {key: values[-1] for key, values in parse_qs(query).items()}
        try:
            latency = float(options.get("latency", self.latencies.get(path, self.latency)))
            size = int(options["size"]) if "size" in options else None
            if not 0 <= latency <= 3600 or not 0 <= (size or 0) <= LARGEST:
                raise ValueError
        except ValueError:
            return 400, "", b"latency is in seconds, size in bytes\n"
        await asyncio.sleep(latency)
        if path in self.redirects:
            location = quote(self.redirects[path], safe="/?&=%:;,@+!$'()*~#")
            return 302, f"Location: {location}\r\n", b"it is elsewhere\n"
        if self.pages is not None and path not in self.pages:
            return 404, "", b"no such page\n"
        if size is not None:
            return 200, "", b"x" * size
        if self.pages is not None:
            return 200, "", self.pages[path].encode()
        return 200, "", f"<!doctype html><title>{path}</title>\n".encode("utf-8", "replace")

    def statistics(self):
        names = ("requests", "requested", "refused", "most_at_once")
        return {name: getattr(self, name) for name in names}


def leave_with_parent(parent):
    """End this process when stdin ends, or when the parent changes.

    A process that the parent forked keeps stdin open, so its end alone is not enough.
    """

    def at_end():
        while sys.stdin.buffer.read(1):
            pass
        os._exit(0)

    threading.Thread(target=at_end, daemon=True).start()
    return None if os.name == "nt" else parent


async def main():
    # Windows' monotonic clock ticks every 16 ms before Python 3.13, longer than many latencies,
    # and a loop's timers may end a tick early.
    loop = asyncio.get_running_loop()
    loop.time = time.perf_counter
    loop._clock_resolution = time.get_clock_info("perf_counter").resolution
    config = json.loads(sys.stdin.buffer.readline())
    parent = leave_with_parent(config["parent"])
    server = Server(**config["server"])
    listening = await asyncio.start_server(server.connection, "127.0.0.1", 0, backlog=4096)
    port = listening.sockets[0].getsockname()[1]
    sys.stdout.write(f"ready {port}\n")
    sys.stdout.flush()
    # Nobody reads these from now on; a full pipe would stop the server.
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    while parent is None or os.getppid() == parent:
        await asyncio.sleep(0.5)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())
