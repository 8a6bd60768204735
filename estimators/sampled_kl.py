"""Sampled KL: leave-one-out, and a KL penalty estimated from the same samples.

    J = E f(z) + KL(π ‖ ref),    d = log π(z) − log ref(z),    ρ = ref/π,    z ~ π

    k1 = d        k2 = ½ d²        k3 = ρ − 1 + d        k3_k2 = k3, with the gradient of k2

These take the place of the divergence where `kl = "relaxed"`.  k1 and k3 are unbiased for its
value, k2 is not.  With g = ∇KL(π ‖ ref), their gradients have the means

    in      gradient of a sample    k1    k2            k3
    loss    ∇k at fixed z           0     g             ∇KL(ref ‖ π)
    reward  k ∇log π(z)             g     ∇E k2 − g     g − ∇KL(ref ‖ π)
    both    ∇k + k ∇log π(z)        g     ∇E k2         g

so that as a loss, which is how libraries differentiate them, only k2 is right; k2 as a loss is k1
in the reward, sample by sample.  k3_k2 as a loss has both the right value and the right gradient.
k3 has an unbounded variance where a word is rare under π alone.

The samples are those of an older policy, z ~ μ = softmax((1 − lag) log α), and every term has the
weight w = π(z)/μ(z), without which the gradients are biased.  On policy, at lag = 0, w is 1, and
without a divergence this is `rloo`.

Schulman, "Approximating KL divergence", blog, 2020; Liu, Liu, Chen & Liu, "Rethinking KL
regularization in RLHF: from value estimation to gradient optimization", 2025, arXiv 2510.01555.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Gt, Lt
from torch import Tensor

from gradest import LAWS, Cost, Estimator
from gradest.categorical import leave_one_out_mean, log_prob, nabla, sample
from gradest.knobs import AtLeast2


@dataclass(eq=False)
class SampledKL(Estimator):
    owns_kl = True
    evaluations = "samples"
    laws = LAWS
    kind: Literal["k1", "k2", "k3", "k3_k2"] = "k3_k2"
    place: Literal["loss", "reward", "both"] = "loss"
    samples: AtLeast2 = 4
    lag: Annotated[float, Gt(-1), Lt(1)] = 0.0

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        older = (1 - self.lag) * logits.detach()
        z = sample(older, self.samples)  # [R, S, N, K]
        cost = f(z)  # [R, S]
        log_pi = log_prob(logits.unsqueeze(1), z)  # [R, S]
        score = nabla(log_pi)
        w = (log_pi.detach() - log_prob(older.unsqueeze(1), z)).exp()
        others = leave_one_out_mean(w * cost, 1) / leave_one_out_mean(w, 1)
        advantage = cost - others  # a constant in f cancels, for any weights
        value = w * (cost + advantage * score)
        if f.kl == "relaxed" and f.prior is not None:
            value = value + w * self._divergence(log_pi - log_prob(f.prior.to(z), z), score)
        return value.mean(1)

    def _divergence(self, d: Tensor, score: Tensor) -> Tensor:
        """k of each sample, with the gradient that it has in its place: [R, S]."""
        k1, k2, k3 = d, d.square() / 2, (-d).expm1() + d
        k = {"k1": k1, "k2": k2, "k3": k3, "k3_k2": k3.detach() + nabla(k2)}[self.kind]
        return (k.detach() if self.place == "reward" else k) + (
            0.0 if self.place == "loss" else k * score
        )
