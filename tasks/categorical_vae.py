"""A variational autoencoder with categorical latents, on binarised handwritten digits.

    f(z) = −log p(x | z),    z ~ q(z | x) = Πₙ Cat(αₙ(x)),    prior uniform

so that E f + KL(q(z | x) ‖ uniform) is the negative ELBO of a data point and every gradient is the
discrete ELBO's.  log α comes from an encoder 64-H-(N × K), the pixels' logits from a decoder
(N × K)-H-64, both with tanh.  Off the vertices the decoder reads the relaxed code in place of the
one-hot one.

Encoder and decoder are trained for `steps` steps before anything is measured, with a leave-one-out
score function, which favours no relaxation; the trained state is kept in the cache folder.  What
is measured is a fixed batch of `points` held-out digits, the first or the one of number `batch`.

The architecture is that of Jang, Gu & Poole, "Categorical reparameterization with Gumbel-softmax",
2017, arXiv 1611.01144, at the size of these digits.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.nn.utils import skip_init

from gradest import Cost, Problem, Task
from gradest.categorical import leave_one_out_mean, log_prob, nabla, sample
from gradest.errors import KnobError
from gradest.knobs import AtLeast1, AtLeast2
from gradest.objectives import beside
from gradest.randomness import Draws, drawing_from
from gradest.registry import source_digest
from gradest.threads import one_thread

from ._cache import cached_state
from ._digits import HELD_OUT, binarised_digits

_BATCH, _SAMPLES, _LEARNING_RATE = 100, 4, 3e-3


@dataclass(eq=False)
class CategoricalVAE(Task):
    parameters: ClassVar[tuple[str, ...]] = ("encoder",)
    latents: AtLeast1 = 4
    categories: AtLeast2 = 8
    hidden: AtLeast1 = 64
    steps: AtLeast1 = 200
    points: AtLeast1 = 4
    batch: Annotated[int, Ge(0)] = 0
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.batch + 1) * self.points > HELD_OUT:
            raise KnobError(
                f"{self.name}: points = {self.points} and batch = {self.batch}; "
                f"{HELD_OUT} digits are held out"
            )

    def problem(self, batch: Tensor | None = None) -> Problem:
        if not hasattr(self, "_networks"):
            identity = {**self.knobs, "source": source_digest(type(self))}
            for measured_alone in ("points", "batch"):
                del identity[measured_alone]
            state = cached_state(self.name, identity, lambda: self._trained().state_dict())
            self._networks = self._untrained()
            self._networks.load_state_dict(state)
            self._networks["decoder"].requires_grad_(False)
        if batch is None:
            start = self.batch * self.points
            batch = binarised_digits()[1][start : start + self.points]  # [B, D]
        return self._elbo(self._networks, batch)

    def group(self, name: str) -> Iterable[Tensor]:
        return self._networks[name].parameters()

    def _elbo(self, networks: nn.ModuleDict, x: Tensor) -> Problem:
        logits = networks["encoder"](x).unflatten(-1, (self.latents, self.categories))

        def cost(z: Tensor, decoder: Callable[[Tensor], Tensor]) -> Tensor:
            pixels = decoder(z.flatten(-2))  # [B, ..., D]
            target = x.to(z).reshape(len(x), *(1,) * (pixels.ndim - 2), -1)  # [B, 1, ..., D]
            return (softplus(pixels) - target * pixels).sum(-1)  # [B, ...]

        prior = logits.new_zeros(logits.shape[1:])
        return Problem(logits, Cost(cost, networks["decoder"], prior=prior, kl="exact"))

    def _untrained(self) -> nn.ModuleDict:
        draws = torch.Generator().manual_seed(self.seed)
        code, pixels = self.latents * self.categories, 64
        return nn.ModuleDict(
            {
                "encoder": _network(pixels, self.hidden, code, draws),
                "decoder": _network(code, self.hidden, pixels, draws),
            }
        )

    def _trained(self) -> nn.ModuleDict:
        networks = self._untrained()
        optimiser = torch.optim.Adam(networks.parameters(), lr=_LEARNING_RATE)
        images = binarised_digits()[0]
        draws = torch.Generator().manual_seed(self.seed)
        # Sums in another order would, step by step, lead to another trained state.
        with drawing_from(Draws(draws)), one_thread():
            for _ in range(self.steps):
                x = images[torch.randint(len(images), (_BATCH,), generator=draws)]  # [B, D]
                logits, f = self._elbo(networks, x)
                z = sample(logits, _SAMPLES)  # [B, S, N, K]
                cost = f(z)  # [B, S]
                advantage = cost - leave_one_out_mean(cost, dim=1)
                score = nabla(log_prob(logits.unsqueeze(1), z))
                objective = (cost + advantage * score).mean(1) + beside(self, logits, f)  # [B]
                optimiser.zero_grad()
                objective.mean().backward()
                optimiser.step()
        return networks


def _network(inputs: int, hidden: int, outputs: int, draws: torch.Generator) -> nn.Sequential:
    layers = [
        skip_init(nn.Linear, i, o, dtype=torch.float64)
        for i, o in ((inputs, hidden), (hidden, outputs))
    ]
    for layer in layers:
        nn.init.xavier_uniform_(layer.weight, generator=draws)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.Tanh(), layers[1])
