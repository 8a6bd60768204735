"""Whether a cost is a function of z, tried on a few codes before anything is measured.

A cost that draws, counts, looks at the batch or lets data points talk has no E f that an estimator
could be compared with: what is summed for the truth would be one draw of it.  The laws are those
that `--check` tests of a task, by the same names.
"""

import inspect
import math
import pickle
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gradest.categorical import one_hot
from gradest.costs import Cost, Problem
from gradest.errors import CostError

_ROWS, _SAMPLES = 3, 2
_SEED = 20_260_101
# Units of rounding, relative to the largest cost, by which the same call may differ on a device
# whose sums have no order, and one for a batch of another size.
_AGAIN, _OTHERWISE = 16, 1024
_TRIED = 4096  # codes, where one is looked for whose cost is not finite


def probe(name: str, problem: Problem, logits: Tensor) -> None:
    """Try the cost of the task of that name at [B, N, K] logits, in their dtype.

    Raises CostError with the law that is broken: *deterministic*, *middle axes* or *points*; with
    what the cost itself raised, where it cannot be evaluated; and where it changes z.
    """
    f = problem.f.replicated(None, logits)
    z = _some_codes(logits)
    with _global_randomness() as touched, torch.no_grad():
        given = z.clone()
        whole = _value(name, f, z)  # [B, R, S]
        _refuse(name, "deterministic", f, whole, _value(name, f, z), touched)
        if not torch.equal(given, z):
            raise CostError(f"{name}: the cost changed z in place; it is given z to read alone")
        for kept in (slice(0, None, 2), slice(1, None, 2)) if len(z) > 1 else ():
            others = z.roll(1, 1)
            others[kept] = z[kept]
            _refuse(name, "points", f, whole[kept], _value(name, f, others)[kept], touched)
        # Alone a code is its batch's minimum, mean and maximum: one of two moves with any of them.
        for alone in (whole.flatten(1).argmin(1), whole.flatten(1).argmax(1)):
            index = alone[:, None]  # [B, 1]
            code = z.flatten(1, 2)[torch.arange(len(z), device=z.device)[:, None], index]
            of_part = _value(name, f, code.unsqueeze(1)).flatten(1)
            _refuse(name, "middle axes", f, whole.flatten(1).gather(1, index), of_part, touched)
        if which := touched():
            raise CostError(
                f"{name}: the cost changes the global random state of {which} (law "
                "'deterministic'); a measurement neither reads nor changes it"
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
    """Codes that can occur, each latent's uniform over its categories: [B, R, S, N, K]."""
    points, latents, categories = logits.shape
    draws = torch.Generator().manual_seed(_SEED)
    weight = logits.isfinite().double().cpu()  # [B, N, K]
    cdf = weight.cumsum(-1)
    u = torch.rand(points, latents, _ROWS * _SAMPLES, generator=draws, dtype=torch.float64)
    index = torch.searchsorted(cdf, u * cdf[..., -1:], right=True).clamp_(max=categories - 1)
    index = index.movedim(-1, 1).unflatten(1, (_ROWS, _SAMPLES))  # [B, R, S, N]
    return one_hot(index.to(logits.device), logits)


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
    said = " ".join(str(error).split()) or type(error).__name__
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


def _refuse(name: str, law: str, f: Cost, whole: Tensor, part: Tensor, touched: Any) -> None:
    """Raises CostError where the same codes have other costs."""
    both = whole.isfinite() & part.isfinite()
    alike = whole.isfinite() == part.isfinite()
    size = float(torch.where(both, whole.abs(), 0.0).max())
    gap = float(torch.where(both, (whole - part).abs(), 0.0).max())
    units = _AGAIN if law == "deterministic" else _OTHERWISE
    if alike.all() and gap <= units * torch.finfo(_narrowest(f, whole)).eps * size:
        return
    by = f"by {gap / size:.2g} relative to the largest" if size else "altogether"
    how = {
        "deterministic": f"the same codes have other costs a second time, {by}",
        "middle axes": f"a code's cost differs {by} with the codes that are evaluated beside it",
        "points": f"the cost of a data point differs {by} with the codes of the others",
    }[law]
    raise CostError(
        f"{name}: the cost is not a function of z (law {law!r}): {how}{_why(f, law, touched())}"
    )


def _narrowest(f: Cost, whole: Tensor) -> torch.dtype:
    dtypes = {whole.dtype, f.dtype or whole.dtype}
    return max(dtypes, key=lambda dtype: torch.finfo(dtype).eps)


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


@contextmanager
def _global_randomness() -> Iterator[Any]:
    """Yields a function that names the libraries whose global state changed; restores it after."""
    before = (torch.get_rng_state(), np.random.get_state(), random.getstate())

    def touched() -> str:
        same = {
            "torch": torch.equal(torch.get_rng_state(), before[0]),
            "numpy": pickle.dumps(np.random.get_state()) == pickle.dumps(before[1]),
            "random": random.getstate() == before[2],
        }
        return ", ".join(name for name, kept in same.items() if not kept)

    try:
        yield touched
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])


def blame(problem: Problem, logits: Tensor) -> str:
    """The first code that can occur whose cost is not finite, or nothing: of [B, N, K] logits.

    All codes are tried where they are few, else some that are drawn.
    """
    f = problem.f.replicated(None, logits)
    if f.deep:
        return ""
    points, latents, categories = logits.shape
    draws = torch.Generator().manual_seed(_SEED)
    log_p = logits.double().log_softmax(-1).cpu()
    if categories**latents <= _TRIED:
        index = torch.cartesian_prod(*[torch.arange(categories)] * latents).reshape(-1, latents)
        index = index.expand(points, -1, -1)  # [B, C, N]
    else:
        p = log_p.exp().flatten(0, 1)
        index = torch.multinomial(p, _TRIED, replacement=True, generator=draws)
        index = index.unflatten(0, (points, latents)).transpose(1, 2)
    chosen = log_p.unsqueeze(1).expand(-1, index.shape[1], -1, -1)
    occurs = chosen.gather(-1, index.unsqueeze(-1)).squeeze(-1).sum(-1) > -math.inf  # [B, C]
    with torch.no_grad():
        cost = f(one_hot(index.to(logits.device), logits)).cpu()  # [B, C]
    bad = (~cost.isfinite() & occurs).nonzero()
    if not len(bad):
        return ""
    point, number = bad[0].tolist()
    where = f" of data point {point}" if points > 1 else ""
    code = index[point, number].tolist()
    return f"the cost is {cost[point, number].item()} at the code {code}{where}"
