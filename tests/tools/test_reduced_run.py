"""Runs reduced to reference results: what stays exact, what is rounded, and what is kept."""

import json
import lzma

import pandas as pd
import pytest
import torch

from gradest import read_results
from gradest.measurement import Measurement
from gradest.runs import digest_of, read_journal, read_run
from gradest.runs.tables import finished
from gradest.statistics import Moments
from tests.support import EXACT, run_suite
from tools.reduced_run import BATCHES, keep_run, reduce_moments

SUITE = """\
replicates: 1000
enumerate_draws: false
timed: false
tasks: [categorical]
estimators: [rloo, exact, disarm]
"""


def moments(batches=64, coordinates=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(batches, 20, coordinates, generator=generator, dtype=torch.float64)
    return Moments.of(draws * torch.logspace(-6, 6, coordinates) + 3)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The folder of a run, and that of the same run reduced."""
    place = tmp_path_factory.mktemp("reduced")
    run = run_suite(place, SUITE)
    keep_run(run, place / "kept")
    return run, place / "kept"


@pytest.mark.parametrize("batches", [2, 16, 17, 64])
def test_pooled_moments_keep_their_digits(batches):
    given = moments(batches)
    reduced = reduce_moments(given)
    assert len(reduced.count) == min(batches, BATCHES) and (reduced.m2 >= 0).all()
    a, b = given.pooled, reduced.pooled
    assert torch.equal(a.count, b.count)
    torch.testing.assert_close(b.mean, a.mean, rtol=1e-14, atol=0)
    torch.testing.assert_close(b.m2, a.m2, rtol=1e-13, atol=0)


def test_the_noise_among_batches_is_rounded_but_kept():
    given, reduced = moments(64), reduce_moments(moments(64))
    parts = [
        Moments(given.count[i : i + 4], given.mean[i : i + 4], given.m2[i : i + 4]).pooled
        for i in range(0, 64, 4)
    ]
    merged = Moments.stacked(parts)
    assert not torch.equal(merged.mean, reduced.mean)
    for name in ("mean", "m2"):
        spread = getattr(merged, name).std(0)
        error = (getattr(merged, name) - getattr(reduced, name)).abs()
        # But for the batch that makes up for the others.
        assert (error.sort(0).values[:-1] <= spread / 8).all()
    ratio = reduced.mean.std(0) / merged.mean.std(0)
    assert ((ratio - 1).abs() < 0.2).all()


def test_moments_without_noise_or_of_rare_outcomes_stay_as_they_are():
    constant = Moments.of(torch.full((32, 10, 2), 0.3, dtype=torch.float64))
    assert torch.equal(reduce_moments(constant).pooled.mean, constant.pooled.mean)
    assert (reduce_moments(constant).m2 == 0).all()
    rare = torch.zeros(64, 10, 1, dtype=torch.float64)
    rare[7, 3] = 1.0
    reduced = reduce_moments(Moments.of(rare))
    assert (reduced.m2 >= 0).all()
    torch.testing.assert_close(reduced.pooled.m2, Moments.of(rare).pooled.m2)
    one = moments(1)
    assert reduce_moments(one) is one


def test_a_reduced_run_has_the_rows_and_the_numbers_of_the_run(folders):
    run, kept = folders
    pd.testing.assert_frame_equal(read_results(run), read_results(kept))
    records, reduced = (finished(folder / "journal.jsonl") for folder in folders)
    assert records.keys() == reduced.keys()
    for key, record in records.items():
        assert reduced[key]["status"] == record["status"]
        if record["status"] != "ok":
            continue
        data = reduced[key]["measurement"]
        a, b = Measurement.from_json(record["measurement"]), Measurement.from_json(data)
        assert data["digest"] == digest_of(record["measurement"])
        assert len(b.gradient.count) <= BATCHES and b.replicates == a.replicates
        for parameter in ("alpha", "log_alpha"):
            assert b.row(parameter)["variance"] == pytest.approx(
                a.row(parameter)["variance"], EXACT
            )
        torch.testing.assert_close(a.mean, b.mean, rtol=1e-14, atol=1e-16)


def test_it_holds_what_is_needed_and_no_more(folders):
    run, kept = folders
    assert {path.name for path in kept.iterdir()} == {
        *("run.json", "journal.jsonl.xz", "measurements.parquet")
    }
    facts = read_run(kept)  # its checksum is right
    assert "methods" not in facts and facts["cells"] == [
        {"key": cell["key"]} for cell in read_run(run)["cells"]
    ]
    packed = lzma.decompress((kept / "journal.jsonl.xz").read_bytes())
    assert len(packed) < (run / "journal.jsonl").stat().st_size * 0.6
    assert json.loads(packed.splitlines()[0])["kind"] == "journal"


def test_a_compressed_journal_is_as_good_as_its_bytes(folders, tmp_path):
    _, kept = folders
    data = (kept / "journal.jsonl.xz").read_bytes()
    (tmp_path / "journal.jsonl.xz").write_bytes(data)
    assert len(read_journal(tmp_path / "journal.jsonl").records) == 3
    (tmp_path / "journal.jsonl.xz").write_bytes(data[:-40])
    with pytest.raises(ValueError, match=r"jsonl.xz: cannot be read"):
        read_journal(tmp_path / "journal.jsonl")
    # A journal that a run has begun comes first.
    (tmp_path / "journal.jsonl").write_text("")
    assert read_journal(tmp_path / "journal.jsonl").records == []


def test_reducing_again_gives_the_same_bytes(folders, tmp_path):
    run, kept = folders
    (tmp_path / "claims.csv").write_text("of an earlier run")
    keep_run(run, tmp_path)
    assert not (tmp_path / "claims.csv").exists()
    for name in ("run.json", "journal.jsonl.xz", "measurements.parquet"):
        assert (tmp_path / name).read_bytes() == (kept / name).read_bytes()
