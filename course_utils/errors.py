"""The one exception that a learner is meant to read."""


class CourseError(RuntimeError):
    """Something a learner can act on. The message is a sentence or two that says what was given,
    what is expected and the next thing to type. Widgets show it in place of a stack trace."""

    def _render_traceback_(self):
        """What IPython shows: the sentence alone, since the stack is the library's, not the learner's."""
        return [f"CourseError: {self}"]
