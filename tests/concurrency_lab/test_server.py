import contextlib
import gc
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
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


@pytest.mark.parametrize("latency", [-1, float("nan"), "soon", None])
def test_a_bad_latency_is_refused(latency):
    with pytest.raises(ValueError, match="latency"):
        LocalServer(latency=latency)


def test_a_bad_path_is_refused():
    with pytest.raises(ValueError, match="'index'"):
        LocalServer(pages={"index": ""})
