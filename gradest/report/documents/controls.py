"""The controls of a run: estimators whose verdict is known beforehand."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from gradest.markdown import escape
from gradest.report.documents.document import Alert, Part
from gradest.report.frames import tables


def section(frame: pd.DataFrame, run: Mapping[str, Any]) -> Iterator[Part]:
    """How the controls came out, in a line, and which of them this run left out."""
    controls, left_out = _expected(frame, run)
    yield _line(failures(frame, run), controls)
    if left_out:
        yield f"Controls that this run left out: {', '.join(map(escape, left_out))}."


def failures(frame: pd.DataFrame, run: Mapping[str, Any]) -> list[str]:
    """`control_failures` of the controls of the run, but for those that it was to leave out."""
    return control_failures(frame, _expected(frame, run)[0])


def control_failures(frame: pd.DataFrame, controls: Mapping[str, Sequence[str]]) -> list[str]:
    """A sentence for every control that did not come out as it should; plain text.

    `controls` maps a verdict to the estimators that must get it on every task.  A control that
    was skipped on a task says nothing there, but one that was measured nowhere has failed.
    """
    frame = tables.annotate(frame)
    failures = []
    for expected, names in controls.items():
        for name in names:
            rows = frame[frame["estimator"] == name]
            if tables.measured(rows).empty:
                failures.append(f"{name} should be {expected}, but was measured on no task.")
            else:
                for task, section in tables.sections(frame):
                    part = section[section["estimator"] == name]
                    failures += _violations(name, expected, task, part)
    return failures


def _violations(name: str, expected: str, task: str, rows: pd.DataFrame) -> Iterator[str]:
    if rows.empty:
        yield f"{name} should be {expected} on {task}, but was not run there."
    for label, failed in rows[rows["status"] == "failed"].groupby("label", sort=False):
        reason = failed["reason"].iloc[0]
        yield f"{label} should be {expected} on {task}, but failed: {reason}."
    found = tables.measured(rows)
    # A derivative that does not exist, as ∂/∂α where α = 0, is no verdict on the estimator.
    undefined = found["variance"].isna() & found["note"].fillna("").ne("")
    found = found[~undefined | found["nonfinite"].gt(0)]
    wrong = found[found["verdict"] != expected]
    for (label, verdict), part in wrong.groupby(["label", "verdict"], sort=False, dropna=False):
        symbols = " and ".join(tables.SYMBOLS.get(p, str(p)) for p in part["parameter"].unique())
        why = ", the exact gradient being unknown" if part["bias_sq"].isna().all() else ""
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
        said = escape(" ".join(failures))
        return Alert(f"**CONTROLS FAILED, do not trust this run until it is known why:** {said}")
    kinds = sorted(expected.items(), reverse=True)
    named = [f"{', '.join(map(escape, names))} {kind}" for kind, names in kinds if names]
    return f"Controls came out as they should: {' and '.join(named)}." if named else ""
