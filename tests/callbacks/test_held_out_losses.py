"""The held-out file: each clip's sums in the order of its rows, whatever the batches; validating again replaces it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file

from callbacks import HeldOutLosses

LOSSES = torch.arange(1.0, 8.0, dtype=torch.float64)
COUNTS = torch.tensor([4, 2, 1, 3, 4, 0, 2], dtype=torch.float64)
ROWS = torch.tensor([12, 10, 16, 14, 11, 15, 13])


def validate(callback: HeldOutLosses, sizes: tuple[int, ...], factor: float = 1.0, **state: Any) -> None:
    """Hand over the clips in batches of the given sizes, as Lightning does."""
    trainer: Any = SimpleNamespace(**{"sanity_checking": False, "is_global_zero": True, **state})
    module: Any = None
    callback.on_validation_epoch_start(trainer, module)
    parts = [torch.stack([factor * LOSSES, COUNTS]).split(sizes, dim=1), ROWS.split(sizes)]
    for place, (sums, rows) in enumerate(zip(*parts, strict=True)):
        callback.on_validation_batch_end(trainer, module, {"rows": rows, "ntp_loss": sums}, None, place)
    callback.on_validation_epoch_end(trainer, module)


def test_clips_stand_in_the_order_of_their_rows(tmp_path: Path) -> None:
    for name, sizes in {"one": (7,), "three": (3, 3, 1)}.items():
        validate(HeldOutLosses(tmp_path / name), sizes)
    found = load_file(tmp_path / "three")
    assert found["rows"].tolist() == list(range(10, 17))
    totals, counts = found["ntp_loss"]
    assert totals.dtype == torch.float64
    assert totals.tolist() == [2, 5, 1, 7, 4, 6, 3] and counts.tolist() == [2, 4, 4, 2, 3, 0, 1]
    assert (tmp_path / "one").read_bytes() == (tmp_path / "three").read_bytes()


def test_a_later_validation_replaces_the_file_and_adds_nothing(tmp_path: Path) -> None:
    callback = HeldOutLosses(tmp_path / "losses")
    validate(callback, (7,))
    validate(callback, (5, 2), factor=2.0)
    found = load_file(tmp_path / "losses")
    assert found["ntp_loss"][0].sum() == 2 * LOSSES.sum() and len(found["rows"]) == 7


def test_neither_a_sanity_check_nor_another_rank_writes(tmp_path: Path) -> None:
    for state in ({"sanity_checking": True}, {"is_global_zero": False}):
        validate(HeldOutLosses(tmp_path / "losses"), (7,), **state)
    assert not (tmp_path / "losses").exists()
