"""nbval, as plain `pytest` runs it here: its cured defects, and what must still fail."""

import contextlib
import json
import os
import re
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
from course_utils.releases import cache_name

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
HTML('<img src="data:image/webp;base64,UklGRg==" alt="from 0.77 to 1.25">')"""
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
    "a pixel of a picture": (PICTURE, "UklGRg==", "UklGRx==", True),
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
# Deprecations, of which Python hides those that a library's module warns of, and whether a cell must fail.
DEPRECATIONS = {
    "set up": (
        "import sys, types, warnings\n"
        "library = types.ModuleType('library')\n"
        "exec('import warnings\\ndef old(kind): warnings.warn(\"no more\", kind)', vars(library))\n"
        "from transformers.utils import logging\n"
        "log = logging.get_logger('transformers.models')",
        False,
    ),
    "DeprecationWarning": ("library.old(DeprecationWarning)", True),
    "PendingDeprecationWarning": ("library.old(PendingDeprecationWarning)", True),
    "FutureWarning": ("library.old(FutureWarning)", True),
    "a warning of the cell's own": ("warnings.warn('no more', DeprecationWarning)", True),
    "transformers' log": ("log.warning_once('`past_key_values` is deprecated.')", True),
    "in an Output widget": (
        "from ipywidgets import Output\nwith Output():\n    library.old(DeprecationWarning)",
        True,
    ),
    "before an error": ("library.old(DeprecationWarning)\n1 / 0", True),
    "another warning": ("library.old(UserWarning)", False),
    "another word in the log": ("log.warning('`past_key_values` is appreciated.')", False),
    "the cache by its old name": (
        "import torch\n"
        "from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel\n"
        "model = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=9))\n"
        "model(torch.ones(1, 2, dtype=torch.long), past_key_values=DynamicCache());",
        cache_name() == "cache",
    ),
}


def store(path, sources, tags=()):
    """Write a notebook whose cells look as if they had been run, without outputs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"tags": list(tags)}
    cells = [new_code_cell(source, execution_count=1, metadata=metadata) for source in sources]
    nbformat.write(new_notebook(cells=cells), path)


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


def cases(folder, *options, **environment):
    """Run nbval on a folder: {notebook's name: [why each cell failed; None for one that passed]}."""
    report = folder / "report.xml"
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-p", "no:cacheprovider"]
    run = subprocess.run(
        [*command, f"--junitxml={report}", f"--rootdir={folder}", "-c", os.devnull, *options, str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTEST_ADDOPTS": "", **environment},
        capture_output=True,
        text=True,
    )
    assert run.returncode in (0, 1), run.stdout + run.stderr
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = case.get("classname").removesuffix(".ipynb").rpartition(".")[2]
        found.setdefault(name, []).append("".join(case.itertext()) if len(case) else None)
    return found


def verdicts(folder, *options, **environment):
    """The same, with whether each cell passed."""
    found = cases(folder, *options, **environment)
    return {name: [why is None for why in cells] for name, cells in found.items()}


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


@pytest.fixture(scope="module")
def failures(tmp_path_factory):
    """Why cells failed in notebooks with deprecations, in one whose kernel dies and in one beside it."""
    folder = tmp_path_factory.mktemp("failing")
    sources = [source for source, _ in DEPRECATIONS.values()]
    store(folder / "deprecations.ipynb", sources, tags=["nbval-ignore-output"])
    store(folder / "compared.ipynb", sources[:2])
    store(folder / "dies.ipynb", ["1;", "import os; os._exit(1)", "2;", "3;"])
    store(folder / "lives.ipynb", ["1;", "2;"])
    return cases(folder, "-p", "nbval_plugin", TRANSFORMERS_VERBOSITY="error", PYTHONWARNINGS="ignore")


@pytest.mark.parametrize("number", range(len(DEPRECATIONS)), ids=list(DEPRECATIONS))
def test_a_cell_that_uses_something_deprecated_fails(number, failures):
    fails = list(DEPRECATIONS.values())[number][1]
    why = failures["deprecations"][number] or ""
    assert bool(re.search("no more|is deprecated", why)) == fails, why
    assert fails or not why


def test_an_error_and_a_difference_are_told_besides(failures):
    assert "ZeroDivisionError" in failures["deprecations"][list(DEPRECATIONS).index("before an error")]
    assert "no more" in failures["compared"][1] and "stderr" in failures["compared"][1]


def test_where_a_kernel_dies_its_notebook_fails_at_once_and_others_go_on(failures):
    passes, dies, *rest = failures["dies"]
    assert passes is None
    assert nbval_plugin.DIED in dies and "os._exit(1)" in dies
    assert len(rest) == 2 and all(nbval_plugin.DEAD in why for why in rest)
    assert failures["lives"] == [None, None]


@pytest.mark.parametrize(("deaths", "tries"), [(0, 1), (2, 3), (3, 3)])
def test_a_kernel_that_dies_at_its_start_is_started_again(deaths, tries, tmp_path, monkeypatch):
    starts = []

    def start(*given, **options):
        starts.append(given)
        if len(starts) <= deaths:
            raise RuntimeError("Kernel died before replying to kernel_info")

    monkeypatch.setattr(nbval_plugin, "CourseKernel", start)
    notebook = object.__new__(nbval_plugin.CourseNotebook)
    notebook.path = tmp_path / "a.ipynb"
    with pytest.raises(RuntimeError) if deaths == 3 else contextlib.nullcontext():
        notebook.start_kernel()
    assert len(starts) == tries
