"""The records of the descents of a cell, as plain data of the journal and as rows of a table."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gradest.statistics import decode, encode

COLUMNS = (
    *("suite", "task", "task_params", "estimator", "estimator_params", "learning_rate", "seed"),
    *("key", "status", "reason", "step", "seconds", "metric", "value", "low", "high"),
)


class Curves(NamedTuple):
    """Metrics of T records of M seeds, each [T, 3, M]: values, and both ends of their intervals."""

    steps: list[int]  # [T]
    seconds: list[float]  # [T], of the steps of all seeds together
    metrics: dict[str, Tensor]

    def to_json(self) -> dict[str, Any]:
        """Plain data, bit by bit; numbers without an error are stored once."""
        metrics = {
            name: encode(x[:, :1] if _is_exact(x) else x) for name, x in self.metrics.items()
        }
        return {"steps": self.steps, "seconds": self.seconds, "metrics": metrics}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Curves":
        """Raises ValueError for tensors of other shapes."""
        steps, seconds = list(data["steps"]), list(data["seconds"])
        metrics = {name: decode(x) for name, x in data["metrics"].items()}
        if {x.shape[:1] for x in metrics.values()} - {(len(steps),)} or len(seconds) != len(steps):
            raise ValueError("expected a number of each metric for every step")
        return cls(
            steps, seconds, {k: x.expand(-1, 3, -1).contiguous() for k, x in metrics.items()}
        )

    @classmethod
    def of_batches(cls, parts: Sequence["Curves"]) -> "Curves":
        """The curves of the seeds of all parts, which have the same steps."""
        seconds = [sum(each) for each in zip(*(part.seconds for part in parts), strict=True)]
        metrics = {
            name: torch.cat([part.metrics[name] for part in parts], -1) for name in parts[0].metrics
        }
        return cls(parts[0].steps, seconds, metrics)


def _is_exact(x: Tensor) -> bool:
    return all(torch.equal(x[:, 0].nan_to_num(), x[:, end].nan_to_num()) for end in (1, 2))


def rows(suite: str, record: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """A row for every seed, step and metric; one without numbers for a seed without curves.

    `log_variance`, the natural logarithm of `gradient_variance`, is a metric as well.
    """
    cell = record["cell"]
    member = (
        suite,
        cell["task"],
        json.dumps(cell["task_knobs"], sort_keys=True),
        cell["estimator"],
        json.dumps(cell["estimator_knobs"], sort_keys=True),
        cell["learning_rate"],
    )
    ending = (record["key"], record["status"], record["reason"])
    if record["status"] != "ok":
        for seed in cell["seeds"]:
            yield (*member, seed, *ending, *(None,) * 6)
        return
    curves = Curves.from_json(record["descent"])
    metrics = curves.metrics | {"log_variance": curves.metrics["gradient_variance"].log()}
    for name, x in metrics.items():
        numbers = x.permute(2, 0, 1).tolist()  # [M, T, 3]
        for seed, curve in zip(cell["seeds"], numbers, strict=True):
            for step, seconds, ends in zip(curves.steps, curves.seconds, curve, strict=True):
                yield (*member, seed, *ending, step, seconds, name, *ends)
