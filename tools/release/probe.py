"""Runs inside the environment, once under each release, and prints what it found as JSON.

    python -m release.probe anchors FILE    FILE: {"shows": [call, …], "imports": [dotted name, …]}
    python -m release.probe map
    python -m release.probe messages
    python -m release.probe numbers

Nothing here may use a name that a release is likely to change.
"""

import hashlib
import json
import sys
import warnings
from pathlib import Path

MARK = "release.probe: "
PROMPTS = ["The capital of France is", "Once upon a time", "2 + 2 ="]
MODES = {
    "greedy": {},
    "sampling": {"do_sample": True},
    "beams": {"num_beams": 3},
    "beam sampling": {"num_beams": 3, "do_sample": True},
    "penalties": {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
    "two returns": {"do_sample": True, "num_return_sequences": 2},
    "no cache": {"use_cache": False},
    "static cache": {"cache_implementation": "static"},
    "chunked prefill": {"prefill_chunk_size": 2},
}


def anchors(question):
    """Where each anchor of library.show is, and which imports fail."""
    from course_utils import library
    from course_utils.errors import CourseError
    from course_utils.library.introspect import resolve

    shows = []
    for call in question["shows"]:
        try:
            excerpt = eval(call, {"library": library})
        except CourseError as error:
            shows.append({"problem": str(error)})
        else:
            notes = {note: number for number, texts in excerpt.notes.items() for note in texts}
            shows.append({"problem": "", "first": excerpt.first, "notes": notes})
    missing = []
    for name in question["imports"]:
        try:
            resolve(name)
        except LookupError:
            missing.append(name)
    return {"shows": shows, "missing": missing}


def version_map():
    """[(an entry's old line, its new one, what is wrong with it)]"""
    from course_utils import library

    shown = library.version_map()
    return [
        (entry.old, entry.now, problem) for entry, problem in zip(shown.entries, shown.problems, strict=True)
    ]


def messages():
    """[(an entry's title, what is wrong with it)] of the messages that appendix B explains."""
    from course_utils import library

    shown = library.all_messages()
    return [(entry.title, problem) for entry, problem in zip(shown.entries, shown.problems, strict=True)]


def numbers():
    """{"smollm2-135m, sdpa, greedy": digest} of logits, scores and ids."""
    import torch

    from course_utils import load

    torch.set_num_threads(1)
    digests = {}
    for name in ("tiny-gpt2", "tiny-llama", "smollm2-135m"):
        model, tokenizer = load(name, device="cpu")
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        inputs = tokenizer(PROMPTS, return_tensors="pt", padding=True, padding_side="left")
        for attention in ("sdpa", "eager"):
            model.set_attn_implementation(attention)
            with torch.no_grad():
                digests[f"{name}, {attention}, logits"] = digest(model(**inputs).logits)
            for mode, settings in MODES.items():
                key = f"{name}, {attention}, {mode}"
                digests[key] = of_mode(model, inputs, settings, tokenizer.pad_token_id)
    return digests


def of_mode(model, inputs, settings, padding):
    import torch

    torch.manual_seed(0)
    try:
        made = model.generate(
            **inputs,
            max_new_tokens=6,
            pad_token_id=padding,
            output_scores=True,
            return_dict_in_generate=True,
            **settings,
        )
    except Exception as error:  # of one release only, perhaps: that is what is looked for
        return f"{type(error).__name__}: {error}"[:200]
    return digest(made.sequences, *made.scores)


def digest(*tensors):
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(tensor.contiguous().numpy().tobytes())
    return total.hexdigest()[:12]


def main(arguments):
    warnings.simplefilter("ignore")
    what = arguments[0]
    if what == "anchors":
        found = anchors(json.loads(Path(arguments[1]).read_text(encoding="utf-8")))
    else:
        found = {"map": version_map, "messages": messages, "numbers": numbers}[what]()
    print(MARK + json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
