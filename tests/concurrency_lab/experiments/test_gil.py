import hashlib
import sys
import sysconfig
import threading
import time

import pytest

from concurrency_lab.experiments.gil import ticks_during

LARGE = 7**100_000


def test_another_thread_counts_while_we_sleep_or_hash():
    assert ticks_during(lambda: time.sleep(0.05)) > 0
    data = bytes(20_000_000)
    assert ticks_during(lambda: hashlib.sha256(data)) > 0


@pytest.mark.skipif(bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="no GIL here")
@pytest.mark.parametrize(
    "call",
    [
        lambda: LARGE**3,
        lambda: pow(LARGE, 3),
        lambda: sum(range(2_000_000)),
        lambda: sorted(range(1_000_000), key=None, reverse=True),
    ],
    ids=["operator", "pow", "sum", "sorted"],
)
def test_no_thread_counts_during_calls_that_hold_the_gil(call):
    assert ticks_during(call) == 0


def test_the_switch_interval_is_restored():
    before = sys.getswitchinterval()
    ticks_during(lambda: None)
    assert sys.getswitchinterval() == before


def test_the_counter_ends_when_the_call_raises():
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        ticks_during(lambda: 1 / 0)
    assert threading.active_count() == before
