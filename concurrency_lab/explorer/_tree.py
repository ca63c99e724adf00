"""Draws the tree of schedules."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from concurrency_lab import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from concurrency_lab.explorer.result import Exploration

_DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)))


def draw(exploration: Exploration, most: int) -> Figure:
    """The tree: each branch is a step of a thread, each leaf a schedule's end."""
    if exploration.schedules > most:
        number = "endlessly many" if exploration.schedules == math.inf else exploration.schedules
        raise ValueError(
            f"{number} schedules are too many to draw (at most {most}). Draw a smaller program"
        )
    leaves: list[tuple[int, Any]] = []
    branches: list[tuple[int, int, float, float]] = []  # thread, depth, y from, y to
    root = _grow(exploration._states[0], 0, leaves, branches)
    depth = max((d for _, d, *_ in branches), default=0) + 1
    height = max(2.2, min(0.17 * len(leaves) + 1.2, 12))
    figure, axes = figures.new(height=height)
    for thread, name in enumerate(exploration._names):
        line = {
            "color": figures.SERIES[thread % len(figures.SERIES)],
            "ls": _DASHES[thread % len(_DASHES)],
        }
        axes.plot([], [], **line, label=f"thread {name}")
        for _, d, y0, y1 in (b for b in branches if b[0] == thread):
            axes.plot([d, d + 0.35, d + 1], [y0, y1, y1], **line, lw=1.4)
    marker = max(3.0, min(7.0, 150 / len(leaves)))
    for good, colour, sign, word in (
        (True, "green", "o", "ok"), (False, "vermillion", "X", "fails")
    ):  # fmt: skip
        ends = [(d, y) for y, (d, end) in enumerate(leaves) if end.ok == good]
        if ends:
            axes.plot(
                *zip(*ends, strict=True), sign, ls="", ms=marker,
                color=figures.PALETTE[colour], label=word,
            )  # fmt: skip
    axes.plot([0], [root], "o", color=figures.PALETTE["ink"], ms=5)
    axes.set_xlim(-0.2, depth + 0.2)
    axes.set_ylim(len(leaves) - 0.4, -0.6)
    axes.set_xticks(range(depth + 1))
    axes.set_xlabel("steps taken")
    axes.set_yticks([])
    axes.grid(False)
    axes.spines["left"].set_visible(False)
    axes.set_title(exploration.summary())
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.9 / height), ncols=3)
    return figure


def _grow(state: Any, depth: int, leaves: list, branches: list) -> float:
    """Place the tree below a state; return the height at which it stands."""
    if state.end is not None:
        leaves.append((depth, state.end))
        return len(leaves) - 1
    heights = []
    for by, other in sorted(state.next.items()):
        heights.append((by, _grow(other, depth + 1, leaves, branches)))
    middle = sum(y for _, y in heights) / len(heights)
    branches += [(by, depth, middle, y) for by, y in heights]
    return middle
