"""GOSTE: the straight-through estimator of least variance for its bias.

    ĝₙ = S(zₙ)ᵀ f'ₙ(z),    z ~ Cat(π),    with a K × K matrix S(x) for each category x, minimising
    E‖S(x)‖² + 1/(2ε) Σ_{x,i,j} (π_x S_ij(x) + π_i S_xj(i) − J_xj [i = x])²    subject to E S = J

with J = J(π) = diag(π) − ππᵀ.  The constraint makes ĝ unbiased for f affine in each latent, at
every ε; the penalty is the bias for quadratic f.  As ε → 0, where it vanishes, ĝ is exact for
quadratic f, and reinmax for K = 2; a large ε gives straight_through.  The paper's weight is
τ = 1/ε, which its authors anneal from 1 to 10⁶.  In each latent, with d_ij = ε + π_i + π_j,

    A_ij = −π_i π_j/d_ij,    A_ii = (ε + π_i) Σ_{j≠i} π_j/d_ij + ε π_i/d_ii
    A v = diag((ε + π_i)/d_ii) J,    S_i(x) = [(ε + π_i) v_i − π_i v_x + 1[i = x] J_x] / d_ix

solved in float64, everything divided by 1 + ε.  The objective is read off the authors' code.  f'
is that at the vertex; one evaluation and one derivative.

Hooper & Shekhovtsov, "Generalized and optimal straight-through estimators", AISTATS, 2026.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from gradest import SurrogateSample
from gradest.categorical import sample, softmax, with_pullback


@dataclass(eq=False)
class GOSTE(SurrogateSample):
    degree = 2
    limit = {"eps": 0.0}
    slow = "solves a system of K equations for each latent of every row"
    eps: Annotated[float, Ge(0)] = 0.1

    def draw(self, logits: Tensor) -> Tensor:
        z = sample(logits)  # [R, N, K]
        return with_pullback(z, logits, self._pullback(logits.detach(), z))

    def _pullback(self, logits: Tensor, z: Tensor) -> Callable[[Tensor], Tensor]:
        """f' ↦ S(z)ᵀ f': [R, N, K] -> [R, N, K]."""
        s, t = self.eps / (1 + self.eps), 1 / (1 + self.eps)
        pi, x = softmax(logits.double()), z.double()  # [R, N, K]
        d = s + t * (pi.unsqueeze(-1) + pi.unsqueeze(-2))  # [R, N, K, K]
        d = d.masked_fill(d == 0, 1.0)  # between two masked categories, where π_i π_j = 0
        jacobian = pi.diag_embed() - pi.unsqueeze(-1) * pi.unsqueeze(-2)
        own = d.diagonal(dim1=-2, dim2=-1)  # [R, N, K]
        ratio = pi.unsqueeze(-2) / d * (1 - torch.eye(pi.shape[-1]).to(d))  # π_j/d_ij for j ≠ i
        diagonal = (s + t * pi) * ratio.sum(-1) + s * pi / own
        a = diagonal.diag_embed() - t * pi.unsqueeze(-1) * ratio  # [R, N, K, K]
        v = _solution(a, ((s + t * pi) / own).unsqueeze(-1) * jacobian)  # [R, N, K, K]
        v_x = torch.einsum("rni,rnij->rnj", x, v)
        d_x = (x.unsqueeze(-2) @ d).squeeze(-2)  # d_iz, [R, N, K]
        j_x = (x.unsqueeze(-2) @ jacobian).squeeze(-2)

        def pullback(slope: Tensor) -> Tensor:
            h = slope.double() / d_x
            pull = torch.einsum("rni,rnij->rnj", h * (s + t * pi), v)
            pull = pull - t * (h * pi).sum(-1, keepdim=True) * v_x
            return (pull + t * (h * x).sum(-1, keepdim=True) * j_x).to(slope)

        return pullback


def _solution(a: Tensor, b: Tensor) -> Tensor:
    """A⁺ B for symmetric A ≥ 0, scaled to a diagonal of ones: π may span many magnitudes.

    At ε = 0 the vector of ones is in the null space, and the unit vector of a masked category.
    """
    diagonal = a.diagonal(dim1=-2, dim2=-1)  # [..., K]
    scale = diagonal.masked_fill(diagonal == 0, 1.0).rsqrt()
    scaled = scale.unsqueeze(-1) * a * scale.unsqueeze(-2)
    return scale.unsqueeze(-1) * (
        torch.linalg.pinv(scaled, hermitian=True) @ (scale.unsqueeze(-1) * b)
    )
