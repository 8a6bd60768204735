"""An estimator bound to a problem: asked for R replicates, it gives R gradients.

The replicates are rows of one batch, so they cost one forward and one backward pass.
"""

import torch
from torch import Tensor

from gradest.contracts import Estimator, Task, inapplicable
from gradest.errors import Inapplicable
from gradest.randomness import Draws

_ADAPT_ROWS = 64  # fresh draws a step of adapt looks at, for each data point
_PILOT_ROWS = 4
# What one chunk may save for its backward pass.  On a CPU a chunk that stays in the cache beats a
# larger one; a GPU wants to be filled.
_CHUNK_BYTES = {"cpu": 2 * 2**20, "cuda": 512 * 2**20}


class Replicator:
    """Replicates of one estimator on one task, in one dtype and on one device.

    Raises Inapplicable where the estimator does not apply to the task.
    """

    def __init__(
        self,
        estimator: Estimator,
        task: Task,
        dtype: torch.dtype = torch.float64,
        device: str | torch.device = "cpu",
    ) -> None:
        self.problem = task.problem()
        if reason := inapplicable(estimator, task, self.problem.logits):
            raise Inapplicable(reason)
        self.estimator = estimator
        self.logits = self.problem.logits.detach().to(device, dtype)  # [B, N, K]
        self.evaluations = 0  # of f, per estimate
        # A penalty has no noise: it is added to every replicate, and to the truth.
        exact_logits = self.problem.logits.detach().double().requires_grad_()
        self.penalty = task.penalty(exact_logits)  # [B]
        self.penalty_gradient = torch.zeros_like(exact_logits)
        if self.penalty.requires_grad:
            (self.penalty_gradient,) = torch.autograd.grad(self.penalty.sum(), exact_logits)
        self.penalty = self.penalty.detach()
        self._shift = self.penalty_gradient.flatten().to(self.logits)  # [D]
        self._shifted = bool(self._shift.any())
        estimator.reset(self.logits)

    def adapt(self, steps: int) -> None:
        """Let the estimator look at fresh draws, `steps` times."""
        for _ in range(steps):
            f = self.problem.f.replicated(len(self.logits))
            self.estimator.adapt(self._rows(_ADAPT_ROWS), f)

    def __call__(self, replicates: int) -> tuple[Tensor, Tensor]:
        """Gradients [R, B·N·K] and objective values [R], the mean over the data points.

        Raises ValueError when the estimator breaks its contract.
        """
        points = len(self.logits)
        logits = self._rows(replicates).requires_grad_()  # [B·R, N, K]
        f = self.problem.f.replicated(points)
        objective = self.estimator(logits, f)
        _examine(self.estimator, objective, logits)
        (gradient,) = torch.autograd.grad(objective.sum(), logits)
        gradient = gradient.unflatten(0, (points, replicates)).transpose(0, 1).flatten(1)
        value = objective.detach().unflatten(0, (points, replicates)).mean(0)
        self.evaluations = f.evaluations
        if self._shifted:
            gradient, value = gradient + self._shift, value + self.penalty.mean().to(value)
        return gradient, value

    def _rows(self, replicates: int) -> Tensor:
        """Rows of a data point side by side, so that [B·R] unflattens to [B, R] as a view."""
        rows = self.logits.unsqueeze(1).expand(-1, replicates, -1, -1)
        return rows.reshape(-1, *self.logits.shape[1:])

    def chunk(self) -> int:
        """How many replicates fit the memory budget, judged by what a few of them save."""
        saved = 0

        def weigh(tensor: Tensor) -> Tensor:
            nonlocal saved
            saved += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(weigh, lambda tensor: tensor):
            self(_PILOT_ROWS)
        return max(1, _CHUNK_BYTES[self.logits.device.type] * _PILOT_ROWS // max(saved, 1))

    def deterministic(self, source: Draws) -> bool:
        """Whether the estimator takes no draws: then one replicate says everything.

        Its results are asked too, since a plugin may draw past the vocabulary.
        """
        before = source.count
        gradient, _ = self(_PILOT_ROWS)
        rounding = 64 * torch.finfo(gradient.dtype).eps * gradient.abs().max()
        spread = (gradient - gradient[0]).abs().max()
        return source.count == before and bool(spread <= rounding)


def _examine(estimator: Estimator, objective: Tensor, logits: Tensor) -> None:
    if not isinstance(objective, Tensor) or objective.shape != logits.shape[:1]:
        got = f"shape {list(objective.shape)}" if isinstance(objective, Tensor) else repr(objective)
        raise ValueError(
            f"{estimator.name} returned {got}; one value a row, shape "
            f"{list(logits.shape[:1])}, was expected"
        )
    if not objective.requires_grad:
        raise ValueError(f"{estimator.name} returned a value without a gradient to the logits")
