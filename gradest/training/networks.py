"""Trained networks: written at the end of a training, and loaded again."""

from pathlib import Path

from torch import nn

from gradest.contracts import Model
from gradest.errors import UsageError
from gradest.states import load_state, write_state


def keep_networks(path: Path, networks: nn.Module) -> None:
    """Write the state of the networks, moved to the CPU.  Raises OSError, in one line."""
    write_state(path, {name: part.cpu() for name, part in networks.state_dict().items()})


def load_networks(model: Model, path: str | Path) -> nn.Module:
    """The model's trained networks in float64, for `problem_at` and `decode_images`.

    `model` has the knobs of the training.  Raises UsageError for a task that is not a Model, for a
    file without a state of networks, and for one of other networks.
    """
    if not isinstance(model, Model):
        raise UsageError(
            f"expected a Model, got {model!r}; create one with gradest.make_task(name)"
        )
    networks, state = model.networks(0), load_state(Path(path))
    try:
        networks.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(
            f"{path}: expected networks of {model.name} with the knobs of the training, got "
            f"others: {reason}"
        ) from None
    return networks.double().requires_grad_(False)
