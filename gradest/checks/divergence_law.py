"""A divergence of the estimator's own: there where the objective asks for it, and of a size."""

from collections.abc import Callable

from scipy import stats

from gradest.checks.finding import EQUAL, Outcome, relative_gap
from gradest.checks.problems import with_prior
from gradest.checks.subject import FALSE_ALARM, LOOKS, ROWS, SHARP, Subject, estimates
from gradest.objectives import analytic_terms


def _divergence(subject: Subject) -> Outcome:
    """What `kl = "relaxed"` adds to the value, at the same draws.

    Nothing, or else at least KL(Cat(α) ‖ Cat(a)) in the mean: the codes are a function of the
    relaxed samples, and a function brings no two laws further apart (data processing).
    """
    owned, closed = with_prior("relaxed"), with_prior("exact")
    if subject.cls.bounds or not subject.applicable([owned]):
        return "skipped", "applies to no such problem"
    claim = subject.cls.owns_kl
    rows = LOOKS[0] if claim else ROWS
    with_own, without = (estimates(subject.ready(t), rows=rows)[:, -1] for t in (owned, closed))
    if not claim:
        gap = relative_gap(with_own, without)
        broken = f"owns_kl = False, yet the value moves by {gap:.2g} with kl"
        return ("failed", broken) if gap > EQUAL else ("passed", "the value has none of its own")
    logits, f = closed.problem()
    least = analytic_terms(closed, logits, f)  # [B]
    added = (with_own - without).unflatten(0, (len(logits), rows))  # [B, R]
    error = added.std(1) / rows**0.5
    short = (least - added.mean(1)) / error
    size = float((added.mean(1) / least).min())
    told = f"{size:.2f} times the divergence of the discrete laws is added to the value"
    if short.max() > stats.norm.isf(FALSE_ALARM / len(logits)):
        return "failed", f"{told}, less than it can be, z = {-float(short.max()):.1f}"
    if (error / least).max() > SHARP:
        return "inconclusive", f"too noisy to tell: {told}"
    return "passed", told


DIVERGENCE_LAWS: dict[str, Callable[[Subject], Outcome]] = {"divergence": _divergence}
