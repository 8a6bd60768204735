"""The journal keeps every whole record, whatever a kill left behind it."""

import json
import threading

import pytest

from gradest.errors import UsageError
from gradest.running.journal import Journal, append_if_shared, append_record, read_records


def test_records_come_back_in_order(tmp_path):
    journal = Journal(tmp_path, "s")
    for number in range(3):
        journal.append({"kind": "cell", "number": number, "reason": "é\n|"})
    again = Journal(tmp_path, "s")
    assert again.id == journal.id
    assert [r["number"] for r in again.records() if r["kind"] == "cell"] == [0, 1, 2]


@pytest.mark.parametrize("cut", range(1, 30, 7))
def test_half_a_line_is_forgotten_and_not_glued_to(tmp_path, cut):
    journal = Journal(tmp_path, "s")
    journal.append({"kind": "cell", "number": 1})
    whole = journal.path.read_bytes()
    journal.append({"kind": "cell", "number": 2, "filler": "x" * 40})
    journal.path.write_bytes(journal.path.read_bytes()[: len(whole) + cut])
    assert [r.get("number") for r in Journal(tmp_path, "s").records()] == [None, 1]
    journal.append({"kind": "cell", "number": 3})
    assert [r.get("number") for r in journal.records()] == [None, 1, 3]


def test_a_journal_killed_in_its_first_line_starts_over(tmp_path):
    (tmp_path / "journal.jsonl").write_text('{"kind": "jour')
    journal = Journal(tmp_path, "s")
    assert [r["suite"] for r in journal.records()] == ["s"]


def test_a_damaged_line_is_named(tmp_path):
    journal = Journal(tmp_path, "s")
    with journal.path.open("a") as file:
        file.write("not json\n")
    with pytest.raises(UsageError, match=r"journal.jsonl:2: not a record"):
        list(journal.records())


def test_another_suites_folder_is_refused(tmp_path):
    Journal(tmp_path, "one")
    with pytest.raises(UsageError, match="another suite, 'one'"):
        Journal(tmp_path, "two")


def test_a_worker_writes_only_to_the_very_journal(tmp_path):
    journal = Journal(tmp_path, "s")
    assert append_if_shared(journal.path, journal.id, {"kind": "cell"})
    assert not append_if_shared(journal.path, "another", {"kind": "cell"})
    assert not append_if_shared(tmp_path / "elsewhere" / "journal.jsonl", journal.id, {})
    assert len(list(journal.records())) == 2


def test_writers_do_not_tear_each_others_lines(tmp_path):
    path = Journal(tmp_path, "s").path

    def write(name):
        for number in range(20):
            append_record(path, {"kind": "cell", "writer": name, "n": number, "x": "y" * 70_000})

    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records = list(read_records(path))[1:]
    assert len(records) == 80
    assert all(json.dumps(r).count("y") == 70_000 for r in records)
