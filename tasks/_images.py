"""The image data sets that autoencoders are trained on, as published, split in three.

| name | images | pixels |
| --- | --- | --- |
| digits | 1,300 / 200 / 297, comes with scikit-learn | 8 × 8, black and white |
| binarized_mnist | 50,000 / 10,000 / 10,000, binarised by its authors | 28 × 28, black and white |
| mnist | 50,000 / 10,000 / 10,000 | 28 × 28, grey |
| omniglot | 3,872 / 484 / 484 of the small background sets | 28 × 28, grey |

Grey images are to be binarised anew whenever they are used, a pixel being one with probability
grey / 255; Salakhutdinov & Murray, "On the quantitative analysis of deep belief networks", 2008.

Images keep the published order.  The test images of binarized_mnist are sorted by digit, and the
drawings of omniglot by alphabet: the first few of them do not represent the split.

mnist: the last 10,000 of the 60,000 training images are for validation.

omniglot: images_background_small1.zip and images_background_small2.zip, which share Greek and
Latin; drawings that are in both are taken once, which leaves 242 characters of eight alphabets,
each drawn by 20 people.  Drawings 1-16 of each character are for training, 17 and 18 for
validation, 19 and 20 for the test: every drawing is in one split, and every split holds all
characters in equal shares, so that a held-out bound speaks of unseen drawings and not of unseen
alphabets.  These are not the 28 × 28 images of Burda, Grosse & Salakhutdinov (2016), and bounds
do not compare with theirs.
"""

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gradest.errors import DataError
from gradest.support import suggestion

from ._download import Content, Published, obtain
from ._formats import Pixels, read_amat, read_idx, read_omniglot

SPLITS = ("train", "valid", "test")


class Images(NamedTuple):
    """The images of one split."""

    pixels: Tensor  # uint8 [B, D], 0 to levels
    levels: int  # 1: black and white as published; 255: grey, to be binarised anew at each use
    side: int  # D = side × side


class Split(NamedTuple):
    """One split: so many images, read from these files."""

    rows: int
    files: tuple[Published, ...]
    read: Callable[[list[Content]], Pixels]


class ImageSet(NamedTuple):
    """A data set under the name it is known by."""

    about: str
    levels: int
    side: int
    splits: Mapping[str, Split]


def images(name: str, split: str) -> Images:
    """The split "train", "valid" or "test" of an image set, read once a process.

    Files that are missing are downloaded; all are verified.

    Raises DataError for an unknown set or split, and for a file that is damaged or not to be had.
    """
    chosen = _image_set(name)
    if split not in chosen.splits:
        raise DataError(f"{name}: unknown split {split!r}{suggestion(split, chosen.splits)}")
    return _images(name, split)


def prepare(name: str) -> None:
    """Downloads and verifies every file of an image set, so that nothing has to wait for it later.

    Raises DataError for an unknown set, and for a file that is damaged or not to be had.
    """
    splits = _image_set(name).splits.values()
    for file in dict.fromkeys(file for split in splits for file in split.files):
        obtain(file)


@cache
def _images(name: str, split: str) -> Images:
    chosen = IMAGE_SETS[name]
    rows, files, read = chosen.splits[split]
    pixels = read([obtain(file) for file in files])
    if pixels.shape != (rows, chosen.side**2):
        shape = " × ".join(map(str, pixels.shape))
        raise DataError(f"{name}, {split}: expected {rows} × {chosen.side**2} pixels, got {shape}")
    return Images(torch.from_numpy(pixels), chosen.levels, chosen.side)


def _image_set(name: str) -> ImageSet:
    if name not in IMAGE_SETS:
        raise DataError(f"unknown image set {name!r}{suggestion(name, IMAGE_SETS)}")
    return IMAGE_SETS[name]


def _digits(rows: slice, files: list[Content]) -> Pixels:
    """A pixel is one from half of the full ink (16) on."""
    from sklearn.datasets import load_digits  # here: it takes as long to load as torch

    return (load_digits().data[rows] >= 8).astype(np.uint8)


def _amat(files: list[Content]) -> Pixels:
    return read_amat(files[0], 28 * 28)


def _idx(rows: slice, files: list[Content]) -> Pixels:
    return read_idx(files[0], 28)[rows]


def _drawings(first: int, last: int, files: list[Content]) -> Pixels:
    return read_omniglot(files, range(first, last + 1))


def _binarized_mnist(split: str) -> tuple[Published]:
    file = f"binarized_mnist_{split}.amat"
    home = "https://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist"
    checksum = f"sha256:{_BINARIZED_MNIST[split]}"
    return (Published(f"binarized_mnist/{file}", f"{home}/{file}", checksum),)


def _mnist(file: str, checksum: str) -> tuple[Published]:
    home = "https://ossci-datasets.s3.amazonaws.com/mnist"
    return (Published(f"mnist/{file}", f"{home}/{file}", f"md5:{checksum}"),)


def _omniglot(file: str, checksum: str) -> Published:
    home = "https://github.com/brendenlake/omniglot/raw/master/python"
    return Published(f"omniglot/{file}", f"{home}/{file}", f"md5:{checksum}")


_BINARIZED_MNIST = {
    "train": "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d",
    "valid": "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2",
    "test": "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c",
}
_MNIST_TRAINING = _mnist("train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873")
_MNIST_TEST = _mnist("t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3")
_OMNIGLOT = (
    _omniglot("images_background_small1.zip", "e704a628b5459e08445c13499850abc4"),
    _omniglot("images_background_small2.zip", "b75a71a51d3b13f821f212756fe481fd"),
)

IMAGE_SETS: Mapping[str, ImageSet] = {
    "digits": ImageSet(
        'Alpaydin & Kaynak, "Optical recognition of handwritten digits", UCI, 1998',
        levels=1,
        side=8,
        splits={
            "train": Split(1300, (), partial(_digits, slice(1300))),
            "valid": Split(200, (), partial(_digits, slice(1300, 1500))),
            "test": Split(297, (), partial(_digits, slice(1500, None))),
        },
    ),
    "binarized_mnist": ImageSet(
        'Larochelle & Murray, "The neural autoregressive distribution estimator", 2011',
        levels=1,
        side=28,
        splits={
            "train": Split(50_000, _binarized_mnist("train"), _amat),
            "valid": Split(10_000, _binarized_mnist("valid"), _amat),
            "test": Split(10_000, _binarized_mnist("test"), _amat),
        },
    ),
    "mnist": ImageSet(
        'LeCun, Bottou, Bengio & Haffner, "Gradient-based learning applied to document '
        'recognition", 1998',
        levels=255,
        side=28,
        splits={
            "train": Split(50_000, _MNIST_TRAINING, partial(_idx, slice(50_000))),
            "valid": Split(10_000, _MNIST_TRAINING, partial(_idx, slice(50_000, None))),
            "test": Split(10_000, _MNIST_TEST, partial(_idx, slice(None))),
        },
    ),
    "omniglot": ImageSet(
        'Lake, Salakhutdinov & Tenenbaum, "Human-level concept learning through probabilistic '
        'program induction", 2015',
        levels=255,
        side=28,
        splits={
            "train": Split(3_872, _OMNIGLOT, partial(_drawings, 1, 16)),
            "valid": Split(484, _OMNIGLOT, partial(_drawings, 17, 18)),
            "test": Split(484, _OMNIGLOT, partial(_drawings, 19, 20)),
        },
    ),
}
