"""What an estimator and a task are.

Alphabet of every shape comment: R rows, S samples, B data points, N latents, K categories,
D observed dimensions.  `logits` are log α, unnormalised.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gradest.costs import Cost, Problem, layers, outcomes, width
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

_LISTED = 2**27  # numbers in all codes together, which methods that visit all of them hold at once


class Task(Knobs, ABC):
    """A cost and the logits at which its gradient is wanted."""

    version: ClassVar[int] = 1  # raised where the problem changes on purpose
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


# The methods of a `Model` by the names of the previous version, which still work.
_DEPRECATED = {"posed": "problem_at", "observed": "preprocess", "pictures": "decode_images"}


class _DeprecatedName:
    """A method under its previous name, with a warning for the caller."""

    def __init__(self, owner: type, old: str, new: str) -> None:
        self._owner, self._new = owner, new
        self._message = f"{old} is deprecated; call {new} instead"

    def __get__(self, model: Any, cls: type | None = None) -> Any:
        warnings.warn(self._message, DeprecationWarning, stacklevel=2)
        # The method of the class that has it, not of the model's: super().posed() would recurse.
        return vars(self._owner)[self._new].__get__(model, cls)


class Model(Task):
    """A task whose networks are trained: a problem for each of their states and each batch."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for old, new in _DEPRECATED.items():
            if old in vars(cls) and new not in vars(cls):
                message = f"{cls.__name__} defines {old}, which is deprecated; rename it to {new}"
                warnings.warn(message, DeprecationWarning, stacklevel=3)
                setattr(cls, new, vars(cls)[old])
            if new in vars(cls):
                setattr(cls, old, _DeprecatedName(cls, old, new))

    @abstractmethod
    def networks(self, seed: int) -> nn.Module:
        """All that is learnt, untrained; every parameter of it belongs to one optimiser."""

    @abstractmethod
    def problem_at(self, networks: nn.Module, x: Tensor) -> Problem:
        """The problem of the observations x, [B, D], with the graph to the networks' parameters."""

    @abstractmethod
    def data(self, split: str) -> Tensor:
        """Everything in "train", "valid" or "test", as it is stored: [B, D]."""

    @abstractmethod
    def preprocess(self, items: Tensor, dtype: torch.dtype) -> Tensor:
        """Stored items as the networks see them, [B, D]; grey levels are drawn as bits anew.

        By `gradest.randomness.draws()`, as every draw: torch's own no seed of a run brings back.
        """

    @abstractmethod
    def decode_images(self, networks: nn.Module, x: Tensor, z: Tensor) -> Tensor:
        """The mean of what is generated from codes z [B, ..., N, K], in [0, 1]: [B, ..., H, W]."""


class Estimator(Knobs, ABC):
    """A gradient estimator: an objective whose gradient is the estimate.

    Subclasses are dataclasses (`@dataclass(eq=False)`) whose fields are the knobs.  The class
    attributes are claims, which the conformance battery tests in both directions.
    """

    version: ClassVar[int] = 1  # raised where the estimates change on purpose
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
        self._optimiser.param_groups[0]["lr"] = self.learning_rate  # which may be annealed
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        self._optimiser.step()
        self._require_gradients(False)

    def _require_gradients(self, wanted: bool) -> None:
        """Only while tuning: else every estimate would pay for a graph that nobody walks."""
        for parameter in self._parameters:
            parameter.requires_grad_(wanted)


def built_in(found: type) -> bool:
    """Whether a class is the catalogue's own, and no plugin from elsewhere."""
    return found.__module__.startswith(f"{__package__}.")


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
    if estimator.outcomes is not None and outcomes(problem) * width(problem) > _LISTED:
        return (
            f"{estimator.name} visits all K^N outcomes: the {outcomes(problem):,} codes of "
            f"{width(problem):,} numbers each take more than {8 * _LISTED / 2**30:.0f} GiB"
        )
    return None
