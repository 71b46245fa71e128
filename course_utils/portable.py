"""A decode step as an ONNX file: made once and kept, opened, and written on the grid that its weights lie on.

Nothing here imports torch when it is imported, and onnx and onnxruntime only where they are used.
"""

import contextlib
import hashlib
import importlib.util
import inspect
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy

from .errors import CourseError

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_BLOCK = 32  # weights that share a smallest value and a step


def check_packages() -> None:
    """Raise CourseError, with the line to type, where onnx, onnxscript or onnxruntime is missing."""
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise CourseError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed. Type in a cell: "
            f"%pip install {' '.join(missing)}"
        )


def exported(export: Callable[[Any, str], None], model: Any, name: str) -> Path:
    """The file that `export(model, path)` writes, made the first time and kept beside the prepared models.

    name: str, of the model. The file is made anew for another release of torch or transformers, or another
    text of the function. Half a file is never kept. Raises CourseError where a package is missing.
    """
    check_packages()
    import torch
    import transformers

    from .models.bundled.assets import cache_folder

    text = inspect.getsource(export) + torch.__version__ + transformers.__version__
    path = cache_folder() / "onnx" / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.onnx"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        print(f"Exporting {name} once; a model of 135 million weights takes about a minute …", flush=True)
        begun, unfinished = time.perf_counter(), path.with_suffix(f".{os.getpid()}.part")
        try:
            with quiet_export():
                export(model, str(unfinished))
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
        print(f"Done in {time.perf_counter() - begun:.0f} s.")
    return path


@contextlib.contextmanager
def quiet_export() -> Iterator[None]:
    """Within it the exporter says nothing of axis names, torchvision and its own deprecations."""
    log = logging.getLogger("torch.onnx")
    level, before = log.level, os.environ.get("TRANSFORMERS_SDPA_FORCE_GQA")
    log.setLevel(logging.ERROR)
    os.environ["TRANSFORMERS_SDPA_FORCE_GQA"] = "1"  # keys and values are not repeated for each query head
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
        if before is None:
            del os.environ["TRANSFORMERS_SDPA_FORCE_GQA"]
        else:
            os.environ["TRANSFORMERS_SDPA_FORCE_GQA"] = before


def session(path: str | Path, threads: int | None = None, provider: str = "CPUExecutionProvider") -> Any:
    """An onnxruntime session for the file. threads: int, None for as many as onnxruntime takes.

    Raises CourseError for a file that is missing or cut off, and for a provider that is not there.
    """
    check_packages()
    import onnxruntime

    if not Path(path).is_file():
        raise CourseError(f"There is no file {str(path)!r}. Export the model first.")
    if provider not in (known := onnxruntime.get_available_providers()):
        raise CourseError(f"This onnxruntime has no {provider}. It has {', '.join(known)}.")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:  # onnxruntime has a class for each of its codes, none of them public
        raise CourseError(
            f"onnxruntime cannot open {Path(path).name}: it is damaged, cut off, or no model. Delete it and "
            f"export it again. ({type(error).__name__})"
        ) from None


def empty_past(session: Any, batch: int) -> dict[str, numpy.ndarray]:
    """A cache with nothing in it, by input name: float32 [batch, heads, 0, size] each."""
    inputs = [one for one in session.get_inputs() if one.name.startswith("past")]
    return {one.name: numpy.zeros((batch, one.shape[1], 0, one.shape[3]), "float32") for one in inputs}


def logits_of(session: Any, ids: numpy.ndarray) -> numpy.ndarray:
    """The logits of one pass over a text: float32 [length, vocab]. ids: int64 [1, length]"""
    positions = numpy.arange(ids.shape[1])[None]
    feed = {"input_ids": ids, "attention_mask": numpy.ones_like(ids), "position_ids": positions}
    return session.run(None, feed | empty_past(session, 1))[0][0]


def exponential(random: numpy.random.RandomState, shape: tuple[int, ...]) -> numpy.ndarray:
    """What `torch.empty(shape).exponential_()` draws on the CPU after manual_seed, bit for bit: float32.

    random: RandomState of the same seed: torch's generator is NumPy's. A draw takes 53 bits of two numbers.
    """
    high, low = numpy.moveaxis(random.randint(0, 2**32, (*shape, 2), numpy.uint64), -1, 0)
    uniform = ((high << numpy.uint64(32) | low) & numpy.uint64(2**53 - 1)) / 2**53
    return -numpy.log1p(-uniform).astype("float32")


def bandwidth(threads: int = 1, size: int = 2**28, rounds: int = 5) -> float:
    """Bytes a second that this machine reads: float, the best of `rounds` products of matrix and vector and
    as many sums. Which is faster depends on the processor, and the memory can do what the faster one does.

    size: int, bytes of the matrix, far more than the processor's caches hold
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        matrix, vector = torch.ones(max(size // 4 // 16_384, 1), 16_384), torch.ones(16_384)
        best = 0.0
        for read in [lambda: torch.mv(matrix, vector), matrix.sum] * rounds:
            begun = time.perf_counter()
            read()
            best = max(best, matrix.nbytes / (time.perf_counter() - begun))
        return best
    finally:
        torch.set_num_threads(before)


# ---- the grid ----------------------------------------------------------------------------------------


def grid(weights: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
    """Weights as 16 steps above the smallest of each block of 32: (codes uint8, steps, lows).

    weights: float32 [rows, columns], columns divisible by 32; codes [rows, blocks, 32], the others
    [rows, blocks]. A weight is low + step * code, exactly so if the weights lay on such a grid before.
    """
    if weights.ndim != 2 or weights.shape[1] % _BLOCK:
        raise CourseError(
            f"A block has {_BLOCK} weights, and the shape is {weights.shape}. Give whole blocks."
        )
    blocks = weights.reshape(len(weights), -1, _BLOCK)
    lows = blocks.min(-1)
    steps = (blocks.max(-1) - lows) / 15
    steps[steps == 0] = 1
    return numpy.rint((blocks - lows[..., None]) / steps[..., None]).astype(numpy.uint8), steps, lows


def write_on_grid(source: str | Path, target: str | Path) -> float:
    """Write the file `source`, a decode step with float weights, with its layers' weights in 4 bits each.

    The embedding, which is also the head, stays as it is. Every product x W becomes two: one with the 4-bit
    codes (onnxruntime's MatMulNBits) and one of the block's sums of x with the smallest weights.
    Returns the largest error of a weight: float, 0.0 if all weights lay on the grid.
    """
    check_packages()
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(str(source))
    graph = model.graph
    weights = {one.name: one for one in graph.initializer}
    made, dropped, nodes, sums, worst = {}, set(), [], set(), 0.0

    def add(name, array):
        made[name] = numpy_helper.from_array(numpy.ascontiguousarray(array), name)
        return name

    last_axis = add("last_axis", numpy.array([-1]))
    for node in graph.node:
        if node.op_type != "MatMul" or node.input[1] not in weights:
            nodes.append(node)
            continue
        x, name = node.input
        (out,) = node.output
        matrix = numpy_helper.to_array(weights[name]).T  # (out, in)
        codes, steps, lows = grid(matrix)
        worst = max(
            worst, float(abs(codes * steps[..., None] + lows[..., None] - matrix.reshape(codes.shape)).max())
        )
        rows, blocks = steps.shape
        shape = add(f"blocks_{blocks}", numpy.array([0, 0, blocks, _BLOCK]))
        add(f"{name}.codes", codes[..., 0::2] | codes[..., 1::2] << 4)
        add(f"{name}.steps", steps)
        add(f"{name}.zeros", numpy.zeros((rows, (blocks + 1) // 2), numpy.uint8))
        add(f"{name}.lows", lows.T)
        if x not in sums:  # queries, keys and values read the same x
            nodes += [
                helper.make_node("Reshape", [x, shape], [f"{x}.blocks"]),
                helper.make_node("ReduceSum", [f"{x}.blocks", last_axis], [f"{x}.sums"], keepdims=0),
            ]
            sums.add(x)
        sizes = {"K": blocks * _BLOCK, "N": rows, "bits": 4, "block_size": _BLOCK}
        inputs = [x, *(f"{name}.{part}" for part in ("codes", "steps", "zeros"))]
        nodes += [
            helper.make_node("MatMulNBits", inputs, [f"{out}.above"], domain="com.microsoft", **sizes),
            helper.make_node("MatMul", [f"{x}.sums", f"{name}.lows"], [f"{out}.low"]),
            helper.make_node("Add", [f"{out}.above", f"{out}.low"], [out]),
        ]
        dropped.add(name)
    kept = [one for one in graph.initializer if one.name not in dropped]
    del graph.initializer[:], graph.node[:], graph.value_info[:]
    graph.initializer.extend([*kept, *made.values()])
    graph.node.extend(nodes)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, str(target))
    return worst
