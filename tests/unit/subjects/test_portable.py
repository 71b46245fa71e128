"""The exported step: kept, opened, drawn for and written on its grid."""

import subprocess
import sys

import numpy
import pytest
import torch

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from course_utils import CourseError, load, portable
from course_utils.lessons import lesson13


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("course_utils.models.bundled.assets.cache_folder", lambda: tmp_path)
    return tmp_path


def half_a_file(model, path):
    with open(path, "wb") as file:
        file.write(b"half")
    raise RuntimeError("stopped")


def quick(model, path):
    with open(path, "wb") as file:
        file.write(b"whole")


def test_a_file_is_made_once_and_never_half(cache, capsys):
    with pytest.raises(RuntimeError):
        portable.exported(half_a_file, None, "one")
    assert not list((cache / "onnx").iterdir())
    path = portable.exported(quick, None, "one")
    assert path.read_bytes() == b"whole" and "Done in" in capsys.readouterr().out
    assert portable.exported(quick, None, "one") == path and not capsys.readouterr().out
    assert [one.name for one in (cache / "onnx").iterdir()] == [path.name]


def test_what_cannot_be_opened_is_a_sentence(tmp_path, monkeypatch):
    with pytest.raises(CourseError, match="There is no file"):
        portable.session(tmp_path / "none.onnx")
    (tmp_path / "cut.onnx").write_bytes(b"\x08\x0a")
    with pytest.raises(CourseError, match="it is damaged, cut off, or no model"):
        portable.session(tmp_path / "cut.onnx")
    with pytest.raises(CourseError, match="This onnxruntime has no NoSuchProvider"):
        portable.session(tmp_path / "cut.onnx", provider="NoSuchProvider")
    monkeypatch.setattr(portable, "PACKAGES", ("onnx", "no_such_package"))
    with pytest.raises(CourseError, match=r"no_such_package is not installed. Type in a cell: %pip install"):
        portable.check_packages()


def test_the_exported_step_has_the_models_logits():
    model, _, session = lesson13.small()
    ids = numpy.arange(100, 112)[None]
    with torch.no_grad():
        wanted = model(torch.tensor(ids)).logits[0].numpy()
    numpy.testing.assert_allclose(portable.logits_of(session, ids), wanted, atol=1e-4)


@pytest.mark.parametrize("seed", [0, 5, 2**31])
def test_exponential_numbers_are_torchs(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        wanted = [torch.empty(shape).exponential_().numpy() for shape in ((7, 33), (100,))]
    random = numpy.random.RandomState(seed)
    for one, shape in zip(wanted, ((7, 33), (100,)), strict=True):
        assert numpy.array_equal(portable.exponential(random, shape), one)


def test_weights_on_a_grid_are_kept_exactly_and_others_nearly():
    random = numpy.random.RandomState(0)
    steps, lows = random.rand(6, 4).astype("float32") + 0.1, random.randn(6, 4).astype("float32")
    codes = random.randint(0, 16, (6, 4, 32))
    codes[..., 0], codes[..., 1] = 0, 15
    weights = (codes * steps[..., None] + lows[..., None]).reshape(6, 128).astype("float32")
    found, size, low = portable.grid(weights)
    assert numpy.array_equal(found, codes)
    numpy.testing.assert_allclose(
        (found * size[..., None] + low[..., None]).reshape(6, 128), weights, atol=1e-5
    )
    with pytest.raises(CourseError, match="A block has 32 weights"):
        portable.grid(weights[:, :100])


def test_a_file_on_a_grid_gives_nearly_the_same_logits(tmp_path):
    model, _, session = lesson13.small()
    source = portable.exported(lesson13.export, model, "tiny-llama")
    error = portable.write_on_grid(source, tmp_path / "four.onnx")
    assert error > 0  # random weights lie on no grid
    four = portable.session(tmp_path / "four.onnx")
    assert (tmp_path / "four.onnx").stat().st_size < source.stat().st_size
    ids = numpy.arange(100, 112)[None]
    one, other = (portable.logits_of(each, ids) for each in (session, four))
    assert 0 < abs(one - other).max() < abs(one).max()


def test_the_bundled_weights_lie_on_the_grid():
    weight = load("smollm2-135m", "cpu")[0].model.layers[7].self_attn.q_proj.weight.detach().numpy()
    codes, steps, lows = portable.grid(weight)
    assert numpy.array_equal((codes * steps[..., None] + lows[..., None]).reshape(weight.shape), weight)


def test_importing_it_imports_no_torch():
    code = (
        "import sys; from course_utils import portable; print('torch' in sys.modules, 'onnx' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_bandwidth_is_positive_and_leaves_the_threads():
    before = torch.get_num_threads()
    assert portable.bandwidth(threads=1, size=2**22, rounds=2) > 0
    assert torch.get_num_threads() == before
