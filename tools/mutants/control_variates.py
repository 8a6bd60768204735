"""Wrong variants of muprop, rebar, relax, double_cv and rodeo."""

from .mutant import Mutant

# The printed formula with v = e⁻ᴱ: −log(−log v_i/α_i − log v_b), in which Σα is taken to be one.
_NORMALISED = """
def conditional_gumbel(logits, b):
    from gradest.randomness import draws

    log_e = draws().exponential(b.shape, logits).log().to(logits.dtype)
    top = log_e.gather(-1, b.argmax(-1, keepdim=True))
    return -torch.where(b > 0, top, torch.logaddexp(log_e - logits, top))
"""

# The logistic given its sign; as the relaxation reads differences, (0, z) stands for both Gumbels.
_BERNOULLI = """
from gradest import categorical


def conditional_gumbel(logits, b):
    from gradest.randomness import draws

    if logits.shape[-1] != 2:
        return categorical.conditional_gumbel(logits, b)
    theta = (logits[..., 1] - logits[..., 0]).sigmoid()
    v = draws().uniform(theta.shape, theta)
    v = torch.where(b[..., 1] > 0, 1 - theta + v * theta, v * (1 - theta))
    z = v.log() + torch.log1p(v)  # in the place of v.log() - torch.log1p(-v)
    return torch.stack([torch.zeros_like(z), z], -1)
"""

_TOGETHER = "return cost + (cost - c_tilde) * nabla(log_prob(logits, b)) + nabla(c - c_tilde)"

CONTROL_VARIATES = [
    Mutant(
        of="rebar",
        mistake="no gradient through z̃",
        old="torch.stack([z, z_tilde], 1)",
        new="torch.stack([z, z_tilde.detach()], 1)",
        law="bias",
        known="a conditional sample that is held fixed",
    ),
    Mutant(
        of="rebar",
        mistake="z̃ moves with the logits as z does",
        old="omega * nabla(logits) + (1 - omega) * nabla(total)",
        new="nabla(logits)",
        law="bias",
        known="a conditional sample that moves as the unconditional one does",
    ),
    Mutant(
        of="rebar",
        mistake="the logsumexp in z̃ detached",
        old="(1 - omega) * nabla(total)",
        new="(1 - omega) * nabla(total.detach())",
        law="bias",
        known="a conditional sample whose normaliser is held fixed",
    ),
    Mutant(
        of="rebar",
        mistake="the logsumexp in z̃ detached, z̃ drawn anew",
        stand_in="""
def conditional_gumbel(logits, b):
    from gradest.randomness import draws

    log_e = draws().exponential(b.shape, logits).log().to(logits.dtype)
    total = logits.detach().logsumexp(-1, keepdim=True)
    top = log_e.gather(-1, b.argmax(-1, keepdim=True)) - total
    return -torch.where(b > 0, top, torch.logaddexp(log_e - logits, top))
""",
        knobs={"coupled": False},
        law="bias",
        known="a conditional sample whose normaliser is held fixed",
    ),
    Mutant(
        of="rebar",
        mistake="a conditional law that takes Σα for one",
        stand_in=_NORMALISED,
        knobs={"coupled": False},
        law="bias",
        known="the printed conditional formula, which holds for normalised α alone",
    ),
    Mutant(
        of="relax",
        mistake="a conditional law that takes Σα for one",
        stand_in=_NORMALISED,
        law="bias",
        known="the printed conditional formula, which holds for normalised α alone",
    ),
    Mutant(
        of="rebar",
        mistake="log v + log(1 + v) for log v − log(1 − v) in z̃ of a bit",
        stand_in=_BERNOULLI,
        knobs={"coupled": False},
        law="bias",
        known="a Bernoulli conditional with the wrong sign (found in a published library)",
    ),
    Mutant(
        of="rebar",
        mistake="the gradient of the relaxation alone",
        old=_TOGETHER,
        new="return cost + nabla(c)",
        law="bias",
        known="a relaxation named REBAR, without a control variate (found in a published library)",
    ),
    Mutant(
        of="rebar",
        mistake="η on one of the two control variates",
        old=".unbind(1)  # [R]\n        cost",
        new=".unbind(1)\n        c = c / self._eta\n        cost",
        law="bias",
    ),
    Mutant(
        of="rebar",
        mistake="z̃ is z",
        old="z_tilde = _tied(logits, b, z) if self.coupled else conditional_gumbel(logits, b)",
        new="z_tilde = z",
        law="bias",
    ),
    Mutant(
        of="relax",
        mistake="∇c(z) − ∇c(z̃) with the wrong sign",
        old="nabla(c - c_tilde)",
        new="nabla(c_tilde - c)",
        law="bias",
    ),
    Mutant(
        of="relax",
        mistake="no control variate beside the score",
        old="(cost - c_tilde) * nabla",
        new="cost * nabla",
        law="bias",
    ),
    Mutant(
        of="muprop",
        mistake="the mean of the expansion not added back",
        old=" * nabla(log_prob(logits, z)) + mean",
        new=" * nabla(log_prob(logits, z))",
        law="bias",
    ),
    Mutant(
        of="muprop",
        mistake="the mean of the expansion added back without the Jacobian",
        old="(slope * nabla(pi))",
        new="(slope * nabla(logits))",
        law="bias",
    ),
    Mutant(
        of="muprop",
        mistake="the first order over one latent instead of all",
        old="(slope * (z - pi)).sum((-2, -1))",
        new="(slope * (z - pi))[:, 0].sum(-1)",
        law="bias",
    ),
    Mutant(
        of="double_cv",
        mistake="the mean of the control variate with the wrong sign",
        old=".mean(1) - mean",
        new=".mean(1) + mean",
        law="bias",
    ),
    Mutant(
        of="double_cv",
        mistake="the own derivative instead of the others'",
        old="(score * leave_one_out_mean(slope, dim=1))",
        new="(score * slope)",
        law="bias",
    ),
    Mutant(
        of="double_cv",
        mistake="the derivative at θ (1 − θ) summed over the samples",
        old="slope.mean(1)",
        new="slope.sum(1)",
        law="bias",
    ),
    Mutant(
        of="rodeo",
        mistake="a function that has seen its own sample",
        old="others = 1 - torch.eye(b.shape[1], dtype=h.dtype, device=h.device)",
        new="others = torch.ones(b.shape[1], b.shape[1], dtype=h.dtype, device=h.device)",
        law="bias",
    ),
    Mutant(
        of="rodeo",
        mistake="the chance of the value that is there instead of the other",
        old="q = (flip * phi.unsqueeze(1))",
        new="q = (-flip * phi.unsqueeze(1))",
        law="bias",
    ),
    Mutant(
        of="rodeo",
        mistake="y − θ left as it was at the flip",
        old="differs * score + q * h_star[..., 1:] * flip",
        new="differs * score",
        law="bias",
    ),
    Mutant(
        of="double_cv",
        mistake="claims to need no derivative",
        old="    differentiates = True\n",
        new="",
        law="derivative",
    ),
]
