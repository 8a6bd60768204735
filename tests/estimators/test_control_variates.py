"""Learned control variates against closed forms and the laws they obey, and what all of them keep.

Gumbel noise is integrated by Gauss-Legendre quadrature, since only the shares of its exponentials
matter, which are uniform.
"""

import math
import sys

import pytest
import torch
from torch import Tensor

import gradest
from gradest import Cost, Estimator, Problem, Task
from gradest.categorical import conditional_gumbel, nabla
from gradest.measurement import enumerated_truth
from gradest.randomness import Draws, drawing_from
from tests.estimators.quadrature import (
    QUADRATURE,
    Affine,
    Moments,
    assert_close,
    assert_unbiased,
    coupled,
    estimates,
    every_index,
    gauss,
    moments,
    over_samples,
    ready,
)
from tests.estimators.toys import bit
from tests.support import EXACT, Prescribed

rebar = sys.modules[gradest.all_estimators()["rebar"].__module__]


# Gumbel noise.  Given argmax z = b, z follows from exponentials as z̃ does; all that matters of
# them is their shares, uniform on the simplex.  Nodes are crowded (u → 3u² − 2u³) at its edges.


def shares(categories: int, nodes: int) -> tuple[Tensor, Tensor]:
    """Exponentials [P, K] and weights [P]."""
    u, weight = gauss(nodes)
    u, weight = u**2 * (3 - 2 * u), weight * 6 * u * (1 - u)
    if categories == 2:
        return torch.stack([u, 1 - u], -1), weight
    a, b = torch.cartesian_prod(u, u).unbind(1)
    return (
        torch.stack([a, (1 - a) * b, (1 - a) * (1 - b)], -1),
        (weight.unsqueeze(1) * weight).flatten() * 2 * (1 - a),
    )


def noise_given(task: Task, b: int, e: Tensor) -> Tensor:
    """Exponentials [P, 1, K] with argmax z = b, made of those that z | b is made of."""
    logits = task.problem().logits.expand(len(e), -1, -1)
    index = torch.full((len(e), 1), b)
    with drawing_from(Prescribed(e.unsqueeze(1))):
        z = conditional_gumbel(logits, torch.nn.functional.one_hot(index, e.shape[-1]).double())
    return (logits - z).exp()


def over_noise(estimator: Estimator, task: Task, nodes: int, tied: bool = False) -> Moments:
    """One latent: the noise of z, and unless it is tied to that, the noise of z̃."""
    pi = task.problem().logits.softmax(-1).flatten()
    e, weight = shares(len(pi), nodes)
    every = torch.arange(len(e))
    first, second = (every, every) if tied else torch.cartesian_prod(every, every).unbind(1)
    weight = weight if tied else weight[first] * weight[second]
    noise = torch.cat([noise_given(task, b, e[first]) for b in range(len(pi))])
    answers = [noise] if tied else [noise, e[second].repeat(len(pi), 1).unsqueeze(1)]
    weight = torch.cat([p * weight for p in pi])
    return moments(estimator, task, weight, *answers)


def over_noise_in_parts(estimator: Estimator, task: Task, nodes: int) -> Tensor:
    """E ĝ where z and z̃ do not meet: ĝ = A(b, z̃) + B(z), so E ĝ = E[ĝ | z̃] + E[ĝ | z] − ĝ."""
    pi = task.problem().logits.softmax(-1).flatten()
    e, weight = shares(len(pi), nodes)
    fixed = torch.full_like(e, 1 / len(pi))
    total = 0.0
    for b, p in enumerate(pi):
        for z, z_tilde, sign in ((e, fixed, 1), (fixed, e, 1), (fixed, fixed, -1)):
            noise = noise_given(task, b, z)
            result = moments(estimator, task, weight, noise, z_tilde.unsqueeze(1))
            total = total + sign * p * result.mean
    return total


def randomised(estimator: Estimator, seed: int = 0) -> Estimator:
    """With a network that it did not learn."""
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in estimator._network.parameters:
            parameter.normal_(generator=draws)
    return estimator


@pytest.mark.parametrize("coupled_noise", [True, False])
@pytest.mark.parametrize(("eta", "temperature"), [(1.0, 0.5), (0.6, 1.3), (-2.0, 0.8)])
def test_rebar_is_unbiased_on_a_bit(eta, temperature, coupled_noise):
    task = coupled(1, 2, 3)
    knobs = {"eta": eta, "temperature": temperature, "coupled": coupled_noise}
    result = over_noise(ready("rebar", task, **knobs), task, 200, coupled_noise)
    assert_unbiased(result, task, QUADRATURE)


@pytest.mark.parametrize(("eta", "temperature"), [(1.0, 0.7), (0.6, 1.3)])
def test_rebar_is_unbiased_on_three_categories(eta, temperature):
    task = coupled(1, 3, 1)
    truth = enumerated_truth.exact_gradient(task.problem()).gradient[0]
    knobs = {"eta": eta, "temperature": temperature}
    result = over_noise_in_parts(ready("rebar", task, coupled=False, **knobs), task, 150)
    assert_close(result, truth, QUADRATURE)
    result = over_noise(ready("rebar", task, **knobs), task, 150, tied=True)
    assert_unbiased(result, task, QUADRATURE)


def test_tied_noise_moves_as_conditional_noise_does():
    """z̃ has the value and the gradient of the conditional draw that lands on z."""
    logits = coupled(4, 3).problem().logits.repeat(20, 1, 1).requires_grad_()
    with drawing_from(Draws.seeded(0)):
        b = gradest.categorical.sample(logits)
        drawn = conditional_gumbel(logits, b)
    tied = rebar._tied(logits, b, drawn.detach())
    assert torch.equal(tied, drawn)
    weight = torch.randn(drawn.shape, generator=torch.Generator().manual_seed(0)).double()
    expected, result = (torch.autograd.grad((weight * z).sum(), logits)[0] for z in (drawn, tied))
    assert_close(result, expected)


@pytest.mark.parametrize("coupled_noise", [True, False])
def test_rebar_without_its_control_variate_is_reinforce(coupled_noise):
    task = coupled(2, 3)
    for name, knobs in (("rebar", {"eta": 0.0, "coupled": coupled_noise}), ("relax", {})):
        e = torch.empty(40, 2, 3, dtype=torch.float64).exponential_(generator=torch.manual_seed(0))
        result = estimates(ready(name, task, **knobs), task, 40, Prescribed(e, e))
        index = (task.problem().logits - e.log()).argmax(-1).unsqueeze(1)  # [R, 1, N]
        expected = estimates(ready("reinforce", task), task, 40, Prescribed(index))
        for a, b in zip(result, expected, strict=True):
            assert_close(a, b)


@pytest.mark.parametrize("coupled_noise", [True, False])
def test_rebar_is_affine_in_eta(coupled_noise):
    """Draw by draw: so its variance is quadratic in η, and the best no worse than REINFORCE."""
    task = coupled(2, 3)
    zero, one, three = (
        estimates(ready("rebar", task, eta=eta, coupled=coupled_noise), task, 40, Draws.seeded(0))[
            0
        ]
        for eta in (0.0, 1.0, 3.0)
    )
    assert_close(three - zero, 3 * (one - zero))
    assert (one - zero).abs().max() > 1e-2


def test_rebar_can_be_worse_than_reinforce():
    """On the bit θ = σ(0.4), t = 0.45 with η = 1: .0220 and .0857 where REINFORCE has .0141."""
    task = bit(1 / (1 + math.exp(-0.4)), 0.45)
    reinforce = moments(ready("reinforce", task), task, *reversed(every_index(task, 1)))
    assert float(reinforce.variance[0, 1]) == pytest.approx(0.0141, abs=0.5e-4)
    for temperature, printed in ((0.5, 0.0220), (0.1, 0.0857)):
        result = over_noise(ready("rebar", task, temperature=temperature), task, 400, tied=True)
        assert float(result.variance[0, 1]) == pytest.approx(printed, abs=0.5e-4)


@pytest.mark.slow
def test_tuned_rebar_follows_a_cost_that_it_can_track():
    """t = −1, where f is nearly linear: the published figures are 1.167 and 0.016."""
    task = bit(1 / (1 + math.exp(-0.4)), -1.0)
    for coupled_noise in (True, False):
        knobs = {"coupled": coupled_noise, "learning_rate": 0.05}
        estimator = ready("rebar", task, steps=300, **knobs)
        result = over_noise(estimator, task, 200, coupled_noise)
        assert_unbiased(result, task, 1e-6)  # λ has grown, and z / λ is no smoother for that
        assert result.variance[0, 1] < 0.05
    reinforce = moments(ready("reinforce", task), task, *reversed(every_index(task, 1)))
    assert float(reinforce.variance[0, 1]) == pytest.approx(1.167, abs=0.5e-3)


def test_rebar_that_is_not_tuned_stays_as_it_is():
    task = coupled(2, 3)
    still, moved = (ready("rebar", task, 3, eta=0.7, tuned=tuned) for tuned in (False, True))
    for estimator, same in ((still, True), (moved, False)):
        eta, temperature = estimator._eta.item(), estimator._log_temperature.exp().item()
        assert (eta == pytest.approx(0.7)) == same and (temperature == pytest.approx(0.5)) == same


def conditional(logits: Tensor, b: Tensor, total: Tensor) -> Tensor:
    """−log(E_i/α_i + E_b/Σα) with something else for log Σα."""
    log_e = gradest.randomness.draws().exponential(b.shape, logits).log()
    top = (b * log_e).sum(-1, keepdim=True) - total
    return -torch.where(b > 0, top, torch.logaddexp(log_e - logits, top))


def total_of(logits: Tensor) -> Tensor:
    return logits.logsumexp(-1, keepdim=True)


CONDITIONALS = {
    "correct": lambda logits, b: conditional(logits, b, total_of(logits)),
    "without a gradient": lambda logits, b: conditional_gumbel(logits, b).detach(),
    "with unit slope": lambda logits, b: conditional_gumbel(logits, b).detach() + nabla(logits),
    "with a constant total": lambda logits, b: conditional(logits, b, total_of(logits).detach()),
    "as printed, where the total is one": lambda logits, b: conditional(
        logits, b, torch.zeros_like(total_of(logits))
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("which", CONDITIONALS)
def test_mistaken_conditional_noise_would_show(which, monkeypatch):
    task = coupled(1, 3, 1)
    truth = enumerated_truth.exact_gradient(task.problem()).gradient[0]
    monkeypatch.setattr(rebar, "conditional_gumbel", CONDITIONALS[which])
    result = over_noise_in_parts(ready("rebar", task, coupled=False), task, 150)
    if which == "correct":
        assert_close(result, truth, 1e-6)
    else:
        assert (result - truth).norm() > 0.005 * truth.norm()


@pytest.mark.parametrize("tied", [True, False])
def test_rebar_without_the_gradient_of_the_conditional_part_would_show(tied, monkeypatch):
    """∇c(z̃) left out: the same as z̃ without a gradient, also where it is tied to z."""
    task = coupled(1, 2, 3)
    truth = enumerated_truth.exact_gradient(task.problem()).gradient[0]
    for name in ("_tied", "conditional_gumbel"):
        correct = getattr(rebar, name)
        monkeypatch.setattr(rebar, name, lambda *given, c=correct: c(*given).detach())
    result = over_noise(ready("rebar", task, coupled=tied), task, 100, tied)
    assert (result.mean - truth).norm() > 0.05 * truth.norm()


# RELAX


def test_relax_with_the_relaxed_cost_for_its_surrogate_is_rebar():
    task, eta, temperature = coupled(2, 3), 0.6, 0.8
    correct = type(gradest.make_estimator("relax"))

    class Relaxed(correct):
        def _surrogate(self, logits: Tensor, f: Cost, relaxed: Tensor) -> Tensor:
            return eta * f.frozen(relaxed)

    relax = Relaxed(temperature=temperature)
    with drawing_from(Draws.seeded(0)):
        relax.reset(task.problem().logits)
    rebar = ready("rebar", task, eta=eta, temperature=temperature, coupled=False)
    for a, b in zip(
        *(estimates(e, task, 40, Draws.seeded(1)) for e in (relax, rebar)), strict=True
    ):
        assert_close(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_relax_is_unbiased_for_every_surrogate(seed):
    for latents_categories, nodes in (((1, 2), 200), ((1, 3), 150)):
        task = coupled(*latents_categories, seed)
        estimator = randomised(ready("relax", task, temperature=0.7), seed)
        truth = enumerated_truth.exact_gradient(task.problem()).gradient[0]
        assert_close(over_noise_in_parts(estimator, task, nodes), truth, QUADRATURE)
    # And without taking its parts apart.
    task = coupled(1, 2, seed)
    result = over_noise(randomised(ready("relax", task, temperature=0.7), seed), task, 200)
    assert_unbiased(result, task, QUADRATURE)


@pytest.mark.slow
def test_relax_learns_to_vary_less_than_reinforce():
    task = bit(0.3, 0.45)
    before, after = (over_noise(ready("relax", task, steps), task, 100) for steps in (0, 300))
    reinforce = moments(ready("reinforce", task), task, *reversed(every_index(task, 1)))
    assert_close(before.variance, reinforce.variance)
    assert after.trace < 0.1 * before.trace


@pytest.mark.parametrize("latents", [1, 2])
def test_networks_draw_from_the_vocabulary_and_have_their_width(latents):
    task = coupled(latents, 2)
    for name, inputs, outputs in (("relax", 4 * latents, 1), ("rodeo", 2, 2)):
        before = torch.get_rng_state()
        network = ready(name, task, width=5)._network
        assert torch.equal(torch.get_rng_state(), before)
        shapes = [tuple(parameter.shape) for parameter in network.parameters]
        assert shapes == [(1, inputs, 5), (1, 1, 5), (1, 5, outputs), (1, 1, outputs)]


# Double control variates and discrete Stein operators


@pytest.mark.parametrize("samples", [2, 3])
@pytest.mark.parametrize("name", ["double_cv", "rodeo"])
def test_before_they_learn_they_are_leave_one_out(name, samples):
    task = coupled(3, 2)
    result, rloo = (
        estimates(ready(n, task, samples=samples), task, 40, Draws.seeded(1))
        for n in (name, "rloo")
    )
    for a, b in zip(result, rloo, strict=True):
        assert_close(a, b)


@pytest.mark.parametrize(("latents", "samples"), [(1, 2), (2, 2), (2, 3), (3, 2), (3, 3)])
@pytest.mark.parametrize("alpha", [-1.0, 0.7])
def test_double_cv_is_unbiased_for_every_alpha(latents, samples, alpha):
    task = coupled(latents, 2)
    assert_unbiased(over_samples("double_cv", task, samples, alpha=alpha), task)


@pytest.mark.parametrize("samples", [2, 3])
def test_double_cv_leaves_no_variance_on_an_affine_cost(samples):
    result = over_samples("double_cv", Affine(), samples, alpha=-1.0)
    assert_unbiased(result, Affine())
    assert_close(result.variance, torch.zeros(3, 2))
    assert over_samples("double_cv", Affine(), samples).trace > 0.1


@pytest.mark.parametrize(("latents", "samples"), [(1, 2), (2, 2), (2, 3), (3, 2), (3, 3)])
def test_rodeo_is_unbiased_for_every_network(latents, samples):
    task = coupled(latents, 2)
    index, weight = every_index(task, samples)
    estimator = randomised(ready("rodeo", task, samples=samples))
    result = moments(estimator, task, weight, index)
    assert_unbiased(result, task)
    assert result.trace > 2 * over_samples("rloo", task, samples).trace  # the network does act


@pytest.mark.slow
@pytest.mark.parametrize("name", ["double_cv", pytest.param("rodeo", marks=pytest.mark.slow)])
def test_learning_lowers_the_variance_below_leave_one_out(name):
    """Summed over the coordinates, which is what they descend."""
    for seed in range(3):
        task = coupled(3, 2, seed)
        before, after = (over_samples(name, task, 2, steps) for steps in (0, 150))
        assert_unbiased(after, task)
        assert after.trace < 0.9 * before.trace


def test_extrapolating_a_sample_from_itself_would_show():
    """The mistake that hₖ depends on bₖ."""
    task = coupled(2, 2)
    correct = type(gradest.make_estimator("rodeo"))

    class Own(correct):
        def _extrapolated(self, cost, slope, b, flip):
            return super()._extrapolated(cost.flip(1), slope.flip(1), b, flip)

    index, weight = every_index(task, 2)
    estimator = Own()
    with drawing_from(Draws.seeded(0)):
        estimator.reset(task.problem().logits)
    result = moments(randomised(estimator), task, weight, index)
    truth = enumerated_truth.exact_gradient(task.problem()).gradient[0]
    assert (result.mean - truth).norm() > 0.05 * truth.norm()


# All of them


KNOBS = {"arms": {"samples": 3}, "carms": {"samples": 3}, "double_cv": {}, "rodeo": {}}
COSTS = {  # evaluations of f on N = 3 latents, of K = 2 categories and of K = 4
    "arm": (2, None),
    "disarm": (2, None),
    "arms": (3, None),
    "carms": (3, 3),
    "arsm": (2, 7),
    "rebar": (3, 3),
    "relax": (1, 1),
    "double_cv": (2, None),
    "rodeo": (2, None),
}


@pytest.mark.parametrize("name", COSTS)
def test_the_cost_is_evaluated_on_whole_vectors_and_as_often_as_stated(name):
    for categories, expected in zip((2, 4), COSTS[name], strict=True):
        if expected is None:
            with pytest.raises(gradest.errors.Inapplicable, match="needs K = 2"):
                gradest.measure(gradest.make_estimator(name), coupled(3, categories), adapt_steps=0)
            continue
        task = coupled(3, categories)
        estimator = gradest.make_estimator(name, **KNOBS.get(name, {}))
        result = gradest.measure(estimator, task, replicates=64, adapt_steps=0)
        assert result.evaluations == expected


@pytest.mark.parametrize("name", ["arsm", "carms", "rebar", "relax"])
def test_three_categories_keep_the_laws_that_two_do(name):
    """Σ_k ĝ = 0; a shift of the logits changes nothing; for coupled samples neither does f + 10."""
    task = coupled(2, 3)

    class Changed(Task):
        def __init__(self, shift: float = 0.0, offset: float = 0.0) -> None:
            self.shift, self.offset = shift, offset

        def problem(self, batch=None) -> Problem:
            logits, f = task.problem()
            shift = self.shift * torch.tensor([[1.0], [-2.0]], dtype=torch.float64)
            return Problem(logits + shift, Cost(lambda z: f.fn(z) + self.offset))

    def result(changed: Task) -> Tensor:
        return estimates(ready(name, changed, 3), changed, 40, Draws.seeded(1))[0]

    plain = result(Changed())
    assert plain.abs().max() > 1e-3
    assert_close(plain.sum(-1), torch.zeros(40, 2))
    assert_close(result(Changed(shift=3.0)), plain, 1e-9)  # Adam divides by its own gradient
    if name in ("arsm", "carms"):
        assert_close(result(Changed(offset=10.0)), plain)


@pytest.mark.parametrize("name", ["rebar", "double_cv"])
def test_a_factor_on_the_cost_is_one_on_the_estimate_of_what_is_not_tuned(name):
    task = coupled(2, 2)

    class Fourfold(Task):
        def problem(self, batch=None) -> Problem:
            logits, f = task.problem()
            return Problem(logits, Cost(lambda z: 4 * f.fn(z)))

    knobs = {"eta": 0.7} if name == "rebar" else {"alpha": 0.7}
    plain, scaled = (
        estimates(ready(name, t, **knobs), t, 40, Draws.seeded(1))[0] for t in (task, Fourfold())
    )
    assert_close(scaled, 4 * plain)


class Decoder(Task):
    """A cost with a parameter of its own: f(z) = (w · z)², summed over the latents."""

    def __init__(self) -> None:
        self.module = torch.nn.Linear(2, 1, bias=False).double()
        with torch.no_grad():
            self.module.weight.copy_(torch.tensor([[0.4, -1.3]]))

    def problem(self, batch=None) -> Problem:
        cost = Cost(lambda z, net: net(z).square().sum((-2, -1)), self.module)
        return Problem(torch.tensor([[[0.3, -0.2], [0.0, 0.9]]], dtype=torch.float64), cost)


def decoder_gradient(name: str, **knobs) -> tuple[float, float]:
    """⟨w, ∇_w Σ value⟩ and 2 Σ value: the same for values that are quadratic in w."""
    task = Decoder()
    estimator = ready(name, task, **knobs)
    if name in ("relax", "rodeo"):
        randomised(estimator)
    logits, f = task.problem()
    with drawing_from(Draws.seeded(1)):
        value = estimator(logits.repeat(40, 1, 1).requires_grad_(), f.replicated(1)).sum()
    w = task.module.weight
    (gradient,) = torch.autograd.grad(value, w)
    return (w * gradient).sum().item(), 2 * value.item()


@pytest.mark.parametrize("name", COSTS)
def test_a_task_learns_from_the_value_alone(name):
    """Whose gradient is that of the hard samples' costs; control variates leave no trace."""
    # Where z̃ is tied to z, c(z) − c(z̃) is zero for every w.
    result, expected = decoder_gradient(name, **({"coupled": False} if name == "rebar" else {}))
    assert result == pytest.approx(expected, rel=EXACT)


def test_a_control_variate_that_the_task_learns_from_would_show(monkeypatch):
    monkeypatch.setattr(Cost, "frozen", Cost.__call__)
    result, expected = decoder_gradient("rebar", coupled=False)
    assert abs(result - expected) > 0.01 * abs(expected)
