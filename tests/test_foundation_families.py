"""Every causal family that transformers has, tiny and random: right, or refused in one sentence.

The families share their settings' names, so that one set of sizes builds nearly all of them.
"""

import inspect
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from frugal.corpora import CharTokenizer
from frugal.errors import InputError
from frugal.foundation import Foundation
from frugal.generate import Sampling, generate
from models import ROUNDING

ROWS = 136  # of the vocabulary; the tokeniser has 130
CONTEXT = 12
WINDOW = 6  # of sliding attention
SIZES: dict[str, Any] = {
    "vocab_size": ROWS,
    "bos_token_id": 128,
    "eos_token_id": 128,
    "pad_token_id": 0,
    "is_decoder": True,
    "max_position_embeddings": 32,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "sliding_window": WINDOW,
    "state_size": 8,
    # As older families call them.
    "n_embd": 32,
    "n_inner": 48,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 32,
    "rotary_dim": 8,
    "d_model": 32,
    "n_layers": 2,
    "n_heads": 4,
    "num_layers": 2,
    "num_heads": 4,
    "attention_heads": 4,
    "ffn_dim": 48,
    "decoder_layers": 2,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 48,
    "encoder_layers": 1,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    # Experts and compressed keys.
    "num_local_experts": 4,
    "num_experts": 4,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
}
EQUAL_HEADS = {"num_key_value_heads": 4}
HYBRID = {"layer_types": ["linear_attention", "full_attention"]}
DELTA = HYBRID | {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
MAMBA2 = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_d_state": 8}
OWN_SIZES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(
        [
            "axk1",
            "axk2",
            "deepseek_v2",
            "deepseek_v3",
            "deepseek_v32",
            "glm4_moe_lite",
            "glm_moe_dsa",
            "minicpm3",
            "youtu",
        ],
        EQUAL_HEADS,
    ),
    **dict.fromkeys(["qwen3_5_moe_text", "qwen3_5_text", "qwen3_next"], DELTA),
    **dict.fromkeys(["minimax", "olmo_hybrid"], HYBRID),
    **{key: {"layer_types": ["conv", "full_attention"]} for key in ["lfm2", "lfm2_moe", "lfm3"]},
    "bailing_hybrid": HYBRID | EQUAL_HEADS,
    "bamba": MAMBA2 | {"attn_layer_indices": [1]},
    "cohere": {"logit_scale": 0.25},
    "dots3_note_text": EQUAL_HEADS,
    "falcon_h1": MAMBA2 | {"mamba_d_ssm": 64},
    "gemma2": {"final_logit_softcapping": 2.0},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": WINDOW},
    "granite": {"logits_scaling": 8.0},
    "granitemoehybrid": MAMBA2 | {"layer_types": ["mamba", "attention"]},
    "jamba": {
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
    },
    "longcat_flash": EQUAL_HEADS | {"head_dim": 4},
    "mamba2": {"num_heads": 4, "head_dim": 16, "n_groups": 1},
    "moshi": {"sliding_window": 32},  # as in the real one, no less than its context
    "opt": {"word_embed_proj_dim": 16},
    "recurrent_gemma": {"num_hidden_layers": 3, "attention_window_size": WINDOW, "lru_width": 32},
    "reformer": {
        "axial_pos_embds": False,
        "attn_layers": ["local", "local"],
        "local_attn_chunk_length": 8,
        "attention_head_size": 8,
    },
    "zaya": {"num_experts_per_tok": 1},
}
# What is refused, and what the sentence says.
REFUSED = {
    "cpmant": "looks at later tokens",
    "prophetnet": "makes its logits of more",
    "xlm": "looks at later tokens",
    "xlnet": "looks at later tokens",
    "xmod": "does not read tokens alone",  # it wants to know the language
}
LEFT_OUT = {
    **dict.fromkeys(
        [
            "emu3",
            "fuyu",
            "gemma3",
            "gemma3n",
            "gemma4",
            "gemma4_unified",
            "git",
            "got_ocr2",
            "llama4",
            "mllama",
            "moss_transcribe_diarize",
            "phi4_multimodal",
            "qwen3_5",
            "qwen3_5_moe",
            "qwen4_exp",
            "dots3_note",
        ],
        "reads pictures or sound too; its part that reads text is another family",
    ),
    **dict.fromkeys(["gemma4_assistant", "gemma4_unified_assistant"], "guesses ahead for another model"),
    **dict.fromkeys(
        ["gemma4_text", "kimi_linear", "nemotron_h"], "has large parts of fixed size; right when last tried"
    ),
    **dict.fromkeys(["musicgen", "musicgen_melody"], "writes sound"),
    **dict.fromkeys(
        ["blt", "cohere_compass_text", "dbrx", "gemma3n_text", "qwen4_exp_text", "zamba", "zamba2"],
        "its sizes depend on each other otherwise",
    ),
}
NUMBERED_OTHERWISE = ["camembert", "data2vec-text", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl"]
# The families of most models in use: a stream of theirs never reads again what it has read.
QUICK = [
    "bloom",
    "falcon",
    "gemma",
    "gemma2",
    "gemma3_text",
    "gpt2",
    "gpt_neox",
    "llama",
    "mamba",
    "mistral",
    "olmo2",
    "opt",
    "phi",
    "phi3",
    "qwen2",
    "qwen3",
]


def tiny(name: str) -> Any:
    """A random model whose predictions differ."""
    kind = CONFIG_MAPPING[name]
    known = {*inspect.signature(kind.__init__).parameters, *getattr(kind, "attribute_map", {})}
    for base in kind.__mro__:
        known.update(vars(base).get("__annotations__", {}))
    settings = {key: value for key, value in SIZES.items() if key in known} | OWN_SIZES.get(name, {})
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(kind(**settings))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(std=0.3)
            else:
                weight.add_(torch.randn_like(weight) * 0.1)
    model.generation_config = transformers.GenerationConfig(pad_token_id=0)  # some force a text's last token
    return model


@pytest.fixture(scope="module", params=[name for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if name not in LEFT_OUT])
def foundation(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Foundation]:
    """A family's model, or a skip that says that the family is refused, as it should be."""
    name = request.param
    model = tiny(name)
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("FRUGAL_DATA", str(tmp_path_factory.mktemp(name)))
        warnings.filterwarnings("ignore", message=".*nothing that a stream can go on from")
        if name in REFUSED:
            with pytest.raises(InputError, match=REFUSED[name]):
                Foundation(model, CharTokenizer.ascii(), name=name)
            pytest.skip(f"{name}: {REFUSED[name]}")
        yield Foundation(model, CharTokenizer.ascii(), name=name, context_length=CONTEXT)


@pytest.fixture(scope="module")
def tokens(foundation: Foundation) -> Tensor:
    """Two streams longer than any window, [2, T]."""
    return torch.randint(1, 128, (2, CONTEXT), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def scores(foundation: Foundation, tokens: Tensor) -> Tensor:
    return foundation.log_probabilities(tokens)


def near(one: Tensor, other: Tensor) -> None:
    """Equal but for roundings, which deep random nets enlarge in proportion to their scores."""
    torch.testing.assert_close(one, other, rtol=1e-5, atol=max(ROUNDING, 1e-3 * float(other.std())))


def test_scores_are_those_of_transformers(foundation: Foundation, tokens: Tensor, scores: Tensor) -> None:
    near(scores, foundation.model(tokens, use_cache=False).logits.log_softmax(-1))
    assert scores.std() > 0.01  # they could not be confused


def test_a_row_of_a_batch_scores_as_it_would_alone(foundation: Foundation, tokens: Tensor, scores: Tensor) -> None:
    near(foundation.log_probabilities(tokens[1:]), scores[1:])


def test_a_beginning_scores_as_it_does_in_the_whole(foundation: Foundation, tokens: Tensor, scores: Tensor) -> None:
    near(foundation.log_probabilities(tokens[:, :7]), scores[:, :7])


def test_features_are_the_hidden_states(foundation: Foundation, tokens: Tensor) -> None:
    features = torch.tensor(foundation.features(tokens[0]))
    torch.testing.assert_close(features.float(), foundation.hidden(tokens[:1])[0], rtol=1e-3, atol=1e-3)
    near(foundation.logits(foundation.hidden(tokens[:1])).log_softmax(-1), foundation.log_probabilities(tokens[:1]))


def test_a_stream_gives_the_scores(foundation: Foundation, tokens: Tensor, scores: Tensor) -> None:
    logits, state = foundation.feed(tokens[:, :3], foundation.start(2))
    rows = [logits.log_softmax(-1)]
    for t in range(3, CONTEXT):
        logits, state = foundation.step(tokens[:, t], state)
        rows.append(logits.log_softmax(-1))
    near(torch.stack(rows, 1), scores[:, 2:])


def test_an_old_state_goes_on_in_two_ways(foundation: Foundation, tokens: Tensor, scores: Tensor) -> None:
    _, state = foundation.feed(tokens[:, :5], foundation.start(2))
    foundation.step(tokens[:, 7], state)
    logits, _ = foundation.feed(tokens[:, 5:], state)
    near(logits.log_softmax(-1), scores[:, -1])


def test_past_the_context_a_stream_sees_the_last_tokens(foundation: Foundation, tokens: Tensor) -> None:
    longer = torch.cat([tokens, tokens.flip(1)], 1)[:, : CONTEXT + 3]
    logits, state = foundation.feed(longer, foundation.start(2))
    logits, state = foundation.step(longer[:, 0], state)
    assert CONTEXT // 2 <= state.tokens.shape[1] <= CONTEXT
    near(logits.log_softmax(-1), foundation.log_probabilities(state.tokens)[:, -1])


def test_the_likeliest_text_is_that_of_transformers_to_its_end(foundation: Foundation) -> None:
    if foundation.name in NUMBERED_OTHERWISE:
        pytest.skip(f"{foundation.name}: transformers' generate numbers positions otherwise than its forward pass")
    never = list(range(foundation.tokenizer.start_id + 1, ROWS))  # the unknown character, rows that are no token
    settings = transformers.GenerationConfig(max_new_tokens=6, suppress_tokens=never, use_cache=False)
    prompt = torch.cat([torch.tensor([foundation.tokenizer.start_id]), foundation.tokenizer.encode("a b")])[None]
    [expected] = foundation.model.generate(prompt, settings, attention_mask=torch.ones_like(prompt))[:, 4:]
    end = int(expected[3])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CharTokenizer, "end_ids", frozenset({end}))
        text = generate(foundation, "a b", Sampling(max_tokens=6, temperature=0))
    assert text == foundation.tokenizer.decode(expected[: expected.tolist().index(end)])


def test_a_stream_of_a_usual_family_reads_nothing_again(foundation: Foundation) -> None:
    if foundation.name in QUICK:
        assert foundation.reads_on != "nothing"


@pytest.mark.parametrize("name", LEFT_OUT)
def test_a_family_is_left_out_for_a_reason(name: str) -> None:
    pytest.skip(f"{name}: {LEFT_OUT[name]}")
