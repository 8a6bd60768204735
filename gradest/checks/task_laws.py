"""The laws of a task: its cost is a function of z, broadcasts and separates data points."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from gradest.categorical import leave_one_out_mean, log_prob, one_hot, sample
from gradest.checks.result import (
    EQUAL,
    SINGLE,
    Outcome,
    outcome,
    relative_gap,
)
from gradest.contracts import Task
from gradest.costs import Problem
from gradest.knobs import build
from gradest.measurement import analytic_terms, codes, enumerable, exact_gradient
from gradest.randomness import Draws, drawing_from, global_states
from gradest.statistics import normal_isf
from gradest.support import described

_AT_ONCE = 4096  # codes
_REPEATED = 64  # calls between two that have to agree
_DRAWS = 20_000  # for the test of a closed form, where the problem cannot be enumerated


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
        return (
            "failed",
            f"expected floating logits [B, N, K ≥ 2], got {logits.dtype} {list(logits.shape)}",
        )
    # A category may be masked by −∞, but not all categories of a latent.
    bad = int((logits.isnan() | logits.isposinf()).sum())
    if bad or not logits.isfinite().any(-1).all():
        message = f"{bad} logits are NaN or +∞" if bad else "a latent has no finite logit"
        return "failed", message
    return "passed", f"finite or masked, {list(logits.shape)}"


def _raw_cost(problem: Problem, z: Tensor) -> Any:
    """The value of the task's function, without the checks of `Cost` where that is possible."""
    whole = problem.f.module is not None or problem.f.deep
    return problem.f(z) if whole else problem.f.fn(z)


def _in_place(task: Task, problem: Problem) -> Outcome:
    z = _vertices_of(problem)
    original = z.clone()
    with suppress(Exception, SystemExit):  # the next law reports errors
        _raw_cost(problem, z)
    if torch.equal(z, original):
        return "passed", "f does not change z"
    return "failed", "f changes its argument z; compute z * w instead of z *= w, or copy z first"


def _shape(task: Task, problem: Problem) -> Outcome:
    z = _vertices_of(problem)
    try:
        cost = _raw_cost(problem, z)
    except (Exception, SystemExit) as error:
        return "failed", described(error) + _works_in_float32(problem, z)
    expected = f"expected a tensor {list(z.shape[:-2])} for codes {list(z.shape)}"
    if not isinstance(cost, Tensor):
        return "failed", f"{expected}, got {_type_name(cost)}"
    if cost.shape != z.shape[:-2]:
        return "failed", f"{expected}, got shape {list(cost.shape)}"
    return "passed", "one number for each code"


def _type_name(cost: Any) -> str:
    return "None" if cost is None else f"an object of type {type(cost).__name__}"


def _works_in_float32(problem: Problem, z: Tensor) -> str:
    try:
        _raw_cost(problem, z.float())
    except Exception:
        return ""
    return (
        "; f works in float32 and not in float64: convert its constants with w.to(z), and pass the "
        "module of parameters as Cost(fn, module)"
    )


def _dtype(task: Task, problem: Problem) -> Outcome:
    z = _vertices_of(problem)
    single, double = _raw_cost(problem, z.float()), _raw_cost(problem, z)
    if single.dtype != torch.float32 or double.dtype != torch.float64:
        got = f"{single.dtype} for float32 and {double.dtype} for float64"
        return "failed", f"expected costs in the dtype of z, got {got}; use constant.to(z)"
    if relative_gap(problem.f(z[:, -1:]), double[:, -1:]) > EQUAL:  # which another law reports
        return "passed", "f has the dtype of z"
    gap = relative_gap(single.double(), double)
    detail = f"float32 differs from float64 by {gap:.2g}"
    return outcome(detail if gap > SINGLE else "", detail)


def _finite(task: Task, problem: Problem) -> Outcome:
    """Finite costs at every possible code if they can be enumerated, else at random codes."""
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
    possible = log_prob(logits.unsqueeze(1), z) > -torch.inf  # [B, C]
    bad = (possible & ~cost.isfinite()).nonzero()
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
    violation = (
        f"costs of one call for all codes differ by {worst:.2g} from those of separate calls; "
        "compute the cost of a code without statistics of the batch"
    )
    return outcome(
        violation if worst > EQUAL else "", "one call for all codes equals separate calls"
    )


def _deterministic(task: Task, problem: Problem) -> Outcome:
    z, before = _vertices_of(problem), global_states()
    first = problem.f(z)
    for _ in range(_REPEATED):  # a cost that counts its calls may change after some
        problem.f(z[:, :1])
    gap = relative_gap(problem.f(z), first)
    if gap > 0:
        return "failed", (
            f"the same codes have costs that differ by {gap:.2g} when f is called again; avoid "
            "dropout (call eval()), random numbers and counters"
        )
    rebuilt = build(type(task), {}).problem()
    for name, other in (("another problem()", task.problem()), ("another instance", rebuilt)):
        gap = relative_gap(first, other.f(z))
        if gap > 0 or not torch.equal(problem.logits, other.logits):
            return "failed", f"{name} has different logits, or costs that differ by {gap:.2g}"
    touched = global_states() != before
    return outcome(
        "f draws from a global random state" if touched else "", "the same in every call"
    )


def _points(task: Task, problem: Problem) -> Outcome:
    z = _vertices_of(problem)
    if len(z) == 1:
        return "skipped", "one data point"
    whole = problem.f(z)
    for point in range(len(z)):
        others = z.roll(1, -1)
        others[point] = z[point]
        gap = relative_gap(problem.f(others)[point], whole[point])
        if gap > EQUAL:
            return (
                "failed",
                f"the cost of point {point} changes by {gap:.2g} with other points' codes",
            )
    return "passed", "no cost depends on the code of another data point"


def _relaxable(task: Task, problem: Problem) -> Outcome:
    if not task.relaxable:
        return "skipped", "relaxable = False"
    for where, z in (("vertices", _vertices_of(problem)), ("interior points", _inside(problem))):
        cost = problem.f(z.requires_grad_())
        if not cost.requires_grad:
            return "failed", (
                "f has no derivative with respect to z: it detaches z, or computes under no_grad; "
                "set relaxable = False if f is meant only for vertices"
            )
        (slope,) = torch.autograd.grad(cost.sum(), z)
        if not slope.isfinite().all() or not slope.any():
            return "failed", f"at {where} the derivative of f is not finite, or zero everywhere"
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
        return "failed", f"expected penalties of shape [{len(logits)}], got {list(penalty.shape)}"
    parts = [penalty]
    if penalty.requires_grad:
        parts += torch.autograd.grad(penalty.sum(), logits)
    finite = all(bool(part.isfinite().all()) for part in parts)
    return outcome(
        "" if finite else "the penalty or its gradient is not finite", "finite, one for each point"
    )


def _expectation(task: Task, problem: Problem) -> Outcome:
    logits = problem.logits.detach().double().requires_grad_()
    closed = task.expectation(logits)
    if closed is None:
        return "skipped", "the task has no closed form of E f"
    (gradient,) = torch.autograd.grad(closed.sum(), logits)
    if not enumerable(problem):
        return _compare_with_draws(problem, closed.detach(), gradient)
    truth = exact_gradient(problem)
    gap = max(relative_gap(closed.detach(), truth.value), relative_gap(gradient, truth.gradient))
    detail = (
        f"the closed form of E f or its gradient differs from the sum over outcomes by {gap:.2g}"
    )
    return outcome(detail if gap > EQUAL else "", detail)


def _compare_with_draws(problem: Problem, value: Tensor, gradient: Tensor) -> Outcome:
    """A comparison of E f and its gradient with draws of a leave-one-out score function."""
    logits = problem.logits.detach().double()
    with drawing_from(Draws.seeded(2)):
        z = sample(logits, _DRAWS)  # [B, S, N, K]
    cost = problem.f(z)  # [B, S]
    score = z - logits.softmax(-1).unsqueeze(1)
    baseline = leave_one_out_mean(cost, dim=1)
    samples = torch.cat(
        [cost.unsqueeze(-1), ((cost - baseline)[..., None, None] * score).flatten(2)], -1
    )
    expected = torch.cat([value.unsqueeze(-1), gradient.flatten(1)], -1)  # [B, 1 + N·K]
    error = samples.std(1) / _DRAWS**0.5
    gap = (samples.mean(1) - expected).abs()
    rounding = EQUAL * expected.abs().max()
    z_score = float(torch.where(gap > rounding, gap / error, 0.0).max())
    level = 1e-6 / expected.numel()
    violation = (
        f"the closed form of E f or its gradient is {z_score:.3g} standard errors from draws"
    )
    return outcome(
        violation if z_score > normal_isf(level / 2) else "",
        f"{_DRAWS:,} draws agree with the closed form, E f to ± {float(error[:, 0].max()):.2g}",
    )


def _parameters(task: Task, problem: Problem) -> Outcome:
    if not task.parameters:
        return "skipped", "the task names no parameters"
    for name in task.parameters:
        group = tuple(task.group(name))
        gradients = torch.autograd.grad(
            problem.logits.sum(), group, retain_graph=True, allow_unused=True
        )
        if not any(g is not None and g.any() for g in gradients):
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
