"""The line that runs every test stands in the README; what else runs it must say the same."""

import re
import tomllib
from pathlib import Path

import pytest

from course_utils import releases

ROOT = Path(__file__).parents[2]


def test_the_readme_has_one_test_line():
    assert len(lines_of_the_readme()) == 1


@pytest.mark.parametrize("workflow", ["ci.yml", "gpu.yml"])
def test_a_workflow_runs_the_readmes_test_line(workflow):
    text = (ROOT / ".github" / "workflows" / workflow).read_text(encoding="utf-8")
    assert f"run: {lines_of_the_readme()[0]}\n" in text


def test_ci_runs_every_python_and_the_oldest_transformers_that_are_supported():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    ci = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    versions = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    assert set(re.findall(r'python: \[?"(3\.\d+)"', ci)) == set(versions)
    assert f">={versions[0]}" == project["requires-python"]
    (oldest,) = re.findall(r"transformers>=([\d.]+)", "\n".join(project["dependencies"]))
    assert oldest == releases.OLDEST
    assert f'transformers: "{oldest}.0"' in ci


def lines_of_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(r"^pip install .*&& pytest$", readme, re.MULTILINE)
