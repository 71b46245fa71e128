"""A box that finds what a message means as one types or pastes it."""

import html
from pathlib import Path

import traitlets

from ...errors import CourseError
from ...library.messages.catalog import MESSAGES, finder
from ...library.messages.entry import GROUPS
from ...library.messages.find import FITS
from ...library.messages.glossary import TERMS
from ..core.widget import CourseWidget

_HERE = Path(__file__).parent
_LONGEST = 20_000  # characters that Python may put into the box; pasted into the page, any length is searched


class FindMessage(CourseWidget):
    """The course's messages and words; typing in the box leaves those that fit, with cause and cure.

    query: str, what stands in the box; it follows what the learner types, and can be assigned

    The page does all of it: a saved notebook finds as well as a live one, with the words' weights of
    `library.explain`. Links lead to the sections of appendix B, where each message is raised and cured.
    Raises CourseError for a query that is no text, or longer than 20,000 characters.
    """

    _esm = _HERE / "view.js"
    _css = _HERE / "style.css"

    query = traitlets.Unicode("").tag(sync=True)
    shown = traitlets.Dict(read_only=True).tag(sync=True)

    def __init__(self, query: str = "") -> None:
        if not isinstance(query, str):
            raise CourseError(
                f"The query is text, and you gave {type(query).__name__}. Write FindMessage(str(...))."
            )
        if len(query) > _LONGEST:
            raise CourseError(
                f"The query has {len(query):,} characters. Give at most {_LONGEST:,}: the end of it."
            )
        super().__init__(query=query)
        messages = [
            [e.kind, e.title, e.says, e.cause, e.cure, e.place, list(GROUPS).index(e.group), e.asked]
            for e in MESSAGES
        ]
        terms = [[term.word, term.here, term.elsewhere, term.lesson.partition("_")[0]] for term in TERMS]
        self.set_trait(
            "shown", {"messages": messages, "groups": list(GROUPS.values()), "terms": terms, "fits": FITS}
        )

    @property
    def found(self) -> list[str]:
        """The titles of the messages nearest to the query, best first, at most three: list of str."""
        return [MESSAGES[index].title for index, _ in finder().best(self.query)]

    def summary(self) -> str:
        heading = f"{len(MESSAGES)} messages and symptoms, {len(TERMS)} words"
        if self.query.strip():
            return "\n".join([heading, "nearest to the query:", *(self.found or ["nothing"])])
        return "\n".join([heading, *(entry.title for entry in MESSAGES)])

    def still(self) -> str:
        rows = "".join(
            f'<tr><td><a href="#{html.escape(entry.anchor)}">{html.escape(entry.title)}</a>'
            f"<td>{html.escape('' if entry.kind == 'symptom' else _beginning(entry.says))}"
            for entry in MESSAGES
        )
        return (
            '<table style="text-align:left"><thead><tr><th scope=col>About<th scope=col>Message</thead>'
            f"<tbody>{rows}</tbody></table><p>Where scripts run, a box searches them.</p>"
        )


def _beginning(text):
    return text if len(text) <= 70 else text[:69] + "…"
