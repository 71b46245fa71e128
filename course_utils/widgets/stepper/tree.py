"""Generation as a tree: the steps that were taken and the branches they belong to, ready for a page.

A `Walk` takes the steps. What one of them found is measured once and kept.
"""

import math
from dataclasses import dataclass, replace

import torch

from ...errors import CourseError
from ..core.labels import token_label

MOST_ROWS = 6
MOST_BRANCHES = 16
MOST_RECORDS = 240  # steps times rows; a page that holds more grows slow
_TOP = 10  # tokens that are kept of each distribution


@dataclass(frozen=True)
class Turn:
    """What was chosen at one step.

    step:    int, its number in `StepTree.steps`
    tokens:  tuple of int, one a row
    shares:  tuple, one a row: the chosen token's probability in the raw distribution and after each
             processor (list of float, None where it is removed), or None for a row that was finished before
    reasons: tuple, one a row: None, or why the row is finished after this step
    """

    step: int
    tokens: tuple
    shares: tuple
    reasons: tuple


@dataclass(frozen=True)
class Branch:
    """One way through the tree, from the step at which it leaves its parent.

    parent: int, the number of the branch that it leaves, or None for a beginning
    start:  int, the index of the first step that is its own
    row:    int, the row in which another token was chosen at `start`; None for a beginning
    seed:   int, of the draws
    turns:  tuple of Turn, from step `start` on
    """

    parent: int | None
    start: int
    row: int | None
    seed: int
    turns: tuple


class StepTree:
    """Every step that was taken, and the branches.

    walk:      Walk or LoopWalk, which takes the steps
    tokenizer: the tokenizer whose ids they are
    seed:      int, the first beginning is what generate() gives after torch.manual_seed(seed)

    steps:     list of dict, what a page draws of a Step (see `_record`), once for each prefix
    branches:  list of Branch
    labels:    dict from int to str, the text of every token that a page may show
    chains:    list of lists of str, the names of the logits processors; a step says which list is its own
    """

    def __init__(self, walk, tokenizer, seed):
        self._walk = walk
        self._tokenizer = tokenizer
        self._known = {}  # the tokens chosen before a step -> its number in `steps`
        self.steps, self.branches, self.labels, self.chains = [], [], {}, []
        self.prompt = self._walk.sequences
        if len(self.prompt) > MOST_ROWS:
            raise CourseError(
                f"These arguments make {len(self.prompt)} rows, and this view shows at most {MOST_ROWS}. "
                "Give fewer prompts, or a smaller num_return_sequences."
            )
        self._label(self.prompt.flatten().tolist())
        self.begin(seed)

    def copy(self):
        """A tree that grows by itself and takes its steps with the same Decoding: StepTree."""
        other = object.__new__(StepTree)
        grown = ("_known", "steps", "branches", "labels", "chains")
        other.__dict__ = self.__dict__ | {name: getattr(self, name).copy() for name in grown}
        return other

    @property
    def sampling(self):
        """bool, whether the choices are drawn at random."""
        return self._walk.random

    def path(self, number):
        """The turns of a branch, with those that it shares with its parents: tuple of Turn."""
        branch = self.branches[number]
        if branch.parent is None:
            return branch.turns
        return self.path(branch.parent)[: branch.start] + branch.turns

    def sequences(self, number):
        """The ids of a branch as generate() would return them: LongTensor [batch, length] on the CPU."""
        tokens = torch.tensor([turn.tokens for turn in self.path(number)])
        return torch.cat([self.prompt, tokens.T], dim=1)

    def done(self, number):
        """bool, whether every row of a branch is finished."""
        return None not in self.path(number)[-1].reasons

    def begin(self, seed):
        """Take the first step with the draws of `seed`. Returns int, the number of the branch."""
        for number, branch in enumerate(self.branches):
            if branch.parent is None and branch.seed == seed:
                return number
        return self._add(Branch(None, 0, None, seed, ()), lambda: self._take((), seed))

    def forward(self, number):
        """Take one more step at the end of a branch that is not done."""
        branch, path = self.branches[number], self.path(number)
        turn = self._take(path, branch.seed)
        self.branches[number] = replace(branch, turns=(*branch.turns, turn))

    def choose(self, number, index, row, token):
        """Let step `index` of a branch have chosen `token` in `row`. Returns int, the number of the branch
        that does: a new one unless there is one. Raises CourseError as `Decoding.choose` does."""
        path, seed = self.path(number), self.branches[number].seed
        before, turn = path[:index], path[index]
        wanted = {**dict(enumerate(turn.tokens)), row: token}
        tokens = [*_tokens(before), tuple(wanted.values())]
        for other, branch in enumerate(self.branches):
            if branch.seed == seed and _tokens(self.path(other)[: index + 1]) == tokens:
                return other
        branch = Branch(self._owner(number, index, row), index, row, seed, ())
        record = self.steps[turn.step]["rows"]
        if row in range(len(record)) and record[row] and token in record[row]["top"]:
            place = record[row]["top"].index(token)
            shares = list(turn.shares)
            shares[row] = [stage[place] for stage in record[row]["shares"]]
            return self._add(branch, lambda: self._known_turn(before, seed, wanted, turn.step, tuple(shares)))
        return self._add(branch, lambda: self._take(before, seed, wanted))

    def _owner(self, number, index, row):
        """The branch that another token in `row` at step `index` leaves: int. A second choice at the place
        where a branch began is its sibling."""
        branch = self.branches[number]
        if branch.start > index or (branch.start == index and branch.row == row and row is not None):
            return self._owner(branch.parent, index, row)
        return number

    def _add(self, branch, first_turn):
        if len(self.branches) >= MOST_BRANCHES:
            raise CourseError(
                f"This view holds {len(self.branches)} branches, as many as it can. "
                "Press Start to begin again without them."
            )
        self.branches.append(replace(branch, turns=(first_turn(),)))
        return len(self.branches) - 1

    def _known_turn(self, before, seed, wanted, step, shares):
        """A step that was measured before, with the tokens `wanted` (dict by row) chosen: Turn."""
        tokens, reasons = self._walk.choose(tuple(_tokens(before)), seed, wanted)
        return Turn(step, tokens, shares, reasons)

    def _take(self, before, seed, wanted=None):
        """The step after the turns `before`, with the tokens `wanted` (dict by row) chosen: Turn."""
        prefix = tuple(_tokens(before))
        if prefix not in self._known and (len(self.steps) + 1) * len(self.prompt) > MOST_RECORDS:
            raise CourseError(
                f"This view holds {len(self.steps)} steps, as many as it can. "
                "Go on in a cell with decode_steps(), or press Start to begin again."
            )
        step, tokens, reasons = self._walk.take(prefix, seed, wanted or {})
        over = [reason is not None for reason in before[-1].reasons] if before else [False] * len(tokens)
        scores = torch.stack([step.logits, *(scores for _, scores in step.stages)])
        probs, kept = scores.softmax(-1), ~scores.isneginf()
        if prefix not in self._known:
            self.steps.append(self._record(step, scores, probs, kept, over))
            self._known[prefix] = len(self.steps) - 1
        self._label(tokens)
        rows = range(len(tokens))
        chosen = _shares(probs[:, rows, tokens], kept[:, rows, tokens])  # [stages + 1, batch]
        shares = tuple(None if over[row] else [stage[row] for stage in chosen] for row in rows)
        return Turn(self._known[prefix], tokens, shares, reasons)

    def _record(self, step, scores, probs, kept, over):
        """What a page draws of a Step: dict.

        cache: int, positions in the cache; chain: int, which of `chains` names the stages
        given: one a row: the new `ids`, their `positions` (or None), and the `mask` as runs [value, length]
        rows:  one a row, None if it was finished before, else {"top": ids of the likeliest tokens, "shares":
               for each stage (the logits' first) their probabilities, None where removed, "kept": tokens left
               after each stage, "mass": the probability that those had in the beginning, "entropy": in bits}
        """
        chain = [name for name, _ in step.stages]
        if chain not in self.chains:
            self.chains.append(chain)
        positions = step.position_ids
        if positions is not None:
            positions = positions.expand(len(over), -1).tolist()
        given = [
            {"ids": row, "positions": positions and positions[number], "mask": _runs(mask)}
            for number, (row, mask) in enumerate(
                zip(
                    step.input_ids[:, step.cache_length :].tolist(), step.attention_mask.tolist(), strict=True
                )
            )
        ]
        nats = scores.logsumexp(-1) - (probs * scores.masked_fill(~kept, 0)).sum(-1)
        mass = (probs[0] * kept).sum(-1, dtype=torch.float64)
        figures = {"kept": kept.sum(-1), "mass": mass, "entropy": (nats / math.log(2)).clamp(min=0)}
        figures = {name: values.T.tolist() for name, values in figures.items()}
        top = probs.topk(min(_TOP, probs.shape[-1])).indices
        top_kept = kept.gather(-1, top)
        rows = []
        for row, done in enumerate(over):
            likely = list(dict.fromkeys(top[:, row][top_kept[:, row]].tolist()))
            self._label([] if done else likely)
            own = {"top": likely, "shares": _shares(probs[:, row, likely], kept[:, row, likely])}
            own |= {name: [round(value, 5) for value in values[row]] for name, values in figures.items()}
            rows.append(None if done else own)
        return {
            "cache": step.cache_length,
            "chain": self.chains.index(chain),
            "given": given,
            "rows": rows,
        }

    def _label(self, tokens):
        for token in tokens:
            if token not in self.labels:
                self.labels[token] = token_label(self._tokenizer, token)


def _tokens(turns):
    return [turn.tokens for turn in turns]


def _shares(probs, kept):
    """Probabilities as lists, None where a token is removed; five decimals are more than a page shows."""
    return [
        [round(prob, 5) if is_kept else None for prob, is_kept in zip(*stage, strict=True)]
        for stage in zip(probs.tolist(), kept.tolist(), strict=True)
    ]


def _runs(values):
    """[0, 0, 1] as [[0, 2], [1, 1]]: a long text's mask takes little room so."""
    runs = []
    for value in values:
        if runs and runs[-1][0] == value:
            runs[-1][1] += 1
        else:
            runs.append([value, 1])
    return runs
