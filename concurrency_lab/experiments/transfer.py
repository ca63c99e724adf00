"""How long bytes take to another process, by size and by channel (chapter 8)."""

import hashlib
import math
import multiprocessing
import os
import shutil
import socket
import statistics
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from multiprocessing import connection
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from concurrency_lab.experiments.costs import in_turns
from concurrency_lab.isolation import run_isolated
from concurrency_lab.load import SlowdownMeter
from concurrency_lab.timing import Sample

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHANNELS = (
    "Pipe",
    "SimpleQueue",
    "Queue",
    "Manager.Queue",
    "shared memory",
    "file",
    "socket",
)

KIB, MIB = 1024, 1024**2
SIZES = (1, 64, 4 * KIB, 64 * KIB, MIB, 8 * MIB, 64 * MIB)

Case = tuple[str, int]
"""A channel and a size."""

METHOD = "fork" if sys.platform == "linux" else "spawn"
"""How the other process is started.

Locks that are made for fork have no name in the file system any more: nothing is left of them,
even if all processes are killed.
"""

ROUNDS = 5  # at least
STRETCH = 1.6  # so many times the budget may be used for those, before a case is given up
LEAST = 0.01  # seconds of round trips for a value, if a single one does not take longer


class TransferCosts:
    """What `transfer_costs` measured: values by channel and size, paired by round.

    `absent` says of a (channel, size) that could not be measured why, for
    `claim(..., unless=...)`; `others` is the cores that other programs used meanwhile.
    """

    def __init__(
        self,
        values: dict[Case, list[float]],
        absent: dict[Case, str] | None = None,
        others: float = 0.0,
        slowdown: float = 1.0,
    ) -> None:
        self._values, self.absent = values, absent or {}
        self.others, self._slowdown = others, slowdown
        cases = [*values, *self.absent]
        self.sizes = tuple(sorted({size for _, size in cases}))
        known = {channel for channel, _ in cases}
        self.channels = tuple(channel for channel in CHANNELS if channel in known)

    def seconds(self, channel: str, size: int) -> Sample:
        """Seconds one way: half of the time for so many bytes to go there and come back."""
        return self._sample(self._of(channel, size), "s")

    def bandwidth(self, channel: str, size: int) -> Sample:
        """Bytes a second, one way."""
        return self._sample([size / value for value in self._of(channel, size)], "bytes/s")

    def ratio(self, a: str, b: str, size: int) -> Sample | None:
        """How many times as long `a` takes as `b`, one ratio a round; None if one is absent."""
        if (a, size) in self.absent or (b, size) in self.absent:
            return None
        pairs = zip(self._of(a, size), self._of(b, size), strict=True)
        return self._sample([x / y for x, y in pairs], "times")

    def crossing(self, a: str, b: str) -> float | None:
        """The size in bytes at which both take equally long, between sizes by logarithms.

        None if the medians of their ratio do not cross 1 exactly once: one channel is faster in
        every size, or they are so close that chance decides.
        """
        ratios = {size: self.ratio(a, b, size) for size in self.sizes}
        points = [
            (math.log(size), math.log(ratio.median)) for size, ratio in ratios.items() if ratio
        ]
        found = [
            left[0] + (right[0] - left[0]) * left[1] / (left[1] - right[1])
            for left, right in zip(points, points[1:], strict=False)
            if (left[1] > 0) != (right[1] > 0)
        ]
        return math.exp(found[0]) if len(found) == 1 else None

    def _of(self, channel: str, size: int) -> list[float]:
        case = channel, size
        if case in self._values:
            return self._values[case]
        if case in self.absent:
            raise KeyError(f"{channel}, {size} bytes: {self.absent[case]}")
        raise KeyError(
            f"{channel!r} was not measured for {size!r} bytes; there are "
            f"{', '.join(self.channels)}, for {', '.join(map(str, self.sizes))}"
        )

    def _sample(self, values: list[float], unit: str) -> Sample:
        return Sample(tuple(values), unit, self.others, self._slowdown)

    def __str__(self) -> str:
        from concurrency_lab import figures

        rows = [["one way", *map(figures.size, self.sizes)]]
        for channel in self.channels:
            cells = [
                figures.duration(self.seconds(channel, size).median)
                if (channel, size) in self._values
                else "-"
                for size in self.sizes
            ]
            rows.append([channel, *cells])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            f"{row[0]:<{widths[0]}}"
            + "".join(f"  {cell:>{w}}" for cell, w in zip(row[1:], widths[1:], strict=True))
            for row in rows
        )

    __repr__ = __str__

    def plot(self, title: str | None = None) -> "Figure":
        """Time one way, and bandwidth below, by size: lines of medians, bars of 95 % intervals."""
        from concurrency_lab import figures

        figure, (above, below) = figures.new(height=7.2, rows=2, sharex=True)
        self._draw(above, self.seconds, "time one way", figures.duration)
        self._draw(below, self.bandwidth, "bandwidth, one way", figures.size)
        below.yaxis.set_major_formatter(lambda rate, _: f"{figures.size(rate)}/s")
        figures.log_axis(below, "x", "size of the message (logarithmic)", figures.size)
        figure.align_ylabels()
        if title:
            figure.suptitle(title, x=0.02, ha="left", weight="bold", fontsize=13)
        return figure

    def _draw(
        self, axes: Any, value: Callable[[str, int], Sample], label: str, words: Callable
    ) -> None:
        from concurrency_lab import figures

        ends = {}
        for number, channel in enumerate(self.channels):
            sizes = [size for size in self.sizes if (channel, size) in self._values]
            if not sizes:
                continue
            samples = [value(channel, size) for size in sizes]
            colour, marker, dashes = _look(channel)
            # Side by side, so that no bar hides another.
            xs = [size * 1.13 ** (number - (len(self.channels) - 1) / 2) for size in sizes]
            low, high = [s.low for s in samples], [s.high for s in samples]
            axes.vlines(xs, low, high, color=colour, linewidth=1.6, alpha=0.6)
            medians = [sample.median for sample in samples]
            axes.plot(
                xs, medians, color=colour, marker=marker, linestyle=dashes, linewidth=1.4,
                markersize=5.5,
            )  # fmt: skip
            ends[channel] = xs[-1], medians[-1]
        figures.log_axis(axes, "x", value=figures.size)
        figures.log_axis(axes, "y", f"{label} (logarithmic)", words)
        _label(axes, ends)


def _look(channel: str) -> tuple[str, str, Any]:
    """Colour, marker and dashes of a curve."""
    from concurrency_lab import figures

    number = CHANNELS.index(channel)
    colours = (*figures.SERIES, figures.PALETTE["ink"], figures.PALETTE["muted"])
    dashes = ("-", "--", "-.", "-", "-", "--", (0, (1.5, 1)))
    return colours[number], (*figures.MARKERS, "X", "P")[number], dashes[number]


def _label(axes: Any, ends: dict[str, tuple[float, float]]) -> None:
    """Names at the right of the curves' ends, in their order, none upon another."""
    from concurrency_lab import figures

    low, high = (math.log(limit) for limit in axes.get_ylim())
    heights = {name: (math.log(y) - low) / (high - low) for name, (_, y) in ends.items()}
    for name, height in _spread(heights, apart=0.072).items():
        colour = _look(name)[0]
        axes.annotate(
            name, ends[name], xytext=(1.08, height), textcoords="axes fraction",
            va="center", fontsize=11, color=colour, annotation_clip=False,
            bbox={"facecolor": figures.PALETTE["paper"], "edgecolor": "none", "pad": 0.5},
            arrowprops={
                "arrowstyle": "-", "color": colour, "linewidth": 0.8, "relpos": (0, 0.5),
                "shrinkA": 1, "shrinkB": 5,
            },
        )  # fmt: skip


def _spread(heights: dict[str, float], apart: float) -> dict[str, float]:
    """Heights moved as little as it takes for neighbours to be `apart`, in the same order."""
    groups: list[list[str]] = []
    middles: list[float] = []
    for name in sorted(heights, key=heights.__getitem__):
        groups.append([name])
        middles.append(heights[name])
        # Groups that touch become one, around the mean of where its members want to be.
        while len(groups) > 1 and middles[-1] - middles[-2] < apart * (
            (len(groups[-1]) + len(groups[-2])) / 2
        ):
            last = groups.pop()
            middles.pop()
            groups[-1] += last
            middles[-1] = statistics.mean(heights[member] for member in groups[-1])
    return {
        name: middle + apart * (place - (len(group) - 1) / 2)
        for group, middle in zip(groups, middles, strict=True)
        for place, name in enumerate(group)
    }


def transfer_costs(sizes: Sequence[int] = SIZES, budget: float = 22.0) -> TransferCosts:
    """Seconds for bytes objects of each size to get to another process, by every channel.

    An echo sends back what it gets; a value is half of a round trip, the median of several if the
    message is small. "Pipe" is `send` and `recv`, which pickle like the queues do. "shared memory"
    copies into a segment that is there already and out of it again, "file" writes a new file in
    the temporary folder, both tell by a pipe that it is there. "socket" is TCP over loopback. The
    receiver always has a bytes object of its own in the end; its digest is checked once for each
    channel and size.

    The cases take turns, at least five rounds; after that none is begun that would exceed `budget`
    seconds. What would make five rounds take much longer than that is left out, the slowest
    first, and stands in `absent`.

    Everything happens in child interpreters. Raises RuntimeError, with what they wrote, if they
    do not finish.
    """
    sizes = sorted(sizes)
    if not sizes or any(not isinstance(size, int) or size < 1 for size in sizes):
        raise ValueError(f"sizes needs whole numbers of bytes, at least 1 each, not {sizes}")
    if len(set(sizes)) < len(sizes):
        raise ValueError(f"every size can be given once only, not {sizes}")
    if not (budget > 0 and math.isfinite(budget)):
        raise ValueError(f"budget must be a positive number of seconds, not {budget!r}")
    name = f"transfer-{uuid.uuid4().hex[:12]}"  # macOS allows 30 characters
    try:
        outcome = run_isolated(_measure, sizes, budget, name, timeout=2 * budget + 60)
    finally:
        _remove(name)
    if outcome.exit_code != 0:
        raise RuntimeError(f"the measurement did not finish:\n{outcome}")
    return outcome.result


def _remove(name: str) -> None:
    """Unlink a segment whose creator was killed in the moment before it could do so."""
    with suppress(OSError, ValueError):  # as a rule it is gone
        segment = SharedMemory(name)
        segment.close()
        segment.unlink()


# In a child interpreter


class End(NamedTuple):
    """One of the two ends of a channel."""

    send: Callable[[bytes], None]
    receive: Callable[[], bytes]


class Segment:
    """An end of "shared memory": what arrives by the pipe is the length of what lies there."""

    def __init__(self, segment: SharedMemory, token: Any) -> None:
        self.segment, self.token = segment, token

    def send(self, message: bytes) -> None:
        self.segment.buf[: len(message)] = message
        self.token.send(len(message))

    def receive(self) -> bytes:
        length = self.token.recv()
        return bytes(self.segment.buf[:length])


class File:
    """An end of "file": what arrives by the pipe says that the file is complete."""

    def __init__(self, outgoing: Path, incoming: Path, token: Any) -> None:
        self.outgoing, self.incoming, self.token = outgoing, incoming, token

    def send(self, message: bytes) -> None:
        self.outgoing.write_bytes(message)
        self.token.send(True)

    def receive(self) -> bytes:
        self.token.recv()
        message = self.incoming.read_bytes()
        self.incoming.unlink()  # before the system begins to write it to the disk
        return message


class Stream:
    """An end of "socket": 8 bytes with the length, then the message."""

    def __init__(self, link: socket.socket) -> None:
        self.link = link

    def send(self, message: bytes) -> None:
        self.link.sendall(len(message).to_bytes(8, "big"))
        self.link.sendall(message)

    def receive(self) -> bytes:
        return bytes(self._read(int.from_bytes(self._read(8), "big")))

    def _read(self, length: int) -> bytearray:
        buffer = bytearray(length)
        rest = memoryview(buffer)
        while rest:
            count = self.link.recv_into(rest)
            if count == 0:
                raise EOFError("the other end was closed")
            rest = rest[count:]
        return buffer


def _echo(control: Any, ends: dict[str, End]) -> None:
    """The other process: told how many messages will come by which channel, send them back."""
    control.send("ready")
    with suppress(EOFError):
        while True:
            channel, trips, check = control.recv()
            send, receive = ends[channel]
            if check:
                message = receive()
                send(message)
                control.send((type(message) is bytes, _digest(message)))
                del message
            else:
                for _ in range(trips):
                    send(receive())


def _digest(message: bytes) -> bytes:
    return hashlib.blake2b(message).digest()


class Echo:
    """The channels, with another process at their other ends; use as a context manager."""

    def __init__(self, room: int, name: str) -> None:
        self._room, self._name = room, name

    def __enter__(self) -> "Echo":
        with ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def _start(self, stack: ExitStack) -> None:
        context = multiprocessing.get_context(METHOD)
        segment = SharedMemory(self._name, create=True, size=self._room)
        stack.callback(segment.close)
        linked = stack.enter_context(ExitStack())
        linked.callback(segment.unlink)
        near, far = _both_ends(context, stack, segment)
        self._near = near
        self._control, theirs = context.Pipe()
        # Kept open here, so that it is always the watcher who tells that the echo has died.
        self._far = far, theirs
        process = context.Process(target=_echo, args=(theirs, far), name="echo", daemon=True)
        process.start()
        over = threading.Event()
        watcher = threading.Thread(target=_watch, args=(process, over), daemon=True)
        stack.callback(watcher.join)
        stack.callback(process.join)
        stack.callback(process.kill)
        stack.callback(over.set)
        watcher.start()
        self._control.recv()
        linked.close()  # both have it; from now on it goes when they go, also if they are killed

    def check(self, channel: str, message: bytes, digest: bytes) -> float:
        """Send a message there and back and compare at both ends; return seconds one way."""
        begun = time.perf_counter()
        self._control.send((channel, 1, True))
        send, receive = self._near[channel]
        send(message)
        answer = receive()
        seconds = time.perf_counter() - begun
        if self._control.recv() != (True, digest) or answer != message:
            raise RuntimeError(f"{channel} changed a message of {len(message):,} bytes")
        return seconds / 2

    def measure(self, channel: str, message: bytes, trips: int) -> float:
        """Seconds one way: half of the median of so many round trips."""
        self._control.send((channel, trips, False))
        send, receive = self._near[channel]
        seconds = []
        for _ in range(trips):
            begun = time.perf_counter()
            send(message)
            answer = receive()
            seconds.append(time.perf_counter() - begun)
            del answer
        return statistics.median(seconds) / 2


def _both_ends(
    context: Any, stack: ExitStack, segment: SharedMemory
) -> tuple[dict[str, End], dict[str, End]]:
    """This process's ends of all channels, and those for the other process."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="transfer-")))
    manager = stack.enter_context(context.Manager())
    queues = [context.Queue(), context.Queue()]
    for queue in queues:
        queue.cancel_join_thread()  # at the end nobody is interested in what is still in it
    files = folder / "there", folder / "back"
    pipes, tokens, files_tokens = context.Pipe(), context.Pipe(), context.Pipe()
    ends = {
        "Pipe": [End(pipe.send, pipe.recv) for pipe in pipes],
        "SimpleQueue": _by_queues(context.SimpleQueue(), context.SimpleQueue()),
        "Queue": _by_queues(*queues),
        "Manager.Queue": _by_queues(manager.Queue(), manager.Queue()),
        "shared memory": [_end(Segment(segment, token)) for token in tokens],
        "file": [
            _end(File(*paths, token))
            for paths, token in zip((files, files[::-1]), files_tokens, strict=True)
        ],
        "socket": [_end(Stream(link)) for link in _connected(stack)],
    }
    near, far = ({name: both[side] for name, both in ends.items()} for side in (0, 1))
    return near, far


def _by_queues(there: Any, back: Any) -> list[End]:
    return [End(there.put, back.get), End(back.put, there.get)]


def _end(channel: Any) -> End:
    return End(channel.send, channel.receive)


def _connected(stack: ExitStack) -> list[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = stack.enter_context(socket.create_connection(listener.getsockname(), timeout=20))
        other = stack.enter_context(listener.accept()[0])
    for link in (one, other):
        link.settimeout(None)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return [one, other]


def _watch(process: Any, over: threading.Event) -> None:
    """End this process when the echo has died: most channels would wait for it for ever."""
    connection.wait([process.sentinel])
    if not over.is_set():
        print("the echo process has died", file=sys.stderr, flush=True)
        os._exit(1)


def _measure(sizes: list[int], budget: float, name: str) -> TransferCosts:
    begun = time.perf_counter()
    absent = _too_large(sizes)
    room = max((size for size in sizes if ("shared memory", size) not in absent), default=1)
    with Echo(room, name) as echo:
        messages = {size: os.urandom(size) for size in sizes}
        seconds = {}
        for size, message in messages.items():  # channels of the same size follow each other
            digest = _digest(message)
            for channel in CHANNELS:
                if (channel, size) in absent:
                    continue
                first = echo.check(channel, message, digest)
                seconds[channel, size] = first
                if first < budget / 400:  # the first is always slow; look again, if that is cheap
                    again = echo.measure(channel, message, 5 if 2 * first < LEAST else 1)
                    seconds[channel, size] = min(first, again)
        left = max(budget - (time.perf_counter() - begun), budget / 2)
        least = min(LEAST, left / (2 * ROUNDS * len(seconds)))
        trips = {case: _trips(one_way, least) for case, one_way in seconds.items()}
        spent = {case: 2 * seconds[case] * trips[case] for case in seconds}
        absent |= _too_slow(spent, left + (STRETCH - 1) * budget)
        cases = {
            (channel, size): partial(echo.measure, channel, messages[size], count)
            for (channel, size), count in trips.items()
            if (channel, size) not in absent
        }
        control = SlowdownMeter()
        values, others = in_turns(
            cases, budget=left, max_rounds=30, min_rounds=ROUNDS, control=control
        )
    return TransferCosts(values, absent, others, control.slowdown)


def _trips(seconds: float, least: float) -> int:
    """How many round trips make a value, if a message takes so many seconds one way."""
    return max(1, min(math.ceil(least / (2 * seconds)), 200))


def _too_large(sizes: list[int], folder: str = "/dev/shm") -> dict[Case, str]:
    """Sizes for which Linux has no room for shared memory: containers often have 64 MiB.

    A write beyond what is free would end the process by a signal.
    """
    if sys.platform != "linux" or not os.path.isdir(folder):
        return {}
    from concurrency_lab import figures

    free = shutil.disk_usage(folder).free
    reason = f"{folder} has only {figures.size(free)} free"
    return {("shared memory", size): reason for size in sizes if size + MIB > free}


def _too_slow(spent: dict[Case, float], limit: float) -> dict[Case, str]:
    """The slowest cases, if with them the least number of rounds would exceed `limit` seconds.

    `spent` is what each takes in a round.
    """
    absent: dict[Case, str] = {}
    for case in sorted(spent, key=spent.__getitem__, reverse=True)[:-1]:
        if ROUNDS * sum(spent[other] for other in spent.keys() - absent.keys()) <= limit:
            break
        absent[case] = f"a round trip took {spent[case]:.2g} s, too long for the budget"
    return absent
