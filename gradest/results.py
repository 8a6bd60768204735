"""What a run leaves behind: the columns, and files that are either whole or absent."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

# Names every row; the params are JSON with sorted keys.
IDENTITY = (
    *("suite", "task", "task_params", "estimator", "estimator_params", "seed", "dtype"),
    *("parameter", "status", "reason"),
)
SIZE = ("batch", "latents", "categories", "coordinates")
PROTOCOL = ("replicates", "adapt_steps", "method", "reference")
BIAS = (
    *("gradient_norm", "bias_sq", "bias_sq_low", "bias_sq_high", "bias_norm", "relative_bias"),
    *("max_z", "p_value", "verdict"),
)
VARIANCE = ("variance", "variance_low", "variance_high", "mse", "snr", "cosine", "cosine_se")
VALUE = ("value", "value_se", "exact_value")
COST = ("evaluations", "seconds", "seconds_low", "seconds_high", "work_variance")
COLUMNS = (*IDENTITY, *SIZE, *PROTOCOL, *BIAS, *VARIANCE, *VALUE, *COST)
TEXT = (
    *("suite", "task", "task_params", "estimator", "estimator_params", "dtype", "parameter"),
    *("status", "reason", "method", "reference", "verdict"),
)

COORDINATES = (
    *("suite", "task", "task_params", "estimator", "estimator_params", "seed", "parameter"),
    *("point", "latent", "category", "mean", "exact", "standard_error", "variance"),
)


def measurements_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a frame with every column, in order, text and numbers apart."""
    frame = pd.DataFrame(rows).reindex(columns=list(COLUMNS))
    numbers = [c for c in COLUMNS if c not in TEXT]
    frame[numbers] = frame[numbers].apply(pd.to_numeric)
    return frame.astype({c: "str" for c in TEXT}).where(frame.notna())


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write` with a temporary path and move the result into place: whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    partial = Path(name)
    try:
        write(partial)
        partial.chmod(0o644)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, data: Any) -> None:
    text = json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_frame(path: Path, frame: pd.DataFrame) -> None:
    """As Parquet or CSV, by the path's suffix."""
    if path.suffix == ".parquet":
        write_atomically(path, lambda partial: frame.to_parquet(partial, index=False))
    else:
        write_atomically(path, lambda partial: frame.to_csv(partial, index=False))
