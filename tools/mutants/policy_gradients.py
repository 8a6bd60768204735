"""Wrong variants of the estimators that are known from policies of language models."""

from .mutant import Mutant

POLICY_GRADIENTS = [
    Mutant(
        of="grpo",
        mistake="the standard deviation over all rows",
        old="x.std(1, keepdim=True)",
        new="x.std()",
        law="rows",
        known="a standard deviation over all prompts (an option of a published library)",
    ),
    Mutant(
        of="grpo",
        mistake="claims the direction of the gradient",
        old="    unbiased = False\n",
        new="    unbiased = False\n    aligned = True\n",
        law="direction",
    ),
    Mutant(
        of="grpo",
        mistake="the size of the advantage without its sign",
        old="return centred.to(cost)",
        new="return centred.abs().to(cost)",
        law="direction",
    ),
    Mutant(
        of="grpo_leave_one_out",
        mistake="the own cost in the standard deviation",
        old="others.std(2)",
        new="cost.std(1, keepdim=True)",
        law="direction",
        known="a standard deviation that holds the current sample",
    ),
    Mutant(
        of="opo",
        mistake="the own sample in the baseline",
        old=".masked_fill(own, -torch.inf)",
        new=".expand(-1, self.samples, -1)",
        law="bias",
        known="an optimal baseline that holds the current sample (the published form)",
    ),
    Mutant(
        of="opo",
        mistake="the others as all less the own one, which cancels",
        old="        advantage = (weight * (cost.unsqueeze(2) - cost.unsqueeze(1))).sum(2)",
        new="        w = log_w.exp()\n"
        "        others = (w * cost).sum(1, keepdim=True) - w * cost\n"
        "        advantage = cost - others / (w.sum(1, keepdim=True) - w)",
        law="rare",
    ),
    Mutant(
        of="importance_weighted",
        mistake="the value is the cost of the older policy",
        old="log_r.sum(1).exp() * cost + (",
        new="cost + (",
        law="value",
        known="the mean cost of the older policy, taken for that of the present one",
    ),
    Mutant(
        of="importance_weighted",
        mistake="weights of tokens that claim to be unbiased",
        old="    unbiased = False  # whatever the weighting: `sequence` alone has no bias\n",
        new="",
        law="bias",
        known="weights of single tokens, taken for the weight of the sequence",
    ),
]
