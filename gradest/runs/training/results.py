"""Images of a trained model: data, their reconstructions, and samples of the prior."""

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gradest.categorical import sample
from gradest.costs import Cost
from gradest.runs.training.trainer import Trainer
from gradest.support import write_atomically

SHOWN = 10  # data points, and as many samples


class Pictures(NamedTuple):
    """Grey images, 0 to 255, each [n, H, W]."""

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
    """Write an npz of arrays `key/name`, atomically."""
    arrays = {
        f"{key}/{name}": part.numpy()
        for key, pictures in images.items()
        for name, part in pictures._asdict().items()
    }
    write_atomically(path, lambda partial: np.savez_compressed(partial, **arrays))


@torch.no_grad()
def generate_pictures(trainer: Trainer, items: Tensor) -> Pictures:
    """The images for the first data points, with the current source of draws."""
    model, networks = trainer.model, trainer.networks
    x = model.preprocess(items[:SHOWN], trainer.dtype)  # [B, D]
    logits, f = model.problem_at(networks, x)
    reconstructed = model.decode_images(networks, x, _sample_last_layer(logits, f))  # [B, H, W]
    prior = logits if f.prior is None else f.prior.to(logits).expand_as(logits)
    samples = model.decode_images(networks, x, _sample_last_layer(prior, f))
    for images in (reconstructed, samples):
        if images.ndim != 3 or len(images) != len(x):
            raise ValueError(
                f"{model.name}: expected decode_images to return [{len(x)}, H, W] for codes of "
                f"{len(x)} data points, got shape {list(images.shape)}"
            )
    data = x.reshape_as(samples) if x.numel() == samples.numel() else x.unsqueeze(0)
    return Pictures(*((255 * part).round().byte().cpu() for part in (data, reconstructed, samples)))


def _sample_last_layer(logits: Tensor, f: Cost) -> Tensor:
    """A code of the last layer of latents: [B, N, K] -> [B, N', K']."""
    z = sample(logits)
    while f.deep:
        logits, f = f.next(z)
        z = sample(logits)
    return z


COLUMNS = (
    *("suite", "task", "task_params", "estimator", "estimator_params", "learning_rate", "seed"),
    "key",
    *("status", "reason", "step", "seconds", "split", "metric", "value", "low", "high"),
)


def rows(suite: str, record: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """A row for every point of the curves; one without numbers for a training without curves."""
    cell = record["cell"]
    identity = (
        suite,
        cell["task"],
        json.dumps(cell["task_knobs"], sort_keys=True),
        cell["estimator"],
        json.dumps(cell["estimator_knobs"], sort_keys=True),
        cell["learning_rate"],
        cell["seed"],
        record["key"],
        record["status"],
        record["reason"],
    )
    if record["status"] != "ok":
        yield (*identity, *(None,) * (len(COLUMNS) - len(identity)))
        return
    for point in record["training"]["points"]:
        yield (*identity, *point)
