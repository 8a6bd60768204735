"""The templates of generated files, in `gradest/templates`.

`estimators.txt` lists the estimators that a new plugin can begin as, one a line with what it is;
the first is the default.  `estimator_NAME.py.txt` is the template of each.  The names are in files,
and not in this module, since the core names no estimator.
"""

from functools import cache
from pathlib import Path
from string import Template

_FOLDER = Path(__file__).parents[1] / "templates"


@cache
def estimator_templates() -> dict[str, str]:
    """The name of an estimator with a template -> what it is, the default first.

    The command line reads it for --help, which loads neither torch nor any plugin.
    """
    return dict(line.split(": ", 1) for line in _text("estimators.txt").splitlines())


def default_estimator_template() -> str:
    """The name of the estimator that a new plugin is like if nothing else is requested."""
    return next(iter(estimator_templates()))


def fill_template(template: str, **values: str) -> str:
    """The text of a file, with the values in the place of their `$name`.

    `template` is the name of the file to write, with its suffix, such as `task.yaml`; `.txt` keeps
    formatters and pytest away from templates.

    Raises KeyError for a name without a value, FileNotFoundError for a template that does not
    exist: both are mistakes of the caller, not of a user.
    """
    return Template(_text(f"{template}.txt")).substitute(values)


def _text(file: str) -> str:
    return (_FOLDER / file).read_text(encoding="utf-8")
