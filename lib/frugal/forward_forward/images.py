"""Small images: the digits of scikit-learn, MNIST's files, hybrids of two images."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from frugal.corpora import fetch_package_member
from frugal.errors import InputError, UnavailableError, check_whole
from frugal.files import data_folder
from frugal.tensors import number_tensor

DIGITS = "scikit-learn==1.9.1"
DIGITS_MEMBER = "sklearn/datasets/data/digits.csv.gz"
DIGITS_SHA256 = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"
BLUR = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]).view(1, 1, 3, 3) / 16  # [1/4, 1/2, 1/4] both ways


def load_digits() -> tuple[Tensor, Tensor]:
    """1,797 handwritten digits of 8 x 8 pixels: images [1797, 64] in 0 to 1, labels [1797].

    They are the test part of the UCI set "Optical Recognition of Handwritten Digits", as scikit-learn ships it; this
    one file is taken out of its package, once.

    Raises:
        UnavailableError: the file is not here yet and the package cannot be had.
    """
    path = data_folder() / "images" / "digits.csv.gz"
    fetch_package_member(DIGITS, DIGITS_MEMBER, DIGITS_SHA256, path, "give MNIST's files to `read_mnist`")
    with gzip.open(path, "rt") as lines:
        rows = torch.from_numpy(np.loadtxt(lines, delimiter=",", dtype=np.float32))
    return rows[:, :-1] / 16, rows[:, -1].long()


def read_mnist(images: Path | str, labels: Path | str) -> tuple[Tensor, Tensor]:
    """Images [n, pixels] in 0 to 1 and labels [n] out of a pair of IDX files, gzipped or not.

    Raises:
        InputError: there is no such file, or they are not a pair of images and labels.
        UnavailableError: a file is damaged.
    """
    pixels, classes = _read_idx(Path(images), dimensions=3), _read_idx(Path(labels), dimensions=1)
    if not pixels.size:
        raise InputError(
            f"{images} holds {len(pixels)} images of {pixels.shape[1]} x {pixels.shape[2]} pixels: none to use"
        )
    if len(pixels) != len(classes):
        raise InputError(f"{images} holds {len(pixels)} images, {labels} {len(classes)} labels: give files that match")
    return torch.tensor(pixels.reshape(len(pixels), -1) / np.float32(255)), torch.tensor(classes).long()


def load_images(folder: str = "") -> tuple[Tensor, Tensor]:
    """MNIST out of a folder with its files, those to train on if they are there; without a folder, `load_digits`.

    Example:
        >>> images = struct.pack(">4B3I", 0, 0, 8, 3, 2, 1, 2) + bytes([0, 51, 102, 255])  # two of 1 x 2 pixels
        >>> Path("t10k-images-idx3-ubyte").write_bytes(images), Path("t10k-labels-idx1-ubyte").write_bytes(
        ...     struct.pack(">4BI", 0, 0, 8, 1, 2) + bytes([7, 1])
        ... )
        (20, 10)
        >>> load_images(".")
        (tensor([[0.0000, 0.2000],
                [0.4000, 1.0000]]), tensor([7, 1]))
    """
    if not folder:
        return load_digits()
    found = {path.name.split(".")[0]: path for path in Path(folder).glob("*-idx?-ubyte*")}
    for part in ("train", "t10k"):
        names = f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"
        if all(name in found for name in names):
            return read_mnist(*(found[name] for name in names))
    raise InputError(f"{folder}: holds no pair of MNIST's files, such as t10k-images-idx3-ubyte and its labels")


def stratified_split(labels: Tensor, test_size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Places to train on and to test on, [n - test_size] and [test_size], with each label's share in both.

    Example:
        >>> labels = torch.tensor([0] * 8 + [1] * 4)
        >>> train, test = stratified_split(labels, test_size=3, seed=0)
        >>> labels[test].tolist(), len(train)
        ([0, 0, 1], 9)
    """
    check_whole(test_size=test_size)
    check_whole(0, seed=seed)
    labels = number_tensor("labels", labels)
    if test_size >= len(labels):
        raise InputError(f"test_size={test_size}: must lie in 1 to {len(labels) - 1}, the number of images less one")
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(int(seed)))
    by_label = order[labels[order].argsort(stable=True)]
    # Places at equal distances in the order of the labels: each label's share to within one.
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    chosen[torch.arange(test_size) * len(labels) // test_size] = True
    return by_label[~chosen], by_label[chosen]


def mask_hybrids(
    first: Tensor, second: Tensor, shape: tuple[int, int], generator: torch.Generator, blurs: int = 2
) -> Tensor:
    """Mixtures [n, pixels] of two images each, through masks of large random patches (paper, section 3.2).

    Near by they look like images, far apart they do not fit together: to tell them from images, a layer has to learn
    what shapes there are.

    Args:
        first, second: images [n, height * width].
        shape: their height and width.
        generator: of the masks, random bits that are blurred and cut at the middle.
        blurs: how often they are blurred; more for larger images.
    """
    mask = torch.rand(len(first), 1, *shape, generator=generator).round()
    for _ in range(blurs):
        mask = conv2d(mask, BLUR, padding=1)
    mask = (mask > mask.mean((2, 3), keepdim=True)).flatten(1).to(first)
    return mask * first + (1 - mask) * second


def _read_idx(path: Path, dimensions: int) -> np.ndarray:
    """An array of bytes of so many dimensions."""
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; give one of MNIST's four, gzipped or not")
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UnavailableError(f"{path} cannot be read ({error}): get a complete copy") from error
    head = 4 + 4 * dimensions
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) < head:
        raise InputError(f"{path}: is no IDX file of bytes in {dimensions} dimensions, as MNIST's are")
    sizes = struct.unpack(f">{dimensions}I", content[4:head])
    if len(content) != head + math.prod(sizes):
        wrong = "ends too early" if len(content) < head + math.prod(sizes) else "is too long"
        raise UnavailableError(f"{path} {wrong} for the {sizes} bytes that it says it holds: get a complete copy")
    return np.frombuffer(content, np.uint8, offset=head).reshape(sizes)
