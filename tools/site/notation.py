"""Equations as docstrings write them, in Unicode on one line, read into a tree.

    ĝ = 1/S Σₛ (f(zₛ) − f̄₋ₛ) ∇ log p(zₛ)

Accents are combining marks, indices are Unicode's subscripts or follow `_`, powers are Unicode's
superscripts or follow `^`; braces group what an index or a power holds.  A slash without spaces is
a fraction of what touches it.  Nothing is refused: what has no meaning here stays a sign, so that
every equation of a docstring can be read.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

FUNCTIONS = frozenset({"log", "exp", "min", "max", "argmax", "argmin", "softmax", "sigmoid"})
_WORDS_OF_FORMULAS = FUNCTIONS | {"diag", "mean", "Var", "Cat", "KL", "Uniform", "Dirichlet"}
_TOKEN = re.compile(
    r"(?P<space>\s+)|(?P<code>`[^`]+`)|(?P<name>[a-z]{2,}\d*(?:_[a-z]{2,})+|[a-z]\d(?:_[a-z]\d)+)"
    r"|(?P<number>\d+(?:\.\d+)?)|(?P<word>[A-Za-z]{2,}(?![\u0300-\u036f]))"
    r"|(?P<letter>[^\W\d_][\u0300-\u036f]*)|(?P<sign>\.\.|.)"
)
_OPENING = {"(": ")", "[": "]", "{": "}", "⟨": "⟩"}
_SIGNS_WITH_SCRIPTS = frozenset("ΣΠ‖|∇…")


@dataclass(frozen=True)
class Sign:
    """One letter, number, word or operator; `kind` is the name of its group in the grammar."""

    kind: str
    text: str


@dataclass(frozen=True)
class Space:
    """White space between two things."""


@dataclass(frozen=True)
class Row:
    """Things beside each other; `fenced` where the first and the last are brackets of a pair."""

    parts: tuple["Node", ...]
    fenced: bool = False


@dataclass(frozen=True)
class Accent:
    """A letter with a mark above it."""

    base: Sign
    mark: str


@dataclass(frozen=True)
class Scripts:
    """A base with an index, a power or both."""

    base: "Node"
    below: Row = Row(())
    above: Row = Row(())


@dataclass(frozen=True)
class Fraction:
    """What is divided, above what it is divided by."""

    top: "Node"
    bottom: "Node"


@dataclass(frozen=True)
class Root:
    """A square root."""

    inside: "Node"


Node = Sign | Space | Row | Accent | Scripts | Fraction | Root


def parse(text: str) -> Row:
    """The tree of an equation."""
    return Row(tuple(_fractions(_Reader(_tokens(unicodedata.normalize("NFC", text))).all())))


def _tokens(text: str) -> list[Sign]:
    # An accent becomes a mark of its own; the stroke of ≠ stays.
    decomposed = "".join(unicodedata.normalize("NFD", c) if c.isalpha() else c for c in text)
    return [Sign(str(m.lastgroup), m.group()) for m in _TOKEN.finditer(decomposed)]


def _shifted(text: str, kind: str) -> str:
    """What Unicode's subscripts (`sub`) or superscripts (`super`) stand for; else nothing."""
    found = [unicodedata.decomposition(c).partition("> ") for c in text]
    if not found or not all(head == f"<{kind}" for head, _, _ in found):
        return ""
    return "".join(chr(int(code, 16)) for _, _, code in found)


class _Reader:
    """Reads tokens from left to right."""

    def __init__(self, tokens: Sequence[Sign]) -> None:
        self.tokens, self.at = tokens, 0

    def all(self, end: str = "") -> list[Node]:
        """What follows, up to the closing bracket `end` or the end; the bracket is not taken."""
        nodes: list[Node] = []
        while self.at < len(self.tokens) and self.tokens[self.at].text != end:
            nodes.append(self._one())
        return nodes

    def _peek(self, ahead: int = 0) -> Sign:
        at = self.at + ahead
        return self.tokens[at] if at < len(self.tokens) else Sign("end", "")

    def _take(self) -> Sign:
        self.at += 1
        return self.tokens[self.at - 1]

    def _one(self) -> Node:
        token = self._take()
        if token.kind == "space":
            return Space()
        if token.text in _OPENING:
            return self._scripted(self._group(token.text))
        if token.text == "½":
            return Fraction(Sign("number", "1"), Sign("number", "2"))
        if token.text == "√" and self._peek().kind != "end":
            return Root(self._one())
        return self._scripted(_atom(token)) if _has_scripts(token) else token

    def _group(self, opening: str) -> Node:
        """A pair of brackets and what is between them; one without its partner is a sign."""
        start = self.at
        inside = self.all(_OPENING[opening])
        if self._peek().kind == "end":
            self.at = start
            return Sign("sign", opening)
        closing = self._take()
        fence = (Sign("sign", opening), *_fractions(inside), Sign("sign", closing.text))
        return Row(fence, fenced=True)

    def _scripted(self, base: Node) -> Node:
        below: list[Node] = []
        above: list[Node] = []
        while True:
            token = self._peek()
            if plain := _shifted(token.text, "sub") if token.kind in ("letter", "sign") else "":
                self._take()
                below.append(_letter(plain))
            elif plain := _shifted(token.text, "super") if _may_be_above(token) else "":
                self._take()
                above.append(_letter(plain))
            elif token.text == "'":
                self._take()
                base = Row((base, Sign("prime", "\u2032")))
            elif self._is_mark(token):
                above.append(self._take())
            elif token.text in "_^" and token.text and self._peek(1).kind not in ("space", "end"):
                (below if self._take().text == "_" else above).extend(self._argument())
            else:
                break
        if not below and not above:
            return base
        return Scripts(base, Row(tuple(below)), Row(tuple(above)))

    def _is_mark(self, token: Sign) -> bool:
        """Whether `*` or `±` marks what is before it, instead of combining it with what follows."""
        after = self._peek(1).text
        if token.text not in ("*", "±"):
            return False
        return after in ("", " ", ",", ")", "=") or bool(_shifted(after[:1], "sub"))

    def _argument(self) -> list[Node]:
        """What an index or a power holds: a group in braces, a bracket, or one run of letters."""
        token = self._take()
        if token.text == "{":
            inside = self.all("}")
            if self._peek().kind != "end":
                self._take()
            return inside
        if token.text == "(":
            inside = self.all(")")
            if self._peek().kind != "end":
                self._take()
            return inside
        if token.text == "−" and self._peek().kind in ("number", "letter"):
            return [token, *self._argument()]
        if token.kind == "word" and token.text.islower():
            return [Sign("letter", c) for c in token.text]
        nodes = [self._indexed(token)]
        while self._peek().kind == "letter" and not _shifted(self._peek().text, "super"):
            nodes.append(self._indexed(self._take()))
        return nodes

    def _indexed(self, token: Sign) -> Node:
        """A sign with its own subscripts; a power behind it is that of what has the index."""
        below: list[Node] = []
        while plain := _shifted(self._peek().text, "sub"):
            self._take()
            below.append(_letter(plain))
        return Scripts(_atom(token), Row(tuple(below))) if below else _atom(token)


def _may_be_above(token: Sign) -> bool:
    return token.kind in ("letter", "number", "sign")


def _has_scripts(token: Sign) -> bool:
    """Whether an index or a power may follow: also behind the bar of a norm."""
    return token.kind in ("letter", "word", "number") or token.text in _SIGNS_WITH_SCRIPTS


def _letter(plain: str) -> Sign:
    kind = "number" if plain.isdigit() else "letter" if plain.isalpha() else "sign"
    return Sign(kind, plain.replace("-", "−"))


def _atom(token: Sign) -> Node:
    """A letter without its mark, below it."""
    if token.kind == "letter" and len(token.text) > 1:
        return Accent(Sign("letter", token.text[0]), token.text[1:])
    return token


def _fractions(nodes: Sequence[Node]) -> list[Node]:
    """The same with a fraction for every slash that touches something on both sides."""
    result: list[Node] = []
    rest = list(nodes)
    while rest:
        node = rest.pop(0)
        if node != Sign("sign", "/") or not rest or not (result and _touches(result[-1])):
            result.append(node)
            continue
        bottom: list[Node] = []
        while rest and _touches(rest[0]):
            bottom.append(rest.pop(0))
            if _ends_in_function(bottom) and len(rest) > 1 and rest[0] == Space():
                bottom += [rest.pop(0), rest.pop(0)]
        top: list[Node] = []
        while bottom and result and _touches(result[-1]):
            top.insert(0, result.pop())
        result.append(Fraction(_bare(top), _bare(bottom)) if bottom else node)
    return result


def _touches(node: Node) -> bool:
    """Whether a node is part of what a slash divides."""
    if isinstance(node, Space):
        return False
    if not isinstance(node, Sign):
        return True
    return node.kind in ("letter", "number", "word", "code", "name", "prime") or node.text in "∂‖|"


def _ends_in_function(nodes: Sequence[Node]) -> bool:
    last = nodes[-1]
    return isinstance(last, Sign) and last.text in FUNCTIONS


def _bare(nodes: Sequence[Node]) -> Node:
    """Without the round brackets around all of it, which the bar of a fraction replaces."""
    if len(nodes) == 1 and isinstance(nodes[0], Row) and nodes[0].fenced:
        inside = nodes[0].parts
        if inside[0] == Sign("sign", "("):
            return Row(inside[1:-1])
    return Row(tuple(nodes))


def is_prose(word: str) -> bool:
    """Whether a word of several letters is text rather than the name of a function."""
    return word.islower() and word not in _WORDS_OF_FORMULAS
