"""The division of replicates into independent batches, and into pieces that run at once."""

from collections.abc import Iterator

BATCHES = 64  # independent batches of replicates, from which the intervals come
FEWER = 16  # batches for many coordinates, where the moments of 64 would take too much memory
_WIDE = 2**14  # coordinates above which there are fewer batches
PER_BATCH = 8  # replicates, at least
FEWEST = (
    64  # replicates, eight batches of eight; with fewer, intervals of skewed ones miss too often
)


def schedule(replicates: int, chunk: int, coordinates: int = 1) -> Iterator[tuple[int, int, bool]]:
    """Pieces of at most `chunk` rows: (batches, replicates of each, continues the last batch).

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
