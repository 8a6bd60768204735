"""A descent: the logits of a task, moved along the estimates of an estimator, seeds at once."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
