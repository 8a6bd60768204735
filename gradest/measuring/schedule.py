"""How replicates are dealt into independent batches, and batches into what runs at once."""

from collections.abc import Iterator

BATCHES = 64  # independent batches of replicates, from which the intervals come
FEWER = 16  # where the moments of all batches would take more memory than they are worth
_WIDE = 2**14  # coordinates from which on they would
PER_BATCH = 8  # replicates, at least
FEWEST = 64  # replicates: eight batches of eight; of fewer, skewed ones are not covered


def schedule(replicates: int, chunk: int, coordinates: int = 1) -> Iterator[tuple[int, int, bool]]:
    """Pieces of at most `chunk` rows: (batches, replicates of each, more of the last batch).

    Batches are as equal as they can be and the same for every chunk size.
    """
    most = BATCHES if coordinates <= _WIDE else FEWER
    batches = max(1, min(most, replicates // PER_BATCH))
    short, longer = divmod(replicates, batches)
    for count, size in ((longer, short + 1), (batches - longer, short)):
        together = max(1, chunk // size)
        for first in range(0, count, together):
            for start in range(0, size, chunk):
                yield min(together, count - first), min(chunk, size - start), start > 0
