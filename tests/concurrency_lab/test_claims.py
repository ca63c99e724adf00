import math
import os
import re
import subprocess
import sys
from dataclasses import asdict
from xml.etree import ElementTree

import numpy as np
import pytest

from concurrency_lab import claims
from concurrency_lab.claims import Claim, claim, evaluate, number, render_html
from concurrency_lab.timing import Sample


def sample(low, median, high, unit="times", others=0.0, slowdown=1.0):
    return Sample((low, median, high), unit, others, slowdown)


@pytest.mark.parametrize(
    "measured, expected, verdict",
    [
        # The median decides what holds, however wide the spread and however busy the computer.
        (sample(1.8, 1.9, 2.0), {"at_least": 1.5}, "holds"),
        (sample(1.0, 1.9, 2.0, others=1.0), {"at_least": 1.5}, "holds"),
        (sample(1.5, 1.5, 1.5), {"at_least": 1.5}, "holds"),
        (sample(0.9, 1.0, 1.3), {"at_most": 1.15}, "holds"),
        (sample(0.8, 1.0, 1.3), {"between": (0.9, 1.1)}, "holds"),
        # A false claim on a quiet computer.
        (sample(0.9, 1.0, 1.1), {"at_least": 1.5}, "fails"),
        (sample(0.9, 1.0, 1.1, others=0.14), {"at_least": 1.5}, "fails"),
        (sample(1.8, 1.9, 2.0), {"at_most": 1.15}, "fails"),
        (sample(1.8, 1.9, 2.0), {"between": (0.9, 1.1)}, "fails"),
        (sample(0.2, 0.3, 0.4), {"between": (0.9, 1.1)}, "fails"),
        # What cannot be decided.
        (sample(0.9, 1.0, 1.1, others=0.15), {"at_least": 1.5}, "not measured"),
        (sample(0.9, 1.0, 1.5), {"at_least": 1.5}, "not measured"),
        (sample(1.0, 1.9, 2.0), {"at_most": 1.15}, "not measured"),
        # Slowed down by what cannot be seen: the interval, times 1.3, reaches the range or not.
        (sample(1.1, 1.2, 1.3, slowdown=1.3), {"at_least": 1.5}, "not measured"),
        (sample(0.9, 1.0, 1.1, slowdown=1.3), {"at_least": 1.5}, "fails"),
        (sample(0.7, 0.8, 0.9, slowdown=1.3), {"at_most": 0.6}, "not measured"),
        (sample(0.9, 1.0, 1.1, slowdown=1.3), {"at_most": 0.6}, "fails"),
        (sample(1.5, 1.6, 1.7, slowdown=9.9), {"at_least": 1.5}, "holds"),
        (sample(1.0, 1.9, 2.0), {"between": (0.9, 1.1)}, "not measured"),
        # Plain values.
        (2, {"at_least": 2}, "holds"),
        (1.99, {"at_least": 2}, "fails"),
        (1.1, {"at_most": 1.15}, "holds"),
        (1.2, {"at_most": 1.15}, "fails"),
        (0.9, {"between": (0.9, 1.1)}, "holds"),
        (math.inf, {"between": (0.9, 1.1)}, "fails"),
        (np.float64(1.2), {"at_most": 1.15}, "fails"),
        (20, {"equals": 20}, "holds"),
        (np.int64(19), {"equals": 20}, "fails"),
        (True, {"equals": True}, "holds"),
        (np.bool_(False), {"equals": True}, "fails"),
        ("SIGSEGV", {"equals": "SIGSEGV"}, "holds"),
        ([1, 2], {"equals": [1, 2]}, "holds"),
        ({"a"}, {"equals": {"b"}}, "fails"),
    ],
)
def test_verdict(measured, expected, verdict):
    assert evaluate("It is so.", measured, **expected).verdict == verdict


def test_text_has_the_shape_that_notebooks_compare():
    checked = evaluate("One core\n  is busy.", sample(0.991, 1.0234, 1.0512, "cores"), at_most=1.15)
    assert str(checked) == (
        "[holds] One core is busy.\n"
        "  expected: at most 1.15 cores\n"
        "  measured: 1.02 [0.99..1.05] cores"
    )


@pytest.mark.parametrize(
    "measured, options, expected, shown",
    [
        (
            sample(1, 2, 3),
            {"at_least": 3},
            "at least 3 times",
            "2.00 [1.00..3.00] times; no verdict: the spread",
        ),
        (
            sample(1, 2, 2, others=0.93),
            {"at_least": 3},
            "at least 3 times",
            "programs used 0.93 co",
        ),
        (sample(0.05, 0.06, 0.07, "s"), {"at_most": 0.5}, "at most 500 ms", "60.0 [50.0..70.0] ms"),
        (0.2, {"between": (0.05, 0.25), "unit": "s"}, "between 50 and 250 ms", "200 ms"),
        (
            sample(2, 2, 2, ""),
            {"at_least": 1, "unit": "cores"},
            "at least 1 core",
            "2.00 [2.00..2.0",
        ),
        (0.9999, {"at_most": 1, "unit": "s"}, "at most 1 s", "measured: 1.00 s"),
        (0.0, {"at_most": 1, "unit": "s"}, "at most 1 s", "measured: 0.00 s"),
        (1, {"equals": 1, "unit": "processes"}, "exactly 1 process", "measured: 1 process"),
        (12, {"equals": 12, "unit": "times"}, "exactly 12 times", "measured: 12 times"),
        (49000, {"equals": 49000}, "exactly 49,000", "measured: 49,000"),
        (3.0, {"at_least": 1.125}, "at least 1.125", "measured: 3.00"),
        (False, {"equals": True}, "yes", "measured: no"),
        ("hung", {"equals": "crashed"}, "crashed", "measured: hung"),
        ((1, 2), {"equals": (1, 2)}, "(1, 2)", "measured: (1, 2)"),
    ],
)
def test_numbers_and_units(measured, options, expected, shown):
    checked = evaluate("It is so.", measured, **options)
    assert checked.expected == expected
    assert shown in str(checked)


@pytest.mark.parametrize(
    "value, text",
    [(1.8, "1.80"), (12.34, "12.3"), (1234.5, "1230"), (12345.6, "12,300"), (9.996, "10.0"),
     (0.00012, "0.000120"), (0, "0"), (7, "7"), (49000, "49,000"), (-3.14159, "-3.14"),
     (math.inf, "inf")],
)  # fmt: skip
def test_three_significant_digits(value, text):
    assert number(value) == text


def test_unless_takes_the_first_reason_there_is():
    for unless in ("no fork here", [None, "no fork here", "too few cores"], (None, "no fork here")):
        checked = evaluate("Fork is quick.", None, at_least=2, unit="times", unless=unless)
        assert checked.verdict == "not applicable"
        assert checked.reason == "no fork here"
        assert str(checked).endswith("  measured: nothing: no fork here")
    assert evaluate("Fork is quick.", 3, at_least=2, unless=[None, None]).verdict == "holds"


def test_undecided_shows_what_was_seen_and_why_it_tells_nothing():
    checked = evaluate("S.", sample(1, 2, 3), at_least=2, unit="cores", undecided=[None, "no core"])
    assert (checked.verdict, checked.reason) == ("not measured", "no core")
    assert str(checked).endswith("  measured: 2.00 [1.00..3.00] cores; no verdict: no core")
    assert evaluate("S.", 3, at_least=2, undecided="no core").verdict == "not measured"
    assert evaluate("S.", 3, at_least=2, undecided=None).verdict == "holds"
    assert evaluate("S.", None, at_least=2, undecided="x", unless="y").verdict == "not applicable"


def test_load_does_not_excuse_a_value_that_it_can_only_have_lowered():
    high = Sample((1.8, 1.9, 2.0), "cores", others=0.9, lowered_by_load=True)
    assert evaluate("S.", high, at_most=1.15).verdict == "fails"
    assert evaluate("S.", high, at_least=2.5).verdict == "not measured"


@pytest.mark.parametrize(
    "error, message, arguments, options",
    [
        (TypeError, "exactly one of", ("It is so.", 1), {}),
        (TypeError, "exactly one of", ("It is so.", 1), {"at_least": 1, "equals": 1}),
        (TypeError, "unless=", ("It is so.", None), {"at_least": 1}),
        (TypeError, "unless=", ("It is so.", math.nan), {"at_least": 1}),
        (TypeError, "use equals=", ("It is so.", True), {"at_least": 1}),
        (TypeError, "use equals=", ("It is so.", "2"), {"at_least": 1}),
        (TypeError, "between=", ("It is so.", sample(1, 2, 3)), {"equals": 2}),
        (TypeError, "call the function", ("It is so.", 1), {"equals": 1, "unless": print}),
        (TypeError, "in words", ("It is so.", 1), {"equals": 1, "unless": [True]}),
        (ValueError, "smaller end first", ("It is so.", 1), {"between": (2, 1)}),
        (ValueError, "sentence", (" \n", 1), {"equals": 1}),
    ],
)
def test_errors_say_what_to_do(error, message, arguments, options):
    with pytest.raises(error, match=re.escape(message)):
        evaluate(*arguments, **options)


def test_equals_none_is_an_expectation():
    with pytest.raises(TypeError, match="nothing was measured"):
        evaluate("It returns nothing.", None, equals=None)
    assert evaluate("It returns nothing.", 1, equals=None).verdict == "fails"


def test_mime_bundle_is_understood_by_ipython():
    from IPython.core.formatters import DisplayFormatter

    checked = evaluate("a < b & c", sample(1, 2, 3), at_least=3)
    data, _ = DisplayFormatter().format(checked)
    assert data["text/plain"] == str(checked)
    assert data[claims.MIME_TYPE] == asdict(checked)
    assert all(isinstance(value, str) for value in data[claims.MIME_TYPE].values())
    assert data["text/html"] == render_html(data[claims.MIME_TYPE])


@pytest.mark.parametrize("verdict", ["holds", "fails", "not measured", "not applicable"])
def test_html_tells_the_verdict_in_words_and_is_well_formed(verdict):
    reason = "" if verdict in ("holds", "fails") else "x < y"
    measured = "" if verdict == "not applicable" else "1"
    root = ElementTree.fromstring(
        render_html(asdict(Claim("a < b & c", measured, "2", verdict, reason)))
    )
    assert root.get("class").split() == ["claim", "claim-" + verdict.replace(" ", "-")]
    assert root.get("role") == "note"
    words = [text for element in root.iter() for text in (element.text, element.tail) if text]
    assert f" {verdict}" in words
    assert "a < b & c" in words
    assert root.find(".//span[@class='claim-sign']").get("aria-hidden") == "true"
    last = {"not measured": "1; no verdict: x < y", "not applicable": "nothing: x < y"}
    assert f"measured: {last.get(verdict, '1')}" in words


def test_verdicts_differ_in_sign_and_colour():
    assert len(set(claims._SIGNS.values())) == len(set(claims._COLOURS.values())) == 4


@pytest.mark.parametrize("background", ["#ffffff", "#111111", "#1e1e1e"])
@pytest.mark.parametrize("colour", claims._COLOURS.values())
def test_colours_can_be_seen_in_light_and_dark(colour, background):
    """Contrast of 3 for graphics: WCAG 2.2, success criterion 1.4.11."""

    def luminance(text):
        channels = (int(text[i : i + 2], 16) / 255 for i in (1, 3, 5))
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    darker, lighter = sorted((luminance(colour), luminance(background)))
    assert (lighter + 0.05) / (darker + 0.05) >= 3


@pytest.mark.parametrize(
    "measured, options",
    [
        (sample(1, 2, 3), {"at_least": 3}),
        (sample(1, 2, 2, slowdown=2), {"at_least": 3}),
        (sample(1, 2, 3, "cores", others=1), {"between": (4, 5)}),
        (sample(1, 1, 1, "cores"), {"at_most": 1}),
        (1, {"equals": 1, "unit": "times"}),
        (True, {"equals": False}),
        (None, {"equals": 1, "unit": "core", "unless": "123"}),
    ],
)
def test_translation_leaves_no_english(measured, options):
    numbered = {
        phrase: f"#{i}#" + "{}" * phrase.count("{}") for i, phrase in enumerate(claims.PHRASES)
    }
    markup = render_html(asdict(evaluate("123", measured, **options)), numbered)
    text = "".join(ElementTree.fromstring(markup).itertext())
    assert not re.search("[A-Za-z]", text), text


def test_translation_may_reorder():
    korean = {
        "holds": "성립", "expected": "예상", "measured": "측정", "at least {}": "{} 이상",
        "between {} and {}": "{}~{}", "{} times": "{}배",
    }  # fmt: skip
    markup = render_html(asdict(evaluate("참이다.", 4.0, at_least=3, unit="times")), korean)
    assert "예상: 3배 이상" in markup and "측정: 4.00배" in markup and "성립" in markup
    markup = render_html(asdict(evaluate("참이다.", 4.0, between=(3, 5), unit="times")), korean)
    assert "예상: 3~5배" in markup


def test_claim_prints_without_ipython(capsys):
    assert claim("It is so.", 1, equals=1) is None
    assert capsys.readouterr().out == str(evaluate("It is so.", 1, equals=1)) + "\n"


def test_claim_displays_in_ipython(tmp_path):
    code = "from concurrency_lab import claim; claim('It is so.', 1, equals=1)"
    shell = subprocess.run(
        [sys.executable, "-m", "IPython", "--no-banner", "--colors=NoColor", "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"IPYTHONDIR": str(tmp_path)},
    )
    assert "[holds] It is so.\n  expected: exactly 1\n  measured: 1" in shell.stdout
