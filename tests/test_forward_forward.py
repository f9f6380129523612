"""Layers that learn one by one: their gradients, their goodness, the classifiers made of them."""

import gzip
import math
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy, softplus

from frugal.errors import DivergedError, InputError, UnavailableError
from frugal.forward_forward import (
    ALPHABET,
    BackpropClassifier,
    ForwardForwardClassifier,
    ForwardForwardNet,
    Goodness,
    ImagePlan,
    RecurrentForwardForward,
    SequenceExperiment,
    UnsupervisedForwardForward,
    alphabet_of,
    clean_alphabet,
    load_images,
    mask_hybrids,
    read_mnist,
    stratified_split,
)
from frugal.forward_forward.classifier import ImageClassifier
from frugal.forward_forward.net import scaled, uniform_wrong, wrong_candidates

MNIST = Path(__file__).parents[2] / "shared" / "data" / "mnist-t10k"


def small_net(**settings: object) -> ForwardForwardNet:
    net = ForwardForwardNet(7, (9, 8, 6), 5, **settings)  # type: ignore[arg-type]
    for bias in net.biases:
        torch.nn.init.normal_(bias, std=0.1)
    return net


def some_pairs(n: int = 12, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    right = torch.randint(5, (n,), generator=random)
    return torch.randn(n, 7, generator=random), right, uniform_wrong(5, right, random)


def layer_gradients(net: ForwardForwardNet, place: int) -> list[Tensor]:
    found = [net.weights[place].grad, net.biases[place].grad]
    if place == 0 and net.candidates is not None:
        found.append(net.candidates.grad)
    return [gradient.clone() for gradient in found if gradient is not None]


def expected_losses(net: ForwardForwardNet, real: list[Tensor], other: list[Tensor]) -> list[Tensor]:
    """Each layer's loss, its inputs cut off from the layers below."""
    losses = []
    pairs = zip(real, other, strict=True)
    for positive, negative in pairs:
        up, down = net.goodness.logits(positive), net.goodness.logits(negative)
        losses.append((softplus(-up).sum() + softplus(down).sum()) / (2 * len(up)))
    return losses


def cut_activities(net: ForwardForwardNet, sums: Tensor) -> list[Tensor]:
    found = [sums.relu()]
    for weight, bias in zip(net.weights[1:], net.biases[1:], strict=True):
        found.append((scaled(found[-1].detach()) @ weight.T + bias).relu())
    return found


@pytest.mark.parametrize("kind", ["mean", "sum"])
def test_gradients_are_those_of_automatic_differentiation_within_each_layer(kind: str) -> None:
    net = small_net(goodness=Goodness(kind, 0.7, 1.5))  # type: ignore[arg-type]
    contexts, right, wrong = some_pairs()
    losses = net.set_gradients(contexts, right, wrong)
    given = [layer_gradients(net, place) for place in range(3)]
    net.zero_grad()
    sums = net.context_part(contexts)
    expected = expected_losses(
        net, cut_activities(net, sums + net.candidates[right]), cut_activities(net, sums + net.candidates[wrong])
    )
    torch.testing.assert_close(losses, torch.stack(expected).detach())
    torch.stack(expected).sum().backward()
    for place in range(3):
        for ours, theirs in zip(given[place], layer_gradients(net, place), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_other_contexts_have_their_own_part_in_the_gradient() -> None:
    net = small_net(candidates=False)
    contexts, others = some_pairs()[0], some_pairs(seed=1)[0]
    net.set_gradients(contexts, None, None, others)
    given = [layer_gradients(net, place) for place in range(3)]
    net.zero_grad()
    real, other = (cut_activities(net, net.context_part(half)) for half in (contexts, others))
    torch.stack(expected_losses(net, real, other)).sum().backward()
    for place in range(3):
        for ours, theirs in zip(given[place], layer_gradients(net, place), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("peer", [0.0, 0.03])
def test_no_gradient_crosses_a_layer(peer: float) -> None:
    """Whatever the layers above and the head are, a layer's gradient is the same."""
    pairs = some_pairs()
    net, changed = small_net(peer=peer), small_net(peer=peer)
    changed.load_state_dict(net.state_dict())
    with torch.no_grad():
        changed.weights[1].mul_(-3)
        changed.biases[2].add_(1)
        changed.head.weight.fill_(2)
    for model in (net, changed):
        model.set_head_gradient(pairs[0], pairs[1])
        model.set_gradients(*pairs)
    for ours, theirs in zip(layer_gradients(net, 0), layer_gradients(changed, 0), strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(net.weights[1].grad, changed.weights[1].grad)  # type: ignore[arg-type]


def test_training_without_the_upper_layers_leaves_the_lowest_as_it_is_with_them() -> None:
    """The same through a whole training: order, noise and negatives do not depend on the layers above."""
    random = torch.Generator().manual_seed(0)
    images, labels = torch.rand(40, 6, generator=random), torch.arange(40) % 4
    plan = ImagePlan(epochs=3, batch_size=8)
    deep = ForwardForwardClassifier(6, 4, (10, 7), negatives="uniform", plan=plan).fit(images, labels)
    other = ForwardForwardClassifier(6, 4, (10, 7), negatives="uniform", plan=plan)
    torch.nn.init.constant_(other.net.weights[1], 0.3)
    other.fit(images, labels)
    assert torch.equal(deep.net.weights[0], other.net.weights[0])
    assert torch.equal(deep.net.candidates, other.net.candidates)  # type: ignore[arg-type]
    assert not torch.equal(deep.net.weights[1], other.net.weights[1])


def test_the_head_has_the_gradient_of_its_cross_entropy_and_gives_none_to_the_layers() -> None:
    net = small_net()
    torch.nn.init.normal_(net.head.weight)
    contexts, classes, _ = some_pairs()
    offset = torch.randn(len(classes), 5, generator=torch.Generator().manual_seed(2))
    net.set_head_gradient(contexts, classes, offset)
    assert all(parameter.grad is None for parameter in net.layers)
    given = net.head.weight.grad.clone(), net.head.bias.grad.clone()  # type: ignore[union-attr]
    net.zero_grad()
    cross_entropy(net.head(net.representation(contexts)) + offset, classes).backward()
    torch.testing.assert_close(given, (net.head.weight.grad, net.head.bias.grad))


def test_peer_normalisation_pushes_the_quiet_units_up_and_the_loud_ones_down() -> None:
    with_peers, without = small_net(peer=1.0), small_net()
    without.load_state_dict(with_peers.state_dict())
    for net in (with_peers, without):
        net.set_gradients(*some_pairs())
    push = with_peers.biases[0].grad - without.biases[0].grad  # type: ignore[operator]
    mean = with_peers.spread.split(with_peers.hidden)[0]
    torch.testing.assert_close(push, 2 / 9 * 0.1 * (mean - mean.mean()), rtol=1e-3, atol=1e-6)


def test_all_candidates_at_once_are_the_candidates_one_by_one() -> None:
    net, (contexts, _, _) = small_net(), some_pairs()
    whole = net.candidate_logits(contexts)
    torch.testing.assert_close(whole, net.candidate_logits(contexts, at_once=100))
    for candidate in range(5):
        one = net.pair_logits(contexts, torch.full((len(contexts),), candidate))
        torch.testing.assert_close(whole[:, :, candidate], one[net.read])


@given(st.floats(0.01, 100), st.integers(0, 5))
@settings(max_examples=20)
def test_the_length_of_a_context_plays_no_part(factor: float, seed: int) -> None:
    net, (contexts, _, _) = small_net(), some_pairs(seed=seed)
    torch.testing.assert_close(
        net.candidate_logits(factor * contexts), net.candidate_logits(contexts), rtol=1e-3, atol=1e-3
    )


def test_the_sum_of_squares_is_their_mean_with_a_sharpness_times_the_width() -> None:
    activities = torch.rand(4, 20)
    torch.testing.assert_close(Goodness("sum", 2, 1).logits(activities), Goodness("mean", 2, 20).logits(activities))


def test_wrong_candidates_are_wrong_and_as_likely_as_said() -> None:
    random = torch.Generator().manual_seed(0)
    right = torch.arange(5).repeat(2000)
    assert (uniform_wrong(5, right, random) != right).all()
    probabilities = torch.tensor([0.5, 0.3, 0.2, 0, 0]).expand(len(right), 5)
    wrong = wrong_candidates(probabilities, right, random)
    assert (wrong != right).all()
    after_three = wrong[right == 3].bincount(minlength=5) / 2000
    torch.testing.assert_close(after_three, torch.tensor([0.5, 0.3, 0.2, 0, 0]), rtol=0, atol=0.05)
    assert (wrong_candidates(torch.eye(5)[right], right, random) != right).all()  # nothing else was thought possible


@pytest.fixture(scope="module")
def stripes() -> tuple[Tensor, Tensor]:
    """Images of 6 x 6 pixels with one bright row, which is the label."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(240) % 6
    images = 0.3 * torch.rand(240, 6, 6, generator=random)
    images[torch.arange(240), labels] += 0.6
    return images.flatten(1), labels


@pytest.mark.parametrize("negatives", ["uniform", "hard"])
def test_a_classifier_learns(stripes: tuple[Tensor, Tensor], negatives: str) -> None:
    images, labels = stripes
    plan, losses = ImagePlan(epochs=25, batch_size=24), []
    model = ForwardForwardClassifier(36, 6, (60, 40), negatives=negatives, plan=plan)  # type: ignore[arg-type]
    model.fit(images[:180], labels[:180], lambda score: losses.append(score.layers))
    assert model.error(images[180:], labels[180:]) <= 0.05
    model.read_by = "softmax"
    assert model.error(images[180:], labels[180:]) <= 0.05
    assert len(losses) == 25
    assert all(last < first for first, last in zip(losses[0], losses[-1], strict=True))


def test_layers_that_never_saw_a_label_serve_a_linear_read_out(stripes: tuple[Tensor, Tensor]) -> None:
    images, labels = stripes
    model = UnsupervisedForwardForward((6, 6), 6, (60, 40), plan=ImagePlan(epochs=25, batch_size=24))
    model.fit(images[:180], labels[:180])
    assert model.error(images[180:], labels[180:]) <= 0.1
    other = UnsupervisedForwardForward((6, 6), 6, (60, 40), plan=ImagePlan(epochs=25, batch_size=24))
    other.fit(images[:180], labels[:180].flip(0))
    assert torch.equal(model.net.weights[1], other.net.weights[1])


def test_a_recurrent_net_with_feedback_learns(stripes: tuple[Tensor, Tensor]) -> None:
    images, labels = stripes
    model = RecurrentForwardForward(36, 6, (40, 40), plan=ImagePlan(epochs=12, batch_size=24))
    model.fit(images[:180], labels[:180])
    assert model.error(images[180:], labels[180:]) <= 0.1


def test_the_same_seed_gives_the_same_classifier(stripes: tuple[Tensor, Tensor]) -> None:
    first, second = (ForwardForwardClassifier(36, 6, (20,), plan=ImagePlan(epochs=2)).fit(*stripes).net for _ in "ab")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_hybrids_take_large_patches_of_both_images() -> None:
    random = torch.Generator().manual_seed(0)
    hybrids = mask_hybrids(torch.ones(200, 64), torch.zeros(200, 64), (8, 8), random).view(200, 8, 8)
    assert set(hybrids.unique().tolist()) == {0.0, 1.0}
    assert 0.4 < hybrids.mean() < 0.6
    assert (hybrids[:, 1:] == hybrids[:, :-1]).float().mean() > 0.7  # neighbours are mostly of one image


@given(st.integers(1, 59), st.integers(0, 3))
def test_a_stratified_split_keeps_the_shares(test_size: int, seed: int) -> None:
    labels = torch.tensor([0] * 30 + [1] * 20 + [2] * 10)
    train, test = stratified_split(labels, test_size, seed)
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(60))
    assert len(test) == test_size
    for label, count in ((0, 30), (1, 20), (2, 10)):
        assert abs(int((labels[test] == label).sum()) - count * test_size / 60) <= 1


def write_idx(path: Path, values: list[int], sizes: tuple[int, ...]) -> Path:
    content = bytes([0, 0, 8, len(sizes)]) + struct.pack(f">{len(sizes)}I", *sizes) + bytes(values)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_mnist_files_are_read(tmp_path: Path, ending: str) -> None:
    images = write_idx(tmp_path / f"images{ending}", [0, 51, 102, 255, 0, 0, 0, 255], (2, 2, 2))
    labels = write_idx(tmp_path / f"labels{ending}", [7, 3], (2,))
    pixels, classes = read_mnist(images, labels)
    torch.testing.assert_close(pixels, torch.tensor([[0, 0.2, 0.4, 1], [0, 0, 0, 1]]))
    assert classes.tolist() == [7, 3]


def test_unusable_mnist_files_are_refused(tmp_path: Path) -> None:
    images = write_idx(tmp_path / "images", [1, 2, 3, 4], (1, 2, 2))
    labels = write_idx(tmp_path / "labels", [1, 2], (2,))
    with pytest.raises(InputError, match=r"holds 1 images, .* 2 labels"):
        read_mnist(images, labels)
    with pytest.raises(InputError, match="no IDX file of bytes in 3 dimensions"):
        read_mnist(labels, labels)
    with pytest.raises(InputError, match="there is no such file"):
        read_mnist(tmp_path / "nothing", labels)
    whole = images.read_bytes()
    for content, reason in (
        (whole[:-1], "ends too early"),
        (whole + b"x", "is too long"),
        (whole[:4] + struct.pack(">3I", 2**31, 2**31, 4), "ends too early"),  # their product is 0 in 64 bits
        (gzip.compress(whole)[:-9], "cannot be read"),
    ):
        images.write_bytes(content)
        with pytest.raises(UnavailableError, match=f"{reason}.*: get a complete copy"):
            read_mnist(images, labels)


@pytest.mark.parametrize("sizes", [(0, 28, 28), (2, 0, 28)])
def test_files_without_a_pixel_are_refused(sizes: tuple[int, ...], tmp_path: Path) -> None:
    images = write_idx(tmp_path / "images", [], sizes)
    labels = write_idx(tmp_path / "labels", [0] * sizes[0], sizes[:1])
    with pytest.raises(InputError, match=f"holds {sizes[0]} images of {sizes[1]} x 28 pixels: none to use"):
        read_mnist(images, labels)


def test_a_changed_byte_of_a_compressed_file_is_said_wherever_it_is(tmp_path: Path) -> None:
    values = torch.randint(256, (400,), generator=torch.Generator().manual_seed(0)).tolist()
    images = write_idx(tmp_path / "images.gz", values, (4, 10, 10))
    labels = write_idx(tmp_path / "labels", [0, 1, 2, 3], (4,))
    whole = images.read_bytes()
    assert len(read_mnist(str(images), str(labels))[0]) == 4
    for place in range(10, len(whole), 3):
        images.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with pytest.raises(UnavailableError, match="get a complete copy"):
            read_mnist(images, labels)


@pytest.mark.skipif(not MNIST.is_dir(), reason="MNIST's files are not here")
def test_real_mnist_files_are_read() -> None:
    images, labels = read_mnist(MNIST / "t10k-images-idx3-ubyte.gz", MNIST / "t10k-labels-idx1-ubyte.gz")
    assert images.shape == (10_000, 784)
    assert labels[:5].tolist() == [7, 2, 1, 0, 4]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Goodness("length"), "must be 'mean' or 'sum'"),  # type: ignore[arg-type]
        (lambda: Goodness(threshold=0), "threshold=0: must be positive"),
        (lambda: ForwardForwardNet(4, (), 3), "must be a list of at least 1 numbers"),
        (lambda: ForwardForwardNet(4, (5,), 1), "classes=1"),
        (lambda: ForwardForwardNet(4, (5,), 3, peer=-1), "peer=-1: must not be negative"),
        (lambda: ForwardForwardClassifier(4, negatives="soft"), "must be 'uniform' or 'hard'"),  # type: ignore[arg-type]
        (lambda: ForwardForwardClassifier(4, read_by="luck"), "must be 'goodness' or"),  # type: ignore[arg-type]
        (lambda: ImagePlan(epochs=0), "epochs=0"),
        (lambda: ImagePlan(noise=-0.1), "noise=-0.1"),
        (lambda: ImagePlan(batch_size=2.0), "batch_size=2.0: must be a whole number"),
        (lambda: ForwardForwardNet(4, (5.0,), 3), "hidden=5.0: must be a whole number"),
        (lambda: ForwardForwardNet(4, (5,), 3, seed="a"), "seed='a': must be a whole number"),
        (lambda: SequenceExperiment(BOOK, BOOK, epochs=1.5), "epochs=1.5: must be a whole number"),
        (lambda: UnsupervisedForwardForward((2, 2)).fit(torch.rand(1, 4), torch.tensor([0])), "at least 2"),
        (lambda: ForwardForwardClassifier(4).fit(torch.rand(3, 4), torch.tensor([0, 1, 10])), "lie in 0 to 9"),
        (lambda: ForwardForwardClassifier(4).fit(torch.rand(3, 4) / 0, torch.tensor([0, 1, 2])), "not finite"),
        (lambda: ForwardForwardNet(4, (5,), 3, candidates=False).candidate_logits(torch.rand(1, 4)), "use its head"),
        (lambda: stratified_split(torch.arange(4), 4, 0), "must lie in 1 to 3"),
        (lambda: stratified_split(torch.arange(4), 1.5, 0), "test_size=1.5: must be a whole number"),  # type: ignore[arg-type]
    ],
)
def test_bad_settings_are_refused(build: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()  # type: ignore[operator]


def test_of_no_data_gradients_are_zero_and_the_running_means_stay() -> None:
    net = small_net(peer=0.1, candidates=False)
    spread = net.spread.clone()
    nothing = torch.empty(0, 7)
    assert net.set_gradients(nothing, None, None, nothing).tolist() == [0, 0, 0]
    net.set_head_gradient(nothing, torch.empty(0, dtype=torch.int64))
    assert all((weight.grad == 0).all() for weight in net.parameters())
    assert torch.equal(net.spread, spread)


@pytest.mark.parametrize("candidate", [-1, 5])
def test_a_candidate_that_there_is_not_is_refused(candidate: int) -> None:
    net, contexts, right = small_net(), *some_pairs()[:2]
    wrong = right.clone()
    wrong[3] = candidate
    for take in (lambda: net.pair_logits(contexts, wrong), lambda: net.set_gradients(contexts, right, wrong)):
        with pytest.raises(InputError, match="must lie in 0 to 4"):
            take()


BYTES = torch.randint(256, (60, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(60) % 3
PIXELS = BYTES / 255
KINDS: dict[str, Callable[[], ImageClassifier]] = {
    "forward-forward": lambda: ForwardForwardClassifier(9, 3, (6, 5), plan=ImagePlan(epochs=1)),
    "unsupervised": lambda: UnsupervisedForwardForward((3, 3), 3, (6, 5), plan=ImagePlan(epochs=1)),
    "backpropagation": lambda: BackpropClassifier(9, 3, (6, 5), ImagePlan(epochs=1)),
    "recurrent": lambda: RecurrentForwardForward(9, 3, (6, 5), plan=ImagePlan(epochs=1)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_images_and_labels_of_any_type_give_what_float32_and_int64_give(kind: str) -> None:
    expected = KINDS[kind]().fit(PIXELS, LABELS)
    for images, labels in (
        (BYTES, LABELS.to(torch.uint8)),
        (BYTES.numpy(), LABELS.to(torch.int16).numpy()),
        (PIXELS.numpy(), LABELS.numpy()),
        (PIXELS.tolist(), LABELS.tolist()),
        (PIXELS.double(), LABELS.int()),
        (PIXELS.T.contiguous().T, LABELS),
        (PIXELS.clone().requires_grad_(), LABELS.to(torch.uint16)),
        (PIXELS, LABELS.numpy().astype(np.uint64)),
    ):
        found = KINDS[kind]().fit(images, labels)
        for one, other in zip(found.net.parameters(), expected.net.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        assert torch.equal(found.predict(images), found.predict(PIXELS))
        assert found.error(images, labels) == found.error(PIXELS, LABELS)
    assert KINDS[kind]().fit(PIXELS.bfloat16(), LABELS).predict(PIXELS.half()).shape == (60,)
    assert expected.predict(PIXELS[:0]).shape == (0,)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("images", "message"),
    [
        (PIXELS[0], r"images \(9,\): must be \[n, 9\]"),
        (PIXELS[:, :8], r"images \(60, 8\): must be \[n, 9\]"),
        (PIXELS * 255, "pixels from 0 to 255: must lie in 0 to 1; divide them"),
        (PIXELS - 0.5, "pixels from -0.5 to 0.5: must lie in 0 to 1"),
        (PIXELS / 0, "not finite"),
        (PIXELS + 0j, "complex64: must be real"),
        ([[0.5] * 9, [0.5]], "images: list must hold numbers, in rows of one length"),
        ("images", "images: str of <U6 must hold numbers"),
        (None, "images: NoneType of object must hold numbers"),
    ],
)
def test_images_are_refused_alike_to_learn_from_and_to_predict(kind: str, images: Any, message: str) -> None:
    classifier = KINDS[kind]()
    for use in (lambda: classifier.fit(images, LABELS), lambda: classifier.predict(images)):
        with pytest.raises(InputError, match=message):
            use()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS.float(), "labels of type torch.float32: must be whole numbers"),
        (LABELS > 0, "labels of type torch.bool: must be whole numbers"),
        (LABELS[:5], r"labels \(5,\): must be \[60\]"),
        (LABELS - 1, "labels -1 to 1: must lie in 0 to 2"),
        (["a"] * 60, "labels: list of <U1 must hold numbers"),
    ],
)
def test_labels_are_refused_alike_to_learn_from_and_to_compare_with(labels: Any, message: str) -> None:
    classifier = KINDS["backpropagation"]()
    for use in (lambda: classifier.fit(PIXELS, labels), lambda: classifier.error(PIXELS, labels)):
        with pytest.raises(InputError, match=message):
            use()


def test_a_second_fit_goes_on_from_the_first() -> None:
    classifier = KINDS["backpropagation"]().fit(PIXELS, LABELS)
    first = classifier.net.state_dict()["head.weight"].clone()
    classifier.fit(PIXELS, LABELS)
    assert not torch.equal(classifier.net.state_dict()["head.weight"], first)
    assert torch.equal(KINDS["backpropagation"]().fit(PIXELS, LABELS).net.state_dict()["head.weight"], first)


@pytest.mark.parametrize("kind", KINDS)
def test_a_net_that_is_none_says_so_at_the_first_step_and_stays_as_it_was(kind: str) -> None:
    classifier = KINDS[kind]()
    first = next(classifier.net.parameters())
    first.data[0, 0] = math.nan
    with pytest.raises(InputError, match="the loss is nan at step 1"):
        classifier.fit(PIXELS, LABELS)
    assert int(first.isnan().sum()) == 1


@pytest.mark.parametrize("size", [1, 2, 3, 60])
@pytest.mark.parametrize("images", [PIXELS, torch.eye(9).repeat(3, 1), PIXELS[:1].repeat(20, 1)])
def test_no_hybrid_that_is_trained_on_is_an_image(size: int, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    set_gradients = ForwardForwardNet.set_gradients

    def watched(net: ForwardForwardNet, contexts: Tensor, right: None, wrong: None, others: Tensor) -> Tensor:
        taken.append(others)
        assert contexts.shape == others.shape
        return set_gradients(net, contexts, right, wrong, others)

    monkeypatch.setattr(ForwardForwardNet, "set_gradients", watched)
    plan = ImagePlan(epochs=2, batch_size=size, noise=0.0)
    UnsupervisedForwardForward((3, 3), 3, (6, 5), plan=plan).fit(images, torch.arange(len(images)) % 3)
    hybrids = torch.cat(taken)
    own = {tuple(image) for image in images.tolist()}
    assert not own & {tuple(hybrid) for hybrid in hybrids.tolist()}
    if images is PIXELS:
        assert len(hybrids) > 0.8 * 2 * len(images)


@pytest.mark.parametrize("method", ["teacher-forced", "self-generated"])
def test_no_window_that_is_trained_on_as_wrong_is_right(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment, taken = SequenceExperiment(BOOK, BOOK, hidden=(24, 20), epochs=6, batch_size=32), []
    set_gradients = ForwardForwardNet.set_gradients

    def watched(net: ForwardForwardNet, contexts: Tensor, right: None, wrong: None, others: Tensor) -> Tensor:
        taken.append((contexts, others))
        return set_gradients(net, contexts, right, wrong, others)

    monkeypatch.setattr(ForwardForwardNet, "set_gradients", watched)
    experiment.run(method)  # type: ignore[arg-type]
    real, others = (torch.cat(column) for column in zip(*taken, strict=True))
    assert len(real) > 2000
    assert not (real == others).all(1).any()
    if method == "self-generated":
        text = {tuple(window) for window in experiment.windows.tolist()}
        assert not text & {tuple(window) for window in others.unique(dim=0).tolist()}


def test_an_experiment_whose_dreams_are_all_in_the_text_trains_its_head_alone() -> None:
    text = "a" * 60
    result = SequenceExperiment(text, text, hidden=(6, 5), epochs=8, learning_rate=0.05).run("self-generated")
    assert result.accuracy == 1


BOOK = "The quick brown fox jumps over the lazy dog; the dog sleeps, and the fox runs away. " * 6


@pytest.mark.parametrize("method", ["random", "teacher-forced", "self-generated", "backprop"])
def test_every_method_of_the_sequence_experiment_learns_a_text_that_repeats(method: str) -> None:
    experiment = SequenceExperiment(BOOK, BOOK, hidden=(24, 20), epochs=6, batch_size=32, learning_rate=5e-3)
    result = experiment.run(method)  # type: ignore[arg-type]
    assert result.bits_per_character < 3.0  # log2(30) is 4.9
    assert result.accuracy > 0.4


@pytest.mark.parametrize("method", ["random", "backprop"])
def test_an_experiment_that_spoils_its_net_in_its_last_step_says_so(method: Any) -> None:
    experiment = SequenceExperiment(BOOK, BOOK, hidden=(6,), epochs=1, batch_size=10**6, learning_rate=1e300)
    with pytest.raises(DivergedError, match="a weight is not finite after the last step"):
        experiment.run(method)


def test_only_random_layers_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    nets: list[ForwardForwardNet] = []
    train = SequenceExperiment._train
    monkeypatch.setattr(SequenceExperiment, "_train", lambda self, net, way: (train(self, net, way), nets.append(net)))
    experiment = SequenceExperiment(BOOK, BOOK, hidden=(9, 8), epochs=1)
    for method in ("random", "teacher-forced", "self-generated", "backprop"):
        experiment.run(method)  # type: ignore[arg-type]
    start = ForwardForwardNet(300, (9, 8), 30, candidates=False).weights[1]
    assert [torch.equal(net.weights[1], start) for net in nets] == [True, False, False, False]


def test_windows_are_followed_by_the_character_after_them() -> None:
    experiment = SequenceExperiment("A b-c; D 123 efghij", BOOK)
    read = experiment.windows.view(-1, 10, 30).argmax(-1)
    texts = ["".join(ALPHABET[place] for place in row) for row in read]
    cleaned = clean_alphabet("A b-c; D 123 efghij")
    assert cleaned == "a b c; d efghij"
    assert texts == [cleaned[at : at + 10] for at in range(len(cleaned) - 10)]
    assert "".join(ALPHABET[place] for place in experiment.following) == cleaned[10:]


@pytest.mark.parametrize("text", ["Быть или не быть, вот в чём вопрос. ", "天地玄黃宇宙洪荒日月盈昃辰宿列張。"])
def test_a_text_of_another_script_has_its_own_alphabet(text: str) -> None:
    alphabet = alphabet_of(text * 20)
    assert alphabet != ALPHABET
    assert clean_alphabet(text * 2, alphabet) == " ".join((text * 2).lower().split())
    experiment = SequenceExperiment(text * 20, text * 2, alphabet=alphabet, hidden=(9, 8), epochs=1)
    for method in ("random", "self-generated", "teacher-forced"):
        assert experiment.run(method).bits_per_character < 2 * math.log2(len(alphabet))  # type: ignore[arg-type]


def test_a_text_shorter_than_a_window_is_refused() -> None:
    with pytest.raises(InputError, match="has 5 characters of the alphabet"):
        SequenceExperiment("short", BOOK)


def test_the_recurrent_nets_gradient_is_that_of_its_film_with_the_past_taken_as_given() -> None:
    model = RecurrentForwardForward(7, 5, (6, 4), goodness=Goodness(sharpness=2), plan=ImagePlan(noise=0))
    images, labels, _ = some_pairs()
    losses = model._set_gradients(images, labels, torch.arange(12), torch.Generator().manual_seed(3))
    given = model.up[1].grad.clone(), model.down[0].grad.clone()  # type: ignore[union-attr]
    random = torch.Generator().manual_seed(3)
    torch.randn(images.shape, generator=random)  # the noise
    wrong = uniform_wrong(5, labels, random)
    with torch.no_grad():
        film = model._film(torch.cat([images, images]), torch.cat([labels, wrong]))
    total = torch.zeros(2)
    for moments in film:
        for place, moment in enumerate(moments):
            sums = moment.below @ model.up[place].T + moment.above @ model.down[place].T + model.biases[place]
            kept = moment.activities - 0.7 * moment.fresh
            logits = model.goodness.logits(kept + 0.7 * sums.relu())
            sign = torch.cat([torch.ones(12), -torch.ones(12)])
            total = total + torch.eye(2)[place] * softplus(-sign * logits).mean() / len(film)
    torch.testing.assert_close(losses, total.detach())
    model.up.zero_grad()
    model.down.zero_grad()
    total.sum().backward()
    torch.testing.assert_close(given, (model.up[1].grad, model.down[0].grad), rtol=1e-4, atol=1e-6)


def test_images_come_from_a_folder_of_mnist_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no pair of MNIST's files"):
        load_images(str(tmp_path))
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", [9, 8], (2, 1, 1))
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", [1, 2], (2,))
    assert load_images(str(tmp_path))[1].tolist() == [1, 2]
    write_idx(tmp_path / "train-images-idx3-ubyte", [7], (1, 1, 1))
    write_idx(tmp_path / "train-labels-idx1-ubyte", [4], (1,))
    assert load_images(str(tmp_path))[1].tolist() == [4]


def test_images_that_are_darker_than_the_noise_are_warned_of() -> None:
    bits = (torch.rand(30, 4, generator=torch.Generator().manual_seed(0)) < 0.5).to(torch.uint8)
    labels, plan = bits[:, 0].long(), ImagePlan(epochs=1)
    for dark in (bits, 16 * bits):
        with pytest.warns(UserWarning, match="bytes are divided by 255, so give pixels of another range as numbers"):
            BackpropClassifier(4, 2, (4,), plan=plan).fit(dark, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for fine in (bits.float(), 255 * bits, bits.bool(), 0 * bits):
            BackpropClassifier(4, 2, (4,), plan=plan).fit(fine, labels)
