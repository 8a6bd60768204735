"""`--merge`: runs of several people as one run, with conflicts named and seeds pooled."""

import hashlib
import shutil

import pandas as pd
import pytest

from gradest.cli import main
from gradest.errors import UsageError
from gradest.measurement import pool
from gradest.measurement.result import Measurement
from gradest.runs.journal import read_journal, write_journal
from gradest.runs.merging import merge_runs, write_merged
from gradest.runs.tables import carried, finished, read_run, write_results
from gradest.statistics import Moments
from gradest.support.files import checksum, write_json
from tests.support import run_suite

SUITE = """\
replicates: 200
timed: false
figures: false
tasks: [bernoulli, categorical]
estimators: [exact, {concrete: {temperature: [0.5, 1.0]}}, relax]
adapt_steps: 2
enumerate_draws: null
controls: {unbiased: [exact], biased: [concrete]}
claims: [{holds: "variance(relax) > variance(exact)"}]
"""
DRAWN = SUITE.replace("null", "false").replace("bernoulli, ", "")
LAST = "tasks: [quadratic]\nestimators: [exact]\ntimed: false\nfigures: false\n"
TRAINED = """\
figures: false
training: {steps: 2, batch: 5, learning_rate: RATE, evaluation: {every: 2, points: 2, samples: 2,
  test_points: 2, test_samples: 2}}
seeds: [SEED]
tasks: [{categorical_vae: {latents: 2, categories: 2, hidden: 3}}, categorical]
estimators: [rloo]
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folders of a whole run, of its halves, of another suite, and of another seed."""
    folder = tmp_path_factory.mktemp("runs")
    return {
        "whole": run_suite(folder / "whole", SUITE),
        "left": run_suite(folder / "left", SUITE, only=(["bern*"], [])),
        "right": run_suite(folder / "right", SUITE, only=(["cat*"], [])),
        "other": run_suite(folder / "other", LAST, name="another"),
        **{f"seed{n}": run_suite(folder / f"s{n}", f"{DRAWN}seeds: [{n}]\n") for n in (3, 4)},
    }


def merge(*words):
    return main(["--merge", *map(str, words)])


def join(out, *folders, pool=False):
    """What `--merge` does but for the report, which takes most of its time."""
    merged = merge_runs(folders, out.name, pool)
    out.mkdir()
    write_merged(merged, out)
    assert write_results(out, merged.run) == []
    return "\n".join(merged.lines)


def rows(folder):
    """The measurements without what differs between equal runs."""
    frame = pd.read_parquet(folder / "measurements.parquet")
    return frame.drop(columns=[c for c in frame if c.startswith("seconds")])


def changed(run, folder, change):
    """A copy of a run whose first record, or whose run.json, was changed."""
    shutil.copytree(run, folder)
    facts = read_run(folder)
    records = read_journal(folder / "journal.jsonl").records
    change(facts, records)
    write_journal(folder / "journal.jsonl", facts["suite"], records)
    facts.pop("checksum")
    write_json(folder / "run.json", facts | {"checksum": checksum(facts)})
    return folder


def test_halves_of_a_suite_give_what_the_whole_run_gives(runs, tmp_path, capsys):
    out = tmp_path / "out"
    assert merge(runs["left"], runs["right"], "--out", out) == 0
    printed = capsys.readouterr().out
    assert f"{runs['left']}: 4 cells" in printed and "merged: 8 cells\n" in printed
    pd.testing.assert_frame_equal(rows(out), rows(runs["whole"]))
    for name in ("coordinates", "adaptation"):
        merged, whole = (pd.read_parquet(f / f"{name}.parquet") for f in (out, runs["whole"]))
        pd.testing.assert_frame_equal(merged, whole)
    text = (out / "report.md").read_text()
    assert "All controls passed" in text and "1 claim: 1 reproduced" in text
    assert "- merged from: " in text


def test_a_merged_run_says_where_it_comes_from_and_lacks_nothing(runs, tmp_path, capsys):
    out = tmp_path / "out"
    join(out, runs["left"], runs["right"])
    run = read_run(out)
    first, second = run["sources"]
    assert first["folder"] == str(runs["left"]) and second["recorded"] == 4
    assert first["versions"] == run["versions"] and first["machine"] == run["machine"]
    digest = hashlib.sha256((runs["left"] / "journal.jsonl").read_bytes()).hexdigest()
    assert first["checksums"]["journal.jsonl"] == digest
    assert main(["--suite", str(out / "mine.yaml"), "--out", str(out), "--dry-run"]) == 0
    assert "8 cells, all done" in capsys.readouterr().out
    assert carried(out)["sources"] == run["sources"]  # as the run would
    assert write_results(out, run) == [] and read_run(out) == run  # as a report does


@pytest.mark.slow
def test_the_suite_of_a_merged_run_only_rewrites_its_report(runs, tmp_path, monkeypatch):
    out = tmp_path / "out"
    assert merge(runs["left"], runs["right"], "--out", out) == 0
    before, sources = rows(out), read_run(out)["sources"]
    monkeypatch.setattr("gradest.runs.runner._records", None)  # would be needed to measure
    assert main(["--suite", str(out / "mine.yaml"), "--out", str(out), "--jobs", "1"]) == 0
    pd.testing.assert_frame_equal(rows(out), before)
    assert read_run(out)["sources"] == sources


def test_large_moments_are_merged_and_pooled_from_their_blocks(tmp_path):
    suite = DRAWN.replace("categorical", "{quadratic: {latents: 90, categories: 4}}")
    suite = suite[: suite.index("estimators")] + "estimators: [rloo]\nenumerate_draws: false\n"
    sources = [run_suite(tmp_path / f"s{n}", f"{suite}seeds: [{n}]\n") for n in (3, 4)]
    out = tmp_path / "out"
    join(out, *sources, pool=True)
    first, second, pooled = (
        Measurement.from_json(record["measurement"])
        for record in finished(out / "journal.jsonl").values()
    )
    for one, source in ((first, sources[0]), (second, sources[1])):
        (record,) = finished(source / "journal.jsonl").values()
        assert record["measurement"] == one.to_json()
    assert pooled.to_json() == pool([first, second]).to_json()
    digests = [
        read_run(out)["sources"][0]["checksums"][name] for name in ("journal.bin", "run.json")
    ]
    assert digests[0] == hashlib.sha256((sources[0] / "journal.bin").read_bytes()).hexdigest()
    blocks = bytearray((sources[1] / "journal.bin").read_bytes())
    blocks[-1] ^= 1
    (sources[1] / "journal.bin").write_bytes(blocks)
    with pytest.raises(UsageError, match=r"journal.bin: checksum of the block .* run its suite"):
        merge_runs(sources, "x")


def test_runs_of_two_suites_become_one_with_all_members(runs, tmp_path):
    out = tmp_path / "both"
    assert "no suite was written" in join(out, runs["left"], runs["other"])
    assert set(rows(out)["suite"]) == {"both"}
    both = pd.concat([rows(runs["left"]), rows(runs["other"])], ignore_index=True)
    pd.testing.assert_frame_equal(rows(out), both.assign(suite="both").astype(rows(out).dtypes))
    # A key that is the same for a whole suite differs: there is none with all cells.
    assert not (out / "both.yaml").exists()


def scale(facts, records):
    record = next(r for r in records if r["kind"] == "cell" and r["cell"]["estimator"] == "exact")
    record["measurement"]["evaluations"] += 1


def newer(facts, records):
    for record in records:
        record["cell"]["estimator_version"] = 2
    for cell in facts["cells"]:
        cell["estimator_version"] = 2


def adapted(facts, records):
    for cell in [*facts["cells"], *(record["cell"] for record in records)]:
        cell["adapt_steps"] = 7


def skipped(facts, records):
    records[0] |= {"status": "skipped", "reason": "it does not apply"}


def biased(facts, records):
    facts["controls"] = {"biased": ["exact"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (scale, "bernoulli × exact (seed=0, dtype=float64) is in {a} and in {b}, but their "
         "records differ in evaluations"),
        (newer, "the version of the estimator exact is 1 in {a} and 2 in {b}"),
        (adapted, "but adapt_steps is 0 in one and 7 in the other"),
        (skipped, "but it is ok in one and skipped in the other"),
        (biased, "the expected verdict of the control exact is 'unbiased' in {a} and 'biased' "),
    ],
)  # fmt: skip
def test_a_conflict_is_one_line_and_nothing_is_written(runs, tmp_path, capsys, change, message):
    other = changed(runs["whole"], tmp_path / "changed", change)
    assert merge(runs["whole"], other, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: conflict: ") and error.count("\n") == 1
    assert message.format(a=runs["whole"], b=other) in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["changed"]


def test_times_are_no_conflict_and_a_failed_cell_gives_way(runs, tmp_path):
    def change(facts, records):
        for record in records:
            record["elapsed"] = 9.0
            record["measurement"]["seconds"] = 9.0
        records[0] |= {"status": "failed", "reason": "out of memory"}

    other = changed(runs["whole"], tmp_path / "changed", change)
    lines = join(tmp_path / "out", other, runs["whole"])
    assert "merged: 8 cells, 8 of them in several runs" in lines
    pd.testing.assert_frame_equal(rows(tmp_path / "out"), rows(runs["whole"]))


def test_what_cannot_be_merged_is_named(runs, tmp_path, capsys):
    def refused(*words):
        assert merge(*words) == 2
        return capsys.readouterr().err

    whole, out = runs["whole"], tmp_path / "out"
    assert "expected --out DIR" in refused(whole, runs["left"])
    assert "two or more runs, got one" in refused(whole, "--out", out)
    assert "is given twice" in refused(whole, whole.parent / "." / whole.name, "--out", out)
    assert "expected a new folder" in refused(whole, runs["left"], "--out", runs["right"])
    assert "holds no readable run" in refused(whole, tmp_path, "--out", out)
    damaged = tmp_path / "damaged"
    shutil.copytree(whole, damaged)
    text = (damaged / "journal.jsonl").read_text()
    (damaged / "journal.jsonl").write_text(text.replace('"ok"', '"OK"', 1))
    assert "journal.jsonl:2: damaged: checksum does not match" in refused(
        damaged, whole, "--out", out
    )
    (damaged / "journal.jsonl").write_text("\n".join(text.splitlines()[:3]) + "\n")
    assert "lacks 6 cells of the run" in refused(damaged, whole, "--out", out)
    (damaged / "journal.jsonl").unlink()
    assert "journal.jsonl, from which runs are merged, is missing" in refused(
        damaged, whole, "--out", out
    )
    assert main(["--list", "--pool"]) == 2
    assert "--pool applies to --merge, not to --list" in capsys.readouterr().err


def test_seeds_are_pooled_exactly(runs, tmp_path, capsys):
    out = tmp_path / "out"
    lines = join(out, runs["seed3"], runs["seed4"], pool=True)
    note = "6 cells of the seeds 3, 4 pooled into 3; 2 cells not pooled"
    assert note in lines and note in read_run(out)["pooled"]
    frame = rows(out)
    pooled = frame[~frame["estimator"].isin(["exact", "relax"])]  # that draw and do not adapt
    assert set(pooled["replicates"]) == {400} and set(pooled["seed"]) == {3}
    assert set(frame[frame["estimator"] == "relax"]["seed"]) == {3, 4}  # it adapts to its seed

    def moments(folder):
        records = finished(folder / "journal.jsonl").values()
        return {
            (
                *(record["cell"][k] for k in ("task", "estimator")),
                str(record["cell"]["estimator_knobs"]),
            ): Measurement.from_json(record["measurement"])
            for record in records
            if "seeds" in record["cell"] or folder != out
        }

    parts = [moments(runs[name]) for name in ("seed3", "seed4")]
    merged = moments(out)
    assert len(merged) == 3
    for key, both in merged.items():
        one, other = (part[key] for part in parts)
        if both.method == "enumerated":  # one outcome
            assert both.gradient.to_json() == one.gradient.to_json()
            continue
        assert len(both.gradient.count) == 50  # as many batches as 400 replicates have
        exact = Moments.stacked([one.gradient, other.gradient]).pooled
        own = both.gradient.pooled
        assert own.count == 400 and own.mean.allclose(exact.mean, rtol=0, atol=1e-15)
        assert own.m2.allclose(exact.m2, rtol=1e-12, atol=1e-15)
        assert both.value == pytest.approx((one.value + other.value) / 2)
        assert both.cosines.count.sum() == 400
    cell = next(cell for cell in read_run(out)["cells"] if "seeds" in cell)
    assert cell["seeds"] == [3, 4] and cell["seed"] == 3
    # The members are in the journal as well: the suite of both seeds has nothing to measure.
    assert "unlisted" not in read_run(out)
    assert main(["--suite", str(out / "mine.yaml"), "--out", str(out), "--dry-run"]) == 0
    assert "8 cells, all done" in capsys.readouterr().out


def test_enumerated_seeds_must_be_equal(runs, tmp_path, capsys):
    def reseeded(facts, records):
        facts["cells"] = [cell | {"seed": 5} for cell in facts["cells"]]
        for record in records:
            record["cell"]["seed"] = 5

    other = changed(runs["whole"], tmp_path / "same", reseeded)

    def new_keys(facts, records):
        for each in [*facts["cells"], *records]:
            each["key"] = each["key"][::-1]
        facts["recorded"] = [key[::-1] for key in facts["recorded"]]

    other = changed(other, tmp_path / "other", new_keys)
    out = tmp_path / "out"
    join(out, runs["whole"], other, pool=True)
    expected, own = (rows(f)[lambda d: d["method"] == "enumerated"] for f in (runs["whole"], out))
    assert len(own) == 4
    pd.testing.assert_frame_equal(own.reset_index(drop=True), expected.reset_index(drop=True))
    wrong = changed(other, tmp_path / "wrong", scale)
    assert merge(runs["whole"], wrong, "--pool", "--out", tmp_path / "out2") == 2
    error = capsys.readouterr().err
    assert "bernoulli × exact" in error and "evaluations differs, which no seed changes" in error


@pytest.mark.slow
def test_trainings_and_descents_merge_and_are_never_pooled(tmp_path, capsys):
    text = TRAINED.replace("RATE", "[0.1, 0.2]").replace("SEED", "0, 1")
    whole = run_suite(tmp_path / "whole", text)
    parts = [
        run_suite(tmp_path / f"part{n}", TRAINED.replace("RATE", rate).replace("SEED", "0, 1"))
        for n, rate in enumerate(("0.1", "0.2"))
    ]
    out = tmp_path / "out"
    assert merge(*parts, "--pool", "--out", out) == 0
    assert "trainings, descents and estimators that adapt" in capsys.readouterr().out
    for name in ("training", "descents"):
        frames = [
            pd.read_parquet(f / f"{name}.parquet").drop(columns="seconds") for f in (out, whole)
        ]
        own, expected = (f.sort_values(list(f.columns), ignore_index=True) for f in frames)
        pd.testing.assert_frame_equal(own, expected)
    assert len(list((out / "networks").glob("*.pt"))) == 4
    assert main(["--suite", str(out / "mine.yaml"), "--out", str(out), "--dry-run"]) == 0
    assert "6 cells, all done" in capsys.readouterr().out
    overlapping = run_suite(
        tmp_path / "overlap", TRAINED.replace("RATE", "0.1").replace("SEED", "1")
    )
    assert merge(parts[0], overlapping, "--out", tmp_path / "no") == 2
    assert "both contain the seed 1" in capsys.readouterr().err
