"""Damaged folders end as they were, or with the damage named; never badly."""

import pytest

from tools.fuzz.journals import BAD, ENDINGS, examine


@pytest.mark.weekly
def test_no_damage_ends_badly(capsys):
    endings = examine(seed=13, count=40)
    assert set(endings) == set(ENDINGS) and endings.total() == 40
    assert not any(endings[name] for name in BAD), capsys.readouterr().out
