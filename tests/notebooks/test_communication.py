"""The programs of chapter 3 that must end in any case: its crawler and its channel.

They are taken from the notebook, cell by cell, so that what is tested is what the reader sees.
"""

import importlib
import subprocess
import sys
import threading

import nbformat
import psutil
import pytest

from website import ROOT

NOTEBOOK = ROOT / "notebooks/en/03-communication.ipynb"
CRAWLER = ("imports", "seen", "seen-cured", "crawl-class", "crawl-visit", "crawl-work")
CRAWLER += ("crawl-run", "crawl-progress")


def source(*ids):
    cells = {cell.id: cell.source for cell in nbformat.read(NOTEBOOK, 4).cells}
    return "\n\n".join(cells[name] for name in ids)


@pytest.fixture
def chapter(monkeypatch):
    monkeypatch.setenv("CONCURRENCY_LAB_PROGRESS", "0")
    names = {"__name__": "chapter"}
    exec(source(*CRAWLER, "polite", "alone", "solution-2-code"), names)
    before = set(threading.enumerate())
    yield names
    left = [thread for thread in threading.enumerate() if thread not in before]
    for thread in left:
        thread.join(5)
    assert not any(thread.is_alive() for thread in left)


@pytest.mark.parametrize("workers", [1, 2, 8, 40])
def test_the_crawler_asks_for_each_address_once_and_finds_all(chapter, workers):
    with chapter["LocalSite"](pages=120, latency=0.002) as site:
        crawl = chapter["run"](chapter["Crawl"](site.home), workers)
        assert site.requested == dict.fromkeys(site.addresses, 1)
        expected = {site.url_for(path): status for path, status in site.addresses.items()}
    assert crawl.statuses == expected


def test_alone_and_together_find_the_same(chapter):
    with chapter["LocalSite"](pages=60, latency=0) as site:
        alone = chapter["crawl_alone"](site.home)
        assert chapter["run"](chapter["Crawl"](site.home), 6).statuses == alone


def test_a_polite_crawler_is_never_refused(chapter):
    with chapter["LocalSite"](pages=80, latency=0.004, at_most=3) as site:
        chapter["run"](chapter["Crawl"](site.home), 12, chapter["politely"](3))
        assert site.refused == 0 and 2 <= site.most_at_once <= 3


@pytest.mark.parametrize("error", [OSError("gone"), ValueError("no address"), RecursionError()])
def test_a_page_that_fails_is_noted_and_does_not_stop_the_crawl(chapter, error):
    fetch = chapter["fetch"]

    def fails_sometimes(address):
        if "south" in address:
            raise error
        return fetch(address)

    with chapter["LocalSite"](pages=80, latency=0) as site:
        crawl = chapter["run"](chapter["Crawl"](site.home), 5, fails_sometimes)
    failed = {address for address, status in crawl.statuses.items() if status is error}
    assert failed and all("south" in address for address in failed)
    assert set(crawl.statuses) == crawl.seen.items


def test_a_crawl_whose_every_request_fails_ends(chapter):
    def nobody_answers(address):
        raise ConnectionRefusedError

    crawl = chapter["run"](chapter["Crawl"]("http://127.0.0.1:9/"), 4, nobody_answers)
    assert list(crawl.statuses) == ["http://127.0.0.1:9/"]


def test_a_stopped_crawl_says_what_is_left_and_can_be_stopped_before_it_begins(chapter):
    fetch = chapter["fetch"]
    with chapter["LocalSite"](pages=80, latency=0) as site:
        crawl = chapter["Crawl"](site.home)

        def stops_at_ten(address):
            if len(crawl.statuses) >= 10:
                crawl.stopping.set()
            return fetch(address)

        chapter["run"](crawl, 4, stops_at_ten)
        assert 10 <= len(crawl.statuses) <= 14  # those that had begun are finished
        assert set(crawl.statuses) < crawl.seen.items
        assert max(site.requested.values()) == 1
        early = chapter["Crawl"](site.home)
        early.stopping.set()
        assert chapter["run"](early, 4).statuses == {}


def test_addresses_that_fail_are_tried_again_and_not_for_ever(chapter):
    """Exercise 3.2."""
    calls = []

    def always_fails(address):
        calls.append(address)
        raise OSError("busy")

    crawl = chapter["Crawl"]("/")
    crew = [
        threading.Thread(target=chapter["work_again"], args=(crawl, always_fails)) for _ in "ab"
    ]
    crew.append(threading.Thread(target=chapter["close"], args=(crawl, 2)))
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join(20)
    assert not any(thread.is_alive() for thread in crew)
    assert calls == ["/"] * 3 and isinstance(crawl.statuses["/"], OSError)


@pytest.mark.parametrize("nth", range(1, 6))
@pytest.mark.parametrize("after", [False, True])
def test_an_interrupt_while_threads_are_being_started_leaves_none(chapter, monkeypatch, nth, after):
    started = []

    class Interrupted(threading.Thread):
        def start(self):
            started.append(self)
            if len(started) == nth and not after:
                raise KeyboardInterrupt
            super().start()
            if len(started) == nth:
                raise KeyboardInterrupt

    monkeypatch.setitem(chapter, "Thread", Interrupted)
    with chapter["LocalSite"](pages=200, latency=0.002) as site:
        crawl = chapter["Crawl"](site.home)
        with pytest.raises(KeyboardInterrupt):
            chapter["run"](crawl, 4)
        for thread in started:
            if thread.ident is not None:
                thread.join(10)
        assert not any(thread.is_alive() for thread in started)
        assert sum(site.requested.values()) < 20  # nobody went on


def test_the_owner_of_the_database_survives_a_cancelled_request_and_a_wrong_one():
    names = {"__name__": "chapter"}
    exec(source("imports", "database", "ask"), names)
    requests = names["Queue"]()
    owner = threading.Thread(target=names["database"], args=(requests,))
    cancelled = names["ask"](requests, "select 1")
    assert cancelled.cancel()
    owner.start()
    assert names["ask"](requests, "select wrong").exception(timeout=20) is not None
    assert names["ask"](requests, "select 2").result(timeout=20) == [(2,)]
    requests.put(None)
    owner.join(20)
    assert not owner.is_alive()


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_ctrl_c_ends_the_crawl_its_threads_and_the_server(tmp_path):
    script = tmp_path / "crawl.py"
    script.write_text(
        source(*CRAWLER)
        + """

site = LocalSite(pages=2000, latency=0.05)
try:
    with site:
        crawl = Crawl(site.home)
        print(site._process.pid, flush=True)
        calls = iter(range(1_000_000))

        def told(address):
            if next(calls) == 10:  # under way
                print("crawling", flush=True)
            return fetch(address)

        run(crawl, 4, told)
except KeyboardInterrupt:
    left = len(crawl.seen.items) - len(crawl.statuses)
    print("stopped", threading.active_count(), left > 0, flush=True)
""",
        encoding="utf-8",
    )
    process = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        server = psutil.Process(int(process.stdout.readline()))
        assert process.stdout.readline() == "crawling\n"
        process.send_signal(2)
        output, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert output.split() == ["stopped", "1", "True"], errors
    assert process.returncode == 0 and "Traceback" not in errors
    assert not server.is_running()


@pytest.fixture
def channels(tmp_path, monkeypatch):
    """The cells with the draft and the solution, as a module: the explorer needs its lines."""
    code = source("imports", "draft", "solution-5-code")
    (tmp_path / "chapter_channels.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("chapter_channels")
    del sys.modules["chapter_channels"]


def test_the_channel_of_the_solution_passes_every_schedule_and_the_draft_does_not(channels):
    assert channels.examine(channels.Channel).ok
    assert not channels.examine(channels.Draft).ok


def test_the_channel_in_real_threads_delivers_everything_once(channels):
    channel, got = channels.Channel(3), [[] for _ in range(3)]
    consumers = [threading.Thread(target=lambda mine=mine: mine.extend(channel)) for mine in got]
    producers = [
        threading.Thread(target=lambda n=n: [channel.put((n, i)) for i in range(500)])
        for n in range(2)
    ]
    for thread in consumers + producers:
        thread.start()
    for thread in producers:
        thread.join(30)
    channel.close()
    for thread in consumers:
        thread.join(30)
    assert not any(thread.is_alive() for thread in consumers)
    assert sorted(sum(got, [])) == [(n, i) for n in range(2) for i in range(500)]
    for mine in got:  # of each producer, everybody sees the items in order
        for producer in range(2):
            numbers = [number for sender, number in mine if sender == producer]
            assert numbers == sorted(numbers)
    with pytest.raises(channels.Closed):
        channel.put(1)


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_ctrl_c_ends_the_pipeline_and_its_threads(tmp_path):
    script = tmp_path / "pipes.py"
    script.write_text(
        source("imports", "stage", "pipeline-parts", "pipeline")
        + """

def told(server, name, seconds, item, ask=ask_server):
    if name == "store" and item == 3:  # under way
        print("working", flush=True)
    return ask(server, name, seconds, item)

ask_server = told
try:
    with LocalServer() as server:
        pipeline(server)
except KeyboardInterrupt:
    print("stopped", threading.active_count(), flush=True)
""",
        encoding="utf-8",
    )
    process = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "working\n"
        process.send_signal(2)
        output, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert output.split()[0] == "stopped" and process.returncode == 0, errors
    assert "Traceback" not in errors
