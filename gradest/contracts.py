"""What an estimator and a task are.

Alphabet of every shape comment: R rows, S samples, B data points, N latents, K categories,
D observed dimensions.  `logits` are log α, unnormalised.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from gradest.categorical import sample
from gradest.knobs import Knobs, Positive

# What may hold estimate by estimate, under the same draws, whatever the cost:
LAWS = frozenset(
    {
        "zero sum",  # the estimates of a latent sum to zero over its categories
        "shift",  # a constant added to the logits of a latent changes none
        "labels",  # relabelled categories give the relabelled estimates, in law
        "constant",  # a constant added to f changes none
        "scale",  # a multiple of f gives that multiple of them
    }
)
# A law of relaxations alone: the estimate is the derivative of the value at fixed noise, which
# makes it unbiased for the mean of that value.
PATHWISE = "pathwise"

KL = Literal["exact", "sampled", "relaxed"]


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

    `evaluations` counts forward evaluations for each row, and `gradient_evaluations` those of them
    that a backward pass went through to z.  Calls raise ValueError when fn returns another shape
    than the contract's; making a Cost does for a kl without a prior, or for a bound of a model
    whose logarithms are not inside.
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
    ) -> None:
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
        evaluations = z.shape[1:-2].numel()
        self._evaluated(evaluations)
        if z.requires_grad and torch.is_grad_enabled():
            z = z.view_as(z)  # f's own, so that no other use of z counts
            z.register_hook(lambda _: self._passed(evaluations))
        value = self._applied(z, frozen)
        if self.points is not None:
            z = z.unflatten(0, (self.points, -1))  # [B, R, ..., N, K]
        if value.shape != z.shape[:-2]:
            raise ValueError(
                f"the cost returned shape {list(value.shape)} for z of shape {list(z.shape)}; "
                f"{list(z.shape[:-2])} was expected"
            )
        return value if self.points is None else value.flatten(0, 1)

    def _applied(self, z: Tensor, frozen: bool) -> Any:
        """What fn returns, [B, ...] or a `Problem`, with a data point's rows along the axis R."""
        if self.points is not None:
            z = z.unflatten(0, (self.points, -1))  # [B, R, ..., N, K]
        if self.module is None:
            return self.fn(z)
        named = self.module.named_parameters()
        following = {name: _held(p, frozen).to(z) for name, p in named}
        return self.fn(z, lambda x: functional_call(self.module, following, x))

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


class Task(Knobs, ABC):
    """A cost and the logits at which its gradient is wanted."""

    relaxable: ClassVar[bool] = True  # f is defined and differentiable on the simplex
    parameters: ClassVar[tuple[str, ...]] = ()  # names of groups that the logits are a function of

    @abstractmethod
    def problem(self, batch: Any = None) -> Problem:
        """The problem at `batch` (None: the fixed batch that is measured)."""

    def prepare(self) -> None:
        """Fetch what the task needs, once and before anything runs; raises UsageError."""

    def group(self, name: str) -> Iterable[Tensor]:
        """The tensors of one of `parameters`; the logits of `problem()` carry the graph to them."""
        raise NotImplementedError(f"{self.name} has no parameters {name!r}")

    def penalty(self, logits: Tensor) -> Tensor:
        """Closed-form terms beside E f and the divergence from a prior: [B, N, K] -> [B]."""
        return logits.new_zeros(logits.shape[0])

    def expectation(self, logits: Tensor) -> Tensor | None:
        """E f in closed form, differentiable in the logits: [B, N, K] -> [B]; None without one.

        It is the truth where K^N is too large to enumerate.
        """
        return None


class Model(Task):
    """A task whose networks are trained: a problem for each of their states and each batch."""

    @abstractmethod
    def networks(self, seed: int) -> nn.Module:
        """All that is learnt, untrained; every parameter of it belongs to one optimiser."""

    @abstractmethod
    def posed(self, networks: nn.Module, x: Tensor) -> Problem:
        """The problem of the observations x, [B, D], with the graph to the networks' parameters."""

    @abstractmethod
    def data(self, split: str) -> Tensor:
        """Everything in "train", "valid" or "test", as it is stored: [B, D]."""

    @abstractmethod
    def observed(self, items: Tensor, dtype: torch.dtype) -> Tensor:
        """Stored items as the networks see them, [B, D]; grey levels are drawn as bits anew."""

    @abstractmethod
    def pictures(self, networks: nn.Module, x: Tensor, z: Tensor) -> Tensor:
        """The mean of what is generated from codes z [B, ..., N, K], in [0, 1]: [B, ..., H, W]."""


class Estimator(Knobs, ABC):
    """A gradient estimator: an objective whose gradient is the estimate.

    Subclasses are dataclasses (`@dataclass(eq=False)`) whose fields are the knobs.  The class
    attributes are claims, which the conformance battery tests in both directions.
    """

    unbiased: ClassVar[bool] = True  # E ĝ = ∇ E f for every f
    relaxes: ClassVar[bool] = False  # evaluates or differentiates f off the vertices
    differentiates: ClassVar[bool] = False  # uses the derivative of f
    categories: ClassVar[int | None] = None  # 2 for binary-only methods
    outcomes: ClassVar[int | None] = None  # the largest K^N for methods that visit all of them
    owns_kl: ClassVar[bool] = False  # where f.kl is "relaxed" the value includes a KL of its own
    bounds: ClassVar[bool] = False  # takes a multi-sample bound as it is, and nothing else
    evaluations: ClassVar[str] = ""  # of f for one estimate: a formula in N, K, m and the knobs
    adapt_steps: ClassVar[int] = 0  # how many steps of adapt its state needs by default
    laws: ClassVar[frozenset[str]] = frozenset()  # of LAWS and PATHWISE, those that it obeys
    # A biased method may still be right where f has at most this degree in each latent (math.inf:
    # everywhere), be it only in the limit that the knobs in `limit` come close to.
    degree: ClassVar[float | None] = None
    limit: ClassVar[Mapping[str, Any]] = {}
    slow: ClassVar[str] = ""  # why it can take five times as long as leave-one-out, if so

    @abstractmethod
    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        """One estimate a row: logits [R, N, K] and f: [R, ..., N, K] -> [R, ...] give [R].

        The value estimates E f(z), the gradient with respect to `logits` is the estimate.  A
        row depends on itself alone; draws are fresh; state is read, never written.
        """

    def reset(self, logits: Tensor) -> None:
        """Build the state for problems like `logits` [B, N, K]."""

    def adapt(self, logits: Tensor, f: Cost) -> None:
        """Look at fresh draws and change the state; never called while measuring."""


@dataclass(eq=False)
class Tuned(Estimator):
    """An estimator with parameters that descend its variance.

    E ĝ does not depend on them, so E‖ĝ‖² has the gradient of the variance.  This class owns the
    optimiser; a subclass says what the parameters are, and may regress instead by overriding
    `tuning_loss`.
    """

    adapt_steps: ClassVar[int] = 1000
    learning_rate: Positive = 0.01

    @abstractmethod
    def build(self, logits: Tensor) -> Iterable[Tensor]:
        """Make the parameters (leaf tensors that require gradients) and return them."""

    def tuning_loss(self, logits: Tensor, f: Cost) -> Tensor:
        """E‖ĝ‖², averaged over the rows."""
        (estimate,) = torch.autograd.grad(self(logits, f).sum(), logits, create_graph=True)
        return estimate.square().sum((-2, -1)).mean()

    def reset(self, logits: Tensor) -> None:
        self._parameters = list(self.build(logits))
        self._optimiser = torch.optim.Adam(self._parameters, lr=self.learning_rate)
        self._require_gradients(False)

    def adapt(self, logits: Tensor, f: Cost) -> None:
        self._require_gradients(True)
        loss = self.tuning_loss(logits.detach().requires_grad_(), f)
        gradients = torch.autograd.grad(loss, self._parameters, allow_unused=True)
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        self._optimiser.step()
        self._require_gradients(False)

    def _require_gradients(self, wanted: bool) -> None:
        """Only while tuning: else every estimate would pay for a graph that nobody walks."""
        for parameter in self._parameters:
            parameter.requires_grad_(wanted)


def inapplicable(estimator: Estimator, task: Task, problem: Problem) -> str | None:
    """Why the estimator cannot run on the task, or None when it can."""
    sizes = layers(problem)
    wrong = [k for _, k in sizes if estimator.categories not in (None, k)]
    if wrong:
        return f"{estimator.name} needs K = {estimator.categories}, {task.name} has K = {wrong[0]}"
    if (estimator.relaxes or estimator.differentiates) and not task.relaxable:
        return f"{estimator.name} needs f' and {task.name} defines f on the vertices alone"
    if estimator.bounds and problem.f.samples == 1:
        return f"{estimator.name} needs a multi-sample bound, {task.name} has one sample"
    if len(sizes) > 1 and problem.f.samples > 1:
        return f"no estimator takes a bound of several layers of latents, as {task.name} has it"
    if len(sizes) > 1 and estimator.adapt_steps:
        return (
            f"{estimator.name} has a state, which is that of one layer of latents; "
            f"{task.name} has {len(sizes)}"
        )
    if estimator.outcomes is not None and outcomes(problem) > estimator.outcomes:
        counted = " · ".join(f"{k}^{n}" for n, k in sizes)
        return (
            f"{estimator.name} visits all K^N outcomes: {counted} is more than "
            f"{estimator.outcomes:,}"
        )
    return None
