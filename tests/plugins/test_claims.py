"""A claim that cannot be read is told in one line, by whoever loads or checks the plugin."""

from dataclasses import dataclass
from typing import Any

import pytest

from gradest import Cost, Estimator
from gradest.checks import check_estimator
from gradest.errors import PluginError
from gradest.plugins.claims import examine
from gradest.plugins.registry import all_estimators, load_plugin

UNREADABLE = [
    ("laws", "shift", "a set of names"),
    ("laws", ["shift"], "a set of names"),
    ("degree", "2", "a number or None"),
    ("degree", True, "a number or None"),
    ("limit", {"tau": 0.1}, "limit: unknown knob 'tau'; available: none"),
    ("limit", ["tau"], "a mapping of knobs to values"),
    ("evaluations", 3, "a string"),
    ("evaluations", "samples", "unknown name 'samples'"),
    ("slow", None, "a string"),
    ("unbiased", "no", "True or False"),
    ("categories", "2", "a nonnegative integer or None"),
    ("outcomes", -1, "a nonnegative integer or None"),
    ("adapt_steps", 0.5, "a nonnegative integer"),
    ("aligned", 1, "True or False"),
    ("aligned", True, "aligned is for methods with unbiased = False"),
    ("own_distribution", True, "own_distribution is for methods with unbiased = False"),
    ("aliases", "remax", "a tuple of distinct identifiers"),
    ("aliases", ("one", "one"), "a tuple of distinct identifiers"),
    ("aliases", ("no-name",), "a tuple of distinct identifiers"),
    ("aliases", ("other", "Claims"), "aliases: 'Claims' is the name of the estimator"),
    ("version", 0, "an integer of at least 1"),
    ("unbaised", False, "unknown claim 'unbaised'; did you mean 'unbiased'?"),
]


def claiming(name: str, claim: Any) -> type[Estimator]:
    def call(self, logits, f: Cost):
        raise AssertionError("never called")

    return type("Claims", (Estimator,), {name: claim, "__call__": call})


@pytest.mark.parametrize("name, claim, told", UNREADABLE)
def test_the_battery_says_what_was_expected(name: str, claim: Any, told: str) -> None:
    (found,) = check_estimator(claiming(name, claim))
    assert (found.law, found.status) == ("builds", "failed")
    assert found.detail.startswith("PluginError: Claims: ")
    assert told in found.detail and "\n" not in found.detail


def test_a_claim_is_no_knob() -> None:
    @dataclass(eq=False)
    class Claims(Estimator):
        unbiased: bool = False

        def __call__(self, logits, f: Cost):
            raise AssertionError("never called")

    with pytest.raises(PluginError, match="the claim 'unbiased' is annotated like a knob"):
        examine(Claims)


def test_a_limit_needs_a_degree() -> None:
    @dataclass(eq=False)
    class Claims(Estimator):
        limit = {"temperature": 0.1}
        temperature: float = 1.0

        def __call__(self, logits, f: Cost):
            raise AssertionError("never called")

    with pytest.raises(PluginError, match="limit requires degree"):
        examine(Claims)


def test_a_plugin_is_refused_when_it_is_loaded(tmp_path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from gradest import Estimator\n\n\nclass Mine(Estimator):\n"
        '    laws = ["shift"]\n\n    def __call__(self, logits, f):\n        return f(logits)\n'
    )
    with pytest.raises(
        PluginError, match=r"mine.py: Mine: laws: expected a set of names, got \['shift'\]"
    ):
        load_plugin(file)


def test_the_claims_of_the_catalogue_can_be_read() -> None:
    for cls in all_estimators().values():
        examine(cls)
