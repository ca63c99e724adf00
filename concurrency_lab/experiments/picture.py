"""Show a picture that was calculated row by row (chapter 8)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def show_picture(rows: Sequence[Sequence[float]], title: str | None = None) -> Figure:
    """Return a figure of `rows` of numbers, the first row on top; each number is a colour.

    Colours run from dark to bright so that each takes about the same area (histogram
    equalisation): a few large numbers do not make the rest look alike.

    Raises ValueError if there are no rows, or rows of different lengths.
    """
    import numpy as np

    from concurrency_lab import figures

    lengths = sorted({len(row) for row in rows})
    if not lengths or lengths[0] == 0:
        raise ValueError("there is nothing to show: a picture needs at least one row of numbers")
    if len(lengths) > 1:
        raise ValueError(
            f"the rows of a picture are equally long; these have {lengths[0]} to {lengths[-1]} "
            "numbers: is one of them unfinished?"
        )
    _, ranks, areas = np.unique(np.asarray(rows), return_inverse=True, return_counts=True)
    below = np.cumsum(areas)
    brightness = (below - below[0]) / max(1, below[-1] - below[0])
    figure, axes = figures.new(height=6.0 * len(rows) / lengths[0])
    axes.imshow(brightness[ranks].reshape(len(rows), -1), cmap="cividis")
    axes.set_axis_off()
    if title:
        axes.set_title(title)
    return figure
