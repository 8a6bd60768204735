"""The conformance battery: does a plugin keep its contract, and are its claims true?

The problems are the battery's own: asymmetric, curved within a latent and coupled between latents,
so that no symmetry hides a mistake.  What holds exactly is tested exactly, under fixed seeds.  A
statistical law asks two questions: is there a deviation that chance does not explain, and if not,
was the measurement sharp enough to show one?
"""

import io
import pickle
import random
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import FunctionType, ModuleType
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gradest.categorical import one_hot
from gradest.contracts import Cost, Estimator, Problem, Task, inapplicable
from gradest.enumeration import all_codes
from gradest.inference import UNBIASED_WITHIN, largest_z, mean_interval
from gradest.knobs import build
from gradest.measurement import Measurement, measure
from gradest.moments import Moments
from gradest.randomness import Draws, drawing_from
from gradest.replicator import Replicator

LOOKS = (40_000, 400_000)  # replicates; the second look is for what the first leaves open
FALSE_ALARM = 1e-4  # the chance that a statistical law rejects an estimator that keeps it
SHARP = 0.05  # relative bias that a measurement must be able to exclude

_ROWS = 8
_PAIRS = 4096  # rows in which float32 is held against float64
_EQUAL = 1e-9  # relative; the same sums in another order differ by less
_SINGLE = 1024 * torch.finfo(torch.float32).eps  # the same for float32
# E ĝ has to be right in every state, so it is enough to leave the initial one.
_BRIEFLY, _LONGER = 5, 100

Status = Literal["passed", "failed", "skipped", "inconclusive"]
Outcome = tuple[Status, str]


class Finding(NamedTuple):
    """What the battery says about one law: a status, and by how much."""

    law: str
    status: Status
    detail: str


def passed(findings: Iterable[Finding]) -> bool:
    """Whether the plugin is certified: some law passed, and none failed or was inconclusive.

    A measurement too noisy to show a violation is no evidence that there is none.
    """
    statuses = {finding.status for finding in findings}
    return "passed" in statuses and statuses <= {"passed", "skipped"}


def check_estimator(cls: type[Estimator]) -> list[Finding]:
    """Test the contract's laws and the claims of the class, with its default knobs."""
    try:
        subject = _Subject(cls)
    except Exception as error:
        return [Finding("builds", "failed", _told(error))]
    skipped = [Finding("applies", "skipped", reason) for reason in subject.skipped]
    if not subject.tasks:
        return [*skipped, Finding("applies", "failed", "to no problem of the battery")]
    return skipped + _findings(_ESTIMATOR, subject)


def check_task(cls: type[Task]) -> list[Finding]:
    """Test the contract's laws on the problem that the default knobs give."""
    try:
        task = build(cls, {})
        problem = task.problem()
    except Exception as error:
        return [Finding("builds", "failed", _told(error))]
    return _findings(_TASK, task, problem)


def _findings(laws: Mapping[str, Callable[..., Outcome]], *subject: Any) -> list[Finding]:
    findings: dict[str, Finding] = {}
    for law, check in laws.items():
        repeatable = not any(f.status == "failed" for f in findings.values() if f.law in _REPEATS)
        if law in _COMPARES and not repeatable:
            findings[law] = Finding(law, "skipped", "two calls differ, whatever is compared")
            continue
        try:
            findings[law] = Finding(law, *check(*subject))
        except Exception as error:
            findings[law] = Finding(law, "failed", _told(error))
    return list(findings.values())


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _outcome(broken: str, kept: str) -> Outcome:
    return ("failed", broken) if broken else ("passed", kept)


class _Polynomial(Task):
    """f(z) = c + u + u v + v³ with u = w₁ · z and v = w₂ · z; w differs between data points."""

    def __init__(self, name: str, logits: Any, seed: int, offset: float = 0.0) -> None:
        self.name = name
        self._logits = torch.as_tensor(logits, dtype=torch.float64)  # [B, N, K]
        draws = torch.Generator().manual_seed(seed)
        self._weights = torch.randn(2, *self._logits.shape, generator=draws, dtype=torch.float64)
        self._offset = offset

    def problem(self, batch: Any = None) -> Problem:
        def cost(z: Tensor) -> Tensor:  # [B, ..., N, K] -> [B, ...]
            middle = (slice(None), *(None,) * (z.ndim - 3))
            u, v = ((z * w.to(z)[middle]).sum((-2, -1)) for w in self._weights)
            return self._offset + u + u * v + v**3

        return Problem(self._logits, Cost(cost))


def _battery() -> list[Task]:
    one = [[[0.7, -0.7, 0.0]]]
    coupled = [[[0.5, -0.7, 0.2], [-0.3, 0.9, 0.0]], [[-0.8, 0.4, 0.3], [0.6, 0.0, -0.7]]]
    bits = [[[0.8, -0.3], [-0.4, 0.1], [0.2, 1.2]]]
    far = [[[0.6, -0.2], [-0.9, 0.1]], [[0.1, 0.4], [0.3, -0.8]]]
    return [
        _Polynomial("one categorical", one, seed=0),
        _Polynomial("coupled categoricals", coupled, seed=1),
        _Polynomial("coupled bits", bits, seed=2),
        # An offset changes no gradient, but magnifies whatever is wrong with a baseline or score.
        _Polynomial("bits far from zero", far, seed=3, offset=10.0),
    ]


def _extreme(size: float, categories: int) -> Task:
    """Logits ±size: each category alone on top, alone at the bottom, all of them up, all down."""
    top = torch.eye(categories)
    up = torch.cat([top, 1 - top, torch.ones(1, categories), torch.zeros(1, categories)])
    logits = size * (2 * up - 1)  # [B, K]
    return _Polynomial(f"logits ±{size:g}", torch.stack([logits, logits.roll(1, 0)], 1), seed=4)


class _Subject:
    """An estimator class, and the problems of the battery that it applies to.

    Raises whatever building the class raises.
    """

    def __init__(self, cls: type[Estimator]) -> None:
        self.cls = cls
        self.tasks: list[Task] = []
        self.skipped: list[str] = []
        self._measured: dict[tuple[str, int], Measurement] = {}
        for task in _battery():
            if reason := inapplicable(self.fresh(), task, task.problem().logits):
                self.skipped.append(reason)
            else:
                self.tasks.append(task)

    def fresh(self) -> Estimator:
        estimator = build(self.cls, {})
        estimator.name = self.cls.name or self.cls.__name__
        return estimator

    def ready(
        self,
        task: Task,
        dtype: torch.dtype = torch.float64,
        steps: int = _BRIEFLY,
        used: Estimator | None = None,
    ) -> Replicator:
        """A fresh instance, or the used one, on the task, reset and adapted."""
        with drawing_from(Draws.seeded(0)):
            replicator = Replicator(used or self.fresh(), task, dtype)
            replicator.adapt(min(self.cls.adapt_steps, steps))
        return replicator

    def measured(self, task: Task, replicates: int) -> Measurement:
        key = (task.name, replicates)
        if key not in self._measured:
            steps = min(self.cls.adapt_steps, _LONGER)
            self._measured[key] = measure(
                self.fresh(), task, replicates=replicates, seed=replicates, adapt_steps=steps
            )
        return self._measured[key]

    def level(self) -> float:
        """Of one of the tests that a statistical law consists of."""
        return FALSE_ALARM / (len(LOOKS) * len(self.tasks))


def _estimates(
    replicator: Replicator,
    change: Callable[[Tensor, Tensor], Tensor] = lambda z, cost: cost,
    rows: int = _ROWS,
    source: Draws | None = None,
) -> Tensor:
    """One call under a fixed seed: for each row its gradient and value, [B · rows, N · K + 1].

    f(z) is replaced by change(z, f(z)), where z is [B, rows, ..., N, K].  Raises ValueError when
    the estimator returns, or asks f for, anything but one item a row.
    """
    problem, points = replicator.problem, len(replicator.logits)

    def fn(z: Tensor) -> Tensor:
        if z.shape[1] != rows:
            raise ValueError(f"f was asked for {z.shape[1]} rows where there are {rows}")
        return change(z, problem.f.fn(z))

    logits = replicator.logits.repeat_interleave(rows, 0).requires_grad_()
    with drawing_from(source or Draws.seeded(1)):
        value = replicator.estimator(logits, Cost(fn, points=points))
    if not isinstance(value, Tensor) or value.shape != logits.shape[:1]:
        got = list(value.shape) if isinstance(value, Tensor) else value
        raise ValueError(f"returned {got} where [{len(logits)}], one value a row, was expected")
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    return torch.cat([gradient.flatten(1), value.detach().unsqueeze(1)], 1)


def _gap(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest entry; infinite for NaN."""
    difference, size = (a - b).abs().max(), torch.maximum(a.abs().max(), b.abs().max())
    gap = float(difference / size) if difference != 0 else 0.0
    return gap if gap == gap else float("inf")


def _everywhere(check: Callable[[_Subject, Task], str], kept: str, subject: _Subject) -> Outcome:
    """A law from a check of one problem, which says what is broken there, or nothing."""
    for task in subject.tasks:
        if broken := check(subject, task):
            return "failed", f"{task.name}: {broken}"
    return "passed", kept


def _shape(subject: _Subject, task: Task) -> str:
    replicator = subject.ready(task)
    return _not_finite(_estimates(replicator)) or _not_finite(_estimates(replicator, rows=1))


def _not_finite(estimates: Tensor) -> str:
    bad = ~estimates.isfinite().all(1)
    return f"{int(bad.sum())} of {len(bad)} rows are not finite" if bad.any() else ""


def _rows(subject: _Subject, task: Task) -> str:
    replicator = subject.ready(task)
    shift = torch.full((len(replicator.logits), _ROWS), 1000.0, dtype=torch.float64)
    shift[0, 0] = 0.0

    def elsewhere(z: Tensor, cost: Tensor) -> Tensor:
        return cost + shift[(..., *(None,) * (cost.ndim - 2))]

    gap = _gap(_estimates(replicator)[0], _estimates(replicator, elsewhere)[0])
    return f"row 0 moves by {gap:.2g} when the others cost 1000 more" if gap > _EQUAL else ""


def _state(subject: _Subject, task: Task) -> str:
    replicator = subject.ready(task)
    before = _snapshot(replicator.estimator)
    _estimates(replicator)
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


def _randomness(subject: _Subject, task: Task) -> str:
    before = _global_randomness()
    _estimates(subject.ready(task))
    touched = [name for name, state in _global_randomness().items() if state != before[name]]
    return f"draws from the global state of {', '.join(touched)}" if touched else ""


def _global_randomness() -> dict[str, Any]:
    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": pickle.dumps(np.random.get_state()),
        "random": random.getstate(),
    }


def _seed(subject: _Subject) -> Outcome:
    drawn, varies = 0, False
    for task in subject.tasks:
        replicator, source = subject.ready(task), Draws.seeded(1)
        first = _estimates(replicator, source=source)
        other = _estimates(replicator, source=Draws.seeded(2))
        for what, again in (
            ("the same call", replicator),
            ("another instance", subject.ready(task)),
            ("the same instance after reset", subject.ready(task, used=replicator.estimator)),
        ):
            gap = _gap(first, _estimates(again))
            if gap > _EQUAL:
                return "failed", f"{task.name}: {what} differs by {gap:.2g} under the same seed"
        spread = _gap(first[:1], first[:_ROWS])
        if not source.count and spread > _EQUAL:
            return "failed", f"{task.name}: without a draw, equal rows differ by {spread:.2g}"
        drawn, varies = drawn + source.count, varies or _gap(first, other) > _EQUAL
    if drawn and not varies:
        return "failed", "draws, but gives the same result under another seed"
    return "passed", "the same seed, the same result" + ("; another, another" if drawn else "")


def _vertices(subject: _Subject, task: Task) -> str:
    off = [0.0]

    def watch(z: Tensor, cost: Tensor) -> Tensor:
        off.append(float((z - one_hot(z.argmax(-1), z)).detach().abs().max()))
        return cost

    _estimates(subject.ready(task), watch)
    relaxed = max(off) > _EQUAL
    if relaxed == subject.cls.relaxes:
        return ""
    where = f"up to {max(off):.2g} off the vertices" if relaxed else "at vertices alone"
    return f"relaxes = {not relaxed}, yet f is evaluated {where}"


def _derivative(subject: _Subject, task: Task) -> str:
    replicator = subject.ready(task)
    attached = _estimates(replicator)
    try:
        gap = _gap(attached, _estimates(replicator, lambda z, cost: cost.detach()))
    except RuntimeError:  # nothing is left to differentiate
        gap = 1.0
    claims = subject.cls.differentiates
    # Who relaxes f differentiates it as a rule; the claim to relax covers both.
    if (gap > _EQUAL) == claims or (gap > _EQUAL and subject.cls.relaxes):
        return ""
    return f"differentiates = {claims}, yet f without derivatives changes the result by {gap:.2g}"


def _float32(subject: _Subject) -> Outcome:
    worst = 0.0
    for task in subject.tasks:
        single, double = (
            _estimates(subject.ready(task, dtype, steps=0), rows=_PAIRS)
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
        z, p = largest_z(Moments.of((mean + a - b).unsqueeze(0)), mean, peak, _SINGLE)
        if p < subject.level():
            return "failed", f"{task.name}: the mean differs from float64's, |z| = {z:.1f}"
        worst = max(worst, _gap(a.mean(0), mean))
    return "passed", f"the mean differs from float64's by {worst:.1g}, which noise explains"


def _extreme_logits(subject: _Subject) -> Outcome:
    for dtype, size in ((torch.float32, 40.0), (torch.float64, 700.0)):
        task = _extreme(size, subject.cls.categories or 3)
        if broken := _not_finite(_estimates(subject.ready(task, dtype))):
            return "failed", f"{task.name} in {dtype}: {broken}"
    return "passed", "finite at ±40 in float32 and at ±700 in float64"


class _Deviation(NamedTuple):
    """Of a mean from the truth, relative to a size that matters."""

    p_value: float
    z: float
    size: float
    most: float  # the upper end of its 95 % interval


def _search(
    subject: _Subject, deviation: Callable[[Task, Measurement], _Deviation], enough: float
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


def _value(subject: _Subject) -> Outcome:
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


def _bias(subject: _Subject) -> Outcome:
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


_ESTIMATOR: dict[str, Callable[[_Subject], Outcome]] = {
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


def _vertices_of(problem: Problem) -> Tensor:
    """Random one-hot codes [B, R, S, N, K], with R and S unlike any other axis."""
    points, latents, categories = shape = problem.logits.shape
    rows, samples = [n for n in range(2, 7) if n not in shape][:2]
    draws = torch.Generator().manual_seed(0)
    index = torch.randint(categories, (points, rows, samples, latents), generator=draws)
    return one_hot(index, problem.logits.detach().double())


def _inside(problem: Problem) -> Tensor:
    """Random interior points of the simplex, in the same shape."""
    draws = torch.Generator().manual_seed(1)
    return torch.empty_like(_vertices_of(problem)).normal_(generator=draws).softmax(-1)


def _logits(task: Task, problem: Problem) -> Outcome:
    logits = problem.logits
    if logits.ndim != 3 or logits.shape[-1] < 2 or not logits.is_floating_point():
        return "failed", f"{logits.dtype} {list(logits.shape)}; floating [B, N, K ≥ 2] was expected"
    bad = int((~logits.isfinite()).sum())
    return _outcome(f"{bad} logits are not finite" if bad else "", f"finite {list(logits.shape)}")


def _middle_axes(task: Task, problem: Problem) -> Outcome:
    z, worst = _vertices_of(problem), 0.0
    whole = problem.f(z)  # [B, R, S]
    if not whole.isfinite().all():
        return "failed", "f is not finite at vertices"
    for r in range(z.shape[1]):
        worst = max(worst, _gap(problem.f(z[:, r]), whole[:, r]))
        for s in range(z.shape[2]):
            worst = max(worst, _gap(problem.f(z[:, r, s]), whole[:, r, s]))
    broken = f"one call for all differs from slice by slice by {worst:.2g}"
    return _outcome(broken if worst > _EQUAL else "", "one call for all agrees with slice by slice")


def _deterministic(task: Task, problem: Problem) -> Outcome:
    z, before = _vertices_of(problem), _global_randomness()
    rebuilt = build(type(task), {}).problem()
    for what, other in (
        ("the same problem", problem),
        ("another problem()", task.problem()),
        ("another instance", rebuilt),
    ):
        gap = _gap(problem.f(z), other.f(z))
        if gap > 0 or not torch.equal(problem.logits, other.logits):
            return "failed", f"{what} has other logits, or other costs by {gap:.2g}"
    touched = _global_randomness() != before
    return _outcome("draws from a global random state" if touched else "", "the same every time")


def _dtype(task: Task, problem: Problem) -> Outcome:
    z = _vertices_of(problem)
    single, double = problem.f(z.float()), problem.f(z)
    if single.dtype != torch.float32 or double.dtype != torch.float64:
        return "failed", f"float32 gives {single.dtype}, float64 {double.dtype}"
    gap = _gap(single.double(), double)
    told = f"float32 differs from float64 by {gap:.2g}"
    return _outcome(told if gap > _SINGLE else "", told)


def _points(task: Task, problem: Problem) -> Outcome:
    z = _vertices_of(problem)
    if len(z) == 1:
        return "skipped", "one data point"
    whole = problem.f(z)
    for point in range(len(z)):
        moved = z.roll(1, -1)
        moved[point] = z[point]
        gap = _gap(problem.f(moved)[point], whole[point])
        if gap > _EQUAL:
            return "failed", f"the cost of point {point} moves by {gap:.2g} with the others' codes"
    return "passed", "no cost depends on the code of another data point"


def _relaxable(task: Task, problem: Problem) -> Outcome:
    if not task.relaxable:
        return "skipped", "relaxable = False"
    for where, z in (("vertices", _vertices_of(problem)), ("interior points", _inside(problem))):
        (slope,) = torch.autograd.grad(problem.f(z.requires_grad_()).sum(), z)
        if not slope.isfinite().all() or not slope.any():
            return "failed", f"at {where} the derivative of f is not finite, or zero throughout"
    with torch.no_grad():
        step = 1e-5 * (z.roll(1, -1) - z)  # stays on the simplex
        rise = (problem.f(z + step) - problem.f(z - step)) / 2
        gap = _gap((slope * step).sum(), rise.sum())
    told = f"the derivative is finite and differs from a difference quotient by {gap:.1g}"
    return _outcome(told if gap > 1e-4 else "", told)


def _penalty(task: Task, problem: Problem) -> Outcome:
    logits = problem.logits.detach().double().requires_grad_()
    penalty = task.penalty(logits)
    if penalty.shape != logits.shape[:1]:
        return "failed", f"shape {list(penalty.shape)} where [{len(logits)}] was expected"
    parts = [penalty]
    if penalty.requires_grad:
        parts += torch.autograd.grad(penalty.sum(), logits)
    finite = all(bool(part.isfinite().all()) for part in parts)
    return _outcome("" if finite else "not finite, or its gradient is not", "finite, one a point")


_TASK: dict[str, Callable[[Task, Problem], Outcome]] = {
    "logits": _logits,
    "deterministic": _deterministic,
    "middle axes": _middle_axes,
    "dtype": _dtype,
    "points": _points,
    "relaxable": _relaxable,
    "penalty": _penalty,
}

# A law that compares two calls says nothing once the law of repetition is broken.
_REPEATS = {"seed", "deterministic"}
_COMPARES = {"rows", "derivative", "middle axes", "dtype", "points", "relaxable"}
