"""A safe YAML reader for suite files: plain data, the line of each entry, and limits.

YAML has features that a suite does not need and that are a hazard: objects of any type, aliases
that expand to gigabytes, nesting that exhausts the stack.  This reader accepts mappings with text
as keys, lists, text, numbers, booleans and null.  It processes the events of the parser with a
stack of its own instead of recursion, and stops at the first entry that exceeds a limit.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gradest.errors import SuiteError
from gradest.support import (
    DEEPEST,
    INTEGERS,
    LONGEST_NUMBER,
    MOST_BYTES,
    MOST_ENTRIES,
    in_a_line,
    shortened,
)

Place = tuple[str | int, ...]  # the keys and indices of an entry in the file


# Line breaks of Windows, old Macs and other systems.  YAML also breaks lines at characters where no
# editor does; _FORBIDDEN excludes these, or the line numbers in messages would be wrong.
_BREAK = re.compile("\r\n|\r|\n")
_FORBIDDEN = re.compile(
    "[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)

_SWITCHES = {"on", "off", "yes", "no", "y", "n"}  # truth values in YAML 1.1, words in 1.2

_PREFIX = "tag:yaml.org,2002:"
_PLAIN = {"str", "int", "float", "bool", "null", "seq", "map"}
_Parser = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same events, twenty times as fast


class _Loader(_Parser):
    """The safe loader, except that it reads 1e-3 as a number."""


_Loader.add_implicit_resolver(
    f"{_PREFIX}float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


@dataclass
class _Node:
    """An entry of the file.  Aliases share it, so that repetitions are stored once."""

    value: Any  # a list of nodes, a dict of (line of the key, node), or the scalar itself
    line: int
    entries: int = 1  # in the node, including itself and repetitions by aliases
    depth: int = 1


@dataclass
class _Open:
    """A list or mapping that the parser has not closed yet."""

    node: _Node
    anchor: str | None
    key: tuple[str, int] | None = None  # in a mapping: the key of the next value and its line


@dataclass
class Document:
    """The data of a file and the line of each entry."""

    path: Path
    data: Any = None
    lines: dict[Place, int] = field(default_factory=dict)


def read_document(path: Path) -> Document:
    """The data of the file with the line of each entry.

    Raises SuiteError with file and line for invalid YAML and for a file that exceeds a limit.
    """
    text = _text(path)
    root = _composed(path, text)
    if root is None:
        raise SuiteError(
            f"{path}:1: expected a mapping with the keys tasks and estimators, got an empty file"
        )
    document = Document(path)
    document.data = _plain_data(root, (), document.lines, root.line)
    return document


def _text(path: Path) -> str:
    """The content of the file.  Raises SuiteError for a file that is too large or not text."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise SuiteError(f"{path}:1: cannot be read: {error.strerror}") from None
    if len(content) > MOST_BYTES:
        raise SuiteError(f"{path}:1: the file is too large; expected at most {MOST_BYTES:,} bytes")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise SuiteError(f"{path}:1: expected UTF-8, got UTF-16; save the file as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = _line_at(content[: error.start].decode("utf-8-sig"), error.start)
        raise SuiteError(
            f"{path}:{line}: expected UTF-8, got the invalid byte {content[error.start]:#04x}"
        ) from None
    if wrong := _FORBIDDEN.search(text):
        line = _line_at(text, wrong.start())
        raise SuiteError(f"{path}:{line}: the character U+{ord(wrong[0]):04X} is not allowed")
    return text


def _line_at(text: str, position: int) -> int:
    return len(_BREAK.findall(text, 0, position)) + 1


def _composed(path: Path, text: str) -> _Node | None:
    """The root of the only document; None if it is empty.  Raises SuiteError."""
    composer = _Composer(path)
    try:
        loader = _Loader(text)
        for event in _events(loader):
            composer.take(event, loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = error.problem or error.context
        # At the end of the file a mark may be beyond the last line.
        line = min(mark.line + 1, _line_at(text, len(text))) if mark else 1
        raise SuiteError(f"{path}:{line}: malformed YAML: {reason}") from None
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
        self._anchors: dict[str, _Node | None] = {}  # None: not closed yet
        self._documents = 0

    def take(self, event: yaml.Event, loader: Any) -> None:
        """Process the next event.  Raises SuiteError."""
        line = event.start_mark.line + 1
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise self._error(line, "expected a single YAML document, a second one begins here")
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
        if self._expects_key():
            kind = "mapping" if is_map else "list"
            raise self._error(line, f"expected text as a key, got a {kind}")
        if len(self._open) >= DEEPEST:
            raise self._error(line, f"nested too deeply; expected at most {DEEPEST} levels")
        if event.anchor:
            self._anchors[event.anchor] = None
        self._open.append(_Open(_Node({} if is_map else [], line), event.anchor))

    def _end(self) -> None:
        done = self._open.pop()
        if done.anchor:
            self._anchors[done.anchor] = done.node
        self._add(done.node, done.node.line)

    def _add(self, node: _Node, line: int) -> None:
        """Add a node to the innermost open list or mapping."""
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
            raise self._error(line, f"nested too deeply; expected at most {DEEPEST} levels")
        if sum(each.node.entries for each in self._open) > MOST_ENTRIES:
            raise self._error(line, f"too many entries; expected at most {MOST_ENTRIES:,}")

    def _key(self, node: _Node, mapping: dict[str, Any], line: int) -> str:
        key = node.value
        if not isinstance(key, str):
            kind = {dict: "a mapping", list: "a list"}.get(type(key)) or _kind_of_key(key)
            raise self._error(line, f"expected text as a key, got {kind}")
        if key in mapping:
            first = mapping[key][0]
            raise self._error(
                line, f"the key {shortened(key)} appears twice, first in line {first}"
            )
        return key

    def _aliased(self, anchor: str, line: int) -> _Node:
        if anchor not in self._anchors:
            raise self._error(line, f"malformed YAML: found undefined alias {shortened(anchor)}")
        node = self._anchors[anchor]
        if node is None:
            raise self._error(line, f"the anchor {shortened(anchor)} contains itself")
        return node

    def _examine_tag(self, tag: str | None, kind: str, line: int) -> None:
        """Raises SuiteError for a tag that does not belong to the kind of the node."""
        if tag not in (None, "!", _PREFIX + kind):
            raise self._error(line, f"the tag {_short_tag(tag)} is not supported here")

    def _expects_key(self) -> bool:
        """Whether the next node is the key of a mapping."""
        inner = self._open[-1] if self._open else None
        return inner is not None and isinstance(inner.node.value, dict) and inner.key is None

    def _scalar(self, event: yaml.ScalarEvent, loader: Any, line: int) -> Any:
        text, tag = event.value, event.tag
        if tag in (None, "!"):
            tag = loader.resolve(yaml.ScalarNode, text, event.implicit)
            if tag == f"{_PREFIX}merge":
                raise self._error(line, "merge keys (<<) are not supported; write the keys out")
        kind = tag.removeprefix(_PREFIX)
        explicit = event.tag not in (None, "!")
        if explicit and (kind not in _PLAIN or kind in ("seq", "map")):
            raise self._error(line, f"the tag {_short_tag(tag)} is not supported here")
        if kind not in ("int", "float", "bool", "null"):  # dates are text like any other word
            return text
        if kind == "bool" and not explicit and self._expects_key() and text.lower() in _SWITCHES:
            return text
        if kind in ("int", "float") and len(text) > LONGEST_NUMBER:
            raise self._too_large(text, line)
        try:
            value = _CONSTRUCT[kind](loader, yaml.ScalarNode(tag, text))
        except (ValueError, KeyError, IndexError, OverflowError):
            message = f"malformed YAML: expected {_KINDS[kind]}, got {shortened(text)}"
            raise self._error(line, message) from None
        if isinstance(value, int) and value not in INTEGERS:
            raise self._too_large(text, line)
        return value

    def _too_large(self, text: str, line: int) -> SuiteError:
        return self._error(line, f"the number {shortened(text)} does not fit into 64 bits")


_KINDS = {"int": "an integer", "float": "a number", "bool": "a boolean", "null": "null"}
_CONSTRUCT = {
    "int": _Loader.construct_yaml_int,
    "float": _Loader.construct_yaml_float,
    "bool": _Loader.construct_yaml_bool,
    "null": lambda loader, node: None,
}


def _plain_data(node: _Node, place: Place, lines: dict[Place, int], line: int) -> Any:
    """The plain data of a node; stores the line of each entry in `lines`.

    Recursion is safe since the depth and the number of entries, including aliases, are limited.
    """
    lines[place] = line
    if isinstance(node.value, list):
        return [
            _plain_data(item, (*place, number), lines, at)
            for number, (at, item) in enumerate(node.value)
        ]
    if isinstance(node.value, dict):
        return {
            key: _plain_data(item, (*place, key), lines, at)
            for key, (at, item) in node.value.items()
        }
    return node.value


def _kind_of_key(scalar: Any) -> str:
    words = {None: "null", True: "a boolean", False: "a boolean"}
    word = words.get(scalar) if scalar is None or isinstance(scalar, bool) else None
    return f"{word or f'the number {scalar!r}'}; quote it if it is a name"


def _short_tag(tag: str) -> str:
    return shortened(tag.replace(_PREFIX, "!!"))
