"""Tasks and estimators that a report leaves out, although they stay in the run."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from gradest.errors import UsageError
from gradest.support import suggestion


@dataclass(frozen=True)
class Omission:
    """Names of tasks and estimators whose cells are in no table and no figure of a report."""

    tasks: frozenset[str] = frozenset()
    estimators: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls, run: Mapping[str, Any], tasks: Sequence[str], estimators: Sequence[str]
    ) -> "Omission":
        """The names in the content of a run.json that match one of the globs.

        Raises UsageError for a glob without matches, and where no cell would be left.
        """
        cells = run.get("cells") or ()
        omission = cls(
            *(
                matching(
                    globs,
                    {name for cell in cells for name in _names(cell, kind)},
                    f"--drop-{kind}s: no {kind} of this run",
                )
                for kind, globs in (("task", tasks), ("estimator", estimators))
            )
        )
        if cells and all(map(omission.covers, cells)):
            raise UsageError("--drop-tasks and --drop-estimators leave no cell of this run")
        return omission

    def covers(self, cell: Mapping[str, Any]) -> bool:
        """Whether a cell, as plain data, is left out."""
        of_estimator = self.estimators.intersection(_names(cell, "estimator"))
        return bool(of_estimator or self.tasks.intersection(_names(cell, "task")))

    def __bool__(self) -> bool:
        return bool(self.tasks or self.estimators)

    def to_json(self) -> dict[str, list[str]]:
        return {"tasks": sorted(self.tasks), "estimators": sorted(self.estimators)}


def _names(cell: Mapping[str, Any], kind: str) -> list[str]:
    """The tasks or the estimators of a cell; a search for a counterexample has several."""
    if kind in cell:
        return [cell[kind]]
    if "for_all" not in cell:  # a property of a distribution has neither
        return []
    if kind == "task":
        return [cell["for_all"]["task"]] if "task" in cell["for_all"] else []
    return [name for name, *_ in cell["estimators"]]


def matching(globs: Sequence[str], names: Collection[str], subject: str) -> frozenset[str]:
    """The names that match one of the globs.

    Raises UsageError for a glob without matches; `subject` begins its message, as in `no task`.
    """
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in names):
            raise UsageError(f"{subject} matches {glob!r}{suggestion(glob, names)}")
    return frozenset(name for name in names if any(fnmatchcase(name, glob) for glob in globs))
