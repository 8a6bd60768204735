"""One law's outcome, and how laws are asked one after the other."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from gradest.process_state import Code, Settings, changes
from gradest.text import described

EQUAL = 1e-9  # relative; the same sums in another order differ by less
SINGLE = 1024 * torch.finfo(torch.float32).eps  # the same for float32
STEP = 1e-5  # of a difference quotient: its error, and the rounding over it, are below 10⁻⁸
QUOTIENT = 1e-6  # so that this much is no rounding

# A law says nothing once one that it rests on is broken: none without a value and a gradient for
# every row, or a cost for every code; two calls cannot be compared where none can be repeated,
# draws past the vocabulary cannot be enumerated, and who is biased need not be asked about rare or
# other cases.
_ALWAYS = ("in place", "shape")
_REPEATS = ("seed", "dtype", "finite", "deterministic")
_COMPARES = ("rows", "derivative", "middle axes", "points", "relaxable", "knobs", "expectation")
_SYMMETRIES = ("shift", "constant", "scale", "pathwise", "divergence")
_RESTS_ON = {
    "finite": ("dtype",),
    "deterministic": ("dtype", "finite"),
    **dict.fromkeys(_COMPARES + _SYMMETRIES, _REPEATS),
    **dict.fromkeys(("value", "bias", "labels", "degree", "direction"), ("randomness", "rows")),
    **dict.fromkeys(("rare", "settings", "adapting"), ("randomness", "rows", "bias")),
}

Status = Literal["passed", "failed", "skipped", "inconclusive"]
Outcome = tuple[Status, str]
Begin = Callable[[str], None]


def silently(law: str) -> None:
    """Tells nobody that a law is being asked."""


class Finding(NamedTuple):
    """What the battery says about one law: a status, and by how much."""

    law: str
    status: Status
    detail: str


def passed(findings: Iterable[Finding]) -> bool:
    """Whether the plugin is certified: some law passed, and none failed or was inconclusive.

    A measurement too noisy to show a violation is no evidence that there is none.
    """
    statuses = {finding.status for finding in findings}
    return "passed" in statuses and statuses <= {"passed", "skipped"}


def findings_of(
    laws: Mapping[str, Callable[..., Outcome]], *subject: Any, begin: Begin = silently
) -> Iterator[Finding]:
    """Asks one law after the other, calls `begin` with its name first, and gives its finding."""
    findings: dict[str, Finding] = {}
    code = Code.take()
    for law, check in laws.items():
        broken = [on for on in _rests_on(law) if _failed(findings.get(on))]
        if broken:
            findings[law] = Finding(law, "skipped", f"says nothing while {broken[0]!r} is broken")
        else:
            begin(law)
            code = code.retaken()
            findings[law] = _found(law, check, code, *subject)
        yield findings[law]


def foundations(law: str) -> frozenset[str]:
    """The laws that decide whether a law is asked: those it rests on, and what these rest on."""
    below: set[str] = set()
    ahead = {law}
    while ahead:
        ahead = {on for each in ahead for on in _rests_on(each)} - below
        below |= ahead
    return frozenset(below)


def _rests_on(law: str) -> tuple[str, ...]:
    return (*_ALWAYS, *_RESTS_ON.get(law, ()))


def _found(law: str, check: Callable[..., Outcome], code: Code, *subject: Any) -> Finding:
    settings = Settings.take()
    try:
        with torch.enable_grad():  # also where the plugin, or the caller, has turned it off
            status, detail = check(*subject)
        if changed := changes(settings, code):
            return Finding(law, "failed", f"{changed}, on which other estimators and tasks rely")
        return Finding(law, status, detail)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin that calls sys.exit() is rejected, not obeyed
        return Finding(law, "failed", told(error))
    finally:
        settings.restore()
        code.restore()


def _failed(finding: Finding | None) -> bool:
    return finding is not None and finding.status == "failed"


def told(error: BaseException) -> str:
    """The kind of the error and its message."""
    return described(error)


def outcome(broken: str, kept: str) -> Outcome:
    return ("failed", broken) if broken else ("passed", kept)


def relative_gap(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest entry; infinite for NaN."""
    a, b = a.detach(), b.detach()
    difference, size = (a - b).abs().max(), torch.maximum(a.abs().max(), b.abs().max())
    gap = float(difference / size) if difference != 0 else 0.0
    return gap if gap == gap else float("inf")


def percent(share: float) -> str:
    """To two decimals, or to the digit that they would round away: 4.20%, 5e-14%."""
    return f"{share:.2%}" if share >= 5e-5 else f"{100 * share:.1g}%"
