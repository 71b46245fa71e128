"""Titles, minutes and difficulty are typed where a reader meets them; these tests hold the places together."""

import ast
import importlib
import pkgutil
import re
from pathlib import Path

import pytest
from lesson_source import read_source

import course_utils.lessons
from course_utils.checks import progress

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "notebooks" / "source"
LESSONS = {lesson.number: lesson for lesson in progress.lessons()}
HEADING = re.compile(r"^### Exercise(?: (\d))?: (.+) · difficulty (\d) of 3 · (\d+) minutes$", re.MULTILINE)
# "45 minutes, and another 30 for the exercises."
HEADER = re.compile(
    r"^\*(\d+) minutes(?:, and (?:another )?(\d+) (?:more )?for the exercises)?", re.MULTILINE
)
ROW = re.compile(r"^\| (\d\d) \| \[?([^|\]]*[^|\] ])\]?[^|]*\| (\d+)(?:, exercises (\d+))? \|$", re.MULTILINE)


def cells(number):
    (path,) = SOURCES.glob(f"{number}_*.py")
    return read_source(path)


def headings_and_checks(number):
    """Each exercise's heading in a lesson's source with the Exercise whose check comes next."""
    module = importlib.import_module(f"course_utils.lessons.lesson{number}")
    heading = None
    for cell in cells(number):
        if cell.cell_type == "markdown" and (match := HEADING.search(cell.source)):
            assert heading is None, f"{heading[2]!r} has no check"
            heading = match
        elif "check" in cell.metadata.get("tags", []):
            call = ast.parse(cell.source).body[-1].value
            yield heading, getattr(module, call.func.attr)
            heading = None


@pytest.mark.parametrize("number", LESSONS)
def test_an_exercises_heading_says_what_its_object_says(number):
    pairs = list(headings_and_checks(number))
    assert [item.id for _, item in pairs] == LESSONS[number].ids["exercise"]
    for index, (heading, item) in enumerate(pairs, 1):
        place, title, difficulty, minutes = heading.groups()
        assert (title, int(difficulty), int(minutes)) == (item.title, item.difficulty, item.minutes)
        assert int(place or 1) == index


def test_the_table_of_lessons_lists_what_their_modules_define():
    names = (module.name for module in pkgutil.iter_modules(course_utils.lessons.__path__))
    assert [f"lesson{number}" for number in LESSONS] == sorted(n for n in names if n.startswith("lesson"))
    for number, lesson in LESSONS.items():
        items = progress.items_of(importlib.import_module(f"course_utils.lessons.lesson{number}"))
        for kind, ids in lesson.ids.items():
            assert sorted(ids) == sorted(item.id for item in items if item.kind == kind)


@pytest.mark.parametrize("number", LESSONS)
def test_title_and_minutes_are_the_same_in_lesson_map_and_readme(number):
    header = cells(number)[0].source
    title = re.match(r"# (.+)", header)[1]
    said = (title, *HEADER.search(header).groups())
    assert title == LESSONS[number].title
    for path in (SOURCES / "00_start_here.py", ROOT / "README.md"):
        text = re.sub(r"^# ?", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        rows = {row[0]: row[1:] for row in ROW.findall(text)}
        assert rows[number] == tuple(value or "" for value in said), path.name


@pytest.mark.parametrize("number", LESSONS)
def test_the_exercises_minutes_add_up(number):
    total = sum(item.minutes for _, item in headings_and_checks(number))
    said = HEADER.search(cells(number)[0].source)[2]
    assert abs(total - int(said or 2)) <= 5, f"{total} minutes of exercises, {said} said"
