"""What an estimate is on average: E f in value, ∇ E f in gradient where the class says so.

Where the draws are finite and few they are enumerated, and the law is tested exactly; elsewhere
as sharply as replicates allow.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from itertools import product
from typing import Any, NamedTuple

import torch
from scipy import stats
from torch import Tensor

from gradest.checks.finding import EQUAL, Outcome, Status, percent
from gradest.checks.problems import of_degree, span, truth
from gradest.checks.rare_laws import rare_bias
from gradest.checks.settings import setting_text, variations
from gradest.checks.subject import DEFAULTS, LOOKS, SHARP, Subject
from gradest.contracts import Estimator, Task
from gradest.inference import UNBIASED_WITHIN, largest_z, mean_interval, total_variance
from gradest.measuring.outcomes import ExactMoments

_FIRST = 10_000  # replicates of a first look at a bias: where there are many samples, enough
_ENOUGH = 2  # problems on which adapting lessens the variance


class _Deviation(NamedTuple):
    """Of a mean from the truth, relative to a size that matters."""

    p_value: float  # 0 or 1 where nothing is left to chance
    z: float
    size: float
    least: float  # of its 95 % interval
    most: float

    @classmethod
    def exactly(cls, size: float, tolerance: float) -> "_Deviation":
        found = not size <= tolerance  # NaN is no agreement
        return cls(0.0 if found else 1.0, math.inf if found else 0.0, size, size, size)


_Law = Callable[[Task, int], _Deviation]


class _Found(NamedTuple):
    """The deviation that chance does not explain, or else the one that may be largest."""

    certain: bool
    task: str
    deviation: _Deviation

    def told(self) -> str:
        size, z, most = self.deviation.size, self.deviation.z, self.deviation.most
        if z in (0.0, math.inf):
            return f"{percent(size)}, enumerated ({self.task})"
        if self.certain:
            return f"{size:.2%}, |z| = {z:.1f} ({self.task})"
        return f"at most {most:.2%} ({self.task})"


def _search(subject: Subject, tasks: Iterable[Task], deviation: _Law, enough: float) -> _Found:
    """A problem on which the deviation is at most `enough` gets no further look.

    A first look, at few replicates, has to show half of that.  Who adapts has none: to adapt takes
    longer than all looks.
    """
    room: dict[str, _Found] = {}
    settled: set[str] = set()
    looks = LOOKS if subject.cls.adapt_steps else (_FIRST, *LOOKS)
    for replicates in looks:
        for task in tasks:
            if task.name in settled:
                continue
            found = deviation(task, replicates)
            if found.p_value < subject.level(len(looks)):
                return _Found(True, task.name, found)
            room[task.name] = _Found(False, task.name, found)
            if found.most <= (enough / 2 if replicates == _FIRST else enough):
                settled.add(task.name)
    return max(room.values(), key=lambda found: found.deviation.most)


def _value(subject: Subject) -> Outcome:
    """The mean value against E f, relative to the range of f."""
    claim = subject.cls.unbiased
    if subject.cls.relaxes and not claim:
        return "skipped", "relaxes f: the values are those of relaxed samples"

    def deviation(task: Task, replicates: int) -> _Deviation:
        spread = span(task)
        if found := subject.enumerated(task):
            size = float((found.value - truth(task).value).abs().max()) / spread
            return _Deviation.exactly(size, EQUAL if claim else UNBIASED_WITHIN)
        found = subject.measured(task, replicates)
        value, mean = found.exact_value, mean_interval(found.objective)
        exact = torch.tensor([value], dtype=torch.float64)
        z, p = largest_z(found.objective, exact, 0.0, found.resolution)
        size, most = abs(mean.estimate - value) / spread, max(mean.high - value, value - mean.low)
        # Who claims a bias may draw from a law nearby, as perturbation methods do.
        tolerated = not claim and size <= UNBIASED_WITHIN
        return _Deviation(1.0 if tolerated else p, z, size, 0.0, most / spread)

    found = _search(subject, subject.with_truth, deviation, UNBIASED_WITHIN)
    size = f"relative to the range of f, the mean value is off E f by {found.told()}"
    if found.certain:
        return "failed", f"{size}; a surrogate's gradient goes behind nabla, beside the value f(z)"
    return "passed" if found.deviation.most <= UNBIASED_WITHIN else "inconclusive", size


def _relative_bias(
    subject: Subject, knobs: Mapping[str, Any] = DEFAULTS, tolerance: float = EQUAL
) -> _Law:
    """‖E ĝ − g‖/‖g‖."""

    def deviation(task: Task, replicates: int) -> _Deviation:
        if found := subject.enumerated(task, knobs):
            return _Deviation.exactly(_gap(found, task), tolerance)
        row = subject.measured(task, replicates, knobs).row()
        low, high = (row[name] ** 0.5 / row["gradient_norm"] for name in _INTERVAL)
        return _Deviation(row["p_value"], row["max_z"], row["relative_bias"], low, high)

    return deviation


_INTERVAL = ("bias_sq_low", "bias_sq_high")


def _gap(found: ExactMoments, task: Task) -> float:
    gradient = truth(task).gradient
    return float((found.mean - gradient).norm() / gradient.norm())


def _bias(subject: Subject) -> Outcome:
    claim = subject.cls.unbiased
    found = _search(subject, subject.with_truth, _relative_bias(subject), SHARP if claim else 0.0)
    size = f"unbiased = {claim}, relative bias {found.told()}"
    if found.certain and claim:
        return "failed", f"{size}; mend it, or say unbiased = False"
    if found.certain:
        return "passed", size
    if found.deviation.most > SHARP:
        return "inconclusive", f"too noisy to tell: {size}"
    return ("passed", size) if claim else ("failed", f"{size}: no bias is seen")


def _settings(subject: Subject) -> Outcome:
    """The bias at other values of the knobs than their defaults."""
    if not subject.cls.unbiased:
        return "skipped", "unbiased = False"
    settings = variations(subject.cls)
    if not settings:
        return "skipped", "no knob has another value to try"
    gaps = []
    for knobs, task in product(settings, subject.with_truth):
        if found := subject.enumerated(task, knobs):
            gaps.append(gap := _gap(found, task))
            if not gap <= EQUAL:
                where = setting_text(knobs, task.name)
                return "failed", f"relative bias {percent(gap)}, enumerated ({where})"
    if not gaps:
        return "skipped", "the draws are endless, or their outcomes too many"
    most = percent(max(gaps))
    return "passed", f"relative bias at most {most}, enumerated in {len(gaps)} cases"


def _degree(subject: Subject) -> Outcome:
    """Right up to the degree claimed, and not beyond it."""
    degree, limit = subject.cls.degree, subject.cls.limit
    if degree is None:
        return "skipped", "no degree is claimed"
    if subject.cls.unbiased:
        return "failed", f"degree = {degree} says nothing of a method that is always unbiased"
    if degree not in (1, 2, math.inf):
        return "failed", f"degree = {degree}; 1, 2 and math.inf can be tested"
    relative_bias = _relative_bias(subject, limit, SHARP if limit else EQUAL)
    claimed = setting_text(limit, f"degree {degree}")
    tasks = subject.with_truth if degree == math.inf else subject.applicable(of_degree(int(degree)))
    status, most, shown = _right(subject, tasks, relative_bias)
    if status != "passed" or degree == math.inf:
        return status, f"{claimed}: {shown}"
    beyond = int(degree) + 1
    status, more = _wrong(subject.applicable(of_degree(beyond)), relative_bias, most)
    return status, f"{claimed}: {shown}; at degree {beyond} {more}"


def _right(subject: Subject, tasks: Iterable[Task], bias: _Law) -> tuple[Status, float, str]:
    """Whether the bias is small on all, how large it may be, and what was seen.

    In a limit that is not quite reached a bias is to be expected, but a small one.
    """
    exactly = not subject.cls.limit
    most, told_most = 0.0, ""
    for task in tasks:
        for replicates in LOOKS:
            found = bias(task, replicates)
            shown = f"relative bias {found.least:.2%} to {found.most:.2%} ({task.name})"
            if found.least > SHARP or (exactly and found.p_value < subject.level()):
                return "failed", found.most, shown
            if found.most <= SHARP:
                break
        else:
            return "inconclusive", found.most, f"too noisy to tell, {shown}"
        if found.most >= most:
            most, told_most = found.most, shown
    return "passed", most, told_most


def _wrong(tasks: Iterable[Task], bias: _Law, most: float) -> tuple[Status, str]:
    """Whether some bias exceeds `most` for sure."""
    blurred = False
    for task in tasks:
        for replicates in LOOKS:
            found = bias(task, replicates)
            if found.least > most:
                return "passed", f"at least {found.least:.2%}"
        blurred = blurred or found.most > max(most, SHARP)
    if blurred:
        return "inconclusive", "it is too noisy to tell whether there is more"
    return "failed", "no more, so that the claim is too weak"


def _direction(subject: Subject) -> Outcome:
    """However large its bias, for an affine f the mean has to point uphill."""
    if subject.cls.unbiased:
        return "skipped", "unbiased = True"
    for task in subject.applicable(of_degree(1)):
        uphill = truth(task).gradient.flatten()
        if found := subject.enumerated(task):
            low = high = float(found.mean.flatten() @ uphill)
        else:
            for replicates in LOOKS:
                low, high = _along(subject, task, replicates, uphill)
                if low > 0 or high <= 0:
                    break
        if high <= 0:
            return "failed", f"the mean points away from the gradient of an affine f ({task.name})"
        if low <= 0:
            return "inconclusive", f"too noisy to tell where the mean points ({task.name})"
    return "passed", "for an affine f the mean points uphill"


def _along(subject: Subject, task: Task, replicates: int, truth: Tensor) -> tuple[float, float]:
    """Between which ends the mean along the gradient is, each of them wrong at the level of a test.

    Without noise the ends are the same.
    """
    batches = subject.measured(task, replicates).gradient.mean @ truth  # [J]
    mean = float(batches.mean())
    if len(batches) == 1:
        return mean, mean
    half = float(stats.t.isf(subject.level(), len(batches) - 1) * batches.std())
    half /= len(batches) ** 0.5
    return mean - half, mean + half


def _adapting(subject: Subject) -> Outcome:
    """State that is adapted has to be good for something: less variance over the problems."""
    steps = subject.cls.adapt_steps
    if not steps and subject.cls.adapt is not Estimator.adapt:
        return "failed", "adapt is defined and adapt_steps = 0, so that it is never called"
    if not steps or not subject.cls.unbiased:
        return "skipped", "adapts nothing, or not for the sake of the variance"
    least, most = [], []
    # The problem with the largest baseline first, where a state has most to do.
    for task in subject.with_truth[-1:] + subject.with_truth[:-1]:
        measured = [subject.measured(task, LOOKS[0], steps=s) for s in (0, steps)]
        if measured[1].row()["p_value"] < subject.level() / 2:
            return "failed", f"{steps} steps lead to a bias ({task.name})"
        before, after = (total_variance(found.gradient) for found in measured)
        if before.low > 0:
            least.append(after.low / before.high)
            most.append(after.high / before.low)
        # Adapting is what takes long: where it helps on each of two problems, two are enough.
        if len(most) >= _ENOUGH and max(most) < 1:
            break
    low, high = (math.prod(ratios) ** (1 / max(len(ratios), 1)) for ratios in (least, most))
    left = f"{steps} steps leave {low:.0%} to {high:.0%} of the variance, as problems go"
    if high < 1:
        return "passed", left
    return ("failed" if low >= 1 else "inconclusive"), left


MEAN_LAWS: dict[str, Callable[[Subject], Outcome]] = {
    "value": _value,
    "bias": _bias,
    "rare": rare_bias,
    "settings": _settings,
    "degree": _degree,
    "direction": _direction,
    "adapting": _adapting,
}
