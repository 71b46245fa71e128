"""Get a package's wheel by the user's own means: pip with its configuration, else uv, else a pip made for
the occasion. Index mirrors, proxies and certificates are theirs and stay theirs."""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from .errors import CourseError

_POLL_SECONDS = 0.1


def download(requirement, sha256, folder, progress=lambda size: None):
    """Put the wheel of `requirement` ("name==version"), or its unpacked content, into `folder`.

    `progress(size)` is called with every number of new bytes. Raises CourseError when no tool can do it.
    """
    folder = Path(folder)
    lines = folder / "requirements.txt"
    lines.write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="utf-8")
    scratch = folder / "scratch"
    scratch.mkdir()
    # A folder of its own for temporary files: how much has arrived can be seen there, and it goes with ours.
    environment = {**os.environ, "TMPDIR": str(scratch), "TEMP": str(scratch), "TMP": str(scratch)}
    environment["PIP_REQUIRE_VIRTUALENV"] = "0"  # nothing is installed
    environment["UV_CACHE_DIR"] = str(scratch / "uv")
    complaint = None
    for commands in _ways(lines, folder, scratch):
        for command in commands:
            code, output = _run(command, environment, folder, progress)
            if code:
                complaint = _last_words(output)
                break
        else:
            shutil.rmtree(scratch, ignore_errors=True)
            return
        if complaint and "hash" in complaint.lower():
            break
    if complaint is None:
        raise CourseError(
            f"{requirement} has to be downloaded, but this Python has neither pip nor uv. "
            f'Type "{sys.executable}" -m ensurepip (or: uv pip install pip) in a terminal, then run this again.'
        )
    raise DownloadError(complaint)


class DownloadError(CourseError):
    """The package index could not be used; the message is the tool's last line."""


def _ways(lines, folder, scratch):
    """Lists of commands, the best way first. A way is worth trying when all its tools are there."""
    pip_download = [
        *("-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"),
        *("--disable-pip-version-check", "--no-cache-dir", "--requirement", str(lines)),
        *("--dest", str(folder)),
    ]
    has_pip = importlib.util.find_spec("pip") is not None
    if has_pip:
        # -P: a learner's own random.py or token.py beside the notebook must not be imported instead.
        yield [[sys.executable, "-P", *pip_download]]
    uv = shutil.which("uv")
    if uv:
        yield [
            [
                *(uv, "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"),
                *("--python", sys.executable, "--target", str(folder), "--requirement", str(lines)),
            ]
        ]
    if not has_pip and importlib.util.find_spec("ensurepip") is not None:
        home = scratch / "pip"
        scripts = sysconfig.get_path("scripts", "venv", {"base": str(home)})
        python = str(Path(scripts) / ("python.exe" if os.name == "nt" else "python"))
        yield [[sys.executable, "-P", "-m", "venv", str(home)], [python, "-P", *pip_download]]


def _run(command, environment, folder, progress):
    with open(folder / "output.txt", "w+b") as output:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            seen = _bytes_under(folder)
            while process.poll() is None:
                time.sleep(_POLL_SECONDS)
                now = _bytes_under(folder)
                progress(max(0, now - seen))
                seen = max(seen, now)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
        output.seek(0)
        return process.returncode, output.read().decode(errors="replace")


def _bytes_under(folder):
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(root, name)).st_size
            except OSError:  # gone since it was listed
                continue
    return total


def _last_words(output):
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    return (errors or lines or ["it said nothing"])[-1]
