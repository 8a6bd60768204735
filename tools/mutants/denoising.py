"""Wrong variants of redge, redge_cov and reindge."""

from .mutant import Mutant

DENOISING = [
    Mutant(
        of="redge",
        mistake="claims samples of Cat(α)",
        old="    own_distribution = True\n",
        new="",
        law="value",
        known="samples of a chain of few steps, taken for samples of Cat(α)",
    ),
    Mutant(
        of="redge",
        mistake="a sample of Cat(α) instead of one of the chain",
        old="sample(phi)",
        new="sample(logits)",
        law="value",
    ),
    Mutant(
        of="redge",
        mistake="one noise for all rows",
        old="draws().normal(logits.shape, logits)",
        new="draws().normal(logits.shape[1:], logits).expand_as(logits)",
        law="rows",
    ),
    Mutant(
        of="redge_cov",
        mistake="noise about zero",
        old="pi + c.sqrt() * noise",
        new="c.sqrt() * noise",
        law="value",
    ),
    Mutant(
        of="redge_cov",
        mistake="the end of the chain itself instead of a sample",
        old="straight_through(sample(phi), softmax(phi))",
        new="softmax(phi)",
        law="vertices",
    ),
    Mutant(
        of="reindge",
        mistake="the wrong sign of the last step",
        old="reinmax(logits + added.detach(), z) + through_the_chain",
        new="through_the_chain - reinmax(logits + added.detach(), z)",
        law="direction",
    ),
]
