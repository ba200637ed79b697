"""Prepared clips for training, validation and test, streamed from a store."""

from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from data_modules.epoch_order import Draws, ResumableOrder
from data_modules.scenes import EmbeddedCorpus
from data_modules.store.store import Store
from mntp.batch import TokenBatch


class Clip(NamedTuple):
    """A clip that is read when its batch is made: its store, and its row there."""

    store: Store
    row: int


class ClipDataset(Dataset[Clip]):
    """The clips of one split of a store.

    Args:
        store: opened for reading.
        split: `train`, `val` or `test`.
    """

    def __init__(self, store: Store, split: str) -> None:
        self.store = store
        self.rows = store.split(split)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> Clip:
        return Clip(self.store, self.rows[place])


def collate(clips: list[Clip]) -> TokenBatch:
    """Read clips of one store into a batch; text states are padded with zeros to the longest of the batch."""
    return clips[0].store.read([clip.row for clip in clips])


class ResumableLoader(DataLoader[Clip]):
    """A loader that resumes within an epoch.

    Its sampler knows where to continue. These two methods tell Lightning that a resume is exact, so that it doesn't
    warn.
    """

    def state_dict(self) -> dict[str, Any]:
        """Nothing of its own."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing of its own."""


class LatentDataModule(LightningDataModule):
    """Batches of prepared tokens (`TokenBatch`) from a store.

    The order of training clips is a function of seed, epoch, rank and position (`ResumableOrder`); the last, incomplete
    batch of an epoch is dropped. A resume from any checkpoint gives the batches that the uninterrupted training would
    have had, with any number of workers. Validation and test clips come in the store's order, all of them in every
    process. `predict` takes the test split.

    Args:
        store: the folder of a store, or a URL that fsspec knows (`s3://bucket/store`).
        batch_size: training clips per batch and process.
        val_batch_size: clips per batch in validation, test and prediction.
        num_workers: processes that load batches, beside the main one.
        seed: of the training clips' order.
        corpus: if given, `prepare_data` prepares `store` from this embedded corpus where it is absent.
        token_dim: values per token of the mel tokenizer, where the store is prepared here.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        store: str | Path,
        batch_size: int = 32,
        val_batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
        corpus: EmbeddedCorpus | None = None,
        token_dim: int = 32,
    ) -> None:
        super().__init__()
        if min(batch_size, val_batch_size) < 1 or min(num_workers, seed) < 0:
            raise ValueError(
                f"got batch_size={batch_size}, val_batch_size={val_batch_size}, num_workers={num_workers}, "
                f"seed={seed}; expected batch sizes of at least 1, workers and seed not negative"
            )
        self.path = store if "://" in str(store) else Path(store)
        self.batch_size = batch_size
        self.val_batch_size = val_batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.corpus = corpus
        self.token_dim = token_dim
        self._store: Store | None = None

    @property
    def store(self) -> Store:
        """The store, opened.

        Raises:
            ValueError: there is none yet; says how to prepare it.
        """
        if self._store is None:
            self._store = Store(self.path)
        return self._store

    @property
    def fingerprint(self) -> str:
        """12 hex digits over the store's content."""
        return self.store.fingerprint

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What a checkpoint needs to turn tokens into sound and captions into states: `Store.preprocessing()`."""
        return self.store.preprocessing()

    def prepare_data(self) -> None:
        """Prepare the store from the embedded corpus if it is absent, and check that its files are whole.

        Raises:
            ValueError: there is no store and no corpus; the store was prepared from another corpus; a file of the
                store is damaged.
            OSError: the disk is full.
        """
        if self.corpus is not None:
            if not isinstance(self.path, Path):
                raise ValueError(
                    f"{self.path}: the embedded corpus is prepared on a local disk; give data.store a path"
                )
            _prepare_embedded(self.corpus, self.token_dim, self.path)
        Store(self.path).verify()

    def train_dataloader(self) -> DataLoader[Clip]:
        """Training batches of this process.

        Raises:
            ValueError: the split has fewer clips than one batch.
        """
        dataset = ClipDataset(self.store, "train")
        order = ResumableOrder(
            Draws.of(self.store, dataset.rows),
            self.batch_size,
            self.seed,
            rank=self.trainer.global_rank if self.trainer else 0,
            world_size=self.trainer.world_size if self.trainer else 1,
            batches_done=self._batches_done,
        )
        return ResumableLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=order,
            drop_last=True,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            collate_fn=collate,
        )

    def val_dataloader(self) -> DataLoader[Clip]:
        """Validation clips in the store's order."""
        return self._sequential("val")

    def test_dataloader(self) -> DataLoader[Clip]:
        """Test clips in the store's order."""
        return self._sequential("test")

    def predict_dataloader(self) -> DataLoader[Clip]:
        """Test clips in the store's order."""
        return self._sequential("test")

    def _batches_done(self) -> int:
        """Training batches of this process so far; Lightning restores the count before it asks for a loader."""
        if self.trainer is None:
            return 0
        loop: Any = self.trainer.fit_loop.epoch_loop  # Lightning types the tracker as its base class
        # `processed` and not `completed`, which lags by one inside on_train_batch_end.
        return int(loop.batch_progress.total.processed)

    def _sequential(self, split: str) -> DataLoader[Clip]:
        return DataLoader(
            ClipDataset(self.store, split),
            batch_size=self.val_batch_size,  # by keyword: Lightning makes the loader anew for prediction
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            collate_fn=collate,
        )


def _prepare_embedded(corpus: EmbeddedCorpus, token_dim: int, out: Path) -> None:
    """Prepare a store of the embedded corpus, unless it is there. Only here a reader needs what writes stores."""
    from data_modules.corpora.embedded import EmbeddedSource
    from data_modules.preparation.prepare import prepare_store
    from mntp.text.hashed import HashedText
    from mntp.tokenizers.mel import MelTokenizer

    prepare_store(
        EmbeddedSource(corpus),
        MelTokenizer(token_dim),
        HashedText(),
        out,
        seconds=corpus.seconds,
        threads=2,  # existing stores were made with two: another number rounds sums differently
    )
