"""MuProp: REINFORCE with a Taylor expansion around the mean as control variate.

    ĝ = (f(z) − h(z)) ∇ log p(z) + ∇h(π),    h(z) = f(π) + ⟨f'(π), z − π⟩,    z ~ p

where ∇h(π) = J(π) f'(π) is the gradient of E h, and the inner product runs over all latents.
Unbiased whatever f is, since E h is known; zero variance when f is affine.  This is the case of one
stochastic layer, for which π is the paper's mean-field pass.  2 evaluations of f, and one of f' at
π, off the vertices.

Gu, Levine, Sutskever & Mnih, "MuProp: unbiased backpropagation for stochastic neural networks",
2016, arXiv 1511.05176.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gradest import LAWS, Cost, Estimator
from gradest.categorical import log_prob, nabla, sample, softmax


@dataclass(eq=False)
class MuProp(Estimator):
    relaxes = True
    differentiates = True
    laws = LAWS
    evaluations = "2"

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits)  # [R, N, K]
        cost = f(z)  # [R]
        pi = softmax(logits)  # [R, N, K]
        x = pi.detach().requires_grad_()  # where f is expanded
        f_x = f.frozen(x)  # [R]
        (slope,) = torch.autograd.grad(f_x.sum(), x)  # [R, N, K], f'(π)
        # Detached, because autograd.grad has freed the graph of f_x.
        h = f_x.detach() + (slope * (z - pi)).sum((-2, -1))  # [R]
        mean = (slope * nabla(pi)).sum((-2, -1))  # [R], with the gradient of E h
        return cost + (cost - h) * nabla(log_prob(logits, z)) + mean  # [R]
