"""The peak memory of a computation."""

import gc
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


def peak_bytes(call: Callable[[], object]) -> int:
    """The largest number of bytes that tensors created by the call hold at any one time.

    Every tensor that an operation returns counts, in the backward pass too, by its storage, so that
    views count once, until the last of them is freed.  Scratch memory of kernels does not count.
    """
    watch, collecting = _Watch(), gc.isenabled()
    gc.disable()  # when it frees which tensor depends on everything else in the process
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
        self._addresses: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        before = {_address(x) for x in _tensors((*args, *kwargs.values()))}
        result = func(*args, **kwargs)
        for tensor in _tensors((result,)):
            if _address(tensor) not in before:
                self._hold(tensor.untyped_storage())
        return result

    def _hold(self, storage: torch.UntypedStorage) -> None:
        address, size = storage.data_ptr(), storage.nbytes()
        if size == 0 or address in self._addresses:
            return
        self._addresses.add(address)
        self.held += size
        self.peak = max(self.peak, self.held)
        weakref.finalize(storage, self._release, address, size)

    def _release(self, address: int, size: int) -> None:
        self._addresses.discard(address)
        self.held -= size


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    """The tensors among arguments or results of an operation.

    Operations nest them in lists and tuples only; torch's walk through any container takes longer
    than most operations on a few numbers.
    """
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _address(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
