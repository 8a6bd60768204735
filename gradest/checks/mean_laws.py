"""The laws on means: the value estimates E f and, if claimed, the gradient estimates ∇ E f.

Where the draws have few outcomes they are enumerated, and a law is tested exactly; elsewhere as
precisely as replicates allow.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from itertools import product
from typing import Any, NamedTuple

import torch

from gradest.checks.battery import DEFAULTS, LOOKS, SHARP, Subject
from gradest.checks.direction_law import direction
from gradest.checks.frequencies import frequencies
from gradest.checks.problems import of_degree, span, truth
from gradest.checks.rare_laws import rare_bias
from gradest.checks.result import EQUAL, Outcome, Status, percent
from gradest.checks.settings import naming, setting_text, variations
from gradest.contracts import Estimator, Task
from gradest.measurement import ExactMoments
from gradest.statistics import SINGLE, UNBIASED_WITHIN, largest_z, mean_interval, total_variance

_FIRST = 10_000  # replicates of a first test for a bias, enough for estimators of many samples
_ENOUGH = 2  # problems on which adaptation lowers the variance


class _Deviation(NamedTuple):
    """The deviation of a mean from the truth, relative to a typical size."""

    p_value: float  # 0 or 1 where the moments are exact
    z: float
    size: float
    least: float  # the ends of its 95 % interval
    most: float

    @classmethod
    def exactly(cls, size: float, tolerance: float) -> "_Deviation":
        deviates = not size <= tolerance  # also for NaN
        return cls(0.0 if deviates else 1.0, math.inf if deviates else 0.0, size, size, size)


_Law = Callable[[Task, int], _Deviation]


class _Result(NamedTuple):
    """A deviation that chance does not explain, or else the one that may be largest."""

    certain: bool
    task: str
    deviation: _Deviation

    def text(self) -> str:
        size, z, most = self.deviation.size, self.deviation.z, self.deviation.most
        if z in (0.0, math.inf):
            note = ", the rounding of single precision" if not z and size > EQUAL else ""
            return f"{percent(size)}, enumerated ({self.task}{note})"
        if self.certain:
            return f"{percent(size)}, |z| = {z:.1f} ({self.task})"
        return f"at most {percent(most)} ({self.task})"


def _search(subject: Subject, tasks: Iterable[Task], deviation: _Law, enough: float) -> _Result:
    """The deviation on the worst problem, with more replicates where it may exceed `enough`.

    After the first few replicates it has to be at most half of that.  An estimator that adapts does
    without these: adaptation takes longer than all replicates.
    """
    results: dict[str, _Result] = {}
    done: set[str] = set()
    looks = LOOKS if subject.cls.adapt_steps else (_FIRST, *LOOKS)
    for replicates in looks:
        for task in tasks:
            if task.name in done:
                continue
            current = deviation(task, replicates)
            if current.p_value < subject.level(len(looks)):
                return _Result(True, task.name, current)
            results[task.name] = _Result(False, task.name, current)
            if current.most <= (enough / 2 if replicates == _FIRST else enough):
                done.add(task.name)
    return max(results.values(), key=lambda result: result.deviation.most)


def _value(subject: Subject) -> Outcome:
    """The deviation of the mean value from E f, relative to the range of f."""
    claim, own = subject.cls.unbiased, subject.cls.own_distribution
    if subject.cls.relaxes and not claim:
        return "skipped", "the values are those of relaxed samples"
    enough = SHARP if own else UNBIASED_WITHIN

    def deviation(task: Task, replicates: int) -> _Deviation:
        spread = span(task)
        if moments := subject.exact_moments(task):
            size = float((moments.value - truth(task).value).abs().max()) / spread
            single = SINGLE * (1 + float(truth(task).value.abs().max()) / spread)
            return _Deviation.exactly(size, enough if own else single)
        result = subject.measure(task, replicates)
        value, mean = result.exact_value, mean_interval(result.objective)
        exact = torch.tensor([value], dtype=torch.float64)
        z, p = largest_z(result.objective, exact, 0.0, result.resolution)
        size, most = abs(mean.estimate - value) / spread, max(mean.high - value, value - mean.low)
        # Samples of a distribution close to Cat(α) have a mean cost that is close to E f.
        return _Deviation(1.0 if own and size <= enough else p, z, size, 0.0, most / spread)

    result = _search(subject, subject.with_truth, deviation, enough)
    size = f"relative to the range of f, the mean value deviates from E f by {result.text()}"
    if result.certain:
        return "failed", f"{size}; return f(z) plus nabla(...) of the terms that give the gradient"
    if result.deviation.most > enough:
        return "inconclusive", size
    # The value of an unbiased method is tested against every deviation that noise allows to see.
    return ("passed", size) if claim else _distribution(subject, size)


def _distribution(subject: Subject, detail: str) -> Outcome:
    """Whether the samples of a biased estimator are from Cat(α), as claimed or not."""
    own, result = subject.cls.own_distribution, frequencies(subject)
    if result is None:
        return "passed", detail
    if result.deviates and not own:
        return "failed", (
            f"samples are not from Cat(α): they deviate by {result.text()}; correct the code, or "
            "claim own_distribution = True"
        )
    if result.deviates:
        return "passed", f"{detail}; samples deviate by {result.text()}"
    if own:
        return "failed", "own_distribution = True, but the samples are from Cat(α), as far as seen"
    return ("passed" if result.sharp else "inconclusive"), f"{detail}; samples by {result.text()}"


def _relative_bias(
    subject: Subject, knobs: Mapping[str, Any] = DEFAULTS, tolerance: float = 0.0
) -> _Law:
    """The deviation ‖E ĝ − g‖/‖g‖, as a function of the task and the replicates."""

    def deviation(task: Task, replicates: int) -> _Deviation:
        with naming(knobs, task.name):
            moments = subject.exact_moments(task, knobs)
        if moments:
            return _Deviation.exactly(_gap(moments, task), max(tolerance, _rounding(task)))
        with naming(knobs, task.name):
            row = subject.measure(task, replicates, knobs).row()
        low, high = (row[name] ** 0.5 / row["gradient_norm"] for name in _INTERVAL)
        return _Deviation(row["p_value"], row["max_z"], row["relative_bias"], low, high)

    return deviation


_INTERVAL = ("bias_sq_low", "bias_sq_high")


def _rounding(task: Task) -> float:
    """The relative bias that code in single precision has by its rounding alone.

    That of the gradient, and that of the costs in it, which may be far larger than the gradient.
    """
    cost = float(truth(task).value.abs().max()) + span(task)
    return SINGLE + torch.finfo(torch.float32).eps * cost / float(truth(task).gradient.norm())


def _gap(moments: ExactMoments, task: Task) -> float:
    gradient = truth(task).gradient
    return float((moments.mean - gradient).norm() / gradient.norm())


def _bias(subject: Subject) -> Outcome:
    claim = subject.cls.unbiased
    result = _search(subject, subject.with_truth, _relative_bias(subject), SHARP if claim else 0.0)
    size = f"unbiased = {claim}, relative bias {result.text()}"
    if result.certain and claim:
        return "failed", f"{size}; correct the code, or claim unbiased = False"
    if result.certain:
        return "passed", size
    if result.deviation.most > SHARP:
        return "inconclusive", f"too noisy: {size}"
    return ("passed", size) if claim else ("failed", f"{size}: the bias is zero")


def _settings(subject: Subject) -> Outcome:
    """The bias at values of the knobs other than their defaults."""
    if not subject.cls.unbiased:
        return "skipped", "unbiased = False"
    settings = variations(subject.cls)
    if not settings:
        return "skipped", "no knob has another value to try"
    gaps = []
    for knobs, task in product(settings, subject.with_truth):
        with naming(knobs, task.name):
            moments = subject.exact_moments(task, knobs)
        if moments:
            gaps.append(gap := _gap(moments, task))
            if not gap <= _rounding(task):
                where = setting_text(knobs, task.name)
                return "failed", f"relative bias {percent(gap)}, enumerated ({where})"
    if not gaps:
        return "skipped", "the draws cannot be enumerated at any of these settings"
    most = percent(max(gaps))
    return "passed", f"relative bias at most {most}, enumerated in {len(gaps)} cases"


def _degree(subject: Subject) -> Outcome:
    """No bias up to the claimed degree, and a bias above it."""
    degree, limit = subject.cls.degree, subject.cls.limit
    if degree is None:
        return "skipped", "no degree is claimed"
    if subject.cls.unbiased:
        return (
            "failed",
            f"degree = {degree} has no meaning for a method with unbiased = True; remove it",
        )
    if degree not in (1, 2, math.inf):
        return "failed", f"degree = {degree}; expected 1, 2 or math.inf"
    relative_bias = _relative_bias(subject, limit, SHARP if limit else 0.0)
    claimed = setting_text(limit, f"degree {degree}")
    tasks = subject.with_truth if degree == math.inf else subject.applicable(of_degree(int(degree)))
    status, most, detail = _unbiased(subject, tasks, relative_bias)
    if status != "passed" or degree == math.inf:
        return status, f"{claimed}: {detail}"
    above = int(degree) + 1
    status, more = _biased(subject.applicable(of_degree(above)), relative_bias, most)
    return status, f"{claimed}: {detail}; at degree {above} {more}"


def _unbiased(subject: Subject, tasks: Iterable[Task], bias: _Law) -> tuple[Status, float, str]:
    """Whether the bias is small on all tasks, how large it may be, and a detail.

    Close to a limit a small bias is expected.
    """
    exactly = not subject.cls.limit
    most, worst = 0.0, ""
    for task in tasks:
        for replicates in LOOKS:
            current = bias(task, replicates)
            ends = f"{percent(current.least)} to {percent(current.most)}"
            detail = f"relative bias {ends} ({task.name})"
            if current.least > SHARP or (exactly and current.p_value < subject.level()):
                return "failed", current.most, detail
            if current.most <= SHARP:
                break
        else:
            return "inconclusive", current.most, f"too noisy, {detail}"
        if current.most >= most:
            most, worst = current.most, detail
    return "passed", most, worst


def _biased(tasks: Iterable[Task], bias: _Law, most: float) -> tuple[Status, str]:
    """Whether some bias exceeds `most`, beyond its interval."""
    noisy = False
    for task in tasks:
        for replicates in LOOKS:
            current = bias(task, replicates)
            if current.least > most:
                return "passed", f"at least {percent(current.least)}"
        noisy = noisy or current.most > max(most, SHARP)
    if noisy:
        return "inconclusive", "too noisy to show a larger bias"
    return "failed", "no larger bias, so that a higher degree can be claimed"


def _adapting(subject: Subject) -> Outcome:
    """Adaptation of the state, which has to lower the variance over the problems."""
    steps = subject.cls.adapt_steps
    if not steps and subject.cls.adapt is not Estimator.adapt:
        return "failed", "adapt is defined, but adapt_steps = 0, so that it is never called"
    if not steps:
        return "skipped", "adapt_steps = 0"
    if not subject.cls.unbiased:
        return "skipped", "unbiased = False"
    least, most = [], []
    # The problem with the largest offset first, where a state has the largest effect.
    for task in subject.with_truth[-1:] + subject.with_truth[:-1]:
        results = [subject.measure(task, LOOKS[0], steps=s) for s in (0, steps)]
        if results[1].row()["p_value"] < subject.level() / 2:
            return "failed", f"{steps} steps cause a bias ({task.name})"
        before, after = (total_variance(each.gradient) for each in results)
        if before.low > 0:
            least.append(after.low / before.high)
            most.append(after.high / before.low)
        # Adaptation takes most of the time: if it helps on each of two problems, two are enough.
        if len(most) >= _ENOUGH and max(most) < 1:
            break
    low, high = (math.prod(ratios) ** (1 / max(len(ratios), 1)) for ratios in (least, most))
    detail = (
        f"{steps} steps leave {100 * low:.0f} % to {100 * high:.0f} % of the variance, "
        "on average over problems"
    )
    if high < 1:
        return "passed", detail
    return ("failed" if low >= 1 else "inconclusive"), detail


MEAN_LAWS: dict[str, Callable[[Subject], Outcome]] = {
    "value": _value,
    "bias": _bias,
    "rare": rare_bias,
    "settings": _settings,
    "degree": _degree,
    "direction": direction,
    "adapting": _adapting,
}
