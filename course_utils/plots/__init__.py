"""One look for every picture, and a text for readers who cannot see it.

Each function returns a Figure: a WebP picture, so that it looks the same in any theme and on any page, and an
alternative text made from the same numbers. Pictures of numbers are in `numbers`, those of structure in
`structure`.
"""

from .figure import COLORS, Figure
from .numbers import dots, grouped_bars, heatmap, histogram, lines, slopes, targets
from .structure import arrows, circles, grid, number_lines, tree

__all__ = [
    "COLORS",
    "Figure",
    "arrows",
    "circles",
    "dots",
    "grid",
    "grouped_bars",
    "heatmap",
    "histogram",
    "lines",
    "number_lines",
    "slopes",
    "targets",
    "tree",
]
