"""The table of what a child process finds (chapter 8), in each edition's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from concurrency_lab.experiments.start_methods import MIME_TYPE, render_html

WORDS: dict[str, dict[str, str]] = {
    "en": {},
    "ko": {
        "what a child finds": "자식이 발견하는 것",
        "the top level of the script runs again": "스크립트의 최상위 코드를 다시 실행",
        "global variable changed at run time": "실행 중에 바뀐 전역 변수",
        "argument of the function": "함수의 인자",
        "the argument is a pickled copy": "인자가 피클로 만든 복사본",
        "module that only the parent has imported": "부모만 임포트한 모듈",
        "os.environ changed before the first child": "첫 자식보다 먼저 바꾼 os.environ",
        "os.environ changed after the first child": "첫 자식 다음에 바꾼 os.environ",
        "current folder changed": "바뀐 현재 폴더",
        "sys.path changed": "바뀐 sys.path",
        "logging set up at run time": "실행 중에 설정한 logging",
        "signal handler set at run time": "실행 중에 설정한 시그널 핸들러",
        "open file, under the same number": "같은 번호로 열려 있는 파일",
        "reading moves the parent's place in that file":
            "읽으면 그 파일에서 부모의 위치도 이동",
        "another thread of the parent runs in the child": "부모의 다른 스레드가 자식에서 실행",
        "lock held by that thread stays locked for ever":
            "그 스레드가 쥔 락이 영원히 잠긴 채로 남음",
        "two children draw the same number from random": "두 자식이 random에서 같은 수를 뽑음",
        "two children draw the same number from numpy.random":
            "두 자식이 numpy.random에서 같은 수를 뽑음",
        "yes": "예",
        "no": "아니요",
        "not known": "알 수 없음",
    },
}  # fmt: skip
"""For each edition, `concurrency_lab.experiments.start_methods.PHRASES`."""


def bundle(table: Mapping[str, Any], edition: str, own: Mapping[str, str]) -> dict[str, Any]:
    """The output of a cell that shows the table, in the words of an edition."""
    return {
        MIME_TYPE: table,
        "text/html": render_html(table, {**own, **WORDS.get(edition, {})}),
    }
