import hashlib
import sys
import threading
import time
from urllib.error import HTTPError, URLError

import pytest

from concurrency_lab import workloads
from concurrency_lab.server import LocalServer

HAS_GIL = getattr(sys, "_is_gil_enabled", lambda: True)()


@pytest.mark.parametrize(("n", "primes"), [(0, 0), (2, 0), (3, 1), (100, 25), (1000, 168)])
def test_count_primes(n, primes):
    assert workloads.count_primes(n) == primes


def test_results_depend_on_the_argument_only():
    assert workloads.spin(1000) == 499500
    assert workloads.big_power(3) == (3**60_000).bit_length()
    assert workloads.wait(0) == 0
    assert workloads.compress_blocks(2) == 2 * workloads.compress_blocks(1)
    assert 0.2 < workloads.compress_blocks(1) / workloads.BLOCK < 0.8
    block = workloads._block()
    assert len(block) == workloads.BLOCK
    assert workloads.hash_blocks(2) == hashlib.sha256(block * 2).hexdigest()


@pytest.fixture
def ticks():
    """A thread that counts whenever it can have the GIL, and never has to be asked for it back."""
    count = [0]
    stop = threading.Event()

    def tick():
        while not stop.is_set():
            count[0] += 1
            time.sleep(0)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # nobody is made to let the GIL go
    thread = threading.Thread(target=tick)
    thread.start()
    yield count
    stop.set()
    thread.join()
    sys.setswitchinterval(interval)


@pytest.mark.skipif(not HAS_GIL, reason="this build has no GIL")
@pytest.mark.parametrize("func", [workloads.hash_blocks, workloads.compress_blocks])
def test_c_code_lets_the_gil_go(func, ticks):
    func(0)
    for _ in range(200):  # the other thread may have to wait for a core
        before = ticks[0]
        func(4)
        if ticks[0] > before + 1:
            return
    pytest.fail("no other thread ran in 200 calls")


@pytest.mark.skipif(not HAS_GIL, reason="this build has no GIL")
@pytest.mark.parametrize(
    ("func", "argument"),
    [(workloads.big_power, 20), (workloads.spin, 200_000), (workloads.count_primes, 5000)],
)
def test_python_code_and_big_numbers_hold_the_gil(func, argument, ticks):
    before = ticks[0]
    func(argument)
    assert ticks[0] == before


def test_fetch_counts_the_bytes_of_a_real_answer(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    workloads._opener.cache_clear()
    with LocalServer(latency=0) as server:
        assert workloads.fetch(server.url_for(1, size=1234)) == 1234
        with pytest.raises(HTTPError, match="400"):
            workloads.fetch(server.url + "/?latency=soon")
        url = server.url
    with pytest.raises(URLError):
        workloads.fetch(url)


class Clock:
    """Stands in for the `time` module; work moves it on."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


@pytest.mark.parametrize("power", [0.9, 1.0, 1.6, 2.0])
@pytest.mark.parametrize("seconds", [0.01, 0.3, 2.0])
def test_calibrate_finds_the_size(monkeypatch, power, seconds):
    clock = Clock()
    monkeypatch.setattr(workloads, "time", clock)

    def work(n):
        clock.now += 1e-4 + 1e-5 * n**power

    argument = workloads.calibrate(work, seconds)
    before = clock.now
    work(argument)
    assert clock.now - before == pytest.approx(seconds, rel=0.2)


def test_calibrate_returns_one_if_one_is_already_too_long(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(workloads, "time", clock)

    def work(n):
        clock.now += n

    assert workloads.calibrate(work, 0.1) == 1


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_calibrate_refuses_impossible_times(seconds):
    with pytest.raises(ValueError, match="positive"):
        workloads.calibrate(workloads.spin, seconds)
