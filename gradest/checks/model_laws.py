"""What a model owes beside what every task does: networks, data and pictures that training can use.

Everything is tried on a few items of the training data, at untrained networks.
"""

from collections.abc import Callable

import torch

from gradest.categorical import sample
from gradest.checks.finding import Outcome, outcome
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
        return "failed", "networks(0) has no parameters"
    if not all(map(torch.equal, first, again)):
        return "failed", "networks(0) differs from call to call; draw from a generator of the seed"
    alike = all(map(torch.equal, first, other))
    return outcome("networks(1) is networks(0)" if alike else "", "decided by the seed")


def _data(task: Model, problem: Problem) -> Outcome:
    for split in _SPLITS:
        items = task.data(split)
        if items.ndim != 2 or not len(items):
            return "failed", f"data({split!r}) has shape {list(items.shape)}; [B, D] was expected"
    items, before = task.data("train")[:_ITEMS], global_states()
    seen = []
    for seed in (0, 0):
        with drawing_from(Draws.seeded(seed)):
            seen.append(task.preprocess(items, torch.float64))
    if global_states() != before or not torch.equal(*seen):
        return "failed", "observed() draws past gradest.randomness.draws(): no seed brings it back"
    x = seen[0]
    if x.dtype != torch.float64 or len(x) != len(items) or not x.isfinite().all():
        return "failed", f"observed() gave {x.dtype} {list(x.shape)}, or what is not finite"
    return "passed", "[B, D] in every split; observed as the draws in force decide"


def _training(task: Model, problem: Problem) -> Outcome:
    networks = task.networks(0).float()
    with drawing_from(Draws.seeded(0)):
        x = task.preprocess(task.data("train")[:_ITEMS], torch.float32)
        logits, f = task.problem_at(networks, x)
        z = sample(logits)
        cost = f(z)
        pictures = task.decode_images(networks, x, z) if not f.deep else None
    if logits.shape[0] != len(x) or logits.ndim != 3 or not logits.requires_grad:
        shape = list(logits.shape)
        return "failed", f"posed() gave logits {shape}; [B, N, K] with a graph to the networks"
    if logits.dtype != torch.float32 or cost.dtype != torch.float32:
        return "failed", f"float32 networks give {logits.dtype} logits and {cost.dtype} costs"
    if not cost.isfinite().all():
        return "failed", "the cost at untrained networks is not finite"
    if pictures is not None and (pictures.ndim != 3 or len(pictures) != len(x)):
        return "failed", f"pictures() gave {list(pictures.shape)} for codes [B, N, K]; [B, H, W]"
    return "passed", "logits, costs and pictures of a batch have their shapes"


MODEL_LAWS: dict[str, Callable[[Model, Problem], Outcome]] = {
    "networks": _networks,
    "data": _data,
    "training": _training,
}
