"""python -m course_utils: prepare, doctor, progress; check_machine()."""

import contextlib
import importlib.util
import io
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import pytest

from course_utils import CourseError, __main__, check_machine, doctor, releases
from course_utils.models.bundled import assets
from course_utils.models.bundled.checksums import GPT2_VOCABULARY, SMOLLM2


@pytest.fixture
def everything_prepared(monkeypatch, tmp_path):
    monkeypatch.setattr(assets, "find", lambda asset: tmp_path / asset.folder_name)
    monkeypatch.setattr(assets, "is_right", lambda folder, asset: True)
    return tmp_path


@pytest.fixture
def pip_list(monkeypatch):
    """What `pip config list` says, and no proxy."""
    for name in doctor._PROXIES:
        monkeypatch.delenv(name, raising=False)

    def say(text):
        done = subprocess.CompletedProcess([], 0, text, "")
        monkeypatch.setattr("subprocess.run", lambda *given, **options: done)

    return say


def line(title):
    """The doctor's line about one thing."""
    findings = [finding for finding in doctor.examine() if finding.title == title]
    return "\n".join(map(str, findings))


def test_prepare_says_where_things_are_and_downloads_nothing_twice(everything_prepared, capsys):
    assert __main__.main(["prepare"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"SmolLM2-135M is ready: {everything_prepared / SMOLLM2.folder_name}",
        f"GPT-2's vocabulary is ready: {everything_prepared / GPT2_VOCABULARY.folder_name}",
    ]


def test_prepare_shared_fills_the_folder_that_every_user_looks_into(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "own"))
    monkeypatch.setattr(assets, "shared_folder", lambda: tmp_path / "shared")
    places = []
    monkeypatch.setattr(assets, "find", lambda asset: places.append(assets.cache_folder()) or places[-1])
    assert __main__.main(["prepare", "--shared"]) == 0
    assert places == [tmp_path / "shared"] * 2


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (CourseError("No disk. Buy one."), 1, "No disk. Buy one.\n"),
        (KeyboardInterrupt(), 130, "Interrupted. Nothing half-made is left; run it again at any time.\n"),
    ],
)
def test_failures_are_one_sentence_and_a_status(error, status, said, monkeypatch, capsys):
    def fail(asset):
        raise error

    monkeypatch.setattr(assets, "find", fail)
    assert __main__.main(["prepare"]) == status
    assert capsys.readouterr() == ("", said)


def test_an_unknown_command_shows_the_known_ones(capsys):
    with pytest.raises(SystemExit) as end:
        __main__.main(["dance"])
    assert end.value.code == 2
    assert "prepare" in capsys.readouterr().err


def test_progress_shows_the_table(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / "progress.json"))
    assert __main__.main(["progress"]) == 0
    assert "01 How does text become integers?" in capsys.readouterr().out


def test_doctor_runs_as_a_program_and_its_status_is_its_verdict():
    done = subprocess.run([sys.executable, "-m", "course_utils", "doctor"], capture_output=True, text=True)
    assert done.stderr == ""
    verdict = done.stdout.splitlines()[-1]
    assert (done.returncode == 0) == (verdict == "Ready for the course.")
    assert (done.returncode == 1) == verdict.startswith("Not ready: ")
    for title in ["Python", "Packages", "Widgets", "Hardware", "Disk", "Threads", "Device", "Prepared"]:
        assert f"  {title} " in done.stdout


@pytest.mark.parametrize(("needed", "status"), [(True, 1), (False, 0)])
def test_the_status_of_doctor_tells_whether_something_needed_is_missing(needed, status, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "examine", lambda: [doctor.Finding("B", "gone", "Get it.", needed)])
    assert __main__.main(["doctor"]) == status
    assert "B          gone. Get it." in capsys.readouterr().out


def test_the_verdict_counts_what_is_needed_and_missing():
    fine, missing = doctor.Finding("A", "there"), doctor.Finding("B", "gone", "Get it.")
    optional = doctor.Finding("C", "gone", "Get it.", needed=False)
    assert doctor.report([fine, optional]).endswith("\n\nReady for the course.")
    assert doctor.report([fine, missing]).endswith("Not ready: 1 thing is missing, marked !! above.")
    assert doctor.report([missing, missing]).endswith("2 things are missing, marked !! above.")
    assert [str(finding)[:2] for finding in (fine, missing, optional)] == ["ok", "!!", "--"]


def test_doctor_reads_the_prepared_files_and_names_a_damaged_one(everything_prepared, monkeypatch):
    assert "every byte as it must be" in line("Prepared")
    monkeypatch.setattr(assets, "is_right", lambda folder, asset: asset is SMOLLM2)
    assert "!!  Prepared   GPT-2's vocabulary is damaged" in line("Prepared")
    monkeypatch.setattr(assets, "find", lambda asset: None)
    assert "!!  Prepared   SmolLM2-135M is not prepared (92.9 MB to download)" in line("Prepared")


def test_a_missing_package_is_named_with_the_line_to_type_and_another_version_only_noted(monkeypatch):
    version = doctor.importlib.metadata.version

    def pretend(name):
        if name == "torch":
            raise PackageNotFoundError(name)
        return "4.0.0" if name == "safetensors" else version(name)

    monkeypatch.setattr(doctor.importlib.metadata, "version", pretend)
    lines = line("Packages")
    assert "!!  Packages   torch is missing. Type in a terminal:" in lines and "requirements.txt" in lines
    assert "--  Packages   safetensors is 4.0.0, tested with ==0." in lines


def test_passwords_in_addresses_are_not_shown(pip_list, monkeypatch):
    pip_list("global.index-url='https://me:secret@mirror.example/simple'\nglobal.timeout='180'\n")
    monkeypatch.setenv("HTTPS_PROXY", "http://you:hidden@proxy.example:3128")
    shown = str(doctor._route())
    assert "https://***@mirror.example/simple" in shown and "http://***@proxy.example:3128" in shown
    assert not any(word in shown for word in ("secret", "hidden", "timeout"))


def test_nothing_configured_is_said(pip_list):
    pip_list("")
    assert "no mirror or proxy configured" in str(doctor._route())


def test_without_pip_and_uv_it_depends_on_what_is_prepared(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "pip" else find(name))
    for prepared, mark in [(None, "!!"), ("somewhere", "--")]:
        monkeypatch.setattr(assets, "find", lambda asset, prepared=prepared: prepared)
        assert str(doctor._tools()).startswith(f"{mark}  Download   neither pip nor uv is here")


def test_a_cache_that_will_not_do_is_named(monkeypatch, tmp_path, cache):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "file" / "cache"))
    assert "cannot be written" in str(doctor._disk())
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    assert str(doctor._disk()).startswith("ok")


def test_check_machine_is_one_line_where_all_is_well_and_names_what_is_not(monkeypatch, capsys):
    monkeypatch.setattr(releases, "installed", lambda: releases.NEWEST)
    check_machine()
    assert capsys.readouterr().out == "This machine has what the course needs.\n"
    monkeypatch.setattr(doctor, "TORCH_CAME_FIRST", True)
    check_machine()
    assert capsys.readouterr().out == (
        "Threads: torch was imported before course_utils: notebooks that share cores will slow each other "
        "down. Restart the kernel and import course_utils first.\n"
    )


@pytest.mark.parametrize(
    ("release", "is_missing", "sentence"),
    [
        ("5.19.0", True, f"transformers is 5.19.0, and the course needs {releases.OLDEST} or newer"),
        ("5.22.2", False, "lessons 04 to 06 have lines that need 5.24"),
        ("99.1.0", False, f"newer than the {releases.NEWEST} that the course was tried with"),
        (None, True, "transformers is missing"),
    ],
)
def test_another_release_of_transformers_is_told_in_one_sentence(
    monkeypatch, capsys, release, is_missing, sentence
):
    version = doctor.importlib.metadata.version

    def pretend(name):
        if name != "transformers":
            return version(name)
        if release is None:
            raise PackageNotFoundError(name)
        return release

    monkeypatch.setattr("importlib.metadata.version", pretend)
    check_machine()
    said = capsys.readouterr().out
    assert ("This machine has what the course needs." in said) is not is_missing
    [about] = [text for text in said.splitlines() if "transformers" in text]
    assert sentence in about and "requirements.txt" in about
    assert [finding.is_missing for finding in doctor.examine() if sentence in finding.text] == [is_missing]
    assert "transformers" not in line("Packages").replace(f"transformers {release}", "")


@pytest.fixture
def lukasz(monkeypatch, tmp_path):
    """All folders are those of a user whose name the output's encoding does not hold."""
    home = tmp_path / "Łukasz"
    monkeypatch.setenv("COURSE_CACHE", str(home / "cache"))
    monkeypatch.setenv("COURSE_PROGRESS", str(home / "progress.json"))
    monkeypatch.setattr(assets, "shared_folder", lambda: home / "shared")


def printed_in_cp1252(function, *given):
    """What a function prints on a console with Western European characters only."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="cp1252", newline="\n")
    with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        with contextlib.suppress(SystemExit):  # argparse's
            function(*given)
        stream.flush()
    return stream.buffer.getvalue().decode("cp1252")


def in_the_cache(asset):
    return assets.cache_folder() / asset.folder_name


def nowhere(asset):
    raise CourseError(f"Nothing fits into {assets.cache_folder()}.")


@pytest.mark.parametrize(
    ("arguments", "find"),
    [
        (["prepare"], in_the_cache),
        (["prepare"], nowhere),
        (["prepare", "--help"], nowhere),
        (["doctor"], in_the_cache),
        (["progress"], nowhere),
        (["Łukasz"], nowhere),
    ],
    ids=["prepare", "prepare fails", "help", "doctor", "progress", "no such command"],
)
def test_a_path_that_the_output_cannot_hold_is_escaped(arguments, find, lukasz, monkeypatch):
    monkeypatch.setattr(assets, "find", find)
    monkeypatch.setattr(doctor, "examine", lambda: [doctor._disk()])
    monkeypatch.setenv("COLUMNS", "1000")  # argparse breaks lines inside a path
    assert "\\u0141ukasz" in printed_in_cp1252(__main__.main, arguments)


def test_check_machine_escapes_what_the_output_cannot_hold(monkeypatch):
    monkeypatch.setattr(doctor, "_disk", lambda: doctor.Finding("Disk", "Łukasz has none", "Buy one."))
    assert printed_in_cp1252(check_machine) == "Disk: \\u0141ukasz has none. Buy one.\n"


def test_doctor_reports_to_a_file_that_cannot_hold_a_path(tmp_path):
    names = {"PYTHONUTF8": "0", "PYTHONIOENCODING": "cp1252", "PIP_CERT": "é"}
    names["COURSE_CACHE"] = str(tmp_path / "Łukasz")
    done = subprocess.run(
        [sys.executable, "-m", "course_utils", "doctor"], env=os.environ | names, capture_output=True
    )
    assert done.stderr == b""
    assert rb"\u0141ukasz" in done.stdout


def test_torch_imported_first_is_noticed():
    plain, late = "import sys", "import sys; sys.modules['torch'] = None"
    code = "; import course_utils; print(course_utils.TORCH_CAME_FIRST)"
    without = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    for first, set_by_user, noticed in [
        (plain, {}, False),
        (late, {}, True),
        (late, {"GOMP_SPINCOUNT": "1000"}, False),
    ]:
        command = [sys.executable, "-c", first + code]
        done = subprocess.run(command, env={**without, **set_by_user}, capture_output=True, text=True)
        assert done.stdout.strip() == str(noticed)
