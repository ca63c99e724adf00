"""The drawings of both editions: the same shapes, other words, readable in light and dark."""

from xml.etree import ElementTree

import pytest

from website import ROOT

FOLDERS = {lang: ROOT / "notebooks" / lang / "diagrams" for lang in ("en", "ko")}
NAMES = sorted(path.name for path in FOLDERS["en"].glob("*.svg"))
SVG = "{http://www.w3.org/2000/svg}"


def shapes(path):
    root = ElementTree.parse(path).getroot()
    kinds = [(e.tag, e.get("class")) for e in root.iter() if e.tag not in (f"{SVG}text",)]
    return root.get("viewBox"), kinds


def test_both_editions_have_the_same_drawings():
    assert NAMES
    assert sorted(path.name for path in FOLDERS["ko"].glob("*.svg")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_shapes_are_the_same_and_the_words_are_not(name):
    english, korean = FOLDERS["en"] / name, FOLDERS["ko"] / name
    assert shapes(english) == shapes(korean)
    words = [
        [e.text for e in ElementTree.parse(path).iter(f"{SVG}text")] for path in (english, korean)
    ]
    assert words[0] != words[1]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("lang", FOLDERS)
def test_a_drawing_has_a_title_and_follows_the_colour_scheme(lang, name):
    text = (FOLDERS[lang] / name).read_text("utf-8")
    assert "prefers-color-scheme:dark" in text
    assert ElementTree.fromstring(text).find(f"{SVG}title").text
