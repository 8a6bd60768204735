"""Text for Markdown: texts of plugins are escaped."""

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
