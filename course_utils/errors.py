"""The one exception that a learner is meant to read."""


class CourseError(RuntimeError):
    """Something a learner can act on. The message is a sentence or two that says what was given,
    what is expected and the next thing to type. Widgets show it in place of a stack trace."""

    def _render_traceback_(self):
        """What IPython shows: the sentence alone, since the stack is ours and not the learner's."""
        return [f"CourseError: {self}"]


def check_characters(text: str, name: str = "the text") -> None:
    """Raise CourseError if `text` holds half a surrogate pair, which has no UTF-8 bytes and so no tokens.

    name: str, what the sentence calls the text
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise CourseError(
            f"Character {error.start + 1} of {name} is U+{ord(text[error.start]):04X}, half of a surrogate "
            "pair: it stands for no character. Delete it, or paste the character again."
        ) from None
