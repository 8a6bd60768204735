"""Files that are whole or absent."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd


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


def write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_json(path: Path, data: Any) -> None:
    write_text(path, json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def write_frame(path: Path, frame: pd.DataFrame) -> None:
    """As Parquet or CSV, by the path's suffix."""
    if path.suffix == ".parquet":
        write_atomically(path, lambda partial: frame.to_parquet(partial, index=False))
    else:
        write_atomically(path, lambda partial: frame.to_csv(partial, index=False))
