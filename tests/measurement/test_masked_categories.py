"""A masked category, with log α = −∞: every estimate is as if there were no such category."""

import pytest
import torch
from torch import Tensor

import gradest
from gradest import Cost, Estimator, Problem, Task
from gradest.categorical import conditional_gumbel, nabla, softmax, tempered
from gradest.costs import Objective
from gradest.measurement.enumerated_truth import exact_gradient
from gradest.measurement.objectives import problem_for
from gradest.randomness import Draws, drawing_from
from tests.support import EXACT

MASKED = 1
ROWS = 50

# ARSM and CARMS count the masked categories as well: their law is another one, their mean is not.
# Adapted, RELAX has a network of as many inputs as there are categories, and other weights in it.
OTHER_LAW = ["arsm", "carms", "relax"]
NETWORKS = ["nvil", "relax"]
SAME = [
    *(
        (name, {})
        for name, estimator in sorted(gradest.all_estimators().items())
        if estimator.categories is None and name not in ("arsm", "carms")
    ),
    ("aimle", {"central": True}),
    ("gapped_straight_through", {"gap": "adaptive"}),
    ("optimal_baseline", {"kind": "coordinate"}),
    ("rebar", {"coupled": False}),
    ("straight_through", {"jacobian": "identity"}),
]


class Polynomial(Task):
    """Two latents at logits of three categories, with a cost that curves and couples them."""

    name = "polynomial"

    def __init__(self, masked: bool, objective: Objective | None = None) -> None:
        self._masked, self._objective = masked, objective

    def problem(self, batch: object = None) -> Problem:
        logits = torch.tensor([[[0.3, -0.8, 0.5], [1.0, 0.2, -0.4]]], dtype=torch.float64)
        if self._masked:
            logits = widened(logits, -torch.inf)
        if self._objective is None:
            return Problem(logits, Cost(self._cost))
        return Problem(logits, Cost(self._cost, samples=2, objective=self._objective))

    def _cost(self, z: Tensor) -> Tensor:  # [..., N, K] -> [...]
        values = torch.tensor([[1.0, -0.5, 0.3], [0.2, 0.9, -1.1]]).to(z)
        if self._masked:
            values = widened(values, 7.0)
        x, y = (values * z).sum(-1).unbind(-1)
        return 2 + x - 0.7 * y + 0.5 * x * y + 0.6 * x.square() + 0.3 * y.pow(3)


class Recorded(Draws):
    """Keeps all noise."""

    def __init__(self) -> None:
        super().__init__(torch.Generator().manual_seed(0))
        self.noise = []

    def _fill(self, shape, like, law):
        self.noise.append(super()._fill(shape, like, law))
        return self.noise[-1].clone()


class Replayed(Draws):
    """The noise of before, with some for one category more."""

    def __init__(self, noise) -> None:
        super().__init__(torch.Generator().manual_seed(1))
        self._noise = iter(noise)

    def _fill(self, shape, like, law):
        own, kept = super()._fill(shape, like, law), next(self._noise)
        for axis, (few, many) in enumerate(zip(kept.shape, own.shape, strict=True)):
            if few != many:  # one more in each latent, and in no other axis
                groups = (x.movedim(axis, -1).unflatten(-1, (many - few, -1)) for x in (kept, own))
                return inserted(*groups).flatten(-2).movedim(-1, axis)
        return kept


def inserted(x: Tensor, more: Tensor) -> Tensor:
    """x with the masked category of `more`."""
    return torch.cat([x[..., :MASKED], more[..., MASKED : MASKED + 1], x[..., MASKED:]], -1)


def widened(x: Tensor, value: float) -> Tensor:
    """With one more category."""
    return inserted(x, torch.full((*x.shape[:-1], x.shape[-1] + 1), value, dtype=x.dtype))


def estimated(estimator: Estimator, masked: bool, source: Draws) -> tuple[Tensor, Tensor]:
    """Objectives [R] and gradients [R, N, K], after some steps of adapt."""
    logits, f = Polynomial(masked, estimator.objective).problem()
    rows = logits.repeat(ROWS, 1, 1)
    with drawing_from(source):
        estimator.reset(problem_for(estimator, logits, f)[0])
        for _ in range(0 if estimator.name in NETWORKS else min(estimator.adapt_steps, 3)):
            estimator.adapt(*problem_for(estimator, rows, f.replicated(1, rows)))
        leaf = rows.clone().requires_grad_()
        objective = estimator(*problem_for(estimator, leaf, f.replicated(1, leaf)))
        (gradient,) = torch.autograd.grad(objective.sum(), leaf)
    return objective.detach(), gradient


@pytest.mark.parametrize(("name", "knobs"), SAME)
def test_an_estimate_is_as_if_there_were_no_masked_category(name, knobs):
    source = Recorded()
    value, gradient = estimated(gradest.make_estimator(name, **knobs), False, source)
    noise = Replayed(source.noise)
    same, wider = estimated(gradest.make_estimator(name, **knobs), True, noise)
    assert gradient.abs().max() > 0.01
    if name != "finite_difference":  # a mean over moves of all logits, the masked one's too
        torch.testing.assert_close(same, value, rtol=EXACT, atol=EXACT)
    torch.testing.assert_close(wider, widened(gradient, 0.0), rtol=EXACT, atol=EXACT)
    assert not wider[..., MASKED].any()


@pytest.mark.parametrize("name", OTHER_LAW)
def test_what_has_another_law_is_unbiased_and_leaves_the_category_alone(name, assert_mean):
    estimator, task = gradest.make_estimator(name), Polynomial(True)
    logits, f = task.problem()
    rows = logits.repeat(20_000, 1, 1)
    with drawing_from(Draws.seeded(0)):
        estimator.reset(logits)
        for _ in range(min(estimator.adapt_steps, 20)):
            estimator.adapt(rows[:64], f.replicated(1, rows[:64]))
        leaf = rows.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(estimator(leaf, f.replicated(1, leaf)).sum(), leaf)
    truth = exact_gradient(task.problem()).gradient[0]
    assert not gradient[..., MASKED].any() and not truth[..., MASKED].any()
    kept = [k for k in range(4) if k != MASKED]
    assert_mean(gradient[..., kept], truth[..., kept], 0.03 * float(truth.norm()))


@pytest.mark.parametrize("masked", [False, True])
def test_the_pieces_have_gradients_that_are_finite(masked):
    logits = Polynomial(masked).problem().logits
    b = softmax(logits).argmax(-1)
    b = torch.nn.functional.one_hot(b, logits.shape[-1]).to(logits)
    leaf = logits.clone().requires_grad_()
    temperature = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    with drawing_from(Draws.seeded(0)):
        z = conditional_gumbel(leaf, b)
    assert torch.equal(z.argmax(-1), b.argmax(-1))
    values = torch.arange(logits.shape[-1]).to(logits)
    for x in (z, leaf):
        y = softmax(tempered(x, temperature))
        plain = softmax(x.detach() / 0.5)
        assert torch.equal(y.detach(), plain)
        slopes = torch.autograd.grad((y * values).sum(), [leaf, temperature], retain_graph=True)
        assert all(slope.isfinite().all() for slope in slopes)
        # y moves with −log y/λ less its mean under y.
        log_y = torch.where(plain > 0, plain.log(), 0.0)
        moved = plain * (log_y - (plain * log_y).sum(-1, keepdim=True))
        assert float(slopes[1]) == pytest.approx(-2 * float((moved * values).sum()), abs=EXACT)
    (slope,) = torch.autograd.grad((values * nabla(leaf)).sum(), leaf)
    assert torch.equal(nabla(leaf).detach(), torch.zeros_like(logits))
    expected = values.expand_as(logits).masked_fill(logits == -torch.inf, 0.0)
    assert torch.equal(slope, expected)
