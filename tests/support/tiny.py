"""Random models small enough to be made in a test."""

import torch
from transformers import GPT2Config, GPT2LMHeadModel


def tiny_gpt2(positions=16, vocabulary=50257, seed=0):
    """A GPT-2 of one layer with random weights, in eval mode; its logits are spread wide enough to see."""
    torch.manual_seed(seed)
    config = GPT2Config(vocab_size=vocabulary, n_positions=positions, n_embd=16, n_layer=1, n_head=2)
    model = GPT2LMHeadModel(config).eval()
    model.transformer.wte.weight.data *= 60
    return model


def favoured(model, tokens):
    """`model` (GPT-2's architecture), made to give the ids `tokens` by far the largest logits."""
    bias = torch.zeros(model.config.vocab_size)
    bias[list(tokens)] = 99
    model.lm_head.register_forward_hook(lambda module, inputs, logits: logits + bias)
    return model
