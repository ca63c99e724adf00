"""Claims: a sentence of the course, checked against what this computer just measured.

A chapter says ``claim("Threads do not speed this up.", speedup, at_most=1.2)``. The verdict is
one of

- ``holds``: what was measured is in the expected range;
- ``fails``: it is not, and nothing else explains it;
- ``not measured``: it is not, but the measurement cannot decide (a busy computer, a wide spread);
- ``not applicable``: the claim is about another Python, system or number of cores.
"""

from __future__ import annotations

import html
import math
import numbers
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

MIME_TYPE = "application/vnd.concurrency-lab.claim+json"

#: A range missed while other programs used this many cores or more is "not measured", not "fails".
BUSY_CORES = 0.15

#: Every fixed phrase in a rendered claim. A translation maps each of them, ``{}`` included.
PHRASES = (
    "holds", "fails", "not measured", "not applicable", "expected", "measured",
    "{}; no verdict: {}", "nothing: {}",
    "at least {}", "at most {}", "between {} and {}", "exactly {}", "yes", "no",
    "other programs used {} cores", "the spread is too wide to decide",
    "two threads slowed each other down {} times",
    "{} cores", "{} core", "{} times", "{} time",
)  # fmt: skip

_SIGNS = {"holds": "\u2713", "fails": "\u2717", "not measured": "?", "not applicable": "\u2013"}
# Each colour has a contrast of 3 or more on white and on JupyterLab's dark grey.
_COLOURS = {
    "holds": "#2e8b57",
    "fails": "#d5402b",
    "not measured": "#b07d12",
    "not applicable": "#7d8590",
}
_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "\u00b5s"), (1e-9, "ns"))
_UNSET: Any = object()


@dataclass(frozen=True)
class Claim:
    """A checked claim, all in words; ``reason`` says why there is no verdict, if there is none."""

    sentence: str
    measured: str
    expected: str
    verdict: str
    reason: str = ""

    def __str__(self) -> str:
        return "\n".join(
            (
                f"[{self.verdict}] {self.sentence}",
                f"  expected: {self.expected}",
                f"  measured: {outcome(asdict(self))}",
            )
        )

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        fields = asdict(self)
        return {"text/plain": str(self), "text/html": render_html(fields), MIME_TYPE: fields}


def claim(
    sentence: str,
    measured: Any,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    between: tuple[float, float] | None = None,
    equals: Any = _UNSET,
    unit: str = "",
    unless: str | None | Iterable[str | None] = None,
    undecided: str | None | Iterable[str | None] = None,
) -> None:
    """Check a claim and show the verdict: `evaluate`, then display (in IPython) or print."""
    checked = evaluate(
        sentence,
        measured,
        at_least=at_least,
        at_most=at_most,
        between=between,
        equals=equals,
        unit=unit,
        unless=unless,
        undecided=undecided,
    )
    ipython = sys.modules.get("IPython")
    if ipython is not None and ipython.get_ipython() is not None:
        from IPython.display import display

        display(checked)
    else:
        print(checked)


def evaluate(
    sentence: str,
    measured: Any,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    between: tuple[float, float] | None = None,
    equals: Any = _UNSET,
    unit: str = "",
    unless: str | None | Iterable[str | None] = None,
    undecided: str | None | Iterable[str | None] = None,
) -> Claim:
    """Check a claim without showing it.

    ``measured`` is a number or a `Sample`; with ``equals`` it may be any value but a `Sample`.
    Exactly one of ``at_least``, ``at_most``, ``between`` (both ends included) and ``equals`` says
    what is expected. ``unit`` is written after the numbers (default: the sample's own).

    ``unless`` is a reason why the claim does not apply here, or None, or several of those: the
    first reason there is makes the verdict "not applicable", and ``measured`` may then be None.

    ``undecided`` is the same for a reason why nothing can be concluded from this measurement (a
    control experiment failed, for example): the verdict is then "not measured".

    A `Sample` holds if its median is in range. It fails only if its whole interval is out of
    range, also when stretched by the sample's `slowdown`, and other programs used less than
    `BUSY_CORES` cores. Otherwise it is "not measured".

    Raises TypeError for a missing or doubled expectation, or a value that cannot be compared.
    """
    sentence = " ".join(sentence.split())
    if not sentence:
        raise ValueError("a claim needs a sentence that says what should be true")
    unit = unit or getattr(measured, "unit", "")
    low, high, expected = _expectation(at_least, at_most, between, equals, unit)
    if reason := _first_reason(unless):
        return Claim(sentence, "", expected, "not applicable", reason)

    measured = _plain(measured)
    if measured is None or (isinstance(measured, float) and math.isnan(measured)):
        raise TypeError(
            f"nothing was measured ({measured}) for the claim {sentence!r}. If it cannot be "
            "measured here, say why: unless='this system has no fork'"
        )
    if reason := _first_reason(undecided, "undecided"):
        if hasattr(measured, "median"):
            seen = spread(measured.median, measured.low, measured.high, unit)
        else:
            seen = _value(measured, unit)
        return Claim(sentence, seen, expected, "not measured", reason)
    if hasattr(measured, "median"):
        return _judge_sample(sentence, measured, low, high, expected, unit)
    if low is None:
        holds = bool(measured == equals)
    elif isinstance(measured, numbers.Real) and not isinstance(measured, bool):
        holds = low <= measured <= high
    else:
        raise TypeError(f"a range needs a number or a Sample, not {measured!r}; use equals=")
    return Claim(sentence, _value(measured, unit), expected, "holds" if holds else "fails")


def render_html(claim: Mapping[str, str], words: Mapping[str, str] | None = None) -> str:
    """HTML of a claim from its dict of texts (the `MIME_TYPE` data).

    ``words`` maps `PHRASES` to another language, such as ``{"at least {}": "{} oder mehr"}``; the
    sentence is left as it is. Styled by the classes ``claim``, ``claim-holds`` and so on, or, where
    there is no style sheet, by little inline style whose colours are CSS variables.
    """

    def text(key: str) -> str:
        return html.escape(translate(key, words or {}))

    verdict = claim["verdict"]
    slug = "claim-" + verdict.replace(" ", "-")
    return (
        f'<div class="claim {slug}" role="note" style="border-inline-start:.3rem solid '
        f'var(--{slug},{_COLOURS[verdict]});padding:.1rem 0 .1rem .8rem;margin:.4rem 0">'
        f'<p class="claim-head" style="margin:.2rem 0">'
        f'<strong class="claim-verdict"><span class="claim-sign" aria-hidden="true">'
        f"{_SIGNS[verdict]}</span> {text(verdict)}</strong> "
        f'<span class="claim-sentence">{html.escape(claim["sentence"])}</span></p>'
        f'<p class="claim-facts" style="margin:.2rem 0;font-size:.9em">'
        f'<span class="claim-expected">{text("expected")}: {text(claim["expected"])}</span>'
        f'<span class="claim-separator" aria-hidden="true"> \u00b7 </span>'
        f'<span class="claim-measured">{text("measured")}: {text(outcome(claim))}</span></p></div>'
    )


def translate(text: str, words: Mapping[str, str]) -> str:
    """``text`` as it stands in ``words``, or by the first phrase there that it is made of."""
    if text in words:
        return words[text]
    for phrase, translation in words.items():
        pattern = re.escape(phrase).replace(r"\{\}", "(.+)")
        if match := re.fullmatch(pattern, text, re.DOTALL):
            return translation.format(*(translate(gap, words) for gap in match.groups()))
    return text


def number(value: float, digits: int = 3) -> str:
    """``value`` with so many significant digits; a whole number as it is: 1.80, 12.3, 49,000."""
    if isinstance(value, numbers.Integral):
        return f"{value:,d}" if abs(value) >= 10_000 else f"{value:d}"
    if not math.isfinite(value):
        return str(value)
    return _fixed(value, _decimals(value, digits))


def spread(median: float, low: float, high: float, unit: str = "", spec: str = "") -> str:
    """A median and its interval, ``1.87 [1.80..1.95] times``, all with the median's decimals.

    Seconds (unit "s") become ms, µs or ns. ``spec`` is a format for each number instead.
    """
    unit, median, low, high = _scaled(unit, median, low, high)
    decimals = _decimals(median, 3)
    texts = [format(v, spec) if spec else _fixed(v, decimals) for v in (median, low, high)]
    return _with_unit(f"{texts[0]} [{texts[1]}..{texts[2]}]", unit)


def _judge_sample(sentence, sample, low, high, expected, unit) -> Claim:
    if low is None:
        raise TypeError("a Sample is never exactly equal to a value; use between=, not equals=")
    seen = spread(sample.median, sample.low, sample.high, unit)
    if low <= sample.median <= high:
        return Claim(sentence, seen, expected, "holds")
    if sample.low > high and getattr(sample, "lowered_by_load", False):
        return Claim(sentence, seen, expected, "fails")
    if sample.others >= BUSY_CORES:
        reason = f"other programs used {number(sample.others, 2)} cores"
    elif sample.low <= high and sample.high >= low:
        reason = "the spread is too wide to decide"
    elif sample.low / sample.slowdown <= high and sample.high * sample.slowdown >= low:
        reason = f"two threads slowed each other down {number(sample.slowdown)} times"
    else:
        return Claim(sentence, seen, expected, "fails")
    return Claim(sentence, seen, expected, "not measured", reason)


def _expectation(at_least, at_most, between, equals, unit):
    """The range (None, None for equals) and its text."""
    if sum((at_least is not None, at_most is not None, between is not None,
            equals is not _UNSET)) != 1:  # fmt: skip
        raise TypeError("a claim needs exactly one of at_least=, at_most=, between= and equals=")
    if at_least is not None:
        return at_least, math.inf, f"at least {_bound(at_least, unit)}"
    if at_most is not None:
        return -math.inf, at_most, f"at most {_bound(at_most, unit)}"
    if between is not None:
        low, high = between
        if low > high:
            raise ValueError(f"between=({low}, {high}) is empty: give the smaller end first")
        unit, end, start = _scaled(unit, high, low)
        return low, high, f"between {_short(start)} and {_with_unit(_short(end), unit)}"
    equals = _plain(equals)
    is_number = isinstance(equals, numbers.Real) and not isinstance(equals, bool)
    text = _bound(equals, unit) if is_number else _value(equals, unit)
    return None, None, f"exactly {text}" if is_number else text


def _first_reason(unless, option: str = "unless") -> str | None:
    reasons = [unless] if unless is None or isinstance(unless, str) else unless
    if not isinstance(reasons, Iterable):
        raise TypeError(
            f"{option}= takes a reason in words, None, or several of them, not {unless!r} "
            "(call the function: unless=machine.no_gil())"
        )
    for reason in reasons:
        if reason is not None and not isinstance(reason, str):
            raise TypeError(f"{option}= takes reasons in words or None, not {reason!r}")
        if reason:
            return " ".join(reason.split())
    return None


def outcome(claim: Mapping[str, str]) -> str:
    """What the line "measured" says: the value, and why there is no verdict if there is none."""
    if not claim["reason"]:
        return claim["measured"]
    if not claim["measured"]:
        return f"nothing: {claim['reason']}"
    return f"{claim['measured']}; no verdict: {claim['reason']}"


def _plain(value: Any) -> Any:
    """A NumPy scalar as the Python value it stands for."""
    is_scalar = hasattr(value, "dtype") and getattr(value, "ndim", None) == 0
    return value.item() if is_scalar else value


def _value(value: Any, unit: str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, numbers.Real):
        return value if isinstance(value, str) else repr(value)
    unit, value = _scaled(unit, value)
    return _with_unit(number(value), unit)


def _bound(value: float, unit: str) -> str:
    unit, value = _scaled(unit, value)
    return _with_unit(_short(value), unit)


def _short(value: float) -> str:
    """A limit as the author wrote it: 3, 1.15, 0.125."""
    text = number(value, 6)
    return text.rstrip("0").rstrip(".") if "." in text else text


def _with_unit(text: str, unit: str) -> str:
    if text == "1" and len(unit) > 3 and unit.endswith("s"):
        unit = singular(unit)
    return f"{text} {unit}" if unit else text


def singular(unit: str) -> str:
    """Of a unit in the plural: "cores" is "core", "addresses" is "address"."""
    return unit[:-2] if unit.endswith("sses") else unit[:-1]


def _scaled(unit: str, *values: float) -> tuple[Any, ...]:
    """Seconds in the unit that suits the first value; other units unchanged."""
    if unit != "s" or not values[0]:
        return unit, *values
    size = float(f"{abs(values[0]):.2e}")  # 0.9999 s is 1.00 s with three digits, not 1000 ms
    scale, unit = next((u for u in _SECONDS if size >= u[0]), _SECONDS[-1])
    return unit, *(value / scale for value in values)


def _decimals(value: float, digits: int) -> int:
    """Decimals that show ``value`` with so many significant digits."""
    if not value or not math.isfinite(value):
        return digits - 1
    rounded = float(f"{value:.{digits - 1}e}")  # 9.996 is 10.0 with three digits, not 10.00
    return digits - 1 - math.floor(math.log10(abs(rounded)))


def _fixed(value: float, decimals: int) -> str:
    value = round(value, decimals)
    comma = "," if abs(value) >= 10_000 else ""
    return f"{value:{comma}.{max(decimals, 0)}f}"
