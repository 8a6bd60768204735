"""Whether a cost is a function of z, tried on a few codes before anything is measured.

A cost that draws, counts, looks at the batch or lets data points talk has no E f that an estimator
could be compared with: what is summed for the truth would be one draw of it.  The laws are those
that `--check` tests of a task, by the same names.
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
from gradest.measuring.enumeration import all_codes
from gradest.randomness import Draws, drawing_from, global_states, touched_since
from gradest.text import in_a_line

_ROWS, _SAMPLES = 3, 2
_SEED = 20_260_101
# Units of rounding, relative to the largest cost, by which the same call may differ on a device
# whose sums have no order, and one for a batch of another size.
_AGAIN, _OTHERWISE = 16, 1024
_INSIDE = 64  # points off the vertices that are tried
_TRIED = 4096  # codes, where one is looked for whose cost is not finite


class Probed(NamedTuple):
    """The costs of the codes that were tried, to be asked for again after a measurement."""

    name: str
    f: Cost
    z: Tensor  # [B, R, S, N, K]
    costs: Tensor  # [B, R · S]

    def repeat(self) -> None:
        """Raises CostError where they are other ones: a cost that counts has counted on."""
        with torch.no_grad():
            again = _value(self.name, self.f, self.z).flatten(1)
        if not _alike(self.f, self.costs, again, _AGAIN):
            raise CostError(
                f"{self.name}: the cost is not a function of z (law 'deterministic'): the same "
                "codes have other costs after the measurement than before it"
                f"{_why(self.f, 'deterministic', '')}"
            )


def probe(name: str, problem: Problem, logits: Tensor) -> Probed:
    """Try the cost of the task of that name at [B, N, K] logits, in their dtype.

    Raises CostError with the law that is broken: *deterministic*, *middle axes* or *points*; with
    what the cost itself raised, where it cannot be evaluated; and where it changes z.
    """
    f = problem.f.replicated(None, logits)
    z = _some_codes(logits)
    before = global_states()
    with torch.no_grad():
        given = z.clone()
        whole = _value(name, f, z).flatten(1)  # [B, C]
        if not torch.equal(given, z):
            raise CostError(f"{name}: the cost changed z in place; it is given z to read alone")
        again = _value(name, f, z).flatten(1)
        law = "" if _alike(f, whole, again, _AGAIN) else "deterministic"
        if law := law or _broken(name, f, z, whole):
            raise CostError(
                f"{name}: the cost is not a function of z (law {law!r}): {_TOLD[law]}"
                f"{_why(f, law, touched_since(before))}"
            )
        if which := touched_since(before):
            raise CostError(
                f"{name}: the cost changes the global random state of {which} (law "
                "'deterministic'); a measurement neither reads nor changes it"
            )
    return Probed(name, f, z, whole)


_TOLD = {
    "deterministic": "the same codes have other costs a second time",
    "middle axes": "the cost of a code depends on the codes that are evaluated beside it",
    "points": "the cost of a data point depends on the codes of the others",
}


def _broken(name: str, f: Cost, z: Tensor, whole: Tensor) -> str:
    """The law that the costs [B, C] of the codes z [B, R, S, N, K] break, or nothing."""
    points = len(z)
    for kept in (slice(0, None, 2), slice(1, None, 2)) if points > 1 else ():
        others = z.roll(1, 1)
        others[kept] = z[kept]
        if not _alike(f, whole[kept], _value(name, f, others).flatten(1)[kept], _OTHERWISE):
            return "points"
    # Alone a code is its batch's minimum, mean and maximum: one of two moves with any of them.
    codes, number = z.flatten(1, 2), torch.arange(points, device=z.device)
    for alone in (whole.argmin(1), whole.argmax(1)):
        code, costs = codes[number, alone][:, None, None], whole[number, alone]
        value = _value(name, f, code).flatten()
        if _alike(f, costs, value, _OTHERWISE):
            continue
        # What computes in float32 whatever z is rounds otherwise where the shape is another one.
        # Copies of the code keep the shape, and with it the order of every sum.
        copies = _value(name, f, code.expand_as(z).contiguous()).flatten(1)[number, alone]
        rounded = _alike(f, costs, value, _OTHERWISE, torch.float32)
        if not rounded or not _alike(f, costs, copies, _OTHERWISE):
            return "middle axes"
    return ""


def _alike(f: Cost, a: Tensor, b: Tensor, units: int, *within: torch.dtype) -> bool:
    """Whether costs are the same up to so many units of rounding, or both not finite.

    A cost may compute `within` a narrower dtype than that of its values.
    """
    a_, b_ = a.flatten().tolist(), b.flatten().tolist()
    size = max((abs(x) for x in (*a_, *b_) if math.isfinite(x)), default=0.0)
    dtypes = (a.dtype, f.dtype or a.dtype, *within)
    room = units * size * max(torch.finfo(dtype).eps for dtype in dtypes)
    # Two NaN are alike, and two infinities.
    return all(
        abs(x - y) <= room if math.isfinite(x) and math.isfinite(y) else str(x) == str(y)
        for x, y in zip(a_, b_, strict=True)
    )


def fitted(problem: Problem, dtype: torch.dtype) -> Problem:
    """The problem with a cost that can be evaluated in float64, as the truth is.

    Where it cannot, as with a network of float32 weights, but can in `dtype`, it computes in that.
    """
    f, logits = problem.f, problem.logits.detach()
    if dtype == torch.float64 or f.deep or f.dtype is not None or _takes(problem, logits.double()):
        return problem
    return problem._replace(f=f.computing_in(dtype))


def _takes(problem: Problem, logits: Tensor) -> bool:
    """Whether the cost can be evaluated in the dtype of the logits."""
    f, z = problem.f.replicated(None, logits), _some_codes(logits)[:, :1, :1]
    try:
        with torch.no_grad():
            f(z)
    except (RuntimeError, CostError):  # what torch says of dtypes that differ
        return False
    return True


def _some_codes(logits: Tensor) -> Tensor:
    """Codes that can occur, each latent's spread over its categories: [B, R, S, N, K]."""
    latents, categories = logits.shape[1:]
    places = torch.arange(_ROWS * _SAMPLES * latents * categories, device=logits.device)
    spread = (places * 0.6180339887 % 1).view(_ROWS, _SAMPLES, latents, categories)
    possible = logits.isneginf().logical_not_()[:, None, None]  # [B, 1, 1, N, K]
    return one_hot((spread * possible).argmax(-1), logits)


def _value(name: str, f: Cost, z: Tensor) -> Tensor:
    """What is compared: f(z), or of a deep cost the logits of the next layer."""
    try:
        if not f.deep:
            return f(z)
        return f.next(z).logits.flatten(1).unflatten(0, z.shape[:-2]).sum(-1)
    except CostError as error:
        raise CostError(f"{name}: {error}") from error
    except Exception as error:
        raise CostError(f"{name}: {_raised(error, f, z)}") from error


def _raised(error: Exception, f: Cost, z: Tensor) -> str:
    said = in_a_line(str(error)) or type(error).__name__
    told = f"the cost raised {type(error).__name__} for z of shape {list(z.shape)}: {said}"
    if training := _in_training(f):
        return f"{told}; {training} is in train mode, call .eval() on it"
    if "dtype" not in said and "scalar type" not in said:
        return told
    return (
        f"{told}; z is {z.dtype}, which constants follow with x.to(z) and parameters where their "
        "module is passed as Cost(fn, module). Cost(fn, dtype=torch.float32) converts both ways, "
        "and measure(..., dtype=torch.float32) measures in that dtype"
    )


def _why(f: Cost, law: str, which: str) -> str:
    """What is the cause, where it shows."""
    if training := _in_training(f):
        return f"; {training} is in train mode, call .eval() on it"
    if which:
        return f"; it draws from the global random state of {which}"
    if law == "deterministic":
        return "; it must not draw, count or depend on the time"
    return "; each code is evaluated by itself, without means or maxima over a batch"


def _in_training(f: Cost) -> str:
    """The first module within reach whose train mode draws or looks at the batch."""
    kinds = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase)
    for root in _modules(f):
        for module in root.modules():
            if module.training and isinstance(module, kinds):
                return type(module).__name__
    return ""


def _modules(f: Cost) -> Iterator[nn.Module]:
    """Of the cost, its function, what that names or closes over and what it is a method of."""
    owner = getattr(f.fn, "__self__", None)
    named: list[Any] = []
    with suppress(TypeError):  # what is called may be no function of Python's
        closed, globals_, *_ = inspect.getclosurevars(f.fn)
        named = [*closed.values(), *globals_.values()]
    for found in [f.module, f.fn, owner, *named, *getattr(owner, "__dict__", {}).values()]:
        if isinstance(found, nn.Module):
            yield found


def blame(problem: Problem, logits: Tensor, relaxes: bool = False) -> str:
    """The first code that can occur whose cost is not finite, or nothing: of [B, N, K] logits.

    All codes are tried where they are few, else some that are drawn.  For an estimator that
    `relaxes` the derivative counts as well, and so do points off the vertices.
    """
    f = problem.f.replicated(None, logits)
    if f.deep:
        return ""
    z, occurs = _possible(logits)
    if told := _odd(f, z, occurs, "the cost", relaxes):
        return told
    if not relaxes:
        return ""
    draws = torch.Generator().manual_seed(_SEED)
    inside = torch.randn((len(logits), _INSIDE, *logits.shape[1:]), generator=draws).to(logits)
    everywhere = torch.ones(inside.shape[:2], dtype=torch.bool)
    return _odd(f, inside.softmax(-1), everywhere, "off the vertices the cost", relaxes)


def _possible(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Codes [B, C, N, K], and which of them can occur: [B, C]."""
    latents, categories = logits.shape[1:]
    if categories**latents <= _TRIED:
        z = all_codes(logits).expand(len(logits), -1, -1, -1)
    else:
        with drawing_from(Draws.seeded(_SEED, logits.device)):
            z = sample(logits, _TRIED)
    return z, (log_prob(logits.unsqueeze(1), z) > -torch.inf).cpu()


def _odd(f: Cost, z: Tensor, occurs: Tensor, what: str, relaxes: bool) -> str:
    """Where the cost, or for who relaxes its derivative, is not finite."""
    z = z.contiguous().requires_grad_(relaxes)
    with torch.set_grad_enabled(relaxes):
        cost = f(z)
    if told := _first(cost.detach(), z, occurs, what):
        return told
    slope = torch.autograd.grad(cost.sum(), z, allow_unused=True)[0] if relaxes else None
    if slope is None:
        return ""
    return _first(slope.sum((-2, -1)), z, occurs, f"the derivative of {what}")


def _first(x: Tensor, z: Tensor, occurs: Tensor, what: str) -> str:
    bad = (~x.isfinite().cpu() & occurs).nonzero()
    if not len(bad):
        return ""
    point, number = bad[0].tolist()
    code = z[point, number].detach().cpu()
    if bool(((code == 0) | (code == 1)).all()):
        told = f"the code {code.argmax(-1).tolist()}"
    else:
        rounded = [[round(float(p), 3) for p in row] for row in code]
        told = f"z = {rounded}" if code.numel() <= 12 else "points inside the simplex"
    where = f" of data point {point}" if len(z) > 1 else ""
    return f"{what} is {x[point, number].item()} at {told}{where}"
