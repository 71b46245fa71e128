"""How near each way of decoding comes to the memory's limit: python tools/measure/bandwidth.py [--rounds 5]

A decode step reads every weight once, so no batch of one can be faster than the memory: bytes of the weights
and of the cache over the bytes that this machine reads in a second, measured with the step's own operation, a
matrix times a vector. The ways take turns, a round each; medians of tokens a second and of the share of the
limit. `--compile` adds the compiled static cache, which takes a minute to compile.
"""

import argparse
import statistics
import time

import torch
from tqdm import tqdm
from transformers import CompileConfig, DynamicCache

from course_utils import load

PROMPT = "The capital of France is"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64, help="new tokens in a round (64)")
    parser.add_argument("--threads", type=int, help="threads of torch (as many as it takes)")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)

    dtype = getattr(torch, options.dtype)
    model, tokenizer = load("smollm2-135m")
    model = model.to(dtype)
    device = model.device
    card = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    inputs = tokenizer(PROMPT, return_tensors="pt").to(device)
    length = inputs.input_ids.shape[1]
    limit = bandwidth(device, dtype)
    weights = sum(parameter.nbytes for parameter in model.parameters())  # the tied head once
    config = model.config
    heads = config.num_key_value_heads * config.head_dim
    cached = 2 * config.num_hidden_layers * heads * (length + options.tokens / 2) * dtype.itemsize
    kwargs = {"max_new_tokens": options.tokens, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    static = kwargs | {"cache_implementation": "static"}
    ways = {
        "generate()": lambda: model.generate(**inputs, **kwargs),
        "static cache": lambda: model.generate(**inputs, **static, disable_compile=True),
        "a loop of one's own": lambda: own_loop(model, inputs.input_ids, options.tokens),
    }
    if options.compile:
        ways["static, compiled"] = lambda: compiled(model, inputs, static)

    expected = ways["generate()"]()
    seconds = {name: [] for name in ways}
    for name, way in ways.items():
        start = time.perf_counter()
        same = torch.equal(way(), expected)
        print(
            f"{name:20} first call {time.perf_counter() - start:5.1f} s, ids {'equal' if same else 'differ'}"
        )
    for _ in tqdm(range(options.rounds), desc="rounds", unit="round"):
        for name, way in ways.items():
            synchronise(device)
            start = time.perf_counter()
            way()
            synchronise(device)
            seconds[name].append(time.perf_counter() - start)

    best = limit / (weights + cached)
    print(f"{card}, {options.dtype}, batch 1, {options.tokens} new tokens, torch {torch.__version__}")
    print(f"{limit / 1e9:.1f} GB/s; {(weights + cached) / 1e6:.0f} MB a token; at most {best:.0f} tokens/s")
    for name, runs in seconds.items():
        rates = [options.tokens / run for run in runs]
        median = statistics.median(rates)
        print(
            f"{name:20} {median:8.1f} tokens/s ({min(rates):.1f} to {max(rates):.1f})"
            f"  {median / best:.3f} of the limit"
        )


def synchronise(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


def bandwidth(device, dtype):
    """Bytes a second that a product of matrix and vector reads: float, the best of five over 1 GiB."""
    matrix = torch.ones(2**30 // dtype.itemsize // 4096, 4096, dtype=dtype, device=device)
    vector, best = torch.ones(4096, dtype=dtype, device=device), 0.0
    for _ in range(6):
        synchronise(device)
        start = time.perf_counter()
        for _ in range(20 if device.type == "cuda" else 1):
            matrix @ vector
        synchronise(device)
        passes = 20 if device.type == "cuda" else 1
        best = max(best, passes * matrix.nbytes / (time.perf_counter() - start))
    return best


@torch.no_grad()
def own_loop(model, ids, tokens):
    cache, sequence = DynamicCache(config=model.config), ids
    output = model(ids, cache=cache)
    for _ in range(tokens):
        chosen = output.logits[:, -1].argmax(-1, keepdim=True)
        sequence = torch.cat([sequence, chosen], dim=1)
        if sequence.shape[1] < ids.shape[1] + tokens:
            output = model(chosen, cache=cache)
    return sequence


def compiled(model, inputs, static):
    config = CompileConfig()
    config._compile_all_devices = True  # a CPU compiles only when it is told so
    return model.generate(**inputs, **static, compile_config=config)


if __name__ == "__main__":
    main()
