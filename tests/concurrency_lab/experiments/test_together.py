import signal
import threading

import pytest

from concurrency_lab.experiments import together as module
from concurrency_lab.experiments.together import together


def alive():
    """The threads of `together` that do not end; one that is just ending gets a moment."""
    threads = [t for t in threading.enumerate() if t.name.startswith("together-")]
    for thread in threads:
        thread.join(0.5)
    return [thread for thread in threads if thread.is_alive()]


def test_results_come_in_the_order_of_the_jobs_and_the_threads_are_gone():
    assert together([lambda: 1, lambda: 2, threading.get_ident])[:2] == [1, 2]
    assert not alive()


def test_all_jobs_are_at_work_at_the_same_time():
    meet = threading.Barrier(3)
    together([lambda: meet.wait(10)] * 3)


def test_the_first_error_is_raised_and_the_others_are_called_off():
    called_off = threading.Event()

    def fail():
        raise ZeroDivisionError("the reason")

    def follow():
        called_off.wait(30)
        raise RuntimeError("a consequence")

    with pytest.raises(ZeroDivisionError, match="the reason"):
        together([follow, fail, follow], call_off=called_off.set)
    assert not alive()


def test_a_timeout_names_who_was_at_work_and_leaves_nobody():
    called_off = threading.Event()
    with pytest.raises(TimeoutError, match="together-1$"):
        together([lambda: 0, lambda: called_off.wait(30)], call_off=called_off.set, timeout=0.1)
    assert not alive()


def test_a_thread_that_cannot_be_ended_is_named(monkeypatch):
    monkeypatch.setattr(module, "GRACE", 0.1)
    stuck = threading.Event()
    with pytest.raises(TimeoutError, match="together-0 cannot be ended"):
        together([lambda: stuck.wait(30)], timeout=0.1)
    assert all(thread.daemon for thread in alive())
    stuck.set()
    for thread in alive():
        thread.join()


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals to threads here")
def test_ctrl_c_calls_everybody_off():
    called_off = threading.Event()

    def interrupt():
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        called_off.wait(30)

    with pytest.raises(KeyboardInterrupt):
        together([interrupt, lambda: called_off.wait(30)], call_off=called_off.set)
    assert called_off.is_set()
    assert not alive()
