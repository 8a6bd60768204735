"""The battery rejects each deliberately wrong estimator by the law that its mistake breaks."""

from pathlib import Path

import pytest

import gradest
from gradest.checks import ESTIMATOR_LAWS
from tools.mutants import (
    FAMILIES,
    MUTANTS,
    UNSEEN,
    Mutant,
    caught,
    everything_found,
    verdict,
    verdict_in_order,
    with_defaults,
)

# What was found in published code or is warned of in print: a mutant must stay for each.
PUBLISHED = {
    "a Bernoulli conditional with the wrong sign (found in a published library)",
    "a baseline without replacement that is made of the sample itself",
    "a batch mean that holds the current sample",
    "a complete tree that never draws the last categories (the published code)",
    "a conditional sample that is held fixed",
    "a conditional sample that moves as the unconditional one does",
    "a conditional sample whose normaliser is held fixed",
    "a control variate with noise that is not conditioned on the sample",
    "a derivative through the conditional noise",
    "a difference without its 1/λ (the published code)",
    "a factor 1/τ that the method does not have",
    "a forward temperature that divides the noise too, hence without effect",
    "a geometric weight that is differentiated as it stands, which divides by N",
    "a gradient with respect to probabilities, taken for one with respect to logits",
    "a mixture that is differentiated as it stands, which halves straight-through",
    "a moving average that holds the current cost (found in a published library)",
    "a relaxation named REBAR, without a control variate (found in a published library)",
    "a sample from the tempered logits",
    "a small number added to the denominator of ρ",
    "a standard deviation over all prompts (an option of a published library)",
    "a standard deviation that holds the current sample",
    "an optimal baseline that holds the current sample (the published form)",
    "f evaluated for each coordinate, not for the pair of whole vectors",
    "one fixed order of the categories, in which some pairs never meet",
    "probabilities clamped away from 0 and 1",
    "samples of a chain of few steps, taken for samples of Cat(α)",
    "the mean cost of the older policy, taken for that of the present one",
    "the primal in the place of the tangent (found in a published library)",
    "the printed conditional formula, which holds for normalised α alone",
    "the second term of the surrogate left out",
    "uniforms clamped away from 0 and 1",
    "weights of single tokens, taken for the weight of the sequence",
}

NEEDS_KNOBS = {
    f"{mutant.of} {sorted(mutant.knobs.items())} {mutant.law}": mutant
    for mutant in MUTANTS
    if mutant.knobs
}


@pytest.mark.weekly
@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_the_battery_rejects(mutant: Mutant, tmp_path: Path) -> None:
    """The law rejects the mutant, and no law on which it rests is broken and silences it."""
    cls = mutant.load(tmp_path)
    finding = verdict_in_order(cls, mutant.law)
    assert caught(finding), (
        f"{mutant} survives {mutant.law!r}: {finding.status}, {finding.detail}\n"
        f"{everything_found(cls)}"
    )


@pytest.mark.slow
@pytest.mark.parametrize("mutant", NEEDS_KNOBS.values(), ids=NEEDS_KNOBS)
def test_the_original_keeps_the_law_at_these_knobs(mutant: Mutant) -> None:
    """With default knobs it is certified elsewhere; other knobs must not be what breaks the law."""
    original = with_defaults(gradest.all_estimators()[mutant.of], mutant.knobs)
    finding = verdict(original, mutant.law)
    assert finding.status == "passed", finding


@pytest.mark.parametrize("mutant, reason", UNSEEN, ids=[str(mutant) for mutant, _ in UNSEEN])
def test_what_no_law_sees_yet(mutant: Mutant, reason: str, tmp_path: Path) -> None:
    finding = verdict(mutant.load(tmp_path), mutant.law)
    assert finding.status != "failed", f"{mutant} is seen now, although {reason}: move it"


def test_every_estimator_and_every_published_mistake_has_a_mutant() -> None:
    every = [*MUTANTS, *(mutant for mutant, _ in UNSEEN)]
    assert {mutant.known for mutant in every if mutant.known} == PUBLISHED
    assert {mutant.of for mutant in MUTANTS} == set(gradest.all_estimators())
    assert all(len(family) >= 5 for family in FAMILIES.values())
    assert len({str(mutant) for mutant in every}) == len(every)


def test_every_law_is_seen_to_reject_a_mutant() -> None:
    """All but a few, which a patch of a true file hardly breaks; other wrong estimators do."""
    left = {"shape", "float32", "laws"}
    assert {mutant.law for mutant in MUTANTS} == set(ESTIMATOR_LAWS) - left


def test_every_patch_fits_its_file() -> None:
    for mutant in (*MUTANTS, *(mutant for mutant, _ in UNSEEN)):
        compile(mutant.text(), str(mutant), "exec")


def test_a_patch_that_no_longer_fits_names_its_mutant() -> None:
    mutant = Mutant(of="rloo", mistake="is a test", law="bias", old="no such text", new="")
    with pytest.raises(ValueError, match="rloo: is a test: 'no such text' occurs 0 times"):
        mutant.text()
