"""Both editions of the book have the same pages with the same structure, and no dead links."""

import re
import runpy
from pathlib import Path

import pytest
from book_pages import (
    BOOK,
    LANGUAGES,
    ROOT,
    anchors,
    body,
    code_blocks,
    headings,
    links,
    names,
    prose,
)  # fmt: skip

PAGES = {
    "index.md", "preface.md", "reading-paths.md", "instruments.md", "glossary.md",
    "bibliography.md", "claims.md", "execution.md",
}  # fmt: skip
MARKDOWN = [
    *sorted(BOOK.glob("*/*.md")),
    *(path for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md")),
]

# What other Korean texts call these things; the book has one word for each.
RIVALS = {
    "쓰레드": "스레드",
    "데드락": "교착 상태",
    "레이스 컨디션": "경합 조건",
    "경쟁 조건": "경합 조건",
    "임계 구역": "임계 영역",
    "문맥 교환": "컨텍스트 스위칭",
    "컨텍스트 스위치": "컨텍스트 스위칭",
    "멀티쓰레딩": "멀티스레딩",
    "다중 처리": "멀티프로세싱",
    "세마포": "세마포어",
    "백프레셔": "배압",
    "배리어 락": "배리어",
    "인터프리터 잠금": "전역 인터프리터 락",
    "오버헤드 비용": "오버헤드",
    "훈련 시간": "학습 시간",
    "속도향상": "속도 향상",
    "공유 리소스": "공유 자원",
}


def page_id(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_page_exists(language):
    assert names(language) == PAGES


@pytest.mark.parametrize("name", sorted(PAGES))
def test_editions_have_the_same_structure(name):
    english, korean = (body(BOOK / language / name) for language in LANGUAGES)
    levels = [[level for level, _ in headings(text)] for text in (english, korean)]
    assert levels[0] == levels[1]
    assert levels[0].count(1) == 1 and levels[0][0] == 1, "a page has one H1, at its top"
    directive = re.compile(r"^[`:]{3,}(\{[\w-]+\})", re.MULTILINE)
    assert directive.findall(english) == directive.findall(korean)


@pytest.mark.parametrize("path", MARKDOWN, ids=page_id)
def test_internal_links_resolve(path):
    text = body(path)
    for link in links(text):
        if "://" in link or link.startswith("mailto:"):
            continue
        target, _, anchor = link.partition("#")
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), f"{link} leads nowhere"
        assert file.is_relative_to(ROOT), f"{link} leads out of the repository"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(body(file)), f"{link}: no such heading"


@pytest.mark.parametrize("path", sorted(BOOK.glob("*/*.md")), ids=page_id)
def test_pages_link_within_their_edition(path):
    other = {"en": "ko", "ko": "en"}[path.parent.name]
    wrong = [link for link in links(body(path)) if f"/{other}/" in link and "://" not in link]
    assert path.stem == "index" or not wrong, f"links into the other edition: {wrong}"


@pytest.mark.parametrize("path", sorted((BOOK / "ko").glob("*.md")), ids=page_id)
def test_korean_pages_use_the_books_words(path):
    text = prose(body(path))
    for rival, word in RIVALS.items():
        found = text.replace(word, "").count(rival)
        assert not found, f"{path.name} says {rival}; the book says {word}"


@pytest.mark.parametrize("path", sorted((BOOK / "ko").glob("*.md")), ids=page_id)
def test_korean_pages_are_polite(path):
    """Plain explanatory 합니다 style: no paragraph ends a sentence in -한다 style."""
    text = prose(body(path))
    for block in code_blocks(body(path), "text"):
        text = text.replace(block, "")
    plain = re.findall(r"[가-힣]*(?<![니세시])다\.(?=\s|$)", text)
    assert not plain


def test_readme_explains_every_dependency():
    table = (ROOT / "README.md").read_text("utf-8").split("## Why each dependency")[1]
    wanted = {
        re.split(r"[<>=\[ ]", line)[0]
        for line in (ROOT / "requirements.in").read_text("utf-8").splitlines()
        if line and not line.startswith(("#", "-e"))
    }
    first_column = re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)
    explained = set(re.findall(r"[\w-]+", " ".join(first_column)))
    assert wanted - {"argon2-cffi-bindings"} <= explained


def test_readme_and_contributing_name_commands_that_exist():
    tasks_of_course = runpy.run_path(str(ROOT / "course.py"))["TASKS"]
    for name in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text("utf-8")
        shell = "\n".join(code_blocks(text, "bash"))
        tasks = set(re.findall(r"(?:\bmake|course\.py) (\w+)", shell))
        tasks |= set(re.findall(r"`(?:make|(?:python|py) course\.py) (\w+)`", text))
        assert tasks and tasks <= set(tasks_of_course)
        for module in re.findall(r"python -m (website\.\w+)", text):
            assert (ROOT / f"{module.replace('.', '/')}.py").exists(), f"{name}: {module}"


def test_readme_fits_one_screen_of_prose():
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    assert len(lines) <= 130


def test_licences():
    assert "MIT License" in (ROOT / "LICENSE").read_text("utf-8")
    text = (ROOT / "LICENSE-text").read_text("utf-8")
    assert "https://creativecommons.org/licenses/by/4.0/" in text
