"""CategoryFlip: BitFlip for categories, one latent moved to one other category.

    ĝₙ = N (f(z) − f(zₙ←j)) (e_k − e_j) / (1/(1 − π_k) + 1/(1 − π_j))
    n ~ Uniform{1..N},    z ~ p,    k = zₙ,    j ~ πₙ(· | ≠ k)

and zero in the other latents; zₙ←j is z with latent n set to category j.  Given n and the other
latents the pair (k, j) has the probability π_k π_j/(1 − π_k), and (j, k) together with it
π_k π_j (1/(1 − π_k) + 1/(1 − π_j)).  Dividing by the bracket leaves Σ_{k<j} π_k π_j (f_k − f_j)
(e_k − e_j), which is the gradient: ĝ is unbiased.

Two evaluations of f, on the vertices, whatever N and K.  Proposed here, under a name of ours: no
paper is known that has it.  K = 2 is `bitflip`, of the paper below, and N = 1 is `unordered_set`
with two samples.

Kunes, Yin, Land, Haviv, Pe'er & Tavaré, "Gradient estimation for binary latent
variables via gradient variance clipping", 2022, arXiv 2208.06124.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gradest import LAWS, Cost, Estimator
from gradest.categorical import nabla, sample


@dataclass(eq=False)
class CategoryFlip(Estimator):
    laws = LAWS
    evaluations = "2"

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)  # [R, N, K]
        latents = torch.zeros_like(logits[..., 0]).unsqueeze(1)  # [R, 1, N]
        n = sample(latents).argmax(-1, keepdim=True)  # [R, 1, 1]
        k = z.take_along_dim(n, 1)  # [R, 1, K], one-hot
        log_pi = logits.detach().log_softmax(-1).take_along_dim(n, 1)  # [R, 1, K]
        others = log_pi.masked_fill(k > 0, -torch.inf)
        alone = (others == -torch.inf).all(-1, keepdim=True)  # no other category can be drawn
        j = sample(others.masked_fill(alone, 0.0))  # [R, 1, K]
        chosen = torch.arange(z.shape[1], device=z.device).unsqueeze(1) == n  # [R, N, 1]
        flipped = torch.where(chosen, j, z)  # [R, N, K]
        cost = f(z)  # [R]
        difference = cost - f.frozen(flipped)  # [R]
        not_k = others.logsumexp(-1)  # log(1 − π_k), [R, 1]
        not_j = log_pi.masked_fill(j > 0, -torch.inf).logsumexp(-1)
        bracket = torch.logaddexp(-not_k, -not_j)  # [R, 1]
        g = (z.shape[1] * (-bracket).exp() * difference.unsqueeze(1)).unsqueeze(2) * (z - flipped)
        return cost + (g * nabla(logits)).sum((-2, -1))  # [R]
