"""Cells whose output is not the stored one, sorted by what a maintainer has to do about them."""

import ast
import html
import re
from dataclasses import dataclass

from .causes import Failure
from .report import code, folded, side_by_side

KINDS = {
    "raise": "an exception that is not stored",
    "other output": "to be read",
    "names only": "the same but for names that were changed: build again",
    "lines or version only": "the same but for line numbers and the version: build again",
    "message only": "the same, and a message besides",
}
# Gutters of library.show, "line 894", "lines 3122 to 3339", "utils.py:2529", "⋮ 24 lines"
LINES = re.compile(r"(\blines? |\.py:)\d+( to \d+)?|⋮ \d+ lines?")
GUTTER = re.compile(r"(^|>)[ ]*\d+ (?=[▶ ])", re.MULTILINE)


@dataclass
class Cell:
    """A cell that changed.

    name: of the notebook, "05_generate" or "solutions/05_generate". number: among its code cells, from 0
    kind: one of KINDS. stored, new: texts. stderr: what it wrote there. after_raise: an earlier cell raises
    failure: for a cell that raises
    """

    name: str
    number: int
    test: str
    source: str
    kind: str
    stored: str = ""
    new: str = ""
    stderr: str = ""
    reason: str = ""
    after_raise: bool = False
    failure: Failure | None = None

    def __str__(self):
        return f"{self.name}, code cell {self.number}, {code(first_line(self.source))}"


def first_line(source: str) -> str:
    """The first line of code."""
    lines = [line for line in source.splitlines() if line.strip() and not line.startswith("#")]
    return lines[0] if lines else source


def sort(records: list[dict], ran: list[dict], place, renames: dict[str, str]) -> list[Cell]:
    """Every changed cell, in order; in each notebook a cell that raises is told from what follows from it.

    records, ran: what the recorder wrote of changed cells, and of all that were executed
    """
    found = []
    sources = {(record["notebook"], record["executed"]): record["source"] for record in ran}
    by_notebook: dict[str, list[dict]] = {}
    for record in records:
        by_notebook.setdefault(record["notebook"], []).append(record)
    for notebook, changed in sorted(by_notebook.items()):
        changed.sort(key=lambda record: record["executed"])
        name = notebook.removeprefix("notebooks/").removesuffix(".ipynb")
        raised: list[tuple[dict, Failure]] = []
        for record in changed:
            cell = sorted_cell(record, name, place, renames)
            cell.after_raise = bool(raised)
            if cell.kind == "raise":
                cell.failure = failure_of(record, sources, cell, raised)
                raised.append((record, cell.failure))
            found.append(cell)
    return found


def sorted_cell(record: dict, name: str, place, renames: dict[str, str]) -> Cell:
    """One record of the recorder as a Cell."""
    stderr = "\n".join(output["stderr"] for output in record["new"] if "stderr" in output)
    stored, new = (
        [output for output in record[side] if "stderr" not in output] for side in ("stored", "new")
    )
    kind = kind_of(stored, new, bool(stderr), (place.pinned, place.version), renames)
    cell = Cell(name, record["number"], record["test"], record["source"], kind, stderr=stderr)
    cell.reason, (cell.stored, cell.new) = record["reason"], shown(stored, new)
    return cell


def kind_of(stored, new, message: bool, versions: tuple[str, str], renames: dict[str, str]) -> str:
    """One of KINDS. stored, new: lists of {kind of data: text}, without stderr; message: there was some."""
    errors = {output["error"] for output in stored if "error" in output}
    if any(output["error"] not in errors for output in new if "error" in output):
        return "raise"
    if comparable(stored) == comparable(new):
        return "message only" if message else "other output"

    def lines(text):
        for version in versions:
            text = re.sub(rf"(?<![\d.]){re.escape(version)}(?![\d]|\.\d)", "VERSION", text)
        return GUTTER.sub(r"\1N ", LINES.sub("N", text))

    def names(text):
        for old, after in renames.items():
            text = re.sub(rf"\b{re.escape(old)}\b", after, text)
        return " ".join(text.split())

    if comparable(stored, lines) == comparable(new, lines):
        return "lines or version only"
    both = [comparable(side, lambda text: names(lines(text))) for side in (stored, new)]
    return "names only" if both[0] == both[1] else "other output"


def comparable(outputs, mask=lambda text: text):
    """Outputs without tracebacks, which are not compared, and with a mask over each text."""
    return [{kind: mask(text) for kind, text in output.items() if kind != "traceback"} for output in outputs]


def shown(stored, new) -> tuple[str, str]:
    """The two sides as text: plain text if that differs, else what the HTML says."""
    plain, rich = ([_text(side, kind) for side in (stored, new)] for kind in (False, True))
    return tuple(rich if plain[0] == plain[1] else plain)


def _text(outputs, rich):
    pieces = []
    for output in outputs:
        if "error" in output:
            pieces.append(f"{output['error']}: {output['message']}")
        elif rich and "text/html" in output:
            spaced = re.sub(r"</(tr|p|div|pre|table|li|h\d)>|<br>", "\n", output["text/html"])
            cells = re.sub(r"</t[dh]>", " | ", spaced)
            pieces.append(html.unescape(re.sub(r"<[^>]*>", "", cells)))
        else:
            pieces.append(output.get("stdout") or output.get("text/plain") or next(iter(output.values()), ""))
    return "\n".join(pieces)


def failure_of(record, sources, cell, raised) -> Failure:
    """The failure of a cell that raises: where in the course's code, and whether it follows from another."""
    error = next(output for output in reversed(record["new"]) if "error" in output)
    lesson, frame = cell.name.removeprefix("solutions/"), ""
    for kind, where, at in own_frames(error["traceback"]):
        if kind == "file" and error["error"] == "AssertionError":
            continue  # a check's; the cell says which
        if kind == "cell":
            lines = sources.get((record["notebook"], int(where)), "").splitlines()
            frame = f"{lesson}: {lines[at - 1].strip() if at <= len(lines) else f'cell {where}'}"
        else:
            frame = f"{where}:{at}"
    frame = frame or f"{lesson}: {first_line(record['source'])}"
    if name := re.search(r"^name '(\w+)' is not defined", error["message"]):
        for earlier, reason in raised:
            if name[1] in bound(earlier["source"]):  # it stands under what kept the name from being bound
                return Failure(cell.test, reason.type, reason.message, reason.frame, follows=True)
    follows = any((error["error"], frame) == (reason.type, reason.frame) for _, reason in raised)
    return Failure(cell.test, error["error"], error["message"], frame, follows=follows)


def own_frames(traceback: str):
    """("cell", its number, line) and ("file", path below the copy, line) of a notebook's traceback."""
    pattern = re.compile(r"^Cell In\[(\d+)\], line (\d+)|^File (\S+?):(\d+)", re.MULTILINE)
    for number, line, path, at in pattern.findall(traceback):
        if number:
            yield "cell", number, int(line)
        elif own := re.search(r"(?:^|/)(course_utils/.*)$", path.replace("\\", "/")):
            yield "file", own[1], int(at)


def bound(source: str) -> set[str]:
    """The names that a cell binds."""
    try:
        tree = ast.parse(source)
    except SyntaxError:  # a line for IPython
        return set(re.findall(r"^(\w+) *=", source, re.MULTILINE))
    names = {
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    names |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    return names


def failures(cells: list[Cell]) -> list[Failure]:
    return [cell.failure for cell in cells if cell.failure]


def messages(cells: list[Cell]) -> list[dict]:
    """The messages on stderr as the recorder writes those of a test: category, text, test."""
    found = []
    for cell in cells:
        for line in cell.stderr.splitlines():
            warning = re.search(r"(\w*Warning): (.*)", line)
            if warning:
                found.append({"category": warning[1], "text": warning[2], "test": cell.test})
            elif line.strip() and not line.startswith("  "):  # two spaces: the line that a warning quotes
                found.append({"category": "log", "text": line, "test": cell.test})
    return found


def listing(cells: list[Cell]) -> str:
    """The cells that do not raise, by kind; the same cell of the open and the solved notebook once."""
    parts = []
    for kind, meaning in KINDS.items():
        seen: dict[tuple, list[Cell]] = {}
        for cell in cells:
            if cell.kind == kind != "raise":
                key = cell.name.removeprefix("solutions/"), cell.source, cell.stored, cell.new
                seen.setdefault(key, []).append(cell)
        if not seen:
            continue
        parts.append(f"### {kind.capitalize()} ({sum(map(len, seen.values()))}): {meaning}")
        if kind in ("lines or version only", "message only"):
            parts.append(folded("Cells", [f"- {_heading(same)}" for same in seen.values()]))
            continue
        for same in seen.values():
            parts += [_heading(same), _difference(same[0])]
    return "\n\n".join(parts)


def _heading(same):
    cell = same[0]
    twice = " (and solved)" if len(same) > 1 else ""
    later = "; an earlier cell of the notebook raises" if cell.after_raise else ""
    return f"{cell}{twice}{later}"


def _difference(cell):
    if cell.stored == cell.new:
        return f"{cell.reason or 'The pages differ, the texts do not.'}"
    return side_by_side(cell.stored, cell.new)
