"""What the figures of a run show, and how to read them."""

from collections.abc import Iterator, Sequence

from gradest.report.documents.document import Part, Picture

_POINTS = (
    "Filled points are unbiased, hollow ones biased, pale ones inconclusive; "
    "bars are 95 % intervals"
)
_LIMITS = "an arrow hangs from an upper limit, where the bias may be zero"
_ZERO = "the grey band holds exact zeros"
_CAPTIONS = {
    "matrix": (
        "Relative bias, and variance × evaluations, of every estimator on every task",
        "Those that no task calls biased stand above the line, by their mean rank at equal work; "
        "the others below, by that of their bias. Filled points are unbiased, hollow ones biased, "
        "pale ones inconclusive; an upper limit stands where the bias may be zero. Hatched cells "
        "are exactly zero, a dot was not run. The tables have the intervals.",
    ),
    "bias_against_variance": (
        "Relative bias against variance of one estimate, one panel a task",
        f"{_POINTS}; {_LIMITS}; {_ZERO}.",
    ),
    "variance_against_evaluations": (
        "Variance of one estimate against its evaluations of f, one panel a task",
        f"{_POINTS}; {_ZERO}. Along a dotted line equal work buys equal variance.",
    ),
    "mse_against_budget": (
        "Mse of the mean of m estimates, squared bias plus variance over m, against its budget",
        "The budget is m times the passes through f that one estimate takes: its evaluations and "
        "its backward passes, each counted as one evaluation, the least it can cost since it "
        "repeats every operation of f. A curve begins at one estimate; a biased method ends on "
        "its bias. What is called unbiased is drawn without; its band, the 95 % interval, keeps "
        "what bias it may have. Over grey lies the least mse that a budget buys.",
    ),
    "temperature_tradeoff": (
        "Relative bias, variance and mse of one estimate against temperature",
        f"{_POINTS}; {_LIMITS}.",
    ),
    "cost_growth": (
        "Microseconds and evaluations of f per estimate as replicates, latents and categories grow",
        "Bars span the timing rounds; the other sizes are as the title of a panel says.",
    ),
    "adaptation": (
        "Variance of one estimate in log α against the steps of adapt, one panel a task",
        "The leftmost point of a line is before any step. Bars are 95 % intervals, each of draws "
        "of its own, at the state that these steps led to. Of many settings that share a panel, "
        f"medians of the numbers and of the ends of their intervals. {_ZERO.capitalize()}.",
    ),
    "variance_by_source": (
        "Variance of one estimate by its source, draws and each nested level, one panel a task",
        "The parts of an estimator add up to its variance at random values of all levels. Bars are "
        "95 % intervals over the values of the outermost level; a pale point may be zero, its "
        "interval reaching there, and an arrow hangs from the upper limit of a part that was "
        f"estimated as zero or less. {_ZERO.capitalize()}.",
    ),
    "simplex": (
        "A discrete distribution and its Concrete relaxations at rising temperatures",
        "Left the three outcomes with their probabilities, at the corners of the simplex; then the "
        "density of the relaxed sample. Whatever the temperature, the part of the simplex that is "
        "nearest to a corner has the probability of that corner.",
    ),
    "simplex_panels": (
        "The Concrete density on the simplex over nine temperatures",
        "From almost one-hot to almost uniform; up to λ = 1/(K − 1) no mode lies inside.",
    ),
    "training_objectives": (
        "Negative ELBO of validation data against the step of training, one panel a task",
        "With hard codes, whatever was relaxed in training. Lines are means over seeds, bands "
        "their 95 % intervals; of one seed, the interval over data points. Early steps may lie "
        "above a panel; an arrow at its top is a curve that ends above.",
    ),
    "training_gap": (
        "The discrete objective less the one that is descended, against the step",
        "On the same training data. Above the grey line the relaxed objective promises more than "
        "hard codes give; below it it asks for more, as where a divergence of relaxed densities is "
        "larger than the discrete one. Bands as above.",
    ),
    "training_gradient": (
        "Variance of the gradient, and its bias against enumeration, at states of the training",
        f"In log α, of a few data points; the bias where all codes can be enumerated. {_POINTS}: "
        "hollow where that of the bias excludes zero, filled where it ends below the margin, pale "
        f"otherwise, as where the bias is unknown; {_LIMITS}.",
    ),
    "vae_temperature": (
        "Discrete objectives, and their gap to the one descended, over the temperature of training",
        "Test data with hard codes above; below, on validation data, the discrete negative ELBO "
        "less the objective descended. Points are means over seeds, bars their 95 % intervals, cut "
        "at the edge of a panel; a knob that is not set is not named. Up to the dashed 1/(n − 1) a "
        "Concrete density of n categories has no mode inside the simplex.",
    ),
    "pictures": (
        "Test data, their reconstructions and samples, a line for each estimator",
        "Reconstructions go through one hard code. Samples are means of p(x | z) at codes of the "
        "prior; where there is no prior, at other codes of the same data.",
    ),
    "landscape_binary": (
        "Norm of the bias, and variance, against the probability θ of the second category",
        "Dotted, for comparison, is ‖g‖, and ‖g‖² beside the variance. Bands are 95 % intervals, "
        "one in twenty misses; where one has no line the bias may be zero, and its top is an upper "
        f"limit. {_ZERO.capitalize()}; what is zero for every θ is named below a panel.",
    ),
    "landscape_simplex": (
        "Norm of the bias, and variance, over the probabilities of three categories",
        "A cell is a measured α, a corner the vertex where that category is certain. All triangles "
        "of a quantity share a colour scale, that of the bias with ‖g‖, the first triangle. "
        "Hatched cells are exactly zero; a dot marks a bias that may be zero, whose colour is its "
        "upper limit. Estimators are in the order of their median bias, then of their variance.",
    ),
}


def figures(names: Sequence[str]) -> Iterator[Part]:
    if names:
        yield "## Figures"
    for name in names:
        shows, reading = _CAPTIONS[name]
        yield Picture(name, shows, reading)
