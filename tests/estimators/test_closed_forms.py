"""Enumerated rows against closed forms of mean and variance, to ten digits.

    python -m tests.test_closed_forms

shows them side by side.
"""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

import gradest
from tests.support import EXACT

TARGETS = (0.45, 1.2)
BITS = (0.3, 0.8, 0.1)


class Case(NamedTuple):
    """An estimator with its knobs on a task, and what its mean and variance are: [B·N·K] each."""

    name: str
    knobs: dict
    task: str
    task_knobs: dict
    mean: Tensor
    variance: Tensor

    def __str__(self) -> str:
        knobs = ", ".join(f"{k}={v}" for k, v in self.knobs.items())
        where = ", ".join(f"{k}={v}" for k, v in self.task_knobs.items())
        return f"{self.name}({knobs}) on {self.task}({where})"


class OneLatent:
    """Moments of estimates e_j [K, K], a row for each outcome j of one categorical latent."""

    def __init__(self, pi: Tensor, f: Tensor) -> None:
        self.pi, self.f = pi, f
        self.score = torch.eye(len(pi)).double() - pi  # ∇ log p of each outcome: [K, K]
        self.g = (pi * f) @ self.score

    def moments(self, estimates: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.pi @ estimates
        return mean, self.pi @ (estimates - mean).square()

    def reinforce(self, baseline: float | Tensor) -> tuple[Tensor, Tensor]:
        return self.moments((self.f - baseline).unsqueeze(1) * self.score)

    def rloo(self, samples: int) -> tuple[Tensor, Tensor]:
        """A U-statistic of the kernel ½ (f_i − f_j)(z_i − z_j).

        Hoeffding, "A class of statistics with asymptotically normal distribution", 1948.
        """
        f, k = self.f, len(self.pi)
        codes = torch.eye(k).double()
        kernel = 0.5 * (f[:, None] - f)[..., None] * (codes[:, None] - codes)  # [K, K, K]
        both = torch.einsum("i,j,ijk->k", self.pi, self.pi, kernel.square()) - self.g.square()
        _, one = self.moments(torch.einsum("j,ijk->ik", self.pi, kernel))
        return self.g, 2 / (samples * (samples - 1)) * (2 * (samples - 2) * one + both)

    def unordered_set(self) -> tuple[Tensor, Tensor]:
        """Of two: Σ_{j≠k} π_k π_j (f_k − f_j)² / (1/(1 − π_k) + 1/(1 − π_j)) − g_k²."""
        pi, f = self.pi, self.f
        rest = 1 / (1 - pi)
        terms = pi[:, None] * pi * (f[:, None] - f).square() / (rest[:, None] + rest)
        return self.g, terms.sum(1) - self.g.square()

    def sum_and_sample(self) -> tuple[Tensor, Tensor]:
        """The likeliest outcome summed, one of the others sampled."""
        others = torch.arange(len(self.pi)) != self.pi.argmax()
        left = self.pi[others].sum()
        each = left * self.f[others].unsqueeze(1) * self.score[others]
        law = OneLatent(self.pi[others] / left, self.f[others])
        return self.g, law.moments(each)[1]

    def straight_through(self, slope: Tensor) -> tuple[Tensor, Tensor]:
        """J(π) f'(z): slope [K, K] holds f' at each outcome."""
        return self.moments(slope @ _jacobian(self.pi))

    def reinmax(self, slope: Tensor) -> tuple[Tensor, Tensor]:
        """2 J((π + z)/2) f'(z) − ½ J(π) f'(z)."""
        halfway = [_jacobian((self.pi + z) / 2) for z in torch.eye(len(self.pi)).double()]
        each = [s @ (2 * j - 0.5 * _jacobian(self.pi)) for s, j in zip(slope, halfway, strict=True)]
        return self.moments(torch.stack(each))


def _jacobian(p: Tensor) -> Tensor:
    return p.diag() - p.outer(p)


def cases():
    alpha, v = torch.tensor([2.0, 0.5, 1.0]).double(), torch.arange(3).double()
    for t in TARGETS:
        law = OneLatent(alpha / alpha.sum(), (v - t).square())
        slope = 2 * (v - t).unsqueeze(1) * v  # f' at outcome j is 2 (v_j − t) v
        exactly = law.g, torch.zeros(3).double()
        for name, knobs, (mean, variance) in (
            ("exact", {}, exactly),
            ("reinforce", {}, law.reinforce(0.0)),
            ("reinforce", {"baseline": 0.5}, law.reinforce(0.5)),
            ("rloo", {"samples": 2}, law.rloo(2)),
            ("rloo", {"samples": 3}, law.rloo(3)),
            ("straight_through", {}, law.straight_through(slope)),
            ("reinmax", {}, law.reinmax(slope)),
            ("local_expectation", {}, exactly),
            ("indecater", {}, exactly),
            ("sum_and_sample", {}, law.sum_and_sample()),
            ("unordered_set", {}, law.unordered_set()),
            ("self_critical", {}, law.reinforce(law.f[law.pi.argmax()])),
        ):
            yield Case(name, knobs, "categorical", {"target": t}, mean, variance)
    theta = torch.tensor(BITS, dtype=torch.float64)
    for t in TARGETS:
        # Bits with costs of their own: each difference of f is f(1) − f(0) of one bit.
        slope = theta * (1 - theta) * ((1 - t) ** 2 - t**2)
        g = torch.stack([-slope, slope], 1).flatten()
        knobs = {"theta": list(BITS), "target": t}
        # One of three bits at a time, three times as long.
        yield Case("bitflip", {}, "bernoulli", knobs, g, 2 * g.square())
        yield Case("local_expectation", {}, "bernoulli", knobs, g, 0 * g)
        yield Case("exact", {}, "bernoulli", knobs, g, 0 * g)


def measured(case: Case) -> gradest.Measurement:
    knobs = {k: tuple(v) if isinstance(v, list) else v for k, v in case.task_knobs.items()}
    task = gradest.make_task(case.task, **knobs)
    return gradest.measure(gradest.make_estimator(case.name, **case.knobs), task)


@pytest.mark.parametrize("case", list(cases()), ids=str)
def test_an_enumerated_row_is_the_closed_form(case):
    found = measured(case)
    assert (found.method, found.replicates) == ("enumerated", 0)
    assert torch.allclose(found.mean.flatten(), case.mean, rtol=0, atol=EXACT)
    assert torch.allclose(found.variance.flatten(), case.variance, rtol=0, atol=EXACT)
    row = found.row()
    assert row["variance"] == pytest.approx(float(case.variance.sum()), abs=EXACT)
    bias = float((case.mean - found.exact.flatten()).square().sum())
    assert row["bias_sq"] == pytest.approx(bias, abs=EXACT)
    assert row["verdict"] == ("biased" if bias > EXACT else "unbiased")


if __name__ == "__main__":
    print(f"{'estimator on task':62}{'trace, enumerated':>20}{'closed form':>20}{'worst gap':>11}")
    for case in cases():
        found = measured(case)
        pairs = ((found.mean, case.mean), (found.variance, case.variance))
        gap = max(float((seen.flatten() - known).abs().max()) for seen, known in pairs)
        trace, known = float(found.variance.sum()), float(case.variance.sum())
        print(f"{case!s:62}{trace:20.14f}{known:20.14f}{gap:11.1e}")
