"""The curves of trainings as a tidy table."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

COLUMNS = (
    *("suite", "task", "task_params", "estimator", "estimator_params", "learning_rate", "seed"),
    "key",
    *("status", "reason", "step", "seconds", "split", "metric", "value", "low", "high"),
)


def rows(suite: str, record: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """A row for every point of the curves; one without numbers for a training without curves."""
    cell = record["cell"]
    identity = (
        suite,
        cell["task"],
        json.dumps(cell["task_knobs"], sort_keys=True),
        cell["estimator"],
        json.dumps(cell["estimator_knobs"], sort_keys=True),
        cell["learning_rate"],
        cell["seed"],
        record["key"],
        record["status"],
        record["reason"],
    )
    if record["status"] != "ok":
        yield (*identity, *(None,) * (len(COLUMNS) - len(identity)))
        return
    for point in record["training"]["points"]:
        yield (*identity, *point)
