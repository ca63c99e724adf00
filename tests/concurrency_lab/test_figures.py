import re
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure

from concurrency_lab import figures
from concurrency_lab.figures import DARK, PALETTE


def some_figure():
    figure, axes = figures.new()
    groups = {"threads": [0.9, 1.0, 1.1], "processes": [1.7, 1.9, 1.8]}
    figures.dots(axes, groups, reference=1, value="{:.2f} x".format)
    axes.set_xlabel("speed-up")
    axes.set_title("Counting primes")
    return figure


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(part * c for part, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colours", [PALETTE, DARK], ids=["light", "dark"])
def test_text_and_marks_have_contrast_with_the_background(colours):
    for name in ("ink", "muted"):
        assert contrast(colours[name], colours["paper"]) >= 4.5
    for name in ("blue", "orange", "green", "purple", "vermillion"):
        assert contrast(colours[name], colours["paper"]) >= 3
    assert contrast(colours["paper"], colours["blue"]) >= 4.5  # labels on bars
    for name in colours:
        if name.endswith("_soft"):
            assert contrast(colours["ink"], colours[name]) >= 4.5


def test_equal_figures_give_equal_files_without_metadata():
    first, second = figures.to_svg(some_figure()), figures.to_svg(some_figure())
    assert first == second
    for word in ("matplotlib", "metadata", "date", "creator", "<!--"):
        assert word not in first.lower()
    assert len(first) < 60_000


def test_the_file_has_light_and_dark_colours_and_plain_ones_to_fall_back_on():
    svg = figures.to_svg(some_figure())
    root = ElementTree.fromstring(svg)
    sheet = root.find("{*}style").text
    light, dark = sheet.split("@media (prefers-color-scheme:dark)")
    for name in ("paper", "ink", "muted", "grid", "blue", "orange"):
        assert f"--{name}:{PALETTE[name]}" in light
        assert f"--{name}:{DARK[name]}" in dark
    painted = [e for e in root.iter() if re.search(r"\bf-", e.get("class", ""))]
    assert painted
    for element in painted:
        names = re.findall(r"\bf-(\w+)", element.get("class"))
        assert [element.get("fill")] == [PALETTE[name] for name in names]
        assert f".f-{names[0]}{{fill:var(--{names[0]})}}" in sheet


def test_the_background_is_the_first_thing_drawn():
    root = ElementTree.fromstring(figures.to_svg(some_figure()))
    first = next(root.iter("{http://www.w3.org/2000/svg}path"))
    assert first.get("class") == "f-paper"
    assert first.get("d").startswith("M0 ")


def test_references_lead_somewhere_and_ids_are_not_shared_between_figures():
    def ids(svg):
        return set(re.findall(r'\bid="([^"]+)"', svg))

    one = figures.to_svg(some_figure())
    other_figure = some_figure()
    other_figure.axes[0].set_title("Another title")
    other = figures.to_svg(other_figure)
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', one)) == ids(one)
    assert not ids(one) & ids(other)


def test_black_text_adapts_unless_it_stands_on_a_colour_map():
    plain = Figure()
    plain.subplots().text(0.5, 0.5, "text", color="black")
    assert 'fill="#000000" class="f-ink"' in figures.to_svg(plain)

    mapped = Figure()
    axes = mapped.subplots()
    axes.imshow([[1, 2], [3, 4]])
    axes.text(0.5, 0.5, "text", color="black")
    assert 'fill="#000000">' in figures.to_svg(mapped)


def test_hatches_and_rectangles_follow_the_scheme():
    figure, axes = figures.new()
    axes.bar([1], [1], color=PALETTE["grey_soft"], edgecolor=PALETTE["muted"], hatch="//")
    root = ElementTree.fromstring(figures.to_svg(figure))
    pattern = root.find(".//{*}pattern")
    assert {e.get("class") for e in pattern} == {"f-grey_soft", "f-muted s-muted"}
    rectangle = re.compile(r"M[\d.]+ [\d.]+H[\d.]+V[\d.]+H[\d.]+z")
    assert any(rectangle.fullmatch(e.get("d", "")) for e in root.iter())


def test_new_gives_one_axes_or_an_array():
    _, axes = figures.new()
    assert axes.get_title() == ""
    figure, axes = figures.new(width=5, height=4, rows=2, columns=3, sharex=True)
    assert axes.shape == (2, 3)
    assert list(figure.get_size_inches()) == [5, 4]


def test_dots_draws_every_value_and_the_median():
    figure, axes = figures.new()
    figures.dots(axes, {"a": [3, 1, 2], "b": [10.0]}, value="{:.1f}".format)
    drawn = [sorted(line.get_xdata()) for line in axes.lines]
    assert drawn == [[1, 2, 3], [10]]
    assert [text.get_text() for text in axes.texts] == ["2.0", "10.0"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]


@pytest.mark.parametrize("groups", [{}, {"a": []}])
def test_dots_without_values_says_so(groups):
    _, axes = figures.new()
    with pytest.raises(ValueError, match="at least one|no values to draw for 'a'"):
        figures.dots(axes, groups)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (63e-6, "63 µs"),
        (0.0009996, "1 ms"),
        (0.00123, "1.23 ms"),
        (0.1234, "123 ms"),
        (0.9999, "1 s"),
        (150, "150 s"),
        (-0.02, "-20 ms"),
        (3e-10, "0.3 ns"),
    ],
)
def test_duration(seconds, text):
    assert figures.duration(seconds) == text


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1.5 * 2**20, "1.5 MiB"), (2**34, "16 GiB")],
)
def test_size(n_bytes, text):
    assert figures.size(n_bytes) == text


@pytest.mark.parametrize(
    ("longest", "unit"), [(12, "s"), (0.5, "ms"), (0.0005, "µs"), (0.001, "ms")]
)
def test_time_axis_chooses_the_unit(longest, unit):
    figure, axes = figures.new()
    axes.set_xlim(0, longest)
    figures.time_axis(axes, label="latency")
    assert axes.get_xlabel() == f"latency ({unit})"


@pytest.mark.parametrize("values", [[1e-5, 1e-1], [0.01, 0.03]])
def test_log_axis_has_labelled_ticks_also_for_a_short_range(values):
    figure, axes = figures.new()
    axes.plot([1, 2], values)
    figures.log_axis(axes, "y", "time", figures.duration)
    figure.draw_without_rendering()
    low, high = axes.get_ylim()
    shown = [t.get_text() for t in axes.get_yticklabels() if low <= t.get_position()[1] <= high]
    assert len(shown) >= 2
    assert all(re.fullmatch(r"[\d.]+ (s|ms|µs)", text) for text in shown)


@pytest.mark.parametrize("words", [figures.duration, figures.size])
@pytest.mark.parametrize("span", [1.3, 3, 12, 200, 5_000, 1e6, 1e9])
def test_log_axis_has_few_ticks_for_any_range(words, span):
    _, axes = figures.new()
    axes.plot([1, 2], [7, 7 * span])
    figures.log_axis(axes, "y", value=words)
    low, high = axes.get_ylim()
    assert 2 <= len([tick for tick in axes.get_yticks() if low <= tick <= high]) <= 5


def test_an_unknown_axis_is_refused():
    _, axes = figures.new()
    with pytest.raises(ValueError, match="'x' or 'y'"):
        figures.log_axis(axes, "z")


def test_importing_does_not_load_matplotlib():
    code = "import sys, concurrency_lab.figures; print('matplotlib' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout == "False\n", found.stderr


def test_a_notebook_shows_figures_as_svg_also_those_of_pyplot():
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    sources = [
        "from concurrency_lab import figures\nfigure, axes = figures.new()\nfigure",
        "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()",
        "plt.plot([2, 1]);",
    ]
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    for cell in notebook.cells:
        shown = [output.data for output in cell.outputs if "data" in output]
        assert [sorted(data) for data in shown] == [["image/svg+xml", "text/plain"]]
        assert "prefers-color-scheme" in shown[0]["image/svg+xml"]
