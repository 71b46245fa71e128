"""Failures by cause: the last frame of the course's own code and the exception, not the test."""

import re
from collections import Counter
from dataclasses import dataclass, field

from .report import code, count, folded


@dataclass(frozen=True)
class Failure:
    """One test or cell that fails.

    where: the test's id. type, message: of the exception. frame: "course_utils/masks.py:62", or for a cell
    its notebook and line. line: the code there. follows: whether an earlier cell of its notebook is why
    """

    where: str
    type: str
    message: str
    frame: str
    line: str = ""
    follows: bool = False


@dataclass
class Cause:
    """Failures that have one reason; those that only follow from another are apart."""

    failures: list = field(default_factory=list)

    @property
    def first(self) -> Failure:
        return next((failure for failure in self.failures if not failure.follows), self.failures[0])

    @property
    def consequences(self) -> list:
        return [failure for failure in self.failures if failure.follows]

    def __str__(self):
        first, following = self.first, self.consequences
        direct = [failure for failure in self.failures if failure not in following]
        message = (first.message.strip().splitlines() or [""])[0][:300]
        said = f"{first.type}: {message}" if message else first.type
        frames = dict.fromkeys((failure.frame, failure.line) for failure in direct)
        lines = [f"### {count(len(direct), 'failure')}: {code(said)}", ""]
        lines += [
            f"at {code(frame)}{f': {code(line)}' if line else ''}" + "  " for frame, line in [*frames][:8]
        ]
        if len(frames) > 8:
            lines.append(f"and {len(frames) - 8} more places")
        tests = Counter(failure.where.partition("[")[0] for failure in direct)  # with any parameters
        names = [f"- {code(test)}" + f" ({number} times)" * (number > 1) for test, number in tests.items()]
        lines += (
            ["", *names]
            if len(names) <= 3
            else ["", folded(count(len(names), "test or cell", "tests and cells"), names)]
        )
        if following:
            title = f"{count(len(following), 'consequence')}, gone once this is mended"
            entries = [f"- {code(failure.where)}: {code(failure.type)}" for failure in following]
            lines += ["", folded(title, entries)]
        return "\n".join(lines)


def of_test(record: dict) -> Failure:
    """A failure from what the recorder wrote of a test."""
    frames = [frame for frame in record["frames"] if frame[0] and not frame[0].startswith("tools/release/")]
    if record["type"] == "AssertionError":
        # The test says what was asserted; a helper of many tests would make one cause of them all.
        frames = [frame for frame in frames if re.search(r"(^|/)test_\w+\.py$", frame[0])] or frames
    path, line, _, text = frames[-1] if frames else (record["test"], 0, "", "")
    frame = f"{path}:{line}" if line else path
    return Failure(record["test"], record["type"], record["message"], frame, text)


def group(failures: list[Failure]) -> list[Cause]:
    """The failures by cause, the largest first.

    Two have one cause if the same exception comes from the same frame, or, but for assertions, if type and
    message are the same but for numbers.
    """
    causes: list[Cause] = []
    by_key: dict[tuple, Cause] = {}
    for failure in failures:
        keys = _keys(failure)
        found = list({id(by_key[key]): by_key[key] for key in keys if key in by_key}.values())
        cause = found[0] if found else Cause()
        if not found:
            causes.append(cause)
        for other in found[1:]:  # this failure is the link between them
            cause.failures += other.failures
            causes.remove(other)
            by_key |= {key: cause for key, value in by_key.items() if value is other}
        cause.failures.append(failure)
        by_key |= dict.fromkeys(keys, cause)
    return sorted(causes, key=lambda cause: -len(cause.failures))


def _keys(failure):
    keys = [(failure.type, failure.frame)]
    message = re.sub(r"0x[0-9a-f]+|\d+", "N", failure.message.strip())
    if failure.type != "AssertionError" and message:
        keys.append((failure.type, "message", message))
    return keys
