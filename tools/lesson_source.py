"""From one text source to the cells of the learner's and of the solved notebook.

A source is a jupytext py:percent file. The tags of its cells say what becomes of them:

exercise    the stub; the learner's notebook only
solution    one or more cells after a stub; the solved notebook shows them as they are, the learner's
            notebook folds them into one markdown cell after the next check and its hints
check       the cell that calls the check; both notebooks
hints       a markdown list; each item unfolds inside the one before it; both notebooks
answer      the cell that settles a prediction; JupyterLab hides its stored output, but for the first
            line, until it is run

The tags `raises-exception` and `nbval-ignore-output` go through as they are.
"""

import hashlib
from collections import Counter
from copy import deepcopy
from pathlib import Path

import jupytext
from markdown_it import MarkdownIt
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

TAGS = {"exercise", "solution", "check", "hints", "answer", "raises-exception", "nbval-ignore-output"}
# jupytext would take a comment or a heading such as "# Why?" for IPython's help and strip its "#".
FORMAT = {"extension": ".py", "format_name": "percent", "comment_magics": False}
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


class SourceError(Exception):
    """A lesson's source breaks a rule; the message names the lesson, the cell and the repair."""


def read_source(path: Path) -> list[NotebookNode]:
    """The cells of a py:percent file, with nothing but their tags as metadata.

    Raises SourceError for unknown tags or metadata and for exercises that lack a part.
    """
    cells = []
    for parsed in jupytext.reads(path.read_text(encoding="utf-8"), fmt=FORMAT).cells:
        metadata = {key: value for key, value in parsed.metadata.items() if key != "lines_to_next_cell"}
        tags = metadata.pop("tags", [])
        if metadata or not set(tags) <= TAGS:
            strange = ", ".join([*metadata, *sorted(set(tags) - TAGS)])
            raise SourceError(f"{_place(path, parsed)}: unknown: {strange}. Known tags: {sorted(TAGS)}")
        if not parsed.source.strip():
            raise SourceError(
                f"{path.name}: an empty cell after {_first_line(cells[-1]) if cells else 'the top'!r}"
            )
        metadata = {"tags": tags} if tags else {}
        if "answer" in tags:
            metadata |= {"collapsed": True, "jupyter": {"outputs_hidden": True}}
        if parsed.cell_type == "code" and "hints" not in tags:
            cells.append(new_code_cell(parsed.source, metadata=metadata))
        elif parsed.cell_type == "markdown":
            source = _unfolding(path, parsed) if "hints" in tags else parsed.source
            cells.append(new_markdown_cell(source, metadata=metadata))
        else:
            raise SourceError(f"{_place(path, parsed)}: a {parsed.cell_type} cell cannot be used here")
    _require_whole_exercises(path, cells)
    return cells


def learner_notebook(cells: list[NotebookNode]) -> NotebookNode:
    """The notebook that a learner opens: stubs open, hints and solutions folded."""
    kept, solution, checked = [], [], False
    for cell in cells:
        if checked and not has_tag(cell, "hints"):
            kept.append(_folded(solution))
            solution, checked = [], False
        if has_tag(cell, "solution"):
            solution.append(cell)
        else:
            kept.append(cell)
            checked = checked or (has_tag(cell, "check") and bool(solution))
    if checked:
        kept.append(_folded(solution))
    return _notebook(kept)


def solved_notebook(cells: list[NotebookNode]) -> NotebookNode:
    """The same lesson with each stub replaced by its solution."""
    return _notebook([cell for cell in cells if not has_tag(cell, "exercise")])


def without_solutions(notebook: NotebookNode) -> NotebookNode:
    """A learner's notebook as someone reads it who never unfolds a solution."""
    return NotebookNode({**notebook, "cells": [c for c in notebook.cells if not has_tag(c, "solution")]})


def has_tag(cell: NotebookNode, tag: str) -> bool:
    return tag in cell.metadata.get("tags", [])


def _require_whole_exercises(path: Path, cells: list[NotebookNode]) -> None:
    """Every stub has its solution and then its check, and neither comes without a stub."""
    stub = missing = None
    for cell in cells:
        if has_tag(cell, "exercise"):
            if missing:
                raise SourceError(f"{_place(path, stub)}: this exercise has no {missing}")
            stub, missing = cell, "solution"
        elif has_tag(cell, "solution"):
            if not missing:
                raise SourceError(f"{_place(path, cell)}: a solution needs an exercise before it")
            missing = "check"
        elif has_tag(cell, "check"):
            if missing == "solution":
                raise SourceError(f"{_place(path, stub)}: this exercise has no solution before its check")
            missing = None
    if missing:
        raise SourceError(f"{_place(path, stub)}: this exercise has no {missing}")


def _unfolding(path: Path, cell: NotebookNode) -> str:
    """A list of hints as nested <details>: the first hint reveals the second."""
    hints = _list_items(cell.source)
    if not hints:
        raise SourceError(f"{_place(path, cell)}: hints must be one markdown list and nothing else")
    source = ""
    for number, hint in reversed(list(enumerate(hints, start=1))):
        inside = f"{hint}\n\n{source}" if source else hint
        source = _details(f"Hint {number} of {len(hints)}", inside)
    return source


def _list_items(markdown: str) -> list[str]:
    """The markdown of each top-level item of a text that is one list; [] if it is anything else."""
    tokens = MarkdownIt().parse(markdown)
    if not tokens or not tokens[0].type.endswith("_list_open") or any(not t.level for t in tokens[1:-1]):
        return []
    lines = markdown.splitlines()
    items = []
    for token in tokens:
        if token.type == "list_item_open" and token.level == 1:
            first, end = token.map
            # What stands under an item is indented as far as the text after its marker.
            width = len(lines[first]) - len(lines[first].lstrip("0123456789-*+.) "))
            items.append("\n".join(line[width:] for line in lines[first:end]).strip())
    return items


def _folded(solution: list[NotebookNode]) -> NotebookNode:
    parts = [_fenced(cell.source) if cell.cell_type == "code" else cell.source for cell in solution]
    return new_markdown_cell(_details("Solution", "\n\n".join(parts)), metadata={"tags": ["solution"]})


def _fenced(code: str) -> str:
    fence = "```"
    while fence in code:
        fence += "`"
    return f"{fence}python\n{code}\n{fence}"


def _details(summary: str, inside: str) -> str:
    # The blank lines make JupyterLab read what is inside as markdown.
    return f"<details>\n<summary>{summary}</summary>\n\n{inside}\n\n</details>"


def _notebook(cells: list[NotebookNode]) -> NotebookNode:
    """A notebook whose cell ids follow from the cells' text alone, so that an insertion moves no other id."""
    cells = deepcopy(cells)
    seen = Counter()
    for cell in cells:
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:10]
        seen[digest] += 1
        cell.id = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
    return new_notebook(cells=cells, metadata=METADATA)


def _place(path: Path, cell: NotebookNode) -> str:
    return f"{path.name}, at {_first_line(cell)!r}"


def _first_line(cell: NotebookNode) -> str:
    return cell.source.strip().partition("\n")[0]
