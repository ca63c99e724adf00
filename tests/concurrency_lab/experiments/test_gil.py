import hashlib
import sysconfig
import threading
import time

import pytest

from concurrency_lab.experiments.gil import ticks_during


def test_another_thread_counts_while_we_sleep_or_hash():
    assert ticks_during(lambda: time.sleep(0.05)) > 0
    data = bytes(20_000_000)
    assert ticks_during(lambda: hashlib.sha256(data)) > 0


@pytest.mark.skipif(bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="no GIL here")
def test_no_thread_counts_during_one_operator():
    large = 7**100_000
    assert ticks_during(lambda: large**3) == 0


def test_the_counter_ends_when_the_call_raises():
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        ticks_during(lambda: 1 / 0)
    assert threading.active_count() == before
