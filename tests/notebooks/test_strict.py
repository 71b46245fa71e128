"""COURSE_STRICT=1, as in grading: on the learner's notebooks it fails at the checks and nowhere else.

Only a check reads that variable, so one notebook is run; the others are read for checks outside their cells.
"""

from pathlib import Path

import nbformat
import pytest

import notebook_run
from lesson_source import has_tag

LEARNERS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


def test_a_strict_run_fails_at_the_checks_only(tmp_path):
    notebook = nbformat.read(LEARNERS[0], as_version=4)
    notebook_run.prepare_machine()
    environment = notebook_run.clean_environment(tmp_path, strict=True)
    notebook_run.execute(notebook, LEARNERS[0].parent, environment, allow_errors=True)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            errors = [output.ename for output in cell.outputs if output.output_type == "error"]
            if not has_tag(cell, "raises-exception"):
                assert errors == ["AssertionError"] * has_tag(cell, "check"), cell.source


@pytest.mark.parametrize("path", LEARNERS, ids=lambda path: path.stem)
def test_only_a_check_cell_calls_a_check(path):
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            assert has_tag(cell, "check") == ("lesson.check_" in cell.source), cell.source
