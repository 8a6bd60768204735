# ruff: noqa: RUF001  (tables of letters that look like others)
"""Text for LaTeX and BibTeX: texts of plugins are escaped.

Everything compiles under plain pdflatex without packages.  pylatexenc's encoder was weighed: its
commands for many letters need packages and encodings that a paper may not load.
"""

import itertools
import unicodedata

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    # BibTeX counts braces, also those behind a backslash.
    "{": r"\textbraceleft{}",
    "}": r"\textbraceright{}",
    **{sign: f"\\{sign}" for sign in "&%$#_"},
    # Other letters in the encoding that is LaTeX's default.
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # Ends a field in BibTeX and is a command of some languages of babel.
    '"': r"\symbol{34}",
    "`": r"\`{}",  # not \textasciigrave, which is a bitmap where few fonts are installed
    # Behind the end of a row these would be read as its options.
    **{sign: f"{{{sign}}}" for sign in "[]*"},
}


def _pairs(text: str) -> dict[str, str]:
    words = text.split()
    return dict(zip(words[::2], words[1::2], strict=True))


_LETTERS = {
    **_pairs(r"ß \ss{} æ \ae{} Æ \AE{} œ \oe{} Œ \OE{} ø \o{} Ø \O{} ł \l{} Ł \L{} ı \i{} đ d Đ D"),
    **_pairs(r"– -- — --- ‐ - “ `` ” '' ‘ ` ’ ' ⁄ / … \ldots{}"),
    # Capitals that look like Latin ones have no command of their own.
    **_pairs("Α A Β B Ε E Ζ Z Η H Ι I Κ K Μ M Ν N Ο O Ρ P Τ T Χ X ο o"),
}
SYMBOLS = {
    **_pairs(r"× \times − - ± \pm ∞ \infty ‖ \| · \cdot ≤ \le ≥ \ge ≠ \ne ≈ \approx ∼ \sim"),
    **_pairs(r"∝ \propto → \to ← \leftarrow ↦ \mapsto ∂ \partial ∇ \nabla ∑ \sum ∏ \prod ∫ \int"),
    **_pairs(r"√ \surd ∈ \in ℓ \ell • \bullet ∘ \circ ⊙ \odot ⊗ \otimes ⊕ \oplus ¬ \neg ≡ \equiv"),
    **_pairs(r"∀ \forall ∃ \exists ≪ \ll ≫ \gg † \dagger ‡ \ddagger 𝑓 f 𝑔 g"),
    **_pairs(r"§ \mathsection ¶ \mathparagraph"),  # those of text are bitmaps where fonts are few
    **_pairs(
        r"α \alpha β \beta γ \gamma δ \delta ε \varepsilon ϵ \epsilon ζ \zeta η \eta θ \theta"
    ),
    **_pairs(r"ϑ \vartheta ι \iota κ \kappa λ \lambda μ \mu ν \nu ξ \xi π \pi ρ \rho σ \sigma"),
    **_pairs(r"ς \varsigma τ \tau υ \upsilon φ \varphi ϕ \phi χ \chi ψ \psi ω \omega"),
    **_pairs(r"Γ \Gamma Δ \Delta Θ \Theta Λ \Lambda Ξ \Xi Π \Pi Σ \Sigma Υ \Upsilon Φ \Phi Ψ \Psi"),
    **_pairs(r"Ω \Omega"),
}
_MARKS = "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327"
_ACCENTS = dict(zip(_MARKS, "`'^~=u.\"rHvc", strict=True))


def escape(text: object) -> str:
    """One line of plain text that LaTeX shows as it is, in text, captions and BibTeX's fields.

    Greek letters and signs become mathematics, accents commands; of several accents on a letter
    the first stays.  What LaTeX has no letter for is named: `[U+1F600]`.
    """
    line = " ".join(unicodedata.normalize("NFC", str(text)).split())
    # Fonts would join such pairs to one letter.
    joined = {("-", "-"), ("'", "'"), (",", ",")}
    pairs = itertools.pairwise(f" {line}")
    return "".join(f"{{}}{_sign(b)}" if (a, b) in joined else _sign(b) for a, b in pairs)


def _sign(sign: str) -> str:
    """One character."""
    if command := _SPECIAL.get(sign) or _LETTERS.get(sign):
        return command
    if " " <= sign <= "\u007e":
        return sign
    if sign in SYMBOLS:
        return rf"\ensuremath{{{SYMBOLS[sign]}}}"
    return _accented(sign) or _compatible(sign) or f"{{[}}U+{ord(sign):04X}{{]}}"


def _accented(sign: str) -> str:
    """A Latin letter with its first accent that LaTeX knows, in braces as BibTeX wants them."""
    letter, *marks = unicodedata.normalize("NFD", sign)
    if not (letter.isascii() and letter.isalpha()):
        return ""
    accent = next((_ACCENTS[mark] for mark in marks if mark in _ACCENTS), "")
    return rf"{{\{accent}{{{letter}}}}}" if accent else letter


def _compatible(sign: str) -> str:
    """The plain characters for a ligature, superscript, fraction or letter with marks."""
    plain = unicodedata.normalize("NFKD", sign).replace("−", "-")
    if plain == sign:
        return ""
    kind = unicodedata.decomposition(sign).partition(">")[0]
    if plain.isascii() and (raised := {"<super": "^", "<sub": "_"}.get(kind)):
        return rf"\ensuremath{{{raised}{{{plain}}}}}"
    return "".join(_sign(each) for each in plain if not unicodedata.combining(each))
