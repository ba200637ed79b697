"""A codec as a user would write it: a generator against a discriminator, two optimisers, steps by hand.

It is no token system and its data are no store of tokens, but it trains, is recorded and is compared as any system is.
"""

from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from mntp.module import HeldOutMetric, SuiteModule
from mntp.seeding import derive_seed


class ToyCodec(SuiteModule):
    """An autoencoder of frames, with an adversary that tells its output from frames.

    Args:
        width: values of a code.
        adversary: weight of the adversarial loss.
        seed: of the weights.
    """

    def __init__(self, width: int = 2, adversary: float = 0.1, seed: int = 0) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.adversary = adversary
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "weights"))
            self.generator = nn.Sequential(nn.Linear(8, width), nn.Linear(width, 8))
            self.discriminator = nn.Linear(8, 1)

    @property
    def held_out_metric(self) -> HeldOutMetric:
        return HeldOutMetric("codec_distance", digits=3, better=-1)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        frames, _ = batch
        generator, discriminator = self.optimizers()
        decoded = self.generator(frames)
        loss = (decoded - frames).square().mean() - self.adversary * self.discriminator(decoded).mean()
        self.log("train/loss", loss)
        generator.zero_grad()
        self.manual_backward(loss)
        generator.step()
        discriminator.zero_grad()
        self.manual_backward(self.discriminator(decoded.detach()).mean() - self.discriminator(frames).mean())
        discriminator.step()

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> dict[str, Tensor]:
        frames, rows = batch
        distances = (self.generator(frames) - frames).square().double()
        sums = torch.stack([distances.sum(dim=1), torch.full((len(frames),), 8.0, dtype=torch.float64)])
        self.log("val/codec_distance", distances.mean().float())
        return {"rows": rows, "codec_distance": sums}

    def configure_optimizers(self) -> Any:
        return [torch.optim.Adam(part.parameters(), lr=0.05) for part in (self.generator, self.discriminator)]


class ToyFrames(LightningDataModule):
    """Frames of 8 samples that vary in 2 directions.

    Args:
        batch_size: frames of a batch.
        seed: of the order.
    """

    def __init__(self, batch_size: int = 16, seed: int = 0) -> None:
        super().__init__()
        self.batch_size, self.seed = batch_size, seed

    @property
    def fingerprint(self) -> str:
        return "f2a3e5000000"

    def train_dataloader(self) -> DataLoader[Any]:
        order = torch.Generator().manual_seed(self.seed)
        return DataLoader(frames("train", 64), self.batch_size, shuffle=True, generator=order)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(frames("val", 12), self.batch_size)


def frames(split: str, number: int) -> TensorDataset:
    """Frames of a split, with their rows."""
    generator = torch.Generator().manual_seed(derive_seed(0, split))
    directions = torch.randn(2, 8, generator=torch.Generator().manual_seed(1))
    return TensorDataset(torch.randn(number, 2, generator=generator) @ directions, torch.arange(number))
