"""One style for every plot of the course, in light and in dark.

`new` makes a figure, `to_svg` turns it into a small SVG file with a background of its own. Its
colours are CSS custom properties that follow `prefers-color-scheme`; a program that does not know
CSS shows the light colours. In IPython and Jupyter a figure that is a cell's value is shown in
this form, also one that you made with `matplotlib.pyplot`.

Matplotlib is imported when the first figure is made: worker processes that import the package for
its workloads do not pay for it.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from concurrency_lab._svg import adaptive

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours (https://jfly.uni-koeln.de/color/), darkened for paper and lightened for
# a dark page until text has a contrast of 4.5 and marks of 3 with the background. Orange and
# vermillion are close to a deuteranope: never tell things apart by these two alone.
_COLOURS = {
    #              light      dark
    "paper": ("#fdfdfe", "#14181e"),
    "ink": ("#1d2430", "#e4e8ee"),
    "muted": ("#596270", "#a5afbc"),
    "grid": ("#e1e5ea", "#303843"),
    "blue": ("#0072b2", "#4aa5e6"),
    "orange": ("#b87600", "#f0ae2b"),
    "green": ("#00875f", "#2fc498"),
    "purple": ("#a8528a", "#dd8fbd"),
    "vermillion": ("#cf5000", "#f2763a"),
    "blue_soft": ("#d9ebf7", "#16334a"),
    "orange_soft": ("#f8ecd3", "#40321a"),
    "green_soft": ("#d8f1e8", "#153a30"),
    "purple_soft": ("#f5e3ee", "#40293a"),
    "vermillion_soft": ("#fbe5d8", "#45261a"),
    "grey_soft": ("#eceff2", "#262d37"),
}

PALETTE: Mapping[str, str] = MappingProxyType({k: light for k, (light, _) in _COLOURS.items()})
"""Named colours, to be given to matplotlib. In a dark page `to_svg` replaces them by `DARK`.

`#ffffff` and `#000000` stay white and black in both (for numbers written on a heat map)."""

DARK: Mapping[str, str] = MappingProxyType({k: dark for k, (_, dark) in _COLOURS.items()})
"""What each colour of `PALETTE` becomes on a dark page."""

SERIES = tuple(PALETTE[name] for name in ("blue", "orange", "green", "purple", "vermillion"))
"""Colours of the first, second ... line or group."""

MARKERS = ("o", "s", "^", "D", "v")
"""Marker shapes that go with `SERIES`, so that colour is never the only difference."""

_NAME_OF = {light: name for name, light in PALETTE.items()}


def style() -> dict[str, Any]:
    """Return the book's matplotlib settings (an rc dictionary)."""
    from cycler import cycler

    ink, muted, paper, grid = (PALETTE[k] for k in ("ink", "muted", "paper", "grid"))
    dashes = ("-", "--", "-.", ":", (0, (6, 1.5, 1, 1.5, 1, 1.5)))
    return {
        "font.size": 12,
        "axes.titlesize": 13,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlepad": 10,
        "axes.labelsize": 12,
        "axes.labelcolor": muted,
        "axes.edgecolor": muted,
        "axes.facecolor": paper,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.prop_cycle": cycler(color=SERIES) + cycler(linestyle=dashes),
        "grid.color": grid,
        "grid.linewidth": 0.8,
        "xtick.color": muted,
        "ytick.color": muted,
        "xtick.labelcolor": muted,
        "ytick.labelcolor": ink,
        "xtick.major.width": 0.8,
        "ytick.major.width": 0.8,
        "xtick.minor.size": 0,
        "ytick.minor.size": 0,
        "legend.frameon": False,
        "legend.fontsize": 12,
        "legend.labelcolor": ink,
        "lines.linewidth": 2,
        "lines.markersize": 6,
        "text.color": ink,
        "figure.facecolor": paper,
        "figure.edgecolor": paper,
        "savefig.facecolor": "auto",
        "hatch.linewidth": 1.2,
        "axes.formatter.useoffset": False,
        "figure.constrained_layout.w_pad": 0.09,
        "figure.constrained_layout.h_pad": 0.07,
    }


_styled = False


def new(
    width: float = 6.0, height: float = 3.2, rows: int = 1, columns: int = 1, **subplots: Any
) -> tuple[Figure, Any]:
    """Return a figure and its axes (an array of axes if there are several), without pyplot.

    `width` and `height` are inches. The default width is readable, scaled down, on a phone that
    is 390 pixels wide. `subplots` goes to `Figure.subplots` (`sharex=True`, `width_ratios=...`).

    The first call makes `style()` matplotlib's default in this process: a legend or a label that
    is added later, and figures you draw yourself, then match.
    """
    import matplotlib
    from matplotlib.figure import Figure

    global _styled
    if not _styled:
        matplotlib.rcParams.update(style())
        _styled = True
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, **subplots)


def to_svg(figure: Figure) -> str:
    """Return the figure as an SVG document that is the same for equal figures.

    Text becomes outlines, so no font is needed. Colours of `PALETTE` become CSS custom properties
    with a value for light and one for dark pages. Black and white adapt too, as ink and paper, if
    the figure shows no colour map (a number on a heat map must keep its colour).
    """
    import matplotlib

    written = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "figure"}):
        figure.savefig(
            written,
            format="svg",
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
            facecolor=figure.get_facecolor(),
        )
    names = dict(_NAME_OF)
    if not any(_is_colour_map(artist) for artist in figure.findobj()):
        names |= {"#000000": "ink", "#ffffff": "paper"}
    return adaptive(written.getvalue(), names, PALETTE, DARK)


def _is_colour_map(artist: Any) -> bool:
    values = getattr(artist, "get_array", lambda: None)()
    return values is not None


def dots(
    axes: Axes,
    groups: Mapping[str, Iterable[float]],
    *,
    value: Callable[[float], str] = "{:.2f}".format,
    reference: float | None = None,
    series: Mapping[str, int] | None = None,
) -> None:
    """Draw every value as a dot, one row a group from the top down, with the median marked.

    `value` writes the median at the right end of its row. `reference` draws a vertical line, for
    example at 1 for speed-ups. `series` gives groups that belong together the same number, and
    with it the same colour and marker; without it each group has its own.
    """
    from statistics import median

    if not groups:
        raise ValueError("dots needs at least one group of values")
    rows = {name: [float(v) for v in values] for name, values in groups.items()}
    empty = [name for name, values in rows.items() if not values]
    if empty:
        raise ValueError(f"no values to draw for {empty[0]!r}")
    if reference is not None:
        axes.axvline(reference, color=PALETTE["muted"], linewidth=1.2, linestyle=(0, (4, 3)))
    for row, (name, values) in enumerate(rows.items()):
        look = row if series is None else series[name]
        # Golden-ratio steps keep neighbours apart and are the same in every run.
        heights = [row + 0.34 * ((i * 0.618034) % 1 - 0.5) for i in range(len(values))]
        axes.plot(
            values,
            heights,
            linestyle="none",
            marker=MARKERS[look % len(MARKERS)],
            markersize=7.5,
            color=SERIES[look % len(SERIES)],
            markeredgecolor=PALETTE["paper"],
            markeredgewidth=0.7,
        )
        middle = median(values)
        axes.vlines(middle, row - 0.34, row + 0.34, color=PALETTE["ink"], linewidth=2.4, zorder=3)
        place = {"transform": axes.get_yaxis_transform(), "va": "center_baseline"}
        axes.text(1.02, row, value(middle), weight="bold", **place)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.45, -0.55)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)


def duration(seconds: float) -> str:
    """Return seconds as text with the unit that fits: 0.000063 is "63 µs"."""
    return _scaled(seconds, ((1, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")))


def size(n_bytes: float) -> str:
    """Return a number of bytes as text, in powers of 1024: 1572864 is "1.5 MiB"."""
    return _scaled(n_bytes, ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B")))


def _scaled(number: float, units: tuple[tuple[float, str], ...]) -> str:
    if number == 0 or not math.isfinite(number):
        return f"{number:g} {next(unit for factor, unit in units if factor == 1)}"
    rounded = max(abs(number), float(f"{abs(number):.2e}"))  # 0.0009996 is 1 ms, not 1000 µs
    factor, unit = next((pair for pair in units if rounded >= pair[0] * (1 - 1e-9)), units[-1])
    amount = number / factor
    return f"{amount:.0f} {unit}" if abs(amount) >= 99.5 else f"{amount:.3g} {unit}"


def time_axis(axes: Axes, which: str = "x", label: str = "time") -> None:
    """Show an axis whose values are seconds in s, ms or µs, and say so in its label."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis = _axis(axes, which)
    longest = max(abs(limit) for limit in axis.get_view_interval())
    factor, unit = next(
        (pair for pair in ((1, "s"), (1e-3, "ms")) if longest >= pair[0]), (1e-6, "µs")
    )
    axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{round(value / factor, 9):g}"))
    axis.set_label_text(f"{label} ({unit})")


def log_axis(
    axes: Axes,
    which: str = "x",
    label: str = "",
    value: Callable[[float], str] = "{:g}".format,
) -> None:
    """Make an axis logarithmic, with ticks written by `value` (`duration`, `size`, ...).

    Call it after the data is drawn. There are two to five ticks: powers of ten or two, or, where
    the range is short, round numbers between them.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axis = _axis(axes, which)
    set_scale = axes.set_xscale if which == "x" else axes.set_yscale
    set_scale("log", base=2 if value is size else 10)
    low, high = sorted(axis.get_view_interval())
    axis.set_major_locator(FixedLocator(_log_ticks(low, high, base=2 if value is size else 10)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda number, _: value(number)))
    if label:
        axis.set_label_text(label)


def _log_ticks(low: float, high: float, base: int) -> list[float]:
    """The finest ladder of round numbers that has at most five of them between low and high."""
    from matplotlib.ticker import MaxNLocator

    first, last = (math.floor(math.log(limit, base)) for limit in (low, high))
    steps = [
        (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 4, 5, 6, 8),
        (1, 1.5, 2, 3, 5, 7),
        (1, 2, 5),
        (1, 3),
    ]
    ladders = [[m * 10.0**e for e in range(first, last + 1) for m in step] for step in steps]
    if base == 2:
        ladders = [[m * 2.0**e for e in range(first, last + 1) for m in (1, 1.25, 1.5, 1.75)]]
    for apart in range(1, 40):
        ladders.append([float(base) ** e for e in range(first, last + 1) if e % apart == 0])
    ladders = [[tick for tick in ladder if low <= tick <= high] for ladder in ladders]
    equal = MaxNLocator(4).tick_values(low, high)  # for a range that is too short for the others
    ladders.append([tick for tick in equal if low <= tick <= high])
    return next(ladder for ladder in ladders if 2 <= len(ladder) <= 5)


def _axis(axes: Axes, which: str) -> Any:
    if which not in ("x", "y"):
        raise ValueError(f"which must be 'x' or 'y', not {which!r}")
    return axes.xaxis if which == "x" else axes.yaxis


def show_in_ipython() -> bool:
    """Show figures as `to_svg` does from now on; return False outside IPython.

    Called when this module is imported. A MIME bundle is registered, because choosing a backend
    (importing pyplot does) removes formatters of single types.
    """
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    shell = get_ipython()
    if shell is None:
        return False
    # Pyplot's inline backend would add a PNG file of the same figure.
    shell.config.InlineBackend.setdefault("figure_formats", set())
    formatter = shell.display_formatter
    for single in formatter.formatters.values():
        single.type_printers.pop(("matplotlib.figure", "Figure"), None)
    formatter.mimebundle_formatter.for_type_by_name(
        "matplotlib.figure",
        "Figure",
        lambda figure, **_: {"image/svg+xml": to_svg(figure), "text/plain": repr(figure)},
    )
    return True


show_in_ipython()
