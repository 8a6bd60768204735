"""Rows for estimators from logits with any leading axes, and functions of the latter as costs."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gradest.costs import Cost
from gradest.errors import CostError, UsageError

Context = Callable[[], AbstractContextManager]

_PRECISE = (torch.float32, torch.float64)


def as_rows(logits: Tensor) -> Tensor:
    """[..., N, K] or [K] -> [R, N, K], in float32 where half precision has too few digits.

    Raises UsageError for logits that are not floating-point [..., K] with K of at least 2.
    """
    if isinstance(logits, Tensor) and logits.ndim == 3 and logits.dtype in _PRECISE:
        return logits
    _check_logits(logits)
    precise = logits if logits.dtype in _PRECISE else logits.float()
    return precise.reshape(-1, *(logits.shape[-2:] if logits.ndim > 1 else (1, logits.shape[-1])))


def _check_logits(logits: Tensor) -> None:
    if not isinstance(logits, Tensor):
        raise UsageError(f"expected logits as a torch.Tensor, got a {type(logits).__name__}")
    if not logits.is_floating_point() or logits.ndim == 0 or logits.shape[-1] < 2:
        raise UsageError(
            "expected floating logits of shape [..., N, K] or [K] with at least 2 categories, "
            f"got {logits.dtype} {list(logits.shape)}"
        )


class Axes(NamedTuple):
    """The axes of logits [..., N, K], or [K], that are flattened to rows [R, N, K]."""

    leading: torch.Size
    latents: bool  # whether there is an axis of latents
    dtype: torch.dtype

    @classmethod
    def of(cls, logits: Tensor) -> "Axes":
        """Raises UsageError as `as_rows` does."""
        _check_logits(logits)
        return cls(logits.shape[:-2], logits.ndim > 1, logits.dtype)

    def restore(self, value: Tensor) -> Tensor:
        """A number for each row, [R] -> [...]."""
        return value if len(self.leading) == 1 else value.reshape(self.leading)

    def codes(self, z: Tensor) -> Tensor:
        """[R, S..., N, K] -> [..., S..., N, K] in the dtype of the logits; without N for [K]."""
        if not self.latents:
            z = z.squeeze(-2)
        middle = z.shape[1 : z.ndim - (1 + self.latents)]
        return z.reshape(*self.leading, *middle, *z.shape[1 + len(middle) :]).to(self.dtype)

    def costs(self, value: Tensor, z: Tensor) -> Tensor:
        """The values of f, [..., S...], for the codes z [R, S..., N, K]: -> [R, S...]."""
        return value.reshape(z.shape[:-2]).to(z.dtype)

    def shape(self, z: Tensor) -> torch.Size:
        """The shape of f(z) for the codes z [R, S..., N, K]: [..., S...]."""
        return self.leading + z.shape[1:-2]

    def cost(self, f: Callable[..., Tensor], rows: Tensor, outside: Context = nullcontext) -> Cost:
        """f as a cost of the rows; it is called in the context `outside`.

        Raises UsageError for an f that is not a function, or a deep cost of other than [B, N, K].
        """
        if not isinstance(f, Cost):
            return FunctionCost(f, self, outside)
        if f.deep:
            if len(self.leading) != 1:
                raise UsageError(
                    f"expected logits [B, N, K] for a deep cost, got {len(self.leading) + 2} axes"
                )
            return f.replicated(None, rows)
        fn = f.fn

        def of_rows(z: Tensor, *module: Any) -> Tensor:
            with outside():
                value = fn(self.codes(z), *module)
            return self.costs(_checked(value, self.shape(z), z), z)

        return f.changed(of_rows).replicated(None, rows)


class FunctionCost(Cost):
    """A plain function as a cost of rows, without counts of its evaluations."""

    def __init__(self, f: Callable[[Tensor], Tensor], axes: Axes, outside: Context) -> None:
        super().__init__(f)
        self._axes, self._outside = axes, outside

    def __call__(self, z: Tensor) -> Tensor:
        with self._outside():
            value = self.fn(self._axes.codes(z))
        return self._axes.costs(_checked(value, self._axes.shape(z), z), z)

    def frozen(self, z: Tensor) -> Tensor:
        return self(z)


def _checked(value: Any, shape: torch.Size, z: Tensor) -> Tensor:
    """The value of f; raises CostError unless it is one number for each code."""
    if not isinstance(value, Tensor) or value.shape != shape:
        got = f"shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise CostError(
            f"expected f to return a torch.Tensor of shape {list(shape)}, one number for each "
            f"code, got {got}"
        )
    if z.requires_grad and torch.is_grad_enabled() and not value.requires_grad:
        raise CostError(
            "expected an f with a gradient with respect to z, which the estimator uses, got one "
            "without; argmax, comparisons, detach, item and no_grad cut it"
        )
    return value
