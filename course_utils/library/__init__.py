"""Looking into the installed transformers: its source, what became of old names, what messages mean.

    from course_utils import library

    library.show(
        "generation.utils.GenerationMixin._sample",
        {
            "next_token_scores = logits_processor(": "every processor, one after the other",
            "torch.argmax(": "greedy decoding is this one line",
        },
    )

A note is placed by a piece of the line's own text, never by its number, so it stays where it belongs when
lines are added above it, and fails loudly when its line is gone.

    library.where("greedy_search")  # what became of a name in an older article
    library.version_map()           # all of them, checked against the installed version
    library.explain("index out of range in self")  # what a message means, and what to do
    library.all_messages()          # all of them, each brought about and cured now
    library.glossary()              # the course's words; library.reading_list() has papers, by lesson
"""

from .entries import KINDS, SEEN
from .excerpt import Excerpt, lines_at, show
from .lookup import version_map, where
from .messages.glossary import glossary
from .messages.heard import heard
from .messages.reading import reading_list
from .messages.show import all_messages, explain

__all__ = [
    "KINDS",
    "SEEN",
    "Excerpt",
    "all_messages",
    "explain",
    "glossary",
    "heard",
    "lines_at",
    "reading_list",
    "show",
    "version_map",
    "where",
]
