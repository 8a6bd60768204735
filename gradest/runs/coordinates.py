"""The table of coordinates, written in pieces: a run may have more of them than memory holds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gradest.support import write_frame

_ROWS = 2**17  # of a row group: a large cell has several, and small cells share one


class CoordinatesWriter:
    """Writes a Parquet file in groups of rows, and holds one group in memory.

    The file is what `write_frame` makes of one frame with all rows, but for its groups.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._path = path
        self._columns = columns
        self._pending: list[Mapping[str, Any]] = []
        self._rows = 0  # in `_pending`
        self._file: Any = None

    def add(self, cell: Mapping[str, Any]) -> None:
        """Add rows: an array for each column, or one value for all rows."""
        arrays = {name: x for name, x in cell.items() if isinstance(x, np.ndarray)}
        start, rows = 0, _rows_of(arrays)
        while start < rows:
            end = min(rows, start + _ROWS - self._rows)
            part = {name: x[start:end] for name, x in arrays.items()}
            self._pending.append({**cell, **part})
            self._rows += end - start
            start = end
            if self._rows == _ROWS:
                self._flush()

    def close(self) -> None:
        """Write the last rows; without any, a table that has only columns."""
        if self._pending:
            self._flush()
        if self._file:
            self._file.close()
        else:
            write_frame(self._path, pd.DataFrame([], columns=list(self._columns)))

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.Table.from_pandas(self._frame(), preserve_index=False)
        self._pending, self._rows = [], 0
        self._file = self._file or pq.ParquetWriter(self._path, table.schema)
        self._file.write_table(table)

    def _frame(self) -> pd.DataFrame:
        counts = [_rows_of(part) for part in self._pending]
        columns = {}
        for name in self._columns:
            values = [part[name] for part in self._pending]
            if isinstance(values[0], np.ndarray):
                columns[name] = np.concatenate(values)
            else:
                columns[name] = pd.Series(values).repeat(counts).array
        return pd.DataFrame(columns)


def _rows_of(columns: Mapping[str, Any]) -> int:
    return next(len(x) for x in columns.values() if isinstance(x, np.ndarray))
