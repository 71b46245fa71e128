"""What all pictures share: colours, the canvas, the file, and the text for readers who cannot see it."""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

# Okabe and Ito's colours, told apart by readers with any kind of colour vision.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))
INK = "#222222"
LINE = "#8c8c8c"
MONO = "DejaVu Sans Mono"
WIDTH = 8  # inches, which a notebook shows as 640 pixels
DPI = 100


class Figure:
    """A finished picture with its alternative text; a notebook shows both.

    webp: bytes; alt: str, what the picture says, in words and numbers; width: int, pixels in the page.
    """

    def __init__(self, webp: bytes, alt: str, width: int = 640) -> None:
        self.webp, self.alt, self.width = webp, alt, width

    def __repr__(self) -> str:
        return self.alt

    def _repr_html_(self) -> str:
        data = base64.b64encode(self.webp).decode()
        return (
            f'<img src="data:image/webp;base64,{data}" alt="{html.escape(self.alt)}" width="{self.width}" '
            'style="background:white">'
        )


def new_canvas(height: float, width: float = WIDTH) -> tuple[Canvas, Axes]:
    """A canvas of `width` by `height` inches with one pair of axes."""
    canvas = _canvas(height, width)
    return canvas, canvas.subplots()


def new_panels(height: float, count: int) -> tuple[Canvas, list[Axes]]:
    """A canvas of the whole width with `count` pairs of axes side by side, which share their rows."""
    canvas = _canvas(height, WIDTH)
    return canvas, list(canvas.subplots(1, count, sharey=True, squeeze=False)[0])


def _canvas(height, width):
    from matplotlib.figure import Figure as Canvas  # no pyplot: no global state, no figure left open

    return Canvas(figsize=(width, height), dpi=DPI, layout="constrained")


def bare(axes: Axes, title: str = "") -> None:
    """Axes without ticks and frame, for a picture of a structure."""
    axes.set_axis_off()
    if title:
        axes.set_title(title, loc="left")


def finished(canvas: Canvas, alt: str) -> Figure:
    """The canvas as a Figure, in 64 colours: flat shapes and text need no more. WebP without loss takes four
    fifths of a PNG's bytes."""
    from PIL import Image

    drawn, small = io.BytesIO(), io.BytesIO()
    canvas.savefig(drawn, format="png")
    flat = Image.open(drawn).convert("RGB").quantize(64, dither=Image.Dither.NONE).convert("RGB")
    flat.save(small, "WEBP", lossless=True, quality=100, method=6)
    return Figure(small.getvalue(), alt, round(canvas.get_size_inches()[0] * 80))


def table(rows: list[list[str]]) -> list[str]:
    """Rows of texts as lines, each column as wide as its widest text."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
