"""Handwritten digits with their labels, and a classifier of them.

The images of scikit-learn, 8 × 8 with grey levels from 0 to 16, in its order.
"""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from gradest.support import one_thread

CLASSES = 10
HELD_OUT = 297
_LEVELS = 16
_ROWS = {"train": slice(-HELD_OUT), "test": slice(-HELD_OUT, None)}
_LEARNING_RATE = 0.05


class LabelledDigits(NamedTuple):
    """Images with pixels from 0 to 1, and the digits that they show."""

    pixels: Tensor  # [B, D]
    labels: Tensor  # [B], whole numbers


@cache
def labelled_digits(split: str) -> LabelledDigits:
    """The images "train" or "test", the last 297, with their labels."""
    from sklearn.datasets import load_digits  # here: it takes as long to load as torch

    digits, rows = load_digits(), _ROWS[split]
    pixels = torch.from_numpy(digits.data[rows] / _LEVELS)
    return LabelledDigits(pixels, torch.from_numpy(digits.target[rows]).long())


@cache
def classifier(steps: int) -> tuple[Tensor, Tensor]:
    """Weights [D, 10] and biases [10] of a softmax regression after so many steps from zero.

    The steps are those of Adam on the mean cross-entropy of all training images.  Nothing in it is
    random, and it takes milliseconds, so that it is trained in each process anew.
    """
    pixels, labels = labelled_digits("train")
    weight = torch.zeros(pixels.shape[1], CLASSES, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(CLASSES, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([weight, bias], lr=_LEARNING_RATE)
    # Sums in another order would, step by step, lead to another trained state.
    with one_thread(), torch.enable_grad():
        for _ in range(steps):
            loss = torch.nn.functional.cross_entropy(pixels @ weight + bias, labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return weight.detach(), bias.detach()
