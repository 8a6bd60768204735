"""Large tensors of a record are kept in a file of their own, bit by bit, and its damage is seen."""

import base64
import copy
import json
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from gradest.runs import digest_of
from gradest.runs.blocks import BLOCKS, LARGE, DamagedBlock, StoredTensor
from gradest.runs.journal import (
    Journal,
    append_if_shared,
    append_record,
    pack_journal,
    read_journal,
    write_journal,
)
from gradest.statistics import Moments, decode, encode

CELLS = 3


def moments(number, coordinates=1200):
    draws = torch.Generator().manual_seed(number)
    mean, m2 = torch.randn(2, 4, coordinates, generator=draws, dtype=torch.float64)
    return Moments(torch.full((4,), 100.0, dtype=torch.float64), mean, m2.square())


def cell(number, coordinates=1200):
    """The record of a measurement with two blocks, one for the means and one for the squares."""
    members = {"task": "t", "task_knobs": {}, "estimator": "e", "estimator_knobs": {}}
    measurement = {
        "gradients": {"log_alpha": moments(number, coordinates).to_json()},
        "objective": moments(number, 1).to_json(),
        "cosines": moments(number, 1).to_json(),
    }
    return {
        **{"kind": "cell", "of": "measurement", "key": f"k{number}", "status": "ok"},
        **{"cell": {**members, "seed": number, "dtype": "float64"}, "reason": ""},
        **{"reference": None, "measurement": measurement},
    }


@pytest.fixture
def journal(tmp_path):
    """A journal with cells k0, k1, k2 in lines 2, 3, 4, each with two blocks."""
    journal = Journal(tmp_path, "s")
    for number in range(CELLS):
        journal.append(cell(number))
    return journal


def mean_of(record):
    return record["measurement"]["gradients"]["log_alpha"]["mean"]


def blocks_of(journal):
    """The blocks that each line names."""
    lines = map(json.loads, journal.path.read_text().splitlines()[1:])
    return {line["key"]: line["blocks"] for line in lines}


def test_every_bit_comes_back(journal):
    records = read_journal(journal.path).records
    assert records == [{"suite": "s", **cell(number)} for number in range(CELLS)]
    assert isinstance(mean_of(records[1]), StoredTensor)
    assert len(journal.path.read_bytes()) < 10_000 * CELLS
    size = (journal.path.with_name(BLOCKS)).stat().st_size
    assert size < 8 * 2 * 4 * 1200 * CELLS  # less than raw numbers, and than base64 by far


@pytest.mark.parametrize("shape", [(LARGE + 1,), (1, LARGE + 1), (3, LARGE), (2, 3, LARGE)])
def test_any_number_in_any_shape_is_restored(tmp_path, shape):
    """NaN with its payload, infinities, both zeros and subnormal numbers among them."""
    bits = np.random.default_rng(0).integers(0, 2**64, shape, dtype=np.uint64)
    bits.flat[:3] = [1, 2**63, 0x7FF0000000000001]
    values = encode(torch.from_numpy(bits.view(np.float64)))
    journal = Journal(tmp_path, "s")
    journal.append({**cell(0), "measurement": {"x": values}})
    (record,) = read_journal(journal.path).records
    assert record["measurement"]["x"]["float64"] == values["float64"]
    found = decode(record["measurement"]["x"]).numpy()
    assert (found.view(np.uint64) == bits).all() and found.shape == shape


def test_a_small_tensor_and_what_is_none_stay_in_their_line(tmp_path):
    journal = Journal(tmp_path, "s")
    size = LARGE * 8
    odd = {
        "small": encode(torch.zeros(LARGE, dtype=torch.float64)),
        "no base64": {"shape": [2 * LARGE], "float64": "?" * 2 * size},
        "another shape": {
            "shape": [2 * LARGE + 1],
            "float64": base64.b64encode(bytes(2 * size)).decode(),
        },
        "no shape": {"shape": "x", "float64": base64.b64encode(bytes(2 * size)).decode()},
    }
    journal.append({**cell(0, 1), "measurement": odd})
    assert not journal.path.with_name(BLOCKS).exists()
    assert read_journal(journal.path).records[0]["measurement"] == odd


def test_a_stored_tensor_is_a_plain_dict_to_whoever_copies_it(journal):
    plain, stored = cell(1), read_journal(journal.path).records[1]
    tensor, expected = mean_of(stored), mean_of(plain)
    assert json.dumps(stored["measurement"], sort_keys=True) == json.dumps(
        plain["measurement"], sort_keys=True
    )
    assert digest_of(stored["measurement"]) == digest_of(plain["measurement"])
    assert json.dumps(tensor) == json.dumps(expected)
    copies = (
        *(dict(tensor), {**tensor}, tensor.copy(), copy.deepcopy(tensor), tensor | {}),
        *({} | tensor, pickle.loads(pickle.dumps(tensor)), dict(tensor.items())),
    )
    for each in copies:
        assert type(each) is dict and each == expected
    assert tensor == expected and expected == tensor and tensor != mean_of(cell(2))
    assert tensor.get("float64") == expected["float64"] and tensor.get("other", 5) == 5
    assert list(tensor.values()) == list(expected.values())
    assert expected["float64"] not in repr(tensor)


def test_a_kill_between_block_and_line_leaves_unused_bytes(journal, monkeypatch):
    class Killed(BaseException):
        pass

    def stop(file):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("gradest.runs.journal._repair_last_line", stop)
        with pytest.raises(Killed):
            journal.append(cell(3))
    size = journal.path.with_name(BLOCKS).stat().st_size
    assert size > sum(each["length"] for blocks in blocks_of(journal).values() for each in blocks)
    assert read_journal(journal.path).damage == [] and len(read_journal(journal.path).records) == 3
    with journal.path.with_name(BLOCKS).open("ab") as file:  # and half a block
        file.write(b"\0" * 1001)
    journal.append(cell(3))
    again = Journal(journal.path.parent, "s")
    assert again.damage == []
    assert read_journal(again.path).records[3]["measurement"] == cell(3)["measurement"]


def test_blocks_are_on_the_disk_before_the_line_that_names_them(journal, monkeypatch):
    written = []
    monkeypatch.setattr(
        "os.fsync", lambda number: written.append(Path(f"/proc/self/fd/{number}").readlink().name)
    )
    journal.append(cell(3))
    journal.append(cell(4, 1))
    assert written == [BLOCKS, "journal.jsonl", "journal.jsonl"]
    journal.append({**cell(5), "elapsed": 0.1})  # which is as soon measured again
    journal.append({"kind": "seconds", "key": "k5", "samples": [1.0]})
    assert len(written) == 3
    journal.append({**cell(6), "elapsed": 3600.0})
    assert written[3:] == [BLOCKS, "journal.jsonl"]


def _changed(rng, data, other):
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ rng.randrange(1, 256)]) + data[at + 1 :]


def _cut(rng, data, other):
    return data[: rng.randrange(len(data))]


def _swapped(rng, data, other):
    start = rng.choice((0, rng.randrange(len(data))))
    return data[:start] + other[start:]


def _missing(rng, data, other):
    return None


DAMAGES = [(_changed, 20), (_cut, 20), (_swapped, 20), (_missing, 1)]


@pytest.mark.parametrize("damage, times", DAMAGES, ids=lambda each: getattr(each, "__name__", ""))
def test_a_damaged_block_costs_its_own_cell_and_gives_no_number(journal, tmp_path, damage, times):
    """The cells whose bytes have changed are lost, each with a message, and these alone."""
    other = Journal(tmp_path / "other", "s")
    for number in range(CELLS):
        other.append(cell(number + 10))
    path, places = journal.path.with_name(BLOCKS), blocks_of(journal)
    whole, text = path.read_bytes(), journal.path.read_bytes()
    foreign = other.path.with_name(BLOCKS).read_bytes()
    expected = {record["key"]: record for record in read_journal(journal.path).records}
    expected = copy.deepcopy(expected)  # with the numbers
    rng = random.Random(0)
    for _ in range(times):
        data = damage(rng, whole, foreign)
        path.unlink() if data is None else path.write_bytes(data)
        intact = {
            key
            for key, blocks in places.items()
            if all(_part(data or b"", each) == _part(whole, each) for each in blocks)
        }
        contents = read_journal(journal.path)
        assert {record["key"] for record in contents.records} == intact
        assert [line for line, _ in contents.damage] == [
            2 + number for number, key in enumerate(places) if key not in intact
        ]
        assert all(BLOCKS in line for line in contents.told)
        assert all(record == expected[record["key"]] for record in contents.records)
        for record in read_journal(journal.path, verify=False).records:
            if record["key"] in intact:
                assert record == expected[record["key"]]
            else:
                with pytest.raises(DamagedBlock, match=BLOCKS):
                    pickle.dumps(record)
        mended = Journal(tmp_path, "s")
        assert mended.damage == contents.told
        for number in range(CELLS):
            if f"k{number}" not in intact:
                mended.append(cell(number))
        again = read_journal(journal.path)
        assert not again.damage
        assert {record["key"]: record for record in again.records} == expected
        path.write_bytes(whole)
        journal.path.write_bytes(text)


def _part(data, block):
    return data[block["start"] : block["start"] + block["length"]]


def test_a_line_that_names_no_block_of_its_record_is_damaged(journal):
    lines = [json.loads(line) for line in journal.path.read_text().splitlines()]
    good = lines[1]["blocks"]
    odd = (5, [5], [{}], [{**good[0], "keys": []}], [{**good[0], "keys": ["measurement"]}])
    odd += ([{**good[0], "start": -1}], [{**good[0], "keys": ["suite", "x"]}], [*good, good[0]])
    for blocks in odd:
        append_record(journal.path, {**lines[1], "key": "odd", "blocks": blocks})
    contents = read_journal(journal.path)
    assert [record["key"] for record in contents.records] == ["k0", "k1", "k2"]
    assert [line for line, _ in contents.damage] == list(range(5, 5 + len(odd)))


def test_a_run_goes_on_in_a_journal_of_version_2(tmp_path):
    path = tmp_path / "journal.jsonl"
    append_record(path, {"kind": "journal", "suite": "s", "id": "i", "version": 2})
    append_record(path, cell(0, 1))
    journal = Journal(tmp_path, "s")
    assert journal.damage == [] and journal.id == "i"
    assert read_journal(path).header["version"] == 3  # an earlier release does not read blocks
    assert append_if_shared(path, "i", cell(1))
    assert read_journal(path).records[1]["measurement"] == cell(1)["measurement"]


def test_fresh_removes_the_blocks(journal, tmp_path):
    Journal(tmp_path, "s", fresh=True).append(cell(5))
    (record,) = read_journal(journal.path).records
    assert record["measurement"] == cell(5)["measurement"]
    assert blocks_of(journal)["k5"][0]["start"] == 0


def test_records_are_copied_into_another_journal_and_into_a_packed_one(journal, tmp_path):
    records = read_journal(journal.path).records
    out = tmp_path / "out"
    out.mkdir()
    write_journal(out / "journal.jsonl", "t", iter(records))
    assert (out / BLOCKS).read_bytes() == journal.path.with_name(BLOCKS).read_bytes()
    copied = read_journal(out / "journal.jsonl").records
    assert copied == [record | {"suite": "t"} for record in records]
    packed = tmp_path / "packed"
    packed.mkdir()
    pack_journal(packed, "s", iter(records))
    contents = read_journal(packed / "journal.jsonl")
    assert contents.records == records and contents.header["version"] == 2
    assert sorted(path.name for path in packed.iterdir()) == ["journal.jsonl.xz"]
    write_journal(out / "journal.jsonl", "t", [cell(7, 1)])
    assert sorted(path.name for path in out.iterdir()) == ["journal.jsonl"]
