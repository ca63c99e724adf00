import pytest

from concurrency_lab.experiments.amdahl import Points, amdahl, gustafson, measure_amdahl
from concurrency_lab.timing import Sample


@pytest.mark.parametrize(
    ("parallel", "cores", "expected"),
    [(0, 8, 1), (1, 8, 8), (0.5, 2, 4 / 3), (0.9, 1e9, 10), (0.8, 4, 2.5)],
)
def test_amdahl(parallel, cores, expected):
    assert amdahl(parallel, cores) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("parallel", "cores", "expected"), [(0, 8, 1), (1, 8, 8), (0.9, 1000, 900.1)]
)
def test_gustafson(parallel, cores, expected):
    assert gustafson(parallel, cores) == pytest.approx(expected)


@pytest.mark.parametrize(("parallel", "cores"), [(1.5, 2), (-0.1, 2), (0.5, 0)])
@pytest.mark.parametrize("law", [amdahl, gustafson])
def test_impossible_arguments_are_refused(law, parallel, cores):
    with pytest.raises(ValueError, match="not"):
        law(parallel, cores)


def test_efficiency_is_relative_to_the_effective_cores():
    points = Points({1.0: Sample([1.5, 1.5, 1.5], "times")}, Sample([1.5, 1.5, 1.5], "cores"), 2)
    assert points.efficiency(1.0).median == pytest.approx(1)


def test_no_more_cores_count_than_there_are_workers():
    points = Points({1.0: Sample([8.0], "times")}, Sample([16.0], "cores"), workers=8)
    assert points.efficiency(1.0).median == pytest.approx(1)


def test_too_few_cores_is_a_reason():
    points = Points({}, Sample([1.08], "cores"), workers=2)
    assert points.too_few_cores(1.5) == "only 1.08 effective cores were to be had"
    assert points.too_few_cores(1.0) is None


def test_a_real_run_visits_every_part_and_leaves_no_process(no_child_left):
    points = measure_amdahl(parts=(0.0, 1.0), seconds=0.02, rounds=2)
    assert {part: len(sample.values) for part, sample in points.speedups.items()} == {
        0.0: 2,
        1.0: 2,
    }
    assert points.plot("title").axes[0].get_title(loc="left") == "title"
