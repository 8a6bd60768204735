"""Wrong variants of reinforce, reinforce_ema, self_critical, rloo, nvil and optimal_baseline."""

from .mutant import Mutant

SCORE_FUNCTION = [
    Mutant(
        of="reinforce_ema",
        mistake="the current cost folded into the baseline first",
        old="else self.per_row(self._mean, cost))",
        new="else self.per_row(self._mean, cost).lerp(cost, 1 - self.decay))",
        law="bias",
        known="a moving average that holds the current cost (found in a published library)",
    ),
    Mutant(
        of="rloo",
        mistake="a mean over all samples, the own one included, as baseline",
        old="leave_one_out_mean(cost, dim=1)",
        new="cost.mean(1, keepdim=True)",
        law="bias",
        known="a batch mean that holds the current sample",
    ),
    Mutant(
        of="reinforce",
        mistake="the mean over all rows as baseline",
        old="cost - self.baseline",
        new="cost - cost.mean()",
        law="rows",
        known="a batch mean that holds the current sample",
    ),
    Mutant(
        of="self_critical",
        mistake="differentiates with respect to probabilities",
        old="nabla(log_prob(logits, z))",
        new="(z * (-logits).exp() * nabla(logits)).sum((-2, -1))",
        law="bias",
        known="a gradient with respect to probabilities, taken for one with respect to logits",
    ),
    Mutant(
        of="self_critical",
        mistake="probabilities clamped at 1e-6 in the logarithm",
        old="nabla(log_prob(logits, z))",
        new="nabla((z * logits.softmax(-1).clamp(1e-6, 1 - 1e-6).log()).sum((-2, -1)))",
        law="rare",
        known="probabilities clamped away from 0 and 1",
    ),
    Mutant(
        of="self_critical",
        mistake="the logarithm of a probability that underflows",
        old="nabla(log_prob(logits, z))",
        new="nabla((z * logits.softmax(-1).log()).sum((-2, -1)))",
        law="extreme logits",
    ),
    Mutant(
        of="self_critical",
        mistake="the score averaged over the latents",
        old="nabla(log_prob(logits, z))",
        new="nabla(log_prob(logits, z)) / logits.shape[1]",
        law="bias",
    ),
    Mutant(
        of="reinforce",
        mistake="the knob without effect",
        old="cost - self.baseline",
        new="cost",
        law="knobs",
    ),
    Mutant(
        of="self_critical",
        mistake="no gradient to the parameters of f",
        old="return cost + (cost",
        new="return cost.detach() + (cost",
        law="parameters",
    ),
    Mutant(
        of="self_critical",
        mistake="the value is a surrogate loss",
        old="return cost + (cost - f.frozen(greedy)) * nabla(log_prob(logits, z))",
        new="return (cost - f.frozen(greedy)).detach() * log_prob(logits, z)",
        law="value",
    ),
    Mutant(
        of="self_critical",
        mistake="one draw for all rows",
        old="z = sample(logits)",
        new="z = sample(logits)[:1].expand_as(logits)",
        law="rows",
    ),
    Mutant(
        of="reinforce_ema",
        mistake="the average updated in the call",
        old="        return cost - (0.0",
        new="        self._mean = cost.detach().mean()\n        return cost - (0.0",
        law="state",
    ),
    Mutant(
        of="reinforce_ema",
        mistake="one average for all blocks of rows",
        old=".unflatten(0, (self.blocks, -1)).mean(1)",
        new=".mean().expand(self.blocks)",
        law="blocks",
    ),
    Mutant(
        of="reinforce_ema",
        mistake="reset keeps the average of the last problem",
        old="self._mean = None\n",
        new='self._mean = getattr(self, "_mean", None)\n',
        law="seed",
    ),
    Mutant(
        of="self_critical",
        mistake="the score of the greedy code",
        old="log_prob(logits, z)",
        new="log_prob(logits, greedy)",
        law="bias",
    ),
    Mutant(
        of="self_critical",
        mistake="the value is the advantage",
        old="return cost + (cost",
        new="return cost - f.frozen(greedy) + (cost",
        law="value",
    ),
    Mutant(
        of="rloo",
        mistake="the baseline divided by S instead of S − 1",
        stand_in="def leave_one_out_mean(x, dim):\n"
        "    return (x.sum(dim, keepdim=True) - x) / x.shape[dim]\n",
        law="constant",
    ),
    Mutant(
        of="rloo",
        mistake="the sum over samples instead of the mean",
        old="    def advantages",
        new="    def __call__(self, logits, f):\n"
        "        return self.samples * super().__call__(logits, f)\n\n"
        "    def advantages",
        law="value",
    ),
    Mutant(
        of="rloo",
        mistake="one sample in common, so that its own cost is its baseline",
        old="    def advantages",
        new="    def __call__(self, logits, f):\n"
        "        return super().__call__(logits, lambda z: f(z[:, :1].expand_as(z)))\n\n"
        "    def advantages",
        law="bias",
    ),
    Mutant(
        of="nvil",
        mistake="a baseline that reads the sample",
        old="return cost + (cost - self._baseline(logits))",
        new="return cost + (cost - self._baseline(z))",
        law="bias",
    ),
    Mutant(
        of="nvil",
        mistake="the advantage divided by its deviation over the rows",
        old="return cost + (cost - self._baseline(logits))",
        new="return cost + (cost - self._baseline(logits)) / cost.std(correction=0).clamp(min=1)",
        law="rows",
    ),
    Mutant(
        of="optimal_baseline",
        mistake="z instead of z − π as the score",
        old="score = z - softmax(logits)",
        new="score = z",
        law="bias",
    ),
    Mutant(
        of="optimal_baseline",
        mistake="the baseline of the category drawn",
        old="cost[:, None, None] - self._baseline(logits, f)",
        new="cost[:, None, None] - (z * self._baseline(logits, f)).sum(-1, keepdim=True)",
        knobs={"kind": "coordinate"},
        law="bias",
    ),
    Mutant(
        of="self_critical",
        mistake="the first category instead of the likeliest",
        old="likeliest(logits)",
        new="likeliest(0 * logits)",
        law="labels",
    ),
    Mutant(
        of="rloo",
        mistake="a baseline of the sizes |f|",
        old="leave_one_out_mean(cost, dim=1)",
        new="leave_one_out_mean(cost.abs(), dim=1)",
        law="scale",
    ),
    Mutant(
        of="self_critical",
        mistake="draws from the global generator",
        stand_in="""
def sample(logits):
    import torch

    index = torch.distributions.Categorical(logits=logits.detach()).sample()
    return torch.nn.functional.one_hot(index, logits.shape[-1]).to(logits)
""",
        law="randomness",
    ),
    Mutant(
        of="muprop",
        mistake="the derivative of the mean over the rows",
        old="torch.autograd.grad(f_x.sum(), x)",
        new="torch.autograd.grad(f_x.mean(), x)",
        law="rows",
    ),
    Mutant(
        of="nvil",
        mistake="the baseline added",
        old="(cost - self._baseline(logits)) * nabla",
        new="(cost + self._baseline(logits)) * nabla",
        law="adapting",
    ),
    Mutant(
        of="reinforce_ema",
        mistake="the baseline added",
        old="cost - (0.0",
        new="cost + (0.0",
        law="adapting",
    ),
]
