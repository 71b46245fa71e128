"""A Decoding that goes wherever a learner wants to go on, with the draws of any seed.

The notebook's own random state is as it was when a method returns.
"""

import contextlib

import torch

from .steps import decode_steps


class Walk:
    """One Decoding that is led to any step, as generate() would have come there.

    inputs:    dict of tensors and arguments: dict, as `decode_steps(model, inputs, **arguments)` takes them
    sequences: LongTensor [batch, length] on the CPU, the ids where it stands
    random:    bool, whether a step has drawn random numbers
    """

    def __init__(self, model, inputs, arguments):
        self._decoding = decode_steps(model, inputs, **arguments)
        self._start = self.sequences.shape[1]
        device = model.device.type
        self._generators = [torch] if device == "cpu" else [torch, torch.get_device_module(device)]
        self._states = {}  # (seed, steps taken) -> the random state there
        self.random = False

    @property
    def sequences(self):
        return self._decoding.sequences.cpu()

    def take(self, prefix, seed, wanted):
        """Take the step after the tokens `prefix` (tuple of tuples, one a step), then choose those of
        `wanted` (dict from row to token). Returns (Step, the tokens it chose, the reasons), both tuples."""
        with self._led_to(prefix, seed):
            self._back_to(len(prefix))
            step = self._next(seed)
            self._choose(wanted)
            return step, self._taken()[-1], self._decoding.reasons

    def choose(self, prefix, seed, wanted):
        """The same without the Step: it is not taken again where that can be spared."""
        with self._led_to(prefix, seed):
            if self._decoding.steps_taken == len(prefix):
                self._next(seed)
            self._back_to(len(prefix) + 1)
            self._choose(wanted)
            return self._taken()[-1], self._decoding.reasons

    @contextlib.contextmanager
    def _led_to(self, prefix, seed):
        """Lead the Decoding to the tokens `prefix` or beyond; the notebook's random state is put back."""
        before = self._get()
        try:
            taken = self._taken()
            same = 0
            while same < min(len(taken), len(prefix)) and taken[same] == prefix[same]:
                same += 1
            if same < min(len(taken), len(prefix)):  # the step was taken, and chose other tokens
                self._back_to(same + 1)
                self._choose(dict(enumerate(prefix[same])))
            for tokens in prefix[self._decoding.steps_taken :]:
                self._next(seed)
                self._choose(dict(enumerate(tokens)))
            yield
        except KeyboardInterrupt:  # it may have come before the random state was kept: walk again
            self._back_to(0)
            raise
        finally:
            self._put(before)

    def _back_to(self, place):
        if place < self._decoding.steps_taken:
            self._decoding.back(self._decoding.steps_taken - place)

    def _taken(self):
        return [tuple(tokens) for tokens in self.sequences[:, self._start :].T.tolist()]

    def _choose(self, wanted):
        now = self._taken()[-1]
        for row, token in wanted.items():
            if not (isinstance(row, int) and 0 <= row < len(now) and now[row] == token):
                self._decoding.choose(token, row)

    def _next(self, seed):
        """The next step with the draws that generate() makes there after torch.manual_seed(seed)."""
        place = self._decoding.steps_taken
        if place == 0:
            torch.manual_seed(seed)
        else:
            self._put(self._states[seed, place])
        before = self._get()
        step = next(self._decoding)
        self._states[seed, place + 1] = self._get()
        self.random |= not all(map(torch.equal, before, self._states[seed, place + 1]))
        return step

    def _get(self):
        return [generator.get_rng_state() for generator in self._generators]

    def _put(self, states):
        for generator, state in zip(self._generators, states, strict=True):
            generator.set_rng_state(state)
