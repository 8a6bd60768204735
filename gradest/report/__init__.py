"""The report of a run: tables, figures and report.md, from its rows alone."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from gradest import plots, references
from gradest.analysis import budget, further, levels, sweeps, tables
from gradest.analysis.further import Further
from gradest.analysis.levels import Family
from gradest.errors import UsageError
from gradest.files import write_atomically, write_frame
from gradest.plots import concrete, landscape
from gradest.plots import training as training_plots
from gradest.plots.adaptation import adaptation as draw_adaptation
from gradest.plots.sources import variance_by_source
from gradest.plots.vae_temperature import vae_temperature as draw_vae_temperature
from gradest.report import (
    adaptation,
    nested,
    numerics,
    properties,
    prose,
    sources,
    swept,
    training,
    vae_temperature,
)
from gradest.running.results import COLUMNS, read_run

_FIGURES = {
    "bias_against_variance": plots.bias_against_variance,
    "variance_against_evaluations": plots.variance_against_evaluations,
    "mse_against_budget": plots.mse_against_budget,
    "temperature_tradeoff": plots.temperature_tradeoff,
    "cost_growth": plots.cost_growth,
    "landscape_binary": landscape.binary,
    "landscape_simplex": landscape.simplex,
}
_OF_TRAINING = {
    "training_objectives": training_plots.objectives,
    "training_gap": training_plots.gap,
    "training_gradient": training_plots.gradient,
    "vae_temperature": draw_vae_temperature,
}
_OF_PROPERTIES = {"simplex": concrete.simplex, "simplex_panels": concrete.simplex_panels}
_OWN = ("summary", "crossovers")  # names in tables/ that no task can take
_SUFFIXES = (".png", ".svg")
_SUMMARY, _CROSSOVERS = (f"{name}.csv" for name in _OWN)
_BIBTEX = "references.bib"


def write_report(folder: Path) -> Path:
    """Write tables/, figures/, references.bib and report.md of the run in `folder`.

    Returns report.md's path.  Reads run.json and the tables beside it, nothing else.  What an
    earlier report left is removed.  Raises UsageError when `folder` holds no readable run.
    """
    folder = Path(folder)
    frame, run = _read(folder)
    controls, left_out = _controls(frame, run)
    knobs = run.get("nested") or []
    families = levels.found(frame, knobs)
    more = _read_further(folder, frame, families, knobs)
    single = levels.apart(frame, knobs)
    sections = _sections(sweeps.apart(single))
    collapsed = swept.sections(single, _SUMMARY)
    brought = nested.sections(families, _SUMMARY)
    crossovers = _crossovers(sections)
    _write_tables(folder / "tables", [*sections, *collapsed, *brought], crossovers)
    merged = levels.merged(frame, knobs)
    everyone = frame["estimator"].astype(str)
    figures = {
        **{name: draw() for name, draw in _OF_PROPERTIES.items() if not more.properties.empty},
        **{name: draw(single) for name, draw in _FIGURES.items()},
        "adaptation": draw_adaptation(more.looks, everyone),
        "variance_by_source": variance_by_source(more.sources, everyone, knobs),
        **{name: draw(more.points) for name, draw in _OF_TRAINING.items()},
        "pictures": training_plots.pictures(more.images),
    }
    drawn = _write_figures(folder / "figures", figures)
    cited = _cited([frame, more.points], run.get("references"))
    _write_bibtex(folder / _BIBTEX, cited)
    parts = [
        prose.controls(control_failures(frame, controls), controls),
        prose.left_out(left_out),
        *prose.about(frame, run, more.points),
        *properties.section(more.properties),
        *training.section(more.points, run.get("training") or {}),
        *vae_temperature.section(more.points),
        prose.multiplicity(frame),
        *map(prose.section, sections),
        *prose.budgets(crossovers, _CROSSOVERS),
        *map(swept.section, collapsed),
        *map(nested.section, families, brought),
        *sources.section(more.sources, knobs),
        *adaptation.section(more.looks),
        *numerics.section(merged),
        *prose.figures(drawn),
        *prose.unmeasured(merged),
        prose.files(frame),
        *prose.cited(cited, _BIBTEX),
    ]
    text = "\n\n".join(part for part in parts if part) + "\n"
    path = folder / "report.md"
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))
    return path


def _controls(
    frame: pd.DataFrame, run: Mapping[str, Any]
) -> tuple[dict[str, list[str]], list[str]]:
    """The controls of the run, and those that the suite has but the run was to leave out."""
    controls = run.get("controls") or {}
    suite = {cell.get("estimator") for cell in run.get("cells") or ()}
    absent = suite - set(frame["estimator"])
    kept = {kind: [n for n in names if n not in absent] for kind, names in controls.items()}
    return kept, [n for names in controls.values() for n in names if n in absent]


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
    wrong = found[found["verdict"] != expected]
    for (label, verdict), part in wrong.groupby(["label", "verdict"], sort=False, dropna=False):
        symbols = " and ".join(tables.SYMBOLS.get(p, str(p)) for p in part["parameter"].unique())
        why = ", the exact gradient being unknown" if part["bias_sq"].isna().all() else ""
        yield f"{label} should be {expected} on {task}, but is {verdict} in {symbols}{why}."


def _read(folder: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    run = read_run(folder)
    try:
        if not isinstance(run, dict):
            raise ValueError("run.json is not a JSON object")
        frame = pd.read_parquet(folder / "measurements.parquet")
        if missing := [c for c in COLUMNS if c not in frame]:
            raise ValueError(f"measurements.parquet has no column {', '.join(missing)}")
        return tables.annotate(frame), run
    except (OSError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{folder}: holds no readable run: {reason}") from error


def _read_further(
    folder: Path, frame: pd.DataFrame, families: list[Family], knobs: Sequence[str]
) -> Further:
    """Adaptive looks, sources of variance, trainings and properties, if there are any."""
    try:
        return further.read(folder, frame, families, knobs)
    except (OSError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{folder}: holds no readable run: {reason}") from error


def _cited(frames: Sequence[pd.DataFrame], known: Any) -> dict[str, str]:
    """estimator -> what it cites, of those with numbers; runs of old keep nothing."""
    known = known if isinstance(known, Mapping) else {}
    names = sorted({name for each in frames for name in tables.measured(each)["estimator"]})
    return {name: str(known[name]) for name in names if known.get(name)}


def _sections(frame: pd.DataFrame) -> list[prose.Section]:
    """Every task with its params; one where nothing was measured has no tables."""
    names: list[str] = []
    sections = []
    for label, rows in tables.sections(frame):
        found = []
        for parameter in tables.parameters(rows):
            names.append(_unused(f"{label}-{parameter}", [*names, *_OWN]))
            parts = tables.measured(rows, parameter).groupby("dtype", sort=False)
            ranked = pd.concat([tables.ranked(part) for _, part in parts])
            found.append(prose.Table(parameter, ranked, f"{names[-1]}.csv"))
        sections.append(prose.Section(label, rows, found))
    return sections


def _unused(label: str, taken: Sequence[str]) -> str:
    """A file name from a label, unlike those taken also where upper and lower case are one."""
    name = re.sub(r"[^\w.=]+", "-", label, flags=re.ASCII)[-100:].strip("-.")
    lower = {other.lower() for other in taken}
    candidates = [name, *(f"{name}-{n}" for n in range(2, len(taken) + 2))]
    return next(each for each in candidates if each.lower() not in lower)


def _crossovers(sections: Sequence[prose.Section]) -> pd.DataFrame:
    """Where biased rows are overtaken, of every section and parameter; log α comes first."""
    found = [
        budget.crossovers(part).assign(
            task=section.rows["task"].iloc[0],
            task_params=section.rows["task_params"].iloc[0],
            task_label=section.label,
            parameter=each.parameter,
        )
        for section in sections
        for each in section.tables
        for _, part in each.rows.groupby("dtype", sort=False)
    ]
    columns = ["task", "task_params", "task_label", "parameter", *budget.COLUMNS]
    if not found:
        return pd.DataFrame(columns=columns)
    order = {name: n for n, name in enumerate(tables.SYMBOLS)}
    every = pd.concat([each for each in found if not each.empty] or found[:1])
    by = every["parameter"].map(lambda p: order.get(p, len(order)))
    return every[columns].iloc[by.argsort(kind="stable")]


def _write_tables(
    folder: Path, sections: Sequence[prose.Section], crossovers: pd.DataFrame
) -> None:
    written = [each for section in sections for each in section.tables]
    for each in written:
        if each.file != _SUMMARY:
            write_frame(folder / each.file, tables.published(each.rows))
    if written:
        summary = pd.concat([tables.published(each.rows, summary=True) for each in written])
        write_frame(folder / _SUMMARY, summary)
    kept = {each.file for each in written} | ({_SUMMARY} if written else set())
    if not crossovers.empty:
        write_frame(folder / _CROSSOVERS, crossovers.drop(columns="task_label"))
        kept.add(_CROSSOVERS)
    _remove_others(folder, kept, {".csv"})


def _write_figures(folder: Path, figures: Mapping[str, Figure | None]) -> list[str]:
    """As PNG and SVG; returns the names of those that the rows have something for."""
    drawn = {name: figure for name, figure in figures.items() if figure}
    for name, figure in drawn.items():
        for suffix in _SUFFIXES:
            write_atomically(folder / f"{name}{suffix}", lambda path, f=figure: _save(f, path))
    _remove_others(folder, {f"{n}{s}" for n in drawn for s in _SUFFIXES}, set(_SUFFIXES))
    return list(drawn)


def _write_bibtex(path: Path, cited: Mapping[str, str]) -> None:
    if cited:
        text = references.bibtex(cited)
        write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))
    else:
        path.unlink(missing_ok=True)


def _save(figure: Figure, path: Path) -> None:
    """The same figure gives the same bytes."""
    undated = {"Date": None} if path.suffix == ".svg" else {"Software": None}
    with rc_context({"svg.hashsalt": "gradest"}):
        figure.savefig(path, dpi="figure", metadata=undated)


def _remove_others(folder: Path, keep: set[str], suffixes: set[str]) -> None:
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.suffix in suffixes and path.name not in keep:
            path.unlink()
