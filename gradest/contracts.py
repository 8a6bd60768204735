"""The base classes of estimators, tasks and models: the contracts that plugins implement.

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

from gradest.categorical import log_prob, nabla, sample
from gradest.costs import Cost, Objective, Problem, layers, outcomes, width
from gradest.errors import ContractError, StateError
from gradest.knobs import Knobs, Positive, knob_types

# Properties that the estimates may have under the same draws, for every cost:
LAWS = frozenset(
    {
        "zero sum",  # the estimates of a latent sum to zero over its categories
        "shift",  # a constant added to the logits of a latent changes no estimate
        "labels",  # relabelled categories give the relabelled estimates, in distribution
        "constant",  # a constant added to f changes no estimate
        "scale",  # a multiple of f gives the same multiple of the estimates
    }
)
# A property of relaxations only: the estimate is the derivative of the value at fixed noise, which
# makes it unbiased for the gradient of the mean of that value.
PATHWISE = "pathwise"

# The objectives of several samples in words.
_MULTI_SAMPLE: Mapping[str, str] = {
    "bound": "a multi-sample bound",
    "minimum": "the minimum over several samples",
}
_MOST_NUMBERS = 2**27  # in all codes together, which methods that enumerate them hold at once


class Task(Knobs, ABC):
    """A cost, and the logits at which its gradient is estimated."""

    version: ClassVar[int] = 1  # raised where the problem changes on purpose
    relaxable: ClassVar[bool] = True  # f is defined and differentiable on the simplex
    parameters: ClassVar[
        tuple[str, ...]
    ] = ()  # names of groups of tensors that the logits depend on

    @abstractmethod
    def problem(self, batch: Any = None) -> Problem:
        """The problem at `batch` (None: the fixed batch that is measured)."""

    def prepare(self) -> None:
        """Fetch the data that the task needs, once before a run; raises UsageError."""

    def group(self, name: str) -> Iterable[Tensor]:
        """The tensors of one of `parameters`; the logits of `problem()` carry the graph to them."""
        raise NotImplementedError(
            f"{self.name} names the parameters {name!r}; define group() to return their tensors"
        )

    def penalty(self, logits: Tensor) -> Tensor:
        """Further terms of the objective, in closed form: [B, N, K] -> [B].

        They are added to E f and to the divergence from a prior.
        """
        return logits.new_zeros(logits.shape[0])

    def expectation(self, logits: Tensor) -> Tensor | None:
        """E f in closed form, differentiable in the logits: [B, N, K] -> [B]; None without one.

        It is used for the true gradient where K^N is too large to enumerate.
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
        """The networks before training; one optimiser updates all of their parameters."""

    @abstractmethod
    def problem_at(self, networks: nn.Module, x: Tensor) -> Problem:
        """The problem for observations x, [B, D], with the graph to the networks' parameters."""

    @abstractmethod
    def data(self, split: str) -> Tensor:
        """All items of the split "train", "valid" or "test", as they are stored: [B, D]."""

    @abstractmethod
    def preprocess(self, items: Tensor, dtype: torch.dtype) -> Tensor:
        """Stored items as inputs of the networks, [B, D]; grey levels become fresh random bits.

        Draw with `gradest.randomness.draws()`: a run does not seed the global generator of torch.
        """

    @abstractmethod
    def decode_images(self, networks: nn.Module, x: Tensor, z: Tensor) -> Tensor:
        """The mean images generated from codes z [B, ..., N, K], in [0, 1]: [B, ..., H, W]."""


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
    outcomes: ClassVar[int | None] = None  # the largest K^N for methods that enumerate all codes
    owns_kl: ClassVar[bool] = False  # where f.kl is "relaxed" the value includes a KL of its own
    objective: ClassVar[Objective | None] = None  # of several samples, if it takes no other
    evaluations: ClassVar[str] = ""  # of f per estimate: a formula in N, K, m and the knobs
    adapt_steps: ClassVar[int] = 0  # default number of calls of adapt
    laws: ClassVar[frozenset[str]] = frozenset()  # those of LAWS and PATHWISE that hold
    # A biased method may still be unbiased for f of at most this degree in each latent (math.inf:
    # every f), possibly only in a limit, to which the knobs in `limit` are close.
    degree: ClassVar[float | None] = None
    limit: ClassVar[Mapping[str, Any]] = {}
    # Biased in length alone: E ĝ is a positive multiple of ∇ E f, for every f and data point.
    aligned: ClassVar[bool] = False
    own_distribution: ClassVar[bool] = False  # a biased method whose samples are not from Cat(α)
    aliases: ClassVar[tuple[str, ...]] = ()  # other names of the method, at its default knobs
    slow: ClassVar[str] = ""  # reason, if it may take more than five times as long as leave-one-out
    # One instance can hold several states: rows then come in `blocks` equal blocks, one after the
    # other, each with a state of its own.
    stackable: ClassVar[bool] = False
    blocks: ClassVar[int] = 1  # set on an instance, before `reset`, where it is stackable

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if vars(cls).get("bounds"):
            message = (
                f"{cls.__name__} claims bounds, which is deprecated; claim objective = 'bound'"
            )
            warnings.warn(message, DeprecationWarning, stacklevel=3)
            cls.objective = "bound"

    @abstractmethod
    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        """An estimate for each row: logits [R, N, K] and f: [R, ..., N, K] -> [R, ...] give [R].

        The value estimates E f(z), the gradient with respect to `logits` is the estimate.  Rows
        are independent; draws are fresh; state is read, never written.
        """

    def __getattr__(self, name: str) -> Any:
        """Called for an attribute that is missing, as the state is before `reset`."""
        cls = type(self)
        if cls.reset is not Estimator.reset and vars(self).keys() <= knob_types(cls).keys():
            raise StateError(
                f"{cls.name} has no state yet, such as {name!r}: call reset(logits) first, or use "
                "gradest.nn.Expectation, which builds and adapts it"
            )
        raise AttributeError(f"{cls.__name__!r} object has no attribute {name!r}")

    def reset(self, logits: Tensor) -> None:
        """Build the state for problems like `logits` [B, N, K]."""

    def adapt(self, logits: Tensor, f: Cost) -> None:
        """Update the state by fresh draws; never called while measuring."""

    def per_row(self, x: Tensor, like: Tensor) -> Tensor:
        """The number that each block has, [blocks], for its rows; it broadcasts with [R, ...]."""
        if self.blocks == 1:
            return x
        rows = x.unsqueeze(1).expand(-1, len(like) // self.blocks).reshape(-1)  # [R]
        return rows.view(-1, *(1,) * (like.ndim - 1))


class SurrogateSample(Estimator):
    """An estimator that is f of a sample whose derivative is a surrogate.

        ĝ = J f'(z),    J = the backward pass of z = draw(logits)

    z is one-hot, or relaxed where `relaxes` is set.  Such a sample serves a model directly, with
    any function of it in the place of f: see `gradest.nn.Sample`.
    """

    unbiased: ClassVar[bool] = False
    differentiates: ClassVar[bool] = True
    evaluations: ClassVar[str] = "1"
    laws: ClassVar[frozenset[str]] = LAWS

    @abstractmethod
    def draw(self, logits: Tensor) -> Tensor:
        """A sample for each row, with the surrogate as its derivative: [R, N, K] -> [R, N, K]."""

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        return f(checked_draw(self, logits))


def checked_draw(estimator: SurrogateSample, logits: Tensor) -> Tensor:
    """`estimator.draw(logits)`; raises ContractError unless it is a tensor like the logits."""
    z = estimator.draw(logits)
    if not isinstance(z, Tensor) or z.shape != logits.shape or z.dtype is not logits.dtype:
        raise ContractError(
            f"{estimator.name}: expected draw(logits) to return {_described(logits)}, like the "
            f"logits, got {_described(z)}"
        )
    return z


class ScoreFunction(Estimator):
    """An estimator that weights the score of each sample.

        ĝ = 1/S Σₛ aₛ ∇ log p(zₛ),    zₛ ~ p,    a = advantages(f(z₁), …, f(z_S))

    S is `samples`: 1, unless a subclass makes it a knob.  The value is the mean of the costs.
    """

    samples: ClassVar[int] = 1
    evaluations: ClassVar[str] = "samples"
    laws: ClassVar[frozenset[str]] = LAWS

    @abstractmethod
    def advantages(self, cost: Tensor) -> Tensor:
        """The weights of the scores, from the costs of a row's samples: [R, S] -> [R, S]."""

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = sample(logits, self.samples)  # [R, S, N, K]
        cost = f(z)  # [R, S]
        advantage = self.advantages(cost)  # [R, S]
        if not isinstance(advantage, Tensor) or advantage.shape != cost.shape:
            raise ContractError(
                f"{self.name}: expected advantages(cost) to return {_described(cost)}, like the "
                f"costs, got {_described(advantage)}"
            )
        score = nabla(log_prob(logits.unsqueeze(1), z))  # [R, S]
        return (cost + advantage * score).mean(1)  # [R]


def _described(x: Any) -> str:
    return f"{x.dtype} {list(x.shape)}" if isinstance(x, Tensor) else f"a {type(x).__name__}"


@dataclass(eq=False)
class Tuned(Estimator):
    """An estimator with parameters that are tuned to minimise its variance.

    E ĝ does not depend on them, so E‖ĝ‖² has the gradient of the variance.  This class owns the
    optimiser; a subclass defines the parameters, and may use another loss, such as a regression,
    by overriding `tuning_loss`.  It is `stackable` if its parameters have a first axis of `blocks`.
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
        # The sum of the losses of the blocks, so that none moves more slowly next to others.
        loss = self.blocks * self.tuning_loss(logits.detach().requires_grad_(), f)
        gradients = torch.autograd.grad(loss, self._parameters, allow_unused=True)
        self._optimiser.param_groups[0]["lr"] = self.learning_rate  # it may be annealed
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        self._optimiser.step()
        self._require_gradients(False)

    def _require_gradients(self, required: bool) -> None:
        """Set only while tuning: otherwise every estimate would build a graph that is not used."""
        for parameter in self._parameters:
            parameter.requires_grad_(required)


def built_in(cls: type) -> bool:
    """Whether a class belongs to the catalogue, and not to a plugin."""
    return cls.__module__.startswith(("gradest.estimators.", "gradest.tasks."))


def inapplicable(estimator: Estimator, task: Task, problem: Problem) -> str | None:
    """The reason why the estimator cannot run on the task, or None when it can."""
    if (estimator.relaxes or estimator.differentiates) and not task.relaxable:
        return f"{estimator.name} needs f', and {task.name} defines f only on the vertices"
    return inapplicable_to(estimator, problem, task.name)


def inapplicable_to(estimator: Estimator, problem: Problem, name: str) -> str | None:
    """The reason why the estimator cannot run on a problem of this name, or None when it can."""
    sizes = layers(problem)
    unsuitable = [k for _, k in sizes if estimator.categories not in (None, k)]
    if unsuitable:
        return f"{estimator.name} needs K = {estimator.categories}, {name} has K = {unsuitable[0]}"
    f = problem.f
    present = "one sample" if f.samples == 1 else _MULTI_SAMPLE[f.objective]
    if estimator.objective and (needed := _MULTI_SAMPLE[estimator.objective]) != present:
        return f"{estimator.name} needs {needed}, {name} has {present}"
    if len(sizes) > 1 and f.samples > 1:
        return f"no estimator takes a bound of several layers of latents, which {name} has"
    if len(sizes) > 1 and estimator.adapt_steps:
        return (
            f"{estimator.name} has a state for one layer of latents, {name} has {len(sizes)} layers"
        )
    if estimator.outcomes is not None and outcomes(problem) > estimator.outcomes:
        product = " · ".join(f"{k}^{n}" for n, k in sizes)
        return (
            f"{estimator.name} enumerates all K^N outcomes: {product} is more than "
            f"{estimator.outcomes:,}"
        )
    if estimator.outcomes is not None and outcomes(problem) * width(problem) > _MOST_NUMBERS:
        return (
            f"{estimator.name} enumerates all K^N outcomes: the {outcomes(problem):,} codes of "
            f"{width(problem):,} numbers each take more than {8 * _MOST_NUMBERS / 2**30:.0f} GiB"
        )
    return None
