"""What an entry on a message holds, and the names that its code may use."""

import textwrap
from dataclasses import dataclass

# The appendix runs these lines in its first cells; every entry's code builds on their names.
SETUP = """
import copy

import torch
from transformers import DynamicCache, TextStreamer

from course_utils import load, load_tokenizer

model, tokenizer = load("smollm2-135m", device="cpu")
small, gpt2 = load("tiny-gpt2", device="cpu")  # random weights; GPT-2's tokenizer
ids = gpt2("My dog is", return_tensors="pt").input_ids  # (1, 3)
small.loss_type = "ForCausalLM"  # why, says "The loss has no type"
question = [{"role": "user", "content": "What is the capital of France?"}]
""".strip()

KINDS = {
    "error": "an exception, with its type",
    "warning": "a line in transformers' log, or a Python warning; the call goes on",
    "symptom": "no message at all: what the cell prints is what one sees",
}

# In the order of the appendix's sections.
GROUPS = {
    "padding": "Tokenizer and padding",
    "mask": "Attention mask and positions",
    "arguments": "What generate() is given",
    "output": "What generate() writes",
    "sampling": "Sampling and NaN",
    "cache": "The cache",
    "chat": "Chats",
    "tokens": "New tokens",
    "gradient": "Gradients",
    "loss": "Loss and labels",
    "numbers": "Numbers that differ",
}

HOLE = "…"


@dataclass(frozen=True)
class Message:
    """One message, or one symptom without any.

    key:     str, its name; group: str, one of GROUPS; kind: str, one of KINDS
    title:   str, plain words; the heading of its section in the appendix
    says:    str, the message as the installed transformers or torch words it; HOLE stands for what changes
        from case to case (numbers, names). Of a symptom, what the code of `raises` prints
    raises:  str, lines that bring it about
    cause:   str, why, in a sentence or two
    cure:    str, what to do, in a sentence
    cured:   str, lines that do it: they run, and the message does not come
    lesson:  str, the notebook that explains it, "02_padding"; section: str, the heading there
    asked:   tuple of str: the words of older versions, and how people describe it
    """

    key: str
    group: str
    kind: str
    title: str
    says: str
    raises: str
    cause: str
    cure: str
    cured: str
    lesson: str
    section: str
    asked: tuple = ()

    def __post_init__(self):
        for name in ("raises", "cured"):  # written indented, between triple quotes
            object.__setattr__(self, name, textwrap.dedent(getattr(self, name)).strip())

    @property
    def anchor(self) -> str:
        """The fragment of its section's address in the appendix"""
        return self.title.replace(" ", "-")

    @property
    def place(self) -> str:
        """ "lesson 02, section 5", or "lesson 04, “Hidden states”": str"""
        number, _, rest = self.section.partition(". ")
        where = f"section {number}" if number.isdigit() and rest else f"“{self.section}”"
        name = self.lesson.partition("_")[0]
        return f"{'appendix A' if name == 'appendix' else f'lesson {name}'}, {where}"
