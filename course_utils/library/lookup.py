"""The version map: what became of the names in older articles, proven against the installed transformers.

The entries are in `old_names`, and `name_check` runs their lines. Here they are found and shown.
"""

import difflib
import functools
import html
import re
from dataclasses import dataclass

from ..errors import CourseError
from ..releases import is_before
from .entries import ENTRIES, KINDS, TOPICS
from .introspect import homes_of, version
from .verify import problem


@dataclass(frozen=True)
class VersionMap:
    """Entries of the map with what checking them found, as a notebook shows them.

    entries: tuple of OldName; problems: tuple of str, "" where an entry is right for the installed version
    """

    entries: tuple
    problems: tuple
    version: str

    def __len__(self):
        return len(self.entries)

    @property
    def right(self) -> int:
        """How many entries are right for the installed version"""
        return self.problems.count("")

    def __repr__(self):
        return "\n".join([self.summary, *map(_as_text, self.entries, self.problems)])

    def _repr_html_(self):
        rows = "".join(map(_as_row, self.entries, self.problems))
        heads = "".join(
            f'<th scope="col" style="text-align:left">{head}</th>'
            for head in ("", "Older code, and what it gives today", "Write")
        )
        return (
            f"<p>{html.escape(self.summary)}</p>"
            f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
        )

    @property
    def summary(self) -> str:
        """str, "checked 86 of 87 against transformers 5.24.0": 86 are right for it"""
        return f"checked {self.right} of {len(self)} against transformers {self.version}"


def version_map(kind: str | None = None, *, topic: str | None = None) -> VersionMap:
    """Show the map, checked against the installed transformers now.

    kind:  None or one of "same", "renamed", "moved", "gone", "changed" (`KINDS` says what each means)
    topic: None or one of "decoding", "loop", "processors", "settings", "cache", "model",
           "tokenizer", "elsewhere"

    Returns a VersionMap: a table in a notebook. An entry that is wrong for the installed version says so;
    nothing is raised for it. Raises CourseError for an unknown kind or topic.
    """
    for what, given, known in (("kind", kind, KINDS), ("topic", topic, TOPICS)):
        if given is not None and given not in known:
            raise CourseError(f"There is no {what} {given!r}. Take one of {', '.join(map(repr, known))}.")
    return _checked(e for e in ENTRIES if kind in (None, e.kind) and topic in (None, e.topic))


def where(name: str) -> VersionMap:
    """Say what became of one name: the entries of the map that have it.

    name: str, as older code spells it: "greedy_search", "model.greedy_search()", "transformers.AdamW"
    Returns a VersionMap. Raises CourseError, which offers the nearest names, for a name it does not have.
    """
    words = re.findall(r"[^\W\d]\w*", name) if isinstance(name, str) else []
    if not words:
        raise CourseError(f'{name!r} is not a name. Give one as text, such as "greedy_search".')
    found = [entry for entry in ENTRIES if words[-1].lower() in map(str.lower, _words(entry))]
    if found:
        return _checked(found)
    sentences = [f"The map has no {words[-1]!r}."]
    if homes := homes_of(words[-1]):
        place = ".".join(filter(None, ["transformers", homes[0], words[-1]]))
        sentences.append(f"transformers {version()} has it, as {place}.")
    known = sorted({word for entry in ENTRIES for word in _words(entry) if len(word) > 3})
    if close := difflib.get_close_matches(words[-1], known):
        sentences.append(f"Close to it: {', '.join(close)}.")
    raise CourseError(" ".join([*sentences, "library.version_map() shows all names."]))


def _checked(entries):
    entries = tuple(entries)
    return VersionMap(entries, tuple(map(_known_problem, entries)), version())


@functools.cache  # once in a kernel is enough: the installed version does not change under it
def _known_problem(entry):
    return f"it comes with {entry.by}" if entry.by and is_before(entry.by) else problem(entry)


def _words(entry):
    """Every name by which an entry is found."""
    return set(re.findall(r"[^\W\d]\w*", f"{entry.old} {entry.also}"))


def _fate(entry):
    """ "AttributeError · gone by 4.41 · S0": str"""
    today = f"in {entry.source.rpartition('.')[2]}" if entry.source else entry.fails or "runs"
    kind = f"{entry.kind} by {entry.by}" if entry.by else entry.kind
    return f"{today} · {kind} · {', '.join(entry.seen)}"


def _as_text(entry, trouble):
    lines = [f"{'✘' if trouble else '✔'} {entry.old}", f"    {_fate(entry)}"]
    if entry.now:
        lines.append(f"  → {entry.now}")
    lines += [f"    {text}" for text in (entry.note, _remark(entry, trouble)) if text]
    return "\n".join(lines)


def _remark(entry, trouble):
    if trouble:
        return f"Not so in the installed version: {trouble}."
    return "Not run here: it fetches code." if entry.hub else ""


def _as_row(entry, trouble):
    write = [f"<code>{html.escape(entry.now)}</code>" if entry.now else "the same"]
    write += [with_code(text) for text in (entry.note, _remark(entry, trouble)) if text]
    cells = (
        "✘" if trouble else "✔",
        f"<code>{html.escape(entry.old)}</code><br><small>{html.escape(_fate(entry))}</small>",
        "<br>".join(write),
    )
    return "<tr>" + "".join(f'<td style="text-align:left">{cell}</td>' for cell in cells) + "</tr>"


def with_code(text: str) -> str:
    """A text as HTML: str, escaped, and what stands between backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))
