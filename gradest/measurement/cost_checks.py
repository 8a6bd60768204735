"""A check on a few codes, before a measurement, that a cost is a function of z.

A cost that draws, counts, or depends on the rest of the batch has no E f that an estimator could be
compared with: the sum for the true gradient would be one draw of it.  The laws have the names by
which `--check` tests them of a task.
"""

import inspect
import math
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gradest.categorical import log_prob, one_hot, sample
from gradest.costs import Cost, Problem
from gradest.errors import CostError
from gradest.measurement.enumerated_truth import all_codes
from gradest.randomness import Draws, changed_global_states, drawing_from, global_states
from gradest.support import in_a_line

_ROWS, _SAMPLES = 3, 2
_SEED = 20_260_101
# Units of rounding, relative to the largest cost, by which two calls may differ: the same call
# twice, on a device whose sums have no fixed order, and calls with batches of different sizes.
_SAME_CALL, _OTHER_BATCH = 16, 1024
_INTERIOR = 64  # points off the vertices, in a search for a cost that is not finite
_CODES = 4096  # in the same search


class CostProbe(NamedTuple):
    """The costs of some codes, to be compared with those after a measurement."""

    name: str
    f: Cost
    z: Tensor  # [B, R, S, N, K]
    costs: Tensor  # [B, R · S]

    def repeat(self) -> None:
        """Raise CostError where the costs have changed, as of a cost that counts its calls."""
        with torch.no_grad():
            again = _value(self.name, self.f, self.z).flatten(1)
        if not _equal(self.f, self.costs, again, _SAME_CALL):
            raise CostError(
                f"{self.name}: the cost is not a function of z (check 'deterministic'): the same "
                "codes have different costs before and after the measurement"
                f"{_likely_cause(self.f, 'deterministic', '')}"
            )


def probe_cost(name: str, problem: Problem, logits: Tensor) -> CostProbe:
    """Evaluate the cost of the task `name` at some codes, in the dtype of the [B, N, K] logits.

    Raises CostError with the law that is broken: *deterministic*, *middle axes* or *points*; with
    the error of the cost, where it cannot be evaluated; and where it changes z.
    """
    f = problem.f.replicated(None, logits)
    z = _some_codes(logits)
    before = global_states()
    with torch.no_grad():
        original = z.clone()
        whole = _value(name, f, z).flatten(1)  # [B, C]
        if not torch.equal(original, z):
            raise CostError(f"{name}: the cost changed z in place; compute z * w instead of z *= w")
        again = _value(name, f, z).flatten(1)
        law = "" if _equal(f, whole, again, _SAME_CALL) else "deterministic"
        if law := law or _broken_law(name, f, z, whole):
            raise CostError(
                f"{name}: the cost is not a function of z (check {law!r}): {_VIOLATIONS[law]}"
                f"{_likely_cause(f, law, changed_global_states(before))}"
            )
        if libraries := changed_global_states(before):
            raise CostError(
                f"{name}: the cost changes the global random state of {libraries} (check "
                "'deterministic'); draw from a generator of its own, when the cost is built"
            )
    return CostProbe(name, f, z, whole)


_VIOLATIONS = {
    "deterministic": "the same codes have different costs when it is called again",
    "middle axes": "the cost of a code depends on the other codes in the call",
    "points": "the cost of a data point depends on the codes of other data points",
}


def _broken_law(name: str, f: Cost, z: Tensor, whole: Tensor) -> str:
    """The law that the costs [B, C] of the codes z [B, R, S, N, K] break, or an empty string."""
    points = len(z)
    for same in (slice(0, None, 2), slice(1, None, 2)) if points > 1 else ():
        others = z.roll(1, 1)
        others[same] = z[same]
        if not _equal(f, whole[same], _value(name, f, others).flatten(1)[same], _OTHER_BATCH):
            return "points"
    # A code alone is the minimum, mean and maximum of its batch, so that one of the two codes with
    # the extreme costs shows a dependence on any of these.
    codes, number = z.flatten(1, 2), torch.arange(points, device=z.device)
    for alone in (whole.argmin(1), whole.argmax(1)):
        code, costs = codes[number, alone][:, None, None], whole[number, alone]
        value = _value(name, f, code).flatten()
        if _equal(f, costs, value, _OTHER_BATCH):
            continue
        # A cost that always computes in float32 rounds differently for another shape.  Copies of
        # the code keep the shape, and with it the order of every sum.
        copies = _value(name, f, code.expand_as(z).contiguous()).flatten(1)[number, alone]
        rounded = _equal(f, costs, value, _OTHER_BATCH, torch.float32)
        if not rounded or not _equal(f, costs, copies, _OTHER_BATCH):
            return "middle axes"
    return ""


def _equal(f: Cost, a: Tensor, b: Tensor, units: int, *within: torch.dtype) -> bool:
    """Whether costs are equal up to `units` of rounding, or not finite in the same way.

    A cost may compute `within` a narrower dtype than that of its values.
    """
    a_, b_ = a.flatten().tolist(), b.flatten().tolist()
    size = max((abs(x) for x in (*a_, *b_) if math.isfinite(x)), default=0.0)
    dtypes = (a.dtype, f.dtype or a.dtype, *within)
    room = units * size * max(torch.finfo(dtype).eps for dtype in dtypes)
    # Two NaN are equal here, and so are two infinities of one sign.
    return all(
        abs(x - y) <= room if math.isfinite(x) and math.isfinite(y) else str(x) == str(y)
        for x, y in zip(a_, b_, strict=True)
    )


def with_evaluable_cost(problem: Problem, dtype: torch.dtype) -> Problem:
    """The problem with a cost that can be evaluated in float64, as the true gradient is.

    A cost that cannot, such as a network of float32 weights, computes in `dtype` if it can.
    """
    f, logits = problem.f, problem.logits.detach()
    if (
        dtype == torch.float64
        or f.deep
        or f.dtype is not None
        or _is_evaluable(problem, logits.double())
    ):
        return problem
    return problem._replace(f=f.computing_in(dtype))


def _is_evaluable(problem: Problem, logits: Tensor) -> bool:
    """Whether the cost can be evaluated in the dtype of the logits."""
    f, z = problem.f.replicated(None, logits), _some_codes(logits)[:, :1, :1]
    try:
        with torch.no_grad():
            f(z)
    except (RuntimeError, CostError):  # torch raises RuntimeError for dtypes that differ
        return False
    return True


def _some_codes(logits: Tensor) -> Tensor:
    """Codes that can occur, spread over the categories of each latent: [B, R, S, N, K]."""
    latents, categories = logits.shape[1:]
    places = torch.arange(_ROWS * _SAMPLES * latents * categories, device=logits.device)
    spread = (places * 0.6180339887 % 1).view(_ROWS, _SAMPLES, latents, categories)
    possible = logits.isneginf().logical_not_()[:, None, None]  # [B, 1, 1, N, K]
    return one_hot((spread * possible).argmax(-1), logits)


def _value(name: str, f: Cost, z: Tensor) -> Tensor:
    """The value that is compared: f(z), or the sum of the next layer's logits for a deep cost."""
    try:
        if not f.deep:
            return f(z)
        return f.next(z).logits.flatten(1).unflatten(0, z.shape[:-2]).sum(-1)
    except CostError as error:
        raise CostError(f"{name}: {error}") from error
    except Exception as error:
        raise CostError(f"{name}: {_error_message(error, f, z)}") from error


def _error_message(error: Exception, f: Cost, z: Tensor) -> str:
    reason = in_a_line(str(error)) or type(error).__name__
    message = f"the cost raised {type(error).__name__} for z of shape {list(z.shape)}: {reason}"
    if module := _module_in_training(f):
        return f"{message}; {module} is in train mode, call .eval() on it"
    if "dtype" not in reason and "scalar type" not in reason:
        return message
    return (
        f"{message}; z is {z.dtype}: convert constants with x.to(z), and pass the module of "
        "parameters as Cost(fn, module). Cost(fn, dtype=torch.float32) converts both ways, "
        "and measure(..., dtype=torch.float32) measures in that dtype"
    )


def _likely_cause(f: Cost, law: str, libraries: str) -> str:
    """The cause of a violation, where it can be determined, and the way to avoid it."""
    if module := _module_in_training(f):
        return f"; {module} is in train mode, call .eval() on it"
    if libraries:
        return f"; it draws from the global random state of {libraries}"
    if law == "deterministic":
        return "; it must not draw, count its calls or depend on the time"
    return "; evaluate each code by itself, without means or maxima over a batch"


def _module_in_training(f: Cost) -> str:
    """The first module of the cost whose train mode draws or depends on the batch."""
    kinds = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase)
    for root in _modules(f):
        for module in root.modules():
            if module.training and isinstance(module, kinds):
                return type(module).__name__
    return ""


def _modules(f: Cost) -> Iterator[nn.Module]:
    """The modules of a cost: its own, those that its function uses and those of its object."""
    owner = getattr(f.fn, "__self__", None)
    variables: list[Any] = []
    with suppress(TypeError):  # the callable may not be a Python function
        closed, globals_, *_ = inspect.getclosurevars(f.fn)
        variables = [*closed.values(), *globals_.values()]
    attributes = getattr(owner, "__dict__", {}).values()
    for candidate in [f.module, f.fn, owner, *variables, *attributes]:
        if isinstance(candidate, nn.Module):
            yield candidate


def find_nonfinite_cost(problem: Problem, logits: Tensor, relaxes: bool = False) -> str:
    """A description of the first possible code whose cost is not finite; empty if none is found.

    All codes for the [B, N, K] logits are tried if they are few, otherwise some that are drawn.
    For an estimator that `relaxes`, derivatives and points off the vertices are tried too.
    """
    f = problem.f.replicated(None, logits)
    if f.deep:
        return ""
    z, possible = _candidates(logits)
    if message := _nonfinite(f, z, possible, "the cost", relaxes):
        return message
    if not relaxes:
        return ""
    draws = torch.Generator().manual_seed(_SEED)
    inside = torch.randn((len(logits), _INTERIOR, *logits.shape[1:]), generator=draws).to(logits)
    everywhere = torch.ones(inside.shape[:2], dtype=torch.bool)
    return _nonfinite(f, inside.softmax(-1), everywhere, "off the vertices the cost", relaxes)


def _candidates(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Codes [B, C, N, K], and whether each of them can occur: [B, C]."""
    latents, categories = logits.shape[1:]
    if categories**latents <= _CODES:
        z = all_codes(logits).expand(len(logits), -1, -1, -1)
    else:
        with drawing_from(Draws.seeded(_SEED, logits.device)):
            z = sample(logits, _CODES)
    return z, (log_prob(logits.unsqueeze(1), z) > -torch.inf).cpu()


def _nonfinite(f: Cost, z: Tensor, possible: Tensor, subject: str, relaxes: bool) -> str:
    """A description of the first z whose cost, or with `relaxes` derivative, is not finite."""
    z = z.contiguous().requires_grad_(relaxes)
    with torch.set_grad_enabled(relaxes):
        cost = f(z)
    if message := _first_nonfinite(cost.detach(), z, possible, subject):
        return message
    slope = torch.autograd.grad(cost.sum(), z, allow_unused=True)[0] if relaxes else None
    if slope is None:
        return ""
    return _first_nonfinite(slope.sum((-2, -1)), z, possible, f"the derivative of {subject}")


def _first_nonfinite(x: Tensor, z: Tensor, possible: Tensor, subject: str) -> str:
    bad = (~x.isfinite().cpu() & possible).nonzero()
    if not len(bad):
        return ""
    point, number = bad[0].tolist()
    code = z[point, number].detach().cpu()
    if bool(((code == 0) | (code == 1)).all()):
        place = f"the code {code.argmax(-1).tolist()}"
    else:
        rounded = [[round(float(p), 3) for p in row] for row in code]
        place = f"z = {rounded}" if code.numel() <= 12 else "points inside the simplex"
    where = f" of data point {point}" if len(z) > 1 else ""
    return f"{subject} is {x[point, number].item()} at {place}{where}"
