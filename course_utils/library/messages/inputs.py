"""Messages about what goes in: tokenizer and padding, mask and positions, arguments of generate()."""

from .entry import Message

INPUTS = (
    # Tokenizer and padding
    Message(
        key="no-pad-token",
        group="padding",
        kind="error",
        title="The tokenizer has no padding token",
        says="ValueError: Asking to pad but the tokenizer does not have a padding token. Please select a token to use as `pad_token` … or add a new pad token via …",
        raises="""
            gpt2(["My dog is", "It will rain in the"], padding=True)
        """,
        cause="A batch is a rectangle, so shorter rows are filled up. GPT-2's tokenizer names no token for that.",
        cure="Pad with end-of-text: `tokenizer.pad_token = tokenizer.eos_token`. Hand the mask on, so that nobody reads the padding.",
        cured="""
            padded = load_tokenizer("gpt2", pad_token="<|endoftext|>")
            batch = padded(["My dog is", "It will rain in the"], padding=True, return_tensors="pt")
            print(batch.input_ids.tolist(), batch.attention_mask.tolist())
        """,
        lesson="02_padding",
        section="2. A pad token for a model that has none",
        asked=(
            "Using pad_token, but it is not set yet.",
            "Cannot handle batch sizes > 1 if no padding token is defined.",
        ),
    ),
    Message(
        key="ragged",
        group="padding",
        kind="error",
        title="The rows have different lengths",
        says="ValueError: Unable to create tensor, you should probably activate truncation and/or padding with 'padding=True' 'truncation=True' to have batched tensors with the same length. …",
        raises="""
            tokenizer(["My dog is", "It will rain in the"], return_tensors="pt")
        """,
        cause="A tensor has rows of one length, and these texts have 3 and 5 tokens.",
        cure='Pass `padding=True`; and `padding_side="left"`, if `generate()` is to continue the rows.',
        cured="""
            texts = ["My dog is", "It will rain in the"]
            batch = tokenizer(texts, padding=True, padding_side="left", return_tensors="pt")
            print(tuple(batch.input_ids.shape))
        """,
        lesson="02_padding",
        section="1. A tensor has rows of one length",
        asked=(
            "expected sequence of length 5 at dim 1 (got 3)",
            "excessive nesting",
        ),
    ),
    Message(
        key="too-long",
        group="padding",
        kind="warning",
        title="The text is longer than the tokenizer expects",
        says="Token indices sequence length is longer than the specified maximum sequence length for this model (… > …). Running this sequence through the model will result in indexing errors",
        raises="""
            text = "word " * 1100
            load_tokenizer("gpt2")(text)
        """,
        cause="The tokenizer only counts and warns, once; it cuts nothing. The error comes later, from the model.",
        cure="Cut the text with `truncation=True`; `truncation_side` says which end is lost. What a model continues stands at the end.",
        cured="""
            cuts = load_tokenizer("gpt2", truncation_side="left")
            kept = cuts("word " * 1100, truncation=True, max_length=1000)
            print(len(kept.input_ids), "tokens are left")
        """,
        lesson="02_padding",
        section="Too long; and a new pad token",
    ),
    Message(
        key="no-position",
        group="padding",
        kind="error",
        title="More tokens than the model has positions",
        says="IndexError: index out of range in self",
        raises="""
            small(torch.zeros(1, 1025, dtype=torch.long))
        """,
        cause="GPT-2 looks up each position in a table of 1,024 rows, and index 1,024 is not in it. On a GPU the same mistake is a device-side assert, after which nothing runs until the kernel is restarted.",
        cure="Read no more than the table has rows, and leave room for what is to be written.",
        cured="""
            long = torch.zeros(1, 1025, dtype=torch.long)
            print(tuple(small(long[:, -1024:]).logits.shape))
        """,
        lesson="appendix_version_map",
        section="The configuration",
        asked=(
            "text too long for the model, sequence longer than n_positions 1024",
            "CUDA error: device-side assert triggered",
            "Assertion `srcIndex < srcSelectDimSize` failed",
            "This model's maximum context length is exceeded",
        ),
    ),
    # Attention mask and positions
    Message(
        key="right-padding",
        group="mask",
        kind="warning",
        title="Right padding was detected",
        says="A decoder-only architecture is being used, but right-padding was detected! For correct generation results, please set `padding_side='left'` when initializing the tokenizer.",
        raises="""
            padded = load_tokenizer("gpt2", pad_token="<|endoftext|>")
            batch = padded(["My dog is", "It will rain in the"], padding=True, return_tensors="pt")
            small.generate(**batch, max_new_tokens=3, pad_token_id=50256)
        """,
        cause="`generate()` reads the next token at the last index of each row, and there is padding. It does not repair the batch; it only warns.",
        cure='Pad on the left: `padding_side="left"`.',
        cured="""
            padded = load_tokenizer("gpt2", pad_token="<|endoftext|>", padding_side="left")
            batch = padded(["My dog is", "It will rain in the"], padding=True, return_tensors="pt")
            wrote = small.generate(**batch, max_new_tokens=3, do_sample=False, pad_token_id=50256)
            alone = small.generate(ids, max_new_tokens=3, do_sample=False, pad_token_id=50256)
            assert torch.equal(wrote[0, -3:], alone[0, -3:])  # the row, as if it were alone
        """,
        lesson="02_padding",
        section="5. What generate() does for you",
        asked=(
            "why pad on the left",
            "padding_side left or right",
        ),
    ),
    Message(
        key="no-mask",
        group="mask",
        kind="warning",
        title="Neither mask nor pad token was set",
        says="The attention mask and the pad token id were not set, with a batched input. As a consequence, you may observe unexpected behavior. Please pass your input's `attention_mask` to obtain reliable results.",
        raises="""
            two = torch.cat([ids, ids])
            small.generate(two, max_new_tokens=3)
        """,
        cause="Only ids were handed over, so `generate()` cannot know which of them are padding. It takes them all for text. (Of a single row the installed version says nothing.)",
        cure="Hand over all that the tokenizer returned, `generate(**inputs)`, and name `pad_token_id`.",
        cured="""
            batch = gpt2(["My dog is", "My dog is"], return_tensors="pt")
            small.generate(**batch, max_new_tokens=3, pad_token_id=50256).shape
        """,
        lesson="02_padding",
        section='6. "The attention mask and the pad token id were not set"',
        asked=(
            "The attention mask and the pad token id were not set. As a consequence, you may observe unexpected behavior.",
            "Setting `pad_token_id` to `eos_token_id`:50256 for open-end generation.",
        ),
    ),
    Message(
        key="mask-not-inferred",
        group="mask",
        kind="warning",
        title="The mask cannot be inferred",
        says="The attention mask is not set with a batched input, and cannot be inferred from input because pad token is same as eos token. As a consequence, you may observe unexpected behavior. Please pass your input's `attention_mask` to obtain reliable results.",
        raises="""
            two = torch.cat([ids, ids])
            small.generate(two, max_new_tokens=3, pad_token_id=50256)
        """,
        cause="With a pad token set, a mask is made by comparing ids. Where padding and end-of-text are one id, that would hide real ends, so all ids are taken for text.",
        cure="Pass `attention_mask=`. Setting `pad_token_id` only silences the other message.",
        cured="""
            two = torch.cat([ids, ids])
            mask = torch.ones_like(two)  # nothing here is padding
            small.generate(two, attention_mask=mask, max_new_tokens=3, pad_token_id=50256).shape
        """,
        lesson="02_padding",
        section='6. "The attention mask and the pad token id were not set"',
        asked=(
            "The attention mask is not set and cannot be inferred from input because pad token is same as eos token.",
        ),
    ),
    Message(
        key="batch-differs",
        group="mask",
        kind="symptom",
        title="A row gives another result in a batch",
        says="as alone: False",
        raises="""
            texts = ["My dog is", "It will rain in the"]
            batch = tokenizer(texts, padding=True, padding_side="left", return_tensors="pt")
            alone = tokenizer(texts[0], return_tensors="pt").input_ids
            last = model(batch.input_ids).logits[0, -1]  # no mask, no position ids
            print("as alone:", torch.allclose(last, model(alone).logits[0, -1], atol=0.01))
        """,
        cause="A forward pass reads padding like text unless a mask hides it. (Differences below 0.001 in float32 are rounding: see the last group.)",
        cure="Give the mask, and for models with absolute positions the position ids. `generate()` makes those itself.",
        cured="""
            texts = ["My dog is", "It will rain in the"]
            batch = tokenizer(texts, padding=True, padding_side="left", return_tensors="pt")
            alone = tokenizer(texts[0], return_tensors="pt").input_ids
            positions = (batch.attention_mask.cumsum(-1) - 1).clamp(min=0)
            last = model(**batch, position_ids=positions).logits[0, -1]
            print("as alone:", torch.allclose(last, model(alone).logits[0, -1], atol=0.01))
        """,
        lesson="02_padding",
        section="4. The whole table",
        asked=(
            "batch generation gives different results from single prompt",
            "padding changes the output",
            "different output with batch size larger than 1",
        ),
    ),
    Message(
        key="masked-nan",
        group="mask",
        kind="symptom",
        title="A fully masked row is NaN",
        says="tensor([nan, nan, nan])",
        raises="""
            scores = torch.tensor([3.0, -20.0, 5.0])
            print((scores + float("-inf")).softmax(-1))
        """,
        cause="A query that may see no key, such as a padding token on the left, has −∞ everywhere, and softmax subtracts −∞ from −∞. In the next layer NaN reaches every token.",
        cure="Fill in the lowest finite number, as the library does, or keep one key open.",
        cured="""
            scores = torch.tensor([3.0, -20.0, 5.0])
            print((scores + torch.finfo(scores.dtype).min).softmax(-1))
        """,
        lesson="03_masks",
        section="6. A row with no key left",
        asked=(
            "attention output is nan with padding",
            "my own mask gives nan",
            "logits are nan after masking",
        ),
    ),
    # What generate() is given
    Message(
        key="unused-argument",
        group="arguments",
        kind="error",
        title="An argument that nobody uses",
        says="ValueError: The following `model_kwargs` are not used by the model: [… (note: typos in the generate arguments will also show up in this list)",
        raises="""
            small.generate(ids, max_new_token=3)
        """,
        cause="Each argument is a parameter of `generate()`, a setting or an input of the model. This one is none of them: a typo, or a tensor that only other models take, such as `token_type_ids`.",
        cure="Correct the name; take out what the tokenizer made for another model.",
        cured="""
            small.generate(ids, max_new_tokens=3, pad_token_id=50256).shape
        """,
        lesson="05_generate",
        section="2. Where does each argument go?",
        asked=("model_kwargs are not used by the model: ['token_type_ids']",),
    ),
    Message(
        key="no-room",
        group="arguments",
        kind="error",
        title="The prompt is as long as the limit",
        says="ValueError: Input length of input_ids is …, but `max_length` is set to …. This can lead to unexpected behavior. You should consider increasing `max_length` or, better yet, setting `max_new_tokens`.",
        raises="""
            small.generate(ids, max_length=3)
        """,
        cause="`max_length` counts the prompt. With a prompt of 3 tokens nothing is left to write.",
        cure="Set `max_new_tokens`, which counts only what is written.",
        cured="""
            small.generate(ids, max_new_tokens=3, pad_token_id=50256).shape
        """,
        lesson="05_generate",
        section="How long?",
        asked=(
            "output is cut off, only a few words are generated",
            "max_length or max_new_tokens",
        ),
    ),
    Message(
        key="two-lengths",
        group="arguments",
        kind="warning",
        title="Two lengths at once",
        says="Both `max_new_tokens` (=…) and `max_length`(=…) seem to have been set. `max_new_tokens` will take precedence. …",
        raises="""
            small.generate(ids, max_length=20, max_new_tokens=3, pad_token_id=50256)
        """,
        cause="One of them often comes from the model's own generation config, and so is nowhere in your code.",
        cure="Set only `max_new_tokens`. If the other one comes with the model, the message is harmless.",
        cured="""
            small.generate(ids, max_new_tokens=3, pad_token_id=50256).shape
        """,
        lesson="05_generate",
        section="How long?",
    ),
    Message(
        key="default-length",
        group="arguments",
        kind="warning",
        title="No length was given",
        says="Using the model-agnostic default `max_length` (=…) to control the generation length. We recommend setting `max_new_tokens` to control the maximum length of the generation.",
        raises="""
            small.generate(ids, pad_token_id=50256)
        """,
        cause="Without a length `generate()` writes at most 20 tokens, and texts end in the middle of a sentence.",
        cure="Set `max_new_tokens`.",
        cured="""
            small.generate(ids, max_new_tokens=40, pad_token_id=50256).shape
        """,
        lesson="05_generate",
        section="How long?",
        asked=(
            "Neither `max_length` nor `max_new_tokens` has been set, `max_length` will default to 20",
            "answer stops in the middle of a sentence after 20 tokens",
        ),
    ),
    Message(
        key="flags-ignored",
        group="arguments",
        kind="warning",
        title="A setting of sampling in greedy decoding",
        says="The following generation flags are not valid and may be ignored: [… Set `TRANSFORMERS_VERBOSITY=info` for more details.",
        raises="""
            small.generate(ids, do_sample=False, temperature=0.7, max_new_tokens=3, pad_token_id=50256)
        """,
        cause="Temperature and the filters shape a distribution, and greedy decoding draws from none.",
        cure="Ask for sampling, `do_sample=True`, or leave the setting out.",
        cured="""
            small.generate(ids, do_sample=True, temperature=0.7, max_new_tokens=3, pad_token_id=50256).shape
        """,
        lesson="05_generate",
        section="12. Who wins?",
        asked=(
            "`do_sample` is set to `False`. However, `temperature` is set to `0.7` -- this flag is only used in sample-based generation modes.",
            "temperature has no effect",
        ),
    ),
    Message(
        key="temperature-zero",
        group="arguments",
        kind="error",
        title="A temperature of 0",
        says="ValueError: `temperature` (=…) has to be a strictly positive float, otherwise your next token scores will be invalid. If you're looking for greedy decoding strategies, set `do_sample=False`.",
        raises="""
            small.generate(ids, do_sample=True, temperature=0.0, max_new_tokens=3)
        """,
        cause="Logits are divided by the temperature. Ever smaller ones come ever closer to greedy decoding; 0 itself is a division by 0.",
        cure="Ask for greedy decoding: `do_sample=False`.",
        cured="""
            small.generate(ids, do_sample=False, max_new_tokens=3, pad_token_id=50256).shape
        """,
        lesson="06_decoding",
        section="1. From logits to a choice",
    ),
    Message(
        key="stop-strings",
        group="arguments",
        kind="error",
        title="Stop strings without a tokenizer",
        says="ValueError: There are one or more stop strings, either in the arguments to `generate` or in the model's generation config, but we could not locate a tokenizer. When generating with stop strings, you must pass the model's tokenizer to the `tokenizer` argument of `generate`.",
        raises="""
            small.generate(ids, stop_strings=["."], max_new_tokens=3)
        """,
        cause="`generate()` knows ids only. To find a string in them it needs the tokenizer.",
        cure="Pass `tokenizer=` as well.",
        cured="""
            small.generate(ids, stop_strings=["."], tokenizer=gpt2, max_new_tokens=3, pad_token_id=50256).shape
        """,
        lesson="05_generate",
        section="7. Stopping criteria",
        asked=(
            "stop at a string",
            "stop sequences",
            "stopping criteria for a word",
        ),
    ),
    Message(
        key="streamer-batch",
        group="arguments",
        kind="error",
        title="A streamer and a batch",
        says="ValueError: TextStreamer only supports batch size 1",
        raises="""
            two = torch.cat([ids, ids])
            options = {"attention_mask": torch.ones_like(two), "max_new_tokens": 3, "pad_token_id": 50256}
            small.generate(two, streamer=TextStreamer(gpt2), **options)
        """,
        cause="A streamer prints one text as it grows. It would mix up the words of several.",
        cure="Stream one row, or write a streamer of your own: `put` receives the ids of all rows.",
        cured="""
            streamer = TextStreamer(gpt2, skip_prompt=True)
            _ = small.generate(ids, streamer=streamer, do_sample=False, max_new_tokens=3, pad_token_id=50256)
        """,
        lesson="05_generate",
        section="10. Streamers",
        asked=("`streamer` cannot be used with beam search (yet!). Make sure that `num_beams` is set to 1.",),
    ),
    Message(
        key="not-unpacked",
        group="arguments",
        kind="error",
        title="An AttributeError without any text",
        says="AttributeError:",
        raises="""
            inputs = tokenizer("My dog is", return_tensors="pt")
            model.generate(inputs, max_new_tokens=3)
        """,
        cause="The tokenizer and `apply_chat_template` return a dict-like object of several tensors, and `generate()` asks it for its shape.",
        cure="Unpack it: `model.generate(**inputs)`.",
        cured="""
            inputs = tokenizer("My dog is", return_tensors="pt")
            model.generate(**inputs, max_new_tokens=3).shape
        """,
        lesson="11_chat",
        section="2. The template",
        asked=(
            "AttributeError in generate with no message, BatchEncoding has no attribute shape",
            "'BatchEncoding' object has no attribute 'shape'",
            "AttributeError: 'str' object has no attribute 'shape'",
            "inputs_tensor.shape[0] AttributeError",
        ),
    ),
)
