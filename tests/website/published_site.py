"""The built site as the tests see it: its pages, served over HTTP and shown by Chromium.

COURSE_SITE may name another folder than _build/site. Without a site, or without Chromium, the tests
are skipped; where the environment says CI=true they fail instead.
"""

import os
import shutil
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SITE = Path(os.environ.get("COURSE_SITE", ROOT / "_build" / "site"))
PAGES = sorted(path.relative_to(SITE).as_posix() for path in SITE.glob("??/*.html"))
CHAPTER = "01-threads-and-processes.html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")

each_page = pytest.mark.parametrize("page", PAGES or ["no site"])


def unavailable(reason: str):
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def site() -> Path:
    """The folder of the built site."""
    if not PAGES:
        unavailable(f"{SITE} has no pages: build the site with python course.py book")
    return SITE


@pytest.fixture(scope="session")
def address(site):
    """Serve the site; the address it is found at, with a slash at the end."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            """Nothing: what the browser asked for is looked at in the browser."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=site)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@contextmanager
def chromium():
    """The system's Chromium. While it is open, no other event loop can run."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        unavailable("Chromium is not on PATH")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def browser(site):
    """The system's Chromium, for one module only."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def visit(browser, address):
    """Open a page: ``visit("en/index.html", width=390, color_scheme="dark")``, all closed again.

    The tab's ``requests`` are the addresses it asked for, ``problems`` the errors and warnings of
    its console and its failed requests.
    """
    contexts = []

    def open_page(path, width=1280, height=800, **settings):
        context = browser.new_context(viewport={"width": width, "height": height}, **settings)
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(20_000)
        tab.requests, tab.problems = [], []
        tab.on("request", lambda request: tab.requests.append(request.url))
        tab.on("pageerror", lambda error: tab.problems.append(f"error: {error}"))
        tab.on("console", lambda message: message.type in ("error", "warning")
               and tab.problems.append(f"{message.type}: {message.text}"))  # fmt: skip
        tab.on("response", lambda response: response.status >= 400
               and tab.problems.append(f"{response.status}: {response.url}"))  # fmt: skip
        tab.goto(address + path, wait_until="load")
        return tab

    yield open_page
    for context in contexts:
        context.close()
