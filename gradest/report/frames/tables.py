"""Rows with labels, intervals and ranks, as tables and figures show them."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from gradest.measurement import SCALES
from gradest.measurement import SYMBOLS as SYMBOLS  # re-exported for all tables
from gradest.report.frames import ranking
from gradest.runs import ORIGIN
from gradest.statistics import BATCHES, SINGLE, Interval, columns_of, holm
from gradest.statistics import resolution as resolution_of

_BIASES = ("bias_sq", "bias_sq_low", "bias_sq_high", "bias_norm", "relative_bias")
_VARIANCES = tuple(columns_of("variance"))
_EXTREME = 1e100
VERDICTS = ("unbiased", "inconclusive", "biased")
FEW_TASKS = 12  # that have a panel and a file each; of more, figures and files show all together
STAND_IN = "°"  # after the label of a row that was not measured in this run
# The cells in which the test of a bias is the same.
_TESTED = ("task", "task_params", "estimator", "estimator_params", "seed", "dtype", "replicates")
_COMPARED = ["value", "value_low", "value_high", "freedom"]
_PUBLISHED = (
    *("rank", "detectable_ratio", "label", "estimator", "estimator_params", "seed", "dtype"),
    *("replicates", "outcomes", "adapt_steps", "method", "precision", "verdict", "note"),
    *("reference", "reference_by", "reference_se"),
    *("gradient_norm", "scale", "rounding"),
    *("relative_bias", "relative_bias_low", "relative_bias_high"),
    *columns_of("best_scale"),
    *columns_of("relative_bias_rescaled"),
    *("bias_precision", "detectable_bias", "max_z", "p_value", "p_holm", "variance"),
    *("variance_low", "variance_high", "variance_precision", "mse", "mse_low", "mse_high", "snr"),
    *("cosine", "cosine_se", "zero", "nonfinite", "overflow", "drift", "drift_se"),
    *("evaluations", "gradient_evaluations", "memory", "seconds", "seconds_low", "seconds_high"),
    "work_variance",
    ORIGIN,
)


def usable_numbers(numbers: pd.DataFrame | pd.Series) -> pd.DataFrame | pd.Series:
    """Numbers as floats, NaN where they are not finite or so extreme that squares are not."""
    numbers = numbers.astype(float)
    size = numbers.abs()
    return numbers.where(size.eq(0) | (size.ge(1 / _EXTREME) & size.le(_EXTREME)))


def annotate(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with labels and with intervals of numbers derived from the measured columns.

    Adds settings (the knobs that occur with more than one value, as a dict), label (the estimator
    with those, and a mark on rows that stand in from another run), task_label, low and high ends
    of relative_bias and mse, and p_holm, the p-value by Holm over the bias tests of all rows.
    Numbers that the dtype cannot distinguish from zero become zero.

    Raises ValueError when the params of a row are not a JSON object.
    """
    frame = _flushed(frame.reset_index(drop=True))
    frame = add_labels(frame, _protocol(frame))
    frame["label"] += frame[ORIGIN].notna().map({True: STAND_IN, False: ""})
    frame["p_holm"] = adjust_p_values(frame)
    return _with_intervals(frame)


def bias_tests(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of a run with a random test of bias, each test once.

    α and log α share theirs, since z does not depend on the scale.  An enumerated mean is compared
    with the truth without chance, unless the truth is itself an estimate.
    """
    random = frame["method"].ne("enumerated") | frame["reference"].eq("monte_carlo")
    rows = frame[frame["status"].eq("ok") & random & frame["p_value"].notna()]
    return rows.assign(test=_test(rows)).drop_duplicates([*_TESTED, "test"])


def adjust_p_values(frame: pd.DataFrame) -> pd.Series:
    """The p-value of every row, by Holm over all bias tests of the run; a certain one as it is."""
    tests = bias_tests(frame)
    tests = tests.assign(p_holm=holm(tests["p_value"].to_numpy(dtype=float)))
    keys = [*_TESTED, "test"]
    merged = frame.assign(test=_test(frame))[keys].merge(
        tests[[*keys, "p_holm"]], how="left", on=keys
    )
    return pd.Series(merged["p_holm"].to_numpy(), frame.index).fillna(frame["p_value"])


def _test(rows: pd.DataFrame) -> pd.Series:
    return rows["parameter"].where(~rows["parameter"].isin(list(SCALES)), "logits")


def add_labels(frame: pd.DataFrame, extra: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The rows, numbered from 0, with settings, label and task_label; `extra` goes into labels.

    Raises ValueError when the params of a row are not a JSON object.
    """
    settings = _differing_knobs(frame["estimator_params"])
    named = zip(frame["estimator"], settings, extra, strict=True)
    labels = [label(str(name), each | more) for name, each, more in named]
    return frame.assign(
        label=pd.Series(labels, frame.index, dtype="str"),
        settings=pd.Series(settings, frame.index, dtype=object),
        task_label=_task_labels(frame),
    )


def rank_rows(rows: pd.DataFrame, within: Sequence[str] = ()) -> pd.DataFrame:
    """Annotated rows with columns `rank` and `detectable_ratio`, best first in each ranking.

    All rows make one ranking, or those that are equal in the columns `within` make one each, which
    follow each other in the order of their first rows.  By mse, or by variance where no row of the
    ranking has an mse; rows that do not differ significantly share a rank
    (`gradest.report.frames.ranking`).  A row without a number, or without an interval of it, has no
    rank.  An enumerated cell appears once in a ranking, however often it was requested.
    """
    groups = rows.groupby(list(within), sort=False, dropna=False) if within else None
    number = pd.Series(0, rows.index) if groups is None else groups.ngroup()
    by_mse = np.isfinite(rows["mse"].astype(float)).groupby(number).transform("any")
    frame = pd.DataFrame({"ranking": number, "label": rows["label"]})
    for end in ("", "_low", "_high"):
        frame[f"value{end}"] = rows[f"mse{end}"].where(by_mse, rows[f"variance{end}"]).astype(float)
    frame = frame[~(rows["method"].eq("enumerated") & frame.duplicated(["ranking", "label"]))]
    frame = frame.sort_values(["ranking", "value", "label"], na_position="last")
    # An infinite number is last; one without an interval cannot be compared.
    bounded = np.isfinite(frame[["value_low", "value_high"]]).all(axis=1)
    compared = frame[frame["value"].ge(0) & (bounded | np.isposinf(frame["value"]))]
    measured = rows.loc[compared.index]
    compared = compared.assign(
        freedom=freedom_of(measured["replicates"]), rounding=_resolution(measured)
    )
    placed = [
        ranking.ranks(*part[_COMPARED].to_numpy(dtype=float).T, float(part["rounding"].max()))
        for _, part in compared.groupby("ranking")
    ]
    columns = zip(*placed, strict=True) if placed else ((), ())
    rank, detectable = (
        pd.Series(np.concatenate([*each, []]), compared.index, dtype=float) for each in columns
    )
    return rows.loc[frame.index].assign(rank=rank, detectable_ratio=detectable)


def freedom_of(replicates: pd.Series) -> pd.Series:
    """The degrees of freedom of intervals, one less than the batches that they rest on."""
    return (replicates.fillna(0) // 8).clip(2, BATCHES) - 1


# A column that rows are ranked by -> its name in a sentence.
RANKED_BY = {"mse": "MSE", "variance": "variance"}


def ranking_column(rows: pd.DataFrame) -> str:
    """A key of RANKED_BY."""
    return "mse" if np.isfinite(rows["mse"].astype(float)).any() else "variance"


def published_rows(rows: pd.DataFrame, summary: bool = False) -> pd.DataFrame:
    """Ranked rows as they are written to a file, unrounded; a summary also names the section."""
    section = ("task", "task_params", "parameter") if summary else ()
    return rows[[*section, *_PUBLISHED]].astype({"rank": "Int64"})


def sections(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Label and rows of every task with its params, in the order in which they were run."""
    for _, rows in frame.groupby(["task", "task_params"], sort=False, dropna=False):
        yield rows["task_label"].iloc[0], rows


def folded(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """The rows, in which all settings of a task share its name where there are more than `most`."""
    if rows["task_label"].nunique() <= most:
        return rows
    return rows.assign(task_label=rows["task"].astype("str"))


def measured_rows(frame: pd.DataFrame, parameter: str | None = None) -> pd.DataFrame:
    """The rows that hold numbers, of one parameter or of all."""
    rows = frame[frame["status"] == "ok"]
    return rows if parameter is None else rows[rows["parameter"] == parameter]


def parameters(frame: pd.DataFrame) -> list[str]:
    """The parameters that gradients were taken with respect to; log α is first."""
    names = set(measured_rows(frame)["parameter"])
    return sorted(names, key=lambda p: (p != "log_alpha", str(p)))


def label(name: str, settings: Mapping[str, Any]) -> str:
    """`name (knob=value)`."""
    inside = ", ".join(f"{k}={plain_text(v)}" for k, v in settings.items())
    return f"{name} ({inside})" if inside else name


def plain_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def parse_knobs(text: Any) -> dict[str, Any]:
    """Params from their JSON; none without text.  Raises ValueError."""
    params = json.loads(text) if isinstance(text, str) else {}
    if not isinstance(params, dict):
        raise ValueError(f"expected params as a JSON object, got {text}")
    return params


def _differing_knobs(texts: pd.Series) -> list[dict[str, Any]]:
    """The knobs in which params differ, from their JSON; of equal params they are the same dict."""
    numbers, distinct = pd.factorize(texts, use_na_sentinel=False)
    settings = _differing([parse_knobs(text) for text in distinct])
    return [settings[n] for n in numbers]


def _differing(params: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same without the names that have one value only."""
    values = defaultdict(set)
    for each in params:
        for name, value in each.items():
            values[name].add(json.dumps(value))
    return [{k: v for k, v in each.items() if len(values[k]) > 1} for each in params]


def _protocol(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The parts of the protocol that vary between measured rows.

    The replicates requested of an enumerated cell do not matter, nor those that a precision took.
    """
    planned = frame["precision"].notna() & frame["precision"].ne("")
    counts = frame["replicates"].mask(planned | frame["method"].eq("enumerated"))
    columns = frame[["dtype", "seed"]].assign(replicates=counts).astype(object)
    number = columns.groupby(list(columns), sort=False, dropna=False).ngroup()
    distinct = columns[~number.duplicated()].to_dict("records")
    settings = _differing(
        [{k: _whole(v) for k, v in row.items() if pd.notna(v)} for row in distinct]
    )
    return [settings[n] for n in number]


def _whole(value: Any) -> Any:
    """A float that is a whole number as an int."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _task_labels(frame: pd.DataFrame) -> pd.Series:
    labels = pd.Series("", index=frame.index, dtype="str")
    for name, rows in frame.groupby("task", sort=False, dropna=False):
        labels[rows.index] = [
            label(str(name), each) for each in _differing_knobs(rows["task_params"])
        ]
    return labels


def _flushed(frame: pd.DataFrame) -> pd.DataFrame:
    """A copy in which numbers below the rounding error are zero.

    A bias is zero where the verdict is: the bias of an estimate in single precision is far above
    the rounding error of float64, in which the variance is resolved.
    """
    length = np.fmax(frame["rounding"], _resolution(frame) * frame["gradient_norm"])
    spread = {c: frame[c].mask(frame[c].abs() <= length**2, 0.0) for c in _VARIANCES}
    none = frame["verdict"].eq("unbiased") & (
        frame["bias_norm"] <= np.fmax(length, SINGLE * frame["scale"])
    )
    none &= frame["method"].eq("enumerated")
    bias = {c: frame[c].mask(none, 0.0) for c in _BIASES}
    bias |= _rescaling(frame, np.fmax(length, SINGLE * frame["scale"]), none)
    mse = frame["mse"].mask(none, spread["variance"])
    work = frame["work_variance"].mask(spread["variance"] == 0, 0.0)
    return frame.assign(**bias, **spread, mse=mse, work_variance=work)


def _rescaling(frame: pd.DataFrame, length: pd.Series, none: pd.Series) -> dict[str, pd.Series]:
    """The columns of the rescaling, exact where an enumerated mean is g or a multiple of it."""
    exact = frame["method"].eq("enumerated") & frame["reference"].ne("monte_carlo")
    resolved = frame["best_scale"].abs() * frame["gradient_norm"]
    parallel = exact & (frame["relative_bias_rescaled"] * resolved <= length)
    rescaled = {c: frame[c].mask(parallel, 0.0) for c in columns_of("relative_bias_rescaled")}
    return rescaled | {c: frame[c].mask(none & exact, 1.0) for c in columns_of("best_scale")}


def resolution(dtype: object) -> float:
    """The relative rounding error of measurements in a dtype, given by name; else in float64."""
    return resolution_of(getattr(torch, str(dtype), torch.float64))


def _resolution(frame: pd.DataFrame) -> pd.Series:
    """The resolution of the dtype of each row."""
    return frame["dtype"].map(resolution).astype(float)


def _with_intervals(frame: pd.DataFrame) -> pd.DataFrame:
    """Ends of relative bias and mse, the sum of two estimates with an interval each."""
    bias = Interval.of(frame, "bias_sq")
    mse = bias._replace(estimate=bias.estimate.clip(lower=0)) + Interval.of(frame, "variance")
    scale = frame["scale"].fillna(frame["gradient_norm"])
    norm = scale.mask(scale == 0)
    return frame.assign(
        relative_bias_low=bias.root().low / norm,
        relative_bias_high=bias.root().high / norm,
        mse_low=mse.low.clip(lower=0),
        mse_high=mse.high,
    )
