"""Large tensors of a journal's records, compressed in a binary file beside the journal.

A measurement of a million coordinates has some thirty million numbers; as base64 in its line, every
reader of the journal would have to hold them.  A tensor of more than `LARGE` numbers is therefore a
block of journal.bin, compressed with zstd.  Its float64 numbers are first grouped by coordinate,
whose batches resemble each other, and their bytes by place: signs, exponents and leading digits
repeat, while the rest of the mantissas is noise to any compressor.  That leaves 6.4 to 6.9 of the 8
bytes of a moment.  The line of the record has the places of its blocks, with their lengths and
CRC-32s, and each is read when its numbers are asked for.

The file is only appended to.  A block is written before the line that names it, so that a kill
between the two leaves bytes that no line names, and nothing else.
"""

import base64
import binascii
import math
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from gradest.support import in_a_line

BLOCKS = "journal.bin"
LARGE = 4096  # numbers; a tensor with more of them is a block

_LEVEL = 1  # of zstd; higher ones take longer and gain a per mille on noise
_PIECE = 1 << 20  # bytes that are read at once to verify a block

Keys = Sequence[str]  # the keys that lead to a tensor in its record


class DamagedBlock(ValueError):
    """A block that is not there, or not as it was written."""


class Place(NamedTuple):
    """Where a block is in its file, and its CRC-32."""

    start: int
    length: int
    crc: int


class Block(NamedTuple):
    """A tensor's numbers as they are in the file, and the keys that lead to it in the record."""

    keys: Keys
    data: bytes


class StoredTensor(dict[str, Any]):
    """A tensor in a record as `gradest.statistics.encode` gives it, but with its numbers on disk.

    It equals the plain dict, and becomes it as JSON, as a copy and when it is pickled.  The numbers
    are read whenever they are asked for and not kept, which raises DamagedBlock where they are not
    as they were written.
    """

    def __init__(self, shape: Sequence[int], place: Place, path: Path) -> None:
        super().__init__(shape=shape, float64=None)
        self._place, self._path = place, path

    @property
    def compressed(self) -> bytes:
        """The block, as it is in the file."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._place.start)
                data = file.read(self._place.length)
        except OSError as error:
            raise DamagedBlock(f"{self._path.name}: {error.strerror}") from None
        if reason := _difference(len(data), zlib.crc32(data), self._place):
            raise DamagedBlock(f"{self._path.name}: {reason}")
        return data

    def __getitem__(self, key: str) -> Any:
        if key != "float64":
            return super().__getitem__(key)
        raw = _decompress(self.compressed, self["shape"])
        return base64.b64encode(raw).decode()

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if super().__contains__(key) else default

    def copy(self) -> dict[str, Any]:
        return {key: self[key] for key in self.keys()}

    def items(self) -> Any:
        return self.copy().items()

    def values(self) -> Any:
        return self.copy().values()

    def __iter__(self) -> Iterator[str]:  # without it, dict(x) would copy what is underneath
        return iter(self.keys())

    def __eq__(self, other: object) -> bool:
        return self.copy() == other

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __or__(self, other: Any) -> dict[str, Any]:
        return self.copy() | other

    def __ror__(self, other: Any) -> dict[str, Any]:
        return other | self.copy()

    def __repr__(self) -> str:
        return f"<StoredTensor {list(self['shape'])} in {self._path}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (self.copy(),)


def extract(record: Mapping[str, Any]) -> tuple[dict[str, Any], list[Block]]:
    """The record without the numbers of its large tensors, and these."""
    blocks: list[Block] = []
    return _extract(record, (), blocks), blocks


def _extract(data: Mapping[str, Any], keys: Keys, blocks: list[Block]) -> dict[str, Any]:
    rest: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            own = (*keys, key)
            block = _block(value)
            if block is not None:
                blocks.append(Block(own, block))
                value = {"shape": value["shape"]}
            else:
                value = _extract(value, own, blocks)
        rest[key] = value
    return rest


def _block(data: Mapping[str, Any]) -> bytes | None:
    """The block of a large tensor; None of anything else, which stays in its line."""
    if isinstance(data, StoredTensor):
        return data.compressed
    if not _has_keys(data, {"shape", "float64"}) or not isinstance(data["float64"], str):
        return None
    if not _is_shape(data["shape"]) or math.prod(data["shape"]) <= LARGE:
        return None
    try:
        raw = base64.b64decode(data["float64"], validate=True)
    except binascii.Error:  # no tensor, as whoever decodes it will say
        return None
    return _compress(raw, data["shape"]) if len(raw) == 8 * math.prod(data["shape"]) else None


def _has_keys(value: Any, keys: set[str]) -> bool:
    return isinstance(value, dict) and value.keys() == keys


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(size, int) and size >= 0 for size in value)


def write_blocks(file: BinaryIO, blocks: Iterable[Block]) -> list[dict[str, Any]]:
    """Write the blocks at the end of the file; what the line of their record says of them."""
    places = []
    for keys, data in blocks:
        start = file.tell()
        file.write(data)
        # A list of keys, since a group of parameters may have any name.
        place = Place(start, len(data), zlib.crc32(data))
        places.append({"keys": list(keys), **place._asdict()})
    return places


class BlockFile:
    """The blocks of a journal, for the reader of its lines."""

    def __init__(self, path: Path, verify: bool) -> None:
        """With `verify` every block is read; otherwise its place is compared with the file."""
        self._path = path
        self._verify = verify
        self._file: BinaryIO | None = None  # most journals have no blocks, and no such file

    def __enter__(self) -> "BlockFile":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()

    def attach(self, record: dict[str, Any]) -> str:
        """Replace what a record says of its blocks by tensors that read them.

        Returns what is wrong with the blocks, or an empty string.
        """
        blocks = record.pop("blocks", ())
        places = [Place(each["start"], each["length"], each["crc"]) for each in blocks]
        for each, place in zip(blocks, places, strict=True):
            *parents, last = each["keys"]
            inside: Any = record
            for key in parents:
                inside = inside.get(key) if isinstance(inside, dict) else None
            tensor = inside.get(last) if isinstance(inside, dict) else None
            shape = tensor["shape"] if _has_keys(tensor, {"shape"}) else None
            if not _is_shape(shape):
                return "it has no tensor for one of its blocks"
            inside[last] = StoredTensor(shape, place, self._path)
        return self._problem(places) if places else ""

    def _problem(self, places: Iterable[Place]) -> str:
        try:
            self._file = self._file or self._path.open("rb")
            size = os.fstat(self._file.fileno()).st_size
            for place in places:
                length = min(max(0, size - place.start), place.length)
                crc = self._checksum(place) if self._verify else place.crc
                if reason := _difference(length, crc, place):
                    return f"{self._path.name}: {reason}"
        except OSError as error:
            return f"{self._path.name}: {error.strerror}"
        return ""

    def _checksum(self, place: Place) -> int:
        assert self._file
        self._file.seek(place.start)
        crc, left = 0, place.length
        while left and (piece := self._file.read(min(left, _PIECE))):
            crc, left = zlib.crc32(piece, crc), left - len(piece)
        return crc


def _difference(length: int, crc: int, place: Place) -> str:
    if length < place.length:
        return f"ends in the block at byte {place.start:,}"
    return "" if crc == place.crc else f"checksum of the block at byte {place.start:,} differs"


def _compress(raw: bytes, shape: Sequence[int]) -> bytes:
    planes = np.frombuffer(raw, np.uint8).reshape(_rows(shape), -1, 8).transpose(2, 1, 0)
    return _codec().compress(np.ascontiguousarray(planes), asbytes=True)


def _decompress(data: bytes, shape: Sequence[int]) -> bytes:
    try:
        size = 8 * math.prod(shape)
        planes = _codec().decompress(data, decompressed_size=size, asbytes=True)
    except (OSError, ValueError) as error:  # right by its checksum, and yet no block of that shape
        raise DamagedBlock(f"a block cannot be decompressed: {in_a_line(str(error))}") from None
    return np.frombuffer(planes, np.uint8).reshape(8, -1, _rows(shape)).transpose(2, 1, 0).tobytes()


def _rows(shape: Sequence[int]) -> int:
    """The batches of moments [J, D]; other tensors are one row."""
    return shape[0] if len(shape) == 2 else 1


def _codec() -> Any:
    import pyarrow as pa  # a tenth of a second, which a journal without blocks need not spend

    return pa.Codec("zstd", compression_level=_LEVEL)
