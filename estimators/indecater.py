"""IndeCateR: the CatLog-derivative trick for independent categorical latents.

    ĝₙ = Σ_k ∇πₙ_k · 1/S Σₛ f(zₛ with latent n set to k),    zₛ ~ p

Unbiased for every S.  The S samples are shared by all latents and categories, as in the authors'
code, which makes ĝ the mean of S local expectation gradients: S = 1 is `local_expectation`, and
the variance falls as 1/S.

Needs f on the vertices alone, at S (N (K − 1) + 1) of them; the paper's S N K would evaluate f(zₛ)
once for each latent.

De Smet, Sansone & Zuidberg Dos Martires, "Differentiable sampling of categorical distributions
using the CatLog-derivative trick", 2023, arXiv 2311.12569.
"""

from dataclasses import dataclass

from torch import Tensor

from gradest import LAWS, Cost, Estimator
from gradest.categorical import gains, nabla, sample, softmax
from gradest.knobs import AtLeast1


@dataclass(eq=False)
class IndeCateR(Estimator):
    laws = LAWS
    evaluations = "samples * (1 + N * (K - 1))"
    samples: AtLeast1 = 2

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits, self.samples)  # [R, S, N, K]
        cost = f(z)  # [R, S]
        gain = gains(f.frozen, z, cost).mean(1)  # [R, N, K]
        return cost.mean(1) + (gain * nabla(softmax(logits))).sum((-2, -1))  # [R]
