"""Loads the folder of a run: its tables with labels, and the sweeps, families and rankings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gradest.report.formats import Formats
from gradest.report.frames import curves, tables
from gradest.report.frames.nested_factors import Family, find_families
from gradest.report.frames.problems import Problems, readable
from gradest.report.frames.rankings import Rankings, Section, rank_run, rank_tasks
from gradest.report.frames.sweeps import Sweep, find_sweeps
from gradest.runs import ADAPTATION, COLUMNS, ORIGIN, SOURCES, read_run
from gradest.runs.descent import COLUMNS as DESCENTS
from gradest.runs.training import COLUMNS as TRAINING
from gradest.support import collector_paused

CLAIMS = "claims.csv"

Images = Mapping[tuple[str, str], Mapping[str, np.ndarray]]


@dataclass(frozen=True, eq=False)
class LoadedRun:
    """The tables of a run with labels; sections and figures of its report take this.

    Tables without rows stand for what a run does not hold.  Sweeps, families and rankings are
    computed once, when they are first used.
    """

    facts: Mapping[str, Any]  # the content of run.json
    frame: pd.DataFrame  # measurements, annotated
    adaptation: pd.DataFrame  # the variance of adaptive estimators as they adapt
    components: pd.DataFrame  # of the variance, by source
    trainings: pd.DataFrame  # the points of the curves of all trainings
    points: pd.DataFrame  # those of them at the best learning rate
    images: Images  # (task_label, label) -> name -> [how many, H, W]
    properties: pd.DataFrame  # of distributions
    problems: Problems = field(default_factory=Problems)
    searches: pd.DataFrame = field(default_factory=pd.DataFrame)  # for counterexamples
    all_descents: pd.DataFrame = field(default_factory=pd.DataFrame)  # the points of their curves
    formats: Formats = field(default_factory=Formats)  # of the files of its report

    @property
    def own(self) -> pd.DataFrame:
        """The rows that this run measured; the others stand in for cells that it did not."""
        return self.frame[self.frame[ORIGIN].isna()]

    @property
    def levels(self) -> list[str]:
        """The nested levels, outermost first."""
        return _levels(self.facts)

    @property
    def estimators(self) -> list[str]:
        """The estimators of all measurements, so that every figure draws them alike."""
        return sorted(set(self.frame["estimator"].astype(str)))

    @property
    def maximises(self) -> bool:
        """Whether descents ascend."""
        return maximises(self.facts)

    @cached_property
    def descents(self) -> pd.DataFrame:
        """The points of descents at the best learning rate."""
        return curves.best_descents(self.all_descents, self.maximises)

    @cached_property
    def families(self) -> list[Family]:
        return find_families(self.frame, self.levels)

    @cached_property
    def single(self) -> pd.DataFrame:
        """The measurements that belong to no family of nested levels."""
        return _without(self.frame, self.families)

    @cached_property
    def sweeps(self) -> list[Sweep]:
        return find_sweeps(self.single)

    @cached_property
    def grouped(self) -> pd.DataFrame:
        """All measurements; those of a sweep or a family have its label as their task_label."""
        return _grouped(self.frame, [*self.sweeps, *self.families])

    @cached_property
    def tasks(self) -> list[Section]:
        """The rankings of tasks that belong to no sweep and no family."""
        return rank_tasks(_without(self.single, self.sweeps), self.problems)

    @cached_property
    def rankings(self) -> Rankings:
        return rank_run(self.tasks, self.sweeps, self.families, self.problems)


@collector_paused()
def load_run(folder: Path, formats: Formats | None = None) -> LoadedRun:
    """Load the run in a folder from run.json and the tables beside it, nothing else.

    Without `formats` its report has the usual ones of a run of its size.  Raises UsageError when
    there is no run, or it cannot be read.
    """
    facts = read_run(folder)
    with readable(folder):
        frame = tables.annotate(load_measurements(folder))
        levels = _levels(facts)
        trainings = load_points(folder)
        points = curves.best_rates(trainings)
        return LoadedRun(
            facts,
            frame,
            load_adaptation(folder, frame, levels),
            load_components(folder, frame, levels),
            trainings,
            points,
            load_images(folder, points),
            load_properties(folder),
            searches=load_searches(folder),
            all_descents=load_descents(folder),
            formats=formats or Formats.default(len(frame)),
        )


def maximises(run: Mapping[str, Any]) -> bool:
    """Whether the descents of a run, given its run.json, ascend."""
    return bool(((run.get("training") or {}).get("descent") or {}).get("maximise"))


def load_measurements(folder: Path) -> pd.DataFrame:
    """The rows as they were written.  Raises ValueError for other columns, OSError without any."""
    rows = pd.read_parquet(folder / "measurements.parquet")
    if ORIGIN not in rows:  # runs of earlier versions only have rows of their own
        rows = rows.assign(**{ORIGIN: pd.Series(None, rows.index, dtype="str")})
    return _checked(rows, COLUMNS, "measurements")


def load_adaptation(folder: Path, frame: pd.DataFrame, levels: Sequence[str] = ()) -> pd.DataFrame:
    """The variance of adaptive estimators at some of their steps; of a repeated cell, the last.

    `frame` holds the annotated measurements.  The settings of a sweep or of nested levels share a
    task_label, and each has rows.  Raises ValueError for a table with other columns.
    """
    rows = _load(folder / "adaptation.parquet", ADAPTATION)
    rows = rows.drop_duplicates([*ADAPTATION[:7], "step"], keep="last")
    labels = {}
    if not rows.empty:
        families = find_families(frame, levels)
        grouped = _grouped(frame, [*find_sweeps(_without(frame, families)), *families])
        columns = grouped[["task", "task_params", "task_label"]]
        labels = {(task, params): label for task, params, label in columns.to_numpy()}
    return _labelled(rows, frame).assign(task_label=_task_labels(rows, labels))


def load_components(folder: Path, frame: pd.DataFrame, levels: Sequence[str]) -> pd.DataFrame:
    """The components of the variance; their task_label is the name of their family.

    Raises ValueError for a table with other columns.
    """
    rows = _load(folder / "sources.parquet", SOURCES)
    families = find_families(frame, levels)
    labels = {(family.task, family.task_params): family.name for family in families}
    return _labelled(rows, frame).assign(task_label=_task_labels(rows, labels))


def load_training(folder: Path) -> pd.DataFrame:
    """The labelled points of the best learning rates.  Raises ValueError for other columns."""
    return curves.best_rates(load_points(folder))


def load_points(folder: Path) -> pd.DataFrame:
    """The labelled points of all curves.  Raises ValueError for a table with other columns."""
    return curves.label_points(_load(folder / "training.parquet", TRAINING))


def load_descents(folder: Path) -> pd.DataFrame:
    """The labelled points of all descents.  Raises ValueError for a table with other columns."""
    rows = _load(folder / "descents.parquet", DESCENTS)
    return curves.label_points(rows.assign(split=curves.ALONE))


def load_images(folder: Path, points: pd.DataFrame) -> Images:
    """(task_label, label) -> name -> images, of the first seed.  Raises ValueError, OSError."""
    path = folder / "pictures.npz"
    if points.empty or not path.exists():
        return {}
    firsts = points.drop_duplicates(["task_label", "label"])
    with np.load(path, allow_pickle=False) as arrays:
        return {
            (row.task_label, row.label): {
                name.partition("/")[2]: arrays[name]
                for name in arrays.files
                if name.startswith(f"{row.key}/")
            }
            for row in firsts.itertuples()
            if f"{row.key}/data" in arrays.files
        }


def load_properties(folder: Path) -> pd.DataFrame:
    """The rows of properties; none where no property was tested."""
    path = folder / "properties.parquet"
    return pd.read_parquet(path) if path.exists() else pd.DataFrame()


def load_claims(folder: Path) -> pd.DataFrame:
    """The verdicts on the claims of a run; none where its suite states none."""
    path = folder / CLAIMS
    return pd.read_csv(path) if path.exists() else pd.DataFrame()


def load_searches(folder: Path) -> pd.DataFrame:
    """The rows of searches for counterexamples; none where no claim is for all problems."""
    path = folder / "searches.parquet"
    return pd.read_parquet(path) if path.exists() else pd.DataFrame()


def _levels(facts: Mapping[str, Any]) -> list[str]:
    return facts.get("nested") or []


def _without(frame: pd.DataFrame, groups: Sequence[Sweep | Family]) -> pd.DataFrame:
    return frame.drop([index for group in groups for index in group.rows.index])


def _grouped(frame: pd.DataFrame, groups: Sequence[Sweep | Family]) -> pd.DataFrame:
    labels = frame["task_label"].copy()
    for group in groups:
        labels[group.rows.index] = group.label
    return frame.assign(task_label=labels)


def _load(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """The rows of a table; none without the file, as in runs of earlier versions."""
    if not path.exists():
        return pd.DataFrame(columns=list(columns))
    return _checked(pd.read_parquet(path), columns, path.stem)


def _checked(rows: pd.DataFrame, columns: Sequence[str], table: str) -> pd.DataFrame:
    if missing := [c for c in columns if c not in rows]:
        raise ValueError(f"{table}.parquet has no column {', '.join(missing)}")
    return rows


def _task_labels(rows: pd.DataFrame, labels: Mapping[tuple[str, str], str]) -> pd.Series:
    keys = zip(rows["task"], rows["task_params"], strict=True)
    return pd.Series([labels.get(k, str(k[0])) for k in keys], rows.index, dtype="str")


def _labelled(rows: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """Adds label, settings and tag, the values of the settings, as the measurements have them."""
    known = {
        (estimator, params): settings
        for estimator, params, settings in frame[
            ["estimator", "estimator_params", "settings"]
        ].to_numpy()
    }
    varied = [c for c in ("dtype", "seed") if frame[c].nunique() > 1]
    settings = [
        known.get((row["estimator"], row["estimator_params"]), {}) | {c: row[c] for c in varied}
        for row in rows.to_dict("records")
    ]
    labels = map(tables.label, rows["estimator"].astype(str), settings)
    tags = [", ".join(map(tables.plain_text, each.values())) for each in settings]
    return rows.assign(
        settings=pd.Series(settings, rows.index, dtype=object),
        label=pd.Series(list(labels), rows.index, dtype="str"),
        tag=pd.Series(tags, rows.index, dtype="str"),
    )
