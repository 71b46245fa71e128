"""How often decode_steps equals generate(): python tools/measure/equality.py [--cases 250] [--only Llama T5]

Drawn settings on ten architectures with random weights (tests/support): lengths, sampling, logits processors,
ends of text, caches, padding, embeddings, two dtypes. A case is equal if every id, logit, score and
probability is, bit for bit, and as many random numbers were drawn. What the installed release of
transformers refuses itself, decode_steps has to refuse, too. Exits with 1 if any case differs. To measure
another release, put its folder into PYTHONPATH.
"""

import argparse
import collections
import sys
import warnings
from pathlib import Path

import torch
import transformers
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))

from architectures import ARCHITECTURES
from equality import RefusedByBoth, compared, drawn_case


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=250, help="drawn settings of each architecture (250)")
    parser.add_argument("--only", nargs="+", choices=ARCHITECTURES, default=ARCHITECTURES, metavar="NAME")
    options = parser.parse_args()
    # Settings are drawn without regard to generate()'s advice.
    warnings.simplefilter("ignore", UserWarning)
    transformers.logging.set_verbosity_error()

    print(f"transformers {transformers.__version__}, torch {torch.__version__}, {options.cases} cases each")
    print(f"{'':10}{'equal':>8}{'refused by both':>18}{'different':>12}")
    different, reasons = [], collections.Counter()
    for name in options.only:
        equal = refused = 0
        for number in tqdm(range(options.cases), desc=name, leave=False):
            model, inputs, kwargs, _ = drawn_case(name, number)
            try:
                compared(model, inputs, kwargs, seed=number)
                equal += 1
            except RefusedByBoth as reason:
                refused += 1
                reasons[f"{name}: {reason}"] += 1
            except Exception as error:
                different.append(f"{name} {number}: {kwargs}: {type(error).__name__}: {error}")
        print(f"{name:10}{equal:8}{refused:18}{options.cases - equal - refused:12}", flush=True)
    for reason, count in reasons.items():
        print(f"refused by both {count} times: {reason}")
    for difference in different:
        print(difference)
    return 1 if different else 0


if __name__ == "__main__":
    raise SystemExit(main())
