"""Storchastic: its methods on a batch of rows, which it calls a plate.

van Krieken, Tomczak & ten Teije, "Storchastic: a framework for general stochastic automatic
differentiation", 2021, arXiv 2104.00428.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.distributions import Bernoulli, Distribution, OneHotCategorical

from gradest import Cost, Estimator
from gradest.foreign import per_row, redirected
from gradest.knobs import AtLeast1, AtLeast2

from ._gradient import bits, from_loss, one_hot_bits
from ._patches import Patches

patches = Patches()
with patches.recorded():
    import storch
    from storch import method as methods


def estimate(method: Any, logits: Tensor, f: Cost, first: bool = False) -> Tensor:
    """Estimates whose gradient is that of the surrogate loss of `storch.backward`.

    The value is the mean cost of the samples, or that of the `first`, if they are not exchangeable.
    """
    with patches.applied():
        storch.reset()
        binary = isinstance(method, methods.ARM | methods.DisARM)
        rows = bits(logits) if binary else logits
        # A plate of one row is none for the library.
        rows = rows[0] if len(rows) == 1 else storch.denote_independent(rows, 0, "rows")
        distribution = Bernoulli(logits=rows) if binary else OneHotCategorical(logits=rows)
        # Samples without replacement have the rows first, all others the samples.
        ordered = isinstance(method, methods.ScoreFunctionWOR | methods.UnorderedSetEstimator)
        z, codes = _sample(method, distribution, logits, 0 if ordered else 1)
        value = f(codes)  # [R] or [R, S]
        plates = [plate.name for plate in z.plates if plate.n > 1]
        cost = value.movedim(0, -1) if plates and plates[0] != "rows" else value
        cost = cost if "rows" in plates else cost.reshape(cost.shape[: len(plates)] or ())
        storch.add_cost(storch.Tensor(cost.detach(), [z], z.plates, "cost"), "f")
        loss = storch.inference.surrogate_loss()
        loss = loss._tensor if isinstance(loss, storch.Tensor) else loss
        if value.ndim > 1:
            value = value[:, 0] if first else value.mean(1)
        result = from_loss(value, loss * len(logits), logits)
        storch.reset()
        return result


def _sample(
    method: Any, distribution: Distribution, logits: Tensor, axis: int
) -> tuple[Any, Tensor]:
    """The sample of the library, and its codes [R, N, K] or [R, S, N, K]."""
    with redirected(logits, axis=axis):
        z = method(distribution)
    codes = z._tensor.detach().to(logits)
    if isinstance(distribution, Bernoulli):
        codes = one_hot_bits(codes)
    if len(logits) == 1:
        codes = codes.unsqueeze(0)
    elif codes.ndim > logits.ndim and z.plates[0].name != "rows":
        codes = codes.movedim(0, 1)
    return z, codes


@dataclass(eq=False)
class ScoreFunction(Estimator):
    samples: AtLeast1 = 1

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        return estimate(methods.ScoreFunction("z", n_samples=self.samples), logits, f)


@dataclass(eq=False)
class BatchAverage(Estimator):
    samples: AtLeast2 = 2

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        method = methods.ScoreFunction(
            "z", storch.sampling.MonteCarlo("z", self.samples), baseline_factory="batch_average"
        )
        return estimate(method, logits, f)


@dataclass(eq=False)
class MovingAverage(Estimator):
    """The baseline contains the cost of its own sample, so that it is biased by (1 − decay)/n."""

    unbiased = False
    samples: AtLeast1 = 1

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        return per_row(self._one)(logits, f)  # the average is over all rows of a plate

    def _one(self, logits: Tensor, f: Cost) -> Tensor:
        method = methods.ScoreFunction(
            "z", n_samples=self.samples, baseline_factory="moving_average"
        )
        return estimate(method, logits, f)


class DisARM(Estimator):
    categories = 2

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        return estimate(methods.DisARM("z"), logits, f)


class ARM(Estimator):
    categories = 2

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        return estimate(methods.ARM("z"), logits, f)


@dataclass(eq=False)
class WithoutReplacement(Estimator):
    """The unbiased form, equation 10 of its source."""

    samples: AtLeast2 = 3

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        method = methods.ScoreFunctionWOR("z", self.samples, biased=False)
        return estimate(method, logits, f, first=True)


@dataclass(eq=False)
class WithoutReplacementByDefault(Estimator):
    """The normalised form with two samples, of which one only sets the threshold."""

    unbiased = False
    samples: AtLeast2 = 2

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        return estimate(methods.ScoreFunctionWOR("z", self.samples), logits, f, first=True)


@dataclass(eq=False)
class UnorderedSet(Estimator):
    samples: AtLeast2 = 3
    points: AtLeast2 = 100  # of the numerical integration; 1000 by default there

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        method = methods.UnorderedSetEstimator("z", self.samples, num_int_points=self.points)
        return estimate(method, logits, f, first=True)
