"""A counterexample as files that anybody can run: a task, and a suite with the claim."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from gradest.runs.refutation.search import Counterexample
from gradest.runs.refutation.trial import Trial
from gradest.support import fill_template, number

NAME = "counterexample"  # of the task and of its files

_WIDTH = 96


def texts(trial: Trial, claim: str, counterexample: Counterexample) -> dict[str, str]:
    """file name -> text of the suite, and of the plugin where no existing task poses the problem.

    The suite measures the estimators of the claim on the counterexample and refutes the claim.
    """
    (space, x), confirmation = counterexample
    entry = space.entry(x)
    files = {f"{NAME}.yaml": _suite(trial, claim, counterexample, entry.task, entry.knobs)}
    if entry.plugin is not None:
        sides = (number(confirmation.left), number(confirmation.right))
        files[f"{NAME}.py"] = _plugin(claim, sides, entry.plugin)
    return files


def _suite(
    trial: Trial, claim: str, counterexample: Counterexample, task: str, knobs: Mapping[str, Any]
) -> str:
    contestants = list(dict.fromkeys(trial.contestants.values()))
    content: dict[str, Any] = {"description": f"A counterexample to {claim}"}
    if not counterexample.confirmation.exact:
        content["replicates"] = counterexample.confirmation.replicates
    if changed := [each for each in contestants if each.adapt_steps != each.cls.adapt_steps]:
        content["adapt_steps"] = changed[0].adapt_steps  # a suite sets it for all of them
    content["parameters"] = ["log_alpha"]
    content["tasks"] = [{task: dict(knobs)} if knobs else task]
    content["estimators"] = [
        {each.cls.name: {k: list(v) if isinstance(v, tuple) else v for k, v in each.knobs}}
        if each.knobs
        else each.cls.name
        for each in contestants
    ]
    content["claims"] = [{"holds": claim}]
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=_WIDTH)


class _Bend(NamedTuple):
    """A term that is zero at the codes: its symbol, its formula and its code."""

    symbol: str
    formula: str
    code: str


_BENDS = {
    "quadratic": _Bend("a", "Σₙₖ aₙₖ zₙₖ (1 − zₙₖ)", "a * z * (1 - z)"),
    "cubic": _Bend("b", "Σₙₖ bₙₖ zₙₖ² (1 − zₙₖ)", "b * z.square() * (1 - z)"),
}


def _plugin(claim: str, sides: tuple[str, str], knobs: Mapping[str, Any]) -> str:
    bends = {name: bend for name, bend in _BENDS.items() if any(knobs[name])}
    fields = [f"    categories: AtLeast2 = {knobs['categories']}"]
    for name in ("logits", "costs", *bends):
        fields.append(f"    {name}: tuple[float, ...] = {_literal(knobs[name])}")
    lines = [
        f"        {bend.symbol} = z.new_tensor(self.{name}).view(z.shape[-2:])  # [N, K]\n"
        f"        cost = cost + ({bend.code}).sum((-2, -1))\n"
        for name, bend in bends.items()
    ]
    return fill_template(
        f"{NAME}.py",
        claim=claim,
        left=sides[0],
        right=sides[1],
        bends="".join(f" + {bend.formula}" for bend in bends.values()),
        fields="\n".join(fields),
        lines="".join(lines),
    )


def _literal(values: Sequence[float]) -> str:
    """Python code of a tuple, broken into lines where it is long."""
    text = f"{', '.join(map(repr, values))},"
    if len(text) <= _WIDTH // 2:
        return f"({text})" if len(values) == 1 else f"({text[:-1]})"
    lines = "".join(f"        {line}\n" for line in textwrap.wrap(text, _WIDTH - 8))
    return f"(\n{lines}    )"
