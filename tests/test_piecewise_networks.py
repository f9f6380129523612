"""Networks over characters: the original's shapes, what attends to what, state, saving and loading."""

import math
from dataclasses import fields, replace
from pathlib import Path
from typing import cast, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from frugal.corpora import CharTokenizer
from frugal.errors import InputError
from frugal.generate import Sampling, generate
from frugal.piecewise import PRESETS, CharacterNetwork, PiecewiseLM, Shape, preset, preset_of_size, read_settings
from frugal.piecewise.mamba import linear_recurrence, loop, scan
from frugal.piecewise.networks import LayerKind
from models import EVERY_MODEL, TEXTS, TINY_CONVOLUTIONS, piecewise

PIECEWISE = [name for name, build in EVERY_MODEL.items() if isinstance(build(), PiecewiseLM)]


def weights(name: str, **changes: object) -> int:
    """Weights of the original's network over 128 characters, without those of normalisations between layers."""
    with torch.device("meta"):
        network = preset(name, original=True, **changes).build(128)
    return sum(p.numel() for key, p in network.named_parameters() if "maps." not in key or p.dim() > 1)


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("piecewise_constant", {}, 40_252_800),
        ("large_single_layer", {"width": 200}, 609_600),
        ("large_double_layer", {}, 987_000),
        ("large_single_layer", {"nodes": 3}, 863_500),
        ("small", {"width": 250, "layers": 3, "nodes": 3}, 4_284_000),
        ("small", {"width": 250, "layers": 3, "nodes": 4}, 4_540_000),
        ("large_single_layer", {"width": 200, "nodes": 5}, 763_200),
        ("no_hidden_layer", {}, 644_000),
        ("small", {}, 44_320),
        ("mamba", {}, 26_624),
        ("mamba", {"width": 64}, 202_496),
        ("piecewise_mamba", {}, 3_143_696 + 5 * 128),  # ours has a bias on the step sizes
    ],
)
def test_networks_as_in_the_original_have_its_number_of_weights(
    name: str, changes: dict[str, object], expected: int
) -> None:
    assert weights(name, **changes) == expected


def test_convolutions_as_in_the_original_have_its_shapes() -> None:
    with torch.device("meta"):
        tail, theirs = (preset("tail_focus", original=flag).build(128) for flag in (False, True))
    shapes = [tuple(layer.weight.shape) for layer in tail.convolutions]  # type: ignore[union-attr]
    assert shapes == [(250, 129, 16), (250, 750, 2), (100, 750, 16)]
    assert (tail.readout.in_features, theirs.readout.in_features) == (4_200, 12_206)


def test_hidden_layers_have_the_nodes_asked_for_unless_original() -> None:
    with torch.device("meta"):
        asked = preset("large_single_layer", nodes=3).build(128)
    assert sum(p.numel() for p in asked.parameters() if p.dim() == 3) == 988_500


def codes(rows: int, length: int) -> Tensor:
    return torch.randint(0, 128, (rows, length), generator=torch.Generator().manual_seed(2))


def transformer(**changes: object) -> CharacterNetwork:
    torch.manual_seed(0)
    return preset("high_order_input_transformer", context_length=6, **changes).build(128)


def test_the_transformer_sees_the_order_of_characters_and_not_the_place_in_the_batch() -> None:
    network, window = transformer(), codes(1, 6)
    assert not torch.allclose(network(window.flip(1)), network(window), atol=1e-4)
    twice = network(window.repeat(2, 1))
    torch.testing.assert_close(twice[0], twice[1])


def test_the_original_transformer_sees_the_place_in_the_batch_and_not_the_order_of_characters() -> None:
    network, window = transformer(original=True), codes(1, 6)
    torch.testing.assert_close(network(window.flip(1)), network(window), rtol=0, atol=1e-4)
    twice = network(window.repeat(2, 1))
    assert not torch.allclose(twice[0], twice[1], atol=1e-3)


def test_the_transformer_predicts_after_every_prefix_without_seeing_what_follows() -> None:
    network, window = transformer(), codes(2, 6)
    whole = network(window)
    for length in (1, 4):
        torch.testing.assert_close(network(window[:, :length]), whole[:, :length])


def test_the_transformer_reads_on_beyond_its_window_by_the_last_window() -> None:
    network, text = transformer(), codes(2, 15)
    logits, state = network.advance(text[:, :3], network.start(2, padding=0))
    after, _ = network.advance(text[:, 3:], state)
    expected = [network(text[:, max(0, end - 6) : end])[:, -1] for end in range(1, 16)]
    torch.testing.assert_close(torch.cat([logits, after], dim=1), torch.stack(expected, dim=1))


@pytest.mark.parametrize("name", PIECEWISE)
def test_a_fresh_network_predicts_hardly_worse_than_a_uniform_distribution(name: str) -> None:
    torch.manual_seed(0)
    model = PiecewiseLM(cast(PiecewiseLM, EVERY_MODEL[name]()).shape, CharTokenizer.ascii())
    nats = -model.target_log_probabilities(model.tokenizer.encode("".join(TEXTS))[None]).mean()
    assert nats < math.log(model.vocabulary_size) + 0.3


def test_edges_of_high_order_do_not_explode_beyond_their_domain_unless_original() -> None:
    for original, explodes in ((False, False), (True, True)):
        torch.manual_seed(0)
        network = preset("small", width=40, layers=1, nodes=5, input_nodes=5, original=original).build(128)
        assert (network(codes(50, 16)).std() > 5) == explodes


def test_an_untrained_mamba_does_not_repeat_the_last_character_with_confidence() -> None:
    torch.manual_seed(0)
    network = preset("mamba", width=100, blocks=1, state=4).build(128)
    repeated = network(codes(4, 8)).softmax(-1).gather(2, codes(4, 8)[:, :, None])
    assert repeated.max() < 0.2  # its head is its embedding; large ones would make this nearly 1


def test_fewer_segments_than_characters_let_neighbours_share_one() -> None:
    torch.manual_seed(0)
    whole = preset("large_single_layer", width=6, context_length=3).build(128)
    half = preset("large_single_layer", width=6, context_length=3, input_segments=64).build(128)
    layer = half.maps[0].layer  # type: ignore[index, union-attr]
    assert layer.weight.shape[1] == 65
    window = codes(4, 3)
    assert half(window).shape == whole(window).shape
    torch.testing.assert_close(half.maps[0](window), layer((window - 63.5) / 64))  # type: ignore[index]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("conv", TINY_CONVOLUTIONS),
        ("large_single_layer", {"width": 6, "input_nodes": 1, "input_continuous": False}),
        ("large_single_layer", {"width": 6, "input_nodes": 1, "input_continuous": False, "input_segments": 300}),
    ],
)
def test_half_precision_tells_any_number_of_characters_apart(name: str, changes: dict[str, object]) -> None:
    torch.manual_seed(0)
    network = preset(name, context_length=9, normalise="none", **changes).build(600)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    windows = torch.arange(600).repeat_interleave(9).view(600, 9)
    with torch.no_grad():
        half = network.to(torch.bfloat16)(windows).double()
        exact = network.double()(windows)  # with the same, rounded weights
    assert ((half - exact).norm(dim=1) < 0.1 * exact.norm(dim=1)).all()


@pytest.mark.parametrize("length", [1, 2, 5, 8, 13])
def test_scan_and_loop_are_the_recurrence(length: int) -> None:
    a, b = torch.rand(2, 3, length, 4, dtype=torch.float64)
    h, states = torch.zeros(3, 4, dtype=torch.float64), []
    for t in range(length):
        h = a[:, t] * h + b[:, t]
        states.append(h)
    for way in (linear_recurrence, loop, scan):
        torch.testing.assert_close(way(a, b), torch.stack(states, 1))


def test_the_recurrence_has_the_right_derivatives() -> None:
    a, b = torch.rand(2, 1, 5, 2, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(linear_recurrence, (a, b))
    assert torch.autograd.gradgradcheck(linear_recurrence, (a, b))


def test_mamba_is_that_of_mambapy() -> None:
    from mambapy.mamba import Mamba, MambaConfig

    torch.manual_seed(0)
    ours = preset("mamba", width=20, blocks=2, state=4).build(30).double()
    theirs = Mamba(MambaConfig(d_model=20, n_layers=2, d_state=4)).double()
    for block, norm, layer in zip(ours.blocks, ours.norms, theirs.layers, strict=False):
        for weight in (norm.weight, block.skip, block.log_decay):
            torch.nn.init.uniform_(weight)
        layer.norm.weight, mixer = norm.weight, layer.mixer
        mixer.conv1d.weight, mixer.conv1d.bias = block.convolution.weight, block.convolution.bias
        mixer.x_proj, mixer.dt_proj.weight, mixer.dt_proj.bias = block.select, block.step.weight, block.step_bias
        mixer.A_log, mixer.D = block.log_decay, block.skip
        mixer.in_proj, mixer.out_proj = block.enter, block.leave
    window = codes(3, 9) % 30
    vectors = ours.norms[-1](theirs(ours.embedding(window)))
    torch.testing.assert_close(ours(window), vectors @ ours.embedding.weight.t())


def test_mambas_state_does_not_grow() -> None:
    model = piecewise("mamba", width=8, blocks=2, state=4)
    tokens = torch.zeros(1, 30, dtype=torch.int64)
    sizes = []
    for length in (1, 30):
        _, state = model.feed(tokens[:, :length], model.start(1))
        sizes.append([part.shape for block in state for part in block])
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("name", PIECEWISE)
def test_a_model_comes_back_from_its_folder(name: str, tmp_path: Path) -> None:
    model = cast(PiecewiseLM, EVERY_MODEL[name]())
    model.network.float()  # as it comes back
    model.save(tmp_path / "model")
    again = PiecewiseLM.load(tmp_path / "model")
    tokens = torch.arange(12).reshape(2, 6)
    assert torch.equal(again.log_probabilities(tokens), model.log_probabilities(tokens))
    greedy = Sampling(max_tokens=5, temperature=0)
    assert generate(again, "the c", greedy) == generate(model, "the c", greedy)


@pytest.mark.parametrize("name", ["piecewise MLP", "piecewise transformer"])
def test_a_model_of_an_earlier_version_comes_back(name: str, tmp_path: Path) -> None:
    """Its shape's fields had other names."""
    model = cast(PiecewiseLM, EVERY_MODEL[name]())
    model.save(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    config = path.read_text().replace("context_length", "features")
    path.write_text(config.replace("characters_per_position", "characters_per_feature"))
    assert PiecewiseLM.load(tmp_path / "model").shape == model.shape


def test_the_length_of_a_window_is_no_limit_on_a_text() -> None:
    model = piecewise("small", context_length=5)
    assert model.context_length is None
    tokens = model.tokenizer.encode(TEXTS[0])[None, :20]
    start = torch.full((1, 4), model.tokenizer.start_id)
    windows = torch.cat([start, tokens], dim=1).unfold(1, 5, 1)[0]
    expected = model.network(windows).log_softmax(-1)
    torch.testing.assert_close(model.log_probabilities(tokens)[0], expected)


def test_parameters_are_those_of_torch() -> None:
    model = piecewise("small", context_length=5)
    assert [*model.parameters()] == [*model.network.parameters()]
    assert model.parameter_count == sum(weight.numel() for weight in model.parameters())
    torch.optim.Adam(model.parameters())


def test_a_small_piece_at_a_time_gives_the_same_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    for model in (piecewise("large_single_layer", width=10), piecewise("mamba", width=8, blocks=2)):
        tokens = model.tokenizer.encode(TEXTS[0])[None]
        whole = model.target_scores(tokens)
        monkeypatch.setattr("frugal.piecewise.language_model.CODES_AT_ONCE", 50)
        pieces = model.target_scores(tokens)
        torch.testing.assert_close(pieces.log_probabilities, whole.log_probabilities, rtol=1e-3, atol=1e-3)
        monkeypatch.undo()


def test_every_layer_kind_makes_a_network() -> None:
    for kind in get_args(LayerKind):
        model = piecewise("small", kind=kind, context_length=3, normalise="maxabs")
        assert model.log_probabilities(torch.zeros(1, 2, dtype=torch.int64)).isfinite().all()


def test_unknown_names_are_refused_with_a_hint() -> None:
    with pytest.raises(InputError, match="did you mean 'large_single_layer'"):
        preset("large_single_leyer")
    for wrong in (5, None, []):
        with pytest.raises(InputError, match="is not known; there are small"):
            preset(wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="widht=3: small has no such field; it has context_length, width"):
        preset("small", widht=3)
    with pytest.raises(InputError, match="too few for these convolutions"):
        preset("tail_focus", context_length=20)
    with pytest.raises(InputError, match="multiple of characters_per_position"):
        preset("transformer", context_length=9, characters_per_position=2)
    with pytest.raises(InputError, match="one value for each convolution"):
        preset("conv", **{**TINY_CONVOLUTIONS, "focus": (1,)})


@pytest.mark.parametrize("name", PIECEWISE)
def test_codes_of_another_tokenizer_are_refused_by_every_network(name: str) -> None:
    network = cast(PiecewiseLM, EVERY_MODEL[name]()).network
    windows = torch.zeros(2, network.context_length, dtype=torch.int64)
    with torch.no_grad():
        expected = network(windows)
        for dtype in (torch.uint8, torch.uint16, torch.int32):
            assert torch.equal(network(windows.to(dtype)), expected)
    for wrong in (windows - 1, windows + network.characters):
        for read in (network, lambda codes: network.advance(codes, network.start(2, padding=0))):
            with pytest.raises(InputError, match=f"must be 0 to {network.characters - 1}, one for each character"):
                read(wrong)
    with pytest.raises(InputError, match=r"codes of torch\.float32"):
        network(windows.float())


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_field_of_another_type_or_size_is_refused_at_once(name: str) -> None:
    for field in fields(PRESETS[name]):
        value = getattr(PRESETS[name], field.name)
        wrong = ["many", 1.5, -1, math.nan] if type(value) is int else [object()]
        for bad in [*wrong, *([[1.5], [-1]] if isinstance(value, tuple) else [])]:
            with pytest.raises(InputError, match=field.name):
                preset(name, **{field.name: bad})


@given(st.integers(20_000, 200_000), st.sampled_from(["no_hidden_layer", "low_order_mlp", "mamba"]))
@settings(max_examples=5)
def test_a_network_of_a_size_is_the_widest_that_fits(weights: int, name: str) -> None:
    def count(shape: Shape) -> int:
        with torch.device("meta"):
            return sum(values.numel() for values in shape.build(50).parameters())

    chosen = preset_of_size(name, weights, 50, context_length=2)
    assert count(chosen) <= weights < count(replace(chosen, width=chosen.width + 1))  # type: ignore[attr-defined]


def test_a_size_that_no_network_has_is_refused() -> None:
    with pytest.raises(InputError, match="weights=10: too few for any small over 50 characters"):
        preset_of_size("small", 10, 50)


def test_settings_are_read_as_what_they_are_written() -> None:
    written = ["repeats=5", "clip = 1e-1", "schedule=exponential", "channels=[6, 8]", "continuous=False", "gamma=.9"]
    expected = {"repeats": 5, "clip": 0.1, "schedule": "exponential", "channels": [6, 8], "continuous": False}
    assert read_settings(written) == {**expected, "gamma": 0.9}
    for wrong in ("repeats", "=5", "repeats="):
        with pytest.raises(InputError, match="a name and a value"):
            read_settings([wrong])


def test_the_originals_names_are_all_there() -> None:
    theirs = "small large_single_layer large_double_layer large_standard conv transformer tail_focus mamba"
    assert {*theirs.split(), "high_order_input_transformer"} <= PRESETS.keys()


@pytest.mark.parametrize("name", ["small", "tail_focus", "mamba"])
def test_a_model_without_anything_to_say_says_nothing(name: str) -> None:
    model = PiecewiseLM(preset(name), CharTokenizer("ab"), device="auto")
    for batch, length in ((0, 5), (2, 0)):
        assert model.log_probabilities(torch.zeros(batch, length, dtype=torch.int64)).shape == (batch, length, 4)
    assert model.target_scores(torch.zeros(2, 1, dtype=torch.int64)).log_probabilities.shape == (2, 0)
    none = torch.zeros(0, 5, dtype=torch.int64, device=model.device)
    assert model.feed(none, model.start(0))[0].shape == (0, 4)
    assert model.advance(none, model.start(0))[0].shape == (0, 5, 4)
