"""The report in Markdown: a section a stage, and at its top what needs a maintainer."""

import difflib
import textwrap
from dataclasses import dataclass

from .processes import duration

WIDTH = 54  # characters of each of two texts side by side


@dataclass
class Section:
    """What one stage found.

    title, summary: one line each. body: Markdown. moved: whether a maintainer has something to do
    """

    title: str
    summary: str
    body: str = ""
    moved: bool = False
    seconds: float = 0

    def __str__(self):
        mark = "✘" if self.moved else "✔"
        return (
            "\n\n".join(filter(None, [f"## {mark} {self.title}", f"{self.summary}", self.body.strip()]))
            + "\n"
        )


def heading(place) -> str:
    return f"# transformers {place.version}, tried on the course of {place.pinned}\n"


def ending(sections: list[Section], complete: bool = True) -> str:
    """What needs a maintainer, and the time of each stage; complete: whether all stages were done."""
    todo = [f"- **{section.title}**: {section.summary}" for section in sections if section.moved]
    rows = [f"| {section.title} | {duration(section.seconds)} |" for section in sections]
    whole = duration(sum(section.seconds for section in sections))
    return "\n".join(
        [
            "## What needs a maintainer",
            "",
            *(todo or ["Nothing." if complete else "Nothing so far."]),
            *([] if complete else ["", "It ended before all stages were done."]),
            "",
            "| Stage | Time |",
            "| --- | ---: |",
            *rows,
            f"| All | {whole} |",
            "",
        ]
    )


def count(number: int, one: str, many: str = "") -> str:
    """ "1 name", "3 names" """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def code(text: str) -> str:
    """A text as Markdown code, on one line."""
    text = " ".join(text.split())
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def folded(title: str, lines: list[str]) -> str:
    """A list that opens on a click; "" for an empty one."""
    if not lines:
        return ""
    return f"<details><summary>{title}</summary>\n\n" + "\n".join(lines) + "\n\n</details>"


def some(items: list[str], limit: int = 6) -> str:
    """The first few, and how many more there are."""
    more = len(items) - limit
    return ", ".join(items[:limit]) + (f" and {more} more" if more > 0 else "")


def side_by_side(old: str, new: str, limit: int = 24) -> str:
    """The lines in which two texts differ, in two columns, as a block of Markdown."""
    before, after = old.splitlines(), new.splitlines()
    rows, left_out = [], False
    for kind, i, j, k, m in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind == "equal":
            left_out = True
            continue
        if left_out and rows:
            rows.append(("⋮", "⋮"))
        left_out = False
        left = [piece for line in before[i:j] for piece in _wrapped(line)]
        right = [piece for line in after[k:m] for piece in _wrapped(line)]
        height = max(len(left), len(right))
        rows += zip(left + [""] * (height - len(left)), right + [""] * (height - len(right)), strict=True)
    if len(rows) > limit:
        rows = [*rows[:limit], (f"… {len(rows) - limit} more lines", "")]
    width = max([len(left) for left, _ in rows] + [len("stored")])
    lines = [f"{left.ljust(width)} │ {right}".rstrip() for left, right in [("stored", "now"), *rows]]
    return fenced("\n".join(lines))


def fenced(text: str) -> str:
    """A block of code, whatever the text holds."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}text\n{text}\n{fence}"


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(line, WIDTH, replace_whitespace=False, drop_whitespace=False) or [""]
