"""The memory that a trial of a cell would need, determined without allocating it.

A knob such as `samples: 1000000000` needs more memory than the machine has, and the operating
system may end the whole process instead of raising an error.  Only members of a suite with a large
integer among their knobs are examined, so that others cost nothing.
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

from gradest.contracts import Estimator, Model, Task
from gradest.errors import PluginError
from gradest.knobs import Knobs
from gradest.measurement import Replicator
from gradest.plugins import formula
from gradest.randomness import Draws, drawing_from
from gradest.runs.suite_file import Member, SuiteFile, SuiteSource
from gradest.support import shortened

_LARGE = {Estimator: 2**14, Task: 2**20}  # smaller integers need no trial
_ROWS = 4  # replicates; a measurement begins with at least as many
_SECONDS = 2.0  # limit of a trial; a task may also train networks
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class TooLarge(MemoryError):
    """At least `needed` bytes, more memory than is available."""

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
    """Raises SuiteError, naming the knob, for a member that needs more memory than is available.

    Trials stop after a few seconds; members that were not examined may fail later as cells.
    """
    limit = memory_of(device)
    trained = settings.training and all(isinstance(task.built, Model) for task in tasks)
    rows, itemsize = (settings.training.batch, 4) if trained else (_ROWS, 8)
    large = {id(m): knob for m in (*tasks, *estimators) if (knob := large_knob(m.built))}
    for member in estimators:
        if id(member) in large:
            needed = estimator_bytes(member.built, rows, limit, itemsize)
            _refuse(source, member, large[id(member)], needed, limit)
    if settings.training:  # the cells themselves create batches and networks
        tasks = [task for task in tasks if not isinstance(task.built, Model)]
    deadline = time.monotonic() + _SECONDS
    for task in tasks:
        if id(task) in large and time.monotonic() < deadline:
            needed = task_bytes(task.built, limit)
            _refuse(source, task, large[id(task)], needed, limit)
    for estimator, task in product(estimators, tasks):
        member = next((m for m in (estimator, task) if id(m) in large), None)
        if member is not None and time.monotonic() < deadline:
            needed = pair_bytes(estimator.built, task.built, limit)
            _refuse(source, member, large[id(member)], needed, limit)


def _refuse(source: SuiteSource, member: Member, knob: str, needed: int | None, limit: int) -> None:
    if needed is None:
        return
    raise source.error(
        member.values.get(knob, member.place),
        f"{member.built.name}: {knob} = {shortened(member.built.knobs[knob])}: needs at least "
        f"{needed / 1e9:,.0f} GB of memory, {limit / 1e9:,.0f} GB are available",
    )


def memory_of(device: str) -> int:
    """Bytes of memory of the machine or its container, or of the GPU."""
    if device != "cpu":
        return torch.cuda.get_device_properties(device).total_memory
    sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in map(Path, _LIMITS):
        if path.exists() and (text := path.read_text().strip()).isdigit():
            sizes.append(int(text))
    return min(sizes)


def large_knob(member: Knobs) -> str | None:
    """The knob with the largest integer, if that is large enough for a trial."""
    largest = {k: max(_integers(v), default=0) for k, v in member.knobs.items()}
    name = max(largest, key=largest.__getitem__, default=None)
    least = next(least for kind, least in _LARGE.items() if isinstance(member, kind))
    return name if name is not None and largest[name] >= least else None


def task_bytes(task: Task, limit: int) -> int | None:
    """The bytes that `task.problem()` needs if these exceed `limit`, else None."""

    def trial() -> None:
        with drawing_from(Draws.seeded(0)), _Predicting(limit):
            task.problem()

    return _bytes_if_too_large(trial)


def estimator_bytes(estimator: Estimator, rows: int, limit: int, itemsize: int = 8) -> int | None:
    """The bytes of the codes in the evaluations of f by one call with `rows` rows.

    None if these do not exceed `limit`.  The smallest possible latents are assumed, which gives a
    lower bound for every task.
    """
    sizes = {"N": 1, "K": 2, "m": 1, **estimator.knobs}
    try:
        evaluations = formula.value(estimator.evaluations, sizes, estimator.name)
    except PluginError:  # no bound without a formula or with knobs that are not numbers
        return None
    needed = rows * evaluations * 2 * itemsize
    return needed if needed > limit else None


def pair_bytes(estimator: Estimator, task: Task, limit: int) -> int | None:
    """The bytes that the first replicates need if these exceed `limit`, else None.

    The state of the estimator is built for real; one call then runs on tensors without memory.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode  # its import takes a second

    def trial() -> None:
        with drawing_from(Draws.seeded(0)):
            with _Predicting(limit):
                replicator = Replicator(estimator, task)
            with FakeTensorMode(allow_non_fake_inputs=True), _Counting(limit):
                replicator(_ROWS)

    return _bytes_if_too_large(trial)


def _bytes_if_too_large(call: Callable[[], object]) -> int | None:
    try:
        call()
    except TooLarge as error:
        return error.needed
    except Exception:  # its cells will raise and report the same error
        return None
    return None


def _integers(value: Any) -> Iterator[int]:
    return (x for x in tree_leaves(value) if isinstance(x, int) and not isinstance(x, bool))


class _Counting(TorchDispatchMode):
    """Raises TooLarge once the results of operations occupy more than `limit` bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit, self._held = limit, 0
        self._users: dict[int, int] = {}  # storage -> number of tensors that use it

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


class _Predicting(TorchDispatchMode):
    """Raises TooLarge before an operation whose result would occupy more than `limit` bytes.

    Operations run for real, so that code that depends on the numbers takes its usual branches.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit, self._deadline = limit, time.monotonic() + _SECONDS

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        arguments = (args, kwargs or {})
        if time.monotonic() < self._deadline and self._may_be_large(arguments):
            needed = _bytes_of_result(func, *arguments)
            if needed > self._limit:
                raise TooLarge(needed)
        return func(*args, **(kwargs or {}))

    def _may_be_large(self, arguments: Any) -> bool:
        """A cheap upper bound: the product of all sizes and integers among the arguments."""
        sizes = [tensor.numel() for tensor in _tensors(arguments)]
        return prod(filter(None, [*sizes, *map(abs, _integers(arguments))])) * 16 > self._limit


def _bytes_of_result(func: Any, args: Any, kwargs: Any) -> int:
    """The bytes of an operation's results, computed with meta tensors; 0 if that fails."""

    def to_meta(x: Any) -> Any:
        if isinstance(x, torch.Tensor):
            return torch.empty_strided(x.size(), x.stride(), dtype=x.dtype, device="meta")
        return None if isinstance(x, torch.Generator) else x

    meta_kwargs = tree_map(to_meta, kwargs)
    if any(argument.name == "device" for argument in func._schema.arguments):
        meta_kwargs["device"] = torch.device("meta")
    try:
        results = func(*tree_map(to_meta, args), **meta_kwargs)
    except Exception:  # an operation without a meta kernel, or one that fails for real as well
        return 0
    storages = [tensor.untyped_storage() for tensor in _tensors(results)]
    return sum({storage._cdata: storage.nbytes() for storage in storages}.values())


def _tensors(data: Any) -> list[torch.Tensor]:
    return [x for x in tree_leaves(data) if isinstance(x, torch.Tensor)]
