"""The cost f, whose expectation is differentiated, and one instance of that problem.

Alphabet of every shape comment: R rows, S samples, B data points, N latents, K categories,
D observed dimensions.  `logits` are log α, unnormalised.
"""

import math
from collections.abc import Callable
from copy import copy
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call

from gradest.categorical import sample
from gradest.errors import ContractError, CostError, UsageError

KL = Literal["exact", "sampled", "relaxed"]
Objective = Literal["bound", "minimum"]


class Cost:
    """The function f whose expectation is differentiated, with counts of its evaluations.

    `fn(z)` maps [B, ..., N, K] to [B, ...]; constants inside it follow z (`constant.to(z)`), so
    that one task serves every dtype and device.  A task with parameters of its own passes their
    `module`; fn is then called as `fn(z, module)`, with parameters that follow z, live or frozen.

    A latent-variable model has a `prior`, logits [N, K] of p(z), besides the `logits` of q, which
    are those of the problem, and one of three objectives:

        kl = "exact"    E f(z) + KL(q ‖ p), with the KL in closed form, added to every estimate
        kl = "sampled"  E [f(z) + log q(z) − log p(z)]: f itself adds the logarithms
        kl = "relaxed"  as exact, but an estimator that `owns_kl` replaces the KL by densities of
        its
                        own samples, and no KL is added for it

    `samples` = m > 1 makes an objective of m independent codes z₁ … z_m
    (`gradest.measurement`), which is one of two:

        objective = "bound"    E −log 1/m Σᵢ wᵢ,  where f(zᵢ) is −log wᵢ, with log q − log p if
                               there is a prior
        objective = "minimum"  E minᵢ f(zᵢ),  the best of m: pass@m for f = 1 − success, and
                               minus max@m of a reward for f = −reward

    A `deep` cost is a mean over further latents, whose distribution depends on z: fn(z) is the
    `Problem` of that next layer, with logits [B, ..., N', K'] and a cost of its own, and f(z) the
    mean of that cost.  Estimators need no change for it: a measurement poses the problem so that
    they estimate this mean as well.  Called directly, f(z) is the cost of one draw of the next
    layer, without the gradient with respect to that layer's logits.  Its evaluations are those of
    the last layer.

    A cost that computes in one `dtype`, such as a network of float32 weights, gets z in that dtype,
    and its values are converted to that of z.  By default it follows z.

    `evaluations` counts forward evaluations for each row, and `gradient_evaluations` those through
    which a backward pass reached z.  Calls raise CostError, a ValueError, when fn returns anything
    but one number in the dtype of z for each code, changes z in place, or has no gradient where z
    requires one, and ContractError when z is not a floating [B, ..., N, K].  Cost(...) raises
    ValueError for invalid arguments, such as a kl without a prior, or a bound of a model with a kl
    in closed form.
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
        objective: Objective = "bound",
        logits: Tensor | None = None,
        deep: bool = False,
        dtype: torch.dtype | None = None,
    ) -> None:
        _check_arguments(fn, module, points, prior, kl, samples, objective, logits, deep, dtype)
        if kl is not None and prior is None:
            raise ValueError(
                f"expected a prior with kl = {kl!r}, got none; pass Cost(..., prior=logits of p)"
            )
        if objective == "minimum" and prior is not None:
            raise ValueError(
                "expected no prior with objective = 'minimum', which has no term for it; add the "
                "divergence to f"
            )
        if samples > 1 and prior is not None and kl != "sampled":
            raise ValueError(
                f"expected kl = 'sampled' for a bound of {samples} samples with a prior, got "
                f"kl = {kl!r}; the bound contains log q − log p"
            )
        self.fn = fn
        self.module = module
        self.points = points
        self.prior = prior
        self.kl = kl
        self.samples = samples
        self.objective = objective
        self.deep = deep
        self.dtype = dtype
        self.evaluations = 0
        self.gradient_evaluations = 0
        self._logits = logits
        self._constant = False  # frozen in every call
        self._whole: tuple[Cost, int] | None = None  # the cost of which it is a part, and how often

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

        For a task, replicates are one more middle axis.  `logits` [R, N, K] are those of the rows,
        for a cost that depends on q itself.
        """
        return self._with(points=points, _logits=logits)

    def changed(
        self,
        fn: Callable[..., Tensor],
        module: nn.Module | None = None,
        prior: Tensor | None = None,
    ) -> "Cost":
        """The same cost with another fn, and another module and prior where they are given."""
        others = {"module": module, "prior": prior}
        return self._with(fn=fn, **{name: x for name, x in others.items() if x is not None})

    def bounded(self, samples: int) -> "Cost":
        """The cost −log w of the same model, for a bound of this number of samples."""
        return self._with(kl="sampled", samples=samples, objective="bound")

    def best_of(self, samples: int) -> "Cost":
        """The same cost, for the minimum over this number of samples.

        Raises ValueError for a cost with a prior.
        """
        if self.prior is not None:
            raise ValueError("expected a cost without a prior for a minimum over samples")
        return self._with(samples=samples, objective="minimum")

    def computing_in(self, dtype: torch.dtype) -> "Cost":
        """The same cost, which gets z in this dtype."""
        return self._with(dtype=dtype)

    def next(self, z: Tensor, frozen: bool = False) -> "Problem":
        """The next layer of a deep cost, with a row for each code z.

        z [R, ..., N, K] gives logits [R · ..., N', K'].  Evaluations there count here.
        Raises ValueError where the next layer has a prior or a bound of its own.
        """
        logits, f = self._apply(z, frozen or self._constant)
        if f.prior is not None or f.samples > 1:
            raise ValueError(
                "expected the next layer of a deep cost without a prior and a bound of its own"
            )
        logits = logits.flatten(0, -3)
        f = f.replicated(self.points or len(z), logits)
        times = math.prod(z.shape[1:-2])
        return Problem(logits, f._with(_constant=frozen or self._constant, _whole=(self, times)))

    def _with(self, **changes: Any) -> "Cost":
        """A copy with these changes and with counts of its own."""
        same = copy(self)
        vars(same).update(changes, evaluations=0, gradient_evaluations=0)
        return same

    @property
    def depends(self) -> bool:
        """Whether f depends on the logits besides z, so that E ∂f/∂ log α is not zero.

        With one sample it is E ∂ log q = 0, and this noise is left out.
        """
        return self._adds_logarithms and self.samples > 1

    @property
    def _adds_logarithms(self) -> bool:
        return self.kl == "sampled" and self.prior is not None

    def _evaluate(self, z: Tensor, frozen: bool) -> Tensor:
        frozen = frozen or self._constant
        value = self._one_draw(z, frozen) if self.deep else self._task_cost(z, frozen)
        return value + self._logarithms(z, frozen) if self._adds_logarithms else value

    def _one_draw(self, z: Tensor, frozen: bool) -> Tensor:
        logits, f = self.next(z, frozen)
        return f(sample(logits)).unflatten(0, z.shape[:-2])

    def _task_cost(self, z: Tensor, frozen: bool) -> Tensor:
        _check_codes(z, self._logits)
        evaluations = math.prod(z.shape[1:-2])
        self._count(evaluations)
        if z.requires_grad and torch.is_grad_enabled():
            z = z.view_as(z)  # a view only for f, so that other uses of z do not count
            z.register_hook(lambda _: self._count_gradients(evaluations))
        version = None if z.is_inference() else z._version
        value = self._apply(z, frozen)
        if version is not None and z._version != version:
            raise CostError(
                "the cost changed z in place, which the estimator still uses; write z = z * w "
                "instead of z *= w"
            )
        if self.points is not None:
            z = z.unflatten(0, (self.points, -1))  # [B, R, ..., N, K]
        _check_value(value, z)
        return value if self.points is None else value.flatten(0, 1)

    def _apply(self, z: Tensor, frozen: bool) -> Any:
        """The value of fn, [B, ...] or a `Problem`, with the rows of a data point on the axis R."""
        if self.points is not None:
            z = z.unflatten(0, (self.points, -1))  # [B, R, ..., N, K]
        own = z if self.dtype is None else z.to(self.dtype)
        if self.module is None:
            value = self.fn(own)
        else:
            named = dict(self.module.named_parameters())
            converted = {name: _detached_if(p, frozen).to(own) for name, p in named.items()}
            # Exchanging parameters takes time, which a step of training need not spend.  fn gets a
            # function either way: attributes of the module would be there in some calls alone.
            live = all(p is named[name] for name, p in converted.items())
            module = self.module if live else partial(functional_call, self.module, converted)
            value = self.fn(own, lambda x: module(x))
        in_other_dtype = self.dtype is not None and isinstance(value, Tensor)
        return value.to(z.dtype) if in_other_dtype else value

    def _logarithms(self, z: Tensor, frozen: bool) -> Tensor:
        """log q(z) − log p(z), linear in each latent: [R, ..., N, K] -> [R, ...]."""
        if self._logits is None:
            raise ValueError(
                "expected the logits of q for a cost with log q(z); pass Cost(..., logits=logits)"
            )
        log_q = _detached_if(self._logits, frozen or not self.depends).log_softmax(-1)
        ratio = log_q - _detached_if(self.prior, frozen).to(z).log_softmax(-1)  # [R, N, K]
        # A masked category, with q = 0, has weight 0; 0 · −∞ would be NaN.
        ratio = torch.where(log_q > -torch.inf, ratio, 0.0)
        middle = (slice(None), *(None,) * (z.ndim - 3))
        return (z * ratio[middle]).sum((-2, -1))

    def _count(self, evaluations: int) -> None:
        self.evaluations += evaluations
        if self._whole is not None:
            whole, times = self._whole
            whole._count(evaluations * times)

    def _count_gradients(self, evaluations: int) -> None:
        self.gradient_evaluations += evaluations
        if self._whole is not None:
            whole, times = self._whole
            whole._count_gradients(evaluations * times)


def _check_arguments(
    fn: Any,
    module: Any,
    points: Any,
    prior: Any,
    kl: Any,
    samples: Any,
    objective: Any,
    logits: Any,
    deep: Any,
    dtype: Any,
) -> None:
    """Raise UsageError for the first argument of a Cost that is of the wrong kind."""
    if not callable(fn):
        raise UsageError(f"fn = {fn!r:.60}; expected a function of z")
    if module is not None and not isinstance(module, nn.Module):
        raise UsageError(f"module = {module!r:.60}; expected a torch.nn.Module or None")
    for name, word, words, or_none in (
        ("kl", kl, get_args(KL), " or None"),
        ("objective", objective, get_args(Objective), ""),
    ):
        if not (isinstance(word, str) and word in words) and not (or_none and word is None):
            expected = ", ".join(map(repr, words)) + or_none
            raise UsageError(f"{name} = {word!r:.60}; expected {expected}")
    for name, number in (("samples", samples), ("points", points)):
        whole = isinstance(number, int) and not isinstance(number, bool) and number >= 1
        if not whole and not (name == "points" and number is None):
            raise UsageError(f"{name} = {number!r:.60}; expected a whole number of at least 1")
    for name, value in (("prior", prior), ("logits", logits)):
        if value is None:
            continue
        if not isinstance(value, Tensor):
            raise UsageError(f"{name} = {value!r:.60}; expected logits, a torch.Tensor [N, K]")
        if not value.is_floating_point() or value.ndim < 2:
            raise UsageError(
                f"expected {name} as a floating tensor [N, K], got {value.dtype} of shape "
                f"{list(value.shape)}"
            )
    if not isinstance(deep, bool):
        raise UsageError(f"deep = {deep!r:.60}; expected True or False")
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise UsageError(f"dtype = {dtype!r:.60}; expected a floating torch.dtype or None")


def _check_codes(z: Any, logits: Tensor | None) -> None:
    """Raise ContractError for codes at which f cannot be evaluated."""
    if not isinstance(z, Tensor) or not z.is_floating_point():
        got = z.dtype if isinstance(z, Tensor) else type(z).__name__
        raise ContractError(
            f"expected f to be called with codes z in the dtype of the logits, got {got}; "
            "sample(logits) and one_hot(index, logits) return such codes"
        )
    if z.ndim < 3 or (logits is not None and z.shape[-2:] != logits.shape[-2:]):
        expected = "N, K" if logits is None else ", ".join(map(str, logits.shape[-2:]))
        raise ContractError(
            f"expected f to be called with z of shape [R, ..., {expected}], a code for each row, "
            f"got {list(z.shape)}"
        )


def _check_value(value: Any, z: Tensor) -> None:
    """Raise CostError unless there is one number for each code of z, with its graph."""
    if not isinstance(value, Tensor):
        got = "None" if value is None else f"an object of type {type(value).__name__}"
        raise CostError(
            f"expected the cost to return a torch.Tensor of shape {list(z.shape[:-2])}, one number "
            f"for each code, got {got}; compute it from z by operations of torch"
        )
    if value.layout != torch.strided:
        raise CostError(
            f"expected a dense tensor of costs, got {value.layout}; return value.to_dense()"
        )
    if value.shape != z.shape[:-2]:
        raise CostError(
            f"expected the cost to return shape {list(z.shape[:-2])} for z of shape "
            f"{list(z.shape)}, got {list(value.shape)}"
        )
    if not value.is_floating_point():
        raise CostError(
            f"expected the cost to return {z.dtype}, the dtype of z, got {value.dtype}; convert it "
            "with value.to(z)"
        )
    if value.dtype != z.dtype:
        raise CostError(
            f"expected the cost to return {z.dtype}, the dtype of z, got {value.dtype}; convert "
            "constants with x.to(z), and pass the module of parameters as Cost(fn, module). "
            f"Cost(fn, dtype={value.dtype}) converts both ways"
        )
    if z.requires_grad and torch.is_grad_enabled() and not value.requires_grad:
        raise CostError(
            "expected a cost with a gradient with respect to z, which the estimator uses, got one "
            "without; argmax, comparisons, detach, item and no_grad cut it; set relaxable = False "
            "for a task whose cost has none"
        )


def _detached_if(x: Tensor, frozen: bool) -> Tensor:
    return x.detach() if frozen else x


class Problem(NamedTuple):
    """A batch of data points with their logits and the cost: one instance of ∇ E f(z)."""

    logits: Tensor  # [B, N, K]
    f: Cost  # [B, ..., N, K] -> [B, ...]


def layers(problem: Problem) -> list[tuple[int, int]]:
    """(N, K) of every layer of latents, with the N of all samples of a bound together."""
    logits, f = problem
    own = (logits.shape[1] * f.samples, logits.shape[2])
    if not f.deep:
        return [own]
    with torch.no_grad():
        return [own, *layers(f.next(logits.softmax(-1)))]


def outcomes(problem: Problem) -> int:
    """The number of codes, K^N, of all layers together."""
    return math.prod(k**n for n, k in layers(problem))


def width(problem: Problem) -> int:
    """The number of entries of a code, N · K, of all samples of a bound and all layers together."""
    return sum(n * k for n, k in layers(problem))
