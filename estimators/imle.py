"""I-MLE: the difference of hard samples at logits and at logits perturbed by f'.

    ĝ = (z − z') / λ,    z = argmax(log α + G),    z' = argmax(log α − λ f'(z) + G)

G is the same Gumbel noise in both.  The division by λ makes ĝ a difference quotient, an estimate of
∇ E f; the published code leaves it out, so that its gradient grows with λ.  For affine f the
mean is (π − softmax(log α − λ f'))/λ, with a bias of order λ.  Otherwise it is biased however
small λ, for a quadratic f too.  The variance is of order 1/λ, most estimates being zero.

f must be differentiable at the vertices; one evaluation and one derivative.  ĝ is not proportional
to f: λ f' is a fixed step, which should suit the scale of f'.

Niepert, Minervini & Franceschi, "Implicit MLE: backpropagating through discrete exponential family
distributions", 2021, arXiv 2106.01798.
"""

from dataclasses import dataclass

from torch import Tensor

from gradest import LAWS, Cost, SurrogateSample
from gradest.categorical import gumbel_max, likeliest, nabla, with_pullback
from gradest.knobs import Positive

from ._derivative import cost_and_derivative


@dataclass(eq=False)
class IMLE(SurrogateSample):
    laws = LAWS - {"scale"}
    degree = 1
    limit = {"lambda_": 0.05}
    lambda_: Positive = 1.0

    def draw(self, logits: Tensor) -> Tensor:
        """A sample whose d is the derivative of the loss: of a mean over B rows, f'/B.

        λ has to be B times as large then.
        """
        z, perturbed = gumbel_max(logits.detach())  # [R, N, K]
        return with_pullback(z, logits, lambda d: self._move(z, perturbed, d))

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        # Not f(draw(logits)), whose λ would act on the multiple of f' that a loss takes.
        z, perturbed = gumbel_max(logits.detach())  # [R, N, K]
        cost, d = cost_and_derivative(f, z)  # [R], [R, N, K]
        return cost + (self._move(z, perturbed, d) * nabla(logits)).sum((-2, -1))  # [R]

    def _move(self, z: Tensor, perturbed: Tensor, d: Tensor) -> Tensor:
        """ĝ: [R, N, K]."""
        target = likeliest(perturbed - self.lambda_ * d)
        return (z - target) / self.lambda_
