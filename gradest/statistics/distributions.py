"""Student's t, the normal, χ² and F distributions: what intervals and tests need of them.

These call the functions that `scipy.stats` itself evaluates, with the same results.  Importing
`scipy.stats` takes longer than a small command, and each of its calls checks arguments for a tenth
of a millisecond, of which the rows of a large run make a million.

All functions take numbers or arrays, which are broadcast; t with infinite degrees of freedom is
normal.
"""

from typing import Any

import scipy


def t_sf(x: Any, freedom: Any) -> Any:
    """P(T > x)."""
    return scipy.special.stdtr(freedom, -x)


def t_isf(p: Any, freedom: Any) -> Any:
    """The number that T exceeds with probability p, 0 < p < 1."""
    return -scipy.special.stdtrit(freedom, p)


def t_ppf(p: Any, freedom: Any) -> Any:
    """The number that T stays below with probability p, 0 < p < 1."""
    return scipy.special.stdtrit(freedom, p)


def normal_sf(x: Any) -> Any:
    """P(Z > x)."""
    return scipy.special.ndtr(-x)


def normal_isf(p: Any) -> Any:
    """The number that Z exceeds with probability p."""
    return -scipy.special.ndtri(p)


def chi2_isf(p: Any, freedom: Any) -> Any:
    """The number that χ² exceeds with probability p."""
    return scipy.special.chdtri(freedom, p)


def f_ppf(p: Any, freedom: Any, freedom_below: Any) -> Any:
    """The number that F stays below with probability p; `freedom_below` is that of the divisor."""
    return scipy.special.fdtri(freedom, freedom_below, p)
