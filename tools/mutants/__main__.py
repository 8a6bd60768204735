"""Prints which check catches each mutant, and by how much; exits with 1 when one survives."""

import re
import sys
import tempfile
from pathlib import Path

import torch

from . import FAMILIES, UNSEEN, Mutant, caught, verdict
from .mutant import Finding

_MARGIN = re.compile(r"(?:relative bias|deviates from E f by|relative error of|changes by) (.*)")
_WIDTH = 80


def main() -> int:
    torch.set_num_threads(1)
    survivors = []
    for family, mutants in FAMILIES.items():
        print(f"\n{family}\n")
        for mutant in mutants:
            finding = _judged(mutant)
            law = finding.law if caught(finding) else f"SURVIVES {finding.law}"
            print(f"{mutant!s:<84} {law:<15} {_margin(finding.detail)}", flush=True)
            if not caught(finding):
                survivors.append(mutant)
    print("\nunseen\n")
    for mutant, reason in UNSEEN:
        print(f"{mutant!s:<84} {'no check':<15} {reason}")
    total = sum(len(mutants) for mutants in FAMILIES.values())
    print(f"\n{total - len(survivors)} of {total} are rejected by the check for their mistake.")
    return 1 if survivors else 0


def _judged(mutant: Mutant) -> Finding:
    with tempfile.TemporaryDirectory(prefix="gradest-mutant-") as folder:
        return verdict(mutant.load(Path(folder)), mutant.law)


def _margin(detail: str) -> str:
    """By how much, without what it is the margin of, which the check says."""
    found = _MARGIN.search(detail)
    return (found[1] if found else detail)[:_WIDTH]


if __name__ == "__main__":
    sys.exit(main())
