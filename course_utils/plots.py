"""One look for every figure, and a text for readers who cannot see it."""

import base64
import html
import io

# Okabe and Ito's colours, told apart by readers with any kind of colour vision.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")


class Figure:
    """A finished picture with its alternative text; a notebook shows both.

    png: bytes; alt: str, what the picture says, in words and numbers.
    """

    def __init__(self, png, alt):
        self.png, self.alt = png, alt

    def __repr__(self):
        return self.alt

    def _repr_html_(self):
        data = base64.b64encode(self.png).decode()
        return f'<img src="data:image/png;base64,{data}" alt="{html.escape(self.alt)}" width="640">'


def grouped_bars(values, title, unit):
    """Horizontal bars, one group a row, one colour a series.

    values: dict from row label to dict from series label to a number; every row has the same series
    title:  str, what the picture shows
    unit:   str, the label of the axis
    Returns a Figure whose alternative text is the table of the numbers.
    """
    from matplotlib.figure import Figure as Canvas  # no pyplot: no global state, no figure left open

    series = list(next(iter(values.values())))
    height = 0.8 / len(series)
    canvas = Canvas(figsize=(8, 0.9 + 0.26 * len(values) * len(series) * 0.9), dpi=100, layout="constrained")
    axes = canvas.subplots()
    for number, name in enumerate(series):
        places = [row + (number - (len(series) - 1) / 2) * height for row in range(len(values))]
        lengths = [row[name] for row in values.values()]
        bars = axes.barh(places, lengths, height, label=name, color=COLORS[number])
        axes.bar_label(bars, fmt="{:g}", padding=3, fontsize=8)
    axes.set_yticks(range(len(values)), list(values))
    axes.invert_yaxis()
    axes.margins(x=0.08)
    axes.set_xlabel(unit)
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False)
    width = max(map(len, values))
    lines = [
        f"{label:{width}} " + "  ".join(f"{name} {row[name]:g}" for name in series)
        for label, row in values.items()
    ]
    return Figure(_png(canvas), "\n".join([f"{title} ({unit})", *lines]))


def lines(places, values, title, across, unit):
    """Curves over one axis, one colour and one dash a curve.

    places: sequence of float, where the curves were taken, in ascending order
    values: dict from the name of a curve to a sequence of float, as long as `places`
    title:  str, what the picture shows
    across: str, the label of the axis below; unit: str, of the one beside
    Returns a Figure whose alternative text has each curve's range and its numbers at five places.
    """
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(8, 3.2), dpi=100, layout="constrained")
    axes = canvas.subplots()
    for number, (name, heights) in enumerate(values.items()):
        axes.plot(places, heights, label=name, color=COLORS[number], linestyle=("-", "--", "-.", ":")[number])
    axes.set_xlabel(across)
    axes.set_ylabel(unit)
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    chosen = [round(share * (len(places) - 1) / 4) for share in range(5)]
    texts = [f"{title} ({unit}, over: {across})"]
    for name, heights in values.items():
        at = ", ".join(f"{heights[place]:.2f} at {places[place]:g}" for place in chosen)
        texts.append(f"{name}: from {min(heights):.2f} to {max(heights):.2f}; {at}")
    return Figure(_png(canvas), "\n".join(texts))


def dots(panels, title, unit):
    """Measured numbers as dots with bars of error: a panel a quantity, one beside the other.

    panels: dict from the name of a quantity to dict from row label to a list of (number, error), one dot
            each; every panel has the same rows, and an error of 0 draws no bar
    title:  str, what the picture shows; unit: str, the label of the axes
    Returns a Figure whose alternative text has, for each row, the range of its numbers in each panel.
    """
    from matplotlib.figure import Figure as Canvas

    rows = list(next(iter(panels.values())))
    canvas = Canvas(figsize=(8, 1.1 + 0.3 * len(rows)), dpi=100, layout="constrained")
    columns = canvas.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (name, values) in zip(columns, panels.items(), strict=True):
        for row, label in enumerate(rows):
            found = values[label]
            places = [row + 0.6 * ((number + 0.5) / len(found) - 0.5) for number in range(len(found))]
            numbers, errors = zip(*found, strict=True)
            axes.errorbar(numbers, places, xerr=errors, fmt="o", markersize=3, linewidth=1, color=COLORS[0])
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
    return Figure(_png(canvas), "\n".join(texts))


def _png(canvas):
    """The picture as PNG bytes, in 64 colours: flat bars and text need no more, and a third of the bytes."""
    from PIL import Image

    drawn, small = io.BytesIO(), io.BytesIO()
    canvas.savefig(drawn, format="png")
    Image.open(drawn).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return small.getvalue()
