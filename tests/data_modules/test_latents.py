import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader

from data_modules.corpora.captioned_folder import CaptionedFolder
from data_modules.epoch_order import ResumableOrder
from data_modules.latents import ClipDataset, LatentDataModule, collate
from data_modules.preparation.prepare import prepare_store
from data_modules.scenes import EmbeddedCorpus
from data_modules.store.store import Store
from mntp.batch import TokenBatch
from tests.data_modules.folders import SECONDS, EnergyTokenizer, LetterText, write_folder

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:.*worker processes in total",
    "ignore:.*fork.*:DeprecationWarning",
    "ignore:Checkpoint directory .* exists and is not empty",
    "ignore:.*isinstance.treespec, LeafSpec.:FutureWarning",
)
CORPUS = EmbeddedCorpus(num_train=12, num_val=4, num_test=3, seconds=0.32)
NUM_TRAIN, BATCH, EPOCHS = 22, 4, 3
BATCHES = NUM_TRAIN // BATCH


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    counts = {"train": NUM_TRAIN, "val": 5, "test": 3}
    lengths = {f"{split}{i}.wav": (0.05 + 0.01 * i, split) for split, n in counts.items() for i in range(n)}
    table = write_folder(folder, lengths)
    source = CaptionedFolder(table, folder)
    return prepare_store(source, EnergyTokenizer(), LetterText(), folder / "store", SECONDS).path


def test_a_batch_is_the_rows_that_its_index_names(store: Path) -> None:
    data, reader = LatentDataModule(store, batch_size=BATCH), Store(store)
    seen = []
    for batch in data.train_dataloader():
        assert isinstance(batch, TokenBatch)
        seen += batch.index.tolist()
        for place, row in enumerate(batch.index.tolist()):
            assert torch.equal(batch.tokens[place], reader.tokens(row))
            assert batch.captions[place] == reader.clips[row].caption
            assert int(batch.valid[place].sum()) == reader.num_valid_tokens(row)
            assert batch.valid[place, : reader.num_valid_tokens(row)].all()
            for name, expected in reader.text(row).items():
                length = int(batch.text[name].lengths[place])
                assert torch.equal(batch.text[name].states[place, :length], expected)
                assert not batch.text[name].states[place, length:].any()
        for stream in batch.text.values():
            assert stream.states.shape[1] == stream.lengths.max()
    assert len(seen) == len(set(seen)) == BATCHES * BATCH
    assert all(reader.clips[row].split == "train" for row in seen)


@pytest.mark.parametrize("workers", [0, 2])
def test_held_out_clips_come_all_and_in_order(store: Path, workers: int) -> None:
    data, reader = LatentDataModule(store, val_batch_size=2, num_workers=workers), Store(store)
    for split, loader in (
        ("val", data.val_dataloader()),
        ("test", data.test_dataloader()),
        ("test", data.predict_dataloader()),
    ):
        assert [row for batch in loader for row in batch.index.tolist()] == reader.split(split)


class Recorder(LightningModule):
    """Records the rows of its training batches; a resume must give the same parameter too."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.rows: list[list[int]] = []

    def training_step(self, batch: TokenBatch) -> Tensor:
        self.rows.append(batch.index.tolist())
        return (self.weight - batch.index.float().mean()).square()

    def validation_step(self, batch: TokenBatch) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SaveEverywhere(Callback):
    """Saves `<hook>-<steps done>.ckpt` from every hook that a callback may save from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self.save(trainer, "batch_start")

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.save(trainer, "batch_end")

    def on_validation_end(self, trainer: Trainer, *_: Any) -> None:
        self.save(trainer, "validation_end")

    def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        self.save(trainer, "epoch_end")

    def on_train_end(self, trainer: Trainer, *_: Any) -> None:
        self.save(trainer, "train_end")

    def save(self, trainer: Trainer, hook: str) -> None:
        trainer.save_checkpoint(self.folder / f"{hook}-{trainer.global_step}.ckpt")


def fit(store: Path, workers: int, *callbacks: Callback, checkpoint: Path | None = None, **settings: Any) -> Recorder:
    model = Recorder()
    trainer = Trainer(
        **{"max_epochs": EPOCHS, "limit_val_batches": 0, "enable_checkpointing": False, **settings},
        accelerator="cpu",
        logger=False,
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    data = LatentDataModule(store, batch_size=BATCH, num_workers=workers, seed=7)
    trainer.fit(model, data, ckpt_path=checkpoint)
    return model


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"max_epochs": -1, "max_steps": EPOCHS * BATCHES},
        {"limit_val_batches": 1, "num_sanity_val_steps": 1},
        {"limit_val_batches": 1, "num_sanity_val_steps": 0, "val_check_interval": 2},
        {"limit_train_batches": 3},
    ],
    ids=["epochs", "steps", "validation", "validation within epochs", "shortened epochs"],
)
def test_a_resumed_training_sees_what_the_uninterrupted_one_would_have(
    store: Path, tmp_path: Path, workers: int, settings: dict[str, Any]
) -> None:
    whole = fit(store, workers, SaveEverywhere(tmp_path), **settings)
    checkpoints = sorted(tmp_path.iterdir())
    assert len(checkpoints) > 2 * len(whole.rows)
    for checkpoint in checkpoints if workers == 0 else checkpoints[::6]:
        done = int(checkpoint.stem.rpartition("-")[2])
        resumed = fit(store, workers, checkpoint=checkpoint, **settings)
        assert resumed.rows == whole.rows[done:], f"resumed from {checkpoint.name}"
        assert torch.equal(resumed.weight, whole.weight)


def test_a_killed_training_goes_on_from_its_last_checkpoint(store: Path, tmp_path: Path) -> None:
    class Interrupt(Callback):
        def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
            if trainer.global_step == BATCHES + 3:
                raise RuntimeError("killed")

    saver = ModelCheckpoint(tmp_path, save_last=True, every_n_train_steps=2)
    with pytest.raises(RuntimeError, match="killed"):
        fit(store, 0, saver, Interrupt(), enable_checkpointing=True)
    last = tmp_path / "last.ckpt"
    again = fit(store, 0, saver, checkpoint=last, enable_checkpointing=True)
    assert again.rows == fit(store, 0).rows[BATCHES + 3 :]


def test_epochs_differ_and_workers_do_not_matter(store: Path) -> None:
    alone, with_workers = (fit(store, workers).rows for workers in (0, 2))
    assert alone == with_workers
    assert len(alone) == EPOCHS * BATCHES
    assert alone[:BATCHES] != alone[BATCHES : 2 * BATCHES]


@pytest.mark.parametrize("persistent", [False, True])
def test_a_pickled_data_set_and_restarted_workers_read_the_same(store: Path, persistent: bool) -> None:
    dataset = pickle.loads(pickle.dumps(ClipDataset(Store(store), "train")))
    dataset.store.tokens(0)  # open here, not to be shared with the workers
    loader = DataLoader(
        dataset,
        BATCH,
        sampler=ResumableOrder(len(dataset), BATCH, 7),
        num_workers=2,
        persistent_workers=persistent,
        collate_fn=collate,
    )
    reader = Store(store)
    for _ in range(2):
        for batch in loader:
            expected = reader.read(batch.index.tolist())
            assert torch.equal(batch.tokens, expected.tokens)
            assert batch.captions == expected.captions


def test_a_remote_store_is_read_in_byte_ranges(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "memory://bucket/store"
    system = fsspec.filesystem("memory")
    system.put(str(store), "/bucket/store", recursive=True)
    data = LatentDataModule(url, batch_size=BATCH, seed=7)
    data.prepare_data()
    fetched: list[tuple[int, int]] = []
    cat = type(system).cat_ranges

    def cat_ranges(self: Any, paths: list[str], starts: list[int], ends: list[int], **options: Any) -> Any:
        fetched.extend(zip(starts, ends, strict=True))
        return cat(self, paths, starts, ends, **options)

    monkeypatch.setattr(type(system), "cat_ranges", cat_ranges)
    reader = Store(store)
    for batch in data.train_dataloader():
        expected = reader.read(batch.index.tolist())
        assert torch.equal(batch.tokens, expected.tokens)
        assert all(torch.equal(batch.text[name].states, expected.text[name].states) for name in expected.text)
        fetched.clear()
    size = (store / "shard-00000.safetensors").stat().st_size
    Store(url).tokens(3)
    assert sum(end - start for start, end in fetched) < size / 2
    assert data.preprocessing["num_tokens"] == 8
    assert Store(f"file://{store}").fingerprint == Store(url).fingerprint == reader.fingerprint
    with pytest.raises(ValueError, match="copy the store to a local disk"):
        Store(url).audio_path(0)
    with pytest.raises(ValueError, match="is prepared on a local disk; give"):
        LatentDataModule(url, corpus=CORPUS).prepare_data()
    system.pipe("/bucket/store/shard-00000.safetensors", b"0" * 99)
    with pytest.raises(ValueError, match=r"memory://bucket/store/shard-00000\.safetensors: 99 bytes, expected"):
        Store(url).verify()
    with pytest.raises(ValueError, match=r"shard-00000\.safetensors: can't be opened as a shard"):
        Store(url).tokens(0)
    system.rm("/bucket/store/index.json")
    with pytest.raises(ValueError, match="memory://bucket/store: no store there"):
        Store(url)
    with pytest.raises(ValueError, match="nonsense://a: Protocol not known"):
        Store("nonsense://a")


def test_training_draws_as_the_store_asks(store: Path) -> None:
    weighted = Store(store)
    weighted.index["reading"] = {
        "corpora": [
            {"name": "a", "weight": 0.5, "one_window": False, "clips": 10},
            {"name": "b", "weight": 1.0, "one_window": False, "clips": 20},
        ]
    }
    data = LatentDataModule(store, batch_size=1)
    data._store = weighted
    rows = [row for batch in data.train_dataloader() for row in batch.index.tolist()]
    assert len(rows) == 5 + 12
    assert sorted(row for row in rows if row >= 10) == list(range(10, 22))


def test_the_embedded_store_is_prepared_once_and_verified(tmp_path: Path) -> None:
    data = LatentDataModule(tmp_path / "store", corpus=CORPUS, token_dim=8)
    data.prepare_data()
    store = Store(tmp_path / "store")
    assert {split: len(store.split(split)) for split in ("train", "val", "test")} == CORPUS.splits()
    assert store.tokens(0).shape == (8, 8)
    assert data.preprocessing["samples"] == 5120
    shard = tmp_path / "store" / "shard-00000.safetensors"
    before = shard.stat().st_mtime_ns
    data.prepare_data()
    assert shard.stat().st_mtime_ns == before
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"shard-00000\.safetensors: truncated"):
        data.prepare_data()


def test_another_corpus_is_not_taken_for_the_prepared_one(tmp_path: Path) -> None:
    LatentDataModule(tmp_path / "store", corpus=CORPUS).prepare_data()
    other = LatentDataModule(tmp_path / "store", corpus=replace(CORPUS, num_train=10))
    with pytest.raises(ValueError, match=r"was prepared with source\.num_train = 12, asked for 10"):
        other.prepare_data()


def test_what_is_missing_or_impossible_is_said(store: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none: no store there .*mntp prepare"):
        LatentDataModule(tmp_path / "none").prepare_data()
    with pytest.raises(ValueError, match=r"22 clips, fewer than one batch of 23"):
        LatentDataModule(store, batch_size=23).train_dataloader()
    with pytest.raises(ValueError, match="batch_size=0"):
        LatentDataModule(store, batch_size=0)
