"""The file formats of the image sets, read strictly: what is not as published is an error."""

import gzip
import io
import re
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gradest.errors import DataError

from ._download import Content

Pixels = NDArray[np.uint8]

_IDX_IMAGES = 0x00000803  # unsigned bytes, three axes
_DRAWN, _SIDE = 105, 28  # Omniglot's pixels a side, published and reduced
_DRAWING = re.compile(r"[^/]+/(?P<character>[^/]+/character\d\d)/\d{4}_(?P<number>\d\d)\.png")


def read_amat(file: Content, columns: int) -> Pixels:
    """Rows of zeros and ones as text, a blank between, a newline behind: [B, columns].

    Raises DataError.
    """
    length = 2 * columns  # bytes of a row: a digit and what follows it
    if not file.data or len(file.data) % length:
        raise DataError(
            f"{file.path}: expected rows of {columns} digits, got {len(file.data)} bytes"
        )
    pairs = np.frombuffer(file.data, "<u2").reshape(-1, columns)  # [B, D]
    zero = np.full(columns, int.from_bytes(b"0 ", "little"), "<u2")
    zero[-1] = int.from_bytes(b"0\n", "little")
    pixels = pairs ^ zero  # '0' and '1' differ in the last bit alone
    if pixels.max() > 1:
        row, column = np.argwhere(pixels > 1)[0] + 1
        raise DataError(f"{file.path}: expected 0 or 1 in row {row}, column {column}")
    return pixels.astype(np.uint8)


def read_idx(file: Content, side: int) -> Pixels:
    """Grey images of side × side in a compressed IDX file: [B, side²].

    Raises DataError.
    """
    try:
        data = gzip.decompress(file.data)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file.path}: expected a gzip file: {error}") from None
    if len(data) < 16:
        raise DataError(f"{file.path}: expected an IDX file, got {len(data)} bytes")
    magic, count, height, width = struct.unpack(">4I", data[:16])
    if magic != _IDX_IMAGES:
        raise DataError(
            f"{file.path}: expected the magic number {_IDX_IMAGES:#010x}, got {magic:#010x}"
        )
    if (height, width) != (side, side):
        raise DataError(f"{file.path}: expected images of {side} × {side}, got {height} × {width}")
    if len(data) != 16 + count * side * side:
        raise DataError(f"{file.path}: expected {count} images, got {len(data)} bytes")
    return np.frombuffer(data, np.uint8, offset=16).reshape(count, side * side).copy()


def read_omniglot(files: Iterable[Content], numbers: Collection[int]) -> Pixels:
    """The drawings of these numbers (1 to 20 of every character), reduced to 28 × 28: [B, 784].

    A drawing that lies in several archives counts once.  Sorted by alphabet, character, number.
    255 is ink, 0 is paper.

    Raises DataError.
    """
    drawings: dict[tuple[str, int], Pixels] = {}
    for file in files:
        for key, png in _pngs(file).items():
            if key[1] in numbers and key not in drawings:
                drawings[key] = _reduced(_ink(png, f"{file.path}: drawing {key[1]} of {key[0]}"))
    if not drawings:
        raise DataError("expected drawings in the archives, got none")
    return np.stack([drawings[key] for key in sorted(drawings)])


def _pngs(file: Content) -> Mapping[tuple[str, int], bytes]:
    """(character, number) -> PNG file."""
    try:
        with zipfile.ZipFile(io.BytesIO(file.data)) as archive:
            found = {n: archive.read(n) for n in archive.namelist() if not n.endswith("/")}
    except (zipfile.BadZipFile, EOFError, zlib.error, NotImplementedError) as error:
        raise DataError(f"{file.path}: expected a zip archive: {error}") from None
    pngs = {}
    for name, png in found.items():
        if not (drawing := _DRAWING.fullmatch(name)):
            raise DataError(f"{file.path}: expected only drawings, got {name}")
        pngs[drawing["character"], int(drawing["number"])] = png
    return pngs


def _ink(png: bytes, what: str) -> NDArray[np.bool_]:
    """Where a black and white drawing is black: [105, 105]."""
    try:
        with Image.open(io.BytesIO(png)) as image:
            if image.mode != "1" or image.size != (_DRAWN, _DRAWN):
                raise DataError(
                    f"{what}: expected 105 × 105 in one bit, got {image.mode} {image.size}"
                )
            return ~np.asarray(image)
    except (OSError, SyntaxError) as error:  # Pillow's words for a damaged PNG
        raise DataError(f"{what}: expected a PNG file: {error}") from None


def _reduced(ink: NDArray[np.bool_]) -> Pixels:
    """The share of each pixel of 28 × 28 that is ink, 0 to 255: [784].

    A pixel is 3.75 published ones wide, or 15 quarters: in quarters the areas are whole numbers,
    at most 15² = 225, and rounding 255/225 of them meets no ties.
    """
    area = _OVERLAP @ ink @ _OVERLAP.T  # [28, 28]
    return np.rint(area * (255 / 225)).astype(np.uint8).ravel()


def _overlaps() -> NDArray[np.float64]:
    """Quarters of each published pixel that lie within each reduced one: [28, 105]."""
    quarters = np.arange(_DRAWN * 4)
    overlap = np.zeros((_SIDE, _DRAWN))
    np.add.at(overlap, (quarters // 15, quarters // 4), 1)
    return overlap


_OVERLAP = _overlaps()
