"""Draw the lessons' diagrams: notebooks/images/*.svg.

    python tools/draw_diagrams.py            write those that changed
    python tools/draw_diagrams.py --check    fail if a file differs from what this program draws

A diagram shows a structure; pictures of numbers are drawn by the lessons' own cells (course_utils.plots).
Each is opaque, so that it reads in any theme, prints in grey, and says in words what it shows.
"""
# ruff: noqa: E501 (markup and descriptions, a sentence a line)

from __future__ import annotations

import argparse
import itertools
import sys
from html import escape
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "notebooks" / "images"
INK, LINE, BLUE = "#222222", "#6f6f6f", "#0b5a91"
FILLS = {"plain": "#ffffff", "blue": "#cfe3f3", "amber": "#f7dca6", "green": "#cdebe0", "grey": "#ececec"}
SANS = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace"


class Diagram:
    """An SVG that is put together from boxes, arrows and lines of text; lengths are pixels."""

    def __init__(self, width: int, height: int, title: str, description: str) -> None:
        self.size, self.title, self.description = (width, height), title, description
        self.parts: list[str] = []

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        text: str,
        fill: str = "plain",
        mono: bool = False,
    ) -> None:
        """A box with its text in the middle; a line feed begins a new line."""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" fill="{FILLS[fill]}" stroke="{LINE}"/>'
        )
        self.text(x + width / 2, y + height / 2, text, mono=mono)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        anchor: str = "middle",
        size: int = 13,
        mono: bool = False,
        bold: bool = False,
    ) -> None:
        """Text around the point (x, y)."""
        lines = text.split("\n")
        family = f' font-family="{MONO}"' if mono else ""
        weight = ' font-weight="600"' if bold else ""
        for index, line in enumerate(lines):
            at = y + (index - (len(lines) - 1) / 2) * size * 1.3 + size * 0.35
            self.parts.append(
                f'<text x="{x:g}" y="{at:.1f}" text-anchor="{anchor}" font-size="{size}"{family}{weight} '
                f'xml:space="preserve">{escape(line)}</text>'
            )

    def arrow(self, *points: tuple[float, float], dashed: bool = False, color: str = INK) -> None:
        """A line through the points, with a head at the last one."""
        path = "M" + " L".join(f"{x:g} {y:g}" for x, y in points)
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self.parts.append(
            f'<path d="{path}" fill="none" stroke="{color}" stroke-width="1.6"{dash} marker-end="url(#head)"/>'
        )

    def plus(self, x: float, y: float) -> None:
        """A circle in which two streams are added."""
        self.parts.append(
            f'<circle cx="{x:g}" cy="{y:g}" r="11" fill="#ffffff" stroke="{INK}" stroke-width="1.4"/>'
        )
        self.text(x, y, "+", size=16)

    def svg(self) -> str:
        width, height = self.size
        return "\n".join(
            [
                (
                    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
                    f'height="{height}" role="img" font-family="{SANS}" fill="{INK}">'
                ),
                f"<title>{escape(self.title)}</title>",
                f"<desc>{escape(self.description)}</desc>",
                (
                    '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
                    f'orient="auto-start-reverse"><path d="M0 0 L10 5 L0 10 z" fill="{INK}"/></marker></defs>'
                ),
                f'<rect width="{width}" height="{height}" rx="10" fill="#ffffff"/>',
                *self.parts,
                "</svg>\n",
            ]
        )


def block() -> Diagram:
    """GPT-2's block: two additions to one stream, with shapes."""
    drawing = Diagram(
        760,
        330,
        "One block of GPT-2",
        "A stream of vectors, one a token, runs from left to right with the shape batch, length, 768. Twice a copy "
        "leaves it: through layer norm and attention, where tokens are mixed, and through layer norm and the MLP, "
        "which widens each vector to 3,072 and back, each token for itself. Both results are added to the stream.",
    )
    y = 250
    drawing.text(20, y + 28, "residual stream\n(batch, length, 768)", anchor="start", size=12)
    drawing.arrow((20, y), (300, y))
    drawing.plus(312, y)
    drawing.arrow((323, y), (620, y))
    drawing.plus(632, y)
    drawing.arrow((643, y), (742, y))
    drawing.arrow((60, y), (60, 180), (78, 180))
    drawing.box(80, 162, 84, 36, "layer norm")
    drawing.arrow((164, 180), (188, 180))
    drawing.box(190, 130, 244 - 80, 100 - 16, "attention\n12 heads × 64\ntokens are mixed", "blue")
    drawing.text(272, 110, "attention scores: (batch, 12, length, length)", size=12)
    drawing.arrow((312, 214), (312, y - 12))
    drawing.arrow((390, y), (390, 180), (408, 180))
    drawing.box(410, 162, 84, 36, "layer norm")
    drawing.arrow((494, 180), (518, 180))
    drawing.box(520, 130, 164, 84, "MLP\n768 → 3,072 → 768\neach token for itself", "amber")
    drawing.arrow((632, 214), (632, y - 12))
    drawing.text(380, 36, "One block: it reads the stream twice, and adds to it twice", size=15, bold=True)
    drawing.text(380, 62, "GPT-2 has 12 of them, one after the other; no block replaces the stream", size=12)
    drawing.text(742, y + 24, "to the next block", anchor="end", size=12)
    return drawing


def taps() -> Diagram:
    """Where each entry of `hidden_states` is taken."""
    drawing = Diagram(
        780,
        270,
        "Where each entry of hidden_states is taken",
        "From left to right: token and position embeddings are added; the sum is hidden_states[0]. After block 1 comes "
        "hidden_states[1], and so on to hidden_states[11] after block 11. Block 12 is followed by the final layer norm, "
        "and hidden_states[12] is taken after that norm, not before it. The head turns it into logits.",
    )
    y = 130
    drawing.text(390, 28, "hidden_states has 13 entries for 12 blocks", size=15, bold=True)
    boxes = [
        (20, 96, "token +\nposition\nembeddings", "green"),
        (156, 76, "block 1", "blue"),
        (272, 50, "…", "plain"),
        (362, 76, "block 11", "blue"),
        (478, 76, "block 12", "blue"),
        (570, 84, "final\nlayer norm", "grey"),
        (700, 62, "head", "amber"),
    ]
    for index, (x, width, text, fill) in enumerate(boxes):
        drawing.box(x, y - 30, width, 60, text, fill)
        if index:
            before = boxes[index - 1]
            drawing.arrow((before[0] + before[1], y), (x - 2, y))
    for x, name in ((136, "[0]"), (252, "[1]"), (342, "[10]"), (458, "[11]"), (677, "[12]")):
        drawing.arrow((x, y), (x, y + 68), dashed=True, color=BLUE)
        drawing.text(x, y + 82, name, mono=True)
    drawing.text(565, y - 52, "no entry between block 12 and the norm", size=12)
    drawing.text(390, y + 118, "last_hidden_state is hidden_states[-1], after the norm", size=12)
    return drawing


def pipeline() -> Diagram:
    """One step of generate()."""
    drawing = Diagram(
        780,
        230,
        "One step of generate()",
        "The model's logits of the last token go through the logits processors, one after the other. The result is "
        "softmaxed and drawn from, or its largest entry is taken. Rows that have ended get the padding token instead. "
        "The token is appended, stopping criteria are asked, and the next pass reads the new token and the cache.",
    )
    drawing.text(390, 28, "One step of generate()", size=15, bold=True)
    y = 95
    steps = [
        ("forward\npass", "blue"),
        ("logits\nprocessors", "amber"),
        ("choose: draw\nor argmax", "green"),
        ("fill rows\nthat ended", "plain"),
        ("append\nthe token", "plain"),
        ("stopping\ncriteria", "grey"),
    ]
    width, gap = 108, 20
    for index, (text, fill) in enumerate(steps):
        x = 16 + index * (width + gap)
        drawing.box(x, y - 28, width, 56, text, fill)
        if index:
            drawing.arrow((x - gap, y), (x - 2, y))
    for index, text in enumerate(
        ("logits\n(batch, vocab)", "scores\n(batch, vocab)", "ids (batch,)", "ids (batch,)", "sequences")
    ):
        drawing.text(16 + width + index * (width + gap) + gap / 2, y + 50, text, size=11)
    last = 16 + 5 * (width + gap) + width / 2
    drawing.arrow((last, y + 28), (last, 196), (70, 196), (70, y + 30))
    drawing.text(390, 210, "not all rows have ended: the new token and the cache go in", size=12)
    return drawing


def cuts() -> Diagram:
    """The way of a gradient through two steps of generation, with the three places where it stops."""
    drawing = Diagram(
        800,
        300,
        "The three cuts",
        "The weights make the hidden state and the logits of step 1. Argmax chooses a token, an integer: cut 2. "
        "The token is looked up in the embedding matrix: cut 3, from which a gradient goes on to the matrix only. "
        "The embedding makes the logits of step 2, whose token is looked up in the table of costs, which gives the "
        "loss. The decorator no_grad around generate() is cut 1: inside of it nothing is recorded at all.",
    )
    drawing.text(
        400, 28, "From a weight to the loss, and where the thread of the gradient is cut", size=15, bold=True
    )
    drawing.parts.append(
        f'<rect x="20" y="56" width="662" height="200" rx="10" fill="none" stroke="{LINE}" stroke-width="1.4" stroke-dasharray="6 5"/>'
    )
    drawing.text(34, 76, "generate(), inside @torch.no_grad()", anchor="start", size=12)
    drawing.text(674, 76, "✂ 1  nothing is recorded", anchor="end", size=13, bold=True)
    y, height = 128, 46
    boxes = [
        (36, 78, "weights", "plain"), (142, 96, "logits of\nstep 1", "blue"), (294, 76, "token\n(integer)", "amber"),
        (436, 96, "embedding", "blue"), (558, 116, "logits of step 2,\nits token", "amber"), (722, 66, "loss", "plain"),
    ]  # fmt: skip
    for x, width, text, fill in boxes:
        drawing.box(x, y, width, height, text, fill)
    for (x, width, *_), (following, *_) in itertools.pairwise(boxes):
        drawing.arrow((x + width, y + height / 2), (following - 2, y + height / 2))
    for x, name, what in (
        (266, "✂ 2", "argmax: an integer"),
        (403, "✂ 3", "a look-up"),
        (708, "✂ 2, 3", ""),
    ):
        drawing.parts.append(
            f'<path d="M{x} {y - 8} V{y + height + 8}" stroke="#b5451b" stroke-width="2.4" stroke-dasharray="4 3"/>'
        )
        drawing.text(x, y - 20, name, size=13, bold=True)
        if what:
            drawing.text(x, y + height + 24, what, size=12)
    drawing.box(436, 212, 96, 30, "matrix", "grey")
    drawing.arrow((484, 212), (484, y + height + 2))
    drawing.text(
        400,
        280,
        "A gradient that goes back from the embedding reaches the matrix, and never the token",
        size=12,
    )
    return drawing


def loop() -> Diagram:
    """Training by reward: draw, reward, score, step, and draw again."""
    drawing = Diagram(
        800,
        250,
        "The loop of training by reward",
        "The model draws texts from a prompt, without a gradient. Each text gets a reward, a number. The rewards of "
        "one prompt's texts become advantages. A second pass over the finished texts gives their log probabilities, "
        "with a gradient. The loss is minus the mean of advantage times log probability; the optimizer takes a step, "
        "and the changed model draws again.",
    )
    drawing.text(400, 28, "One step of training by reward", size=15, bold=True)
    y, height = 74, 62
    boxes = [
        (16, 136, "draw texts\nwithout a gradient", "amber"), (184, 104, "a reward\nfor each text", "plain"),
        (320, 154, "advantages\nof one prompt’s texts", "plain"), (508, 136, "second pass:\nlog p of the texts\nwith a gradient", "blue"),
        (678, 104, "loss, and\none step", "green"),
    ]  # fmt: skip
    for x, width, text, fill in boxes:
        drawing.box(x, y, width, height, text, fill)
    for (x, width, *_), (following, *_) in itertools.pairwise(boxes):
        drawing.arrow((x + width, y + height / 2), (following - 2, y + height / 2))
    drawing.arrow((94, y + height), (94, 172), (576, 172), (576, y + height + 2), dashed=True)
    drawing.text(324, 188, "the texts themselves: only their ids", size=12)
    drawing.arrow((730, y + height), (730, 216), (50, 216), (50, y + height + 2))
    drawing.text(400, 232, "the model has changed: draw again", size=12)
    return drawing


DIAGRAMS = {
    "block": block,
    "hidden_states": taps,
    "generate_step": pipeline,
    "three_cuts": cuts,
    "reward_loop": loop,
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file differs")
    options = parser.parse_args(arguments)
    wrong = []
    for name, draw in DIAGRAMS.items():
        path, text = FOLDER / f"{name}.svg", draw().svg()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        wrong.append(path.name)
        if not options.check:
            FOLDER.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if wrong and options.check:
        print(f"Not as drawn: {', '.join(wrong)}. Type: python tools/draw_diagrams.py", file=sys.stderr)
    return 1 if wrong and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
