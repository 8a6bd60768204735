"""The catalogue as text, Markdown and BibTeX, from the classes and their module docstrings."""

import math
import textwrap
from collections.abc import Sequence

from gradest.contracts import Estimator, built_in
from gradest.errors import PluginError
from gradest.knobs import knob_defaults, knob_types
from gradest.plugins import Registry, citations, formula
from gradest.runs import folder_names, suite_descriptions
from gradest.support import markup

_WIDTH = 100
# degree -> the functions for which a biased method is unbiased, in each latent given the others.
_DEGREES = {1: "affine f", 2: "quadratic f", math.inf: "every f"}
_COLUMNS = ("name", "description", "unbiased", "needs", "binary only", "evaluations of f", "source")
_EXPLANATION = """\
Knobs are hyperparameters, shown with their defaults; the docstrings of estimators/NAME.py and
tasks/NAME.py explain them. Claimed laws are properties of every single estimate, which --check
tests; docs/plugins.md defines them."""


def list_plugins(plugins: Sequence[str], as_markdown: bool, as_bibtex: bool) -> str:
    """The text of `--list`.  Raises UsageError for a plugin that cannot be loaded."""
    registry = Registry.load(plugins)
    if as_bibtex:
        return bibtex(registry).rstrip("\n")
    return markdown_table(registry) if as_markdown else listing(registry)


def listing(registry: Registry) -> str:
    """Every estimator and task with its description, traits, knobs and reference; every suite."""
    return "\n".join(
        [
            "Estimators",
            *(_entry(cls, _traits(cls)) for cls in _sorted(registry.estimators)),
            "\nTasks",
            *(_entry(cls, []) for cls in _sorted(registry.tasks)),
            "\nSuites",
            *(f"  {name}\n{_indented(text)}" for name, text in suite_descriptions().items()),
            f"\n{_folders()}\n\n{_EXPLANATION}",
        ]
    )


def markdown_table(registry: Registry) -> str:
    """A Markdown table of the estimators with links to arXiv."""
    rows = [_row(cls) for cls in _sorted(registry.estimators)]
    return markup.table(_COLUMNS, rows, left=len(_COLUMNS))


def bibtex(registry: Registry) -> str:
    """The references of the estimators as BibTeX."""
    cited = {cls.name: _citation(cls) for cls in _sorted(registry.estimators)}
    return citations.bibtex({name: text for name, text in cited.items() if text})


def _folders() -> str:
    names = ", ".join(folder_names())
    return _wrapped(f"Folders of suites, which --suite runs as a whole: {names}.", "")


def _sorted(members: dict[str, type]) -> list[type]:
    return [members[name] for name in sorted(members)]


def _entry(cls: type, traits: list[str]) -> str:
    lines = [_wrapped(f"{cls.name}: {citations.headline(cls)}", "  ")]
    if aliases := ", ".join(getattr(cls, "aliases", ())):
        lines.append(_indented(f"also: {aliases}"))
    knobs = knob_types(cls)
    if traits:
        lines.append(_indented("; ".join(traits)))
    if knobs:
        defaults = knob_defaults(cls)
        listed = ", ".join(f"{k}={defaults[k]!r}" if k in defaults else k for k in knobs)
        lines.append(_indented(f"knobs: {listed}"))
    if reference := _citation(cls):
        lines.append(_indented(reference))
    return "\n".join(lines)


def _indented(text: str) -> str:
    return _wrapped(text, "      ")


def _wrapped(text: str, start: str) -> str:
    return textwrap.fill(
        text, _WIDTH, initial_indent=start, subsequent_indent="      ", break_on_hyphens=False
    )


def _traits(cls: type[Estimator]) -> list[str]:
    formula_text = evaluations(cls)
    return [
        bias(cls),
        needs(cls),
        *([f"{_only(cls)} only"] if cls.categories else []),
        *([f"K^N ≤ {cls.outcomes:,}"] if cls.outcomes else []),
        *([f"evaluations of f: {formula_text}"] if formula_text else []),
        *([f"adapts ({cls.adapt_steps} steps)"] if cls.adapt_steps else []),
        *([f"claimed laws: {', '.join(sorted(cls.laws))}"] if cls.laws else []),
    ]


def _row(cls: type[Estimator]) -> list[str]:
    return [
        _names(cls),
        markup.escape(citations.headline(cls)),
        "yes" if cls.unbiased else "no" if cls.limit else _DEGREES.get(cls.degree, "no"),
        markup.escape(needs(cls)),
        "yes" if cls.categories == 2 else markup.escape(_only(cls)),
        markup.escape(evaluations(cls)),
        citations.in_markdown(_citation(cls), short=True),
    ]


def _names(cls: type[Estimator]) -> str:
    """The name in Markdown, with the aliases in brackets."""
    aliases = ", ".join(f"`{alias}`" for alias in cls.aliases)
    return f"`{cls.name}` ({aliases})" if aliases else f"`{cls.name}`"


def bias(cls: type[Estimator]) -> str:
    """What an estimator claims of its bias, with the functions for which it has little or none."""
    if cls.unbiased:
        return "unbiased"
    functions = _DEGREES.get(cls.degree)
    if not functions or not cls.limit:
        return f"biased, except for {functions}" if functions else "biased"
    limit = ", ".join(f"{knob} = {value!r}" for knob, value in cls.limit.items())
    return f"biased; for {functions} the bias is small at {limit}"


def needs(cls: type[Estimator]) -> str:
    """What an estimator asks of f."""
    return "relaxes f" if cls.relaxes else "uses f'" if cls.differentiates else "black box"


def _only(cls: type[Estimator]) -> str:
    return f"K = {cls.categories}" if cls.categories else ""


def evaluations(cls: type[Estimator]) -> str:
    """The formula of the evaluations of f per estimate, as it is written; empty without a claim."""
    return formula.notation(cls.evaluations, cls.__name__) if cls.evaluations else ""


def _citation(cls: type) -> str:
    """The reference in the module docstring.

    Raises PluginError if a built-in estimator cites a reference that cannot be parsed.  Tasks are
    exempt, since they describe in prose which part of a paper they use.
    """
    text = citations.citation(cls)
    if text and built_in(cls) and issubclass(cls, Estimator):
        try:
            citations.parse(text)
        except PluginError as error:
            raise PluginError(f"{cls.name}: {error}") from None
    return text
