import gc
import subprocess
import sys

import pytest

from concurrency_lab import figures
from concurrency_lab.experiments.copy_on_write import CASES, PAGE, Copies, copy_on_write
from concurrency_lab.isolation import run_isolated

SIZE = 20  # MiB
linux = pytest.mark.skipif(sys.platform != "linux", reason="measured on Linux only")
pytestmark = pytest.mark.usefixtures("no_run_left", "collector_as_before")


@pytest.fixture
def collector_as_before():
    frozen = gc.get_freeze_count()  # some Pythons begin with a few hundred
    yield
    assert gc.isenabled() and gc.get_freeze_count() == frozen


@pytest.fixture(scope="module")
def copies():
    return copy_on_write(megabytes=SIZE, rounds=2)


@linux
def test_every_case_is_measured_in_every_round(copies):
    assert list(copies.values) == list(CASES)
    assert {len(values) for values in copies.values.values()} == {2}
    assert min(min(values) for values in copies.values.values()) >= PAGE
    assert not copies.absent


@linux
@pytest.mark.parametrize("case", ["list, untouched", "bytes, read", "NumPy array, read"])
def test_what_nobody_writes_to_is_shared(case, copies):
    assert copies.share(case) < 0.1


@linux
@pytest.mark.parametrize(
    "case", ["NumPy array, written", "list, read", "list, read, after gc.freeze"]
)
def test_what_is_written_or_counted_is_copied(case, copies):
    assert 0.9 < copies.share(case) < 1.2


@linux
def test_the_collector_copies_unless_objects_are_frozen(copies):
    assert copies.share("list, garbage collected") > 0.9
    assert copies.share("list, garbage collected, after gc.freeze") < 0.2


def test_elsewhere_all_is_absent_with_a_reason(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    found = copy_on_write(1)
    assert set(found.absent) == set(CASES)
    assert "not Linux" in found.absent["list, read"]
    assert found.ratio("list, read", "list, untouched") is None
    assert found.share("list, read") is None
    assert "not Linux" in str(found)
    assert "<svg" in figures.to_svg(found.plot("title"))


MADE = Copies({case: [2.0**20 * n, 2.0**21] for n, case in enumerate(CASES, 1)}, megabytes=4)


def test_a_result_is_a_short_text_and_a_figure_from_zero():
    assert str(MADE).splitlines()[0] == "list, untouched: 1.5 MiB"
    assert repr(MADE) == str(MADE)
    assert MADE.share("list, untouched") == 0.375
    (axes,) = MADE.plot("title").axes
    labels = [label.get_text().replace("\n", " ") for label in axes.get_yticklabels()]
    assert labels == list(CASES)
    assert axes.get_xlim()[0] <= 0 and axes.get_xscale() == "linear"
    assert list(axes.lines[0].get_xdata()) == [4, 4]


@pytest.mark.parametrize("bad", [{"megabytes": 0}, {"megabytes": float("nan")}, {"rounds": 0}])
def test_bad_input_is_refused(bad):
    with pytest.raises(ValueError, match="megabytes above 0"):
        copy_on_write(**bad)


@linux
def test_a_child_that_fails_is_told_and_nothing_stays_frozen():
    source = """
        import gc
        from concurrency_lab.experiments.copy_on_write import _gain

        def fail():
            raise SystemError("the reason")

        try:
            _gain(fail, freeze=True)
        finally:
            print(gc.get_freeze_count())
    """
    outcome = run_isolated(source, timeout=60)
    assert (outcome.exit_code, outcome.output) == (1, "0\n")
    assert "the reason" in outcome.errors and "EOFError" in outcome.errors


@linux
def test_nothing_is_left_after_ctrl_c(monkeypatch):
    def interrupt(self, timeout=None):
        if timeout is not None:
            raise KeyboardInterrupt
        return wait(self)

    wait = subprocess.Popen.wait
    monkeypatch.setattr(subprocess.Popen, "wait", interrupt)
    with pytest.raises(KeyboardInterrupt):
        copy_on_write(1)
