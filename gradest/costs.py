"""The function whose expectation is differentiated, and one instance of that problem.

Alphabet of every shape comment: R rows, S samples, B data points, N latents, K categories,
D observed dimensions.  `logits` are log α, unnormalised.
"""

import math
from collections.abc import Callable
from copy import copy
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call

from gradest.categorical import sample
from gradest.errors import ContractError, CostError, UsageError

KL = Literal["exact", "sampled", "relaxed"]
_KLS = get_args(KL)


class Cost:
    """The function f whose expectation is differentiated; counts its evaluations.

    `fn(z)` maps [B, ..., N, K] to [B, ...]; constants inside it follow z (`constant.to(z)`), so
    that one task serves every dtype and device.  A task with parameters of its own passes their
    `module`; fn is then called as `fn(z, module)`, with parameters that follow z, live or frozen.

    A latent-variable model has a `prior`, logits [N, K] of p(z), besides the `logits` of q that
    the problem has too, and one of three objectives:

        kl = "exact"    E f(z) + KL(q ‖ p), the KL in closed form, beside every estimate
        kl = "sampled"  E [f(z) + log q(z) − log p(z)]: f itself adds the logarithms
        kl = "relaxed"  as exact, but an estimator that `owns_kl` puts densities of its own samples
                        in the KL's place, and none is added for it

    `samples` = m > 1 asks for a multi-sample bound: f(zᵢ) is −log wᵢ, with log q − log p where
    there is a prior, and the objective is E −log 1/m Σᵢ wᵢ over m codes (`gradest.objectives`).

    A `deep` cost is a mean over further latents, whose law depends on z: fn(z) is the `Problem` of
    that next layer, with logits [B, ..., N', K'] and a cost of its own, and f(z) the mean of that
    cost.  An estimator does not see it: `gradest.objectives` lets it estimate the mean as well.
    Called as it is, f(z) is the cost of one draw of the next layer, whose gradient lacks the one
    with respect to that layer's logits.  Its evaluations are those of the last layer's cost.

    A cost that computes in one `dtype`, as a network of float32 weights does, gets z in that dtype,
    and its values are converted to that of z.  By default it follows z.

    `evaluations` counts forward evaluations for each row, and `gradient_evaluations` those of them
    that a backward pass went through to z.  Calls raise CostError, a ValueError, when fn returns
    anything but one number in the dtype of z for each code, changes z in place, or has no gradient
    where z asks for one, and ContractError when z is no floating [B, ..., N, K].  Making a Cost
    raises ValueError for an argument that it cannot have: a kl without a prior, or a bound of a
    model whose logarithms are not inside.
    """

    def __init__(
        self,
        fn: Callable[..., Tensor],
        module: nn.Module | None = None,
        points: int | None = None,
        *,
        prior: Tensor | None = None,
        kl: KL | None = None,
        samples: int = 1,
        logits: Tensor | None = None,
        deep: bool = False,
        dtype: torch.dtype | None = None,
    ) -> None:
        _check_arguments(fn, module, points, prior, kl, samples, logits, deep, dtype)
        if kl is not None and prior is None:
            raise ValueError(f"kl = {kl!r} needs a prior: Cost(..., prior=logits of p)")
        if samples > 1 and prior is not None and kl != "sampled":
            raise ValueError(
                f"a bound of {samples} samples with a prior has log q − log p inside, and "
                f"kl = {kl!r}; kl='sampled' says so, as Cost.bounded does"
            )
        self.fn = fn
        self.module = module
        self.points = points
        self.prior = prior
        self.kl = kl
        self.samples = samples
        self.deep = deep
        self.dtype = dtype
        self.evaluations = 0
        self.gradient_evaluations = 0
        self._logits = logits
        self._constant = False  # frozen in every call
        self._whole: tuple[Cost, int] | None = None  # what it is a part of, and how often

    def __call__(self, z: Tensor) -> Tensor:
        """f(z), with gradients to z and to the task's parameters."""
        return self._evaluate(z, frozen=False)

    def frozen(self, z: Tensor) -> Tensor:
        """f(z) with the task's parameters held constant, for control variates.

        A control variate has mean zero in the logits, not in the task's parameters.
        """
        return self._evaluate(z, frozen=True)

    def replicated(self, points: int | None, logits: Tensor | None = None) -> "Cost":
        """The same f over rows that are `points` data points, each repeated R times in a block.

        A task never hears of replicates: to it they are one more middle axis.  `logits` [R, N, K]
        are those of the rows, for a cost that depends on q itself.
        """
        return self._with(points=points, _logits=logits)

    def changed(
        self,
        fn: Callable[..., Tensor],
        module: nn.Module | None = None,
        prior: Tensor | None = None,
    ) -> "Cost":
        """The same but for fn, and for the module and the prior where they are given."""
        given = {"module": module, "prior": prior}
        return self._with(fn=fn, **{name: x for name, x in given.items() if x is not None})

    def bounded(self, samples: int) -> "Cost":
        """−log w of the same model, for a bound of so many samples."""
        return self._with(kl="sampled", samples=samples)

    def computing_in(self, dtype: torch.dtype) -> "Cost":
        """The same, which gets z in this dtype."""
        return self._with(dtype=dtype)

    def next(self, z: Tensor, frozen: bool = False) -> "Problem":
        """The next layer of a deep cost, with a row for each code z.

        z [R, ..., N, K] gives logits [R · ..., N', K'].  What is evaluated there counts here.
        Raises ValueError where the next layer has a prior or a bound of its own.
        """
        logits, f = self._applied(z, frozen or self._constant)
        if f.prior is not None or f.samples > 1:
            raise ValueError("the next layer of a deep cost has a prior, or a bound, of its own")
        logits = logits.flatten(0, -3)
        f = f.replicated(self.points or len(z), logits)
        times = z.shape[1:-2].numel()
        return Problem(logits, f._with(_constant=frozen or self._constant, _whole=(self, times)))

    def _with(self, **changes: Any) -> "Cost":
        """A copy that counts for itself."""
        same = copy(self)
        vars(same).update(changes, evaluations=0, gradient_evaluations=0)
        return same

    @property
    def depends(self) -> bool:
        """Whether E ∂f/∂ log α is not zero: f depends on the logits beside z.

        With one sample it is E ∂ log q = 0, noise that is left out.
        """
        return self._adds_logarithms and self.samples > 1

    @property
    def _adds_logarithms(self) -> bool:
        return self.kl == "sampled" and self.prior is not None

    def _evaluate(self, z: Tensor, frozen: bool) -> Tensor:
        frozen = frozen or self._constant
        value = self._of_one_draw(z, frozen) if self.deep else self._task_cost(z, frozen)
        return value + self._logarithms(z, frozen) if self._adds_logarithms else value

    def _of_one_draw(self, z: Tensor, frozen: bool) -> Tensor:
        logits, f = self.next(z, frozen)
        return f(sample(logits)).unflatten(0, z.shape[:-2])

    def _task_cost(self, z: Tensor, frozen: bool) -> Tensor:
        _check_codes(z, self._logits)
        evaluations = z.shape[1:-2].numel()
        self._evaluated(evaluations)
        if z.requires_grad and torch.is_grad_enabled():
            z = z.view_as(z)  # f's own, so that no other use of z counts
            z.register_hook(lambda _: self._passed(evaluations))
        given = None if z.is_inference() else z._version
        value = self._applied(z, frozen)
        if given is not None and z._version != given:
            raise CostError(
                "the cost changed z in place; write z = z * w instead of z *= w, for z is what the "
                "estimator goes on with"
            )
        if self.points is not None:
            z = z.unflatten(0, (self.points, -1))  # [B, R, ..., N, K]
        _check_value(value, z)
        return value if self.points is None else value.flatten(0, 1)

    def _applied(self, z: Tensor, frozen: bool) -> Any:
        """What fn returns, [B, ...] or a `Problem`, with a data point's rows along the axis R."""
        if self.points is not None:
            z = z.unflatten(0, (self.points, -1))  # [B, R, ..., N, K]
        own = z if self.dtype is None else z.to(self.dtype)
        if self.module is None:
            value = self.fn(own)
        else:
            named = self.module.named_parameters()
            following = {name: _held(p, frozen).to(own) for name, p in named}
            value = self.fn(own, lambda x: functional_call(self.module, following, x))
        converted = self.dtype is not None and isinstance(value, Tensor)
        return value.to(z.dtype) if converted else value

    def _logarithms(self, z: Tensor, frozen: bool) -> Tensor:
        """log q(z) − log p(z), linear in each latent: [R, ..., N, K] -> [R, ...]."""
        if self._logits is None:
            raise ValueError("a cost with log q(z) needs the logits of q: Cost(..., logits=logits)")
        log_q = _held(self._logits, frozen or not self.depends).log_softmax(-1)
        ratio = log_q - _held(self.prior, frozen).to(z).log_softmax(-1)  # [R, N, K]
        # A masked category, with q = 0, has weight 0; 0 · −∞ would be NaN.
        ratio = torch.where(log_q > -torch.inf, ratio, 0.0)
        middle = (slice(None), *(None,) * (z.ndim - 3))
        return (z * ratio[middle]).sum((-2, -1))

    def _evaluated(self, evaluations: int) -> None:
        self.evaluations += evaluations
        if self._whole is not None:
            whole, times = self._whole
            whole._evaluated(evaluations * times)

    def _passed(self, evaluations: int) -> None:
        self.gradient_evaluations += evaluations
        if self._whole is not None:
            whole, times = self._whole
            whole._passed(evaluations * times)


def _check_arguments(
    fn: Any,
    module: Any,
    points: Any,
    prior: Any,
    kl: Any,
    samples: Any,
    logits: Any,
    deep: Any,
    dtype: Any,
) -> None:
    """Raises UsageError for the first argument of a Cost that is of the wrong kind."""
    if not callable(fn):
        raise UsageError(f"Cost({fn!r:.60}): expected a function of z")
    if module is not None and not isinstance(module, nn.Module):
        raise UsageError(f"module = {module!r:.60}; expected a torch.nn.Module or None")
    if not (kl is None or (isinstance(kl, str) and kl in _KLS)):
        raise UsageError(f"kl = {kl!r:.60}; expected {', '.join(map(repr, _KLS))} or None")
    for name, number in (("samples", samples), ("points", points)):
        whole = isinstance(number, int) and not isinstance(number, bool) and number >= 1
        if not whole and not (name == "points" and number is None):
            raise UsageError(f"{name} = {number!r:.60}; expected a whole number from 1 on")
    for name, given in (("prior", prior), ("logits", logits)):
        if given is None:
            continue
        if not isinstance(given, Tensor):
            raise UsageError(f"{name} = {given!r:.60}; expected logits, a torch.Tensor [N, K]")
        if not given.is_floating_point() or given.ndim < 2:
            raise UsageError(
                f"{name} is {given.dtype} of shape {list(given.shape)}; expected floating [N, K]"
            )
    if not isinstance(deep, bool):
        raise UsageError(f"deep = {deep!r:.60}; expected True or False")
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise UsageError(f"dtype = {dtype!r:.60}; expected a floating torch.dtype or None")


def _check_codes(z: Any, logits: Tensor | None) -> None:
    """Raises ContractError for what an estimator cannot evaluate f at."""
    if not isinstance(z, Tensor) or not z.is_floating_point():
        given = z.dtype if isinstance(z, Tensor) else type(z).__name__
        raise ContractError(
            f"f is evaluated at z of {given}; expected codes in the dtype of the logits, as "
            "sample(logits) and one_hot(index, logits) return them"
        )
    if z.ndim < 3 or (logits is not None and z.shape[-2:] != logits.shape[-2:]):
        expected = "N, K" if logits is None else ", ".join(map(str, logits.shape[-2:]))
        raise ContractError(
            f"f is evaluated at z of shape {list(z.shape)}; expected [R, ..., {expected}], a code "
            "for each row"
        )


def _check_value(value: Any, z: Tensor) -> None:
    """Raises CostError unless there is one number for each code of z, with its graph."""
    if not isinstance(value, Tensor):
        told = "None" if value is None else f"a {type(value).__name__}"
        raise CostError(
            f"the cost returned {told}; expected a torch.Tensor of shape {list(z.shape[:-2])}, one "
            "number for each code, computed from z by operations of torch"
        )
    if value.layout != torch.strided:
        raise CostError(f"the cost returned a tensor of {value.layout}; return value.to_dense()")
    if value.shape != z.shape[:-2]:
        raise CostError(
            f"the cost returned shape {list(value.shape)} for z of shape {list(z.shape)}; "
            f"{list(z.shape[:-2])} was expected"
        )
    if not value.is_floating_point():
        raise CostError(
            f"the cost returned {value.dtype} for z of {z.dtype}; convert it with value.to(z)"
        )
    if value.dtype != z.dtype:
        raise CostError(
            f"the cost returned {value.dtype} for z of {z.dtype}; constants follow z with x.to(z), "
            "parameters where their module is passed as Cost(fn, module), and "
            f"Cost(fn, dtype={value.dtype}) converts both ways"
        )
    if z.requires_grad and torch.is_grad_enabled() and not value.requires_grad:
        raise CostError(
            "the cost has no gradient with respect to z, which the estimator asked for; argmax, "
            "comparisons, detach, item and no_grad cut it; say relaxable = False of a task "
            "whose cost has none"
        )


def _held(x: Tensor, frozen: bool) -> Tensor:
    return x.detach() if frozen else x


class Problem(NamedTuple):
    """One instance of ∇ E f(z): a batch of data points with their logits and the cost."""

    logits: Tensor  # [B, N, K]
    f: Cost  # [B, ..., N, K] -> [B, ...]


def layers(problem: Problem) -> list[tuple[int, int]]:
    """(N, K) of every layer of latents; the N of all samples of a bound together."""
    logits, f = problem
    own = (logits.shape[1] * f.samples, logits.shape[2])
    if not f.deep:
        return [own]
    with torch.no_grad():
        return [own, *layers(f.next(logits.softmax(-1)))]


def outcomes(problem: Problem) -> int:
    """How many codes there are, K^N, of all layers together."""
    return math.prod(k**n for n, k in layers(problem))


def width(problem: Problem) -> int:
    """How many numbers a code has, N · K, of all samples of a bound and all layers together."""
    return sum(n * k for n, k in layers(problem))
