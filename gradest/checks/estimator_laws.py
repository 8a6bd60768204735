"""What an estimator owes: the contract exactly, its claims as sharply as replicates allow."""

import io
import pickle
from collections.abc import Callable
from functools import partial
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gradest.categorical import one_hot
from gradest.checks.finding import EQUAL, SINGLE, Outcome, global_randomness, relative_gap
from gradest.checks.problems import extreme
from gradest.checks.subject import LOOKS, ROWS, Subject, estimates
from gradest.contracts import Task
from gradest.enumeration import all_codes
from gradest.inference import UNBIASED_WITHIN, largest_z, mean_interval
from gradest.measurement import Measurement
from gradest.moments import Moments
from gradest.randomness import Draws

SHARP = 0.05  # relative bias that a measurement must be able to exclude
_PAIRS = 4096  # rows in which float32 is held against float64


def _everywhere(check: Callable[[Subject, Task], str], kept: str, subject: Subject) -> Outcome:
    """A law from a check of one problem, which says what is broken there, or nothing."""
    for task in subject.tasks:
        if broken := check(subject, task):
            return "failed", f"{task.name}: {broken}"
    return "passed", kept


def _shape(subject: Subject, task: Task) -> str:
    replicator = subject.ready(task)
    return _not_finite(estimates(replicator)) or _not_finite(estimates(replicator, rows=1))


def _not_finite(estimates: Tensor) -> str:
    bad = ~estimates.isfinite().all(1)
    return f"{int(bad.sum())} of {len(bad)} rows are not finite" if bad.any() else ""


def _rows(subject: Subject, task: Task) -> str:
    replicator = subject.ready(task)
    shift = torch.full((len(replicator.logits), ROWS), 1000.0, dtype=torch.float64)
    shift[0, 0] = 0.0

    def elsewhere(z: Tensor, cost: Tensor) -> Tensor:
        return cost + shift[(..., *(None,) * (cost.ndim - 2))]

    gap = relative_gap(estimates(replicator)[0], estimates(replicator, elsewhere)[0])
    return f"row 0 moves by {gap:.2g} when the others cost 1000 more" if gap > EQUAL else ""


def _state(subject: Subject, task: Task) -> str:
    replicator = subject.ready(task)
    before = _snapshot(replicator.estimator)
    estimates(replicator)
    after = _snapshot(replicator.estimator)
    changed = sorted(k for k in before | after if before.get(k) != after.get(k))
    return f"the call changed {', '.join(changed)}" if changed else ""


def _snapshot(x: Any) -> dict[str, bytes]:
    """attribute -> bytes that differ when anything that it holds does."""
    files = {name: io.BytesIO() for name in vars(x)}
    for name, file in files.items():
        _Contents(file).dump(vars(x)[name])
    return {name: file.getvalue() for name, file in files.items()}


class _Contents(pickle.Pickler):
    """Pickles tensors that have a graph, and functions and classes that cannot be imported."""

    def reducer_override(self, x: Any) -> Any:
        if isinstance(x, Tensor):
            return repr, (x.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy(),)
        if isinstance(x, type | FunctionType | ModuleType):
            return repr, (repr(x),)
        return NotImplemented


def _randomness(subject: Subject, task: Task) -> str:
    before = global_randomness()
    estimates(subject.ready(task))
    touched = [name for name, state in global_randomness().items() if state != before[name]]
    return f"draws from the global state of {', '.join(touched)}" if touched else ""


def _seed(subject: Subject) -> Outcome:
    drawn, varies = 0, False
    for task in subject.tasks:
        replicator, source = subject.ready(task), Draws.seeded(1)
        first = estimates(replicator, source=source)
        other = estimates(replicator, source=Draws.seeded(2))
        for what, again in (
            ("the same call", replicator),
            ("another instance", subject.ready(task)),
            ("the same instance after reset", subject.ready(task, used=replicator.estimator)),
        ):
            gap = relative_gap(first, estimates(again))
            if gap > EQUAL:
                return "failed", f"{task.name}: {what} differs by {gap:.2g} under the same seed"
        spread = relative_gap(first[:1], first[:ROWS])
        if not source.count and spread > EQUAL:
            return "failed", f"{task.name}: without a draw, equal rows differ by {spread:.2g}"
        drawn, varies = drawn + source.count, varies or relative_gap(first, other) > EQUAL
    if drawn and not varies:
        return "failed", "draws, but gives the same result under another seed"
    return "passed", "the same seed, the same result" + ("; another, another" if drawn else "")


def _vertices(subject: Subject, task: Task) -> str:
    off = [0.0]

    def watch(z: Tensor, cost: Tensor) -> Tensor:
        off.append(float((z - one_hot(z.argmax(-1), z)).detach().abs().max()))
        return cost

    estimates(subject.ready(task), watch)
    relaxed = max(off) > EQUAL
    if relaxed == subject.cls.relaxes:
        return ""
    where = f"up to {max(off):.2g} off the vertices" if relaxed else "at vertices alone"
    return f"relaxes = {not relaxed}, yet f is evaluated {where}"


def _derivative(subject: Subject, task: Task) -> str:
    replicator = subject.ready(task)
    attached = estimates(replicator)
    try:
        gap = relative_gap(attached, estimates(replicator, lambda z, cost: cost.detach()))
    except RuntimeError:  # nothing is left to differentiate
        gap = 1.0
    claims = subject.cls.differentiates
    # Who relaxes f differentiates it as a rule; the claim to relax covers both.
    if (gap > EQUAL) == claims or (gap > EQUAL and subject.cls.relaxes):
        return ""
    return f"differentiates = {claims}, yet f without derivatives changes the result by {gap:.2g}"


def _float32(subject: Subject) -> Outcome:
    worst = 0.0
    for task in subject.tasks:
        single, double = (
            estimates(subject.ready(task, dtype, steps=0), rows=_PAIRS)
            for dtype in (torch.float32, torch.float64)
        )
        if broken := _not_finite(single):
            return "failed", f"{task.name}: {broken}"
        # Pair by pair: most draws are common to both, which makes the difference of means sharp.
        a, b = (
            x.double().unflatten(0, (-1, _PAIRS)).transpose(0, 1).flatten(1)
            for x in (single, double)
        )  # [R, B · (N · K + 1)]
        mean, peak = b.mean(0), float((a - b).abs().max())
        z, p = largest_z(Moments.of((mean + a - b).unsqueeze(0)), mean, peak, SINGLE)
        if p < subject.level():
            return "failed", f"{task.name}: the mean differs from float64's, |z| = {z:.1f}"
        worst = max(worst, relative_gap(a.mean(0), mean))
    return "passed", f"the mean differs from float64's by {worst:.1g}, which noise explains"


def _extreme_logits(subject: Subject) -> Outcome:
    for dtype, size in ((torch.float32, 40.0), (torch.float64, 700.0)):
        task = extreme(size, subject.cls.categories or 3)
        if broken := _not_finite(estimates(subject.ready(task, dtype))):
            return "failed", f"{task.name} in {dtype}: {broken}"
    return "passed", "finite at ±40 in float32 and at ±700 in float64"


class _Deviation(NamedTuple):
    """Of a mean from the truth, relative to a size that matters."""

    p_value: float
    z: float
    size: float
    most: float  # the upper end of its 95 % interval


def _search(
    subject: Subject, deviation: Callable[[Task, Measurement], _Deviation], enough: float
) -> tuple[str, str, float]:
    """A deviation that chance does not explain; else where it may be largest, and how large.

    A problem on which it is at most `enough` gets no second look.
    """
    room = dict.fromkeys((task.name for task in subject.tasks), float("inf"))
    for replicates in LOOKS:
        for task in subject.tasks:
            if room[task.name] <= enough:
                continue
            found = deviation(task, subject.measured(task, replicates))
            if found.p_value < subject.level():
                return f"{found.size:.2%}, |z| = {found.z:.1f} ({task.name})", "", found.size
            room[task.name] = found.most
    worst = max(room, key=room.get)
    return "", f"at most {room[worst]:.2%} ({worst})", room[worst]


def _value(subject: Subject) -> Outcome:
    """The mean value against E f, relative to the range of f."""
    claim = subject.cls.unbiased
    if subject.cls.relaxes and not claim:
        return "skipped", "relaxes f: the values are those of relaxed samples"

    def deviation(task: Task, found: Measurement) -> _Deviation:
        exact, mean, spread = found.exact_value, mean_interval(found.objective), _range(task)
        truth = torch.tensor([exact], dtype=torch.float64)
        z, p = largest_z(found.objective, truth, 0.0, found.resolution)
        size, most = abs(mean.estimate - exact) / spread, max(mean.high - exact, exact - mean.low)
        # Who claims a bias may draw from a law nearby, as perturbation methods do.
        tolerated = not claim and size <= UNBIASED_WITHIN
        return _Deviation(1.0 if tolerated else p, z, size, most / spread)

    shown, told, most = _search(subject, deviation, UNBIASED_WITHIN)
    off = "relative to the range of f, the mean value is off E f by"
    if shown:
        return "failed", f"{off} {shown}"
    return "passed" if most <= UNBIASED_WITHIN else "inconclusive", f"{off} {told}"


def _range(task: Task) -> float:
    logits, f = task.problem()
    z = all_codes(logits)  # [K^N, N, K]
    cost = f(z.expand(len(logits), *z.shape))  # [B, K^N]
    return float(cost.max() - cost.min())


def _bias(subject: Subject) -> Outcome:
    claim = subject.cls.unbiased

    def deviation(task: Task, found: Measurement) -> _Deviation:
        row = found.row()
        most = row["bias_sq_high"] ** 0.5 / row["gradient_norm"]
        return _Deviation(row["p_value"], row["max_z"], row["relative_bias"], most)

    shown, told, most = _search(subject, deviation, SHARP if claim else 0.0)
    if shown:
        return ("failed" if claim else "passed"), f"unbiased = {claim}, relative bias {shown}"
    if most > SHARP:
        return "inconclusive", f"too noisy to tell: relative bias {told}"
    return ("passed" if claim else "failed"), f"unbiased = {claim}, relative bias {told}"


ESTIMATOR_LAWS: dict[str, Callable[[Subject], Outcome]] = {
    "shape": partial(_everywhere, _shape, "one finite value and gradient a row, also for one row"),
    "state": partial(_everywhere, _state, "a call leaves the instance as it was"),
    "randomness": partial(_everywhere, _randomness, "draws from no global state"),
    "seed": _seed,
    "rows": partial(_everywhere, _rows, "row 0 stays as it is when the others cost 1000 more"),
    "vertices": partial(_everywhere, _vertices, "f is evaluated where `relaxes` says"),
    "derivative": partial(_everywhere, _derivative, "f' is used as `differentiates` says"),
    "float32": _float32,
    "extreme logits": _extreme_logits,
    "value": _value,
    "bias": _bias,
}
