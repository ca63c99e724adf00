"""Make matplotlib's SVG small, equal for equal figures, and readable on light and dark pages."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from xml.etree import ElementTree

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_PAINTED = {"fill": "f", "stroke": "s"}
_PRESENTATION = re.compile(r"(fill|stroke|opacity|clip)(-\w+)*$")
_RECTANGLE = re.compile(r"M (\S+) (\S+) L (\S+) \2 L \3 (\S+) L \1 \4 (?:L \1 \2 )?z")


def adaptive(
    svg: str, names: Mapping[str, str], light: Mapping[str, str], dark: Mapping[str, str]
) -> str:
    """Return the document with its colours as CSS custom properties.

    `names` gives the property for each colour that adapts, `light` and `dark` its values.
    """
    return _Rewriter(names, light, dark).rewrite(svg)


class _Rewriter:
    """Turns matplotlib's SVG into a small one with light and dark colours."""

    def __init__(
        self, names: Mapping[str, str], light: Mapping[str, str], dark: Mapping[str, str]
    ) -> None:
        self.names, self.light, self.dark = names, light, dark
        self.used: set[tuple[str, str]] = set()

    def rewrite(self, svg: str) -> str:
        ElementTree.register_namespace("", _SVG)
        ElementTree.register_namespace("xlink", _XLINK)
        root = ElementTree.fromstring(svg)  # drops comments
        referenced = set(re.findall(r"(?:url\(|href=\")#([^)\"]+)", svg))
        for parent in root.iter():
            for child in list(parent):
                # The style sheet of matplotlib would override attributes; see below.
                if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                    parent.remove(child)
                elif child.tag == f"{{{_SVG}}}defs" and not len(child):
                    parent.remove(child)
        for template in root.iterfind(f".//{{{_SVG}}}defs/{{{_SVG}}}path"):
            # A rule of the style sheet does not reach inside <use>; the colours of <use> do.
            template.attrib.pop("style", None)
        for element in root.iter():
            element.text = element.tail = None  # indentation
            self._paint(element)
            _shorten(element)
            if element.get("id") not in referenced:
                element.attrib.pop("id", None)
        points = [float(number) for number in root.get("viewBox", "").split()[2:]]
        root.attrib.update(
            {
                "class": "lab-figure",
                "width": f"{points[0] * 4 / 3:.0f}",
                "height": f"{points[1] * 4 / 3:.0f}",
                "stroke-linejoin": "round",
                "stroke-linecap": "butt",
            }
        )
        sheet = ElementTree.Element(f"{{{_SVG}}}style")
        sheet.text = self._style_sheet()
        root.insert(0, sheet)
        return _unique_ids(ElementTree.tostring(root, encoding="unicode"), referenced)

    def _paint(self, element: ElementTree.Element) -> None:
        """Make presentation attributes of the style, plus a class for each known colour.

        A class wins over an attribute; a reader without CSS variables keeps the attribute.
        """
        declared = dict(
            part.strip().split(": ", 1)
            for part in element.attrib.pop("style", "").split(";")
            if ": " in part
        )
        for key in _PAINTED:  # hatch patterns have attributes
            if key in element.attrib:
                declared.setdefault(key, element.attrib[key])
        if element.get("id", "").startswith("text_") and len(element):
            # Matplotlib writes no colour for black text.
            for group in element.iter(f"{{{_SVG}}}g"):
                if group.get("transform") and "fill" not in group.get("style", ""):
                    group.set("style", "fill: #000000; " + group.get("style", ""))
        classes = []
        rest = []
        for key, value in declared.items():
            if not _PRESENTATION.match(key):
                rest.append(f"{key}:{value}")
                continue
            element.set(key, value)
            name = self.names.get(value)
            if key in _PAINTED and name:
                self.used.add((key, name))
                classes.append(f"{_PAINTED[key]}-{name}")
        if classes:
            element.set("class", " ".join(classes))
        if rest:
            element.set("style", ";".join(rest))

    def _style_sheet(self) -> str:
        names = sorted({name for _, name in self.used})
        light = ";".join(f"--{name}:{self.light[name]}" for name in names)
        dark = ";".join(f"--{name}:{self.dark[name]}" for name in names)
        rules = [
            f".lab-figure{{{light}}}",
            f"@media (prefers-color-scheme:dark){{.lab-figure{{{dark}}}}}",
        ]
        for key, name in sorted(self.used):
            rules.append(f".lab-figure .{_PAINTED[key]}-{name}{{{key}:var(--{name})}}")
        return "\n".join(rules)


def _shorten(element: ElementTree.Element) -> None:
    """Round coordinates to a hundredth of a point; scale factors stay as they are."""
    for key in ("d", "x", "y", "width", "height", "stroke-width"):
        if key in element.attrib:
            element.set(key, re.sub(r"-?\d+\.\d+", _round, element.get(key)))
    if "d" in element.attrib:
        path = _RECTANGLE.sub(r"M\1 \2H\3V\4H\1z", " ".join(element.get("d").split()))
        element.set("d", re.sub(r" ?([A-Za-z]) ?", r"\1", path))
    if "transform" in element.attrib:
        element.set(
            "transform",
            re.sub(
                r"translate\([^)]*\)",
                lambda found: re.sub(r"-?\d+\.\d+", _round, found[0]),
                element.get("transform"),
            ),
        )


def _round(number: re.Match[str]) -> str:
    return f"{round(float(number[0]), 2) + 0.0:g}"


def _unique_ids(svg: str, ids: Iterable[str]) -> str:
    """Number the ids, after a prefix from the content: several figures may share one page."""
    order = sorted(ids, key=lambda name: svg.find(f'id="{name}"'))
    number = {name: str(position) for position, name in enumerate(order)}

    def renamed(prefix: str) -> str:
        return re.sub(
            r'(id="|url\(#|href="#)([^")]+)',
            lambda found: f"{found[1]}{prefix}{number.get(found[2], found[2])}",
            svg,
        )

    digest = hashlib.sha256(renamed("").encode()).hexdigest()[:6]
    return renamed(f"f{digest}-")
