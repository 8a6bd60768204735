"""The garbage collector rests in a block, and works again after it."""

import gc
import weakref

import pytest

from gradest.support import collector_paused


class Cycle:
    def __init__(self) -> None:
        self.own = self


def test_a_cycle_is_collected_after_the_block_and_not_in_it():
    with collector_paused(), collector_paused():
        cycle = weakref.ref(Cycle())
        kept = [[] for _ in range(10_000)]  # more than the objects after which it is due
        assert len(kept) == 10_000 and cycle() is not None
    gc.collect()
    assert cycle() is None


@pytest.mark.parametrize("freeze", [False, True])
def test_it_works_again_after_an_error_and_stays_off_where_it_was_off(freeze):
    before = gc.get_freeze_count()
    try:
        with pytest.raises(ZeroDivisionError), collector_paused(freeze=freeze):
            raise ZeroDivisionError
        assert gc.isenabled() and (gc.get_freeze_count() > before) == freeze
        gc.disable()
        with collector_paused(freeze=freeze):
            pass
        assert not gc.isenabled()
    finally:
        gc.unfreeze()
        gc.enable()
