"""How fast kernels are that generate at the same time: python tools/measure/crowd.py [--kernels 8]

Two groups of real Jupyter kernels, as the course sets them up and with one thread each, take turns; in a turn
all kernels of a group generate for some seconds. `--untreated` adds a group with torch's own idle spinning.
"""

import argparse
import contextlib
import statistics

from kernels import kernels, run_in_all

LOAD = """
import time
from course_utils import load
model, tokenizer = load("smollm2-135m", device="cpu")
inputs = tokenizer("The capital of France is", return_tensors="pt")

def tokens_within(seconds):
    made, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        model.generate(**inputs, max_new_tokens=5, min_new_tokens=5, do_sample=False)
        made += 5
    return made / (time.perf_counter() - start)

result = tokens_within(1)
"""
# libgomp spins 300,000 times or so by default where threads are not more than cores.
SETTINGS = {
    "as the course sets it": {},
    "one thread each": {"OMP_NUM_THREADS": "1"},
    "untreated": {"GOMP_SPINCOUNT": "300000"},
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kernels", type=int, default=8)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--untreated", action="store_true")
    given = parser.parse_args()

    names = [name for name in SETTINGS if name != "untreated" or given.untreated]
    speeds = {name: [] for name in names}
    with contextlib.ExitStack() as stack:
        groups = {name: stack.enter_context(kernels(given.kernels, **SETTINGS[name])) for name in names}
        for group in groups.values():
            run_in_all(group, LOAD)
        for _ in range(given.turns):
            for name, group in groups.items():
                speeds[name].append(sum(run_in_all(group, f"result = tokens_within({given.seconds})")))

    turns = f"{given.turns} turns of {given.seconds:g} s"
    print(f"{given.kernels} kernels at once, {turns}, tokens/s of all together")
    print(f"{'':24}{'median':>8}{'best':>8}{'worst':>8}{'beside one thread each':>25}")
    for name in names:
        beside = statistics.median(
            [own / one for own, one in zip(speeds[name], speeds["one thread each"], strict=True)]
        )
        figures = statistics.median(speeds[name]), max(speeds[name]), min(speeds[name])
        print(f"{name:24}" + "".join(f"{figure:8.1f}" for figure in figures) + f"{beside:25.0%}")
    print("Goal: 80 %.")


if __name__ == "__main__":
    main()
