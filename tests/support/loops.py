"""A decoding loop as a learner writes it, for generate(custom_generate=cached_loop)."""

import torch


def continued(inputs):
    mask = inputs["attention_mask"]
    mask = None if mask is None else torch.nn.functional.pad(mask, (0, 1), value=1)
    return {**inputs, "attention_mask": mask, "position_ids": inputs["position_ids"][:, -1:] + 1}


@torch.no_grad()
def cached_loop(model, input_ids, logits_processor, stopping_criteria, generation_config, **inputs):
    """LongTensor [batch, length], the prompt included: the loop of lesson 05."""
    unfinished = torch.ones(len(input_ids), dtype=torch.bool, device=input_ids.device)
    given = input_ids
    while unfinished.any():
        logits = model(given, **inputs).logits[:, -1].float()
        scores = logits_processor(input_ids, logits)
        if generation_config.do_sample:
            chosen = torch.multinomial(scores.softmax(-1), num_samples=1)[:, 0]
        else:
            chosen = scores.argmax(-1)
        chosen = torch.where(unfinished, chosen, generation_config.pad_token_id)
        input_ids = torch.cat([input_ids, chosen[:, None]], dim=1)
        unfinished = unfinished & ~stopping_criteria(input_ids, None)
        given, inputs = chosen[:, None], continued(inputs)
    return input_ids
