"""Pictures of numbers: bars, curves, slopes, dots with errors, shots at a target, a histogram, a heatmap."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from math import hypot, isfinite

from .figure import COLORS, DASHES, INK, LINE, Figure, finished, new_canvas, new_panels, table


def grouped_bars(values: Mapping[str, Mapping[str, float]], title: str, unit: str) -> Figure:
    """Horizontal bars, one group a row, one colour a series.

    values: from row label to a mapping from series label to a number; every row has the same series
    title:  what the picture shows
    unit:   the label of the axis
    The alternative text is the table of the numbers.
    """
    series = list(next(iter(values.values())))
    height = 0.8 / len(series)
    canvas, axes = new_canvas(0.9 + 0.26 * len(values) * len(series) * 0.9)
    for number, name in enumerate(series):
        rows = [row + (number - (len(series) - 1) / 2) * height for row in range(len(values))]
        lengths = [row[name] for row in values.values()]
        bars = axes.barh(rows, lengths, height, label=name, color=COLORS[number])
        axes.bar_label(bars, fmt="{:g}", padding=3, fontsize=8)
    axes.set_yticks(range(len(values)), list(values))
    axes.invert_yaxis()
    axes.margins(x=0.08)
    _label(axes, title, unit, "")
    if len(series) > 1:
        axes.legend(loc="best", frameon=False)
    width = max(map(len, values))
    lines = [
        f"{label:{width}} " + "  ".join(f"{name} {row[name]:g}" for name in series)
        for label, row in values.items()
    ]
    return finished(canvas, "\n".join([f"{title} ({unit})", *lines]))


def lines(
    places: Sequence[float], values: Mapping[str, Sequence[float]], title: str, across: str, unit: str
) -> Figure:
    """Curves over one axis, one colour and one dash a curve.

    places: where the curves were taken, in ascending order
    values: from the name of a curve to its heights, as many as `places`
    title:  what the picture shows; across: the label of the axis below; unit: of the one beside
    The alternative text has each curve's range and its numbers at five places.
    """
    canvas, axes = new_canvas(3.2)
    for number, (name, heights) in enumerate(values.items()):
        axes.plot(places, heights, label=name, color=COLORS[number], linestyle=DASHES[number])
    _label(axes, title, across, unit)
    axes.legend(frameon=False)
    chosen = [round(share * (len(places) - 1) / 4) for share in range(5)]
    texts = [f"{title} ({unit}, over: {across})"]
    for name, heights in values.items():
        at = ", ".join(f"{heights[index]:.2f} at {places[index]:g}" for index in chosen)
        texts.append(f"{name}: from {min(heights):.2f} to {max(heights):.2f}; {at}")
    return finished(canvas, "\n".join(texts))


def slopes(
    groups: Mapping[str, Mapping[str, Sequence[float]]],
    columns: Sequence[str],
    title: str,
    unit: str,
    floor: float = 1e-15,
) -> Figure:
    """How quantities fall from column to column, on a logarithmic axis; a colour, a dash and a mark a group.

    groups: from a group's name to a mapping from a quantity's name to its numbers, one a column, 0 or above
    title:  what the picture shows; unit: the label of the axis; floor: where 0 and what is less is drawn
    The alternative text has the power of ten of each number.
    """
    canvas, axes = new_canvas(3.6)
    texts = [f"{title} ({unit}; {', '.join(columns)})"]
    for number, (group, rows) in enumerate(groups.items()):
        for count, (name, values) in enumerate(rows.items()):
            heights = [max(value, floor) for value in values]
            look = {"color": COLORS[(5, 0)[number % 2]], "linestyle": DASHES[number], "markersize": 4}
            label = group if count == 0 else None
            axes.plot(columns, heights, marker="os"[number % 2], label=label, **look)
            powers = [f"1e{round(math.log10(value)):d}" if value > floor else "0" for value in values]
            texts.append(f"{group}, {name}: {', '.join(powers)}")
    axes.set_yscale("log")
    _label(axes, title, "", unit)
    axes.legend(frameon=False)
    return finished(canvas, "\n".join(texts))


def dots(panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], title: str, unit: str) -> Figure:
    """Measured numbers as dots with bars of error: a panel a quantity, one beside the other.

    panels: from the name of a quantity to a mapping from row label to (number, error) pairs, one dot each;
            every panel has the same rows, and an error of 0 draws no bar
    title:  what the picture shows; unit: the label of the axes
    The alternative text has, for each row, the range of its numbers in each panel.
    """
    rows = list(next(iter(panels.values())))
    canvas, columns = new_panels(1.1 + 0.3 * len(rows), len(panels))
    for axes, (name, values) in zip(columns, panels.items(), strict=True):
        for row, label in enumerate(rows):
            pairs = values[label]
            heights = [row + 0.6 * ((number + 0.5) / len(pairs) - 0.5) for number in range(len(pairs))]
            numbers, errors = zip(*pairs, strict=True)
            axes.errorbar(numbers, heights, xerr=errors, fmt="o", markersize=3, linewidth=1, color=COLORS[0])
        axes.axvline(0, color="#808080", linewidth=1)
        axes.set_yticks(range(len(rows)), rows)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(f"{name}, {unit}")
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    canvas.suptitle(title, x=0.01, ha="left")
    width = max(map(len, rows))
    texts = [f"{title} ({unit})"]
    for label in rows:
        ranges = []
        for name, values in panels.items():
            numbers = [number for number, _ in values[label]]
            ranges.append(f"{name} {min(numbers):.2f} to {max(numbers):.2f}")
        texts.append(f"{label:{width}} " + "  ".join(ranges))
    return finished(canvas, "\n".join(texts))


def targets(panels: Mapping[str, Sequence[tuple[float, float]]], title: str, unit: str) -> Figure:
    """Shots at a target: a panel a marksman, one beside the other, with the middle at (0, 0).

    panels: from a panel's name to its shots, (x, y) each; their mean is marked with a cross
    title:  what the picture shows; unit: in what the rings at 1, 2 and 3 are measured
    The alternative text has, for each panel, how far the mean is from the middle, and how far the shots are
    from their mean (the root of the mean square).
    """
    from matplotlib.patches import Circle

    canvas, columns = new_panels(2.6, len(panels))
    reach = max(1.2, 1.05 * max(max(abs(x), abs(y)) for shots in panels.values() for x, y in shots))
    texts = [f"{title} ({unit})"]
    for axes, (name, shots) in zip(columns, panels.items(), strict=True):
        for ring in range(1, int(reach * 1.5) + 1):
            axes.add_patch(Circle((0, 0), ring, fill=False, edgecolor=LINE, linewidth=0.8))
        across, along = zip(*shots, strict=True)
        mean = sum(across) / len(shots), sum(along) / len(shots)
        axes.plot(across, along, ".", color=COLORS[4], markersize=4, alpha=0.6)
        axes.plot(0, 0, "o", color=INK, markersize=5)
        axes.plot(*mean, "X", color=COLORS[5], markersize=9, markeredgecolor="white")
        axes.set_xlim(-reach, reach)
        axes.set_ylim(-reach, reach)
        axes.set_aspect("equal")
        axes.set_axis_off()
        axes.set_title(name, fontsize=10)
        apart = sum((x - mean[0]) ** 2 + (y - mean[1]) ** 2 for x, y in shots) / len(shots)
        texts.append(
            f"{name}: mean {hypot(*mean):.2f} from the middle, shots {apart**0.5:.2f} from their mean"
        )
    canvas.suptitle(title, x=0.01, ha="left")
    return finished(canvas, "\n".join(texts))


def histogram(
    values: Sequence[float],
    title: str,
    across: str,
    bins: int = 30,
    marks: Mapping[str, float] | None = None,
    curve: Callable[[float], float] | None = None,
) -> Figure:
    """How often numbers fall where.

    values: the numbers; title: what the picture shows; across: the label of the axis below
    marks:  from a label to where a line is drawn
    curve:  the density that theory expects, a function of the place
    The alternative text has count, mean, the quartiles with the ends, and the marks.
    """
    canvas, axes = new_canvas(2.8)
    _counts, edges, _ = axes.hist(values, bins=bins, color=COLORS[4], edgecolor="white")
    if curve is not None:
        middles = [(left + right) / 2 for left, right in itertools.pairwise(edges)]
        scale = len(values) * (edges[1] - edges[0])
        axes.plot(middles, [scale * curve(place) for place in middles], color=INK, label="expected")
    for number, (name, place) in enumerate((marks or {}).items()):
        axes.axvline(place, color=COLORS[5], linestyle=DASHES[number], label=name)
    _label(axes, title, across, "how many")
    if marks or curve is not None:
        axes.legend(frameon=False)
    ordered = sorted(values)
    ends = [ordered[round(share * (len(ordered) - 1) / 4)] for share in range(5)]
    texts = [
        f"{title} (how many, over: {across})",
        f"{len(values):,} numbers, mean {sum(values) / len(values):.2f}, "
        f"from {ends[0]:.2f} to {ends[4]:.2f}, half of them from {ends[1]:.2f} to {ends[3]:.2f}",
        *(f"{name} at {place:.2f}" for name, place in (marks or {}).items()),
    ]
    return finished(canvas, "\n".join(texts))


def heatmap(
    values: Sequence[Sequence[float | None]],
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    across: str = "",
    down: str = "",
    digits: int = 2,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """A table of numbers as shades: the darker, the higher. Each cell holds its number.

    values:  rows of numbers; None, NaN and infinities are hatched, with "", "nan", "−∞" in the cell
    rows, columns: their labels; title: what the picture shows; across, down: what columns and rows are
    digits:  after the point
    limits:  the values of the lightest and the darkest shade; the lowest and highest number if None
    The alternative text is the table.
    """
    finite = [value for row in values for value in row if value is not None and isfinite(value)]
    low, high = limits or (min(finite, default=0), max(finite, default=1))
    canvas, axes = new_canvas(1.0 + 0.36 * len(rows), min(8, 2.2 + 0.72 * len(columns)))
    texts = [[_number(value, digits) for value in row] for row in values]
    size = 9 if len(columns) <= 10 else 8
    for row, numbers in enumerate(values):
        for column, value in enumerate(numbers):
            known = value is not None and isfinite(value)
            share = (value - low) / ((high - low) or 1) if value is not None and known else 0
            axes.add_patch(_cell(column, row, _shade(share) if known else "white", None if known else "////"))
            ink = "white" if known and share > 0.55 else INK
            ground = None if known else {"facecolor": "white", "edgecolor": "none", "pad": 1}
            axes.text(
                column,
                row,
                texts[row][column],
                ha="center",
                va="center",
                fontsize=size,
                color=ink,
                bbox=ground,
            )
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xticks(range(len(columns)), columns, fontsize=9)
    axes.set_yticks(range(len(rows)), rows, fontsize=9)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.xaxis.set_label_position("top")
    axes.set_xlabel(across)
    axes.set_ylabel(down)
    axes.spines[:].set_visible(False)
    axes.set_title(title, loc="left", pad=10)
    head = f"{title}" + (f" (columns: {across})" if across else "") + (f" (rows: {down})" if down else "")
    body = [[name, *row] for name, row in zip(rows, texts, strict=True)]
    return finished(canvas, "\n".join([head, *table([["", *columns], *body])]))


def _label(axes, title, across, unit):
    axes.set_xlabel(across)
    axes.set_ylabel(unit)
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def _cell(column, row, color, hatch):
    from matplotlib.patches import Rectangle

    return Rectangle(
        (column - 0.5, row - 0.5),
        1,
        1,
        facecolor=color,
        edgecolor=LINE if hatch else "white",
        hatch=hatch,
        linewidth=1,
    )


def _shade(share):
    """From near white to dark blue; in print from light to dark grey."""
    light, dark = (0.93, 0.96, 0.99), (0.03, 0.27, 0.49)
    return tuple(one + (other - one) * min(max(share, 0), 1) for one, other in zip(light, dark, strict=True))


def _number(value, digits):
    if value is None:
        return ""
    if value != value:
        return "nan"
    if value in (float("inf"), float("-inf")):
        return "∞" if value > 0 else "−∞"
    return f"{value:.{digits}f}".replace("-", "−")
