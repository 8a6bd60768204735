"""Sphinx builds the source into pages, with every warning an error.

Weighed: Material for MkDocs with mkdocstrings, which diffrax and equinox use, is as good to read,
but is in maintenance since the end of 2025, as MkDocs itself is, and its search needs a plugin and
a worker to run from file://.  Sphinx with MyST and Furo is maintained, searches from file:// by
itself, and checks all links between pages.
"""

from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util.console import nocolor

from gradest import __version__
from gradest.errors import UsageError
from tools.site.source import STATIC

_MARK = "searchindex.js"  # what a folder that an earlier build wrote has
_DAY = {"color-brand-primary": "#0b5cad", "color-brand-content": "#0b5cad"}
_NIGHT = {"color-brand-primary": "#7db8f5", "color-brand-content": "#7db8f5"}


def refuse_foreign(out: Path) -> None:
    """Raises UsageError for a folder that no build has written, since a build replaces it."""
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or (out / _MARK).exists())):
        raise UsageError(f"{out}: not a site that this program wrote; give another --out")


def build(work: Path, out: Path) -> None:
    """Build the source in `work` into `out`, which is whole afterwards, or as it was before.

    Raises UsageError for a source that Sphinx has warned of; it prints the warnings.
    """
    refuse_foreign(out)
    nocolor()
    new = work / "html"
    app = Sphinx(
        srcdir=work / "source",
        confdir=None,
        outdir=new,
        doctreedir=work / "doctrees",
        buildername="html",
        confoverrides=_settings(),
        status=None,
        warningiserror=True,
        freshenv=True,
        parallel=0,
    )
    app.build(force_all=True)
    if app.statuscode:
        raise UsageError(f"{out}: not built, because of the warnings above")
    (new / ".buildinfo").unlink(missing_ok=True)
    if out.exists():
        out.rename(work / "before")
    new.rename(out)


def _settings() -> dict[str, object]:
    return {
        "project": "gradest",
        "release": __version__,
        "extensions": ["myst_parser", "sphinx_copybutton", "sphinx.ext.githubpages"],
        "html_theme": "furo",
        "html_title": f"gradest {__version__}",
        "html_static_path": [STATIC],
        "html_css_files": ["tables.css", "site.css"],
        "html_js_files": ["excerpts.js"],
        "html_show_sourcelink": False,
        "html_copy_source": False,
        "html_show_copyright": False,
        "html_theme_options": {
            "light_css_variables": _DAY,
            "dark_css_variables": _NIGHT,
            "navigation_with_keys": True,
        },
        "pygments_style": "default",
        "copybutton_prompt_text": "$ ",
        # Anchors as forges make them, so that the links of the pages hold there and here.
        "myst_heading_anchors": 4,
        "myst_heading_slug_func": "gradest.report.documents.html.anchored",
        "suppress_warnings": ["myst.header"],
        "exclude_patterns": ["_static/*"],
    }
