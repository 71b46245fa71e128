"""What a learner has done, kept in one small file on this machine and nowhere else.

    from course_utils.checks import progress

    progress.record("01/merge", done=True)            # "" or one sentence why it could not be kept
    progress.record("01/predict-space", done=True, right=False, guess="3")
    progress.read()["01/merge"]["attempts"]           # 1
    progress.reset("01")                              # forgets lesson 01; returns the backup's path
    print(progress.report())                          # what `python -m course_utils progress` prints
    progress.Progress()                               # the same as a table in a notebook

The file is `progress.json` in the user's data folder (`platformdirs`), or the file that the environment
variable COURSE_PROGRESS names:

    {"version": 1, "items": {"01/merge": {"done": true, "attempts": 2, "first": "...", "last": "..."}}}

`done` stays true once it is true. Writing is a temporary file and a rename, under a lock, so two kernels
at once lose nothing and a kill leaves the old file. A file that cannot be read is renamed, never deleted.
"""

import contextlib
import html
import importlib
import json
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import filelock
import platformdirs

from ..errors import CourseError

VERSION = 1
LOCK_SECONDS = 5
_LESSONS = "course_utils.lessons"
KINDS = ("exercise", "prediction", "quiz")


def valid_id(text: str) -> str:
    """Return `text` if it is the id of an exercise or a question, such as "01/merge"; ValueError if not."""
    if not re.fullmatch(r"\d\d/[a-z0-9]+(-[a-z0-9]+)*", text):
        raise ValueError(f"{text!r} is not an id: the lesson's two digits, a slash and a name, '01/merge'")
    return text


def progress_file() -> Path:
    """The path of the file, which need not exist."""
    named = os.environ.get("COURSE_PROGRESS")
    folder = platformdirs.user_data_dir("inside-generate", appauthor=False)
    return Path(named).expanduser() if named else Path(folder) / "progress.json"


class _Broken(Exception):
    """The file holds something other than progress."""


def _load(path):
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return {}
    try:
        content = json.loads(text)
        items, version = content["items"], content["version"]
        if not all(entry["done"] in (True, False) and entry["attempts"] > 0 for entry in items.values()):
            raise ValueError("an entry that no course has written")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _Broken from error
    if version != VERSION:
        raise CourseError(
            f"{path} is from another version of this course ({version}, this one reads {VERSION}). "
            "Nothing was changed; set COURSE_PROGRESS to another file to keep both."
        )
    return items


def _store(path, items):
    handle, temporary = tempfile.mkstemp(prefix=path.name, suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({"version": VERSION, "items": items}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _locked(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return filelock.FileLock(f"{path}.lock", timeout=LOCK_SECONDS)


def _beside(path, word):
    """A free name beside `path` for a copy that is kept: progress.broken-20260131-120000.json."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    names = (
        f"{path.stem}.{word}-{stamp}{more}{path.suffix}" for more in ["", *(f"-{n}" for n in range(1, 1000))]
    )
    return next(path.with_name(name) for name in names if not path.with_name(name).exists())


def record(item: str, done: bool, **details) -> str:
    """Keep that `item` was tried, and whether it is `done`; `details` are small JSON values, kept until then.

    Returns "" or, when nothing could be kept or an unreadable file was set aside, one sentence for the
    learner. Never raises for what the file or the disk does: a check must not fail because of it.
    """
    valid_id(item)
    path = progress_file()
    now = datetime.now(UTC).isoformat(timespec="seconds")
    note = ""
    try:
        with _locked(path):
            try:
                items = _load(path)
            except _Broken:
                kept = _beside(path, "broken")
                os.replace(path, kept)
                items = {}
                note = f"Your progress file could not be read: it is kept as {kept}, and a new one was begun."
            entry = items.setdefault(item, {"done": False, "attempts": 0, "first": now})
            if not entry["done"]:
                entry.update(details)
            entry.update(done=entry["done"] or done, attempts=entry["attempts"] + 1, last=now)
            _store(path, items)
    except filelock.Timeout:
        return f"Your progress was not saved: another program holds {path}.lock."
    except OSError as error:
        return f"Your progress was not saved: {path} cannot be written ({error.strerror or error})."
    except CourseError as error:
        return str(error)
    return note


def read() -> dict[str, dict]:
    """All entries by id. CourseError if the file cannot be read; an absent file is an empty dictionary."""
    path = progress_file()
    with contextlib.ExitStack() as stack:
        # On a read-only disk there is no lock to take, and nobody who writes.
        with contextlib.suppress(OSError, filelock.Timeout):
            stack.enter_context(_locked(path))
        try:
            return _load(path)
        except _Broken:
            raise CourseError(
                f"{path} cannot be read. It stays as it is; the next check renames it and begins a new one."
            ) from None
        except OSError as error:
            raise CourseError(f"{path} cannot be read ({error.strerror or error}).") from None


def reset(lesson: str | int | None = None) -> Path | None:
    """Forget one lesson ("01" or 1) or, without an argument, everything.

    Returns the path of the backup that holds the old state, or None if there was nothing to forget.
    CourseError if the file cannot be read or written.
    """
    path = progress_file()
    try:
        with _locked(path):
            if not path.exists():
                return None
            backup = _beside(path, "backup")
            shutil.copy2(path, backup)
            prefix = "" if lesson is None else f"{int(lesson):02d}/"
            try:
                items = _load(path) if prefix else {}
            except _Broken:
                raise CourseError(
                    f"{path} cannot be read: reset() without a lesson begins a new one."
                ) from None
            _store(path, {item: entry for item, entry in items.items() if not item.startswith(prefix)})
            return backup
    except (OSError, filelock.Timeout) as error:
        raise CourseError(f"{path} cannot be reset: {error}.") from error


@dataclass(frozen=True)
class Lesson:
    """What one lesson asks for: its number "01", its title, and its items' ids by kind."""

    number: str
    title: str
    ids: dict


def lessons() -> tuple[Lesson, ...]:
    """The lessons, in order: a tuple of Lesson. They are read from a table, so this is cheap."""
    return importlib.import_module(_LESSONS).LESSONS  # by name: what is checked stands above what checks


def items_of(module: ModuleType) -> list:
    """The exercises, predictions and questions that a lesson's module defines or lists, each once."""
    found = {}
    for value in vars(module).values():
        for item in value if isinstance(value, list | tuple) else [value]:
            if getattr(type(item), "kind", None) in KINDS:
                found[id(item)] = item
    return list(found.values())


class Progress:
    """The table of lesson 00: for each lesson how many exercises, predictions and questions are done."""

    headings = ("lesson", "exercises", "predictions", "quiz")

    def __init__(self) -> None:
        try:
            self.entries, self.note = read(), ""
        except CourseError as error:
            self.entries, self.note = {}, str(error)

    def rows(self) -> list[tuple[str, ...]]:
        """One row of four strings for each lesson."""
        return [
            (f"{lesson.number} {lesson.title}".strip(), *(self._count(lesson.ids[kind]) for kind in KINDS))
            for lesson in lessons()
        ]

    def _count(self, ids):
        done = sum(self.entries.get(item, {}).get("done", False) for item in ids)
        return f"{done} of {len(ids)}" if ids else "–"

    def __repr__(self):
        table = [self.headings, *self.rows()]
        widths = [max(len(row[column]) for row in table) for column in range(4)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in table
        ]
        return "\n".join([*lines, *([self.note] if self.note else [])])

    def _repr_html_(self):
        cells = [[html.escape(cell) for cell in row] for row in (self.headings, *self.rows())]
        head = "".join(f'<th scope="col" style="text-align:left">{cell}</th>' for cell in cells[0])
        body = "".join(
            "<tr>" + "".join(f'<td style="text-align:left">{cell}</td>' for cell in row) + "</tr>"
            for row in cells[1:]
        )
        note = f"<p>{html.escape(self.note)}</p>" if self.note else ""
        return f"<table><tr>{head}</tr>{body}</table>{note}"


def report() -> str:
    """The table as text, with the place of the file."""
    return f"{Progress()!r}\n\nKept on this machine only, in {progress_file()}"
