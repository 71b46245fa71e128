"""What notebooks/ holds: equal to its source, run from top to bottom, readable, fit for any machine."""

import re
import warnings
from pathlib import Path
from statistics import median

import nbformat
import pytest
from nbval.plugin import find_comment_markers, find_metadata_tags

import build_notebooks
from lesson_source import METADATA, has_tag
from notebook_run import output_problem, path_in

FOLDER = Path(__file__).parents[2] / "notebooks"
LEARNERS = sorted(FOLDER.glob("*.ipynb"))
SOLVED = sorted(FOLDER.glob("solutions/*.ipynb"))
OUTCOMES = ("✔", "✘", "… not yet")


def read(path):
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def code_cells(path):
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def name(path):
    return path.relative_to(FOLDER).with_suffix("").as_posix()


each_notebook = pytest.mark.parametrize("path", LEARNERS + SOLVED, ids=name)


def test_every_notebook_equals_its_source(capsys):
    status = build_notebooks.main(["--check"])
    assert status == 0, capsys.readouterr().err
    assert LEARNERS
    exercises = [path for path in LEARNERS if any(has_tag(cell, "exercise") for cell in read(path).cells)]
    assert [path.name for path in SOLVED] == [path.name for path in exercises]


@each_notebook
def test_every_cell_was_run_in_order(path):
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


@each_notebook
def test_every_link_to_a_notebook_leads_to_one(path):
    texts = [cell.source for cell in read(path).cells if cell.cell_type == "markdown"]
    for target in re.findall(r"\]\(([^)]+\.ipynb)\)", "\n".join(texts)):
        assert (path.parent / target).exists(), target


@each_notebook
def test_nothing_is_stored_that_belongs_to_one_machine(path):
    notebook = read(path)
    assert notebook.metadata == METADATA
    for cell in notebook.cells:
        assert not path_in(cell.source), cell.source
        if cell.cell_type == "code":
            assert not output_problem(cell), cell.source


@each_notebook
def test_a_hidden_answer_begins_with_words(path):
    """JupyterLab shows the beginning of a hidden output: a sentence, and not the bytes of a picture."""
    for cell in read(path).cells:
        if cell.metadata.get("jupyter", {}).get("outputs_hidden") and cell.outputs:
            assert "image/png" not in cell.outputs[0].get("data", {}), cell.source
            assert "<img" not in str(cell.outputs[0].get("data", {}).get("text/html", "")), cell.source


@each_notebook
def test_size(path):
    assert path.stat().st_size <= 200_000


@each_notebook
def test_rhythm(path):
    """Long cells are a matter of taste: told, not forbidden."""
    cells = read(path).cells
    lines = median(len(cell.source.splitlines()) for cell in cells if cell.cell_type == "code")
    words = median(len(cell.source.split()) for cell in cells if cell.cell_type == "markdown")
    if lines > 9 or words > 60:
        warnings.warn(f"{path.name}: {lines} lines a cell, {words} words a text (medians)", stacklevel=1)


@pytest.mark.parametrize(
    ("path", "outcome"),
    [(path, "… not yet") for path in LEARNERS] + [(path, "✔") for path in SOLVED],
    ids=[name(path) for path in LEARNERS + SOLVED],
)
def test_checks_say_not_yet_to_a_stub_and_pass_a_solution(path, outcome):
    for cell in code_cells(path):
        shown = [
            output.data["text/plain"] for output in cell.outputs if "text/plain" in output.get("data", {})
        ]
        outcomes = [text for text in shown if text.startswith(OUTCOMES)]
        if has_tag(cell, "check"):
            assert len(outcomes) == 1, cell.source
            assert outcomes[0].startswith(outcome), cell.source
        else:
            assert not outcomes, f"no tag `check` at\n{cell.source}"


def test_nearly_every_output_is_compared():
    def compared(cell):
        options = dict(find_metadata_tags(cell.metadata)) | dict(find_comment_markers(cell.source))
        return options.get("check", True) and not options.get("skip")

    cells = [cell for path in LEARNERS for cell in code_cells(path)]
    not_compared = [cell.source for cell in cells if not compared(cell)]
    assert len(not_compared) <= 0.05 * len(cells), not_compared
