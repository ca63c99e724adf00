import contextlib
import gc
import pickle
import socket
import threading
import time
from collections import Counter, deque
from http.client import HTTPConnection

import psutil
import pytest

from concurrency_lab.experiments.site import LocalSite, Page, fetch
from concurrency_lab.server import LocalServer

pytestmark = pytest.mark.usefixtures("no_child_left", "nothing_else_left")


@pytest.fixture
def nothing_else_left():
    before = set(connections()), set(threading.enumerate())
    yield
    assert not set(connections()) - before[0]
    assert not set(threading.enumerate()) - before[1]


def connections():
    states = (psutil.CONN_TIME_WAIT, psutil.CONN_NONE)  # the system's affair
    return [c for c in psutil.Process().net_connections("tcp") if c.status not in states]


def connections_to(url):
    port = int(url.split(":")[2].split("/")[0])
    return [c for c in connections() if c.raddr and c.raddr.port == port]


def crawl(start):
    """A right crawler, one request at a time: what it found, and in how many steps, by address."""
    found, steps, waiting = {}, {start: 0}, deque([start])
    while waiting:
        address = waiting.popleft()
        found[address] = fetch(address, timeout=60)
        for link in found[address].links:
            if link not in steps:
                steps[link] = steps[address] + 1
                waiting.append(link)
    return found, steps


def paths(site, found):
    """The same without the host, whose port differs every time."""
    host = site.home.removesuffix("/")
    return {
        address.removeprefix(host): (
            page.status, page.title, page.size, [link.removeprefix(host) for link in page.links],
        )
        for address, page in found.items()
    }  # fmt: skip


def test_a_right_crawler_meets_every_address_exactly_once():
    with LocalSite(latency=0) as site:
        found, steps = crawl(site.home)
        assert {site.url_for(p): status for p, status in site.addresses.items()} == {
            address: page.status for address, page in found.items()
        }
        assert site.requested == dict.fromkeys(site.addresses, 1)
        assert max(steps.values()) == site.depth
        for path, status in site.addresses.items():  # a folder lies where its path says
            assert status != 200 or steps[site.url_for(path)] == path.count("/") - 1
        assert site.most_at_once == 1 and site.refused == 0
        site.forget()
        assert site.requested == {} and site.most_at_once == 0

    assert Counter(site.addresses.values()) == {200: 300, 404: 12, 302: 6 + 3}
    for page in found.values():
        if page.status == 200:
            assert 3 <= len(page.links) <= 12 and page.title
        else:
            assert len(page.links) == (page.status == 302) and not page.title


def test_redirects_lead_to_pages_and_the_loop_leads_around():
    with LocalSite(40, latency=0, redirects=5, loop=4) as site:
        found, _ = crawl(site.home)
        around = {}
        for address, page in found.items():
            if page.status == 302:
                (target,) = page.links
                if found[target].status == 302:
                    around[address] = target
                else:
                    assert found[target].status == 200
        assert len(around) == 4
        assert sum(page.status == 302 for page in found.values()) == 9
        here = first = next(iter(around))
        for _ in range(3):
            here = around[here]
            assert here != first
        assert around[here] == first


def test_links_are_written_in_many_ways():
    with LocalSite(latency=0) as site:
        text = "".join(
            raw(site.url_for(path)) for path, status in site.addresses.items() if status == 200
        )
        host = site.home
    for kind in (
        'href="../', 'href="/birds/', 'href="./', '#top"', '/#notes"', 'href="#top"',
        'href="https://example.org/', 'href="mailto:',
    ):  # fmt: skip
        assert kind in text, kind
    assert host not in text
    assert text.count("see also") > 50  # these repeat a link of the page


def raw(url):
    host, _, path = url.removeprefix("http://").partition("/")
    connection = HTTPConnection(host, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", "/" + path)
        return connection.getresponse().read().decode()


def test_equal_arguments_make_equal_sites():
    def look(**arguments):
        with LocalSite(30, broken=3, redirects=2, **arguments) as site:
            return site.addresses, site.depth, paths(site, crawl(site.home)[0])

    first = look(latency=0, seed=7)
    assert look(latency=0.001, at_most=3, seed=7) == first
    assert look(latency=0, seed=8) != first


@pytest.mark.parametrize("seed", range(15))
def test_sites_are_flat_whatever_the_seed(seed):
    site = LocalSite(seed=seed)
    assert Counter(site.addresses.values()) == {200: 300, 404: 12, 302: 9}
    assert 4 <= site.depth <= 6
    for pages in (1000, 3000):
        assert 4 <= LocalSite(pages, seed=seed, loop=100).depth <= 7 + 3


@pytest.mark.parametrize(
    ("pages", "wrong"),
    [
        (1, {"broken": 0, "redirects": 0, "loop": 0}),
        (1, {"broken": 3, "redirects": 3, "loop": 1}),
        (2, {"broken": 1, "redirects": 1, "loop": 2}),
        (5, {}),
        (20, {"loop": 11}),
        (60, {"broken": 200, "redirects": 50}),
    ],
)
def test_small_sites_can_be_crawled_too(pages, wrong):
    for seed in range(3):
        with LocalSite(pages, latency=0, seed=seed, **wrong) as site:
            found, steps = crawl(site.home)
            assert site.requested == dict.fromkeys(site.addresses, 1)
            assert Counter(site.addresses.values())[200] == pages
            assert max(steps.values()) == site.depth
            assert max(len(page.links) for page in found.values()) <= 12


def test_latencies_are_around_their_mean():
    site = LocalSite(latency=0.2)
    given = site.latencies
    assert given.keys() == site.addresses.keys()
    assert 0.1 <= min(given.values()) < 0.11 and 0.29 < max(given.values()) <= 0.3
    assert site.total_latency == pytest.approx(0.2 * len(site.addresses))
    assert list(given.values()) != sorted(given.values())
    assert sum(given.values()) == pytest.approx(site.total_latency)
    with site:
        slowest = max(given, key=given.get)
        begin = time.perf_counter()
        fetch(site.url_for(slowest))
        assert time.perf_counter() - begin >= 0.27  # clocks of some systems are coarse


def test_requests_above_the_limit_get_429():
    with LocalSite(30, latency=60, at_most=2) as site:
        host = site.home.removeprefix("http://").removesuffix("/")
        with contextlib.ExitStack() as stack:
            for _ in range(2):
                connection = HTTPConnection(host)
                stack.callback(connection.close)
                connection.request("GET", "/")
            limit = time.monotonic() + 60
            while site.requested["/"] < 2:
                assert time.monotonic() < limit
            page = fetch(site.home)
            assert (page.status, page.links) == (429, ())
            assert site.refused == 1 and site.most_at_once == 2
            assert site.requested == {"/": 3}


def test_many_threads_crawl_at_the_same_time():
    with LocalSite(60, latency=0.001, at_most=8) as site:
        waiting = deque(site.addresses)
        statuses = {}

        def work():
            while True:
                try:
                    path = waiting.pop()
                except IndexError:
                    return
                statuses[path] = fetch(site.url_for(path), timeout=60).status

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == site.addresses
        assert site.refused == 0


TRICKY = """<!DOCTYPE html><html><head><title> Two
  words &amp; more</title></head><body><a name="top">no link</a> <a href>none</a>
<!-- <a href="/in-a-comment">no</a> --><script>"<a href='/in-a-script'>"</script>
<A HREF='/b?x=1&amp;y=2#f'>1</A><a class=x href=" c ">2</a><a href="/b?x=1&y=2">again</a>
<a href="../up/">3</a><a href="#top">myself</a><a href="">myself</a><a href="?q=1">4</a>
<a href="https://example.org/b">no</a><a href="//example.org/b">no</a>
<a href="http://example.org/b">no</a><a href="mailto:a@example.org">no</a>
<a href="HOST9/other-port">no</a><a href="HOST">5</a><a href="HOST?z">6</a>
<a href="HOST/full">7</a>
<a href="http://[">broken</a><a href="javascript:void(0)">no</a><a href="/둘/./x/../y">8</a>
<p>not closed <b>at all"""


@contextlib.contextmanager
def answering(make_reply, silent=None):
    """A server of one answer, whatever it may be, made from its own address; yields that.

    It ends the connection when `silent` is set.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        requests = []

        def answer():
            connection, _ = listener.accept()
            with connection:
                requests.append(connection.recv(10_000))
                connection.sendall(make_reply(address))
                if silent is not None:
                    silent.wait(60)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield address, requests
        finally:
            thread.join()


def as_html(text):
    body = text.encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def test_links_are_absolute_on_this_host_and_without_repetition():
    with answering(lambda host: as_html(TRICKY.replace("HOST", host))) as (host, _):
        page = fetch(f"{host}/a/b/#here")
    assert page.url == f"{host}/a/b/#here" and page.status == 200
    assert page.title == "Two words & more"
    assert page.size == len(TRICKY.replace("HOST", host).encode())
    assert [link.removeprefix(host) for link in page.links] == [
        "/b?x=1&y=2", "/a/b/c", "/a/up/", "/a/b/", "/a/b/?q=1", "/", "?z", "/full", "/둘/y",
    ]  # fmt: skip
    assert all(link.startswith(host) for link in page.links)


def test_what_is_asked_for_is_written_as_http_wants_it():
    with answering(lambda host: as_html("")) as (host, requests):
        page = fetch(f"{host}/둘 x/%20?q=é&a=b#top")
    line, *headers = requests[0].decode().split("\r\n")
    assert line == "GET /%EB%91%98%20x/%20?q=%C3%A9&a=b HTTP/1.1"
    assert "Connection: close" in headers
    assert page.links == () and page.size == 0


@pytest.mark.parametrize(
    ("location", "links"),
    [
        ("Location: /new#top\r\n", ["/new"]),
        ("Location: ../x\r\n", ["/x"]),
        ("Location: https://example.org/\r\n", []),
        ("", []),
    ],
)
def test_a_redirect_has_its_target_as_its_only_link(location, links):
    reply = f"HTTP/1.1 301 Moved\r\n{location}Content-Type: text/html\r\n\r\n"
    with answering(lambda host: reply.encode() + b"<title>moved</title><a href=/other>") as (
        host,
        _,
    ):
        page = fetch(f"{host}/a/b")
    assert page.status == 301 and page.title == ""
    assert [link.removeprefix(host) for link in page.links] == links


def test_only_html_is_read():
    reply = b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n<title>x</title><a href=/y>"
    with answering(lambda host: reply) as (host, _):
        page = fetch(host)
    assert (page.title, page.links, page.size) == ("", (), len("<title>x</title><a href=/y>"))


@pytest.mark.parametrize(
    "reply",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 1000,
        b"",
    ],
)
def test_what_is_no_complete_answer_is_an_oserror(reply):
    with answering(lambda host: reply) as (host, _):
        with pytest.raises(OSError) as told:
            fetch(f"{host}/page")
        assert not connections_to(host)
    words = [str(told.value), *getattr(told.value, "__notes__", [])]
    assert any(f"{host}/page" in word for word in words)


def test_nobody_there_and_silence_are_oserrors():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"http://127.0.0.1:{taken.getsockname()[1]}/x"
        with pytest.raises(OSError) as told:
            fetch(address)
        assert told.value.__notes__ == [f"the address was {address}"]
    with LocalServer(latency=3600) as server:
        with pytest.raises(TimeoutError) as told:
            fetch(server.url, timeout=0.2)
        assert not connections_to(server.url)
        assert told.value.__notes__ == [f"the address was {server.url}"]


@pytest.mark.parametrize(
    "reply", [b"", b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 9\r\n\r\nhalf"]
)
def test_a_server_that_falls_silent_is_given_up(reply):
    silent = threading.Event()
    with answering(lambda host: reply, silent) as (host, _):
        try:
            with pytest.raises(TimeoutError) as told:
                fetch(host, timeout=0.2)
            assert told.value.__traceback__ is not None  # it holds what fetch had in hand
            assert not connections_to(host)
        finally:
            silent.set()


def test_an_interrupt_leaves_no_connection(monkeypatch):
    def interrupted(connection):
        assert connection.sock is not None
        raise KeyboardInterrupt

    with LocalServer(latency=0) as server:
        monkeypatch.setattr(HTTPConnection, "getresponse", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch(server.url)
        monkeypatch.undo()
        assert not connections_to(server.url)


def test_a_proxy_of_the_environment_is_not_asked(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with LocalServer(latency=0) as server:
        assert fetch(server.url).status == 200


@pytest.mark.parametrize(
    "url", ["https://127.0.0.1/", "/birds/", "127.0.0.1:80/", "http:///x", "ftp://127.0.0.1/", ""]
)
def test_other_addresses_are_refused(url):
    with pytest.raises(ValueError, match="begin with http://"):
        fetch(url)


def test_a_page_is_a_small_value():
    page = Page("http://x/a", 200, "A", 1234, ("http://x/b",))
    assert pickle.loads(pickle.dumps(page)) == page
    assert len({page, pickle.loads(pickle.dumps(page))}) == 1
    assert str(page) == "200 http://x/a 'A', 1,234 bytes, 1 link"
    assert str(Page("http://x/a", 404, "", 0, ())) == "404 http://x/a, 0 bytes, 0 links"
    with pytest.raises(AttributeError):
        page.status = 404


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_server_ends_when_the_block_raises(error):
    with pytest.raises(error):
        with LocalSite(5) as site:
            start = site.home
            assert fetch(start).status == 200
            raise error
    with pytest.raises(OSError):
        fetch(start, timeout=5)
    with pytest.raises(RuntimeError, match="not running: use `with LocalSite"):
        _ = site.home


def test_open_and_close_without_with():
    site = LocalSite(5, latency=0)
    assert str(site) == "<LocalSite not running, 26 addresses, depth 4>"
    for use in (
        lambda: site.home, lambda: site.url_for("/"), lambda: site.requested,
        lambda: site.refused, lambda: site.most_at_once, site.forget,
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match="use `with LocalSite"):
            use()
    assert site.start() is site
    first = site.home
    assert site.start().home == first  # runs already
    assert first in str(site)
    site.close()
    site.close()
    with site:  # may be served again, with fresh statistics
        assert site.requested == {}
        assert fetch(site.url_for("/old/1.html")).status == 302
    site.start()
    site = None
    gc.collect()  # the fixture sees that its server has ended


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pages": 0}, "pages must be a whole number from 1, not 0"),
        ({"pages": 2.5}, "pages must be a whole number"),
        ({"pages": 10**6}, "at most 10,000 pages"),
        ({"broken": -1}, "broken must be a whole number from 0"),
        ({"loop": None}, "loop must be"),
        ({"seed": "x"}, "seed must be"),
        ({"latency": -1}, "latency must be 0 to 60 seconds, not -1"),
        ({"latency": float("nan")}, "latency"),
        ({"at_most": 0}, "at_most must be a whole number from 1"),
        ({"pages": 2, "broken": 50}, "2 pages have no room .* use more pages"),
    ],
)
def test_bad_arguments_are_refused_with_a_hint(arguments, message):
    with pytest.raises(ValueError, match=message):
        LocalSite(**arguments)
