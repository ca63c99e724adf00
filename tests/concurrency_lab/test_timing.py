import asyncio
import concurrent.futures
import statistics
import subprocess
import sys
import time
from xml.etree import ElementTree

import psutil
import pytest

from concurrency_lab import load, machine, timing
from concurrency_lab.timing import Sample, busy_cores, compare, sweep


class Clock:
    """A computer whose time passes only when `work` is called."""

    def __init__(self):
        self.now = 0.0
        self.own = 0.0
        self.children = 0.0
        self.spent = 0.0  # of the slowdown meter
        self.slowdown = 1.0

    def probe(self):
        self.spent = self.now

    def perf_counter(self):
        return self.now

    def work(self, seconds, cores=1.0, in_children=0.0):
        self.now += seconds
        self.own += seconds * (cores - in_children)
        self.children += seconds * in_children


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    monkeypatch.setattr(load, "SlowdownMeter", lambda: clock)
    monkeypatch.setattr(load, "own_cpu_seconds", lambda: clock.own)
    monkeypatch.setattr(load, "descendants_cpu_seconds", lambda: clock.children)
    return clock


@pytest.fixture
def quiet(monkeypatch):
    """A computer on which other programs use 0.05 cores."""

    class Meter:
        others = 0.05

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            pass

    monkeypatch.setattr(load, "LoadMeter", Meter)


# Sample


@pytest.mark.parametrize(
    "n, rank",
    # Ranks of the 95 % interval of a median as printed in tables (of Conover, 1999, for example).
    [(1, 1), (5, 1), (6, 1), (8, 1), (9, 2), (11, 2), (12, 3), (15, 4), (17, 5), (20, 6), (25, 8),
     (50, 18), (100, 40)],
)  # fmt: skip
def test_interval_is_made_of_order_statistics(n, rank):
    values = list(range(1, n + 1))
    sample = Sample(tuple(reversed(values)))
    assert (sample.low, sample.high) == (rank, n + 1 - rank)
    assert sample.median == statistics.median(values)


def test_interval_is_no_wider_than_needed():
    """One rank further in, and less than 95 % would be enclosed; as it is, at least 95 %."""
    from math import comb

    for n in range(6, 60):
        k = int(Sample(tuple(range(1, n + 1))).low)

        def outside(rank, n=n):
            return 2 * sum(comb(n, i) for i in range(rank)) / 2**n

        assert outside(k) <= 0.05 < outside(k + 1)


def test_sample_as_text():
    sample = Sample((1.8, 1.873, 1.95), "x")
    assert str(sample) == f"{sample}" == "1.87 [1.80..1.95] x"
    assert f"{sample:.1f}" == "1.9 [1.8..1.9] x"
    assert str(Sample((0.0123,), "s")) == "12.3 [12.3..12.3] ms"
    assert str(Sample((6.3e-5,), "s")) == "63.0 [63.0..63.0] \u00b5s"
    assert float(sample) == 1.873
    assert "1.87 [1.80..1.95] x" in "".join(ElementTree.fromstring(sample._repr_html_()).itertext())


def test_sample_refuses_nothing_and_nan():
    with pytest.raises(ValueError, match="at least one"):
        Sample(())
    with pytest.raises(ValueError, match="NaN"):
        Sample((1.0, float("nan")))


def test_sample_is_a_value():
    assert Sample([1, 2]) == Sample((1.0, 2.0)) and hash(Sample([1])) == hash(Sample((1.0,)))


# compare


def test_ratios_are_paired_by_round(clock, quiet):
    slow, quick = iter([9, 2, 4, 30]), iter([9, 1, 2, 10])
    result = compare(
        slow=lambda: clock.work(next(slow)),
        quick=lambda: clock.work(next(quick), cores=2),
        min_rounds=3,
        max_rounds=3,
        budget=1000,
    )
    assert result.names == ["slow", "quick"] and result.rounds == 3
    assert result.seconds("slow") == Sample((2, 4, 30), "s", 0.05)
    assert result.ratio("slow", "quick") == Sample((2, 2, 3), "times", 0.05)
    assert result.ratio("quick", "slow").values == (1 / 2, 1 / 2, 1 / 3)
    assert result.speedup("quick") == result.speedup("quick", over="slow")
    assert result.speedup("quick") == result.ratio("slow", "quick")
    assert result.speedup("slow", over="quick") == result.ratio("quick", "slow")


def test_cores_are_cpu_time_of_the_whole_tree(clock, quiet):
    result = compare(
        threads=lambda: clock.work(2),
        processes=lambda: clock.work(1, cores=1.9, in_children=1.8),
        max_rounds=2,
    )
    assert result.cores("threads") == Sample((1, 1), "cores", 0.05, lowered_by_load=True)
    assert result.cores("processes").values == pytest.approx((1.9, 1.9))


def test_slowdown_is_measured_meanwhile_and_concerns_times_only(clock):
    probes = []
    clock.probe = lambda: (probes.append(clock.now), setattr(clock, "spent", clock.spent + 0.05))
    clock.slowdown = 1.4
    result = compare(a=lambda: clock.work(1), b=lambda: clock.work(1), max_rounds=2, min_rounds=2)
    # 5 % of the time measured, after each round of 2 s (and 2 s of warm-up).
    assert probes == [4, 4, 6, 6]
    assert result.speedup("b").slowdown == result.seconds("a").slowdown == 1.4
    assert result.cores("b").slowdown == 1
    assert sweep(lambda n: clock.work(n), [1, 2]).speedup(2).slowdown == 1.4
    assert busy_cores(lambda: clock.work(1)).slowdown == 1


def test_order_changes_every_round(clock):
    order = []
    functions = {name: lambda name=name: (order.append(name), clock.work(1)) for name in "AB"}
    compare(functions, max_rounds=4, warmup=0, budget=1e9, min_rounds=4)
    assert "".join(order) == "ABBABAAB"
    order.clear()
    functions["C"] = lambda: (order.append("C"), clock.work(1))
    compare(functions, max_rounds=6, warmup=0, budget=1e9, min_rounds=6)
    rounds = ["".join(order[i : i + 3]) for i in range(0, 18, 3)]
    assert rounds == ["ABC", "BCA", "CAB", "CBA", "ACB", "BAC"]  # each order once


def test_stops_when_precise(clock):
    result = compare(a=lambda: clock.work(1), b=lambda: clock.work(2), budget=1e9)
    assert result.rounds == 5


def test_goes_on_while_imprecise_until_the_budget_is_spent(clock):
    times = iter([1, 3] * 100)
    # 2 warm-up calls, then rounds of 2 to 4 seconds.
    result = compare(a=lambda: clock.work(1), b=lambda: clock.work(next(times)), budget=31)
    assert result.rounds == 9
    assert clock.now <= 31


def test_goes_on_while_imprecise_until_the_greatest_number_of_rounds(clock):
    times = iter([1, 3] * 100)
    result = compare(
        a=lambda: clock.work(1), b=lambda: clock.work(next(times)), budget=1e9, max_rounds=12
    )
    assert result.rounds == 12


def test_least_number_of_rounds_whatever_the_budget(clock):
    result = compare(a=lambda: clock.work(1), b=lambda: clock.work(2), budget=0.1, min_rounds=7)
    assert result.rounds == 7


def test_warm_up_is_not_timed(clock):
    times = iter([100, 100, 1, 1, 1, 1, 1])
    result = compare(a=lambda: clock.work(next(times)), b=lambda: clock.work(1), warmup=2)
    assert result.seconds("a").values == (1,) * 5


def test_results_are_the_last_ones(clock):
    numbers = iter(range(100))
    result = compare(a=lambda: (clock.work(1), next(numbers))[1], b=lambda: clock.work(1))
    assert result.results("a") == 5 and result.results("b") is None


def test_functions_from_a_dict_and_by_name(clock):
    result = compare({"1 thread": lambda: clock.work(2)}, threads=lambda: clock.work(1))
    assert result.names == ["1 thread", "threads"]


def test_tables(clock, quiet):
    result = compare({"a < b": lambda: clock.work(0.3)}, c=lambda: clock.work(0.125, cores=2))
    assert str(result).splitlines() == [
        "       time               speed-up over a < b  cores busy",
        "a < b  300 [300..300] ms  1                    1.00 [1.00..1.00]",
        "c      125 [125..125] ms  2.40 [2.40..2.40]    2.00 [2.00..2.00]",
    ]
    table = ElementTree.fromstring(result._repr_html_())
    cells = [["".join(cell.itertext()) for cell in row] for row in table.iter("tr")]
    assert cells[0] == ["", "time", "speed-up over a < b", "cores busy"]
    assert cells[1][0] == "a < b" and cells[2][2:] == ["2.40 [2.40..2.40]", "2.00 [2.00..2.00]"]
    assert [row["name"] for row in result.table] == ["a < b", "c"]
    assert result.table[1]["speedup"].median == pytest.approx(2.4)


@pytest.mark.parametrize(
    "error, message, arguments, named",
    [
        (ValueError, "at least two functions", (), {"a": int}),
        (ValueError, "at least two functions", (), {}),
        (TypeError, "give functions names", (int,), {"a": int}),
        (TypeError, "a=7 is not a function", (), {"a": 7, "b": int}),
        (TypeError, "two functions are called 'a'", ({"a": int},), {"a": int}),
        (ValueError, "must be positive", (), {"a": int, "b": int, "budget": 0}),
        (ValueError, "must be positive", (), {"a": int, "b": int, "min_rounds": 0}),
    ],
)
def test_errors_say_what_to_do(error, message, arguments, named):
    with pytest.raises(error, match=message):
        compare(*arguments, **named)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "unfinished",
    [
        lambda: asyncio.sleep(0),
        lambda: (i for i in range(3)),
        lambda: map(int, "12"),
        concurrent.futures.Future,
    ],
)
def test_work_that_was_only_started_is_not_timed(unfinished):
    with pytest.raises(TypeError, match="work is not done yet"):
        compare(a=unfinished, b=int)


def test_unknown_name(clock):
    result = compare(a=lambda: clock.work(1), b=lambda: clock.work(1))
    with pytest.raises(KeyError, match=r"use one of \['a', 'b'\]"):
        result.seconds("c")


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError, SystemExit])
def test_errors_of_a_function_come_through(error):
    raised = error("as it was")
    calls = []

    def fails():
        calls.append(1)
        if len(calls) == 3:
            raise raised

    with pytest.raises(error) as caught:
        compare(a=fails, b=int)
    assert caught.value is raised


# sweep and busy_cores


def test_sweep(clock, quiet):
    result = sweep(lambda n: clock.work(8 / n), [1, 2, 4], name="threads", min_rounds=4)
    assert result.names == [1, 2, 4] and result.rounds == 4
    assert result.seconds(4) == Sample((2,) * 4, "s", 0.05)
    assert result.speedup(4).values == (4,) * 4
    assert result.speedup(4, over=2).values == (2,) * 4
    assert result.ratio(1, 2).values == (2,) * 4


def test_sweep_uses_its_budget(clock):
    result = sweep(lambda n: clock.work(n), [1, 2], budget=31)
    assert result.rounds == 9 and clock.now <= 31


@pytest.mark.parametrize("values", [[], [1], [1, 1]])
def test_sweep_needs_different_values(values):
    with pytest.raises(ValueError, match="at least two values, all different"):
        sweep(abs, values)


def test_busy_cores(clock, quiet):
    assert busy_cores(lambda: clock.work(2, cores=1.5), rounds=3) == Sample(
        (1.5, 1.5, 1.5), "cores", 0.05, lowered_by_load=True
    )


def test_a_control_that_got_no_second_core_is_a_reason(clock, quiet):
    compared = compare(
        {"one": lambda: clock.work(1), "four": lambda: clock.work(1, cores=1.04)}, max_rounds=5
    )
    assert compared.fewer_cores_than("four", 1.3) == "meanwhile four kept only 1.04 cores busy"
    assert compared.fewer_cores_than("four", 1.0) is None


def test_same_results(clock, quiet):
    work = {"a": lambda: [1, 2], "b": lambda: [1, 2]}
    assert compare(work, max_rounds=1).same_results()
    assert not compare(work | {"half": lambda: [1]}, max_rounds=1).same_results()


# Real runs


def burn_cpu(seconds):
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def burn_with_threads(n=2):
    with concurrent.futures.ThreadPoolExecutor(n) as pool:
        list(pool.map(burn_cpu, [0.05] * n))


@pytest.mark.skipif(not machine.gil_enabled(), reason="needs the GIL")
def test_python_threads_keep_one_core_busy_at_most():
    assert busy_cores(burn_with_threads).median <= 1.15


def test_sleep_takes_time_and_keeps_no_core_busy():
    result = compare(asleep=lambda: time.sleep(0.1), busy=lambda: burn_cpu(0.05), budget=0.1)
    assert result.seconds("asleep").low >= 0.09
    assert result.cores("asleep").median < 0.5
    assert min(call.cpu for call in result._calls["busy"]) >= 0.045


@pytest.mark.skipif(load.resource is None, reason="this system forgets children that ended")
def test_cpu_time_of_children_counts():
    code = "import time\nwhile time.process_time() < 0.2: pass"
    result = compare(
        child=lambda: subprocess.run([sys.executable, "-c", code]), nothing=int, max_rounds=1
    )
    assert result._calls["child"][0].cpu >= 0.19


def test_an_interruption_leaves_nothing(capsys):
    before = {child.pid for child in psutil.Process().children()}

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(a=interrupted, b=int)
    assert {child.pid for child in psutil.Process().children()} <= before
    assert capsys.readouterr() == ("", "")


# Figures


def svg(figure):
    from concurrency_lab import figures

    return ElementTree.fromstring(figures.to_svg(figure))


def test_comparison_plot_shows_every_round(clock):
    times = iter([1, 2, 3, 4, 5, 6])
    result = compare(one=lambda: clock.work(12), two=lambda: clock.work(next(times)), max_rounds=5)
    figure = result.plot("Two are quicker")
    (axes,) = figure.axes
    drawn = [tuple(line.get_xdata()) for line in axes.lines]
    assert (6, 4, 3, 2.4, 2) in drawn and (1, 1) in drawn
    assert axes.get_xlim()[0] <= 0 and axes.get_xlabel() == "times as fast as one"
    assert axes.get_title(loc="left") == "Two are quicker"
    svg(figure)


@pytest.mark.parametrize("y", ["seconds", "speedup"])
@pytest.mark.parametrize("log", [True, False])
@pytest.mark.parametrize("values", [[1, 2, 50], ["fork", "spawn"]])
def test_sweep_plot(clock, y, log, values):
    result = sweep(lambda n: clock.work(len(str(n))), values, name="size", unit="KB")
    figure = result.plot(y, log=log, title="Sizes")
    (axes,) = figure.axes
    assert axes.get_xlabel() == "size (KB)"
    assert result.plot(y, xlabel="of message").axes[0].get_xlabel() == "of message"
    medians = [getattr(result, y)(value).median for value in values]
    assert medians in [list(line.get_ydata()) for line in axes.lines]
    svg(figure)


def test_sweep_plot_refuses_what_it_cannot_draw(clock):
    with pytest.raises(ValueError, match="greater than 0"):
        sweep(lambda n: clock.work(1), [0, 1]).plot(log=True)
    with pytest.raises(ValueError, match="'seconds' or 'speedup'"):
        sweep(clock.work, [1, 2]).plot("cores")
