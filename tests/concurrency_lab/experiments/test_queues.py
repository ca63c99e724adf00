import queue
import threading
import time

import pytest

from concurrency_lab import figures
from concurrency_lab.experiments.costs import CALL, in_turns, one_use
from concurrency_lab.experiments.queues import KINDS, hand_over, queue_costs, there_and_back


@pytest.fixture(autouse=True)
def nobody_stays():
    before = threading.active_count()
    yield
    assert threading.active_count() == before


@pytest.fixture(scope="module")
def costs():
    return queue_costs(rounds=2, budget=0.1, stream=0.002, trips=5)


def test_every_kind_is_measured_in_every_round_and_a_deque_where_nobody_waits(costs):
    uses = ("put + get", "hand over", "there and back")
    names = [f"{name}, {use}" for use in uses for name in KINDS]
    assert sorted(costs.values) == sorted([CALL, "deque, put + get", *names])
    assert {len(values) for values in costs.values.values()} == {2}
    assert all(value > 0 for values in costs.values.values() for value in values)
    assert set(costs.calls(CALL).values) == {1.0}


def test_costs_are_a_short_text(costs):
    lines = str(costs).splitlines()
    assert len(lines) == len(costs.values)
    assert any(line.startswith("Queue, put + get: ") for line in lines)
    assert max(map(len, lines)) < 100


def test_a_plot_has_a_panel_for_each_use(costs):
    figure = costs.plot("title")
    rows = [[tick.get_text() for tick in axes.get_yticklabels()] for axes in figure.axes]
    assert rows == [[*KINDS, "deque"], [*KINDS], [*KINDS]]
    assert {axes.get_xscale() for axes in figure.axes} == {"log"}
    assert "<svg" in figures.to_svg(figure)


def test_an_answer_takes_longer_than_a_put_and_a_get_of_ones_own():
    # Two threads have to be woken, which takes the help of the system.
    found = queue_costs(rounds=5, budget=1, stream=0.002, trips=50)
    assert found.ratio("SimpleQueue, there and back", "SimpleQueue, put + get").median > 2


class Counted(queue.Queue):
    """Counts, and raises once, at the put with the number `fails_at`."""

    made = []

    def __init__(self, maxsize=0, fails_at=-1):
        super().__init__(maxsize)
        self.puts = self.gets = 0
        self.fails_at = fails_at
        Counted.made.append(self)

    def put(self, item, block=True, timeout=None):
        self.puts += 1
        if self.puts == self.fails_at:
            raise KeyboardInterrupt
        super().put(item, block, timeout)

    def get(self, block=True, timeout=None):
        item = super().get(block, timeout)
        self.gets += 1
        return item


@pytest.mark.parametrize("maxsize", [0, 1, 1000])
def test_every_item_is_handed_over_once(maxsize):
    stream = Counted(maxsize)
    assert hand_over(stream, 300) > 0
    assert (stream.puts, stream.gets, stream.qsize()) == (300, 300, 0)


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_streams_and_answers_pass_every_kind(make):
    assert hand_over(make(), 3000) > 0
    assert there_and_back(make, 20) > 0


@pytest.mark.parametrize("maxsize", [0, 1])
@pytest.mark.parametrize("fails_at", [1, 7])
def test_ctrl_c_in_a_stream_leaves_no_consumer(maxsize, fails_at):
    with pytest.raises(KeyboardInterrupt):
        hand_over(Counted(maxsize, fails_at), 50)


@pytest.mark.parametrize("fails_at", [1, 2, 7])
def test_ctrl_c_while_an_answer_is_waited_for_leaves_no_answerer(fails_at):
    Counted.made.clear()
    limits = iter([fails_at, -1])
    with pytest.raises(KeyboardInterrupt):
        there_and_back(lambda: Counted(fails_at=next(limits)), 50)
    there, back = Counted.made
    assert back.puts == fails_at - 1


@pytest.mark.parametrize("bad", [{"rounds": 0}, {"budget": 0}, {"stream": 0}, {"trips": 0}])
def test_bad_input_is_refused(bad):
    with pytest.raises(ValueError, match="at least"):
        queue_costs(**bad)


def test_cases_take_turns_forwards_and_backwards():
    order = []
    cases = {name: lambda name=name: order.append(name) or len(order) for name in "ab"}
    values, others = in_turns(cases, budget=60, max_rounds=3)
    assert "".join(order) == "abbaab"
    assert values == {"a": [1, 4, 5], "b": [2, 3, 6]}
    assert others >= 0


def test_a_budget_is_kept_but_for_the_fewest_rounds():
    def slow():
        time.sleep(0.02)
        return 1.0

    assert len(in_turns({"slow": slow}, budget=0.01, max_rounds=9)[0]["slow"]) == 5
    few = in_turns({"slow": slow}, budget=0.01, max_rounds=9, min_rounds=2)
    assert len(few[0]["slow"]) == 2
    assert len(in_turns({"slow": slow}, budget=0.01, max_rounds=1)[0]["slow"]) == 1


def test_one_use_is_a_statement_once():
    seen = []
    seconds = one_use("it.append(1)", seen, repeated=7)
    before = len(seen)
    assert 0 < seconds() < 1
    assert len(seen) > before and len(seen) % 7 == 0
