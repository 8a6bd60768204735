"""Wrong variants of the estimators with a hard sample forward and another Jacobian backward."""

from .mutant import Mutant

STRAIGHT_THROUGH = [
    Mutant(
        of="reinmax",
        mistake="log ½(π + z) not detached: half of straight_through",
        file="_reinmax.py",
        old="return nabla(p + between / 2 - softmax(logits) / 2)",
        new="mixture = (softmax(logits / temperature) + z) / 2\n"
        "    return nabla(2 * mixture - softmax(logits) / 2)",
        law="degree",
        known="a mixture that is differentiated as it stands, which halves straight-through",
    ),
    Mutant(
        of="reinmax",
        mistake="z drawn from the tempered logits",
        old="z = sample(logits)",
        new="z = sample(logits / self.temperature)",
        knobs={"temperature": 2.0},
        law="value",
        known="a sample from the tempered logits",
    ),
    Mutant(
        of="reinmax",
        mistake="without − ½ π",
        file="_reinmax.py",
        old=" - softmax(logits) / 2)",
        new=")",
        law="degree",
        known="the second term of the surrogate left out",
    ),
    Mutant(
        of="gumbel_rao",
        mistake="differentiates through the conditional noise",
        old="        pulls = conditional_pulls(logits, b, self.temperature, self.samples)\n"
        "        return with_pullback(b, logits, lambda slope: pulls(slope).mean(1))",
        new="        from gradest.categorical import conditional_gumbel, nabla, softmax\n\n"
        "        z = conditional_gumbel(logits, b, self.samples)\n"
        "        return b + nabla(softmax(z / self.temperature).mean(1))",
        law="degree",
        known="a derivative through the conditional noise",
    ),
    Mutant(
        of="reinmax_cv",
        mistake="unconditional noise in J_GS",
        old="control = pulls[:, 1:].mean(1) - pulls[:, 0]",
        new="from gradest.categorical import gumbel, softmax\n\n"
        "        y = softmax((mixture + gumbel(mixture)) / self.temperature)\n"
        "        pull = y * slope / self.temperature\n"
        "        control = pulls[:, 1:].mean(1) - (pull - y * pull.sum(-1, keepdim=True))",
        law="degree",
        known="a control variate with noise that is not conditioned on the sample",
    ),
    Mutant(
        of="decoupled_straight_through",
        mistake="τ_f divides the noise too",
        old="z = sample(logits / self.temperature_forward)",
        new="from gradest.categorical import gumbel_max\n\n"
        "        x = gumbel_max(logits)[1] / self.temperature_forward\n"
        "        z = (x == x.amax(-1, keepdim=True)).to(x)",
        law="knobs",
        known="a forward temperature that divides the noise too, hence without effect",
    ),
    Mutant(
        of="straight_through",
        mistake="claims to be unbiased",
        old="    degree = 1\n",
        new="    unbiased = True\n",
        law="bias",
    ),
    Mutant(
        of="straight_through",
        mistake="the likeliest category instead of a sample",
        old="z = sample(logits)",
        new="z = (logits == logits.amax(-1, keepdim=True)).to(logits)",
        law="value",
    ),
    Mutant(
        of="straight_through",
        mistake="soft forward",
        old="straight_through(z, softmax(logits))",
        new="softmax(logits)",
        law="vertices",
    ),
    Mutant(
        of="straight_through",
        mistake="the two Jacobians exchanged",
        old='self.jacobian == "softmax"',
        new='self.jacobian == "identity"',
        law="degree",
    ),
    Mutant(
        of="straight_through",
        mistake="the Jacobian of each category alone, diag(π) without ππᵀ",
        old="straight_through(z, softmax(logits))",
        new="straight_through(z, softmax(logits).detach() * logits)",
        law="degree",
    ),
    Mutant(
        of="straight_through",
        mistake="the parameters of f frozen",
        old="    def draw",
        new="    def __call__(self, logits, f):\n"
        "        return f.frozen(self.draw(logits))\n\n"
        "    def draw",
        law="parameters",
    ),
    Mutant(
        of="st_gumbel_softmax",
        mistake="no noise in the relaxation",
        old=", softmax(z))",
        new=", softmax(logits / self.temperature))",
        law="degree",
    ),
    Mutant(
        of="st_gumbel_softmax",
        mistake="the factor 1/τ missing",
        old=", softmax(z))",
        new=", softmax(z) * self.temperature)",
        law="degree",
    ),
    Mutant(
        of="gumbel_rao",
        mistake="the sum over the noise instead of the mean",
        old="pulls(slope).mean(1)",
        new="pulls(slope).sum(1)",
        law="degree",
    ),
    Mutant(
        of="gumbel_rao",
        mistake="unconditional noise",
        file="_conditional.py",
        old="y = softmax(conditional_gumbel(logits.detach(), z, samples) / temperature)",
        new="from gradest.categorical import gumbel_max\n\n"
        "    y = softmax(gumbel_max(logits.detach(), samples)[1] / temperature)",
        law="degree",
    ),
    Mutant(
        of="reinmax",
        mistake="s sᵀ counted in full",
        file="_reinmax.py",
        old="between / 2",
        new="between",
        law="degree",
    ),
    Mutant(
        of="reinmax",
        mistake="differentiates at π instead of z",
        old="straight_through(z, reinmax(logits, z, self.temperature))",
        new="straight_through(logits.softmax(-1).detach(), reinmax(logits, z))",
        law="vertices",
    ),
    Mutant(
        of="reinmax_cv",
        mistake="the sum of the M Jacobians instead of their mean",
        old="pulls[:, 1:].mean(1)",
        new="pulls[:, 1:].sum(1)",
        law="degree",
    ),
    Mutant(
        of="gapped_straight_through",
        mistake="the gap without effect",
        old="torch.minimum(phi, top - gap)",
        new="phi",
        law="knobs",
    ),
    Mutant(
        of="gapped_straight_through",
        mistake="the gap subtracted from the logits, not from their maximum",
        old="torch.where(z > 0, top, torch.minimum(phi, top - gap))",
        new="torch.where(z > 0, phi.abs(), phi - gap)",
        law="shift",
    ),
    Mutant(
        of="decoupled_straight_through",
        mistake="the forward temperature backward too",
        old="softmax(logits / self.temperature_backward)",
        new="softmax(logits / self.temperature_forward)",
        law="knobs",
    ),
    Mutant(
        of="gapped_straight_through",
        mistake="the wrong sign",
        old="(moved + nabla(logits))",
        new="(moved - nabla(logits))",
        law="direction",
    ),
    Mutant(
        of="goste",
        mistake="without the matrix of the category itself",
        old="pull + t * (h * x).sum(-1, keepdim=True) * j_x",
        new="pull",
        law="degree",
    ),
    Mutant(
        of="goste",
        mistake="the penalty for the bias of the other sign",
        old="t * (h * pi).sum(-1, keepdim=True) * v_x",
        new="-t * (h * pi).sum(-1, keepdim=True) * v_x",
        law="degree",
    ),
    Mutant(
        of="reinmax_rao",
        mistake="2 J(π) instead of ½ J(π)",
        old="softmax_pull(pi, slope) / 2",
        new="softmax_pull(pi, slope) * 2",
        law="direction",
    ),
]
