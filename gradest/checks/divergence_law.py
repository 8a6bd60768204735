"""The law on the divergence of an estimator that owns one: its presence and its size."""

from collections.abc import Callable

from gradest.checks.battery import FALSE_ALARM, LOOKS, ROWS, SHARP, Subject, estimates
from gradest.checks.problems import with_prior
from gradest.checks.result import EQUAL, Outcome, outcome, relative_gap
from gradest.measurement import analytic_terms
from gradest.statistics import normal_isf


def _divergence(subject: Subject) -> Outcome:
    """The term that `kl = "relaxed"` adds to the value, at the same draws.

    It is zero, or in the mean at least KL(Cat(α) ‖ Cat(a)): the codes are a function of the relaxed
    samples, and applying a function never increases a divergence (data processing inequality).
    """
    owned, closed = with_prior("relaxed"), with_prior("exact")
    if subject.cls.objective or not subject.applicable([owned]):
        return "skipped", "does not apply to problems with kl = 'relaxed'"
    claim = subject.cls.owns_kl
    rows = LOOKS[0] if claim else ROWS
    with_own, without = (estimates(subject.prepare(t), rows=rows)[:, -1] for t in (owned, closed))
    if not claim:
        gap = relative_gap(with_own, without)
        violation = f"owns_kl = False, but the value changes by {gap:.2g} with kl = 'relaxed'"
        return outcome(violation if gap > EQUAL else "", "the value has no divergence of its own")
    logits, f = closed.problem()
    least = analytic_terms(closed, logits, f)  # [B]
    added = (with_own - without).unflatten(0, (len(logits), rows))  # [B, R]
    error = added.std(1) / rows**0.5
    short = (least - added.mean(1)) / error
    size = float((added.mean(1) / least).min())
    detail = f"the value includes {size:.2f} times the divergence of the discrete distributions"
    if short.max() > normal_isf(FALSE_ALARM / len(logits)):
        return "failed", f"{detail}, less than the lower bound of 1, z = {-float(short.max()):.1f}"
    if (error / least).max() > SHARP:
        return "inconclusive", f"too noisy: {detail}"
    return "passed", detail


DIVERGENCE_LAWS: dict[str, Callable[[Subject], Outcome]] = {"divergence": _divergence}
