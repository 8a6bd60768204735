"""The templates of generated files, in `gradest/templates`.

`estimators.txt` lists the estimators that a new plugin can begin as, one a line with what it is;
the first is the default.  `estimator_NAME.py.txt` is the template of each.
"""

from functools import cache
from pathlib import Path
from string import Template

_FOLDER = Path(__file__).parents[1] / "templates"


@cache
def estimator_templates() -> dict[str, str]:
    """The name of an estimator with a template -> what it is, the default first."""
    return dict(line.split(": ", 1) for line in _text("estimators.txt").splitlines())


def default_estimator_template() -> str:
    """The name of the estimator that a new plugin is like if nothing else is requested."""
    return next(iter(estimator_templates()))


def fill_template(template: str, **values: str) -> str:
    """The text of a file, with the values in the place of their `$name`.

    Raises KeyError for a name without a value, FileNotFoundError for a template that does not
    exist: both are mistakes of the caller, not of a user.
    """
    return Template(_text(f"{template}.txt")).substitute(values)


def _text(file: str) -> str:
    return (_FOLDER / file).read_text(encoding="utf-8")
