import asyncio
import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest

from concurrency_lab import figures
from concurrency_lab.timeline import Timeline, plot_timelines

METHODS = multiprocessing.get_all_start_methods()


def work(value):
    return value * 2


def work_with_spans(timeline, value):
    with timeline.span(f"task {value}"):
        with timeline.waiting("read"):
            pass
        timeline.mark("half")
    return os.getpid()


def meet(timeline, barrier, label):
    with timeline.span(label):
        barrier.wait(60)


def die(timeline):
    with timeline.span("finished"):
        pass
    with timeline.span("doomed"):
        with timeline.waiting("for the end"):
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


def summary(timeline):
    return [(span.lane, span.label, span.kind) for span in timeline.spans]


def texts(figure):
    found = [text.get_text() for axes in figure.axes for text in axes.texts]
    return found + [t.get_text() for axes in figure.axes for t in axes.get_yticklabels()]


def test_spans_and_marks_of_the_main_thread():
    with Timeline() as timeline:
        with timeline.span("outer"):
            with timeline.blocked("lock"):
                pass
            timeline.mark("now")
    outer, lock = timeline.spans
    (mark,) = timeline.marks
    assert summary(timeline) == [("main", "outer", "run"), ("main", "lock", "blocked")]
    assert 0 <= outer.start <= lock.start <= lock.end <= mark.time <= outer.end
    assert (outer.process, outer.thread, outer.task, outer.pid) == (
        "main", None, None, os.getpid(),
    )  # fmt: skip
    assert (mark.label, mark.lane) == ("now", "main")
    assert repr(timeline) == "<Timeline: spans 2, marks 1, lanes 1>"


def test_threads_have_lanes_numbered_as_they_appear_or_named():
    with Timeline() as timeline:
        threads = []
        for label, name in [("a", None), ("b", "reader"), ("c", None)]:
            thread = threading.Thread(target=timeline.record(work), args=(label,), name=name)
            thread.start()
            thread.join()
            threads.append(thread)
        with timeline.span("end"):
            pass
    assert [span.lane for span in timeline.spans] == ["thread 1", "reader", "thread 2", "main"]


def test_threads_of_the_same_name_have_lanes_of_their_own():
    barrier = threading.Barrier(2)
    with Timeline() as timeline:
        threads = [
            threading.Thread(target=meet, args=(timeline, barrier, "x"), name="twin")
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {span.lane for span in timeline.spans} == {"twin", "twin 1"}


def test_many_threads_at_once_lose_nothing():
    def write(number):
        for i in range(200):
            with timeline.span(f"{number}-{i}"):
                pass

    with Timeline() as timeline:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(write, range(8)))
    assert sorted(span.label for span in timeline.spans) == sorted(
        f"{n}-{i}" for n in range(8) for i in range(200)
    )
    assert all(span.end >= span.start for span in timeline.spans)


@pytest.mark.parametrize("method", METHODS)
def test_processes_of_every_start_method(method):
    context = multiprocessing.get_context(method)
    with Timeline() as timeline:
        with timeline.span("all"):
            for value in range(2):
                process = context.Process(target=work_with_spans, args=(timeline, value))
                process.start()
                process.join()
                assert process.exitcode == 0
    assert summary(timeline) == [
        ("main", "all", "run"),
        ("process 1", "task 0", "run"),
        ("process 1", "read", "wait"),
        ("process 2", "task 1", "run"),
        ("process 2", "read", "wait"),
    ]
    # One clock for all: what happened in the children lies in the parent's span.
    everything, *rest = timeline.spans
    assert all(everything.start < span.start < span.end < everything.end for span in rest)
    assert len({span.pid for span in timeline.spans}) == 3
    assert [mark.lane for mark in timeline.marks] == ["process 1", "process 2"]


@pytest.mark.parametrize("method", METHODS)
def test_a_pool_of_processes(method):
    context = multiprocessing.get_context(method)
    with Timeline() as timeline:
        with ProcessPoolExecutor(2, mp_context=context) as pool:
            recorded = timeline.record(work, "item {0}")
            assert list(pool.map(recorded, range(10))) == [i * 2 for i in range(10)]
    assert sorted(span.label for span in timeline.spans) == [f"item {i}" for i in range(10)]
    assert timeline.spans[0].lane == "process 1"
    assert {span.lane for span in timeline.spans} <= {"process 1", "process 2"}


def test_a_pool_of_multiprocessing():
    with Timeline() as timeline:
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            assert pool.map(timeline.record(work), range(4)) == [0, 2, 4, 6]
            pool.close()
            pool.join()
    assert [span.label for span in timeline.spans] == ["work"] * 4


def test_a_pool_of_pathos():
    pathos = pytest.importorskip("pathos.multiprocessing")
    with Timeline() as timeline:
        pool = pathos.ProcessPool(nodes=2)
        try:
            assert pool.map(timeline.record(lambda v: v + 1, "λ {0}"), range(3)) == [1, 2, 3]
        finally:
            pool.close()
            pool.join()
            pool.clear()
    assert {span.label for span in timeline.spans} == {"λ 0", "λ 1", "λ 2"}
    assert {span.process for span in timeline.spans} <= {"process 1", "process 2"}


@pytest.mark.parametrize("method", METHODS)
def test_what_a_killed_worker_did_is_kept(method):
    with Timeline() as timeline:
        process = multiprocessing.get_context(method).Process(target=die, args=(timeline,))
        process.start()
        process.join()
        assert process.exitcode != 0
    finished, doomed, waiting = timeline.spans
    assert finished.end is not None
    assert (doomed.label, doomed.end) == ("doomed", None)
    assert (waiting.kind, waiting.end) == ("wait", None)
    assert "process 1" in texts(timeline.plot())


def test_a_line_cut_off_by_a_kill_is_left_out():
    with Timeline() as timeline:
        with timeline.span("whole"):
            pass
        (file,) = timeline._folder.iterdir()
        with open(file, "ab") as half:
            half.write(b'{"id": 7, "at": 1.0, "la')
        assert [span.label for span in timeline.spans] == ["whole"]


def test_threads_in_a_worker_process():
    context = multiprocessing.get_context("spawn")
    with Timeline() as timeline:
        with timeline.span("here"):
            process = context.Process(target=two_threads, args=(timeline,))
            process.start()
            process.join()
    assert [span.lane for span in timeline.spans] == [
        "main", "process 1", "process 1 · thread 1", "process 1 · thread 2",
    ]  # fmt: skip


def two_threads(timeline):
    with timeline.span("main thread"):
        for _ in range(2):
            thread = threading.Thread(target=timeline.record(work), args=(1,))
            thread.start()
            thread.join()


def test_asyncio_tasks_have_lanes_and_spans_last_across_await():
    async def fetch(number):
        with timeline.span(f"fetch {number}"):
            await started.wait()
        return number

    async def main():
        nonlocal started
        started = asyncio.Event()
        named = asyncio.create_task(fetch(2), name="crawler")
        tasks = [asyncio.create_task(fetch(i)) for i in range(2)]
        while len(timeline.spans) < 3:
            await asyncio.sleep(0)
        assert [span.end for span in timeline.spans] == [None] * 3  # all at once
        started.set()
        assert await asyncio.gather(named, *tasks) == [2, 0, 1]
        timeline.mark("end")

    started = None
    with Timeline() as timeline:
        asyncio.run(main())
    assert [(s.lane, s.label) for s in timeline.spans] == [
        ("crawler", "fetch 2"), ("task 1", "fetch 0"), ("task 2", "fetch 1"),
    ]  # fmt: skip
    assert timeline.max_running() == 3
    assert timeline.marks[0].lane == "task 3"


def test_a_recorded_coroutine_function_stays_one():
    async def double(value, *, times=2):
        await asyncio.sleep(0)
        return value * times

    with Timeline() as timeline:
        recorded = timeline.record(double, "{0} times {times}", kind="wait")
        assert asyncio.run(recorded(4, times=3)) == 12
    assert summary(timeline) == [("task 1", "4 times 3", "wait")]
    assert recorded.__name__ == "double"


def test_cells_of_a_notebook_are_main_and_only_tasks_made_in_them_are_tasks():
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    source = """
import asyncio
from concurrency_lab.timeline import Timeline
async def fetch():
    with timeline.span("task"):
        await asyncio.sleep(0)
with Timeline() as timeline:
    with timeline.span("cell"):
        await asyncio.sleep(0)
    await asyncio.gather(fetch(), fetch())
[(span.lane, span.label) for span in timeline.spans]
"""
    expected = [("main", "cell"), ("task 1", "task"), ("task 2", "task")]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    assert notebook.cells[0].outputs[0].data["text/plain"] == str(expected)


def test_a_span_ends_when_its_block_raises():
    with Timeline() as timeline:
        with pytest.raises(KeyboardInterrupt):
            with timeline.span("interrupted"):
                raise KeyboardInterrupt
    assert timeline.spans[0].end is not None


def test_a_span_object_can_be_used_again_and_a_lane_be_given():
    with Timeline() as timeline:
        span = timeline.span("again", lane="queue")
        with span, span:
            pass
        timeline.mark("full", lane="queue")
    assert [(s.lane, s.label) for s in timeline.spans] == [("queue", "again")] * 2
    assert all(span.end is not None for span in timeline.spans)
    assert timeline.marks[0].lane == "queue"


def test_max_running_counts_lanes_that_run_at_the_same_moment():
    barrier = threading.Barrier(3)
    with Timeline() as timeline:
        assert timeline.max_running() == 0
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda i: meet(timeline, barrier, str(i)), range(3)))
        with timeline.span("alone"):
            pass
        assert timeline.max_running() == 3


def test_max_running_leaves_out_waits_inside_runs():
    turns = [threading.Event() for _ in range(2)]

    def second():
        turns[0].wait(60)
        with timeline.span("second"):
            pass
        turns[1].set()

    with Timeline() as timeline:
        thread = threading.Thread(target=second)
        thread.start()
        with timeline.span("first"):
            with timeline.waiting():
                turns[0].set()
                turns[1].wait(60)
        thread.join()
    assert len(timeline.spans) == 3
    assert timeline.max_running() == 1


def test_the_folder_is_removed_by_the_creator_only():
    timeline = Timeline()
    folder = timeline._folder
    copy = pickle.loads(pickle.dumps(timeline))
    with copy.span("by the copy"):
        pass
    del copy
    gc.collect()
    assert folder.exists()
    assert timeline.spans[0].label == "by the copy"
    timeline.close()
    timeline.close()
    assert not folder.exists()
    assert timeline.spans[0].label == "by the copy"
    with pytest.raises(RuntimeError, match="closed"):
        with timeline.span("late"):
            pass
    with pytest.raises(RuntimeError, match="closed"):
        pickle.loads(pickle.dumps(timeline)).mark("late")


def test_folders_of_killed_creators_are_removed_later(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], stdout=-1)
    gone = int(gone.stdout)
    kept = [f"timeline-{os.getpid()}-old", f"timeline-{gone}-new", "timeline-of-others"]
    for name in [*kept, f"timeline-{gone}-old"]:
        (tmp_path / name).mkdir()
        if not name.endswith("new"):
            os.utime(tmp_path / name, (0, 0))
    with Timeline():
        pass
    assert {folder.name for folder in tmp_path.iterdir()} == set(kept)


def test_the_folder_goes_with_the_timeline():
    timeline = Timeline()
    folder = timeline._folder
    timeline.mark("x")
    del timeline
    gc.collect()
    assert not folder.exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_does_not_remove_the_folder():
    timeline = Timeline()
    child = os.fork()
    if child == 0:
        timeline.mark("child")
        timeline.close()
        os._exit(0 if timeline._folder.exists() else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert [mark.label for mark in timeline.marks] == ["child"]
    timeline.close()


@pytest.mark.parametrize("end", ["pass", "raise KeyboardInterrupt", "raise SystemExit(3)"])
def test_nothing_is_left_when_the_process_ends(end):
    code = (
        "from concurrency_lab.timeline import Timeline\n"
        "t = Timeline(); t.mark('x'); print(t._folder, flush=True)\n" + end
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    folder = Path(child.stdout.strip())
    assert folder.name.startswith("timeline-")
    assert not folder.exists()


def test_a_span_that_outlives_the_timeline_has_no_end():
    timeline = Timeline()
    with timeline.span("long"):
        timeline.close()
    assert timeline.spans[0].end is None


@pytest.mark.parametrize("method", ["span", "record"])
def test_an_unknown_kind_is_refused(method):
    with Timeline() as timeline:
        with pytest.raises(ValueError, match="run, wait, blocked"):
            getattr(timeline, method)(work, kind="sleep")
        with pytest.raises(TypeError, match="needs a function"):
            timeline.record("work")


def lanes_of(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def crafted(spans, marks=()):
    """A timeline with given records, to draw what does not depend on speed."""
    from concurrency_lab.timeline import Mark, Span

    timeline = Timeline()
    timeline.close()
    timeline._kept = (
        [Span(label, kind, a, b, "main", None, None, lane, 1) for label, kind, a, b, lane in spans],
        [Mark(label, at, "main", lane, 1) for label, at, lane in marks],
    )
    return timeline


def test_plot_shows_lanes_labels_that_fit_marks_and_a_legend():
    timeline = crafted(
        [
            ("compute", "run", 0.0, 0.6, "a"),
            ("read", "wait", 0.2, 0.4, "a"),
            ("lock", "blocked", 0.0, 0.5, "b"),
            ("tiny", "run", 0.5, 0.501, "b"),
            ("lost", "run", 0.7, None, "b"),
        ],
        [("killed", 0.9, "c")],
    )
    figure = timeline.plot("Title")
    (axes,) = figure.axes
    assert axes.get_title(loc="left") == "Title"
    assert axes.get_xlabel() == "time (ms)"
    assert lanes_of(axes) == ["a", "b", "c"]
    assert {text.get_text() for text in axes.texts} == {"compute", "read", "lock", "lost", "killed"}
    words = [text.get_text() for text in axes.get_legend().get_texts()]
    assert words == ["running", "waiting", "blocked", "no end seen"]
    assert lanes_of(timeline.plot(order=["c", "b"]).axes[0]) == ["c", "b", "a"]
    with pytest.raises(ValueError, match="no lane 'z'.*only: a, b, c"):
        timeline.plot(order=["z"])


def test_a_label_is_not_covered_by_what_lies_inside_its_span():
    timeline = crafted(
        [("outer", "run", 0.0, 1.0, "a"), ("inner", "wait", 0.1, 0.9, "a")], [("m", 0.5, "a")]
    )
    (axes,) = timeline.plot().axes
    shown = {text.get_text(): text.get_position()[0] for text in axes.texts}
    assert "outer" not in shown or not 0.1 < shown["outer"] < 0.9
    timeline = crafted([("outer", "run", 0.0, 1.0, "a"), ("inner", "wait", 0.1, 0.4, "a")])
    (axes,) = timeline.plot().axes
    assert [t.get_position()[0] for t in axes.texts if t.get_text() == "outer"] == [0.7]


def test_kinds_differ_by_more_than_colour():
    timeline = crafted([(k, k, 0.0, 1.0, k) for k in ("run", "wait", "blocked")])
    (axes,) = timeline.plot().axes
    looks = {(p.get_hatch(), round(p.get_path().get_extents().height, 2)) for p in axes.patches}
    assert len({hatch for hatch, _ in looks}) == len({height for _, height in looks}) == 3


def test_thousands_of_spans_stay_a_small_file():
    spans = [("x", "run", i / 100, (i + 0.9) / 100, f"lane {i % 10}") for i in range(5000)]
    assert len(figures.to_svg(crafted(spans).plot())) < 60_000


def test_several_timelines_share_the_axis():
    one = crafted([("x", "run", 0.0, 3.0, "a")])
    two = crafted([("x", "wait", 0.0, 1.0, "b"), ("x", "wait", 0.0, 1.0, "c")])
    figure = plot_timelines({"first": one, "second": two})
    upper, lower = figure.axes
    assert upper.get_xlim() == lower.get_xlim()
    assert upper.get_xlim()[1] > 3
    assert (upper.get_title(loc="left"), lower.get_title(loc="left")) == ("first", "second")
    assert lower.get_xlabel() == "time (s)"
    assert [lanes_of(axes) for axes in figure.axes] == [["a"], ["b", "c"]]
    with pytest.raises(ValueError, match="at least one"):
        plot_timelines({})


def test_nothing_to_draw_is_said():
    with Timeline() as timeline, pytest.raises(ValueError, match="no spans and no marks"):
        timeline.plot()
