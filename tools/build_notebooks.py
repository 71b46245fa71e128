"""Build the notebooks from their sources.

    python tools/build_notebooks.py             build what changed since the last build on this machine
    python tools/build_notebooks.py 01 02       the same, for these lessons only
    python tools/build_notebooks.py --force     build everything
    python tools/build_notebooks.py --check     run nothing; fail if a notebook differs from its source
    python tools/build_notebooks.py --reader D  write the learner's notebooks without solutions to folder D

Each lesson in notebooks/source becomes notebooks/LESSON.ipynb, exercises open, and
notebooks/solutions/LESSON.ipynb, exercises solved, both executed. A source without exercises, an appendix,
has no solved notebook. A lesson that does not run changes no file.
"""

import argparse
import copy
import difflib
import hashlib
import json
import os
import re
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from tqdm import tqdm

import lesson_source
import notebook_run

ROOT = Path(__file__).resolve().parents[1]
STAMP = Path("build", "notebooks.json")


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [options] [LESSON ...]",
    )
    parser.add_argument(
        "lessons", nargs="*", metavar="LESSON", help="01 or 01_text_to_integers; default: all"
    )
    parser.add_argument("--force", action="store_true", help="build even what has not changed")
    parser.add_argument("--check", action="store_true", help="compare only, run nothing")
    parser.add_argument("--reader", type=Path, metavar="DIR", help="write notebooks without solutions to DIR")
    options = parser.parse_args(arguments)
    try:
        sources = choose(root, options.lessons)
        if options.check:
            problems = differences(root, sources, orphans=not options.lessons)
        elif options.reader:
            problems = write_for_readers(root, sources, options.reader)
        else:
            problems = build(root, sources, force=options.force)
    except lesson_source.SourceError as error:
        problems = [str(error)]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def choose(root: Path, names: list[str]) -> list[Path]:
    """The sources of the named lessons, or of all."""
    sources = sorted((root / "notebooks" / "source").glob("*.py"))
    chosen = [path for path in sources if not names or any(path.stem.startswith(name) for name in names)]
    for name in names:
        if not any(path.stem.startswith(name) for path in sources):
            raise lesson_source.SourceError(
                f"no lesson {name!r}; there are {[path.stem for path in sources]}"
            )
    return chosen


def targets(root: Path, source: Path) -> dict[Path, NotebookNode]:
    """The files that a source stands for, with their cells, not executed."""
    cells = lesson_source.read_source(source)
    name = f"{source.stem}.ipynb"
    notebooks = {root / "notebooks" / name: lesson_source.learner_notebook(cells)}
    if has_exercises(cells):
        solved = lesson_source.solved_notebook(cells)
        for cell in solved.cells:
            if cell.cell_type == "markdown":
                cell.source = linked_from_solutions(cell.source, source.parent)
        notebooks[root / "notebooks" / "solutions" / name] = solved
    return notebooks


def has_exercises(cells) -> bool:
    return any(lesson_source.has_tag(cell, "exercise") for cell in cells)


def linked_from_solutions(text: str, sources: Path) -> str:
    """A text whose links to pictures, and to notebooks without a solved copy, lead out of its folder."""

    def link(found):
        other = sources / f"{found[1]}.py"
        if other.exists() and not has_exercises(lesson_source.read_source(other)):
            return f"](../{found[1]}.ipynb)"
        return found[0]

    return re.sub(r"\]\((\w+)\.ipynb\)", link, text).replace("](images/", "](../images/")


def build(root: Path, sources: list[Path], *, force: bool) -> list[str]:
    """Build every lesson that changed; return what went wrong, a text for each lesson."""
    stamps = read_stamps(root)
    library = library_digest(root)
    stale = [path for path in sources if force or stamps.get(path.stem) != stamp(root, path, library)]
    problems = []
    if stale:
        notebook_run.prepare_machine()
    for source in tqdm(stale, desc="notebooks", unit="lesson", disable=not stale):
        try:
            build_lesson(root, source)
        except (lesson_source.SourceError, notebook_run.RunError) as error:
            problems.append(f"{source.name}: not built. {error}")
            continue
        stamps[source.stem] = stamp(root, source, library)
        write_atomically(root / STAMP, json.dumps(stamps, indent=1, sort_keys=True) + "\n")
    print(
        f"{len(stale) - len(problems)} built, {len(sources) - len(stale)} unchanged, {len(problems)} failed"
    )
    return problems


def build_lesson(root: Path, source: Path) -> None:
    """Run the notebooks of a lesson, then write them."""
    notebooks = targets(root, source)
    for path, notebook in notebooks.items():
        solved = path.parent.name == "solutions"
        path.parent.mkdir(exist_ok=True)
        code_cells = sum(cell.cell_type == "code" for cell in notebook.cells)
        name = f"{source.stem} {'solved' if solved else 'open'}"
        with tqdm(total=code_cells, desc=name, unit="cell", leave=False) as bar:
            notebook_run.run_notebook(notebook, path.parent, strict=solved, on_cell=bar.update)
    for path, notebook in notebooks.items():
        if not (path.exists() and only_measured_anew(path, notebook)):
            write_atomically(path, as_stored(notebook))


def only_measured_anew(path: Path, notebook: NotebookNode) -> bool:
    """Whether the notebook differs from the stored one in nothing but cells whose output is never the same.

    Timings, for example: a rebuild that changes only them leaves the file, and the history, alone. A widget
    among them counts by the digest of its module, so that a page does not keep an old one.
    """

    def without_measurements(notebook):
        notebook = copy.deepcopy(notebook)
        for cell in notebook.cells:
            if "nbval-ignore-output" in cell.metadata.get("tags", []):
                modules = re.findall(r"data-course-module=\W*([\w-]+)", json.dumps(cell.outputs))
                cell.metadata["modules"], cell.outputs = modules, []
        return as_stored(notebook)

    stored = nbformat.reads(path.read_text(encoding="utf-8"), as_version=nbformat.NO_CONVERT)
    return without_measurements(stored) == without_measurements(notebook)


def differences(root: Path, sources: list[Path], *, orphans: bool) -> list[str]:
    """What in the stored notebooks is not what their sources say; outputs are not looked at."""
    problems, expected = [], set()
    for source in sources:
        for path, notebook in targets(root, source).items():
            expected.add(path)
            again = f"Type: python tools/build_notebooks.py {source.stem}"
            if not path.exists():
                problems.append(f"{path.relative_to(root)} is missing. {again}")
                continue
            stored = nbformat.reads(path.read_text(encoding="utf-8"), as_version=nbformat.NO_CONVERT)
            diff = difflib.unified_diff(
                readable(stored), readable(notebook), "stored", "source", lineterm="", n=2
            )
            if lines := list(diff):
                shown = "\n".join(lines[:60] + ["..."] * (len(lines) > 60))
                problems.append(f"{path.relative_to(root)} differs from its source. {again}\n{shown}")
    if orphans:
        stored = {
            path for folder in ("", "solutions") for path in (root / "notebooks" / folder).glob("*.ipynb")
        }
        problems += [
            f"{path.relative_to(root)} has no source. Remove it, or write its source."
            for path in sorted(stored - expected)
        ]
    return problems


def readable(notebook: NotebookNode) -> list[str]:
    """All of a notebook except what running it adds, line by line."""
    lines = [
        f"nbformat {notebook.nbformat}.{notebook.nbformat_minor}",
        json.dumps(notebook.metadata, sort_keys=True),
    ]
    for cell in notebook.cells:
        metadata = json.dumps(cell.metadata, sort_keys=True)
        lines += [f"--- {cell.cell_type} {cell.get('id')} {metadata}", *cell.source.splitlines()]
    return lines


def write_for_readers(root: Path, sources: list[Path], folder: Path) -> list[str]:
    """Copy the built learner's notebooks, less the folded solutions."""
    folder.mkdir(parents=True, exist_ok=True)
    for source in sources:
        path = root / "notebooks" / f"{source.stem}.ipynb"
        if not path.exists():
            return [
                f"{path.relative_to(root)} is missing. Type: python tools/build_notebooks.py {source.stem}"
            ]
        notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
        write_atomically(folder / path.name, as_stored(lesson_source.without_solutions(notebook)))
    return []


def read_stamps(root: Path) -> dict[str, str]:
    try:
        return json.loads((root / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def library_digest(root: Path) -> str:
    """A digest of what every notebook depends on: the course's library, the pins and these tools."""
    files = [
        path
        for path in (root / "course_utils").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    files += [
        root / "requirements.txt",
        Path(__file__),
        Path(lesson_source.__file__),
        Path(notebook_run.__file__),
    ]
    return digest(files)


def stamp(root: Path, source: Path, library: str) -> str:
    """A digest of a lesson's source, of what it depends on and of what was built from it."""
    built = [
        root / "notebooks" / f"{source.stem}.ipynb",
        root / "notebooks" / "solutions" / f"{source.stem}.ipynb",
    ]
    return f"{library} {digest([source, *built])}"


def digest(files: list[Path]) -> str:
    total = hashlib.sha256()
    for path in sorted(files):
        content = path.read_bytes() if path.exists() else b""
        total.update(f"{path.name} {len(content)}\n".encode() + content)
    return total.hexdigest()[:16]


def as_stored(notebook: NotebookNode) -> str:
    """A notebook's JSON, a line for each piece, without the indentation, which is a tenth of the file.

    In JSON a text's own line feed is written as backslash and n, so no text loses a space.
    """
    return re.sub(r"^ +", "", nbformat.writes(notebook), flags=re.MULTILINE) + "\n"


def write_atomically(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(text.encode())
    os.replace(temporary, path)


if __name__ == "__main__":
    sys.exit(main())
