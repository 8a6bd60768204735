"""Pages of the site's source: Markdown as MyST reads it, with HTML in between."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

_TEMPLATES = Environment(
    loader=PackageLoader("tools.site", "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def rendered(template: str, values: Mapping[str, Any]) -> Markup:
    """A template of HTML, which escapes all values that are no markup."""
    return Markup(_TEMPLATES.get_template(template).render(values))


def raw(html: Markup) -> str:
    """HTML as a block of Markdown that passes it on."""
    longest = max((len(run) for run in re.findall("`+", html)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{{raw}} html\n{html.strip()}\n{fence}\n"


def code_block(text: str, language: str) -> str:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}\n"


def toctree(entries: Sequence[str], caption: str = "") -> str:
    """A part of the contents at the side; it is not shown in the page."""
    options = [":hidden:", *([f":caption: {caption}"] if caption else [])]
    return "\n".join(["```{toctree}", *options, "", *entries, "```", ""])


def wide(text: str) -> str:
    """A page without its own contents at the side, whose tables and charts use that width."""
    return f"---\nhide-toc: true\n---\n\n{text}"


def write(source: Path, name: str, text: str) -> None:
    """The page `name`, such as `estimators/rloo`, in the folder of the source."""
    path = source / f"{name}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
