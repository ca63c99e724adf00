import html
import multiprocessing
import re
import subprocess

import pytest

from concurrency_lab.experiments import start_methods
from concurrency_lab.experiments.start_methods import (
    HEAD,
    METHODS,
    MIME_TYPE,
    PHRASES,
    ROWS,
    Arrivals,
    arrivals,
    each_start_method,
    render_html,
)

LONG = 120  # a limit that is not reached, however loaded the machine is
HERE = [method for method in METHODS if method in multiprocessing.get_all_start_methods()]


pytestmark = pytest.mark.usefixtures("no_run_left")


def test_a_script_runs_under_every_start_method_and_its_children_do_too():
    outcomes = each_start_method(
        """
        import multiprocessing

        print("top", __name__)

        def child():
            parent = multiprocessing.parent_process().pid
            print("child", multiprocessing.get_start_method(), parent)

        if __name__ == "__main__":
            import os
            print("parent", multiprocessing.get_start_method(), os.getpid())
            process = multiprocessing.Process(target=child)
            process.start()
            process.join()
        """,
        timeout=LONG,
    )
    assert list(outcomes) == HERE
    for method, outcome in outcomes.items():
        assert (outcome.exit_code, outcome.errors) == (0, "")
        lines = outcome.output.splitlines()
        parent = next(line for line in lines if line.startswith("parent"))
        child = next(line for line in lines if line.startswith("child"))
        assert parent.split()[1:] == child.split()[1:]
        assert child.split()[1] == method
        assert lines[0] == "top __main__"
        assert ("top __mp_main__" in lines) == (method != "fork")


def test_line_numbers_in_tracebacks_are_those_of_the_script():
    outcomes = each_start_method(
        "from __future__ import annotations\n"
        "import multiprocessing\n"
        "def fail():\n"
        "    1 / 0\n"
        "if __name__ == '__main__':\n"
        "    process = multiprocessing.Process(target=fail)\n"
        "    process.start()\n"
        "    process.join()\n"
        "    raise SystemError('in the parent')\n",
        timeout=LONG,
    )
    for outcome in outcomes.values():
        assert outcome.exit_code == 1
        child, parent = re.findall(r'File "[^"]*isolated.py", line (\d+), in', outcome.errors)
        assert (child, parent) == ("4", "9")
        assert "SystemError: in the parent" in outcome.errors
        assert "start_methods" not in outcome.errors
        assert "_isolated_child" not in outcome.errors


def test_a_script_that_hangs_is_stopped_and_shows_where():
    for outcome in each_start_method("import time\n\ntime.sleep(3600)\n", timeout=0.3).values():
        assert outcome.timed_out
        assert '"isolated.py", line 3 in <module>\n    time.sleep(3600)' in outcome.stacks
        assert "start_methods" not in outcome.stacks


@pytest.mark.parametrize(
    "script, exit_code, told",
    [
        ("raise SystemExit(3)", 3, ""),
        ("print(", 1, "SyntaxError"),
        ("import multiprocessing\nmultiprocessing.set_start_method('spawn')", 1, "already"),
    ],
)
def test_a_script_that_ends_badly_says_so(script, exit_code, told):
    for outcome in each_start_method(script, timeout=LONG).values():
        assert outcome.exit_code == exit_code
        assert told in outcome.errors


def test_what_is_no_source_is_refused():
    with pytest.raises(TypeError, match="source of a script"):
        each_start_method(print)


def test_processes_that_a_script_leaves_are_ended():
    script = """
        import multiprocessing, os, time

        def child():
            time.sleep(3600)

        if __name__ == "__main__":
            multiprocessing.Process(target=child).start()
            os._exit(0)
    """
    assert {outcome.exit_code for outcome in each_start_method(script, LONG).values()} == {0}


@pytest.mark.parametrize("measure", [lambda: each_start_method("pass"), arrivals])
def test_nothing_is_left_after_ctrl_c(measure, monkeypatch):
    def interrupt(self, timeout=None):
        if timeout is not None:
            raise KeyboardInterrupt
        return wait(self)

    wait = subprocess.Popen.wait
    monkeypatch.setattr(subprocess.Popen, "wait", interrupt)
    with pytest.raises(KeyboardInterrupt):
        measure()


# -- arrivals -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found():
    return arrivals()


def test_the_columns_are_the_start_methods_of_this_system(found):
    assert list(found.methods) == HERE
    assert set(found.absent) == set(METHODS) - set(HERE)
    assert found.rows == tuple(ROWS.values())


FORKED_FINDS_ALL_BUT = {"top", "pickled", "thread", "random"}
NEW_FINDS = {"top", "argument", "pickled", "early", "folder", "path"}


@pytest.mark.parametrize("method", HERE)
def test_a_child_finds_what_its_start_method_gives_it(method, found):
    expected = {
        "fork": set(ROWS) - FORKED_FINDS_ALL_BUT,
        "forkserver": NEW_FINDS,
        "spawn": NEW_FINDS | {"late"},
    }[method]
    assert {key for key, row in ROWS.items() if found[method, row]} == expected
    assert all(isinstance(found.of(method, row), bool) for row in found.rows)


def test_a_failing_script_is_told(monkeypatch):
    monkeypatch.setattr(start_methods, "_SCRIPT", "raise SystemError('the reason')")
    with pytest.raises(RuntimeError, match="the reason"):
        arrivals()


FORK, SPAWN = ({row: n % 2 == bit for n, row in enumerate(ROWS.values())} for bit in (0, 1))
MADE = Arrivals({"fork": FORK, "spawn": SPAWN}, absent={"forkserver": "there is none"})


def test_a_method_that_is_absent_finds_nothing_and_wrong_names_are_told():
    row = ROWS["path"]
    assert MADE["forkserver", row] is None
    assert MADE["fork", row] is not MADE["spawn", row]
    with pytest.raises(KeyError, match="there are fork, forkserver, spawn"):
        MADE["thread", row]
    with pytest.raises(KeyError, match="sys.path changed"):
        MADE.of("fork", "weather")
    with pytest.raises(KeyError, match="a start method and a row"):
        MADE["fork"]


def test_a_table_says_yes_and_no_as_text_and_as_html():
    head, *lines = str(MADE).splitlines()
    assert head.split() == ["fork", "spawn"]
    assert [re.split(r"  +", line) for line in lines] == [
        [row, *(("yes", "no") if FORK[row] else ("no", "yes"))] for row in ROWS.values()
    ]
    page = MADE._repr_html_()
    assert page.startswith('<table class="arrivals">')
    heads = [html.unescape(text) for text in re.findall(r"<th [^>]*>(.*?)</th>", page)]
    assert heads == [HEAD, "fork", "spawn", *ROWS.values()]
    assert re.findall(r"<td[^>]*>(.*?)</td>", page) == [
        text
        for row in ROWS.values()
        for text in (
            ("<strong>yes</strong>", "no") if FORK[row] else ("no", "<strong>yes</strong>")
        )
    ]


def test_a_translation_replaces_every_phrase():
    bundle = MADE._repr_mimebundle_()
    assert bundle["text/html"] == MADE._repr_html_()
    words = {phrase: f"({number})" for number, phrase in enumerate(PHRASES)}
    page = render_html(bundle[MIME_TYPE], words)
    texts = set(re.findall(r">([^<>]+)<", page))
    assert texts == {"fork", "spawn"} | {words[p] for p in PHRASES if p != "not known"}
    unknown = {**bundle[MIME_TYPE], "rows": [[HEAD, [None, None]]]}
    assert render_html(unknown, words).count(words["not known"]) == 2
