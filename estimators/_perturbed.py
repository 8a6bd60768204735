"""Costs at perturbed logits under common noise."""

from torch import Tensor

from gradest import Cost
from gradest.categorical import gumbel, likeliest


def perturbed_costs(logits: Tensor, f: Cost, shifts: Tensor) -> Tensor:
    """f(argmax(log α + δ + G)) for P shifts δ and one G: [R, N, K] and [R, P, N, K] -> [R, P].

    Each is an unbiased estimate of E f at log α + δ.  With G in common two of them differ in the
    fraction O(|δ|) of the draws, so a quotient of differences has a variance of O(1/|δ|); with
    independent noise it would be O(1/|δ|²).
    """
    z = (logits + gumbel(logits)).detach().unsqueeze(1) + shifts  # [R, P, N, K]
    return f(likeliest(z))
