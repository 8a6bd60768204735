"""Trained networks: kept where a training ends, and brought back."""

from pathlib import Path

from torch import nn

from gradest.contracts import Model
from gradest.errors import UsageError
from gradest.states import load_state, write_state


def keep_networks(path: Path, networks: nn.Module) -> None:
    """Write their state, from the CPU whatever trained them.  Raises OSError, in one line."""
    write_state(path, {name: part.cpu() for name, part in networks.state_dict().items()})


def load_networks(model: Model, path: str | Path) -> nn.Module:
    """The model's networks as a training left them, in float64, for `posed` and `pictures`.

    `model` is made with the knobs of the training.  Raises UsageError for a task that is no model,
    a file that holds no state, and one of other networks.
    """
    if not isinstance(model, Model):
        raise UsageError(f"{model!r} is no model; gradest.make_task(name) makes one")
    networks, state = model.networks(0), load_state(Path(path))
    try:
        networks.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path}: no networks of {model.name} as it is made: {reason}") from None
    return networks.double().requires_grad_(False)
