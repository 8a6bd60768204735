"""What a trial of a cell would take in memory, found without taking it.

A knob such as `samples: 1000000000` asks for more than the machine has, and the operating system
may end the whole process instead of saying no.  Only members of a suite with a large whole number
among their knobs are looked at, so that others cost nothing.
"""

import os
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from gradest import formula
from gradest.contracts import Estimator, Task
from gradest.errors import PluginError
from gradest.knobs import Knobs
from gradest.measuring.replicator import Replicator
from gradest.randomness import Draws, drawing_from
from gradest.running.suite_file import Member, SuiteFile, SuiteSource
from gradest.text import shortened

_LARGE = {Estimator: 2**14, Task: 2**20}  # whole numbers below take no trial
_ROWS = 4  # replicates: a measurement begins with no fewer
_SECONDS = 2.0  # for which allocations of one task are foreseen; it may go on to train networks
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class TooLarge(MemoryError):
    """More memory than there is: `needed` bytes at least."""

    def __init__(self, needed: int) -> None:
        super().__init__(f"needs at least {needed / 1e9:,.0f} GB of memory")
        self.needed = needed


def refuse_too_large(
    source: SuiteSource,
    settings: SuiteFile,
    tasks: Sequence[Member],
    estimators: Sequence[Member],
    device: str,
) -> None:
    """Raises SuiteError, naming the knob, for a member that needs more memory than there is.

    Trials stop after a few seconds: what is left unseen may fail as a cell.
    """
    limit = memory_of(device)
    rows, itemsize = (settings.training.batch, 4) if settings.training else (_ROWS, 8)
    large = {id(m): knob for m in (*tasks, *estimators) if (knob := large_knob(m.built))}
    for member in estimators:
        if id(member) in large:
            needed = estimator_bytes(member.built, rows, limit, itemsize)
            _refuse(source, member, large[id(member)], needed, limit)
    if settings.training:  # whose batches and networks are made by the cell
        return
    deadline = time.monotonic() + _SECONDS
    for task in tasks:
        if id(task) in large and time.monotonic() < deadline:
            needed = task_bytes(task.built, limit)
            _refuse(source, task, large[id(task)], needed, limit)
    for estimator, task in product(estimators, tasks):
        named = next((m for m in (estimator, task) if id(m) in large), None)
        if named is not None and time.monotonic() < deadline:
            needed = pair_bytes(estimator.built, task.built, limit)
            _refuse(source, named, large[id(named)], needed, limit)


def _refuse(source: SuiteSource, member: Member, knob: str, needed: int | None, limit: int) -> None:
    if needed is None:
        return
    raise source.error(
        member.values.get(knob, member.place),
        f"{member.built.name}: {knob} = {shortened(member.built.knobs[knob])}: needs at least "
        f"{needed / 1e9:,.0f} GB of memory, and there are {limit / 1e9:,.0f} GB",
    )


def memory_of(device: str) -> int:
    """Bytes of memory of the machine, as its container limits it, or of the accelerator."""
    if device != "cpu":
        return torch.cuda.get_device_properties(device).total_memory
    sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in map(Path, _LIMITS):
        if path.exists() and (text := path.read_text().strip()).isdigit():
            sizes.append(int(text))
    return min(sizes)


def large_knob(member: Knobs) -> str | None:
    """The knob with the largest whole number, if that is large enough to look at."""
    whole = {k: max(_integers(v), default=0) for k, v in member.knobs.items()}
    name = max(whole, key=whole.__getitem__, default=None)
    least = next(least for kind, least in _LARGE.items() if isinstance(member, kind))
    return name if name is not None and whole[name] >= least else None


def task_bytes(task: Task, limit: int) -> int | None:
    """Bytes that posing the task's problem needs where these are more than `limit`, else None."""

    def trial() -> None:
        with drawing_from(Draws.seeded(0)), _Foreseeing(limit):
            task.problem()

    return _refused(trial)


def estimator_bytes(estimator: Estimator, rows: int, limit: int, itemsize: int = 8) -> int | None:
    """Bytes of the codes that one call with `rows` rows evaluates f at, where more than `limit`.

    For the smallest latents there can be, which bounds it from below on every task.
    """
    sizes = {"N": 1, "K": 2, "m": 1, **estimator.knobs}
    try:
        evaluations = formula.value(estimator.evaluations, sizes, estimator.name)
    except PluginError:  # a formula of knobs that are no numbers, or none at all, bounds nothing
        return None
    needed = rows * evaluations * 2 * itemsize
    return needed if needed > limit else None


def pair_bytes(estimator: Estimator, task: Task, limit: int) -> int | None:
    """Bytes that the first replicates need, where these are more than `limit`, else None.

    The estimator's state is built; tensors without memory stand for all that one call makes.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode  # takes a second to import

    def trial() -> None:
        with drawing_from(Draws.seeded(0)):
            with _Foreseeing(limit):
                replicator = Replicator(estimator, task)
            with FakeTensorMode(allow_non_fake_inputs=True), _Counting(limit):
                replicator(_ROWS)

    return _refused(trial)


def _refused(call: Callable[[], object]) -> int | None:
    try:
        call()
    except TooLarge as error:
        return error.needed
    except Exception:  # whatever else it dies of, its cells die of too, and then it is told
        return None
    return None


def _integers(value: Any) -> Iterator[int]:
    return (x for x in tree_leaves(value) if isinstance(x, int) and not isinstance(x, bool))


class _Counting(TorchDispatchMode):
    """Raises TooLarge once the tensors that operations made hold more than `limit` bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit, self._held = limit, 0
        self._users: dict[int, int] = {}  # of each storage: the tensors that hold it

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            self._hold(tensor)
        return result

    def _hold(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        self._users[key] = self._users.get(key, 0) + 1
        self._held += size if self._users[key] == 1 else 0
        weakref.finalize(tensor, self._release, key, size)
        if self._held > self._limit:
            raise TooLarge(self._held)

    def _release(self, key: int, size: int) -> None:
        self._users[key] -= 1
        if not self._users[key]:
            del self._users[key]
            self._held -= size


class _Foreseeing(TorchDispatchMode):
    """Raises TooLarge before an operation whose result would hold more than `limit` bytes.

    Operations run for real, so that code that looks at numbers takes the way that it will take.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit, self._deadline = limit, time.monotonic() + _SECONDS

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given = (args, kwargs or {})
        if time.monotonic() < self._deadline and self._may_be_large(given):
            needed = _bytes_of_result(func, *given)
            if needed > self._limit:
                raise TooLarge(needed)
        return func(*args, **(kwargs or {}))

    def _may_be_large(self, given: Any) -> bool:
        """No result is larger than all sizes multiplied, which costs little to know."""
        sizes = [tensor.numel() for tensor in _tensors(given)]
        return prod(filter(None, [*sizes, *map(abs, _integers(given))])) * 16 > self._limit


def _bytes_of_result(func: Any, args: Any, kwargs: Any) -> int:
    """What the operation's results hold, from tensors without memory; 0 where these cannot tell."""

    def bare(x: Any) -> Any:
        if isinstance(x, torch.Tensor):
            return torch.empty_strided(x.size(), x.stride(), dtype=x.dtype, device="meta")
        return None if isinstance(x, torch.Generator) else x

    bare_kwargs = tree_map(bare, kwargs)
    if any(argument.name == "device" for argument in func._schema.arguments):
        bare_kwargs["device"] = torch.device("meta")
    try:
        made = func(*tree_map(bare, args), **bare_kwargs)
    except Exception:  # an operation without a meta kernel, or one that is to fail for real
        return 0
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in _tensors(made)}
    return sum(storages.values())


def _tensors(data: Any) -> list[torch.Tensor]:
    return [x for x in tree_leaves(data) if isinstance(x, torch.Tensor)]
