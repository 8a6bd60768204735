"""Tables of a document as LaTeX, for papers: one table environment per file."""

import math
import re
from collections.abc import Sequence
from decimal import Decimal
from string import Template
from typing import NamedTuple

from gradest.report.documents.document import Strong, Table
from gradest.support import Parts, Quantity, tex

_LONG = 30  # rows that only a smaller size brings onto a page, with caption and notes
_SIZES = {
    False: r"\footnotesize\renewcommand{\arraystretch}{1.15}",
    True: r"\scriptsize\renewcommand{\arraystretch}{1.15}",
}
_TEMPLATE = Template(r"""% \input this file where the table is to stand.
% Needs \usepackage{booktabs}; with graphicx, a table that is wider than the text shrinks to it.
\begin{table}
  \centering
  \caption{$caption}
  \label{$label}
  \smallskip$size
  \setlength{\tabcolsep}{3pt}
  \sbox0{\begin{tabular}{@{}$columns@{}}
    \toprule
    $headers \\
    \midrule
$body    \bottomrule
  \end{tabular}}
  \ifdim\wd0>\linewidth
    \ifdefined\resizebox\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi
  \else\usebox0\fi
  \par\smallskip\parbox{\linewidth}{\scriptsize $notes}
\end{table}
""")


class Environment(NamedTuple):
    """A caption, notes below the table, and blocks of rows under the headers of the first."""

    caption: str
    notes: str
    blocks: Sequence[Table]

    def latex(self, label: str) -> str:
        """A table environment, made of plain texts, with a line between blocks.

        A `Quantity` becomes mathematics, in two columns where its uncertainty follows it.
        """
        first = self.blocks[0]
        blocks = [[[_cell(text) for text in row] for row in block.rows] for block in self.blocks]
        rows = [row for block in blocks for row in block]
        double = [any(row[n][1] for row in rows) for n in range(len(first.headers))]
        columns = [
            "l" if n < first.left else "r@{}l" if two else "r" for n, two in enumerate(double)
        ]
        headers = [_header(*each) for each in zip(first.headers, columns, strict=True)]
        lines = ("".join(f"    {_line(row, double)}" for row in block) for block in blocks)
        return _TEMPLATE.substitute(
            caption=_prose(self.caption),
            label=label,
            size=_SIZES[len(rows) > _LONG],
            columns="".join(columns),
            headers=" & ".join(headers),
            body="    \\midrule\n".join(filter(None, lines)),
            notes=_prose(self.notes),
        )


def number(quantity: Quantity) -> tuple[str, str]:
    """A number as mathematics: the part that is aligned on the right, and the part that follows.

    `0.324 [0.314, 0.336]` becomes 0.324 with its distances to the ends, +0.012 and −0.010, or ±
    where they are equal.  A missing number stays text.
    """
    parts = quantity.parts
    if parts.decimals is None:
        if math.isnan(parts.value):
            return tex.escape(quantity), ""
        return rf"${'-' if parts.value < 0 else ''}\infty$", ""
    value = f"{parts.before}{parts.mantissa(parts.value)}"
    power = rf"\times 10^{{{parts.exponent}}}" if parts.exponent else ""
    if not math.isnan(parts.low):
        return f"${_math(value)}$", f"${_distances(parts)}{power}$"
    if not math.isnan(parts.error):
        open_, close = ("(", ")") if power else ("", "")
        error = rf"{{}}\pm {parts.mantissa(parts.error)}{close}"
        return f"${open_}{_math(value)}$", f"${error}{power}$"
    unit = r"\,\%" if parts.after == " %" else ""
    value += "" if unit else parts.after
    rest = f"{power}{unit}"
    return f"${_math(value)}$", f"${{}}{rest}$" if rest else ""


def _distances(parts: Parts) -> str:
    """The distances to the ends, in small type; as ± where they are equal up to rounding."""
    value, low, high = (Decimal(parts.mantissa(x)) for x in (parts.value, parts.low, parts.high))
    above, below = high - value, value - low
    if abs(above - below) > Decimal((0, (1,), above.as_tuple().exponent)):
        return f"{{}}^{{+{above:f}}}_{{-{below:f}}}"
    return rf"{{\scriptstyle\,\pm\,{max(above, below):f}}}"


def _math(text: str) -> str:
    return re.sub(r",(?=\d)", "{,}", text)  # a comma between thousands takes no space


def _prose(text: str) -> str:
    """Escaped text, in which a sign stays on the line of its word."""
    return tex.escape(text).replace(r" \%", r"\,\%").replace("log \\ens", "log~\\ens")


def _cell(text: str) -> tuple[str, str]:
    """A cell in TeX: the part that is aligned, and the part that follows it."""
    if not isinstance(text, Quantity):
        name, bracket, knobs = text.partition(" (")
        escaped = tex.escape(name)
        escaped = rf"\textbf{{{escaped}}}" if isinstance(text, Strong) else escaped
        small = rf" {{\scriptsize {tex.escape(bracket + knobs)}}}" if bracket else ""
        return escaped + small, ""
    value, rest = number(text)
    return (rf"$\mathbf{{{value.strip('$')}}}$" if text.strong else value), rest


def _line(row: Sequence[tuple[str, str]], double: Sequence[bool]) -> str:
    parts = [part for cell, two in zip(row, double, strict=True) for part in cell[: 1 + two]]
    return rf"{' & '.join(parts)} \\" + "\n"


def _header(text: str, columns: str) -> str:
    header = r" \\ ".join(map(tex.escape, text.split("\n")))
    if "\n" in text:
        header = rf"\shortstack[{'c' if '@' in columns else columns}]{{{header}}}"
    return rf"\multicolumn{{2}}{{c}}{{{header}}}" if "@" in columns else header
