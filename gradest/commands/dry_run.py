"""A dry run: the cells of a suite, how long each is expected to take, and what would fail."""

import argparse
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gradest.errors import Inapplicable
from gradest.plugins import PluginBundle, Registry
from gradest.runs import (
    Cell,
    Failed,
    Suite,
    Workers,
    canonical,
    finished,
    labels,
    least_timing_seconds,
    seconds_expected,
)
from gradest.support import counted, described, in_a_line, message_of

_SHOWN = 0.1  # seconds: shorter expected times are not distinguished
_OVERHEAD = 0.01  # seconds of a cell in addition to its estimates: checks, the truth, the record
_ALL_TRIED = 1000  # cells, up to which each is tried and has a line
_TRYING = 8.0  # seconds; cells that are not tried by then are expected to do as similar ones


class Expectation(NamedTuple):
    """What a cell will do, judging by its first replicates or by those of a similar cell."""

    status: str
    seconds: float
    reason: str = ""

    @property
    def state(self) -> str:
        if self.status == "ok":
            return f"{self.seconds:.1f} s" if self.seconds >= _SHOWN else f"<{_SHOWN} s"
        return f"would {'be skipped' if self.status == 'skipped' else 'fail'}: {self.reason}"


def dry_run(
    suite: Suite,
    cells: Sequence[Cell],
    folder: Path,
    registry: Registry,
    options: argparse.Namespace,
) -> int:
    """Print the cells and their expected times; returns the status that the run would have.

    Of a suite of more than a thousand cells, those that are expected to do the same share a line,
    and of more than a thousand that are missing only some are tried, of each kind at least one; the
    last line says how many.
    """
    records = {} if options.fresh else finished(folder / "journal.jsonl")
    bundle, jobs = PluginBundle.of(options.plugin), options.jobs or Workers.jobs
    names = labels(cells)
    done = {c.key for c in cells if records.get(c.key, {}).get("status") in ("ok", "skipped")}
    missing = [cell for cell in cells if cell.key not in done]
    trials = _Trials(missing, registry, bundle, time_limit(suite, options))
    total = longest = 0.0
    untimed = []
    count: Counter[str] = Counter()
    alike: dict[tuple[str, str], list[str]] = defaultdict(list)
    for cell in cells:
        if cell.key in done:
            status, state = records[cell.key]["status"], "done"
        else:
            expected = trials.of(cell)
            status, state = expected.status, expected.state
            total, longest = total + expected.seconds, max(longest, expected.seconds)
        count[status] += 1
        timed = "samples" in records.get(cell.key, {})
        untimed += [cell] if status == "ok" and not timed else []
        if len(cells) <= _ALL_TRIED:
            print(f"{state:>8}  {names[cell.key]}", flush=True)
        else:
            alike[state, " × ".join(name for name, _ in cell.members)].append(names[cell.key])
    for (state, name), each in alike.items():
        text = each[0] if len(each) == 1 else f"{in_a_line(name)} ({counted(len(each), 'cell')})"
        print(f"{state:>8}  {text}")
    # More workers than cells cannot make the longest cell faster.
    seconds = max(total / jobs, longest)
    timing = least_timing_seconds(untimed) if suite.settings.timed else 0.0
    rest = f"{f'{timing:.0f} s or more of timing, ' if timing else ''}tables and figures"
    others = f"the others: {_duration(seconds)} with {counted(jobs, 'job')}, plus {rest}"
    print(
        f"{counted(len(cells), 'cell')}, {f'{len(done):,}' if missing else 'all'} done; "
        f"{others if missing else f'left: {rest}, unless they are up to date'}{trials.note}"
    )
    return exit_status(count)


class _Trials:
    """Trials of cells: of each, or of one of each kind where there are many."""

    def __init__(
        self,
        cells: Sequence[Cell],
        registry: Registry,
        bundle: PluginBundle,
        timeout: float | None,
    ) -> None:
        self._registry, self._bundle, self._timeout = registry, bundle, timeout
        self.all_tried = len(cells) <= _ALL_TRIED
        self._by_kind: dict[str, Expectation] = {}
        self._by_names: dict[str, Expectation] = {}
        self._tried = 0
        if self.all_tried:
            return
        self._kinds = {cell.key: _kind(cell) for cell in cells}
        kinds = {self._kinds[cell.key]: cell for cell in cells}
        firsts = dict.fromkeys({_names(cell): kind for kind, cell in kinds.items()}.values())
        rest = (kind for kind in kinds if kind not in firsts)
        deadline = time.monotonic() + _TRYING
        for kind in (*firsts, *rest):
            cell = kinds[kind]
            if _names(cell) in self._by_names and time.monotonic() > deadline:
                break
            self._by_kind[kind] = self._try(cell)
            self._by_names.setdefault(_names(cell), self._by_kind[kind])

    def of(self, cell: Cell) -> Expectation:
        if self.all_tried:
            return self._try(cell)
        return self._by_kind.get(self._kinds[cell.key]) or self._by_names[_names(cell)]

    @property
    def note(self) -> str:
        if self.all_tried:
            return ""
        return f" (from trials of {counted(self._tried, 'cell')}; the others are similar)"

    def _try(self, cell: Cell) -> Expectation:
        self._tried += 1
        try:
            seconds = seconds_expected(cell, self._registry, self._bundle, self._timeout)
            return Expectation("ok", seconds + _OVERHEAD)
        except Inapplicable as error:
            return Expectation("skipped", 0.0, in_a_line(message_of(error)))
        except Failed as error:  # in a separate process, which has made the message a reason
            return Expectation("failed", 0.0, in_a_line(str(error)))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may raise anything; a run records it
            return Expectation("failed", 0.0, described(error))


def _names(cell: Cell) -> str:
    """What is measured on what, with any knobs."""
    return canonical([type(cell).__name__, sorted(cell.names)])


def _kind(cell: Cell) -> str:
    """What the run time depends on: everything but the seed and the values of real numbers."""
    fields = {name: value for name, value in cell.plain.items() if name not in ("seed", "code")}
    return canonical([type(cell).__name__, _without_reals(fields)])


def _without_reals(value: Any) -> Any:
    if isinstance(value, float):
        return "real"
    if isinstance(value, Mapping):
        return {key: _without_reals(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_reals(each) for each in value]
    return value


def _duration(seconds: float) -> str:
    return f"about {seconds:.0f} s" if seconds >= 1 else "less than a second"


def time_limit(suite: Suite, options: argparse.Namespace) -> float | None:
    """Seconds that a cell may take: those of the option, or else of the suite; None: any number."""
    return options.time_limit or suite.settings.cell_timeout


def exit_status(count: Counter[str]) -> int:
    """The exit status of a run or a dry run: 0 if a cell has results and none failed."""
    return 0 if count["ok"] and not count["failed"] else 1
