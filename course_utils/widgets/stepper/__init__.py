"""generate() one step at a time: what each step was given, what each processor made of it, and what if."""

from __future__ import annotations

import contextlib
import functools
import html
import operator
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import traitlets

from ...decoding.own_loop import LoopWalk
from ...decoding.replay import Walk
from ...errors import CourseError
from ...inputs.limits import unwrapped
from ...inputs.text import check_length, text_ids
from ...library.excerpt import lines_at
from ...library.introspect import version
from ...masks import pad
from ..core.labels import columns, isolated, ljust, quoted, token_label, visible
from ..core.text import html_table
from ..core.widget import CourseWidget
from .argument_text import described, is_plain, parsed
from .tree import MOST_ROWS, StepTree

if TYPE_CHECKING:
    import torch

_HERE = Path(__file__).parent
_MOST_TOKENS = 200  # of one prompt
_MOST_SEED = 2**32 - 1
_LOOP = "generation.utils.GenerationMixin._sample"
_ANCHORS = {  # one line of the loop for each line of the timeline; the first pass has one of its own
    "first": "self._prefill(",
    "forward": "outputs = model_forward(",
    "logits": "next_token_logits = outputs.logits[:, -1",
    "processors": "next_token_scores = logits_processor(",
    "drawn": "torch.multinomial(",
    "likeliest": "torch.argmax(",
    "fill": "next_tokens * unfinished_sequences + pad_token_id",
    "append": "torch.cat([input_ids, next_tokens",
    "criteria": "stopping_criteria(input_ids, scores)",
}
_SAVED_STEPS = 8  # a saved page has at least so many to walk through


class Stepper(CourseWidget):
    """`model.generate` on one or several prompts, a step at a time, on the real model.

    model:           a transformers model with generate(); it runs in the kernel, one forward pass a step
    tokenizer:       its tokenizer
    prompts:         str or list of 1 to 6 str, each at most 200 tokens. Shorter ones are padded: on the left,
                     as generating needs it, and on the right for an encoder-decoder model.
    seed:            int, 0 to 2**32 - 1, of the draws. The notebook's own random state is not touched.
    loop:            None for the library's own loop, or one of yours, as generate(custom_generate=loop) takes
                     it. The timeline then shows your lines, and `verdict` compares its ids with generate()'s.
    generate_kwargs: what `decode_steps` takes besides, such as max_new_tokens=20, do_sample=True, top_k=5
                     or logits_processor=[...]. The page shows plain values as text that can be edited.

    For each step the page shows what the model was given, the distribution of its logits and after each
    logits processor, the choice, and which rows are finished. A timeline has a column for each step, and the
    line of the installed loop that made each of its cells. Another token begins a branch; all are kept.

    `step`, `run`, `choose` and `start` do in a cell what the page's buttons do. `branch` is the branch that
    was worked on last; `sequences` and `text` are its ids and its text.

    Raises CourseError for prompts that are not as above, for a tokenizer without a pad token where one is
    needed, for a seed out of range, and as `decode_steps` does.
    """

    _esm = _HERE / "view.js"
    _css = _HERE / "style.css"

    shown = traitlets.Dict(read_only=True).tag(sync=True)

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        prompts: str | Sequence[str],
        seed: int = 0,
        loop: Callable | None = None,
        **generate_kwargs,
    ) -> None:
        self._model, self._tokenizer, self._loop = unwrapped(model), tokenizer, loop
        self._lock = threading.RLock()  # the page and a cell may ask at the same time
        self._session, self._times_shown, self._given = 0, 0, None
        super().__init__()
        self.start(prompts, seed, **generate_kwargs)

    @property
    def sequences(self) -> torch.Tensor:
        """LongTensor [batch, length] on the CPU, the ids of the branch as generate() would return them."""
        return self._tree.sequences(self.branch)

    @property
    def text(self) -> list[str]:
        """One a row: the branch's text without special tokens."""
        return self._tokenizer.batch_decode(self.sequences, skip_special_tokens=True)

    @property
    def verdict(self) -> str:
        """A sentence: whether a loop of yours gives generate()'s ids for the seed of the branch, and if not,
        where the two part."""
        if self._own is None:
            return "This is the library's own loop."
        with self._lock:
            seed = self._tree.branches[self.branch].seed
            if seed not in self._verdicts:
                ours, theirs = _rollout(self._own, seed), _rollout(self._libraries, seed)
                self._verdicts[seed] = _compared(ours, theirs, self._tokenizer)
            return self._verdicts[seed]

    def start(self, prompts: str | Sequence[str], seed: int = 0, **generate_kwargs) -> None:
        """Begin again and take the first step. The same prompts and arguments with another seed are one more
        beginning beside the branches there are; anything else puts those away."""
        prompts = [prompts] if isinstance(prompts, str) else prompts
        prompts = list(prompts) if isinstance(prompts, list | tuple) else prompts
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= _MOST_SEED:
            raise CourseError(f"The seed is {seed!r}. Give a whole number from 0 to {_MOST_SEED}.")
        plain = {name: value for name, value in generate_kwargs.items() if is_plain(value)}
        objects = {name: value for name, value in generate_kwargs.items() if name not in plain}
        with self._lock:
            # Objects are compared by identity: for tensors, == is no yes or no.
            given = (prompts, plain, {name: id(value) for name, value in objects.items()})
            if given == self._given:
                self._show(self._tree.begin(seed))
                return
            inputs = self._inputs(prompts)
            given_on = generate_kwargs | {"tokenizer": self._tokenizer}  # wherever stop strings stand
            libraries, own = Walk(self._model, inputs, given_on), None
            if self._loop is not None:
                own = LoopWalk(self._model, inputs, given_on, self._loop)
            self._tree = StepTree(own or libraries, self._tokenizer, seed)
            self._own, self._libraries, self._verdicts = own, libraries, {}
            self._prompts, self._plain, self._objects = prompts, plain, objects
            self._given = given
            self._session += 1
            self._show(0)

    def step(self, count: int = 1) -> None:
        """Take up to `count` more steps at the end of the branch; fewer where all rows finish before."""
        branch = self.branch
        for _ in range(count):
            if not self._forward(branch):
                return

    def run(self) -> None:
        """Take steps until every row of the branch is finished."""
        branch = self.branch
        while self._forward(branch):
            pass

    def choose(self, token: int, row: int = 0, step: int | None = None) -> None:
        """Let the branch have chosen the id `token` (int) in `row` at `step` (int, its index; None for the
        last one): the branch that does so is then the one that is worked on."""
        token, row = _plain_int(token), _plain_int(row)
        with self._lock:
            steps = len(self._tree.path(self.branch))
            step = steps - 1 if step is None else step
            if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step < steps:
                raise CourseError(f"There is no step {step!r}. Give one that was taken: 0 to {steps - 1}.")
            self._show(self._tree.choose(self.branch, step, row, token))

    def answer(self, request: dict) -> dict | None:
        """{"start": {"prompts", "arguments", "seed"}} begins again; {"forward": {"branch", "taken"}} takes
        the step after so many; {"choose": {"branch", "step", "row", "token"}} chooses another token. These
        two name the "session" they belong to: what another beginning has put away is not gone on with.

        Returns {"branch": int}, the branch that was worked on.
        """
        with self._lock:
            if "start" in request:
                wanted = request["start"]
                arguments = parsed(wanted["arguments"], self._objects) | self._objects
                self.start(wanted["prompts"], wanted["seed"], **arguments)
            elif request["session"] != self._session:
                pass
            elif "forward" in request:
                wanted = request["forward"]
                if len(self._tree.path(wanted["branch"])) <= wanted["taken"]:
                    self._forward(wanted["branch"])
                else:  # an interrupt may have kept the page from hearing of it
                    self._show(wanted["branch"])
            else:
                wanted = request["choose"]
                self._show(
                    self._tree.choose(wanted["branch"], wanted["step"], wanted["row"], wanted["token"])
                )
            return {"branch": self.branch}

    def _forward(self, branch):
        """Take one more step at the end of a branch: bool, False if every row is finished."""
        with self._lock:
            if self._tree.done(branch):
                return False
            self._tree.forward(branch)
            self._show(branch)
            return True

    def _show(self, branch):
        self.branch = branch
        self._times_shown += 1  # makes each state a new one, which the page is told of
        self.set_trait("shown", self._state(self._tree))

    def _state(self, tree):
        objects = self._objects | ({} if self._loop is None else {"loop": self._loop})
        objects = ", ".join(f"{name}={described(value)}" for name, value in objects.items())
        return {
            "number": self._times_shown,
            "session": self._session,
            "prompts": self._prompts,
            "arguments": ", ".join(f"{name}={value!r}" for name, value in self._plain.items()),
            "objects": objects,
            "most": self._plain.get("max_new_tokens"),
            "sampling": tree.sampling,
            "rows": tree.prompt.tolist(),
            "pad": self._tokenizer.pad_token_id,
            "labels": dict(tree.labels),
            "chains": list(tree.chains),
            "steps": list(tree.steps),
            "branches": [asdict(branch) for branch in tree.branches],
            "branch": self.branch,
            "source": self._source(),
        }

    def _source(self):
        """The lines that did what a step shows: dict with a title, str, and lines by name."""
        if self._own is None:
            return _libraries_lines()
        lines = {name: list(line) for name, line in self._own.source().items()}
        return {"title": f"{described(self._loop)}(), a loop of yours. {self.verdict}", "lines": lines}

    def _inputs(self, prompts):
        """The prompts as a batch on the model's device: dict of LongTensor [batch, length]."""
        rows = [self._row(prompt, number) for number, prompt in enumerate(_as_list(prompts), 1)]
        padding = 0 if len({len(row) for row in rows}) == 1 else self._tokenizer.pad_token_id
        side = "right" if self._model.config.is_encoder_decoder else "left"
        ids, mask = (tensor.to(self._model.device) for tensor in pad(rows, padding, side))
        return {"input_ids": ids, "attention_mask": mask}

    def _row(self, prompt, number):
        """The ids of one prompt: list of int."""
        row = text_ids(self._tokenizer, prompt, f"prompt {number}")
        check_length(len(row), _MOST_TOKENS, f"prompt {number}", "this view shows at most {most}")
        return row

    def page_state(self) -> dict[str, Any]:
        """The own traits, with the branch taken on for a few steps, so that a reader can walk."""
        return super().page_state() | {"shown": self._state(self._walked_on())}

    def _walked_on(self):
        """The tree with at least 8 steps in the branch, as far as there are so many: StepTree."""
        if getattr(self, "_saved", (None,))[0] is not self.shown:
            tree = self._tree.copy()
            with self._lock, contextlib.suppress(Exception):  # a step that fails is none to show
                while len(tree.path(self.branch)) < _SAVED_STEPS and not tree.done(self.branch):
                    tree.forward(self.branch)
            self._saved = (self.shown, tree)
        return self._saved[1]

    def _lines(self, tree):
        """What happened at each step, row by row: an iterator of (row int, list of lists of str)."""
        path = tree.path(self.branch)
        for row in range(len(tree.prompt)):
            lines = []
            for index, turn in enumerate(path):
                record, chosen = tree.steps[turn.step], isolated(tree.labels[turn.tokens[row]])
                likely = share = ""
                if record["rows"][row]:
                    own = record["rows"][row]
                    raw = max(zip(own["shares"][0], own["top"], strict=True), key=lambda pair: pair[0])
                    likely = f"{isolated(tree.labels[raw[1]])} {raw[0]:.2f}"
                    share = f"{turn.shares[row][-1] or 0:.2f}"
                lines.append(
                    [str(index), str(record["cache"]), likely, chosen, share, turn.reasons[row] or ""]
                )
            yield row, lines

    def summary(self) -> str:
        text = [f"generate({self.shown['arguments']})", *self._words_on_the_loop()]
        for row, lines in self._lines(self._tree):
            text.append(f"Row {row}, after {quoted(self._prompt_of(row, self._tree))}")
            widths = [max(map(columns, column)) for column in zip(_HEADER, *lines, strict=True)]
            for line in (_HEADER, *lines):
                cells = (ljust(cell, width) for cell, width in zip(line, widths, strict=True))
                text.append("  ".join(cells).rstrip())
        return "\n".join([*text, *_branch_lines(self._tree)])

    def still(self) -> str:
        tree = self._walked_on()
        arguments = ", ".join(filter(None, [self.shown["arguments"], self.shown["objects"]]))
        parts = [
            f"<p>{html.escape(line)}</p>" for line in (f"generate({arguments})", *self._words_on_the_loop())
        ]
        for row, lines in self._lines(tree):
            prompt = html.escape(isolated(visible(self._prompt_of(row, tree))))
            parts.append(f"<p>Row {row}, after “{prompt}”</p>{html_table(_HEADER, lines)}")
        parts += [f"<p>{html.escape(line)}</p>" for line in _branch_lines(tree)]
        return "".join(parts)

    def _words_on_the_loop(self):
        return [] if self._loop is None else [self.shown["source"]["title"]]

    def _prompt_of(self, row, tree):
        """The prompt that a row continues: str; with num_return_sequences, several rows have one."""
        return self._prompts[row * len(self._prompts) // len(tree.prompt)]


@functools.cache
def _libraries_lines():
    """Where the installed generate() does what a step shows: dict."""
    found = lines_at(_LOOP, _ANCHORS)
    return {
        "title": f"{_LOOP}, transformers {version()}",
        "lines": {name: list(found[name]) for name in found},
    }


_HEADER = ["Step", "In the cache", "Likeliest by the logits", "Chosen", "After the processors", "Finished"]


def _rollout(walk, seed):
    """What a loop appends from the prompt to its end: tuple, one a step, of tuples of int, one a row."""
    prefix, reasons = (), (None,)
    while None in reasons:
        _, tokens, reasons = walk.take(prefix, seed, {})
        prefix = (*prefix, tokens)
    return prefix


def _compared(ours, theirs, tokenizer):
    """A sentence on where two rollouts part."""
    for step, (mine, other) in enumerate(zip(ours, theirs, strict=False)):
        for row, (token, wanted) in enumerate(zip(mine, other, strict=True)):
            if token != wanted:
                token, wanted = (isolated(token_label(tokenizer, id)) for id in (token, wanted))
                return (
                    f"At step {step}, in row {row}, it appends “{token}” where generate() appends “{wanted}”."
                )
    if len(ours) == len(theirs):
        return f"Its ids are those of generate(), in all {len(ours)} steps."
    if len(ours) < len(theirs):
        return (
            f"Its ids are those of generate() in all {len(ours)} steps, but generate() takes {len(theirs)}."
        )
    return f"It goes on after step {len(theirs) - 1}, at which generate() stops."


def _branch_lines(tree):
    """Where each branch leaves another, in words: list of str."""
    lines = []
    for number, branch in enumerate(tree.branches):
        if branch.parent is None:
            lines += [f"Branch {number} begins with seed {branch.seed}."] if number else []
            continue
        new, old = (
            tree.labels[tree.path(which)[branch.start].tokens[branch.row]]
            for which in (number, branch.parent)
        )
        lines.append(
            f"Branch {number} leaves branch {branch.parent} at step {branch.start}, row {branch.row}: "
            f"“{isolated(new)}” for “{isolated(old)}”."
        )
    return lines


def _plain_int(number):
    """An integer of NumPy's or torch's as an int, which a page can be sent; anything else as it is."""
    try:
        return number if isinstance(number, bool) else operator.index(number)
    except TypeError:
        return number


def _as_list(prompts):
    if not isinstance(prompts, list | tuple):
        raise CourseError(
            f"The prompts are of type {type(prompts).__name__}. "
            'Give one text or a list of texts: ["The capital of France is", "My dog is"].'
        )
    if not prompts:
        raise CourseError('There is no prompt. Give at least one: "The capital of France is".')
    if len(prompts) > MOST_ROWS:
        raise CourseError(
            f"These are {len(prompts)} prompts, and this view shows at most {MOST_ROWS}. Leave some out."
        )
    return prompts
