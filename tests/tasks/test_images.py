"""The image sets: formats, downloads, what is refused, and the published files themselves.

The published files are read where GRADEST_TEST_DATA names a folder of them.
"""

import errno
import gc
import gzip
import hashlib
import importlib
import io
import os
import struct
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from gradest.errors import DataError, UsageError

download = importlib.import_module("gradest.tasks._download")
formats = importlib.import_module("gradest.tasks._formats")
sets = importlib.import_module("gradest.tasks._images")

HOME = Path("somewhere/file")


def refusal(what: Callable[[], object]) -> str:
    """The message of the DataError, which is one line, that `what` raises."""
    with pytest.raises(DataError) as caught:
        what()
    message = str(caught.value)
    assert "\n" not in message and message == message.strip()
    return message


def content(data: bytes) -> download.Content:
    return download.Content(HOME, data)


def md5(data: bytes) -> str:
    return f"md5:{hashlib.md5(data).hexdigest()}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty data folder, of which nothing is remembered before or after."""
    monkeypatch.setenv("GRADEST_DATA", str(tmp_path / "data"))
    sets._images.cache_clear()
    yield tmp_path / "data"
    sets._images.cache_clear()


# formats


def amat(rows: np.ndarray) -> bytes:
    return "".join(" ".join(map(str, row)) + "\n" for row in rows).encode()


def test_amat_rows_are_read_as_numpy_reads_them():
    rows = np.random.default_rng(0).integers(0, 2, (7, 16))
    pixels = formats.read_amat(content(amat(rows)), 16)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, np.loadtxt(io.BytesIO(amat(rows)), dtype=np.uint8))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "expected rows of 4 digits, got 0 bytes"),
        (b"0 1 0 1\n0 1 0", "expected rows of 4 digits, got 13 bytes"),
        (b"0 1 0 1\n0 1 2 1\n", "expected 0 or 1 in row 2, column 3"),
        (b"0 1 0 1\n0 1 / 1\n", "expected 0 or 1 in row 2, column 3"),
        (b"0,1 0 1\n0 1 0 1\n", "expected 0 or 1 in row 1, column 1"),
        (b"0 1 0 1 0 1 0 1\n", "expected 0 or 1 in row 1, column 4"),
        (b"0 1\n0 1\n", "expected 0 or 1 in row 1, column 2"),
    ],
)
def test_what_is_not_rows_of_zeros_and_ones_is_refused(data, said):
    assert refusal(lambda: formats.read_amat(content(data), 4)) == f"{HOME}: {said}"


def idx(pixels: np.ndarray, magic: int = 0x803) -> bytes:
    return struct.pack(">4I", magic, *pixels.shape) + pixels.tobytes()


def test_idx_images_are_read_row_by_row():
    grey = np.random.default_rng(0).integers(0, 256, (3, 4, 4), dtype=np.uint8)
    pixels = formats.read_idx(content(gzip.compress(idx(grey))), 4)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, grey.reshape(3, 16))


def test_what_is_not_compressed_images_of_that_size_is_refused():
    grey = np.zeros((3, 4, 4), np.uint8)
    packed = gzip.compress(idx(grey))
    broken = packed[:12] + bytes([packed[12] ^ 0xFF]) + packed[13:]
    for data, said in (
        (idx(grey), "expected a gzip file"),
        (packed[:-9], "expected a gzip file"),
        (broken, "expected a gzip file"),
        (gzip.compress(b"short"), "expected an IDX file, got 5 bytes"),
        (
            gzip.compress(idx(grey, magic=0x801)),
            "expected the magic number 0x00000803, got 0x00000801",
        ),
        (gzip.compress(idx(np.zeros((3, 4, 5), np.uint8))), "expected images of 4 × 4, got 4 × 5"),
        (gzip.compress(idx(grey)[:-1]), "expected 3 images, got 63 bytes"),
    ):
        message = refusal(lambda data=data: formats.read_idx(content(data), 4))
        assert message.startswith(f"{HOME}: {said}")


def png(ink: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(~ink.astype(bool)).save(file, "png")
    return file.getvalue()


def archive(members: dict[str, bytes]) -> download.Content:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        packed.mkdir("small")
        for name, data in members.items():
            packed.writestr(f"small/{name}", data)
    return content(file.getvalue())


def test_a_reduced_pixel_is_the_share_of_its_area_that_is_ink():
    ink = np.random.default_rng(0).random((105, 105)) < 0.3
    # In quarters of a published pixel each reduced one is exactly 15 × 15.
    quarters = ink.repeat(4, 0).repeat(4, 1).reshape(28, 15, 28, 15)
    expected = np.rint(255 * quarters.mean((1, 3))).ravel()
    pixels = formats.read_omniglot([archive({"Greek/character01/0001_01.png": png(ink)})], {1})
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, expected[None])


def test_a_reduced_pixel_is_255_under_full_ink_and_shares_a_column_on_its_border():
    drawings = {"all": np.ones((105, 105)), "none": np.zeros((105, 105)), "one": np.eye(105) * 0}
    drawings["one"][:, 3] = 1  # 3 to 4, where the first pixel ends at 3.75 and the next at 7.5
    members = {
        f"Greek/character01/0001_{i:02}.png": png(ink) for i, ink in enumerate(drawings.values(), 1)
    }
    full, empty, column = formats.read_omniglot([archive(members)], {1, 2, 3})
    assert (full == 255).all() and (empty == 0).all()
    shares = np.array([0.75, 0.25] + [0.0] * 26) / 3.75
    np.testing.assert_array_equal(column.reshape(28, 28), np.tile(np.rint(255 * shares), (28, 1)))


def test_drawings_are_chosen_by_number_sorted_and_taken_once():
    def ink(columns: int) -> bytes:
        return png(np.arange(105) < np.full((105, 1), columns))

    first = archive(
        {
            "Latin/character02/0007_03.png": ink(30),
            "Latin/character02/0007_04.png": ink(99),
            "Greek/character01/0001_03.png": ink(15),
        }
    )
    second = archive(
        {"Korean/character01/0003_03.png": ink(60), "Greek/character01/0009_03.png": ink(15)}
    )
    pixels = formats.read_omniglot([first, second], {3})
    assert (pixels.reshape(3, 28, 28)[:, 0] == 255).sum(1).tolist() == [4, 16, 8]  # of 3.75 each


def test_what_is_not_an_archive_of_drawings_is_refused():
    blank = np.zeros((105, 105), bool)
    name = "Greek/character01/0001_03.png"
    packed = archive({name: png(blank)}).data
    grey = io.BytesIO()
    Image.fromarray(np.zeros((105, 105), np.uint8)).save(grey, "png")
    where = "drawing 3 of Greek/character01"
    at = packed.index(b"IDAT") + 20
    for file, said in (
        (content(b"no zip"), "expected a zip archive"),
        (content(packed[:-30]), "expected a zip archive"),
        (content(packed[:at] + b"?" + packed[at + 1 :]), "expected a zip archive"),
        (archive({"Greek/readme.txt": b""}), "expected only drawings, got small/Greek/readme.txt"),
        (archive({name: b"no PNG"}), f"{where}: expected a PNG file"),
        (archive({name: png(blank)[:60]}), f"{where}: expected a PNG file"),
        (
            archive({name: grey.getvalue()}),
            f"{where}: expected 105 × 105 in one bit, got L (105, 105)",
        ),
        (
            archive({name: png(blank[:28, :28])}),
            f"{where}: expected 105 × 105 in one bit, got 1 (28, 28)",
        ),
    ):
        message = refusal(lambda file=file: formats.read_omniglot([file], {3}))
        assert message.startswith(f"{HOME}: {said}")
    assert refusal(lambda: formats.read_omniglot([archive({name: png(blank)})], {4}))


# names, splits, embedded digits


def test_names_that_are_unknown_are_told_the_nearest():
    assert issubclass(DataError, UsageError)
    unknown = "unknown image set 'binarised_mnist'; did you mean 'binarized_mnist'?"
    assert refusal(lambda: sets.images("binarised_mnist", "train")) == unknown
    assert refusal(lambda: sets.prepare("binarised_mnist")) == unknown
    said = refusal(lambda: sets.images("digits", "validation"))
    assert said == "digits: unknown split 'validation'; did you mean 'valid'?"


def test_the_digits_are_those_of_scikit_learn_in_their_order(folder):
    parts = [sets.images("digits", split) for split in sets.SPLITS]
    assert [len(part.pixels) for part in parts] == [1300, 200, 297]
    assert all(part.levels == 1 and part.side == 8 for part in parts)
    assert all(part.pixels.dtype == torch.uint8 for part in parts)
    together = torch.cat([part.pixels for part in parts])
    np.testing.assert_array_equal(together, load_digits().data >= 8)
    sets.prepare("digits")
    assert not folder.exists()  # nothing to download


def test_a_split_is_read_once():
    assert sets.images("digits", "test") is sets.images("digits", "test")


@pytest.mark.parametrize("name", sets.IMAGE_SETS)
def test_every_set_has_three_splits_and_files_named_as_published(name):
    chosen = sets.IMAGE_SETS[name]
    assert tuple(chosen.splits) == sets.SPLITS and chosen.levels in (1, 255) and chosen.about
    for file in (file for split in chosen.splits.values() for file in split.files):
        algorithm, digest = file.checksum.split(":")
        assert len(digest) == 2 * hashlib.new(algorithm).digest_size
        assert file.name == f"{name}/{file.url.rsplit('/')[-1]}"
        assert file.url.startswith("https://")


# files that are there


def made(monkeypatch: pytest.MonkeyPatch, url: str, data: bytes, rows: int = 2) -> None:
    """The image set `made` of 2 × 2 pixels, one file, one split."""
    file = download.Published("made/made.amat", url, md5(data))
    split = sets.Split(rows, (file,), lambda files: formats.read_amat(files[0], 4))
    monkeypatch.setitem(sets.IMAGE_SETS, "made", sets.ImageSet("made", 1, 2, {"train": split}))


DATA = b"0 1 0 1\n1 1 0 0\n"
NOWHERE = "http://127.0.0.1:9/made.amat"


def put(folder: Path, data: bytes) -> Path:
    path = folder / "made" / "made.amat"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return path


def test_a_file_that_is_there_is_used_and_nothing_is_written(folder, monkeypatch):
    made(monkeypatch, NOWHERE, DATA)
    path = put(folder, DATA)
    monkeypatch.setitem(sys.modules, "pooch", None)
    found = sets.images("made", "train")
    assert found.pixels.tolist() == [[0, 1, 0, 1], [1, 1, 0, 0]]
    assert found.levels == 1 and found.side == 2
    sets.prepare("made")
    assert list(folder.rglob("*")) == [path.parent, path]


@pytest.mark.parametrize("data", [b"", DATA[:-1], DATA[:-2] + b"1\n"])
def test_a_file_with_another_checksum_is_refused_and_kept(folder, monkeypatch, data):
    made(monkeypatch, NOWHERE, DATA)
    path = put(folder, data)
    for use in (lambda: sets.images("made", "train"), lambda: sets.prepare("made")):
        assert refusal(use) == (
            f"{path} is truncated or altered: expected md5 {md5(DATA)[4:]}, got {md5(data)[4:]}; "
            f"delete it to download it again, or replace it by {NOWHERE}"
        )
    assert path.read_bytes() == data


def test_a_file_that_was_refused_is_read_once_it_is_replaced(folder, monkeypatch):
    made(monkeypatch, NOWHERE, DATA)
    path = put(folder, b"")
    refusal(lambda: sets.images("made", "train"))
    path.write_bytes(DATA)
    assert len(sets.images("made", "train").pixels) == 2


def test_another_number_of_images_than_published_is_refused(folder, monkeypatch):
    made(monkeypatch, NOWHERE, DATA, rows=3)
    put(folder, DATA)
    said = refusal(lambda: sets.images("made", "train"))
    assert said == "made, train: expected 3 × 4 pixels, got 2 × 4"


def test_a_file_that_cannot_be_read_is_refused(folder, monkeypatch):
    made(monkeypatch, NOWHERE, DATA)
    path = folder / "made" / "made.amat"
    path.mkdir(parents=True)
    assert refusal(lambda: sets.images("made", "train")).startswith(
        f"{path} cannot be read: Is a directory;"
    )


def test_the_folder_is_the_named_one_or_in_the_cache(monkeypatch):
    monkeypatch.setenv("GRADEST_CACHE", "cached")
    monkeypatch.delenv("GRADEST_DATA", raising=False)
    assert download.data_folder() == Path("cached/data")
    monkeypatch.setenv("GRADEST_DATA", "named")
    assert download.data_folder() == Path("named")


# downloads


class Server(ThreadingHTTPServer):
    """Serves `data` as /made.amat, and half of it as /cut.amat."""

    data = DATA
    delay = 0.0  # seconds before an answer
    asked: Counter

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Answer(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked[self.path] += 1
        time.sleep(self.server.delay)
        if self.path not in ("/made.amat", "/cut.amat"):
            self.send_error(404)
            return
        data = self.server.data
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if self.path == "/cut.amat" else data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    pytest.importorskip("pooch", reason="downloads need pooch")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server(("127.0.0.1", 0), Answer) as running:
        running.asked = Counter()
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()
    gc.collect(1)  # a connection that was left open is this test's failure, not a later one's


def files_in(folder: Path) -> list[str]:
    """The names of the files, but for locks."""
    return [p.name for p in folder.rglob("*") if p.is_file() and p.name != ".lock"]


def test_a_missing_file_is_downloaded_once(folder, server, monkeypatch):
    made(monkeypatch, server.url("made.amat"), DATA)
    sets.prepare("made")
    assert (folder / "made" / "made.amat").read_bytes() == DATA
    assert files_in(folder) == ["made.amat"]
    assert len(sets.images("made", "train").pixels) == 2
    assert server.asked == {"/made.amat": 1}


def test_a_download_leaves_a_file_that_all_may_read_whom_the_umask_lets(
    folder, server, monkeypatch
):
    made(monkeypatch, server.url("made.amat"), DATA)
    before = os.umask(0o022)
    try:
        sets.prepare("made")
    finally:
        os.umask(before)
    assert (folder / "made" / "made.amat").stat().st_mode & 0o777 == 0o644


def test_one_of_several_downloads_and_the_others_wait(folder, server, monkeypatch):
    made(monkeypatch, server.url("made.amat"), DATA)
    server.delay = 0.2
    threads = [threading.Thread(target=sets.prepare, args=("made",)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.asked == {"/made.amat": 1}
    assert (folder / "made" / "made.amat").read_bytes() == DATA


def test_another_file_than_published_is_not_kept(folder, server, monkeypatch):
    server.data = b"<html>please log in</html>"
    url = server.url("made.amat")
    made(monkeypatch, url, DATA)
    assert refusal(lambda: sets.prepare("made")) == (
        f"{url} is no longer made.amat: expected md5 {md5(DATA)[4:]}, got {md5(server.data)[4:]}; "
        f"nothing is saved, find the file elsewhere and save it as {folder / 'made' / 'made.amat'}"
    )
    assert files_in(folder) == []


def test_a_file_that_is_gone_is_told_with_the_server_s_answer(folder, server, monkeypatch):
    url = server.url("gone.amat")
    made(monkeypatch, url, DATA)
    said = refusal(lambda: sets.prepare("made"))
    path = folder / "made" / "made.amat"
    assert said.startswith(f"{path} is missing, and {url} answers 404 Not Found;")
    assert files_in(folder) == []


def test_a_connection_that_breaks_off_leaves_nothing(folder, server, monkeypatch):
    url = server.url("cut.amat")
    made(monkeypatch, url, DATA)
    said = refusal(lambda: sets.prepare("made"))
    assert "ChunkedEncodingError" in said and said.endswith(f"save {url} there")
    assert files_in(folder) == []


def test_without_a_network_the_file_and_its_home_are_named(folder, server, monkeypatch):
    server.server_close()  # the port is refused from here on
    url = server.url("made.amat")
    made(monkeypatch, url, DATA)
    assert refusal(lambda: sets.prepare("made")) == (
        f"{folder / 'made' / 'made.amat'} is missing, and 127.0.0.1:{server.server_port} "
        f"does not deliver it (ConnectionError); save {url} there"
    )
    assert files_in(folder) == []


def test_without_pooch_the_extra_and_the_file_are_named(folder, monkeypatch):
    made(monkeypatch, NOWHERE, DATA)
    monkeypatch.setitem(sys.modules, "pooch", None)
    assert refusal(lambda: sets.prepare("made")) == (
        f"{folder / 'made' / 'made.amat'} is missing; pip install 'gradest[data]' to download it, "
        f"or save {NOWHERE} there"
    )
    assert not folder.exists()


def test_a_full_disk_is_told_in_a_line_and_leaves_nothing(folder, server, monkeypatch):
    import pooch

    def fill(downloader: object, url: str, path: str, _: object) -> None:
        Path(path).write_bytes(DATA[:5])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", fill)
    made(monkeypatch, server.url("made.amat"), DATA)
    path = folder / "made" / "made.amat"
    assert refusal(lambda: sets.prepare("made")) == (
        f"{path} is missing and cannot be written: No space left on device; "
        "set $GRADEST_DATA to use another folder"
    )
    assert files_in(folder) == []


def test_an_interrupted_download_leaves_nothing(folder, server, monkeypatch):
    import pooch

    def interrupt(downloader: object, url: str, path: str, _: object) -> None:
        Path(path).write_bytes(DATA[:5])
        raise KeyboardInterrupt

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", interrupt)
    made(monkeypatch, server.url("made.amat"), DATA)
    with pytest.raises(KeyboardInterrupt):
        sets.prepare("made")
    assert files_in(folder) == []


def test_a_folder_that_cannot_be_made_is_told_in_a_line(tmp_path, server, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("GRADEST_DATA", str(tmp_path / "file"))
    made(monkeypatch, server.url("made.amat"), DATA)
    said = refusal(lambda: sets.prepare("made"))
    path = tmp_path / "file" / "made" / "made.amat"
    assert said.startswith(f"{path} is missing and cannot be written: Not a directory;")


def test_progress_is_shown_on_a_terminal_and_nowhere_else(folder, server, monkeypatch, capsys):
    made(monkeypatch, server.url("made.amat"), DATA)
    sets.prepare("made")
    assert capsys.readouterr() == ("", "")
    (folder / "made" / "made.amat").unlink()
    monkeypatch.setenv("FORCE_COLOR", "1")
    sets.prepare("made")
    out, err = capsys.readouterr()
    assert not out and "made.amat" in err
    assert f"{len(DATA)}/{len(DATA)} bytes" in err


# the published files


@pytest.fixture(scope="session")
def _published(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """The folder that GRADEST_TEST_DATA names, unpacked where its files are packed."""
    if not (named := os.environ.get("GRADEST_TEST_DATA")):
        return None
    place = Path(named) / "place"
    if not place.exists():
        return Path(named)
    folder = tmp_path_factory.mktemp("published")
    subprocess.run([sys.executable, place, folder], check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture
def published(
    _published: Path | None, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., torch.Tensor]:
    """`published(name, split)`: the images, of published files that are there already."""
    if _published is None:
        pytest.skip("GRADEST_TEST_DATA is not set")
    monkeypatch.setenv("GRADEST_DATA", str(_published))

    def read(name: str, split: str) -> torch.Tensor:
        for file in sets.IMAGE_SETS[name].splits[split].files:
            if not (_published / file.name).exists():
                pytest.skip(f"GRADEST_TEST_DATA has no {file.name}")
        found = sets.images(name, split)
        assert found.pixels.dtype == torch.uint8 and found.pixels.is_contiguous()
        assert found.pixels.shape[1] == found.side**2
        assert found.pixels.max() == found.levels and found.pixels.min() == 0
        return found.pixels

    return read


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "split", "rows", "total"),
    [
        ("binarized_mnist", "train", 50_000, 5_118_041),  # 0.1306 of the pixels
        ("binarized_mnist", "valid", 10_000, 1_028_036),
        ("binarized_mnist", "test", 10_000, 1_038_896),
        ("mnist", "test", 10_000, 264_923_200),  # 0.1325 of full ink
        ("omniglot", "train", 3_872, 62_472_587),
        ("omniglot", "valid", 484, 7_525_379),
        ("omniglot", "test", 484, 7_943_230),
    ],
)
def test_the_published_files_hold_so_many_images_with_so_much_ink(
    published, name, split, rows, total
):
    pixels = published(name, split)
    assert len(pixels) == rows and pixels.sum() == total


@pytest.mark.parametrize(("split", "rows"), [("train", 50_000), ("valid", 10_000)])
def test_the_grey_training_images_are_split_before_the_last_ten_thousand(published, split, rows):
    assert len(published("mnist", split)) == rows


def test_the_binarised_digits_are_read_as_numpy_reads_them(published, _published):
    pixels = published("binarized_mnist", "test")
    file = _published / "binarized_mnist" / "binarized_mnist_test.amat"
    first = np.loadtxt(file, dtype=np.uint8, max_rows=100)
    np.testing.assert_array_equal(pixels[:100], first)


def test_no_drawing_is_in_two_splits_and_all_characters_are_in_each(published, _published):
    seen = torch.cat([published("omniglot", split) for split in sets.SPLITS])
    archives = [
        download.Content(_published / file.name, (_published / file.name).read_bytes())
        for file in sets.IMAGE_SETS["omniglot"].splits["train"].files
    ]
    keys = set().union(*(formats._pngs(file) for file in archives))
    assert len(keys) == len(seen) == 4840
    assert Counter(number for _, number in keys) == {n: 242 for n in range(1, 21)}
    assert len(seen.unique(dim=0)) == len(seen)  # in their pixels, too


def test_an_altered_byte_of_a_published_file_is_refused(published, _published, folder):
    file = sets.IMAGE_SETS["omniglot"].splits["train"].files[0]
    data = bytearray((_published / file.name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "omniglot").mkdir(parents=True)
    (folder / file.name).write_bytes(data)
    said = refusal(lambda: sets.images("omniglot", "train"))
    assert file.checksum.removeprefix("md5:") in said and str(folder / file.name) in said
