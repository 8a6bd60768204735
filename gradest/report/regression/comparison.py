"""Writes the report of a comparison of runs."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from gradest.errors import UsageError
from gradest.report.documents import document, html
from gradest.report.documents.document import Alert, Folded, Part, Picture, Strong, Table
from gradest.report.documents.prose import in_a_line
from gradest.report.figures.saving import remove_figure, save_figure
from gradest.report.frames import tables
from gradest.report.frames.ranking import POWER
from gradest.report.regression import sections
from gradest.report.regression.agreement import Agreement, find_agreement
from gradest.report.regression.differences import (
    BETTER,
    CHANGED,
    LEVEL,
    WORSE,
    differences,
    parameters,
    regressions,
)
from gradest.report.regression.figure import NAMED, draw_comparison
from gradest.report.regression.runs import Overlap, Run, load_runs, overlap
from gradest.support import count, markup, number, write_frame, write_text

MAJORITY = 0.5  # of all cells; a comparison of fewer is pointed out
_FIGURE = "comparison"
_TABLES = ("differences.csv", "differences.parquet")
_FACTS = (
    *("suite", "command", "started", "commit", "plugins", "versions", "implementations"),
    *("machine", "seeds", "replicates", "precision", "dtype", "training"),
)
_OWN = ("command", "started")  # always differ, and are not marked
_READING = f"""\
Brackets are 95 % intervals, each without correction. *Worse*, *better* and *changed* are the \
results of tests at {100 * LEVEL:g} % for all tests of this report together (Holm): if nothing \
had changed, one report in {1 / LEVEL:g} would find a difference. Variances are compared by \
their ratio, and means of estimates by one test of all coordinates of log α. The norm of the \
bias is called better or worse only where the mean has changed. A mean that has changed while \
its distance to the truth may be the same is called *changed*. *Same* means equal up to \
rounding; enumerated numbers and evaluations of f are compared exactly. *No significant \
difference* does not prove equality: the smallest detectable change is the one that the test \
would detect with {100 * POWER:g} % power."""
_SHARED = (
    "Where both runs measured a cell with the same seeds, only those seeds are compared. Their "
    "draws may be equal. Noise that they share cancels in a difference but not in its interval, "
    "which is then too wide."
)
_INDEPENDENT = (
    "Where no seed is shared the runs are independent repetitions, and all seeds of a run are "
    "combined as more batches of the same measurement."
)
_REPEATED = (
    "Where both runs measured a cell with the same seeds, protocol, versions and model of "
    "processor, equal code gives equal numbers: there any difference beyond rounding is a change, "
    "without a test."
)
_CAPTION = (
    "The left panel shows the ratio of the variances, the right panel the change of the norm of "
    "the bias in percent of ‖g‖, both {parameter}, with 95 % intervals; the strongest evidence "
    "comes first. Open points are the same up to rounding. Colours show significance for all tests "
    "together; *changed* marks a mean that changed without a significant change of its norm.{rest}"
)


def write_comparison(
    folders: Sequence[Path], out: Path
) -> tuple[Path, pd.DataFrame, dict[str, Overlap]]:
    """Compare the runs in the folders with the first: the document, differences.* and figures/.

    Returns the path of comparison.html, the frame of `differences`, and of each
    other run its overlap with the first.  The runs are not changed.  Raises UsageError for folders
    without a run, for the same one twice, for one that has no cell in
    common with the first, and for an `out` that holds a run.
    """
    runs = load_runs(folders)
    if any((out / name).exists() for name in ("run.json", "journal.jsonl")):
        raise UsageError(f"{out}: holds a run; name another folder for the comparison with --out")
    shared = {other.name: overlap(runs[0], other) for other in runs[1:]}
    for name, each in shared.items():
        if not each.common and not _properties_in_common(runs):
            raise UsageError(
                f"{name} has no cell in common with {runs[0].name}: {each}; nothing is compared"
            )
    frame = differences(runs)
    return _write(runs, frame, shared, out), frame, shared


def write_agreement(base: Path, name: str, folder: Path, out: Path) -> tuple[Path, Agreement]:
    """Compare the run in `folder` with `base`, which documents call `name`, cell by cell.

    Only cells that the run has are compared.  Where both measured a cell in the same way, equal
    numbers are expected, without a test.  The document is written into `out`; returns its path and
    what agrees.  Raises UsageError for a folder without a run.
    """
    runs = load_runs([base, folder], [name, "this run"])
    first = runs[0]._replace(
        cells={key: own for key, own in runs[0].cells.items() if key in runs[1].cells}
    )
    shared = {runs[1].name: overlap(first, runs[1])}
    frame = differences([first, runs[1]], repeated=True)
    path = _write([first, runs[1]], frame, shared, out, _REPEATED)
    return path, find_agreement(runs[0], runs[1], frame)


def _write(
    runs: Sequence[Run],
    frame: pd.DataFrame,
    shared: Mapping[str, Overlap],
    out: Path,
    note: str = "",
) -> Path:
    """Write the document, the tables and the figure; returns the path of comparison.html."""
    for name in _TABLES:
        write_frame(out / name, frame)
    pictures = _draw(frame, out / "figures")
    parts = list(_parts(runs, frame, list(pictures), shared, note))
    write_text(out / "comparison.md", document.render_markdown(parts))
    path = out / "comparison.html"
    write_text(path, html.page(_title(runs), parts, pictures))
    return path


def _properties_in_common(runs: Sequence[Run]) -> bool:
    return all(not run.properties.empty for run in runs)


def describe_regressions(rows: pd.DataFrame, several: bool) -> list[str]:
    """A line of plain text for each row, which names the run where there are `several`."""
    return [" ".join(_described(row, several).split()) for row in rows.to_dict("records")]


def _described(row: Mapping[str, Any], several: bool) -> str:
    where = f"{row['label']} on {row['task_label']}"
    where = f"{where} in {row['run']}" if several else where
    if row["quantity"] == "claim":
        return f"{row['judgement']}: {where}: {row['base_status']}, now {row['other_status']}"
    if row["quantity"] == "status":
        return f"{row['judgement']}: {where}: {row['other_status']}: {row['reason']}"
    evidence = "exact" if pd.isna(row["p_holm"]) else f"p = {number(row['p_holm'])}"
    what = sections.quantity(row)
    return f"{row['judgement']}: {what} of {where}: {sections.change(row)}, {evidence}"


def _draw(frame: pd.DataFrame, folder: Path) -> dict[str, Path]:
    """The PNG file of each figure, by its name; one of an earlier comparison is removed."""
    drawn = draw_comparison(frame)
    if drawn is None:
        remove_figure(_FIGURE, folder)
        return {}
    save_figure(_FIGURE, drawn, folder)
    return {_FIGURE: folder / f"{_FIGURE}.png"}


def _title(runs: Sequence[Run]) -> str:
    base, *others = (run.name for run in runs)
    return f"{' and '.join(others)} against {base}"


def _parts(
    runs: Sequence[Run],
    frame: pd.DataFrame,
    drawn: Sequence[str],
    shared: Mapping[str, Overlap],
    note: str,
) -> Iterator[Part]:
    """The document, in the order in which it is read."""
    yield f"# {markup.escape(_title(runs))}"
    yield from _overlaps(shared)
    yield _summary(frame)
    yield _counts(frame)
    shares = f"{_SHARED} {_INDEPENDENT}{f' {note}' if note else ''}"
    yield Folded("How to read the tables", (_READING, shares), level=2)
    yield "## The runs"
    yield _facts(runs)
    for judgement in (WORSE, BETTER, CHANGED):
        yield from sections.judged(frame, judgement)
    if drawn:
        yield "## Figure"
        yield _picture(frame)
    yield from sections.undecided(frame)
    yield from sections.trainings(frame)
    yield from sections.properties(frame)
    yield from sections.claims(frame)
    yield from sections.times(frame, _same_machine(runs))
    yield from sections.missing(frame)
    yield "Every quantity of every cell, unrounded: `differences.csv` and `differences.parquet`"


def _same_machine(runs: Sequence[Run]) -> bool:
    """Whether the descriptions of the machines of all runs are equal."""
    return len({in_a_line(run.facts.get("machine")) for run in runs}) == 1


def _summary(frame: pd.DataFrame) -> str:
    counts = frame["judgement"].value_counts()
    tests = int(frame["p_value"].notna().sum())
    changes = [f"{counts[word]:,} {word}" for word in (WORSE, BETTER, CHANGED) if word in counts]
    verdict = ", ".join(changes) or "No significant difference from the baseline"
    lost = len(regressions(frame))
    more = (
        f" {lost:,} of them {'is a regression' if lost == 1 else 'are regressions'}: a variance or "
        "a bias that is worse, a claim that is refuted now, or a cell whose numbers are no longer "
        "finite."
        if lost
        else ""
    )
    return f"**{verdict}**, in {tests:,} tests at a family-wise level of {100 * LEVEL:g} %.{more}"


def _overlaps(shared: Mapping[str, Overlap]) -> Iterator[Part]:
    """How many cells are compared, as an alert where that is the smaller part."""
    for name, each in shared.items():
        line = markup.escape(f"{f'{name}: ' if len(shared) > 1 else ''}{each}.")
        yield line if each.share >= MAJORITY else Alert(f"**{line}**")


def _counts(frame: pd.DataFrame) -> Part:
    rows = []
    for quantity, name in sections.NAMES.items():
        part = frame.loc[frame["quantity"].eq(quantity), "judgement"].value_counts()
        if not part.empty:
            rows.append([name, *(count(part.get(word, 0)) for word in sections.JUDGEMENTS)])
    return Table(("quantity", *sections.JUDGEMENTS), rows, left=1)


def _facts(runs: Sequence[Run]) -> Table:
    """The facts of each run.json, in bold where they differ."""
    flat = [_flat(run.facts) for run in runs]
    rows = []
    for name in dict.fromkeys(name for facts in flat for name in facts):
        texts = [facts.get(name, "") for facts in flat]
        differ = len(set(texts)) > 1 and name not in _OWN
        rows.append([name, *(Strong(text) if differ and text else text for text in texts)])
    named = [f"{run.name}{' (baseline)' if n == 0 else ''}" for n, run in enumerate(runs)]
    return Table(("", *named), rows, left=1 + len(runs))


def _flat(facts: Mapping[str, Any]) -> dict[str, str]:
    flat = {}
    for name in _FACTS:
        value = facts.get(name)
        if name == "implementations" and isinstance(value, Mapping):
            # A line for each of forty that are at their first version would hide the others.
            flat |= {f"version of {key}": str(each) for key, each in value.items() if each != 1}
        elif isinstance(value, Mapping):
            prefix = "" if name in ("versions", "machine") else f"{name}: "
            flat |= {f"{prefix}{key}": in_a_line(each) for key, each in value.items()}
        elif name == "command" and isinstance(value, Sequence):
            flat[name] = " ".join(map(str, value))
        elif value is not None:
            flat[name] = in_a_line(value)
    return flat


def _picture(frame: pd.DataFrame) -> Picture:
    first = parameters(frame)[0]
    variances = frame[frame["quantity"].eq("variance") & frame["parameter"].eq(first)]
    beyond = len(variances) - NAMED
    rest = f" The {beyond:,} lines without a name have the weakest evidence." if beyond > 0 else ""
    symbol = markup.escape(tables.SYMBOLS.get(first, first))
    return Picture(
        _FIGURE,
        "Variance and bias of every cell against the baseline",
        _CAPTION.format(parameter=f"with respect to {symbol}", rest=rest),
    )
