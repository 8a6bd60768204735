"""YAML as a suite file may hold it: plain data, the line of each entry, and limits.

YAML can say more than a suite needs, and what it can say beyond that is a hazard: objects of any
type, aliases that expand to gigabytes, nesting that exhausts the stack.  This reader takes mappings
with text as keys, lists, text, numbers, truth values and null.  It works on the parser's events
with a stack of its own, so that depth costs no recursion, and it stops at the first entry that is
too much.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gradest.errors import SuiteError
from gradest.text import in_a_line, shortened

Place = tuple[str | int, ...]  # the keys and indices that lead to something in the file

MOST_BYTES = 2**20
MOST_ENTRIES = 50_000  # with those that aliases repeat
DEEPEST = 32
INTEGERS = range(-(2**63), 2**63)  # what tables and generators of random numbers can hold
_LONGEST_NUMBER = 400  # characters; YAML's numbers to the base 60 take quadratic time

# Written by Windows, old Macs and everybody else.  YAML also breaks lines at other characters,
# where no editor does: _FORBIDDEN keeps these out, or positions would be wrong.
_BREAK = re.compile("\r\n|\r|\n")
_FORBIDDEN = re.compile(
    "[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)

_PREFIX = "tag:yaml.org,2002:"
_PLAIN = {"str", "int", "float", "bool", "null", "seq", "map"}
_Parser = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same events, twenty times as fast


class _Loader(_Parser):
    """The safe loader, to which 1e-3 is the number that it is to everybody else."""


_Loader.add_implicit_resolver(
    f"{_PREFIX}float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


@dataclass
class _Node:
    """One entry as written.  Aliases share it, so that what they repeat is stored once."""

    value: Any  # a list of nodes, a dict of (line of the key, node), or the scalar itself
    line: int
    entries: int = 1  # that it stands for, with all that is in it
    depth: int = 1


@dataclass
class _Open:
    """A list or mapping whose end has not been reached."""

    node: _Node
    anchor: str | None
    key: tuple[str, int] | None = None  # of a mapping: the key whose value comes next


@dataclass
class Document:
    """What a file says, and where."""

    path: Path
    data: Any = None
    lines: dict[Place, int] = field(default_factory=dict)


def read_document(path: Path) -> Document:
    """The data of the file with the line of each entry.

    Raises SuiteError with file and line for what is no YAML or more than the limits allow.
    """
    text = _text(path)
    root = _composed(path, text)
    if root is None:
        raise SuiteError(
            f"{path}:1: the file is empty; a suite is a mapping of tasks and estimators"
        )
    document = Document(path)
    document.data = _filled(root, (), document.lines, root.line)
    return document


def _text(path: Path) -> str:
    """Raises SuiteError for a file that is too large or no text."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise SuiteError(f"{path}:1: cannot be read: {error.strerror}") from None
    if len(content) > MOST_BYTES:
        raise SuiteError(
            f"{path}:1: the file is too large; a suite has at most {MOST_BYTES:,} bytes"
        )
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise SuiteError(f"{path}:1: the file is UTF-16; a suite is UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = _line_at(content[: error.start].decode("utf-8-sig"), error.start)
        raise SuiteError(
            f"{path}:{line}: cannot be read: byte {content[error.start]:#04x} is no UTF-8"
        ) from None
    if wrong := _FORBIDDEN.search(text):
        line = _line_at(text, wrong.start())
        raise SuiteError(f"{path}:{line}: the character U+{ord(wrong[0]):04X} cannot be part of it")
    return text


def _line_at(text: str, position: int) -> int:
    return len(_BREAK.findall(text, 0, position)) + 1


def _composed(path: Path, text: str) -> _Node | None:
    """The root of the only document; None of an empty one.  Raises SuiteError."""
    composer = _Composer(path)
    try:
        loader = _Loader(text)
        for event in _events(loader):
            composer.take(event, loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        told = error.problem or error.context
        # At the end of the file a mark may lie beyond its last line.
        line = min(mark.line + 1, _line_at(text, len(text))) if mark else 1
        raise SuiteError(f"{path}:{line}: malformed YAML: {told}") from None
    except yaml.YAMLError as error:
        raise SuiteError(f"{path}:1: malformed YAML: {in_a_line(str(error))}") from None
    return composer.root


def _events(loader: Any) -> Iterator[yaml.Event]:
    try:
        while loader.check_event():
            yield loader.get_event()
    finally:
        loader.dispose()


class _Composer:
    """Builds nodes from events."""

    def __init__(self, path: Path) -> None:
        self.root: _Node | None = None
        self._path = path
        self._open: list[_Open] = []
        self._anchors: dict[str, _Node | None] = {}  # None: its end has not been reached
        self._documents = 0

    def take(self, event: yaml.Event, loader: Any) -> None:
        """Raises SuiteError."""
        line = event.start_mark.line + 1
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise self._error(line, "a suite is one document, and here a second one begins")
        elif isinstance(event, yaml.AliasEvent):
            self._add(self._aliased(event.anchor, line), line)
        elif isinstance(event, yaml.ScalarEvent):
            node = _Node(self._scalar(event, loader, line), line)
            if event.anchor:
                self._anchors[event.anchor] = node
            self._add(node, line)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._begin(event, line)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._end()

    def _error(self, line: int, message: str) -> SuiteError:
        return SuiteError(f"{self._path}:{line}: {message}")

    def _begin(self, event: yaml.CollectionStartEvent, line: int) -> None:
        is_map = isinstance(event, yaml.MappingStartEvent)
        self._examine_tag(event.tag, "map" if is_map else "seq", line)
        parent = self._open[-1] if self._open else None
        if parent and isinstance(parent.node.value, dict) and parent.key is None:
            kind = "mapping" if is_map else "list"
            raise self._error(line, f"a key is text, not a {kind}")
        if len(self._open) >= DEEPEST:
            raise self._error(line, f"nested too deep; at most {DEEPEST} levels are possible")
        if event.anchor:
            self._anchors[event.anchor] = None
        self._open.append(_Open(_Node({} if is_map else [], line), event.anchor))

    def _end(self) -> None:
        done = self._open.pop()
        if done.anchor:
            self._anchors[done.anchor] = done.node
        self._add(done.node, done.node.line)

    def _add(self, node: _Node, line: int) -> None:
        """Put a node into the innermost list or mapping that is open."""
        if not self._open:
            self.root = node
            return
        inner = self._open[-1]
        if isinstance(inner.node.value, list):
            inner.node.value.append((line, node))
        elif inner.key is None:
            inner.key = (self._key(node, inner.node.value, line), line)
            return
        else:
            name, at = inner.key
            inner.node.value[name] = (at, node)
            inner.key = None
        inner.node.entries += node.entries
        inner.node.depth = max(inner.node.depth, node.depth + 1)
        if len(self._open) + node.depth > DEEPEST:
            raise self._error(line, f"nested too deep; at most {DEEPEST} levels are possible")
        if sum(each.node.entries for each in self._open) > MOST_ENTRIES:
            raise self._error(line, f"too many entries; at most {MOST_ENTRIES:,} are possible")

    def _key(self, node: _Node, mapping: dict[str, Any], line: int) -> str:
        key = node.value
        if not isinstance(key, str):
            kind = {dict: "a mapping", list: "a list"}.get(type(key)) or _as_yaml(key)
            raise self._error(line, f"a key is text, not {kind}")
        if key in mapping:
            first = mapping[key][0]
            raise self._error(line, f"the key {shortened(key)} stands twice, first in line {first}")
        return key

    def _aliased(self, anchor: str, line: int) -> _Node:
        if anchor not in self._anchors:
            raise self._error(line, f"malformed YAML: found undefined alias {shortened(anchor)}")
        node = self._anchors[anchor]
        if node is None:
            raise self._error(line, f"the anchor {shortened(anchor)} is part of itself")
        return node

    def _examine_tag(self, tag: str | None, kind: str, line: int) -> None:
        """Raises SuiteError for a tag other than that kind's own."""
        if tag not in (None, "!", _PREFIX + kind):
            raise self._error(line, f"the tag {_shown_tag(tag)} is not supported here")

    def _scalar(self, event: yaml.ScalarEvent, loader: Any, line: int) -> Any:
        text, tag = event.value, event.tag
        if tag in (None, "!"):
            tag = loader.resolve(yaml.ScalarNode, text, event.implicit)
            if tag == f"{_PREFIX}merge":
                raise self._error(line, "merge keys (<<) are not supported; write the keys out")
        kind = tag.removeprefix(_PREFIX)
        explicit = event.tag not in (None, "!")
        if explicit and (kind not in _PLAIN or kind in ("seq", "map")):
            raise self._error(line, f"the tag {_shown_tag(tag)} is not supported here")
        if kind not in ("int", "float", "bool", "null"):  # dates are text, as other words are
            return text
        if kind in ("int", "float") and len(text) > _LONGEST_NUMBER:
            raise self._too_large(text, line)
        try:
            value = _CONSTRUCT[kind](loader, yaml.ScalarNode(tag, text))
        except (ValueError, KeyError, IndexError, OverflowError):
            told = f"malformed YAML: {shortened(text)} is no {kind}"
            raise self._error(line, told) from None
        if isinstance(value, int) and value not in INTEGERS:
            raise self._too_large(text, line)
        return value

    def _too_large(self, text: str, line: int) -> SuiteError:
        return self._error(line, f"the number {shortened(text)} does not fit into 64 bits")


_CONSTRUCT = {
    "int": _Loader.construct_yaml_int,
    "float": _Loader.construct_yaml_float,
    "bool": _Loader.construct_yaml_bool,
    "null": lambda loader, node: None,
}


def _filled(node: _Node, place: Place, lines: dict[Place, int], line: int) -> Any:
    """The plain data of a node; writes down the line of each entry.

    The depth is limited, so that recursion is safe; so is the number of entries, aliases included.
    """
    lines[place] = line
    if isinstance(node.value, list):
        return [
            _filled(item, (*place, number), lines, at)
            for number, (at, item) in enumerate(node.value)
        ]
    if isinstance(node.value, dict):
        return {
            key: _filled(item, (*place, key), lines, at) for key, (at, item) in node.value.items()
        }
    return node.value


def _as_yaml(scalar: Any) -> str:
    words = {None: "null", True: "a truth value", False: "a truth value"}
    said = words.get(scalar) if scalar is None or isinstance(scalar, bool) else None
    return f"{said or f'the number {scalar!r}'}; quote it if it is a name"


def _shown_tag(tag: str) -> str:
    return shortened(tag.replace(_PREFIX, "!!"))
