"""The catalogue as text, Markdown and BibTeX, read off the classes and their files' docstrings."""

import math
import textwrap

from gradest import citations, formula
from gradest.citations import citation, headline
from gradest.contracts import Estimator, built_in
from gradest.errors import PluginError
from gradest.knobs import knob_defaults, knob_types
from gradest.markup import escape, table
from gradest.registry import Registry
from gradest.running.suite import suite_names

_WIDTH = 100
# What a biased method is right for; in each latent, the others being given.
_DEGREES = {1: "affine f", 2: "quadratic f", math.inf: "every f"}
_COLUMNS = ("name", "what it is", "unbiased", "needs", "binary only", "evaluations of f", "source")


def listing(registry: Registry) -> str:
    """Every estimator, task and suite: name, one line, traits, knobs, reference."""
    return "\n".join(
        [
            "Estimators",
            *(_entry(found, _traits(found)) for found in _sorted(registry.estimators)),
            "\nTasks",
            *(_entry(found, []) for found in _sorted(registry.tasks)),
            "\nSuites",
            *(f"  {name}" for name in suite_names()),
        ]
    )


def markdown(registry: Registry) -> str:
    """A table of the estimators, with links to arXiv."""
    rows = [_row(found) for found in _sorted(registry.estimators)]
    return table(_COLUMNS, rows, left=len(_COLUMNS))


def bibtex(registry: Registry) -> str:
    """What the estimators cite."""
    cited = {found.name: _citation(found) for found in _sorted(registry.estimators)}
    return citations.bibtex({name: text for name, text in cited.items() if text})


def _sorted(members: dict[str, type]) -> list[type]:
    return [members[name] for name in sorted(members)]


def _entry(found: type, traits: list[str]) -> str:
    lines = [f"  {found.name}: {headline(found)}"]
    knobs = knob_types(found)
    if traits:
        lines.append(_indented("; ".join(traits)))
    if knobs:
        defaults = knob_defaults(found)
        shown = ", ".join(f"{k}={defaults[k]!r}" if k in defaults else k for k in knobs)
        lines.append(f"      knobs: {shown}")
    if cited := _citation(found):
        lines.append(_indented(cited))
    return "\n".join(lines)


def _indented(text: str) -> str:
    return textwrap.indent(textwrap.fill(text, _WIDTH - 6), "      ")


def _traits(found: type[Estimator]) -> list[str]:
    evaluations = _evaluations(found)
    return [
        "unbiased" if found.unbiased else f"biased{_exception(found)}",
        _needs(found),
        *([f"{_only(found)} only"] if found.categories else []),
        *([f"K^N ≤ {found.outcomes:,}"] if found.outcomes else []),
        *([f"evaluations of f: {evaluations}"] if evaluations else []),
        *([f"adapts ({found.adapt_steps} steps)"] if found.adapt_steps else []),
        *([f"laws: {', '.join(sorted(found.laws))}"] if found.laws else []),
    ]


def _row(found: type[Estimator]) -> list[str]:
    return [
        f"`{found.name}`",
        escape(headline(found)),
        "yes" if found.unbiased else "no" if found.limit else _DEGREES.get(found.degree, "no"),
        escape(_needs(found)),
        "yes" if found.categories == 2 else escape(_only(found)),
        escape(_evaluations(found)),
        citations.markdown(_citation(found), short=True),
    ]


def _exception(found: type[Estimator]) -> str:
    """Where a biased method is right, be it in a limit."""
    right = _DEGREES.get(found.degree)
    if not right or not found.limit:
        return f", but not for {right}" if right else ""
    near = ", ".join(f"{knob} = {value!r}" for knob, value in found.limit.items())
    return f", but for {right} less and less towards {near}"


def _needs(found: type[Estimator]) -> str:
    return "relaxes f" if found.relaxes else "uses f'" if found.differentiates else "black box"


def _only(found: type[Estimator]) -> str:
    return f"K = {found.categories}" if found.categories else ""


def _evaluations(found: type[Estimator]) -> str:
    return formula.shown(found.evaluations, found.__name__) if found.evaluations else ""


def _citation(found: type) -> str:
    """Raises PluginError where an estimator of the catalogue's own cites what cannot be read.

    Tasks say in prose what they take from a paper.
    """
    text = citation(found)
    if text and built_in(found) and issubclass(found, Estimator):
        try:
            citations.parse(text)
        except PluginError as error:
            raise PluginError(f"{found.name}: {error}") from None
    return text
