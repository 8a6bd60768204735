"""One estimator on one task: replicates or all outcomes, the truth, and what they say."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
