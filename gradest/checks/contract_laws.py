"""What every estimator owes, whatever it estimates: the contract, tested under fixed seeds."""

import io
import pickle
from collections.abc import Callable, Mapping
from functools import partial
from itertools import product
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from gradest import formula
from gradest.categorical import one_hot
from gradest.checks.finding import (
    EQUAL,
    QUOTIENT,
    SINGLE,
    STEP,
    Outcome,
    relative_gap,
)
from gradest.checks.problems import extreme, span
from gradest.checks.rigged import SharedNoise
from gradest.checks.settings import alternatives, told, variations
from gradest.checks.sharing import agreement, excess, excessive
from gradest.checks.subject import BRIEFLY, DEFAULTS, ROWS, SHARP, Subject, estimates
from gradest.contracts import Estimator, Task
from gradest.inference import largest_z, mean_interval
from gradest.knobs import knob_defaults
from gradest.measuring.replicator import Replicator
from gradest.moments import Moments
from gradest.objectives import posed
from gradest.randomness import Draws, drawing_from, global_states, touched_since

_CALLS, _ALONGSIDE = 32, 512  # calls and rows of each in which common noise is looked for
_STATES = 8  # and how many states, each by draws of its own
_PAIRS = 4096  # rows in which two ways to the same thing are held against each other


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
    points = len(replicator.logits)
    other = torch.zeros(points, ROWS, dtype=torch.float64)
    other[:, 0] = 1.0

    def first(z: Tensor, cost: Tensor) -> Tensor:
        # Another slope besides another level: a difference of costs would not see the level.
        return torch.lerp(cost, 1000 - 3000 * cost, other[(..., *(None,) * (cost.ndim - 2))])

    kept = other.flatten() == 0
    gap = relative_gap(estimates(replicator)[kept], estimates(replicator, first)[kept])
    if gap > EQUAL:
        return f"the others move by {gap:.2g} when the cost of one row changes"
    elsewhere = subject.ready(task)
    elsewhere.logits = torch.cat([elsewhere.logits[:1], elsewhere.logits[1:].roll(1, -1)])
    gap = relative_gap(estimates(replicator)[:ROWS], estimates(elsewhere)[:ROWS])
    if gap > EQUAL:
        return f"a data point moves by {gap:.2g} with the logits of the others"
    return _own_noise(replicator) or _shared_noise(subject, task)


def _own_noise(replicator: Replicator) -> str:
    """Where noise comes row by row: a row keeps its estimate, whatever noise the others get."""
    points, seen = len(replicator.logits), []
    for rows, others_too in ((1, True), (ROWS, True), (ROWS, False)):
        source = SharedNoise(points, rows, others_too)
        seen.append(estimates(replicator, rows=rows, source=source).unflatten(0, (points, rows)))
        # Samples side by side as rows of their own: which noise is a row's is not known.
        if source.uneven:
            return ""
    alone, together, apart = seen
    gap = relative_gap(alone.expand_as(together), together)
    if gap > EQUAL:
        return f"a row is {gap:.2g} off from what it is alone"
    gap = relative_gap(alone[:, 0], apart[:, 0])
    return f"a row moves by {gap:.2g} with the draws of the others" if gap > EQUAL else ""


def _shared_noise(subject: Subject, task: Task) -> str:
    """Under one seed, rows have noise of their own, and so have calls one after the other."""
    if task not in subject.tasks[:2]:  # who shares noise does so on the problems of every size
        return ""
    replicator, source = subject.ready(task), Draws.seeded(3)
    seen, states = [], set()
    for _ in range(_CALLS):
        with _OtherGenerators(source) as used:
            seen.append(estimates(replicator, rows=_ALONGSIDE, source=source))
        if not states.isdisjoint(used.states):
            return (
                "calls repeat their noise: each seeds a torch.Generator anew; draw for every row "
                "through gradest.categorical"
            )
        states |= used.states
    calls = torch.stack(seen)  # [M, B · R, N · K + 1]
    mend = "draw for every row, as sample(logits) does with the logits of all rows"
    rows, again = agreement(calls), agreement(calls.transpose(0, 1))
    if not rows.by_chance:
        return (
            f"rows share noise: the estimates of two rows move in the same direction in "
            f"{rows.share:.0%} of {rows.comparisons:,} comparisons, those of independent rows in "
            f"50%; {mend}"
        )
    if not again.by_chance:
        return (
            f"calls repeat their noise: a row moves in the same direction in two calls in "
            f"{again.share:.0%} of {again.comparisons:,} comparisons, instead of 50%; draw through "
            "gradest.categorical, not from a generator that each call seeds anew"
        )
    ratio = _excess(calls, replicator)
    if excessive(ratio, _CALLS):
        return (
            f"rows share noise: between calls their mean varies {ratio:.2g} times as much as that "
            f"of independent rows; {mend}"
        )
    if task is subject.tasks[0] and _state_is_no_noise(subject.cls):
        return _noise_in_the_state(subject, task)
    return ""


def _noise_in_the_state(subject: Subject, task: Task) -> str:
    source = Draws.seeded(4)
    replicators = [subject.ready(task, seed=seed) for seed in range(_STATES)]
    calls = torch.stack([estimates(x, rows=_ALONGSIDE, source=source) for x in replicators])
    ratio = _excess(calls, replicators[0])
    if not excessive(ratio, _STATES):
        return ""
    return (
        "rows share noise that `reset` or `adapt` drew: between states their mean varies "
        f"{ratio:.2g} times as much as that of independent rows; draw in the call, for each row"
    )


def _excess(calls: Tensor, replicator: Replicator) -> float:
    """That of each data point's rows, at most: calls are [M, B · R, N · K + 1]."""
    points = calls.unflatten(1, (len(replicator.logits), -1))
    return max(excess(x) for x in points.unbind(1))


def _state_is_no_noise(cls: type[Estimator]) -> bool:
    """Whether the mean of an estimate may not depend on what drew its state.

    It is the same in all states of an unbiased estimator; a biased one that adapts has learnt it.
    """
    made = cls.reset is not Estimator.reset or cls.adapt is not Estimator.adapt
    return made and (cls.unbiased or not cls.adapt_steps)


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
    replicator, source = subject.ready(task), Draws.seeded(1)
    before = global_states()
    with _OtherGenerators(source) as used:
        estimates(replicator, source=source)
    touched = touched_since(before)
    mend = "gradest.categorical draws what a seed brings back"
    if touched:
        return f"draws from the global state of {touched}; {mend}"
    if used.states:
        return f"draws from a torch.Generator of its own; {mend}"
    return ""


class _OtherGenerators(TorchFunctionMode):
    """Notes the states of the generators, other than that of the source, that torch draws from."""

    def __init__(self, source: Draws) -> None:
        super().__init__()
        self.states: set[bytes] = set()
        self._own = source.generator

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given = kwargs or {}
        generator = given.get("generator")
        if generator is not None and generator is not self._own:
            self.states.add(generator.get_state().numpy().tobytes())
        return func(*args, **given)


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


def _without_a_slope(z: Tensor, cost: Tensor) -> Tensor:
    """The same costs with a derivative of zero, which is no reason to refuse them."""
    return cost.detach() + 0.0 * z.sum((-2, -1))


def _derivative(subject: Subject, task: Task) -> str:
    replicator = subject.ready(task)
    attached = estimates(replicator)
    gap = relative_gap(attached, estimates(replicator, _without_a_slope))
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
        for task in subject.applicable(extreme(size, subject.cls)):
            if broken := _not_finite(estimates(subject.ready(task, dtype))):
                return "failed", f"{task.name} in {dtype}: {broken}"
    return "passed", "finite at ±40 in float32 and at ±700 in float64"


def _knobs(subject: Subject) -> Outcome:
    """Every knob does something: a value that changes no estimate is no parameter of the method."""
    shown = 0
    for knob in knob_defaults(subject.cls):
        values = alternatives(subject.cls, knob)
        shown += bool(values)
        if values and not any(
            _has_effect(subject, task, {knob: value}) for value in values for task in subject.tasks
        ):
            tried = ", ".join(f"{value!r}" for value in values)
            broken = f"{knob} changes no estimate: {tried} give those of the default"
            return "failed", f"{broken}; what has no effect is a constant, no knob"
    return ("passed", f"{shown} have an effect") if shown else ("skipped", "no knob to vary")


def _has_effect(subject: Subject, task: Task, knobs: dict[str, Any]) -> bool:
    for steps in (BRIEFLY, subject.cls.adapt_steps):
        default, other = (estimates(subject.ready(task, steps=steps, knobs=k)) for k in ({}, knobs))
        if relative_gap(default, other) > EQUAL:
            return True
        if subject.cls.adapt_steps <= BRIEFLY:
            break
    return False


def _parameters(subject: Subject) -> Outcome:
    """With f = s h and s = 1, the derivative in s is that of the value, of E f thus E f itself.

    An average of costs is its own derivative, row by row; whatever else is attached to f has to
    vanish on average.
    """
    most = 0.0
    for task in subject.tasks:
        replicator = subject.ready(task)
        value, slope = _value_and_slope(replicator)
        if slope is None:
            return "failed", f"{task.name}: f's own parameters get no gradient"
        rounding = EQUAL
        if task not in subject.with_truth or replicator.problem.f.samples > 1:  # not linear in f
            up, down = (_value_and_slope(replicator, 1 + step)[0] for step in (STEP, -STEP))
            value, rounding = (up - down) / (2 * STEP), QUOTIENT
        if relative_gap(slope, value) <= rounding:
            continue
        difference = (slope - value).unsqueeze(1)  # [B · R, 1]
        peak = float(difference.abs().max())
        found = Moments.of(difference.unsqueeze(0))
        z, p = largest_z(found, difference.new_zeros(1), peak, rounding)
        if p < subject.level():
            size = float(difference.mean().abs())
            return "failed", (
                f"{task.name}: the gradient to f's own parameters is off that of the value by "
                f"{size:.2g}, |z| = {z:.1f}: keep to f the value alone, f.frozen elsewhere"
            )
        interval = mean_interval(found)
        most = max(most, max(interval.high, -interval.low) / span(task))
    if most > SHARP:
        return "inconclusive", f"off the gradient of the value by at most {most:.1%}"
    kept = f"on average, to {most:.1%} of the range of f" if most else "row by row"
    return "passed", f"f's own parameters get the gradient of the value, {kept}"


def _value_and_slope(replicator: Replicator, s: float = 1.0) -> tuple[Tensor, Tensor | None]:
    """The value of each row and its derivative in s: [B · R] each."""
    problem, points = replicator.problem, len(replicator.logits)
    logits = replicator.logits.repeat_interleave(_PAIRS, 0).requires_grad_()
    scale = _Scale(points, _PAIRS, s)

    def fn(z: Tensor, scale: Callable[[Tensor], Tensor]) -> Tensor:
        return scale(problem.f.fn(z))

    f = problem.f.changed(fn, scale).replicated(points, logits)
    with drawing_from(Draws.seeded(1)):
        value = replicator.estimator(*posed(replicator.estimator, logits, f))
    (slope,) = torch.autograd.grad(value.sum(), scale.parameter, allow_unused=True)
    return value.detach(), None if slope is None else slope.flatten()


class _Scale(torch.nn.Module):
    """x ↦ s x with one s a row, all of them the same."""

    def __init__(self, points: int, rows: int, s: float) -> None:
        super().__init__()
        self.parameter = torch.nn.Parameter(torch.full((points, rows), s, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:  # [B, rows, ...]
        return x * self.parameter[(..., *(None,) * (x.ndim - 2))]


def _evaluations(subject: Subject) -> Outcome:
    """As claimed, with the default knobs and with every other value of one of them."""
    claim, owner = subject.cls.evaluations, subject.cls.__name__
    if not claim:
        counts = ", ".join(f"{_counted(subject, t)[0]} ({t.name})" for t in subject.tasks)
        return "skipped", f"nothing is claimed; f was evaluated so often: {counts}"
    for knobs, task in product([{}, *variations(subject.cls)], subject.tasks):
        count, values = _counted(subject, task, knobs)
        claimed = formula.value(claim, values, owner)
        if claimed != count:
            broken = f"evaluations = {claim!r} is {claimed}, yet f was evaluated {count} times"
            return "failed", f"{told(knobs, task.name)}: {broken}"
    return "passed", f"f is evaluated as often as `evaluations` says: {claim}"


def _counted(
    subject: Subject, task: Task, knobs: Mapping[str, Any] = DEFAULTS
) -> tuple[int, dict[str, Any]]:
    """How often f is evaluated for one estimate, and the values of N, K, m and the knobs."""
    replicator = subject.ready(task, knobs=knobs)
    with drawing_from(Draws.seeded(1)):
        replicator(ROWS)
    _, latents, categories = replicator.logits.shape
    sizes = {"N": latents, "K": categories, "m": replicator.problem.f.samples}
    return replicator.evaluations, replicator.estimator.knobs | sizes


CONTRACT_LAWS: dict[str, Callable[[Subject], Outcome]] = {
    "shape": partial(_everywhere, _shape, "one finite value and gradient a row, also for one row"),
    "state": partial(_everywhere, _state, "a call leaves the instance as it was"),
    "randomness": partial(_everywhere, _randomness, "draws from no global state"),
    "seed": _seed,
    "rows": partial(_everywhere, _rows, "no row depends on the others"),
    "vertices": partial(_everywhere, _vertices, "f is evaluated where `relaxes` says"),
    "derivative": partial(_everywhere, _derivative, "f' is used as `differentiates` says"),
    "float32": _float32,
    "extreme logits": _extreme_logits,
    "parameters": _parameters,
    "knobs": _knobs,
    "evaluations": _evaluations,
}
