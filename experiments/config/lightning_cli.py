"""The one place where jsonargparse meets the suite: `lightning ...`, and configs as plain dictionaries.

`lightning fit --config experiments/configs/micro/audio_mntp.yaml` and its siblings `validate`, `test` and `predict`
are LightningCLI over every `SuiteModule`. Class names in YAML are short for the suite's own classes, and dotted paths
for a user's.
"""

import copy
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback

import callbacks  # noqa: F401  # importing makes the short class names known
from data_modules.latents import LatentDataModule
from experiments.config.errors import user_errors
from experiments.config.imports import take_imports
from experiments.config.resolve import (
    add_init,
    allow_classes,
    constructor_errors,
    load_config,
    names_data_class,
    one_line_errors,
)
from mntp.initial_weights import InitialWeights, Transfer
from mntp.module import SuiteModule


class SuiteCLI(LightningCLI):
    """LightningCLI whose model is any `SuiteModule`.

    The data are a store of tokens (the arguments of `LatentDataModule` stand in the section `data` as they are), or
    another data module, which the section names with `class_path` and `init_args`.

    Args:
        args: a config as a plain dictionary; None reads the command line.
        run: run the subcommand; False only builds `trainer`, `model` and `datamodule`.
        more_callbacks: beside those of the config.

    Raises:
        ValueError: an unknown key or class, or a value of another type; one line.
    """

    def __init__(
        self, args: dict[str, Any] | None = None, run: bool = True, more_callbacks: Sequence[Callback] = ()
    ) -> None:
        quiet = {"exit_on_error": False}
        other_data = names_data_class(*([args] if isinstance(args, dict) else _typed_configs(sys.argv[1:])))
        super().__init__(
            SuiteModule,
            LightningDataModule if other_data else LatentDataModule,
            subclass_mode_model=True,
            subclass_mode_data=other_data,
            trainer_defaults={"callbacks": list(more_callbacks)},
            seed_everything_default=False,  # every random thing has a seed of its own
            parser_kwargs={**quiet, **{name: quiet for name in self.subcommands()}},
            save_config_callback=SaveConfigCallback if run else None,
            save_config_kwargs={"config_filename": "resolved.yaml", "overwrite": True},  # never the config it was given
            args=copy.deepcopy(args),
            run=run,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the section `init`."""
        add_init(parser)

    def before_fit(self) -> None:
        """Say how many clips a step takes; start from the initial weights, unless a checkpoint is resumed from.

        "last" may find none.
        """
        if self.trainer.is_global_zero:
            devices, batches = self.trainer.world_size, self.trainer.accumulate_grad_batches
            each = f"{devices} devices x {self.datamodule.batch_size} clips x {batches} batches"
            print(f"{self.clips_per_step} clips a step: {each}")  # noqa: T201
        if self._get(self.config, "ckpt_path") in (None, "last"):
            self.initialise()

    @property
    def clips_per_step(self) -> int:
        """The effective batch, on all devices; other devices or nodes keep it by other batches or accumulation."""
        trainer = self.trainer
        return int(trainer.world_size * self.datamodule.batch_size * trainer.accumulate_grad_batches)

    def instantiate_classes(self) -> None:
        """Build model, data and trainer; what a constructor refuses is told in its own words."""
        with constructor_errors():
            super().instantiate_classes()

    def initialise(self) -> Transfer | None:
        """Put the weights that `init` names into the model, and print what was taken; None where `init` is null.

        Has to happen before the training starts: the average starts as a copy of the model.

        Raises:
            ValueError: the file is missing or doesn't fit.
        """
        weights: InitialWeights | None = self._get(self.config_init, "init")
        if weights is None:
            return None
        transfer = weights.apply(self.model)
        if self.trainer.is_global_zero:
            print(transfer)  # noqa: T201
        return transfer

    def _parse_ckpt_path(self) -> None:
        """Do nothing: Lightning would put a checkpoint's settings over those that were typed.

        Lightning 2.6 has no public switch for this. tests/experiments/config/test_init.py notices if the method is no
        longer called.
        """

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Take a dictionary as it is, else the command line (Lightning warns where there might be both)."""
        with one_line_errors():
            if isinstance(args, dict):
                allow_classes(args)
            if isinstance(args, (dict, Namespace)):
                self.config = parser.parse_object(args)
            else:
                self.config = parser.parse_args(args)


def _typed_configs(words: Sequence[str]) -> list[dict[str, Any]]:
    """The configs that a command line names, and its options of the section `data`."""
    files = [value for word, value in itertools.pairwise(words) if word in ("-c", "--config")]
    files += [word.partition("=")[2] for word in words if word.startswith("--config=")]
    options = ("--data", "--data.class_path")
    typed = [{"data": {"class_path": word}} for word in words if word.partition("=")[0] in options]
    return [*typed, *(load_config(Path(file)) for file in files if Path(file).is_file())]


def main() -> None:
    """The console script `lightning`."""
    with user_errors():
        sys.argv[1:] = take_imports(sys.argv[1:])
        try:
            SuiteCLI()
        except MisconfigurationException as error:
            raise ValueError(str(error)) from error


if __name__ == "__main__":
    main()
