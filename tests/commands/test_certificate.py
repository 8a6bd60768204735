"""`--check --json` and `--badge`: valid JSON and nothing else, whatever the plugin does."""

import json
import os
import re
import shlex
import subprocess
import sys

import pytest
import yaml

from gradest import __version__, cli
from gradest.cli import main
from gradest.commands import certificate
from tests.support import ROOT

TASK = '''
"""A linear cost."""
import os
from dataclasses import dataclass
import torch
from gradest import Cost, Problem, Task

@dataclass(eq=False)
class Loud(Task):
    def problem(self, batch=None):
        {act}
        logits = torch.tensor([[[0.0, 0.5, 1.0], [0.2, 0.1, 0.0]]], dtype=torch.float64)
        return Problem(logits, Cost(lambda z: z[..., 0].sum(-1)))
'''


def plugin(folder, act):
    path = folder / "loud.py"
    path.write_text(TASK.format(act=act))
    return path


def test_standard_output_is_the_certificate_alone(tmp_path):
    path = plugin(tmp_path, "print('noise'); os.system('echo noise')")
    command = [sys.executable, "-m", "gradest.cli", "--check", path, "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert "noise" in done.stderr and "noise" not in done.stdout
    assert (found["verdict"], found["versions"]["gradest"]) == ("certified", __version__)
    (loud,) = found["plugins"]
    assert [loud[key] for key in ("name", "kind", "version", "verdict", "reason")] == [
        *("loud", "task", 1, "certified", None)
    ]
    assert {"shape", "deterministic", "relaxable"} <= {each["check"] for each in loud["checks"]}
    for each in loud["checks"]:
        assert set(each) == {"check", "status", "detail", "requirement"} and all(each.values())


@pytest.mark.parametrize(
    ("act", "status", "verdict", "color"),
    [
        ("pass", 0, "certified", "brightgreen"),
        ("raise ValueError('no data')", 1, "rejected", "red"),
        ("os._exit(3)", 1, "rejected", "red"),  # it ends the process that tests it
    ],
)
def test_the_verdict_is_that_of_the_exit_status_and_of_the_badge(
    act, status, verdict, color, tmp_path, capsys
):
    badge = tmp_path / "badge.json"
    command = ["--check", str(plugin(tmp_path, act)), "--json", "--badge", str(badge)]
    assert main(command) == status
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == found["plugins"][0]["verdict"] == verdict
    if "_exit" in act:
        assert "3" in found["plugins"][0]["reason"]
    assert json.loads(badge.read_text()) == {
        **{"schemaVersion": 1, "label": "gradest"},
        **{"message": verdict, "color": color},
    }


def test_lines_stay_as_they_are_next_to_a_badge(tmp_path, capsys):
    badge = tmp_path / "badge.json"
    assert main(["--check", str(plugin(tmp_path, "pass")), "--badge", str(badge)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("loud: certified (")
    assert json.loads(badge.read_text())["message"] == "certified"


@pytest.mark.parametrize("option", ["--json", "--badge"])
def test_what_is_no_plugin_gives_no_certificate(option, tmp_path, capsys):
    badge = tmp_path / "badge.json"
    options = [option] if option == "--json" else [option, str(badge)]
    assert main(["--check", str(tmp_path / "none.py"), *options]) == 2
    assert capsys.readouterr().out == "" and not badge.exists()


def test_the_worst_verdict_counts():
    verdicts = ["certified", "rejected", "certified as biased"]
    plugins = [{"verdict": verdict} for verdict in verdicts]
    assert certificate.build_badge(plugins)["message"] == "rejected"
    assert certificate.build_badge(plugins[::2])["message"] == "certified as biased"
    assert certificate.build_certificate(plugins[:1])["verdict"] == "certified"


def test_the_example_workflow_calls_what_there_is():
    workflow = yaml.safe_load((ROOT / "examples" / "workflow.yml").read_text())
    scripts = "\n".join(step.get("run", "") for step in workflow["jobs"]["certify"]["steps"])
    calls = [shlex.split(line)[1:] for line in re.findall(r"^gradest .*", scripts, flags=re.M)]
    parsed = [cli.parse(call[: call.index(">")] if ">" in call else call) for call in calls]
    assert [bool(each.check) for each in parsed] == [True, False, False, False]
    assert parsed[0].json and parsed[0].badge and parsed[-1].fail_on_regression
    # What is compared was measured by the same suite, before and after.
    assert parsed[1].suite == parsed[2].suite
    assert {each.out for each in parsed[1:3]} == set(parsed[3].report)


@pytest.mark.weekly
def test_the_example_workflow_fails_on_a_regression_and_not_on_the_first_commit(tmp_path):
    """Its steps, run as they are written, on two commits of a plugin."""
    workflow = yaml.safe_load((ROOT / "examples" / "workflow.yml").read_text())
    scripts = {s.get("name"): s["run"] for s in workflow["jobs"]["certify"]["steps"] if "run" in s}
    repository, programs = tmp_path / "repository", tmp_path / "bin"
    assert main(["--new-estimator", "mine", "--out", str(repository)]) == 0
    suite = "{replicates: 500, timed: false, figures: false, tasks: [categorical], "
    (repository / "mine.yaml").write_text(f"{suite}estimators: [exact, mine]}}")
    programs.mkdir()
    program = f'#!/bin/sh\nexec {shlex.join([sys.executable, str(ROOT / "benchmark.py")])} "$@"\n'
    (programs / "gradest").write_text(program)
    (programs / "gradest").chmod(0o755)
    author = {
        f"GIT_{who}_{what}": "a" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    environment = {**os.environ, **author, "NAME": "mine"}
    environment["PATH"] = f"{programs}{os.pathsep}{environment['PATH']}"

    def call(script, **more):
        return subprocess.run(
            ["bash", "-e", "-c", script],
            cwd=repository,
            env=environment | more,
            capture_output=True,
            text=True,
        )

    def commit():
        assert call("git add -A . ':!after' ':!before' && git commit -qm x").returncode == 0
        return call("git rev-parse HEAD").stdout.strip()

    assert call("git init -q").returncode == 0
    measure = scripts["Measure"]
    compare = scripts["Measure the previous version in the same suite, and compare"]
    first = commit()
    assert call(measure).returncode == 0
    done = call(compare, BEFORE="0" * 40)  # what GitHub gives for the first push of a branch
    assert done.returncode == 0 and "no previous version" in done.stdout, done.stderr
    text = (repository / "mine.py").read_text()
    worse = text.replace("advantage * score", "3 * advantage * score")
    assert worse != text
    (repository / "mine.py").write_text(worse)
    call("rm -r after")
    assert call(measure).returncode == 0
    done = call(compare, BEFORE=first)
    assert done.returncode == 1 and "worse" in done.stdout, done.stdout + done.stderr
