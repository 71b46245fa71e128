import json
import multiprocessing
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import pytest

from course_utils import CourseError
from course_utils.checks import progress


@pytest.fixture(autouse=True)
def path(tmp_path, monkeypatch):
    path = tmp_path / "data" / "progress.json"
    monkeypatch.setenv("COURSE_PROGRESS", str(path))
    return path


def record_many(worker):
    return [progress.record(f"01/item-{worker}-{n}", done=True) for n in range(20)]


def test_record_and_read():
    assert progress.read() == {}
    assert progress.record("01/merge", done=False, guess="3") == ""
    assert progress.record("01/merge", done=True, guess="4") == ""
    assert progress.record("01/merge", done=False, guess="5") == ""
    (entry,) = progress.read().values()
    assert entry["done"] is True and entry["attempts"] == 3
    assert entry["guess"] == "4"  # as it was when it was done
    assert entry["first"] <= entry["last"]


def test_default_place_is_the_users_own(monkeypatch, tmp_path):
    monkeypatch.delenv("COURSE_PROGRESS")
    monkeypatch.setattr(progress.platformdirs, "user_data_dir", lambda name, appauthor: tmp_path / name)
    assert progress.progress_file() == tmp_path / "inside-generate" / "progress.json"


def test_two_kernels_at_once_lose_nothing():
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        notes = [note for notes in pool.map(record_many, range(2)) for note in notes]
    assert set(notes) == {""}
    assert len(progress.read()) == 40


def test_killed_while_writing_leaves_the_old_file(path, monkeypatch):
    progress.record("01/a", done=True)

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(progress.os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        progress.record("01/b", done=True)
    assert list(progress.read()) == ["01/a"]
    assert sorted(file.name for file in path.parent.iterdir() if file.suffix == ".tmp") == []


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\x00", b"[]", b'{"version": 1}', b'{"version": 1, "items": {"01/a": 3}}', b"null"],
)
def test_broken_file_is_set_aside_and_kept(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(CourseError, match="cannot be read"):
        progress.read()
    note = progress.record("01/merge", done=True)
    (kept,) = path.parent.glob("progress.broken-*.json")
    assert kept.read_bytes() == content
    assert str(kept) in note and note.count("\n") == 0
    assert progress.read()["01/merge"]["done"]
    assert progress.record("01/merge", done=True) == ""


def test_file_of_a_newer_course_is_left_alone(path):
    path.parent.mkdir()
    path.write_text('{"version": 99, "items": {}}')
    note = progress.record("01/merge", done=True)
    assert "another version" in note
    assert path.read_text() == '{"version": 99, "items": {}}'


def test_unwritable_place_is_a_sentence(path, monkeypatch):
    path.parent.parent.joinpath("file").write_text("not a folder")
    monkeypatch.setenv("COURSE_PROGRESS", str(path.parent.parent / "file" / "progress.json"))
    note = progress.record("01/merge", done=True)
    assert note.startswith("Your progress was not saved") and note.count("\n") == 0


def test_full_disk_keeps_the_old_file(path, monkeypatch):
    progress.record("01/a", done=True)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(progress.os, "fsync", full)
    assert "No space left on device" in progress.record("01/b", done=True)
    assert list(progress.read()) == ["01/a"]


def test_lock_held_by_another_program_is_a_sentence(path, monkeypatch):
    progress.record("01/a", done=True)
    monkeypatch.setattr(progress, "LOCK_SECONDS", 0.05)
    code = (
        f"import filelock; lock = filelock.FileLock({f'{path}.lock'!r}); lock.acquire(); "
        "print('held', flush=True); input()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        assert "another program holds" in progress.record("01/b", done=True)
        assert list(progress.read()) == ["01/a"]
    finally:
        holder.communicate("\n")


def test_read_only_home(monkeypatch):
    progress.record("01/a", done=True)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")  # what the super-user never meets

    monkeypatch.setattr(progress.filelock, "FileLock", refuse)
    monkeypatch.setattr(progress.tempfile, "mkstemp", refuse)
    note = progress.record("01/b", done=True)
    assert note.startswith("Your progress was not saved") and "Permission denied" in note
    assert list(progress.read()) == ["01/a"]
    with pytest.raises(CourseError, match="cannot be reset"):
        progress.reset()


def test_reset_one_lesson_keeps_a_backup(path):
    assert progress.reset() is None
    for item in ("00/a", "01/a", "01/b"):
        progress.record(item, done=True)
    first = progress.reset("01")
    assert list(progress.read()) == ["00/a"]
    assert len(json.loads(first.read_text())["items"]) == 3
    second = progress.reset()
    assert progress.read() == {} and first != second and first.exists()


def test_reset_of_everything_also_ends_a_broken_file(path):
    path.parent.mkdir()
    path.write_text("{")
    with pytest.raises(CourseError, match="without a lesson"):
        progress.reset(1)
    assert progress.reset().read_text() == "{"
    assert progress.read() == {}


@pytest.mark.parametrize("item", ["merge", "1/merge", "01/", "01/Merge", "01/a b", "../x", "01/a/b"])
def test_ids_are_checked(item):
    with pytest.raises(ValueError, match="not an id"):
        progress.record(item, done=True)


@pytest.fixture
def one_lesson(monkeypatch):
    ids = {"exercise": ["07/a", "07/b"], "prediction": ["07/p"], "quiz": []}
    monkeypatch.setattr(progress, "lessons", lambda: (progress.Lesson("07", "How <likely>?", ids),))


def test_table_counts_what_is_done(one_lesson):
    progress.record("07/a", done=True)
    progress.record("07/b", done=False)
    progress.record("07/p", done=True, right=False)
    shown = progress.Progress()
    assert repr(shown) == (
        "lesson            exercises  predictions  quiz\n07 How <likely>?  1 of 2     1 of 1       –"
    )
    assert "07 How &lt;likely&gt;?" in shown._repr_html_()
    assert str(progress.progress_file()) in progress.report()


def test_table_says_when_the_file_cannot_be_read(one_lesson, path):
    path.parent.mkdir()
    path.write_text("{")
    shown = progress.Progress()
    assert "0 of 2" in repr(shown) and "cannot be read" in repr(shown)
    assert "cannot be read" in shown._repr_html_()


def test_lessons_are_found_with_title_and_without_torch():
    code = (
        "import sys; from course_utils.checks import progress; found = progress.lessons(); "
        "assert found[1].number == '01' and found[1].title and '01/to-text' in found[1].ids['exercise']; "
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
