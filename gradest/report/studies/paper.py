"""Rankings as LaTeX: a table environment a file, for papers.

Bold follows the ranking, which is by tests of differences, and stands in the column that it is by:
the first rank but for exact zeros, and only where a test tells another row apart from it.  Other
columns have no such tests, so that nothing in them is called best.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

import pandas as pd

from gradest import tex
from gradest.files import write_text
from gradest.inference import BIASED_BELOW, UNBIASED_WITHIN
from gradest.quantities import Quantity, count, interval, number
from gradest.report.documents.document import Strong, Table
from gradest.report.documents.problems import Problems
from gradest.report.frames import tables
from gradest.report.frames.curves import final
from gradest.report.frames.loaded_run import Run
from gradest.report.frames.ranking import LEVEL
from gradest.report.studies import cells, nested, numerics, swept
from gradest.report.studies.ranking import Ranking, Section
from gradest.report.studies.rankings import OWN, Sections, unused

_MARKS = {"unbiased": "•", "inconclusive": "⊙", "biased": "∘"}
_CALLED = {
    "unbiased": f"unbiased (within {100 * UNBIASED_WITHIN:g} %)",
    "inconclusive": "inconclusive",
    "biased": "biased",
}
_F = "\N{MATHEMATICAL ITALIC SMALL F}"
_HEADERS = {
    "bias": "relative\nbias, %",
    "variance": "variance",
    "mse": "mse",
    "evaluations": f"evals\nof {_F}",
    "work": "variance\n× evals",
}
_ENDS = ("", "_low", "_high")
_READING = (
    f"Evals are the evaluations of {_F} that one estimate takes. Behind a number are the distances "
    "to the ends of its 95 % interval; < is an upper limit, where the bias may be zero; what was "
    "enumerated is exact."
)
_LONG = 30  # rows that only a smaller size brings onto a page, with caption and notes
_SIZES = {
    False: r"\footnotesize\renewcommand{\arraystretch}{1.15}",
    True: r"\scriptsize\renewcommand{\arraystretch}{1.15}",
}
_TEMPLATE = Template(r"""% \input this file where the table is to stand.
% Needs \usepackage{booktabs}; with graphicx, a table that is wider than the text shrinks to it.
\begin{table}
  \centering
  \caption{$caption}
  \label{$label}
  \smallskip$size
  \setlength{\tabcolsep}{3pt}
  \sbox0{\begin{tabular}{@{}$columns@{}}
    \toprule
    $headers \\
    \midrule
$body    \bottomrule
  \end{tabular}}
  \ifdim\wd0>\linewidth
    \ifdefined\resizebox\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi
  \else\usebox0\fi
  \par\smallskip\parbox{\linewidth}{\scriptsize $notes}
\end{table}
""")
_BEST = (
    "Bold is the least {by}, with all that no test tells apart from it ({level:g} % for all pairs "
    "of rows, Holm)."
)


class Best(Quantity):
    """A number that is best, or that no test tells apart from the best."""


class Environment(NamedTuple):
    """A caption, notes below the table, and blocks of rows under the headers of the first."""

    caption: str
    notes: str
    blocks: Sequence[Table]

    def latex(self, label: str) -> str:
        """A table environment, of plain texts, with a line between blocks.

        A `Quantity` becomes mathematics, in two columns where its uncertainty follows it.
        """
        first = self.blocks[0]
        blocks = [[[_cell(text) for text in row] for row in block.rows] for block in self.blocks]
        rows = [row for block in blocks for row in block]
        double = [any(row[n][1] for row in rows) for n in range(len(first.headers))]
        columns = [
            "l" if n < first.left else "r@{}l" if two else "r" for n, two in enumerate(double)
        ]
        headers = [_header(*each) for each in zip(first.headers, columns, strict=True)]
        lines = ("".join(f"    {_line(row, double)}" for row in block) for block in blocks)
        return _TEMPLATE.substitute(
            caption=_prose(self.caption),
            label=label,
            size=_SIZES[len(rows) > _LONG],
            columns="".join(columns),
            headers=" & ".join(headers),
            body="    \\midrule\n".join(filter(None, lines)),
            notes=_prose(self.notes),
        )


def write(of: Sections, run: Run, folder: Path, problems: Problems) -> None:
    """A file for each ranking, beside its CSV, and for what was trained on each task."""
    suite = re.sub("[^A-Za-z0-9]+", "-", str(run.described.get("suite") or "run"))
    found: dict[str, Environment] = {}
    for section in of.tasks:
        for each in section.rankings:
            what = f"tables/{Path(each.file).stem}.tex"
            table = problems.attempt(what, partial(_ranking, section, each), None)
            if table is not None:
                found[each.file.removesuffix(".csv")] = table
    several = problems.attempt("tables/*.tex of sweeps", lambda: list(_together(of)), [])
    trained = problems.attempt(
        "tables/*.tex of trainings", lambda: list(_trainings(run.further.points)), []
    )
    for name, table in [*several, *trained]:
        found[unused(name, [*found, *OWN])] = table
    for name, table in found.items():
        path = folder / f"{name}.tex"
        text = problems.attempt(
            f"tables/{path.name}", partial(table.latex, f"tab:{suite}:{name}"), None
        )
        if text is not None:
            write_text(path, text)


def _prose(text: str) -> str:
    """Escaped, with the signs that belong to a word on its line."""
    return tex.escape(text).replace(r" \%", r"\,\%").replace("log \\ens", "log~\\ens")


def _ranking(of: Section, ranking: Ranking) -> Environment:
    """Of each dtype that leaves something to rank the zeros, then the rest."""
    rows = ranking.rows[ranking.rows["dtype"].isin(numerics.fine(ranking.rows))]
    rows = rows.assign(name=_names(rows))
    by = tables.ranking_column(rows)
    shown = [c for c in _HEADERS if by == "mse" or c not in ("bias", "mse")]
    blocks = [
        part
        for _, found in rows.groupby("dtype", sort=False)
        for part in (found[found[by].eq(0)], found[~found[by].eq(0)])
        if len(part)
    ]
    headers = ["", "estimator", *(_HEADERS[c] for c in shown)]
    symbol = tables.SYMBOLS.get(ranking.parameter, ranking.parameter)
    return Environment(
        f"Gradient estimators on {of.label}, in the order of the {by} of one estimate of the "
        f"gradient in {symbol}.",
        " ".join(_notes(rows, by, any(_best(block).any() for block in blocks))),
        [
            Table(
                headers,
                [
                    _cells(row, shown, by if best else "")
                    for (_, row), best in zip(block.iterrows(), _best(block), strict=True)
                ],
                left=2,
            )
            for block in blocks
        ],
    )


def _names(rows: pd.DataFrame) -> list[str]:
    """Labels without the knobs that all rows of an estimator share, which the caption has."""
    shared = {name: _shared(part) for name, part in rows.groupby("estimator")}
    return [
        tables.label(name, {k: v for k, v in settings.items() if k not in shared[name]})
        if label == tables.label(name, settings)
        else label
        for name, label, settings in rows[["estimator", "label", "settings"]].itertuples(
            index=False
        )
    ]


def _shared(rows: pd.DataFrame) -> dict[str, Any]:
    first, *others = rows["settings"]
    return {k: v for k, v in first.items() if all(k in each and each[k] == v for each in others)}


def _best(rows: pd.DataFrame) -> pd.Series:
    """Which rows of a block share its first rank, if any row is told apart from them."""
    first = rows["rank"].min()
    return rows["rank"].eq(first) & rows["rank"].gt(first).any()


def _cells(row: pd.Series, shown: Sequence[str], best: str) -> list[str]:
    marks = _MARKS.get(row["verdict"], "")
    marks += cells.UNPROVEN if cells.unproven(row) else ""
    marks += cells.MISSED if cells.missed(row["precision"]) else ""
    numbers = {
        "bias": _bias(row),
        "variance": interval(*(row[f"variance{end}"] for end in _ENDS)),
        "mse": interval(*(row[f"mse{end}"] for end in _ENDS)),
        "evaluations": cells.evaluations(row),
        "work": interval(
            *(row[f"variance{end}"] * row["evaluations"] for end in _ENDS), ends=False
        ),
    }
    if best:
        numbers[best] = Best(numbers[best], row[best])
    name = Strong(row["name"]) if best else row["name"]
    return [marks, name, *(numbers[c] for c in shown)]


def _bias(row: pd.Series) -> Quantity:
    """In percent; an upper limit where it may be zero."""
    bias, low, high = (100 * row[f"relative_bias{end}"] for end in _ENDS)
    return Quantity(f"< {number(high)}", bias) if low == 0 < high else interval(bias, low, high)


def _notes(rows: pd.DataFrame, by: str, best: bool) -> Iterator[str]:
    """How to read it; what must be said of some rows only where they are there."""
    used = [v for v in _MARKS if rows["verdict"].eq(v).any()]
    yield f"{', '.join(f'{_MARKS[v]} {_CALLED[v]}' for v in used)}."
    yield _READING
    if best:
        yield _BEST.format(by=by, level=100 * LEVEL)
    short = rows[rows["name"].ne(rows["label"])]
    fixed = [tables.label(name, _shared(part)) for name, part in short.groupby("estimator")]
    if fixed:
        yield f"Knobs with one value: {'; '.join(fixed)}."
    if rows["gradient_evaluations"].gt(0).any():
        yield "Behind a plus is through how many evaluations a backward pass goes as well."
    if rows.apply(cells.unproven, axis=1).any():
        yield (
            f"{cells.UNPROVEN} the interval of the bias excludes 0, the test at "
            f"{100 * BIASED_BELOW:g} % does not."
        )
    if rows["precision"].map(cells.missed).any():
        yield f"{cells.MISSED} the precision asked for was not reached."
    if rows["reference"].eq("monte_carlo").any():
        yield "The true gradient is estimated, and its noise part of the intervals."


def _together(of: Sections) -> Iterator[tuple[str, Environment]]:
    """Of the settings of a sweep or of a family a table for each parameter."""
    for kind, found in ((swept, of.sweeps), (nested, of.families)):
        for section in found:
            for each in section.rankings:
                reading = kind.READING.format(by=tables.ranking_column(each.rows))
                symbol = tables.SYMBOLS.get(each.parameter, each.parameter)
                caption = f"Gradient estimators on {section.label}: gradient in {symbol}."
                table = kind.table(each.rows)
                broken = [name.replace(" ", "\n", 1) for name in table.headers]
                table = replace(table, headers=broken)
                yield f"{section.label}-{each.parameter}", Environment(caption, reading, [table])


def _trainings(points: pd.DataFrame) -> Iterator[tuple[str, Environment]]:
    if not points.empty:
        for task, rows in final(points[points["status"] == "ok"]):
            yield f"training-{task}", _training(task, rows)


def _training(task: str, rows: pd.DataFrame) -> Environment:
    headers = ("estimator", "learning\nrate", "seeds", "test\n−log p(x)", "test\n−ELBO", "seconds")
    lines = []
    best = rows["rank"].eq(1) & rows["rank"].gt(1).any()
    for bold, row in zip(best, rows.to_dict("records"), strict=True):
        bound, elbo = (
            interval(*(row[f"{end}_{metric}"] for end in ("value", "low", "high")))
            for metric in ("bound", "elbo")
        )
        lines.append(
            [
                Strong(row["label"]) if bold else row["label"],
                *(number(row["learning_rate"]), count(row["seeds"])),
                *(Best(bound, bound.order) if bold else bound, elbo, number(row["seconds"])),
            ]
        )
    caption = (
        f"Models trained on {task} with each estimator: nats for a data point with hard codes, "
        "lower is better, and seconds of training."
    )
    notes = (
        "Behind a number are the distances to the ends of its 95 % interval, over seeds, or over "
        "test data where there is one seed."
    )
    if best.any():
        notes += " " + _BEST.format(by="−log p(x)", level=100 * LEVEL)
    return Environment(caption, notes, [Table(headers, lines, left=1)])


def _cell(text: str) -> tuple[str, str]:
    """In TeX: what aligns, and what follows it."""
    if not isinstance(text, Quantity):
        name, bracket, knobs = text.partition(" (")
        said = tex.escape(name)
        said = rf"\textbf{{{said}}}" if isinstance(text, Strong) else said
        return said + (rf" {{\scriptsize {tex.escape(bracket + knobs)}}}" if bracket else ""), ""
    value, rest = tex.number(text)
    return (tex.bold(value) if isinstance(text, Best) else value), rest


def _line(row: Sequence[tuple[str, str]], double: Sequence[bool]) -> str:
    said = [part for cell, two in zip(row, double, strict=True) for part in cell[: 1 + two]]
    return rf"{' & '.join(said)} \\" + "\n"


def _header(text: str, columns: str) -> str:
    said = r" \\ ".join(map(tex.escape, text.split("\n")))
    if "\n" in text:
        said = rf"\shortstack[{'c' if '@' in columns else columns}]{{{said}}}"
    return rf"\multicolumn{{2}}{{c}}{{{said}}}" if "@" in columns else said
