"""Several comparisons as one result: a table, and the sentence that a paper would state.

The variances at equal work, v_a c_a / (v_b c_b) with c evaluations of f, are tested as one family:
every p-value is adjusted for all of them (Holm).  The ratio of an estimator to one competitor over
several problems is the geometric mean of the ratios, whose logarithms have independent errors.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch

from gradest.contracts import Estimator, Task
from gradest.errors import UsageError
from gradest.measurement.comparison import Comparison, compare_pair
from gradest.statistics import CONFIDENCE, Interval, holm, t_isf, t_sf
from gradest.support import counted, interval, markup, number, tex

LEVEL = 1 - CONFIDENCE

_LEAST = 1e-10  # the smallest p-value that is written

_HEADERS = ("task", "a", "b", "variance a/b at equal work", "p (Holm)", "difference of bias")


@dataclass(frozen=True)
class Comparisons:
    """An estimator against one competitor or several, on one task or several.

    A notebook shows the sentence above the table; `sentence`,
    `to_markdown` and `to_latex` return them as text.
    """

    comparisons: tuple[Comparison, ...]

    @cached_property
    def p_values(self) -> tuple[float, ...]:
        """Of the variances at equal work, adjusted for all of them; NaN where both are exact."""
        return tuple(holm(np.array([_p_value(one) for one in self.comparisons])).tolist())

    def frame(self) -> pd.DataFrame:
        """A row for each comparison, the columns of `Comparison.row` and `p_holm`."""
        rows = [one.row() for one in self.comparisons]
        return pd.DataFrame(rows).assign(p_holm=self.p_values)

    def sentence(self, latex: bool = False) -> str:
        """What the comparisons show, with intervals: a sentence for each competitor."""
        text = " ".join(self._sentences())
        return tex.escape(text) if latex else text

    def to_markdown(self) -> str:
        """The sentence and the table, in Markdown."""
        table = markup.table(_HEADERS, [list(map(str, row)) for row in self._rows()], left=3)
        return f"{markup.escape(self.sentence())}\n\n{table}\n"

    def to_latex(self) -> str:
        """The sentence and a tabular of the table, which compiles without packages."""
        lines = [" & ".join(map(tex.escape, row)) + r" \\" for row in (_HEADERS, *self._rows())]
        body = "\n".join([lines[0], r"\hline", *lines[1:]])
        tabular = "\\begin{tabular}{lllrrr}\n" + body + "\n\\end{tabular}"
        return f"{self.sentence(latex=True)}\n\n{tabular}\n"

    def __str__(self) -> str:
        return self.sentence()

    def _repr_html_(self) -> str:
        """The table, with the sentence as its caption, for notebooks."""
        return markup.html_table(_HEADERS, list(self._rows()), 3, self.sentence())

    def _rows(self) -> Iterator[list[str]]:
        for one, p in zip(self.comparisons, self.p_values, strict=True):
            yield [
                *(one.task, one.a, one.b),
                interval(*one.work_ratio.ends),
                "exact" if math.isnan(p) else number(p) if p > _LEAST else _bound(p),
                one.bias_text,
            ]

    def _sentences(self) -> Iterator[str]:
        for b in dict.fromkeys(one.b for one in self.comparisons):
            pairs = zip(self.comparisons, self.p_values, strict=True)
            yield _sentence([(one, p) for one, p in pairs if one.b == b])


def compare(
    a: Estimator,
    b: Estimator | Sequence[Estimator],
    task: Task | Sequence[Task],
    *,
    replicates: int = 10_000,
    enumerate_draws: bool | None = None,
    seed: int = 0,
    adapt_steps: int | None = None,
    dtype: torch.dtype = torch.float64,
    device: str | torch.device = "cpu",
    progress: bool | None = None,
) -> Comparison | Comparisons:
    """Compare the variances and the means of two estimators on a task, on the same draws.

    With a list of competitors or of tasks, of `a` with each of them on each; the result is then a
    `Comparisons`, whose tests are adjusted for all of them.  The other arguments are those of
    `gradest.measure`.  The moments of an estimator whose draws can be enumerated are exact, and
    only the other one is drawn; `enumerate_draws` False pairs them.

    Raises Inapplicable when one cannot run on a task, UsageError for an empty list, fewer than 64
    replicates or `enumerate_draws` True with draws that cannot be enumerated, NonFiniteGradient
    when an estimate is NaN or infinite.
    """
    several = isinstance(b, list | tuple) or isinstance(task, list | tuple)
    others, tasks = _listed("b", b, "estimator"), _listed("task", task, "task")
    each = tuple(
        compare_pair(
            a,
            other,
            problem,
            replicates=replicates,
            enumerate_draws=enumerate_draws,
            seed=seed,
            adapt_steps=adapt_steps,
            dtype=dtype,
            device=device,
            progress=progress,
        )
        for problem in tasks
        for other in others
    )
    return Comparisons(each) if several else each[0]


def _listed(name: str, value: Any, kind: str) -> Sequence[Any]:
    if isinstance(value, list | tuple) and not value:
        raise UsageError(f"{name} = {value!r}; expected at least one {kind}")
    return value if isinstance(value, list | tuple) else [value]


def _sentence(pairs: Sequence[tuple[Comparison, float]]) -> str:
    """About one competitor: how much less variance, on how many problems, how certainly."""
    first, problems = pairs[0][0], len(pairs)
    # A ratio of zero, or to a variance of zero, has no logarithm.
    positive = [one for one, _ in pairs if 0 < one.work_ratio.estimate < math.inf]
    averaged = positive or [first]
    ratio = geometric_mean([one.work_ratio for one in averaged], [one.batches for one in averaged])
    same = len({(one.evaluations_a, one.evaluations_b) for one, _ in pairs}) == 1
    equal = same and first.evaluations_a == first.evaluations_b
    work = "at equal evaluations of f" if equal else "at equal work (variance × evaluations of f)"
    mean = f", in the geometric mean over {len(averaged)} problems" if len(averaged) > 1 else ""
    if 1 < len(averaged) < problems:
        mean += " on which neither variance is zero"
    counts = _counts(pairs)
    return (
        f"{first.a} has a variance {interval(*ratio.ends)} times that of {first.b} {work}{mean}"
        f"{f' on {first.task}' if problems == 1 else ''}; it is {'; '.join(counts)}."
    )


def _counts(pairs: Sequence[tuple[Comparison, float]]) -> list[str]:
    """`lower on 4 of 5 problems (each with a Holm-corrected p < 0.001)`, and the others."""
    sides: dict[str, list[float]] = {}
    for one, p in pairs:
        ratio = one.work_ratio.estimate
        different = not math.isclose(ratio, 1.0, rel_tol=1e-9) if math.isnan(p) else p < LEVEL
        word = ("lower" if ratio < 1 else "higher") if different else "not significantly different"
        sides.setdefault(word, []).append(p)
    return [
        f"{word} on {len(p)} of {counted(len(pairs), 'problem')}"
        f"{'' if word.startswith('not') else _certainty(p)}"
        for word, p in sides.items()
    ]


def _certainty(p: Sequence[float]) -> str:
    drawn = [each for each in p if not math.isnan(each)]
    if not drawn:
        return " (exact, by enumeration)"
    return f" (Holm-corrected p {_bound(max(drawn))})"


def _bound(p: float) -> str:
    """`< 0.003`: the p-value, rounded up to one digit."""
    if p <= _LEAST:
        return f"< {_LEAST:g}"
    exponent = math.floor(math.log10(p))
    digit = math.ceil(p / 10.0**exponent * (1 - 1e-12))
    return f"< {float(f'{digit}e{exponent}'):g}"


def geometric_mean(ratios: Sequence[Interval], batches: Sequence[int]) -> Interval:
    """The geometric mean of independent ratios, whose standard errors are those of logarithms."""
    if len(ratios) == 1:
        return ratios[0]
    mean = math.exp(sum(math.log(ratio.estimate) for ratio in ratios) / len(ratios))
    errors = [ratio.standard_error for ratio in ratios]
    error = math.hypot(*errors) / len(ratios)
    if error == 0:
        return Interval.exactly(mean)
    freedom = min(n - 1 for n, e in zip(batches, errors, strict=True) if e > 0)
    factor = math.exp(float(t_isf(LEVEL / 2, freedom)) * error)
    return Interval(mean, mean / factor, mean * factor, error)


def _p_value(one: Comparison) -> float:
    """Of the test that the variances at equal work are the same; NaN where both are exact."""
    ratio = one.work_ratio
    if ratio.low == ratio.high:
        return math.nan
    steps = abs(math.log(ratio.estimate)) / ratio.standard_error
    return float(2 * t_sf(steps, one.batches - 1))
