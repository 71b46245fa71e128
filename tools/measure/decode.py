"""How much slower decode_steps is than generate(): python tools/measure/decode.py [--runs 9] [--tokens 64]

The embedded model, one prompt, greedy, the same number of new tokens; the two take turns, and each goes first
in every other run. Tokens per second as medians, and the median of the runs' own ratios, in wall time and in
processor time of this process: the second hardly changes on a busy machine.
"""

import argparse
import statistics
import time

import torch
from tqdm import tqdm

from course_utils import decode_steps, load

PROMPT = "The capital of France is"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--tokens", type=int, default=64, help="new tokens in a run (64)")
    parser.add_argument("--threads", type=int, help="threads of torch (as many as it takes)")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)

    model, tokenizer = load("smollm2-135m")
    inputs = tokenizer(PROMPT, return_tensors="pt").to(model.device)
    kwargs = {"max_new_tokens": options.tokens, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}

    def generated():
        return model.generate(**inputs, **kwargs)

    def stepped():
        decoding = decode_steps(model, inputs, **kwargs)
        for _ in decoding:
            pass
        return decoding.sequences

    ways = {"generate()": generated, "decode_steps": stepped}
    assert torch.equal(generated(), stepped())  # and both are warm
    seconds = {name: [] for name in ways}
    for run in tqdm(range(options.runs), desc="runs", unit="run"):
        for name in list(ways) if run % 2 else reversed(ways):
            start = time.perf_counter(), time.process_time()
            ways[name]()
            now = time.perf_counter(), time.process_time()
            seconds[name].append([after - before for after, before in zip(now, start, strict=True)])

    print(f"{options.tokens} new tokens, {options.runs} runs each, {torch.get_num_threads()} threads")
    for clock, of in enumerate(("wall time", "processor time")):
        rates = {name: [options.tokens / run[clock] for run in runs] for name, runs in seconds.items()}
        ratios = [ours / theirs for ours, theirs in zip(*reversed(rates.values()), strict=True)]
        medians = ", ".join(f"{name} {statistics.median(rate):.1f}" for name, rate in rates.items())
        print(
            f"tokens per second of {of}: {medians}; "
            f"ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        )


if __name__ == "__main__":
    main()
