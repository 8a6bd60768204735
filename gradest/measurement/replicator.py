"""An estimator bound to a problem, which computes any number of replicates of the gradient.

The replicates are rows of one batch, so they cost one forward and one backward pass.
"""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor

from gradest.contracts import Estimator, Task, inapplicable
from gradest.errors import ContractError, Inapplicable
from gradest.knobs import build
from gradest.measurement.cost_checks import with_evaluable_cost
from gradest.measurement.objectives import analytic_terms, owns_kl, problem_for
from gradest.measurement.problem_checks import problem_of
from gradest.measurement.progress import advance, phase
from gradest.randomness import Draws
from gradest.statistics import Moments, schedule

_ADAPT_ROWS = 64  # rows with fresh draws in a step of adapt, for each data point
PILOT_ROWS = 7  # rarely the size of another axis, so that an axis of rows can be recognised
_SAME_ROWS = 32  # rows that are equal by chance so rarely that it is evidence
# The memory that one chunk may save for its backward pass, and that its gradients may take in
# float64.  On a CPU a chunk that stays in the cache is faster than a larger one; a GPU is not used
# fully by a small one.
_SAVED_BYTES = {"cpu": 4 * 2**20, "cuda": 512 * 2**20}
_GRADIENT_BYTES = {"cpu": 2**20, "cuda": 512 * 2**20}


class Replicator:
    """Replicates of one estimator on one task, in one dtype and on one device.

    A cost that cannot be evaluated in float64 computes in `cost_dtype`, by default the dtype.

    Raises Inapplicable where the estimator does not apply to the task, UsageError where the task
    does not give a valid problem.
    """

    def __init__(
        self,
        estimator: Estimator,
        task: Task,
        dtype: torch.dtype = torch.float64,
        device: str | torch.device = "cpu",
        cost_dtype: torch.dtype | None = None,
    ) -> None:
        self.task, self.problem = task, with_evaluable_cost(problem_of(task), cost_dtype or dtype)
        if reason := inapplicable(estimator, task, self.problem):
            raise Inapplicable(reason)
        self.estimator = estimator
        self.logits = self.problem.logits.detach().to(device, dtype)  # [B, N, K]
        self.evaluations = 0  # of f, per estimate
        self.gradient_evaluations = 0
        self._repeated: Tensor | None = None  # the estimate of a call whose rows were all equal
        # Terms in closed form have no noise: they are added to every replicate and to the truth.
        exact_logits = self.problem.logits.detach().double().requires_grad_()
        self.penalty = analytic_terms(task, exact_logits, self.problem.f)  # [B]
        self.penalty_gradient = torch.zeros_like(exact_logits)
        if self.penalty.requires_grad:
            (self.penalty_gradient,) = torch.autograd.grad(self.penalty.sum(), exact_logits)
        self.penalty = self.penalty.detach()
        self._shift = self.penalty_gradient.flatten(1).unsqueeze(1).to(self.logits)  # [B, 1, N·K]
        self._shift_of_value = self.penalty.unsqueeze(1).to(self.logits)  # [B, 1]
        own_kl = owns_kl(estimator, self.problem.f)
        self._shifted = not own_kl and bool(self._shift.any() or self.penalty.any())
        self.reset()

    def reset(self) -> None:
        """Build the estimator's state anew."""
        self.estimator.reset(problem_for(self.estimator, self.logits, self.problem.f)[0])

    def adapt(self, steps: int) -> None:
        """Let the estimator adapt on fresh draws, `steps` times."""
        for _ in range(steps):
            logits = self._rows(_ADAPT_ROWS)
            f = self.problem.f.replicated(len(self.logits), logits)
            self.estimator.adapt(*problem_for(self.estimator, logits, f))
            advance()
        self._repeated = None

    def __call__(self, replicates: int) -> tuple[Tensor, Tensor]:
        """Gradients [R, B·N·K] and objective values [R], the mean over the data points.

        Raises ValueError when the estimator breaks its contract.
        """
        gradient, value = self.each(replicates)
        gradient = gradient.transpose(0, 1).flatten(1)
        self._check_common_noise(gradient)
        return gradient, value.mean(0)

    def pieces(self, replicates: int, chunk: int) -> Iterator[tuple[Tensor, Tensor, int, bool]]:
        """Replicates in pieces: gradients [R, B·N·K], values [R], the number of batches they form,
        and whether they continue the last batch.
        """
        with phase("replicates", replicates):
            for batches, size, continued in schedule(replicates, chunk, self.logits.numel()):
                yield *self(batches * size), batches, continued
                advance(batches * size)

    def moments(self, replicates: int, chunk: int) -> Moments:
        """The moments of the gradients of replicates in J batches: [J, B·N·K]."""
        parts: list[Moments] = []
        for gradient, _, batches, continued in self.pieces(replicates, chunk):
            part = Moments.of(gradient.unflatten(0, (batches, -1)))
            parts.append(parts.pop().merge(part) if continued else part)
        return Moments.stacked(parts)

    def each(self, replicates: int) -> tuple[Tensor, Tensor]:
        """Gradients [B, R, N·K] and objective values [B, R], data point by data point.

        Raises ValueError when the estimator breaks its contract.
        """
        points = len(self.logits)
        logits = self._rows(replicates).requires_grad_()  # [B·R, N, K]
        f = self.problem.f.replicated(points, logits)
        objective = self.estimator(*problem_for(self.estimator, logits, f))
        _check_objective(self.estimator, objective, logits)
        (gradient,) = torch.autograd.grad(objective.sum(), logits)
        gradient = gradient.flatten(1).unflatten(0, (points, replicates))
        value = objective.detach().unflatten(0, (points, replicates))
        self.evaluations, self.gradient_evaluations = f.evaluations, f.gradient_evaluations
        if self._shifted:
            gradient, value = gradient + self._shift, value + self._shift_of_value
        return gradient, value

    def _check_common_noise(self, gradient: Tensor) -> None:
        """Raise ContractError where all rows of each call are equal, and the calls are not.

        This happens where the noise of a call is drawn once for all rows, from any source.  By
        chance, with all rows of one call at one outcome and those of the next at another, it has a
        probability below 4⁻³².
        """
        if len(gradient) < _SAME_ROWS or not torch.equal(gradient[0], gradient[1]):
            return
        first = gradient[:1]
        rounding = 64 * torch.finfo(gradient.dtype).eps * first.abs().max()
        if not (gradient - first).abs().max() <= rounding:
            return
        if self._repeated is not None and (self._repeated - first).abs().max() > 16 * rounding:
            raise ContractError(
                f"{self.estimator.name}: rows share noise (check 'rows'): the estimates of all "
                f"{len(gradient):,} rows of a call are equal, and differ from those of another "
                "call; draw noise for every row"
            )
        self._repeated = first

    def _rows(self, replicates: int) -> Tensor:
        """The logits with the rows of a data point side by side: [B·R] is a view of [B, R]."""
        # Copied, not expanded: every operation on a tensor of stride 0 would pay for it.
        return self.logits.unsqueeze(1).repeat(1, replicates, 1, 1).flatten(0, 1)

    def pilot(self, source: Draws) -> int:
        """The number of replicates that fit into the memory budget, measured on a few."""
        saved, before = 0, source.nbytes

        def weigh(tensor: Tensor) -> Tensor:
            nonlocal saved
            saved += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(weigh, lambda tensor: tensor):
            self(PILOT_ROWS)
        # Draws and the arguments of f count too: they take memory although no graph saves them.
        saved += source.nbytes - before
        saved += self.evaluations * PILOT_ROWS * self.logits.nbytes
        kind = self.logits.device.type
        by_saved = _SAVED_BYTES[kind] * PILOT_ROWS // max(saved, 1)
        by_gradient = _GRADIENT_BYTES[kind] // (8 * self.logits.numel())
        return max(1, min(by_saved, by_gradient))


def copy_of(estimator: Estimator) -> Estimator:
    """A copy of the estimator; a new one with the same knobs where its state cannot be copied."""
    try:
        return copy.deepcopy(estimator)
    except Exception:  # an attribute that cannot be copied may raise anything
        return build(type(estimator), estimator.knobs)


def _check_objective(estimator: Estimator, objective: Tensor, logits: Tensor) -> None:
    if not isinstance(objective, Tensor) or objective.shape != logits.shape[:1]:
        got = f"shape {list(objective.shape)}" if isinstance(objective, Tensor) else repr(objective)
        raise ValueError(
            f"{estimator.name}: expected one value a row, shape {list(logits.shape[:1])}, got {got}"
        )
    if not objective.requires_grad:
        raise ValueError(
            f"{estimator.name}: expected a value with a gradient to the logits, got one without a "
            "gradient; keep the logits in its graph"
        )
