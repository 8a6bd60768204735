"""Wrong variants of concrete, gumbel_softmax and invertible_gaussian."""

from .mutant import Mutant

RELAXED = [
    Mutant(
        of="concrete",
        mistake="claims to be unbiased",
        old="    relaxes",
        new="    unbiased = True\n    relaxes",
        law="bias",
    ),
    Mutant(
        of="concrete",
        mistake="no noise",
        old="logits + gumbel(logits)",
        new="logits + 0 * gumbel(logits)",
        law="degree",
    ),
    Mutant(
        of="concrete",
        mistake="Gaussian noise",
        stand_in="""
def gumbel(logits):
    from gradest.randomness import draws

    return draws().normal(logits.shape, logits)
""",
        law="degree",
    ),
    Mutant(
        of="concrete",
        mistake="multiplied by the temperature",
        old=") / self.temperature",
        new=") * self.temperature",
        law="degree",
    ),
    Mutant(
        of="concrete",
        mistake="the temperature divides the logits alone",
        old="(logits + gumbel(logits)) / self.temperature",
        new="logits / self.temperature + gumbel(logits)",
        law="degree",
    ),
    Mutant(
        of="concrete",
        mistake="one noise for all latents",
        old="gumbel(logits))",
        new="gumbel(logits[:, :1]))",
        law="degree",
    ),
    Mutant(
        of="concrete",
        mistake="the sample's temperature for the prior's",
        old="self.prior_temperature or self.temperature",
        new="self.temperature",
        law="knobs",
    ),
    Mutant(
        of="concrete",
        mistake="the logarithm of a sample that underflows",
        old="z.log_softmax(-1)",
        new="softmax(z).log()",
        law="extreme logits",
    ),
    Mutant(
        of="concrete",
        mistake="the logits in the density held fixed",
        old="exp_concrete_log_prob(log_y, logits, self.temperature)",
        new="exp_concrete_log_prob(log_y, logits.detach(), self.temperature)",
        law="pathwise",
    ),
    Mutant(
        of="concrete",
        mistake="the divergence of one latent for all",
        old="(log_q - log_p).sum(1)",
        new="(log_q - log_p)[:, 0]",
        law="divergence",
    ),
    Mutant(
        of="concrete",
        mistake="the divergence with the wrong sign",
        old="log_q - log_p",
        new="log_p - log_q",
        law="divergence",
    ),
    Mutant(
        of="concrete",
        mistake="its own divergence without the claim, beside the closed form",
        old="owns_kl = True",
        new="owns_kl = False",
        law="divergence",
    ),
    Mutant(
        of="gumbel_softmax",
        mistake="the temperature without effect",
        old="softmax(perturbed(logits, self.temperature))",
        new="softmax(perturbed(logits, 0.5))",
        law="knobs",
    ),
    Mutant(
        of="gumbel_softmax",
        mistake="the factor 1/τ missing in the gradient",
        old="softmax(perturbed(logits, self.temperature))",
        new="softmax(perturbed(logits, self.temperature).detach() + logits - logits.detach())",
        law="pathwise",
    ),
    Mutant(
        of="gumbel_softmax",
        mistake="hard samples forward under the claim to relax",
        old="        return softmax(perturbed(logits, self.temperature))",
        new="        from gradest.categorical import gumbel_max\n\n"
        "        b, z = gumbel_max(logits)\n"
        "        y = softmax(z / self.temperature)\n"
        "        return b + y - y.detach()",
        law="vertices",
    ),
    Mutant(
        of="gumbel_softmax",
        mistake="the parameters of f frozen",
        old="    def draw",
        new="    def __call__(self, logits, f):\n"
        "        return f.frozen(self.draw(logits))\n\n"
        "    def draw",
        law="parameters",
    ),
    Mutant(
        of="invertible_gaussian",
        mistake="the last logit not subtracted",
        old="mu = logits[..., :-1] - logits[..., -1:]",
        new="mu = logits[..., :-1]",
        law="shift",
    ),
    Mutant(
        of="invertible_gaussian",
        mistake="δ without effect",
        old="math.log(self.delta)",
        new="0.0",
        law="knobs",
    ),
    Mutant(
        of="invertible_gaussian",
        mistake="noise that is left out of the gradient's point",
        old="return softmax(torch.cat([kappa / self.temperature, last], -1))",
        new="y = softmax(torch.cat([kappa / self.temperature, last], -1))\n"
        "        x = softmax(torch.cat([mu / self.temperature, last], -1))\n"
        "        return y.detach() + x - x.detach()",
        law="pathwise",
    ),
]
