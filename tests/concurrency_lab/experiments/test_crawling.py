"""Speeds of crawls: what is timed, what the limits are, what is refused. No crawl is real here."""

import time

import pytest

from concurrency_lab import figures
from concurrency_lab.experiments.crawling import CrawlSpeeds, crawl_speeds
from concurrency_lab.timing import Sweep, _Call


def speeds(seconds, latency=0.01, requests=100):
    calls = {
        name: [_Call(wall, 0.0, requests) for wall in walls] for name, walls in seconds.items()
    }
    return CrawlSpeeds(Sweep(calls), requests, latency)


MEASURED = {
    (1, None): [1.1, 1.0, 1.2],
    (8, None): [0.15, 0.14, 0.16],
    (32, None): [0.1, 0.08, 0.1],
    (8, 8): [0.15, 0.15, 0.16],
    (32, 8): [0.14, 0.16, 0.15],
}


def test_rates_are_requests_over_time_and_speedups_are_paired_by_round():
    found = speeds(MEASURED)
    assert found.rate(8).median == pytest.approx(100 / 0.15)
    assert found.speedup(8).values == pytest.approx((1.1 / 0.15, 1.0 / 0.14, 1.2 / 0.16))
    assert found.speedup(32, over=8, limit=8).values[0] == pytest.approx(0.15 / 0.14)


def test_the_limit_is_workers_over_latency_or_politeness_over_latency():
    found = speeds(MEASURED)
    assert found.most(4) == pytest.approx(400)
    assert found.most(32) == pytest.approx(3200)
    assert found.most(32, 8) == found.most(8) == pytest.approx(800)
    assert found.share_of_limit(32, 8).median == pytest.approx(100 / 0.15 / 800)
    assert found.best_share_of_limit() == pytest.approx(1.0)  # one worker, 1.0 s for 100 x 10 ms


def test_a_crawl_that_is_faster_than_its_limit_shows():
    assert speeds(MEASURED | {(1, None): [0.5, 1, 1]}).best_share_of_limit() == pytest.approx(2)


def test_fewer_workers_than_a_limit_are_not_tried_with_it():
    tried = []

    def crawl(workers, limit):
        tried.append((workers, limit))
        time.sleep(0.0005)
        return 7

    found = crawl_speeds(crawl, workers=(1, 8, 32), limits=(None, 8), latency=0.01, budget=0.1)
    assert set(tried) == {(1, None), (8, None), (32, None), (8, 8), (32, 8)}
    assert found.workers == [1, 8, 32] and found.limits == [None, 8]
    assert len(found.rate(1).values) >= 3


def test_crawls_that_found_different_things_are_not_compared():
    with pytest.raises(ValueError, match=r"made 1, 2 requests.*same work"):
        crawl_speeds(lambda workers, limit: workers, workers=(1, 2), latency=0.01, budget=0.01)


@pytest.mark.parametrize("made", [None, 0, [1]])
def test_a_crawl_that_does_not_say_how_many_requests_it_made_is_refused(made):
    def crawl(workers, limit):
        return tuple(made) if isinstance(made, list) else made

    with pytest.raises(TypeError, match="returns how many requests it made"):
        crawl_speeds(crawl, workers=(1, 2), latency=0.01, budget=0.01)


@pytest.mark.parametrize(
    "arguments",
    [
        {"workers": ()},
        {"workers": (0, 1)},
        {"workers": (1, 2), "latency": 0},
        {"workers": (1, 2), "limits": ()},
        {"workers": (1, 2), "limits": (None, 0)},
        {"workers": (1,)},
    ],
)
def test_what_cannot_be_measured_is_refused(arguments):
    with pytest.raises(ValueError, match="crawl_speeds|a limit is at least 1"):
        crawl_speeds(lambda workers, limit: 1, **{"latency": 0.01} | arguments)


def test_the_figure_has_a_curve_for_each_limit_and_the_limits_as_lines():
    found = speeds(MEASURED)
    figure = found.plot("How many workers?")
    (axes,) = figure.axes
    curves = {line.get_label(): list(line.get_xdata()) for line in axes.get_lines()}
    assert len(curves["no limit"]) == 3 and len(curves["at most 8 at once"]) == 2
    flat = [line for line in axes.get_lines() if list(line.get_ydata()) == [800, 800]]
    assert len(flat) == 1
    assert figures.to_svg(figure).startswith("<svg")
    assert str(found).startswith("no limit: 91/s with 1")
