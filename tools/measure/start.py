"""How long it takes until the first next-token distribution: python tools/measure/start.py [--runs 5]

Three figures, as medians of alternating runs:
- preparing the embedded model from nothing, download included;
- after the imports: model, tokenizer and first distribution;
- a whole `python -c` from start to first distribution, beside one that only imports what it needs.

Each in wall time and in processor time of all cores: the second hardly changes on a busy machine.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

IMPORTS = "import torch; from transformers import LlamaForCausalLM, PreTrainedTokenizerFast"
FIRST = """
from course_utils import load
model, tokenizer = load("smollm2-135m", device="cpu")
with torch.no_grad():
    probs = model(**tokenizer("The capital of France is", return_tensors="pt")).logits[0, -1].softmax(-1)
assert tokenizer.decode(probs.argmax()) == " Paris"
"""
WHOLE = f"import course_utils, torch{FIRST}"
CLOCKS = "(time.perf_counter(), time.process_time())"
AFTER_IMPORTS = f"import course_utils, time; {IMPORTS}; start = {CLOCKS}{FIRST}"
AFTER_IMPORTS += f"print(*(now - then for now, then in zip({CLOCKS}, start)))"
PREPARE = "from course_utils.models.bundled import assets; assets.prepare(assets.SMOLLM2)"


def run(code, **environment):
    """What `python -c code` printed."""
    command = [sys.executable, "-c", code]
    environment = {**os.environ, **environment}
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def timed(code, **environment):
    """Wall and processor seconds of `python -c code` with the processes it starts."""
    before, start = os.times(), time.perf_counter()
    run(code, **environment)
    wall, after = time.perf_counter() - start, os.times()
    return wall, sum(after[2:4]) - sum(before[2:4])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs

    prepare, after, imports, whole = [], [], [], []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            prepare.append(timed(PREPARE, COURSE_CACHE=folder))
    run(WHOLE)  # prepares, and fills the page cache
    for _ in range(runs):
        imports.append(timed(IMPORTS))
        whole.append(timed(WHOLE))
        after.append(tuple(map(float, run(AFTER_IMPORTS).split())))
    beside = [tuple(a / b for a, b in zip(*pair, strict=True)) for pair in zip(whole, imports, strict=True)]

    columns = "".join(f"{name:>8}" for name in ("median", "best", "worst", "goal"))
    print(f"{'':44}{columns}{'processor':>12}")
    for label, values, goal in [
        ("prepare from nothing, s", prepare, "10"),
        ("after imports to first distribution, s", after, "0.6"),
        ("python -c, imports only, s", imports, ""),
        ("python -c to first distribution, s", whole, ""),
        ("  beside imports only, run by run, x", beside, "1.25"),
    ]:
        wall, processor = zip(*values, strict=True)
        figures = statistics.median(wall), min(wall), max(wall)
        numbers = "".join(f"{figure:8.2f}" for figure in figures)
        print(f"{label:44}{numbers}{goal:>8}{statistics.median(processor):12.2f}")
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"{runs} runs on {os.cpu_count()} cores{load}")


if __name__ == "__main__":
    main()
