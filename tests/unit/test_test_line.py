"""The line that runs every test stands in the README; what else runs it must say the same."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_readme_has_one_test_line():
    assert len(lines_of_the_readme()) == 1


@pytest.mark.parametrize("workflow", ["ci.yml", "gpu.yml"])
def test_a_workflow_runs_the_readmes_test_line(workflow):
    text = (ROOT / ".github" / "workflows" / workflow).read_text(encoding="utf-8")
    assert f"run: {lines_of_the_readme()[0]}\n" in text


def lines_of_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(r"^pip install .*&& pytest$", readme, re.MULTILINE)
