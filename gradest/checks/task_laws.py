"""What a task owes: a cost that is a function of z, broadcasts and keeps data points apart."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from gradest.categorical import leave_one_out_mean, log_prob, one_hot, sample
from gradest.checks.finding import (
    EQUAL,
    SINGLE,
    Outcome,
    describe_error,
    outcome,
    relative_gap,
)
from gradest.contracts import Task
from gradest.costs import Problem
from gradest.knobs import build
from gradest.measuring.enumeration import codes, enumerable, exact_gradient
from gradest.objectives import analytic_terms
from gradest.randomness import Draws, drawing_from, global_states

_AT_ONCE = 4096  # codes
_REPEATED = 64  # calls between two that have to agree
_DRAWS = 20_000  # by which a closed form is tested that cannot be enumerated


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
    # A category may be masked by −∞, as long as another is left.
    bad = int((logits.isnan() | logits.isposinf()).sum())
    if bad or not logits.isfinite().any(-1).all():
        return "failed", f"{bad} logits are NaN or +∞" if bad else "a latent has no finite logit"
    return "passed", f"finite or masked, {list(logits.shape)}"


def _unchecked(problem: Problem, z: Tensor) -> Any:
    """What the task's function returns, before `Cost` has looked at it where that is possible."""
    whole = problem.f.module is not None or problem.f.deep
    return problem.f(z) if whole else problem.f.fn(z)


def _in_place(task: Task, problem: Problem) -> Outcome:
    z = _vertices_of(problem)
    given = z.clone()
    with suppress(Exception, SystemExit):  # what it raises is told by the next law
        _unchecked(problem, z)
    if torch.equal(z, given):
        return "passed", "f leaves z as it is"
    return "failed", "f changes its argument z; compute z * w instead of z *= w, or copy z first"


def _shape(task: Task, problem: Problem) -> Outcome:
    z = _vertices_of(problem)
    try:
        cost = _unchecked(problem, z)
    except (Exception, SystemExit) as error:
        return "failed", describe_error(error) + _works_in_float32(problem, z)
    expected = f"a tensor {list(z.shape[:-2])} was expected for codes {list(z.shape)}"
    if not isinstance(cost, Tensor):
        return "failed", f"f returned {_described(cost)}; {expected}"
    if cost.shape != z.shape[:-2]:
        return "failed", f"f returned shape {list(cost.shape)}; {expected}"
    return "passed", "one number for each code"


def _described(cost: Any) -> str:
    return "None" if cost is None else f"an object of type {type(cost).__name__}"


def _works_in_float32(problem: Problem, z: Tensor) -> str:
    try:
        _unchecked(problem, z.float())
    except Exception:
        return ""
    return (
        "; f works in float32 and not in float64: let its constants follow z (w.to(z)), and pass a "
        "module as Cost(fn, module)"
    )


def _dtype(task: Task, problem: Problem) -> Outcome:
    z = _vertices_of(problem)
    single, double = _unchecked(problem, z.float()), _unchecked(problem, z)
    if single.dtype != torch.float32 or double.dtype != torch.float64:
        got = f"float32 gives {single.dtype}, float64 {double.dtype}"
        return "failed", f"{got}; constants follow z: constant.to(z)"
    if relative_gap(problem.f(z[:, -1:]), double[:, -1:]) > EQUAL:  # another law's to tell
        return "passed", "f has the dtype of z"
    gap = relative_gap(single.double(), double)
    detail = f"float32 differs from float64 by {gap:.2g}"
    return outcome(detail if gap > SINGLE else "", detail)


def _finite(task: Task, problem: Problem) -> Outcome:
    """At every code that occurs, where they can be enumerated, and at random codes elsewhere."""
    logits = problem.logits.detach().double()
    if problem.f.deep or not enumerable(problem):
        z = _vertices_of(problem)  # [B, R, S, N, K]
        return _finite_at(problem, logits, z.flatten(1, 2), f"{z.shape[:3].numel()} random codes")
    count = logits.shape[2] ** logits.shape[1]
    for start in range(0, count, _AT_ONCE):
        block = codes(*logits.shape[1:], logits, start, min(start + _AT_ONCE, count))
        every = block.expand(len(logits), *block.shape)  # [B, C, N, K]
        status, detail = _finite_at(problem, logits, every, f"all {count:,} codes")
        if status == "failed":
            break
    return status, detail


def _finite_at(problem: Problem, logits: Tensor, z: Tensor, where: str) -> Outcome:
    cost = problem.f(z)
    occurs = log_prob(logits.unsqueeze(1), z) > -torch.inf  # [B, C]
    bad = (occurs & ~cost.isfinite()).nonzero()
    if not len(bad):
        return "passed", f"at {where}"
    point, at = bad[0].tolist()
    code = z[point, at].argmax(-1).tolist()
    detail = f"f is {float(cost[point, at].detach())} at the code {code}"
    return "failed", detail + (f" of data point {point}" if len(logits) > 1 else "")


def _middle_axes(task: Task, problem: Problem) -> Outcome:
    z, worst = _vertices_of(problem), 0.0
    whole = problem.f(z)  # [B, R, S]
    for r in range(z.shape[1]):
        worst = max(worst, relative_gap(problem.f(z[:, r]), whole[:, r]))
        for s in range(z.shape[2]):
            worst = max(worst, relative_gap(problem.f(z[:, r, s]), whole[:, r, s]))
    broken = (
        f"one call for all differs from slice by slice by {worst:.2g}; the cost of a code depends "
        "on it alone: no statistics of the batch"
    )
    return outcome(broken if worst > EQUAL else "", "one call for all agrees with slice by slice")


def _deterministic(task: Task, problem: Problem) -> Outcome:
    z, before = _vertices_of(problem), global_states()
    first = problem.f(z)
    for _ in range(_REPEATED):  # what counts its calls may change after some
        problem.f(z[:, :1])
    gap = relative_gap(problem.f(z), first)
    if gap > 0:
        return "failed", (
            f"the same codes have other costs by {gap:.2g} when f is called again; it depends on z "
            "alone: no dropout (call eval()), no random numbers, no counters"
        )
    rebuilt = build(type(task), {}).problem()
    for what, other in (("another problem()", task.problem()), ("another instance", rebuilt)):
        gap = relative_gap(first, other.f(z))
        if gap > 0 or not torch.equal(problem.logits, other.logits):
            return "failed", f"{what} has other logits, or other costs by {gap:.2g}"
    touched = global_states() != before
    return outcome("draws from a global random state" if touched else "", "the same every time")


def _points(task: Task, problem: Problem) -> Outcome:
    z = _vertices_of(problem)
    if len(z) == 1:
        return "skipped", "one data point"
    whole = problem.f(z)
    for point in range(len(z)):
        moved = z.roll(1, -1)
        moved[point] = z[point]
        gap = relative_gap(problem.f(moved)[point], whole[point])
        if gap > EQUAL:
            return "failed", f"the cost of point {point} moves by {gap:.2g} with the others' codes"
    return "passed", "no cost depends on the code of another data point"


def _relaxable(task: Task, problem: Problem) -> Outcome:
    if not task.relaxable:
        return "skipped", "relaxable = False"
    for where, z in (("vertices", _vertices_of(problem)), ("interior points", _inside(problem))):
        cost = problem.f(z.requires_grad_())
        if not cost.requires_grad:
            return "failed", (
                "f has no derivative with respect to z: it detaches z, or computes under no_grad; "
                "say relaxable = False where f is meant for vertices alone"
            )
        (slope,) = torch.autograd.grad(cost.sum(), z)
        if not slope.isfinite().all() or not slope.any():
            return "failed", f"at {where} the derivative of f is not finite, or zero throughout"
    with torch.no_grad():
        step = 1e-5 * (z.roll(1, -1) - z)  # stays on the simplex
        rise = (problem.f(z + step) - problem.f(z - step)) / 2
        gap = relative_gap((slope * step).sum(), rise.sum())
    detail = f"the derivative is finite and differs from a difference quotient by {gap:.1g}"
    return outcome(detail if gap > 1e-4 else "", detail)


def _penalty(task: Task, problem: Problem) -> Outcome:
    logits = problem.logits.detach().double().requires_grad_()
    penalty = analytic_terms(task, logits, problem.f)
    if penalty.shape != logits.shape[:1]:
        return "failed", f"shape {list(penalty.shape)} where [{len(logits)}] was expected"
    parts = [penalty]
    if penalty.requires_grad:
        parts += torch.autograd.grad(penalty.sum(), logits)
    finite = all(bool(part.isfinite().all()) for part in parts)
    return outcome("" if finite else "not finite, or its gradient is not", "finite, one a point")


def _expectation(task: Task, problem: Problem) -> Outcome:
    logits = problem.logits.detach().double().requires_grad_()
    closed = task.expectation(logits)
    if closed is None:
        return "skipped", "no closed form of E f"
    (gradient,) = torch.autograd.grad(closed.sum(), logits)
    if not enumerable(problem):
        return _sampled(problem, closed.detach(), gradient)
    truth = exact_gradient(problem)
    gap = max(relative_gap(closed.detach(), truth.value), relative_gap(gradient, truth.gradient))
    detail = (
        f"the closed form of E f or its gradient differs from the sum over outcomes by {gap:.2g}"
    )
    return outcome(detail if gap > EQUAL else "", detail)


def _sampled(problem: Problem, value: Tensor, gradient: Tensor) -> Outcome:
    """Whether E f and its gradient may be these, by draws and a leave-one-out score function."""
    logits = problem.logits.detach().double()
    with drawing_from(Draws.seeded(2)):
        z = sample(logits, _DRAWS)  # [B, S, N, K]
    cost = problem.f(z)  # [B, S]
    score = z - logits.softmax(-1).unsqueeze(1)
    baseline = leave_one_out_mean(cost, dim=1)
    seen = torch.cat(
        [cost.unsqueeze(-1), ((cost - baseline)[..., None, None] * score).flatten(2)], -1
    )
    detail = torch.cat([value.unsqueeze(-1), gradient.flatten(1)], -1)  # [B, 1 + N·K]
    error = seen.std(1) / _DRAWS**0.5
    gap = (seen.mean(1) - detail).abs()
    rounding = EQUAL * detail.abs().max()
    z_score = float(torch.where(gap > rounding, gap / error, 0.0).max())
    level = 1e-6 / detail.numel()
    broken = f"the closed form of E f or its gradient is {z_score:.3g} standard errors from draws"
    return outcome(
        broken if z_score > stats.norm.isf(level / 2) else "",
        f"{_DRAWS:,} draws agree with the closed form, E f to ± {float(error[:, 0].max()):.2g}",
    )


def _parameters(task: Task, problem: Problem) -> Outcome:
    if not task.parameters:
        return "skipped", "names no parameters"
    for name in task.parameters:
        group = tuple(task.group(name))
        found = torch.autograd.grad(
            problem.logits.sum(), group, retain_graph=True, allow_unused=True
        )
        if not any(g is not None and g.any() for g in found):
            return "failed", f"the logits do not depend on {name}"
    return "passed", f"the logits depend on {', '.join(task.parameters)}"


TASK_LAWS: dict[str, Callable[[Task, Problem], Outcome]] = {
    "logits": _logits,
    "in place": _in_place,
    "shape": _shape,
    "dtype": _dtype,
    "finite": _finite,
    "deterministic": _deterministic,
    "middle axes": _middle_axes,
    "points": _points,
    "relaxable": _relaxable,
    "penalty": _penalty,
    "expectation": _expectation,
    "parameters": _parameters,
}
