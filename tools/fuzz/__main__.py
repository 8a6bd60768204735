"""`python -m tools.fuzz [KIND ...]`: a table of endings, and exit status 1 if any is bad."""

import argparse
import importlib
import sys
from collections import Counter

COUNTS = {"suites": 500, "journals": 200, "command_lines": 60, "costs": 40}
BAD = ("traceback", "hang", "crash", "wrong")  # words that the name of a bad ending begins with


def main() -> int:
    """Examine the kinds that are asked for and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(COUNTS)}, or all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, help="of each kind, instead of its own number")
    options = parser.parse_args()
    asked = options.kinds or ["all"]
    if unknown := set(asked) - {"all", *COUNTS}:
        parser.error(f"unknown kind {min(unknown)!r}; known: all, {', '.join(COUNTS)}")
    endings: dict[str, Counter[str]] = {}
    for kind in COUNTS if "all" in asked else dict.fromkeys(asked):
        examine = importlib.import_module(f"tools.fuzz.{kind}").examine
        endings[kind] = examine(options.seed, options.count or COUNTS[kind])
    for kind, counts in endings.items():
        listed = ", ".join(f"{number} {ending}" for ending, number in sorted(counts.items()))
        print(f"{kind:<14}{counts.total():>5}  {listed}")
    return int(any(name.startswith(BAD) for counts in endings.values() for name in counts))


if __name__ == "__main__":
    sys.exit(main())
