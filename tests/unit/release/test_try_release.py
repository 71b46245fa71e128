"""python tools/try_release.py with a fake pip and a fake pytest: no network, and nothing left behind."""

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import try_release
from fake_release import (
    COURSE,
    NEW,
    OLD,
    REQUIREMENTS,
    make_place,
    metadata,
    release_files,
    write,
    write_wheel,
)
from release import CannotRun, processes, workplace
from release.probe import MARK
from release.processes import Done
from release.report import Section, ending


@pytest.fixture
def place(tmp_path):
    return make_place(tmp_path)


class Machine:
    """Answers the programs that try_release starts."""

    def __init__(self):
        self.started = []
        self.newest = NEW
        self.files = {version: release_files(version) for version in (OLD, NEW)}
        self.fails = {}  # a word of the command -> what the program writes before it fails
        self.raises = {}
        self.answers = {
            "anchors": {"shows": [], "missing": []},
            "map": [["old()", "new()", ""]],
            "messages": [["The rows have different lengths", ""]],
            "numbers": {"tiny, greedy": "12ab"},
        }
        self.pinned_answers = {}
        self.records = []
        self.folder = None
        self.requirements = ""  # at the time of installing

    def __call__(self, command, *, what, log, cwd=None, env=None, watch=None, stall=None):
        words = [*map(str, command)]
        self.started.append(words)
        self.folder = log.parent
        for word, output in self.fails.items():
            if word in words:
                return Done(1, output)
        for word, problem in self.raises.items():
            if word in words:
                raise problem
        if "venv" in words:
            python = workplace.interpreter_in(Path(words[-1]))
            write(python.parent, {python.name: ""})
        elif "download" in words:
            (requirement,) = (word for word in words if word.startswith("transformers"))
            version = requirement.partition("==")[2] or self.newest
            folder = Path(words[words.index("--dest") + 1])
            write_wheel(folder / f"transformers-{version}-py3-none-any.whl", self.files[version])
        elif "install" in words:
            self.requirements = Path(words[words.index("-r") + 1]).read_text(encoding="utf-8")
        elif "-c" in words:
            return Done(0, f"transformers {self.newest}\ntorch 2.13.0+cpu\ntokenizers 0.23.3\n")
        elif "release.probe" in words:
            what = words[words.index("release.probe") + 1]
            pinned = str(self.folder / "old") in env["PYTHONPATH"]
            answer = self.pinned_answers.get(what, self.answers[what]) if pinned else self.answers[what]
            return Done(0, f"noise\n{MARK}{json.dumps(answer)}\n")
        elif "pytest" in words:
            pinned = str(self.folder / "old") in env["PYTHONPATH"]
            kept = [item for item in self.records if not pinned or item.get("pinned")]
            lines = [json.dumps(item) for item in kept] + [json.dumps({"kind": "collected", "total": 1})]
            write(Path(env["RELEASE_RECORDS"]), {"1.jsonl": "\n".join(lines) + "\n"})
        return Done(0, "")


@pytest.fixture
def machine(monkeypatch):
    machine = Machine()
    monkeypatch.setattr(workplace, "run", machine)
    return machine


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout that git knows, and a folder for temporary files that must be empty at the end."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    root = tmp_path / "checkout"
    files = {"requirements.txt": REQUIREMENTS, "course_utils/run.py": COURSE, ".gitignore": "build/\n"}
    write(root, {**files, "build/big.txt": "x"})
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    before = {
        path: path.read_bytes() for path in root.rglob("*") if path.is_file() and ".git" not in path.parts
    }
    yield root
    after = {
        path: path.read_bytes() for path in root.rglob("*") if path.is_file() and ".git" not in path.parts
    }
    assert after == before
    assert [*temporary.iterdir()] == []


def test_a_release_that_changes_nothing_is_0(machine, checkout, capsys):
    machine.newest = OLD
    assert try_release.main([OLD], checkout) == 0
    shown = capsys.readouterr().out
    assert f"# transformers {OLD}, tried on the course of {OLD}" in shown
    assert "## What needs a maintainer\n\nNothing." in shown
    titles = [
        "Packages",
        "Names",
        "Deprecations",
        "Environment",
        "Anchors",
        "Version map",
        "Messages",
        "Numbers",
        "Tests",
        "Cells",
    ]
    assert [shown.index(f"## ✔ {title}") for title in titles] == sorted(
        shown.index(f"✔ {title}") - 3 for title in titles
    )


def test_a_release_that_moves_something_is_1_and_the_report_says_what_first(
    machine, checkout, capsys, tmp_path
):
    machine.answers["numbers"] = {"tiny, greedy": "34cd"}
    machine.pinned_answers["numbers"] = {"tiny, greedy": "12ab"}
    machine.answers["map"] = [["old()", "new()", "the line to write is deprecated: `past` is"]]
    machine.pinned_answers["map"] = [["old()", "new()", ""]]
    frames = [["tests/test_a.py", 3, "test_a", "f()"]]
    for name, more in (("a", {}), ("b", {"pinned": True})):
        test = {"test": f"tests/test_a.py::test_{name}", **more}
        machine.records += [
            {"kind": "failed", "type": f"{name}Error", "message": "m", "frames": frames, **test},
            {"kind": "ended", "outcome": "failed", **test},
        ]
    report = tmp_path / "report.md"
    assert try_release.main([NEW, "--report", str(report)], checkout) == 1
    shown, text = capsys.readouterr().out, report.read_text(encoding="utf-8")
    assert text.index("## What needs a maintainer") < text.index("Packages\n")
    assert (
        shown.index("## What needs a maintainer") > shown.index("## ✘ Cells") if "✘ Cells" in shown else True
    )
    assert "1 of 1 comparisons of logits, scores and ids differ" in shown
    assert "`old()` → `new()`: the line to write is deprecated: `past` is" in shown
    assert "2 of 2 tests fail, for 2 causes, 1 of them under 5.24.0, too" in shown
    assert shown.index("`aError: m`") < shown.index("Fail under 5.24.0, too") < shown.index("`bError: m`")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".report")] == []


def test_quick_runs_neither_tests_nor_notebooks(machine, checkout, capsys):
    try_release.main(["newest", "--quick"], checkout)
    assert not any("pytest" in words for words in machine.started)
    assert f"# transformers {NEW}" in capsys.readouterr().out


def test_the_environment_gets_the_release_and_lets_it_choose_what_it_is_built_on():
    free = workplace.freed(
        REQUIREMENTS + "huggingface-hub==2.4.0\n", "transformers @ file:///x.whl"
    ).splitlines()
    assert free == [
        "-e .",
        "torch==2.13.0",
        "transformers @ file:///x.whl",
        "tokenizers",
        "safetensors",
        "huggingface-hub",
    ]


def test_keep_leaves_the_folder_and_it_can_be_used_again(machine, checkout, capsys):
    try_release.main([NEW, "--quick", "--keep"], checkout)
    kept = machine.folder
    assert (kept / "course" / "course_utils" / "run.py").exists()
    assert not (kept / "course" / "build").exists()
    assert f"--environment {kept}" in capsys.readouterr().err
    machine.started.clear()
    try_release.main([NEW, "--quick", "--environment", str(kept)], checkout)
    assert not any("venv" in words or "install" in words for words in machine.started)
    shutil.rmtree(kept)


KNOWN = "ERROR: Could not find a version of x (from versions: 5.23.0, 5.24.0)\nERROR: No"
NO_NETWORK = (
    "WARNING: Retrying after connection broken by 'NewConnectionError(...)'\n"
    "ERROR: Could not find a version of transformers (from versions: none)"
)
CONFLICT = "Collecting\nERROR: Cannot install tokenizers because these versions conflict."


@pytest.mark.parametrize(
    ("arguments", "fails", "sentence"),
    [
        (
            ["9.9.9"],
            {"download": KNOWN},
            "The package index has no transformers 9.9.9; the newest that it has is 5.24.0.",
        ),
        (["newest"], {"download": NO_NETWORK}, "The package index cannot be reached."),
        ([NEW], {"download": "ERROR: odd"}, f"pip cannot fetch transformers {NEW}: odd"),
        (
            [NEW],
            {
                "download": f"ERROR: Ignored versions that require a different python version: 5.0 {NEW}"
                f" Requires-Python >=3.15\n{KNOWN}"
            },
            f"transformers {NEW} is not for this Python.",
        ),
        (
            [NEW],
            {"install": CONFLICT},
            "pip cannot install this release with the other pins: Cannot install tokenizers",
        ),
        ([NEW], {"install": NO_NETWORK}, "The package index cannot be reached."),
        (
            [NEW],
            {"install": "ERROR: OSError: [Errno 28] No space left on device"},
            "There is no space left in ",
        ),
        ([NEW], {"venv": "Error: no ensurepip"}, "makes no environment: Error: no ensurepip"),
        ([NEW], {"-c": "Segmentation fault"}, "cannot run: Segmentation fault"),
        (
            ["latest"],
            {},
            "'latest' is not a version. Give one such as 5.24.0, newest, or the path of a wheel.",
        ),
        (["5.24.0; rm x"], {}, "is not a version."),
        (["no/such.whl"], {}, "There is no file no/such.whl."),
        (["none.whl"], {}, "none.whl is not a wheel, or a damaged one"),
        (["empty.whl"], {}, "empty.whl is not a wheel: it has no METADATA"),
        (["torch.whl"], {}, "torch.whl is a wheel of torch. Give one of transformers."),
        ([NEW, "--python", "nowhere/python"], {}, "There is no Python nowhere/python."),
        ([NEW, "--report", "no/folder/r.md"], {}, "There is no folder "),
        ([NEW, "--report", "."], {}, ". is a folder. Give --report the name of a file."),
        ([NEW, "--environment", "nowhere"], {}, "nowhere is not an environment of --keep"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_gets_one_sentence_and_leaves_nothing(
    arguments, fails, sentence, machine, checkout, capsys, tmp_path, monkeypatch
):
    write(tmp_path, {"none.whl": "not packed"})
    write_wheel(tmp_path / "empty.whl", {"a.txt": ""})
    write_wheel(tmp_path / "torch.whl", {"torch-2.dist-info/METADATA": metadata("2", name="torch")})
    monkeypatch.chdir(tmp_path)
    machine.fails = fails
    assert try_release.main(arguments, checkout) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("problem", "status", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 2, "There is no space left in "),
        (KeyboardInterrupt(), 130, "Interrupted. The temporary folder is gone."),
        (PermissionError(13, "Permission denied"), 2, "It cannot go on: [Errno 13] Permission denied."),
    ],
)
@pytest.mark.parametrize("at", ["venv", "download", "release.probe"])
def test_an_interruption_and_a_full_disk_leave_nothing(
    at, problem, status, sentence, machine, checkout, capsys
):
    machine.raises = {at: problem}
    assert try_release.main([NEW], checkout) == status
    assert sentence in capsys.readouterr().err


def test_a_full_disk_is_said_where_the_program_that_failed_does_not_say_it(
    machine, checkout, capsys, monkeypatch
):
    machine.fails = {"venv": "Error: Command '[…]' returned non-zero exit status 1."}
    usage = shutil.disk_usage(tempfile.gettempdir())._replace(free=9_000)
    monkeypatch.setattr(workplace.shutil, "disk_usage", lambda folder: usage)
    assert try_release.main([NEW], checkout) == 2
    assert "There is no space left in " in capsys.readouterr().err


def test_what_was_found_before_an_interruption_is_reported_as_incomplete(machine, checkout, capsys, tmp_path):
    machine.raises = {"numbers": KeyboardInterrupt()}
    report = tmp_path / "report.md"
    assert try_release.main([NEW, "--report", str(report)], checkout) == 130
    text = report.read_text(encoding="utf-8")
    assert "**Names**" in text and "It ended before all stages were done." in text
    assert "Nothing" not in text


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda root: (root / "requirements.txt").write_text("torch"), "requirements.txt has no line"),
        (lambda root: (root / "requirements.txt").unlink(), "It cannot go on: "),
    ],
)
def test_a_checkout_without_a_pin_gets_a_sentence(change, sentence, machine, tmp_path, capsys):
    write(tmp_path, {"requirements.txt": REQUIREMENTS})
    change(tmp_path)
    assert try_release.main([NEW], tmp_path) == 2
    assert sentence in capsys.readouterr().err


def test_a_folder_that_git_does_not_know_gets_a_sentence(machine, tmp_path, monkeypatch, capsys):
    write(tmp_path / "plain", {"requirements.txt": REQUIREMENTS})
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert try_release.main([NEW], tmp_path / "plain") == 2
    assert "Run this in a clone, with git installed." in capsys.readouterr().err


def test_a_wheel_is_tried_under_any_name(machine, checkout, tmp_path, capsys):
    write_wheel(tmp_path / "my build.whl", machine.files[NEW])
    try_release.main([str(tmp_path / "my build.whl"), "--quick"], checkout)
    assert f"# transformers {NEW}" in capsys.readouterr().out
    assert (
        f"transformers @ {(machine.folder / f'transformers-{NEW}-py3-none-any.whl').as_uri()}\n"
        in machine.requirements
    )


def test_a_stage_that_does_not_run_is_a_finding_and_the_others_go_on(machine, checkout, capsys):
    machine.newest = OLD
    machine.fails = {"map": "ImportError: cannot import name 'x'"}
    assert try_release.main([OLD, "--quick"], checkout) == 1
    shown = capsys.readouterr().out
    assert f"## ✘ Version map\n\nThe probe does not run under transformers {OLD}: ImportError" in shown
    assert "## ✔ Numbers" in shown


def test_the_copys_pins_move_to_what_is_installed(place, machine):
    write(place.checkout, {"course_utils/releases.py": f'OLDEST = "5.20"\nNEWEST = "{OLD}"  # tried\n'})
    workplace.pin_as_installed(place, REQUIREMENTS)
    pins = workplace.pins((place.checkout / "requirements.txt").read_text(encoding="utf-8"))
    assert pins == {"torch": "2.13.0", "transformers": NEW, "tokenizers": "0.23.3", "safetensors": "0.8.0"}
    releases = (place.checkout / "course_utils" / "releases.py").read_text(encoding="utf-8")
    assert releases == f'OLDEST = "5.20"\nNEWEST = "{NEW}"  # tried\n'


def test_the_ending_names_what_moved_and_the_time_of_each_stage():
    text = ending([Section("A", "fine", seconds=3), Section("B", "two moved", moved=True, seconds=61)])
    assert "- **B**: two moved" in text and "**A**" not in text
    assert "| A | 3 s |" in text and "| B | 1 min 1 s |" in text and "| All | 1 min 4 s |" in text


# Programs that are started

SLEEPER = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
print(child.pid, flush=True)
child.wait()
"""


def test_an_interruption_ends_the_program_that_was_started(tmp_path, monkeypatch):
    started = []
    popen = subprocess.Popen
    monkeypatch.setattr(
        processes.subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1]
    )
    log = tmp_path / "log.txt"

    def watch():
        if log.read_text().strip():
            raise KeyboardInterrupt
        return ""

    with pytest.raises(KeyboardInterrupt):
        processes.run([sys.executable, "-c", SLEEPER], what="x", log=log, watch=watch)
    assert started[0].poll() is not None


def test_a_program_in_which_nothing_moves_is_stopped(tmp_path):
    done = processes.run([sys.executable, "-c", SLEEPER], what="x", log=tmp_path / "log", stall=0.1)
    assert done.status == -1


def test_progress_is_shown_only_for_what_takes_its_time(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(processes.time, "monotonic", lambda: now[0])
    progress = processes.Progress("tests", sys.stderr)
    progress.show("1 of 9")
    assert capsys.readouterr().err == ""
    now[0] = 2.5
    progress.show("2 of 9")
    progress.show("3 of 9")
    assert capsys.readouterr().err == "tests: 2 of 9, 2 s\n"


def test_the_environments_variables_are_not_a_learners(place, monkeypatch):
    for name in ("COURSE_STRICT", "COURSE_MODEL", "PYTHONHOME", "PYTEST_ADDOPTS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("COURSE_CACHE", "/kept")
    variables = place.variables(pinned=True)
    assert not {"COURSE_STRICT", "COURSE_MODEL", "PYTHONHOME", "PYTEST_ADDOPTS"} & variables.keys()
    assert (variables["COURSE_CACHE"], variables["COURSE_DEVICE"]) == (
        "/kept",
        os.environ.get("COURSE_DEVICE", "cpu"),
    )
    assert variables["PYTHONPATH"].split(os.pathsep)[0] == str(place.old)


def test_a_version_needs_no_network_to_be_refused():
    with pytest.raises(CannotRun, match="is not a version"):
        workplace.fetch(workplace.Workplace(Path(tempfile.gettempdir()), Path("x")), "5.24.x", Path("y"), "z")
