"""What the views of a padded batch share: the learner's sentences and a word chosen among several."""

import traitlets

from ...errors import CourseError
from ...inputs.limits import position_limit
from ...inputs.text import check_length
from ...masks import pad_sentences, token_rows
from .labels import token_label

MOST_SENTENCES = 6


class Choice(traitlets.TraitType):
    """A trait that is one of the `options`, all str. Raises CourseError for anything else."""

    def __init__(self, options, **kwargs):
        self.options = tuple(options)
        super().__init__(self.options[0], **kwargs)

    def validate(self, obj, value):
        if value in self.options:
            return self.options[self.options.index(value)]  # 1.0 for 1, and for a tensor that equals it
        options = " or ".join(map(repr, self.options))
        raise CourseError(f"{self.name} is {value!r}. Give {options}.")


def padded(model, tokenizer, sentences, side, most_tokens):
    """`masks.pad_sentences`, for a batch that a learner types and that has to fit on a page.

    Returns {"input_ids", "attention_mask"}, both LongTensor [batch, length], on the CPU.
    Raises CourseError for what pad_sentences refuses, for a sentence longer than the model has positions or
    than `most_tokens`, for more than 6 sentences, for half a surrogate pair and for a line break.
    """
    for number, sentence in enumerate(sentences if isinstance(sentences, list | tuple) else [], 1):
        if isinstance(sentence, str):
            _check_line(sentence, number)
    limit = position_limit(model)
    rows = token_rows(tokenizer, sentences, limit)
    if len(rows) > MOST_SENTENCES:
        raise CourseError(
            f"These are {len(rows)} sentences, and this view shows at most {MOST_SENTENCES}. Leave some out."
        )
    for number, row in enumerate(rows, 1):
        check_length(len(row), most_tokens, f"sentence {number}", "this view shows at most {most}")
    return pad_sentences(tokenizer, sentences, side, limit)


def _check_line(sentence, number):
    if "\n" in sentence or "\r" in sentence:
        raise CourseError(
            f"Sentence {number} holds a line break, and this view takes one sentence a line. "
            "Put a space in its place."
        )


def tokens_of(tokenizer, batch):
    """The tokens of a padded batch without its padding: a list of rows of (id int, label str)."""
    return [
        [(token_id, token_label(tokenizer, token_id)) for token_id in row[real].tolist()]
        for row, real in zip(batch["input_ids"], batch["attention_mask"].bool(), strict=True)
    ]
