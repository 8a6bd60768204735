"""Whether intervals and verdicts keep what they promise: `make coverage`.

Small measurements whose answer is known, some thousands of each, as table rows: how often the 95 %
intervals of the squared bias, of the variance, of the best scale and of the relative bias after
rescaling cover, and how often each verdict is given.  An error is the binomial standard error of
its rate.

    all four are covered in 93 % to 97 %,
    `biased` is said of unbiased estimators in at most 1 %,
    `unbiased` is said in at most 5 % where the relative bias is 2 % or more.

A rate is out of bounds where so many or so few hits had a chance below 10⁻³ (one-sided, exact
binomial) if the rate were on its bound; the row says so, and the exit status is 1.  Intervals of
which most have no length have no rate: they are exact, and have to cover always.

A bias is given in units of the noise √(tr Σ/R) of the mean, and the true gradient is then fifty
times as long: the relative bias is exactly 2 %.  Without bias it is a thousand times the noise.  It
is along the true gradient, a bias of the step size alone.  In the cases called turned it is across,
of another relative size, and the part along the gradient is multiplied by a factor.

Where draws are finite, a batch's moments follow from multinomial counts of their outcomes, so that
any number of replicates costs the same.
"""

import math
import statistics
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from joblib import Parallel, delayed
from scipy import stats
from torch import Tensor

import gradest
from gradest.measurement import enumerated_moments
from gradest.measurement.replicator import Replicator
from gradest.randomness import drawing_from
from gradest.statistics import FEWEST, UNBIASED_WITHIN, Arithmetic, describe
from gradest.statistics.moments import Moments
from gradest.support.markup import table

REPETITIONS = 2000
CHANCE = 1e-3
COVERS = (0.93, 0.97)
BIASED_AT_MOST = 0.01
UNBIASED_AT_MOST = 0.05
_LENGTH = 1000.0  # of the true gradient, in units of the noise, where there is no bias


Draw = Callable[[int, torch.Generator], Tensor]  # (R, generator) -> [R, D]


class Law(NamedTuple):
    """What one estimate is drawn from: centred at zero."""

    sample: Callable[[int, torch.Generator], tuple[Moments, float]]  # moments and peak of R of them
    covariance: Tensor  # [D], its diagonal
    direction: Tensor  # [D], of the bias and of the true gradient, of length one


class Case(NamedTuple):
    name: str
    law: Callable[..., Law]
    arguments: tuple
    replicates: int
    bias: float = 0.0  # in units of the noise
    repetitions: int = REPETITIONS
    turned: tuple[float, float] | None = None  # the relative size of a bias across g, and a factor


class Coverage(NamedTuple):
    """How often an interval covers."""

    hits: int
    exact: bool  # most intervals have no length


class Counts(NamedTuple):
    """Of hits among the repetitions."""

    repetitions: int
    covered: dict[str, Coverage]  # by the columns of QUANTITIES
    biased: int
    unbiased: int
    relative_bias: float  # the true one


# Columns with intervals, and their names in the table.
QUANTITIES = {
    "bias_sq": "bias²",
    "variance": "variance",
    "best_scale": "scale",
    "relative_bias_rescaled": "rescaled",
}


def batches(replicates: int) -> int:
    """As many as a measurement makes."""
    return max(4, min(64, replicates // 8))


def sampled(draw: Draw, covariance: Tensor, direction: Tensor) -> Law:
    """Replicate by replicate."""

    def sample(replicates: int, generator: torch.Generator) -> tuple[Moments, float]:
        x = draw(replicates, generator)
        return Moments.of(x.unflatten(0, (batches(replicates), -1))), float(x.abs().max())

    return Law(sample, covariance, direction / direction.norm())


def finite(x: Tensor, p: Tensor, direction: Tensor) -> Law:
    """Outcomes x [M, D] with probabilities p [M]: batches are multinomial counts of them."""
    x = x - p @ x

    def sample(replicates: int, generator: torch.Generator) -> tuple[Moments, float]:
        number = batches(replicates)
        counts = multinomial(replicates // number, p, number, generator)  # [J, M]
        count = counts.sum(1)
        mean = counts @ x / count.unsqueeze(1)
        m2 = (counts @ x.square() - count.unsqueeze(1) * mean.square()).clamp(min=0)
        return Moments(count, mean, m2), float(x[counts.sum(0) > 0].abs().max())

    return Law(sample, p @ x.square(), direction / direction.norm())


def multinomial(count: int, p: Tensor, rows: int, generator: torch.Generator) -> Tensor:
    """[rows, M], one binomial of what is left after another."""
    left, rest, counts = torch.full((rows,), float(count)).double(), 1.0, []
    for share in p.tolist()[:-1]:
        chance = min(max(share / rest, 0.0), 1.0) if rest > 0 else 0.0
        counts.append(torch.binomial(left, torch.full_like(left, chance), generator=generator))
        left, rest = left - counts[-1], rest - share
    return torch.stack([*counts, left], 1)


# Laws.  Directions are across all coordinates unless they say otherwise.


def ones(coordinates: int) -> Tensor:
    return torch.ones(coordinates, dtype=torch.float64)


def first(coordinates: int) -> Tensor:
    return torch.eye(coordinates, dtype=torch.float64)[0]


def normal(coordinates: int, direction: Callable[[int], Tensor] = ones) -> Law:
    def draw(replicates: int, generator: torch.Generator) -> Tensor:
        return torch.randn(replicates, coordinates, generator=generator, dtype=torch.float64)

    return sampled(draw, ones(coordinates), direction(coordinates))


def autoregressive(coordinates: int, rho: float) -> Law:
    """AR(1) across the coordinates, with standard deviations from 0.1 to 10."""
    lag = torch.arange(coordinates, dtype=torch.float64)
    correlation = rho ** (lag - lag.unsqueeze(1)).abs()
    scale = torch.logspace(-1, 1, coordinates, dtype=torch.float64)
    mixing = scale.unsqueeze(1) * torch.linalg.cholesky(correlation)

    def draw(replicates: int, generator: torch.Generator) -> Tensor:
        x = torch.randn(replicates, coordinates, generator=generator, dtype=torch.float64)
        return x @ mixing.T

    return sampled(draw, scale.square(), ones(coordinates))


def perfectly_correlated(coordinates: int) -> Law:
    """One normal number, up in one half of the coordinates and down in the other."""
    sign = (-1.0) ** torch.arange(coordinates, dtype=torch.float64)

    def draw(replicates: int, generator: torch.Generator) -> Tensor:
        return torch.randn(replicates, 1, generator=generator, dtype=torch.float64) * sign

    return sampled(draw, ones(coordinates), sign)


def exponential(coordinates: int, sign: float = 1.0) -> Law:
    """Skewness 2, kurtosis 9."""

    def draw(replicates: int, generator: torch.Generator) -> Tensor:
        x = torch.empty(replicates, coordinates, dtype=torch.float64)
        return x.exponential_(generator=generator) - 1

    return sampled(draw, ones(coordinates), sign * ones(coordinates))


def lognormal(coordinates: int, sigma: float) -> Law:
    """Skewness 1.75 and kurtosis 8.9 for σ = 0.5; 6.2 and 114 for σ = 1."""
    mean = math.exp(sigma**2 / 2)

    def draw(replicates: int, generator: torch.Generator) -> Tensor:
        x = torch.randn(replicates, coordinates, generator=generator, dtype=torch.float64)
        return (sigma * x).exp() - mean

    variance = mean**2 * math.expm1(sigma**2)
    return sampled(draw, variance * ones(coordinates), ones(coordinates))


def coin(theta: float) -> Law:
    """A bit that is on with probability θ, and its complement, as in a softmax."""
    x = torch.tensor([[1.0, -1.0], [0.0, 0.0]], dtype=torch.float64)
    return finite(x, torch.tensor([theta, 1 - theta], dtype=torch.float64), x[0])


def constant(coordinates: int) -> Law:
    """An estimator without variance."""
    return sampled(
        lambda replicates, _: torch.zeros(replicates, coordinates, dtype=torch.float64),
        torch.zeros(coordinates, dtype=torch.float64),
        ones(coordinates),
    )


def outcomes_of(estimator: str, task: str, **knobs: float) -> tuple[Tensor, Tensor]:
    """Every gradient [M, D] that an estimator can give, and its probability [M]."""
    replicator = Replicator(gradest.make_estimator(estimator, **knobs), gradest.make_task(task))
    recorded = enumerated_moments._RecordedDraws(1, enumerated_moments.LIMIT, "cpu")
    with drawing_from(recorded):
        replicator.each(1)
    source = enumerated_moments._PrescribedDraws(torch.arange(recorded.outcomes), recorded.radices)
    with drawing_from(source):
        gradient, _ = replicator.each(recorded.outcomes)
    return gradient[0].double(), torch.as_tensor(source.log_p).exp()


def drawn(estimator: str, task: str, baseline: float | None = None) -> Law:
    """The law of an estimator on a task, whose bias, if any, is replaced."""
    knobs = {} if baseline is None else {"baseline": baseline}
    x, p = outcomes_of(estimator, task, **knobs)
    return finite(x, p, p @ x)


# Running.


def simulated(case: Case) -> Counts:
    """Repetitions of one case, on synthetic moments."""
    law = case.law(*case.arguments)
    variance = float(law.covariance.sum())
    noise = (variance / case.replicates) ** 0.5 or 1.0
    relative, factor = case.turned or (UNBIASED_WITHIN, 1.0)
    size = case.bias * noise
    length = size / relative if size and relative else _LENGTH * noise
    exact = length * law.direction
    if case.turned is None:
        bias = size * law.direction
    else:
        bias = (factor - 1) * exact + size * across(law)
    generator = torch.Generator().manual_seed(0)
    rows = []
    for _ in range(case.repetitions):
        moments, peak = law.sample(case.replicates, generator)
        shifted = Moments(moments.count, moments.mean + exact + bias, moments.m2)
        rows.append(describe(shifted, exact, torch.ones_like(exact), peak, Arithmetic(1e-12)))
    return counted(rows, exact + bias, exact, variance)


def across(law: Law) -> Tensor:
    """A unit vector perpendicular to the law's direction, one that its noise is likely to have."""
    moments, _ = law.sample(FEWEST, torch.Generator().manual_seed(1))
    other = moments.pooled.mean[0]
    other = other - (other @ law.direction) * law.direction
    return other / other.norm()


class Pipeline(NamedTuple):
    """A whole measurement of an estimator on a task."""

    estimator: str
    task: str
    knobs: dict[str, float]
    replicates: int
    repetitions: int = REPETITIONS

    @property
    def name(self) -> str:
        knobs = "".join(f", {name} {value:g}" for name, value in self.knobs.items())
        return f"measure: {self.estimator}{knobs} on {self.task}"


def measured(case: Pipeline) -> Counts:
    """Repetitions of one case, from `measure` to the row."""
    estimator = gradest.make_estimator(case.estimator, **case.knobs)
    task = gradest.make_task(case.task)
    x, p = outcomes_of(case.estimator, case.task, **case.knobs)
    truth = gradest.measure(gradest.make_estimator("exact"), task).exact.flatten()
    mean = p @ x
    rows = [
        gradest.measure(
            estimator, task, replicates=case.replicates, seed=seed, enumerate_draws=False
        ).row()
        for seed in range(case.repetitions)
    ]
    variance = float((p @ (x - mean).square()).sum())
    return counted(rows, mean, truth, variance)


def counted(rows: Sequence[dict[str, Any]], mean: Tensor, exact: Tensor, variance: float) -> Counts:
    """The counts for an estimator with this mean [D] and variance, at the true gradient [D]."""
    norm, size = float(exact.norm()), float((mean - exact).norm())
    size = 0.0 if size < 1e-12 * norm else size
    scale = float(mean @ exact) / norm**2
    rest = float((mean - scale * exact).norm())
    residual = 0.0 if rest < 1e-12 * norm else rest / float(mean.norm())
    truths = (size**2, variance, scale, residual)

    def covered(name: str, truth: float) -> Coverage:
        low, high = ([r[f"{name}_{end}"] for r in rows] for end in ("low", "high"))
        # Rounding, for intervals without length: estimates along one line have a residual without
        # noise, whose ends are roots of sums that cancel, known to √(1e-16) and not to 1e-16.
        room = 1e-7 * abs(truth) + 1e-20
        ends = list(zip(low, high, strict=True))
        hits = sum(a - room <= truth <= b + room for a, b in ends)
        # A direction without noise is still unknown where the sign of the mean is: of few rows the
        # residual is then said to be anything from 0 to 1.
        return Coverage(hits, statistics.median(b - a for a, b in ends) <= room)

    return Counts(
        len(rows),
        {name: covered(name, truth) for name, truth in zip(QUANTITIES, truths, strict=True)},
        sum(r["verdict"] == "biased" for r in rows),
        sum(r["verdict"] == "unbiased" for r in rows),
        size / norm,
    )


def run(case: Case | Pipeline) -> tuple[Counts, list[str]]:
    torch.set_num_threads(1)
    found = measured(case) if isinstance(case, Pipeline) else simulated(case)
    return found, broken(found)


def broken(found: Counts) -> list[str]:
    """Which bounds do not hold."""
    n, said = found.repetitions, []
    for column, (hits, exact) in found.covered.items():
        name = QUANTITIES[column]
        if exact:
            said += [f"{name} not covered"] * (hits < n)
        elif stats.binom.cdf(hits, n, COVERS[0]) < CHANCE:
            said.append(f"{name} too rarely")
        elif stats.binom.sf(hits - 1, n, COVERS[1]) < CHANCE:
            said.append(f"{name} too often")
    unbiased = found.relative_bias == 0
    if unbiased and stats.binom.sf(found.biased - 1, n, BIASED_AT_MOST) < CHANCE:
        said.append("called biased")
    large = found.relative_bias >= UNBIASED_WITHIN * (1 - 1e-9)
    if large and stats.binom.sf(found.unbiased - 1, n, UNBIASED_AT_MOST) < CHANCE:
        said.append("called unbiased")
    return said


FEW = [
    Case(name, law, arguments, replicates, bias)
    for name, law, arguments in (
        ("normal, one coordinate", normal, (1,)),
        ("normal, fifty", normal, (50,)),
        ("exponential, one coordinate", exponential, (1,)),
        ("exponential, five", exponential, (5,)),
    )
    for replicates in (64, 128)
    for bias in (0.0, 10.0)
]
SIZES = [
    Case(f"normal, {where} of {d}", normal, (d, direction), 512, bias)
    for d, where, direction in (
        (1, "all", ones),
        (2, "one", first),
        (3, "all", ones),
        (128, "one", first),
        (1000, "all", ones),
    )
    for bias in (0.0, 0.1, 1.0, 3.0, 10.0, 100.0)
    if d < 100 or bias in (0.0, 1.0, 10.0)
]
CORRELATED = [
    Case(name, law, arguments, 512, bias)
    for name, law, arguments in (
        ("AR(1) 0.9", autoregressive, (30, 0.9)),
        ("perfectly correlated", perfectly_correlated, (8,)),
        ("reinforce on quadratic, rows sum to 0", drawn, ("reinforce", "quadratic")),
    )
    for bias in (0.0, 0.1, 1.0, 10.0)
]
SKEWED = [
    Case(name, law, arguments, replicates, bias)
    for name, law, arguments, replicates in (
        ("exponential, bias down", exponential, (1, -1.0), 512),
        ("lognormal σ = ½", lognormal, (3, 0.5), 1024),
        ("lognormal σ = 1", lognormal, (2, 1.0), 32768),
        ("θ = 0.001, 20 events", coin, (0.001,), 20_480),
        ("θ = 0.001, 100 events", coin, (0.001,), 102_400),
    )
    for bias in (0.0, 1.0, 10.0)
]
DRAWN = [
    Case(f"{estimator} on {task}{more}", drawn, (estimator, task, baseline), r, bias)
    for estimator, task, baseline, more, r in (
        ("reinforce", "bernoulli", -10.0, " + 10", 10_240),
        ("reinforce", "categorical", -10.0, " + 10", 512),
        ("rloo", "bernoulli", None, "", 10_240),
        ("rloo", "categorical", None, "", 512),
        ("straight_through", "categorical", None, "", 10_240),
    )
    for bias in (0.0, 1.0, 10.0)
]
TURNED = [
    Case(f"turned: {name}, × {factor:g}", law, arguments, r, bias, turned=(relative, factor))
    for name, law, arguments, r in (
        ("normal, three", normal, (3,), 512),
        ("normal, fifty", normal, (50,), 64),
        ("AR(1) 0.9", autoregressive, (30, 0.9), 512),
        ("lognormal σ = ½", lognormal, (3, 0.5), 1024),
        ("rloo on categorical", drawn, ("rloo", "categorical"), 512),
        ("reinforce on quadratic, rows sum to 0", drawn, ("reinforce", "quadratic"), 512),
    )
    # From a gradient twenty times as long as the noise to one of three times its length.
    for bias, relative, factor in (
        (1.0, 0.05, 1.0),
        (10.0, 0.3, 0.5),
        (10.0, 1.0, -0.2),
        (1.0, 0.3, 1.0),
    )
]
EXACT = [Case("no variance", constant, (3,), 64, bias, 100) for bias in (0.0, 1.0)]
MEASURED = [
    Pipeline("rloo", "bernoulli", {}, 512),
    Pipeline("straight_through", "categorical", {}, 256),
    Pipeline("reinforce", "categorical", {"baseline": -10.0}, 256),
]
CASES = [*FEW, *SIZES, *CORRELATED, *SKEWED, *DRAWN, *TURNED, *EXACT, *MEASURED]


def main(words: Sequence[str] = ()) -> int:
    """Prints the table, of the cases whose names hold one of these words or of all."""
    cases = [case for case in CASES if not words or any(word in case.name for word in words)]
    results = Parallel(n_jobs=2, return_as="generator")(delayed(run)(case) for case in cases)
    found, rows = [], []
    for case, (counts, said) in zip(cases, results, strict=True):
        found.append(said)
        rows.append([case.name, f"{case.replicates}", *_cells(case, counts), ", ".join(said)])
        # The table comes after minutes, when the widths of its columns are known.
        print(f"[{len(rows)}/{len(cases)}] {case.name}: {', '.join(said) or 'ok'}", file=sys.stderr)
    headers = ["case", "R", "bias/noise", "relative"]
    headers += [f"{name} covered" for name in QUANTITIES.values()]
    headers += ["biased", "unbiased", "inconclusive", "out of bounds"]
    print(table(headers, rows, left=1))
    out = sum(map(bool, found))
    print(f"{out} of {len(cases)} cases out of bounds" if out else "every bound holds")
    return 1 if out else 0


def _cells(case: Case | Pipeline, found: Counts) -> list[str]:
    def rate(hits: int) -> str:
        p = hits / found.repetitions
        error = (p * (1 - p) / found.repetitions) ** 0.5
        return f"{p:.1%} ± {error:.1%}"

    def coverage(covered: Coverage) -> str:
        exact = covered.exact and covered.hits == found.repetitions
        return "exact" if exact else rate(covered.hits)

    bias = f"{case.bias:g}" if isinstance(case, Case) else ""
    undecided = found.repetitions - found.biased - found.unbiased
    return [
        bias,
        f"{found.relative_bias:.1%}",
        *map(coverage, found.covered.values()),
        rate(found.biased),
        rate(found.unbiased),
        rate(undecided),
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
