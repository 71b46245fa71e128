"""What explain() finds, as a notebook shows it."""

import functools
import html
from dataclasses import dataclass

from ...errors import CourseError
from ..introspect import version
from ..lookup import with_code
from .catalog import MESSAGES, finder
from .entry import GROUPS, Message
from .find import FITS
from .verify import message, problem

_LONGEST = 200_000  # characters of a pasted text
_A_NAME = 'Is a name missing? library.where("name") has the names of older code.'


@dataclass(frozen=True)
class Explanation:
    """The entries that fit a pasted text, best first; where `fits` is False they are only the nearest.

    entries: tuple of Message; fits: bool
    """

    entries: tuple[Message, ...]
    fits: bool

    def __repr__(self):
        return "\n\n".join([*self._heading(), *map(_as_text, self.entries)])

    def _repr_html_(self):
        heading = "".join(f"<p>{html.escape(line)}</p>" for line in self._heading())
        return heading + "".join(map(_as_html, self.entries))

    def _heading(self):
        if self.fits:
            return []
        if not self.entries:
            return [f"No message here has any of these words. {_A_NAME}"]
        return [f"No message here fits closely. {_A_NAME} Nearest to it:"]


@dataclass(frozen=True)
class Messages:
    """Entries with what checking them found.

    entries: tuple of Message; problems: tuple of str, "" where an entry holds for the installed versions
    """

    entries: tuple[Message, ...]
    problems: tuple[str, ...]
    version: str

    def __len__(self):
        return len(self.entries)

    @property
    def summary(self) -> str:
        """str, "checked 51 of 51 against transformers 5.24.0": 51 hold for it"""
        return f"checked {self.problems.count('')} of {len(self)} against transformers {self.version}"

    def __repr__(self):
        lines = [
            f"{'✘' if wrong else '✔'} {e.title}{f': {wrong}' if wrong else ''}" for e, wrong in self._pairs()
        ]
        return "\n".join([self.summary, *lines])

    def _repr_html_(self):
        rows = "".join(
            f'<tr><td>{"✘" if wrong else "✔"}</td><td style="text-align:left">{with_code(e.says)}</td>'
            f'<td style="text-align:left">{html.escape(wrong or e.title)}</td></tr>'
            for e, wrong in self._pairs()
        )
        heads = "".join(f'<th scope="col">{head}</th>' for head in ("", "Message", "About"))
        table = f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
        return f"<p>{html.escape(self.summary)}</p>{table}"

    def _pairs(self):
        return zip(self.entries, self.problems, strict=True)


def explain(text: str) -> Explanation:
    """Find what a message means: the entries that fit it best.

    text: str, a pasted message: whole or cut off, in a traceback or alone, of another version; or a few words
        on what one sees: "the reply is empty"

    Returns an Explanation with up to three entries. Where nothing fits it says so and has the nearest.
    Showing it brings each message about, which loads the course's models the first time: some seconds.
    Raises CourseError for what is no text, or an empty one.
    """
    if not isinstance(text, str):
        given = (
            f"an exception, {type(text).__name__}" if isinstance(text, BaseException) else type(text).__name__
        )
        raise CourseError(f"explain() takes the message as text, and got {given}. Write explain(str(...)).")
    if not text.strip():
        raise CourseError('The text is empty. Paste a message between quotes: explain("""...""").')
    if len(text) > _LONGEST:
        raise CourseError(
            f"The text has {len(text):,} characters, and at most {_LONGEST:,} are searched. "
            "Paste the traceback's end."
        )
    found = finder().best(text)
    if not found or found[0][1] < FITS:
        return Explanation(tuple(MESSAGES[index] for index, _ in found), False)
    best = found[0][1]
    return Explanation(tuple(MESSAGES[i] for i, score in found if score >= max(FITS, 0.75 * best)), True)


def all_messages(group: str | None = None) -> Messages:
    """All messages, or one group's, each brought about and cured now: some 20 seconds for all.

    group: None or one of "padding", "mask", "arguments", "output", "sampling", "cache", "chat", "tokens",
           "gradient", "loss", "numbers"

    Returns a Messages. An entry that does not hold for the installed versions says so; nothing is raised for
    it. Raises CourseError for an unknown group.
    """
    if group is not None and group not in GROUPS:
        raise CourseError(f"There is no group {group!r}. Take one of {', '.join(map(repr, GROUPS))}.")
    entries = tuple(entry for entry in MESSAGES if group in (None, entry.group))
    return Messages(entries, tuple(map(_known_problem, entries)), version())


@functools.cache  # once in a kernel is enough: what is installed does not change under it
def _known_problem(entry):
    return problem(entry)


@functools.cache
def _known_message(entry):
    """The message as it is said now; the entry's words where no model can be loaded, or it is not said."""
    try:
        return message(entry) or entry.says
    except CourseError:
        return entry.says


def _as_text(entry):
    lines = [
        entry.title.upper(),
        _known_message(entry),
        f"Why: {entry.cause}",
        f"Do: {entry.cure}",
        *(f"    {line}".rstrip() for line in entry.cured.splitlines()),
        f"More: {entry.place}",
    ]
    return "\n".join(lines)


def _as_html(entry):
    return (
        f"<h4>{html.escape(entry.title)}</h4>"
        f"<pre>{html.escape(_known_message(entry))}</pre>"
        f"<p><strong>Why:</strong> {with_code(entry.cause)}</p>"
        f"<p><strong>Do:</strong> {with_code(entry.cure)}</p>"
        f"<pre>{html.escape(entry.cured)}</pre>"
        f"<p><strong>More:</strong> {html.escape(entry.place)}</p>"
    )
