"""course_utils.relaxations: a token forwards, the gradient of the softmax that it stands for backwards."""

import torch
from torch.nn.functional import one_hot

from course_utils.relaxations import gumbel, soft, straight_through


def drawn_logits():
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(3, 7, generator=generator, dtype=torch.float64).requires_grad_(),
        torch.randn(3, 7, generator=generator, dtype=torch.float64),
    ]


def gradient_of(link):
    logits, weights = drawn_logits()
    (gradient,) = torch.autograd.grad((link(logits) * weights).sum(), logits)
    return gradient


def test_straight_through_is_a_token_with_the_gradient_of_softmax():
    logits, _ = drawn_logits()
    expected = one_hot(logits.argmax(-1), 7).to(logits.dtype)
    torch.testing.assert_close(straight_through(logits), expected)
    torch.testing.assert_close(gradient_of(straight_through), gradient_of(soft))


def test_hard_gumbel_is_a_token_with_the_gradient_of_the_soft_one():
    def link(hard):
        return lambda logits: gumbel(logits, 0.5, hard=hard, generator=torch.Generator().manual_seed(3))

    logits, _ = drawn_logits()
    mixture, token = (link(hard)(logits) for hard in (False, True))
    torch.testing.assert_close(token, one_hot(mixture.argmax(-1), 7).to(logits.dtype))
    torch.testing.assert_close(gradient_of(link(True)), gradient_of(link(False)))
