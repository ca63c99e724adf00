import numpy as np
import pytest

from concurrency_lab import figures
from concurrency_lab.experiments.picture import show_picture


def test_a_picture_keeps_its_rows_and_spreads_its_colours():
    figure = show_picture([[1, 1, 1000], [2, 3, 1]], "a title")
    (axes,) = figure.axes
    (image,) = axes.images
    assert np.allclose(image.get_array(), [[0, 0, 1], [1 / 3, 2 / 3, 0]])
    assert axes.get_title(loc="left") == "a title"
    assert "<image" in figures.to_svg(figure)


def test_a_picture_of_one_colour_can_be_shown():
    (image,) = show_picture([[7, 7]]).axes[0].images
    assert np.array_equal(image.get_array(), [[0, 0]])


@pytest.mark.parametrize(
    ("rows", "message"),
    [([], "nothing to show"), ([[]], "nothing to show"), ([[1, 2], [1]], "have 1 to 2 numbers")],
)
def test_rows_that_are_no_picture_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        show_picture(rows)
