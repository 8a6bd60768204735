"""The table of coordinates in row groups is the table of all rows at once."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from gradest.runs import coordinates
from gradest.runs.coordinates import CoordinatesWriter

COLUMNS = ("task", "seed", "point", "mean", "exact")


def cells(sizes):
    draws = np.random.default_rng(0)
    for number, size in enumerate(sizes):
        yield {
            **{"task": f"t{number % 3}", "seed": number, "point": np.arange(size)},
            **{"mean": draws.normal(size=size), "exact": np.full(size, np.nan)},
        }


@pytest.mark.parametrize("sizes", [[3], [1, 2, 3, 4], [4], [9, 1, 20], [4, 4, 1], [1] * 13])
def test_groups_hold_the_rows_of_all_cells_in_order(tmp_path, monkeypatch, sizes):
    monkeypatch.setattr(coordinates, "_ROWS", 4)
    path = tmp_path / "x.parquet"
    writer = CoordinatesWriter(path, COLUMNS)
    for cell in cells(sizes):
        writer.add(cell)
    writer.close()
    groups = pq.ParquetFile(path).metadata
    rows = [groups.row_group(number).num_rows for number in range(groups.num_row_groups)]
    assert rows == [4] * (sum(sizes) // 4) + [sum(sizes) % 4] * (sum(sizes) % 4 > 0)
    expected = pd.concat([pd.DataFrame(cell) for cell in cells(sizes)], ignore_index=True)
    pd.testing.assert_frame_equal(pd.read_parquet(path), expected, check_exact=True)


def test_one_group_is_what_one_frame_writes(tmp_path):
    """Byte by byte, so that the table of a small run is what it always was."""
    writer = CoordinatesWriter(tmp_path / "groups.parquet", COLUMNS)
    for cell in cells([5, 7]):
        writer.add(cell)
    writer.close()
    frame = pd.concat([pd.DataFrame(cell) for cell in cells([5, 7])], ignore_index=True)
    frame.to_parquet(tmp_path / "frame.parquet", index=False)
    first, second = ((tmp_path / f"{n}.parquet").read_bytes() for n in ("groups", "frame"))
    assert first == second


def test_no_cell_leaves_a_table_with_columns(tmp_path):
    CoordinatesWriter(tmp_path / "x.parquet", COLUMNS).close()
    frame = pd.read_parquet(tmp_path / "x.parquet")
    assert frame.empty and tuple(frame) == COLUMNS
