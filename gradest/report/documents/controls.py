"""The controls of a run: estimators whose verdict is known in advance."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from gradest.report.documents.document import Alert, Part
from gradest.report.frames import tables
from gradest.support import markup

_NAMED = 20  # failures in the line at the top


def section(frame: pd.DataFrame, run: Mapping[str, Any]) -> Iterator[Part]:
    """The result of the controls in a line, and the controls that this run left out."""
    controls, left_out = _expected(frame, run)
    yield _line(failures(frame, run), controls)
    if left_out:
        yield f"Controls left out of this run: {', '.join(map(markup.escape, left_out))}."


def failures(frame: pd.DataFrame, run: Mapping[str, Any]) -> list[str]:
    """`control_failures` of the controls of the run, except for those that it was to leave out."""
    return control_failures(frame, _expected(frame, run)[0], _elsewhere(run))


def control_failures(
    frame: pd.DataFrame,
    controls: Mapping[str, Sequence[str]],
    elsewhere: Callable[[str, str], bool] = lambda estimator, task: False,
) -> list[str]:
    """A sentence of plain text for every control that failed, in annotated rows.

    `controls` maps a verdict to the estimators that must get it on every task.  A control that
    was skipped on a task has not failed there, but one that was measured on no task has.
    `elsewhere` says of an estimator and a task that no suite was to measure them together.
    """
    failures = []
    tasks = dict(frame[["task_label", "task"]].drop_duplicates().to_numpy())
    for expected, names in controls.items():
        for name in names:
            rows = frame[frame["estimator"] == name]
            if tables.measured_rows(rows).empty:
                failures.append(f"{name} should be {expected}, but was measured on no task.")
                continue
            suspects = _suspects(rows, expected)
            parts = dict(tables.sections(suspects))
            present = set(rows["task_label"])
            for label, task in tasks.items():
                if label in parts:
                    failures += _violations(name, expected, label, parts[label])
                elif label not in present and not elsewhere(name, str(task)):
                    failures.append(
                        f"{name} should be {expected} on {label}, but was not run there."
                    )
    return failures


def _suspects(rows: pd.DataFrame, expected: str) -> pd.DataFrame:
    """The rows of a control that may have failed, which are few, in the order of the frame."""
    return rows[
        rows["status"].eq("failed") | (rows["status"].eq("ok") & rows["verdict"].ne(expected))
    ]


def _elsewhere(run: Mapping[str, Any]) -> Callable[[str, str], bool]:
    """Of a merged run: whether no cell has the estimator and the task, which two suites brought."""
    cells = run.get("cells") or ()
    pairs = {(cell.get("estimator"), cell.get("task")) for cell in cells}
    merged = bool(run.get("sources"))
    return lambda estimator, task: merged and (estimator, task) not in pairs


def _violations(name: str, expected: str, task: str, rows: pd.DataFrame) -> Iterator[str]:
    for label, failed in rows[rows["status"] == "failed"].groupby("label", sort=False):
        reason = failed["reason"].iloc[0]
        yield f"{label} should be {expected} on {task}, but failed: {reason}."
    measured = tables.measured_rows(rows)
    # Where a derivative does not exist, as ∂/∂α where α = 0, the estimator is not to blame.
    undefined = measured["variance"].isna() & measured["note"].fillna("").ne("")
    measured = measured[~undefined | measured["nonfinite"].gt(0)]
    wrong = measured[measured["verdict"] != expected]
    for (label, verdict), part in wrong.groupby(["label", "verdict"], sort=False, dropna=False):
        symbols = " and ".join(tables.SYMBOLS.get(p, str(p)) for p in part["parameter"].unique())
        why = " because the exact gradient is unknown" if part["bias_sq"].isna().all() else ""
        yield f"{label} should be {expected} on {task}, but is {verdict} in {symbols}{why}."


def _expected(
    frame: pd.DataFrame, run: Mapping[str, Any]
) -> tuple[dict[str, list[str]], list[str]]:
    """The controls of the run, and those that the suite has but the run was to leave out."""
    controls = run.get("controls") or {}
    suite = {cell.get("estimator") for cell in run.get("cells") or ()}
    absent = suite - set(frame["estimator"])
    kept = {kind: [n for n in names if n not in absent] for kind, names in controls.items()}
    return kept, [n for names in controls.values() for n in names if n in absent]


def _line(failures: Sequence[str], expected: Mapping[str, Sequence[str]]) -> str:
    if failures:
        more = f" And {len(failures) - _NAMED:,} more." if len(failures) > _NAMED else ""
        text = markup.escape(" ".join(failures[:_NAMED]) + more)
        return Alert(f"**CONTROLS FAILED, do not trust this run until the cause is known:** {text}")
    kinds = sorted(expected.items(), reverse=True)
    clauses = [_clause(list(map(markup.escape, names)), kind) for kind, names in kinds if names]
    return f"All controls passed: {', '.join(clauses)}." if clauses else ""


def _clause(names: Sequence[str], kind: str) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last} are {kind}" if others else f"{last} is {kind}"
