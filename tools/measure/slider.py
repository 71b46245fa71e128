"""How long a slider takes in a real JupyterLab: python tools/measure/slider.py [--moves 60]

One key press on a temperature slider, timed inside the page from the key to the change of the page (DOM)
and to the end of the frame that shows it (pixels). Three widgets in one notebook take turns: NextToken, the
same with every setting on and 1,000 draws, and the usual way, ipywidgets.interact that draws the same 15 bars
with matplotlib.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import nbformat
import numpy as np
from playwright.sync_api import sync_playwright
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))

from lab_session import CHROMIUM_FLAGS, chromium_path, close_kernels, command, jupyter_lab, open_notebook

CELLS = [
    """
from course_utils import load
from course_utils.widgets import NextToken
model, tokenizer = load()
widget = NextToken(model, tokenizer, "The capital of France is")
widget
""",
    """
NextToken(model, tokenizer, "The capital of France is", controls="all", repetition_penalty=1.2,
          top_k=200, top_p=0.99, min_p=0.001, typical_p=0.95, draws=1000)
""",
    """
import torch, ipywidgets
import matplotlib.pyplot as plt
with torch.no_grad():
    inputs = tokenizer("The capital of France is", return_tensors="pt").to(model.device)
    logits = model(**inputs, logits_to_keep=1).logits[0, -1]

@ipywidgets.interact(temperature=ipywidgets.FloatSlider(value=1, min=0.05, max=3, step=0.05))
def draw(temperature):
    probs, ids = (logits / temperature).softmax(-1).topk(15)
    plt.barh(range(15), probs)
    plt.yticks(range(15), tokenizer.batch_decode(ids[:, None]))
    plt.gca().invert_yaxis()
    plt.show()
""",
]
# name -> the slider, the widget it stands in, and the content to wait for
WIDGETS = {
    "NextToken": (".next-token-temperature", ".next-token:not(.next-token-full)", ".next-token-sliders"),
    "NextToken, all settings": (".next-token-temperature", ".next-token-full", ".next-token-sliders"),
    "interact + matplotlib": (".widget-slider .noUi-handle", ".widget-interact", "img"),
}
# Resolves to [milliseconds to the DOM, milliseconds to the pixels] of the next key press.
WATCH = """([root, content]) => {
  const place = [...document.querySelectorAll(root)].at(-1);
  const now = () => { const node = place.querySelector(content); return node?.src ?? node?.textContent; };
  const before = now();
  window.move = new Promise((resolve) => {
    let start;
    addEventListener("keydown", () => (start = performance.now()), { capture: true, once: true });
    new MutationObserver(async (_, observer) => {
      if (now() === undefined || now() === before) return;
      observer.disconnect();
      const dom = performance.now() - start;
      await place.querySelector("img")?.decode();
      requestAnimationFrame(() => {
        const channel = new MessageChannel(); // its message comes after the frame has been painted
        channel.port1.onmessage = () => resolve([dom, performance.now() - start]);
        channel.port2.postMessage("");
      });
    }).observe(place, { subtree: true, childList: true, characterData: true, attributes: true });
  });
}"""


def measure(page, moves):
    """Milliseconds by widget: dict from its name to an array [moves, 2], to the DOM and to the pixels."""
    times = {name: [] for name in WIDGETS}
    for move in tqdm(range(-3, moves)):  # three to warm up
        for name, (slider, root, content) in WIDGETS.items():
            handle = page.locator(root).last.locator(slider)
            handle.scroll_into_view_if_needed()
            handle.focus()
            page.evaluate(WATCH, [root, content])
            page.keyboard.press("ArrowRight" if move // 10 % 2 else "ArrowLeft")
            taken = page.evaluate("move")
            if move >= 0:
                times[name].append(taken)
    return {name: np.array(taken) for name, taken in times.items()}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--moves", type=int, default=60, help="key presses on each slider")
    moves = parser.parse_args().moves
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = chromium_path(playwright)
        if path is None:
            raise SystemExit("No Chromium. Install one, or run: playwright install chromium")
        cells = [nbformat.v4.new_code_cell(source.strip()) for source in CELLS]
        metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), Path(folder, "slider.ipynb"))
        with jupyter_lab(Path(folder)) as address:
            browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
            page = browser.new_page(viewport={"width": 1280, "height": 1600})
            open_notebook(page, address, "slider.ipynb")
            command(page, "notebook:run-all-cells")
            page.locator(".widget-interact img").wait_for(timeout=120_000)
            times = measure(page, moves)
            close_kernels(page)
            browser.close()

    print(f"\n{moves} moves, milliseconds{'DOM median':>27}{'p95':>8}{'pixels median':>16}{'p95':>8}")
    for name, taken in times.items():
        (dom, pixels), (dom95, pixels95) = np.median(taken, axis=0), np.percentile(taken, 95, axis=0)
        print(f"{name:24}{dom:25.1f}{dom95:8.1f}{pixels:16.1f}{pixels95:8.1f}")
    *ours, (_, theirs) = times.items()
    for name, taken in ours:
        ratios = [
            np.percentile(theirs, share, axis=0) / np.percentile(taken, share, axis=0) for share in (50, 95)
        ]
        (dom, pixels), (dom95, pixels95) = ratios
        print(
            f"{name}, times faster: DOM {dom:.0f} (p95 {dom95:.0f}), pixels {pixels:.0f} (p95 {pixels95:.0f})"
        )


if __name__ == "__main__":
    main()
