"""Draw timelines: rows, bars by kind, marks. Used by `Timeline.plot` and `plot_timelines`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from concurrency_lab import figures
from concurrency_lab.figures import PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from concurrency_lab.timeline import Mark, Span, Timeline

# Kinds differ in colour, height and hatch: full blue bars run, thin grey ones wait, crossed
# vermillion ones are blocked.
_LOOKS: dict[str, dict[str, Any]] = {
    "run": {"facecolor": PALETTE["blue"], "edgecolor": PALETTE["blue"]},
    "wait": {
        "facecolor": PALETTE["grey_soft"],
        "edgecolor": PALETTE["muted"],
        "hatch": "////",
    },
    "blocked": {
        "facecolor": PALETTE["vermillion_soft"],
        "edgecolor": PALETTE["vermillion"],
        "hatch": "xxxx",
    },
}
_HEIGHT = {"run": 0.74, "wait": 0.34, "blocked": 0.54}
_WORDS = {"run": "running", "wait": "waiting", "blocked": "blocked"}
_ROW = 0.42  # inches
_TEXT = 10.5  # points
_MANY = 500  # spans; from here on neighbours that touch become one bar

_BEHIND_TEXT = {"facecolor": PALETTE["paper"], "edgecolor": "none", "boxstyle": "round,pad=0.12"}

Box = tuple[float, float, float, float]  # left, bottom, right, top


def draw(timelines: Mapping[str | None, Timeline], order: Iterable[str] | None) -> Figure:
    """Return a figure with one panel for each timeline; a key is the panel's title."""
    panels = {title: _Panel(timeline, order) for title, timeline in timelines.items()}
    rows = [len(panel.lanes) for panel in panels.values()]
    row = _ROW if sum(rows) <= 20 else max(0.16, _ROW * 20 / sum(rows))
    height = row * sum(rows) + 0.45 * len(rows) + 0.9
    figure, axes = figures.new(
        height=height, rows=len(rows), sharex=True, squeeze=False, height_ratios=rows
    )
    end = max(panel.end for panel in panels.values()) or 1e-6
    for (title, panel), axis in zip(panels.items(), axes[:, 0], strict=True):
        panel.set_up(axis, end, title, small=row < 0.3)
    figures.time_axis(axes[-1, 0])
    for axis in axes[:-1, 0]:
        axis.tick_params(axis="x", length=0)
    _legend(axes[0, 0], panels.values(), titled=None not in panels)
    # Whether a label fits is known when everything else has its place.
    figure.draw_without_rendering()
    for panel, axis in zip(panels.values(), axes[:, 0], strict=True):
        panel.bars(axis, labels=row >= 0.3)
    return figure


class _Panel:
    def __init__(self, timeline: Timeline, order: Iterable[str] | None) -> None:
        self.spans: list[Span] = timeline.spans
        self.marks: list[Mark] = timeline.marks
        if not self.spans and not self.marks:
            raise ValueError("nothing to draw: this timeline has no spans and no marks")
        found = [*self.spans, *self.marks]
        # Lanes of one process stand together; both in order of their first record.
        found.sort(key=lambda item: item.start if hasattr(item, "start") else item.time)
        processes = list(dict.fromkeys(["main", *(item.process for item in found)]))
        self.process = {}
        for item in sorted(found, key=lambda item: processes.index(item.process)):
            self.process.setdefault(item.lane, item.process)
        lanes = list(self.process)
        chosen = [order] if isinstance(order, str) else list(order or ())
        unknown = [lane for lane in chosen if lane not in self.process]
        if unknown:
            raise ValueError(f"no lane {unknown[0]!r} in this timeline, only: {', '.join(lanes)}")
        self.lanes = [*chosen, *(lane for lane in lanes if lane not in chosen)]
        self.row = {lane: row for row, lane in enumerate(self.lanes)}
        times = [t for span in self.spans for t in (span.start, span.end) if t is not None]
        self.end = max([*times, *(mark.time for mark in self.marks)])

    def set_up(self, axes: Axes, end: float, title: str | None, small: bool) -> None:
        axes.set_xlim(0, end * 1.01)
        axes.set_ylim(len(self.lanes) - 0.45, -0.55)
        axes.set_yticks(range(len(self.lanes)), self.lanes)
        axes.tick_params(axis="y", length=0)
        if small:
            axes.tick_params(axis="y", labelsize=8)
        axes.spines["left"].set_visible(False)
        if title is not None:
            axes.set_title(title)
        for lane, following in zip(self.lanes, self.lanes[1:], strict=False):
            if self.process[lane] != self.process[following] and len(
                set(self.process.values())
            ) < len(self.lanes):
                axes.axhline(self.row[lane] + 0.5, color=PALETTE["muted"], linewidth=0.6)

    def bars(self, axes: Axes, labels: bool) -> None:
        limit = axes.get_xlim()[1]
        point = limit / axes.get_window_extent().width * axes.figure.dpi / 72  # in seconds
        gap = point if len(self.spans) < _MANY else 0
        boxes: dict[tuple[int, str, bool], list[Box]] = {}
        for span, depth in self._depths():
            end = limit if span.end is None else span.end
            # A gap between neighbours, but never too thin to be seen.
            width = max(end - span.start - gap, min(end - span.start, 3 * point), 0.6 * point)
            middle, half = self.row[span.lane], _HEIGHT[span.kind] / 2
            box = (span.start, middle - half, span.start + width, middle + half)
            boxes.setdefault((depth, span.kind, span.end is None), []).append(box)
            if depth:  # hide the bar that this one lies in
                full = _HEIGHT["run"] / 2 + 0.06
                under = (box[0], middle - full, span.start + width + gap / 2, middle + full)
                boxes.setdefault((depth, "", False), []).append(under)
        for (depth, kind, unfinished), group in sorted(boxes.items()):
            look = {"facecolor": PALETTE["paper"], "edgecolor": "none"}
            if kind:
                look = dict(_LOOKS[kind], linewidth=0.8)
            if unfinished:
                look |= {"facecolor": "none", "linestyle": (0, (3, 2)), "linewidth": 1.4}
            if len(self.spans) >= _MANY:
                group = _joined(group, 0.5 * point)
            axes.add_patch(_patch(group, zorder=2 + depth, **look))
        if labels:
            for lane in self.lanes:
                self._label_spans(axes, [s for s in self.spans if s.lane == lane], limit, point)
        for mark in self.marks:
            self._draw_mark(axes, mark, labels, limit, point)

    def _depths(self) -> list[tuple[Span, int]]:
        """Return each span with the number of spans of its lane that it lies in."""
        found = []
        open_spans: dict[str, list[float]] = {}
        for span in self.spans:
            end = float("inf") if span.end is None else span.end
            stack = [other for other in open_spans.get(span.lane, ()) if other > span.start]
            found.append((span, len(stack)))
            open_spans[span.lane] = [*stack, end]
        return found

    def _label_spans(self, axes: Axes, spans: list[Span], limit: float, point: float) -> None:
        """Write the labels of a lane, each in the longest part of its bar that is not covered."""
        for span in spans:
            end = limit if span.end is None else span.end
            if end - span.start < 12 * point:
                continue
            plain = span.kind == "run" and span.end is not None
            covered = [
                (other.start, limit if other.end is None else other.end)
                for other in spans
                if other is not span and span.start <= other.start < end
            ]
            covered += [
                (mark.time - 5 * point, mark.time + (_width(mark.label) + 12) * point)
                for mark in self.marks
                if mark.lane == span.lane
            ]
            left, right = _longest_gap(span.start, end, covered)
            if _width(span.label) + (6 if plain else 22) > (right - left) / point:
                continue
            text = axes.text(
                (left + right) / 2,
                self.row[span.lane],
                span.label,
                ha="center",
                va="center_baseline",
                fontsize=_TEXT,
                zorder=15,
                color=PALETTE["paper" if plain else "ink"],
            )
            if not plain:
                text.set_bbox(_BEHIND_TEXT)

    def _draw_mark(self, axes: Axes, mark: Mark, labels: bool, limit: float, point: float) -> None:
        row = self.row[mark.lane]
        axes.plot(
            mark.time,
            row,
            marker="D",
            markersize=7,
            color=PALETTE["ink"],
            markeredgecolor=PALETTE["paper"],
            markeredgewidth=1,
            zorder=20,
            clip_on=False,
        )
        if labels:
            left = mark.time + (_width(mark.label) + 12) * point > limit
            axes.annotate(
                mark.label,
                (mark.time, row),
                xytext=(-8 if left else 8, 0),
                textcoords="offset points",
                ha="right" if left else "left",
                va="center_baseline",
                fontsize=_TEXT,
                zorder=19,
                bbox=_BEHIND_TEXT,
            )


def _longest_gap(
    start: float, end: float, covered: Iterable[tuple[float, float]]
) -> tuple[float, float]:
    gaps = []
    for left, right in [*sorted(covered), (end, end)]:
        if left > start:
            gaps.append((start, min(left, end)))
        start = max(start, right)
    return max(gaps, key=lambda gap: gap[1] - gap[0], default=(end, end))


def _joined(boxes: list[Box], gap: float) -> list[Box]:
    """Join boxes of the same row that are closer than `gap`."""
    joined: list[Box] = []
    for box in sorted(boxes, key=lambda box: (box[1], box[0])):
        last = joined[-1] if joined else None
        if last and last[1] == box[1] and box[0] - last[2] < gap:
            joined[-1] = (last[0], last[1], max(last[2], box[2]), last[3])
        else:
            joined.append(box)
    return joined


def _patch(boxes: list[Box], **look: Any) -> Any:
    """Return one patch for many boxes: thousands of spans stay a small file."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    vertices: list[tuple[float, float]] = []
    for left, bottom, right, top in boxes:
        vertices += [(left, bottom), (right, bottom), (right, top), (left, top), (left, bottom)]
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY] * len(boxes)
    return PathPatch(Path(vertices, codes), **look)


@cache
def _width(label: str) -> float:
    """Return the width of a label in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    if not label.strip():
        return 0.0
    return TextPath((0, 0), label, size=_TEXT, prop=FontProperties()).get_extents().width


def _legend(axes: Axes, panels: Iterable[_Panel], titled: bool) -> None:
    from matplotlib.patches import Patch

    spans = [span for panel in panels for span in panel.spans]
    kinds = [kind for kind in _LOOKS if any(span.kind == kind for span in spans)]
    handles = [Patch(label=_WORDS[kind], linewidth=0.8, **_LOOKS[kind]) for kind in kinds]
    if any(span.end is None for span in spans):
        handles.append(
            Patch(
                label="no end seen",
                facecolor="none",
                edgecolor=PALETTE["ink"],
                linestyle=(0, (3, 2)),
                linewidth=1.4,
            )
        )
    if len(handles) < 2:
        return
    axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=len(handles),
        borderaxespad=0.1,
        borderpad=0.1,
        handlelength=1.7,
        columnspacing=1.4,
    )
    if titled:
        axes.set_title(axes.get_title(loc="left"), pad=28)
