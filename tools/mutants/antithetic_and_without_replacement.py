"""Wrong variants of arm, disarm, disarm_categorical, arms, carms, arsm and unordered_set."""

from .mutant import Mutant

_KNOWN_COORDINATE = "f evaluated for each coordinate, not for the pair of whole vectors"

ANTITHETIC_AND_WITHOUT_REPLACEMENT = [
    Mutant(
        of="arm",
        mistake="f evaluated for each coordinate",
        old="        g = (cost[:, 1:] - cost[:, :1])",
        new="        one = vertices(pair[:, :1].expand(-1, u.shape[1], -1), logits)\n"
        "        other = vertices(pair[:, 1:].expand(-1, u.shape[1], -1), logits)\n"
        "        own = logits.new_ones(()).expand(u.shape[1]).diag()[..., None]\n"
        "        swapped = f(one * (1 - own) + other * own)\n"
        "        g = (swapped - cost[:, :1])",
        law="evaluations",
        known=_KNOWN_COORDINATE,
    ),
    Mutant(
        of="disarm",
        mistake="f evaluated for each coordinate",
        old="        g = 0.5 * (cost[:, :1] - cost[:, 1:])",
        new="        one = vertices(pair[:, :1].expand(-1, b.shape[1], -1), logits)\n"
        "        other = vertices(pair[:, 1:].expand(-1, b.shape[1], -1), logits)\n"
        "        own = logits.new_ones(()).expand(b.shape[1]).diag()[..., None]\n"
        "        swapped = f(one * (1 - own) + other * own)\n"
        "        g = 0.5 * (cost[:, :1] - swapped)",
        law="evaluations",
        known=_KNOWN_COORDINATE,
    ),
    Mutant(
        of="carms",
        mistake="one fixed order of the categories",
        old="return torch.tensor(orders, device=device)",
        new="return torch.tensor(orders[:1], device=device)",
        knobs={"samples": 2},
        law="bias",
        known="one fixed order of the categories, in which some pairs never meet",
    ),
    Mutant(
        of="unordered_set",
        mistake="a baseline where there is one sample",
        old="if self.baseline and len(one) > 1:",
        new="if self.baseline:",
        knobs={"samples": 1},
        law="bias",
        known="a baseline without replacement that is made of the sample itself",
    ),
    Mutant(
        of="unordered_set",
        mistake="the estimate of E f by the whole set as baseline",
        old="(w * (cost.unsqueeze(2) - cost.unsqueeze(1))).sum(2)",
        new="cost - (weight * cost).sum(1, keepdim=True)",
        law="bias",
        known="a baseline without replacement that is made of the sample itself",
    ),
    Mutant(
        of="arm",
        mistake="the wrong sign",
        old="(cost[:, 1:] - cost[:, :1])",
        new="(cost[:, :1] - cost[:, 1:])",
        law="bias",
    ),
    Mutant(
        of="arm",
        mistake="one uniform for all latents",
        file="_bernoulli.py",
        old="u = draws().uniform(theta.shape, theta)",
        new="u = draws().uniform(theta[:, :1].shape, theta).expand_as(theta)",
        law="value",
    ),
    Mutant(
        of="disarm",
        mistake="θ instead of max(θ, 1 − θ)",
        old="phi.abs().sigmoid()",
        new="phi.sigmoid()",
        law="bias",
    ),
    Mutant(
        of="disarm",
        mistake="the second sample independent of the first",
        file="_bernoulli.py",
        old="torch.stack([u < theta, 1 - u < theta], 1)",
        new="torch.stack([u < theta, draws().uniform(theta.shape, theta) < theta], 1)",
        law="bias",
    ),
    Mutant(
        of="arms",
        mistake="divided by n instead of n − 1",
        old=".sum(1) / (self.samples - 1)",
        new=".sum(1) / self.samples",
        law="bias",
    ),
    Mutant(
        of="arms",
        mistake="the factor ρ forgotten",
        old="g * self._rho(phi.detach().abs()) * nabla(phi)",
        new="g * nabla(phi)",
        law="bias",
    ),
    Mutant(
        of="arms",
        mistake="the copula's exponent n instead of n − 1",
        file="_dirichlet_copula.py",
        old="** (shape[1] - 1)",
        new="** shape[1]",
        law="value",
    ),
    Mutant(
        of="carms",
        mistake="divided by n² instead of n (n − 1)",
        old="pairs = self.samples * (self.samples - 1)",
        new="pairs = self.samples**2",
        law="bias",
    ),
    Mutant(
        of="carms",
        mistake="the law of a pair at a neighbouring order",
        old="rank = order.argsort()  # [K]",
        new="rank = order.argsort().roll(1)",
        law="bias",
    ),
    Mutant(
        of="arsm",
        mistake="K hard-coded as 3",
        old="weight = 1 - categories * softmax(-noise)",
        new="weight = 1 - 3 * softmax(-noise)",
        law="bias",
    ),
    Mutant(
        of="arsm",
        mistake="swaps in one latent alone",
        old="swapped = noise[..., swaps].movedim(-2, 1)  # [R, P, N, K]",
        new="swapped = noise[..., swaps].movedim(-2, 1).clone()\n"
        "        swapped[:, :, 1:] = noise[:, 1:].unsqueeze(1)",
        law="bias",
    ),
    Mutant(
        of="arsm",
        mistake="the mean over the wrong one of m and j",
        old='"rmj,rnj->rnm"',
        new='"rmj,rnm->rnj"',
        law="zero sum",
    ),
    Mutant(
        of="unordered_set",
        mistake="all but the first the likeliest that are left, not sampled",
        file="_without_replacement.py",
        old="child = draws().categories(node, 1)[:, 0]",
        new="child = node.argmax(-1)",
        law="value",
    ),
    Mutant(
        of="unordered_set",
        mistake="weights p(s) made to sum to one",
        old="weight = (log_p + first - log_set[0].unsqueeze(1)).exp()",
        new="weight = log_p.softmax(1)",
        law="value",
    ),
    Mutant(
        of="unordered_set",
        mistake="what is drawn is taken off its leaf and not off the nodes above",
        file="_without_replacement.py",
        old="log_r.append(torch.logaddexp(others[:, n], taken[-1]))",
        new="log_r.append(torch.zeros_like(taken[-1]))",
        law="value",
    ),
    Mutant(
        of="unordered_set",
        mistake="the paths of the outcomes before the last forgotten",
        file="_without_replacement.py",
        old="_descent(paths[:, : s + 1], index)",
        new="_descent(paths[:, [0, s]], index[:, -1:])",
        knobs={"samples": 3},
        law="value",
    ),
    Mutant(
        of="arm",
        mistake="θ clamped at 1e-5",
        file="_bernoulli.py",
        old="theta = bit_logits(logits.detach().double()).sigmoid()",
        new="theta = bit_logits(logits.detach().double()).sigmoid().clamp(1e-5, 1 - 1e-5)",
        law="rare",
        known="probabilities clamped away from 0 and 1",
    ),
    Mutant(
        of="disarm",
        mistake="the uniform clamped at 1e-6",
        file="_bernoulli.py",
        old="u = draws().uniform(theta.shape, theta)",
        new="u = draws().uniform(theta.shape, theta).clamp(1e-6, 1 - 1e-6)",
        law="rare",
        known="uniforms clamped away from 0 and 1",
    ),
    Mutant(
        of="arms",
        mistake="1e-6 added to θ − P(bᵢ = bⱼ = 1)",
        old="return size.sigmoid() / (1 - both**m)",
        new="return size.sigmoid() / (1 - both**m + 1e-6 * (1 + size.exp()))",
        law="rare",
        knobs={"samples": 2},
        known="a small number added to the denominator of ρ",
    ),
    Mutant(
        of="disarm_categorical",
        mistake="a complete tree over the largest power of two below K",
        knobs={"coding": "tree"},
        stand_in="""
_of_any_number = _splits


def _splits(start, end, halves):
    return _of_any_number(start, start + 2 ** ((end - start).bit_length() - 1), halves)


def _codes(bits, left, right):
    bits = bits.unsqueeze(-1)
    return ~((left & bits) | (right & ~bits)).any(-2) & (left | right).any(0)
""",
        law="value",
        known="a complete tree that never draws the last categories (the published code)",
    ),
    Mutant(
        of="disarm_categorical",
        mistake="the nodes of the second path with the sign of the first",
        old="-t, 0",
        new="t, 0",
        law="bias",
    ),
]
