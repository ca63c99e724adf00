"""A web site on this machine, generated from a seed, and `fetch` to crawl it (chapter 3)."""

from __future__ import annotations

import posixpath
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from http.client import HTTPConnection, HTTPException
from urllib.parse import quote, urljoin, urlsplit

from concurrency_lab.server import LocalServer

MOST_PAGES = 10_000
MOST_LINKS = 12  # of a page to distinct addresses of the site

_WORDS = (
    "birds trees rivers stones clouds stars insects fish mushrooms".split(),
    "north south east west coast hills forest valley islands".split(),
    "spring summer autumn winter morning evening night rain wind".split(),
    "history notes photos sounds map letters questions sources names".split(),
)
_SAFE = "/%:=&?~+!$,;'@()*"  # in an address; everything else is written as %..


@dataclass(frozen=True)
class Page:
    """What one request brought: `size` is the bytes of the body, `links` are absolute addresses.

    Status 200 is a page, 302 a redirect, 404 a broken link, 429 means: too many requests at once.
    """

    url: str
    status: int
    title: str
    size: int
    links: tuple[str, ...]

    def __str__(self) -> str:
        title = f" {self.title!r}" if self.title else ""
        count = f"{len(self.links)} link{'' if len(self.links) == 1 else 's'}"
        return f"{self.status} {self.url}{title}, {self.size:,} bytes, {count}"


def fetch(url: str, timeout: float = 10) -> Page:
    """Get one address over a new HTTP connection; follow no redirect.

    The links are those of the page (of a redirect its target) that lead to the same host, as
    absolute addresses, without fragments and duplicates, in the order of the page. Any status is
    an answer, 404 too. May be called from many threads at once.

    Raises OSError if there is no answer: no connection, `timeout` seconds of silence
    (TimeoutError), or something that is not HTTP; ValueError for what is no http:// address.
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"fetch gets addresses that begin with http://, not {url!r}")
    target = quote(parts.path or "/", safe=_SAFE)
    if parts.query:
        target += "?" + quote(parts.query, safe=_SAFE)
    # http.client knows nothing of the environment's proxy, which could not reach 127.0.0.1.
    connection = HTTPConnection(parts.hostname, parts.port, timeout=timeout)
    try:
        connection.request("GET", target, headers={"Connection": "close"})
        with connection.getresponse() as response:
            body = response.read()
    except OSError as error:
        error.add_note(f"the address was {url}")
        raise
    except HTTPException as error:
        raise OSError(f"no complete HTTP answer from {url}: {error!r}") from error
    finally:
        connection.close()
    title, found = "", []
    if 300 <= response.status < 400:
        found = response.headers.get_all("Location", [])[:1]
    elif "html" in response.getheader("Content-Type", ""):
        reader = _Reader()
        reader.feed(body.decode(errors="replace"))
        reader.close()
        title, found = " ".join("".join(reader.title).split()), reader.found
    links = dict.fromkeys(_absolute(url.partition("#")[0], found, f"http://{parts.netloc}"))
    return Page(url, response.status, title, len(body), tuple(links))


def _absolute(base: str, found: list[str], origin: str) -> Iterator[str]:
    for link in found:
        link = link.strip().partition("#")[0]
        if link[:1] == "/" and link[1:2] != "/" and "/." not in link:
            yield origin + link  # what urljoin would find, in a tenth of the time
            continue
        try:
            address = urljoin(base, link)
        except ValueError:  # "http://[", for example
            continue
        path = address.removeprefix(origin)
        if path != address and path[:1] in ("", "/", "?"):
            yield address if path else f"{origin}/"


class _Reader(HTMLParser):
    """Collects the title and what the links of a page lead to."""

    def __init__(self) -> None:
        super().__init__()
        self.title: list[str] = []
        self.found: list[str] = []
        self._in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found += [value for name, value in attrs if name == "href" and value is not None]
        elif tag == "title":
            self._in_title = True

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title.append(data)


class LocalSite(LocalServer):
    """A web site of linked pages, served on this machine by a process of its own.

        with LocalSite(pages=50) as site:
            page = fetch(site.home)

    Everything can be reached from `site.home`, over sections and lists, in few steps. Links
    repeat, are relative (`../north/`), have fragments (`#top`) or lead to other hosts and to mail
    addresses. Besides the `pages` there are `broken` addresses that answer 404, `redirects` that
    answer 302 and lead to ordinary pages, and `loop` addresses that redirect in a circle.

    An answer takes 0.5 to 1.5 times `latency` seconds, by address, `latency` on average. With
    `at_most` the server refuses (429) what exceeds so many requests at once. Equal arguments make
    equal sites; another `seed` makes another one.

    `addresses` maps each path to the status that a crawler meets there: a right one requests each
    of them exactly once. `total_latency` is the sum of their latencies in seconds; `depth` is the
    number of steps from the start to the farthest of them.

    Raises ValueError for arguments that make no site, RuntimeError if the server cannot start.
    """

    def __init__(
        self,
        pages: int = 300,
        *,
        latency: float = 0.01,
        broken: int = 12,
        redirects: int = 6,
        loop: int = 3,
        at_most: int | None = None,
        seed: int = 1,
    ) -> None:
        for name, value, least in [
            ("pages", pages, 1), ("broken", broken, 0), ("redirects", redirects, 0),
            ("loop", loop, 0), ("seed", seed, 0),
        ]:  # fmt: skip
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be a whole number from {least}, not {value!r}")
        if pages > MOST_PAGES:
            raise ValueError(f"a site has at most {MOST_PAGES:,} pages, not {pages:,}")
        if not (isinstance(latency, int | float) and 0 <= latency <= 60):
            raise ValueError(f"latency must be 0 to 60 seconds, not {latency!r}")
        plan = _Plan(pages, broken, redirects, loop, random.Random(seed))
        latencies = plan.latencies(latency)
        super().__init__(
            latency,
            pages=plan.html(),
            redirects=plan.redirects,
            latencies=latencies,
            at_most=at_most,
        )
        self.addresses: dict[str, int] = plan.addresses
        self.depth: int = plan.depth()
        self.total_latency: float = sum(latencies.values())

    @property
    def home(self) -> str:
        """The address of the start page: "http://127.0.0.1:50123/"."""
        return self.url_for("/")

    def __repr__(self) -> str:
        where = "not running" if self._url is None else self.home
        return f"<LocalSite {where}, {len(self.addresses)} addresses, depth {self.depth}>"


class _Plan:
    """The pages, who leads to whom, and in what words; everything by `chance`."""

    def __init__(
        self, pages: int, broken: int, redirects: int, loop: int, chance: random.Random
    ) -> None:
        self._chance = chance
        self._parent: dict[str, str] = {}
        self._level = {"/": 0}
        self._links: dict[str, list[str]] = {"/": []}  # by page; distinct, in order
        self.redirects: dict[str, str] = {}
        self._grow(pages)
        self._pages = list(self._level)  # level by level
        lost = self._go_wrong(broken, redirects, loop)
        self._cross()
        self.addresses = dict.fromkeys(self._pages, 200)
        self.addresses |= dict.fromkeys(self.redirects, 302)
        self.addresses |= dict.fromkeys(lost, 404)

    def _grow(self, pages: int) -> None:
        """A tree, level by level: the start, sections, lists, articles and their parts."""
        width = min(8, max(3, round(pages**0.35)))
        level, left = ["/"], pages - 1
        while left:
            below = []
            self._chance.shuffle(level)  # the last level is not full, in no particular corner
            for page in level:
                deep = self._level[page]
                count = width if deep == 0 else self._chance.randint(3, width)
                words = _WORDS[min(deep, len(_WORDS) - 1)]
                for word in self._chance.sample(words, min(count, left)):
                    path = f"{page}{word}/"
                    self._parent[path], self._level[path], self._links[path] = page, deep + 1, []
                    self._links[page].append(path)
                    below.append(path)
                    left -= 1
            level = below

    def _go_wrong(self, broken: int, redirects: int, loop: int) -> list[str]:
        """Addresses that are no pages; return the broken ones."""
        lost = []
        for number in range(1, broken + 1):
            page = self._page_with_room(self._pages)
            lost.append(f"{page}lost-{number}.html")
            self._links[page].append(lost[-1])
        for number in range(1, redirects + 1):
            old = f"/old/{number}.html"
            self.redirects[old] = self._chance.choice(self._pages[1:] or self._pages)
            self._links[self._page_with_room(self._pages)].append(old)
        circle = [f"/moved/{number}.html" for number in range(1, loop + 1)]
        high = [page for page in self._pages if self._level[page] <= 2]
        for number, moved in enumerate(circle):
            self.redirects[moved] = circle[(number + 1) % loop]
            if number % 3 == 0:  # long circles have more entrances: nothing hangs on a long chain
                self._links[self._page_with_room(high)].append(moved)
        return lost

    def _page_with_room(self, pages: list[str]) -> str:
        for _ in range(20):
            page = self._chance.choice(pages)
            if len(self._links[page]) < MOST_LINKS:
                return page
        roomy = [page for page in pages if len(self._links[page]) < MOST_LINKS]
        if not roomy:
            raise ValueError(
                f"{len(self._pages)} pages have no room for so many links that are broken, "
                "redirected or in a loop; use more pages, or fewer of those"
            )
        return self._chance.choice(roomy)

    def _cross(self) -> None:
        """Links up and across; none shortens a way from the start."""
        end = {}  # by level: how many pages are on it or above
        for position, page in enumerate(self._pages):
            end[self._level[page]] = position + 1
        for page in self._pages:
            links, level = self._links[page], self._level[page]
            up = self._parent.get(page, page)
            wanted = max(len(links), self._chance.randint(3, 9))
            for above in (up, "/"):
                if above not in links and len(links) < MOST_LINKS:
                    links.insert(0, above)
            beside = [path for path in self._links[up] if path in self._level]
            around = self._pages[: end.get(level + 1, len(self._pages))]
            for _ in range(3 * MOST_LINKS):
                if len(links) >= wanted:
                    break
                path = self._chance.choice(beside if self._chance.random() < 0.4 else around)
                if path not in links:
                    links.append(path)

    def depth(self) -> int:
        """The steps from the start to the farthest address."""
        steps, waiting = {"/": 0}, deque(["/"])
        while waiting:
            path = waiting.popleft()
            to = [self.redirects[path]] if path in self.redirects else self._links.get(path, [])
            for other in to:
                if other not in steps:
                    steps[other] = steps[path] + 1
                    waiting.append(other)
        return max(steps.values())

    def latencies(self, mean: float) -> dict[str, float]:
        """Evenly spread from a half of the mean to three halves, in an order by chance."""
        count = len(self.addresses)
        parts = [0.5 + (number + 0.5) / count for number in range(count)]
        self._chance.shuffle(parts)
        return {path: mean * part for path, part in zip(self.addresses, parts, strict=True)}

    def html(self) -> dict[str, str]:
        """The text of every page."""
        return {page: self._text(page) for page in self._pages}

    def _text(self, page: str) -> str:
        # Few elements: reading them costs the crawler more than the rest of its work.
        chance, links = self._chance, self._links[page]
        anchors = [(self._written(page, path), _title(path)) for path in links]
        for path in chance.sample(links, min(len(links), chance.randint(0, 2))):
            anchors.append((self._written(page, path), "see also"))
        if chance.random() < 0.3 and len(links) < MOST_LINKS:
            anchors.append(("#top", "up"))
        if chance.random() < 0.3:
            anchors.append((f"https://example.org{page}", "elsewhere"))
        if chance.random() < 0.2:
            anchors.append(("mailto:notes@example.org", "write to us"))
        lines = ",\n".join(f'<a href="{href}">{words}</a>' for href, words in anchors)
        title = _title(page)
        return (
            f'<!doctype html>\n<html lang="en">\n<title>{title}</title>\n'
            f'<h1 id="top">{title}</h1>\n{lines}\n'
        )

    def _written(self, page: str, path: str) -> str:
        """An address as it stands in a page: absolute or relative, with a fragment or without."""
        if self._chance.random() < 0.5:
            relative = posixpath.relpath(path, page)
            path = f"{relative}/" if path.endswith("/") else relative
        is_page = path.endswith("/")
        return path + (self._chance.choice(["", "", "", "#top", "#notes"]) if is_page else "")


def _title(path: str) -> str:
    return ", ".join(path.strip("/").split("/")).capitalize() or "Field notes"
