"""Handwritten digits, 8 × 8, from scikit-learn: the data set that needs no download."""

import torch
from sklearn.datasets import load_digits
from torch import Tensor

TRAINING, HELD_OUT = 1500, 297


def binarised_digits() -> tuple[Tensor, Tensor]:
    """The 1,797 digits as zeros and ones: [1500, 64] to train on and [297, 64] held out.

    A pixel is one from half of the full ink (16) on.  Float64.

    Alpaydin & Kaynak, "Optical recognition of handwritten digits", UCI, 1998.
    """
    images = torch.from_numpy(load_digits().data)  # [1797, 64]
    pixels = (images >= 8).double()
    return pixels[:TRAINING], pixels[TRAINING:]
