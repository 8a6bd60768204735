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
    Mutant(
        of="sampled_kl",
        mistake="the own sample in the baseline",
        old="leave_one_out_mean(w * cost, 1) / leave_one_out_mean(w, 1)",
        new="(w * cost).mean(1, keepdim=True)",
        law="bias",
    ),
    Mutant(
        of="sampled_kl",
        mistake="the divergence left out of the value",
        old='k3_k2": k3.detach() + nabla(k2)',
        new='k3_k2": nabla(k2)',
        law="divergence",
    ),
    Mutant(
        of="sampled_kl",
        mistake="the samples of the older policy without weights",
        old="        w = (log_pi.detach() - log_prob(older.unsqueeze(1), z)).exp()",
        new="        w = cost.new_ones(cost.shape)",
        law="settings",
    ),
]
