"""course_utils.plots: a picture that says in words what it shows, the same bytes every time."""

import html
import re

from course_utils.plots import (
    arrows,
    circles,
    dots,
    grid,
    grouped_bars,
    heatmap,
    histogram,
    lines,
    number_lines,
    slopes,
    targets,
    tree,
)

VALUES = {"English": {"A": 13, "B": 14.5}, "<b>Hindi</b>": {"A": 139, "B": 0}}


def test_alternative_text_holds_every_number():
    figure = grouped_bars(VALUES, "One sentence", "tokens")
    assert repr(figure).splitlines() == [
        "One sentence (tokens)",
        "English      A 13  B 14.5",
        "<b>Hindi</b> A 139  B 0",
    ]


def test_slopes_say_powers_of_ten_and_draw_zero_at_the_floor():
    groups = {"bug": {"one": [0.4, 0.02, 0.02]}, "rounding": {"again": [0.0, 3e-5, 1e-20]}}
    figure = slopes(groups, ["a", "b", "c"], "Left", "difference")
    assert repr(figure).splitlines() == [
        "Left (difference; a, b, c)",
        "bug, one: 1e0, 1e-2, 1e-2",
        "rounding, again: 0, 1e-5, 0",
    ]


def test_page_shows_the_picture_with_its_text_escaped():
    figure = grouped_bars(VALUES, "One sentence", "tokens")
    page = figure._repr_html_()
    assert "<b>" not in page
    assert html.unescape(re.search(r'alt="([^"]*)"', page)[1]) == figure.alt
    assert figure.webp.startswith(b"RIFF") and len(figure.webp) < 40_000


def test_picture_is_the_same_every_time():
    assert grouped_bars(VALUES, "t", "u").webp == grouped_bars(VALUES, "t", "u").webp


def test_no_figure_stays_open():
    from matplotlib import pyplot

    grouped_bars(VALUES, "t", "u")
    assert pyplot.get_fignums() == []


def test_curves_say_their_range_and_five_places():
    places = [number / 10 for number in range(11)]
    curves = {"flat": [0.5] * 11, "<i>rising</i>": [place**2 for place in places]}
    figure = lines(places, curves, "Two curves", "moved by", "loss")
    assert repr(figure).splitlines() == [
        "Two curves (loss, over: moved by)",
        "flat: from 0.50 to 0.50; 0.50 at 0, 0.50 at 0.2, 0.50 at 0.5, 0.50 at 0.8, 0.50 at 1",
        "<i>rising</i>: from 0.00 to 1.00; 0.00 at 0, 0.04 at 0.2, 0.25 at 0.5, 0.64 at 0.8, 1.00 at 1",
    ]
    assert figure.webp == lines(places, curves, "Two curves", "moved by", "loss").webp
    assert figure.webp != lines(places, curves | {"flat": [0.6] * 11}, "Two curves", "moved by", "loss").webp


def test_targets_say_how_far_the_mean_and_the_shots_are():
    panels = {"biased": [(2.0, 0.0), (2.0, 0.0)], "noisy": [(1.0, 1.0), (-1.0, -1.0)]}
    figure = targets(panels, "Two ways to miss", "lengths")
    assert repr(figure).splitlines() == [
        "Two ways to miss (lengths)",
        "biased: mean 2.00 from the middle, shots 0.00 from their mean",
        "noisy: mean 0.00 from the middle, shots 1.41 from their mean",
    ]
    assert figure.webp != targets({"biased": panels["noisy"], "noisy": panels["biased"]}, "t", "lengths").webp


def test_dots_say_the_range_of_each_row_in_each_panel():
    panels = {
        "bias": {"one": [(0.0, 0.1), (0.25, 0.1)], "another": [(3.0, 0.0), (1.0, 0.0)]},
        "noise": {"one": [(2.0, 0.0), (2.5, 0.0)], "another": [(0.0, 0.0), (0.0, 0.0)]},
    }
    figure = dots(panels, "Two ways", "in lengths")
    assert repr(figure).splitlines() == [
        "Two ways (in lengths)",
        "one     bias 0.00 to 0.25  noise 2.00 to 2.50",
        "another bias 1.00 to 3.00  noise 0.00 to 0.00",
    ]
    assert figure.webp == dots(panels, "Two ways", "in lengths").webp and len(figure.webp) < 40_000
    panels["bias"]["one"][0] = (0.0, 0.9)
    assert figure.webp != dots(panels, "Two ways", "in lengths").webp  # the bars are drawn
    alone = dots({"bias": panels["bias"]}, "Two ways", "in lengths")
    assert repr(alone).splitlines()[1] == "one     bias 0.00 to 0.25"


def test_a_histogram_says_count_range_quartiles_and_marks():
    figure = histogram([0, 1, 2, 3, 4], "Draws", "deviations", marks={"limit": 6}, curve=lambda place: 0.2)
    assert repr(figure).splitlines() == [
        "Draws (how many, over: deviations)",
        "5 numbers, mean 2.00, from 0.00 to 4.00, half of them from 1.00 to 3.00",
        "limit at 6.00",
    ]
    assert figure.webp != histogram([0, 1, 2, 3, 4], "Draws", "deviations").webp


def test_a_heatmap_is_its_table():
    figure = heatmap(
        [[1, None], [float("nan"), float("-inf")]],
        ["a", "b"],
        ["x", "y"],
        "Weights",
        "key",
        "query",
        digits=1,
    )
    assert repr(figure).splitlines() == [
        "Weights (columns: key) (rows: query)",
        "   x    y",
        "a  1.0",
        "b  nan  −∞",
    ]
    darker = heatmap([[1, 0]], ["a"], ["x", "y"], "t", limits=(0, 1))
    assert darker.webp != heatmap([[1, 0]], ["a"], ["x", "y"], "t", limits=(0, 10)).webp


def test_a_heatmap_of_nothing_finite_is_drawn_too():
    assert "nan" in heatmap([[float("nan")]], ["a"], ["x"], "All NaN").alt


def test_a_grid_says_each_cells_kind():
    cells = [[("pad", "padding"), ("My", "")], [("I", ""), ("am", "")]]
    figure = grid(cells, "A batch", ["", "padding"], rows=["row 0", "row 1"], columns=["0", "1"])
    assert repr(figure).splitlines() == [
        "A batch",
        "       0              1",
        "row 0  pad (padding)  My",
        "row 1  I              am",
    ]


def test_a_tree_is_indented_below_its_root():
    root = ("ab", "rank 3", [("a", "", []), ("b", "", [])])
    assert repr(tree(root, "A merge")).splitlines() == ["A merge", "ab (rank 3)", "  a", "  b"]


def test_circles_say_each_hands_angle():
    figure = circles({"fast": [(1, 0), (0, 1), (-1, 0)], "slow": [(1, 0), (0, -1)]}, "Two clocks")
    assert figure.alt.splitlines() == [
        "Two clocks (degrees, counterclockwise from the right)",
        "fast  0: 0, 1: 90, 2: 180",
        "slow  0: 0, 1: 270",
    ]
    assert figure.webp.startswith(b"RIFF")


def test_number_lines_list_places_and_distances():
    figure = number_lines(
        {"alone": [(0, "My"), (1, "dog")], "padded": [(3, "My")]},
        "Positions",
        "position id",
        [("alone", 0, 1, "1 apart")],
    )
    assert repr(figure).splitlines() == [
        "Positions (position id)",
        "alone: My at 0, dog at 1",
        "padded: My at 3",
        "alone: 1 apart, from 0 to 1",
    ]


def test_arrows_list_their_pairs():
    figure = arrows({"logits at": ["The", "cat"], "score": ["", "cat", "?"]}, [(0, 1), (1, 2)], "The shift")
    assert repr(figure).splitlines() == ["The shift", "logits at → score", "The → cat", "cat → ?"]


def test_arrows_tell_a_box_of_two_lines_in_one():
    figure = arrows({"logits": ["0"], "token,\np": ["", "cat\n0.5"]}, [(0, 1)], "The shift")
    assert repr(figure).splitlines() == ["The shift", "logits → token, p", "0 → cat 0.5"]


def test_signs_that_begin_a_formula_are_text():
    assert arrows({"a": ["$x^2$", "$"], "b": ["$y", "_"]}, [(0, 0)], "$t").webp
