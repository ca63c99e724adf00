"""The same message through five channels, there and back (chapter 1)."""

import multiprocessing
import queue
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from concurrency_lab.experiments.costs import Costs
from concurrency_lab.experiments.echo import EchoSocket
from concurrency_lab.load import LoadMeter

NAMES = ("shared object", "queue", "pipe", "socket", "file")


class SharedObject:
    """Another thread answers: it gets the very same object, and no byte is copied."""

    def __enter__(self):
        self._box = self._reply = None
        self._asked, self._answered = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._answer, name="echo")
        self._thread.start()
        return self

    def _answer(self):
        while True:
            self._asked.acquire()
            if self._box is None:
                return
            self._reply = self._box
            self._answered.release()

    def round_trip(self, message):
        self._box = message
        self._asked.release()
        self._answered.acquire()
        return self._reply

    def __exit__(self, *_exception):
        self._box = None
        self._asked.release()
        self._thread.join()


class ThreadQueue:
    """Another thread answers, over two `queue.SimpleQueue`."""

    def __enter__(self):
        self._there, self._back = queue.SimpleQueue(), queue.SimpleQueue()
        self._thread = threading.Thread(target=self._answer, name="echo")
        self._thread.start()
        return self

    def _answer(self):
        while (message := self._there.get()) is not None:
            self._back.put(message)

    def round_trip(self, message):
        self._there.put(message)
        return self._back.get()

    def __exit__(self, *_exception):
        self._there.put(None)
        self._thread.join()


class Pipe:
    """Another process answers, over `multiprocessing.Pipe`."""

    def __enter__(self):
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_answer_pipe, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        return self

    def round_trip(self, message):
        self._ours.send_bytes(message)
        return self._ours.recv_bytes()

    def __exit__(self, *_exception):
        self._ours.close()
        self._process.join()


LOOK_AGAIN = 1e-4  # seconds between two looks for a file; nobody is woken by one


class File:
    """Another process answers through files; each side looks again and again for the other's."""

    def __enter__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="channel-")
        path = Path(self._folder.name)
        self._request, self._reply = path / "request", path / "reply"
        context = multiprocessing.get_context("spawn")
        self._alive, theirs = context.Pipe()
        self._process = context.Process(target=_answer_file, args=(str(path), theirs), daemon=True)
        self._process.start()
        theirs.close()
        return self

    def round_trip(self, message):
        _put(self._request, message)
        while (answer := _take(self._reply)) is None:
            if not self._process.is_alive():
                raise ConnectionError("the process behind the file has ended; start a new File")
            time.sleep(LOOK_AGAIN)
        return answer

    def __exit__(self, *_exception):
        self._alive.close()
        self._process.join()
        self._folder.cleanup()


KINDS = (SharedObject, ThreadQueue, Pipe, EchoSocket, File)  # in the order of NAMES


def _answer_pipe(connection):
    try:
        while True:
            connection.send_bytes(connection.recv_bytes())
    except (EOFError, OSError):
        pass


def _answer_file(folder, alive):
    request, reply = Path(folder) / "request", Path(folder) / "reply"
    pause = LOOK_AGAIN
    while True:
        message = _take(request)
        if message is not None:
            _put(reply, message)
            pause = LOOK_AGAIN
        elif alive.poll():  # the parent closed its end, or has died
            return
        else:
            pause = min(pause * 1.1, 0.01)  # nobody is writing: do not disturb the others
        time.sleep(pause)


def _put(path, message):
    # Written beside and renamed, so that the reader never meets half a message.
    half = path.with_suffix(".part")
    half.write_bytes(message)
    half.replace(path)


def _take(path):
    try:
        message = path.read_bytes()
        path.unlink()
    except OSError:  # not there yet (on Windows also: just being renamed)
        return None
    return message


def same_object_arrives() -> dict[str, bool]:
    """By channel: whether the very object that was sent comes back, and not a copy of it."""
    message = bytes(1000)
    found = {}
    for name, kind in zip(NAMES, KINDS, strict=True):
        with kind() as peer:
            found[name] = peer.round_trip(message) is message
    return found


def round_trips(sizes: dict[str, int], trips: int = 20, rounds: int = 7) -> Costs:
    """Seconds for a message to go there and back, through every channel, in every size.

    `sizes` gives each size in bytes a name, for example {"64 B": 64}. A value is the mean of
    `trips` round trips; the cases take turns. The names of the costs are "pipe, 64 B" and so on.
    """
    if not sizes or min(sizes.values()) < 1:
        raise ValueError(f"sizes needs at least one size of at least 1 byte, not {sizes}")
    with ExitStack() as stack, LoadMeter() as load:
        peers = {name: stack.enter_context(kind()) for name, kind in zip(NAMES, KINDS, strict=True)}
        messages = {label: bytes(size) for label, size in sizes.items()}
        cases = {
            f"{name}, {label}": (peer, message)
            for name, peer in peers.items()
            for label, message in messages.items()
        }
        for peer, message in cases.values():
            if peer.round_trip(message) != message:
                raise RuntimeError(f"{type(peer).__name__} did not send back what it got")
        values: dict[str, list[float]] = {case: [] for case in cases}
        for turn in range(rounds):
            for case in cases if turn % 2 == 0 else reversed(cases):
                peer, message = cases[case]
                peer.round_trip(message)  # the partner is awake
                begin = time.perf_counter()
                for _ in range(trips):
                    peer.round_trip(message)
                values[case].append((time.perf_counter() - begin) / trips)
    return Costs(values, what="round trip", others=load.others)
