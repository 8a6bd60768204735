"""What a library replaces in torch when it is imported, kept out of everything else."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.distributions import Distribution

_INHERITED = object()  # stands for an attribute that the owner did not have itself
_OWNERS = (torch, torch.Tensor, torch.nn.functional, Distribution)


class Patches:
    """Replaced attributes of torch.

    patches = Patches()
    with patches.recorded():
        import library  # its replacements are undone after the block
    with patches.applied():
        library.function()  # and in effect within this one
    """

    def __init__(self) -> None:
        self._replaced: list[tuple[Any, str, Any, Any]] = []  # owner, name, before, after

    @contextmanager
    def recorded(self) -> Iterator[None]:
        before = [(owner, dict(vars(owner))) for owner in _OWNERS]
        yield
        self._replaced = [
            (owner, name, values.get(name, _INHERITED), value)
            for owner, values in before
            for name, value in vars(owner).items()
            if values.get(name, _INHERITED) is not value and not name.startswith("__")
        ]
        self._set(2)

    @contextmanager
    def applied(self) -> Iterator[None]:
        self._set(3)
        try:
            yield
        finally:
            self._set(2)

    def _set(self, place: int) -> None:
        for patch in self._replaced:
            owner, name, value = patch[0], patch[1], patch[place]
            if value is _INHERITED:
                delattr(owner, name)
            else:
                setattr(owner, name, value)
