"""Two small releases of a fake transformers and a course that uses them, for tests of tools/release."""

import sys
import zipfile
from pathlib import Path

from release import workplace

OLD, NEW = "5.24.0", "5.25.0"

UTILS = """
import warnings

LIMIT = 3

class Mixin:
    def generate(self, inputs, past=None, *, steps=20, **kwargs):
        if inputs is None:
            raise ValueError(f"Give the model some inputs first, not {inputs}.")
        return inputs

    def sample(self):
        pass
"""
UTILS_NEW = """
import warnings

LIMIT = 3

class Mixin:
    @deprecate_kwarg("past", version="6.0.0", new_name="cache")
    @deprecate_kwarg(
        "inputs_of_old", "5.30.0",
    )
    def generate(self, inputs, cache=None, *, steps=30, **kwargs):
        warnings.warn("Something is said that nobody said before.")
        return inputs

    def draw(self):
        pass
"""
SOURCES = {
    OLD: {
        "__init__.py": "",
        "generation/utils.py": UTILS,
        "generation/old.py": "def gone_function(): pass",
        "cache_utils.py": "class Layer:\n    past_values: int = 0\n    def crop(self): pass",
    },
    NEW: {
        "__init__.py": "",
        "generation/utils.py": UTILS_NEW,
        "cache_utils.py": "class Layer:\n    cache_values: int = 0\n    def crop(self): pass",
    },
}
METADATA = "Name: {name}\nVersion: {version}\nRequires-Python: >=3.{python}\n{more}\n\nText.\n"
REQUIREMENTS = f"-e .\ntorch==2.13.0\ntransformers=={OLD}\ntokenizers==0.23.3\nsafetensors==0.8.0\n"
COURSE = '''
from transformers.generation.old import gone_function

def run(model):
    """Give the model some inputs first, says `generate`."""
    return model.generate(None, past=3, steps=2), model.sample
'''


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def metadata(version, name="transformers", more="Requires-Dist: tokenizers<0.24,>=0.23.1", python=11):
    return METADATA.format(version=version, name=name, more=more, python=python)


def release_files(version, **changes):
    files = {f"transformers/{name}": text for name, text in SOURCES[version].items()}
    return files | {f"transformers-{version}.dist-info/METADATA": metadata(version, **changes)}


def write_wheel(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)


def make_place(folder):
    """A workplace with the two releases unpacked and a copy of a course of one module."""
    place = workplace.Workplace(folder, Path(sys.executable), NEW, OLD)
    write(place.old, release_files(OLD))
    write(place.new, release_files(NEW))
    write(place.checkout, {"course_utils/run.py": COURSE, "requirements.txt": REQUIREMENTS})
    return place
