"""The settings of a training: the keys of `training` in a suite file."""

import math
from typing import Annotated, Literal

from annotated_types import Ge, Gt, MinLen
from pydantic import AllowInfNan, BaseModel, BeforeValidator, ConfigDict

_Finite = Annotated[float, Gt(0), AllowInfNan(False)]
_Count = Annotated[int, Ge(1)]
_Grid = BeforeValidator(lambda value: value if isinstance(value, list) else [value])


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Annealing(_Settings):
    """A knob that falls with the step t: max(least, exp(−rate · t)), updated every `every` steps.

    Jang, Gu & Poole, "Categorical reparameterization with Gumbel-softmax", 2017, arXiv 1611.01144.
    """

    rate: _Finite = 1e-4
    least: _Finite = 0.5
    every: _Count = 500

    def at(self, step: int) -> float:
        return max(self.least, math.exp(-self.rate * (step - step % self.every)))


class Evaluation(_Settings):
    """The evaluation of the discrete objectives: numbers of data points and codes."""

    every: _Count = 500  # steps
    points: _Count = 500  # of the training and of the validation data
    samples: _Count = 10  # of the bound during training
    test_points: _Count = 1_000_000  # at most all of them
    test_samples: _Count = 1000  # of the bound at the end


class GradientMeasurements(_Settings):
    """Measurements of the gradient itself during training: at which steps and how."""

    steps: Annotated[list[Annotated[int, Ge(0)]], MinLen(1)]
    points: _Count = 4
    replicates: Annotated[int, Ge(64)] = 2000


class TrainingSettings(_Settings):
    """A training: Adam on minibatches, with evaluations of the objectives."""

    dtype: Literal["float32", "float64"] = "float32"
    steps: _Count = 2000
    batch: _Count = 100
    learning_rate: Annotated[list[_Finite], MinLen(1), _Grid] = [1e-3]
    anneal: dict[str, dict[str, Annealing]] = {}  # estimator -> knob -> how it falls
    evaluation: Evaluation = Evaluation()
    gradient: GradientMeasurements | None = None
    checkpoint_seconds: Annotated[float, Ge(0), AllowInfNan(False)] = 60.0

    def lasting(self, steps: int) -> "TrainingSettings":
        """The same for another number of steps, without measurements after its end."""
        gradient = self.gradient
        if gradient is not None:
            reached = [step for step in gradient.steps if step <= steps]
            gradient = gradient.model_copy(update={"steps": reached}) if reached else None
        return self.model_copy(update={"steps": steps, "gradient": gradient})
