"""Equations as MathML, which browsers typeset themselves: no script, no font, no image.

Weighed: KaTeX and MathJax need LaTeX as their input, which docstrings do not have, and a bundle of
fonts; latex2mathml needs LaTeX as well, and takes `[`, `~` and functions for identifiers.
"""

import html
from functools import singledispatch

from tools.site import notation
from tools.site.notation import Accent, Fraction, Node, Root, Row, Scripts, Sign, Space

_SUMS = {"Σ": "∑", "Π": "∏"}
_OPERATORS = {"~": "\u223c", "*": "\u2217"}
_MARKS = {"\u0302": "^", "\u0303": "~", "\u0304": "¯", "\u0307": "˙", "\u0308": "¨"}
# Letters in all but name: MathML would set space around them.
_UPRIGHT = frozenset({*"∇∂…∞", ".."})
_BARS = frozenset("‖|")
_CLOSING = frozenset(")]}⟩")


def equation(text: str) -> str:
    """The MathML of one line of an equation; its text is what a screen reader may read instead."""
    inside = _row(notation.parse(text).parts)
    return (
        f'<math displaystyle="true" alttext="{html.escape(text.strip())}">'
        f"<mrow>{inside}</mrow></math>"
    )


def _row(nodes: tuple[Node, ...]) -> str:
    written = []
    for n, node in enumerate(nodes):
        before = nodes[n - 1] if n else None
        after = nodes[n + 1] if n + 1 < len(nodes) else None
        if isinstance(node, Space):
            if before and after and not (_operates(before) or _operates(after)):
                wide = _is_prose(before) or _is_prose(after)
                written.append(f'<mspace width="{0.33 if wide else 0.2}em"/>')
        elif node == Sign("sign", "|"):
            written.append(_bar(spaced=isinstance(before, Space) and isinstance(after, Space)))
        elif isinstance(node, Sign) and node.text in ("−", "±") and _is_prefix(nodes[:n]):
            written.append(_fence(node.text))
        elif node == Sign("letter", "a") and any(map(_is_prose, nodes[max(n - 2, 0) : n + 3])):
            written.append("<mtext>a</mtext>")  # the article
        else:
            written.append(_mathml(node))
    return "".join(written)


def _operates(node: Node) -> bool:
    """Whether a node is an operator, around which the browser sets the space."""
    return isinstance(node, Sign) and node.kind == "sign" and node.text not in _UPRIGHT | _BARS


def _is_prefix(nodes: tuple[Node, ...]) -> bool:
    """Whether a sign behind these nodes belongs to what follows it alone."""
    before = [node for node in nodes if not isinstance(node, Space)]
    return not before or (_operates(before[-1]) and before[-1].text not in _CLOSING)


def _is_prose(node: Node) -> bool:
    return isinstance(node, Sign) and node.kind == "word" and notation.is_prose(node.text)


def _bar(spaced: bool) -> str:
    """A condition between spaces, else one side of an absolute value."""
    return "<mo>|</mo>" if spaced else _fence("|")


def _fence(sign: str) -> str:
    return f'<mo stretchy="false" lspace="0" rspace="0">{sign}</mo>'


@singledispatch
def _mathml(node: Node) -> str:
    raise TypeError(f"{node} is no part of an equation")


@_mathml.register
def _(node: Sign) -> str:
    text = html.escape(node.text.strip("`"), quote=False)
    if node.kind in ("code", "name"):
        return f'<mtext class="code">{text}</mtext>'
    if node.kind == "prime":
        return _fence(text)
    if node.kind == "number":
        return f"<mn>{text}</mn>"
    if node.text in _SUMS:
        return f"<mo>{_SUMS[node.text]}</mo>"
    if node.kind == "word":
        return f"<mtext>{text}</mtext>" if notation.is_prose(node.text) else f"<mi>{text}</mi>"
    if node.kind == "letter":
        return f"<mi>{text}</mi>"
    if node.text in _UPRIGHT:
        return f'<mi mathvariant="normal">{"…" if text == ".." else text}</mi>'
    if node.text == "-":
        return "<mtext>-</mtext>"
    if node.text in _BARS or node.text in "()[]{}⟨⟩":
        return _fence(text)
    return f"<mo>{_OPERATORS.get(text, text)}</mo>"


@_mathml.register
def _(node: Row) -> str:
    if not (node.fenced and any(map(_is_tall, node.parts))):
        return f"<mrow>{_row(node.parts)}</mrow>"
    opening, *inside, closing = node.parts
    left, right = (f"<mo>{each.text}</mo>" for each in (opening, closing))
    return f"<mrow>{left}{_row(tuple(inside))}{right}</mrow>"


def _is_tall(node: Node) -> bool:
    """Whether brackets around a node must grow with it."""
    match node:
        case Fraction():
            return True
        case Row(parts):
            return any(map(_is_tall, parts))
        case Scripts(base, _, _):
            return _is_tall(base) or (isinstance(base, Sign) and base.text in _SUMS)
        case _:
            return isinstance(node, Sign) and node.text in _SUMS


@_mathml.register
def _(node: Accent) -> str:
    mark = "".join(_MARKS.get(each, each) for each in node.mark)
    return f'<mover accent="true">{_mathml(node.base)}<mo stretchy="false">{mark}</mo></mover>'


@_mathml.register
def _(node: Scripts) -> str:
    base, below, above = map(_mathml, (node.base, node.below, node.above))
    is_sum = isinstance(node.base, Sign) and node.base.text in _SUMS
    if not node.above.parts:
        return f"<munder>{base}{below}</munder>" if is_sum else f"<msub>{base}{below}</msub>"
    if not node.below.parts:
        return f"<msup>{base}{above}</msup>"
    return f"<msubsup>{base}{below}{above}</msubsup>"


@_mathml.register
def _(node: Fraction) -> str:
    return f"<mfrac>{_mathml(node.top)}{_mathml(node.bottom)}</mfrac>"


@_mathml.register
def _(node: Root) -> str:
    return f"<msqrt>{_mathml(node.inside)}</msqrt>"
