"""torch's random functions, served row by row from the source of `gradest.randomness`."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gradest.errors import ContractError
from gradest.randomness import draws

_MOST_CATEGORIES = 1024  # of a whole number, which is a category up to this range
_LONGEST = 64  # permutation, of which every step is a draw
# Operations that draw and that torch does not mark as such.
_UNMARKED = frozenset({"binomial", "random_", "_sample_dirichlet"})

_Arguments = Mapping[str, Any]  # of an operation, by the names in its schema


class redirected(TorchDispatchMode):
    """Within the block, torch's random functions draw from `gradest.randomness.draws()`.

        with redirected(logits):
            z = F.gumbel_softmax(logits, hard=True)

    Code that calls them, also in torch.distributions or in another library, is then reproducible
    by the seed of a measurement.  Bernoulli, multinomial and bounded integer draws are draws of
    categories, so that their outcomes can be enumerated, and equal those of `gradest.categorical`
    for the same source.

    `logits` [R, ...] has the rows of the block, and every draw needs an axis of R rows, or of a
    multiple of R with the entries of a row side by side.  It is the first axis, or `axis`: 1 for
    `dist.sample((S,))`, which returns [S, R, ...].  The matrix of torch.multinomial always has its
    rows in the first axis.

    Calls with a `generator` of their own are left as they are.  Raises ContractError for a draw
    without an axis of rows, and for an operation that draws and that is not served.
    """

    def __init__(self, logits: Tensor, axis: int = 0) -> None:
        super().__init__()
        self._rows, self._axis = len(logits), axis
        self._dtype, self._device = logits.dtype, logits.device

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: _Arguments | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if torch.Tag.nondeterministic_seeded not in func.tags and name not in _UNMARKED:
            return func(*args, **kwargs)
        given = _bound(func, args, kwargs)
        if given.get("generator") is not None:
            return func(*args, **kwargs)
        if name not in _SERVED or "out" in given:
            return _without_draws(func, args, kwargs)
        return _SERVED[name](self, given)

    def uniform(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Uniform noise on [0, 1), of the resolution that torch's has in this dtype."""
        u = self._noise("uniform", shape, dtype)
        if u.dtype == dtype:
            return u
        # Rounded down: to the nearest, a float64 just below 1 would become 1, which torch excludes.
        steps = 2 / torch.finfo(dtype).eps
        return (u * steps).floor().div(steps).to(dtype)

    def normal(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return self._noise("normal", shape, dtype).to(dtype)

    def exponential(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return self._noise("exponential", shape, dtype).to(dtype)

    def categories(self, logits: Tensor, samples: int = 1, axis: int | None = None) -> Tensor:
        """Indices for logits [..., K], of any shape with rows: [..., S] with S = `samples`."""
        first, back = self._rows_first(logits.shape[:-1], self._axis if axis is None else axis)
        moved = first(logits)  # [R, ..., K]
        index = draws().categories(moved.to(self._device), samples)  # [R, S, ...]
        return back(index.movedim(1, -1)).to(logits.device)

    def _noise(self, kind: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Noise in the wider of this dtype and that of the logits, as our own code draws it."""
        first, back = self._rows_first(shape, self._axis)
        wide = torch.promote_types(dtype, self._dtype)
        like = torch.empty(0, dtype=wide, device=self._device)
        rows_first = first(torch.empty(shape, device="meta")).shape
        return back(getattr(draws(), kind)(rows_first, like))

    def _rows_first(
        self, shape: Sequence[int], axis: int
    ) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        """A map that puts the rows of such a tensor into its first axis, and the map back."""
        if not shape and self._rows == 1:
            return (lambda x: x.unsqueeze(0)), (lambda x: x.squeeze(0))
        places = len(shape)
        if not -places <= axis < places or not shape[axis] or shape[axis] % self._rows:
            raise ContractError(self._no_rows(shape))
        each = shape[axis] // self._rows
        axis %= places

        def first(x: Tensor) -> Tensor:
            return x.unflatten(axis, (self._rows, each)).movedim((axis, axis + 1), (0, 1))

        def back(x: Tensor) -> Tensor:
            return x.movedim((0, 1), (axis, axis + 1)).flatten(axis, axis + 1).contiguous()

        if each > 1:
            return first, back
        return (lambda x: x.movedim(axis, 0)), (lambda x: x.movedim(0, axis).contiguous())

    def _no_rows(self, shape: Sequence[int]) -> str:
        where = "first axis" if self._axis == 0 else f"axis {self._axis}"
        reason = (
            f"redirected: a draw of shape {list(shape)} has no {where} of {self._rows} rows "
            "(check 'rows'): draw for every row"
        )
        others = [axis for axis, size in enumerate(shape) if size == self._rows]
        if others:
            return f"{reason}, or pass axis={others[0]}, if that axis has the rows"
        return f"{reason}; per_row calls code that draws for one row only"


def _bound(func: Any, args: Sequence[Any], kwargs: _Arguments) -> dict[str, Any]:
    """The arguments of a call by their names, with the defaults of the schema."""
    names = func._schema.arguments
    # A schema has its default dtype as the number that torch has for it inside.
    known = [x for x in names if x.has_default_value() and x.name != "dtype"]
    given = {x.name: x.default_value for x in known}
    return given | {x.name: value for x, value in zip(names, args, strict=False)} | dict(kwargs)


def _without_draws(func: Any, args: Sequence[Any], kwargs: _Arguments) -> Any:
    """Call an operation that may draw, such as attention with a dropout of zero.

    Raises ContractError, with the global state as it was, if it does draw.
    """
    before = _global_states()
    result = func(*args, **kwargs)
    after = _global_states()
    if all(map(torch.equal, before, after)):
        return result
    torch.set_rng_state(before[0])
    if len(before) > 1:
        torch.cuda.set_rng_state(before[1])
    raise ContractError(
        f"redirected: {func} is not served; of torch's random functions these are: "
        f"{', '.join(sorted(_SERVED))}"
    )


def _global_states() -> list[Tensor]:
    on_gpu = [torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else []
    return [torch.get_rng_state(), *on_gpu]


def _new(given: _Arguments, value: Callable[[Sequence[int], torch.dtype], Tensor]) -> Tensor:
    """A new tensor of the shape, dtype and device that a factory was asked for."""
    like = given.get("self")
    shape = given["size"] if like is None else like.shape
    dtype, device = given.get("dtype"), given.get("device")
    if like is None:
        dtype, device = dtype or torch.get_default_dtype(), device or torch.get_default_device()
    else:
        dtype, device = dtype or like.dtype, device or like.device
    return value(shape, dtype).to(device)


def _rand(mode: redirected, given: _Arguments) -> Tensor:
    return _new(given, mode.uniform)


def _randn(mode: redirected, given: _Arguments) -> Tensor:
    return _new(given, mode.normal)


def _uniform_(mode: redirected, given: _Arguments) -> Tensor:
    x, low, high = given["self"], given["from"], given["to"]
    return x.copy_(mode.uniform(x.shape, x.dtype) * (high - low) + low)


def _normal_(mode: redirected, given: _Arguments) -> Tensor:
    x = given["self"]
    return x.copy_(mode.normal(x.shape, x.dtype) * given["std"] + given["mean"])


def _normal(mode: redirected, given: _Arguments) -> Tensor:
    mean, std = given["mean"], given["std"]
    if "size" in given:
        return _new(given, lambda shape, dtype: mode.normal(shape, dtype) * std + mean)
    like = mean if isinstance(mean, Tensor) else std
    shape = torch.broadcast_shapes(*(x.shape for x in (mean, std) if isinstance(x, Tensor)))
    return mode.normal(shape, like.dtype).to(like.device) * std + mean


def _log_normal_(mode: redirected, given: _Arguments) -> Tensor:
    x = given["self"]
    return x.copy_((mode.normal(x.shape, x.dtype) * given["std"] + given["mean"]).exp())


def _exponential_(mode: redirected, given: _Arguments) -> Tensor:
    x = given["self"]
    return x.copy_(mode.exponential(x.shape, x.dtype) / given["lambd"])


def _geometric_(mode: redirected, given: _Arguments) -> Tensor:
    """The first success: ⌈E / −log(1 − p)⌉ with E ~ Exp(1)."""
    x = given["self"]
    rate = -math.log1p(-given["p"])
    return x.copy_((mode.exponential(x.shape, torch.float64) / rate).ceil().clamp(min=1.0))


def _cauchy_(mode: redirected, given: _Arguments) -> Tensor:
    x = given["self"]
    angle = math.pi * (mode.uniform(x.shape, torch.float64) - 0.5)
    return x.copy_(angle.tan() * given["sigma"] + given["median"])


def _coins(mode: redirected, shape: Sequence[int], p: Tensor | float, like: Tensor) -> Tensor:
    """Ones with probability p, in the dtype of `like`."""
    p = torch.as_tensor(p, dtype=torch.float64, device=like.device).expand(shape)
    return mode.categories(torch.stack([(-p).log1p(), p.log()], -1)).squeeze(-1).to(like)


def _bernoulli(mode: redirected, given: _Arguments) -> Tensor:
    x = given["self"]
    return _coins(mode, x.shape, given.get("p", x), x)


def _bernoulli_(mode: redirected, given: _Arguments) -> Tensor:
    return given["self"].copy_(_bernoulli(mode, given))


def _native_dropout(mode: redirected, given: _Arguments) -> tuple[Tensor, Tensor]:
    x, p = given["input"], given["p"]
    if given["train"] is False:
        return x.clone(), torch.ones_like(x, dtype=torch.bool)
    kept = _coins(mode, x.shape, 1 - p, x)
    return x * kept / (1 - p) if p < 1 else torch.zeros_like(x), kept.bool()


def _multinomial(mode: redirected, given: _Arguments) -> Tensor:
    weights, samples = given["self"], given["num_samples"]
    log_p = weights.double().log()  # [M, K]
    if given["replacement"]:
        return mode.categories(log_p, samples, axis=0)
    if samples > (weights > 0).sum(-1).min():
        raise ContractError(
            f"redirected: multinomial of {samples} samples without replacement needs as many "
            f"categories with a positive probability, got {int((weights > 0).sum(-1).min())}"
        )
    index = []
    for _ in range(samples):
        index.append(mode.categories(log_p, axis=0))  # [M, 1]
        log_p = log_p.scatter(-1, index[-1], -torch.inf)
    return torch.cat(index, -1)


def _whole(mode: redirected, shape: Sequence[int], low: int, high: int) -> Tensor:
    """Whole numbers from low to high − 1, which are categories where they are few."""
    count = high - low
    if count <= _MOST_CATEGORIES:
        equal = torch.zeros((), dtype=torch.float64, device=mode._device).expand(*shape, count)
        return low + mode.categories(equal).squeeze(-1)
    return low + (mode.uniform(shape, torch.float64) * count).long()


def _randint(mode: redirected, given: _Arguments) -> Tensor:
    low, high = int(given.get("low", 0)), int(given["high"])
    factory = "self" not in given
    dtype = given.get("dtype") or (torch.int64 if factory else given["self"].dtype)
    return _new({**given, "dtype": dtype}, lambda shape, d: _whole(mode, shape, low, high).to(d))


def _random_(mode: redirected, given: _Arguments) -> Tensor:
    x, low, high = given["self"], given.get("from", 0), given.get("to")
    if high is None:  # all numbers that the dtype represents
        digits = torch.finfo(x.dtype) if x.is_floating_point() else torch.iinfo(x.dtype)
        high = int(2 / digits.eps) + 1 if x.is_floating_point() else min(digits.max, 2**53)
    return x.copy_(_whole(mode, x.shape, low, high))


def _randperm(mode: redirected, given: _Arguments) -> Tensor:
    """A permutation by draws of one of the remaining numbers, for a single row."""
    n = given["n"]
    if mode._rows != 1 or n > _LONGEST:
        raise ContractError(
            f"redirected: randperm({n}) is served for one row, up to n = {_LONGEST}; per_row "
            "calls code that draws for one row only"
        )
    order = list(range(n))
    for place in range(n - 1):
        other = place + int(_whole(mode, (1,), 0, n - place))
        order[place], order[other] = order[other], order[place]
    return torch.tensor(order, dtype=given.get("dtype"), device=given["device"])


_SERVED: dict[str, Callable[[redirected, _Arguments], Any]] = {
    "bernoulli": _bernoulli,
    "bernoulli_": _bernoulli_,
    "cauchy_": _cauchy_,
    "exponential_": _exponential_,
    "geometric_": _geometric_,
    "log_normal_": _log_normal_,
    "multinomial": _multinomial,
    "native_dropout": _native_dropout,
    "normal": _normal,
    "normal_": _normal_,
    "rand": _rand,
    "rand_like": _rand,
    "randint": _randint,
    "randint_like": _randint,
    "randn": _randn,
    "randn_like": _randn,
    "random_": _random_,
    "randperm": _randperm,
    "uniform_": _uniform_,
}
