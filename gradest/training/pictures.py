"""What a trained model generates: data, their reconstructions, and samples of the prior."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gradest.categorical import sample
from gradest.costs import Cost
from gradest.files import write_atomically
from gradest.training.trainer import Trainer

SHOWN = 10  # data points, and samples


class Pictures(NamedTuple):
    """Grey images, 0 to 255: [how many, H, W] each."""

    data: Tensor
    reconstructions: Tensor
    samples: Tensor  # of the prior, or other draws of the same data where there is none

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            name: {
                "shape": list(images.shape),
                "pixels": base64.b64encode(images.numpy().tobytes()).decode(),
            }
            for name, images in self._asdict().items()
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Pictures":
        return cls(
            *(
                torch.frombuffer(
                    bytearray(base64.b64decode(data[name]["pixels"])), dtype=torch.uint8
                ).reshape(data[name]["shape"])
                for name in cls._fields
            )
        )


def write_pictures(path: Path, images: Mapping[str, Pictures]) -> None:
    """As an npz of arrays `key/name`, whole or not at all."""
    arrays = {
        f"{key}/{name}": part.numpy()
        for key, found in images.items()
        for name, part in found._asdict().items()
    }
    write_atomically(path, lambda partial: np.savez_compressed(partial, **arrays))


@torch.no_grad()
def generate_pictures(trainer: Trainer, items: Tensor) -> Pictures:
    """Of the first data points, under the draws in force."""
    model, networks = trainer.model, trainer.networks
    x = model.preprocess(items[:SHOWN], trainer.dtype)  # [B, D]
    logits, f = model.problem_at(networks, x)
    reconstructed = model.decode_images(networks, x, _last(logits, f))  # [B, H, W]
    law = logits if f.prior is None else f.prior.to(logits).expand_as(logits)
    samples = model.decode_images(networks, x, _last(law, f))
    for images in (reconstructed, samples):
        if images.ndim != 3 or len(images) != len(x):
            raise ValueError(
                f"{model.name}.pictures returned shape {list(images.shape)} for codes of "
                f"{len(x)} data points; [{len(x)}, H, W] was expected"
            )
    data = x.reshape_as(samples) if x.numel() == samples.numel() else x.unsqueeze(0)
    return Pictures(*((255 * part).round().byte().cpu() for part in (data, reconstructed, samples)))


def _last(logits: Tensor, f: Cost) -> Tensor:
    """A code of the last layer of latents: [B, N, K] -> [B, N', K']."""
    z = sample(logits)
    while f.deep:
        logits, f = f.next(z)
        z = sample(logits)
    return z
