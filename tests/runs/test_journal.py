"""The journal keeps every whole record, whatever a kill or a disk left behind it."""

import gc
import json
import random
import threading

import pytest

from gradest.errors import UsageError
from gradest.runs.journal import (
    DAMAGED,
    Journal,
    append_if_shared,
    append_record,
    read_journal,
    read_records,
)


def cell(number, **more):
    """The record of a measurement that failed."""
    members = {"task": "t", "task_knobs": {}, "estimator": "e", "estimator_knobs": {}}
    return {
        **{"kind": "cell", "of": "measurement", "key": f"k{number}"},
        **{"cell": {**members, "seed": number, "dtype": "float64", "replicates": 10}},
        **{"status": "failed", "reason": "é\n|", **more},
    }


@pytest.fixture
def journal(tmp_path):
    """A journal with cells k0, k1, k2 in lines 2, 3, 4."""
    journal = Journal(tmp_path, "s")
    for number in range(3):
        journal.append(cell(number))
    return journal


def keys(path):
    return [record["key"] for record in read_journal(path).records]


def told(path):
    return read_journal(path).told


def test_records_come_back_in_order(journal, tmp_path):
    again = Journal(tmp_path, "s")
    assert again.id == journal.id and again.damage == []
    assert keys(again.path) == ["k0", "k1", "k2"]
    assert [r["reason"] for r in read_journal(again.path).records] == ["é\n|"] * 3


@pytest.mark.parametrize("cut", range(1, 30, 7))
def test_half_a_line_is_forgotten_and_not_glued_to(journal, tmp_path, cut):
    whole = journal.path.read_bytes()
    journal.append(cell(3, filler="x" * 40))
    journal.path.write_bytes(journal.path.read_bytes()[: len(whole) + cut])
    assert keys(Journal(tmp_path, "s").path) == ["k0", "k1", "k2"]
    assert told(journal.path) == []
    journal.append(cell(4))
    assert keys(journal.path) == ["k0", "k1", "k2", "k4"]


def test_a_last_line_that_lacks_its_end_alone_is_kept(journal):
    journal.path.write_bytes(journal.path.read_bytes().removesuffix(b"\n"))
    assert keys(journal.path) == ["k0", "k1", "k2"]
    journal.append(cell(3))
    assert keys(journal.path) == ["k0", "k1", "k2", "k3"]


def test_a_long_unfinished_line_is_cut(journal):
    with journal.path.open("ab") as file:
        file.write(b"\0" * 5_000_000)
    journal.append(cell(3))
    assert keys(journal.path) == ["k0", "k1", "k2", "k3"] and told(journal.path) == []


def test_a_journal_killed_in_its_first_line_starts_over(tmp_path):
    (tmp_path / "journal.jsonl").write_text('{"kind": "jour')
    journal = Journal(tmp_path, "s")
    assert [r["suite"] for r in read_records(journal.path)] == ["s"]


def test_no_bit_of_a_record_can_flip_unseen(journal):
    whole = journal.path.read_bytes()
    lines = whole.splitlines(keepends=True)
    start, end = len(lines[0]) + len(lines[1]), len(whole) - len(lines[3])
    expected = read_journal(journal.path).records
    rng = random.Random(0)
    for _ in range(300):
        at = rng.randrange(start, end)
        damaged = bytearray(whole)
        damaged[at] ^= 1 << rng.randrange(8)
        journal.path.write_bytes(damaged)
        found = read_journal(journal.path)
        assert all(record in expected for record in found.records)
        assert expected[0] in found.records
        assert found.damage and {each.line for each in found.damage} <= {3, 4}


@pytest.mark.parametrize(
    "line, said",
    [
        (b"5", "not a record"),
        (b"null", "not a record"),
        (b"[]", "not a record"),
        (b"{}", "checksum is missing"),
        (b"", "not valid JSON"),
        (b"not json", "not valid JSON"),
        (b"\xff\xfe\x00", "not valid UTF-8"),
        (b"\0" * 100, "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"kind": "cell", "key": ' + b"9" * 10_000 + b"}", "not valid JSON"),
        (b'{"kind": "cell", "crc32": "00000000"}', "checksum does not match"),
        (b"x" * 50_000_000, "not valid JSON"),
    ],
)
def test_a_line_that_is_no_record_is_named_and_costs_itself_alone(journal, tmp_path, line, said):
    lines = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(b"".join([*lines[:2], line + b"\n", *lines[3:]]))
    assert keys(journal.path) == ["k0", "k2"]
    assert told(journal.path) == [f"journal.jsonl:3: damaged: {said}"]
    mended = Journal(tmp_path, "s")
    assert mended.damage == [f"journal.jsonl:3: damaged: {said}"] and mended.id == journal.id
    assert keys(journal.path) == ["k0", "k2"] and told(journal.path) == []
    assert (tmp_path / DAMAGED).read_bytes().splitlines()[2] == line


@pytest.mark.parametrize(
    "record, said",
    [
        ({"kind": "cell"}, "missing key 'of'"),
        ({"kind": "else"}, "not a record"),
        ({"kind": 5}, "not a record"),
        (cell(1, status="fine"), "unknown kind or status"),
        (cell(1, of=["training"]), "invalid value of 'of'"),
        (cell(1, status="ok"), "missing key 'measurement'"),
        (cell(1, status="ok", measurement=[], reference=None), "invalid value of 'measurement'"),
        (cell(1, cell={}), "missing key 'task'"),
        (cell(1, key=None), "invalid value of 'key'"),
        ({"kind": "seconds", "key": "k1", "samples": ["1"]}, "invalid value of 'samples'"),
        (
            {"kind": "reference", "key": "k1", "cell": {}, "reference": None},
            "invalid value of 'reference'",
        ),
    ],
)
def test_a_record_of_another_shape_is_named(journal, record, said):
    append_record(journal.path, record)
    assert keys(journal.path) == ["k0", "k1", "k2"]
    (line,) = told(journal.path)
    assert line.startswith("journal.jsonl:5: damaged: ") and said in line


def test_a_damaged_header_is_made_anew_where_records_tell_the_suite(journal, tmp_path):
    lines = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(b"".join([b"{" + lines[0], *lines[1:]]))
    with pytest.raises(UsageError, match="got results of 's'"):
        Journal(tmp_path, "other")
    assert Journal(tmp_path, "s").damage == ["journal.jsonl:1: damaged: checksum does not match"]
    assert keys(journal.path) == ["k0", "k1", "k2"]
    assert read_journal(journal.path).header["suite"] == "s"


def test_an_editor_may_have_converted_the_file(journal):
    data = b"\xef\xbb\xbf" + journal.path.read_bytes().replace(b"\n", b"\r\n")
    journal.path.write_bytes(data)
    assert keys(journal.path) == ["k0", "k1", "k2"] and told(journal.path) == []


def test_lines_that_stand_twice_change_nothing(journal):
    lines = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(b"".join([lines[0], *lines]))
    assert keys(journal.path) == ["k0", "k1", "k2"] and told(journal.path) == []


@pytest.mark.parametrize("content", [b"precious\n", b"5\n{}\n", b"\xff\n"])
def test_what_holds_no_record_is_refused_and_fresh_begins_anew(tmp_path, content):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"contains no record of gradest .*--fresh"):
        Journal(tmp_path, "s")
    assert path.read_bytes() == content
    assert [r["suite"] for r in read_records(Journal(tmp_path, "s", fresh=True).path)] == ["s"]


def test_a_journal_that_is_a_folder_is_named_and_fresh_keeps_it(tmp_path):
    (tmp_path / "journal.jsonl").mkdir()
    (tmp_path / "journal.jsonl" / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match=r"journal.jsonl: cannot be read: Is a directory"):
        Journal(tmp_path, "s")
    assert list(read_records(Journal(tmp_path, "s", fresh=True).path))
    assert [f.read_text() for f in tmp_path.glob("*/thesis.tex")] == ["precious"]


def test_fresh_does_not_touch_another_suites_results(journal, tmp_path):
    with pytest.raises(UsageError, match="got results of 's'"):
        Journal(tmp_path, "other", fresh=True)
    assert keys(journal.path) == ["k0", "k1", "k2"]


def test_a_journal_without_checksums_is_read_and_written_anew(tmp_path):
    path = tmp_path / "journal.jsonl"
    lines = [{"kind": "journal", "suite": "s", "id": "i"}, cell(0), {}, cell(1)]
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    assert not read_journal(path).sealed
    assert keys(path) == ["k0", "k1"] and told(path) == ["journal.jsonl:3: damaged: not a record"]
    assert Journal(tmp_path, "s").id == "i"
    assert read_journal(path).sealed and keys(path) == ["k0", "k1"]


def test_a_journal_of_a_later_version_is_refused(tmp_path):
    header = {"kind": "journal", "suite": "s", "id": "i", "version": 4}
    append_record(tmp_path / "journal.jsonl", header)
    with pytest.raises(UsageError, match="a later version of gradest"):
        Journal(tmp_path, "s")


@pytest.mark.parametrize("enabled", [True, False])
def test_reading_leaves_the_garbage_collector_as_it_was(journal, tmp_path, enabled):
    before = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        read_journal(journal.path)
        assert gc.isenabled() == enabled
        with pytest.raises(UsageError):
            read_journal(tmp_path)  # a folder
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()


def test_a_name_that_is_no_unicode_can_be_recorded(journal):
    journal.append(cell(3, reason="caf\udce9"))
    assert read_journal(journal.path).records[3]["reason"] == "caf\udce9"


def test_another_suites_folder_is_refused(tmp_path):
    Journal(tmp_path, "one")
    with pytest.raises(UsageError, match="got results of 'one'"):
        Journal(tmp_path, "two")


def test_a_worker_writes_only_to_the_very_journal(tmp_path):
    journal = Journal(tmp_path, "s")
    assert append_if_shared(journal.path, journal.id, cell(0))
    assert not append_if_shared(journal.path, "another", cell(1))
    assert not append_if_shared(tmp_path / "elsewhere" / "journal.jsonl", journal.id, cell(1))
    assert len(list(read_records(journal.path))) == 2


def test_writers_do_not_tear_each_others_lines(tmp_path):
    path = Journal(tmp_path, "s").path

    def write(name):
        for number in range(20):
            append_record(path, cell(number, writer=name, x="y" * 70_000))

    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records = list(read_records(path))[1:]
    assert len(records) == 80
    assert all(record["x"] == "y" * 70_000 for record in records)
