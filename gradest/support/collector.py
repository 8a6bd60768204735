"""The garbage collector, which looks for cycles among all objects that live.

It is due after so many new objects, and goes through the old ones too.  Of ten thousand records or
cells, of which none is garbage, that takes longer than reading them; so it rests while they are
made.  Where models are measured it works as always: the graph of an estimate may be such a cycle,
and hold gigabytes.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused(*, freeze: bool = False) -> Iterator[None]:
    """Within the block, or the function that it decorates, nothing is collected.

    For code that makes many objects which are kept, and no tensors.  With `freeze` the collector
    never goes through what lives at the end of the block: for a program, whose caller has no
    garbage that would stay for ever.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            if freeze:
                gc.freeze()
            gc.enable()


def collect_no_more() -> None:
    """Leave all that lives to the end of the process, which is near.

    The interpreter would go through it once more while it shuts down, and free nothing that the
    operating system does not free anyway.  The collector stays on: a caller that catches SystemExit
    goes on, and what it makes from then on is collected.
    """
    gc.freeze()
