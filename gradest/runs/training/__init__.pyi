from .evaluation import negative_bound
from .loop import train
from .results import COLUMNS, Pictures, rows, write_pictures
from .settings import (
    SGD,
    Adam,
    Annealing,
    Category,
    DescentSettings,
    Evaluation,
    GradientMeasurements,
    Optimiser,
    RMSprop,
    TrainingSettings,
)
from .snapshot import Snapshot, fresh_estimator
from .state import ProgressFile, keep_networks, load_networks, training_progress
from .trainer import Trainer, stream_seed
