"""Costs, logits, arguments and estimators, honest ones and others, and what `measure` makes of them.

An honest problem must be measured right: its truth is held against a sum over all codes that shares
no code with gradest.  All others must be refused in one line that names the cause.
"""

import itertools
import random as global_random
import signal
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from random import Random
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from gradest import Cost, Estimator, Problem, Task, make_estimator, measure
from gradest.categorical import log_prob, nabla, one_hot, sample
from gradest.randomness import draws

SECONDS = 30  # after which a measurement hangs
_DOUBLE, _SINGLE = torch.float64, torch.float32
_UNBIASED = ("rloo", "reinforce", "exact", "local_expectation", "disarm", "rebar")
_RELAXED = ("concrete", "gumbel_softmax", "straight_through", "rebar")
_SEVERAL = ("max", "min", "mean", "sum")

Function = Callable[[Tensor], Tensor]


@dataclass
class Setting:
    """Logits [B, N, K], weights and an honest cost of them; what differs from case to case."""

    random: Random
    logits: Tensor
    weights: Tensor
    scale: float
    offset: float
    used: set[str] = field(default_factory=set)

    def good(self, z: Tensor) -> Tensor:
        """Couples and curves; [..., N, K] -> [...]"""
        s = (self.weights.to(z) * z).sum((-2, -1))
        return self.offset + self.scale * (2 + s + s * s / 2)


class Case(NamedTuple):
    """What is measured, and how that must end: `honest` is E f's f, None where it is refused."""

    cost: Any
    honest: Function | None = None
    estimator: Any = None
    options: dict[str, Any] = {}
    logits: Any = None
    kl: bool = False  # of the prior that the cost has, beside E f
    exact: float = 1e-9  # relative, of the truth
    relaxable: bool = True


class _Posed(Task):
    """Any logits with any cost."""

    name = "posed"

    def __init__(self, logits: Any, cost: Any) -> None:
        self._problem = logits, cost

    def problem(self, batch: Any = None) -> Any:
        logits, cost = self._problem
        return Problem(logits, cost if isinstance(cost, Cost) else Cost(cost))


def examine(seed: int, count: int) -> Counter[str]:
    """How so many cases end: refused, right, traceback, wrong or hang; the last three are shown."""
    endings: Counter[str] = Counter()
    names = sorted(CASES)
    for number in range(count):
        random = Random(f"costs {seed} {number}")
        # Each kind in turn, so that few cases are of many kinds.
        name = names[(seed + number * _stride(len(names))) % len(names)]
        ending, told = _ended(name, random)
        endings[ending] += 1
        if ending in ("traceback", "wrong", "hang"):
            print(f"{ending}: costs {seed} {number}: {name}: {told}", flush=True)
    return endings


def _stride(size: int) -> int:
    """Coprime to the size, and far from one, so that neighbours in the list do not come together."""
    return next(step for step in range(37, 37 + size) if np.gcd(step, size) == 1)


def _ended(name: str, random: Random) -> tuple[str, str]:
    setting = _setting(random)
    case = CASES[name](setting)
    logits = setting.logits if case.logits is None else case.logits
    torch.manual_seed(random.randrange(2**32))
    np.random.seed(random.randrange(2**32))
    global_random.seed(random.randrange(2**32))
    states = _states()
    try:
        with _at_most(SECONDS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cost = case.cost() if case.cost in _MAKERS else case.cost
            task = _Posed(logits, cost)
            task.relaxable = case.relaxable
            options = {"replicates": random.choice((64, 500)), "seed": random.randrange(1000)}
            options |= {"progress": False, **case.options}
            estimator = case.estimator or make_estimator(random.choice(_UNBIASED[:3]))
            found = measure(estimator, task, **options)
    except _Hung:
        return "hang", f"after {SECONDS} s"
    except (ValueError, ArithmeticError) as error:
        said = str(error)
        if not said or "\n" in said or len(said) > 500:
            return "traceback", f"no line: {said[:200]!r}"
        if case.honest is not None:
            return "wrong", f"an honest case was refused: {said}"
        if states != _states():
            return "wrong", f"the global random state changed, and {said}"
        return "refused", said
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return "traceback", f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"
    if case.honest is None:
        row = found.row()
        return "wrong", f"measured: {row['verdict']}, bias {row['relative_bias']:.2g}"
    if states != _states():
        return "wrong", "the global random state changed"
    return _held_against(found, case, logits, cost)


def _held_against(found: Any, case: Case, logits: Tensor, cost: Any) -> tuple[str, str]:
    f = cost if isinstance(cost, Cost) else Cost(cost)
    value, gradient = _truth(case.honest, logits.detach().double(), f, case.kl)
    if found.truth is None:
        return "wrong", "no truth"
    seen = found.truth.gradients["log_alpha"].view_as(gradient)
    size = float(gradient.abs().max() + 1e-9 * value.abs().max())
    gap = float((seen - gradient).abs().max()) / size
    if not gap <= case.exact + 1e-12 * float(value.abs().max()) / size:
        return "wrong", f"the true gradient is {gap:.2g} off"
    gap = float((found.truth.value - value).abs().max() / value.abs().max().clamp(min=1e-9))
    if not gap <= case.exact:
        return "wrong", f"E f is {gap:.2g} off"
    row = found.row()
    if type(case.estimator).unbiased and row["verdict"] == "biased":
        return "wrong", f"an unbiased estimator is biased: {row['relative_bias']:.2g}"
    return "right", ""


def _truth(honest: Function, logits: Tensor, f: Cost, kl: bool) -> tuple[Tensor, Tensor]:
    """E f [B] and its gradient [B, N, K], by autograd through a sum over all codes."""
    points, latents, categories = logits.shape
    logits = logits.clone().requires_grad_()
    log_pi = logits.log_softmax(-1)
    numbers = torch.tensor(list(itertools.product(range(categories), repeat=latents)))
    z = torch.eye(categories, dtype=_DOUBLE)[numbers].expand(points, -1, -1, -1)  # [B, C, N, K]
    p = torch.where(z.bool(), log_pi.unsqueeze(1), 0.0).sum((-2, -1)).exp()  # [B, C]
    cost = honest(z.clone())
    if f.samples == 2:
        weight = -torch.stack([x for x in torch.broadcast_tensors(cost[:, :, None], cost[:, None])])
        cost = np.log(2) - weight.logsumexp(0)  # [B, C, C]
        value = (p[:, :, None] * p[:, None] * cost).sum((1, 2))
    else:
        value = torch.where(p > 0, p * cost, 0.0).sum(1)
    if kl:
        log_p = f.prior.double().log_softmax(-1)
        pi = log_pi.exp()
        value = value + torch.where(pi > 0, pi * (log_pi - log_p), 0.0).sum((-2, -1))
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    return value.detach(), gradient.nan_to_num(0.0)


class _Hung(BaseException):
    """Not an Exception, so that nobody takes it for one of a cost."""


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    def give_up(number: int, frame: FrameType | None) -> None:
        raise _Hung

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _states() -> tuple[bytes, Any, Any]:
    numpys = np.random.get_state()
    return (
        torch.get_rng_state().numpy().tobytes(),
        (numpys[1].tobytes(), numpys[2:]),
        global_random.getstate(),
    )


def _setting(random: Random) -> Setting:
    points, latents, categories = (random.randint(*ends) for ends in ((1, 3), (1, 3), (2, 4)))
    draw = torch.Generator().manual_seed(random.randrange(2**32))
    logits, weights = (
        torch.randn(shape, generator=draw, dtype=_DOUBLE)
        for shape in ((points, latents, categories), (latents, categories))
    )
    return Setting(
        random, logits, weights, random.choice((1.0, 1.0, 0.01, 50.0)), random.choice((0.0, 0.0, 1e3))
    )


# Costs that are no function of z.


def _noise(draw: Callable[[Tensor], Any], setting: Setting) -> Case:
    size = setting.random.choice((1.0, 0.1))
    return Case(lambda z: setting.good(z) + setting.scale * size * draw(setting.good(z)))


def _own_numpy() -> Callable[[Tensor], Any]:
    generator = np.random.default_rng(0)
    return lambda cost: torch.from_numpy(generator.standard_normal(tuple(cost.shape))).to(cost)


def _own_torch() -> Callable[[Tensor], Any]:
    generator = torch.Generator().manual_seed(0)
    return lambda cost: torch.randn(cost.shape, generator=generator).to(cost)


def _counted(first: int, step: float) -> Callable[[Setting], Case]:
    def made(setting: Setting) -> Case:
        calls = itertools.count()
        return Case(lambda z: setting.good(z) * (1 + step * max(0, next(calls) - first)))

    return made


def _remembering(setting: Setting) -> Case:
    last = [0.0]

    def cost(z: Tensor) -> Tensor:
        value = setting.good(z) + last[0]
        last[0] = 0.1 * float(setting.good(z).flatten()[0])
        return value

    return Case(cost)


def _seeding(setting: Setting) -> Case:
    def cost(z: Tensor) -> Tensor:
        torch.manual_seed(0)
        return setting.good(z) + torch.rand((), dtype=z.dtype)

    return Case(cost)


def _of_module(module: nn.Module, passed: bool) -> Callable[[Setting], Case]:
    """A module in train mode, passed with the cost or in its closure."""

    def made(setting: Setting) -> Case:
        size = setting.weights.numel()
        part = module if not isinstance(module, nn.BatchNorm1d) else nn.BatchNorm1d(size)

        def through(z: Tensor, net: Function) -> Tensor:
            return setting.good(net(z.reshape(-1, size)).view(z.shape))

        part = part.double()
        return Case(Cost(through, part) if passed else lambda z: through(z, part))

    return made


def _of_batch(change: Callable[[Tensor], Tensor]) -> Callable[[Setting], Case]:
    return lambda setting: Case(lambda z: change(1 + setting.good(z) / setting.scale))


def _of_points(change: Callable[[Tensor], Tensor]) -> Callable[[Setting], Case]:
    def made(setting: Setting) -> Case:
        logits = torch.cat([setting.logits, setting.logits.roll(1, -1)])
        return Case(lambda z: change(setting.good(z)), logits=logits)

    return made


def _in_place(change: Callable[[Tensor, Tensor], Any]) -> Callable[[Setting], Case]:
    def made(setting: Setting) -> Case:
        def cost(z: Tensor) -> Tensor:
            change(z, setting.weights.to(z) + 2)
            return setting.good(z)

        return Case(cost, estimator=make_estimator(setting.random.choice(("rloo", "concrete"))))

    return made


NO_FUNCTIONS: dict[str, Callable[[Setting], Case]] = {
    "torch noise": partial(_noise, torch.rand_like),
    "one torch number": partial(_noise, lambda cost: torch.rand((), dtype=cost.dtype)),
    "numpy noise": partial(
        _noise, lambda cost: torch.from_numpy(np.random.rand(*cost.shape)).to(cost)
    ),
    "one numpy number": partial(_noise, lambda cost: np.random.rand()),
    "random number": partial(_noise, lambda cost: global_random.random()),
    "own numpy generator": lambda setting: _noise(_own_numpy(), setting),
    "fresh numpy generator": partial(_noise, lambda cost: np.random.default_rng().random()),
    "own torch generator": lambda setting: _noise(_own_torch(), setting),
    "draws of gradest": partial(_noise, lambda cost: draws().uniform(cost.shape, cost)),
    "clock": partial(_noise, lambda cost: time.perf_counter() % 1),
    "seeding": _seeding,
    "counter": _counted(0, 0.01),
    "slow counter": _counted(0, 1e-6),
    "late counter": _counted(12, 0.05),
    "memory": _remembering,
    "dropout function": lambda s: Case(lambda z: s.good(nn.functional.dropout(z, 0.3))),
    "dropout module": _of_module(nn.Dropout(0.3), False),
    "dropout passed": _of_module(nn.Dropout(0.3), True),
    "batch norm module": _of_module(nn.BatchNorm1d(1), False),
    "batch norm passed": _of_module(nn.BatchNorm1d(1), True),
    **{
        f"over the {name}": _of_batch(lambda c, name=name: c / (1 + getattr(c, name)().abs()))
        for name in _SEVERAL
    },
    "over the std": _of_batch(lambda c: c / (1 + c.std(unbiased=False))),
    "over the norm": _of_batch(lambda c: c / c.norm()),
    "rank": _of_batch(lambda c: c.flatten().argsort().argsort().view(c.shape).to(c)),
    "softmax of the batch": _of_batch(lambda c: c.flatten().softmax(0).view(c.shape)),
    "cumulated": _of_batch(lambda c: c.flatten().cumsum(0).view(c.shape)),
    "less the first": _of_batch(lambda c: c - 0.5 * c.flatten()[0]),
    "reversed": _of_batch(lambda c: c.flatten().flip(0).view(c.shape)),
    "size of the batch": _of_batch(lambda c: c * c.numel()),
    "last axis": _of_batch(lambda c: c - 0.5 * c.mean(-1, keepdim=True)),
    "max far off": _of_batch(lambda c: 1e5 + c / c.max()),
    "points mean": _of_points(lambda c: c + c.mean(0, keepdim=True)),
    "points rolled": _of_points(lambda c: c + 0.3 * c.roll(1, 0)),
    "points max": _of_points(lambda c: c / (1 + c.abs().amax(0, keepdim=True))),
    "points two apart": _of_points(lambda c: c + 0.3 * c.roll(2, 0) * (len(c) > 2) + c.roll(1, 0)),
    "first point": _of_points(lambda c: c + 0.1 * c[:1]),
    "z *= w": _in_place(lambda z, w: z.mul_(w)),
    "z[...] = ": _in_place(lambda z, w: z.__setitem__((..., 0), w[0, 0])),
    "z.zero_()": _in_place(lambda z, w: z.zero_()),
    "z.data *= w": _in_place(lambda z, w: z.data.mul_(w)),
    "z.numpy()": _in_place(lambda z, w: np.multiply(a := z.detach().numpy(), w.numpy(), out=a)),
    "a view of z": _in_place(lambda z, w: z[..., 0].add_(1)),
}


# What a cost returns.


def _returning(change: Callable[[Tensor], Any]) -> Callable[[Setting], Case]:
    return lambda setting: Case(lambda z: change(setting.good(z)))


def _cut(change: Callable[[Setting, Tensor], Tensor]) -> Callable[[Setting], Case]:
    """No gradient, for an estimator that needs one."""
    return lambda setting: Case(
        lambda z: change(setting, z), estimator=make_estimator(setting.random.choice(_RELAXED[:3]))
    )


def _looked_up(setting: Setting, z: Tensor) -> Tensor:
    return setting.good(one_hot(z.argmax(-1), z))


def _without_grad(setting: Setting, z: Tensor) -> Tensor:
    with torch.no_grad():
        return setting.good(z)


def _odd(value: float) -> Callable[[Setting], Case]:
    """NaN or infinite at codes whose first latent is in category 0."""

    def made(setting: Setting) -> Case:
        def cost(z: Tensor) -> Tensor:
            return torch.where(z[..., 0, 0] > 0.5, value, setting.good(z))

        return Case(cost, estimator=make_estimator(setting.random.choice(("rloo", "exact"))))

    return made


VALUES: dict[str, Callable[[Setting], Case]] = {
    "None": _returning(lambda c: None),
    "float": _returning(lambda c: float(c.sum())),
    "int": _returning(lambda c: 3),
    "tuple": _returning(lambda c: (c, c)),
    "list": _returning(lambda c: list(c)),
    "dict": _returning(lambda c: {"loss": c}),
    "str": _returning(lambda c: "cost"),
    "numpy": _returning(lambda c: c.detach().numpy()),
    "scalar": _returning(lambda c: c.sum()),
    "kept axis": _returning(lambda c: c.unsqueeze(-1)),
    "flat": _returning(lambda c: c.flatten()),
    "one less": _returning(lambda c: c.sum(-1)),
    "a latent each": lambda s: Case(lambda z: (s.weights.to(z) * z).sum(-1)),
    "z itself": lambda s: Case(lambda z: z),
    "float32": _returning(lambda c: c.float()),
    "half": _returning(lambda c: c.half()),
    "bfloat16": _returning(lambda c: c.bfloat16()),
    "whole": _returning(lambda c: c.long()),
    "bool": _returning(lambda c: c > 2),
    "complex": _returning(lambda c: c.to(torch.complex128)),
    "sparse": _returning(lambda c: c.detach().to_sparse()),
    "raises": _returning(lambda c: 1 / 0),
    "raises lines": _returning(lambda c: (_ for _ in ()).throw(RuntimeError("two\nlines"))),
    "float32 module": lambda s: Case(
        partial(_linear, nn.Linear(s.weights.numel(), 1).requires_grad_(False))
    ),
    "float32 constant": lambda s: Case(lambda z: z.flatten(-2) @ s.weights.float().flatten()),
    "detached": _cut(lambda s, z: s.good(z.detach())),
    "looked up": _cut(_looked_up),
    "no_grad": _cut(_without_grad),
    "compared": _cut(lambda s, z: s.good((z > 0.5).to(z))),
    "NaN": _odd(float("nan")),
    "inf": _odd(float("inf")),
    "-inf": _odd(-float("inf")),
    "log 0": lambda s: Case(lambda z: s.good(z) + z[..., 0, 0].log()),
    "0 / 0": lambda s: Case(lambda z: s.good(z) + z[..., 0, 0] / z[..., 0, 0]),
    "root of less": lambda s: Case(lambda z: s.good(z) + (z[..., 0, 0] - 0.5).sqrt()),
}


def _linear(net: nn.Module, z: Tensor) -> Tensor:
    return net(z.flatten(-2)).squeeze(-1)


# Logits and arguments.


def _posed(change: Callable[[Tensor], Any]) -> Callable[[Setting], Case]:
    return lambda setting: Case(setting.good, logits=change(setting.logits))


def _with(x: Tensor, place: tuple[Any, ...], value: float) -> Tensor:
    x = x.clone()
    x[place] = value
    return x


LOGITS: dict[str, Callable[[Setting], Case]] = {
    "logits [N, K]": _posed(lambda x: x[0]),
    "logits [K]": _posed(lambda x: x[0, 0]),
    "logits []": _posed(lambda x: x[0, 0, 0]),
    "logits [1, B, N, K]": _posed(lambda x: x[None]),
    "logits list": _posed(lambda x: x.tolist()),
    "logits numpy": _posed(lambda x: x.numpy()),
    "logits tuple": _posed(lambda x: tuple(x)),
    "logits str": _posed(lambda x: "logits"),
    "logits long": _posed(lambda x: x.long()),
    "logits bool": _posed(lambda x: x > 0),
    "logits complex": _posed(lambda x: x.to(torch.complex128)),
    "logits N = 0": _posed(lambda x: x[:, :0]),
    "logits B = 0": _posed(lambda x: x[:0]),
    "logits K = 0": _posed(lambda x: x[..., :0]),
    "logits K = 1": _posed(lambda x: x[..., :1]),
    "logits masked": _posed(lambda x: _with(x, (0, 0), -torch.inf)),
    "logits all masked": _posed(lambda x: torch.full_like(x, -torch.inf)),
    "logits NaN": _posed(lambda x: _with(x, (0, -1, -1), torch.nan)),
    "logits inf": _posed(lambda x: _with(x, (-1, 0, 0), torch.inf)),
}

ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "adapt_steps": (-1, 2.5, "2", True, [1], float("nan")),
    "enumerate_draws": ("yes", 0, 1, "", 0.5, []),
    "seed": (None, 1.5, 2**70, -1, True, "0", 10**400, [0]),
    "dtype": (torch.int64, torch.bool, torch.complex64, "float32", None, float, np.float32),
    "device": ("cuda:99", "gpu", None, 1.5, "", "tpu", [], "cpu:x"),
    "replicates": (0, 63, -1, 64.0, None, "100", True, float("nan"), 10**400),
    "tolerant": ("yes", 1, 0, None),
    "precision": (0.01, {"variance": 0.05}, "high"),
    "reference": (0.0, "rloo", {}),
}
COST_OPTIONS: dict[str, tuple[Any, ...]] = {
    "fn": (None, 3, "f", torch.zeros(2)),
    "kl": ("Sampled", "EXACT", "", 1, True, [], "sampled "),
    "samples": (0, -1, 1.5, "2", None, True),
    "points": (0, -1, 1.5, "2"),
    "prior": ("uniform", 0.5, [[0.0, 0.0]], np.zeros((1, 2)), torch.zeros(7, 9)),
    "dtype": ("float32", torch.int64, 32),
    "module": (3, "net", nn.Linear),
}


def _argument(name: str, setting: Setting) -> Case:
    return Case(setting.good, options={name: setting.random.choice(ARGUMENTS[name])})


def _cost_option(name: str, setting: Setting) -> Case:
    value = setting.random.choice(COST_OPTIONS[name])
    if name == "fn":
        return Case(_maker(lambda: Cost(value)))
    options = {name: value}
    if name == "kl":
        options["prior"] = torch.zeros_like(setting.logits[0])
    if name == "module":
        return Case(_maker(lambda: Cost(lambda z, net: setting.good(z), **options)))
    return Case(_maker(lambda: Cost(setting.good, **options)))


_MAKERS: list[Callable[[], Any]] = []  # of costs, whose making is part of the case


def _maker(make: Callable[[], Any]) -> Callable[[], Any]:
    _MAKERS[:] = [make]
    return make


# Estimators whose rows share noise.


class _Score(Estimator):
    """A score function of the codes of a subclass."""

    name = "score"

    def __call__(self, logits: Tensor, f: Cost) -> Tensor:
        z = self.codes(logits)
        cost = f(z)
        return cost + cost.detach() * nabla(log_prob(logits, z))

    def codes(self, logits: Tensor) -> Tensor:
        raise NotImplementedError


class _OneForAll(_Score):
    def codes(self, logits: Tensor) -> Tensor:
        return sample(logits[:1]).expand(logits.shape)


class _Broadcast(_Score):
    def codes(self, logits: Tensor) -> Tensor:
        noise = draws().exponential((1, *logits.shape[1:]), logits)
        return one_hot((logits.detach() - noise.log()).argmax(-1), logits)


class _Partly(_Score):
    def codes(self, logits: Tensor) -> Tensor:
        noise = draws().exponential((1, *logits.shape[1:]), logits)
        more = draws().exponential(logits.shape, logits)
        return one_hot((logits.detach() - 0.5 * (noise.log() + more.log())).argmax(-1), logits)


class _Reseeded(_Score):
    def codes(self, logits: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        index = torch.multinomial(logits.detach().softmax(-1)[0], 1, generator=generator)
        return one_hot(index.squeeze(-1), logits).expand(logits.shape)


class _InReset(_Score):
    def reset(self, logits: Tensor) -> None:
        self._noise = draws().exponential((1, *logits.shape[1:]), logits)

    def codes(self, logits: Tensor) -> Tensor:
        return one_hot((logits.detach() - self._noise.to(logits).log()).argmax(-1), logits)


class _OwnShared(_Score):
    def reset(self, logits: Tensor) -> None:
        self._generator = torch.Generator().manual_seed(0)

    def codes(self, logits: Tensor) -> Tensor:
        noise = torch.rand(logits.shape[1:], generator=self._generator)
        return one_hot((logits.detach() - (-noise.log()).log().to(logits)).argmax(-1), logits)


SHARED: dict[str, type[Estimator]] = {
    "one draw for all rows": _OneForAll,
    "noise broadcast": _Broadcast,
    "noise partly shared": _Partly,
    "noise of reset": _InReset,
    "noise of an own generator, shared": _OwnShared,
}


# Honest ones.


def _honest(**options: Any) -> Callable[[Setting], Case]:
    def made(setting: Setting) -> Case:
        estimator = make_estimator(setting.random.choice(_UNBIASED[:4]))
        return Case(setting.good, setting.good, estimator, **options)

    return made


def _built(
    make: Callable[[Setting], tuple[Any, Function]], relaxed: bool = True, **options: Any
) -> Callable[[Setting], Case]:
    def made(setting: Setting) -> Case:
        names = _UNBIASED[:4] + (_RELAXED[:3] if relaxed else ())
        estimator = make_estimator(setting.random.choice(names))
        return Case(*make(setting), estimator, **options)

    return made


def _network(setting: Setting, dtype: torch.dtype, *more: nn.Module) -> nn.Module:
    size = setting.weights.numel()
    with torch.random.fork_rng():
        torch.manual_seed(setting.random.randrange(2**32))
        net = nn.Sequential(nn.Linear(size, 5), nn.Tanh(), *more, nn.Linear(5, 1))
    return net.to(dtype).requires_grad_(False)


def _in_double(net: nn.Module) -> Function:
    """The same network in float64, of its own."""
    wide = nn.Sequential(*net)
    wide.load_state_dict(net.state_dict())
    from copy import deepcopy

    return partial(_linear, deepcopy(net).double())


def _closure(dtype: torch.dtype, *more: nn.Module) -> Callable[[Setting], tuple[Any, Function]]:
    def made(setting: Setting) -> tuple[Any, Function]:
        net = _network(setting, dtype, *more).eval()
        return partial(_linear, net), _in_double(net)

    return made


def _passed(*more: nn.Module) -> Callable[[Setting], tuple[Any, Function]]:
    def made(setting: Setting) -> tuple[Any, Function]:
        net = _network(setting, _SINGLE, *more).eval()
        return Cost(lambda z, follow: _linear(follow, z), net), _in_double(net)

    return made


def _converted(setting: Setting) -> tuple[Any, Function]:
    net = _network(setting, _SINGLE)
    return Cost(partial(_linear, net), dtype=_SINGLE), _in_double(net)


def _by_hand(setting: Setting) -> tuple[Any, Function]:
    net = _network(setting, _SINGLE)
    return (lambda z: _linear(net, z.float()).to(z) * 3.7), (lambda z: 3.7 * _in_double(net)(z))


def _table(setting: Setting) -> tuple[Any, Function]:
    values = setting.weights.exp()

    def cost(z: Tensor) -> Tensor:
        index = z.argmax(-1, keepdim=True)
        table = values.to(z).expand(z.shape)
        return table.gather(-1, index).squeeze(-1).prod(-1)

    return cost, lambda z: (values * z).sum(-1).prod(-1)


def _with_prior(setting: Setting) -> Case:
    kl = setting.random.choice(("exact", "sampled"))
    prior = setting.weights.roll(1, -1)
    cost = Cost(setting.good, prior=prior, kl=kl, logits=setting.logits)
    estimator = make_estimator(setting.random.choice(_UNBIASED[:3]))
    return Case(cost, setting.good, estimator, kl=True)


def _bound(setting: Setting) -> Case:
    cost = Cost(lambda z: setting.good(z) / setting.scale, samples=2)
    logits = setting.logits[:, :2]
    setting.weights = setting.weights[:2]
    estimator = make_estimator(setting.random.choice(("rloo", "vimco", "exact")))
    return Case(cost, lambda z: setting.good(z) / setting.scale, estimator, logits=logits)


def _masked(setting: Setting) -> Case:
    logits = setting.logits
    if logits.shape[-1] > 2:
        logits = _with(logits, (0, 0, 0), -torch.inf)
    return Case(setting.good, setting.good, make_estimator("rloo"), logits=logits)


HONEST: dict[str, Callable[[Setting], Case]] = {
    "good": _honest(),
    "good, drawn": _honest(options={"enumerate_draws": False, "replicates": 2000}),
    "good in float32": _honest(options={"dtype": _SINGLE}, exact=1e-5),
    "masked": _masked,
    "constant": _built(lambda s: (lambda z: s.good(0 * z), lambda z: s.good(0 * z))),
    "cubic": _built(lambda s: (lambda z: s.good(z) ** 3 / 1e6, lambda z: s.good(z) ** 3 / 1e6)),
    "looked up, not relaxable": _built(_table, relaxed=False, relaxable=False),
    "network": _built(_closure(_DOUBLE)),
    "network with layer norm": _built(_closure(_DOUBLE, nn.LayerNorm(5))),
    "network with dropout, eval": _built(_closure(_DOUBLE, nn.Dropout(0.5))),
    "network with batch norm, eval": _built(_batch_normed := _closure(_DOUBLE, nn.Softplus())),
    "network passed": _built(_passed(), exact=1e-9),
    "network of float32 in float32": _built(
        _closure(_SINGLE), options={"dtype": _SINGLE}, exact=1e-4
    ),
    "network of float32, converted": _built(_converted, exact=1e-4),
    "network of float32, by hand": _built(_by_hand, exact=1e-4),
    "prior": _with_prior,
    "bound": _bound,
}

CASES: dict[str, Callable[[Setting], Case]] = {
    **NO_FUNCTIONS,
    **VALUES,
    **LOGITS,
    **{f"{name} = ": partial(_argument, name) for name in ARGUMENTS},
    **{f"Cost({name} = )": partial(_cost_option, name) for name in COST_OPTIONS},
    **{
        name: lambda setting, cls=cls: Case(setting.good, estimator=cls())
        for name, cls in SHARED.items()
    },
    **HONEST,
}
