"""The vocabulary in which estimators are written.

Alphabet: R rows, S samples, N latents, K categories.  `logits` are log α, unnormalised.  Samples
are one-hot in their last axis.  Every draw comes from the source in `gradest.randomness`.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from gradest.randomness import FEW, draws


def nabla(x: Tensor) -> Tensor:
    """Zero in value, x in gradient: the ∇ of the papers.

    `w * nabla(x)` has the gradient w ∇x and no other term, because the product rule multiplies
    ∇w by zero; so a weight never needs to be detached.  Where x is −∞, such as the logit of a
    masked category, the gradient is zero too.
    """
    x = x.clamp(min=torch.finfo(x.dtype).min)  # −∞ − (−∞) would be NaN
    return x - x.detach()


def sample(logits: Tensor, samples: int | None = None) -> Tensor:
    """One-hot draws from Cat(softmax(logits)), without a gradient.

    [R, N, K] -> [R, N, K], or [R, S, N, K] with S = `samples`.  Rows are independent.
    """
    index = draws().categories(logits, samples or 1)  # [R, S, N]
    return one_hot(index.squeeze(1) if samples is None else index, logits)


def one_hot(index: Tensor, like: Tensor) -> Tensor:
    """One-hot rows over the categories of `like`, in its dtype: [...] -> [..., K]."""
    if index.shape == like.shape[:-1]:
        zeros = torch.zeros_like(like)
    else:
        zeros = like.new_zeros((*index.shape, like.shape[-1]))
    return zeros.scatter_(-1, index.unsqueeze(-1), 1.0)


def likeliest(logits: Tensor) -> Tensor:
    """The one-hot code of the largest logit of each latent: [..., K] -> [..., K]."""
    return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)


def softmax(x: Tensor) -> Tensor:
    """The softmax over the last axis.

    The numbers are those of torch, whose kernel is several times slower on a short last axis, and
    faster only for few numbers.
    """
    if x.numel() <= FEW and draws().lean:
        return x.softmax(-1)
    e = (x - x.detach().amax(-1, keepdim=True)).exp()
    return e / e.sum(-1, keepdim=True)


def log_softmax(x: Tensor) -> Tensor:
    """The logarithm of `softmax`, in a stable form, and faster than torch's where that is."""
    if x.numel() <= FEW and draws().lean:
        return x.log_softmax(-1)
    x = x - x.detach().amax(-1, keepdim=True)
    return x - x.exp().sum(-1, keepdim=True).log()


def tempered(z: Tensor, temperature: Tensor) -> Tensor:
    """z/λ for a softmax, with a gradient to λ; masked categories, with z = −∞, do not contribute.

    Their contribution would be 0 · (−∞), the product of their weight and z.
    """
    return (unmasked(z) / temperature).masked_fill(z == -torch.inf, -torch.inf)


def unmasked(logits: Tensor) -> Tensor:
    """The logits with 0 for −∞, for code that needs finite numbers."""
    return logits.masked_fill(logits == -torch.inf, 0.0)


def log_prob(logits: Tensor, z: Tensor) -> Tensor:
    """log p(z) = Σₙ log softmax(logitsₙ)[zₙ]: [..., N, K] and one-hot [..., N, K] -> [...].

    Gathered, not multiplied by z: 0 · (−∞) of a masked category would be NaN.
    """
    shape = np.broadcast_shapes(logits.shape, z.shape)  # torch's own imports sympy, for 0.7 s
    index = z.argmax(-1, keepdim=True).expand(*shape[:-1], 1)
    chosen = logits.expand(shape).gather(-1, index).squeeze(-1)  # [..., N]
    return (chosen - logits.logsumexp(-1)).sum(-1)


def kl_divergence(logits: Tensor, prior: Tensor) -> Tensor:
    """KL(Cat(logits) ‖ Cat(prior)), latent by latent: [..., K] and [..., K] -> [...]."""
    log_q = log_softmax(logits)
    # A masked category has q = 0 and log q = −∞, whose product is 0, in the gradient too.
    finite = torch.where(log_q > -torch.inf, log_q - prior.log_softmax(-1), 0.0)
    return (log_q.exp() * finite).sum(-1)


def gumbel(like: Tensor) -> Tensor:
    """Standard Gumbel noise G = −log E, E ~ Exp(1), in the shape of `like`.

    From exponentials, since −log(−log u) with a float32 u never exceeds 16.64.
    """
    return -draws().log_exponential(like).to(like.dtype)


def perturbed(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """z = (log α + G) / τ, with the gradient to the logits: [..., K] -> [..., K]."""
    source = draws()
    log_e = source.log_exponential(logits)
    if log_e.dtype is not logits.dtype:
        log_e = log_e.to(logits.dtype)
    if temperature == 1.0:
        return logits - log_e
    if source.lean:  # a single operation with a derivative, whose backward pass is what takes time
        return torch.add(log_e.mul_(-1 / temperature), logits, alpha=1 / temperature)
    return (logits - log_e) / temperature


def gumbel_max(logits: Tensor, samples: int | None = None) -> tuple[Tensor, Tensor]:
    """The Gumbel-max trick: z = log α + G and the one-hot b = argmax z ~ Cat(α).

    [R, N, K] -> b and z, each [R, N, K], or [R, S, N, K]; z carries the gradient to the logits.

    Maddison, Tarlow & Minka, "A* Sampling", 2014, arXiv 1411.0030.
    """
    if samples is not None:
        logits = logits.unsqueeze(1).expand(-1, samples, *logits.shape[1:])
    z = perturbed(logits)
    return likeliest(z.detach()), z


def exponential_race(logits: Tensor, samples: int | None = None) -> Tensor:
    """One-hot z of the first arrival, argmin E/α, without a gradient; E ~ Exp(1).

    The index of the Gumbel-max trick for the same E, since log α + G = −log(E/α), without the
    logarithms: [R, N, K] -> [R, N, K], or [R, S, N, K] with S = `samples`.  A rate that underflows
    relative to the largest arrives at infinity; in float32 its probability is below e⁻¹⁰³.
    """
    rate = (logits - logits.amax(-1, keepdim=True)).detach().exp()
    if samples is not None:
        rate = rate.unsqueeze(1).expand(-1, samples, *rate.shape[1:])
    arrival = draws().exponential(rate.shape, rate) / rate
    return one_hot(arrival.argmin(-1), rate)


def conditional_gumbel(logits: Tensor, b: Tensor, samples: int | None = None) -> Tensor:
    """z = log α + G given that argmax z = b, reparameterised in the logits.

        z_b = log Σα − log E_b,    z_i = −log(E_i/α_i + E_b/Σα)  for i ≠ b,    E ~ Exp(1)

    in the form −logaddexp(log E_i − log α_i, log E_b − log Σα), which is stable for any size of α.
    The gradient also flows through log Σα; without it the derivative of z would be biased.
    [..., N, K] and one-hot [..., N, K] -> [..., N, K], or [R, N, K] twice -> [R, S, N, K] with
    S = `samples`.

    Tucker, Mnih, Maddison, Lawson & Sohl-Dickstein, "REBAR", 2017, arXiv 1703.07370, whose
    printed formula is the case Σα = 1.
    """
    chosen, total = b.argmax(-1, keepdim=True), logits.logsumexp(-1, keepdim=True)
    shape = b.shape
    if samples is not None:
        shape = (len(b), samples, *b.shape[1:])
        logits, chosen, total = logits.unsqueeze(1), chosen.unsqueeze(1), total.unsqueeze(1)
    chosen = chosen.expand(*shape[:-1], 1)
    log_e = draws().exponential(shape, logits).log().to(logits.dtype)
    top = log_e.gather(-1, chosen) - total
    # Expanded first, since torch's logaddexp is six times slower where it broadcasts a short axis.
    below = torch.logaddexp(log_e - logits, top.expand(shape).contiguous())
    return -below.scatter(-1, chosen, top)


def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """`hard` in value, `soft`, which is finite, in gradient."""
    if draws().lean and not torch.compiler.is_compiling():
        z = soft.clone()
        z.detach().copy_(hard)  # one operation in the graph where there would be four
        return z
    return hard + nabla(soft)


def with_pullback(z: Tensor, logits: Tensor, pullback: Callable[[Tensor], Tensor]) -> Tensor:
    """z in value; a derivative g with respect to it becomes pullback(g) for the logits.

    For surrogates that are given as Jacobians and are not the derivative of anything.  `pullback`
    maps [R, N, K] to [R, N, K] and should draw nothing: it is called in the backward pass.
    """
    return _Pullback.apply(z.detach(), logits, pullback)


class _Pullback(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z: Tensor, logits: Tensor, pullback: Callable) -> Tensor:
        # What pullback closes over is not seen by those who count saved tensors; these are.
        ctx.save_for_backward(z, logits)
        ctx.pullback = pullback
        return z.view_as(z)

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[None, Tensor, None]:
        return None, ctx.pullback(g), None


def leave_one_out_mean(x: Tensor, dim: int) -> Tensor:
    """For each entry the mean of the others along `dim`; needs at least two."""
    return (x.sum(dim, keepdim=True) - x) / (x.shape[dim] - 1)


def without_each(logits: Tensor) -> Tensor:
    """The logits with category k masked, for each k: [..., K] -> [..., K, K].

    They give the distribution of z given z ≠ k; with log π as logits, the logsumexp is log(1 − π_k)
    without the rounding of 1 − π_k.
    """
    own = torch.eye(logits.shape[-1], dtype=torch.bool, device=logits.device)
    return logits.unsqueeze(-2).masked_fill(own, -torch.inf)


def neighbours(z: Tensor) -> Tensor:
    """Every code that differs from z in one latent: [..., N, K] -> [..., N, K − 1, N, K].

    Entry (n, j) has latent n moved by j + 1 categories, cyclically.
    """
    latents = torch.eye(z.shape[-2], dtype=torch.bool, device=z.device)[:, None, :, None]
    changed = one_hot(_next_categories(z), z).unsqueeze(-2)  # [..., N, K − 1, 1, K]
    return torch.where(latents, changed, z[..., None, None, :, :])


def gains(f: Callable[[Tensor], Tensor], z: Tensor, cost: Tensor) -> Tensor:
    """f(z) with latent n set to category k, minus `cost` = f(z): [..., N, K] -> [..., N, K].

    It is zero for the present category, so that it takes N (K − 1) evaluations, one a neighbour.
    """
    change = f(neighbours(z)) - cost[..., None, None]  # [..., N, K − 1]
    return torch.zeros_like(z).scatter(-1, _next_categories(z), change)


def _next_categories(z: Tensor) -> Tensor:
    """The categories after that of z, cyclically: [..., N, K] -> [..., N, K − 1]."""
    steps = torch.arange(1, z.shape[-1], device=z.device)
    return (z.argmax(-1, keepdim=True) + steps) % z.shape[-1]
