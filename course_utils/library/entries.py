"""The version map's entries: what older code says, what the pinned transformers does with it, what to write.

Every entry is proven where the map is shown (`name_check.problem`): its old line is run and must end as
`fails` says, its new line must run without a deprecation warning, and `holds` must be true. Entries with
`source` are pieces of the library's own code, which are searched for instead of run. `by` is the earliest
release in which running the line showed the change; 4.37, 4.41, 4.48, 4.50, 4.57, 5.0 and later ones
were tested, so it may have come a little earlier. On an installed release that is older than `by`
the entry says so, and is not run.
"""

from dataclasses import dataclass

from ..releases import cache_name

_CACHE = cache_name()  # a new line is written as the installed release expects it

KINDS = {
    "same": "still there, with the same meaning",
    "renamed": "the same thing under another name",
    "moved": "the same thing in another place",
    "gone": "removed: it is done in another way now",
    "changed": "still there, but does something else, or nothing",
}

# Where we met each old name.
SEEN = {
    "S0": "a blog note on calling generate(), of about 4.37 (语言模型transformers调用部分)",
    "S1": "a blog's walk-through of generate(), of 4.41",
    "S2": "an article on batches and attention masks of GPT-2",
    "S3": "a blog's summary of GPT-2's classes, of 4.41 (huggingface笔记:gpt2)",
    "S4": "a translation of the library's own pages, of 4.37 (developer.aliyun.com/article/1564966)",
    "older": "older tutorials",
}

TOPICS = ("decoding", "loop", "processors", "settings", "cache", "model", "tokenizer", "elsewhere")


@dataclass(frozen=True)
class OldName:
    """One entry of the map.

    old:    str, a line of older code
    now:    str, the line to write today; "" where the old one is still right
    kind:   str, one of KINDS; topic: str, one of TOPICS; seen: tuple of keys of SEEN
    note:   str, one or two sentences that say what happened to it
    by:     str, the release that has the change, "" where there is none
    fails:  str, the type of the error that `old` raises today; "" where it runs
    holds:  str, an expression that is true today, about what the note says
    source: str, the function (dotted name below transformers) whose code contains `now` but not `old`
    also:   str, further names that where() finds it by, and that the installed transformers must not have
        where they are dotted
    hub:    bool, True where the new line fetches code from the Hub, and so is not run
    """

    topic: str
    kind: str
    old: str
    now: str = ""
    note: str = ""
    by: str = ""
    seen: tuple = ("older",)
    fails: str = ""
    holds: str = ""
    source: str = ""
    also: str = ""
    hub: bool = False


_SAMPLE = "generation.utils.GenerationMixin._sample"
_GENERATE = "generation.utils.GenerationMixin.generate"

# fmt: off
ENTRIES = (
    # Ways of decoding
    OldName(
        "decoding", "gone", by="4.41", seen=("S0",), fails="AttributeError",
        old="model.greedy_search(input_ids)",
        now="model.generate(**inputs, do_sample=False, max_new_tokens=3)",
        note="The loop is `_sample`, for both greedy decoding and sampling.",
        also="_greedy_search",
    ),
    OldName(
        "decoding", "gone", by="4.41", seen=("S1",), fails="AttributeError",
        old="model.sample(input_ids, logits_warper=processors)",
        now="model.generate(**inputs, do_sample=True, logits_processor=processors, max_new_tokens=3)",
        note="One list holds every processor, including the warpers. `generate()` adds its own: top-k with "
        "50, unless you pass `top_k=0`.",
    ),
    OldName(
        "decoding", "gone", by="4.41", fails="AttributeError",
        old="model.beam_search(input_ids, beam_scorer)",
        now="model.generate(**inputs, num_beams=4, max_new_tokens=3)",
        note="The loop is `_beam_search`, also with `do_sample=True`. It does not need a scorer object.",
        holds="'do_sample' in source('generation.utils.GenerationMixin._beam_search')",
        also="beam_sample _beam_sample",
    ),
    OldName(
        "decoding", "gone", by="5.0", fails="ImportError",
        old="from transformers import BeamSearchScorer",
        now="model.generate(**inputs, num_beams=4, max_new_tokens=3)",
        note="A few tensor functions next to `_beam_search` do its work.",
        also="BeamScorer BeamHypotheses",
    ),
    OldName(
        "decoding", "gone", by="4.50", fails="ValueError",
        old="model.generate(**inputs, num_beams=2, low_memory=True)",
        now="model.generate(**inputs, num_beams=2, max_new_tokens=3)",
        note="Beams are no longer run one at a time. Without beams the setting is ignored.",
    ),
    OldName(
        "decoding", "gone", by="4.41", fails="AttributeError",
        old="model.assisted_decoding(input_ids, assistant_model=model)",
        now="model.generate(**inputs, assistant_model=model, max_new_tokens=3)",
        note="The loop is `_assisted_decoding`.",
        holds="hasattr(model, '_assisted_decoding')",
    ),
    OldName(
        "decoding", "changed", by="4.48", seen=("S1",),
        old="model.generate(**inputs, assistant_model=model, max_new_tokens=3)",
        note="The small model may now have another vocabulary: pass `tokenizer` and `assistant_tokenizer`.",
        holds="hasattr(transformers.generation.candidate_generator, "
        "'AssistedCandidateGeneratorDifferentTokenizers')",
    ),
    OldName(
        "decoding", "moved", by="4.57", fails="ValueError", hub=True,
        old="model.generate(**inputs, penalty_alpha=0.6, top_k=4)",
        now="model.generate(**inputs, penalty_alpha=0.6, top_k=4, trust_remote_code=True,"
        ' custom_generate="transformers-community/contrastive-search")',
        note="Contrastive search is now code on the Hub. Read it before you trust it.",
        also="contrastive_search _contrastive_search",
    ),
    OldName(
        "decoding", "moved", by="4.57", fails="ValueError", hub=True,
        old="model.generate(**inputs, num_beams=4, num_beam_groups=2, diversity_penalty=1.0)",
        now="model.generate(**inputs, num_beams=4, num_beam_groups=2, diversity_penalty=1.0,"
        ' trust_remote_code=True, custom_generate="transformers-community/group-beam-search")',
        note="Group beam search is now code on the Hub.",
        also="group_beam_search _group_beam_search HammingDiversityLogitsProcessor",
    ),
    OldName(
        "decoding", "moved", by="4.57", fails="ValueError", hub=True,
        old="model.generate(**inputs, num_beams=4, force_words_ids=[[262]])",
        now="model.generate(**inputs, num_beams=4, force_words_ids=[[262]], trust_remote_code=True,"
        ' custom_generate="transformers-community/constrained-beam-search")',
        note="Constrained beam search is now code on the Hub. Its constraint classes were removed in 5.0.",
        also="constrained_beam_search _constrained_beam_search ConstrainedBeamSearchScorer Constraint"
        " PhrasalConstraint DisjunctiveConstraint ConstraintListState",
    ),
    # Inside the loop: pieces of the library's own code
    OldName(
        "loop", "changed", by="4.41", seen=("S0",), source=_SAMPLE,
        old="while True:",
        now="while self._has_unfinished_sequences(",
        note="The first forward pass, the prefill, now comes before the loop.",
        holds="'outputs = self._prefill(' in source('generation.utils.GenerationMixin._sample')",
    ),
    OldName(
        "loop", "changed", by="5.3", seen=("S0",), source=_SAMPLE,
        old="self.prepare_inputs_for_generation(input_ids, **model_kwargs)",
        now="input_ids, next_sequence_length=next_sequence_length, **model_kwargs",
        note="It is told how many new ids to take. GPT-2 and Llama no longer have their own"
        " version of this method.",
        holds="not any('prepare_inputs_for_generation' in vars(kind)"
        " for kind in (transformers.GPT2LMHeadModel, transformers.LlamaForCausalLM))",
    ),
    OldName(
        "loop", "renamed", by="4.48", seen=("S1",), source=_SAMPLE,
        old="outputs = self(",
        now="outputs = model_forward(**model_inputs, return_dict=True)",
        note="`model_forward` is the model, or its compiled form. Output options are in `model_kwargs`.",
    ),
    OldName(
        "loop", "changed", by="4.48", seen=("S1",), source=_SAMPLE,
        old="next_token_logits = outputs.logits[:, -1, :]",
        now="next_token_logits = outputs.logits[:, -1].to(copy=True, dtype=torch.float32",
        note="This makes a copy in float32: processors and softmax never see bfloat16.",
    ),
    OldName(
        "loop", "renamed", by="4.41", seen=("S0",), source=_SAMPLE,
        old="torch.argmax(next_tokens_scores, dim=-1)",
        now="torch.argmax(next_token_scores, dim=-1)",
        note="One letter fewer, and one function for greedy decoding and sampling.",
    ),
    OldName(
        "loop", "gone", by="4.48", seen=("S1",), source=_SAMPLE,
        old="next_token_scores = logits_warper(input_ids, next_token_scores)",
        now="next_token_scores = logits_processor(input_ids, next_token_logits)",
        note="The processors for sampling are in the same list as all others.",
    ),
    OldName(
        "loop", "changed", by="5.24",
        old="type(model).generate.__wrapped__(model, **inputs, max_new_tokens=1)",
        now="inspect.unwrap(type(model).generate)(model, **inputs, max_new_tokens=1)",
        note="`__wrapped__` removes only the outermost of three decorators: gradients stay off.",
        holds="[with_gradients(bare) for bare in (type(model).generate.__wrapped__,"
        " inspect.unwrap(type(model).generate))] == [False, True]",
    ),
    OldName(
        "loop", "gone", by="4.48", seen=("S1",), source=_GENERATE,
        old="self._get_logits_warper(generation_config)",
        now="prepared_logits_processor = self._get_logits_processor(",
        note="It adds temperature, top-k and the other warpers when `do_sample` is set.",
        holds="'TemperatureLogitsWarper' in source('generation.utils.GenerationMixin._get_logits_processor')",
        also="_get_logits_warper",
    ),
    OldName(
        "loop", "same", seen=("S1",), source=_SAMPLE,
        old="unfinished_sequences & ~stopping_criteria(input_ids, scores)",
        note="`scores` is None here unless the call asks for `output_scores` in a dict.",
    ),
    OldName(
        "loop", "changed", by="5.18", seen=("S1",), source=_SAMPLE,
        old="this_peer_finished = unfinished_sequences.max() == 0",
        now="this_peer_finished = stop_check(unfinished_sequences, next_tokens, input_ids.shape[1])",
        note="It answers the same question, and also passes the tokens to a streamer.",
        holds="'streamer.put' in source('generation.utils.StopCheck')",
    ),
    OldName(
        "loop", "same", seen=("S1",), source=_GENERATE,
        old="self._prepare_generation_config(generation_config, **kwargs)",
        note="This merges the call, the passed config, the model's own config and the defaults.",
    ),
    # Processors, criteria, scores
    OldName(
        "processors", "renamed", by="4.50", seen=("S1",), fails="ImportError",
        old="from transformers import LogitsWarper",
        now="from transformers import LogitsProcessor",
        note="Everything that changes the logits is a processor, with or without sampling.",
    ),
    OldName(
        "processors", "same", seen=("S1",),
        old="from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper",
        note="These keep their names. They are now processors.",
        holds="issubclass(transformers.TopKLogitsWarper, transformers.LogitsProcessor)",
    ),
    OldName(
        "processors", "gone", by="4.41", fails="ImportError",
        old="from transformers import top_k_top_p_filtering",
        now="transformers.TopKLogitsWarper(50)(input_ids, logits)",
        note="And `TopPLogitsWarper(0.9)`: one processor for each filter. They take the ids and the logits.",
        holds="transformers.TopPLogitsWarper(0.9)(input_ids, logits).shape == logits.shape",
    ),
    OldName(
        "processors", "changed", by="4.50", seen=("S1",),
        old="model.generate(**inputs, repetition_penalty=1.5, logits_processor=[own], max_new_tokens=3)",
        now="model.generate(**inputs, logits_processor=[own], max_new_tokens=3)",
        note="`own` is another `RepetitionPenaltyLogitsProcessor`. Two of a class used to raise a ValueError;"
        " now the one that you pass replaces the other, with a warning.",
        holds="torch.equal(model.generate(**inputs, repetition_penalty=1.5, logits_processor=[own],"
        " max_new_tokens=8), model.generate(**inputs, logits_processor=[own], max_new_tokens=8))",
    ),
    OldName(
        "processors", "gone", by="4.48", fails="ImportError",
        old="from transformers.generation import MaxNewTokensCriteria",
        now="model.generate(**inputs, max_new_tokens=3)",
        note="`MaxLengthCriteria`, which counts the prompt, still exists.",
        holds="hasattr(transformers, 'MaxLengthCriteria')",
    ),
    OldName(
        "processors", "changed", by="4.41", seen=("S1",),
        old="model.generate(**inputs, stopping_criteria=[lambda ids, scores: ids.shape[1] > 5])",
        now="model.generate(**inputs, stopping_criteria=[lambda ids, scores: ids[:, -1] == 262])",
        note="A criterion returns True or False for each row. A single True still ends all rows.",
        holds="model.generate(**two_rows, stopping_criteria=[lambda ids, scores: ids.shape[1] > 5])"
        ".shape == (2, 6)",
    ),
    OldName(
        "processors", "same", seen=("S1",),
        old="model.generate(**inputs, prefix_allowed_tokens_fn=lambda row, ids: [262, 290])",
        note="Its documentation is about beam search, but it works without beams too.",
        holds="set(model.generate(**inputs, prefix_allowed_tokens_fn=lambda row, ids: [262, 290],"
        " max_new_tokens=3)[0, -3:].tolist()) <= {262, 290}",
    ),
    OldName(
        "processors", "same", seen=("S1",),
        old="model.generate(**inputs, negative_prompt_ids=negative)",
        now="model.generate(**inputs, negative_prompt_ids=negative, guidance_scale=1.5)",
        note="Without a `guidance_scale` it is ignored, and no warning says so.",
        holds="torch.equal(model.generate(**inputs, negative_prompt_ids=negative), model.generate(**inputs))",
    ),
    OldName(
        "processors", "same", seen=("S1",),
        old="model.generate(**inputs, streamer=streamer, synced_gpus=False, max_new_tokens=3)",
        note="A streamer gets the prompt first, then each step's tokens.",
        holds="(model.generate(**inputs, streamer=streamer, max_new_tokens=3), streamer.shapes)[1]"
        " == ((1, 4), (1,), (1,), (1,))",
    ),
    OldName(
        "processors", "same", seen=("S0", "S4"),
        old="model.compute_transition_scores(outputs.sequences, outputs.scores, outputs.beam_indices)",
        note="It picks the entries of `scores` for the chosen tokens. Beams need `beam_indices`.",
    ),
    OldName(
        "processors", "changed", seen=("S4",),
        old="output_length = input_length + np.sum(transition_scores.numpy() < 0, axis=1)",
        now="output_length = (outputs.beam_indices >= 0).sum(1)",
        note="In PyTorch a beam's sequence score divides by the number of new tokens, without the prompt.",
        holds="torch.allclose(transition_scores.sum(1) / (outputs.beam_indices >= 0).sum(1),"
        " outputs.sequences_scores) and not torch.allclose(transition_scores.sum(1)"
        " / (input_length + (transition_scores < 0).sum(1)), outputs.sequences_scores)",
    ),
    OldName(
        "processors", "changed", by="5.0", seen=("S4",),
        old="length_penalty = model.generation_config.length_penalty",
        now="length_penalty = 1.0 if (p := model.generation_config.length_penalty) is None else p",
        note="None means the default, 1.0. Raising to the power of None is a TypeError.",
        holds="model.generation_config.length_penalty is None",
    ),
    OldName(
        "processors", "renamed", by="5.0", fails="ImportError",
        old="from transformers.generation import GreedySearchDecoderOnlyOutput",
        now="from transformers.generation import GenerateDecoderOnlyOutput",
        note="One class for greedy decoding and sampling. For beams: `GenerateBeamDecoderOnlyOutput`.",
        holds="hasattr(transformers.generation, 'GenerateBeamDecoderOnlyOutput')",
        also="SampleDecoderOnlyOutput BeamSearchDecoderOnlyOutput ContrastiveSearchDecoderOnlyOutput",
    ),
    # Settings and loading
    OldName(
        "settings", "changed", by="4.48", seen=("S2",),
        old="model.generate(**inputs)",
        now="model.generate(**inputs, max_new_tokens=20)",
        note="By default it writes 20 *new* tokens. It used to be 20 in all, including the prompt.",
        holds="model.generate(**inputs, eos_token_id=None).shape[1] == input_ids.shape[1] + 20",
    ),
    OldName(
        "settings", "same", seen=("S2", "S3"),
        old="model.generate(**inputs, max_length=10)",
        now="model.generate(**inputs, max_new_tokens=6)",
        note="`max_length` counts the prompt, here 4 tokens.",
        holds="model.generate(**inputs, max_length=10, eos_token_id=None).shape[1] == 10",
    ),
    OldName(
        "settings", "changed", by="5.0", fails="ValueError",
        old="model.config.max_length = 10; model.generate(**inputs)",
        now="model.generation_config.max_length = 10; model.generate(**inputs)",
        note="The settings of generation are in `generation_config` only.",
    ),
    OldName(
        "settings", "changed", by="5.0", seen=("S1",),
        old="transformers.GenerationConfig().top_k",
        now="transformers.GenerationConfig(top_k=50)",
        note="Unset fields are None. `generate()` takes them from the model's config, then its defaults.",
        holds="transformers.GenerationConfig().top_k is transformers.GenerationConfig().max_length is None",
    ),
    OldName(
        "settings", "changed", by="5.0", seen=("S1",),
        old="transformers.GenerationConfig(do_sample=True, top_k=None)",
        now="transformers.GenerationConfig(do_sample=True, top_k=0)",
        note="None means the default, 50 tokens. It used to mean all tokens.",
        holds="kept(generation_config=transformers.GenerationConfig(do_sample=True, top_k=None)) == 50",
    ),
    OldName(
        "settings", "same", seen=("S3",),
        old="model.generate(**inputs, do_sample=True, temperature=0.9, max_length=10)",
        now="model.generate(**inputs, do_sample=True, temperature=0.9, top_k=0, max_new_tokens=6)",
        note="Sampling keeps 50 tokens, unless `top_k` or the model's config says otherwise.",
        holds="kept(do_sample=True) == 50 and kept(do_sample=True, top_k=0) == model.config.vocab_size",
    ),
    OldName(
        "settings", "same", seen=("S1",),
        old="model.generate(**inputs, generation_config=config, max_new_tokens=3)",
        now="config.max_new_tokens = 3; model.generate(**inputs, generation_config=config)",
        note="The argument wins. Passing both now gives a warning that this will be removed.",
        holds="model.generate(**inputs, generation_config=transformers.GenerationConfig(max_new_tokens=9),"
        " max_new_tokens=3, eos_token_id=None).shape[1] == input_ids.shape[1] + 3",
    ),
    OldName(
        "settings", "gone", by="5.0", fails="ValueError",
        old="model.generate(**inputs, use_model_defaults=True)",
        now="model.generate(**inputs)",
        note="What a passed config leaves unset always comes from the model's config.",
        holds="setattr(model.generation_config, 'top_k', 7) or"
        " kept(generation_config=transformers.GenerationConfig(do_sample=True)) == 7",
    ),
    OldName(
        "settings", "renamed", by="4.57",
        old="transformers.AutoModelForCausalLM.from_pretrained(name, torch_dtype=torch.float16)",
        now="transformers.AutoModelForCausalLM.from_pretrained(name, dtype=torch.float16)",
        note="The old name still works, with a warning.",
        holds="loaded(torch_dtype=torch.float16) == loaded(dtype=torch.float16) == torch.float16",
    ),
    OldName(
        "settings", "changed", by="5.0", seen=("S0", "S3"),
        old="transformers.AutoModelForCausalLM.from_pretrained(name)",
        now="transformers.AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)",
        note="Weights keep the dtype in which they are stored. They used to be converted to float32.",
        holds="loaded() == stored_dtype == torch.bfloat16",
    ),
    OldName(
        "settings", "changed", by="5.0",
        old="transformers.AutoModelForCausalLM.from_pretrained(name, from_tf=True)",
        now="transformers.AutoModelForCausalLM.from_pretrained(name)",
        note="It is ignored, and so is `from_flax`.",
        holds="loaded(from_tf=True) == loaded(from_flax=True) == stored_dtype",
    ),
    OldName(
        "settings", "renamed", by="5.0",
        old="from transformers import PretrainedConfig",
        now="from transformers import PreTrainedConfig",
        note="The old spelling is another name for the same class.",
        holds="transformers.PretrainedConfig is transformers.PreTrainedConfig",
    ),
    # The cache
    OldName(
        "cache", "changed", by="4.48", seen=("S3",),
        old="model(input_ids[:, -1:], past=past)",
        now=f"model(input_ids[:, -1:], {_CACHE}=cache)",
        note="GPT-2's `forward` ignores arguments that it does not know: no cache is used, and there is no"
        " warning.",
        holds=f"model(input_ids[:, -1:], past=past).{_CACHE}.get_seq_length() == 1",
    ),
    OldName(
        "cache", "gone", by="5.0", seen=("S3",), fails="AttributeError",
        old="model(input_ids[:, -1:], past_key_values=past)",
        now=f"model(input_ids[:, -1:], {_CACHE}=transformers.DynamicCache(past))",
        note="`past` is a tuple with a pair of keys and values per layer. The model expects a cache object.",
    ),
    OldName(
        "cache", "renamed", by="5.24", seen=("S0", "S1", "S3"),
        old="model(input_ids[:, -1:], past_key_values=cache)",
        now="model(input_ids[:, -1:], cache=cache)",
        note="The old argument works with a warning until 5.40 at least; `generate()` takes it until 6.0."
        " Before 5.24 the *new* one is ignored.",
        holds="'deprecate_kwarg(\"past_key_values\", \"5.40.0\", new_name=\"cache\")' in"
        " source('models.gpt2.modeling_gpt2.GPT2LMHeadModel.forward') and"
        " '\"past_key_values\", \"6.0.0\", new_name=\"cache\"' in"
        " source('generation.GenerationMixin.generate')",
    ),
    OldName(
        "cache", "renamed", by="5.24", seen=("S1", "S3"),
        old="model(input_ids).past_key_values",
        now="model(input_ids).cache",
        note="The old field still works, but it is no longer among the fields that the output lists.",
        holds="list(model(input_ids)) == ['logits', 'cache']",
    ),
    OldName(
        "cache", "gone", by="5.0", seen=("S3",), fails="TypeError",
        old="key, value = cache[0]",
        now="key, value = cache.layers[0].keys, cache.layers[0].values",
        note="A cache has layers, and a layer has `keys` and `values`.",
    ),
    OldName(
        "cache", "changed", by="5.0", fails="ValueError",
        old="for key, value in cache: key.shape",
        now="for layer in cache.layers: layer.keys.shape",
        note="Iterating over a cache gives three items for each layer.",
        holds="[len(parts) for parts in cache] == [3] * len(cache)",
    ),
    OldName(
        "cache", "gone", by="4.57", fails="AttributeError",
        old="cache.key_cache[0]",
        now="cache.layers[0].keys",
        also="value_cache",
    ),
    OldName(
        "cache", "gone", by="5.0", fails="AttributeError",
        old="transformers.DynamicCache.from_legacy_cache(past)",
        now="transformers.DynamicCache(past)",
        holds="transformers.DynamicCache(past).get_seq_length() == input_ids.shape[1]",
    ),
    OldName(
        "cache", "gone", by="5.0", fails="AttributeError",
        old="cache.to_legacy_cache()",
        now="tuple((layer.keys, layer.values) for layer in cache.layers)",
    ),
    OldName(
        "cache", "gone", by="4.57", fails="AttributeError",
        old="cache.get_usable_length(1)",
        now="cache.get_seq_length()",
        holds="cache.get_seq_length() == input_ids.shape[1]",
        also="seen_tokens _seen_tokens",
    ),
    OldName(
        "cache", "changed", by="5.20", fails="ValueError",
        old="cache.crop(3)",
        now="cache.crop(-1)",
        note="Give the number of tokens to drop, as a negative number: of 4 tokens, `crop(-1)` keeps 3, as"
        " `crop(3)` did. The number to keep is refused.",
        holds="(cache.crop(-1), cache.get_seq_length())[1] == input_ids.shape[1] - 1",
    ),
    OldName(
        "cache", "renamed", by="5.20", fails="AttributeError",
        old="cache.get_max_cache_shape()",
        now="cache.get_max_length()",
        note="It is -1 if there is no limit. It had this name before 4.50, too.",
        holds="cache.get_max_length() == -1",
    ),
    OldName(
        "cache", "moved", by="4.57", fails="AttributeError",
        old="model._reorder_cache(cache, beam_idx)",
        now="cache.reorder_cache(beam_idx)",
        note="The cache reorders its own rows.",
    ),
    OldName(
        "cache", "gone", by="5.0", fails="ImportError",
        old="from transformers import HybridCache",
        now="transformers.DynamicCache(config=model.config)",
        note="One class creates the layers that the config asks for.",
        holds="type(transformers.DynamicCache(config=transformers.MistralConfig(sliding_window=8)).layers[0])"
        " is not type(transformers.DynamicCache(config=model.config).layers[0])",
        also="SlidingWindowCache SinkCache OffloadedCache",
    ),
    OldName(
        "cache", "changed", by="5.5",
        old="model(input_ids, cache_position=torch.tensor([7, 8, 9, 10]))",
        now="model(input_ids, position_ids=torch.tensor([[7, 8, 9, 10]]))",
        note="GPT-2 ignores it, `generate()` refuses it. The cache counts its length itself.",
        also="_get_initial_cache_position",
        holds="torch.equal(model(input_ids, cache_position=torch.tensor([7, 8, 9, 10])).logits,"
        " model(input_ids).logits)",
    ),
    # The model and its masks
    OldName(
        "model", "same", seen=("S0", "S2", "S3"),
        old="from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, GPT2Model",
        note="A printed `GPT2Config` has three more lines than in 4.41.",
        holds="{'add_cross_attention', 'pad_token_id', 'tie_word_embeddings'}"
        " <= set(transformers.GPT2Config().to_dict())",
    ),
    OldName(
        "model", "same", seen=("S3",),
        old="from transformers.models.gpt2.modeling_gpt2 import GPT2DoubleHeadsModelOutput",
        note="Import it from here: `transformers` itself does not have it.",
        holds="not hasattr(transformers, 'GPT2DoubleHeadsModelOutput')",
    ),
    OldName(
        "model", "renamed", by="5.0", fails="ImportError",
        old="from transformers import AutoModelWithLMHead",
        now="from transformers import AutoModelForCausalLM",
        note="For models such as T5 it is `AutoModelForSeq2SeqLM`.",
        holds="hasattr(transformers, 'AutoModelForSeq2SeqLM')",
    ),
    OldName(
        "model", "changed", by="5.0", seen=("S3",),
        old="model(input_ids, head_mask=torch.zeros(4, 4))",
        now="model.transformer.h[0].attn.c_proj.register_forward_pre_hook(lambda _, given: given[0] * keep)",
        note="It is ignored: no head is masked. The hook multiplies the output of layer 0's heads by `keep`,"
        " which is 0 for a masked head's columns and 1 elsewhere.",
        holds="torch.equal(model(input_ids, head_mask=torch.zeros(4, 4)).logits, model(input_ids).logits)",
        also="get_head_mask prune_heads",
    ),
    OldName(
        "model", "changed", by="4.57", seen=("S3",),
        old="model(input_ids, output_attentions=True).attentions",
        now='model.set_attn_implementation("eager"); model(input_ids, output_attentions=True).attentions',
        note="It is empty: the default, SDPA, is one fused operation, which does not return the weights.",
        holds="model(input_ids, output_attentions=True).attentions == ()",
    ),
    OldName(
        "model", "changed", by="4.48", seen=("S3",),
        old="transformers.GPT2Config(reorder_and_upcast_attn=True)",
        now='transformers.GPT2Config(reorder_and_upcast_attn=True, attn_implementation="eager")',
        note="Only eager attention reads this flag. The default, SDPA, does not.",
        holds="'if using_eager and self.reorder_and_upcast_attn' in"
        " source('models.gpt2.modeling_gpt2.GPT2Attention.forward')",
    ),
    OldName(
        "model", "same", seen=("S3",),
        old="model(input_ids, token_type_ids=torch.zeros_like(input_ids))",
        now="model(input_ids)",
        note="GPT-2 has no segments A and B. It adds the embedding of *token* 0, an exclamation mark.",
        holds="torch.allclose(model(input_ids, token_type_ids=torch.zeros_like(input_ids)).logits,"
        " model(inputs_embeds=model.transformer.wte(input_ids) + model.transformer.wte.weight[0]).logits,"
        " atol=1e-4) and tokenizer.decode([0]) == '!'",
    ),
    OldName(
        "model", "gone", by="5.24", seen=("S0",), fails="ModuleNotFoundError",
        old="from transformers.modeling_attn_mask_utils import AttentionMaskConverter",
        now="from transformers.masking_utils import create_causal_mask",
        note="The file with the lines of `inverted_mask` is gone; LED and Pegasus-X keep copies of them.",
        holds="'inverted_mask = 1.0 - attention_mask' in source('models.pegasus_x.modeling_pegasus_x')"
        " and 'inverted_mask = 1.0 - expanded_mask' in source('models.led.modeling_led') and all("
        "'create_causal_mask(' in source(f'models.{name}.forward')"
        " for name in ('gpt2.modeling_gpt2.GPT2Model', 'llama.modeling_llama.LlamaModel'))",
    ),
    OldName(
        "model", "moved", by="4.57", fails="ImportError",
        old="from transformers.modeling_utils import Conv1D",
        now="from transformers.pytorch_utils import Conv1D",
        note="This is GPT-2's linear layer. Its weight is stored transposed.",
    ),
    # Tokenizers
    OldName(
        "tokenizer", "changed", by="5.0", seen=("S0", "S3", "S4"),
        old="from transformers import GPT2Tokenizer, GPT2TokenizerFast",
        now="from transformers import GPT2Tokenizer",
        note="Both are names of one class, the fast one. `use_fast=False` does not bring back the slow one.",
        holds="transformers.GPT2Tokenizer is transformers.GPT2TokenizerFast"
        " and transformers.AutoTokenizer.from_pretrained(name, use_fast=False).is_fast",
    ),
    OldName(
        "tokenizer", "changed", by="5.0", seen=("S3",),
        old='transformers.GPT2Tokenizer(vocab_file="vocab.json", merges_file="merges.txt")',
        now="transformers.GPT2Tokenizer.from_pretrained(name)",
        note="They are ignored: no file is opened, and every text becomes zero tokens. These arguments are"
        " now called `vocab` and `merges`.",
        holds="tokenizer('Hi').input_ids and not"
        " transformers.GPT2Tokenizer(vocab_file='vocab.json', merges_file='merges.txt')('Hi').input_ids",
    ),
    OldName(
        "tokenizer", "renamed", by="5.0",
        old="from transformers import PreTrainedTokenizer, PreTrainedTokenizerFast",
        now="from transformers import PythonBackend, TokenizersBackend",
        note="The old names still work.",
        holds="transformers.PreTrainedTokenizerFast is transformers.TokenizersBackend"
        " and transformers.PreTrainedTokenizer is transformers.PythonBackend",
    ),
    OldName(
        "tokenizer", "gone", by="5.0", fails="AttributeError",
        old='tokenizer.encode_plus("Today is")',
        now='tokenizer("Today is")',
        also="batch_encode_plus",
    ),
    OldName(
        "tokenizer", "changed", by="5.0",
        old='tokenizer("Today is", pad_to_max_length=True, max_length=8)',
        now='tokenizer("Today is", padding="max_length", max_length=8)',
        note="It is ignored: nothing is padded.",
        holds="len(tokenizer('Today is', pad_to_max_length=True, max_length=8).input_ids) == 2",
    ),
    OldName(
        "tokenizer", "gone", by="5.0", fails="AttributeError",
        old="tokenizer.encoder, tokenizer.bpe_ranks",
        now="tokenizer.get_vocab()",
        note="These were tables of the slow tokenizer. The merges are in the file `tokenizer.json`.",
        also="byte_encoder",
    ),
    OldName(
        "tokenizer", "same", seen=("S0", "S2", "S4"),
        old="tokenizer.pad_token = tokenizer.eos_token",
        note="Right as long as you pass the attention mask, and make labels from it. Lesson 02 shows why.",
    ),
    # TensorFlow, Flax, ONNX, training
    OldName(
        "elsewhere", "gone", by="5.0", seen=("S4",), fails="ImportError",
        old="from transformers import TFAutoModelForCausalLM",
        now="from transformers import AutoModelForCausalLM",
        note="Every TensorFlow class is gone.",
        holds="not [name for name in dir(transformers) if re.match('TF[A-Z]', name)]",
        also="TFGPT2LMHeadModel TFAutoModel TFGenerationMixin",
    ),
    OldName(
        "elsewhere", "gone", by="5.0", seen=("S4",), fails="ValueError",
        old='tokenizer("Today is", return_tensors="tf")',
        now='tokenizer("Today is", return_tensors="pt")',
    ),
    OldName(
        "elsewhere", "gone", by="5.0", seen=("S4",), fails="ImportError",
        old="from transformers import FlaxGenerationMixin, FlaxLogitsProcessorList",
        now="from transformers import GenerationMixin, LogitsProcessorList",
        note="Every Flax class is gone.",
        holds="not [name for name in dir(transformers) if name.startswith('Flax')]",
        also="FlaxAutoModelForCausalLM FlaxGPT2LMHeadModel",
    ),
    OldName(
        "elsewhere", "gone", by="5.0", seen=("S4",), fails="ValueError",
        old="model.generate(**inputs, prng_key=0, trace=False, params={})",
        now="torch.manual_seed(0); model.generate(**inputs, do_sample=True)",
        note="These were Flax's arguments. PyTorch draws from a global generator.",
    ),
    OldName(
        "elsewhere", "gone", by="5.0", seen=("S4",), fails="ModuleNotFoundError",
        old="from transformers.onnx import OnnxConfig, OnnxConfigWithPast, OnnxSeq2SeqConfigWithPast",
        now="from transformers.exporters import OnnxExporter",
        note="Architectures no longer need their own export description, and there is no list of tasks.",
        also="FeaturesManager GPT2OnnxConfig",
    ),
    OldName(
        "elsewhere", "changed", by="5.13", seen=("S4",),
        old="from transformers.exporters import OnnxConfig",
        note="A false friend: it holds settings of an export, not the description of a model that S4 means.",
        holds="'opset_version' in inspect.signature(transformers.exporters.OnnxConfig).parameters"
        " and not hasattr(transformers.exporters.OnnxConfig, 'generate_dummy_inputs')",
    ),
    OldName(
        "elsewhere", "gone", by="4.50", seen=("S4",), fails="ImportError",
        old="from transformers import AdamW",
        now="torch.optim.AdamW(model.parameters(), lr=1e-3, eps=1e-6, weight_decay=0.0)",
        note="This line has the old defaults. PyTorch's own are eps 1e-8 and weight_decay 0.01.",
        holds="torch.optim.AdamW(model.parameters()).defaults['eps'] == 1e-8"
        " and torch.optim.AdamW(model.parameters()).defaults['weight_decay'] == 0.01",
    ),
    OldName(
        "elsewhere", "gone", by="5.0", seen=("S4",), fails="ImportError",
        old="from transformers import GradientAccumulator",
        now="(model(**inputs, labels=input_ids).loss / 4).backward()",
        note="It belonged to TensorFlow. PyTorch adds up gradients until they are set to zero.",
    ),
    OldName(
        "elsewhere", "same", seen=("S4",),
        old="transformers.get_linear_schedule_with_warmup(optimizer, 10, 100)",
        note="The learning rate schedules are where they were.",
    ),
    OldName(
        "elsewhere", "moved", by="4.41", fails="ModuleNotFoundError",
        old="from transformers.generation_utils import GenerationMixin",
        now="from transformers.generation.utils import GenerationMixin",
    ),
)
# fmt: on
