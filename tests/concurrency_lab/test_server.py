import contextlib
import gc
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.error import HTTPError

import psutil
import pytest

from concurrency_lab import server as server_module
from concurrency_lab.server import LocalServer
from concurrency_lab.workloads import fetch


def server_processes(parent=None):
    """The servers that run as children of a process (of this one)."""
    found = []
    for child in (parent or psutil.Process()).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "_http_child.py" in " ".join(child.cmdline()):
                found.append(child)
    return found


def wait_until(condition, seconds=60):
    limit = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < limit, "waited too long"
        time.sleep(0.05)
    return value


@pytest.fixture(autouse=True)
def nothing_left_behind():
    before = set(server_processes())
    yield
    assert not set(server_processes()) - before


def test_answers_and_counts_in_a_process_of_its_own():
    with LocalServer(latency=0) as server:
        (process,) = server_processes()
        assert process.pid != os.getpid()
        assert server.requests == 0
        for i in range(3):
            assert fetch(server.url_for(i)) > 10
        assert fetch(server.url) > 10
        assert server.requests == 4
        assert str(server) == f"<LocalServer {server.url}, latency 0 s>"


def test_latency_is_waited_and_can_be_overridden():
    with LocalServer(latency=0.2) as server:
        start = time.perf_counter()
        fetch(server.url_for(1))
        assert time.perf_counter() - start >= 0.2
        start = time.perf_counter()
        assert fetch(server.url + "/?latency=0.4&size=0") == 0
        assert time.perf_counter() - start >= 0.4
    assert server_processes() == []


def test_requests_wait_at_the_same_time():
    with LocalServer(latency=3600) as server:
        host = server.url.removeprefix("http://")
        connections = [http.client.HTTPConnection(host) for _ in range(20)]
        for connection in connections:
            connection.request("GET", "/")
        wait_until(lambda: server.requests == 20)
        assert server.most_at_once == 20
        for connection in connections:
            connection.close()


def test_a_connection_is_kept_and_wrong_requests_are_told():
    with LocalServer(latency=0) as server:
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
        answers = []
        for method, path in [
            ("GET", "/a"),
            ("HEAD", "/a"),
            ("POST", "/a"),
            ("GET", "/?latency=-1"),
            ("GET", "/?latency=nan"),
            ("GET", "/?size=x"),
            ("GET", "/caf%C3%A9"),
        ]:
            connection.request(method, path)
            if len(answers) == 0:
                port = connection.sock.getsockname()[1]
            response = connection.getresponse()
            answers.append((response.status, len(response.read()) > 0))
            assert connection.sock.getsockname()[1] == port
        connection.close()
        ok, empty, bad = (200, True), (200, False), (400, True)
        assert answers == [ok, empty, (405, True), bad, bad, bad, ok]


def test_a_client_that_breaks_off_does_no_harm():
    with LocalServer(latency=0) as server:
        host, port = server.url.removeprefix("http://").split(":")
        for data in (b"", b"GET / HTT", b"\x00" * 100_000, b"nonsense\r\n\r\n"):
            with socket.create_connection((host, int(port))) as connection:
                connection.sendall(data)
        assert fetch(server.url) > 0


def test_pages():
    pages = {"/": "<a href='/둘'>two</a>", "/둘": "done"}
    with LocalServer(latency=0, pages=pages) as server:
        assert fetch(server.url) == len(pages["/"].encode())
        assert fetch(server.url_for("/%EB%91%98")) == 4
        with pytest.raises(HTTPError, match="404"):
            fetch(server.url_for(1))


def get(server, path, method="GET"):
    """Status, headers and body of one answer; redirects are not followed."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    with contextlib.closing(connection):
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.headers, response.read()


@contextlib.contextmanager
def held(server, paths):
    """Requests that the server has got and goes on holding."""
    host = server.url.removeprefix("http://")
    before = server.requests
    with contextlib.ExitStack() as stack:
        for path in paths:
            connection = http.client.HTTPConnection(host)
            stack.callback(connection.close)
            connection.request("GET", path)
        wait_until(lambda: server.requests == before + len(paths))
        yield


def test_redirects():
    redirects = {"/old": "/", "/옛": "/둘?size=7&a=b", "/round": "/round"}
    with LocalServer(latency=0, pages={"/": "one", "/둘": "two"}, redirects=redirects) as server:
        status, headers, body = get(server, "/old")
        assert (status, headers["Location"], len(body) > 0) == (302, "/", True)
        status, headers, body = get(server, "/%EC%98%9B", "HEAD")
        assert (status, headers["Location"], body) == (302, "/%EB%91%98?size=7&a=b", b"")
        assert get(server, "/round")[1]["Location"] == "/round"
        assert get(server, "/")[0] == 200 and get(server, "/ol")[0] == 404
        assert fetch(server.url_for("/old")) == 3  # follows it
        assert fetch(server.url_for("/%EC%98%9B")) == 7
        assert server.requested["/"] == 2 and server.requested["/old"] == 2


def test_a_server_without_pages_redirects_too():
    with LocalServer(latency=0, redirects={"/old": "/page/1"}) as server:
        assert get(server, "/old")[0] == 302
        assert get(server, "/any")[0] == 200


def test_single_paths_have_their_own_latency():
    latencies = {"/slow": 3600, "/둘": 0.3, "/old": 0.3, "/gone": 0}
    with LocalServer(
        latency=3600, pages={"/slow": "", "/둘": ""}, redirects={"/old": "/"}, latencies=latencies
    ) as server:
        for path, status in [("/%EB%91%98", 200), ("/old", 302)]:
            begin = time.perf_counter()
            assert get(server, path)[0] == status
            assert time.perf_counter() - begin >= 0.28  # clocks of some systems are coarse
        assert get(server, "/gone")[0] == 404  # at once, or the test runs out of time
        assert get(server, "/slow?latency=0")[0] == 200
        with held(server, ["/slow", "/other"]):
            assert server.most_at_once == 2


def test_what_exceeds_the_limit_is_refused_at_once():
    with LocalServer(latency=3600, latencies={"/quick": 0}, at_most=2) as server:
        assert get(server, "/quick")[0] == 200
        with held(server, ["/a", "/b"]):
            for method, empty in [("GET", False), ("HEAD", True), ("GET", False)]:
                status, headers, body = get(server, "/quick", method)
                assert (status, headers["Retry-After"], body == b"") == (429, "1", empty)
            assert server.refused == 3
            assert server.requests == 6
            assert server.requested == {"/quick": 4, "/a": 1, "/b": 1}
            assert server.most_at_once == 2


def test_a_client_that_waits_for_its_answers_keeps_to_its_own_limit():
    threads, statuses = 4, []
    with LocalServer(latency=0, at_most=threads) as server:
        jobs = [
            threading.Thread(
                target=lambda: statuses.extend(get(server, "/")[0] for _ in range(100)),
                daemon=True,
            )
            for _ in range(threads)
        ]
        for job in jobs:
            job.start()
        for job in jobs:
            job.join(60)
        assert statuses == [200] * 400
        assert server.refused == 0
        assert 1 <= server.most_at_once <= threads


def test_what_was_requested_is_counted_and_forgotten():
    with LocalServer(latency=0, pages={"/": "", "/둘": ""}, at_most=2) as server:
        assert server.requested == {} and server.refused == 0
        for path in ("/", "/%EB%91%98", "/%EB%91%98?size=2", "/gone", "//["):
            get(server, path)
        assert server.requested == {"/": 1, "/둘": 2, "/gone": 1, "//[": 1}
        assert server.requested["/never"] == 0
        with held(server, ["/?latency=3600"] * 2):
            get(server, "/")
            assert server.refused == 1
            server.forget()
            assert (server.requests, server.refused, server.requested) == (0, 0, {})
            assert server.most_at_once == 2  # still there
            assert get(server, "/")[0] == 429
            assert (server.requests, server.refused, server.requested) == (1, 1, {"/": 1})
    with pytest.raises(RuntimeError, match="not running"):
        server.forget()


def test_start_and_close_without_with():
    server = LocalServer(latency=0)
    with pytest.raises(RuntimeError, match="not running"):
        _ = server.url
    assert server.start() is server
    first = server.url
    assert server.start().url == first  # running already
    server.close()
    server.close()
    with pytest.raises(RuntimeError, match="not running"):
        _ = server.requests
    server.start()
    assert fetch(server.url) > 0
    server.close()


def test_a_forgotten_server_ends():
    server = LocalServer().start()
    (process,) = server_processes()
    del server
    gc.collect()
    assert not process.is_running()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_ends_when_the_block_raises(error):
    with pytest.raises(error):
        with LocalServer() as server:
            (process,) = server_processes()
            address = server.url.removeprefix("http://").split(":")
            raise error
    assert not process.is_running()
    with pytest.raises(OSError):
        socket.create_connection(address, timeout=5)


def test_an_interrupt_while_starting_leaves_nothing(monkeypatch):
    def interrupted(process):
        assert process.poll() is None
        raise KeyboardInterrupt

    monkeypatch.setattr(server_module, "_port", interrupted)
    with pytest.raises(KeyboardInterrupt):
        LocalServer().start()
    assert server_processes() == []


PARENT = """
import os, sys, time
from concurrency_lab.server import LocalServer
if sys.argv[1] == "forks":
    server = LocalServer().start()
    if os.fork() == 0:
        time.sleep(3600)
else:
    server = LocalServer().start()
print(server.url, flush=True)
try:
    time.sleep(3600)
finally:
    if sys.argv[1] == "interrupted":
        server.close()
"""


@contextlib.contextmanager
def parent(what):
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, what], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    children = []
    try:
        assert process.stdout.readline().startswith(b"http://")
        children = psutil.Process(process.pid).children(recursive=True)
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        for child in children:
            with contextlib.suppress(psutil.Error):
                child.kill()


def test_dies_with_its_parent_when_the_parent_is_killed():
    with parent("killed") as process:
        (server,) = server_processes(psutil.Process(process.pid))
        process.kill()
        process.wait()
        wait_until(lambda: gone(server))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_dies_with_its_parent_although_a_forked_child_lives_on():
    with parent("forks") as process:
        # The fork has the server's stdin open, so there is no end of file.
        (server,) = server_processes(psutil.Process(process.pid))
        process.kill()
        process.wait()
        wait_until(lambda: gone(server))


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_an_interrupt_of_the_group_reaches_the_parent_only():
    with parent("interrupted") as process:
        (server,) = server_processes(psutil.Process(process.pid))
        assert os.getpgid(server.pid) != os.getpgid(process.pid)
        process.send_signal(signal.SIGINT)
        process.wait(60)
        wait_until(lambda: gone(server))


def gone(process):
    # Whether an orphan's entry is collected is the affair of the machine's first process.
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_copy_does_not_end_the_server():
    with LocalServer(latency=0) as server:
        child = os.fork()
        if child == 0:
            server.close()
            os._exit(0)
        os.waitpid(child, 0)
        assert fetch(server.url) > 0


def test_a_server_that_cannot_start_says_why(monkeypatch, tmp_path):
    broken = tmp_path / "_http_child.py"
    broken.write_text("raise OSError('no more ports')")
    monkeypatch.setattr(server_module, "_CHILD", broken)
    with pytest.raises(RuntimeError, match="did not start(.|\n)*no more ports"):
        LocalServer().start()


def test_a_server_that_hangs_at_its_start_is_given_up(monkeypatch, tmp_path):
    hanging = tmp_path / "_http_child.py"
    hanging.write_text("import time; time.sleep(3600)")
    monkeypatch.setattr(server_module, "_CHILD", hanging)
    monkeypatch.setattr(server_module, "_START_LIMIT", 0.5)
    with pytest.raises(RuntimeError, match="no answer within 0.5 s"):
        LocalServer().start()


COARSE = """
import asyncio, runpy, sys, time

fine, info = time.monotonic, time.get_clock_info
time.monotonic = lambda: fine() // 0.015625 * 0.015625

def get_clock_info(name):
    found = info(name)
    if name == "monotonic":
        found.resolution = 0.015625
    return found

time.get_clock_info = get_clock_info
runpy.run_path({child!r}, run_name="__main__")
"""


def test_no_answer_comes_before_its_latency_where_the_clock_is_coarse(monkeypatch, tmp_path):
    """As on Windows before Python 3.13; there asyncio's timers may end a tick too early."""
    coarse = tmp_path / "coarse.py"
    coarse.write_text(COARSE.format(child=str(server_module._CHILD)))
    monkeypatch.setattr(server_module, "_CHILD", coarse)
    with LocalServer(latency=0.01) as server, ThreadPoolExecutor(8) as pool:

        def seconds(number):
            begun = time.perf_counter()
            fetch(server.url_for(number))
            return time.perf_counter() - begun

        assert min(pool.map(seconds, range(80))) >= 0.01


@pytest.mark.parametrize("latency", [-1, float("nan"), "soon", None])
def test_a_bad_latency_is_refused(latency):
    with pytest.raises(ValueError, match="latency"):
        LocalServer(latency=latency)


def test_a_bad_path_is_refused():
    with pytest.raises(ValueError, match="'index'"):
        LocalServer(pages={"index": ""})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"redirects": {"old": "/"}}, "key of redirects must be a path, .*'old'"),
        ({"redirects": {"/old": "http://localhost/"}}, "redirects.* must be a path, .*'http:"),
        ({"redirects": {"/": "/a"}, "pages": {"/": "", "/a": ""}}, "'/' is a page and a redirect"),
        ({"latencies": {"slow": 1}}, "key of latencies must be a path, .*'slow'"),
        ({"latencies": {"/slow": -1}}, r"latencies\['/slow'\] must be 0 to 3600 seconds, not -1"),
        ({"at_most": 0}, "at_most must be a whole number from 1, or None, not 0"),
        ({"at_most": 2.5}, "at_most"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        LocalServer(**arguments)


def test_a_server_that_has_died_is_started_anew():
    with LocalServer(latency=0) as server:
        process = server._process
        process.kill()
        process.wait()
        assert fetch(server.start().url_for(1)) > 0
        assert server._process.pid != process.pid


@pytest.mark.parametrize(
    "arguments",
    [{"pages": ["/"]}, {"pages": {"/": b"x"}}, {"redirects": {"/a": 3}}, {"latencies": 0.1}],
)
def test_tables_of_the_wrong_kind_are_refused(arguments):
    with pytest.raises(TypeError, match="maps paths|must be text"):
        LocalServer(**arguments)
