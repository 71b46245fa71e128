# %% [markdown]
# # What is left when PyTorch is gone?
#
# **By the end a process that never imports PyTorch will have written the ids of `generate()`, greedy and sampled, and
# you will know how far each way of decoding is from what this machine's memory allows.**
#
# You will be able to
#
# - say what became of the library's own ONNX, TensorFlow and Flax code,
# - export a decode step with its cache, and name two mistakes that nothing reports,
# - write the whole loop in NumPy, for padded batches and for sampling,
# - say what four bits and eight bits cost here, and what is rounded,
# - compute the fastest that a decode step can be, and measure how near to it you are.
#
# *50 minutes, and another 34 for the exercises. You need: lessons 04 to 06, and 12.*

# %% [markdown]
# ## 1. What is gone
#
# Older articles leave PyTorch by way of `transformers.onnx`, or by the TensorFlow and Flax classes of each model. The
# installed library has none of them:

# %%
import inspect
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy
import torch
from transformers import DynamicCache

from course_utils import load, needs_transformers, portable
from course_utils.lessons import lesson13 as lesson
from course_utils.plots import grouped_bars, histogram
from course_utils.widgets import Predict, Quiz

needs_transformers("5.24")  # the first release that calls the cache `cache`
page = lesson.warnings_on_the_page()
torch.set_grad_enabled(False)
for name, today in lesson.GONE.items():
    print(f"{name:54} {'there' if lesson.is_there(name) else 'gone'}; today {today}")

# %% [markdown]
# What is left is better: PyTorch itself exports any model. ONNX is a file format for computations: a **graph** of
# operations and their weights, which other programs run. We use `onnxruntime`, which knows nothing of Python models.
# How large is what a program has to bring along?

# %% tags=["nbval-ignore-output"]
from importlib.metadata import files

portable.check_packages()  # says what to type if one of the three packages is missing
packages = ("torch", "transformers", "onnxruntime", "tokenizers", "numpy")
installed = {name: {"MB": round(sum(file.size or 0 for file in files(name)) / 1e6)} for name in packages}
grouped_bars(installed, "What is installed", "MB")

# %% [markdown]
# ## 2. One step as a file
#
# What is to be exported? Not `generate()`: its loop depends on the data, and ends when it likes. One **decode step**
# has a fixed form (lesson 04): ids, mask, positions and the cache go in, logits and the longer cache come out.

# %%
class Step(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, position_ids, past):  # past: (keys, values) for each layer
        cache = DynamicCache(past)
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids}
        logits = self.model(**inputs, cache=cache).logits
        return logits, [(layer.keys, layer.values) for layer in cache.layers]

# %% [markdown]
# The exporter runs the step once on an example and writes down what happens. So the example must not be special: two
# rows, three new tokens, five in the cache. `dynamic_shapes` names the sizes that may change. (With one new token, the
# natural choice, the exporter takes that size for fixed and fails. `portable.exported` also sets an option that keeps keys
# and values from being repeated for each query head.)

# %%
def export(model, path):
    config, layers = model.config, range(model.config.num_hidden_layers)
    ids, mask = torch.ones(2, 3, dtype=torch.long), torch.ones(2, 8, dtype=torch.long)
    past = [tuple(torch.zeros(2, 2, config.num_key_value_heads, 5, config.head_dim)) for _ in layers]
    new, axes = {0: "batch", 1: "new"}, {0: "batch", 2: "past"}
    names = [f"{layer}.{part}" for layer in layers for part in ("key", "value")]
    program = torch.onnx.export(
        Step(model).eval(), (ids, mask, ids.clone(), past), dynamo=True, opset_version=23, verbose=False,
        dynamic_shapes=(new, {0: "batch", 1: "total"}, new, [(axes, axes)] * len(layers)),
        input_names=["input_ids", "attention_mask", "position_ids", *(f"past.{name}" for name in names)],
        output_names=["logits", *(f"present.{name}" for name in names)],
    )  # fmt: skip
    for node in program.model.graph:
        node.metadata_props.clear()  # the paths of this machine's files, in every node
    program.save(path, external_data=False)

# %% [markdown]
# The real model takes about a minute, once; the file is kept. What is in it?

# %% tags=["nbval-ignore-output"]
model, tokenizer = load(device="cpu")
path = portable.exported(export, model, "smollm2")

# %%
import onnx
from collections import Counter

graph = onnx.load(path).graph
kinds = Counter(node.op_type for node in graph.node)
print(f"{path.stat().st_size / 1e6:.0f} MB, {len(graph.node)} nodes, {len(graph.input)} inputs, {len(graph.output)} outputs")
grouped_bars({kind: {"nodes": count} for kind, count in kinds.most_common(9)}, "What a decode step is made of", "nodes")

# %% [markdown]
# 30 layers: 30 nodes of attention, 61 norms (two a layer and the last), 211 products of matrices (seven a layer and the
# head). The 60 inputs beside ids, mask and positions are the cache.

# %%
assert kinds["Attention"] == 30 and kinds["RMSNormalization"] == 61 and kinds["MatMul"] == 211

# %% [markdown]
# ### Two mistakes that nobody reports
#
# The first: the mask is an input of the wrapper and is not handed on. The file still has the input, and ignores it: right
# for one text, wrong for a padded batch. (Lost positions stop the run with an error.) The second is subtler:

# %%
Predict(lesson.predict_one_tensor)

# %% tags=["answer", "nbval-ignore-output"]
print("one tensor for all layers:")
small, _, right = lesson.small()  # a small Llama, and a session of its file
text = inspect.getsource(export).replace("def export", "def export_one_tensor")
old = "[tuple(torch.zeros(2, 2, config.num_key_value_heads, 5, config.head_dim)) for _ in layers]"
assert old in text
exec(text.replace(old, "[(torch.zeros(2, config.num_key_value_heads, 5, config.head_dim),) * 2] * len(layers)"))
with portable.quiet_export():
    export_one_tensor(small, f"{tempfile.gettempdir()}/one_tensor.onnx")
wrong = portable.session(f"{tempfile.gettempdir()}/one_tensor.onnx")
start, more = numpy.array([[11, 12, 13]]), numpy.array([[14]])
feed = {"input_ids": start, "attention_mask": numpy.ones((1, 3), int), "position_ids": numpy.arange(3)[None]}
_, *cache = right.run(None, feed | portable.empty_past(right, 1))
feed = {"input_ids": more, "attention_mask": numpy.ones((1, 4), int), "position_ids": numpy.array([[3]])}
feed |= dict(zip(portable.empty_past(right, 1), cache))
for name, step in (("right", right), ("one tensor", wrong)):
    empty = abs(portable.logits_of(step, start) - portable.logits_of(right, start)).max()
    filled = abs(step.run(None, feed)[0] - right.run(None, feed)[0]).max()
    print(f"{name:11} {len(step.get_inputs())} inputs; wrong with an empty cache: {empty > 1e-3}, with a filled one: {filled > 1e-3}")

# %% [markdown]
# All inputs are there, and with an empty cache the file is right, so a quick test passes. From the second token on
# every layer reads one and the same cache. No error and no warning.
#
# ## 3. The loop in NumPy
#
# A session takes a dictionary of arrays by name and returns the outputs in order. `portable.empty_past` gives the cache
# with nothing in it:

# %%
step = portable.session(path)
prompt = numpy.array([tokenizer("The capital of France is").input_ids])
feed = {"input_ids": prompt, "attention_mask": numpy.ones_like(prompt), "position_ids": numpy.arange(5)[None]}
logits, *cache = step.run(None, feed | portable.empty_past(step, batch=1))
print(logits.shape, len(cache), cache[0].shape, tokenizer.decode(logits[0, -1].argmax()))

# %% [markdown]
# ### Exercise 1: Write generate() without PyTorch · difficulty 3 of 3 · 20 minutes
#
# Greedy decoding of a left-padded batch: `ids` and `mask` are int64 arrays (batch, length). Return the prompt and the
# ids, at most `new_tokens`. A row that has written `end` is filled up with it; stop when all rows have. Each pass
# after the first reads one new token a row. Use `numpy` and `portable` only: section 4 runs your function in a process of
# its own.

# %% tags=["exercise"]
def generate(session, ids, mask, new_tokens: int, end: int) -> numpy.ndarray:
    """Return int64 (batch, length + new), as model.generate() does with greedy decoding."""
    raise NotImplementedError

# %% tags=["solution"]
def generate(session, ids, mask, new_tokens: int, end: int) -> numpy.ndarray:
    """Return int64 (batch, length + new), as model.generate() does with greedy decoding."""
    past, new, going = portable.empty_past(session, len(ids)), ids, numpy.ones(len(ids), bool)
    for _ in range(new_tokens):
        positions = numpy.maximum(mask.cumsum(1) - 1, 0)[:, -new.shape[1] :]
        feed = {"input_ids": new, "attention_mask": mask, "position_ids": positions, **past}
        logits, *cache = session.run(None, feed)
        past = dict(zip(past, cache))
        new = numpy.where(going, logits[:, -1].argmax(-1), end)[:, None]
        ids, mask = numpy.hstack([ids, new]), numpy.hstack([mask, numpy.ones_like(new)])
        going &= new[:, 0] != end
        if not going.any():
            break
    return ids

# %% [markdown] tags=["solution"]
# Lesson 05's loop, line by line. The cache has to be handed over by hand: the outputs come in the order of the inputs,
# so `zip` names them. (Llama's rotations would forgive positions that are all shifted alike, GPT-2's table would not.)

# %% tags=["check"]
lesson.check_generate(generate)

# %% [markdown] tags=["hints"]
# - Keep five things: all ids, the mask of all ids, what is new, the cache, and which rows are still going.
# - Positions are `mask.cumsum(1) - 1`, not below 0; a pass needs the last ones, as many as there are new ids.
# - `dict(zip(past, cache))` gives the outputs the names of the inputs. `numpy.where(going, chosen, end)` fills up.

# %%
ours = lesson.usable_generate(generate)
tokenizer.padding_side = "left"
batch = tokenizer(list(lesson.PROMPTS), return_tensors="np", padding=True)
found = ours(step, batch.input_ids, batch.attention_mask, 12, tokenizer.eos_token_id)
inputs = {name: torch.tensor(array) for name, array in batch.items()}
wanted = model.generate(**inputs, max_new_tokens=12, do_sample=False, pad_token_id=tokenizer.eos_token_id)
assert numpy.array_equal(found, wanted.numpy())
for row in found:
    print(repr(tokenizer.decode(row, skip_special_tokens=True)))

# %% [markdown]
# The ids of `generate()`, on a padded batch of the real model. The logits differ by less than 0.001, as lesson 12
# explains; no choice turned.
#
# ### Exercise 2: Draw as torch draws · difficulty 2 of 3 · 8 minutes
#
# Sampling needs random numbers. `torch.multinomial` draws one token as a race (lesson 06): it divides each probability
# by an exponential random number and takes the largest. `lesson.exponential(random, shape)` gives such numbers from a
# `numpy.random.RandomState`.

# %%
Predict(lesson.predict_dice)

# %% tags=["answer"]
torch.manual_seed(7)
random = numpy.random.RandomState(7)
same = numpy.array_equal(torch.empty(3, 1000).exponential_().numpy(), lesson.exponential(random, (3, 1000)))
print("3,000 numbers of torch and of NumPy, equal bit for bit:", same)

# %% tags=["exercise"]
def draw(logits, random, temperature: float) -> numpy.ndarray:
    """Return one id a row, (batch,), drawn from logits (batch, vocab) at a temperature."""
    raise NotImplementedError

# %% tags=["solution"]
def draw(logits, random, temperature: float) -> numpy.ndarray:
    """Return one id a row, (batch,), drawn from logits (batch, vocab) at a temperature."""
    scores = logits / numpy.float32(temperature)
    powers = numpy.exp(scores - scores.max(-1, keepdims=True))
    probs = powers / powers.sum(-1, keepdims=True)
    return (probs / portable.exponential(random, probs.shape)).argmax(-1)

# %% [markdown] tags=["solution"]
# `random` moves on with each call, as torch's generator does. Subtracting the largest logit keeps `exp` finite.

# %% tags=["check"]
lesson.check_draw(draw)

# %% [markdown] tags=["hints"]
# - Softmax in NumPy: subtract each row's largest score, `numpy.exp`, divide by the row's sum.
# - One call of `lesson.exponential(random, probs.shape)` for all rows.
# - The id with the largest quotient of probability and exponential number wins.

# %% [markdown]
# A greedy loop becomes a sampling loop in one place: where the token is chosen. `Sampled` hands the logits of your loop
# to `draw` and returns ones in which the drawn token is the largest:

# %%
class Sampled:
    def __init__(self, session, draw, random, temperature):
        self.session, self.draw, self.random, self.temperature = session, draw, random, temperature

    def get_inputs(self):
        return self.session.get_inputs()

    def run(self, names, feed):
        logits, *cache = self.session.run(names, feed)
        chosen = self.draw(logits[:, -1], self.random, self.temperature)
        logits[numpy.arange(len(logits)), -1, chosen] = numpy.inf
        return logits, *cache


drawn = lesson.usable_draw(draw)
sampled = ours(Sampled(step, drawn, numpy.random.RandomState(3), 0.8), batch.input_ids, batch.attention_mask, 12, tokenizer.eos_token_id)
torch.manual_seed(3)
wanted = model.generate(**inputs, max_new_tokens=12, do_sample=True, top_k=0, temperature=0.8, pad_token_id=2)
assert numpy.array_equal(sampled, wanted.numpy())
print(repr(tokenizer.decode(sampled[0], skip_special_tokens=True)))

# %% [markdown]
# ## 4. A process without PyTorch
#
# Your functions use NumPy and a session. So they run in a process of their own. The tokenizer needs no transformers
# either: `tokenizers` reads its one file. We write the script, run it, and ask what it has imported.

# %%
script = f"""
import time
begun = time.perf_counter()
import json, sys
import numpy
import onnxruntime
from tokenizers import Tokenizer
from course_utils import portable
from course_utils.portable import empty_past
imported = time.perf_counter() - begun

{inspect.getsource(ours)}

folder, path = sys.argv[1:]
tokenizer = Tokenizer.from_file(folder + "/tokenizer.json")
ids = numpy.array([tokenizer.encode("The capital of France is").ids])
out = generate(portable.session(path, threads=1), ids, numpy.ones_like(ids), 8, 2)
print(json.dumps({{"ids": out[0].tolist(), "torch": bool({{"torch", "transformers"}} & set(sys.modules)), "modules": len(sys.modules), "seconds": imported}}))
"""


def run(script, *arguments):
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError("the other process failed: " + done.stderr.strip().splitlines()[-1])
    return json.loads(done.stdout.splitlines()[-1])


tokenizer_folder = tempfile.mkdtemp()
tokenizer.save_pretrained(tokenizer_folder)
without = run(script, tokenizer_folder, str(path))
wanted = model.generate(torch.tensor(prompt), max_new_tokens=8, do_sample=False, pad_token_id=2)[0].tolist()
assert without["ids"] == wanted and not without["torch"]
print("torch or transformers imported:", without["torch"], " the same ids:", without["ids"] == wanted)

# %% [markdown]
# **The result of this lesson, first half**: the ids of `generate()`, from a process that never imported PyTorch or
# transformers. What has it saved? The usual imports, in a process of their own:

# %% tags=["nbval-ignore-output"]
with_torch = run("""
import time
begun = time.perf_counter()
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
print(json.dumps({"modules": len(sys.modules), "seconds": time.perf_counter() - begun}))
""")
print(f"modules: {with_torch['modules']:,} with PyTorch and transformers, {without['modules']:,} without")
taken = {"torch and transformers": with_torch, "onnxruntime and tokenizers": without}
grouped_bars({name: {"seconds": round(one["seconds"], 2)} for name, one in taken.items()}, "Time to import", "seconds")

# %% [markdown]
# ## 5. Fewer bits
#
# Half a gigabyte is read for each token. Can the weights be smaller? This model's came from a file of 4 bits a weight:
# a **block** of 32 weights has at most 16 different values, evenly spaced. Here is one block:

# %%
weight = model.model.layers[3].mlp.up_proj.weight.detach().numpy()
codes, steps, lows = portable.grid(weight)  # (row, block, 32), and (row, block) twice
print(codes[0, 0])
print("rebuilt from codes, step and smallest value:", numpy.array_equal(lows[0, 0] + steps[0, 0] * codes[0, 0], weight[0, :32]))
marks = {f"{code}": float(lows[0, 0] + steps[0, 0] * code) for code in (0, 5, 10, 15)}
histogram(weight[0, :32].tolist(), "32 weights of one block, and four of the 16 places", "weight", bins=60, marks=marks)

# %% [markdown]
# So 16 codes, a smallest value and a step per block say all of it. `portable.write_on_grid` writes the layers so; the
# embedding, which is also the head, stays as it is.

# %%
Predict(lesson.predict_four_bits)

# %% tags=["answer"]
print("written on the weights' own grid:")
folder = Path(tempfile.mkdtemp())
error = portable.write_on_grid(path, folder / "four.onnx")
text = lesson.text_ids()  # (1, 100)
exact = portable.logits_of(step, text)  # (100, vocab)
four = portable.session(folder / "four.onnx")
same = (portable.logits_of(four, text).argmax(-1) == exact.argmax(-1)).mean()
print(f"{(folder / 'four.onnx').stat().st_size / 1e6:.0f} MB; largest error of a weight {error}; choices kept {same:.0%}")

# %% [markdown]
# Not one weight has changed. (This says nothing about four bits of other models, whose weights lie on no such grid.) Now the
# standard tool for eight bits, which should be more careful than four:

# %% tags=["nbval-ignore-output"]
import logging

from onnxruntime.quantization import quantize_dynamic

logging.getLogger().setLevel(logging.ERROR)
quantize_dynamic(path, folder / "int8.onnx", op_types_to_quantize=["MatMul"])
sizes = {weight.name: tuple(weight.dims) for weight in graph.initializer}
last_products = [node.name for node in graph.node if node.op_type == "MatMul" and sizes.get(node.input[1]) == (1536, 576)]
quantize_dynamic(path, folder / "but.onnx", op_types_to_quantize=["MatMul"], nodes_to_exclude=last_products)
kept = {"float32": 1.0, "4 bits, own grid": same}
for name, file in (("int8, dynamic", "int8.onnx"), ("int8, but each layer's last product", "but.onnx")):
    found = portable.logits_of(portable.session(folder / file), text).argmax(-1)
    kept[name] = (found == exact.argmax(-1)).mean()
grouped_bars({name: {"choices kept": round(float(share), 2)} for name, share in kept.items()}, "Likeliest tokens that stay", "share of 100 places")

# %%
assert error == 0 and same == 1 and kept["int8, dynamic"] < 0.8 and list(kept.values())[3] > kept["int8, dynamic"] + 0.1

# %% [markdown]
# Eight bits lose almost half of the choices, and mostly not for the weights. `quantize_dynamic` rounds the *activations*
# to eight bits as well, with one step for a whole tensor. Lesson 12 met huge numbers at the first token; the inputs of each
# layer's last product hold them, too, and a step that suits them is too coarse for all others. Without these 30 products
# most of the loss is gone.

# %% [markdown]
# ## 6. How fast can it be?
#
# A decode step multiplies each weight once. So it cannot be faster than the memory can deliver: bytes a token over
# bytes a second.
#
# ### Exercise 3: What does a decode step read? · difficulty 1 of 3 · 6 minutes
#
# Given the bytes of all weights and the number of tokens in the cache, return the bytes that one step of one text reads
# in float32. (Lesson 04 has the shape of the cache.)

# %% tags=["exercise"]
def bytes_a_token(config, weights: int, length: int) -> int:
    """Return the bytes read by one step: the weights' and those of the cache of `length` tokens."""
    raise NotImplementedError

# %% tags=["solution"]
def bytes_a_token(config, weights: int, length: int) -> int:
    """Return the bytes read by one step: the weights' and those of the cache of `length` tokens."""
    return weights + 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4 * length

# %% [markdown] tags=["solution"]
# Keys and values, so twice; for each layer, each head of keys and values, each number of a head, 4 bytes.

# %% tags=["check"]
lesson.check_bytes(bytes_a_token)

# %% [markdown] tags=["hints"]
# - For one token, one layer keeps `num_key_value_heads` × `head_dim` numbers of keys, and as many of values.
# - A float32 has 4 bytes.
# - The weights are read once a step, however long the cache is.

# %% tags=["nbval-ignore-output"]
per_second = portable.bandwidth(threads=1)  # reading 256 MB, by a sum or by a matrix times a vector: the faster counts
weights = sum(parameter.nbytes for parameter in model.parameters())
read = lesson.bytes_a_token(model.config, weights, 20)
print(f"{read / 1e6:.0f} MB a token, {per_second / 1e9:.0f} GB a second: at most {per_second / read:.0f} tokens a second")

# %%
Predict(lesson.predict_faster)

# %% [markdown]
# Four ways, one thread each, taking turns; the bars grow as they are measured (half a minute):

# %% tags=["nbval-ignore-output"]
from IPython.display import display

ids = numpy.array([tokenizer("The capital of France is").input_ids])
asked = {"max_new_tokens": 16, "do_sample": False, "eos_token_id": None, "pad_token_id": 2}
sessions = {"onnxruntime, float32": path, "onnxruntime, 4 bits": folder / "four.onnx"}
ways = {"generate()": lambda: model.generate(torch.tensor(ids), **asked)}
for name, file in sessions.items():
    one = portable.session(file, threads=1)
    ways[name] = lambda one=one: ours(one, ids, numpy.ones_like(ids), 16, -1)
sizes = {"generate()": read, "onnxruntime, float32": read, "onnxruntime, 4 bits": read - weights + (folder / "four.onnx").stat().st_size}
threads = torch.get_num_threads()
torch.set_num_threads(1)
rates, shown = {name: [] for name in ways}, display(grouped_bars({"measuring": {"share": 0}}, "Share of the limit", "share"), display_id=True)
for _ in range(4):
    for name, way in ways.items():
        begun = time.perf_counter()
        way()
        rates[name].append(16 / (time.perf_counter() - begun))
    best = {name: sorted(found)[len(found) // 2] for name, found in rates.items()}
    shares = {name: {"share": round(rate * sizes[name] / per_second, 2)} for name, rate in best.items()}
    shown.update(grouped_bars(shares, "Share of the limit that each way reaches", "share"))
torch.set_num_threads(threads)
print({name: f"{rate:.0f} tokens a second" for name, rate in best.items()})

# %% [markdown]
# **The second half**: `generate()` reaches a good part of what the memory allows, a third to two thirds on the machines
# that we tried. Without PyTorch it is more, and never more than all: two or three times is all that there was to win.
# Fewer bytes make it faster, though not as much as they are fewer: unpacking four bits takes time of its own.
#
# On a GPU the same model is far from the limit. Measured with `tools/measure/bandwidth.py` on one NVIDIA H200 (4,046 GB
# a second, bfloat16): at most 14,990 tokens a second, `generate()` 34 (0.2 per cent of it), compiled with a static cache
# 275 (2 per cent). A step of this model is hundreds of small operations, and each has to be started. GPUs are for
# large models and large batches.

# %% [markdown]
# ## Recap
#
# - **Gone**: `transformers.onnx`, TensorFlow, Flax. **There**: `torch.onnx.export`, of any model.
# - **A decode step** is exported, not the loop. Give an example that is not special, and hand the mask on.
# - **The loop** is fifteen lines of NumPy, and the dice are torch's, bit for bit.
# - **Bits**: what counts is whether values lie on the grid, and what is rounded.
# - **The limit** of decoding is the memory: bytes a token over bytes a second.

# %%
Quiz(lesson.quiz)

# %% [markdown]
# ## Where to look next
#
# `transformers/exporters/` has the library's new exporters, which build on the same call:

# %%
from transformers.exporters import OnnxConfig

print([name for name in inspect.signature(OnnxConfig).parameters][:8])

# %% [markdown]
# Names from older articles are explained in [appendix A](appendix_version_map.ipynb), messages in
# [appendix B](appendix_messages.ipynb).
