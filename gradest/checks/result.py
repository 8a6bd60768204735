"""The finding of one check, and the run through all checks.

A check tests one law; `laws` in the claims of a class are the few that it may choose to obey.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from gradest.plugins import Code, Settings, changes
from gradest.support import described

EQUAL = 1e-9  # relative; the same sums in another order differ by less
SINGLE = 1024 * torch.finfo(torch.float32).eps  # the same for float32
STEP = 1e-5  # of a difference quotient: its error, and its rounding, are below 10⁻⁸
QUOTIENT = 1e-6  # a larger gap is not rounding

# A law cannot be tested once a law that it depends on is broken: none without a value and a
# gradient for every row, or a cost for every code.  Two calls cannot be compared where none can be
# repeated, draws from other sources cannot be enumerated, and a biased estimator is not tested at
# rare categories or other settings.
_ALWAYS = ("in place", "shape")
_REPEATS = ("seed", "dtype", "finite", "deterministic")
_COMPARES = (
    *("rows", "blocks", "derivative", "knobs"),
    *("middle axes", "points", "relaxable", "expectation"),
)
_SYMMETRIES = ("shift", "constant", "scale", "pathwise", "divergence")
_REQUIRES = {
    "finite": ("dtype",),
    "deterministic": ("dtype", "finite"),
    **dict.fromkeys(_COMPARES + _SYMMETRIES, _REPEATS),
    **dict.fromkeys(("value", "bias", "labels", "degree", "direction"), ("randomness", "rows")),
    **dict.fromkeys(("rare", "settings", "adapting"), ("randomness", "rows", "bias")),
}

Status = Literal["passed", "failed", "skipped", "inconclusive"]
Outcome = tuple[Status, str]
Begin = Callable[[str], None]


def ignore_start(law: str) -> None:
    """Ignore the start of a law: the default for `begin`."""


class Finding(NamedTuple):
    """The result of the battery for one law: a status and its detail."""

    law: str
    status: Status
    detail: str


def passed(findings: Iterable[Finding]) -> bool:
    """Whether the plugin is certified: some law passed, and none failed or was inconclusive.

    A measurement that is too noisy to show a violation does not show that there is none.
    """
    statuses = {finding.status for finding in findings}
    return "passed" in statuses and statuses <= {"passed", "skipped"}


def run_laws(
    laws: Mapping[str, Callable[..., Outcome]], *subject: Any, begin: Begin = ignore_start
) -> Iterator[Finding]:
    """Test the laws in order; `begin` is called with the name of each before its finding."""
    findings: dict[str, Finding] = {}
    code = Code.take()
    for law, check in laws.items():
        broken = [name for name in _required(law) if _failed(findings.get(name))]
        if broken:
            findings[law] = Finding(
                law, "skipped", f"cannot be tested while the check {broken[0]!r} fails"
            )
        else:
            begin(law)
            code = code.retaken()
            findings[law] = _run_law(law, check, code, *subject)
        yield findings[law]


def foundations(law: str) -> frozenset[str]:
    """The laws that decide whether a law is tested: those it requires, and what these require."""
    below: set[str] = set()
    ahead = {law}
    while ahead:
        ahead = {name for each in ahead for name in _required(each)} - below
        below |= ahead
    return frozenset(below)


def _required(law: str) -> tuple[str, ...]:
    return (*_ALWAYS, *_REQUIRES.get(law, ()))


def _run_law(law: str, check: Callable[..., Outcome], code: Code, *subject: Any) -> Finding:
    settings = Settings.take()
    try:
        with torch.enable_grad():  # also where the plugin, or the caller, has turned it off
            status, detail = check(*subject)
        if changed := changes(settings, code):
            return Finding(law, "failed", f"{changed}, which other estimators and tasks use")
        return Finding(law, status, detail)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin that calls sys.exit() is rejected, not obeyed
        return Finding(law, "failed", described(error))
    finally:
        settings.restore()
        code.restore()


def _failed(finding: Finding | None) -> bool:
    return finding is not None and finding.status == "failed"


def outcome(violation: str, success: str) -> Outcome:
    return ("failed", violation) if violation else ("passed", success)


def relative_gap(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest entry; infinite for NaN."""
    a, b = a.detach(), b.detach()
    difference, size = (a - b).abs().max(), torch.maximum(a.abs().max(), b.abs().max())
    gap = float(difference / size) if difference != 0 else 0.0
    return gap if gap == gap else float("inf")


def percent(share: float) -> str:
    """A share in percent, to two decimals or, if smaller, one digit: 4.20 %, 5e-14 %."""
    return f"{100 * share:.2f} %" if share >= 5e-5 else f"{100 * share:.1g} %"
