"""Claims: collected from outputs, in Korean, on the claims page."""

import json
import re

import nbformat
import pytest

from concurrency_lab import claims as lab
from concurrency_lab import machine
from concurrency_lab.timing import Sample
from website import claims

WIDE = Sample((0.8, 0.9, 1.0, 1.6, 1.7), "times")
BUSY = Sample((0.5, 0.5, 0.5), "cores", others=0.9)


def notebook(*outputs):
    cells = [
        nbformat.v4.new_code_cell(
            "claim(…)",
            id=f"cell-{number}",
            outputs=[nbformat.v4.new_output("display_data", dict(output._repr_mimebundle_()))],
        )
        for number, output in enumerate(outputs, start=1)
    ]
    return nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell("# A title\n\n## B"), *cells]
    )


# -- Korean


def test_every_phrase_of_a_claim_has_korean_words():
    missing = set(lab.PHRASES) - claims.words("ko").keys()
    assert missing == set()


@pytest.mark.parametrize("phrase", sorted(claims.words("ko")))
def test_korean_words_keep_every_gap(phrase):
    korean = claims.words("ko")[phrase]
    assert korean.count("{}") == phrase.count("{}")
    assert re.search("[가-힣~]", korean)


@pytest.mark.parametrize(
    ("limits", "unit", "value", "expected", "measured"),
    [
        ({"at_least": 2}, "steps", 1, "2걸음 이상", "1걸음"),
        ({"at_most": 5}, "% of their time", 1, "그 시간의 5 % 이하", "그 시간의 1 %"),
        ({"between": (1, 2)}, "cores", 1, "1~2코어", "1코어"),
    ],
)
def test_a_chapters_own_units(limits, unit, value, expected, measured):
    own = {"{} steps": "{}걸음", "{} % of their time": "그 시간의 {} %", "{} cores": ""}
    checked = lab.evaluate("S.", value, unit=unit, **limits)
    korean = claims.localise(vars(checked), "ko", own)
    assert (korean["expected"], korean["measured"]) == (expected, measured)


@pytest.mark.parametrize(
    ("checked", "expected", "measured"),
    [
        (lab.evaluate("S.", 3, at_least=2, unit="times"), "2배 이상", "3배"),
        (lab.evaluate("S.", 3, at_least=1, unit="times"), "1배 이상", "3배"),
        (lab.evaluate("S.", 1.02, at_most=1.15, unit="cores"), "1.15코어 이하", "1.02코어"),
        (lab.evaluate("S.", 1, between=(0.9, 1.1), unit="cores"), "0.9~1.1코어", "1코어"),
        (lab.evaluate("S.", 7, equals=7), "정확히 7", "7"),
        (lab.evaluate("S.", True, equals=True), "예", "예"),
        (lab.evaluate("S.", False, equals=True), "예", "아니요"),
        (lab.evaluate("S.", 0.002, at_most=0.01, unit="s"), "10 ms 이하", "2.00 ms"),
        (lab.evaluate("S.", "SIGSEGV", equals="SIGSEGV"), "SIGSEGV", "SIGSEGV"),
    ],
)
def test_numbers_in_korean(checked, expected, measured):
    korean = claims.localise(vars(checked), "ko")
    assert (korean["expected"], korean["measured"]) == (expected, measured)
    assert korean["verdict"] == checked.verdict


def test_measured_sample_in_korean():
    korean = claims.localise(vars(lab.evaluate("S.", WIDE, at_least=0.9)), "ko")
    assert re.fullmatch(r"1\.00 \[0\.80\.\.1\.70\]배", korean["measured"])


REASONS = [
    lab.evaluate("S.", WIDE, at_least=1.5).reason,
    lab.evaluate("S.", BUSY, at_least=1.5).reason,
    "this Python runs without the GIL",
    "this system is Windows, not Linux",
    "4 cores are needed, usable here: 1.5",
    "Windows has no start method fork",
]


@pytest.mark.parametrize("reason", REASONS)
def test_reasons_in_korean(reason):
    korean = claims.localise({"reason": reason}, "ko")["reason"]
    names = {"GIL", "Windows", "fork"}
    assert set(re.findall("[A-Za-z]+", korean)) <= names, korean


def test_the_reasons_are_those_that_machine_gives(monkeypatch):
    monkeypatch.setattr(machine.sys, "platform", "win32")
    monkeypatch.setattr(machine, "_system_name", lambda: "Windows")
    monkeypatch.setattr(machine, "usable_cores", lambda: 1.5)
    monkeypatch.setattr(machine, "gil_enabled", lambda: False)
    monkeypatch.setattr(machine.multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    given = {
        machine.no_gil(),
        machine.not_linux(),
        machine.fewer_cores_than(4),
        machine.no_start_method("fork"),
    }
    assert given == set(REASONS[2:])


def test_a_chapters_own_words_come_first():
    own = {"S.": "문장.", "no lock here": "락이 없음"}
    checked = lab.evaluate("S.", None, equals=1, unless="no lock here")
    korean = claims.localise(vars(checked), "ko", own)
    assert (korean["sentence"], korean["reason"]) == ("문장.", "락이 없음")


def test_without_a_translation_the_english_stays():
    checked = lab.evaluate("S.", None, equals=1, unless="no lock here")
    korean = claims.localise(vars(checked), "ko", {"S.": ""})
    assert (korean["sentence"], korean["reason"]) == ("S.", "no lock here")


def test_localised_outputs_are_copies():
    outputs = notebook(lab.evaluate("S.", 3, at_least=2)).cells[1].outputs
    before = json.dumps(outputs)
    metadata = {"i18n": {"claims": {"S.": "문장."}}}
    korean = claims.localise_outputs(outputs, "ko", metadata)[0].data
    assert json.dumps(outputs) == before
    assert korean["text/plain"] == "[성립] 문장.\n  기대: 2 이상\n  측정: 3"
    assert "문장." in korean["text/html"] and "claim-holds" in korean["text/html"]


def test_localised_text_of_a_claim_that_was_not_measured():
    outputs = notebook(lab.evaluate("S.", BUSY, at_least=1.5)).cells[1].outputs
    korean = claims.localise_outputs(outputs, "ko", {})[0].data
    assert korean["text/plain"].startswith("[판정 보류] S.\n")
    reason = "그동안 다른 프로그램이 코어 0.90개를 씀"
    assert f"0.500 [0.500..0.500]코어 (까닭: {reason})" in korean["text/plain"]


# -- collecting


def test_claims_of_a_notebook_in_order():
    found = claims.of_notebook(
        notebook(lab.evaluate("A.", 1, equals=1), lab.evaluate("B.", 2, equals=1))
    )
    assert [(cell, claim["sentence"], claim["verdict"]) for cell, claim in found] == [
        ("cell-1", "A.", "holds"),
        ("cell-2", "B.", "fails"),
    ]


def test_title_is_the_first_heading():
    assert claims.title_of(notebook()) == "A title"


def test_report_names_the_latest_execution():
    claim = vars(lab.evaluate("A.", 1, equals=1))
    chapters = [
        claims.Chapter("01", "1", "T", [("c", claim)], {"time": "2026-01-02", "python": "3.12"}),
        claims.Chapter("02", "2", "U", [], {"time": "2026-01-01", "python": "3.11"}),
    ]
    report = claims.report(chapters)
    assert report["build"] == {"machine": "", "python": "3.12", "time": "2026-01-02"}
    assert report["claims"] == [{"chapter": "01", "cell": "c", **claim}]


# -- pages


def page(book, edition, name):
    return (book / f"_build/site/{edition}/{name}.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("edition", "texts"),
    [
        ("en", ["2 claims", "Chapter 1. Squares", "at least 2 times", "not applicable",
                "Three squares are more than two.", "this book has no lock"]),
        ("ko", ["주장 2개", "1장. 정사각형", "2배 이상", "해당 없음", "쓸 수 있는 코어",
                "정사각형 셋은 둘보다 많습니다.", "이 책에는 락이 없음"]),
    ],
)  # fmt: skip
def test_claims_page(built_book, edition, texts):
    html = page(built_book, edition, f"book/{edition}/claims")
    for text in texts:
        assert text in html
    assert re.findall(r'<tr class="(claim-[\w-]+) ', html) == [
        "claim-holds",
        "claim-not-applicable",
    ]


@pytest.mark.parametrize("edition", ["en", "ko"])
def test_claims_link_to_their_cells(built_book, edition):
    html = page(built_book, edition, f"book/{edition}/claims")
    links = re.findall(r'href="\.\./\.\./notebooks/\w\w/01-squares\.html#([^"]+)"', html)
    assert [link for link in links if link.startswith("cell-")] == [
        "cell-claim-squares",
        "cell-claim-lock",
    ]
    chapter = page(built_book, edition, f"notebooks/{edition}/01-squares")
    for link in ("cell-claim-squares", "cell-claim-lock", "cell-square"):
        assert chapter.count(f'id="{link}"') == 1


def test_claims_json(built_book):
    english, korean = (
        json.loads((built_book / f"_build/site/{edition}/claims.json").read_text("utf-8"))
        for edition in ("en", "ko")
    )
    assert english["build"] == korean["build"]
    assert english["build"]["python"] and english["build"]["machine"] and english["build"]["time"]
    assert english["claims"][0] == {
        "chapter": "01-squares", "cell": "claim-squares", "measured": "3 times",
        "sentence": "Three squares are more than two.", "expected": "at least 2 times",
        "verdict": "holds", "reason": "",
    }  # fmt: skip
    assert korean["claims"][0]["sentence"] == "정사각형 셋은 둘보다 많습니다."
    assert [claim["verdict"] for claim in korean["claims"]] == ["holds", "not applicable"]


@pytest.mark.parametrize(
    ("edition", "alt", "caption"),
    [("en", "A blue square.", "What the first"), ("ko", "파란 정사각형.", "첫 장이 그린")],
)
def test_chapter_figure(built_book, edition, alt, caption):
    html = page(built_book, edition, f"book/{edition}/index")
    figure = re.search(r'<figure class="chapter-figure.*?</figure>', html, re.DOTALL)[0]
    assert f'alt="{alt}"' in figure and caption in figure
    source = re.search(r'src="\.\./\.\./(_images/\w+\.svg)"', figure)[1]
    svg = (built_book / f"_build/site/{edition}/{source}").read_text("utf-8")
    assert svg.startswith("<svg") and "0072b2" in svg
    assert source in page(built_book, edition, f"notebooks/{edition}/01-squares")


def test_a_chapters_unit_is_translated_for_one_too():
    own = {"{} addresses": "주소 {}개", "{} workers": "워커 {}개"}
    for unit, korean in (("1 address", "주소 1개"), ("1 worker", "워커 1개")):
        assert lab.translate(unit, claims.words("ko", own)) == korean
