"""Wrong variants of vimco."""

from .mutant import Mutant

BOUNDS = [
    Mutant(
        of="vimco",
        mistake="the second sum, of w̃ ∇ log w, left out",
        old="return -(bound + (",
        new="return -(bound.detach() + (",
        law="bias",
    ),
    Mutant(
        of="vimco",
        mistake="the own weight in the mean that takes its place",
        old="leave_one_out_mean(log_w, dim=1)",
        new="log_w.mean(1, keepdim=True)",
        law="bias",
    ),
    Mutant(
        of="vimco",
        mistake="every weight replaced but the own",
        old="torch.where(own, others, log_w.unsqueeze(1))",
        new="torch.where(own, log_w.unsqueeze(1), others)",
        law="bias",
    ),
    Mutant(
        of="vimco",
        mistake="the score averaged over the samples",
        old="* score).sum(1))",
        new="* score).mean(1))",
        law="bias",
    ),
    Mutant(
        of="vimco",
        mistake="the score of the samples' sum, each with the weight of all",
        old="((bound.unsqueeze(1) - without) * score)",
        new="((bound.unsqueeze(1) - without).mean(1, keepdim=True) * score)",
        law="bias",
    ),
    Mutant(
        of="vimco",
        mistake="a cost taken for log w",
        old="log_w = -f(z)",
        new="log_w = f(z)",
        law="bias",
    ),
    Mutant(
        of="vimco",
        mistake="the weights summed, not averaged",
        old="bound = log_w.logsumexp(1) - math.log(m)",
        new="bound = log_w.logsumexp(1)",
        law="value",
    ),
    Mutant(
        of="vimco",
        mistake="the mean of the logarithms for the logarithm of the mean",
        old="bound = log_w.logsumexp(1) - math.log(m)",
        new="bound = log_w.mean(1)",
        law="value",
    ),
    Mutant(
        of="vimco",
        mistake="one sample, m times",
        old="z = sample(logits, m)",
        new="z = sample(logits).unsqueeze(1).repeat(1, m, 1, 1)",
        law="value",
    ),
    Mutant(
        of="vimco",
        mistake="the parameters of f frozen",
        old="log_w = -f(z)",
        new="log_w = -f.frozen(z)",
        law="parameters",
    ),
    Mutant(
        of="vimco",
        mistake="two samples, however many the bound has",
        old="m = f.samples",
        new="m = 2",
        law="evaluations",
    ),
]
