"""What importing the package does, and what it leaves for later."""

import ast
import importlib
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import course_utils
import course_utils.widgets


def run(code, **environment):

    kept = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    return subprocess.run(
        [sys.executable, "-c", code], env=kept | environment, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_importing_is_cheap_and_comes_before_torch():
    code = "import sys, os, course_utils; print('torch' in sys.modules, os.environ['GOMP_SPINCOUNT'])"
    assert run(code) == "False 1000"
    assert run(code, GOMP_SPINCOUNT="7") == "False 7"


@pytest.mark.parametrize("package", [course_utils, course_utils.widgets])
def test_every_public_name_is_found(package):
    for name in package.__all__:
        assert getattr(package, name).__name__ == name
        assert name in dir(package)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'course_utils' has no attribute 'generate'"):
        _ = course_utils.generate


ROOT = Path(course_utils.__file__).parent
LAZY = [
    path
    for path in sorted(ROOT.rglob("__init__.py"))
    if "lazy_names(globals()" in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("path", LAZY, ids=lambda path: path.parent.name)
def test_type_checkers_see_what_is_loaded_lazily(path):
    imported, assigned = {}, {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            imported |= {name.name: line.module for line in node.body for name in line.names}
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("_HOME", "__all__"):
            assigned[ast.unparse(node.targets[0])] = ast.literal_eval(node.value)
    assert imported == assigned["_HOME"]
    assert assigned["__all__"] == sorted(imported)


SUBJECTS = (
    "advantages", "cache_size", "checks.exercise", "checks.progress", "checks.quiz", "continuation",
    "divergence", "doctor", "gradient_chain", "gradients", "library.excerpt", "library.lookup",
    "library.messages.find", "library.messages.show", "masks", "models", "plots", "plots.figure",
    "plots.numbers", "plots.structure", "relaxations", "releases", "sampling", "scores", "texts",
    "tokens", "training",
)  # fmt: skip


def public_callables():
    """The functions and classes that learners and authors import, each once, by its full name: a dict."""
    found = {}
    for package in (course_utils, course_utils.widgets):
        for name in package.__all__:
            found[f"{package.__name__}.{name}"] = getattr(package, name)
    for subject in SUBJECTS:
        module = importlib.import_module(f"course_utils.{subject}")
        for name, thing in vars(module).items():
            at_home = getattr(thing, "__module__", "") == module.__name__
            if at_home and not name.startswith("_") and (inspect.isfunction(thing) or inspect.isclass(thing)):
                found[f"{module.__name__}.{name}"] = thing
    return found


@pytest.mark.parametrize(("name", "thing"), public_callables().items(), ids=public_callables())
def test_every_public_function_says_its_types(name, thing):
    if inspect.isclass(thing):
        thing = thing.__dict__.get("__init__")
        if not inspect.isfunction(thing):
            return  # inherited, or a tuple with fields
    signature = inspect.signature(thing)
    starred = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    bare = [
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.annotation is inspect.Parameter.empty
        and parameter.name not in ("self", "cls")
        and parameter.kind not in starred
    ]
    assert not bare, f"{name}: {bare} have no type"
    assert signature.return_annotation is not inspect.Signature.empty, f"{name} has no return type"
