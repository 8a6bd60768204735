"""Importance-weighted REINFORCE: samples of another policy, reweighted.

    ĝₙ = Wₙ f(z) ∇ log πₙ(zₙ),    zₙ ~ μₙ,    rₙ = πₙ(zₙ)/μₙ(zₙ),    w = Πₙ rₙ

    none  1                          sequence           w           token           rₙ
    geometric  w^(1/N)               sequence_truncate  min(w, C)   token_truncate  min(rₙ, C)
                                     sequence_mask      w 1[w ≤ C]  token_mask      rₙ 1[rₙ ≤ C]

The other policy is μ = softmax((1 − lag) log α): flatter for lag > 0, as an older one is, and
sharper for lag < 0, where the weights of rare categories explode; lag = 0 is `reinforce`.  The
value is w f(z), for every weighting.

`sequence` is unbiased, with a second moment of w that grows exponentially in N.  `token` is the
gradient with the other latents from μ: exact where f is a sum over latents, and for N = 1.  The
others are biased as well, the truncated and masked ones once the cap C bites.  `geometric` is the
weight of GSPO, whose surrogate has a further factor 1/N when it is differentiated.  A constant
added to f changes the mean too, but for sequence and token.

Owen, "Monte Carlo theory, methods and examples", 2013; Zheng et al., "Group sequence policy
optimization", 2025, arXiv 2507.18071.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Gt, Lt
from torch import Tensor

from gradest import LAWS, Cost, Estimator
from gradest.categorical import log_prob, nabla, sample
from gradest.knobs import Positive

_Weighting = Literal[
    "none",
    "sequence",
    "token",
    "sequence_truncate",
    "token_truncate",
    "sequence_mask",
    "token_mask",
    "geometric",
]


@dataclass(eq=False)
class ImportanceWeighted(Estimator):
    unbiased = False  # whatever the weighting: `sequence` alone has no bias
    laws = LAWS - {"constant"}
    evaluations = "1"
    weighting: _Weighting = "token_truncate"
    lag: Annotated[float, Gt(-1), Lt(1)] = 0.5
    cap: Positive = 2.0

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        older = (1 - self.lag) * logits.detach()
        z = sample(older)  # [R, N, K]
        cost = f(z)  # [R]
        log_pi = log_prob(logits.unsqueeze(-2), z.unsqueeze(-2))  # latent by latent, [R, N]
        log_r = log_pi.detach() - log_prob(older.unsqueeze(-2), z.unsqueeze(-2))
        weight = cost.unsqueeze(1) * self._weights(log_r)  # [R, N]
        return log_r.sum(1).exp() * cost + (weight * nabla(log_pi)).sum(1)  # [R]

    def _weights(self, log_r: Tensor) -> Tensor:
        """W: [R, N]."""
        kind, _, limit = self.weighting.partition("_")
        if kind == "none":
            return log_r.new_ones(log_r.shape)
        if kind == "geometric":
            return log_r.mean(1, keepdim=True).exp().expand_as(log_r)
        w = log_r if kind == "token" else log_r.sum(1, keepdim=True).expand_as(log_r)
        w = w.exp()
        if limit == "truncate":
            return w.clamp(max=self.cap)
        return w.masked_fill(w > self.cap, 0.0) if limit == "mask" else w
