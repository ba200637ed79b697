"""Public pretrained models: where they are found, how they are loaded and identified."""

from typing import Any

_MOVED = ("ImageMAR", "InitialWeights", "TrainedSystem", "Transfer")


def __getattr__(name: str) -> Any:
    """Classes of `mntp.initial_weights` under the path that earlier configs and checkpoints have."""
    if name in _MOVED:
        import mntp.initial_weights

        return getattr(mntp.initial_weights, name)
    raise AttributeError(f"module 'mntp.pretrained' has no attribute {name!r}")
