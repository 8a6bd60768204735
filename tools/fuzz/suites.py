"""Suite files: well-formed ones, mutated in structure, scalars and bytes, through `--dry-run`."""

import re
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

from tools.fuzz.child import Child, Ending

VALID = (
    """\
description: A small suite
replicates:
  - 100
  - 200
seeds:
  - 0
  - 1
parameters:
  - log_alpha
dtype: float64
adapt_steps: 2
tasks:
  - categorical
  - bernoulli:
      target: 0.45
estimators:
  - exact
  - rloo:
      samples:
        - 2
        - 4
  - concrete:
      temperature: 0.5
controls:
  unbiased:
    - exact
""",
    """\
precision:
  variance: 0.1
  max_replicates: 1000
nested:
  - seed
  - latents
tasks:
  - quadratic:
      seed: [0, 1, 2]
      latents: [1, 2]
      categories: 3
estimators:
  - reinforce
  - nvil:
      hidden: 10
""",
    """\
training:
  steps: 2
  batch: 10
  learning_rate: 1e-3
  anneal:
    st_gumbel_softmax:
      temperature:
        rate: 1e-4
  evaluation:
    every: 1
    points: 2
    samples: 2
    test_points: 2
    test_samples: 2
tasks:
  - categorical_vae:
      latents: 2
      categories: 2
      hidden: 4
estimators:
  - st_gumbel_softmax:
      temperature: 0.7
""",
)

# What no key of a suite can be: refused, and in its own line.
MALFORMED = (
    "!!int abc",
    "!!float abc",
    "!!bool maybe",
    "!!timestamp 2001-01-01",
    "!!binary aGk=",
    "!!set {a, b}",
    "!!python/object/apply:os.getcwd []",
    "!mine 1",
    "*nowhere",
    "&self [*self]",
    "{<<: {a: 1}}",
    "{[a]: 1}",
    "{1: 2}",
    "9" * 5000,
    "1" + "0" * 400,
    "[" * 2000 + "]" * 2000,
    "a: b: c",
    "@at",
    "{a: 1, a: 2}",
    "'\0'",
)
ODD = (
    "",
    "~",
    "[]",
    "{}",
    "0",
    "-1",
    "2.5",
    "1e400",
    ".nan",
    "-.inf",
    "yes",
    "2001-99-99",
    "1:30",
    "0x10",
    "1000000000",
    "10000000",
    "9223372036854775807",
    "-9223372036854775808",
    "'1'",
    '"\\e[31m"',
    '"a\\nb"',
    "é",
    "\u2028",
    "\U0001f600",
    "[1, 2, 3]",
    "[[1, 2], [3]]",
    "[a, b]",
    "{a: b}",
    "rloo",
    "categorical",
    "exact",
    "float16",
    "x" * 3000,
    "|",
    "? a",
    "%",
    "`",
)
_BOMB = "".join(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9)}]\n" for i in range(1, 11))
Mutation = Callable[[Random, list[str]], int | None]  # changes lines; the line that must be named


def examine(seed: int, count: int) -> Counter[str]:
    """How many files ended how; a line for each bad ending, whose file is kept."""
    endings: Counter[str] = Counter()
    folder = Path(tempfile.mkdtemp(prefix="fuzzed-suites-"))
    with Child(folder) as child:
        for number in range(count):
            content, line = generated(seed, number)
            path = folder / f"{number}.yaml"
            path.write_bytes(content)
            ending = child.run(["--suite", str(path), "--dry-run", "--out", str(folder / "out")])
            name, told = classified(ending, path, content, line)
            endings[name] += 1
            if told:
                print(f"{path}: {name}: {told}", flush=True)
            else:
                path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()
    return endings


def generated(seed: int, number: int) -> tuple[bytes, int | None]:
    """The content of a file, and the line that must be named where it is known.

    Every twentieth is well-formed, for which that line is 0: it must run.
    """
    random = Random(f"{seed} {number}")
    lines = random.choice(VALID).splitlines()
    if number % 20 == 0:
        return "\n".join([*lines, ""]).encode(), 0
    if random.random() < 0.3:
        line = _malformed(random, lines)
        return "\n".join([*lines, ""]).encode(), line
    for _ in range(random.randint(1, 3)):
        random.choice(_STRUCTURE)(random, lines)
    content = "\n".join([*lines, ""]).encode()
    if random.random() < 0.25:
        content = random.choice(_BYTES)(random, content)
    return content, None


def classified(ending: Ending, path: Path, content: bytes, line: int | None) -> tuple[str, str]:
    """The name of an ending, and what is to be told of a bad one."""
    if ending.trouble:
        return ending.trouble.partition(":")[0], ending.trouble
    if ending.status in (0, 1) and not ending.err:
        said = ending.out.splitlines()[-1] if ending.out else ""
        if not re.fullmatch(
            r"[\d,]+ cells?, [\d,]+ done; the others: (about \d+ s|less than a second) with "
            r"\d+ jobs?, plus (\d+ s or more of timing, )?tables and figures",
            said,
        ):
            return "wrong words", said[:200]
        if line:
            return "wrong", f"line {line} is malformed, and it ran"
        failing = ending.status == 1
        return (
            ("wrong", "well-formed, and failed")
            if failing and line == 0
            else (
                "ran, with cells that would fail" if failing else "ran",
                "",
            )
        )
    found = re.fullmatch(rf"error: {re.escape(str(path))}:(\d+): [^\n]+\n", ending.err)
    if ending.status != 2 or ending.out or not found or not ending.err[:-1].isprintable():
        return "wrong words", f"status {ending.status}: {ending.err[:200]!r}"
    named = int(found[1])
    breaks = len(re.findall(rb"\r\n|\r|\n", content))
    if line == 0:
        return "wrong", f"well-formed, and refused: {ending.err.strip()}"
    if (line and named != line) or not 1 <= named <= breaks + 1:
        return "wrong line", f"{line} is malformed: {ending.err.strip()[:300]}"
    return "refused", ""


def _malformed(random: Random, lines: list[str]) -> int:
    """Put what can be nothing in the place of a scalar."""
    number = random.choice([n for n, line in enumerate(lines) if _scalar(line)])
    start = _scalar(lines[number])
    lines[number] = lines[number][:start] + random.choice(MALFORMED)
    return number + 1


def _scalar(line: str) -> int:
    """Where the scalar of a line begins; 0 of a line without one."""
    found = re.match(r" *(?:[\w]+: |- (?!\w+:$))(?=\S)", line)
    return found.end() if found else 0


def _place(random: Random, lines: list[str]) -> int:
    return random.randrange(len(lines)) if lines else 0


def _replace(random: Random, lines: list[str]) -> None:
    at = _place(random, lines)
    if lines and (start := _scalar(lines[at])):
        lines[at] = lines[at][:start] + random.choice(ODD + MALFORMED)


def _rename(random: Random, lines: list[str]) -> None:
    at = _place(random, lines)
    if lines:
        lines[at] = re.sub(r"\w+(?=:)", lambda _: random.choice(ODD), lines[at], count=1)


def _delete(random: Random, lines: list[str]) -> None:
    if lines:
        del lines[_place(random, lines)]


def _repeat(random: Random, lines: list[str]) -> None:
    at = _place(random, lines)
    if lines:
        lines.insert(at, lines[at])


def _swap(random: Random, lines: list[str]) -> None:
    if lines:
        a, b = _place(random, lines), _place(random, lines)
        lines[a], lines[b] = lines[b], lines[a]


def _indent(random: Random, lines: list[str]) -> None:
    at = _place(random, lines)
    if lines:
        lines[at] = random.choice([" ", "  ", "\t", "- "]) + lines[at]


def _insert(random: Random, lines: list[str]) -> None:
    parts = ("---", "...", "#", "- ", "? x", ": ", "<<: *x", "&a", "%TAG ! x", _BOMB.strip())
    lines.insert(_place(random, lines), random.choice([*parts, *ODD]))


def _many(random: Random, lines: list[str]) -> None:
    """A list that is far too long: different values or equal ones, in lines or in one."""
    size = random.choice([3_000, 30_000, 100_000, 1_000_000])
    values = map(str, range(size)) if random.random() < 0.5 else ["1"] * size
    at = _place(random, lines)
    key = random.choice(["seeds", "replicates", "parameters", "tasks", "x"])
    if random.random() < 0.5:
        lines[at:at] = [f"{key}:", *(f"- {value}" for value in values)]
    else:
        lines.insert(at, f"{key}: [{', '.join(values)}]")


_STRUCTURE = (
    _replace,
    _replace,
    _replace,
    _rename,
    _delete,
    _repeat,
    _swap,
    _indent,
    _insert,
    _many,
)


def _flip(random: Random, content: bytes) -> bytes:
    changed = bytearray(content or b" ")
    for _ in range(random.randint(1, 5)):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _cut(random: Random, content: bytes) -> bytes:
    return content[: random.randrange(len(content) + 1)]


def _noise(random: Random, content: bytes) -> bytes:
    at = random.randrange(len(content) + 1)
    return content[:at] + random.randbytes(random.choice([1, 10, 1000])) + content[at:]


def _recode(random: Random, content: bytes) -> bytes:
    text = content.decode()
    kind = random.choice(["utf-16", "utf-32", "utf-8-sig", "crlf", "cr", "latin-1"])
    if kind in ("crlf", "cr"):
        return text.replace("\n", {"crlf": "\r\n", "cr": "\r"}[kind]).encode()
    return text.encode(kind, errors="replace")


_BYTES = (_flip, _cut, _noise, _recode)
