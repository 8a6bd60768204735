"""A deliberately wrong estimator, as a patch of the true one, and what the battery says of it.

A patch is visibly one mistake, and fails loudly when the file that it patches has moved on.  A law
that nothing breaks would certify anything: each mutant is a reason to believe the one it names.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Any

from gradest import Estimator
from gradest.checks import ESTIMATOR_LAWS, Finding, check_estimator
from gradest.checks.battery import Subject
from gradest.checks.result import foundations, run_laws
from gradest.knobs import knob_types
from gradest.plugins.registry import load_plugin

ESTIMATORS = Path(__file__).resolve().parents[2] / "estimators"

# A law also fails when the call raises.  That is no credit to the law: the mutant has to run.
_RAISED = re.compile(r"\w+Error: ")


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """The estimator `of` with one mistake, and the law of the battery that it breaks."""

    of: str
    mistake: str
    law: str
    old: str = ""  # text that occurs once in the file
    new: str = ""  # what takes its place
    file: str = ""  # the helper to patch instead of the estimator's own file
    stand_in: str = ""  # code at the end of the file, where it shadows an import of that name
    knobs: Mapping[str, Any] = field(default_factory=dict)  # instead of the defaults
    known: str = ""  # the published mistake that this is

    def __str__(self) -> str:
        return f"{self.of}: {self.mistake}"

    @property
    def source(self) -> Path:
        return ESTIMATORS / (self.file or f"{self.of}.py")

    def text(self) -> str:
        """The patched file.  Raises ValueError when the patch does not fit."""
        text = self.source.read_text(encoding="utf-8")
        if self.old:
            if (count := text.count(self.old)) != 1:
                raise ValueError(f"{self}: {self.old!r} occurs {count} times in {self.source.name}")
            text = text.replace(self.old, self.new)
        return f"{text}\n\n{self.stand_in}" if self.stand_in else text

    def load(self, folder: Path) -> type[Estimator]:
        """The class of the mutant, from a folder of its own that holds the helpers too."""
        for helper in (*ESTIMATORS.glob("_*.py"), ESTIMATORS / f"{self.of}.py"):
            text = helper.read_text(encoding="utf-8")
            (folder / helper.name).write_text(text, encoding="utf-8")
        (folder / self.source.name).write_text(self.text(), encoding="utf-8")
        (cls,) = load_plugin(folder / f"{self.of}.py")
        return with_defaults(cls, self.knobs)


def with_defaults(cls: type[Estimator], knobs: Mapping[str, Any]) -> type[Estimator]:
    """The class with other defaults, since the battery asks for the default knobs."""
    if not knobs:
        return cls
    hints = knob_types(cls)
    changed = [(knob, hints[knob], field(default=value)) for knob, value in knobs.items()]
    attributes = {"__module__": cls.__module__, "__doc__": cls.__doc__, "name": cls.name}
    return make_dataclass(cls.__name__, changed, bases=(cls,), namespace=attributes, eq=False)


def verdict(cls: type[Estimator], law: str) -> Finding:
    """What one law says: it alone is asked, which takes a fraction of the battery's time."""
    if law not in ESTIMATOR_LAWS:
        return Finding(law, "skipped", "the battery has no such law")
    (finding,) = run_laws({law: ESTIMATOR_LAWS[law]}, Subject(cls))
    return finding


def verdict_in_order(cls: type[Estimator], law: str) -> Finding:
    """What the whole battery says of one law, from the laws alone that decide whether it is asked.

    A law is skipped while another is broken on which it rests; no other law can change what it
    says, since the noise of each hangs on seeds of its own.
    """
    asked = {
        name: check
        for name, check in ESTIMATOR_LAWS.items()
        if name == law or name in foundations(law)
    }
    findings = {finding.law: finding for finding in run_laws(asked, Subject(cls))}
    return findings[law]


def caught(finding: Finding) -> bool:
    return finding.status == "failed" and not _RAISED.match(finding.detail)


def everything_found(cls: type[Estimator]) -> str:
    """The findings of the whole battery, one a line."""
    return "\n".join(f"{f.law}: {f.status}, {f.detail}" for f in check_estimator(cls))
