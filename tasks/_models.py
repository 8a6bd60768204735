"""Models of images: their data, and what of them is measured.

Encoder and decoder are trained for `steps` steps before anything is measured, with a leave-one-out
score function, which favours no relaxation, on all images that are not in the test split; the
trained state is kept in the cache folder.  What is measured is a fixed batch of `points` test
images, the first or the one of number `batch`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn.functional import softplus

from gradest import Cost, Problem
from gradest.categorical import leave_one_out_mean, log_prob, nabla, sample
from gradest.contracts import Model
from gradest.errors import KnobError
from gradest.knobs import AtLeast1, knob_defaults
from gradest.measurement import analytic_terms, nested_cost
from gradest.plugins import digest_of_class
from gradest.randomness import Draws, drawing_from, draws
from gradest.support import one_thread

from ._cache import cached_state
from ._images import IMAGE_SETS, images, prepare

Dataset = Literal["digits", "binarized_mnist", "mnist", "omniglot"]

_BATCH, _SAMPLES, _LEARNING_RATE = 100, 4, 3e-3


@dataclass(eq=False)
class ImageModel(Model):
    """A model of images whose encoder gives the logits, and whose decoder f reads the code."""

    parameters = ("encoder",)
    # Knobs that do not change the trained state.
    measured_alone: ClassVar[tuple[str, ...]] = ("points", "batch", "samples")
    dataset: Dataset = "digits"
    samples: AtLeast1 = 1
    steps: AtLeast1 = 200
    points: AtLeast1 = 4
    batch: Annotated[int, Ge(0)] = 0
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        held_out = IMAGE_SETS[self.dataset].splits["test"].rows
        if (self.batch + 1) * self.points > held_out:
            raise KnobError(
                f"{self.name}: points = {self.points} and batch = {self.batch}; expected "
                f"(batch + 1) · points of at most {held_out:,}, the test images of {self.dataset}"
            )

    def prepare(self) -> None:
        prepare(self.dataset)

    def data(self, split: str) -> Tensor:
        return images(self.dataset, split).pixels

    def preprocess(self, items: Tensor, dtype: torch.dtype) -> Tensor:
        levels = IMAGE_SETS[self.dataset].levels
        if levels > 1:
            # In float32 whatever the dtype, so that the same seed gives the same bits in each.
            grey = items.float()
            items = draws().uniform(grey.shape, grey) * levels < grey
        return items.to(dtype)

    def problem(self, batch: Tensor | None = None) -> Problem:
        if batch is None:
            start = self.batch * self.points
            with drawing_from(Draws.seeded(self.seed)):
                items = self.data("test")[start : start + self.points]
                batch = self.preprocess(items, torch.float64)  # [B, D]
        return self.problem_at(self._networks, batch)

    def group(self, name: str) -> Iterable[Tensor]:
        return self._networks[name].parameters()

    @property
    def side(self) -> int:
        """Images are side × side pixels."""
        return IMAGE_SETS[self.dataset].side

    @cached_property
    def _networks(self) -> nn.ModuleDict:
        """Trained; only the encoder, where gradients arrive, asks for them."""
        defaults = knob_defaults(type(self))
        plain = replace(self, **{knob: defaults[knob] for knob in self.measured_alone})
        identity = {**plain.knobs, "code": digest_of_class(type(self))}
        state = cached_state(self.name, identity, lambda: plain._trained().state_dict())
        networks = self.networks(self.seed)
        networks.load_state_dict(state)
        networks.requires_grad_(False)
        for name in self.parameters:
            networks[name].requires_grad_(True)
        return networks

    def _trained(self) -> nn.ModuleDict:
        networks = self.networks(self.seed)
        optimiser = torch.optim.Adam(networks.parameters(), lr=_LEARNING_RATE)
        items = torch.cat([self.data("train"), self.data("valid")])
        generator = torch.Generator().manual_seed(self.seed)
        # Sums in another order would, step by step, lead to another trained state.
        with drawing_from(Draws(generator)), one_thread():
            for _ in range(self.steps):
                chosen = items[torch.randint(len(items), (_BATCH,), generator=generator)]
                logits, f = self.problem_at(networks, self.preprocess(chosen, torch.float64))
                expected = _leave_one_out(logits, nested_cost(f, _leave_one_out))
                objective = expected + analytic_terms(self, logits, f)  # [B]
                optimiser.zero_grad()
                objective.mean().backward()
                optimiser.step()
        return networks


def _leave_one_out(logits: Tensor, f: Cost) -> Tensor:
    """E f with its score-function gradient: [R, N, K] -> [R]."""
    z = sample(logits, _SAMPLES)  # [R, S, N, K]
    cost = f(z)  # [R, S]
    advantage = cost - leave_one_out_mean(cost, dim=1)
    score = nabla(log_prob(logits.unsqueeze(1), z))
    return (cost + advantage * score).mean(1)


def surprise(pixels: Tensor, x: Tensor) -> Tensor:
    """−log Πᵢ Bernoulli(xᵢ) of bits: logits [B, ..., D] and x [B, D] -> [B, ...].

        −log Bernoulli(x) = softplus((1 − 2x) · logit)

    A difference of two large numbers, softplus(logit) − x · logit, would lose what is near zero.
    """
    sign = 1 - 2 * x.to(pixels).reshape(len(x), *(1,) * (pixels.ndim - 2), -1)  # [B, 1, ..., D]
    return softplus(sign * pixels).sum(-1)
