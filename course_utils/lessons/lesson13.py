"""Lesson 13: predictions, exercise checks and quiz. The helpers whose names begin with `_` compute the answers."""

import functools
import importlib
from typing import Any

import numpy
import torch
from transformers import DynamicCache

from ..checks.exercise import Mistake, exercise
from ..checks.quiz import NumberPrediction, Option, Prediction, Question
from ..models import load
from ..portable import empty_past, exponential, exported, grid, session
from .fixtures import quiet_transformers, usable, warnings_on_the_page  # noqa: F401 (the notebook's)
from .lesson07 import FERRY

PROMPTS = ("It will rain in the", "I want to eat a big bowl of", "My dog is")

# From what older articles import to what is written today.
GONE = {
    "transformers.onnx.OnnxConfig": "torch.onnx.export",
    "transformers.onnx.FeaturesManager": "the model's own class",
    "transformers.models.gpt2.GPT2OnnxConfig": "torch.onnx.export",
    "transformers.convert_graph_to_onnx.convert": "torch.onnx.export",
    "transformers.TFGPT2LMHeadModel": "AutoModelForCausalLM",
    "transformers.FlaxGPT2LMHeadModel": "AutoModelForCausalLM",
    "transformers.generation.tf_utils.TFGenerationMixin": "GenerationMixin",
    "transformers.generation.flax_utils.FlaxGenerationMixin": "GenerationMixin",
}


def is_there(name):
    """Whether the installed library has a dotted name: bool."""
    module, _, last = name.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), last)
    except ImportError:
        return False


# ---- predictions -------------------------------------------------------------------------------------

predict_one_tensor = Prediction(
    "13/predict-one-tensor",
    "In the example for the export, all layers' keys and values are one and the same tensor of zeros: `[(zeros, zeros)] * layers`. What comes of it?",
    options=(
        Option("An error: the layers' caches are different inputs", "The exporter does not ask. It sees one tensor and makes one input of it.", value="error"),
        Option("A file that is right", "With an empty cache it is right, and that is when people test it.", value="right"),
        Option("A file that is wrong, without a word", "One input feeds every layer. It is wrong as soon as there is a cache.", right=True, value="wrong"),
    ),
    proof=lambda: "wrong",  # the cell that follows exports it and compares
)  # fmt: skip

predict_dice = Prediction(
    "13/predict-dice",
    "Sampling without PyTorch, with NumPy's random numbers and the same seed. Are the sampled ids those of `generate()`?",
    options=(
        Option("No: two libraries, two streams of random numbers", "They use the same generator, Mersenne's twister, seeded in the same way.", value="other"),
        Option("Yes, if the numbers are used as torch uses them", "`torch.manual_seed(s)` on the CPU is `numpy.random.RandomState(s)`.", right=True, value="same"),
    ),
    proof=lambda: _same_dice(),
)  # fmt: skip

predict_faster = Prediction(
    "13/predict-faster",
    "The loop in NumPy over onnxruntime, one text, one thread, beside `generate()`. How much faster is it?",
    options=(
        Option("Ten times: all of Python's overhead is gone", "The overhead was a few per cent. Most of the time goes into reading half a gigabyte of weights for each token.", value="ten"),
        Option("Two or three times at most", "Both read the same weights from the same memory, and `generate()` reached a third of the limit or more.", right=True, value="twice"),
        Option("It is slower: NumPy is no tensor library", "NumPy only chooses the token. The pass is onnxruntime's.", value="slower"),
    ),
    proof=lambda: "twice",  # measured in the lesson; no test rests on a clock
)  # fmt: skip

predict_four_bits = NumberPrediction(
    "13/predict-four-bits",
    "The layers' weights are written in 4 bits each. At how many of 100 places of a text does the likeliest token change?",
    key=0,
    unit="places",
    why="None: these weights came from a 4-bit file, so each block of 32 has 16 different values at most, and a grid that begins at the smallest holds them exactly.",
    wrong=(((20, 60), "So many change with a 4-bit tool that picks a grid of its own. Here the grid is the one that the weights lie on."),),
    otherwise="Look at the largest error of a weight, which the cell prints.",
    proof=lambda: _changed_places(),
)  # fmt: skip


def _same_dice():
    with torch.random.fork_rng():
        torch.manual_seed(5)
        ours = exponential(numpy.random.RandomState(5), (2, 50))
        return "same" if numpy.array_equal(torch.empty(2, 50).exponential_().numpy(), ours) else "other"


def _changed_places():
    """0 if the weights of a layer lie on the grid exactly: then nothing can change."""
    weight = load("smollm2-135m", "cpu")[0].model.layers[3].mlp.up_proj.weight.detach().numpy()
    codes, steps, lows = grid(weight)
    again = (codes * steps[..., None] + lows[..., None]).reshape(weight.shape)
    return int((again != weight).sum())


def text_ids(length=100):
    """The beginning of lesson 07's story: int64 array [1, length]."""
    return load("smollm2-135m", "cpu")[1](FERRY, return_tensors="np").input_ids[:, :length]


# ---- the export, for checks ----------------------------------------------------------------------------


class Step(torch.nn.Module):
    """One pass: ids, mask, positions and the cache's tensors in; logits and the longer cache's tensors out."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, position_ids, past):
        cache: Any = DynamicCache(past)
        logits = self.model(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, cache=cache
        ).logits
        return logits, [(layer.keys, layer.values) for layer in cache.layers]


def export(model, path):
    """Write the model's decode step to one ONNX file."""
    config, layers = model.config, range(model.config.num_hidden_layers)
    ids, mask = torch.ones(2, 3, dtype=torch.long), torch.ones(2, 8, dtype=torch.long)
    past = [tuple(torch.zeros(2, 2, config.num_key_value_heads, 5, config.head_dim)) for _ in layers]
    new, axes = {0: "batch", 1: "new"}, {0: "batch", 2: "past"}
    names = [f"{layer}.{part}" for layer in layers for part in ("key", "value")]
    program = torch.onnx.export(
        Step(model).eval(),
        (ids, mask, ids.clone(), past),
        dynamo=True,
        opset_version=23,
        verbose=False,
        dynamic_shapes=(new, {0: "batch", 1: "total"}, new, [(axes, axes)] * len(layers)),
        input_names=["input_ids", "attention_mask", "position_ids", *(f"past.{name}" for name in names)],
        output_names=["logits", *(f"present.{name}" for name in names)],
    )
    assert program is not None
    for node in program.model.graph:
        node.metadata_props.clear()  # this machine's paths, in every node
    program.save(path, external_data=False)


@functools.cache
def small():
    """A small Llama with random weights, its tokenizer, and a session of its exported step."""
    model, tokenizer = load("tiny-llama", "cpu")
    return model, tokenizer, session(exported(export, model, "tiny-llama"), threads=1)


# ---- exercise 1 --------------------------------------------------------------------------------------


def generate(session, ids, mask, new_tokens, end):
    """Greedy decoding of a left-padded batch by an exported step: int64 [batch, length + new]."""
    past, new, going = empty_past(session, len(ids)), ids, numpy.ones(len(ids), bool)
    for _ in range(new_tokens):
        positions = numpy.maximum(mask.cumsum(1) - 1, 0)[:, -new.shape[1] :]
        feed = {"input_ids": new, "attention_mask": mask, "position_ids": positions, **past}
        logits, *cache = session.run(None, feed)
        past = dict(zip(past, cache, strict=True))
        new = numpy.where(going, logits[:, -1].argmax(-1), end)[:, None]
        ids, mask = numpy.hstack([ids, new]), numpy.hstack([mask, numpy.ones_like(new)])
        going &= new[:, 0] != end
        if not going.any():
            break
    return ids


def _batch(prompts):
    _, tokenizer, _ = small()
    rows = [tokenizer(text).input_ids for text in prompts]
    length = max(map(len, rows))
    ids = numpy.array([[0] * (length - len(row)) + row for row in rows])
    return ids, (numpy.arange(length) >= numpy.array([[length - len(row)] for row in rows])).astype("int64")


@torch.no_grad()
def _expected(ids, mask, new_tokens, end):
    model, *_ = small()
    with quiet_transformers():
        return model.generate(
            torch.tensor(ids), attention_mask=torch.tensor(mask), max_new_tokens=new_tokens, do_sample=False,
            eos_token_id=end, pad_token_id=end,
        ).numpy()  # fmt: skip


class _Watched:
    """A session that counts its passes and the ids that they are given."""

    def __init__(self, inner):
        self.inner, self.widths, self.first = inner, [], None

    def get_inputs(self):
        return self.inner.get_inputs()

    def run(self, names, feed):
        self.widths.append(numpy.asarray(feed["input_ids"]).shape[1])
        if self.first is None:
            self.first = numpy.asarray(feed["position_ids"])
        return self.inner.run(names, feed)


@exercise("13/generate", title="Write generate() without PyTorch", minutes=20, difficulty=3)
def check_generate(answer):
    """One text and ragged batches, with ends that never come, come early, and come for one row."""
    _, _, inner = small()
    for prompts in (PROMPTS[:1], PROMPTS):
        ids, mask = _batch(prompts)
        free = _expected(ids, mask, 6, 50256)
        length = ids.shape[1]
        for end in (50256, int(free[0, length + 1]), int(free[-1, length])):
            want = _expected(ids, mask, 6, end)
            watched = _Watched(inner)
            try:
                got = answer(watched, ids.copy(), mask.copy(), 6, end)
            except Exception as error:
                if "INVALID_ARGUMENT" in str(error) or "Invalid" in type(error).__name__:
                    raise Mistake(f"onnxruntime refuses an input. Names and types: `input_ids`, `attention_mask` and `position_ids` are int64, the cache's are float32. ({str(error)[:160]})") from None  # fmt: skip
                raise
            if not isinstance(got, numpy.ndarray) or got.ndim != 2 or len(got) != len(ids):
                raise Mistake("Return one array of ids, (batch, length and new).")
            if got.shape[1] == want.shape[1] - length and numpy.array_equal(got, want[:, length:]):
                raise Mistake("These are only the new ids. `generate()` returns the prompt as well.")
            said = f"For {len(ids)} text{'s' * (len(ids) > 1)} and the end {end}: "
            if got.shape != want.shape:
                more = "more" if got.shape[1] > want.shape[1] else "fewer"
                raise Mistake(said + f"{got.shape[1] - length} new tokens, {more} than the {want.shape[1] - length} expected. Stop when every row has written its end, not before.")  # fmt: skip
            if numpy.array_equal(got, want):
                if len(watched.widths) > 1 and max(watched.widths[1:]) > 1:
                    raise Mistake("The ids are right, but each pass reads the whole text again. Give back the cache, and only the new token.")  # fmt: skip
                real = mask.astype(bool)
                if watched.first is None or not numpy.array_equal(
                    watched.first[real], (mask.cumsum(1) - 1)[real]
                ):
                    raise Mistake("The ids are right, since Llama forgives positions that are all shifted alike. GPT-2's table would not: count them by the mask, 0 at the first real token.")  # fmt: skip
                continue
            if (
                numpy.array_equal(got[:, : length + 1], want[:, : length + 1])
                and len(ids) == 1
                and end == 50256
            ):
                raise Mistake(said + "the first new token is right, and later ones are not. The mask covers the cache as well, so it grows by a column; the position is the token's own.")  # fmt: skip
            ended = (want[:, length:] == end).any(1) & (want[:, -1] == end)
            if not numpy.array_equal(got, want) and any(
                numpy.array_equal(got[row], free[row][: want.shape[1]])
                and not numpy.array_equal(got[row], want[row])
                for row in numpy.flatnonzero(ended)
            ):
                raise Mistake(said + "a row goes on after its end. Write the end in place of its choices.")
            if numpy.array_equal(got[-1], want[-1]) or len(ids) > 1:
                raise Mistake(said + "padded rows are wrong. Hand the mask on, a column of ones longer with each pass, and take the positions from it.")  # fmt: skip
            raise Mistake(said + "other ids than generate()'s.")
    return "The ids are generate()'s, and no line of it needs PyTorch."


def usable_generate(yours):
    """The learner's `generate` if it passes its check, else the course's."""
    return usable(check_generate, yours, generate, "generate")


# ---- exercise 2 --------------------------------------------------------------------------------------


def draw(logits, random, temperature):
    """One token a row, as torch.multinomial draws it after the same seed: int64 [batch]."""
    scores = logits / numpy.float32(temperature)
    powers = numpy.exp(scores - scores.max(-1, keepdims=True))
    probs = powers / powers.sum(-1, keepdims=True)
    return (probs / exponential(random, probs.shape)).argmax(-1)


@exercise("13/draw", title="Draw as torch draws", minutes=8, difficulty=2)
def check_draw(answer):
    """Several rows, temperatures and seeds, several draws from one stream, large logits."""
    generator = torch.Generator().manual_seed(1)
    for seed, temperature, scale in ((0, 1.0, 3), (1, 0.5, 3), (2, 2.0, 3), (3, 1.0, 300)):
        logits = torch.randn(4, 40, generator=generator) * scale
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            want = [torch.multinomial((logits / temperature).softmax(-1), 1)[:, 0].numpy() for _ in range(5)]
        random = numpy.random.RandomState(seed)
        got = []
        for _ in range(5):
            with numpy.errstate(all="ignore"):
                got.append(numpy.asarray(answer(logits.numpy().copy(), random, temperature)))
        if any(one.shape != (4,) for one in got):
            raise Mistake(f"Return one id a row, shape (4,); got {got[0].shape}.")
        if all(numpy.array_equal(one, other) for one, other in zip(got, want, strict=True)):
            continue
        if all(numpy.array_equal(one, logits.argmax(-1).numpy()) for one in got):
            raise Mistake("This is greedy: the random numbers have no effect.")
        if scale == 300:
            raise Mistake("Large logits overflow in `exp`. Subtract the largest of each row before it.")
        plain = numpy.random.RandomState(seed)
        if all(numpy.array_equal(one, draw(logits.numpy(), plain, 1.0)) for one in got) and temperature != 1:
            raise Mistake("The temperature has no effect.")
        turned = numpy.random.RandomState(seed)
        if (
            all(numpy.array_equal(one, draw(logits.numpy(), turned, 1 / temperature)) for one in got)
            and temperature != 1
        ):
            raise Mistake("The logits are multiplied by the temperature. Divide.")
        if all(numpy.array_equal(one, other) for one, other in zip(got[:1], want[:1], strict=True)):
            raise Mistake("The first draw is right, the later ones are not: draw from the stream once a call, and do not seed it anew.")  # fmt: skip
        raise Mistake("Other ids than torch's. Divide the probabilities by exponential numbers and take the largest: `probs / lesson.exponential(random, probs.shape)`.")  # fmt: skip
    return "The same ids as torch.multinomial after the same seed, draw after draw."


def usable_draw(yours):
    """The learner's `draw` if it passes its check, else the course's."""
    return usable(check_draw, yours, draw, "draw")


# ---- exercise 3 --------------------------------------------------------------------------------------


def bytes_a_token(config, weights, length):
    """The bytes that one decode step reads in float32: all weights, and keys and values of `length` tokens."""
    return weights + 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4 * length


@exercise("13/bytes", title="What does a decode step read?", minutes=6, difficulty=1)
def check_bytes(answer):
    """Two shapes of a model, with few and with many tokens in the cache."""
    from types import SimpleNamespace

    for layers, heads, shared, size in ((30, 9, 3, 64), (4, 4, 2, 16)):
        config = SimpleNamespace(
            num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=shared, head_dim=size,
            hidden_size=heads * size,
        )  # fmt: skip
        for length in (0, 1, 1000):
            got, want = answer(config, 500_000, length), bytes_a_token(config, 500_000, length)
            if isinstance(got, bool) or not isinstance(got, int | float | numpy.number):
                raise Mistake(f"Return one number; got {type(got).__name__}.")
            if got == want:
                continue
            cache = got - 500_000
            right = want - 500_000
            said = f"For {layers} layers, {shared} key-value heads of {size} and {length} tokens, got {got:,}, expected {want:,}. "  # fmt: skip
            if got == right:
                raise Mistake(said + "The weights are missing: a step reads every one of them.")
            if cache * 2 == right:
                raise Mistake(said + "Keys *and* values are read, twice as much.")
            if cache * shared == right * heads:
                raise Mistake(said + "Count the heads of keys and values, `num_key_value_heads`. Several query heads share one.")  # fmt: skip
            if cache * 4 == right:
                raise Mistake(said + "These are numbers, not bytes: float32 takes 4.")
            if cache * layers == right:
                raise Mistake(said + "This is the cache of one layer.")
            raise Mistake(
                said + "Weights, and 2 × layers × heads × size × 4 bytes for each token of the cache."
            )
    return "The weights once, and the cache of every token."


# ---- quiz --------------------------------------------------------------------------------------------

quiz = (
    Question(
        "13/quiz-mask",
        "An exported step is right for one text and wrong for a padded batch. Which is the likeliest cause?",
        options=(
            Option("The wrapper takes the mask and does not hand it on", "The input exists, so nothing complains.", right=True),
            Option("ONNX has no padding", "It has whatever the graph computes."),
            Option("The tokenizer pads on the left", "It should, and the mask says so."),
        ),
    ),
    Question(
        "13/quiz-speed",
        "A model of twice the weights, float32, batch 1. How fast does it decode on the same machine?",
        options=(
            Option("Half as fast", "A step reads every weight once, and the memory is the limit.", right=True),
            Option("A quarter as fast", "Operations and bytes both double, no more."),
            Option("As fast, if there are cores enough", "More cores wait for the same memory."),
        ),
    ),
    Question(
        "13/quiz-bits",
        "int8 has twice the bits of this lesson's 4. Why is it worse here?",
        options=(
            Option("It rounds the activations too, with one step for a whole tensor", "A few huge numbers set the step, and it is too coarse for all others.", right=True),
            Option("8 bits hold fewer values", "They hold 256, and 4 bits hold 16."),
            Option("Its weights are rounded more coarsely", "Its weights are finer. It is the activations."),
        ),
    ),
)  # fmt: skip
