"""A run reduced to what its reference results are used for: comparisons, and rows of rankings.

The tables stay as they are, compressed better.  The journal keeps what a comparison tests: the
moments of gradients, objective and cosines, merged to at most 16 batches.  Count, mean and centred
sum of squares of all replicates together stay what they were, up to the last digit, so that a cell
that is measured again can be found identical.  Only the noise among the batches, from which tests
of runs with other seeds take their errors, is rounded, to an eighth of its own size: digits of
noise tell nothing, and do not compress.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from gradest.measurement import LOG_ALPHA
from gradest.report.frames.loading import CLAIMS
from gradest.runs import digest_of
from gradest.runs.journal import Record, pack_journal, read_journal
from gradest.runs.tables import latest, read_run
from gradest.statistics import Moments
from gradest.support import checksum, replacing, write_atomically, write_text

BATCHES = 16
STEPS = 8  # to a standard deviation of the batches
TABLES = ("measurements", "training", "descents", "properties", "searches")
# Of run.json: what no comparison reads, and is long, or belongs to the journal as it was.
_LEFT_OUT = ("methods", "references", "journal", "recorded", "checksum")
# Curves are in their tables; images are not kept.
_EMPTY = {
    "training": {"points": [], "pictures": {}},
    "descent": {"steps": [], "seconds": [], "metrics": {}},
}


def keep_run(folder: Path, out: Path) -> None:
    """Write the reduced run of `folder` into `out`, in place of what an earlier call left there.

    Raises UsageError where `folder` holds no run.
    """
    run = read_run(folder)
    records = latest(read_journal(folder / "journal.jsonl").records)
    kept = [records[cell["key"]] for cell in run["cells"] if cell["key"] in records]
    parameters = {LOG_ALPHA, *run["parameters"]}
    lines = (line for record in kept for line in _reduced(record, parameters))
    out.mkdir(parents=True, exist_ok=True)
    former = {path.relative_to(out) for path in out.iterdir() if path.is_file()}
    with replacing(out, lambda new: former - new) as staged:
        pack_journal(staged, run["suite"], lines)
        for name in TABLES:
            if (folder / f"{name}.parquet").exists():
                _compress(pd.read_parquet(folder / f"{name}.parquet"), staged / f"{name}.parquet")
        if (folder / CLAIMS).exists():
            write_text(staged / CLAIMS, (folder / CLAIMS).read_text(encoding="utf-8"))
        write_text(staged / "run.json", _described(run))


def _described(run: Mapping[str, Any]) -> str:
    """run.json: one line for each key, and of cells their keys alone: the journal has them."""
    content = {key: value for key, value in run.items() if key not in _LEFT_OUT}
    content |= {"reduced": True, "cells": [{"key": cell["key"]} for cell in run["cells"]]}
    content |= {"checksum": checksum(content)}
    lines = [
        f"{json.dumps(key)}: {json.dumps(value, sort_keys=True, separators=(',', ':'))}"
        for key, value in sorted(content.items())
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _reduced(record: Record, parameters: set[str]) -> list[Record]:
    """The record of a cell, then that of its times if it was timed."""
    record = dict(record)
    samples = record.pop("samples", None)
    kept = {k: v for k, v in record.items() if k not in ("elapsed", "traceback", "suite")}
    kept["cell"] = {key: value for key, value in record["cell"].items() if key != "code"}
    if record["status"] == "ok":
        kept |= {name: empty for name, empty in _EMPTY.items() if name in record}
        if "measurement" in record:
            kept["measurement"] = _reduced_measurement(record["measurement"], parameters)
    times = {"kind": "seconds", "key": record["key"], "samples": samples}
    return [kept] if samples is None else [kept, times]


def _reduced_measurement(measurement: Mapping[str, Any], parameters: set[str]) -> dict[str, Any]:
    """With a digest of the moments as they were: the test whether a cell is the same bit by bit."""
    gradients = {
        name: reduce_moments(Moments.from_json(moments)).to_json()
        for name, moments in measurement["gradients"].items()
        if name in parameters
    }
    return {
        **measurement,
        "gradients": gradients,
        "objective": reduce_moments(Moments.from_json(measurement["objective"])).to_json(),
        "cosines": reduce_moments(Moments.from_json(measurement["cosines"])).to_json(),
        "means": {},  # of each group's own coordinates, which only nested levels need
        "digest": digest_of(measurement),
    }


def reduce_moments(moments: Moments) -> Moments:
    """At most `BATCHES` batches, with rounded noise and the pooled moments of the given ones."""
    batches = len(moments.count)
    if batches == 1:
        return moments
    fewer = min(BATCHES, batches)
    group = torch.arange(batches) * fewer // batches
    merged = Moments.stacked([_part(moments, group == number) for number in range(fewer)])
    total, count = moments.pooled, merged.count.unsqueeze(1)
    mean = _absorbing(_rounded(merged.mean), count, count.sum() * total.mean[0])
    between = (count * (mean - total.mean).square()).sum(0)
    ones = torch.ones_like(count)
    m2 = _absorbing(_rounded(merged.m2), ones, total.m2[0] - between)
    # Where few outcomes make all the noise, rounding could leave less than nothing.
    safe = (m2 >= 0).all(0)
    return Moments(
        merged.count, torch.where(safe, mean, merged.mean), torch.where(safe, m2, merged.m2)
    )


def _part(moments: Moments, chosen: Tensor) -> Moments:
    return Moments(moments.count[chosen], moments.mean[chosen], moments.m2[chosen]).pooled


def _rounded(values: Tensor) -> Tensor:
    """Each coordinate [J, D] rounded to a power of two, the next below an eighth of its spread."""
    step = values.std(0) / STEPS
    step = torch.where(step > 0, step, 1.0).log2().floor().exp2()
    return torch.where(values.std(0) > 0, (values / step).round() * step, values)


def _absorbing(values: Tensor, weight: Tensor, total: Tensor) -> Tensor:
    """The values [J, D], the largest of a coordinate changed so that Σ weight · value is total."""
    largest = values.abs().argmax(0, keepdim=True)
    missing = (total - (weight * values).sum(0)).unsqueeze(0)
    return values.scatter_add(0, largest, missing / weight.expand_as(values).gather(0, largest))


def _compress(frame: pd.DataFrame, path: Path) -> None:
    # Statistics and a second copy of the schema are most of a small file.
    options = {"compression": "zstd", "compression_level": 19, "index": False}
    options |= {"write_statistics": False, "use_dictionary": False, "store_schema": False}
    write_atomically(path, lambda partial: frame.to_parquet(partial, **options))
