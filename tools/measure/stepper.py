"""How long a step of the stepper takes in a real JupyterLab: python tools/measure/stepper.py [--moves 40]

One key press, timed inside the page from the key to the change of the page (DOM) and to the end of the
frame that shows it (pixels): on "Step" where the kernel takes the step, on "Step back" where the page knows
what was there, and on another token, which begins a branch. Beside them the same step in a cell.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import nbformat
import numpy as np
from playwright.sync_api import expect, sync_playwright
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))

from lab_session import CHROMIUM_FLAGS, chromium_path, close_kernels, command, jupyter_lab, open_notebook
from slider import WATCH

ARGUMENTS = "max_new_tokens={most}, do_sample=True, temperature=0.8, top_k=20, top_p=0.9, eos_token_id=[]"
CELLS = [
    """
from course_utils import decode_steps, load
from course_utils.widgets import Stepper
model, tokenizer = load()
Stepper(model, tokenizer, "The capital of France is", {arguments})
""",
    """
import time
inputs = tokenizer("The capital of France is", return_tensors="pt").to(model.device)
times, decoding = [], decode_steps(model, inputs, {arguments})
for _ in range({most}):
    start = time.perf_counter()
    next(decoding)
    times.append(time.perf_counter() - start)
print(*(1000 * seconds for seconds in times[3:]))
""",
]
BRANCHES = 12  # the view holds 16


def press(page, control, content):
    """Milliseconds from a key press on `control` to the change of what `content` selects: to the DOM, to the
    pixels."""
    control.scroll_into_view_if_needed()
    control.focus()
    page.evaluate(WATCH, [".stepper", content])
    page.keyboard.press("Enter")
    return page.evaluate("move")


def measure(page, moves):
    """Milliseconds by what was done: dict from its name to an array [times, 2], to the DOM and the pixels."""
    times = {"step, by the kernel": [], "step back, in the page": [], "another token": []}
    step, back = (page.get_by_role("button", name=name, exact=True) for name in ("Step", "Step back"))
    for move in tqdm(range(-3, moves)):  # three to warm up
        taken = press(page, step, ".stepper-place")
        if move >= 0:
            times["step, by the kernel"].append(taken)
    for _ in range(moves):
        times["step back, in the page"].append(press(page, back, ".stepper-place"))
    others = page.locator(".stepper-bars li:not(:has([aria-current])) button")
    for place in tqdm(range(BRANCHES)):
        page.locator(".stepper-tree button").first.click()
        page.locator(".stepper-text button").nth(place).click()
        expect(page.locator(".stepper-place")).to_contain_text(f"Step {place} of")
        times["another token"].append(press(page, others.first, ".stepper-choice"))
    return {name: np.array(taken) for name, taken in times.items()}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--moves", type=int, default=40, help="key presses on each button")
    moves = parser.parse_args().moves
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = chromium_path(playwright)
        if path is None:
            raise SystemExit("No Chromium. Install one, or run: playwright install chromium")
        most = moves + 10
        arguments = ARGUMENTS.format(most=most)
        cells = [
            nbformat.v4.new_code_cell(source.strip().format(arguments=arguments, most=most))
            for source in CELLS
        ]
        metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
        nbformat.write(
            nbformat.v4.new_notebook(cells=cells, metadata=metadata), Path(folder, "stepper.ipynb")
        )
        with jupyter_lab(Path(folder)) as address:
            browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
            page = browser.new_page(viewport={"width": 1280, "height": 1600})
            open_notebook(page, address, "stepper.ipynb")
            command(page, "notebook:run-all-cells")
            output = page.locator(".jp-Notebook .jp-Cell").nth(1).locator(".jp-OutputArea-output")
            output.wait_for(timeout=180_000)
            alone = np.array(output.inner_text().split(), dtype=float)
            times = measure(page, moves)
            close_kernels(page)
            browser.close()

    print(f"\nmilliseconds{'DOM median':>27}{'p95':>8}{'pixels median':>16}{'p95':>8}")
    for name, taken in times.items():
        (dom, pixels), (dom95, pixels95) = np.median(taken, axis=0), np.percentile(taken, 95, axis=0)
        print(f"{name:24}{dom:15.1f}{dom95:8.1f}{pixels:16.1f}{pixels95:8.1f}")
    print(f"the same step in a cell: median {np.median(alone):.1f}, p95 {np.percentile(alone, 95):.1f}")


if __name__ == "__main__":
    main()
