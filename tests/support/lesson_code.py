"""What a lesson defines in its cells, taken from its source, to hold it to course_utils and transformers."""

import ast
import functools
from pathlib import Path

from lesson_source import read_source

SOURCES = Path(__file__).resolve().parents[2] / "notebooks" / "source"


def definitions(lesson, /, *names, **known):
    """The functions `names` that lesson "02" defines, the solutions and not the stubs, as a tuple.

    Nothing else of the lesson is run: what the functions use is passed in `known`. The last definition of a
    name counts. KeyError if the lesson has none.
    """
    functions = parsed(lesson)
    module = ast.Module([functions[name] for name in names], [])
    scope = dict(known)
    exec(compile(module, f"lesson {lesson}", "exec"), scope)
    return tuple(scope[name] for name in names)


@functools.cache
def parsed(lesson):
    """The functions of a lesson: dict from name to ast.FunctionDef."""
    (path,) = SOURCES.glob(f"{lesson}_*.py")
    return {
        node.name: node
        for cell in read_source(path)
        if cell.cell_type == "code" and "exercise" not in cell.metadata.get("tags", [])
        for node in ast.parse(cell.source).body
        if isinstance(node, ast.FunctionDef)
    }
