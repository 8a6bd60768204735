"""What a task owes: a cost that broadcasts, follows z and keeps data points apart."""

from collections.abc import Callable

import torch
from scipy import stats
from torch import Tensor

from gradest.categorical import leave_one_out_mean, one_hot, sample
from gradest.checks.finding import EQUAL, SINGLE, Outcome, global_randomness, outcome, relative_gap
from gradest.contracts import Task
from gradest.costs import Problem
from gradest.knobs import build
from gradest.measuring.enumeration import enumerable, exact
from gradest.objectives import beside
from gradest.randomness import Draws, drawing_from

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


def _middle_axes(task: Task, problem: Problem) -> Outcome:
    z, worst = _vertices_of(problem), 0.0
    whole = problem.f(z)  # [B, R, S]
    if not whole.isfinite().all():
        return "failed", "f is not finite at vertices"
    for r in range(z.shape[1]):
        worst = max(worst, relative_gap(problem.f(z[:, r]), whole[:, r]))
        for s in range(z.shape[2]):
            worst = max(worst, relative_gap(problem.f(z[:, r, s]), whole[:, r, s]))
    broken = f"one call for all differs from slice by slice by {worst:.2g}"
    return outcome(broken if worst > EQUAL else "", "one call for all agrees with slice by slice")


def _deterministic(task: Task, problem: Problem) -> Outcome:
    z, before = _vertices_of(problem), global_randomness()
    rebuilt = build(type(task), {}).problem()
    for what, other in (
        ("the same problem", problem),
        ("another problem()", task.problem()),
        ("another instance", rebuilt),
    ):
        gap = relative_gap(problem.f(z), other.f(z))
        if gap > 0 or not torch.equal(problem.logits, other.logits):
            return "failed", f"{what} has other logits, or other costs by {gap:.2g}"
    touched = global_randomness() != before
    return outcome("draws from a global random state" if touched else "", "the same every time")


def _dtype(task: Task, problem: Problem) -> Outcome:
    z = _vertices_of(problem)
    single, double = problem.f(z.float()), problem.f(z)
    if single.dtype != torch.float32 or double.dtype != torch.float64:
        return "failed", f"float32 gives {single.dtype}, float64 {double.dtype}"
    gap = relative_gap(single.double(), double)
    told = f"float32 differs from float64 by {gap:.2g}"
    return outcome(told if gap > SINGLE else "", told)


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
        (slope,) = torch.autograd.grad(problem.f(z.requires_grad_()).sum(), z)
        if not slope.isfinite().all() or not slope.any():
            return "failed", f"at {where} the derivative of f is not finite, or zero throughout"
    with torch.no_grad():
        step = 1e-5 * (z.roll(1, -1) - z)  # stays on the simplex
        rise = (problem.f(z + step) - problem.f(z - step)) / 2
        gap = relative_gap((slope * step).sum(), rise.sum())
    told = f"the derivative is finite and differs from a difference quotient by {gap:.1g}"
    return outcome(told if gap > 1e-4 else "", told)


def _penalty(task: Task, problem: Problem) -> Outcome:
    logits = problem.logits.detach().double().requires_grad_()
    penalty = beside(task, logits, problem.f)
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
    truth = exact(problem)
    gap = max(relative_gap(closed.detach(), truth.value), relative_gap(gradient, truth.gradient))
    told = f"the closed form of E f or its gradient differs from the sum over outcomes by {gap:.2g}"
    return outcome(told if gap > EQUAL else "", told)


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
    told = torch.cat([value.unsqueeze(-1), gradient.flatten(1)], -1)  # [B, 1 + N·K]
    error = seen.std(1) / _DRAWS**0.5
    gap = (seen.mean(1) - told).abs()
    rounding = EQUAL * told.abs().max()
    z_score = float(torch.where(gap > rounding, gap / error, 0.0).max())
    level = 1e-6 / told.numel()
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
    "deterministic": _deterministic,
    "middle axes": _middle_axes,
    "dtype": _dtype,
    "points": _points,
    "relaxable": _relaxable,
    "penalty": _penalty,
    "expectation": _expectation,
    "parameters": _parameters,
}
