"""nbval, as plain `pytest` runs it here: its cured defects, and what must still fail."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

import nbval_plugin
import notebook_run

# What nbval by itself compares wrongly, a cell each; JupyterLab and nbclient agree on all of them.
DEFECTS = {
    "Out": "Out[1] + 1",
    "semicolon": "'kept from view';",
    "clear_output": "for n in range(3):\n    clear_output()\n    print(n)",
    "clear_output, wait": "for n in range(3):\n    clear_output(wait=True)\n    print(n)",
    "display update": "shown = display('first', display_id=True)\nshown.update('second')",
    "Output widget": """with Output():
    print('caught')
    with Output():
        display('caught twice')
    display('caught')""",
}
DEFECTS_SETUP = "from IPython.display import clear_output, display\nfrom ipywidgets import Output\n41"

WIDGET = """from IPython.display import HTML
HTML('''<div data-course-view="1a2b"><td>0.77</td></div>
<script type="module" data-course-module="m">
code
</script>
<script type="module">
show(0.7654321)
</script>''')"""
PICTURE = """from IPython.display import HTML
HTML('<img src="data:image/png;base64,iVBORw0=" alt="from 0.77 to 1.25">')"""
# A cell, a change of its stored outputs, and whether nbval must pass it all the same.
CHANGES = {
    "the last bit of a number in a widget's script": (WIDGET, "0.7654321", "0.7654322", True),
    "a module that an earlier cell holds": (
        WIDGET,
        '<script type="module" data-course-module="m">\ncode\n</script>\n',
        "",
        True,
    ),
    "the digest of that script": (WIDGET, "1a2b", "3c4d", True),
    "a digit in the widget's table": (WIDGET, "0.77", "0.78", False),
    "a script that is no widget's": (WIDGET, '<script type="module">', "<script>", False),
    "a pixel of a picture": (PICTURE, "iVBORw0=", "iVBORx1=", True),
    "a digit of a picture's alternative text": (PICTURE, "1.25", "1.26", False),
    "a printed digit": ("print(0.77)", "0.77", "0.78", False),
    "a digit of a result": ("0.77", "0.77", "0.78", False),
    "nothing": ("0.77", "", "", True),
    "nothing, but an error hides in an Output widget": (
        "from ipywidgets import Output\nwith Output():\n    1 / 0",
        "",
        "",
        False,
    ),
}
STRICT_AND_OWN_PROGRESS = [
    "import os\nos.environ['COURSE_STRICT'], os.path.exists(os.environ['COURSE_PROGRESS'])",
    "open(os.environ['COURSE_PROGRESS'], 'w').close()",
]


def run_and_store(path, sources, changes=None):
    """Write an executed notebook of the sources; `changes`, an (old, new) a cell, are made in its outputs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    notebook = new_notebook(cells=[new_code_cell(source) for source in sources])
    for cell in notebook.cells:
        if "with Output" in cell.source:
            # JupyterLab stores no output. Not run here: nbclient answers an Output widget on the socket on
            # which it waits for the cell, and then sometimes misses that the cell has ended.
            cell.update(execution_count=1, metadata={"tags": ["skip-execution"]})
    with tempfile.TemporaryDirectory() as private:
        strict = path.parent.name == "solutions"
        environment = notebook_run.clean_environment(Path(private), strict=strict)
        notebook_run.execute(notebook, path.parent, environment)
    for cell, (old, new) in zip(notebook.cells, changes or [], strict=bool(changes)):
        before = json.dumps(cell.outputs)
        assert json.dumps(old)[1:-1] in before
        cell.outputs = nbformat.from_dict(json.loads(before.replace(json.dumps(old)[1:-1], new)))
    nbformat.write(notebook, path)


def verdicts(folder, *options, **environment):
    """Run nbval on a folder: {notebook's name: [whether each cell passed]}."""
    report = folder / "report.xml"
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-p", "no:cacheprovider"]
    run = subprocess.run(
        [*command, f"--junitxml={report}", f"--rootdir={folder}", "-c", os.devnull, *options, str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTEST_ADDOPTS": "", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode in (0, 1), run.stdout + run.stderr
    passed = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = case.get("classname").removesuffix(".ipynb").rpartition(".")[2]
        passed.setdefault(name, []).append(not len(case))
    return passed


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebooks")
    run_and_store(folder / "defects" / "defects.ipynb", [DEFECTS_SETUP, *DEFECTS.values()])
    run_and_store(
        folder / "changes.ipynb",
        [source for source, _, _, _ in CHANGES.values()],
        [(old, new) for _, old, new, _ in CHANGES.values()],
    )
    run_and_store(folder / "open.ipynb", STRICT_AND_OWN_PROGRESS)
    run_and_store(folder / "solutions" / "solved.ipynb", STRICT_AND_OWN_PROGRESS)
    return folder


@pytest.fixture(scope="module")
def with_plugin(folder):
    return verdicts(folder, "-p", "nbval_plugin", COURSE_STRICT="1", COURSE_PROGRESS="elsewhere.json")


@pytest.fixture(scope="module")
def without_plugin(folder):
    return verdicts(folder / "defects")


@pytest.mark.parametrize("number", range(len(DEFECTS)), ids=list(DEFECTS))
def test_a_defect_of_nbval_is_cured(number, with_plugin, without_plugin):
    assert with_plugin["defects"][1 + number]
    again = "nbval does this by itself now: take the cure out of nbval_plugin.py"
    assert not without_plugin["defects"][1 + number], again


@pytest.mark.parametrize("number", range(len(CHANGES)), ids=list(CHANGES))
def test_only_scripts_of_widgets_and_pixels_are_left_out_of_the_comparison(number, with_plugin):
    passes = list(CHANGES.values())[number][-1]
    assert with_plugin["changes"][number] == passes


def test_a_solved_notebook_runs_strict_and_each_has_its_own_progress(with_plugin):
    assert with_plugin["open"] == with_plugin["solved"] == [True, True]


@pytest.mark.parametrize(("deaths", "tries"), [(0, 1), (2, 3), (3, 3)])
def test_a_kernel_that_dies_at_its_start_is_started_again(deaths, tries, monkeypatch):
    starts = []

    def setup(notebook):
        starts.append(notebook)
        if len(starts) <= deaths:
            raise RuntimeError("Kernel died before replying to kernel_info")

    monkeypatch.setattr(nbval_plugin.IPyNbFile, "setup", setup)
    notebook = object.__new__(nbval_plugin.CourseNotebook)
    with pytest.raises(RuntimeError) if deaths == 3 else contextlib.nullcontext():
        notebook.start_kernel()
    assert len(starts) == tries
