"""Stages: the tests and the notebooks, and under the pinned release once more what failed."""

import json
import re
from collections import Counter
from pathlib import Path

from . import DoesNotRun, cells
from .causes import group, of_test
from .report import Section, code, count, some
from .workplace import last_words

STALL = 15 * 60  # seconds in which no test ends
CONTROLS = 40  # tests at most that are run again under the pinned release
SELECTED = ("tests", "notebooks")
DEPRECATIONS = ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning")
# They ask whether a deprecation is an error, which it is not here.
ASK_FOR_ERRORS = (
    "tests/unit/test_deprecations.py",
    "tests/notebooks/test_build_notebooks.py::test_a_lesson_that_uses_something_deprecated_is_not_built",
)


def arguments_for(folder: str, given: list[str]) -> list[str] | None:
    """What pytest is given for one of SELECTED; None where the given paths have none of it.

    given: what the user wrote after "--". Options are for both, paths for the one that they are in.
    """
    paths = [item for item in given if item.partition("/")[0] in SELECTED]
    options = [item for item in given if item not in paths]
    mine = [path for path in paths if path.partition("/")[0] == folder]
    if paths and not mine:
        return None
    return [*(mine or [folder]), *options]


class Records:
    """What the recorder has written so far, and how far the run has come."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.items: list[dict] = []
        self._read: dict[Path, int] = {}
        folder.mkdir(exist_ok=True)
        for file in folder.glob("*.jsonl"):
            file.unlink()

    def read(self) -> list[dict]:
        for file in self.folder.glob("*.jsonl"):
            with file.open("rb") as stream:
                stream.seek(self._read.get(file, 0))
                whole = stream.read().rpartition(b"\n")[0]
            if whole:
                self._read[file] = self._read.get(file, 0) + len(whole) + 1
                self.items += map(json.loads, whole.splitlines())
        return self.items

    def of(self, kind: str) -> list[dict]:
        return [item for item in self.items if item["kind"] == kind]

    def progress(self) -> str:
        self.read()
        ended = self.of("ended")
        total = max([item["total"] for item in self.of("collected")], default=0)
        failed = len({item["test"] for item in ended if item["outcome"] == "failed"})
        number = len({item["test"] for item in ended})  # a subtest ends under its test's name
        return f"{number:,} of {total:,}, {failed} failed" if total else ""


def run_pytest(place, what: str, arguments: list[str], *, pinned: bool = False) -> tuple[Records, str]:
    """Run pytest in the copy; its records, and a remark where it was stopped. Raises DoesNotRun."""
    records = Records(place.folder / "records")
    options = ["-q", "-p", "release.recorder", "--tb=no", "--color=no", "--continue-on-collection-errors"]
    # A message to report, and not an error that hides how the test would have ended.
    options += [f"-Wdefault::{name}" for name in DEPRECATIONS]
    options += [f"--deselect={test}" for test in ASK_FOR_ERRORS]
    done = place.run(
        [place.python, "-m", "pytest", *options, "--nbval-cell-timeout=600", *arguments],
        what,
        variables=place.variables(pinned=pinned) | {"RELEASE_RECORDS": str(records.folder)},
        watch=records.progress,
        stall=STALL,
    )
    records.read()
    if not records.items and done.status != 5:
        raise DoesNotRun(f"pytest does not run: {last_words(done.output)}")
    if done.status == -1:
        return records, f"Stopped, since no test ended in {STALL // 60} minutes."
    return records, ""


def tests(place, arguments: list[str]) -> Section:
    """The tests, without the notebooks."""
    records, remark = run_pytest(place, "tests", arguments)
    failures = [of_test(record) for record in records.of("failed")]
    causes = group(failures)
    messages = counted(records.of("message"))
    known, known_messages, controlled = control(place, causes, messages)
    new = [cause for cause in causes if cause.first.where not in known]
    old = [cause for cause in causes if cause.first.where in known]
    fresh = {key: value for key, value in messages.items() if key not in known_messages}
    total = len({record["test"] for record in records.of("ended")})
    parts = [remark, controlled, *map(str, new)]
    if old:
        parts += [f"### Fail under {place.pinned}, too, and so not for the release", *map(str, old)]
    parts.append(message_list(fresh))
    failed = len({failure.where for failure in failures})
    summary = f"{failed} of {count(total, 'test')} fail, for {count(len(causes), 'cause')}"
    summary += f", {len(old)} of them under {place.pinned}, too" if old else ""
    summary += f"; {count(len(fresh), 'new message')}."
    moved = bool(new or fresh or remark)
    return Section("Tests", summary, "\n\n".join(filter(None, parts)), moved)


def control(place, causes, messages) -> tuple[set, set, str]:
    """Run a test of each cause and message under the pinned release: (tests that fail there, too, messages
    that come there, too, a remark)."""
    chosen = [cause.first.where for cause in causes] + [test for test, _ in messages.values()]
    chosen = [test for test in dict.fromkeys(chosen) if "::" in test][:CONTROLS]
    if not chosen:
        return set(), set(), ""
    try:
        records, _ = run_pytest(place, f"the same tests under {place.pinned}", chosen, pinned=True)
    except DoesNotRun as error:
        return set(), set(), f"Not compared with {place.pinned}: {error}"
    ran = {record["test"] for record in records.of("ended")}
    if not ran:
        return set(), set(), f"Not compared with {place.pinned}: none of the tests ran."
    failed = {record["test"] for record in records.of("failed")}
    return failed, set(counted(records.of("message"))), ""


def notebooks(place, arguments: list[str], renames: dict[str, str]) -> Section:
    """Every notebook, with its cells that differ from what is stored."""
    records, remark = run_pytest(place, "cells", arguments)
    found = cells.sort(records.of("cell"), records.of("ran"), place, renames)
    failures = [of_test(record) for record in records.of("failed")]
    causes = group(failures + cells.failures(found))
    messages = counted(cells.messages(found))
    total = len({record["test"] for record in records.of("ended")})
    following = sum(len(cause.consequences) for cause in causes)
    kinds = Counter(cell.kind for cell in found)
    said = ", ".join(f"{kinds[kind]} {kind}" for kind in cells.KINDS if kinds[kind])
    follow = f" ({following} of those that raise follow from an earlier one)" if following else ""
    summary = f"{len(found)} of {count(total, 'cell')} changed{f': {said}' if said else ''}{follow}; "
    summary += f"{count(len(messages), 'new message')}."
    parts = [remark, *map(str, causes), cells.listing(found), message_list(messages)]
    moved = bool(found or failures or remark)
    return Section("Cells", summary, "\n\n".join(filter(None, parts)), moved)


def counted(records) -> dict[tuple[str, str], tuple[str, int]]:
    """{(category, text with numbers masked): (a test that gives it, how often)}"""
    found: dict[tuple[str, str], tuple[str, int]] = {}
    for record in records:
        key = record["category"], re.sub(r"0x[0-9a-f]+|\d+", "N", " ".join(record["text"].split()))[:400]
        test, number = found.get(key, (record["test"], 0))
        found[key] = test, number + 1
    return found


def message_list(messages) -> str:
    """New messages, deprecations first."""
    if not messages:
        return ""

    def order(item):
        (category, text), _ = item
        deprecates = category in ("FutureWarning", "DeprecationWarning") or "deprecated" in text
        return not deprecates, category, text

    lines = [
        f"- {category}, {count(number, 'time')}: {code(text)} ({some([code(test)])})"
        for (category, text), (test, number) in sorted(messages.items(), key=order)
    ]
    return "\n".join(["### New messages", "", *lines])
