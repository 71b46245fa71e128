"""What a kernel with the embedded model costs in memory: python tools/measure/memory.py [--kernels 4]

Real Jupyter kernels load the model and generate 20 tokens. Private memory (USS) is what a further kernel
adds; PSS counts shared pages in parts, so that the sum is what all of them take together (Linux only).
"""

import argparse

import psutil

from kernels import kernels, run_in_all

CODE = """
from course_utils import load
model, tokenizer = load("smollm2-135m", device="cpu")
inputs = tokenizer("The capital of France is", return_tensors="pt")
result = model.generate(**inputs, max_new_tokens=20, min_new_tokens=20, do_sample=False).shape[1]
"""


def memory(group):
    return [psutil.Process(kernel.pid).memory_full_info() for kernel in group]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kernels", type=int, default=4)
    most = parser.parse_args().kernels
    print(f"{'kernels':>8}{'private each, MB':>18}{'PSS each, MB':>14}{'PSS sum, MB':>13}")
    for count in sorted({1, most}):
        with kernels(count) as group:
            run_in_all(group, CODE)
            found = memory(group)
        private, shared = [m.uss / 1e6 for m in found], [m.pss / 1e6 for m in found]
        print(f"{count:8}{max(private):18.0f}{max(shared):14.0f}{sum(shared):13.0f}")
    print("A kernel that is alone has nobody to share the model's 538 MB with: they count as its own.")
    print("Goals: 360 MB private for each of several; 2,100 MB PSS for four.")


if __name__ == "__main__":
    main()
