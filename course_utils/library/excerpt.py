"""show(): the installed source of a function or class, with notes at its lines."""

import html
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CourseError
from .introspect import resolve, version
from .lookup import with_code


@dataclass(frozen=True)
class Excerpt:
    """Lines of an installed file with notes, as a notebook shows them.

    target:  str, the dotted name below `transformers`
    path:    str, the file, relative to the `transformers` folder
    version: str, of the installed transformers
    first:   int, the number of the first line in the file; `lines` are all lines of the function, str
    notes:   dict from a line's number to a tuple of notes, str
    shown:   tuple of the numbers of the lines to show, ascending
    """

    target: str
    path: str
    version: str
    first: int
    lines: tuple
    notes: dict
    shown: tuple

    def __repr__(self):
        pieces = [self._title()]
        for piece in self._pieces():
            if isinstance(piece, range):
                pieces.append(f"{'':6} ⋮ {_count(len(piece))}")
            else:
                pieces.append(self._line(piece))
                pieces += [f"{'':6} ▲ {note}" for note in self.notes.get(piece, ())]
        return "\n".join(pieces)

    def _repr_html_(self):
        pieces, code = [], []

        def end_code():
            if code:
                lines = "\n".join(code)
                pieces.append(f'<pre style="overflow-x:auto;margin:0">{lines}</pre>')
                code.clear()

        for piece in self._pieces():
            if isinstance(piece, range):
                code.append(f"{'':6} ⋮ {_count(len(piece))}")
                continue
            line = html.escape(self._line(piece))
            notes = self.notes.get(piece, ())
            code.append(f"<b>{line}</b>" if notes else line)
            if notes:
                end_code()
            pieces += [
                '<p style="margin:0 0 6px 4em;border-left:3px solid #0072b2;padding-left:8px">'
                f"▲ {with_code(note)}</p>"
                for note in notes
            ]
        end_code()
        return f"<div><p>{html.escape(self._title())}</p>{''.join(pieces)}</div>"

    def _title(self):
        last = self.first + len(self.lines) - 1
        name = self.target.removeprefix(_module_of(self.path) + ".")
        return f"{name} · transformers {self.version} · {self.path}, lines {self.first} to {last}"

    def _line(self, number):
        mark = "▶" if number in self.notes else " "
        return f"{number:5} {mark} {self.lines[number - self.first]}".rstrip()

    def _pieces(self):
        """What stands under one another: numbers of lines, and ranges of those that are left out."""
        following = self.first
        for number in self.shown:
            if number > following:
                yield range(following, number)
            yield number
            following = number + 1
        if following < self.first + len(self.lines):
            yield range(following, self.first + len(self.lines))


def show(
    target: str, notes: dict[str, str] | None = None, *, context: int = 1, whole: bool = False
) -> Excerpt:
    """Show the installed source of a function or class of transformers, with notes at its lines.

    target:  str, a dotted name below `transformers`: "generation.utils.GenerationMixin._sample"
    notes:   dict from anchor to note, both str. An anchor is a piece of one line, spaces as they stand
             there, that occurs on exactly one line of the source, decorators and docstring included.
             `Backticks` in a note are shown as code.
    context: int, lines shown before and after each anchor; what lies between is counted, "⋮ 24 lines"
    whole:   bool, show every line; so does a call without notes

    Returns an Excerpt, which a notebook shows with the numbers of the lines in the installed file.
    Raises CourseError for a name that the installed transformers does not have, and for an anchor that is on
    no line or on several.
    """
    if not isinstance(context, int) or context < 0:
        raise CourseError(f"context is {context!r}. It counts lines: give 0, 1, 2, …")
    notes = {} if notes is None else notes
    if not isinstance(notes, dict) or not all(
        isinstance(text, str) for pair in notes.items() for text in pair
    ):
        raise CourseError(
            'The notes are a dictionary of texts. Type {"a piece of a line": "what to say of it"}.'
        )
    found = _find(target)
    path, first, lines = _source(target, found)
    placed = {}
    for number, note in _placed(target, first, lines, notes):
        placed[number] = (*placed.get(number, ()), note)
    last = first + len(lines) - 1
    shown = set(range(first, last + 1))
    if placed and not whole:
        shown &= {near for number in placed for near in range(number - context, number + context + 1)}
        shown -= {number for number in shown if _dangles(number, shown, lines[number - first])}
    return Excerpt(_bare(target), path, version(), first, lines, placed, tuple(sorted(shown)))


def lines_at(target: str, anchors: dict[str, str]) -> dict[str, tuple[int, str]]:
    """The lines of the installed source that anchors name: dict from name to (int number, str line).

    target:  str, as `show` takes it
    anchors: dict from a name of the caller's to an anchor, both str. One that this release has not exactly
             once is left out.
    The numbers are those of the file; the lines come without the indentation that all of them share.
    """
    _, first, lines = _source(target, _find(target))
    found = {}
    for name, anchor in anchors.items():
        places = [place for place, line in enumerate(lines) if anchor in line]
        if len(places) == 1:
            found[name] = first + places[0], lines[places[0]]
    common = min((len(line) - len(line.lstrip()) for _, line in found.values()), default=0)
    return {name: (number, line[common:]) for name, (number, line) in found.items()}


def _find(target):
    """The object that `target` names below transformers."""
    name = _bare(target)
    try:
        return resolve(name)
    except LookupError:
        raise CourseError(
            f"transformers {version()} has no {name!r}. If an older text names it, type "
            f"library.where({name.rpartition('.')[2]!r}) to see what became of it."
        ) from None


def _bare(target):
    if not isinstance(target, str) or not target:
        raise CourseError(
            f"{target!r} is not a name. Give one below transformers as text, "
            'such as "generation.utils.GenerationMixin._sample".'
        )
    return target.removeprefix("transformers.")


def _source(target, found: Any):
    """Path below the transformers folder, number of the first line, and the lines, dedented."""
    import transformers

    found = getattr(found, "__func__", found)  # a class method's function
    found = inspect.unwrap(getattr(found, "fget", found))
    if not (inspect.isfunction(found) or inspect.isclass(found)):
        raise CourseError(f"{target!r} is a {type(found).__name__}. Name a function or a class in it.")
    lines, first = inspect.getsourcelines(found)
    path = Path(inspect.getsourcefile(found) or "")
    folder = Path(transformers.__file__).parent
    if not path.is_relative_to(folder):
        raise CourseError(f"{target!r} comes from {found.__module__}, which is not a part of transformers.")
    lines = inspect.cleandoc("\n" + "".join(lines)).split("\n")
    return path.relative_to(folder).as_posix(), first, tuple(lines)


def _placed(target, first, lines, notes):
    """Pairs (line number, note), one for each anchor."""
    problems = []
    for anchor, note in notes.items():
        numbers = [first + place for place, line in enumerate(lines) if anchor in line]
        if len(numbers) == 1:
            yield numbers[0], note
        elif numbers:
            problems.append(f"{anchor!r} is on {len(numbers)} lines ({', '.join(map(str, numbers))})")
        else:
            problems.append(f"{anchor!r} is on no line")
    if problems:
        raise CourseError(
            f"In {_bare(target)} of transformers {version()} {', '.join(problems)}. Look at "
            f"library.show({_bare(target)!r}) and give a piece of text that one line of it has."
        )


def _dangles(number, shown, line):
    """Whether an empty line would stand at the edge of what is shown."""
    return not line and not {number - 1, number + 1} <= shown


def _module_of(path):
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _count(lines):
    return f"{lines} line{'s' if lines != 1 else ''}"
