"""The description of a merged run: where its cells come from, and the suite that lists them all."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from gradest.runs.cells import canonical
from gradest.runs.merging.sources import Cell, Source, differing_plugins
from gradest.runs.provenance import command_line

_WIDTH = 96
_LISTS = ("parameters", "seeds", "dtype")  # keys of run.json that are united
_MAPPINGS = ("plugins", "implementations", "references", "methods")
# Keys of a suite that are united, or that change no number, of which the first run's are taken.
_UNITED = ("tasks", "estimators", "properties", "claims", "controls", "parameters", "seeds")
_UNITED += ("dtype", "replicates", "description")
_HARMLESS = ("figures", "timed", "cell_timeout")


def describe_merged(name: str, sources: Sequence[Source], cells: Sequence[Cell]) -> dict[str, Any]:
    """The content of the run.json of a merged run; `sources` in it says where it comes from."""
    runs = [source.run for source in sources]
    values: dict[str, Any] = {
        "suite": name,
        "description": " ".join(_distinct(run.get("description") or "" for run in runs)).strip(),
        "command": command_line(),
        "started": min((run["started"] for run in runs if run.get("started")), default=None),
        "finished": max((run["finished"] for run in runs if run.get("finished")), default=None),
        "commit": " and ".join(_distinct(str(run.get("commit")) for run in runs)),
        "versions": _side_by_side([run.get("versions") or {} for run in runs]),
        "machine": _side_by_side([run.get("machine") or {} for run in runs]),
        "replicates": _united([run.get("replicates") or [] for run in runs]) or None,
        "precision": _common([run.get("precision") for run in runs]),
        "nested": next((run["nested"] for run in runs if run.get("nested")), None),
        "figures": any(run.get("figures", True) for run in runs),
        "controls": _controls(runs),
        "claims": _united([run.get("claims") or [] for run in runs]),
        "training": _training([run.get("training") for run in runs]),
        "cells": list(cells),
        "sources": [_origin(source) for source in sources],
        "notes": [*differing_plugins(sources), *_about_times(runs)],
    }
    values |= {key: _united([run.get(key) or [] for run in runs]) for key in _LISTS}
    values |= {key: _merged([run.get(key) or {} for run in runs]) for key in _MAPPINGS}
    return values


def _origin(source: Source) -> dict[str, Any]:
    """What identifies a source and how it was measured; of a merged run also its own sources."""
    keys = ("suite", "command", "started", "finished", "commit", "versions", "machine", "plugins")
    origin = {key: source.run.get(key) for key in (*keys, "sources") if key in source.run}
    return {
        "folder": str(source.folder),
        "recorded": len(list(source.recorded)),
        "checksums": source.checksums(),
        **origin,
    }


def merged_settings(sources: Sequence[Source]) -> dict[str, Any] | str:
    """The keys of the suite that has the cells of all sources, or the reason why there is none."""
    parts = []
    for source in sources:
        if "settings" not in source.run:
            return f"{source.folder} does not say with which keys its suite was run"
        parts.append(source.run["settings"])
    for key in dict.fromkeys(key for part in parts for key in part):
        if key in (*_UNITED, *_HARMLESS):
            continue
        values = _distinct(canonical(_without_rates(part.get(key))) for part in parts)
        if len(values) > 1:
            return f"the runs differ in the key {key}, which is the same for a whole suite"
    merged = {key: value for part in reversed(parts) for key, value in part.items()}
    training = _training([part.get("training") for part in parts])
    merged |= {"training": training} if training else {}
    defaults = {"seeds": [0], "dtype": ["float64"], "replicates": [10_000]}
    for key in ("properties", "claims", "parameters", *defaults):
        if any(key in part for part in parts):
            default = defaults.get(key, [] if key != "parameters" else ["alpha", "log_alpha"])
            merged[key] = _united([part.get(key, default) for part in parts])
    if merged.get("precision"):
        merged.pop("replicates", None)
    if any("controls" in part for part in parts):
        merged["controls"] = _controls(parts)
    cells = [cell for source in sources for cell in source.run["cells"]]
    for section in ("task", "estimator"):
        merged[f"{section}s"] = _members(cells, section)
    return merged


def suite_text(settings: Mapping[str, Any]) -> str:
    """A suite as YAML, which `load_suite` reads."""
    content = json.loads(json.dumps(settings))  # without shared parts, which become aliases
    last = ("claims", "tasks", "estimators")
    ordered = {key: value for key, value in content.items() if key not in last}
    ordered |= {key: content[key] for key in last if key in content}
    return yaml.safe_dump(ordered, sort_keys=False, allow_unicode=True, width=_WIDTH)


def _members(cells: Iterable[Cell], section: str) -> list[Any]:
    """The tasks or estimators of cells, with all their knobs, as entries of a suite."""
    members = {
        canonical([cell[section], cell[f"{section}_knobs"]]): cell
        for cell in cells
        if section in cell and f"{section}_knobs" in cell
    }
    named = [(cell[section], dict(cell[f"{section}_knobs"])) for cell in members.values()]
    return [{name: knobs} if knobs else name for name, knobs in named]


def _about_times(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    if len(_distinct(canonical(run.get("machine")) for run in runs)) == 1:
        return []
    return ["the times of rows were measured on several machines, and compare only within one"]


def _without_rates(value: Any) -> Any:
    """A part of a suite without what may differ between runs that are merged."""
    if not isinstance(value, Mapping):
        return value
    free = ("learning_rate", "anneal", "checkpoint_seconds")
    return {key: own for key, own in value.items() if key not in free}


def _training(parts: Sequence[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    own = [part for part in parts if part]
    if not own:
        return None
    training = _merged(own)
    if any("learning_rate" in part for part in own):
        training["learning_rate"] = _united([part.get("learning_rate", []) for part in own])
    if any("anneal" in part for part in own):
        training["anneal"] = _merged([part.get("anneal") or {} for part in own])
    return training


def _controls(parts: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    kinds = dict.fromkeys(kind for part in parts for kind in part.get("controls") or {})
    return {
        kind: _united([(part.get("controls") or {}).get(kind, []) for part in parts])
        for kind in kinds
    }


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _united(lists: Sequence[Sequence[Any]]) -> list[Any]:
    """The entries of all lists in order, equal ones once."""
    return list({canonical(entry): entry for each in lists for entry in each}.values())


def _merged(mappings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The keys of all, each with its first value."""
    return {key: value for each in reversed(mappings) for key, value in each.items()}


def _common(values: Sequence[Any]) -> Any:
    return values[0] if len(_distinct(map(canonical, values))) == 1 else None


def _side_by_side(mappings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The keys of all; values that differ are joined to a text."""
    joined: dict[str, Any] = {}
    for key in dict.fromkeys(key for each in mappings for key in each):
        values = _united([[each[key]] for each in mappings if key in each])
        joined[key] = values[0] if len(values) == 1 else " and ".join(map(str, values))
    return joined
