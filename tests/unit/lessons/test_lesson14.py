"""The capstone: solutions that pass, and wrong ones that are told what is wrong."""

import json
import math

import torch
from transformers import DynamicCache

from course_utils.advantages import leave_one_out
from course_utils.lessons import lesson14
from course_utils.lessons.lesson14 import (
    closing,
    exactly,
    green,
    grpo_step,
    write_json,
    write_marked,
    z_score,
)
from prove import prove_exercise, prove_questions

END = 2


def test_questions():
    assert len(prove_questions(lesson14)) == 1


# ---- brief 1 -----------------------------------------------------------------------------------------


@torch.no_grad()
def by_hand(model, tokenizer, prompt, n):
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    start, stops = ids.shape[1], closing(tokenizer)
    for place in range(n):
        scores = model(ids).logits[0, -1]
        if place < n - 2:
            scores[[0, 1, 2]] = -math.inf
            chosen = scores.argmax()
        else:
            chosen = torch.tensor(stops[scores[stops].argmax()] if place == n - 2 else END)
        ids = torch.cat([ids, chosen[None, None]], dim=1)
    return ids[0, start:]


def changed(change):
    def answer(model, tokenizer, prompt, n):
        return change(exactly(model, tokenizer, prompt, n), tokenizer, prompt)

    return answer


def words_of_ones_own(ids, tokenizer, prompt):
    return [40_000] * (len(ids) - 2) + ids[-2:]


def with_prompt(ids, tokenizer, prompt):
    return tokenizer(prompt).input_ids + ids


def test_exactly():
    dot = 30  # "."
    prove_exercise(
        lesson14.check_exactly,
        right=[exactly, by_hand],
        wrong=[
            (changed(with_prompt), "the prompt is in the result"),
            (changed(lambda ids, tokenizer, prompt: [*ids[:-2], END, END]), "before the last one"),
            (changed(lambda ids, tokenizer, prompt: ids[:-1]), "the result has"),
            (changed(lambda ids, tokenizer, prompt: [*ids[:-1], 0]), "not the end"),
            (changed(lambda ids, tokenizer, prompt: [*ids[:-2], 338, END]), "the text is cut off"),
            (changed(words_of_ones_own), "Let the model choose what is free"),
            (lambda *given: "text", "is to return one list of ids"),
        ],
    )  # fmt: skip
    assert dot in closing(lesson14._smollm2()[1])


# ---- brief 2 -----------------------------------------------------------------------------------------


@torch.no_grad()
def by_mask(model, tokenizer, prompt):
    """Another right way: what is not allowed gets minus infinity, few tokens at first and all if none is."""
    new, text, texts = tokenizer(prompt).input_ids, "", lesson14.pieces(tokenizer)
    cache = DynamicCache(config=model.config)
    while not lesson14.is_whole(text):
        logits = model(torch.tensor([new]), cache=cache).logits[0, -1]
        for count in (100, len(logits)):
            tried = logits.topk(count).indices.tolist()
            allowed = [id for id in tried if texts[id] and lesson14.begins(text + texts[id])]
            if allowed:
                break
        masked = torch.full_like(logits, -math.inf)
        masked[allowed] = logits[allowed]
        new = [masked.argmax().item()]
        text += texts[new[0]]
    return text


def test_json():
    value = {"name": "Anna", "age": 9, "likes": ["tea"]}
    prove_exercise(
        lesson14.check_json,
        right=[write_json, by_mask],
        wrong=[
            (lambda *given: json.dumps(value), "Let it choose among what is allowed"),
            (lambda *given: json.dumps(value | {"age": "nine"}), "not of the schema"),
            (lambda *given: json.dumps(value, indent=1), "with other spaces or another order"),
            (lambda *given: json.dumps(value)[:-1], "it is no JSON"),
            (lambda model, tokenizer, prompt: prompt + json.dumps(value), "the prompt is in the result"),
            (lambda *given: value, "Return the text"),
        ],
    )  # fmt: skip


# ---- brief 3 -----------------------------------------------------------------------------------------


def by_count(ids, key):
    tested = [bool(green(ids[place - 1], key, 49_152)[ids[place]]) for place in range(1, len(ids))]
    return (2 * sum(tested) - len(tested)) / math.sqrt(len(tested))


def hits(ids, key):
    return z_score(ids, key) * ((len(ids) - 1) / 4) ** 0.5 + (len(ids) - 1) / 2


def test_z_score():
    prove_exercise(
        lesson14.check_z_score,
        right=[z_score, by_count],
        wrong=[
            (hits, "That is the number of green tokens"),
            (lambda ids, key: z_score(ids[::-1], key), "The half is chosen by the token *before*"),
            (lambda ids, key: 9.0, "with the variance T / 4"),
            (lambda ids, key: "a", "Return one number"),
        ],
    )


@torch.no_grad()
def by_masking(model, tokenizer, prompt, key, n):
    """Another right way: what is not green loses, in log probabilities."""
    ids, cache = tokenizer(prompt).input_ids, DynamicCache(config=model.config)
    for _ in range(n):
        new = ids[cache.get_seq_length() :]
        log_probs = model(torch.tensor([new]), cache=cache).logits[0, -1].log_softmax(-1)
        log_probs[~green(ids[-1], key, len(log_probs))] -= 2.5
        ids.append(torch.multinomial(log_probs.exp(), 1).item())
    return torch.tensor(ids)


def plain(model, tokenizer, prompt, key, n):
    return unmarked(model, tokenizer, prompt, n)


@torch.no_grad()
def unmarked(model, tokenizer, prompt, n):
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    return model.generate(ids, do_sample=True, top_k=0, max_new_tokens=n, eos_token_id=None, pad_token_id=0)[
        0
    ].tolist()


def noise(model, tokenizer, prompt, key, n):
    ids = tokenizer(prompt).input_ids
    for _ in range(n):
        ids.append(int(green(ids[-1], key, 49_152).nonzero()[1000, 0]))
    return ids


def test_watermark():
    prove_exercise(
        lesson14.check_watermark,
        right=[write_marked, by_masking],
        wrong=[
            (plain, "Below 3 nobody would call it marked"),
            (noise, "but the text is noise"),
            (lambda *given: write_marked(*given)[3:], "Return all ids"),
            (lambda *given: "text", "is to return one list of ids"),
        ],
    )


# ---- brief 4 -----------------------------------------------------------------------------------------


def stepping(sign=1.0, step=True, sample=True, shift=0.0, train=False, flat=False, pooled=False):
    def answer(model, optimizer, prompts, reward, samples, new_tokens):
        count, length = prompts.shape
        with torch.no_grad():
            repeated = prompts.repeat_interleave(samples, 0)
            ids = model.generate(
                repeated, attention_mask=torch.ones_like(repeated), max_new_tokens=new_tokens,
                eos_token_id=None, pad_token_id=0, do_sample=sample, **({"top_k": 0} if sample else {}),
            )  # fmt: skip
        rewards = torch.tensor([float(reward(row.tolist())) for row in ids[:, length:]]).view(count, samples)
        weights = (rewards - rewards.mean(1, keepdim=True)).flatten()
        logits = model(ids).logits[:, length - 1 : -1].log_softmax(-1)
        picked = logits.gather(-1, ids[:, length:, None]).squeeze(-1).sum(1)
        optimizer.zero_grad()
        (-sign * (weights * picked).mean()).backward()
        if step:
            optimizer.step()
        if train:
            model.train()
        return (ids if flat else ids.view(count, samples, -1)), rewards + shift

    return answer


def test_grpo_step():
    prove_exercise(
        lesson14.check_grpo_step,
        right=[grpo_step, stepping()],
        wrong=[
            (stepping(sign=-1.0), "The loss is *minus* advantage"),
            (stepping(step=False), "No weight has changed"),
            (stepping(sample=False), "All texts of a prompt are equal"),
            (stepping(shift=1.0), "The rewards are not those of the new tokens"),
            (stepping(train=True), "left in training mode"),
            (stepping(flat=True), "Ids are to be (2, 6, 7)"),
            (lambda *given: 3, "Return two things"),
        ],
    )
    assert leave_one_out(torch.tensor([[1.0, 3.0]])).shape == (1, 2)
