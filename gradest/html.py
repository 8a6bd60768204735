"""Small tables in HTML: text is escaped, and colours are left to the page, light or dark."""

import html
from collections.abc import Sequence


def escape(text: object) -> str:
    """One line of plain text that HTML shows as it is, also inside an attribute."""
    return html.escape(" ".join(str(text).split()))


def table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], left: int, caption: str = ""
) -> str:
    """A table of plain texts; the first `left` columns are aligned to the left.

    Without headers it has no head, without a caption none.
    """
    title = f'<caption style="text-align: left">{escape(caption)}</caption>' if caption else ""
    head = f"<thead>{_line('th', headers, left)}</thead>" if headers else ""
    body = "".join(_line("td", row, left) for row in rows)
    return f"<table>{title}{head}<tbody>{body}</tbody></table>"


def _line(tag: str, texts: Sequence[str], left: int) -> str:
    # Inline, since the style sheet of a notebook overrides the attribute `align`.
    sides = ["left"] * left + ["right"] * (len(texts) - left)
    cells = (
        f'<{tag} style="text-align: {side}">{escape(text)}</{tag}>'
        for side, text in zip(sides, texts, strict=True)
    )
    return f"<tr>{''.join(cells)}</tr>"
