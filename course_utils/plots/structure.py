"""Pictures of structure: a grid, a tree, places on number lines or on circles, two rows joined by arrows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import atan2, degrees
from typing import Any

from .figure import COLORS, INK, LINE, MONO, Figure, bare, finished, new_canvas, new_panels, table

CENTER: dict[str, Any] = {"ha": "center", "va": "center"}
# How a kind of cell looks: fill, hatch, ink. They differ in grey, too.
LOOKS = (
    ("#ffffff", None, INK),
    ("#cfe3f3", None, INK),
    ("#e4e4e4", "////", "#444444"),
    ("#f7dca6", "....", INK),
    ("#0b5a91", None, "#ffffff"),
    ("#bfe5d8", "\\\\\\\\", INK),
)


def grid(
    cells: Sequence[Sequence[tuple[str, str]]],
    title: str,
    kinds: Sequence[str],
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    across: str = "",
    down: str = "",
) -> Figure:
    """A table of texts in which each cell is of a kind, told by its fill, its hatch and a legend.

    cells:   rows of (text, kind) pairs, in rows of one length
    title:   what the picture shows; kinds: the names, in the order of `LOOKS`; "" is left out of the legend
    rows, columns: their labels; across, down: what columns and rows are
    The alternative text is the table, with a cell's kind in brackets.
    """
    from matplotlib.patches import Patch, Rectangle

    looks = dict(zip(kinds, LOOKS, strict=False))
    width = max(max((len(text) for row in cells for text, _ in row), default=1), 3)
    across_all = len(cells[0])
    cell = min(1.3, max(0.42, 0.105 * width + 0.12))
    label = 0.095 * max(map(len, rows)) + 0.3 if rows else 0.4
    canvas, axes = new_canvas(1.05 + 0.36 * len(cells), min(8, max(4.5, label + cell * across_all + 0.3)))
    size = 9 if cell * across_all + label < 8 else 7.5
    for row, line in enumerate(cells):
        for column, (text, kind) in enumerate(line):
            fill, hatch, ink = looks[kind]
            axes.add_patch(
                Rectangle(
                    (column - 0.5, row - 0.5),
                    1,
                    1,
                    facecolor=fill,
                    edgecolor=LINE,
                    hatch=hatch,
                    linewidth=0.8,
                )
            )
            ground = {"facecolor": fill, "edgecolor": "none", "pad": 1} if hatch else None
            axes.text(
                column,
                row,
                _plain(text),
                ha="center",
                va="center",
                family=MONO,
                fontsize=size,
                color=ink,
                bbox=ground,
            )
    axes.set_xlim(-0.52, across_all - 0.48)
    axes.set_ylim(len(cells) - 0.45, -0.55)  # room for the outer lines, which a frame would hide
    axes.set_xticks(range(across_all), columns or [""] * across_all, fontsize=9)
    axes.set_yticks(range(len(cells)), rows or [""] * len(cells), fontsize=9)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.tick_params(length=0)
    axes.set_xlabel(across)
    axes.set_ylabel(down)
    axes.spines[:].set_visible(False)
    axes.set_title(title, loc="left", pad=8)
    shown = [name for name in kinds if name]
    if shown:
        patches = [Patch(facecolor=looks[n][0], hatch=looks[n][1], edgecolor=LINE, label=n) for n in shown]
        canvas.legend(
            handles=patches, loc="outside lower left", ncols=min(4, len(patches)), frameon=False, fontsize=9
        )
    texts = [[f"{text} ({kind})" if kind else text for text, kind in row] for row in cells]
    lines = [[name, *row] for name, row in zip(rows or [""] * len(cells), texts, strict=True)]
    if columns:
        lines = [["", *columns], *lines]
    return finished(canvas, "\n".join([title, *table(lines)]))


def tree(root: tuple, title: str) -> Figure:
    """A tree from the top down, such as the merges of a word.

    root:  a node (text, note, children): the text in its box, a short note below it (or ""), a list of nodes
    title: what the picture shows
    The alternative text has a line a node, indented below its parent.
    """
    leaves: list[str] = []
    boxes: list[tuple[float, int, str, str]] = []
    edges: list[tuple[float, int, float, int]] = []

    def place(node, depth):
        text, note, children = node
        if children:
            below = [place(child, depth + 1) for child in children]
            x = (below[0][0] + below[-1][0]) / 2
        else:
            below, x = [], float(len(leaves))
            leaves.append(text)
        boxes.append((x, depth, text, note))
        edges.extend((x, depth, *child) for child in below)
        return x, depth

    place(root, 0)
    deepest = max(depth for _, depth, _, _ in boxes)
    canvas, axes = new_canvas(0.7 + 0.62 * (deepest + 1), min(8, max(4.5, 0.6 * len(leaves) + 1)))
    for x, depth, child_x, child_depth in edges:
        axes.plot([x, child_x], [depth + 0.1, child_depth - 0.1], color=LINE, linewidth=1.2, zorder=1)
    for x, depth, text, note in boxes:
        box = {"boxstyle": "round,pad=0.3", "facecolor": "#cfe3f3" if note else "white", "edgecolor": LINE}
        axes.text(x, depth, _plain(text), **CENTER, family=MONO, fontsize=10, zorder=3, bbox=box)
        if note:
            ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
            axes.text(x, depth + 0.33, note, **CENTER, fontsize=7.5, color="#444444", zorder=4, bbox=ground)
    axes.set_xlim(-0.7, len(leaves) - 0.3)
    axes.set_ylim(deepest + 0.5, -0.5)
    bare(axes, title)

    def told(node, depth):
        text, note, children = node
        line = "  " * depth + text + (f" ({note})" if note else "")
        return [line, *(one for child in children for one in told(child, depth + 1))]

    return finished(canvas, "\n".join([title, *told(root, 0)]))


def number_lines(
    lines: Mapping[str, Sequence[tuple[float, str]]],
    title: str,
    across: str = "",
    marks: Sequence[tuple[str, float, float, str]] = (),
) -> Figure:
    """Labelled places on number lines, one below the other, so that shifts can be seen.

    lines:  from a line's name to its places, (number, label) pairs
    title:  what the picture shows; across: what the numbers are
    marks:  distances that are drawn: (line's name, from, to, label)
    The alternative text lists each line's places, and the marks.
    """
    canvas, axes = new_canvas(0.9 + 0.75 * len(lines))
    places = [number for pairs in lines.values() for number, _ in pairs]
    low, high = min(places) - 0.6, max(places) + 0.6
    for row, (name, pairs) in enumerate(lines.items()):
        axes.plot([low, high], [row, row], color=LINE, linewidth=1, zorder=1)
        for number, label in pairs:
            axes.plot([number], [row], marker="o", color=COLORS[0], markersize=7, zorder=2)
            axes.text(number, row - 0.2, _plain(label), ha="center", va="bottom", family=MONO, fontsize=9)
            axes.text(number, row + 0.16, f"{number:g}", ha="center", va="top", fontsize=8, color="#444444")
        for on, start, end, label in marks:
            if on == name:
                axes.annotate(
                    "",
                    (end, row + 0.42),
                    (start, row + 0.42),
                    arrowprops={"arrowstyle": "<->", "color": COLORS[5]},
                )
                axes.text(
                    (start + end) / 2, row + 0.45, label, ha="center", va="top", fontsize=8, color="#8a3b00"
                )
    axes.set_xlim(low, high)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.set_yticks(range(len(lines)), list(lines), fontsize=9)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.set_xlabel(across)
    axes.spines[:].set_visible(False)
    axes.set_title(title, loc="left")
    texts = [title + (f" ({across})" if across else "")]
    for name, pairs in lines.items():
        texts.append(f"{name}: " + ", ".join(f"{label} at {number:g}" for number, label in pairs))
    texts += [f"{name}: {label}, from {start:g} to {end:g}" for name, start, end, label in marks]
    return finished(canvas, "\n".join(texts))


def circles(panels: Mapping[str, Sequence[tuple[float, float]]], title: str) -> Figure:
    """Points as hands of a clock, numbered from 0: a circle a panel, one beside the other.

    panels: from a panel's name to its (x, y) points, none farther than about 1 from the middle
    title:  what the picture shows
    The alternative text has each hand's angle in degrees, counterclockwise from the right, 0 to 359.
    """
    from matplotlib.patches import Circle

    canvas, columns = new_panels(3.4, len(panels))
    texts = [f"{title} (degrees, counterclockwise from the right)"]
    for axes, (name, points) in zip(columns, panels.items(), strict=True):
        axes.add_patch(Circle((0, 0), 1, fill=False, edgecolor=LINE, linewidth=1.2))
        for number, (x, y) in enumerate(points):
            axes.plot([0, x], [0, y], color=COLORS[0], linewidth=1.6)
            axes.text(1.14 * x, 1.14 * y, str(number), **CENTER, fontsize=9, color=INK)
        axes.set_xlim(-1.3, 1.3)
        axes.set_ylim(-1.3, 1.3)
        axes.set_aspect("equal")
        bare(axes)
        axes.set_title(name, fontsize=10)
        angles = ", ".join(f"{n}: {round(degrees(atan2(y, x))) % 360}" for n, (x, y) in enumerate(points))
        texts.append(f"{name}  {angles}")
    canvas.suptitle(title, x=0.01, ha="left")
    return finished(canvas, "\n".join(texts))


def arrows(
    rows: Mapping[str, Sequence[str]], links: Sequence[tuple[int, int]], title: str, note: str = ""
) -> Figure:
    """Two rows of boxes, one above the other, joined by arrows from the upper to the lower.

    rows:  two entries, from a row's name to the texts of its boxes; "" leaves a place empty
    links: (index above, index below) pairs
    title: what the picture shows; note: what an arrow says
    The alternative text lists the pairs.
    """
    (top_name, top), (bottom_name, bottom) = rows.items()
    count = max(len(top), len(bottom))
    canvas, axes = new_canvas(2.0, min(8, max(4.5, 1.6 + 0.95 * count)))
    for y, texts, fill in ((0, top, "#cfe3f3"), (1, bottom, "white")):
        for index, text in enumerate(texts):
            if text:
                axes.text(
                    index, y, _plain(text), ha="center", va="center", family=MONO, fontsize=9,
                    bbox={"boxstyle": "round,pad=0.35", "facecolor": fill, "edgecolor": LINE},
                )  # fmt: skip
    for start, end in links:
        axes.annotate(
            "",
            (end, 0.83),
            (start, 0.17),
            arrowprops={"arrowstyle": "-|>", "color": COLORS[0], "linewidth": 1.4},
        )
    axes.set_xlim(-0.6, count - 0.4)
    axes.set_ylim(1.35, -0.35)
    axes.set_yticks([0, 1], [top_name, bottom_name], fontsize=9)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.set_xlabel(note)
    axes.spines[:].set_visible(False)
    axes.set_title(title, loc="left")
    told = [f"{top_name} → {bottom_name}" + (f" ({note})" if note else "")]
    told += [f"{top[start]} → {bottom[end]}" for start, end in links]
    return finished(canvas, "\n".join([title, *(line.replace("\n", " ") for line in told)]))


def _plain(text):
    """Text as it is: a dollar sign would begin a formula."""
    return text.replace("$", r"\$")
