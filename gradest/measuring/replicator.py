"""An estimator bound to a problem: asked for R replicates, it gives R gradients.

The replicates are rows of one batch, so they cost one forward and one backward pass.
"""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor

from gradest.contracts import Estimator, Task, inapplicable
from gradest.errors import ContractError, Inapplicable
from gradest.knobs import build
from gradest.measuring.probes import fitted
from gradest.measuring.problems import problem_of
from gradest.measuring.progress import advance, phase
from gradest.measuring.schedule import schedule
from gradest.moments import Moments
from gradest.objectives import beside, owns_kl, posed
from gradest.randomness import Draws

_ADAPT_ROWS = 64  # fresh draws a step of adapt looks at, for each data point
PILOT_ROWS = 7  # unlike the sizes of other axes as a rule, so that an axis of rows is known as one
_ALIKE = 32  # rows that are alike by chance in so few cases that it tells
# What one chunk may save for its backward pass, and what its gradients may take in float64.  On a
# CPU a chunk that stays in the cache beats a larger one; a GPU wants to be filled.
_SAVED_BYTES = {"cpu": 4 * 2**20, "cuda": 512 * 2**20}
_GRADIENT_BYTES = {"cpu": 2**20, "cuda": 512 * 2**20}


class Replicator:
    """Replicates of one estimator on one task, in one dtype and on one device.

    A cost that cannot be evaluated in float64 is in `cost_dtype`, by default the dtype.

    Raises Inapplicable where the estimator does not apply to the task, UsageError for a problem
    that is none.
    """

    def __init__(
        self,
        estimator: Estimator,
        task: Task,
        dtype: torch.dtype = torch.float64,
        device: str | torch.device = "cpu",
        cost_dtype: torch.dtype | None = None,
    ) -> None:
        self.task, self.problem = task, fitted(problem_of(task), cost_dtype or dtype)
        if reason := inapplicable(estimator, task, self.problem):
            raise Inapplicable(reason)
        self.estimator = estimator
        self.logits = self.problem.logits.detach().to(device, dtype)  # [B, N, K]
        self.evaluations = 0  # of f, per estimate
        self.gradient_evaluations = 0
        self._repeated: Tensor | None = None  # the estimate of all rows of a call, where it was one
        # What is in closed form has no noise: it is added to every replicate, and to the truth.
        exact_logits = self.problem.logits.detach().double().requires_grad_()
        self.penalty = beside(task, exact_logits, self.problem.f)  # [B]
        self.penalty_gradient = torch.zeros_like(exact_logits)
        if self.penalty.requires_grad:
            (self.penalty_gradient,) = torch.autograd.grad(self.penalty.sum(), exact_logits)
        self.penalty = self.penalty.detach()
        self._shift = self.penalty_gradient.flatten(1).unsqueeze(1).to(self.logits)  # [B, 1, N·K]
        self._shift_of_value = self.penalty.unsqueeze(1).to(self.logits)  # [B, 1]
        owned = owns_kl(estimator, self.problem.f)
        self._shifted = not owned and bool(self._shift.any() or self.penalty.any())
        self.reset()

    def reset(self) -> None:
        """Build the estimator's state anew."""
        self.estimator.reset(posed(self.estimator, self.logits, self.problem.f)[0])

    def adapt(self, steps: int) -> None:
        """Let the estimator look at fresh draws, `steps` times."""
        for _ in range(steps):
            logits = self._rows(_ADAPT_ROWS)
            f = self.problem.f.replicated(len(self.logits), logits)
            self.estimator.adapt(*posed(self.estimator, logits, f))
            advance()
        self._repeated = None

    def __call__(self, replicates: int) -> tuple[Tensor, Tensor]:
        """Gradients [R, B·N·K] and objective values [R], the mean over the data points.

        Raises ValueError when the estimator breaks its contract.
        """
        gradient, value = self.each(replicates)
        gradient = gradient.transpose(0, 1).flatten(1)
        self._refuse_common_noise(gradient)
        return gradient, value.mean(0)

    def pieces(self, replicates: int, chunk: int) -> Iterator[tuple[Tensor, Tensor, int, bool]]:
        """So many replicates, piece by piece: gradients [R, B·N·K], values [R], into how many
        batches they fall, and whether they are more of the last batch.
        """
        with phase("replicates", replicates):
            for batches, size, joined in schedule(replicates, chunk, self.logits.numel()):
                yield *self(batches * size), batches, joined
                advance(batches * size)

    def moments(self, replicates: int, chunk: int) -> Moments:
        """Of the gradients of so many replicates: [J, B·N·K]."""
        parts: list[Moments] = []
        for gradient, _, batches, joined in self.pieces(replicates, chunk):
            part = Moments.of(gradient.unflatten(0, (batches, -1)))
            parts.append(parts.pop().merge(part) if joined else part)
        return Moments.stacked(parts)

    def each(self, replicates: int) -> tuple[Tensor, Tensor]:
        """Gradients [B, R, N·K] and objective values [B, R], data point by data point.

        Raises ValueError when the estimator breaks its contract.
        """
        points = len(self.logits)
        logits = self._rows(replicates).requires_grad_()  # [B·R, N, K]
        f = self.problem.f.replicated(points, logits)
        objective = self.estimator(*posed(self.estimator, logits, f))
        _examine(self.estimator, objective, logits)
        (gradient,) = torch.autograd.grad(objective.sum(), logits)
        gradient = gradient.flatten(1).unflatten(0, (points, replicates))
        value = objective.detach().unflatten(0, (points, replicates))
        self.evaluations, self.gradient_evaluations = f.evaluations, f.gradient_evaluations
        if self._shifted:
            gradient, value = gradient + self._shift, value + self._shift_of_value
        return gradient, value

    def _refuse_common_noise(self, gradient: Tensor) -> None:
        """Raises ContractError where all rows are alike in each call, and calls are not.

        So it is where the noise of a call is drawn once for all rows, from wherever it comes.  By
        chance it has a probability below 4⁻³²: each call's rows are of one outcome, and these
        differ.
        """
        if len(gradient) < _ALIKE or not torch.equal(gradient[0], gradient[1]):
            return
        first = gradient[:1]
        rounding = 64 * torch.finfo(gradient.dtype).eps * first.abs().max()
        if not (gradient - first).abs().max() <= rounding:
            return
        if self._repeated is not None and (self._repeated - first).abs().max() > 16 * rounding:
            raise ContractError(
                f"{self.estimator.name}: rows share noise (law 'rows'): the estimates of all "
                f"{len(gradient):,} rows of a call are the same, and other ones in another call; "
                "every row is a replicate and draws its own noise"
            )
        self._repeated = first

    def _rows(self, replicates: int) -> Tensor:
        """Rows of a data point side by side, so that [B·R] unflattens to [B, R] as a view."""
        # Copied, not expanded: every operation on a tensor of stride 0 would pay for it.
        return self.logits.unsqueeze(1).repeat(1, replicates, 1, 1).flatten(0, 1)

    def pilot(self, source: Draws) -> int:
        """How many replicates fit the memory budget, learnt from a few."""
        saved, drawn = 0, source.nbytes

        def weigh(tensor: Tensor) -> Tensor:
            nonlocal saved
            saved += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(weigh, lambda tensor: tensor):
            self(PILOT_ROWS)
        # Draws and what f is evaluated at count too: they take memory where no graph saves them.
        saved += source.nbytes - drawn
        saved += self.evaluations * PILOT_ROWS * self.logits.nbytes
        kind = self.logits.device.type
        by_saved = _SAVED_BYTES[kind] * PILOT_ROWS // max(saved, 1)
        by_gradient = _GRADIENT_BYTES[kind] // (8 * self.logits.numel())
        return max(1, min(by_saved, by_gradient))


def another(estimator: Estimator) -> Estimator:
    """A copy; where the state cannot be copied, another one with the same knobs."""
    try:
        return copy.deepcopy(estimator)
    except Exception:  # whatever an attribute raises that was not made to be copied
        return build(type(estimator), estimator.knobs)


def _examine(estimator: Estimator, objective: Tensor, logits: Tensor) -> None:
    if not isinstance(objective, Tensor) or objective.shape != logits.shape[:1]:
        got = f"shape {list(objective.shape)}" if isinstance(objective, Tensor) else repr(objective)
        raise ValueError(
            f"{estimator.name} returned {got}; one value a row, shape "
            f"{list(logits.shape[:1])}, was expected"
        )
    if not objective.requires_grad:
        raise ValueError(f"{estimator.name} returned a value without a gradient to the logits")
