"""torch's random functions within `redirected`: their distributions, and whose source they use."""

import math
from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Categorical,
    Gumbel,
    Laplace,
    OneHotCategorical,
    RelaxedBernoulli,
    RelaxedOneHotCategorical,
)
from torch.nn import functional

from gradest import (
    LAWS,
    Cost,
    Estimator,
    SurrogateSample,
    compare,
    make_estimator,
    make_task,
    measure,
)
from gradest.categorical import gumbel_max, log_prob, nabla, one_hot, sample, softmax
from gradest.checks import check_estimator, passed
from gradest.errors import ContractError
from gradest.foreign import redirected
from gradest.randomness import Draws, drawing_from, global_states
from tests.support import EXACT, LEVEL

R = 20_000
LOGITS = torch.tensor([[0.3, -0.8, 0.5], [1.0, 0.2, -0.4]], dtype=torch.float64)
ROWS = LOGITS.expand(R, 2, 3)
TASK = make_task("categorical")


def draw(fn: Callable[[], Tensor], logits: Tensor = ROWS, axis: int = 0, seed: int = 0) -> Tensor:
    with drawing_from(Draws.seeded(seed)), redirected(logits, axis):
        return fn()


def full(value: float) -> Tensor:
    return torch.full((R,), value, dtype=torch.float64)


CONTINUOUS = {
    "rand": (lambda: torch.rand(R), stats.uniform()),
    "rand_like": (lambda: torch.rand_like(full(0)), stats.uniform()),
    "randn": (lambda: torch.randn(R), stats.norm()),
    "randn_like": (lambda: torch.randn_like(full(0)), stats.norm()),
    "uniform_": (lambda: full(0).uniform_(-1, 3), stats.uniform(-1, 4)),
    "normal_": (lambda: full(0).normal_(1, 2), stats.norm(1, 2)),
    "normal": (lambda: torch.normal(full(1), 2.0), stats.norm(1, 2)),
    "normal of tensors": (lambda: torch.normal(full(1), full(2)), stats.norm(1, 2)),
    "normal of numbers": (lambda: torch.normal(1.0, 2.0, (R,)), stats.norm(1, 2)),
    "exponential_": (lambda: full(0).exponential_(2), stats.expon(scale=0.5)),
    "cauchy_": (lambda: full(0).cauchy_(1, 2), stats.cauchy(1, 2)),
    "log_normal_": (lambda: full(0).log_normal_(0.5, 0.3), stats.lognorm(0.3, 0, math.exp(0.5))),
    "Gumbel": (lambda: Gumbel(full(1), full(2)).sample(), stats.gumbel_r(1, 2)),
    "Laplace": (lambda: Laplace(full(1), full(2)).sample(), stats.laplace(1, 2)),
    "relaxed": (
        lambda: RelaxedBernoulli(full(0.5)[0], logits=full(0.7)).rsample().logit() * 0.5,
        stats.logistic(0.7),
    ),
}
DISCRETE = {
    "bernoulli": (lambda: torch.bernoulli(full(0.3)), [0.7, 0.3]),
    "bernoulli of p": (lambda: torch.bernoulli(full(0), 0.3), [0.7, 0.3]),
    "bernoulli_": (lambda: full(0).bernoulli_(0.3), [0.7, 0.3]),
    "bernoulli_ of a tensor": (lambda: full(0).bernoulli_(full(0.3)), [0.7, 0.3]),
    "Bernoulli": (lambda: Bernoulli(full(0.3)).sample(), [0.7, 0.3]),
    "dropout": (lambda: (functional.dropout(full(1), 0.3) > 0).double(), [0.3, 0.7]),
    "native_dropout": (lambda: torch.native_dropout(full(1), 0.3, True)[1], [0.3, 0.7]),
    "multinomial": (
        lambda: torch.multinomial(torch.tensor([1.0, 2.0, 3.0]).expand(R, 3), 1),
        [1 / 6, 1 / 3, 1 / 2],
    ),
    "second without replacement": (
        lambda: torch.multinomial(torch.tensor([1.0, 1.0, 2.0]).expand(R, 3), 2)[:, 1],
        [1 / 3 * 1 / 4 + 1 / 2 * 1 / 2] * 2 + [2 / 3 * 1 / 2],
    ),
    "randint": (lambda: torch.randint(3, (R,)), [1 / 3] * 3),
    "randint from": (lambda: torch.randint(1, 3, (R,)), [0, 1 / 2, 1 / 2]),
    "randint_like": (lambda: torch.randint_like(full(0), 3), [1 / 3] * 3),
    "random_": (lambda: full(0).random_(1, 3), [0, 1 / 2, 1 / 2]),
    "geometric_": (lambda: full(0).geometric_(0.4).clamp(max=4), [0, 0.4, 0.24, 0.144, 0.216]),
    "wide randint": (lambda: torch.randint(2**40, (R,)) >> 38, [1 / 4] * 4),
    "Categorical": (lambda: Categorical(logits=ROWS[:, 0]).sample(), LOGITS[0].softmax(0).tolist()),
}


@pytest.mark.parametrize("name", CONTINUOUS)
def test_a_continuous_draw_has_its_distribution(name):
    fn, distribution = CONTINUOUS[name]
    x = draw(fn)
    assert x.shape == (R,)
    assert stats.kstest(x.double(), distribution.cdf).pvalue > LEVEL
    assert not torch.equal(x, draw(fn, seed=1))


@pytest.mark.parametrize("name", DISCRETE)
def test_a_discrete_draw_has_its_distribution(name, assert_frequencies):
    fn, p = DISCRETE[name]
    index = draw(fn).flatten().long()
    assert len(index) == R
    assert_frequencies(index.bincount(minlength=len(p)), torch.tensor(p))


@pytest.mark.parametrize("fn", [fn for fn, _ in (CONTINUOUS | DISCRETE).values()])
def test_draws_depend_on_the_source_alone(fn):
    before = global_states()
    first = draw(fn)
    torch.rand(3)
    after = global_states()
    assert torch.equal(first, draw(fn)) and global_states() == after != before


def test_draws_are_those_of_our_own_vocabulary():
    rows, logits = ROWS[:50], LOGITS.expand(50, 2, 3)
    with drawing_from(Draws.seeded(0)):
        z = sample(logits)
    pi = logits.softmax(-1)
    theirs = draw(lambda: torch.multinomial(pi.flatten(0, 1), 1), rows).view(50, 2)
    assert torch.equal(z, one_hot(theirs, logits))
    assert torch.equal(z, draw(lambda: OneHotCategorical(logits=logits).sample(), rows))
    with drawing_from(Draws.seeded(0)):
        b, g = gumbel_max(logits)
    hard = draw(lambda: functional.gumbel_softmax(logits, tau=0.5, hard=True), rows)
    soft = draw(lambda: functional.gumbel_softmax(logits, tau=0.5), rows)
    assert (hard - b).abs().max() < EXACT and (soft - softmax(g / 0.5)).abs().max() < EXACT
    single = draw(lambda: torch.rand(50), rows).double()
    double = draw(lambda: torch.rand(50, dtype=torch.float64), rows)
    assert ((double - single) >= 0).all() and (double - single).max() < 2**-24


def test_a_uniform_just_below_one_stays_below_it():
    class Last(Draws):
        def uniform(self, shape, like):
            return torch.full(shape, 1 - 2**-53, dtype=like.dtype)

    for dtype, digits in ((torch.float32, 24), (torch.float16, 11), (torch.bfloat16, 8)):
        with drawing_from(Last()), redirected(ROWS[:4]):
            u = torch.rand(4, dtype=dtype)
        assert (u == 1 - 2.0**-digits).all()


def test_samples_may_come_before_rows():
    rows = ROWS[:50]
    z = draw(lambda: OneHotCategorical(logits=rows).sample((4,)), rows, axis=1)
    with drawing_from(Draws.seeded(0)):
        ours = sample(rows, 4)
    assert torch.equal(z.movedim(0, 1), ours)
    relaxed = RelaxedOneHotCategorical(torch.tensor(0.5), logits=rows)
    y = draw(lambda: relaxed.rsample((4,)), rows, axis=1)
    assert y.shape == (4, 50, 2, 3)
    with pytest.raises(ContractError, match=r"\[4, 50, 2, 3\] has no first axis of 50.*axis=1"):
        draw(lambda: relaxed.rsample((4,)), rows)


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda: torch.rand(()), r"a draw of shape \[\] has no first axis of 50 rows"),
        (lambda: torch.rand(1, 2), r"a draw of shape \[1, 2\] has no first axis of 50 rows"),
        (lambda: torch.randperm(4), r"randperm\(4\) is served for one row"),
        (lambda: torch.poisson(torch.ones(50)), "aten.poisson.default is not served"),
        (lambda: torch.binomial(torch.ones(50), torch.ones(50) / 2), "binomial.* is not served"),
        (
            lambda: torch.multinomial(torch.eye(3)[:1].expand(50, 3), 2),
            "needs as many categories with a positive probability, got 1",
        ),
    ],
)
def test_a_draw_that_cannot_be_served_is_named_in_one_line(fn, message):
    before = global_states()
    with pytest.raises(ContractError, match=message) as error:
        draw(fn, ROWS[:50])
    assert "\n" not in str(error.value) and global_states() == before


def test_what_draws_nothing_or_from_its_own_generator_is_left_alone():
    q = torch.ones(50, 2, 3)
    assert torch.equal(draw(lambda: functional.scaled_dot_product_attention(q, q, q), ROWS[:50]), q)
    own = [torch.Generator().manual_seed(1) for _ in range(2)]
    assert torch.equal(
        draw(lambda: torch.rand(3, generator=own[0]), ROWS[:50]), torch.rand(3, generator=own[1])
    )


def test_one_row_has_permutations_and_scalars():
    one = ROWS[:1]
    orders = {tuple(draw(lambda: torch.randperm(3), one, seed=s).tolist()) for s in range(100)}
    assert len(orders) == 6
    assert draw(lambda: torch.rand(()), one).shape == ()


class ReinMaxOfPackage(torch.autograd.Function):
    """As the package of its authors writes it."""

    @staticmethod
    def forward(ctx, logits):
        pi = logits.softmax(-1)
        index = torch.multinomial(pi, num_samples=1, replacement=True)
        z = torch.zeros_like(pi).scatter_(-1, index, 1.0)
        ctx.save_for_backward(z, pi)
        return z

    @staticmethod
    def backward(ctx, gradient):
        z, pi = ctx.saved_tensors

        def pulled_back(p, g):
            return p * (g - (p * g).sum(-1, keepdim=True))

        return 2 * pulled_back((pi + z) / 2, gradient) - pulled_back(pi, gradient) / 2


class Unchanged(SurrogateSample):
    name = "unchanged"
    degree = 2

    def draw(self, logits: Tensor) -> Tensor:
        with redirected(logits):
            return ReinMaxOfPackage.apply(logits.flatten(0, 1)).view_as(logits)


class SharedNoise(Estimator):
    name = "shared"
    laws = LAWS - {"constant"}

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        with redirected(logits):
            noise = torch.rand(logits.shape[1:], dtype=logits.dtype)
        z = one_hot((logits - (-noise.log()).log()).argmax(-1), logits)
        cost = f(z)
        return cost + cost.detach() * nabla(log_prob(logits, z))


def test_unchanged_code_is_certified_enumerated_and_paired():
    findings = check_estimator(Unchanged)
    assert passed(findings), findings
    ours, theirs = measure(make_estimator("reinmax"), TASK), measure(Unchanged(), TASK)
    assert theirs.method == "enumerated" and theirs.outcomes == ours.outcomes
    assert (theirs.mean - ours.mean).abs().max() < 1e-15
    paired = compare(Unchanged(), make_estimator("reinmax"), TASK, enumerate_draws=False)
    assert paired.method == "paired" and paired.mean_gain > 1e12


def test_noise_that_all_rows_share_is_refused():
    with pytest.raises(ContractError, match=r"of shape \[1, 3\] has no first axis of 7 rows"):
        measure(SharedNoise(), TASK)
    failed = [finding for finding in check_estimator(SharedNoise) if finding.status == "failed"]
    assert failed and "check 'rows'" in failed[0].detail
