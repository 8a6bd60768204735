"""The JavaScript that the site ships: Vega-Lite draws, DataTables sorts and filters.

Both come out of Python packages, so that no build needs the network or a second package manager.
"""

import base64
from importlib.resources import files
from pathlib import Path

import vl_convert


def write(folder: Path) -> None:
    """vega.js, tables.js and tables.css, in the folder of the static files."""
    # Strict readers of scripts take `$t6` of the bundle for their own unless it is in a function.
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed; window.vega = vega;")
    (folder / "vega.js").write_text(f"(() => {{\n{bundle}\n}})();\n", encoding="utf-8")
    tables = files("itables") / "html"
    code = base64.b64encode((tables / "dt_bundle.js").read_bytes()).decode("ascii")
    # A module, which a page from file:// may import from an address with its text alone.
    (folder / "tables.js").write_text(
        "window.gradest = window.gradest || {};\nwindow.gradest.tables = "
        f'import("data:text/javascript;base64,{code}").then((module) => module.default);\n',
        encoding="utf-8",
    )
    style = (tables / "dt_bundle.css").read_text(encoding="utf-8")
    (folder / "tables.css").write_text(style, encoding="utf-8")
