"""Play the scheduler, on the site: recordings in each edition's words, in the site's form.

As a Sphinx extension this module shows the recordings (`concurrency_lab.explorer.player`) among a
page's outputs without the script and style that they carry in a notebook: the site has both once,
in `_static`, and only pages with a player load them.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from docutils import nodes

from concurrency_lab.claims import translate
from concurrency_lab.explorer.player import MIME_TYPE, SCRIPT, STYLE, Player, render
from concurrency_lab.explorer.result import MIME_TYPE as EXPLORATION
from concurrency_lab.explorer.result import render_html as render_tables
from concurrency_lab.explorer.result import translate_value
from website.notebooks import cache_of, executed

FILES = (SCRIPT, STYLE)
"""What a page with a player loads."""

WORDS: dict[str, dict[str, str]] = {
    "en": {},
    "ko": {
        "Play the scheduler": "스케줄러가 되어 보기",
        "Goal": "목표",
        "Possible schedules: {}. Failing: {}.": "가능한 스케줄 {}개, 그중 실패 {}개.",
        "Schedules explored: {}; there are more. Failing: {}.":
            "탐색한 스케줄 {}개(더 있음), 그중 실패 {}개.",
        "A loop can go on for ever, so the schedules cannot be counted.":
            "반복문이 끝없이 돌 수 있어 스케줄의 수를 셀 수 없습니다.",
        "Shared variables": "공유 변수",
        "Thread {}": "스레드 {}",
        "Threads {}": "스레드 {}",
        "Program of {}": "{}의 프로그램",
        "{}: take a step": "{}: 한 단계 실행",
        "Next line: {}": "다음 줄: {}",
        "# leave": "# 나가기",
        "waits for {}": "{} 기다림",
        "Done": "끝남",
        "Not explored any further": "여기서부터는 탐색하지 않음",
        "Which thread takes the first step? You decide.":
            "어느 스레드가 첫 단계를 실행할까요? 직접 고르세요.",
        "{} ran {}.": "{}가 실행한 줄: {}.",
        "{} is now {}.": "{}의 현재 값: {}.",
        "{} is blocked: {}.": "{}가 막혔습니다: {}.",
        "{} can go on.": "{}는 이제 계속할 수 있습니다.",
        "{} is done.": "{}가 끝났습니다.",
        "{} ends with an exception: {}.": "{}가 예외로 끝났습니다: {}.",
        "One step back.": "한 단계 뒤로 왔습니다.",
        "This is the state after step {} again: it can go on like this for ever.":
            "{}번째 단계 다음의 상태로 되돌아왔습니다. 이렇게 끝없이 되풀이될 수 있습니다.",
        "Goal reached": "목표 달성",
        "Not this time": "목표 미달성",
        "The end": "끝",
        "Right result": "올바른 결과",
        "Wrong result": "잘못된 결과",
        "Exception": "예외",
        "Broken invariant": "불변 조건 위반",
        "Deadlock": "교착 상태",
        "Lost wake-up": "알림 유실",
        "Livelock": "라이브락",
        "Stopped here": "여기서 멈춤",
        "One step back": "한 단계 뒤로",
        "Start again": "처음부터",
        "Show me a solution": "풀이 보기",
        "Next step of the solution": "풀이의 다음 단계",
        "Steps so far": "지금까지의 단계",
        "What changed": "바뀐 것",
        "A solution": "풀이",
        "Keys, while you are in this box: {}. Backspace takes one step back.":
            "이 상자 안에서 쓰는 키: {}. 백스페이스를 누르면 한 단계 뒤로 갑니다.",
    },
}  # fmt: skip
"""For each edition, the words of the interface (`concurrency_lab.explorer.player.WORDS`). Korean
particles after a thread are those after a vowel: the names of the letters A to H end with one."""

PHRASES: dict[str, dict[str, str]] = {
    "en": {},
    "ko": {
        # what matches most comes first: the first phrase that fits is taken
        "{} holds {} and waits for {}": "{}: {} 보유, {} 기다림",
        "{} waits for {}": "{}: {} 기다림",
        "{} raised {}": "{}에서 {} 발생",
        "{}; waiting: {}": "{}, 대기: {}",
        "waits for {}": "{} 기다림",
        "held by {}, {} times": "{}가 보유({}번 얻음)",
        "held by {}": "{}가 보유",
        "{} (held by {})": "{}({}가 보유)",
        "free": "풀려 있음",
        "set": "깃발 세워짐",
        "not set": "깃발 내려짐",
        "{} of {} waiting": "{}개 대기 중(모두 {}개)",
        "broken": "깨짐",
        "a release of {}": "{}의 release",
        "a notify on {}": "{}의 notify",
        "{} to be set": "{}의 set",
        "the others at {}": "{}에 올 다른 스레드",
        "an item in {}": "{}의 항목",
        "room in {}": "{}의 빈자리",
        "all items of {} to be done": "{}의 모든 항목 처리",
        "ok": "올바름",
        "wrong": "잘못된 결과",
        "exception": "예외",
        "invariant": "불변 조건 위반",
        "deadlock": "교착 상태",
        "lost wake-up": "알림 유실",
        "livelock": "라이브락",
        "cut": "중단",
        "stopped after {} steps": "{}단계를 실행하고 중단",
        "steps {} to {} again and again": "{}번째부터 {}번째까지의 단계를 되풀이",
        "the same {} states again and again": "같은 상태 {}개를 되풀이",
        "{} schedules, {} fail": "스케줄 {}개, 실패 {}개",
        "{} schedule, {} fail": "스케줄 {}개, 실패 {}개",
        "{} schedules, none fails": "스케줄 {}개, 실패 없음",
        "{} schedule, none fails": "스케줄 {}개, 실패 없음",
        "no finite number of schedules, {} fail": "스케줄의 수가 유한하지 않음, 실패 {}개",
        "no finite number of schedules, some fail": "스케줄의 수가 유한하지 않음, 실패 있음",
        "no finite number of schedules, none fails": "스케줄의 수가 유한하지 않음, 실패 없음",
        "Not everything was explored: {}.": "전부 탐색한 것은 아님: {}.",
        "equal states were not merged: cannot look into {}":
            "같은 상태를 합치지 않음: {} 안을 볼 수 없음",
        "{} states": "상태 {}개",
        "at most {} preemptions": "선점 최대 {}번",
        "at most {} steps": "최대 {}단계",
        "program": "프로그램",
        "fail": "실패",
        "schedules": "스케줄",
        "how they end": "결과",
        "endlessly many": "끝없이 많음",
        "thread {}": "스레드 {}",
        "step": "단계",
        "shared": "공유",
        "A failing schedule, step by step": "실패하는 스케줄 하나를 단계별로",
        "# leave": "# 나가기",
        "{} = {}": "{} = {}",
        # the programs of `channel_suite.examine`
        "no capacity below 1": "1보다 작은 용량은 거절",
        "one item from A to B": "항목 하나를 A에서 B로",
        "the order is kept": "순서가 지켜짐",
        "nothing lost, nothing twice": "잃는 것도 두 번 받는 것도 없음",
        "never more in it than fits": "용량보다 많이 들어가지 않음",
        "close wakes all who wait in get": "close가 get에서 기다리는 모두를 깨움",
        "close wakes all who wait in put": "close가 put에서 기다리는 모두를 깨움",
        "put before close is delivered": "close보다 먼저 넣은 것은 전달됨",
        "put after close is refused": "close 뒤의 put은 거절",
        "put during close: delivered or refused": "close와 동시의 put: 전달 또는 거절",
        "closed twice": "두 번 닫기",
        "a for loop takes all and ends": "for 문이 모두 꺼내고 끝남",
        "a for loop waits for an item": "for 문이 항목을 기다림",
        "close ends a for loop that waits": "close가 기다리는 for 문을 끝냄",
        "busy waiting": "바쁜 대기",
        "not run": "실행하지 않음",
    },
}  # fmt: skip
"""For each edition, the phrases that the texts of recordings are made of
(`concurrency_lab.explorer.PHRASES`, and those of `channel_suite`)."""


def localise(recording: Mapping[str, Any], edition: str, own: Mapping[str, str]) -> dict[str, Any]:
    """A recording in the words of an edition; `own` are those of its chapter, goals among them.

    Text without a translation stays English.
    """
    known = PHRASES.get(edition, {})

    def say(text: str) -> str:
        return own.get(text) or translate_value(translate(text, known), known)

    goal = recording["goal"]
    return {
        **recording,
        "texts": [say(text) for text in recording["texts"]],
        "outcomes": [
            {**outcome, "lines": [say(line) for line in outcome["lines"]]}
            for outcome in recording["outcomes"]
        ],
        "goal": goal and {**goal, "text": say(goal["text"])},
    }


def bundle(recording: Mapping[str, Any], edition: str, own: Mapping[str, str]) -> dict[str, Any]:
    """The output of a cell that plays a recording, in the words of an edition."""
    localised = localise(recording, edition, own)
    return {
        MIME_TYPE: localised,
        "text/html": render(localised, WORDS.get(edition), alone=True),
        "text/plain": Player(localised).text(WORDS.get(edition)),
    }


def exploration_bundle(
    data: Mapping[str, Any], edition: str, own: Mapping[str, str]
) -> dict[str, Any]:
    """The tables of an exploration in the words of an edition."""
    words = {**own, **PHRASES.get(edition, {})}
    return {EXPLORATION: data, "text/html": render_tables(data, words)}


# -- Sphinx -----------------------------------------------------------------------------------


def is_on(body: str) -> bool:
    """Whether a page's HTML has a player."""
    return "data-player" in body


def copy_files(folder: Path) -> None:
    """Put script and style into a folder of the site."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in FILES:
        shutil.copy(file, folder)


def _site_form(app, doctree) -> None:
    path, cache = Path(app.env.doc2path(app.env.docname)), cache_of(app)
    if path.suffix != ".ipynb" or cache is None:
        return
    notebook = executed(path, cache)
    forms = {
        output.data["text/html"]: output.data[MIME_TYPE]
        for cell in (notebook.cells if notebook else ())
        if cell.cell_type == "code"
        for output in cell.outputs
        if MIME_TYPE in output.get("data", {})
    }
    for node in list(doctree.findall(nodes.raw)) if forms else ():
        if recording := forms.get(node.astext()):
            text = render(recording, WORDS.get(app.config.language))
            node.replace_self(nodes.raw("", text, format="html", classes=node["classes"]))


def setup(app):
    app.connect("doctree-read", _site_form)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
