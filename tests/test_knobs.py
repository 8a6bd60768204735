"""Knobs: validation, building, and what a list in a suite stands for."""

import json
import math
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import pytest

import gradest
from gradest.errors import KnobError, PluginError
from gradest.knobs import (
    AtLeast1,
    AtLeast2,
    Knobs,
    Positive,
    Probability,
    build,
    grid,
    knob_defaults,
    knob_types,
    suggestion,
)


@dataclass(eq=False)
class Method(Knobs):
    name: ClassVar[str] = "method"
    required: AtLeast1
    samples: AtLeast2 = 2
    temperature: Positive = 0.5
    decay: Probability = 0.9
    offset: float = 0.0
    theta: tuple[Probability, ...] = (0.3, 0.8)
    anneal: bool = False
    mode: str = "plain"
    limit: int | None = None


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("temperature", 0),
        ("temperature", -1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("temperature", "0.5"),
        ("temperature", True),
        ("temperature", None),
        ("temperature", [0.5]),
        ("decay", 1),
        ("decay", 0.0),
        ("samples", 1),
        ("samples", 2.5),
        ("samples", 2.0),
        ("samples", "2"),
        ("samples", True),
        ("required", 0),
        ("offset", math.nan),
        ("offset", -math.inf),
        ("offset", False),
        ("theta", 0.5),
        ("theta", "0.5"),
        ("anneal", 1),
        ("anneal", "yes"),
        ("mode", 3),
        ("limit", 1.5),
    ],
)
def test_values_that_a_knob_cannot_take(knob, value):
    with pytest.raises(KnobError) as caught:
        build(Method, {"required": 1, knob: value})
    assert f"method: {knob} = {value!r}: " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "place", "wrong"),
    [([0.5, 2.0], "[1]", "2.0"), ([0.5, 0.1, "0.2"], "[2]", "'0.2'"), ([True], "[0]", "True")],
)
def test_a_wrong_entry_of_a_sequence_is_named_by_its_place(value, place, wrong):
    with pytest.raises(KnobError) as caught:
        build(Method, {"required": 1, "theta": value})
    assert f"theta{place} = {wrong}" in str(caught.value)


@pytest.mark.parametrize(
    ("knob", "value", "taken"),
    [
        ("temperature", 1, 1.0),
        ("temperature", 1e-300, 1e-300),
        ("samples", 2, 2),
        ("offset", -3, -3.0),
        ("theta", [0.5, 0.25], (0.5, 0.25)),
        ("theta", (0.5,), (0.5,)),
        ("theta", [], ()),
        ("anneal", True, True),
        ("limit", None, None),
        ("limit", 3, 3),
    ],
)
def test_values_that_a_knob_takes(knob, value, taken):
    found = getattr(build(Method, {"required": 1, knob: value}), knob)
    assert found == taken and type(found) is type(taken)


def test_direct_construction_validates_too():
    with pytest.raises(KnobError, match="temperature = -1"):
        Method(1, temperature=-1)


def test_unknown_and_missing_knobs_are_named():
    with pytest.raises(KnobError, match="method has no knob 'temprature'; did you mean 'temper"):
        build(Method, {"required": 1, "temprature": 1.0})
    with pytest.raises(KnobError, match="method has no knob 'zzz'; available: anneal, decay, "):
        build(Method, {"required": 1, "zzz": 1.0})
    with pytest.raises(KnobError, match="method: the knob 'required' has no default"):
        build(Method, {"samples": 3})


def test_a_method_without_knobs_says_so():
    class Plain(Knobs):
        name = "plain"

    with pytest.raises(KnobError, match="plain has no knob 'samples'; available: none"):
        build(Plain, {"samples": 2})
    assert build(Plain, {}).knobs == {}


def test_knobs_are_plain_sorted_data_that_make_the_same_method_again():
    method = build(Method, {"required": 3, "theta": [0.5, 0.25], "temperature": 2})
    assert list(method.knobs) == sorted(method.knobs)
    assert method.knobs["theta"] == [0.5, 0.25]
    again = build(Method, json.loads(json.dumps(method.knobs)))
    assert again.knobs == method.knobs
    assert pickle.loads(pickle.dumps(method)).knobs == method.knobs


def test_knob_types_and_defaults():
    assert "name" not in knob_types(Method)  # a ClassVar is no knob
    assert list(knob_types(Method))[:2] == ["required", "samples"]
    assert "required" not in knob_defaults(Method)
    assert knob_defaults(Method)["theta"] == (0.3, 0.8)


def test_a_factory_default_is_a_default():
    @dataclass(eq=False)
    class WithFactory(Knobs):
        name: ClassVar[str] = "with_factory"
        sizes: list[int] = field(default_factory=lambda: [1, 2])

    assert build(WithFactory, {}).knobs == {"sizes": [1, 2]}


def test_fields_that_are_not_arguments_are_no_knobs():
    @dataclass(eq=False)
    class WithState(Knobs):
        rate: Positive = 1.0
        state: float = field(default=0.0, init=False)

    assert list(knob_types(WithState)) == ["rate"]


def test_a_missing_decorator_is_found():
    class Undecorated(Knobs):
        rate: Positive = 1.0

    with pytest.raises(
        PluginError, match=r"Undecorated declares the knobs rate but is not .*@data"
    ):
        knob_types(Undecorated)

    class Child(Method):
        more: Positive = 1.0

    with pytest.raises(PluginError, match="Child declares the knobs more"):
        knob_types(Child)


def test_inherited_knobs_stay():
    class Child(Method):
        extra: ClassVar[int] = 3

    assert list(knob_types(Child)) == list(knob_types(Method))


@pytest.mark.parametrize(
    ("knob", "value", "expected"),
    [
        ("samples", 4, [4]),
        ("samples", [2, 4], [2, 4]),  # a grid of a scalar knob
        ("samples", [2], [2]),
        ("mode", "plain", ["plain"]),
        ("theta", [0.1, 0.2], [[0.1, 0.2]]),  # one value of a knob that is a sequence
        ("theta", [[0.1, 0.2], [0.3]], [[0.1, 0.2], [0.3]]),  # a grid of them
        ("theta", [[0.1, 0.2]], [[0.1, 0.2]]),
        ("theta", 0.1, [0.1]),  # wrong, which building will say
        ("limit", [None, 3], [None, 3]),
        ("unknown", [1, 2], [1, 2]),  # unknown, which building will say
    ],
)
def test_what_a_list_stands_for(knob, value, expected):
    assert grid(Method, knob, value) == expected


@pytest.mark.parametrize("knob", ["samples", "theta"])
def test_an_empty_list_is_an_error(knob):
    with pytest.raises(
        KnobError, match=f"method: {knob}: expected at least one value, got an empty list"
    ):
        grid(Method, knob, [])


@pytest.mark.parametrize("hint", [list[int], tuple[int, ...], Sequence[int], list, tuple])
def test_every_kind_of_sequence_is_one(hint):
    made = type("Made", (Knobs,), {"__annotations__": {"sizes": hint}, "name": "made"})
    made = dataclass(eq=False)(made)
    assert grid(made, "sizes", [1, 2]) == [[1, 2]]
    assert grid(made, "sizes", [[1], [2]]) == [[1], [2]]
    assert list(build(made, {"sizes": [1, 2]}).sizes) == [1, 2]


def test_suggestions():
    assert suggestion("sampels", ["samples", "temperature"]) == "; did you mean 'samples'?"
    assert suggestion("zzz", ["b", "a"]) == "; available: a, b"
    assert suggestion("zzz", []) == "; available: none"
    assert suggestion(3, ["a"]) == "; available: a"  # as YAML may have it


@pytest.mark.parametrize("kind", ["estimators", "tasks"])
def test_every_member_of_the_catalogue_has_valid_defaults_as_plain_data(kind):
    members = gradest.all_estimators() if kind == "estimators" else gradest.all_tasks()
    for cls in members.values():
        knobs = build(cls, {}).knobs
        assert build(cls, json.loads(json.dumps(knobs))).knobs == knobs
