"""The builder: two builds give the same bytes, only what changed is built, and nothing unfit is stored."""

import re
import sys
import tempfile
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_output

import build_notebooks
import notebook_run
from course_utils.releases import cache_name

LESSON = """# %% [markdown]
# # Why?

# %%
import os
for n in range(3):
    print({"a", "set", "of", "words"}, flush=True)
settings = [os.environ[name] for name in ("COURSE_STRICT", "COURSE_DEVICE", "OMP_NUM_THREADS")]
settings, os.path.exists(os.environ["COURSE_PROGRESS"])

# %%
from IPython.display import display
view = {"model_id": os.urandom(16).hex(), "version_major": 2, "version_minor": 0}
bundle = {"text/plain": "w", "text/html": "<i>w</i>", "application/vnd.jupyter.widget-view+json": view}
display(bundle, raw=True)

# %%
print("a", flush=True)
print("b", flush=True)
display(1)
print("c")

# %% tags=["raises-exception"]
import json
json.loads("")

# %% tags=["exercise"]
answer = None

# %% tags=["solution"]
answer = 42

# %% tags=["check"]
answer
"""
LEARNERS, SOLVED = Path("notebooks/01_why.ipynb"), Path("notebooks/solutions/01_why.ipynb")


def make_course(root):
    """A course of one lesson."""
    for path, text in {
        "notebooks/source/01_why.py": LESSON,
        "notebooks/solutions/.gitkeep": "",
        "course_utils/tokens.py": "",
        "course_utils/widgets/view.js": "",
        "requirements.txt": "",
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    return root


@pytest.fixture
def course(tmp_path):
    return make_course(tmp_path)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A built course that no test changes."""
    root = make_course(tmp_path_factory.mktemp("course"))
    assert build_notebooks.main([], root) == 0
    return root


@pytest.fixture
def copy(built, course):
    """A built course that a test may change; without the record of its builds."""
    for path in (LEARNERS, SOLVED):
        (course / path).write_bytes((built / path).read_bytes())
    return course


@pytest.fixture
def builds(monkeypatch):
    """The names of the lessons that would be built."""
    names = []
    monkeypatch.setattr(build_notebooks, "build_lesson", lambda root, source: names.append(source.stem))
    monkeypatch.setattr(notebook_run, "prepare_machine", lambda: None)
    return names


def outputs(path):
    return [cell.outputs for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_two_builds_give_the_same_bytes(built):
    first = [(built / path).read_bytes() for path in (LEARNERS, SOLVED)]
    assert build_notebooks.main(["--force"], built) == 0
    assert [(built / path).read_bytes() for path in (LEARNERS, SOLVED)] == first


def test_a_notebook_is_stored_line_by_line_and_without_indentation(built):
    for path in (LEARNERS, SOLVED):
        text = (built / path).read_text(encoding="utf-8")
        assert '"import os\\n",' in text.splitlines()
        assert not any(line.startswith(" ") for line in text.splitlines())
        assert "    print({" in nbformat.reads(text, as_version=nbformat.NO_CONVERT).cells[1].source


def test_a_build_is_strict_where_solved_and_knows_nothing_of_the_maintainer(built):
    assert outputs(built / LEARNERS)[0][-1].data["text/plain"] == "(['0', 'cpu', '1'], False)"
    assert outputs(built / SOLVED)[0][-1].data["text/plain"] == "(['1', 'cpu', '1'], False)"


def test_links_lead_to_the_solved_copy_where_there_is_one(course):
    sources = course / "notebooks/source"
    (sources / "appendix.py").write_text("# %% [markdown]\n# # Where?\n", encoding="utf-8")
    text = "[next](01_why.ipynb), [map](appendix.ipynb), [none](02_gone.ipynb)"
    (sources / "00_links.py").write_text(
        f"# %% [markdown]\n# # {text}\n"
        '# %% tags=["exercise"]\nx = ...\n'
        '# %% tags=["solution"]\nx = 1\n'
        '# %% tags=["check"]\nassert x\n',
        encoding="utf-8",
    )
    learners, solved = build_notebooks.targets(course, sources / "00_links.py").values()
    assert learners.cells[0].source == f"# {text}"
    assert solved.cells[0].source == f"# {text.replace('(appendix', '(../appendix')}"


def test_a_source_without_exercises_has_no_solved_notebook(course, capsys):
    appendix = "# %% [markdown]\n# # Where?\n\n# %%\n1 + 1\n"
    (course / "notebooks/source/appendix.py").write_text(appendix, encoding="utf-8")
    assert build_notebooks.main(["appendix"], course) == 0
    assert outputs(course / "notebooks/appendix.ipynb")[0][0].data["text/plain"] == "2"
    assert not (course / "notebooks/solutions/appendix.ipynb").exists()
    assert build_notebooks.main(["--check", "appendix"], course) == 0
    (course / "notebooks/solutions/appendix.ipynb").write_text("{}", encoding="utf-8")
    build_notebooks.main(["--check"], course)
    assert "solutions/appendix.ipynb has no source" in capsys.readouterr().err.replace("\\", "/")


def test_a_rebuild_leaves_a_notebook_of_which_only_measurements_differ(course):
    source = course / "notebooks/source/02_time.py"
    measured = '# %% tags=["nbval-ignore-output"]\nimport time\ntime.perf_counter_ns()\n\n# %%\n1 + 1\n'
    source.write_text(f"# %% [markdown]\n# # When?\n\n{measured}", encoding="utf-8")
    notebook = course / "notebooks/02_time.ipynb"
    stored = []
    for text in ("", "", "\n# %%\n2 + 2\n"):
        source.write_text(source.read_text(encoding="utf-8") + text, encoding="utf-8")
        assert build_notebooks.main(["02", "--force"], course) == 0
        stored.append(notebook.read_text(encoding="utf-8"))
    assert stored[0] == stored[1] != stored[2]
    assert outputs(notebook)[0] != nbformat.reads(stored[0], as_version=4).cells[1].outputs


def test_a_measurement_in_a_widget_is_renewed_with_the_widgets_module(tmp_path):
    def measured(seconds, digest):
        page = f'<i>{seconds}</i><script type="module" data-course-module="course-{digest}"></script>'
        output = new_output("display_data", {"text/html": page})
        cell = new_code_cell("w", id="a", outputs=[output], metadata={"tags": ["nbval-ignore-output"]})
        return nbformat.v4.new_notebook(cells=[cell])

    path = tmp_path / "a.ipynb"
    path.write_text(build_notebooks.as_stored(measured(1, "aa")), encoding="utf-8")
    assert build_notebooks.only_measured_anew(path, measured(2, "aa"))
    assert not build_notebooks.only_measured_anew(path, measured(1, "bb"))


def test_a_widget_is_frozen_to_what_a_reader_without_a_kernel_sees(built):
    assert outputs(built / LEARNERS)[1][0].data == {"text/plain": "w", "text/html": "<i>w</i>"}


def test_printed_text_is_whole_and_stays_where_it_was_printed(built):
    shown = [output.get("text") or output.data["text/plain"] for output in outputs(built / LEARNERS)[2]]
    assert shown == ["a\nb\n", "1", "c\n"]


def test_a_traceback_names_files_without_their_folders(built):
    traceback = re.sub(r"\x1b\[[\d;]*m", "", "\n".join(outputs(built / LEARNERS)[3][0].traceback))
    assert "\nFile json/decoder.py:" in traceback.replace("\\", "/")


def test_what_has_not_changed_is_not_built(course, builds, capsys):
    build_notebooks.main([], course)
    build_notebooks.main([], course)
    assert builds == ["01_why"]
    assert "0 built, 1 unchanged, 0 failed" in capsys.readouterr().out


@pytest.mark.parametrize(
    "changed",
    [
        "notebooks/source/01_why.py",
        "notebooks/01_why.ipynb",
        "notebooks/solutions/01_why.ipynb",
        "course_utils/tokens.py",
        "course_utils/widgets/view.js",
        "requirements.txt",
    ],
)
def test_what_has_changed_is_built(changed, copy, builds):
    build_notebooks.main([], copy)
    with (copy / changed).open("a") as file:
        file.write("\n")
    build_notebooks.main([], copy)
    assert builds == ["01_why", "01_why"]


def test_force_and_names(course, builds, capsys):
    (course / "notebooks/source/02_how.py").write_text(LESSON)
    build_notebooks.main(["02"], course)
    build_notebooks.main(["--force", "02_how"], course)
    assert builds == ["02_how", "02_how"]
    assert build_notebooks.main(["03"], course) == 1
    assert "no lesson '03'; there are ['01_why', '02_how']" in capsys.readouterr().err


def test_a_lesson_that_does_not_run_changes_no_file(copy, capsys):
    source = copy / "notebooks/source/01_why.py"
    source.write_text(LESSON.replace("answer = 42", "answer = 4 / 0"))
    before = (copy / LEARNERS).read_bytes()
    assert build_notebooks.main([], copy) == 1
    assert (copy / LEARNERS).read_bytes() == before
    assert "01_why.py: not built" in (error := capsys.readouterr().err)
    assert "ZeroDivisionError" in error
    assert "answer = 4 / 0" in error
    assert build_notebooks.main([], copy) == 1  # there is no record of a build


# In a library's module, where Python would hide it; and the real one.
HIDDEN = """import types
library = types.ModuleType("library")
exec("import warnings\\ndef old(): warnings.warn('no more', DeprecationWarning)", vars(library))
library.old()
"""
OLD_CACHE = """import torch
from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel
model = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=9))
model(torch.ones(1, 2, dtype=torch.long), past_key_values=DynamicCache());
"""


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        (HIDDEN, "DeprecationWarning: no more"),
        (OLD_CACHE, "FutureWarning: `past_key_values`" if cache_name() == "cache" else ""),
    ],
    ids=["hidden by Python", "the cache by its old name"],
)
def test_a_lesson_that_uses_something_deprecated_is_not_built(cell, said, course, capsys):
    (course / "notebooks/source/02_old.py").write_text(f"# %% [markdown]\n# # Old?\n\n# %%\n{cell}")
    assert build_notebooks.main(["02"], course) == bool(said)
    assert said in capsys.readouterr().err
    assert (course / "notebooks/02_old.ipynb").exists() == (not said)


def test_check_is_silent_on_what_was_built(copy, capsys):
    assert build_notebooks.main(["--check"], copy) == 0
    assert not capsys.readouterr().err


def edit_source(course):
    path = course / "notebooks/source/01_why.py"
    path.write_text(path.read_text().replace("answer = 42", "answer = 43"))


def edit_notebook(change):
    def edit(course):
        notebook = nbformat.read(course / LEARNERS, as_version=4)
        change(notebook)
        nbformat.write(notebook, course / LEARNERS)

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (edit_source, "+answer = 43"),
        (edit_notebook(lambda nb: nb.cells[1].update(source="import sys")), "-import sys"),
        (edit_notebook(lambda nb: nb.cells[1].update(id="abc")), "---- code abc"),
        (edit_notebook(lambda nb: nb.cells[1].metadata.update(tags=["check"])), '{"tags": ["check"]}'),
        (edit_notebook(lambda nb: nb.cells.pop(0)), "+# Why?"),
        (edit_notebook(lambda nb: nb.metadata.update(widgets={})), '"widgets": {}'),
        (
            lambda course: (course / SOLVED).unlink(),
            f"{SOLVED} is missing. Type: python tools/build_notebooks.py",
        ),
        (lambda course: (course / "notebooks/9.ipynb").write_text("{}"), "9.ipynb has no source"),
        (lambda course: (course / "notebooks/solutions/9.ipynb").write_text("{}"), "9.ipynb has no source"),
    ],
)
def test_check_names_a_difference(edit, message, copy, capsys):
    edit(copy)
    assert build_notebooks.main(["--check"], copy) == 1
    assert message in capsys.readouterr().err.replace("\\", "/")


def test_a_cold_reader_gets_outputs_and_no_solution(copy, tmp_path):
    assert build_notebooks.main(["--reader", str(tmp_path / "read")], copy) == 0
    text = (tmp_path / "read/01_why.ipynb").read_text(encoding="utf-8")
    assert "decoder.py" in text
    assert "Solution" not in text
    assert "Solution" in (copy / LEARNERS).read_text(encoding="utf-8")


COURSE, HOME, SCRATCH, PREFIX = Path("/srv/course"), Path("/h/ada"), Path("/scratch"), Path("/python")


def stream(text, name="stdout"):
    return new_output("stream", name=name, text=text)


def result(text, kind="text/plain"):
    return new_output("execute_result", data={kind: text})


def error(value):
    return new_output("error", ename="ValueError", evalue=value, traceback=[value])


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        (stream("no", "stderr"), "text on stderr"),
        (stream("x.py:3: UserWarning: no"), "a warning"),
        (stream("a\nWARNING no"), "a warning"),
        (result(f"in {COURSE / 'x'}"), "a path"),
        (result(f"in {HOME / 'x'}"), "a path"),
        (result(f"in {SCRATCH / 'x'}", "text/html"), "a path"),
        (stream(f"{PREFIX / 'lib'}"), "a path"),
        (stream("/home/ada/x"), "a path"),
        (stream("\x1b[32m~/x.py\x1b[39m"), "a path"),
        (stream("('/Users/ada/x')"), "a path"),
        (stream("C:\\Users\\x"), "a path"),
        (result({}, notebook_run.WIDGET_VIEW), "a widget without text/html"),
        (error("no"), "an undeclared ValueError"),
        (stream("see example.org/home/index.html, ~ 3/4, a/b, 1/work/2"), ""),
        (stream("Warnings are shown"), ""),
    ],
)
def test_an_output_that_is_unfit_to_be_stored_is_named(output, problem, monkeypatch):
    monkeypatch.setattr(notebook_run, "ROOT", COURSE)
    monkeypatch.setattr(Path, "home", lambda: HOME)
    monkeypatch.setattr(tempfile, "tempdir", str(SCRATCH))
    monkeypatch.setattr(sys, "prefix", str(PREFIX))
    found = notebook_run.output_problem(new_code_cell("1", outputs=[output]))
    assert found.startswith(problem)
    assert bool(found) == bool(problem)


def test_a_declared_error_must_come_and_may_hold_no_path():
    declared = {"tags": ["raises-exception"]}
    assert notebook_run.output_problem(new_code_cell("1", metadata=declared)).startswith("no error")
    assert not notebook_run.output_problem(new_code_cell("1", metadata=declared, outputs=[error("no")]))
    in_home = error("no /home/ada/x")
    assert notebook_run.output_problem(new_code_cell("1", metadata=declared, outputs=[in_home]))
