"""Damaged folders end as they were, or with the damage named; never badly."""

import pytest

from tools.fuzz.journals import BAD, BLOCK_DAMAGES, ENDINGS, examine


@pytest.mark.weekly
def test_no_damage_ends_badly(capsys):
    endings = examine(seed=13, count=40)
    assert set(endings) == set(ENDINGS) and endings.total() == 40
    assert not any(endings[name] for name in BAD), capsys.readouterr().out


@pytest.mark.weekly
@pytest.mark.parametrize("kind", BLOCK_DAMAGES)
def test_damaged_blocks_are_named_and_their_cells_alone_measured_again(capsys, kind):
    endings = examine(seed=13, count=8, kind=kind)
    assert endings == {**dict.fromkeys(ENDINGS, 0), "named": 8}, capsys.readouterr().out
