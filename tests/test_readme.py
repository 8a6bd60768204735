"""The README's code does what the README says of it."""

import re

import pytest

from gradest import LAWS
from gradest.checks import check_estimator, passed
from gradest.plugins.registry import load_plugin
from tests.support import ROOT
from tools.mutants import verdict_in_order

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, flags=re.S)
PLUGINS = [block for block in BLOCKS if "(Estimator)" in block]


def test_there_is_code():
    assert len(PLUGINS) == 2 and len(BLOCKS) == 4


@pytest.mark.slow
@pytest.mark.parametrize("text", PLUGINS, ids=[re.search(r"class (\w+)", b)[1] for b in PLUGINS])
def test_the_plugins_are_certified(plugin, text):
    (cls,) = load_plugin(plugin("mine.py", text))
    findings = check_estimator(cls)
    assert passed(findings), findings
    assert not [f for f in findings if "but it holds" in f.detail and cls.laws], findings


def test_a_claim_that_does_not_hold_is_rejected_as_it_says(plugin):
    (text,) = (block for block in PLUGINS if "LAWS" in block)
    (cls,) = load_plugin(plugin("mine.py", text.replace('LAWS - {"constant"}', "LAWS")))
    assert verdict_in_order(cls, "constant").status == "failed"
    passed_laws = (law for law in LAWS if law != "constant")
    assert all(verdict_in_order(cls, law).status == "passed" for law in passed_laws)


def test_the_snippets_run(capsys):
    measuring, modelling = (block for block in BLOCKS if block not in PLUGINS)
    exec(compile(measuring, "README.md", "exec"), {})
    assert "unbiased" in capsys.readouterr().out
    names = {}
    exec(compile(modelling, "README.md", "exec"), names)
    assert names["logits"].grad.abs().max() > 0
    assert names["Gated"]()(names["torch"].rand(5, 64)).shape == (5, 10)
