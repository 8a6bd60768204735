from .bias import detectable_length, squared_bias
from .description import describe
from .distributions import normal_isf, normal_sf, t_isf, t_ppf, t_sf
from .intervals import CONFIDENCE, Interval, columns_of, mean_interval, total_variance
from .moments import (
    BATCHES,
    FEWEST,
    PER_BATCH,
    Moments,
    batches_of,
    decode,
    encode,
    schedule,
)
from .over_seeds import Sides, median_interval, median_test, share_interval, share_test
from .planning import replicates_needed
from .reference_noise import Noise
from .rescaling import Rescaling, best_rescaling
from .rounding import SINGLE, Arithmetic, resolution
from .unbiasedness import Joint, joint_test, largest_z
from .variance_components import DRAWS, Component, estimate_components
from .verdicts import BIASED_BELOW, UNBIASED_WITHIN, holm, verdict
