import pytest

from concurrency_lab.experiments.costs import Costs, in_child
from concurrency_lab.experiments.memory import memory_costs
from concurrency_lab.experiments.startup import startup_costs

COSTS = Costs({"a": [2.0, 9.0, 4.0], "b": [1.0, 3.0, 2.0]}, others=0.1)


def fail(message):
    raise RuntimeError(message)


def test_ratios_are_paired():
    assert COSTS.ratio("a", "b").values == (2.0, 3.0, 2.0)
    assert COSTS.ratio("a", "b").others == 0.1


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(KeyError, match="there are a, b"):
        COSTS["c"]


def test_a_plot_has_a_row_for_each_name():
    axes = COSTS.plot("title").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert axes.get_xscale() == "log"


def test_a_measurement_that_fails_in_the_child_says_why():
    with pytest.raises(RuntimeError, match="the reason"):
        in_child(fail, "the reason")


def test_startup_costs_cover_thread_and_every_start_method(no_child_left):
    import multiprocessing

    costs = startup_costs(budget=0.1)
    methods = [f"process ({method})" for method in multiprocessing.get_all_start_methods()]
    assert sorted(costs.values) == sorted(["thread", *methods])
    assert all(value > 0 for values in costs.values.values() for value in values)


def test_memory_orders_unique_below_resident(no_child_left):
    memory = memory_costs(count=2, rounds=1)
    assert memory["process (spawn), USS"].median < memory["process (spawn), RSS"].median
    assert memory["thread, USS"].median < memory["process (spawn), USS"].median


def test_memory_needs_at_least_one():
    with pytest.raises(ValueError, match="at least 1"):
        memory_costs(count=0)
