"""The memory that a computation holds at its peak."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_bytes(call: Callable[[], object]) -> int:
    """The most bytes that tensors made within the call held at any one time.

    Every tensor that an operation returns is counted, the backward pass's too, by its storage, so
    that views count once, until the last of them is gone.  A kernel's own scratch is not seen.
    """
    watch, collecting = _Watch(), gc.isenabled()
    gc.disable()  # what it frees, and when, hangs on everything else in the process
    try:
        with watch:
            call()
    finally:
        if collecting:
            gc.enable()
    return watch.peak


class _Watch(TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch would import its compiler to keep it off this mode, longer than most suites take.

        While a mode is on nothing is compiled anyway.
        """
        return False

    def __init__(self) -> None:
        super().__init__()
        self.held = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        before = {_address(x) for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and _address(tensor) not in before:
                self._hold(tensor.untyped_storage())
        return result

    def _hold(self, storage: torch.UntypedStorage) -> None:
        address, size = storage.data_ptr(), storage.nbytes()
        if size == 0 or address in self._known:
            return
        self._known.add(address)
        self.held += size
        self.peak = max(self.peak, self.held)
        weakref.finalize(storage, self._release, address, size)

    def _release(self, address: int, size: int) -> None:
        self._known.discard(address)
        self.held -= size


def _address(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
