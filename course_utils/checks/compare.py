"""Compare a learner's value with the right one, and say in a sentence how they differ.

Works on numbers, text, bytes, lists, tuples, dictionaries, sets, NumPy arrays and tensors, nested in any
way. torch is used where it is already imported, never imported from here.
"""

import html
import math
import numbers
import re
import reprlib
import sys
from collections.abc import Mapping


class Mistake(Exception):
    """A mistake that a check has recognised. The text is what the learner reads."""


class _Short(reprlib.Repr):
    def __init__(self):
        super().__init__()
        self.maxlist = self.maxtuple = self.maxset = self.maxdict = 12
        self.maxlevel = 4
        self.maxstring = self.maxother = 80

    def repr_instance(self, value, level):
        if is_tensor(value) or is_array(value):
            return _show_tensor(value)
        text = super().repr_instance(value, level)
        return f"{type(value).__name__}(...)" if "\n" in text else text  # a model, printed, fills a page

    # reprlib looks methods up by the type's name.
    repr_Tensor = repr_Parameter = repr_ndarray = repr_instance


def show(value):
    """`value` as a learner would type it: exact where it is short, its ends or its shape where it is long."""
    try:
        return _Short().repr(value)
    except Exception:  # a learner's own class, or a tensor without numbers
        return f"a value of type {type(value).__name__}"


def code(text):
    """`text` between backticks, which the HTML form shows as code; double ones where it holds one itself."""
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def as_html(text):
    """`text` escaped, and what stands between backticks as <code> with the spaces at its ends kept."""

    def element(found):
        inner = found[2]
        start, end = len(inner) - len(inner.lstrip(" ")), len(inner) - len(inner.rstrip(" "))
        return f"<code>{'&nbsp;' * start}{inner.strip(' ')}{'&nbsp;' * end}</code>"

    return re.sub(r"(?s)(`+)(.+?)\1(?!`)", element, html.escape(text))


def _show_tensor(value):
    kind = "tensor" if is_tensor(value) else "array"
    size = math.prod(value.shape)
    if size <= 12:
        text = repr(value.tolist())
        if len(text) <= 100:
            return f"{kind}({text})"
    return f"{kind} of shape {tuple(value.shape)} and type {_dtype(value)}"


def is_tensor(value):
    """Whether `value` is a torch tensor."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def is_array(value):
    """Whether `value` is a NumPy array."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def _dtype(value):
    return str(value.dtype).removeprefix("torch.")


def copied(value):
    """A copy that can be changed without changing `value`: tensors are cloned, containers rebuilt.

    Models, tokenizers and other objects are handed on as they are: a copy of them would be slow or wrong.
    """
    if is_tensor(value):
        return value.detach().clone().requires_grad_(value.requires_grad)
    if is_array(value) or isinstance(value, bytearray):
        return value.copy()
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(copied(item) for item in value)
    if type(value) is dict:
        return {key: copied(item) for key, item in value.items()}
    return value


def same(got, want, tolerance=0.0):
    """Whether two values have the same kind, shape and dtype, and numbers within `tolerance`."""
    return difference(got, want, tolerance) is None


def difference(got, want, tolerance=0.0):
    """None if the values are the same, otherwise half a sentence on the first difference."""
    if got is want:
        return None
    if is_tensor(want) or is_array(want):
        return _tensor_difference(got, want, tolerance)
    if _kind(got) != _kind(want):
        return f"got {_kind(got)}, expected {_kind(want)}"
    if isinstance(want, Mapping):
        return _mapping_difference(got, want, tolerance)
    if isinstance(want, list | tuple):
        if len(got) != len(want):
            return f"it has {len(got)} item{'' if len(got) == 1 else 's'}, expected {len(want)}"
        for index, (item, wanted) in enumerate(zip(got, want, strict=True)):
            if (text := difference(item, wanted, tolerance)) is not None:
                inner = isinstance(wanted, list | tuple)
                text = f": {text}" if inner else f" it has {show(item)}, expected {show(wanted)}"
                return f"at index {index}{text}"
        return None
    equal = bool(got == want)
    if not equal and _kind(want) == "a number":
        equal = abs(got - want) <= tolerance or (math.isnan(got) and math.isnan(want))
    return None if equal else f"got {show(got)}, expected {show(want)}"


_KINDS = {str: "text", bytes: "bytes", list: "a list", tuple: "a tuple", set: "a set", dict: "a dictionary"}


def _kind(value):
    """What a learner calls the type: "a list", "a number", "text", "a tensor"."""
    if is_tensor(value):
        return "a tensor"
    if isinstance(value, bool):
        return "True or False"
    if isinstance(value, numbers.Real):
        return "a number"
    if value is None:
        return "None"
    for kind, name in _KINDS.items():
        if isinstance(value, kind):
            return name
    return f"a value of type {type(value).__name__}"


def _mapping_difference(got, want, tolerance):
    if missing := [key for key in want if key not in got]:
        return f"it has no {show(missing[0])}"
    if extra := [key for key in got if key not in want]:
        return f"it has {show(extra[0])}, which does not belong there"
    for key, wanted in want.items():
        if difference(got[key], wanted, tolerance) is not None:
            return f"for {show(key)} it has {show(got[key])}, expected {show(wanted)}"
    return None


def _tensor_difference(got, want, tolerance):
    import numpy

    kind = "a tensor" if is_tensor(want) else "an array"
    if type(got) is not type(want) and not (is_tensor(got) and is_tensor(want)):
        return f"got {_kind(got)}, expected {kind}"
    if tuple(got.shape) != tuple(want.shape):
        return f"its shape is {tuple(got.shape)}, expected {tuple(want.shape)}"
    if got.dtype != want.dtype:
        return f"its type is {_dtype(got)}, expected {_dtype(want)}"
    one, other = _as_array(got), _as_array(want)
    if other.dtype.kind in "fc":
        wrong = ~numpy.isclose(one, other, rtol=0, atol=tolerance, equal_nan=True)
    else:
        wrong = one != other
    if not wrong.any():
        return None
    index = tuple(numpy.argwhere(wrong)[0].tolist())
    return (
        f"{wrong.sum()} of {wrong.size} numbers differ, the first at {list(index)}: "
        f"got {one[index].item()}, expected {other[index].item()}"
    )


def _as_array(value):
    if not is_tensor(value):
        return value
    value = value.detach().cpu()
    return (value.double() if value.is_floating_point() else value).numpy()  # NumPy has no bfloat16


def expect_equal(got, want, inputs, message="", mistakes=()):
    """Raise Mistake unless `got` is `want`.

    `inputs` is the tuple of arguments that the learner's function was given, or a text that describes them.
    `mistakes` are pairs of a known wrong answer, or of a function of `got` that recognises one, and the
    sentence that names the mistake; the first match is shown, with the values. A known answer of None
    stands for "no such mistake on these inputs". `message` is shown where no known mistake matches.
    """
    expect_close(got, want, inputs, message, mistakes, tolerance=0.0)


def expect_close(got, want, inputs, message="", mistakes=(), tolerance=1e-5):
    """`expect_equal` for numbers that may differ by `tolerance` (absolute)."""
    text = difference(got, want, tolerance)
    if text is None:
        return
    message = next((sentence for known, sentence in mistakes if _matches(known, got, tolerance)), message)
    found = f"{described(inputs)} your result is {code(show(got))}"
    text = f"expected {code(show(want))}" if show(got) != show(want) and _brief(want) else text
    raise Mistake(f"{message} {found}; {text}.".lstrip())


def _matches(known, got, tolerance):
    if not callable(known):
        return known is not None and same(got, known, tolerance)
    try:
        return bool(known(got))
    except Exception:  # written for one kind of wrong answer, it meets all of them
        return False


def _brief(value):
    return "..." not in show(value) and not (
        (is_tensor(value) or is_array(value)) and " of shape " in show(value)
    )


def described(inputs):
    """How a sentence about these inputs begins: For input `'a'`, `2`."""
    if isinstance(inputs, str):
        return f"For {inputs}"
    return f"For input {', '.join(code(show(value)) for value in inputs)}" if inputs else "Without input"
