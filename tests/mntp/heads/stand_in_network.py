"""A function in the place of a head's network."""

from collections.abc import Callable

from torch import Tensor

from mntp.heads.denoiser import Denoiser


class Played(Denoiser):
    """Calls `function` (x [M, D], t [M], z [M, C]) as it is."""

    def __init__(self, function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, t: Tensor, z: Tensor) -> Tensor:
        return self.function(x, t, z)
