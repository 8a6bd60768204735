"""Texts and tables in Markdown and in HTML: texts of plugins are escaped.

Tables in HTML leave colours to the page, light or dark.
"""

import html
import re
from collections.abc import Sequence

from tabulate import tabulate

_SPECIAL = re.compile(r"([\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_]))")
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def escape(text: object) -> str:
    """One line of plain text that Markdown and HTML show as it is, also inside a table.

    An underscore inside a word is left alone: it is literal there, and names stay searchable.
    """
    line = " ".join(str(text).split())
    return _SPECIAL.sub(r"\\\1", line.translate(_ENTITIES))


def code_block(text: str) -> str:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """A pipe table of texts in Markdown; the first `left` columns are aligned to the left."""
    align = ["left"] * left + ["right"] * (len(headers) - left)
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True, colalign=align)


def escape_html(text: object) -> str:
    """One line of plain text that HTML shows as it is, also inside an attribute."""
    return html.escape(" ".join(str(text).split()))


def html_table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], left: int, caption: str = ""
) -> str:
    """A table of plain texts; the first `left` columns are aligned to the left.

    Without headers it has no head, without a caption none.
    """
    title = f'<caption style="text-align: left">{escape_html(caption)}</caption>' if caption else ""
    head = f"<thead>{_line('th', headers, left)}</thead>" if headers else ""
    body = "".join(_line("td", row, left) for row in rows)
    return f"<table>{title}{head}<tbody>{body}</tbody></table>"


def _line(tag: str, texts: Sequence[str], left: int) -> str:
    # Inline, since the style sheet of a notebook overrides the attribute `align`.
    sides = ["left"] * left + ["right"] * (len(texts) - left)
    cells = (
        f'<{tag} style="text-align: {side}">{escape_html(text)}</{tag}>'
        for side, text in zip(sides, texts, strict=True)
    )
    return f"<tr>{''.join(cells)}</tr>"
