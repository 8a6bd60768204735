"""The settings of a training: the keys of `training` in a suite file."""

import math
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt, MinLen
from pydantic import AllowInfNan, BaseModel, BeforeValidator, ConfigDict, model_validator

_Finite = Annotated[float, Gt(0), AllowInfNan(False)]
_Fraction = Annotated[float, Ge(0), Lt(1)]
_Count = Annotated[int, Ge(1)]
_Index = Annotated[int, Ge(0)]
_Grid = BeforeValidator(lambda value: value if isinstance(value, list) else [value])
_Tuple = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)


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


class SGD(_Settings):
    """v ← momentum · v + ĝ,  log α ← log α − rate · v."""

    momentum: _Fraction = 0.0
    nesterov: bool = False  # the gradient plus the momentum of the next step, instead of v

    @model_validator(mode="after")
    def _check_nesterov(self) -> "SGD":
        if self.nesterov and not self.momentum:
            raise ValueError("expected a momentum above 0 with nesterov")
        return self


class Adam(_Settings):
    """m and v: moving averages of ĝ and ĝ²,  log α ← log α − rate · m / (√v + eps).

    Kingma & Ba, "Adam: a method for stochastic optimization", 2015, arXiv 1412.6980.
    """

    betas: Annotated[tuple[_Fraction, _Fraction], _Tuple] = (0.9, 0.999)
    eps: _Finite = 1e-8


class RMSprop(_Settings):
    """v: a moving average of ĝ² with weight `alpha`,  log α ← log α − rate · ĝ / (√v + eps)."""

    alpha: _Fraction = 0.99
    eps: _Finite = 1e-8
    momentum: _Fraction = 0.0
    centered: bool = False  # the variance of ĝ in place of its second moment


class Optimiser(_Settings):
    """One of the optimisers of torch, by its name, with its settings."""

    sgd: SGD | None = None
    adam: Adam | None = None
    rmsprop: RMSprop | None = None

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        """A name alone stands for the default settings."""
        if isinstance(value, str):
            return {value: {}}
        if isinstance(value, dict) and len(value) == 1:
            return {name: {} if own is None else own for name, own in value.items()}
        return value

    @model_validator(mode="after")
    def _check_one(self) -> "Optimiser":
        if len(self.chosen) != 1:
            names = " and ".join(self.chosen) or "none"
            raise ValueError(f"expected one of {', '.join(type(self).model_fields)}, got {names}")
        return self

    @property
    def chosen(self) -> dict[str, Any]:
        """name -> settings of the optimiser."""
        return self.model_dump(exclude_none=True)


class Category(_Settings):
    """A category of a latent, both counted from 0."""

    latent: _Index = 0
    category: _Index = 1


class DescentSettings(_Settings):
    """A descent of the logits of a task, with records of the exact objective and gradient."""

    optimiser: Optimiser = Optimiser(adam=Adam())
    maximise: bool = False  # ascend instead
    every: _Count = 100  # steps between two records
    replicates: Annotated[int, Ge(64)] = 1000  # by which the variance of ĝ is measured
    probability: Category = Category()  # whose probability is recorded


_OF_MODELS = ("batch", "evaluation", "gradient", "checkpoint_seconds")


class TrainingSettings(_Settings):
    """A training: Adam on minibatches, with evaluations of the objectives.

    Tasks that are not models have no networks: their logits are descended.
    """

    dtype: Literal["float32", "float64"] = "float32"
    steps: _Count = 2000
    batch: _Count = 100
    learning_rate: Annotated[list[_Finite], MinLen(1), _Grid] = [1e-3]
    anneal: dict[str, dict[str, Annealing]] = {}  # estimator -> knob -> how it falls
    evaluation: Evaluation = Evaluation()
    gradient: GradientMeasurements | None = None
    checkpoint_seconds: Annotated[float, Ge(0), AllowInfNan(False)] = 60.0
    descent: DescentSettings = DescentSettings()

    @staticmethod
    def unused(models: bool, others: bool) -> list[str]:
        """The keys that are without effect where there are no models, or no other tasks."""
        return [*([] if models else _OF_MODELS), *([] if others else ["descent"])]

    @property
    def descent_dtype(self) -> str:
        """That of descents: float64 unless the suite asks for another, since they are small."""
        return self.dtype if "dtype" in self.model_fields_set else "float64"

    def lasting(self, steps: int) -> "TrainingSettings":
        """The same for another number of steps, without measurements after its end."""
        gradient = self.gradient
        if gradient is not None:
            reached = [step for step in gradient.steps if step <= steps]
            gradient = gradient.model_copy(update={"steps": reached}) if reached else None
        return self.model_copy(update={"steps": steps, "gradient": gradient})
