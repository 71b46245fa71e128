"""Failures by cause, changed cells by kind, and the pytest plugin that records them."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from fake_release import NEW, OLD, make_place, write
from release import cells, suite
from release.causes import Failure, group, of_test
from release.report import side_by_side

ROOT = Path(__file__).parents[3]


@pytest.fixture
def place(tmp_path):
    return make_place(tmp_path)


def failure(where, kind="ValueError", message="", frame="course_utils/a.py:1", follows=False):
    return Failure(where, kind, message, frame, follows=follows)


@pytest.mark.parametrize(
    ("failures", "sizes"),
    [
        # The same exception from the same frame, whatever it says
        ([failure("a", message="no cache of A"), failure("b", message="no cache of B")], [2]),
        # The same message from two places, but for numbers
        ([failure("a", message="line 3", frame="x:1"), failure("b", message="line 4", frame="y:2")], [2]),
        # Two assertions that read alike are two things
        (
            [
                failure("a", "AssertionError", "assert 1 == 2", "x:1"),
                failure("b", "AssertionError", "assert 1 == 2", "y:2"),
            ],
            [1, 1],
        ),
        ([failure("a", "KeyError", "'k'"), failure("b", "TypeError", "'k'")], [1, 1]),
        ([failure("a", frame="x:1"), failure("b", frame="y:2")], [1, 1]),  # no message says nothing
        # The third is of the frame of the first and says what the second says
        (
            [
                failure("a", message="one", frame="x:1"),
                failure("b", message="two", frame="y:2"),
                failure("c", message="two", frame="x:1"),
                failure("d", message="else", frame="z:3"),
            ],
            [3, 1],
        ),
    ],
)
def test_failures_have_one_cause_by_frame_or_by_message(failures, sizes):
    causes = group(failures)
    assert [len(cause.failures) for cause in causes] == sizes
    assert sorted(failure.where for cause in causes for failure in cause.failures) == [
        f.where for f in failures
    ]


@pytest.mark.parametrize(
    ("kind", "frame"),
    [("ValueError", "course_utils/masks.py:62"), ("AssertionError", "tests/unit/test_a.py:5")],
)
def test_the_frame_is_the_last_of_the_courses_own(kind, frame):
    frames = [
        ["tests/unit/test_a.py", 5, "test_a", "prove(x)"],
        ["course_utils/masks.py", 62, "mask", "f(y)"],
        ["tests/prove.py", 9, "prove", "assert z"],
        ["", 99, "generate", "raise ValueError"],
    ]
    if kind == "ValueError":
        frames.pop(2)
    assert of_test({"test": "t", "type": kind, "message": "", "frames": frames}).frame == frame


def test_a_test_that_fails_with_many_parameters_is_listed_once():
    (cause,) = group([failure(f"tests/test_a.py::test_a[{number}]", message="m") for number in range(9)])
    assert str(cause).startswith("### 9 failures")
    assert str(cause).endswith("\n- `tests/test_a.py::test_a` (9 times)")


def test_a_cause_shows_its_exception_its_places_and_its_consequences():
    (cause,) = group([failure("late", message="m", follows=True), failure("early", message="m")])
    text = str(cause)
    assert text.startswith("### 1 failure: `ValueError: m`")
    assert "at `course_utils/a.py:1`" in text
    assert (
        text.index("- `early`")
        < text.index("1 consequence, gone once this is mended")
        < text.index("- `late`")
    )


# Cells

HTML = (
    "<p>f · transformers {0} · a.py, lines {1} to 9</p>"
    '<pre style="x">{1:>6} ▶ f(past)\n       ⋮ {1} lines</pre>'
)
RENAMES = {"past": "cache"}


def out(text):
    return {"stdout": text}


@pytest.mark.parametrize(
    ("stored", "new", "message", "kind"),
    [
        ([out("a")], [out("a")], True, "message only"),
        ([out("a")], [out("b")], True, "other output"),
        ([out("a")], [out("b")], False, "other output"),
        ([out("a")], [out("a"), out("b")], False, "other output"),
        ([out("0.77")], [out("0.78")], False, "other output"),
        ([out("a")], [{"error": "KeyError", "message": "'k'", "traceback": ""}], False, "raise"),
        (
            [{"error": "KeyError", "message": "'k'", "traceback": "1"}],
            [{"error": "TypeError", "message": "'k'", "traceback": "1"}],
            False,
            "raise",
        ),
        (
            [{"error": "KeyError", "message": "'past'", "traceback": "1"}],
            [{"error": "KeyError", "message": "'cache'", "traceback": "2"}],
            False,
            "names only",
        ),
        ([out(f"transformers {OLD}")], [out(f"transformers {NEW}")], False, "lines or version only"),
        ([out("3 of 15.24.0")], [out("3 of 15.25.0")], False, "other output"),
        ([out("utils, line 894: f")], [out("utils, line 907: f")], True, "lines or version only"),
        ([out("a/utils.py:894")], [out("a/utils.py:7")], False, "lines or version only"),
        ([out("line 894: f")], [out("line 907: g")], False, "other output"),
        (
            [{"text/html": HTML.format(OLD, 894)}],
            [{"text/html": HTML.format(NEW, 3907)}],
            False,
            "lines or version only",
        ),
        ([out("['logits', 'past']")], [out("['logits', 'cache']")], False, "names only"),
        ([out("past   x")], [out("cache  x")], False, "names only"),
        ([out("past, line 3")], [out("cache, line 4")], True, "names only"),
        ([out("the pasta")], [out("the cachea")], False, "other output"),
    ],
)
def test_a_changed_cell_is_sorted_by_what_is_to_be_done(stored, new, message, kind):
    assert cells.kind_of(stored, new, message, (OLD, NEW), RENAMES) == kind


def record(executed, source, new, stored=(), notebook="notebooks/05_generate.ipynb"):
    return {
        "notebook": notebook, "test": f"{notebook}::Cell {executed - 1}", "number": executed - 1,
        "executed": executed, "source": source, "reason": "", "stored": list(stored), "new": list(new),
    }  # fmt: skip


def in_order(place, records):
    return cells.sort(records, records, place, {})


def error(kind, message, *frames):
    return {"error": kind, "message": message, "traceback": "\n".join(frames)}


def test_what_follows_from_a_cell_that_raises_stands_under_it(place):
    hook = error(
        "KeyError", "'past'", "Cell In[2], line 1", "File a/torch/module.py:3, in call", "Cell In[2], line 2"
    )
    again = error("KeyError", "'past'", "Cell In[5], line 1", "Cell In[2], line 2")
    changed = [
        record(2, "def hook(m):\n    m['past']\nseen = run(hook)", [hook]),
        record(3, "print(seen)", [error("NameError", "name 'seen' is not defined", "Cell In[3], line 1")]),
        record(4, "print(other)", [error("NameError", "name 'other' is not defined", "Cell In[4], line 1")]),
        record(5, "run_again()", [again]),
        record(6, "print(1)", [out("2")], [out("1")]),
        record(7, "seen", [error("NameError", "name 'seen' is not defined", "Cell In[7], line 1")]),
        record(1, "seen", [out("2")], [out("1")]),
        record(3, "run_again()", [hook], notebook="notebooks/solutions/05_generate.ipynb"),
    ]
    found = in_order(place, changed)
    causes = group(cells.failures(found))
    assert [(cause.first.where[-6:], len(cause.failures)) for cause in causes] == [
        ("Cell 1", 5),
        ("Cell 3", 1),
    ]
    assert [item.where[-6:] for item in causes[0].consequences] == ["Cell 2", "Cell 4", "Cell 6"]
    assert causes[0].first.frame == "05_generate: m['past']"
    later = {cell.number: cell.after_raise for cell in found if cell.name == "05_generate"}
    assert (later[0], later[5]) == (False, True)


def test_a_line_is_quoted_from_a_cell_that_did_not_change(place):
    defines = {"notebook": "notebooks/05_generate.ipynb", "executed": 1, "source": "def f():\n    a['k']"}
    raises = record(2, "f()", [error("KeyError", "'k'", "Cell In[2], line 1", "Cell In[1], line 2")])
    assert cells.sort([raises], [defines], place, {})[0].failure.frame == "05_generate: a['k']"


def test_a_failure_in_the_library_is_placed_there_and_a_checks_at_its_cell(place):
    where = ("Cell In[1], line 1", "File /tmp/x/course/course_utils/masks.py:62, in mask(x)")
    found = in_order(place, [record(1, "mask()", [error("KeyError", "'k'", *where)])])
    assert found[0].failure.frame == "course_utils/masks.py:62"
    found = in_order(place, [record(1, "lesson.check_a(a)", [error("AssertionError", "no", *where)])])
    assert found[0].failure.frame == "05_generate: lesson.check_a(a)"


def test_the_listing_shows_old_and_new_and_the_solved_copy_once(place):
    changed = [
        record(
            1,
            "# why\nprint(fields)",
            [out("logits\ncache")],
            [out("logits\npast")],
            f"notebooks/{folder}05_a.ipynb",
        )
        for folder in ("", "solutions/")
    ]
    text = cells.listing(cells.sort(changed, changed, place, RENAMES))
    assert text.count("print(fields)") == 1
    assert "Names only (2)" in text and "05_a, code cell 0, `print(fields)` (and solved)" in text
    assert "past   │ cache" in text


def test_two_texts_side_by_side_show_only_lines_that_differ():
    old = "\n".join(["same"] * 9 + ["first"] + ["same"] * 9 + ["x" * 120])
    shown = side_by_side(old, old.replace("first", "second").replace("x", "y"))
    assert "first" in shown and "│ second" in shown and "same" not in shown
    assert max(map(len, shown.splitlines())) <= 111
    assert shown.count("x") == shown.count("y") + 1 == 121  # one in "text", after the fence


def test_messages_on_stderr_become_records_with_their_category(place):
    stderr = (
        "/tmp/ipykernel_1/2.py:3: FutureWarning: `past` is deprecated.\n  model(past=1)\nUse cache, please.\n"
    )
    found = cells.messages(in_order(place, [record(1, "f()", [{"stderr": stderr}])]))
    assert [(item["category"], item["text"]) for item in found] == [
        ("FutureWarning", "`past` is deprecated."),
        ("log", "Use cache, please."),
    ]


def test_deprecations_come_first_among_new_messages():
    given = [("UserWarning", "a"), ("log", "z is deprecated"), ("FutureWarning", "n in step 3")]
    records = [{"category": kind, "text": text, "test": "t"} for kind, text in given]
    records.append({"category": "FutureWarning", "text": "n in step 4", "test": "u"})
    lines = suite.message_list(suite.counted(records)).splitlines()[2:]
    assert [line.split(",")[0] for line in lines] == ["- FutureWarning", "- log", "- UserWarning"]
    assert "2 times: `n in step N`" in lines[0]


@pytest.mark.parametrize(
    ("given", "tests", "notebooks"),
    [
        ([], ["tests"], ["notebooks"]),
        (["-x"], ["tests", "-x"], ["notebooks", "-x"]),
        (["tests/unit/test_a.py", "-x"], ["tests/unit/test_a.py", "-x"], None),
        (["tests/a.py", "notebooks/b.ipynb"], ["tests/a.py"], ["notebooks/b.ipynb"]),
    ],
)
def test_paths_after_the_dashes_go_to_their_stage(given, tests, notebooks):
    assert suite.arguments_for("tests", given) == tests
    assert suite.arguments_for("notebooks", given) == notebooks


def test_what_asks_for_errors_is_there_to_be_left_out():
    for name in suite.ASK_FOR_ERRORS:
        path, _, test = name.partition("::")
        text = (ROOT / path).read_text(encoding="utf-8")
        assert "is_an_error" in text if not test else f"def {test}(" in text


# The recorder, on a pytest of its own

FAILS = """
import logging, warnings

def helper():
    raise KeyError("past")

def test_fails():
    helper()

def test_warns():
    warnings.warn("old name", FutureWarning)
    logging.getLogger("transformers.x").warning("a log message")
"""
CELLS = {
    "print('same')": "same",
    "print('new')": "old",
    "import sys; print('told', file=sys.stderr); print('same')": "same",
    "1 / 0": "same",
}


def test_the_recorder_writes_down_failures_messages_and_changed_cells(tmp_path):
    write(tmp_path, {"test_a.py": FAILS, "test_b.py": "import nothing_of_this_name"})
    notebook = new_notebook(cells=[new_code_cell(source, execution_count=1) for source in CELLS])
    for cell, text in zip(notebook.cells, CELLS.values(), strict=True):
        cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=f"{text}\n")]
    nbformat.write(notebook, tmp_path / "c.ipynb")
    records = suite.Records(tmp_path / "records")
    command = ["-p", "release.recorder", "-p", "nbval_plugin", "--nbval", "--nbval-current-env"]
    command += ["--continue-on-collection-errors"]
    subprocess.run(
        [sys.executable, "-m", "pytest", *command, "-c", os.devnull, f"--rootdir={tmp_path}", str(tmp_path)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "RELEASE_RECORDS": str(records.folder),
            "PYTEST_ADDOPTS": "",
        },
        capture_output=True,
        timeout=900,
    )
    assert records.progress() == "6 of 6, 4 failed"
    failed = {item["test"]: of_test(item) for item in records.of("failed")}
    assert failed["test_a.py::test_fails"].frame == "test_a.py:5"
    assert failed["test_a.py::test_fails"].type == "KeyError"
    assert failed["test_b.py"].type == "ModuleNotFoundError"
    told = {(item["category"], item["text"], item["test"]) for item in records.of("message")}
    assert ("FutureWarning", "old name", "test_a.py::test_warns") in told
    assert ("log", "a log message", "test_a.py::test_warns") in told
    changed = {item["number"]: item for item in records.of("cell")}
    assert sorted(changed) == [1, 2, 3]
    assert (changed[1]["stored"], changed[1]["new"]) == ([out("old\n")], [out("new\n")])
    assert {"stderr": "told\n"} in changed[2]["new"]
    assert changed[3]["new"][-1]["error"] == "ZeroDivisionError"
    assert list(cells.own_frames(changed[3]["new"][-1]["traceback"])) == [("cell", "4", 1)]
