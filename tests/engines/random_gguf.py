"""A Llama with random weights as a GGUF file: a real engine's work without a real model.

`python random_gguf.py FILE` writes the file; it is the same, byte for byte, for the same seed.

The vocabulary is made of words of plain ASCII, so that every generated token is text of its own and reaches a
streaming client by itself; the byte tokens that a tokenizer of this kind must have get no output weight and are never
the likeliest.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

SPECIAL = ("<unk>", "<s>", "</s>")
BYTES = 256
FIRST_WORD = len(SPECIAL) + BYTES
"""Token ids from here on are words."""


@dataclass(frozen=True)
class Architecture:
    """About 26 million parameters: on one core a decode step takes milliseconds, and its linear layers most of them."""

    layers: int = 6
    hidden: int = 640
    ffn: int = 1536
    heads: int = 10
    kv_heads: int = 2
    vocabulary: int = 2048
    context: int = 2048

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads


def write_random_gguf(path: Path, shape: Architecture, seed: int = 0) -> None:
    """Write the model; F16 matrices, whose products take as long for each token of a batch, and F32 norms."""
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("random-llama")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    _add_vocabulary(writer, shape.vocabulary)

    def add(name: str, rows: int, columns: int) -> None:
        matrix = rng.standard_normal((rows, columns), dtype=np.float32) * columns**-0.5
        if name == "output":
            matrix[:FIRST_WORD] = 0.0
        writer.add_tensor(f"{name}.weight", matrix.astype(np.float16))

    def add_norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(shape.hidden, dtype=np.float32))

    add("token_embd", shape.vocabulary, shape.hidden)
    for layer in range(shape.layers):
        block = f"blk.{layer}"
        add_norm(f"{block}.attn_norm")
        add(f"{block}.attn_q", shape.hidden, shape.hidden)
        add(f"{block}.attn_k", shape.kv_heads * shape.head_dim, shape.hidden)
        add(f"{block}.attn_v", shape.kv_heads * shape.head_dim, shape.hidden)
        add(f"{block}.attn_output", shape.hidden, shape.hidden)
        add_norm(f"{block}.ffn_norm")
        add(f"{block}.ffn_gate", shape.ffn, shape.hidden)
        add(f"{block}.ffn_up", shape.ffn, shape.hidden)
        add(f"{block}.ffn_down", shape.hidden, shape.ffn)
    add_norm("output_norm")
    add("output", shape.vocabulary, shape.hidden)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_vocabulary(writer: gguf.GGUFWriter, size: int) -> None:
    words = [f"▁{_word(i)}" for i in range(size - FIRST_WORD)]
    special = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
    writer.add_tokenizer_model("llama")
    writer.add_token_list([*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(BYTES)), *words])
    writer.add_token_scores([0.0] * FIRST_WORD + [-1.0 - i for i in range(len(words))])
    writer.add_token_types([*special, *[gguf.TokenType.BYTE] * BYTES, *[gguf.TokenType.NORMAL] * len(words)])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)


def _word(number: int) -> str:
    letters = []
    for _ in range(4):
        number, letter = divmod(number, 26)
        letters.append(chr(ord("a") + letter))
    return "".join(letters)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    write_random_gguf(parser.parse_args().file, Architecture())
