import queue
import threading
import time
from collections import deque

import pytest

from concurrency_lab import figures
from concurrency_lab.experiments import depth
from concurrency_lab.experiments.depth import Depths, plot_depths, watch

# Empty for 1 s, 2 items for 2 s, 4 items for 1 s; the other one always 1.
RECORD = Depths(
    {"inbox": 4, "outbox": None}, [(0.0, (0, 1)), (1.0, (2, 1)), (3.0, (4, 1)), (4.0, (0, 1))]
)


@pytest.fixture(autouse=True)
def nobody_stays():
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def wait_until(true):
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.001)


def test_a_depth_counts_for_as_long_as_it_lasted():
    assert RECORD.times("inbox") == [0, 1, 3, 4]
    assert RECORD.depths("inbox") == [0, 2, 4, 0]
    assert RECORD.highest("inbox") == 4
    assert RECORD.mean("inbox") == 2
    assert RECORD.share_full("inbox") == 1 / 4
    assert RECORD.share_empty("inbox") == 1 / 4
    assert RECORD.share_empty("outbox") == 0
    assert RECORD.seconds == 4


def test_a_record_of_no_time_tells_what_was_seen():
    record = Depths({"inbox": 3}, [(0.0, (3,)), (0.0, (3,))])
    assert (record.mean("inbox"), record.share_full("inbox")) == (3, 1)


def test_a_record_says_what_it_holds():
    assert str(RECORD) == (
        "inbox: highest 4 of 4, mean 2, full 25% of the time, empty 25% of the time\n"
        "outbox: highest 1, mean 1, empty 0% of the time"
    )
    assert repr(RECORD) == str(RECORD)


def test_an_unknown_name_lists_the_known_ones():
    for method in (RECORD.times, RECORD.highest, RECORD.share_full, RECORD.bound):
        with pytest.raises(KeyError, match="there are inbox, outbox"):
            method("other")


def test_a_queue_without_a_bound_is_never_full():
    with pytest.raises(ValueError, match=r"no bound.*bounds=\{'outbox': 20\}"):
        RECORD.share_full("outbox")


def test_the_first_and_the_last_moment_are_seen_however_short_the_block():
    inbox = queue.Queue()
    inbox.put("there before")
    with watch(inbox=inbox, every=10) as depths:
        inbox.put("and")
        inbox.put("more")
    assert depths.depths("inbox") == [1, 3]
    assert depths.times("inbox")[0] >= 0
    assert depths.seconds == depths.times("inbox")[-1]


def test_the_end_is_not_waited_for():
    begin = time.monotonic()
    with watch(inbox=[], every=3600):
        pass
    assert time.monotonic() - begin < 60


def test_a_running_program_can_be_looked_at():
    inbox, go = queue.Queue(maxsize=3), threading.Event()

    def consume():
        go.wait()
        while inbox.get() is not None:
            pass

    def produce():
        for item in [*range(50), None]:
            inbox.put(item)

    threads = [threading.Thread(target=job) for job in (consume, produce)]
    with watch(inbox=inbox) as depths:
        for thread in threads:
            thread.start()
        wait_until(lambda: depths.highest("inbox") == 3)
        wait_until(lambda: depths.share_full("inbox") > 0)
        seen = len(depths.times("inbox"))
        wait_until(lambda: len(depths.times("inbox")) > seen)
        assert "<svg" in figures.to_svg(depths.plot())
        assert str(depths).startswith("inbox: highest 3 of 3")
        go.set()
        for thread in threads:
            thread.join()
    assert depths.depths("inbox")[0] == depths.depths("inbox")[-1] == 0
    assert depths.highest("inbox") == depths.bound("inbox") == 3
    times = depths.times("inbox")
    assert times == sorted(times)
    assert len(times) == len(depths.depths("inbox"))


class Sized:
    capacity = 9

    def __len__(self):
        return 7


def test_whatever_has_a_depth_can_be_watched():
    watched = {
        "Queue": queue.Queue(),
        "SimpleQueue": queue.SimpleQueue(),
        "PriorityQueue": queue.PriorityQueue(5),
        "list": [],
        "deque": deque(maxlen=4),
        "own": Sized(),
        "function": lambda: 2,
        "every": [1],  # as an argument it would be the pause
    }
    with watch(watched, method=watched["list"].__len__) as depths:
        for it in watched.values():
            getattr(it, "put", getattr(it, "append", print))(1)
    assert depths.names == [*watched, "method"]
    assert [depths.depths(name)[-1] for name in depths.names] == [1, 1, 1, 1, 1, 7, 2, 2, 1]
    bounds = [depths.bound(name) for name in ("Queue", "PriorityQueue", "deque", "own", "list")]
    assert bounds == [None, 5, 4, 9, None]


def test_a_bound_can_be_given():
    with watch(own=Sized(), bounds={"own": 7}) as depths:
        pass
    assert depths.share_full("own") == 1


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
def test_the_thread_ends_whatever_happens_in_the_block(error):
    inbox = queue.Queue()
    with pytest.raises(error), watch(inbox=inbox) as depths:
        inbox.put(1)
        raise error
    assert depths.depths("inbox")[-1] == 1


def test_the_thread_ends_if_ctrl_c_comes_while_it_is_waited_for(monkeypatch):
    join = threading.Thread.join

    def interrupted(thread, timeout=None):
        monkeypatch.setattr(threading.Thread, "join", join)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), watch(inbox=[]):
        monkeypatch.setattr(threading.Thread, "join", interrupted)
    wait_until(lambda: not [t for t in threading.enumerate() if t.name == "watch"])


def failing_after(reads):
    left = iter(range(reads))

    def read():
        if next(left, None) is None:
            raise LookupError("the reason")
        return 1

    return read


def test_a_read_that_fails_at_once_is_an_error_at_once():
    with pytest.raises(LookupError, match="the reason") as caught, watch(broken=failing_after(0)):
        raise AssertionError("the block must not begin")
    assert "'broken'" in caught.value.__notes__[0]


def test_a_read_that_fails_later_is_an_error_at_the_end():
    done = False
    with pytest.raises(LookupError, match="the reason") as caught:
        with watch(broken=failing_after(2)) as depths:
            wait_until(lambda: threading.active_count() == 1 or not watching())
            done = True
    assert done
    assert depths.depths("broken") == [1, 1]
    assert "'broken'" in caught.value.__notes__[0]


def watching():
    return any(thread.name == "watch" for thread in threading.enumerate())


def test_the_last_read_may_fail_too():
    with pytest.raises(LookupError, match="the reason"):
        with watch(broken=failing_after(1), every=3600):
            pass


def test_an_error_of_the_block_comes_before_one_of_a_read():
    with pytest.raises(ZeroDivisionError) as caught, watch(broken=failing_after(1), every=3600):
        raise ZeroDivisionError
    assert "the reason" in caught.value.__notes__[0]


def test_a_read_that_never_returns_is_an_error_not_a_hang(monkeypatch):
    monkeypatch.setattr(depth, "GRACE", 0.2)
    lock, reads = threading.Lock(), iter([0])

    def read():
        if next(reads, None) is None:
            with lock:
                pass
        return 0

    with lock:
        with pytest.raises(TimeoutError, match="'stuck' could not be read.*still held"):
            with watch(stuck=read):
                pass
    wait_until(lambda: not watching())


def test_what_is_no_number_is_refused():
    with pytest.raises(TypeError, match="'inbox' must be a number, not 'many'"):
        with watch(inbox=lambda: "many"):
            pass


@pytest.mark.parametrize("what", [5, queue.Queue, list])
def test_what_has_no_depth_is_refused(what):
    with pytest.raises(TypeError, match="neither qsize.*watch.inbox=lambda"):
        with watch(inbox=what):
            pass


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ((), {}, ValueError, "needs a queue"),
        (({"a": []},), {"a": []}, TypeError, "two queues are called 'a'"),
        (({"a": []},), {"every": 0}, ValueError, "more than 0"),
        (({"a": []},), {"bounds": {"b": 3}}, KeyError, "there are a"),
        (({"a": []},), {"bounds": {"a": 0}}, ValueError, "at least 1"),
    ],
)
def test_bad_input_is_refused(arguments, options, error, words):
    with pytest.raises(error, match=words), watch(*arguments, **options):
        pass


def test_a_plot_has_a_panel_for_each_queue_and_a_line_for_each_bound():
    figure = RECORD.plot("title")
    first, second = figure.axes
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["inbox", "outbox"]
    assert [text.get_text() for text in first.texts] == ["at most 4"] and not second.texts
    assert list(first.lines[0].get_xdata()) == [0, 1, 3, 4]
    assert list(first.lines[0].get_ydata()) == [0, 2, 4, 0]
    assert "time" in second.get_xlabel()
    assert "<svg" in figures.to_svg(figure)


def test_a_single_queue_is_drawn_on_one_pair_of_axes():
    (axes,) = Depths({"inbox": 2}, [(0.0, (0,)), (1.0, (0,))]).plot("title").axes
    assert axes.get_title(loc="left") == "title"
    assert axes.get_ylim()[1] > 2


def test_conditions_are_drawn_on_one_pair_of_axes():
    free = Depths({"inbox": None}, [(0.0, (0,)), (9.0, (99,))])
    bounded = Depths({"inbox": 20}, [(0.0, (0,)), (5.0, (20,))])
    figure = plot_depths({"no bound": free, "at most 20": bounded}, "title")
    (axes,) = figure.axes
    assert axes.get_legend_handles_labels()[1] == ["no bound", "at most 20"]
    assert [text.get_text() for text in axes.texts] == ["at most 20"]
    assert axes.get_xlim()[1] == 9
    assert "<svg" in figures.to_svg(figure)


def test_of_several_queues_one_must_be_named():
    with pytest.raises(ValueError, match="has the queues inbox, outbox: .*name='inbox'"):
        plot_depths({"a": RECORD})
    (axes,) = plot_depths({"a": RECORD}, name="outbox").axes
    assert list(axes.lines[0].get_ydata()) == [1, 1, 1, 1]
    with pytest.raises(ValueError, match="at least one record"):
        plot_depths({})


def test_a_long_record_is_drawn_with_few_points_that_keep_its_extremes():
    ys = [n % 5 for n in range(100_000)]
    ys[777], ys[-1] = 1000, -3
    xs, kept = depth._thinned([n / 1000 for n in range(100_000)], ys, most=100)
    assert len(xs) == len(kept) <= 404
    assert xs == sorted(xs) and xs[0] == 0 and xs[-1] == 99.999
    assert max(kept) == 1000 and kept[-1] == -3


def test_what_is_given_without_a_name_is_refused_with_a_hint():
    with pytest.raises(TypeError, match=r"give each queue a name: watch\(inbox=queue\)"):
        with watch(queue.Queue()):
            pass
    with watch(jobs=queue.Queue()) as record:
        pass
    with pytest.raises(TypeError, match="give each record a name"):
        plot_depths(record)


def test_a_queue_that_does_not_know_its_depth_gets_a_hint():
    class LikeOnMacOS:
        def qsize(self):
            raise NotImplementedError

    with pytest.raises(NotImplementedError) as caught:
        with watch(jobs=LikeOnMacOS()):
            pass
    assert any("watch(jobs=lambda: ...)" in note for note in caught.value.__notes__)
