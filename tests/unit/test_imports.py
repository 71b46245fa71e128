"""Imports run in one direction: from what a learner meets down to what everything rests on."""

import ast
from pathlib import Path

import pytest

HOUSE = Path(__file__).resolve().parents[2] / "course_utils"

# From the top down. A module may import from its own room and from rooms below it.
FLOORS = (
    ("__main__",),
    ("doctor",),
    ("lessons",),
    ("widgets",),
    ("library",),
    ("decoding",),
    # The subjects.
    ("training", "gradient_chain", "plots", "rounding"),
    ("gradients", "scores", "sampling", "divergence", "cache_size"),
    ("objectives",),
    ("advantages", "relaxations", "continuation"),
    ("masks", "tokens", "texts", "chats"),
    ("checks",),
    ("portable",),
    ("models",),
    ("inputs",),
    ("releases",),
    ("errors", "lazy"),
)
FLOOR = {room: len(FLOORS) - number for number, rooms in enumerate(FLOORS) for room in rooms}


def rooms():
    return sorted(
        path.stem for path in HOUSE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    )


def imports(path):
    """The rooms that a module imports from: set of str; "" for the package itself."""
    package = ["course_utils", *path.relative_to(HOUSE).parts[:-1]]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names = node.module.split(".") if node.module else []
            if node.level:
                names = package[: len(package) - node.level + 1] + names
            if names[:1] == ["course_utils"]:
                found |= {names[1]} if len(names) > 1 else {room_of(alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {
                alias.name.split(".")[1] for alias in node.names if alias.name.startswith("course_utils.")
            }
    return found - {""}


def room_of(name):
    """The room of a name that `course_utils` itself gives."""
    import course_utils

    if name in FLOOR:
        return name
    return course_utils._HOME.get(name, "").split(".")[0]


def problem(path, imported):
    """What is wrong with an import: str, "" if nothing."""
    room = path.relative_to(HOUSE).parts[0].removesuffix(".py")
    if {room, imported} == {"lessons", "widgets"}:
        return f"{room} must not import {imported}"
    if room != imported and FLOOR[imported] >= FLOOR[room]:
        return f"{room} must not import {imported}: it stands beside it or above"
    return ""


def test_every_room_has_a_floor():
    assert sorted(FLOOR) == sorted(set(rooms()) - {"__init__"})


def test_imports_run_downwards():
    wrong = []
    for path in HOUSE.rglob("*.py"):
        if path.parent == HOUSE and path.name == "__init__.py":
            continue  # names the public ones lazily
        wrong += [
            f"{path.relative_to(HOUSE)}: {said}" for room in imports(path) if (said := problem(path, room))
        ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("checks/quiz.py", "lessons"),
        ("checks/quiz.py", "widgets"),
        ("lessons/lesson01.py", "widgets"),
        ("widgets/question/__init__.py", "lessons"),
        ("models/hub.py", "checks"),
        ("masks.py", "decoding"),
        ("gradients.py", "training"),
    ],
)
def test_an_import_that_is_turned_round_is_found(module, imported):
    assert problem(HOUSE / module, imported)
