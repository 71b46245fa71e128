"""The keyword arguments of a call as text that a learner can edit."""

import ast

from ...errors import CourseError

EXAMPLE = "max_new_tokens=8, do_sample=True, temperature=0.7"
_GIVEN = (
    "self",
    "model",
    "tokenizer",
    "inputs",
    "prompts",
    "seed",
    "loop",
)  # what the cell or another field gives


def is_plain(value):
    """Whether a value can be written as text and read back: bool."""
    try:
        return ast.literal_eval(repr(value)) == value
    except (ValueError, SyntaxError):
        return False


def described(value):
    """An object by the name of its class, a list by those of its members: str, without addresses."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(described, value))}]"
    return getattr(value, "__name__", type(value).__name__)


def parsed(text, objects):
    """The keyword arguments that `text` writes as in a call, of plain values: dict.

    objects: dict, those that were given in the cell and cannot be typed
    """
    try:
        call = ast.parse(f"generate({text}\n)", mode="eval").body
    except (SyntaxError, ValueError):
        call = None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
        raise CourseError(
            f"The arguments {text[:60]!r} cannot be read. Type them as in a call, by name: {EXAMPLE}."
        )
    arguments = {}
    for keyword in call.keywords:
        name, written = keyword.arg, ast.unparse(keyword.value)
        if name is None or name in arguments or name in objects or name in _GIVEN:
            why = "comes from the cell" if name in objects else "is not a single argument"
            why = "is given beside these arguments" if name in _GIVEN else why
            why = "is given twice" if name in arguments else why
            raise CourseError(
                f"Each argument is given once, by name: {name or '**' + written} {why}. Leave it out."
            )
        try:
            arguments[name] = ast.literal_eval(keyword.value)
        except ValueError:
            raise CourseError(
                f"{name}={written} is not a number, text, list, True, False or None. "
                f"Give other objects in the cell: Stepper(model, tokenizer, prompt, {name}=...)."
            ) from None
    return arguments
