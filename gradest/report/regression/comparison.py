"""The report of what changed between runs."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from gradest.errors import UsageError
from gradest.files import write_frame, write_text
from gradest.markdown import escape
from gradest.quantities import count, number
from gradest.report.documents import document, html
from gradest.report.documents.document import Alert, Folded, Part, Picture, Strong, Table
from gradest.report.documents.prose import listed
from gradest.report.frames import tables
from gradest.report.frames.ranking import POWER
from gradest.report.regression import runs, sections
from gradest.report.regression.differences import (
    BETTER,
    CHANGED,
    LEVEL,
    WORSE,
    differences,
    parameters,
    regressions,
)
from gradest.report.regression.figure import NAMED, comparison
from gradest.report.regression.runs import Overlap, Run, overlap
from gradest.report.studies import figures

MOST = 0.5  # of all cells, below which a comparison says little of the runs
_FIGURE = "comparison"
_TABLES = ("differences.csv", "differences.parquet")
_FACTS = (
    *("suite", "command", "started", "commit", "plugins", "versions", "implementations"),
    *("machine", "seeds", "replicates", "precision", "dtype", "training"),
)
_OWN = ("command", "started")  # of every run, and no difference
_READING = f"""\
Brackets are 95 % intervals, each by itself. What is called *worse*, *better* \
or *changed* is so by a test at {100 * LEVEL:g} % for all tests of this report together (Holm): \
had nothing changed, a report in {1 / LEVEL:g} would say that something did. Variances are \
compared by their ratio, means of estimates by one test of all coordinates of log α; that the norm \
of the bias is better or worse is said only where the mean has changed. A mean that has changed \
while its distance to the truth may be the same is *changed*. *The same* is equality up to \
rounding; what is enumerated, and evaluations of f, are compared without chance. *Cannot tell \
apart* is no proof of equality: beside it is the smallest change that would have been found with \
a probability of {100 * POWER:g} %."""
_SHARED = (
    "Of a cell that both runs measured with the same seed those seeds alone are compared. Their "
    "draws may be the same ones: the noise that they share cancels in a difference, but not in its "
    "interval, which is then too wide."
)
_APART = (
    "Where no seed is shared the runs are independent repetitions, and all their seeds are taken "
    "together, as more batches of the same measurement."
)
_PICTURE = (
    "Left the ratio of the variances, right the change of the norm of the bias in percent of ‖g‖, "
    "{parameter}, with 95 % intervals, the strongest evidence first; an open point is the same up "
    "to rounding. Colour is significance for all tests together; *changed* is a mean that moved "
    "without a norm that did.{rest}"
)


def write_comparison(
    folders: Sequence[Path], out: Path
) -> tuple[Path, pd.DataFrame, dict[str, Overlap]]:
    """Compare the runs in the folders with the first: the document, differences.* and figures/.

    Returns the path of comparison.html, the frame of `differences`, and of each
    other run what it has in common with the first.  The runs are left as they are.  Raises
    UsageError for folders that are no runs, for the same one twice, for one that has no cell in
    common with the first, and for an `out` that holds a run.
    """
    found = runs.read(folders)
    if any((out / name).exists() for name in ("run.json", "journal.jsonl")):
        raise UsageError(f"{out}: holds a run; name another folder for the comparison with --out")
    shared = {other.name: overlap(found[0], other) for other in found[1:]}
    for name, each in shared.items():
        if not each.common and not _properties_in_common(found):
            raise UsageError(
                f"{name} has no cell in common with {found[0].name}: {each}; nothing is compared"
            )
    frame = differences(found)
    for name in _TABLES:
        write_frame(out / name, frame)
    pictures = _draw(frame, out / "figures")
    parts = list(_parts(found, frame, list(pictures), shared))
    write_text(out / "comparison.md", document.markdown(parts))
    path = out / "comparison.html"
    write_text(path, html.page(_title(found), parts, pictures))
    return path, frame, shared


def _properties_in_common(found: Sequence[Run]) -> bool:
    return all(not run.properties.empty for run in found)


def told(rows: pd.DataFrame, several: bool) -> list[str]:
    """A line of plain text for each row, as for a terminal; of `several` runs which one it is."""
    return [" ".join(_told(row, several).split()) for row in rows.to_dict("records")]


def _told(row: Mapping[str, Any], several: bool) -> str:
    where = f"{row['label']} on {row['task_label']}"
    where = f"{where} in {row['run']}" if several else where
    if row["quantity"] == "status":
        return f"{row['judgement']}: {where}: {row['other_status']}: {row['reason']}"
    sure = "exact" if pd.isna(row["p_holm"]) else f"p = {number(row['p_holm'])}"
    what = sections.quantity(row)
    return f"{row['judgement']}: {what} of {where}: {sections.change(row)}, {sure}"


def _draw(frame: pd.DataFrame, folder: Path) -> dict[str, Path]:
    """The PNG file of each figure, by its name; one of an earlier comparison is removed."""
    drawn = comparison(frame)
    if drawn is None:
        for suffix in figures.SUFFIXES:
            (folder / f"{_FIGURE}{suffix}").unlink(missing_ok=True)
        return {}
    figures.save({_FIGURE: drawn}, folder)
    return {_FIGURE: folder / f"{_FIGURE}.png"}


def _title(found: Sequence[Run]) -> str:
    base, *others = (run.name for run in found)
    return f"{' and '.join(others)} against {base}"


def _parts(
    found: Sequence[Run],
    frame: pd.DataFrame,
    drawn: Sequence[str],
    shared: Mapping[str, Overlap],
) -> Iterator[Part]:
    """The document, in the order in which it is read."""
    yield f"# {escape(_title(found))}"
    yield from _overlaps(shared)
    yield _summary(frame)
    yield _counts(frame)
    yield Folded("How to read it", (_READING, f"{_SHARED} {_APART}"), level=2)
    yield "## The runs"
    yield _facts(found)
    for judgement in (WORSE, BETTER, CHANGED):
        yield from sections.judged(frame, judgement)
    if drawn:
        yield "## Figure"
        yield _picture(frame)
    yield from sections.untold(frame)
    yield from sections.trainings(frame)
    yield from sections.properties(frame)
    yield from sections.times(frame, _alike(found))
    yield from sections.missing(frame)
    yield "Every quantity of every cell, unrounded: `differences.csv` and `differences.parquet`"


def _alike(found: Sequence[Run]) -> bool:
    """Whether all runs are of machines that say the same of themselves."""
    return len({listed(run.facts.get("machine")) for run in found}) == 1


def _summary(frame: pd.DataFrame) -> str:
    found = frame["judgement"].value_counts()
    tests = int(frame["p_value"].notna().sum())
    said = [f"{found[word]:,} {word}" for word in (WORSE, BETTER, CHANGED) if word in found]
    verdict = f"**{', '.join(said)}**" if said else "**Nothing is told apart from the baseline**"
    lost = len(regressions(frame))
    more = (
        f" {lost:,} of them {'is a regression' if lost == 1 else 'are regressions'}: a variance or "
        "a bias that is worse, or a cell that no longer gives finite numbers."
        if lost
        else ""
    )
    return f"{verdict}, by {tests:,} tests at {100 * LEVEL:g} % for all of them together.{more}"


def _overlaps(shared: Mapping[str, Overlap]) -> Iterator[Part]:
    """What is compared at all; to be noticed where that is the smaller part."""
    for name, each in shared.items():
        said = escape(f"{f'{name}: ' if len(shared) > 1 else ''}{each}.")
        yield said if each.share >= MOST else Alert(f"**{said}**")


def _counts(frame: pd.DataFrame) -> Part:
    rows = []
    for quantity, name in sections.NAMES.items():
        part = frame.loc[frame["quantity"].eq(quantity), "judgement"].value_counts()
        if not part.empty:
            rows.append([name, *(count(part.get(word, 0)) for word in sections.JUDGEMENTS)])
    return Table(("quantity", *sections.JUDGEMENTS), rows, left=1)


def _facts(found: Sequence[Run]) -> Table:
    """What run.json says of each, and in bold where they differ."""
    flat = [_flat(run.facts) for run in found]
    rows = []
    for name in dict.fromkeys(name for facts in flat for name in facts):
        said = [facts.get(name, "") for facts in flat]
        differ = len(set(said)) > 1 and name not in _OWN
        rows.append([name, *(Strong(text) if differ and text else text for text in said)])
    named = [f"{run.name}{' (baseline)' if n == 0 else ''}" for n, run in enumerate(found)]
    return Table(("", *named), rows, left=1 + len(found))


def _flat(facts: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for name in _FACTS:
        value = facts.get(name)
        if name == "implementations" and isinstance(value, Mapping):
            # A line for each of forty that are at their first version would hide the others.
            found |= {f"version of {key}": str(each) for key, each in value.items() if each != 1}
        elif isinstance(value, Mapping):
            of = "" if name in ("versions", "machine") else f"{name}: "
            found |= {f"{of}{key}": listed(each) for key, each in value.items()}
        elif name == "command" and isinstance(value, Sequence):
            found[name] = " ".join(map(str, value))
        elif value is not None:
            found[name] = listed(value)
    return found


def _picture(frame: pd.DataFrame) -> Picture:
    first = parameters(frame)[0]
    variances = frame[frame["quantity"].eq("variance") & frame["parameter"].eq(first)]
    beyond = len(variances) - NAMED
    rest = f" The {beyond:,} lines below those with a name have the least." if beyond > 0 else ""
    symbol = escape(tables.SYMBOLS.get(first, first))
    return Picture(
        _FIGURE,
        "Variance and bias of every cell against the baseline",
        _PICTURE.format(parameter=f"with respect to {symbol}", rest=rest),
    )
