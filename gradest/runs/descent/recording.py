"""What is recorded at a point of a descent, for every seed, with draws of its own.

The draws of a record depend on the seed and the step, so that records change no step, and a seed
has the same records next to any others.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from gradest.categorical import sample
from gradest.costs import Cost, Problem, outcomes, width
from gradest.errors import UsageError
from gradest.measurement import (
    ExactMoments,
    analytic_terms,
    closed_form,
    enumerable,
    exact_gradient,
    merge_samples,
    visit_outcomes,
)
from gradest.randomness import drawing_from
from gradest.runs.descent.descent import Descent
from gradest.statistics import Interval, Moments, resolution, schedule, total_variance

# Numbers in the codes of all outcomes of a seed, beyond which a closed form replaces their sum.
_FEW = 2**16
# Numbers in the codes of the replicates of a seed that are computed at once.  It must not depend on
# the other seeds, since the order of the draws does.
_CHUNK = 2**16


class Recorder:
    """Measures the metrics of a descent: tensors [3, M] of values and both ends of intervals.

    value                E f and the other terms of the objective, the mean over the data points
    gradient_norm        ‖∇ Σ_b E f_b‖
    probability          of a category of a latent, the mean over the data points
    gradient_variance    tr Cov(ĝ) of one estimate, in the present state of the estimator

    The first two are exact, by enumeration or in closed form; where neither is possible, the value
    is estimated by codes, and the norm is left out.  A variance that is rounding, relative to their
    sizes, is zero.  Raises UsageError for a category that the task does not have.
    """

    def __init__(self, descent: Descent) -> None:
        self._descent = descent
        self._points, *shape = descent.per_seed(descent.logits).shape[1:]
        chosen = descent.settings.probability
        numbers = ("latent", "latents"), ("category", "categories")
        for (key, plural), count in zip(numbers, shape, strict=True):
            if getattr(chosen, key) >= count:
                raise UsageError(
                    f"training.descent.probability.{key} = {getattr(chosen, key)}; expected less "
                    f"than {count}, the number of {plural} of {descent.task.name}"
                )
        alone = descent.task.base.problem()
        many = outcomes(alone) * self._points * width(alone) > _FEW
        closed = closed_form(descent.task, *descent.problem) is not None
        self._enumerates = enumerable(alone) and not (closed and many)
        self._closed = closed and not self._enumerates

    def measure(self) -> dict[str, Tensor]:
        """metric -> [3, M].  All numbers of a seed whose logits are not finite are NaN."""
        descent, metrics = self._descent, {}
        chosen = descent.settings.probability
        with drawing_from(descent.draws("record", descent.step)):
            metrics |= self._objective()
            probability = descent.problem.logits.softmax(-1)[:, chosen.latent, chosen.category]
            metrics["probability"] = _exactly(descent.per_seed(probability).mean(1))
            variance = self._variance()
        norm = metrics["gradient_norm"][0] if "gradient_norm" in metrics else 0.0
        size = metrics["value"][0].abs() + norm
        rounding = (resolution(descent.logits.dtype) * size).square()
        metrics["gradient_variance"] = variance.masked_fill(variance <= rounding, 0.0)
        logits = descent.per_seed(descent.logits.detach()).flatten(1)
        lost = (logits.isnan() | logits.isposinf()).any(1).cpu()
        return {name: x.cpu().masked_fill(lost, torch.nan) for name, x in metrics.items()}

    def _objective(self) -> dict[str, Tensor]:
        """The value, and the norm of the gradient where they are exact."""
        descent, problem = self._descent, self._descent.problem
        logits = problem.logits.requires_grad_()
        terms = analytic_terms(descent.task, logits, problem.f)
        if not (self._closed or self._enumerates):
            value = self._estimated(problem) + self._mean(terms.detach())
            return {"value": value}
        gradient = torch.zeros_like(logits)
        if self._closed:
            terms = terms + closed_form(descent.task, logits, problem.f)
        if terms.requires_grad:
            (gradient,) = torch.autograd.grad(terms.sum(), logits)
        value = terms.detach()
        if self._enumerates:
            exact = exact_gradient(problem)
            value, gradient = value + exact.value, gradient + exact.gradient
        norm = descent.per_seed(gradient).flatten(1).norm(dim=1)
        return {"value": _exactly(self._mean(value)), "gradient_norm": _exactly(norm)}

    def _mean(self, x: Tensor) -> Tensor:
        """Of the data points: [M · B] -> [M]."""
        return self._descent.per_seed(x).mean(1)

    @torch.no_grad()
    def _estimated(self, problem: Problem) -> Tensor:
        """The mean cost of codes, with its interval: [3, M]."""
        logits, f = merge_samples(problem.logits, problem.f)
        pooled = self._moments(f, lambda n: self._mean(f(sample(logits, n))).t()).pooled  # [n, M]
        count = pooled.count
        error = (pooled.m2[0] / (count - 1) / count).sqrt()
        means = zip(pooled.mean[0].tolist(), error.tolist(), strict=True)
        return _stacked([Interval.normal(mean, each) for mean, each in means])

    def _variance(self) -> Tensor:
        """By all outcomes of the draws where they are at most as many as the replicates: [3, M]."""
        descent, replicator = self._descent, self._descent.replicator
        rows = max(1, _CHUNK // self._numbers(1))
        exact = visit_outcomes(replicator, descent.settings.replicates, rows=rows)
        if isinstance(exact, ExactMoments):
            return _exactly(descent.per_seed(exact.variance).flatten(1).sum(1))

        def draw(number: int) -> Tensor:
            gradient, _ = replicator.each(number)  # [M · B, R, N · K]
            return gradient.transpose(0, 1).flatten(1)  # [R, M · B · N · K]

        moments = self._moments(descent.f, draw)
        return _stacked([total_variance(part) for part in self._split(moments)])

    def _moments(self, f: Cost, draw: Callable[[int], Tensor]) -> Moments:
        """Those of the replicates, of which `draw` gives any number, [R, D], some at once."""
        chunk = max(1, _CHUNK // self._numbers(f.samples))
        parts: list[Moments] = []
        for batches, size, continued in schedule(self._descent.settings.replicates, chunk):
            part = Moments.of(draw(batches * size).unflatten(0, (batches, -1)))
            parts.append(parts.pop().merge(part) if continued else part)
        return Moments.stacked(parts)

    def _numbers(self, samples: int) -> int:
        """The numbers in the codes of one replicate of a seed."""
        evaluations = max(self._descent.replicator.evaluations, 1)
        return self._points * self._descent.logits[0].numel() * evaluations * samples

    def _split(self, moments: Moments) -> Iterator[Moments]:
        """The moments of the coordinates of each seed."""
        seeds = len(self._descent.seeds)
        parts = zip(moments.mean.chunk(seeds, 1), moments.m2.chunk(seeds, 1), strict=True)
        for mean, m2 in parts:
            yield Moments(moments.count, mean, m2)


def _exactly(x: Tensor) -> Tensor:
    """Numbers without an error, [M], as intervals: [3, M]."""
    return x.double().expand(3, -1)


def _stacked(intervals: list[Interval]) -> Tensor:
    """[3, M]."""
    return torch.tensor([each.ends for each in intervals], dtype=torch.float64).t()
