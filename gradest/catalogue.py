"""The catalogue as text, read off the classes and their files' docstrings."""

import inspect
import sys
import textwrap

from gradest.contracts import Estimator
from gradest.knobs import knob_defaults, knob_types
from gradest.registry import Registry
from gradest.suite import suite_names

_WIDTH = 100


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


def _sorted(members: dict[str, type]) -> list[type]:
    return [members[name] for name in sorted(members)]


def _entry(found: type, traits: list[str]) -> str:
    lines = [f"  {found.name}: {_headline(found)}"]
    knobs = knob_types(found)
    if traits:
        lines.append(f"      {', '.join(traits)}")
    if knobs:
        defaults = knob_defaults(found)
        shown = ", ".join(f"{k}={defaults[k]!r}" if k in defaults else k for k in knobs)
        lines.append(f"      knobs: {shown}")
    if reference := _reference(found):
        lines.append(textwrap.indent(textwrap.fill(reference, _WIDTH - 6), "      "))
    return "\n".join(lines)


def _traits(found: type[Estimator]) -> list[str]:
    needs = "relaxes f" if found.relaxes else "uses f'" if found.differentiates else "black box"
    return [
        "unbiased" if found.unbiased else "biased",
        needs,
        *([f"K = {found.categories} only"] if found.categories else []),
        *([f"K^N ≤ {found.outcomes:,}"] if found.outcomes else []),
        *([f"adapts ({found.adapt_steps} steps)"] if found.adapt_steps else []),
    ]


def _headline(found: type) -> str:
    return _docstring(found).partition("\n")[0].rstrip(".")


def _reference(found: type) -> str:
    """The paragraph that cites: it holds a year and comes last."""
    last = _docstring(found).rpartition("\n\n")[2]
    cites = any(f"{year}" in last for year in range(1900, 2100))
    return " ".join(last.split()) if cites and last != _docstring(found) else ""


def _docstring(found: type) -> str:
    module = sys.modules[found.__module__]
    return inspect.cleandoc(module.__doc__ or found.__doc__ or "(no description)")
