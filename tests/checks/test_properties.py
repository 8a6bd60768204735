"""Rows of properties: when they hold, how often by mistake, and what is seen to break them."""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import pytest
import torch
from scipy import stats
from torch import Tensor

from gradest.categorical import gumbel, nabla
from gradest.checks import properties
from gradest.checks.properties import LEVEL, PROPERTIES, ROWS, Row, find_property, run_property
from gradest.checks.properties.densities import same_temperature_kl
from gradest.checks.properties.quadrature import rule
from gradest.checks.properties.rows import Estimate, log_alpha, log_beta
from gradest.concrete import concrete_log_prob, exp_concrete, exp_concrete_log_prob
from gradest.errors import KnobError
from gradest.knobs import examine, grid
from gradest.report.documents.document import render_markdown
from gradest.report.studies.concrete import section


def rows(name: str, settings: Mapping[str, Any], seed: int = 0) -> list[Row]:
    return run_property(name, settings, seed)


# what breaks them


def without_factorial(y: Tensor, logits: Tensor, temperature: float) -> Tensor:
    return concrete_log_prob(y, logits, temperature) - math.lgamma(logits.shape[-1])


def without_temperature(y: Tensor, logits: Tensor, temperature: float) -> Tensor:
    exponent = logits.shape[-1] - 1
    return concrete_log_prob(y, logits, temperature) - exponent * math.log(temperature)


def without_one_category(y: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """With −Σ log x over K − 1 coordinates only."""
    return concrete_log_prob(y, logits, temperature) + y[..., -1]


def of_other_weights(y: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """α off by 2 %, in one category."""
    return concrete_log_prob(y, logits + _nudge(logits), temperature)


def hotter(y: Tensor, logits: Tensor, temperature: float) -> Tensor:
    return concrete_log_prob(y, logits, 1.01 * temperature)


def colder(y: Tensor, logits: Tensor, temperature: float) -> Tensor:
    return concrete_log_prob(y, logits, 0.9 * temperature)


def scaled(y: Tensor, logits: Tensor, temperature: float) -> Tensor:
    return 1.05 * exp_concrete_log_prob(y, logits, temperature)


def cold_logits(logits: Tensor, temperature: float) -> Tensor:
    """The temperature divides log α, not the noise."""
    return (logits / temperature + gumbel(logits)).log_softmax(-1)


def nudged(logits: Tensor, temperature: float) -> Tensor:
    return exp_concrete(logits + _nudge(logits), temperature)


def slow(logits: Tensor, temperature: float) -> Tensor:
    """At the square root of the temperature: the right limits, at the wrong rate."""
    return exp_concrete(logits, temperature**0.5)


def warm(logits: Tensor, temperature: float) -> Tensor:
    return exp_concrete(logits, 1.1 * temperature)


def steep(logits: Tensor, temperature: float) -> Tensor:
    """The right samples with a gradient that is 5 % too large."""
    return exp_concrete(logits + 0.05 * nabla(logits), temperature)


def _nudge(logits: Tensor) -> Tensor:
    return 0.02 * torch.eye(logits.shape[-1], dtype=logits.dtype)[0]


DENSITIES = "gradest.checks.properties.densities.concrete_log_prob"
SAMPLES = "gradest.checks.properties.rows.exp_concrete"
BROKEN: list[tuple[str, dict[str, Any], str, Callable[..., Tensor]]] = [
    ("integrates", {"categories": 2, "temperature": 0.5}, DENSITIES, without_temperature),
    ("integrates", {"categories": 3}, DENSITIES, without_factorial),
    ("integrates", {"categories": 3}, DENSITIES, without_one_category),
    ("integrates", {"categories": 5}, DENSITIES, without_factorial),
    ("integrates", {"categories": 10, "temperature": 0.9}, DENSITIES, without_temperature),
    ("rounding", {}, DENSITIES, of_other_weights),
    ("rounding", {}, SAMPLES, nudged),
    ("rounding", {}, SAMPLES, cold_logits),
    ("cold_limit", {}, SAMPLES, cold_logits),
    ("cold_limit", {}, SAMPLES, slow),
    ("cold_limit", {"categories": 2}, SAMPLES, warm),
    ("hot_limit", {}, SAMPLES, slow),
    ("hot_limit", {"temperature": 1000.0}, SAMPLES, warm),
    ("hot_limit", {}, SAMPLES, cold_logits),
    ("convexity", {}, "gradest.checks.properties.convexity.concrete_log_prob", hotter),
    (
        "convexity",
        {"relative": 1.1},
        "gradest.checks.properties.convexity.concrete_log_prob",
        colder,
    ),
    ("pathwise", {}, "gradest.checks.properties.pathwise.exp_concrete", steep),
    ("pathwise", {}, "gradest.checks.properties.pathwise.exp_concrete", warm),
    ("pathwise", {}, "gradest.checks.properties.pathwise.concrete_log_prob", colder),
    ("divergence", {}, "gradest.checks.properties.densities.exp_concrete_log_prob", scaled),
    ("divergence", {}, DENSITIES, without_factorial),
    ("divergence", {}, SAMPLES, nudged),
]


@pytest.mark.parametrize(
    ("name", "settings", "where", "broken"),
    BROKEN,
    ids=[f"{name}-{broken.__name__}-{i}" for i, (name, _, _, broken) in enumerate(BROKEN)],
)
def test_a_mistake_breaks_the_property(name, settings, where, broken, monkeypatch):
    assert all(row.holds for row in rows(name, settings))
    monkeypatch.setattr(where, broken)
    assert not all(row.holds for row in rows(name, settings))


def test_too_few_draws_show_nothing():
    """The power gate: an interval that is too wide does not hold by being wide."""
    found = [row for row in rows("rounding", {"draws": 10_000}) if row.how != "quadrature"]
    assert all(row.low <= row.expected <= row.high for row in found)
    assert not any(row.holds for row in found)


# intervals


def test_intervals_are_at_the_level_that_all_rows_share():
    noise = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = Estimate.mean(noise)
    z = (found.high - found.value) / float(noise.std() / 1000**0.5)
    assert 2 * stats.norm.sf(z) == pytest.approx(LEVEL / ROWS)
    share = Estimate.share(torch.arange(1000) < 300)
    miss = LEVEL / ROWS / 2
    assert stats.binom.cdf(300, 1000, share.high) == pytest.approx(miss)
    assert stats.binom.sf(299, 1000, share.low) == pytest.approx(miss)
    assert Estimate.share(torch.zeros(100)).low == 0
    assert Estimate.share(torch.ones(100)).high == 1


@pytest.mark.slow
def test_statistical_rows_are_calibrated():
    """Over 25 seeds, the deviation over its standard error is standard normal."""
    settings = {"rounding": {"categories": 2}, "pathwise": {}, "integrates": {"categories": 5}}
    k = stats.norm.isf(LEVEL / ROWS / 2)
    z = []
    for name, knobs in settings.items():
        for seed in range(25):
            row = rows(name, {"draws": 10_000, **knobs}, seed)[0]
            z.append(2 * k * (row.value - row.expected) / (row.high - row.low))
    assert stats.kstest(z, stats.norm.cdf).pvalue > 1e-4
    assert 0.65 < torch.tensor(z).std() < 1.35  # 75 of them: within 4.3 standard errors


@pytest.mark.parametrize(
    ("relation", "low", "high", "holds"),
    [
        ("=", 0.9, 1.1, True),
        ("=", 1.05, 1.1, False),
        ("=", 0.7, 1.1, False),  # too wide
        ("≥", 0.9, 5.0, True),
        ("≥", 0.7, 5.0, False),
        ("≥", 0.85, 0.95, False),
        ("≤", 0.1, 1.1, True),
        ("≤", 0.1, 1.3, False),
        ("≤", 1.05, 1.1, False),
        ("<", 0.1, 0.9, True),
        ("<", 0.1, 1.0, False),
        *((relation, math.nan, math.nan, False) for relation in "=≥≤<"),
    ],
)
def test_when_a_row_holds(relation, low, high, holds):
    found = Estimate((low + high) / 2, low, high, "by hand")
    row = PROPERTIES["rounding"]().row("a", found, relation, 1.0, 0.2)
    assert row.holds is holds


# quadrature


@pytest.mark.parametrize("temperature", [0.01, 0.3, 5.0, 100.0])
@pytest.mark.parametrize("categories", [2, 3])
def test_the_rule_integrates_to_within_the_error_it_states(categories, temperature):
    """The moments of Dirichlet(2λ', ..., 2λ'), λ' = min(λ, 1), whose density decays as the rule
    expects of one at temperature λ'."""
    concentration = torch.full((categories,), 2 * min(temperature, 1.0), dtype=torch.float64)
    points = rule(categories, min(temperature, 1.0))
    scale = concentration.sum().lgamma() - concentration.lgamma().sum()
    log_p = scale + ((concentration - 1) * points.log_x).sum(-1)
    x = points.log_x.exp()
    total = float(concentration.sum())
    second = concentration[0].item() * (concentration[0].item() + 1) / total / (total + 1)
    for values, exact in ((None, 1.0), (x[:, 0], 1 / categories), (x[:, 0].square(), second)):
        found, error = points.integral(log_p, values)
        assert abs(found.item() - exact) <= error.item() < 1e-6


def test_quadrature_is_for_few_categories():
    with pytest.raises(ValueError, match="expected at most 3 categories for quadrature, got 4"):
        rule(4, 1.0)


@pytest.mark.parametrize("categories", [2, 3, 5])
def test_the_divergence_in_closed_form_is_the_mean_over_the_simplex(categories, assert_mean):
    q, p = log_alpha(categories), log_beta(categories)
    noise = torch.empty(400_000, categories, dtype=torch.float64)
    r = noise.exponential_(generator=torch.Generator().manual_seed(0))
    r = r / r.sum(-1, keepdim=True)
    delta = q - p
    terms = delta.sum() + categories * (r @ (-delta).exp()).log()
    assert_mean(terms, same_temperature_kl(q, p), precision=0.005)


# how they are run


def test_a_seed_repeats_and_another_one_does_not():
    first, again, other = (rows("pathwise", {"draws": 10_000}, seed) for seed in (0, 0, 1))
    assert first == again
    assert all(a.value != b.value for a, b in zip(first, other, strict=True))


def test_settings_have_draws_of_their_own():
    cold, hot = (rows("rounding", {"temperature": t, "draws": 10_000})[0] for t in (0.1, 1.0))
    assert cold.value != hot.value


def test_the_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    for name in properties.names():
        rows(name, {} if name == "convexity" else {"draws": 10_000})
    assert torch.equal(torch.get_rng_state(), before)


def test_knobs_are_validated_as_those_of_plugins():
    for found in PROPERTIES.values():
        examine(found)
    assert grid(find_property("rounding"), "temperature", [0.1, 1.0]) == [0.1, 1.0]
    wrong = [
        ("roundin", {}, "unknown property 'roundin'; did you mean 'rounding'?"),
        (
            "rounding",
            {"temperatur": 1.0},
            "rounding has no knob 'temperatur'; did you mean 'temperature'?",
        ),
        (
            "rounding",
            {"temperature": -1.0},
            "rounding: temperature = -1.0: input should be greater than or equal",
        ),
        ("rounding", {"draws": 10}, "rounding: draws = 10: input should be greater than or equal"),
        ("pathwise", {"categories": 4}, "pathwise: categories = 4: input should be less than or"),
    ]
    for name, settings, message in wrong:
        with pytest.raises(KnobError, match=f"^{message.replace('?', '[?]')}"):
            rows(name, settings)


def test_a_record_is_plain_data():
    (row,) = rows("convexity", {"relative": 0.5})
    assert row.settings == {"categories": 3, "relative": 0.5}
    record = json.loads(json.dumps(row.record()))
    assert json.loads(record["settings"]) == row.settings and record["holds"] is True


# the section of a report


def frame(*changes: Mapping[str, Any]) -> pd.DataFrame:
    (row,) = rows("convexity", {"relative": 0.5})
    return pd.DataFrame([row._replace(**change).record() for change in changes])


def test_a_report_says_first_whether_every_property_holds():
    title, verdict, *_ = section(frame({}, {"property": "another"}))
    assert title == "## Properties"
    assert verdict == "**Every property holds**: 2 rows of 2 properties."
    broken = {"holds": False, "property": "another"}
    _, verdict, *_ = section(frame({}, broken, broken))
    assert verdict == "**2 of 3 rows do not hold**: another (2)."
    assert list(section(frame())) == []


def test_a_report_tells_what_is_wrong_from_what_was_not_shown():
    wrong = {"relation": "≥", "low": -2.0, "high": -1.0, "holds": False}
    wide = {"relation": "=", "low": -1.0, "high": 1.0, "holds": False}
    found = render_markdown(list(section(frame({}, wrong, wide))))
    lines = [line for line in found.splitlines() if line.startswith("| categories 3")]
    said = [line.split("|")[5].strip() for line in lines]
    assert said == ["yes", "**no**", "undecided"]
    assert lines[0].split("|")[1].strip() == "categories 3, relative 0.5"
    assert lines[0].split("|")[4].strip() == "≥ 0"


def test_a_report_states_the_level_of_its_intervals():
    few, many = (render_markdown(list(section(frame(*[{}] * count)))) for count in (1, 2 * ROWS))
    assert "misses in 0.1 % of seeds" in few
    assert "misses in 0.2 % of seeds" in many
