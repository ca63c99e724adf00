import threading
from contextlib import contextmanager, nullcontext

import pytest

from concurrency_lab import figures
from concurrency_lab.experiments.readers_writers import Overtaking, share

COUNTS = Overtaking({"a": [9, 9, 0], "b": [0, 0, 0]}, {"a": [1, 2, 3], "b": [0, 0, 9]}, limit=9)


class Lightswitch:
    def __init__(self, light):
        self.light, self.mutex, self.inside = light, threading.Lock(), 0

    def __enter__(self):
        with self.mutex:
            self.inside += 1
            if self.inside == 1:
                self.light.acquire()

    def __exit__(self, *exception):
        with self.mutex:
            self.inside -= 1
            if self.inside == 0:
                self.light.release()


class ReadersFirst:
    def __init__(self):
        self.room = threading.Semaphore(1)
        self.readers = Lightswitch(self.room)

    def reading(self):
        return self.readers

    def writing(self):
        return self.room


class Turnstile(ReadersFirst):
    def __init__(self):
        super().__init__()
        self.turnstile = threading.Lock()

    @contextmanager
    def reading(self):
        with self.turnstile:
            pass
        with self.readers:
            yield

    @contextmanager
    def writing(self):
        with self.turnstile, self.room:
            yield


class WritersFirst(ReadersFirst):
    def __init__(self):
        super().__init__()
        self.no_readers = threading.Semaphore(1)
        self.writers = Lightswitch(self.no_readers)

    @contextmanager
    def reading(self):
        with self.no_readers:
            self.readers.__enter__()
        try:
            yield
        finally:
            self.readers.__exit__()

    @contextmanager
    def writing(self):
        with self.writers, self.room:
            yield


class Nothing:
    def reading(self):
        return nullcontext()

    writing = reading


class Closed(ReadersFirst):
    """Nobody ever gets out."""

    def __init__(self, opened):
        super().__init__()
        self.opened = opened

    @contextmanager
    def reading(self):
        if not self.opened.wait(30):
            raise TimeoutError
        yield

    writing = reading


@pytest.fixture(autouse=True)
def nobody_stays():
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def test_counts_and_starvation():
    assert COUNTS.starved("a") == 2
    assert COUNTS.starved("b", "reader") == 1
    assert (COUNTS.typical("a"), COUNTS.typical("a", "reader")) == (9, 2)
    with pytest.raises(KeyError, match="there are a, b"):
        COUNTS.counts("c")
    with pytest.raises(ValueError, match='"writer" or "reader"'):
        COUNTS.counts("a", "nobody")


def test_a_plot_has_a_panel_for_each_side():
    figure = COUNTS.plot("title")
    assert len(figure.axes) == 2
    for axes in figure.axes:
        assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert "<svg" in figures.to_svg(figure)


def test_each_side_starves_under_the_preference_for_the_other_and_none_at_the_turnstile():
    locks = {"readers": ReadersFirst, "turnstile": Turnstile, "writers": WritersFirst}
    found = share(locks, limit=20, trials=3)
    # The median of three: a thread may be late once, on a busy machine.
    assert found.typical("readers") == 20
    assert found.typical("turnstile") <= 4
    assert found.typical("writers") <= 4
    assert found.typical("writers", "reader") == 20
    assert found.typical("turnstile", "reader") <= 4
    assert all(0 <= n <= 20 for counts in found.readers_first.values() for n in counts)


def test_a_lock_that_is_none_is_found_out():
    with pytest.raises(RuntimeError, match="nothing let 1 readers and 1 writers in"):
        share({"nothing": Nothing}, trials=1)


def test_a_lock_that_lets_nobody_in_is_given_up():
    opened = threading.Event()
    timer = threading.Timer(1.0, opened.set)
    timer.start()
    with pytest.raises((TimeoutError, RuntimeError)):
        share({"closed": lambda: Closed(opened)}, trials=1, timeout=0.2)
    timer.join()


def test_no_new_round_after_the_budget():
    found = share({"turnstile": Turnstile}, limit=5, trials=50, budget=0.01)
    assert len(found.counts("turnstile")) == 1


def test_it_takes_newcomers():
    with pytest.raises(ValueError, match="two newcomers"):
        share({"turnstile": Turnstile}, newcomers=1)
