from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from frugal.errors import InputError, UnavailableError
from frugal.readout import RidgeReadout
from frugal.ridge import RidgePath, RidgeStatistics, SquareRootPath, SquareRootStatistics

ALPHAS = (1e-6, 1e-3, 0.1, 3.0)


def some_rows(n: int = 90, D: int = 7, K: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Inputs [n, D] far from zero mean, and values [n, K] that depend on them; float64."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n, D, generator=generator, dtype=torch.float64) + 3
    noise = torch.randn(n, K, generator=generator, dtype=torch.float64)
    return inputs, inputs @ torch.linspace(-1, 1, D * K, dtype=torch.float64).view(D, K) + noise


def some_tokens(n: int = 90, D: int = 7, K: int = 9, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Inputs [n, D] and tokens [n] below K - 2, so that two never occur."""
    inputs, _ = some_rows(n, D, seed=seed)
    return inputs, torch.randint(K - 2, (n,), generator=torch.Generator().manual_seed(seed + 1))


def one_hot(tokens: Tensor, K: int) -> Tensor:
    return torch.nn.functional.one_hot(tokens, K).double()


def statistics_of(inputs: Tensor, targets: Tensor, K: int) -> RidgeStatistics:
    return RidgeStatistics.collect([(inputs, targets)], K)


def square_root_of(inputs: Tensor, values: Tensor) -> SquareRootStatistics:
    statistics = SquareRootStatistics(inputs.shape[1], values.shape[1])
    statistics.add(inputs, values)
    return statistics


def closed_form(inputs: Tensor, values: Tensor, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights [K, D] and bias [K] as an augmented least-squares problem, by numpy."""
    X, Y = inputs.numpy(), values.numpy()
    mean_x, mean_y = X.mean(0), Y.mean(0)
    penalty = alpha * ((X - mean_x) ** 2).sum() / X.shape[1]
    rows = np.vstack([X - mean_x, np.sqrt(penalty) * np.eye(X.shape[1])])
    targets = np.vstack([Y - mean_y, np.zeros((X.shape[1], Y.shape[1]))])
    weight = np.linalg.lstsq(rows, targets, rcond=None)[0].T
    return weight, mean_y - weight @ mean_x


def residual_and_freedom(inputs: Tensor, values: Tensor, alpha: float) -> tuple[float, float]:
    """Sum of squared residuals, and degrees of freedom by the trace of the hat matrix."""
    weight, bias = closed_form(inputs, values, alpha)
    X = inputs.numpy() - inputs.numpy().mean(0)
    penalty = alpha * (X**2).sum() / X.shape[1]
    hat = X @ np.linalg.inv(X.T @ X + penalty * np.eye(X.shape[1])) @ X.T
    return ((values.numpy() - inputs.numpy() @ weight.T - bias) ** 2).sum(), 1 + np.trace(hat)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_each_penalty_of_one_eigendecomposition_is_the_direct_solution(alpha: float) -> None:
    inputs, values = some_rows()
    weight, bias = closed_form(inputs, values, alpha)
    for path in (RidgePath(statistics_of(inputs, values, 4)), SquareRootPath(square_root_of(inputs, values))):
        given_weight, given_bias = path.solve(alpha, torch.float64)
        np.testing.assert_allclose(given_weight, weight, rtol=0, atol=1e-8)
        np.testing.assert_allclose(given_bias, bias, rtol=0, atol=1e-8)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_tokens_give_what_their_unit_vectors_give(alpha: float) -> None:
    inputs, tokens = some_tokens()
    weight, bias = closed_form(inputs, one_hot(tokens, 9), alpha)
    given_weight, given_bias = RidgePath(statistics_of(inputs, tokens, 9)).solve(alpha, torch.float64)
    np.testing.assert_allclose(given_weight, weight, rtol=0, atol=1e-8)
    np.testing.assert_allclose(given_bias, bias, rtol=0, atol=1e-8)
    assert (given_weight[-2:] == 0).all()  # they never occurred


@given(cuts=st.lists(st.integers(0, 90), max_size=4), tokens=st.booleans())
@settings(max_examples=30)
def test_merged_shards_and_any_pieces_give_the_statistics_of_one_pass(cuts: list[int], tokens: bool) -> None:
    inputs, targets = some_tokens() if tokens else some_rows()
    K = 9 if tokens else 4
    whole, pieces, merged = statistics_of(inputs, targets, K), RidgeStatistics.empty(7, K), RidgeStatistics.empty(7, K)
    cuts = sorted(cuts)
    for some_inputs, some_targets in zip(inputs.tensor_split(cuts), targets.tensor_split(cuts), strict=True):
        pieces.add(some_inputs, some_targets)
        merged = merged.merge(statistics_of(some_inputs, some_targets, K))
    for name, expected in vars(whole).items():
        torch.testing.assert_close(getattr(merged, name), expected, rtol=1e-12, atol=1e-10)
        torch.testing.assert_close(getattr(pieces, name), expected, rtol=1e-12, atol=1e-10)


def test_merged_triangles_give_the_solution_of_one_pass() -> None:
    inputs, values = some_rows()
    shards = [square_root_of(inputs[:30], values[:30]), square_root_of(inputs[30:], values[30:])]
    merged = SquareRootPath(shards[0].merge(shards[1])).solve(0.1, torch.float64)
    whole = SquareRootPath(square_root_of(inputs, values)).solve(0.1, torch.float64)
    torch.testing.assert_close(merged, whole, rtol=1e-10, atol=1e-10)


def test_float32_states_lose_nothing_that_matters() -> None:
    inputs, tokens = some_tokens(n=400)
    exact, _ = RidgePath(statistics_of(inputs, tokens, 9)).solve(1e-3, torch.float64)
    rounded, _ = RidgePath(statistics_of(inputs.float(), tokens, 9)).solve(1e-3, torch.float64)
    torch.testing.assert_close(rounded, exact, rtol=0, atol=1e-5)


def test_generalised_cross_validation_is_its_formula() -> None:
    inputs, values = some_rows()
    for path in (RidgePath(statistics_of(inputs, values, 4)), SquareRootPath(square_root_of(inputs, values))):
        for alpha, score in zip(ALPHAS, path.generalised_cross_validation(ALPHAS), strict=True):
            residual, freedom = residual_and_freedom(inputs, values, alpha)
            assert score.item() == pytest.approx(90 * residual / (90 - freedom) ** 2, rel=1e-8)


def test_validation_errors_come_out_of_statistics_alone() -> None:
    (inputs, values), (others, their_values) = some_rows(), some_rows(n=40, seed=5)
    gram = RidgePath(statistics_of(inputs, values, 4))
    root = SquareRootPath(square_root_of(inputs, values))
    by_gram = gram.validation_errors(statistics_of(others, their_values, 4), ALPHAS)
    by_root = root.validation_errors(square_root_of(others, their_values), ALPHAS)
    for alpha, first, second in zip(ALPHAS, by_gram, by_root, strict=True):
        weight, bias = closed_form(inputs, values, alpha)
        error = ((their_values.numpy() - others.numpy() @ weight.T - bias) ** 2).sum() / 40
        assert first.item() == pytest.approx(error, rel=1e-8)
        assert second.item() == pytest.approx(error, rel=1e-8)


def test_the_penalty_with_the_least_validation_error_is_taken() -> None:
    (inputs, values), (others, their_values) = some_rows(n=20), some_rows(n=400, seed=5)
    path, validation = RidgePath(statistics_of(inputs, values, 4)), statistics_of(others, their_values, 4)
    best = min(ALPHAS, key=lambda alpha: path.validation_errors(validation, [alpha]).item())
    readout = RidgeReadout.fit(statistics_of(inputs, values, 4), alphas=ALPHAS, validation=validation)
    assert readout.alpha.item() == pytest.approx(best)


def test_the_same_alpha_means_the_same_for_scaled_inputs_and_repeated_text() -> None:
    inputs, tokens = some_tokens()
    readout = RidgeReadout.fit(statistics_of(inputs, tokens, 9), alphas=[0.01], dtype="float64")
    scaled = RidgeReadout.fit(statistics_of(100 * inputs, tokens, 9), alphas=[0.01], dtype="float64")
    repeated = statistics_of(inputs, tokens, 9)
    repeated = RidgeReadout.fit(repeated.merge(repeated), alphas=[0.01], dtype="float64")
    torch.testing.assert_close(scaled.values(100 * inputs), readout.values(inputs), rtol=0, atol=1e-9)
    torch.testing.assert_close(repeated.values(inputs), readout.values(inputs), rtol=0, atol=1e-9)


def test_selected_columns_are_as_if_collected_alone() -> None:
    inputs, tokens = some_tokens()
    selected = statistics_of(inputs, tokens, 9).select(slice(2, 5))
    alone = statistics_of(inputs[:, 2:5], tokens, 9)
    for name, expected in vars(alone).items():
        torch.testing.assert_close(getattr(selected, name), expected)


def test_the_triangular_path_bears_a_condition_that_ruins_the_gram_matrix() -> None:
    scales = torch.logspace(0, -9, 7, dtype=torch.float64)
    inputs, mixing = some_rows(n=200)[0], torch.linalg.qr(some_rows(n=7)[0]).Q
    inputs = (inputs - 3) * scales @ mixing
    truth = mixing.T @ (1 / scales).unsqueeze(1)
    values = inputs @ truth
    weight, _ = SquareRootPath(square_root_of(inputs, values)).solve(1e-25, torch.float64)
    np.testing.assert_allclose(weight.T, truth, rtol=1e-4)
    ruined, _ = RidgePath(statistics_of(inputs, values, 1)).solve(1e-25, torch.float64)
    assert not torch.allclose(ruined.T, truth, rtol=0.1)


def test_a_bad_condition_is_warned_of() -> None:
    inputs, values = some_rows()
    inputs = torch.cat([inputs, inputs], 1)
    with pytest.warns(UserWarning, match="reciprocal condition number is .* take larger alphas"):
        RidgeReadout.fit(statistics_of(inputs, values, 4), alphas=[1e-16])


def test_calibration_gives_probabilities_that_beat_the_frequencies() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = 2 * torch.randn(6, 5, generator=generator)
    tokens = torch.randint(6, (600,), generator=generator)
    inputs = centres[tokens] + torch.randn(600, 5, generator=generator)
    readout = RidgeReadout.fit(statistics_of(inputs[:300], tokens[:300], 6))
    readout.calibrate([(inputs[300:450], tokens[300:450])])
    logits = readout(inputs[450:])
    nats = torch.nn.functional.cross_entropy(logits, tokens[450:])
    assert nats < torch.nn.functional.cross_entropy(readout.frequency.log().expand(150, -1), tokens[450:]) - 0.5
    assert (logits.softmax(-1) > 0).all()
    assert torch.equal(logits.argmax(-1), readout.values(inputs[450:]).argmax(-1))


def test_statistics_come_back_from_a_file(tmp_path: Path) -> None:
    statistics = statistics_of(*some_tokens(), 9)
    statistics.save(tmp_path / "shard.safetensors")
    for name, values in vars(RidgeStatistics.load(tmp_path / "shard.safetensors")).items():
        assert torch.equal(values, getattr(statistics, name))
    (tmp_path / "torn").write_bytes(b"half")
    with pytest.raises(UnavailableError, match="collect them again"):
        RidgeStatistics.load(tmp_path / "torn")


def test_unusable_rows_are_refused_and_change_nothing() -> None:
    inputs, tokens = some_tokens()
    statistics = statistics_of(inputs, tokens, 9)
    broken = inputs.clone()
    broken[3, 2] = torch.nan
    for rows, targets, message in (
        (inputs[:, :6], tokens, r"must be \[n, 7\]"),
        (inputs, tokens[:5], "one for each input"),
        (inputs, tokens + 5, "must lie in 0 to 8"),
        (broken, tokens, "NaN or infinity"),
    ):
        with pytest.raises(InputError, match=message):
            statistics.add(rows, targets)
    assert torch.equal(statistics.gram, statistics_of(inputs, tokens, 9).gram)
    with pytest.raises(InputError, match="must be of the same model"):
        statistics.merge(RidgeStatistics.empty(7, 8))


def test_what_cannot_be_fitted_is_refused() -> None:
    with pytest.raises(InputError, match="needs at least 2"):
        RidgeReadout.fit(RidgeStatistics.empty(3, 4))
    with pytest.raises(InputError, match="do not vary"):
        RidgeReadout.fit(statistics_of(torch.ones(5, 3), torch.arange(5), 5))
    with pytest.raises(InputError, match="must be positive"):
        RidgeReadout.fit(statistics_of(*some_tokens(), 9), alphas=[0.0])
    with pytest.raises(InputError, match="use RidgeStatistics for a vocabulary"):
        SquareRootStatistics(10, 50_000)
    with pytest.raises(InputError, match="must hold at least one piece"):
        RidgeStatistics.collect([], 5)
