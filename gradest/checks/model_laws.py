"""The further laws of a model: networks, data and images that training can use.

Everything is tested on a few items of the training data, at untrained networks.
"""

from collections.abc import Callable

import torch

from gradest.categorical import sample
from gradest.checks.result import Outcome, outcome
from gradest.contracts import Model
from gradest.costs import Problem
from gradest.randomness import Draws, drawing_from, global_states

_ITEMS = 5
_SPLITS = ("train", "valid", "test")


def _networks(task: Model, problem: Problem) -> Outcome:
    first, again, other = (
        [p.detach().clone() for p in task.networks(seed).parameters()] for seed in (0, 0, 1)
    )
    if not first:
        return "failed", "expected networks(0) to have parameters, got none"
    if not all(map(torch.equal, first, again)):
        return (
            "failed",
            "networks(0) differs from call to call; draw from a torch.Generator with the seed",
        )
    equal = all(map(torch.equal, first, other))
    violation = "networks(1) equals networks(0); draw from a torch.Generator with the seed"
    return outcome(violation if equal else "", "determined by the seed")


def _data(task: Model, problem: Problem) -> Outcome:
    for split in _SPLITS:
        items = task.data(split)
        if items.ndim != 2 or not len(items):
            return "failed", f"expected data({split!r}) of shape [B, D], got {list(items.shape)}"
    items, before = task.data("train")[:_ITEMS], global_states()
    results = []
    for seed in (0, 0):
        with drawing_from(Draws.seeded(seed)):
            results.append(task.preprocess(items, torch.float64))
    if global_states() != before or not torch.equal(*results):
        return (
            "failed",
            "preprocess() is not reproducible by a seed; draw with gradest.randomness.draws()",
        )
    x = results[0]
    if x.dtype != torch.float64 or len(x) != len(items) or not x.isfinite().all():
        return (
            "failed",
            f"expected preprocess() to return finite float64 [B, D], got {x.dtype} {list(x.shape)}",
        )
    return "passed", "[B, D] in every split; preprocess() is reproducible by a seed"


def _training(task: Model, problem: Problem) -> Outcome:
    networks = task.networks(0).float()
    with drawing_from(Draws.seeded(0)):
        x = task.preprocess(task.data("train")[:_ITEMS], torch.float32)
        logits, f = task.problem_at(networks, x)
        z = sample(logits)
        cost = f(z)
        images = task.decode_images(networks, x, z) if not f.deep else None
    if logits.shape[0] != len(x) or logits.ndim != 3 or not logits.requires_grad:
        shape = list(logits.shape)
        return "failed", (
            "expected problem_at() to return logits [B, N, K] with a graph to the networks, got "
            f"{shape}"
        )
    if logits.dtype != torch.float32 or cost.dtype != torch.float32:
        return "failed", (
            f"expected float32 logits and costs from float32 networks, got {logits.dtype} and "
            f"{cost.dtype}"
        )
    if not cost.isfinite().all():
        return "failed", "expected finite costs at untrained networks, got NaN or inf"
    if images is not None and (images.ndim != 3 or len(images) != len(x)):
        return "failed", (
            "expected decode_images() to return [B, H, W] for codes [B, N, K], got "
            f"{list(images.shape)}"
        )
    return "passed", "logits, costs and images of a batch have the expected shapes"


MODEL_LAWS: dict[str, Callable[[Model, Problem], Outcome]] = {
    "networks": _networks,
    "data": _data,
    "training": _training,
}
