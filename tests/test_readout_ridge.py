from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from frugal.errors import InputError, UnavailableError
from frugal.readout import RidgeReadout, SoftmaxReadout
from frugal.readout.ridge import ALPHAS as DEFAULT_ALPHAS
from frugal.ridge import LinearMap, RidgePath, RidgeStatistics

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


def assert_same(some: RidgeStatistics, others: RidgeStatistics) -> None:
    """Whether two have seen the same rows; their origins may differ."""
    for name in ("count", "mean", "target_mean", "covariance", "target_sums"):
        torch.testing.assert_close(getattr(some, name), getattr(others, name), rtol=1e-9, atol=1e-9)
    found, expected = (each.about(others.mean, others.target_mean) for each in (some, others))
    torch.testing.assert_close(found.squares, expected.squares, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.cross(slice(None)), expected.cross(slice(None)), rtol=1e-9, atol=1e-9)


@st.composite
def any_rows(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Inputs of any scale, offset, rank and number type, and values or tokens."""
    n, D = draw(st.integers(3, 60)), draw(st.integers(1, 12))
    kind = draw(
        st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int32, torch.uint8])
    )
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rank = draw(st.integers(1, D))
    X = random.standard_normal((n, rank)) @ random.standard_normal((rank, D)) / np.sqrt(rank)
    if kind in (torch.uint8, torch.float16):
        X = 30 * X + 100
    else:
        one_scale = 10 ** draw(st.floats(-3, 5))
        scales = one_scale if draw(st.booleans()) else 10 ** random.uniform(-3, 5, D)
        X = (X + random.standard_normal(D) * 10 ** draw(st.floats(-1, 5))) * scales
    X = np.clip(X, 0, 255) if kind == torch.uint8 else np.clip(X, -2e9, 2e9)
    inputs = torch.from_numpy(X).to(kind)
    if draw(st.booleans()):
        return inputs, torch.from_numpy(random.integers(0, 3, n).astype(draw(st.sampled_from(["int64", "uint8"]))))
    Y = random.standard_normal((n, 2)) + (X - X.mean(0)) / (1e-9 + X.std()) @ random.standard_normal((D, 2))
    return inputs, torch.from_numpy((Y + draw(st.sampled_from([0, 1e5]))) * 10 ** draw(st.floats(-3, 5)))


@given(
    rows=any_rows(),
    alpha=st.sampled_from(DEFAULT_ALPHAS),
    dtype=st.sampled_from(["float64", "float32"]),
    cuts=st.lists(st.integers(0, 60), max_size=3),
)
@settings(max_examples=200, deadline=None)
def test_predictions_are_those_of_centred_least_squares_at_all_scales_ranks_and_types(
    rows: tuple[Tensor, Tensor], alpha: float, dtype: str, cuts: list[int]
) -> None:
    inputs, targets = rows
    values = targets if targets.is_floating_point() else one_hot(targets.long(), 3)
    statistics = RidgeStatistics.empty(inputs.shape[1], values.shape[1])
    for x, y in zip(inputs.tensor_split(sorted(cuts)), targets.tensor_split(sorted(cuts)), strict=True):
        statistics.add(x, y)
    exact = inputs.double()
    assume((exact.numpy().std(0) > 1e-12 * exact.abs().amax(0).numpy()).any())
    weight, _ = closed_form(exact, values, alpha)
    expected = (exact.numpy() - exact.numpy().mean(0)) @ weight.T + values.numpy().mean(0)
    spread = (
        np.abs(expected - values.numpy().mean(0)).max() + 1e-3 * np.abs(values.numpy() - values.numpy().mean(0)).max()
    )
    readout = RidgeReadout.fit(statistics, alphas=alpha, dtype=dtype)
    rounding = 1e-13
    if dtype == "float32":
        rounding = 1e-6
        spread += float(((exact - exact.mean(0)).abs() @ readout.weight.double().abs().T).max())
    np.testing.assert_allclose(readout.values(inputs), expected, rtol=rounding, atol=1e-6 * spread)
    penalty = alpha * float((exact - exact.mean(0)).square().sum()) / exact.shape[1]
    np.testing.assert_allclose(LinearMap.fit(exact, values, penalty)(exact), expected, rtol=1e-13, atol=1e-6 * spread)


@given(rows=any_rows(), alpha=st.sampled_from([1e-6, 1e-3, 0.1, 10.0]))
@settings(max_examples=60, deadline=None)
def test_scikit_learn_predicts_the_same(rows: tuple[Tensor, Tensor], alpha: float) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed: no peer")
    inputs, targets = rows
    values = targets if targets.is_floating_point() else one_hot(targets.long(), 3)
    exact = inputs.double().numpy()
    assume((exact.std(0) > 1e-12 * np.abs(exact).max(0)).any())
    penalty = alpha * ((exact - exact.mean(0)) ** 2).sum() / exact.shape[1]
    expected = linear_model.Ridge(alpha=penalty, solver="svd").fit(exact, values.numpy()).predict(exact)
    readout = RidgeReadout.fit(statistics_of(inputs, targets, values.shape[1]), alphas=alpha, dtype="float64")
    spread = np.abs(values.numpy() - values.numpy().mean(0)).max()
    np.testing.assert_allclose(readout.values(inputs), expected, rtol=1e-13, atol=1e-6 * spread)


@given(
    n=st.integers(3, 80),
    D=st.integers(1, 40),
    offset=st.sampled_from([0.0, 30.0, 1e5]),
    scale=st.sampled_from([1e-3, 1.0, 1e5]),
    noise=st.sampled_from([0.0, 0.1, 3.0]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=150, deadline=None)
def test_generalised_cross_validation_takes_no_residual_that_is_rounding(
    n: int, D: int, offset: float, scale: float, noise: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    X = scale * (random.standard_normal((n, D)) + offset)
    Y = (X - X.mean(0)) @ random.standard_normal((D, 2)) / scale + noise * random.standard_normal((n, 2)) + offset
    found = RidgePath(statistics_of(torch.from_numpy(X), torch.from_numpy(Y), 2)).generalised_cross_validation(
        DEFAULT_ALPHAS
    )
    left, values, _ = np.linalg.svd(X - X.mean(0), full_matrices=False)
    rank = min(n - 1, D)
    left, values = left[:, :rank], values[:rank]
    centred = Y - Y.mean(0)
    outside = centred - left @ (left.T @ centred) if rank < n - 1 else 0 * centred
    for alpha, score in zip(DEFAULT_ALPHAS, found.tolist(), strict=True):
        kept = alpha * (values**2).sum() / D / (values**2 + alpha * (values**2).sum() / D)
        residual = (outside**2).sum() + ((kept[:, None] * (left.T @ centred)) ** 2).sum()
        freedom = n - 1 - rank + kept.sum()
        # Without noise, what nothing explains is rounding where the rows leave any; the score may not fall below it.
        rounding = 1e-12 * n * (centred**2).sum() * (values[0] / values[-1]) ** 2 if noise == 0 and rank < n - 1 else 0
        assert score == pytest.approx(n * residual / freedom**2, rel=1e-4, abs=n * rounding / freedom**2)
        assert rank == n - 1 or score * freedom**2 / n > 1e-16 * (centred**2).sum()


def test_a_few_rows_far_from_all_the_others_cost_no_digits() -> None:
    inputs, values = some_rows(n=5000)
    inputs[:3] += 1e7  # the first origin; the others vary by 1
    pieces = RidgeStatistics.collect(zip(inputs.split(3), values.split(3), strict=True), 4)
    last = RidgeStatistics.collect(zip(inputs.flip(0).split(70), values.flip(0).split(70), strict=True), 4)
    centred = inputs - inputs.mean(0)
    for statistics in (pieces, last):
        torch.testing.assert_close(statistics.covariance, centred.T @ centred / 5000, rtol=1e-12, atol=0)
        cross = statistics.about(statistics.mean, statistics.target_mean).cross(slice(None))
        torch.testing.assert_close(cross, values.T @ centred, rtol=1e-7, atol=0)


def test_no_row_is_changed_and_no_graph_kept() -> None:
    inputs, values = some_rows()
    inputs.requires_grad_()
    before = inputs.detach().clone(), values.clone()
    statistics = statistics_of(inputs, values, 4)
    statistics.add(inputs, values)
    assert torch.equal(inputs, before[0])
    assert torch.equal(values, before[1])
    assert not any(tensor.requires_grad for tensor in vars(statistics).values())
    assert not RidgeReadout.fit(statistics).weight.requires_grad


def test_penalties_may_be_an_array_or_one_number() -> None:
    statistics = statistics_of(*some_tokens(), 9)
    for alphas in (np.logspace(-3, 1, 5), torch.logspace(-3, 1, 5), 1e-3):
        assert RidgeReadout.fit(statistics, alphas=alphas).alpha > 9e-4


def test_of_penalties_with_equal_scores_the_larger_is_taken() -> None:
    inputs, _ = some_rows()
    constant = torch.ones(90, 1, dtype=torch.float64)  # every penalty fits it exactly
    assert RidgeReadout.fit(statistics_of(inputs, constant, 1), alphas=ALPHAS).alpha == 3


@pytest.mark.parametrize("alpha", ALPHAS)
def test_each_penalty_of_one_eigendecomposition_is_the_direct_solution(alpha: float) -> None:
    inputs, values = some_rows()
    weight, _ = closed_form(inputs, values, alpha)
    given = RidgePath(statistics_of(inputs, values, 4)).solve(alpha, torch.float64)
    np.testing.assert_allclose(given, weight, rtol=0, atol=1e-8)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_tokens_give_what_their_unit_vectors_give(alpha: float) -> None:
    inputs, tokens = some_tokens()
    weight, _ = closed_form(inputs, one_hot(tokens, 9), alpha)
    given = RidgePath(statistics_of(inputs, tokens, 9)).solve(alpha, torch.float64)
    np.testing.assert_allclose(given, weight, rtol=0, atol=1e-8)
    assert (given[-2:] == 0).all()  # they never occurred


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
    assert_same(pieces, whole)
    assert_same(merged, whole)


def test_float32_states_lose_nothing_that_matters() -> None:
    inputs, tokens = some_tokens(n=400)
    exact = RidgePath(statistics_of(inputs, tokens, 9)).solve(1e-3, torch.float64)
    rounded = RidgePath(statistics_of(inputs.float(), tokens, 9)).solve(1e-3, torch.float64)
    torch.testing.assert_close(rounded, exact, rtol=0, atol=1e-5)


def test_generalised_cross_validation_is_its_formula() -> None:
    inputs, values = some_rows()
    path = RidgePath(statistics_of(inputs, values, 4))
    for alpha, score in zip(ALPHAS, path.generalised_cross_validation(ALPHAS), strict=True):
        residual, freedom = residual_and_freedom(inputs, values, alpha)
        assert score.item() == pytest.approx(90 * residual / (90 - freedom) ** 2, rel=1e-8)


def test_validation_errors_come_out_of_statistics_alone() -> None:
    (inputs, values), (others, their_values) = some_rows(), some_rows(n=40, seed=5)
    path = RidgePath(statistics_of(inputs, values, 4))
    errors = path.validation_errors(statistics_of(others, their_values, 4), ALPHAS)
    for alpha, found in zip(ALPHAS, errors, strict=True):
        weight, bias = closed_form(inputs, values, alpha)
        error = ((their_values.numpy() - others.numpy() @ weight.T - bias) ** 2).sum() / 40
        assert found.item() == pytest.approx(error, rel=1e-8)


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
    whole = statistics_of(inputs, tokens, 9)
    selected = whole.select(slice(2, 5))
    alone = statistics_of(inputs[:, 2:5], tokens, 9)
    assert_same(selected, alone)
    selected.add(inputs[:, 2:5], tokens)
    assert_same(whole, statistics_of(inputs, tokens, 9))


@pytest.mark.parametrize(
    "columns",
    [
        [4, 0, 2],
        (5, 5),
        np.array([6, -1, 0], dtype=np.int32),
        torch.tensor([3, 1]),
        torch.arange(7) % 3 == 0,
        [True, False, False, True, False, True, False],
        range(1, 6, 2),
        slice(None, None, -2),
        slice(5, 1, -1),
        3,
        np.int64(-2),
    ],
    ids=repr,
)
@pytest.mark.parametrize("tokens", [True, False])
def test_columns_selected_in_any_way_are_as_if_collected_alone(columns: Any, tokens: bool) -> None:
    (inputs, targets), K = (some_tokens(), 9) if tokens else (some_rows(), 4)
    table = inputs.numpy()
    chosen = table[:, columns if isinstance(columns, slice) else np.atleast_1d(np.asarray(columns))]
    selected = statistics_of(inputs, targets, K).select(columns)
    assert_same(selected, statistics_of(torch.from_numpy(chosen.copy()), targets, K))


@pytest.mark.parametrize("columns", [[], slice(7, 9), 7, [0.5], "ab", None, [[0], [1]], [True, False], True, ...])
def test_what_selects_no_columns_is_refused(columns: Any) -> None:
    with pytest.raises(InputError, match="columns"):
        statistics_of(*some_tokens(), 9).select(columns)


def test_rows_in_memory_bear_a_condition_that_ruins_the_gram_matrix() -> None:
    scales = torch.logspace(0, -9, 7, dtype=torch.float64)
    inputs, mixing = some_rows(n=200)[0], torch.linalg.qr(some_rows(n=7)[0]).Q
    inputs = (inputs - 3) * scales @ mixing
    truth = mixing.T @ (1 / scales).unsqueeze(1)
    values = inputs @ truth
    np.testing.assert_allclose(LinearMap.fit(inputs, values, ridge=1e-25).weights, truth, rtol=1e-4)
    ruined = RidgePath(statistics_of(inputs, values, 1)).solve(1e-25, torch.float64)
    assert not torch.allclose(ruined.T, truth, rtol=0.1)


@pytest.mark.parametrize("ridge", [0.0, 1e-6, 3.0])
@pytest.mark.parametrize("n", [4, 90])
def test_rows_in_memory_give_the_least_squares_solution(ridge: float, n: int) -> None:
    inputs, values = some_rows(n)
    fitted = LinearMap.fit(inputs.float(), values, ridge)
    X, Y = inputs.float().double().numpy(), values.numpy()
    rows = np.vstack([X - X.mean(0), np.sqrt(ridge) * np.eye(7)])
    weights = np.linalg.lstsq(rows, np.vstack([Y - Y.mean(0), np.zeros((7, 4))]), rcond=None)[0]
    np.testing.assert_allclose(fitted(inputs.float()), (X - X.mean(0)) @ weights + Y.mean(0), rtol=0, atol=1e-7)


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("offset", [0.1, 1e5 / 3, 1e9])
def test_rows_in_memory_are_not_fitted_on_the_rounding_of_their_offset(rank: int, offset: float) -> None:
    random = torch.Generator().manual_seed(0)
    inside = torch.randn(77, rank, generator=random).double() @ torch.randn(rank, 6, generator=random).double()
    values = torch.randn(77, 1, generator=random).double()
    weights = LinearMap.fit(offset + inside, values, ridge=0.0).weights
    expected = np.linalg.lstsq(inside - inside.mean(0), values - values.mean(0), rcond=1e-6)[0]
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-15 * offset + 1e-12)


@given(
    n=st.integers(12, 60),
    scales=st.lists(st.sampled_from([1e-170, 1e-100, 1e-6, 1e-3, 1.0, 3e7]), min_size=2, max_size=6),
    offsets=st.lists(st.sampled_from([0.0, 1.0, 1e3]), min_size=6, max_size=6),
    constant=st.sampled_from([None, 0.1, 1.7e9]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_without_a_penalty_rows_in_memory_are_fitted_alike_in_any_units(
    n: int, scales: list[float], offsets: list[float], constant: float | None, seed: int
) -> None:
    random = np.random.default_rng(seed)
    plain = random.standard_normal((n, len(scales)))
    values = plain @ random.standard_normal((len(scales), 2)) + 3
    inputs = (plain + offsets[: len(scales)]) * scales
    if constant is not None:
        inputs = np.column_stack([inputs, np.full(n, constant)])
    found = LinearMap.fit(inputs, values, ridge=0.0)
    np.testing.assert_allclose(found(inputs), values, rtol=0, atol=1e-9)
    twice = LinearMap.fit(np.column_stack([plain, plain]) * 1e-170, values, ridge=0.0)  # many solutions
    np.testing.assert_allclose(twice(np.column_stack([plain, plain]) * 1e-170), values, rtol=0, atol=1e-9)


@pytest.mark.parametrize("ridge", [0.0, 1e-14, 1e-9])
def test_a_small_input_counts_beside_one_far_from_zero(ridge: float) -> None:
    random = np.random.default_rng(0)
    seconds, moved = 1.7e9 + np.arange(300.0), 1e-6 * random.standard_normal(300)
    values = (1e6 * moved - 1)[:, None]
    found = LinearMap.fit(np.column_stack([seconds, moved]), values, ridge)
    units = np.array([100.0, 1e-6])  # in which least squares lose nothing
    scaled = np.column_stack([seconds - seconds.mean(), moved - moved.mean()]) / units
    rows = np.vstack([scaled, np.diag(np.sqrt(ridge) / units)])
    weights = np.linalg.lstsq(rows, np.vstack([values - values.mean(), np.zeros((2, 1))]), rcond=None)[0]
    np.testing.assert_allclose(found.weights[1], weights[1] / units[1], rtol=1e-5)
    predicted = found(np.column_stack([seconds, moved]))
    np.testing.assert_allclose(predicted, values.mean() + scaled @ weights, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "targets", "ridge", "message"),
    [
        (torch.ones(3, 2), torch.ones(4, 1), 0.0, "must be"),
        (torch.ones(0, 2), torch.ones(0, 1), 0.0, "n > 0"),
        (torch.ones(3, 2), torch.ones(3, 1), -1.0, "must not be negative"),
        (torch.ones(3, 2), torch.full((3, 1), torch.nan), 0.0, "targets: hold NaN"),
        (torch.full((3, 2), torch.inf), torch.ones(3, 1), 0.0, "inputs: hold NaN, infinity"),
        (torch.eye(3).double() * 1e155, torch.ones(3, 1), 0.0, "inputs: hold .*too large to square"),
        (torch.eye(3), torch.eye(3).double() * 1e155, 0.0, "targets: hold .*too large to square"),
    ],
)
def test_rows_in_memory_that_cannot_be_fitted_are_refused(
    inputs: Tensor, targets: Tensor, ridge: float, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        LinearMap.fit(inputs, targets, ridge)


def test_a_constant_series_goes_on_as_it_is() -> None:
    states, series = torch.full((50, 3), 0.1) / 3, torch.full((50, 1), 0.7)
    for ridge in (0.0, 1e-9):
        torch.testing.assert_close(LinearMap.fit(states, series, ridge)(states), series.double(), rtol=1e-12, atol=0)


def test_a_bad_condition_is_warned_of() -> None:
    inputs, values = some_rows()
    inputs = torch.cat([inputs, inputs], 1)
    with pytest.warns(UserWarning, match="reciprocal condition number is .* take larger alphas"):
        RidgeReadout.fit(statistics_of(inputs, values, 4), alphas=[1e-16])


def test_a_penalty_lost_in_rounding_gives_the_solution_of_least_norm() -> None:
    inputs = torch.tensor([-2.0, -1.0, 1.0, 2.0], dtype=torch.float64)[:, None]
    with pytest.warns(UserWarning, match="reciprocal condition number"):
        readout = RidgeReadout.fit(statistics_of(inputs.expand(4, 2), 3 * inputs + 1, 1), alphas=[1e-20])
    torch.testing.assert_close(readout.weight.double(), torch.full((1, 2), 1.5, dtype=torch.float64))


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
    before = readout.floor.item(), readout.power.item()
    for rows in ([], [(torch.full((1, 5), torch.nan), tokens[:1])]):
        with pytest.raises(InputError, match="needs at least one, and no NaN"):
            readout.calibrate(rows)
    for wrong in (torch.full((5,), -100), torch.full((5,), 9999), torch.rand(5), torch.zeros(3, dtype=torch.int64)):
        with pytest.raises(InputError, match="token"):
            readout.calibrate([(inputs[:5], wrong)])
    assert (readout.floor.item(), readout.power.item()) == before


def test_statistics_come_back_from_a_file(tmp_path: Path) -> None:
    statistics = statistics_of(*some_tokens(), 9)
    statistics.save(tmp_path / "shard.safetensors")
    for name, values in vars(RidgeStatistics.load(tmp_path / "shard.safetensors")).items():
        assert torch.equal(values, getattr(statistics, name))
    (tmp_path / "torn").write_bytes(b"half")
    save_file({**vars(statistics), "gram": statistics.gram[:3]}, tmp_path / "cut")
    for damaged in ("torn", "cut", "missing"):
        with pytest.raises(UnavailableError, match="collect them again"):
            RidgeStatistics.load(tmp_path / damaged)


@pytest.mark.parametrize("tokens", [True, False])
def test_files_of_sums_about_zero_can_be_read_and_added_to(tmp_path: Path, tokens: bool) -> None:
    inputs, targets = some_tokens() if tokens else some_rows()
    values = one_hot(targets, 9) if tokens else targets
    old = {
        "count": torch.tensor(90.0, dtype=torch.float64),
        "inputs": inputs.sum(0),
        "gram": inputs.T @ inputs,
        "cross": values.T @ inputs,
        "targets": values.sum(0),
        "squares": values.square().sum(),
    }
    save_file(old, tmp_path / "old")
    read = RidgeStatistics.load(tmp_path / "old")
    assert_same(read, statistics_of(inputs, targets, values.shape[1]))
    read.add(inputs, targets)
    assert_same(read, statistics_of(inputs.repeat(2, 1), torch.cat([targets, targets]), values.shape[1]))


def test_unusable_rows_are_refused_and_change_nothing() -> None:
    inputs, tokens = some_tokens()
    statistics = statistics_of(inputs, tokens, 9)
    broken = inputs.clone()
    broken[3, 2] = torch.nan
    for rows, targets, message in (
        (inputs[:, :6], tokens, r"must be \[n, 7\]"),
        (inputs, tokens[:5], "one for each input"),
        (inputs, tokens + 5, "must lie in 0 to 8"),
        (broken, tokens, "NaN, infinity"),
        (1e80 * inputs, tokens, "too large"),
        (inputs, torch.full((90, 9), torch.inf), "targets: hold NaN, infinity"),
        (inputs, None, "must have targets"),
    ):
        with pytest.raises(InputError, match=message):
            statistics.add(rows, targets)
    for name, values in vars(statistics_of(inputs, tokens, 9)).items():
        assert torch.equal(getattr(statistics, name), values)
    with pytest.raises(InputError, match="must be of the same model"):
        statistics.merge(RidgeStatistics.empty(7, 8))


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("offset", [0.0, 5.0, -1e4])
def test_a_readout_of_values_gives_values(outputs: int, offset: float) -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(60, 5, generator=random, dtype=torch.float64)
    y = x @ torch.randn(5, outputs, generator=random, dtype=torch.float64) + offset
    statistics = statistics_of(x, y, outputs)
    readout = RidgeReadout.fit(statistics, alphas=1e-9, dtype="float64")
    assert not statistics.of_tokens
    torch.testing.assert_close(readout(x), y, rtol=1e-6, atol=1e-6)
    again = RidgeReadout(**readout.settings())
    again.load_state_dict(readout.state_dict())
    assert torch.equal(again(x), readout(x))
    parts = readout.state_dict()
    old = {name: parts[name] for name in parts if name != "mean"}  # of an earlier version: the mean was in the bias
    again.load_state_dict(old | {"bias": parts["bias"] - parts["weight"] @ parts["mean"]})
    torch.testing.assert_close(again(x), y, rtol=1e-6, atol=1e-6)
    with pytest.raises(InputError, match="was fitted to values"):
        readout.calibrate([(x, torch.zeros(60, dtype=torch.int64))])
    with pytest.raises(InputError, match="was fitted to values"):
        SoftmaxReadout(5, outputs).start_from(readout)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(2, 6), st.integers(0, 1000))
def test_tokens_are_told_from_values(n: int, outputs: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    x, tokens = torch.randn(n, 3, generator=random), torch.randint(outputs, (n,), generator=random)
    values = torch.randn(n, outputs, generator=random)
    assert statistics_of(x, tokens, outputs).of_tokens
    assert statistics_of(x, one_hot(tokens, outputs).float(), outputs).of_tokens
    assert not statistics_of(x, values, outputs).of_tokens
    assert not statistics_of(x, (values - values.mean(0)) / values.square().mean().sqrt(), outputs).of_tokens
    bits = torch.cat([torch.zeros(1, outputs), torch.eye(2, outputs).sum(0, keepdim=True)])  # as many ones as rows
    assert not statistics_of(torch.randn(2, 3), bits, outputs).of_tokens
    assert not statistics_of(x, torch.ones(n, 1), 1).of_tokens
    assert not RidgeStatistics.empty(3, outputs).of_tokens


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 6), st.integers(0, 1000))
def test_values_are_not_added_to_tokens_nor_tokens_to_values(n: int, m: int, outputs: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    x, more = torch.randn(n, 3, generator=random), torch.randn(m, 3, generator=random)
    tokens = torch.randint(outputs, (n,), generator=random)
    values = torch.randn(m, outputs, generator=random)
    of_tokens, of_values = statistics_of(x, tokens, outputs), statistics_of(more, values, outputs)
    refused: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
        (of_tokens.add, (more, values)),
        (of_values.add, (x, tokens)),
        (of_tokens.merge, (of_values,)),
        (of_values.merge, (of_tokens,)),
    ]
    for take, rows in refused:
        with pytest.raises(InputError, match=r"tokens.*values|values.*tokens"):
            take(*rows)
    assert_same(of_tokens, statistics_of(x, tokens, outputs))
    assert_same(of_values, statistics_of(more, values, outputs))
    first = statistics_of(more[:1], torch.eye(outputs)[:1], outputs)  # these values might be tokens' unit vectors
    first.add(more[:1], values[:1])
    assert_same(first, statistics_of(more[[0, 0]], torch.stack([torch.eye(outputs)[0], values[0]]), outputs))


def test_rows_added_to_its_statistics_are_not_mixed_into_a_path() -> None:
    inputs, values = some_rows()
    statistics = statistics_of(inputs, values, 4)
    path = RidgePath(statistics)
    before = path.solve(1e-3, torch.float64)
    statistics.add(2 * inputs, values)
    for use in (
        lambda: path.solve(1e-3, torch.float64),
        lambda: path.generalised_cross_validation(ALPHAS),
        lambda: path.validation_errors(statistics, ALPHAS),
    ):
        with pytest.raises(InputError, match="rows were added after this RidgePath was made"):
            use()
    assert torch.equal(RidgePath(statistics_of(inputs, values, 4)).solve(1e-3, torch.float64), before)


@pytest.mark.parametrize("rows", [some_tokens(n=2), some_tokens(), None, 3, [some_rows()[0]], [(1, 2, 3)]], ids=str)
def test_what_are_no_pairs_of_rows_are_refused(rows: Any) -> None:
    readout = RidgeReadout.fit(statistics_of(*some_tokens(), 9))
    for take in (lambda: RidgeStatistics.collect(rows, 9), lambda: readout.calibrate(rows)):
        with pytest.raises(InputError, match=r"rows: must be a list of pairs \(inputs, targets\)"):
            take()


def test_a_path_takes_statistics_a_penalty_and_a_type() -> None:
    statistics = statistics_of(*some_tokens(), 9)
    for rows in (None, some_tokens(), some_tokens()[0]):
        with pytest.raises(InputError, match=r"statistics of type .*: must be RidgeStatistics"):
            RidgeReadout.fit(rows)  # type: ignore[arg-type]
        if rows is not None:
            with pytest.raises(InputError, match=r"validation of type .*: must be RidgeStatistics"):
                RidgeReadout.fit(statistics, validation=rows)  # type: ignore[arg-type]
    path = RidgePath(statistics)
    for alpha in (-1.0, np.inf):
        for use in (lambda alpha: path.solve(alpha, torch.float64), path.condition):
            with pytest.raises(InputError, match=f"alpha={alpha}: must not be negative"):
                use(alpha)
    for dtype in ("float64", None, np.float64, torch.int64):
        with pytest.raises(InputError, match=r"dtype=.*: must be a floating-point type"):
            path.solve(1.0, dtype)


def test_what_cannot_be_fitted_is_refused() -> None:
    with pytest.raises(InputError, match="needs at least 2"):
        RidgeReadout.fit(RidgeStatistics.empty(3, 4))
    for constant in (1.0, 0.1, 1e5 / 3):
        inputs = torch.full((5, 3), constant, dtype=torch.float64)
        with pytest.raises(InputError, match="do not vary"):
            RidgeReadout.fit(statistics_of(inputs, torch.arange(5), 5))
    for alphas in ([0.0], [], [-1.0, 1.0], torch.tensor([torch.nan]), torch.inf):
        with pytest.raises(InputError, match="must be positive"):
            RidgeReadout.fit(statistics_of(*some_tokens(), 9), alphas=alphas)
    for no_number in ("small", [None], 1j):
        with pytest.raises(InputError, match=r"alphas.* must (hold numbers|be real)"):
            RidgeReadout.fit(statistics_of(*some_tokens(), 9), alphas=no_number)  # type: ignore[arg-type]
    for dtype in ("half", torch.float64, None, ["float32"]):
        with pytest.raises(InputError, match=r"dtype=.*: must be 'float32' or 'float64'"):
            RidgeReadout.fit(statistics_of(*some_tokens(), 9), dtype=dtype)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="without targets"):
        RidgeReadout.fit(RidgeStatistics.of_inputs([some_tokens()[0]]))
    with pytest.raises(InputError, match="of as many inputs and outputs"):
        RidgeReadout.fit(statistics_of(*some_tokens(), 9), validation=RidgeStatistics.empty(7, 9))
    with pytest.raises(InputError, match="must hold at least one piece"):
        RidgeStatistics.collect([], 5)


def test_of_no_inputs_the_mean_is_left() -> None:
    _, targets = some_rows()
    fitted = LinearMap.fit(torch.zeros(len(targets), 0), targets, 0.0)
    torch.testing.assert_close(fitted(torch.zeros(2, 0)), targets.mean(0).expand(2, -1))
