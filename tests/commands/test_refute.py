"""The command --refute: its exit status, its files, and one line for each mistake."""

import pandas as pd
import pytest

from gradest.cli import main
from gradest.commands import check
from tests.runs.test_refutation import FALSE

CLAIM = FALSE[0]


@pytest.fixture
def call(tmp_path, capsys):
    """`call(claim, ...)` refutes into a folder; returns exit status, output and errors."""

    def call(claim, *options):
        try:
            status = main(["--refute", claim, "--out", str(tmp_path / "out"), *options])
        except SystemExit as error:
            status = error.code
        return status, *capsys.readouterr()

    return call


def test_a_refuted_claim_leaves_a_task_that_passes_every_check(call, tmp_path):
    status, out, _ = call(CLAIM)
    assert status == 1 and out.startswith(f"refuted: {CLAIM}\n")
    plugin, suite = (tmp_path / "out" / f"counterexample.{kind}" for kind in ("py", "yaml"))
    assert f"--suite {suite} --plugin {plugin}" in out
    assert check(str(plugin), []) == 0
    again, out, errors = call(CLAIM)
    assert again == 2 and errors.startswith("error: ") and "exists; nothing was searched" in errors


def test_a_file_in_the_place_of_the_folder_is_told_before_the_search(call, tmp_path):
    (tmp_path / "out").write_text("")
    status, out, errors = call(CLAIM)
    assert (status, out) == (2, "")
    assert "out: expected a folder for --out, got a file; nothing was searched" in errors


def test_a_claim_that_survives_leaves_nothing(call, tmp_path):
    status, out, _ = call("bias(rloo) == 0", "--evaluations", "64", "--seed", "-3")
    assert status == 0 and not (tmp_path / "out").exists()
    assert out.startswith("not refuted: ") and "this does not prove the claim" in out


@pytest.mark.parametrize(
    ("claim", "options", "message"),
    [
        ("variance(rloo) <= bias(reinforce)", (), "have different units"),
        ("variance(rlo) <= 1", (), "unknown estimator 'rlo'; did you mean 'rloo'?"),
        ("variance(rloo, sample=2) <= 1", (), "rloo has no knob 'sample'; did you mean 'samples'?"),
        ("variance(rloo, samples=0) <= 1", (), "samples = 0"),
        ("variance(rloo", (), "cannot parse"),
        ("variance(rloo, samples=4) <= variance(rloo)", (), "does not identify one estimator"),
        ("negative_elbo(rloo) <= 3", (), "not known in a suite that measures gradients"),
        ("bias(vimco) == 0", (), "vimco needs a multi-sample bound"),
        ("bias(rloo) == 0", ("--budget", "0"), "expected a positive number of seconds"),
        ("bias(rloo) == 0", ("--evaluations", "0"), "expected an integer from 1"),
        ("bias(rloo) == 0", ("--budget", "1", "--evaluations", "1"), "not allowed with"),
        ("bias(rloo) == 0", ("--jobs", "2"), "--jobs applies to --suite, not to --refute"),
        ("", (), "expected a value"),
    ],
)
def test_a_mistake_is_one_line(call, claim, options, message):
    status, out, errors = call(claim, *options)
    assert status == 2 and out == ""
    assert errors.startswith("error: ") and errors.count("\n") == 1 and message in errors


@pytest.mark.slow
@pytest.mark.parametrize("claim", FALSE)
def test_a_suite_refutes_each_known_falsehood_by_its_minimal_task(call, tmp_path, claim):
    assert call(claim)[0] == 1
    folder = tmp_path / "out"
    arguments = [
        *("--suite", folder / "counterexample.yaml", "--plugin", folder / "counterexample.py"),
        *("--out", tmp_path / "run", "--quiet", "--fail-on-refuted"),
    ]
    assert main([str(each) for each in arguments]) == 1
    claims = pd.read_csv(tmp_path / "run" / "claims.csv")
    assert claims["holds"].tolist() == [claim] and claims["verdict"].tolist() == ["refuted"]
