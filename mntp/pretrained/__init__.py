"""Initial weights: trained weights of other models that a system can start from."""

from mntp.pretrained.base import InitialWeights, Transfer
from mntp.pretrained.image_mar import ImageMAR
from mntp.pretrained.trained_system import TrainedSystem

INITIAL_WEIGHTS: dict[str, type[InitialWeights]] = {cls.__name__: cls for cls in (ImageMAR, TrainedSystem)}

__all__ = ["INITIAL_WEIGHTS", "ImageMAR", "InitialWeights", "TrainedSystem", "Transfer"]
