"""Turn the packaged files into the ones transformers loads: GGUF into safetensors, vocabularies into
tokenizer.json.

Every function writes the same bytes on every machine, so that what is prepared can be held to a checksum.
The `gguf` package reads and dequantizes this file too, but needs six times as long as these few lines (4.1 s
instead of 0.6 s, median of three), which is most of what a learner waits for.
"""

import contextlib
import json
import math
import mmap
import struct
from pathlib import Path
from typing import Any

# GGUF's value types (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md) as struct codes.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_F32, _Q4_1, _Q8_0 = 0, 3, 8
_BLOCK = 32  # weights that share one scale in a quantized tensor
_CONTROL_TOKEN = 3

# llama.cpp's tensor names -> transformers' (modeling_llama.py).
_LAYER_PARTS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


class GGUFFile:
    """A GGUF file's metadata and tensors, read through a memory map.

    `metadata` is a dict of Python values. `shapes` maps each tensor's name to its shape, outermost dimension
    first as NumPy and PyTorch have it (GGUF stores it reversed).
    """

    def __init__(self, path):
        with open(path, "rb") as file:
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if self._data[:4] != b"GGUF":
            raise ValueError(f"{path} is not a GGUF file")
        self._at = 8  # after the magic and the version
        tensor_count, value_count = self._scalar("Q"), self._scalar("Q")
        self.metadata = {self._string(): self._value(self._scalar("I")) for _ in range(value_count)}
        self.shapes, self._kinds, self._offsets = {}, {}, {}
        for _ in range(tensor_count):
            name = self._string()
            self.shapes[name] = tuple(self._scalar("Q") for _ in range(self._scalar("I")))[::-1]
            self._kinds[name], self._offsets[name] = self._scalar("I"), self._scalar("Q")
        alignment: int = self.metadata.get("general.alignment", 32)
        self._base = -(-self._at // alignment) * alignment

    def close(self):
        # Arrays of an interrupted call may still look into the map; it then closes with the last of them.
        with contextlib.suppress(BufferError):
            self._data.close()

    def tensor(self, name):
        """The tensor as a new float32 array of its shape."""
        import numpy as np

        shape, kind = self.shapes[name], self._kinds[name]
        count, start = math.prod(shape), self._base + self._offsets[name]
        if kind == _F32:
            return np.frombuffer(self._data, np.float32, count, start).reshape(shape).copy()
        if kind == _Q4_1:  # weight = scale * (0..15) + minimum; the low halves of the bytes come first
            block = np.dtype([("scale", "<f2"), ("minimum", "<f2"), ("packed", "u1", _BLOCK // 2)])
            blocks = np.frombuffer(self._data, block, count // _BLOCK, start)
            packed = blocks["packed"]
            weights = np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.float32)
            weights *= blocks["scale"].astype(np.float32)[:, None]
            weights += blocks["minimum"].astype(np.float32)[:, None]
            return weights.reshape(shape)
        if kind == _Q8_0:  # weight = scale * (-128..127)
            block = np.dtype([("scale", "<f2"), ("weights", "i1", _BLOCK)])
            blocks = np.frombuffer(self._data, block, count // _BLOCK, start)
            return (blocks["weights"] * blocks["scale"].astype(np.float32)[:, None]).reshape(shape)
        raise ValueError(f"tensor {name} has GGUF type {kind}; only F32, Q4_1 and Q8_0 are known")

    def _scalar(self, code):
        (value,) = struct.unpack_from("<" + code, self._data, self._at)
        self._at += struct.calcsize("<" + code)
        return value

    def _string(self):
        length = self._scalar("Q")
        self._at += length
        return self._data[self._at - length : self._at].decode()

    def _value(self, kind) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            kind, length = self._scalar("I"), self._scalar("Q")
            return [self._value(kind) for _ in range(length)]
        return self._scalar(_SCALARS[kind])


def gguf_to_transformers(source, folder, progress=lambda size: None):
    """Write a Llama model from the GGUF file `source` into `folder` as transformers loads it: float32
    model.safetensors, config.json, generation_config.json, tokenizer.json, tokenizer_config.json.

    `progress(size)` is called with every number of bytes written to model.safetensors.
    """
    file = GGUFFile(source)
    try:
        _write_safetensors(file, Path(folder) / "model.safetensors", progress)
        _write_llama_json(file.metadata, Path(folder))
    finally:
        file.close()


def gpt2_tokenizer_files(encoder, merges, folder):
    """Write GPT-2's tokenizer.json and tokenizer_config.json into `folder`, from OpenAI's two files:
    `encoder` (encoder.json: token -> id) and `merges` (vocab.bpe: one merge a line, by rank)."""
    vocabulary = json.loads(Path(encoder).read_text(encoding="utf-8"))
    lines = Path(merges).read_text(encoding="utf-8").split("\n")
    end_of_text = "<|endoftext|>"
    tokenizer = _byte_level_bpe(
        vocabulary,
        [line.split(" ") for line in lines[1:] if line],  # the first line is "#version: 0.2"
        special_tokens=[end_of_text],
        pre_tokenizer=_byte_level(add_prefix_space=False),
        post_processor=_byte_level(trim_offsets=False),
    )
    _write_json(Path(folder) / "tokenizer.json", tokenizer)
    _write_json(
        Path(folder) / "tokenizer_config.json",
        {
            "tokenizer_class": "GPT2Tokenizer",
            "add_prefix_space": False,
            "bos_token": end_of_text,
            "eos_token": end_of_text,
            "unk_token": end_of_text,
            "model_max_length": 1024,
        },
    )


def _write_safetensors(file, path, progress):
    # Written tensor by tensor, where safetensors.save_file would hold 540 MB in memory and could not tell
    # how far it is. The checksum in assets.py is that of the file save_file writes.
    renamed = {_transformers_name(name): name for name in file.shapes}
    header: dict[str, dict] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in sorted(renamed):
        shape = file.shapes[renamed[name]]
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for name in sorted(renamed):
            weights = _in_transformers_order(file, renamed[name])
            out.write(weights.data)
            progress(weights.nbytes)


def _transformers_name(name):
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    _, layer, part, weight = name.split(".")
    return f"model.layers.{layer}.{_LAYER_PARTS[part]}.{weight}"


def _in_transformers_order(file, name):
    import numpy as np

    weights = file.tensor(name)
    heads = {
        "attn_q": file.metadata["llama.attention.head_count"],
        "attn_k": file.metadata["llama.attention.head_count_kv"],
    }
    for part, count in heads.items():
        if f".{part}." in name:
            # llama.cpp rotates neighbouring pairs of rows, transformers the two halves of a head.
            rows, columns = weights.shape
            pairs = weights.reshape(count, rows // count // 2, 2, columns)
            weights = pairs.swapaxes(1, 2).reshape(rows, columns)
    return np.ascontiguousarray(weights)


def _write_llama_json(metadata, folder):
    tokens = metadata["tokenizer.ggml.tokens"]
    kinds = metadata["tokenizer.ggml.token_type"]
    ids = {name: metadata[f"tokenizer.ggml.{name}_token_id"] for name in ("bos", "eos", "unknown", "padding")}
    generation = {"bos_token_id": ids["bos"], "eos_token_id": ids["eos"], "pad_token_id": ids["padding"]}
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(tokens),
        "hidden_size": metadata["llama.embedding_length"],
        "intermediate_size": metadata["llama.feed_forward_length"],
        "num_hidden_layers": metadata["llama.block_count"],
        "num_attention_heads": metadata["llama.attention.head_count"],
        "num_key_value_heads": metadata["llama.attention.head_count_kv"],
        "head_dim": metadata["llama.rope.dimension_count"],
        "max_position_embeddings": metadata["llama.context_length"],
        # float32's 9.999999747378752e-06, as it was meant
        "rms_norm_eps": float(f"{metadata['llama.attention.layer_norm_rms_epsilon']:.6g}"),
        "rope_parameters": {"rope_type": "default", "rope_theta": metadata["llama.rope.freq_base"]},
        "tie_word_embeddings": True,
        "hidden_act": "silu",
        "dtype": "float32",
        **generation,
    }
    # The file says "smollm": digits are split one by one before byte-level BPE.
    assert metadata["tokenizer.ggml.pre"] == "smollm"
    digits = {"type": "Digits", "individual_digits": True}
    tokenizer = _byte_level_bpe(
        {token: index for index, token in enumerate(tokens)},
        [merge.split(" ") for merge in metadata["tokenizer.ggml.merges"]],
        special_tokens=[token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL_TOKEN],
        pre_tokenizer={
            "type": "Sequence",
            "pretokenizers": [digits, _byte_level(add_prefix_space=False)],
        },
    )
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": tokens[ids["bos"]],
        "eos_token": tokens[ids["eos"]],
        "pad_token": tokens[ids["padding"]],
        "unk_token": tokens[ids["unknown"]],
        "model_max_length": metadata["llama.context_length"],
        "clean_up_tokenization_spaces": False,
        "chat_template": metadata["tokenizer.chat_template"],
    }
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", generation)
    _write_json(folder / "tokenizer.json", tokenizer)
    _write_json(folder / "tokenizer_config.json", tokenizer_config)


def _byte_level_bpe(vocabulary, merges, special_tokens, pre_tokenizer, post_processor=None):
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": vocabulary[token], "content": token, **flags} for token in special_tokens],
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": post_processor,
        "decoder": _byte_level(),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": merges,
        },
    }


def _byte_level(add_prefix_space=True, trim_offsets=True):
    return {
        "type": "ByteLevel",
        "add_prefix_space": add_prefix_space,
        "trim_offsets": trim_offsets,
        "use_regex": True,
    }


def _write_json(path, data):
    # Indented for a reader, but not the 98,000 lines that a tokenizer would become.
    indent = None if "model" in data else 2
    path.write_bytes(json.dumps(data, ensure_ascii=False, indent=indent).encode())
