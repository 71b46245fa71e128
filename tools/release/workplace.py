"""The temporary folder in which a release is tried: both releases, an environment, a copy of the checkout."""

import contextlib
import errno
import os
import re
import shutil
import subprocess
import tempfile
import time
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from . import CannotRun
from .processes import Done, run, undisturbed

FREED = ("tokenizers", "safetensors", "huggingface_hub")  # the release decides which of these it gets
VERSION = re.compile(r"\d+(\.\d+)*((a|b|rc)\d+)?(\.post\d+)?(\.dev\d+)?")
NO_NETWORK = re.compile(
    r"NewConnectionError|ConnectTimeout|NameResolutionError|name resolution|Network is unreachable"
    r"|ProxyError|SSLError|Connection refused|Read timed out|Max retries exceeded"
)
FULL_DISK = "No space left on device"
FULL = 10_000_000  # bytes; a disk with less has no room for the next file
# A learner's settings, which would change what is run or where.
PRIVATE = ("COURSE_STRICT", "COURSE_PROGRESS", "COURSE_MODEL", "PYTHON", "PYTEST_", "VIRTUAL_ENV")


@dataclass
class Workplace:
    """A temporary folder and what lies in it.

    folder: removed at the end. version, pinned: the release that is tried, and the one of requirements.txt.
    new, old: folders with those two releases, unpacked; wheel: the first as a file. checkout: the copy.
    python: of the environment
    """

    folder: Path
    python: Path
    version: str = ""
    pinned: str = ""
    wheel: Path | None = None
    new: Path = field(init=False)
    old: Path = field(init=False)
    checkout: Path = field(init=False)

    def __post_init__(self):
        self.new, self.old = self.folder / "new", self.folder / "old"
        self.checkout = self.folder / "course"
        self.temporary.mkdir(exist_ok=True)

    @property
    def temporary(self) -> Path:
        return self.folder / "t"  # short, since a kernel's socket lies below it

    def variables(self, *, pinned: bool = False) -> dict[str, str]:
        """The environment variables for the course's code; pinned: with the pinned release in front."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(PRIVATE)}
        paths = [self.old] * pinned + [self.checkout, self.checkout / "tools"]
        return {
            "COURSE_DEVICE": "cpu",
            **kept,
            **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(self.temporary)),
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
        }

    def run(self, command, what: str, *, variables=None, watch=None, stall=None) -> Done:
        """Run a program in the copy of the checkout, or beside it while there is none."""
        return run(
            command,
            what=what,
            log=self.folder / "log.txt",
            cwd=self.checkout if self.checkout.exists() else self.folder,
            env=variables or self.variables(),
            watch=watch,
            stall=stall,
        )

    def pip(self, *arguments, what: str) -> Done:
        """Run pip of the environment; raises CannotRun where the index cannot be reached, OSError on a full
        disk."""
        log = self.folder / "log.txt"
        done = self.run(
            [self.python, "-m", "pip", *arguments, "--disable-pip-version-check", "--no-input"],
            what,
            watch=lambda: _last_line(log),
        )
        check_disk(self, done)
        if done.status and NO_NETWORK.search(done.output):
            raise CannotRun(
                "The package index cannot be reached. Check the network, or pip's settings: pip config list."
            )
        return done


@contextlib.contextmanager
def temporary_folder(keep: bool):
    """A folder that is gone afterwards, however that comes about; with keep it stays."""
    folder = Path(tempfile.mkdtemp(prefix="release-")).resolve()
    try:
        yield folder
    finally:
        if not keep:
            with undisturbed():
                for _ in range(5):  # a kernel that is just ending may still write
                    shutil.rmtree(folder, ignore_errors=True)
                    if not folder.exists():
                        break
                    time.sleep(1)


def make_environment(place: Workplace, interpreter: str) -> None:
    """A virtual environment with nothing but pip."""
    found = shutil.which(interpreter)
    if found is None:
        raise CannotRun(f"There is no Python {interpreter}. Give --python the path of one.")
    command = [os.path.abspath(found), "-m", "venv", place.folder / "venv"]
    done = place.run(command, "making an environment")
    check_disk(place, done)
    if done.status or not place.python.exists():
        raise CannotRun(f"{interpreter} makes no environment: {last_words(done.output)}")


def check_disk(place: Workplace, done: Done) -> None:
    """Raise the OSError of a full disk where that is why a program failed; venv does not say so."""
    if done.status and (FULL_DISK in done.output or shutil.disk_usage(place.folder).free < FULL):
        raise OSError(errno.ENOSPC, FULL_DISK)


def interpreter_in(environment: Path) -> Path:
    """The Python of a virtual environment, or of a folder that --keep left."""
    name = Path("Scripts", "python.exe") if os.name == "nt" else Path("bin", "python")
    inner = environment / "venv" / name
    return inner if inner.exists() else environment / name


def fetch(place: Workplace, wanted: str, folder: Path, what: str) -> str:
    """Unpack a release of transformers into a folder; return its version.

    wanted: a version, "newest" or the path of a wheel. Raises CannotRun.
    """
    if wanted.endswith(".whl") or os.sep in wanted or "/" in wanted:
        version = unpack(Path(wanted), folder)
        place.wheel = place.folder / f"transformers-{version}-py3-none-any.whl"  # the name that pip asks for
        shutil.copyfile(wanted, place.wheel)
        return version
    if wanted != "newest" and not VERSION.fullmatch(wanted):
        raise CannotRun(
            f"{wanted!r} is not a version. Give one such as {place.pinned}, newest, or the path of a wheel."
        )
    requirement = "transformers" if wanted == "newest" else f"transformers=={wanted}"
    downloads = place.folder / f"{folder.name}-wheel"
    options = ["--no-deps", "--only-binary=:all:", "--retries", "1", "--dest", downloads]
    done = place.pip("download", *options, requirement, what=what)
    wheels = sorted(downloads.glob("*.whl")) if downloads.exists() else []
    if done.status or not wheels:
        raise CannotRun(_not_there(requirement, done.output))
    if folder == place.new:
        place.wheel = wheels[0]
    return unpack(wheels[0], folder)


def _not_there(requirement, output):
    asked = requirement.replace("==", " ")
    if re.search(r"Requires-Python|different python version", output) and requirement.partition("==")[2] in (
        line
        for part in re.findall(r"different python version: (.*)", output)
        for line in re.split(r"[;, ]+", part)
    ):
        return f"{asked} is not for this Python. Give --python the path of another."
    if known := re.search(r"from versions: (?!none)(.*)\)", output):
        return f"The package index has no {asked}; the newest that it has is {known[1].split(', ')[-1]}."
    return f"pip cannot fetch {asked}: {last_words(output)}"


def unpack(wheel: Path, folder: Path) -> str:
    """Unpack a wheel of transformers; return its version. Raises CannotRun for anything else."""
    if not wheel.is_file():
        raise CannotRun(f"There is no file {wheel}. Give a version, newest, or the path of a wheel.")
    try:
        with zipfile.ZipFile(wheel) as packed:
            found = [name for name in packed.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)]
            metadata = packed.read(found[0]).decode("utf-8", "replace") if len(found) == 1 else ""
            name = re.search(r"^Name: *(\S+)", metadata, re.MULTILINE)
            version = re.search(r"^Version: *(\S+)", metadata, re.MULTILINE)
            if not (name and version):
                raise CannotRun(f"{wheel} is not a wheel: it has no METADATA with a name and a version.")
            if name[1].lower() != "transformers":
                raise CannotRun(f"{wheel} is a wheel of {name[1]}. Give one of transformers.")
            packed.extractall(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise CannotRun(f"{wheel} is not a wheel, or a damaged one ({error}).") from None
    return version[1]


def copy_checkout(root: Path, place: Workplace) -> None:
    """Copy the files that git knows or does not ignore, as they are now; raises CannotRun without git."""
    listing = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(listing, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        raise CannotRun(
            f"git cannot list the files of {root}. Run this in a clone, with git installed."
        ) from None
    for name in filter(None, done.stdout.decode("utf-8", "surrogateescape").split("\0")):
        source, target = root / name, place.checkout / name
        if source.is_file():  # not one that is deleted in the working tree
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def pins(requirements: str) -> dict[str, str]:
    """{"torch": "2.13.0"}: the packages of a requirements file that have an exact version."""
    return dict(re.findall(r"^([\w-]+)==([\w.]+)", requirements, re.MULTILINE))


def freed(requirements: str, release: str) -> str:
    """The requirements with this transformers, and without pins on what it is built on."""
    names = "|".join(FREED).replace("_", "[-_]")
    text = re.sub(rf"^({names})\b.*$", r"\1", requirements, flags=re.MULTILINE | re.IGNORECASE)
    return re.sub(r"^transformers\b.*$", lambda _: release, text, flags=re.MULTILINE)


def install(place: Workplace) -> None:
    """Install what the copy's requirements.txt names, with the release that is tried.

    The copy then pins what was installed. Raises CannotRun.
    """
    file = place.checkout / "requirements.txt"
    before = file.read_text(encoding="utf-8")
    file.write_text(freed(before, f"transformers @ {place.wheel.as_uri()}"), encoding="utf-8")
    done = place.pip("install", "-r", file, what="installing")
    if done.status:
        raise CannotRun(f"pip cannot install this release with the other pins: {last_words(done.output)}")
    pin_as_installed(place, before)


def pin_as_installed(place: Workplace, requirements: str) -> None:
    """Move the copy's pins to the installed versions, as a maintainer would: its tests and texts compare."""
    versions = installed(place)
    for name in ("transformers", *FREED):
        if name in versions:
            line = f"{name}=={versions[name]}"
            requirements = re.sub(rf"^{name}\b.*$", line, requirements, flags=re.MULTILINE)
    (place.checkout / "requirements.txt").write_text(requirements, encoding="utf-8")
    releases = place.checkout / "course_utils" / "releases.py"
    if releases.exists():
        text = releases.read_text(encoding="utf-8")
        moved = re.sub(r'^NEWEST = "[^"]*"', f'NEWEST = "{place.version}"', text, flags=re.MULTILINE)
        releases.write_text(moved, encoding="utf-8")


def installed(place: Workplace) -> dict[str, str]:
    """The versions of transformers, torch and what is off its pin, in the environment."""
    names = ("transformers", "torch", *FREED)
    code = (
        "import importlib.metadata as m\n"
        f"for name in {names!r}:\n"
        "    try: print(name, m.version(name))\n"
        "    except m.PackageNotFoundError: pass"
    )
    variables = place.variables() | {"PYTHONPATH": ""}
    done = place.run([place.python, "-c", code], "reading versions", variables=variables)
    if done.status:
        raise CannotRun(f"{place.python} cannot run: {last_words(done.output)}")
    return dict(line.split(maxsplit=1) for line in done.output.splitlines() if " " in line)


def last_words(output: str) -> str:
    """The last line that says something, without pip's ERROR in front."""
    lines = [line.strip() for line in output.splitlines() if line.strip() and "[notice]" not in line]
    errors = [line for line in lines if line.startswith("ERROR")]
    words = (errors or lines or ["it says nothing"])[-1]
    return words.removeprefix("ERROR: ")[:300]


def _last_line(log: Path) -> str:
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 400))
        lines = file.read().decode("utf-8", "replace").split("\n")
        return next((line.strip()[:70] for line in reversed(lines) if line.strip()), "")
    return ""
