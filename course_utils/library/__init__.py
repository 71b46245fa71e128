"""Looking into the installed transformers: its source, with notes at the lines, and what became of old names.

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
"""

from .entries import KINDS, SEEN
from .excerpt import Excerpt, lines_at, show
from .lookup import version_map, where

__all__ = ["KINDS", "SEEN", "Excerpt", "lines_at", "show", "version_map", "where"]
