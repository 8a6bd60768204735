"""docs/plugins.md: its plugins are certified, and it leaves out no claim, law and check."""

import re

import pytest

from gradest import LAWS, Estimator, make_task, measure
from gradest.checks import (
    ESTIMATOR_LAWS,
    OF_ESTIMATORS,
    OF_TASKS,
    check_estimator,
    check_task,
    passed,
)
from gradest.checks.task_laws import TASK_LAWS
from gradest.contracts import PATHWISE
from gradest.plugins import claims
from gradest.plugins.registry import load_plugin
from tests.support import EXACT, ROOT

PAGE = ROOT / "docs" / "plugins.md"
TEXT = PAGE.read_text(encoding="utf-8")
PLUGINS = {
    result[1]: block
    for block in re.findall(r"```python\n(.*?)```", TEXT, flags=re.S)
    if (result := re.search(r"^class (\w+)", block, flags=re.M))
}


def section(title: str) -> str:
    (result,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", TEXT, flags=re.M | re.S)
    return result


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Sampled", "MovingAverage", "Die", "Theirs"])
def test_its_plugins_are_certified(plugin, name):
    (cls,) = load_plugin(plugin("mine.py", PLUGINS[name]))
    findings = (check_estimator if issubclass(cls, Estimator) else check_task)(cls)
    assert passed(findings), findings
    assert not [f for f in findings if "but it holds" in f.detail]


def test_its_advantages_are_biased_by_one_part_in_g(plugin):
    (cls,) = load_plugin(plugin("mine.py", PLUGINS["Centred"]))
    bias = measure(cls(), make_task("categorical")).row()["relative_bias"]
    assert abs(bias - 1 / 4) < EXACT


def test_it_explains_every_claim():
    assert set(re.findall(r"^\| `(\w+)", section("Claims"), flags=re.M)) == set(claims.EXPECTED)


def test_it_explains_every_law():
    assert set(re.findall(r"^\| `([a-z ]+)`", section("Laws"), flags=re.M)) == LAWS | {PATHWISE}


def test_it_explains_every_check():
    said = set(re.findall(r"`([a-z0-9 ]+)`", section("What `--check` says")))
    assert said >= set(ESTIMATOR_LAWS) | set(TASK_LAWS)


@pytest.mark.parametrize("checks", [OF_ESTIMATORS, OF_TASKS])
def test_it_states_the_requirements_that_a_failed_check_prints(checks):
    text = section("What `--check` says")
    for name, requirement in checks.items():
        assert f"| `{name}` | {requirement.removesuffix('.')} |" in text


def test_its_links_lead_somewhere():
    for link in re.findall(r"\]\((?!http)([^)#]+)", TEXT):
        assert (PAGE.parent / link).exists(), link
