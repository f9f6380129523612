"""Foundation models of each supported architecture, tiny and randomly initialised; folders, names, the hub."""

import json
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor

from frugal.corpora import BytePairTokenizer, Turn, load_tokenizer
from frugal.device import DType
from frugal.errors import InputError, UnavailableError
from frugal.foundation import Foundation, load_foundation, loading, save_on_foundation, saved_foundation

TEXT = "The frozen model reads; the small model learns. 12 texts, 34 tests. " * 20
CONTEXT = 16
WIDER = 7  # rows of the head beyond the tokeniser's vocabulary


def tiny_config(kind: str, vocabulary_size: int) -> transformers.PretrainedConfig:
    common = {"vocab_size": vocabulary_size, "bos_token_id": 0, "eos_token_id": 0}
    if kind == "gpt2":
        return transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=CONTEXT, **common)
    if kind == "cerebras":  # GPT-2 as Cerebras-GPT sets it up
        return transformers.GPT2Config(
            n_embd=16, n_layer=2, n_head=2, n_positions=CONTEXT, n_inner=64, activation_function="gelu", **common
        )
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 32,
        "max_position_embeddings": CONTEXT,
    }
    if kind == "neox":
        return transformers.GPTNeoXConfig(**sizes, **common)
    return transformers.LlamaConfig(num_key_value_heads=2, **sizes, **common)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model folder of each architecture."""
    tokenizer = BytePairTokenizer.train([TEXT], 300)
    made = {}
    for kind in ("gpt2", "cerebras", "neox", "llama"):
        torch.manual_seed(0)
        made[kind] = tmp_path_factory.mktemp(kind)
        config = tiny_config(kind, tokenizer.vocabulary_size + WIDER)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(made[kind])
        tokenizer.save(made[kind])
    return made


@pytest.fixture(params=["gpt2", "cerebras", "neox", "llama"])
def foundation(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Foundation:
    return load_foundation(folders[request.param], dtype="float32")


@pytest.fixture
def gpt2(folders: dict[str, Path]) -> Foundation:
    return load_foundation(folders["gpt2"], dtype="float32")


@pytest.fixture(autouse=True)
def own_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRUGAL_DATA", str(tmp_path / "data"))


def some_tokens(model: Foundation, rows: int, length: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, model.tokenizer.vocabulary_size, (rows, length), generator=generator)


def test_a_folder_gives_a_frozen_model_as_wide_as_its_head(foundation: Foundation) -> None:
    assert foundation.vocabulary_size == foundation.tokenizer.vocabulary_size + WIDER
    assert foundation.context_length == CONTEXT
    assert not any(weight.requires_grad for weight in foundation.model.parameters())
    assert not foundation.model.training


def test_the_head_of_the_hidden_states_gives_the_models_logits(foundation: Foundation) -> None:
    tokens = some_tokens(foundation, 2, 10)
    hidden = foundation.hidden(tokens)
    assert hidden.shape == (2, 10, 16)
    torch.testing.assert_close(foundation.head(hidden), foundation.model(tokens).logits)


def test_the_future_does_not_change_the_score(foundation: Foundation) -> None:
    tokens = some_tokens(foundation, 1, 10)
    changed = tokens.clone()
    changed[0, 6:] = 5
    torch.testing.assert_close(
        foundation.log_probabilities(tokens)[:, :6], foundation.log_probabilities(changed)[:, :6]
    )


def test_steps_and_feeding_agree_with_the_score(foundation: Foundation) -> None:
    tokens = some_tokens(foundation, 2, CONTEXT)
    scores = foundation.log_probabilities(tokens)
    fed, state = foundation.feed(tokens[:, :5], foundation.start(2))
    torch.testing.assert_close(fed.log_softmax(-1), scores[:, 4])
    for t in range(5, CONTEXT):
        logits, state = foundation.step(tokens[:, t], state)
        torch.testing.assert_close(logits.log_softmax(-1), scores[:, t], atol=1e-4, rtol=1e-4)


def test_a_state_can_be_continued_in_two_ways(foundation: Foundation) -> None:
    tokens = some_tokens(foundation, 1, 8)
    _, state = foundation.feed(tokens, foundation.start(1))
    first, _ = foundation.step(torch.tensor([1]), state)
    foundation.step(torch.tensor([2]), state)
    again, _ = foundation.step(torch.tensor([1]), state)
    assert torch.equal(first, again)


@pytest.mark.parametrize("length", [CONTEXT + 1, CONTEXT + 5, 2 * CONTEXT + 3, 3 * CONTEXT])
def test_past_the_limit_the_last_half_is_encoded_anew(gpt2: Foundation, length: int) -> None:
    tokens = some_tokens(gpt2, 1, length)
    state = gpt2.start(1)
    for t in range(length):
        stepped, state = gpt2.step(tokens[:, t], state)
    in_view = state.tokens.shape[1]
    assert CONTEXT // 2 <= in_view <= CONTEXT
    torch.testing.assert_close(
        stepped.log_softmax(-1), gpt2.log_probabilities(tokens[:, -in_view:])[:, -1], atol=1e-4, rtol=1e-4
    )
    fed, fed_state = gpt2.feed(tokens, gpt2.start(1))
    assert torch.equal(fed_state.tokens, state.tokens)
    torch.testing.assert_close(fed, stepped, atol=1e-4, rtol=1e-4)


def test_more_tokens_than_the_context_at_once_are_refused(gpt2: Foundation) -> None:
    with pytest.raises(InputError, match="context_length=16"):
        gpt2.log_probabilities(some_tokens(gpt2, 1, CONTEXT + 1))


def test_the_context_can_be_shortened_but_not_stretched(folders: dict[str, Path]) -> None:
    assert load_foundation(folders["llama"], context_length=4).context_length == 4
    for length in (3, CONTEXT + 1):
        with pytest.raises(InputError, match=f"context_length={length}"):
            load_foundation(folders["llama"], context_length=length)


def test_a_model_that_states_no_limit_takes_any_context(folders: dict[str, Path], tmp_path: Path) -> None:
    copy_of(folders["gpt2"], tmp_path)
    config = transformers.BloomConfig(vocab_size=300, hidden_size=16, n_layer=1, n_head=2)
    transformers.BloomForCausalLM(config).save_pretrained(tmp_path)
    assert load_foundation(tmp_path).context_length == 2048
    assert load_foundation(tmp_path, context_length=5000).context_length == 5000
    with pytest.raises(InputError, match="context_length=3: must be at least 4"):
        load_foundation(tmp_path, context_length=3)


def test_room_for_padding_is_no_context(folders: dict[str, Path], tmp_path: Path) -> None:
    copy_of(folders["gpt2"], tmp_path)
    config = transformers.RobertaConfig(
        vocab_size=300,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=18,
        pad_token_id=1,
        is_decoder=True,
    )
    transformers.RobertaForCausalLM(config).save_pretrained(tmp_path)
    model = load_foundation(tmp_path)
    assert model.context_length == 16
    assert model.hidden(torch.full((1, 16), 5)).isfinite().all()


def test_a_model_of_another_kind_is_refused_by_what_it_is(folders: dict[str, Path], tmp_path: Path) -> None:
    copy_of(folders["gpt2"], tmp_path)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    transformers.T5ForConditionalGeneration(transformers.T5Config(vocab_size=300, **sizes)).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="holds a t5, which is no causal language model"):
        load_foundation(tmp_path)


def test_a_saved_model_comes_back_the_same(foundation: Foundation, tmp_path: Path) -> None:
    foundation.save(tmp_path / "copy")
    copy = Foundation.load(tmp_path / "copy", dtype="float32")
    tokens = some_tokens(foundation, 1, 8)
    assert torch.equal(copy.log_probabilities(tokens), foundation.log_probabilities(tokens))
    assert copy.fingerprint == foundation.fingerprint
    assert (tmp_path / "copy" / "card.md").is_file()


def test_bfloat16_is_used_where_asked_for(folders: dict[str, Path]) -> None:
    model = load_foundation(folders["llama"], dtype="bfloat16")
    assert model.dtype == model.hidden(torch.tensor([[1, 2]])).dtype == torch.bfloat16
    assert model.log_probabilities(torch.tensor([[1, 2]])).dtype == torch.float32


def test_the_fingerprint_is_the_same_in_either_number_format(folders: dict[str, Path], tmp_path: Path) -> None:
    one, other = (load_foundation(folders["gpt2"], dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert one.fingerprint == other.fingerprint
    assert one.exact_fingerprint != other.exact_fingerprint  # their features differ
    other.save(tmp_path / "rounded")
    assert load_foundation(tmp_path / "rounded", dtype="float32").fingerprint == one.fingerprint
    one.model.transformer.wte.weight[0, 0] *= 1.01
    del one.__dict__["fingerprint"]
    assert one.fingerprint != other.fingerprint


class Made:
    """A model of which only its place on a foundation is of interest."""

    def __init__(self, foundation: Foundation) -> None:
        self.foundation, self.tokenizer = foundation, foundation.tokenizer

    def save_in(self, folder: Path, **config: str) -> Path:
        save_on_foundation(folder, self, {}, {}, "# Made")
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | config))
        return folder


def foundation_in(folder: Path, given: Foundation | None = None) -> Foundation:
    config = json.loads((folder / "config.json").read_text())
    found = saved_foundation(folder, config, given, "cpu")
    assert config.keys() == {"class"}
    return found


@pytest.mark.parametrize("now", ["float32", "bfloat16"])
@pytest.mark.parametrize("then", ["float32", "bfloat16"])
def test_a_saved_model_finds_its_foundation_in_either_number_format(
    folders: dict[str, Path], tmp_path: Path, then: DType, now: DType
) -> None:
    trained_on, here = (load_foundation(folders["gpt2"], dtype=dtype) for dtype in (then, now))
    earlier = {"foundation_fingerprint": trained_on.exact_fingerprint}  # as earlier versions wrote it
    for config in ({}, earlier):
        folder = Made(trained_on).save_in(tmp_path / "model", **config)
        assert foundation_in(folder, here) is here
        assert foundation_in(folder).fingerprint == here.fingerprint


def test_a_head_of_its_own_belongs_to_a_foundation(folders: dict[str, Path], tmp_path: Path) -> None:
    one, other = (load_foundation(folders["llama"], dtype="float32") for _ in range(2))
    other.model.lm_head.weight[0, 0] += 1
    assert one.fingerprint != other.fingerprint
    assert one.exact_fingerprint == other.exact_fingerprint  # their features are the same
    folder = Made(one).save_in(tmp_path / "model")
    with pytest.raises(InputError, match="trained on another foundation"):
        foundation_in(folder, other)
    folder = Made(one).save_in(tmp_path / "earlier", foundation_fingerprint=one.body_fingerprint)
    assert foundation_in(folder, one) is one


def test_a_saved_model_refuses_another_foundation(folders: dict[str, Path], gpt2: Foundation, tmp_path: Path) -> None:
    folder = Made(gpt2).save_in(tmp_path / "model")
    with pytest.raises(InputError, match="trained on another foundation"):
        foundation_in(folder, load_foundation(folders["cerebras"], dtype="bfloat16"))
    unnamed = load_foundation(folders["cerebras"], dtype="bfloat16")
    unnamed.name = "made by hand"
    with pytest.raises(InputError, match="trained on another foundation"):
        foundation_in(folder, unnamed)


@pytest.mark.parametrize("setting", [{"dtype": "float8"}, {"device": "tpu"}])
def test_an_unknown_setting_is_refused(folders: dict[str, Path], setting: dict[str, str]) -> None:
    (value,) = setting.values()
    with pytest.raises(InputError, match=f"'{value}'"):
        load_foundation(folders["gpt2"], **setting)  # type: ignore[arg-type]


# The tokeniser


def test_text_never_becomes_a_special_token(gpt2: Foundation) -> None:
    tokens = gpt2.tokenizer.encode("a <|endoftext|> b")
    assert gpt2.tokenizer.start_id not in tokens.tolist()
    assert gpt2.tokenizer.decode(tokens) == "a <|endoftext|> b"


def test_special_tokens_are_left_out_of_the_text(gpt2: Foundation) -> None:
    tokens = torch.cat([torch.tensor([gpt2.tokenizer.start_id]), gpt2.tokenizer.encode(" so ,")])
    assert gpt2.tokenizer.decode(tokens) == " so ,"


def with_rows(folder: Path, destination: Path, rows: int) -> Path:
    """A GPT-2 with so many tokens, and the tokeniser in `folder`."""
    copy_of(folder, destination)
    transformers.AutoModelForCausalLM.from_config(tiny_config("gpt2", rows)).save_pretrained(destination)
    return destination


def test_a_tokeniser_with_more_tokens_than_the_model_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    largest = load_foundation(folders["gpt2"]).tokenizer.vocabulary_size - 1
    with pytest.raises(InputError, match=f"tokens go up to {largest}, the model embeds {largest - 9}"):
        load_foundation(with_rows(folders["gpt2"], tmp_path, largest - 9))


def test_special_tokens_that_the_model_does_not_have_are_left_out(folders: dict[str, Path], tmp_path: Path) -> None:
    size = load_foundation(folders["gpt2"]).tokenizer.vocabulary_size
    folder = with_rows(folders["gpt2"], tmp_path, size)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.chat_template = "<image>{{ messages[0].content }}"
    tokenizer.save_pretrained(folder)
    found = load_foundation(folder).tokenizer
    assert found.vocabulary_size == size
    with pytest.raises(InputError, match="no embeddings for"):
        found.chat_prompt([Turn("user", "Hello")])  # type: ignore[attr-defined]


def test_holes_among_the_tokens_are_never_written(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copy_of(folders["gpt2"], tmp_path)
    path = folder / "tokenizer.json"
    settings = json.loads(path.read_text())
    vocabulary = settings["model"]["vocab"]
    last = max(vocabulary, key=vocabulary.__getitem__)
    vocabulary[last] += 4
    path.write_text(json.dumps(settings))
    tokenizer = load_foundation(folder).tokenizer
    assert tokenizer.vocabulary_size == vocabulary[last] + 1
    assert tokenizer.unwritable_ids == {vocabulary[last] - n for n in (1, 2, 3, 4)}


def test_a_saved_tokeniser_is_read_by_the_common_loader(gpt2: Foundation, tmp_path: Path) -> None:
    gpt2.tokenizer.save(tmp_path)
    read = load_tokenizer(tmp_path)
    assert torch.equal(read.encode(TEXT), gpt2.tokenizer.encode(TEXT))
    assert (read.start_id, read.vocabulary_size) == (gpt2.tokenizer.start_id, gpt2.tokenizer.vocabulary_size)


def test_a_model_without_chat_template_says_so(gpt2: Foundation) -> None:
    with pytest.raises(InputError, match="no chat template"):
        gpt2.tokenizer.chat_prompt([Turn("user", "Hello")])  # type: ignore[attr-defined]


# Names, folders, the hub


@pytest.mark.parametrize(
    ("name", "nearest"), [("smolm2", "smollm2"), ("SmolLM2", "smollm2"), ("tiny_gpt2", "tiny-gpt2")]
)
def test_a_misspelt_packaged_name_gets_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(InputError, match=f"did you mean '{nearest}'"):
        load_foundation(name)


@pytest.mark.parametrize("name", ["no/such/folder", "", "a name"])
def test_what_is_neither_folder_nor_hub_id_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="neither a folder nor a hub id"):
        load_foundation(name)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.json"):
        load_foundation(tmp_path)


def test_pickled_weights_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((folders["gpt2"] / "config.json").read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"anything")
    with pytest.raises(InputError, match="only safetensors"):
        load_foundation(tmp_path)


def copy_of(folder: Path, destination: Path) -> Path:
    for path in folder.iterdir():
        (destination / path.name).write_bytes(path.read_bytes())
    return destination


def test_truncated_weights_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    weights = copy_of(folders["gpt2"], tmp_path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UnavailableError, match="cannot be read"):
        load_foundation(tmp_path)


def test_missing_weights_are_not_made_up(folders: dict[str, Path], tmp_path: Path) -> None:
    config = copy_of(folders["gpt2"], tmp_path) / "config.json"
    config.write_text(config.read_text().replace('"n_layer": 2', '"n_layer": 3'))
    with pytest.raises(UnavailableError, match="lacks weights"):
        load_foundation(tmp_path)


def test_weights_of_other_shapes_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    config = copy_of(folders["gpt2"], tmp_path) / "config.json"
    config.write_text(config.read_text().replace(f'"n_positions": {CONTEXT}', '"n_positions": 8'))
    with pytest.raises(UnavailableError, match=r"other shapes .*wpe"):
        load_foundation(tmp_path)


def test_weights_left_over_are_named(folders: dict[str, Path], tmp_path: Path) -> None:
    config = copy_of(folders["gpt2"], tmp_path) / "config.json"
    config.write_text(config.read_text().replace('"n_layer": 2', '"n_layer": 1'))
    with pytest.warns(UserWarning, match=r"no place for \(transformer\.h\.1"):
        load_foundation(tmp_path)


@pytest.mark.parametrize(("kind", "place"), [("gpt2", "transformer.ln_f"), ("llama", "lm_head")])
def test_weights_that_are_not_numbers_are_named_as_such(
    folders: dict[str, Path], tmp_path: Path, kind: str, place: str
) -> None:
    model = load_foundation(folders[kind], dtype="float32")
    model.model.get_submodule(place).weight[-1] = torch.nan
    model.save(tmp_path / "nan")
    with pytest.raises(UnavailableError, match="not finite"):
        load_foundation(tmp_path / "nan")


def test_a_damaged_list_of_weight_files_is_one_sentence(folders: dict[str, Path], tmp_path: Path) -> None:
    (copy_of(folders["gpt2"], tmp_path) / "model.safetensors.index.json").write_text("[")
    with pytest.raises(UnavailableError, match=r"index\.json cannot be read"):
        load_foundation(tmp_path)


def test_a_model_without_tokeniser_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    for path in copy_of(folders["gpt2"], tmp_path).glob("*token*"):
        path.unlink()
    with pytest.raises(InputError, match="no tokeniser"):
        load_foundation(tmp_path)


def test_code_of_a_folder_is_never_run_and_nobody_is_asked(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copy_of(folders["gpt2"], tmp_path) / "config.json"
    config = json.loads(path.read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}}
    path.write_text(json.dumps(config))
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    with pytest.raises(InputError, match="code of their own") as caught:
        load_foundation(tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("files", ["json", "none"])
def test_code_of_a_tokeniser_is_never_run(folders: dict[str, Path], tmp_path: Path, files: str) -> None:
    path = copy_of(folders["gpt2"], tmp_path) / "tokenizer_config.json"
    code = {"auto_map": {"AutoTokenizer": ["code.Own", None]}, "tokenizer_class": "Own"}
    path.write_text(json.dumps(json.loads(path.read_text()) | code))
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    if files == "json":  # it says all that the code would do
        assert load_foundation(tmp_path).tokenizer.vocabulary_size
    else:
        (tmp_path / "tokenizer.json").unlink()
        with pytest.raises(InputError, match=r"code of its own, which is never run: add its tokenizer\.json"):
            load_foundation(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_model_that_sees_the_future_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    copy_of(folders["gpt2"], tmp_path)
    config = transformers.BertConfig(
        vocab_size=300, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    transformers.BertLMHeadModel(config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="causal"):
        load_foundation(tmp_path)


def test_a_hub_name_without_network_and_cache_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "hub_answers", lambda: False)
    with pytest.raises(UnavailableError, match=r"'nobody/nothing' is not in the local cache.*'tiny-gpt2'") as caught:
        load_foundation("nobody/nothing")
    assert "\n" not in str(caught.value)


def test_a_hub_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()
    monkeypatch.setattr(loading, "get_session", lambda: SimpleNamespace(head=lambda *_, **__: never.wait()))
    monkeypatch.setattr(loading, "SECONDS_TO_ANSWER", 0.05)
    assert not loading.hub_answers()
    never.set()


def test_a_cached_hub_model_needs_no_network(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot(name: str, *, local_files_only: bool = False, **_: object) -> str:
        assert local_files_only
        return str(folders["neox"])

    monkeypatch.setattr(loading, "snapshot_download", snapshot)
    assert load_foundation("somebody/neox").name == "somebody/neox"


# Adapters


def adapter_for(base: Path, folder: Path, weights: dict[str, Tensor], **settings: object) -> Path:
    """What the peft library writes."""
    folder.mkdir()
    named = {f"base_model.model.{name}": weight for name, weight in weights.items()}
    save_file(named, folder / "adapter_model.safetensors")
    usual = {"peft_type": "LORA", "base_model_name_or_path": str(base), "lora_alpha": 6, "r": 2}
    (folder / "adapter_config.json").write_text(json.dumps(usual | settings))
    return folder


@pytest.mark.parametrize(
    ("kind", "place"), [("llama", "model.layers.1.self_attn.q_proj"), ("gpt2", "transformer.h.0.attn.c_attn")]
)
def test_an_adapter_is_added_to_the_model_it_names(
    folders: dict[str, Path], tmp_path: Path, kind: str, place: str
) -> None:
    base = load_foundation(folders[kind], dtype="float32")
    layer = base.model.get_submodule(place)
    inputs = torch.randn(3, 16)
    outputs = layer(inputs)
    down, up = torch.randn(2, 16), torch.randn(outputs.shape[1], 2)
    norm = torch.randn(16)
    whole = "model.norm.weight" if kind == "llama" else "transformer.ln_f.weight"
    weights = {f"{place}.lora_A.weight": down, f"{place}.lora_B.weight": up, whole: norm}
    model = load_foundation(adapter_for(folders[kind], tmp_path / "adapter", weights), dtype="float32")
    found = model.model.get_submodule(place)(inputs)
    torch.testing.assert_close(found, outputs + 6 / 2 * inputs @ down.T @ up.T, rtol=1e-4, atol=1e-4)
    assert torch.equal(model.model.get_parameter(whole), norm)
    assert model.fingerprint != base.fingerprint


def test_an_adapters_scale_may_differ_from_layer_to_layer(folders: dict[str, Path], tmp_path: Path) -> None:
    places = [f"model.layers.{n}.self_attn.o_proj" for n in (0, 1)]
    weights = {}
    for place in places:
        weights |= {f"{place}.lora_A.weight": torch.eye(4, 16), f"{place}.lora_B.weight": torch.eye(16, 4)}
    folder = adapter_for(
        folders["llama"], tmp_path / "adapter", weights, use_rslora=True, alpha_pattern={"layers.1.self_attn.o_proj": 2}
    )
    before, after = (load_foundation(place, dtype="float32").model for place in (folders["llama"], folder))
    changes = [after.get_submodule(place).weight - before.get_submodule(place).weight for place in places]
    torch.testing.assert_close(changes[0][:4, :4], 6 / 4**0.5 * torch.eye(4))
    torch.testing.assert_close(changes[1][:4, :4], 2 / 4**0.5 * torch.eye(4))


@pytest.mark.parametrize("place", ["lm_head", "transformer.wte"])
def test_of_a_head_and_an_embedding_that_share_their_weights_an_adapter_changes_one(
    folders: dict[str, Path], tmp_path: Path, place: str
) -> None:
    base = load_foundation(folders["gpt2"], dtype="float32")
    weights = {"transformer.wte.weight": torch.randn(base.vocabulary_size, 16)}
    if place == "lm_head":
        weights = {f"{place}.lora_A.weight": torch.randn(2, 16)}
        weights[f"{place}.lora_B.weight"] = torch.randn(base.vocabulary_size, 2)
    model = load_foundation(adapter_for(folders["gpt2"], tmp_path / "adapter", weights), dtype="float32")
    model.save(tmp_path / "saved")
    for each in (model, load_foundation(tmp_path / "saved", dtype="float32")):
        same = {
            part: torch.equal(each.model.get_submodule(part).weight, base.model.get_submodule(part).weight)
            for part in ("lm_head", "transformer.wte")
        }
        assert same == {"lm_head": True, "transformer.wte": True} | {place: False}


@pytest.mark.parametrize(
    ("weights", "settings", "message"),
    [
        ({"a.lora_A.weight": torch.ones(2, 16), "a.lora_B.weight": torch.ones(16, 2)}, {}, "changes a, which"),
        ({"model.embed_tokens.lora_embedding_A": torch.ones(2, 9)}, {}, "no part of a plain LoRA"),
        ({"model.norm.weight": torch.ones(9)}, {}, "made for another model"),
        ({}, {"peft_type": "IA3"}, "of the kind IA3"),
        ({}, {"use_dora": True}, "of the kind DoRA"),
        ({}, {"base_model_name_or_path": None}, "does not name"),
        ({}, {"base_model_name_or_path": "no/such/folder"}, "an adapter of 'no/such/folder', which is not"),
    ],
)
def test_an_adapter_that_cannot_be_added_is_refused(
    folders: dict[str, Path], tmp_path: Path, weights: dict[str, Tensor], settings: dict[str, object], message: str
) -> None:
    folder = adapter_for(folders["llama"], tmp_path / "adapter", weights, **settings)
    with pytest.raises(InputError, match=message):
        load_foundation(folder)
