"""The laws of the contract that every estimator has to obey, tested under fixed seeds."""

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

from gradest.categorical import likeliest
from gradest.checks.battery import BRIEFLY, DEFAULTS, ROWS, SHARP, Subject, estimates
from gradest.checks.controlled_noise import SharedNoise
from gradest.checks.problems import extreme, span
from gradest.checks.result import (
    EQUAL,
    QUOTIENT,
    SINGLE,
    STEP,
    Outcome,
    relative_gap,
)
from gradest.checks.settings import alternatives, naming, setting_text, variations
from gradest.checks.sharing import agreement, excess, excessive
from gradest.contracts import Estimator, Task
from gradest.knobs import knob_defaults
from gradest.measurement import Replicator, block_gap, problem_for, stackable
from gradest.plugins import formula
from gradest.randomness import Draws, changed_global_states, drawing_from, global_states
from gradest.statistics import Moments, largest_z, mean_interval

_CALLS, _SHARING_ROWS = 32, 512  # calls, and rows of each, tested for shared noise
_STATES = 8  # states, each with draws of its own, tested for shared noise
_PAIRS = 4096  # rows in which two computations of the same quantity are compared


def _everywhere(check: Callable[[Subject, Task], str], success: str, subject: Subject) -> Outcome:
    """A law on all problems, from a check of one that returns the violation or an empty string."""
    for task in subject.tasks:
        if violation := check(subject, task):
            return "failed", f"{task.name}: {violation}"
    return "passed", success


def _shape(subject: Subject, task: Task) -> str:
    replicator = subject.prepare(task)
    return _not_finite(estimates(replicator)) or _not_finite(estimates(replicator, rows=1))


def _not_finite(estimates: Tensor) -> str:
    bad = ~estimates.isfinite().all(1)
    return f"{int(bad.sum())} of {len(bad)} rows are NaN or infinite" if bad.any() else ""


def _rows(subject: Subject, task: Task) -> str:
    replicator = subject.prepare(task)
    points = len(replicator.logits)
    other = torch.zeros(points, ROWS, dtype=torch.float64)
    other[:, 0] = 1.0

    def first(z: Tensor, cost: Tensor) -> Tensor:
        # Another slope as well as another level, which differences of costs would not show.
        return torch.lerp(cost, 1000 - 3000 * cost, other[(..., *(None,) * (cost.ndim - 2))])

    same = other.flatten() == 0
    gap = relative_gap(estimates(replicator)[same], estimates(replicator, first)[same])
    if gap > EQUAL:
        return f"the estimates of other rows change by {gap:.2g} with the cost of one row"
    elsewhere = subject.prepare(task)
    elsewhere.logits = torch.cat([elsewhere.logits[:1], elsewhere.logits[1:].roll(1, -1)])
    gap = relative_gap(estimates(replicator)[:ROWS], estimates(elsewhere)[:ROWS])
    if gap > EQUAL:
        return f"the estimates of a data point change by {gap:.2g} with the logits of other points"
    return _own_noise(replicator) or _shared_noise(subject, task)


def _own_noise(replicator: Replicator) -> str:
    """Whether a row keeps its estimate for any noise of the others, if noise comes row by row."""
    points, results = len(replicator.logits), []
    for rows, others_too in ((1, True), (ROWS, True), (ROWS, False)):
        source = SharedNoise(points, rows, others_too)
        result = estimates(replicator, rows=rows, source=source)
        results.append(result.unflatten(0, (points, rows)))
        # Samples may be rows of their own, so that it is unknown which noise belongs to a row.
        if source.uneven:
            return ""
    alone, together, separate = results
    gap = relative_gap(alone.expand_as(together), together)
    if gap > EQUAL:
        return f"the estimate of a row differs by {gap:.2g} from that in a call of its own"
    gap = relative_gap(alone[:, 0], separate[:, 0])
    violation = f"the estimate of a row changes by {gap:.2g} with the draws of other rows"
    return violation if gap > EQUAL else ""


def _shared_noise(subject: Subject, task: Task) -> str:
    """Whether, with one seed, all rows and successive calls have noise of their own."""
    if task not in subject.tasks[:2]:  # shared noise does not depend on the size of a problem
        return ""
    replicator, source = subject.prepare(task), Draws.seeded(3)
    results, states = [], set()
    for _ in range(_CALLS):
        with _OtherGenerators(source) as used:
            results.append(estimates(replicator, rows=_SHARING_ROWS, source=source))
        if not states.isdisjoint(used.states):
            return (
                "calls repeat their noise: each call seeds a torch.Generator; draw for every row "
                "with gradest.categorical"
            )
        states |= used.states
    calls = torch.stack(results)  # [M, B · R, N · K + 1]
    remedy = "draw for every row, as sample(logits) does with the logits of all rows"
    rows, again = agreement(calls), agreement(calls.transpose(0, 1))
    if not rows.by_chance:
        return (
            f"rows share noise: the estimates of two rows change in the same direction in "
            f"{100 * rows.share:.0f} % of {rows.comparisons:,} comparisons, instead of 50 %; "
            f"{remedy}"
        )
    if not again.by_chance:
        return (
            f"calls repeat their noise: a row changes in the same direction in two calls in "
            f"{100 * again.share:.0f} % of {again.comparisons:,} comparisons, instead of 50 %; "
            "draw with gradest.categorical, not from a generator that each call seeds"
        )
    ratio = _excess(calls, replicator)
    if excessive(ratio, _CALLS):
        return (
            f"rows share noise: the variance of their mean between calls is {ratio:.2g} times that "
            f"of independent rows; {remedy}"
        )
    if task is subject.tasks[0] and _state_must_not_matter(subject.cls):
        return _noise_in_the_state(subject, task)
    return ""


def _noise_in_the_state(subject: Subject, task: Task) -> str:
    source = Draws.seeded(4)
    replicators = [subject.prepare(task, seed=seed) for seed in range(_STATES)]
    calls = torch.stack([estimates(x, rows=_SHARING_ROWS, source=source) for x in replicators])
    ratio = _excess(calls, replicators[0])
    if not excessive(ratio, _STATES):
        return ""
    return (
        "rows share noise that `reset` or `adapt` drew: the variance of their mean between states "
        f"is {ratio:.2g} times that of independent rows; draw in the call, for each row"
    )


def _excess(calls: Tensor, replicator: Replicator) -> float:
    """The largest excess over the data points; calls are [M, B · R, N · K + 1]."""
    points = calls.unflatten(1, (len(replicator.logits), -1))
    return max(excess(x) for x in points.unbind(1))


def _state_must_not_matter(cls: type[Estimator]) -> bool:
    """Whether the mean of an estimate must not depend on the draws of its state.

    It is the same in all states of an unbiased estimator; that of a biased one may be adapted.
    """
    has_state = cls.reset is not Estimator.reset or cls.adapt is not Estimator.adapt
    return has_state and (cls.unbiased or not cls.adapt_steps)


def _blocks(subject: Subject) -> Outcome:
    """Blocks of rows with draws and states of their own do not notice each other."""
    # Whether they do depends neither on the cost nor on the size of a problem.
    steps = min(subject.cls.adapt_steps, BRIEFLY)
    gap = max(block_gap(subject.create(), task, steps) for task in subject.tasks[:2])
    claimed, stateless = subject.cls.stackable, stackable(subject.create())
    if not gap <= EQUAL:
        violation = f"blocks that are estimated together differ by {gap:.2g} from each alone"
        if claimed:
            return "failed", f"stackable = True, but {violation}; use self.per_row for the state"
        return "skipped", f"not claimed, and {violation}" if not stateless else violation
    if claimed or stateless:
        return "passed", "blocks of rows give the same estimates together and one by one"
    return "skipped", "not claimed, and no difference was seen between blocks together and alone"


def _state(subject: Subject, task: Task) -> str:
    replicator = subject.prepare(task)
    before = _snapshot(replicator.estimator)
    estimates(replicator)
    after = _snapshot(replicator.estimator)
    changed = sorted(k for k in before | after if before.get(k) != after.get(k))
    return f"the call changed {', '.join(changed)}" if changed else ""


def _snapshot(x: Any) -> dict[str, bytes]:
    """attribute -> bytes that differ whenever its contents differ."""
    files = {name: io.BytesIO() for name in vars(x)}
    for name, file in files.items():
        _Contents(file).dump(vars(x)[name])
    return {name: file.getvalue() for name, file in files.items()}


class _Contents(pickle.Pickler):
    """A pickler that also takes tensors with a graph, and functions and classes not importable."""

    def reducer_override(self, x: Any) -> Any:
        if isinstance(x, Tensor):
            return repr, (x.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy(),)
        if isinstance(x, type | FunctionType | ModuleType):
            return repr, (repr(x),)
        return NotImplemented


def _randomness(subject: Subject, task: Task) -> str:
    replicator, source = subject.prepare(task), Draws.seeded(1)
    before = global_states()
    with _OtherGenerators(source) as used:
        estimates(replicator, source=source)
    touched = changed_global_states(before)
    remedy = "draw with gradest.categorical, which the seed of a measurement sets"
    if touched:
        return f"draws from the global state of {touched}; {remedy}"
    if used.states:
        return f"draws from a torch.Generator of its own; {remedy}"
    return ""


class _OtherGenerators(TorchFunctionMode):
    """A record of the states of all generators that torch draws from, except that of the source."""

    def __init__(self, source: Draws) -> None:
        super().__init__()
        self.states: set[bytes] = set()
        self._own = source.generator

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        options = kwargs or {}
        generator = options.get("generator")
        if generator is not None and generator is not self._own:
            self.states.add(generator.get_state().numpy().tobytes())
        return func(*args, **options)


def _seed(subject: Subject) -> Outcome:
    draws, varies = 0, False
    for task in subject.tasks:
        replicator, source = subject.prepare(task), Draws.seeded(1)
        first = estimates(replicator, source=source)
        other = estimates(replicator, source=Draws.seeded(2))
        for name, again in (
            ("the same call", replicator),
            ("another instance", subject.prepare(task)),
            ("the same instance after reset", subject.prepare(task, used=replicator.estimator)),
        ):
            gap = relative_gap(first, estimates(again))
            if gap > EQUAL:
                return "failed", f"{task.name}: {name} differs by {gap:.2g} with the same seed"
        spread = relative_gap(first[:1], first[:ROWS])
        if not source.count and spread > EQUAL:
            return (
                "failed",
                f"{task.name}: equal rows differ by {spread:.2g} although nothing is drawn",
            )
        draws, varies = draws + source.count, varies or relative_gap(first, other) > EQUAL
    if draws and not varies:
        return "failed", "there are draws, but another seed gives the same result"
    return "passed", "the same seed gives the same result" + (
        ", another seed a different one" if draws else ""
    )


def _vertices(subject: Subject) -> Outcome:
    where = "also off the one-hot codes" if subject.cls.relaxes else "only at one-hot codes"
    return _everywhere(_off_vertices, f"f is evaluated {where}, as claimed", subject)


def _off_vertices(subject: Subject, task: Task) -> str:
    off = [0.0]

    def watch(z: Tensor, cost: Tensor) -> Tensor:
        off.append(float((z - likeliest(z)).detach().abs().max()))
        return cost

    estimates(subject.prepare(task), watch)
    relaxed = max(off) > EQUAL
    if relaxed == subject.cls.relaxes:
        return ""
    where = f"up to {max(off):.2g} off the one-hot codes" if relaxed else "only at one-hot codes"
    return f"relaxes = {not relaxed}, but f is evaluated {where}"


def _without_a_slope(z: Tensor, cost: Tensor) -> Tensor:
    """The same costs with a derivative of zero, for which no error is raised."""
    return cost.detach() + 0.0 * z.sum((-2, -1))


def _derivative(subject: Subject, task: Task) -> str:
    replicator = subject.prepare(task)
    attached = estimates(replicator)
    gap = relative_gap(attached, estimates(replicator, _without_a_slope))
    claims = subject.cls.differentiates
    # An estimator that relaxes f usually differentiates it; the claim `relaxes` covers both.
    if (gap > EQUAL) == claims or (gap > EQUAL and subject.cls.relaxes):
        return ""
    return f"differentiates = {claims}, but f without derivatives changes the result by {gap:.2g}"


def _float32(subject: Subject) -> Outcome:
    worst = 0.0
    for task in subject.tasks:
        single, double = (
            estimates(subject.prepare(task, dtype, steps=0), rows=_PAIRS)
            for dtype in (torch.float32, torch.float64)
        )
        if violation := _not_finite(single):
            return "failed", f"{task.name}: {violation}"
        # Pair by pair: most draws are common to both, which makes the difference of means precise.
        a, b = (
            x.double().unflatten(0, (-1, _PAIRS)).transpose(0, 1).flatten(1)
            for x in (single, double)
        )  # [R, B · (N · K + 1)]
        mean, peak = b.mean(0), float((a - b).abs().max())
        z, p = largest_z(Moments.of((mean + a - b).unsqueeze(0)), mean, peak, SINGLE)
        if p < subject.level():
            return "failed", f"{task.name}: the mean differs from that in float64, |z| = {z:.1f}"
        worst = max(worst, relative_gap(a.mean(0), mean))
    detail = f"the relative difference of the mean from that in float64 is {worst:.1g}"
    return "passed", f"{detail}, which rounding explains"


def _extreme_logits(subject: Subject) -> Outcome:
    for dtype, size in ((torch.float32, 40.0), (torch.float64, 700.0)):
        for task in subject.applicable(extreme(size, subject.cls)):
            if violation := _not_finite(estimates(subject.prepare(task, dtype))):
                return "failed", f"{task.name} in {dtype}: {violation}"
    return "passed", "finite at ±40 in float32 and at ±700 in float64"


def _knobs(subject: Subject) -> Outcome:
    """Every knob has an effect: one that changes no estimate is not a parameter of the method."""
    tested = 0
    for knob in knob_defaults(subject.cls):
        values = alternatives(subject.cls, knob)
        tested += bool(values)
        if values and not any(
            _has_effect(subject, task, {knob: value}) for value in values for task in subject.tasks
        ):
            tried = ", ".join(f"{value!r}" for value in values)
            violation = f"{knob} changes no estimate: {tried} give those of the default"
            return "failed", f"{violation}; use the knob or remove it"
    if not tested:
        return "skipped", "no knob has another value to try"
    return (
        "passed",
        "one knob, which has an effect" if tested == 1 else f"all {tested} have an effect",
    )


def _has_effect(subject: Subject, task: Task, knobs: dict[str, Any]) -> bool:
    for steps in (BRIEFLY, subject.cls.adapt_steps):
        default = estimates(subject.prepare(task, steps=steps))
        with naming(knobs, task.name):
            other = estimates(subject.prepare(task, steps=steps, knobs=knobs))
        if relative_gap(default, other) > EQUAL:
            return True
        if subject.cls.adapt_steps <= BRIEFLY:
            break
    return False


def _parameters(subject: Subject) -> Outcome:
    """The gradient to the parameters of f, tested with f = s h at s = 1.

    The derivative in s of the value has to be E f on average.  An average of costs is its own
    derivative, row by row; further terms with f in the graph have to vanish on average.
    """
    most = 0.0
    for task in subject.tasks:
        replicator = subject.prepare(task)
        value, slope = _value_and_slope(replicator)
        if slope is None:
            return "failed", f"{task.name}: the parameters of f get no gradient"
        rounding = EQUAL
        if task not in subject.with_truth or replicator.problem.f.samples > 1:  # not linear in f
            up, down = (_value_and_slope(replicator, 1 + step)[0] for step in (STEP, -STEP))
            value, rounding = (up - down) / (2 * STEP), QUOTIENT
        if relative_gap(slope, value) <= rounding:
            continue
        difference = (slope - value).unsqueeze(1)  # [B · R, 1]
        peak = float(difference.abs().max())
        moments = Moments.of(difference.unsqueeze(0))
        z, p = largest_z(moments, difference.new_zeros(1), peak, rounding)
        if p < subject.level():
            size = float(difference.mean().abs())
            return "failed", (
                f"{task.name}: the gradient to the parameters of f differs from that of the value "
                f"by {size:.2g}, |z| = {z:.1f}; use f only in the value, and f.frozen elsewhere"
            )
        interval = mean_interval(moments)
        most = max(most, max(interval.high, -interval.low) / span(task))
    if most > SHARP:
        return (
            "inconclusive",
            f"too noisy: the gradient to the parameters of f differs by up to {100 * most:.1f} %",
        )
    precision = f"on average, to {100 * most:.1f} % of the range of f" if most else "row by row"
    return "passed", f"the parameters of f get the gradient of the value, {precision}"


def _value_and_slope(replicator: Replicator, s: float = 1.0) -> tuple[Tensor, Tensor | None]:
    """The value of each row and its derivative in s: [B · R] each."""
    problem, points = replicator.problem, len(replicator.logits)
    logits = replicator.logits.repeat_interleave(_PAIRS, 0).requires_grad_()
    scale = _Scale(points, _PAIRS, s)

    def fn(z: Tensor, scale: Callable[[Tensor], Tensor]) -> Tensor:
        return scale(problem.f.fn(z))

    f = problem.f.changed(fn, scale).replicated(points, logits)
    with drawing_from(Draws.seeded(1)):
        value = replicator.estimator(*problem_for(replicator.estimator, logits, f))
    (slope,) = torch.autograd.grad(value.sum(), scale.parameter, allow_unused=True)
    return value.detach(), None if slope is None else slope.flatten()


class _Scale(torch.nn.Module):
    """The map x ↦ s x with a parameter s for each row, all of them equal."""

    def __init__(self, points: int, rows: int, s: float) -> None:
        super().__init__()
        self.parameter = torch.nn.Parameter(torch.full((points, rows), s, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:  # [B, rows, ...]
        return x * self.parameter[(..., *(None,) * (x.ndim - 2))]


def _evaluations(subject: Subject) -> Outcome:
    """The claimed evaluations, with the default knobs and with every other value of one of them."""
    claim, owner = subject.cls.evaluations, subject.cls.__name__
    if not claim:
        counts = ", ".join(f"{_count(subject, t)[0]} ({t.name})" for t in subject.tasks)
        return "skipped", f"evaluations is not claimed; evaluations of f: {counts}"
    for knobs, task in product([{}, *variations(subject.cls)], subject.tasks):
        with naming(knobs, task.name):
            count, values = _count(subject, task, knobs)
        claimed = formula.value(claim, values, owner)
        if claimed != count:
            violation = f"evaluations = {claim!r} is {claimed}, but f was evaluated {count} times"
            return "failed", f"{setting_text(knobs, task.name)}: {violation}"
    return "passed", f"f is evaluated as often as claimed: {claim}"


def _count(
    subject: Subject, task: Task, knobs: Mapping[str, Any] = DEFAULTS
) -> tuple[int, dict[str, Any]]:
    """The evaluations of f for one estimate, and the values of N, K, m and the knobs."""
    replicator = subject.prepare(task, knobs=knobs)
    with drawing_from(Draws.seeded(1)):
        replicator(ROWS)
    _, latents, categories = replicator.logits.shape
    sizes = {"N": latents, "K": categories, "m": replicator.problem.f.samples}
    return replicator.evaluations, replicator.estimator.knobs | sizes


CONTRACT_LAWS: dict[str, Callable[[Subject], Outcome]] = {
    "shape": partial(_everywhere, _shape, "one finite value and gradient for each row"),
    "state": partial(_everywhere, _state, "a call does not change the instance"),
    "randomness": partial(_everywhere, _randomness, "no draws from global or private generators"),
    "seed": _seed,
    "rows": partial(_everywhere, _rows, "rows are independent"),
    "blocks": _blocks,
    "vertices": _vertices,
    "derivative": partial(_everywhere, _derivative, "the derivative of f is used only as claimed"),
    "float32": _float32,
    "extreme logits": _extreme_logits,
    "parameters": _parameters,
    "knobs": _knobs,
    "evaluations": _evaluations,
}
