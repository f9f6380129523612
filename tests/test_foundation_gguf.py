"""Models in GGUF files, each written here from a tiny model whose weights are known."""

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
import transformers

from frugal.corpora import BytePairTokenizer
from frugal.errors import InputError, UnavailableError
from frugal.foundation import Foundation, load_foundation

TEXT = "The frozen model reads 1234 words; the small model learns 56 of them. " * 20
HEADS, KEY_HEADS = 4, 2
BLOCK = {
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


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as a Hugging Face folder."""
    folder = tmp_path_factory.mktemp("original")
    tokenizer = BytePairTokenizer.train([TEXT], 300)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=tokenizer.vocabulary_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS,
        intermediate_size=64,
        max_position_embeddings=24,
        rms_norm_eps=2**-16,  # exact in the file's float32
        bos_token_id=0,
        eos_token_id=0,
    )
    model = transformers.LlamaForCausalLM(config)
    for weight in model.parameters():
        weight.data.normal_(std=0.3)
    model.save_pretrained(folder)
    tokenizer.save(folder)
    return folder


@pytest.fixture
def file(original: Path, tmp_path: Path) -> Path:
    return write_gguf(original, tmp_path / "tiny.gguf")


def write_gguf(original: Path, path: Path, *, kind: str = "llama", cut: str = "gpt-2", scaled: bool = False) -> Path:
    model = transformers.LlamaForCausalLM.from_pretrained(original)
    config, weights = model.config, {name: values.numpy() for name, values in model.state_dict().items()}
    writer = gguf.GGUFWriter(path, kind)
    writer.add_name("tiny")
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.hidden_size // HEADS)
    if scaled:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    add_tokenizer(writer, original, cut)
    writer.add_tensor("token_embd.weight", weights["model.embed_tokens.weight"])
    writer.add_tensor("output_norm.weight", weights["model.norm.weight"])
    writer.add_tensor("output.weight", weights["lm_head.weight"])
    for layer in range(config.num_hidden_layers):
        for theirs, ours in BLOCK.items():
            values = weights[f"model.layers.{layer}.{ours}.weight"]
            if theirs in ("attn_q", "attn_k"):
                values = paired(values, HEADS if theirs == "attn_q" else KEY_HEADS)
            writer.add_tensor(f"blk.{layer}.{theirs}.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_tokenizer(writer: gguf.GGUFWriter, original: Path, cut: str) -> None:
    model = json.loads((original / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(cut)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token == "<|endoftext|>" else 1 for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in model["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)


def paired(rows: np.ndarray, heads: int) -> np.ndarray:
    """As GGUF keeps queries and keys: the two rows that rotary embedding turns together are neighbours."""
    return rows.reshape(heads, 2, -1, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape)


def test_a_file_gives_the_model_that_it_was_made_of(original: Path, file: Path) -> None:
    expected, read = load_foundation(original), load_foundation(file)
    tokens = expected.tokenizer.encode(TEXT)[:20].unsqueeze(0)
    assert torch.equal(read.tokenizer.encode(TEXT), expected.tokenizer.encode(TEXT))
    assert torch.equal(read.log_probabilities(tokens), expected.log_probabilities(tokens))
    assert (read.context_length, read.vocabulary_size) == (24, expected.vocabulary_size)
    assert (read.tokenizer.start_id, read.name) == (0, str(file))


def test_a_folder_with_one_file_is_enough(original: Path, file: Path) -> None:
    assert load_foundation(file.parent).fingerprint == load_foundation(file).fingerprint
    write_gguf(original, file.with_name("another.gguf"))
    with pytest.raises(InputError, match="2 GGUF files"):
        load_foundation(file.parent)


def test_a_model_from_a_file_can_be_saved(file: Path, tmp_path: Path) -> None:
    read = load_foundation(file)
    read.save(tmp_path / "saved")
    saved = Foundation.load(tmp_path / "saved")
    assert saved.fingerprint == read.fingerprint
    assert torch.equal(saved.tokenizer.encode(TEXT), read.tokenizer.encode(TEXT))


def test_numbers_are_cut_into_digits_where_the_file_says_so(original: Path, tmp_path: Path) -> None:
    tokenizer = load_foundation(write_gguf(original, tmp_path / "digits.gguf", cut="smollm")).tokenizer
    assert [tokenizer.decode(token) for token in tokenizer.encode("2024").split(1)] == [*"2024"]
    whole = load_foundation(write_gguf(original, tmp_path / "whole.gguf")).tokenizer
    assert len(whole.encode(" 1234")) < len(tokenizer.encode(" 1234"))


def test_an_unknown_way_of_cutting_texts_is_said(original: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="'some-new-way', is not known"):
        load_foundation(write_gguf(original, tmp_path / "new.gguf", cut="some-new-way"))


def test_what_would_be_read_wrongly_is_refused(original: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="rotary embedding"):
        load_foundation(write_gguf(original, tmp_path / "scaled.gguf", scaled=True))
    with pytest.raises(InputError, match="architecture unheard-of"):
        load_foundation(write_gguf(original, tmp_path / "unheard.gguf", kind="unheard-of"))


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.99])
def test_a_truncated_file_is_one_sentence(file: Path, share: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UnavailableError, match="cannot be read as a GGUF file") as caught:
        load_foundation(file)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text(TEXT)
    with pytest.raises(UnavailableError, match="cannot be read as a GGUF file"):
        load_foundation(tmp_path / "text.gguf")
    with pytest.raises(InputError, match="no such file"):
        load_foundation("missing.gguf")
