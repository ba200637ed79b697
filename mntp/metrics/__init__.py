"""What the scores compute: distances and divergences over the outputs of a judge network, and the judges."""

from mntp.metrics.divergence import kl_divergence
from mntp.metrics.frechet import frechet_distance
from mntp.metrics.inception import inception_score

__all__ = ["frechet_distance", "inception_score", "kl_divergence"]
