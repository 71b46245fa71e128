"""Messages about what comes out: texts, sampling, the cache, chats."""

from .entry import Message

OUTPUTS = (
    # What generate() writes
    Message(
        key="prompt-in-output",
        group="output",
        kind="symptom",
        title="The prompt is in the output",
        says="'My dog is…",
        raises="""
            inputs = tokenizer("My dog is", return_tensors="pt")
            wrote = model.generate(**inputs, max_new_tokens=3, do_sample=False)
            print(repr(tokenizer.decode(wrote[0])))
        """,
        cause="A decoder-only model continues the row of ids that it was given, and `generate()` returns the whole row.",
        cure="Cut by the number of ids, `ids[0, inputs.input_ids.shape[1] :]`, not by the text: decoding may change its length.",
        cured="""
            inputs = tokenizer("My dog is", return_tensors="pt")
            wrote = model.generate(**inputs, max_new_tokens=3, do_sample=False)
            print(repr(tokenizer.decode(wrote[0, inputs.input_ids.shape[1] :])))
        """,
        lesson="07_scores",
        section="4. Where the answer begins",
        asked=(
            "why is the prompt in the output",
            "generate returns the input text too",
            "how to get only the generated text without the prompt",
            "model repeats the question",
            "the output contains my prompt",
        ),
    ),
    Message(
        key="never-stops",
        group="output",
        kind="symptom",
        title="The model never stops",
        says="24 tokens, ended: False",
        raises="""
            chat = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt")
            wrote = model.generate(**chat, max_new_tokens=24, do_sample=False, eos_token_id=0)
            new = wrote[0, chat.input_ids.shape[1] :]
            print(len(new), "tokens, ended:", new[-1].item() == 0)
        """,
        cause="A text ends at an id of `eos_token_id`. This model ends a turn with 2, and only 0 would end it here. It may also never have been trained to write an end, if padding hid the ends from its labels.",
        cure="Name every id that ends a text, `eos_token_id=[0, 2]`, in the call or in the generation config.",
        cured="""
            chat = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt")
            wrote = model.generate(**chat, max_new_tokens=24, do_sample=False, eos_token_id=[0, 2])
            new = wrote[0, chat.input_ids.shape[1] :]
            print(len(new), "tokens, ended:", new[-1].item() in (0, 2))
        """,
        lesson="11_chat",
        section="4. Who ends a turn?",
        asked=(
            "my fine-tuned model never stops generating",
            "generation does not stop at eos token",
            "model keeps generating until max_new_tokens",
            "model answers itself, writes the user's next turn",
            "endless repetition after the answer",
        ),
    ),
    Message(
        key="replacement-character",
        group="output",
        kind="symptom",
        title="Streamed text shows a question mark in a diamond",
        says="…�…",
        raises="""
            pieces = [tokenizer.decode(id) for id in tokenizer("🙂").input_ids]
            print(*pieces)
        """,
        cause="A token is a piece of bytes, and one character can be several tokens. Decoded one by one, none of them is a character.",
        cure="Decode them together, or hold a piece back until it is whole, as `TextStreamer` does.",
        cured="""
            print(tokenizer.decode(tokenizer("🙂").input_ids))
        """,
        lesson="01_text_to_integers",
        section="2. Text is bytes",
        asked=(
            "streaming output shows � for emoji or Chinese",
            "broken unicode characters while streaming",
            "garbled characters, replacement character U+FFFD in the stream",
        ),
    ),
    Message(
        key="fifty-candidates",
        group="output",
        kind="symptom",
        title="Only 50 tokens can be drawn",
        says="candidates: 50",
        raises="""
            record = {"output_scores": True, "return_dict_in_generate": True}
            drawn = small.generate(ids, do_sample=True, max_new_tokens=1, pad_token_id=50256, **record)
            print("candidates:", drawn.scores[0].isfinite().sum().item())
        """,
        cause="Where nobody sets `top_k`, it is 50, and `top_k=None` counts as not set.",
        cure="Write `top_k=0` to switch it off.",
        cured="""
            record = {"output_scores": True, "return_dict_in_generate": True}
            drawn = small.generate(ids, do_sample=True, top_k=0, max_new_tokens=1, pad_token_id=50256, **record)
            print("candidates:", drawn.scores[0].isfinite().sum().item())
        """,
        lesson="05_generate",
        section="2. Where does each argument go?",
        asked=(
            "who set top_k to 50",
            "why is top_k 50",
            "top_k=None does not switch it off",
            "scores are -inf for most tokens",
            "output.scores contains -inf",
        ),
    ),
    Message(
        key="no-dict",
        group="output",
        kind="error",
        title="The scores are not there",
        says="AttributeError: 'Tensor' object has no attribute 'scores'",
        raises="""
            small.generate(ids, output_scores=True, max_new_tokens=2, pad_token_id=50256).scores
        """,
        cause="`generate()` returns a bare tensor of ids unless it is asked for an object.",
        cure="Pass `return_dict_in_generate=True`. The scores are one tensor a step.",
        cured="""
            record = {"output_scores": True, "return_dict_in_generate": True}
            output = small.generate(ids, max_new_tokens=2, pad_token_id=50256, **record)
            print(len(output.scores), tuple(output.scores[0].shape))
        """,
        lesson="05_generate",
        section="11. What comes back",
        asked=(
            "'Tensor' object has no attribute 'sequences'",
            "how to get the probabilities from generate",
        ),
    ),
    Message(
        key="no-attentions",
        group="output",
        kind="warning",
        title="No attentions come back",
        says="`sdpa` attention does not support `output_attentions=True`. Please set your attention to `eager` if you want any of these features.",
        raises="""
            with torch.no_grad():
                print(model(ids, output_attentions=True).attentions)
        """,
        cause="The default attention, SDPA, computes its result without ever holding the weights.",
        cure='Call `model.set_attn_implementation("eager")` for as long as you need them.',
        cured="""
            model.set_attn_implementation("eager")
            with torch.no_grad():
                print(len(model(ids, output_attentions=True).attentions), "layers")
            model.set_attn_implementation("sdpa")
        """,
        lesson="04_forward_pass",
        section="Attentions, and two traps",
        asked=(
            "output.attentions is None or empty",
            "attentions tuple is empty",
        ),
    ),
    # Sampling and NaN
    Message(
        key="probability-nan",
        group="sampling",
        kind="error",
        title="The probability tensor contains inf or nan",
        says="RuntimeError: probability tensor contains either `inf`, `nan` or element < 0",
        raises="""
            broken = copy.deepcopy(small)
            broken.lm_head.weight.data[5] = float("nan")
            broken.generate(ids, do_sample=True, max_new_tokens=3, pad_token_id=50256)
        """,
        cause="Somewhere before the draw a number is NaN or infinite: a weight, an overflow in float16 (it ends at 65,504), or a processor that forbids every token.",
        cure="Find the first place that is not finite. If there is none in float32, load in float32 or bfloat16.",
        cured="""
            broken = copy.deepcopy(small)
            broken.lm_head.weight.data[5] = float("nan")
            print([name for name, weight in broken.named_parameters() if not weight.isfinite().all()])
            small.generate(ids, do_sample=True, max_new_tokens=3, pad_token_id=50256).shape
        """,
        lesson="12_rounding",
        section="7. NaN, and a message",
        asked=(
            "nan in logits when sampling in float16",
            "CUDA error: device-side assert triggered in multinomial",
            "Assertion `probability tensor contains` failed in TensorCompare.cu",
        ),
    ),
    Message(
        key="distribution-zero",
        group="sampling",
        kind="error",
        title="A distribution that sums to 0",
        says="RuntimeError: invalid multinomial distribution (sum of probabilities <= 0)",
        raises="""
            probs = torch.tensor([0.7, 0.3, 0.0])
            allowed = torch.tensor([False, False, True])
            torch.multinomial(probs * allowed, 1)
        """,
        cause="The allowed tokens have a probability of 0, so nothing is left to draw from.",
        cure="Forbid before the softmax, in the logits: then the rest is renormalised, and at least one stays.",
        cured="""
            logits = torch.tensor([2.0, 1.0, -30.0])
            allowed = torch.tensor([False, False, True])
            torch.multinomial(logits.masked_fill(~allowed, float("-inf")).softmax(-1), 1)
        """,
        lesson="06_decoding",
        section="7. Forbid and allow",
    ),
    Message(
        key="nan-greedy",
        group="sampling",
        kind="symptom",
        title="Greedy decoding writes the first token of the vocabulary",
        says="'!!!'",
        raises="""
            broken = copy.deepcopy(small)
            broken.transformer.ln_f.weight.data[0] = float("nan")
            wrote = broken.generate(ids, do_sample=False, max_new_tokens=3, pad_token_id=50256)
            print(repr(gpt2.decode(wrote[0, 3:])))
        """,
        cause="All logits are NaN, `argmax` of NaN is index 0, and id 0 of GPT-2 is `!`. Greedy decoding reports nothing.",
        cure="Look at the logits: `logits.isfinite().all()`.",
        cured="""
            logits = small(ids).logits
            print("finite:", logits.isfinite().all().item())
        """,
        lesson="12_rounding",
        section="7. NaN, and a message",
        asked=(
            "output is only exclamation marks !!!!!!!",
            "model generates !!!! or the same token 0",
            "quantized model outputs exclamation marks",
        ),
    ),
    Message(
        key="same-seed",
        group="sampling",
        kind="symptom",
        title="The same seed gives another text",
        says="the same text: False",
        raises="""
            def sampled(rows):
                torch.manual_seed(0)
                batch = ids.repeat(rows, 1)
                mask = torch.ones_like(batch)
                return small.generate(batch, attention_mask=mask, do_sample=True, max_new_tokens=8, pad_token_id=50256)


            print("the same text:", torch.equal(sampled(1)[0], sampled(2)[0]))
        """,
        cause="Each step takes random numbers for all rows from one stream. A second row shifts what the first gets, from the second step on.",
        cure="Compare runs of the same batch. A seed fixes the whole call, not a row.",
        cured="""
            def sampled(rows):
                torch.manual_seed(0)
                batch = ids.repeat(rows, 1)
                mask = torch.ones_like(batch)
                return small.generate(batch, attention_mask=mask, do_sample=True, max_new_tokens=8, pad_token_id=50256)


            print("the same text:", torch.equal(sampled(2), sampled(2)))
        """,
        lesson="12_rounding",
        section="8. Seeds",
        asked=(
            "same seed gives different text",
            "set_seed but the output is not reproducible",
            "sampling not deterministic with fixed seed",
        ),
    ),
    # The cache
    Message(
        key="past-key-values",
        group="cache",
        kind="warning",
        title="The cache has a new name",
        says="`past_key_values` is deprecated and will be removed in version … for `…`. Use `cache` instead.",
        raises="""
            cache = DynamicCache(config=small.config)
            small(ids, past_key_values=cache)
        """,
        cause="From 5.24 on the argument is `cache`. In older releases a forward pass ignores that name without a word, so code that must run on both has to ask for the version.",
        cure="Write `cache=`.",
        cured="""
            cache = DynamicCache(config=small.config)
            small(ids, cache=cache)
            print(cache.get_seq_length())
        """,
        lesson="04_forward_pass",
        section="4. The cache",
        asked=("`past_key_values`/`cache_params` are deprecated. Use `cache` instead.",),
    ),
    Message(
        key="tuple-cache",
        group="cache",
        kind="error",
        title="A cache of tuples",
        says="ValueError: Passing a tuple for `cache` is not supported anymore. Please use a `Cache` instance.",
        raises="""
            pair = (torch.zeros(1, 4, 2, 16), torch.zeros(1, 4, 2, 16))  # keys and values of one layer
            small.generate(ids, cache=(pair,) * 4, max_new_tokens=3, pad_token_id=50256)
        """,
        cause="Older code keeps keys and values as a tuple of tuples. Today's cache is an object with layers.",
        cure="Let the library make it: `DynamicCache(config=model.config)`.",
        cured="""
            cache = DynamicCache(config=small.config)
            small.generate(ids, cache=cache, max_new_tokens=3, pad_token_id=50256).shape
        """,
        lesson="appendix_version_map",
        section="Arguments",
        asked=(
            "We detected that you are passing `past_key_values` as a tuple of tuples. This is deprecated",
            "'tuple' object has no attribute 'get_seq_length'",
            "'DynamicCache' object has no attribute 'seen_tokens'",
            "Passing a tuple of `past_key_values` is not supported anymore.",
        ),
    ),
    Message(
        key="only-new-ids",
        group="cache",
        kind="error",
        title="The cache and only the new ids",
        says="RuntimeError: cannot reshape tensor of 0 elements into shape …",
        raises="""
            cache = small(ids).cache  # holds 3 tokens
            small.generate(ids[:, :1], cache=cache, max_new_tokens=3, pad_token_id=50256)
        """,
        cause="`generate()` wants the ids of the whole text and skips those that the cache holds. One id, and three in the cache: nothing is left to read.",
        cure="Hand over the old ids and the new ones, with a mask for all of them.",
        cured="""
            cache = small(ids).cache
            whole = torch.cat([ids, ids[:, :1]], dim=1)
            small.generate(whole, cache=cache, max_new_tokens=3, pad_token_id=50256).shape
        """,
        lesson="04_forward_pass",
        section="A second turn",
        asked=(
            "continue generation from past_key_values error",
            "keep the cache for the next turn",
        ),
    ),
    Message(
        key="old-answer",
        group="cache",
        kind="symptom",
        title="The old answer to a new question",
        says="…Paris…",
        raises="""
            def ask(country, cache):
                chat = [{"role": "user", "content": f"What is the capital of {country}?"}]
                chat = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt")
                wrote = model.generate(**chat, cache=cache, max_new_tokens=12, do_sample=False)
                return tokenizer.decode(wrote[0, chat.input_ids.shape[1] :])


            cache = DynamicCache(config=model.config)
            ask("France", cache)
            print(ask("Japan", cache))
        """,
        cause="The cache stands for the ids that were read first. Nobody compares them with the new ones.",
        cure="A new conversation needs a new cache. A changed one may keep what both texts begin with.",
        cured="""
            print(ask("Japan", DynamicCache(config=model.config)))
        """,
        lesson="11_chat",
        section="6. Several turns",
        asked=(
            "chatbot answers the previous question",
            "reusing the kv cache gives the wrong answer",
            "context of the last conversation leaks into the next",
        ),
    ),
    # Chats
    Message(
        key="no-template",
        group="chat",
        kind="error",
        title="There is no chat template",
        says="ValueError: Cannot use chat template functions because tokenizer.chat_template is not set and no template argument was passed! …",
        raises="""
            gpt2.apply_chat_template(question)
        """,
        cause="A base model has never seen a chat, so its tokenizer has no template.",
        cure="Take the instruct version of the model, or give a base model plain text to continue.",
        cured="""
            chat = tokenizer.apply_chat_template(question, add_generation_prompt=True, tokenize=False)
            print(chat.splitlines()[-1])
        """,
        lesson="11_chat",
        section="2. The template",
        asked=(
            "Cannot use apply_chat_template() because tokenizer.chat_template is not set",
            "No chat template is set for this tokenizer, falling back to a default class-level template",
        ),
    ),
    Message(
        key="no-content",
        group="chat",
        kind="error",
        title="A message without content",
        says="UndefinedError: 'dict object' has no attribute 'content'",
        raises="""
            tokenizer.apply_chat_template([{"role": "user", "text": "Hi"}])
        """,
        cause="The template looks for the key `content`. The error comes from jinja2, the language of templates.",
        cure="Give each message a role and a content.",
        cured="""
            chat = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
            print(chat.splitlines()[-1])
        """,
        lesson="11_chat",
        section="2. The template",
        asked=(
            "jinja2.exceptions.UndefinedError: 'dict object' has no attribute 'role'",
            "jinja2.exceptions.TemplateError: Conversation roles must alternate user/assistant/user/assistant/...",
        ),
    ),
    Message(
        key="no-assistant-mask",
        group="chat",
        kind="warning",
        title="The assistant mask is empty",
        says="return_assistant_tokens_mask==True but chat template does not contain `{% generation %}` keyword.",
        raises="""
            chat = [*question, {"role": "assistant", "content": "Paris."}]
            found = tokenizer.apply_chat_template(chat, return_assistant_tokens_mask=True, return_dict=True)
            print(sum(found["assistant_masks"]), "tokens")
        """,
        cause="Only a template that marks the assistant's part can say which tokens are the assistant's. As labels this mask is −100 everywhere, and the loss NaN.",
        cure="Find the turns by their ids: after the assistant's header, up to and including the end.",
        cured="""
            chat = [*question, {"role": "assistant", "content": "Paris."}]
            whole = tokenizer.apply_chat_template(chat, return_dict=False)  # a list of ids
            header = [1, *tokenizer("assistant\\n").input_ids]
            starts = [at for at in range(len(whole)) if whole[at : at + len(header)] == header]
            print(repr(tokenizer.decode(whole[starts[-1] + len(header) :])))
        """,
        lesson="11_chat",
        section="7. Which tokens are the assistant's?",
        asked=("train on completions only, assistant_masks all zeros",),
    ),
    Message(
        key="empty-reply",
        group="chat",
        kind="symptom",
        title="The reply is empty",
        says="''",
        raises="""
            inputs = tokenizer("What is the capital of France?", return_tensors="pt")
            wrote = model.generate(**inputs, max_new_tokens=12, do_sample=False)
            new = wrote[0, inputs.input_ids.shape[1] :]
            print(repr(tokenizer.decode(new, skip_special_tokens=True)))
        """,
        cause="An instruct model takes bare text for an unfinished turn of the user, and ends it.",
        cure="Put the question into the template: `apply_chat_template(messages, add_generation_prompt=True)`.",
        cured="""
            inputs = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt")
            wrote = model.generate(**inputs, max_new_tokens=12, do_sample=False)
            new = wrote[0, inputs.input_ids.shape[1] :]
            print(repr(tokenizer.decode(new, skip_special_tokens=True)))
        """,
        lesson="11_chat",
        section="1. A question",
        asked=(
            "generate returns an empty string",
            "model returns nothing, only the eos token",
            "instruct model gives nonsense or no answer",
        ),
    ),
    Message(
        key="says-assistant",
        group="chat",
        kind="symptom",
        title="The reply begins with assistant",
        says="'assistant\\n…",
        raises="""
            inputs = tokenizer.apply_chat_template(question, return_tensors="pt")
            wrote = model.generate(**inputs, max_new_tokens=12, do_sample=False)
            new = wrote[0, inputs.input_ids.shape[1] :]
            print(repr(tokenizer.decode(new, skip_special_tokens=True)))
        """,
        cause="Without a generation prompt the model opens its turn itself, and the header is part of what it writes.",
        cure="Pass `add_generation_prompt=True`.",
        cured="""
            inputs = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt")
            wrote = model.generate(**inputs, max_new_tokens=12, do_sample=False)
            new = wrote[0, inputs.input_ids.shape[1] :]
            print(repr(tokenizer.decode(new, skip_special_tokens=True)))
        """,
        lesson="11_chat",
        section="3. The generation prompt",
        asked=(
            "reply starts with the word assistant",
            "output has 'assistant' in front of the answer",
            "add_generation_prompt missing",
        ),
    ),
    Message(
        key="double-begin",
        group="chat",
        kind="symptom",
        title="The prompt has two begin tokens",
        says="[1, 1]",
        raises="""
            from tokenizers.processors import TemplateProcessing

            adds = copy.deepcopy(tokenizer)  # puts a begin token in front, as Llama's does
            begin = {"single": "<|im_start|> $A", "special_tokens": [("<|im_start|>", 1)]}
            adds.backend_tokenizer.post_processor = TemplateProcessing(**begin)
            text = adds.apply_chat_template(question, tokenize=False)
            print(adds(text).input_ids[:2])
        """,
        cause="The template writes the begin token, and the tokenizer adds its own. Nothing warns, and `skip_special_tokens=True` hides it.",
        cure="A text from a template has its special tokens already: tokenize it with `add_special_tokens=False`.",
        cured="""
            print(adds(text, add_special_tokens=False).input_ids[:2])
        """,
        lesson="11_chat",
        section="3. The generation prompt",
        asked=(
            "double bos token",
            "two BOS tokens at the start of the prompt",
            "<s><s> or <|begin_of_text|><|begin_of_text|> in the prompt",
        ),
    ),
)
