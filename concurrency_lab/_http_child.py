"""The process behind `LocalServer`: an HTTP/1.1 server on asyncio.

Run as a script with the standard library only. Reads one line of JSON from stdin, writes
"ready <port>" to stdout, then serves until stdin ends or its parent is gone.
"""

import asyncio
import json
import os
import sys
import threading
from urllib.parse import parse_qs, unquote, urlsplit

PREFIX = "/-/statistics"
LARGEST = 256 * 2**20
REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}


class Server:
    def __init__(self, latency, pages):
        self.latency = latency
        self.pages = pages
        self.requests = 0
        self.in_progress = 0
        self.most_at_once = 0

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
            status, body = 200, json.dumps(self.statistics()).encode()
        else:
            self.requests += 1
            self.in_progress += 1
            self.most_at_once = max(self.most_at_once, self.in_progress)
            try:
                status, body = await self.answer(method, target)
            finally:
                self.in_progress -= 1
        writer.write(
            f"HTTP/1.1 {status} {REASONS[status]}\r\n"
            "Content-Type: text/html; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\n"
            f"Connection: {'close' if closing else 'keep-alive'}\r\n\r\n".encode()
        )
        if method != "HEAD":
            writer.write(body)
        await writer.drain()
        return not closing

    async def answer(self, method, target):
        if method not in ("GET", "HEAD"):
            return 405, b"only GET and HEAD\n"
        parts = urlsplit(target)
        options = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        try:
            latency = float(options.get("latency", self.latency))
            size = int(options["size"]) if "size" in options else None
            if not 0 <= latency <= 3600 or not 0 <= (size or 0) <= LARGEST:
                raise ValueError
        except ValueError:
            return 400, b"latency is in seconds, size in bytes\n"
        await asyncio.sleep(latency)
        path = unquote(parts.path)
        if self.pages is not None and path not in self.pages:
            return 404, b"no such page\n"
        if size is not None:
            return 200, b"x" * size
        if self.pages is not None:
            return 200, self.pages[path].encode()
        return 200, f"<!doctype html><title>{path}</title>\n".encode("utf-8", "replace")

    def statistics(self):
        return {"requests": self.requests, "most_at_once": self.most_at_once}


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
    config = json.loads(sys.stdin.buffer.readline())
    parent = leave_with_parent(config["parent"])
    server = Server(config["latency"], config["pages"])
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
