"""Damages copies of a finished run, rebuilds their reports or resumes them, and judges the ending.

A copy must end in one of two ways: all rows are as they were, or the damage is named and every
number that is shown is as it was.  A traceback, a hang and a number that is silently wrong or
missing are bad endings.
"""

import io
import json
import random
import shutil
import signal
import tempfile
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from gradest.cli import main
from gradest.report import contents
from gradest.runs import finished, read_run
from gradest.runs.blocks import BLOCKS

SUITE = """\
replicates: 100
timed: false
tasks: [categorical, bernoulli, {quadratic: {latents: 90, categories: 4}}]
estimators: [exact, rloo, reinforce, straight_through]
controls: {unbiased: [exact]}
"""  # the last task has so many coordinates that its moments are blocks
ENDINGS = ("same", "named", "traceback", "hang", "wrong")
BAD = ENDINGS[2:]

_SECONDS = 60  # that a command may take
_RESUMED = 0.25  # of the copies go on as a run, the others are reported on
_IDENTITY = ["task", "task_params", "estimator", "estimator_params", "seed", "dtype", "parameter"]
_ODD: tuple[Any, ...] = (
    *(None, True, 0, -1, 1.5, float("nan"), float("inf"), 10**400, "", "x", "\0", "\ud800"),
    *([], {}, [[]], [{}], {"": None}, {"shape": [1], "float64": "AAAA"}),
)
_ODD_LINES = (
    *(b"5", b"null", b"[]", b"{}", b"", b"x", b'"', b"\xff\xfe", b"\0" * 64, b"[" * 100_000),
    *(b"NaN", b'{"kind": "cell"}', b'{"kind": {}}', b'{"kind": "seconds", "key": []}'),
)


@contextmanager
def _without_figures() -> Iterator[None]:
    """Figures take most of the time of a report, and none of them is a source of anything."""
    kept = contents.STUDIES
    contents.STUDIES = tuple(study._replace(illustrations=()) for study in kept)
    try:
        yield
    finally:
        contents.STUDIES = kept


class Ending(NamedTuple):
    """How a copy ended, and what was seen."""

    name: str
    detail: str


class _TooLong(BaseException):
    """The time is over; no `except Exception` may catch it."""


def examine(seed: int, count: int, kind: str = "") -> Counter[str]:
    """Damage so many copies; how many came to each of ENDINGS, with a line for each bad one.

    `kind` is a name in BLOCK_DAMAGES; by default all kinds of damage occur.
    """
    endings: Counter[str] = Counter(dict.fromkeys(ENDINGS, 0))
    with tempfile.TemporaryDirectory(prefix="gradest-fuzz-") as name, _without_figures():
        whole = _finished(Path(name))
        _finished(Path(name) / "other", seed=1)
        expected = _rows(whole)
        for number in range(count):
            rng = random.Random(f"{seed} {number}")
            copy = whole.parent / "copy"
            shutil.copytree(whole, copy)
            damage = BLOCK_DAMAGES[kind] if kind else rng.choice(_DAMAGES)
            what = f"{damage.__name__.strip('_')} {damage(rng, copy)}"
            resumed = rng.random() < _RESUMED
            intact = _intact(whole, copy)
            ending = _ending(copy, resumed, expected)
            if (
                kind
                and ending.name not in BAD
                and (wrong := _lost_more(whole, copy, intact, resumed))
            ):
                ending = Ending("wrong", wrong)
            endings[ending.name] += 1
            if ending.name in BAD:
                command = "--suite" if resumed else "--report"
                where = f"journals {seed} {number}: {command}, {what}"
                print(f"{ending.name}: {where}: {ending.detail}", flush=True)
            shutil.rmtree(copy)
    return endings


def _finished(folder: Path, seed: int = 0) -> Path:
    """A run of twelve cells."""
    folder.mkdir(exist_ok=True)
    (folder / "small.yaml").write_text(f"{SUITE}seeds: [{seed}]\n", encoding="utf-8")
    status, out, err = _call(_suite(folder / "run"))
    if status != 0:
        raise RuntimeError(f"the undamaged run ended with {status}: {out}{err}")
    return folder / "run"


def _suite(folder: Path) -> list[str]:
    file = folder.parent / "small.yaml"
    return ["--suite", str(file), "--out", str(folder), "--jobs", "1", "--quiet"]


def _call(arguments: list[str]) -> tuple[int | None, str, str]:
    """Exit status and what was written; no status, but the traceback, of one that raised."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), _limited():
        try:
            status: int | None = main(arguments)
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        except Exception:  # which is what is looked for
            status = None
            err.write(traceback.format_exc())
    return status, out.getvalue(), err.getvalue()


@contextmanager
def _limited() -> Iterator[None]:
    def over(*_: object) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, _SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _ending(folder: Path, resumed: bool, expected: pd.DataFrame) -> Ending:
    before = _content(folder)
    try:
        status, _, err = _call(_suite(folder) if resumed else ["--report", str(folder)])
    except _TooLong:
        return Ending("hang", f"more than {_SECONDS} s")
    if status is None or "Traceback" in err:
        return Ending("traceback", err.strip().splitlines()[-1])
    told = [line for line in err.splitlines() if line.startswith(("error: ", "warning: "))]
    if status == 2 and _content(folder) != before:
        return Ending("wrong", f"refused, and yet files changed: {told}")
    if status and not err:
        return Ending("wrong", f"exit status {status} without a word")
    found = _rows(folder)
    if found is None:
        return Ending("named" if told else "wrong", f"tables that cannot be read, {told}")
    if status == 0 and not told:
        return Ending("same", "") if found.equals(expected) else Ending("wrong", "in silence")
    if odd := _differing(found, expected):
        return Ending("wrong", f"{odd}, {told}")
    return Ending("named", "")


def _intact(whole: Path, copy: Path) -> set[str]:
    """The keys of the cells of a run all of whose blocks are in the copy as they were."""
    data, damaged = (
        (folder / BLOCKS).read_bytes() if (folder / BLOCKS).is_file() else b""
        for folder in (whole, copy)
    )
    records = map(json.loads, _journal(whole).read_text().splitlines())
    return {
        record["key"]
        for record in records
        if record["kind"] == "cell"
        and all(
            data[each["start"] : each["start"] + each["length"]]
            == damaged[each["start"] : each["start"] + each["length"]]
            for each in record.get("blocks", ())
        )
    }


def _lost_more(whole: Path, copy: Path, intact: set[str], resumed: bool) -> str:
    """What is wrong with the cells that a copy has after the damage of some blocks, or nothing.

    A run measures the cells of these again, and no others; how long a cell took tells which.
    """
    before, after = (finished(_journal(folder)) for folder in (whole, copy))
    kept = {k for k in before if k in after and after[k]["elapsed"] == before[k]["elapsed"]}
    if resumed and kept != intact:
        return f"{len(intact)} cells were intact, and {len(kept)} were not measured again"
    run = read_run(copy)
    if not resumed and len(run.get("damage", ())) != len(before) - len(intact):
        return (
            f"{len(before) - len(intact)} cells were damaged, but run.json says {run.get('damage')}"
        )
    if resumed and "damage" in run:
        return f"run.json says {run['damage']} after every cell was measured again"
    return ""


def _content(folder: Path) -> dict[str, bytes]:
    """Of every file that can be read, but for locks."""
    found = {}
    for path in folder.rglob("*"):
        if path.suffix != ".lock" and path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def _rows(folder: Path) -> pd.DataFrame | None:
    try:
        frame = pd.read_parquet(folder / "measurements.parquet")
    except (OSError, ValueError):  # damaged, and not written anew
        return None
    return frame.astype(object).where(frame.notna(), None)


def _differing(found: pd.DataFrame, expected: pd.DataFrame) -> str:
    """What a row with numbers says that it did not say before, or nothing."""
    known = {tuple(row[c] for c in _IDENTITY): row for row in expected.to_dict("records")}
    for row in found[found["status"].eq("ok")].to_dict("records"):
        was = known.get(tuple(row[c] for c in _IDENTITY))
        if was is None:
            return f"a row that was not there: {[row[c] for c in _IDENTITY]}"
        if changed := [c for c in row if row[c] != was[c]]:
            return f"{row['estimator']} on {row['task']} has another {', '.join(changed)}"
    return ""


def _journal(folder: Path) -> Path:
    return folder / "journal.jsonl"


def _some_file(rng: random.Random, folder: Path) -> Path:
    """Mostly the journal, which the rest is derived from."""
    if rng.random() < 0.5:
        return _journal(folder)
    return rng.choice(sorted(path for path in folder.rglob("*") if path.is_file()))


def _flip(rng: random.Random, folder: Path) -> str:
    path = _some_file(rng, folder)
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 1, 2, 20))):
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    return path.name


def _flip_journal(rng: random.Random, folder: Path) -> str:
    data = bytearray(_journal(folder).read_bytes())
    at = rng.randrange(len(data))
    data[at] ^= 1 << rng.randrange(8)
    _journal(folder).write_bytes(data)
    return f"at {at}"


def _truncate(rng: random.Random, folder: Path) -> str:
    path = _some_file(rng, folder)
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data) + 1)])
    return path.name


def _blank(rng: random.Random, folder: Path) -> str:
    """A block of zeros, as a file system leaves it after a crash."""
    path = _some_file(rng, folder)
    data = bytearray(path.read_bytes())
    at = rng.randrange(len(data) + 1)
    end = min(len(data), at + rng.choice((16, 512, 4096)))
    data[at:end] = bytes(end - at)
    path.write_bytes(data)
    return path.name


def _lines(rng: random.Random, folder: Path) -> str:
    lines = _journal(folder).read_bytes().splitlines(keepends=True)
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    how = rng.choice(("replace", "insert", "delete", "double", "swap", "glue", "split"))
    if how == "replace":
        lines[at] = rng.choice(_ODD_LINES) + b"\n"
    elif how == "insert":
        lines.insert(at, rng.choice(_ODD_LINES) + b"\n")
    elif how == "delete":
        del lines[at]
    elif how == "double":
        lines.insert(other, lines[at])
    elif how == "swap":
        lines[at], lines[other] = lines[other], lines[at]
    elif how == "glue":
        lines[at] = lines[at].rstrip(b"\n")
    else:
        middle = rng.randrange(len(lines[at]))
        lines[at] = lines[at][:middle] + b"\n" + lines[at][middle:]
    _journal(folder).write_bytes(b"".join(lines))
    return f"{how} {at + 1}"


def _odd_value(rng: random.Random, folder: Path) -> str:
    """Somewhere in a record, whose checksum is left as it was."""
    lines = _journal(folder).read_text().splitlines()
    at = rng.randrange(len(lines))
    record = json.loads(lines[at])
    where = _put(rng, record, rng.choice(_ODD))
    lines[at] = json.dumps(record)
    _journal(folder).write_text("".join(f"{line}\n" for line in lines))
    return where


def _lacking_key(rng: random.Random, folder: Path) -> str:
    """A record without one of its keys, as another version may write it, with a right checksum."""
    lines = _journal(folder).read_text().splitlines()
    at = rng.randrange(len(lines))
    record = json.loads(lines[at])
    del record["crc32"]
    places = [data for data, key in _places(record) if isinstance(data, dict)]
    data = rng.choice(places)
    key = rng.choice(sorted(data))
    del data[key]
    body = json.dumps(record)[:-1]
    lines[at] = f'{body}, "crc32": "{zlib.crc32(body.encode()):08x}"}}'
    _journal(folder).write_text("".join(f"{line}\n" for line in lines))
    return f"{at + 1} without {key!r}"


def _run_json(rng: random.Random, folder: Path) -> str:
    run = json.loads((folder / "run.json").read_text())
    kept = rng.random() < 0.5
    if not kept:
        del run["checksum"]
    key = rng.choice(("cells", "cells", "parameters", "suite", "controls", "nested", ""))
    if key and rng.random() < 0.5:
        run[key] = rng.choice(_ODD)
        where = key
    else:
        where = _put(rng, run.get(key) or run, rng.choice(_ODD))
    (folder / "run.json").write_text(json.dumps(run))
    return f"{where}, {'with' if kept else 'without'} its checksum"


def _deep(rng: random.Random, folder: Path) -> str:
    name = rng.choice(("run.json", "journal.jsonl"))
    depth = rng.choice((500, 5_000, 200_000))
    text = '{"a": ' * depth + "1" + "}" * depth + "\n"
    if name == "run.json":
        (folder / name).write_text(text)
    else:
        with (folder / name).open("a") as file:
            file.write(text)
    return f"{name} {depth}"


def _encoding(rng: random.Random, folder: Path) -> str:
    path = rng.choice((_journal(folder), folder / "run.json"))
    text = path.read_text(encoding="utf-8")
    how = rng.choice(("utf-16", "utf-8-sig", "utf-32", "crlf", "cr", "cp037"))
    if how in ("crlf", "cr"):
        path.write_bytes(text.replace("\n", "\r\n" if how == "crlf" else "\r").encode())
    else:
        path.write_bytes(text.encode(how, "replace"))
    return f"{path.name} {how}"


def _gone(rng: random.Random, folder: Path) -> str:
    paths = [*folder.iterdir()]
    path = rng.choice([_journal(folder), folder / "run.json", *sorted(paths)])
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    how = rng.choice(("missing", "folder", "empty", "link", "loop"))
    if how == "folder":
        path.mkdir()
        (path / "inside").write_text("x")
    elif how == "empty":
        path.touch()
    elif how == "link":
        path.symlink_to(folder / "nowhere")
    elif how == "loop":
        path.symlink_to(path.name)
    return f"{path.name} {how}"


def _no_permission(rng: random.Random, folder: Path) -> str:
    path = _some_file(rng, folder)
    path.chmod(0)
    return path.name


def _left_behind(rng: random.Random, folder: Path) -> str:
    """What killed writers leave."""
    name = rng.choice((".staged", ".complete", ".run-abcdefgh.json", "figures/.x-12345678.png"))
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    if path.suffix in (".json", ".png"):
        path.write_bytes(rng.randbytes(100))
        return name
    path.mkdir()
    (path / "measurements.parquet").write_bytes(rng.randbytes(100))
    moves = '{"moves": {"new": ["../x"], "gone": ["journal.jsonl"]}}'
    manifest = rng.choice(("", "5", "[]", moves))
    (path / ".manifest").write_text(manifest)
    return f"{name} {manifest}"


def _long_line(rng: random.Random, folder: Path) -> str:
    with _journal(folder).open("ab") as file:
        file.write(rng.choice((b"\0", b"x", b'"')) * 50_000_000 + rng.choice((b"", b"\n")))
    return ""


def _changed_block(rng: random.Random, folder: Path) -> str:
    data = bytearray((folder / BLOCKS).read_bytes())
    at = rng.randrange(len(data))
    data[at] ^= rng.randrange(1, 256)
    (folder / BLOCKS).write_bytes(data)
    return f"at {at}"


def _cut_blocks(rng: random.Random, folder: Path) -> str:
    data = (folder / BLOCKS).read_bytes()
    end = rng.randrange(len(data))
    (folder / BLOCKS).write_bytes(data[:end])
    return f"at {end}"


def _missing_blocks(rng: random.Random, folder: Path) -> str:
    (folder / BLOCKS).unlink()
    how = rng.choice(("missing", "folder", "empty", "link"))
    if how == "folder":
        (folder / BLOCKS).mkdir()
    elif how == "empty":
        (folder / BLOCKS).touch()
    elif how == "link":
        (folder / BLOCKS).symlink_to(folder / "nowhere" / "at all")
    return how


def _swapped_blocks(rng: random.Random, folder: Path) -> str:
    """The file of a run with another seed, all of it or from some byte on."""
    own, other = (
        (each / BLOCKS).read_bytes() for each in (folder, folder.parent / "other" / "run")
    )
    start = rng.choice((0, rng.randrange(len(own))))
    (folder / BLOCKS).write_bytes(own[:start] + other[start:])
    return f"from {start}"


def _put(rng: random.Random, data: Any, value: Any) -> str:
    """Replace a value somewhere inside; says where."""
    places = list(_places(data))
    if not places:
        return "nothing"
    inside, key = rng.choice(places)
    inside[key] = value
    return f"{key!r} = {str(value)[:20]!r}"


def _places(data: Any) -> Iterator[tuple[Any, Any]]:
    """Every container inside, with each of its keys."""
    keys = data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()
    for key in keys:
        yield data, key
        yield from _places(data[key])


_Damage = Callable[[random.Random, Path], str]
BLOCK_DAMAGES: dict[str, _Damage] = {
    "changed": _changed_block,
    "cut": _cut_blocks,
    "missing": _missing_blocks,
    "swapped": _swapped_blocks,
}
_DAMAGES: tuple[_Damage, ...] = (
    *(_flip_journal, _flip_journal, _flip_journal, _flip, _truncate, _blank, _lines, _lines),
    *(_odd_value, _lacking_key, _run_json, _run_json, _deep, _encoding, _gone, _gone),
    *(_no_permission, _left_behind, _long_line),
    *BLOCK_DAMAGES.values(),
)
