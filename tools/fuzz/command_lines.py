"""Command lines: odd values, options and paths of every mode, in a folder with odd files."""

import os
import tempfile
from collections import Counter
from pathlib import Path
from random import Random

from tools.fuzz.child import Child, Ending

_SUITE = "replicates: 100\ntasks: [categorical]\nestimators: [rloo]\n"
_FILES: dict[str, bytes] = {
    "good.yaml": _SUITE.encode(),
    "bad.yaml": b"tasks: [",
    "empty.yaml": b"",
    "text.txt": b"text",
    "empty.py": b"",
    "syntax.py": b"x =",
    "bytes.py": b"\xff\xfe\x00",
    "latin.py": "# -*- coding: latin-1 -*-\n# café\n".encode("latin-1"),
    "exits.py": b"raise SystemExit(0)",
    "closes.py": b"raise GeneratorExit",
    "shouts.py": b"class E(Exception):\n    def __str__(self):\n        raise E\nraise E",
    "nested.py": b"(" * 10_000,
    "torn/run.json": b"{",
    "torn/journal.jsonl": b"",
    "list/run.json": b"[]",
    "null/run.json": b"\0",
}
_FOLDERS = ("folder", "folder.py", "folder.yaml", "inner/a.py")
_PIPES = ("pipe.py", "pipe.yaml")
_PATHS = (
    *_FILES,
    *_FOLDERS,
    *_PIPES,
    "loop.py",
    "loop.yaml",
    "none",
    "none.py",
    "",
    ".",
    "a\0b",
    "\udcff.py",
    "x" * 5000,
    "\x1b[31m.yaml",
    "a\nb.yaml",
    "/dev/null",
    "text.txt/below",
    "[",
    "é.yaml",
    " ",
    "~",
)
_NUMBERS = (
    *("0", "-1", "1", "64", "100", "1.5", "1e3", "nan", "", " 7 ", "0x10", "1_000", "٣"),
    *("9" * 400, "-" + "9" * 400, "9" * 5000, str(10**30), str(2**63 - 1), str(2**63), "--", "one"),
)
_GLOBS = ("[", "*", "*[", "[!", "", "cat*", "\udcff", "*" * 500, "a\nb", "[z-a]", "rloo")
_PRECISIONS = (
    *("", "=", "variance", "variance=0.1", "variance=1e400", "bias=nan", "bias=-1", "x=1", ",,,"),
    *(f"bias=0.1,max_replicates={10**400}", "variance=0.1,variance=0.2", "max_seconds=1"),
)
_NAMES = ("", "os", "é", "a" * 300, "a\nb", "rloo", "class", "fuzzed_method", "../up", "Upper")
_VALUES = {
    "--only-tasks": _GLOBS,
    "--only-estimators": _GLOBS,
    "--plugin": _PATHS,
    "--out": _PATHS,
    "--jobs": _NUMBERS,
    "--seed": _NUMBERS,
    "--replicates": _NUMBERS,
    "--steps": _NUMBERS,
    "--precision": _PRECISIONS,
    "--device": ("cpu", "cuda", "tpu", ""),
    "--like": ("rebar", "rloo", "none", ""),
    "--backend": ("loky", "threading", "dask", "ray", ""),
    "--time-limit": ("5", "0", "nan", "1e300", ""),
    "--against": ("reference", *_PATHS),
    "--beside": ("reference", *_PATHS),
    "--scheduler": ("", "tcp://127.0.0.1:1", "\udcff"),
}
_FLAGS = (
    "--fresh",
    "--quiet",
    "--markdown",
    "--bibtex",
    "--fail-on-regression",
    "--json",
    "--no-such",
)


def examine(seed: int, count: int) -> Counter[str]:
    """How many command lines ended how; a line for each bad ending."""
    endings: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="fuzzed-commands-") as name:
        folder = Path(name)
        _furnish(folder)
        with Child(folder) as child:
            for number in range(count):
                arguments = generated(seed, number)
                before = _listing(folder)
                ending = child.run(arguments)
                name, told = classified(ending, before == _listing(folder))
                endings[name] += 1
                if told:
                    shown = " ".join(map(ascii, arguments))
                    print(f"{number}: {shown[:300]}: {name}: {told}", flush=True)
    return endings


def generated(seed: int, number: int) -> list[str]:
    """A mode with some options, of which some belong to it."""
    random = Random(f"{seed} {number}")
    mode = random.choice(["suite"] * 4 + ["check", "check", "report", "list", "new", "none"])
    arguments: list[str] = []
    if mode == "suite":
        usual = random.random() < 0.7
        arguments = ["--suite", "good.yaml" if usual else random.choice(_PATHS), "--dry-run"]
    elif mode == "check":  # of what is no plugin: others take as long as the battery does
        arguments = ["--check", random.choice(_PATHS)]
    elif mode == "report":
        arguments = ["--report", *random.choices(_PATHS, k=random.randint(1, 3))]
    elif mode == "list":
        arguments = ["--list"]
    elif mode == "new":
        arguments = [random.choice(["--new-task", "--new-estimator"]), random.choice(_NAMES)]
    for _ in range(random.randint(0, 3)):
        if random.random() < 0.2:
            arguments.append(random.choice(_FLAGS))
        else:
            option = random.choice(list(_VALUES))
            arguments += [option, random.choice(_VALUES[option])]
    return arguments


def classified(ending: Ending, unchanged: bool) -> tuple[str, str]:
    """The name of an ending, and what is to be told of a bad one."""
    if ending.trouble:
        return ending.trouble.partition(":")[0], ending.trouble
    if ending.status == 2:
        one_line = ending.err.startswith("error: ") and ending.err[:-1].isprintable()
        if not one_line or ending.out:
            return "wrong words", f"{ending.err[:200]!r} {ending.out[:100]!r}"
        return ("refused", "") if unchanged else ("wrong", "refused, and left files behind")
    if ending.status not in (0, 1) or "Traceback" in ending.err:
        return "wrong status", f"{ending.status}: {ending.err[:200]!r}"
    return "ran", ""


def _furnish(folder: Path) -> None:
    for name, content in _FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    for name in _FOLDERS:
        (folder / name).mkdir(parents=True)
    for name in _PIPES:
        os.mkfifo(folder / name)
    for name in ("loop.py", "loop.yaml"):
        (folder / name).symlink_to(name)


def _listing(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*") if "__pycache__" not in path.parts}
