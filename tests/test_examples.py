"""The examples are certified as they are; what their README warns of is rejected, with a reason."""

import importlib
import os
import shutil
import subprocess
import sys
import tomllib

import pytest

from gradest.checks import check_estimator, check_task, passed
from gradest.plugins.registry import load_plugin
from tests.support import ROOT
from tools.mutants import verdict_in_order

EXAMPLES = ROOT / "examples"
PACKAGE = EXAMPLES / "package"
FILES = sorted(EXAMPLES.glob("*.py"))

WRAPPED = "cost + nabla(surrogate_loss(logits, z, cost))"
BEHIND_NABLA = "return f(z) plus nabla(...) of the terms that give the gradient"
# example, text in it, what takes its place, the law that it breaks, and what that law says
BROKEN = [
    ("surrogate_loss", WRAPPED, "surrogate_loss(logits, z, cost)", "value", BEHIND_NABLA),
    (
        "surrogate_loss",
        WRAPPED,
        f"({WRAPPED}).mean()",
        "shape",
        "expected one value a row, shape [16], got",
    ),
    (
        "surrogate_loss",
        "cost.detach()",
        "cost",
        "parameters",
        "use f only in the value, and f.frozen elsewhere",
    ),
    ("gradient_tensor", "nabla(logits)", "logits", "value", BEHIND_NABLA),
    ("gradient_tensor", "cost.mean(1) + ", "", "parameters", "the parameters of f get no gradient"),
    (
        "autograd_function",
        ", sample(logits)",
        ", torch.distributions.OneHotCategorical(logits=logits).sample()",
        "randomness",
        "draws from the global state of torch; draw with gradest.categorical, which the seed",
    ),
    (
        "autograd_function",
        "logits.softmax(-1), ",
        "logits, ",
        "degree",
        "degree 1: relative bias",
    ),
]


def test_there_are_examples():
    assert {path.stem for path in FILES} == {name for name, *_ in BROKEN}


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_is_certified_and_claims_every_law_that_it_obeys(path):
    (cls,) = load_plugin(path)
    findings = check_estimator(cls)
    assert passed(findings), findings
    assert not [f for f in findings if "but it holds" in f.detail]


@pytest.mark.parametrize(
    ("name", "old", "new", "law", "reason"), BROKEN, ids=[f"{case[0]} {case[3]}" for case in BROKEN]
)
def test_a_wrap_that_is_wrong_is_rejected_with_the_reason(plugin, name, old, new, law, reason):
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    assert text.count(old) == 1
    (cls,) = load_plugin(plugin(f"{name}.py", text.replace(old, new)))
    finding = verdict_in_order(cls, law)
    assert finding.status == "failed" and reason in finding.detail


@pytest.mark.slow
def test_the_package_names_classes_that_are_certified(monkeypatch):
    monkeypatch.syspath_prepend(PACKAGE / "src")
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for kind, check in (("estimators", check_estimator), ("tasks", check_task)):
        for place in project["entry-points"][f"gradest.{kind}"].values():
            module, _, cls = place.partition(":")
            findings = check(getattr(importlib.import_module(module), cls))
            assert passed(findings), findings


@pytest.mark.weekly
def test_the_package_is_found_once_it_is_installed(tmp_path):
    source = shutil.copytree(PACKAGE, tmp_path / "source")  # which a build writes into
    installed = tmp_path / "installed"
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps"]
    command += ["--no-build-isolation", "--target", installed, source]
    subprocess.run(command, check=True, capture_output=True)
    calls = [["--list"], ["--check", "off_policy"], ["--check", "max_cut"]]
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"from gradest.cli import main\nfor c in {calls}: assert not main(c)",
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), str(ROOT)])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for line in ("  off_policy", "  max_cut", "off_policy: certified", "max_cut: certified"):
        assert f"\n{line}" in done.stdout
