"""How long the course's notebooks take, and whether they print the same on other processors.

    python tools/measure/course.py             both of what follows, about 10 runs of all notebooks
    python tools/measure/course.py --time      median seconds of nbval, one notebook at a time and two
    python tools/measure/course.py --matrix    nbval under each instruction set and 1 and 2 threads

The matrix makes this processor compute as older ones do. The digest of the logits shows that it does:
where it differs, the numbers differ in their last bits, and the stored outputs must not. Exits with 1 if any
notebook fails.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from xml.etree import ElementTree

from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[2]
# What PyTorch, MKL and oneDNN each read to leave out newer instructions.
INSTRUCTIONS = {
    "SSE4": {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "SSE4_2", "ONEDNN_MAX_CPU_ISA": "SSE41"},
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "AVX512": {"ATEN_CPU_CAPABILITY": "avx512", "MKL_CBWR": "AVX512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
}
DIGEST = """
import hashlib, torch
from course_utils import load
model, tokenizer = load("smollm2-135m", device="cpu")
with torch.no_grad():
    logits = model(**tokenizer("The capital of France is", return_tensors="pt")).logits
print(hashlib.sha256(logits.numpy().tobytes()).hexdigest()[:8])
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--time", action="store_true", help="only the time")
    parser.add_argument("--matrix", action="store_true", help="only the matrix")
    parser.add_argument("--repeats", type=int, default=3, help="runs of which the median is taken (3)")
    options = parser.parse_args()
    failed = []
    if options.time or not options.matrix:
        failed += measure_time(options.repeats)
    if options.matrix or not options.time:
        failed += measure_matrix()
    for failure in failed:
        print(failure)
    return 1 if failed else 0


def measure_time(repeats: int) -> list[str]:
    """Print median seconds of all notebooks, serial and two side by side; return the failed cells."""
    seconds, failed = {"0": [], "2": []}, []
    for workers in tqdm([*seconds] * repeats, desc="runs", unit="run"):
        start = time.perf_counter()
        _, failures = run_notebooks({}, workers)
        seconds[workers].append(time.perf_counter() - start)
        failed += failures
    serial, parallel = median(seconds["0"]), median(seconds["2"])
    print(
        f"All notebooks, median of {repeats} runs: {serial:.1f} s one at a time, "
        f"{parallel:.1f} s two at a time (x {parallel / serial:.2f})\n"
    )
    return failed


def measure_matrix() -> list[str]:
    """Print the table of instruction sets and threads; return the failed cells."""
    print("instructions  threads  digest of logits  notebooks")
    failed = []
    for name, variables in supported_instructions().items():
        for threads in ("1", "2"):
            variant = variables | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
            passed, failures = run_notebooks(variant, "2")
            verdict = f"{passed} cells passed" + (f", {len(failures)} FAILED" if failures else "")
            print(f"{name:12}  {threads:7}  {logits_digest(variant):16}  {verdict}", flush=True)
            failed += [f"{name}, {threads} threads: {failure}" for failure in failures]
    return failed


def supported_instructions() -> dict[str, dict[str, str]]:
    """Those of INSTRUCTIONS that this processor has; as it is where it has none of them."""
    import torch

    best = torch.backends.cpu.get_cpu_capability()
    if best not in INSTRUCTIONS:
        return {best: {}}
    names = list(INSTRUCTIONS)
    return {name: INSTRUCTIONS[name] for name in names[: names.index(best) + 1]}


def run_notebooks(variables: dict[str, str], workers: str) -> tuple[int, list[str]]:
    """Run nbval on every notebook: the number of cells that passed, and the names of those that did not."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        options = ["-q", "-n", workers, "-p", "no:cacheprovider", f"--junitxml={report}"]
        run = subprocess.run(
            [sys.executable, "-m", "pytest", "notebooks", *options],
            cwd=ROOT,
            env=os.environ | {"COURSE_DEVICE": "cpu"} | variables,
            capture_output=True,
            text=True,
        )
        if run.returncode not in (0, 1):
            sys.exit(f"pytest could not run:\n{run.stdout}{run.stderr}")
        cases = list(ElementTree.parse(report).iter("testcase"))
    failed = [f"{case.get('classname')} {case.get('name')}" for case in cases if len(case)]
    return len(cases) - len(failed), failed


def logits_digest(variables: dict[str, str]) -> str:
    """The first 8 hex digits of the sha256 of the model's logits for one prompt."""
    environment = os.environ | variables
    run = subprocess.run([sys.executable, "-c", DIGEST], env=environment, capture_output=True, text=True)
    return run.stdout.strip() or f"no digest: {run.stderr.strip().splitlines()[-1]}"


if __name__ == "__main__":
    sys.exit(main())
