"""What importing the package does, and what it leaves for later."""

import os
import subprocess
import sys

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
