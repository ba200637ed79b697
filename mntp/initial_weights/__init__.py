"""Initial weights: trained weights of other models that a system can start from."""

from mntp.initial_weights.base import InitialWeights, Transfer
from mntp.initial_weights.image_mar import ImageMAR
from mntp.initial_weights.trained_system import TrainedSystem

INITIAL_WEIGHTS: dict[str, type[InitialWeights]] = {cls.__name__: cls for cls in (ImageMAR, TrainedSystem)}

__all__ = ["INITIAL_WEIGHTS", "ImageMAR", "InitialWeights", "TrainedSystem", "Transfer"]
