"""Options of `mntp ablate`: where results lie, and what is planned."""

from dataclasses import dataclass
from pathlib import Path

from experiments.ablate.matrix.schema import DEFAULT_SCALE
from experiments.ablate.plan.plan_file import results_folder
from experiments.config.options import JudgeOptions, Options


@dataclass(frozen=True)
class ResultsOptions(Options):
    """Where the results of a scale lie.

    Args:
        out: folder of the results; a scale other than micro has its own folder in it.
        scale: one of the matrix's scales.
    """

    out: Path = Path("results")
    scale: str = DEFAULT_SCALE

    @property
    def folder(self) -> Path:
        """The folder of this scale's plan and tables."""
        return results_folder(self.out, self.scale)


@dataclass(frozen=True)
class PlanOptions(ResultsOptions, JudgeOptions):
    """What is planned, and where it lies.

    Args:
        matrix: the matrix file.
        rows: which rows: nothing for the default ones, `all`, or rows and tables as in `3A,8B,table6,factorial`.
        seeds: seeds, as in `0,1,2`.
        runs: folder of the runs. On a cluster, all nodes see it.
    """

    matrix: Path = Path("ablations.yaml")
    rows: str = ""
    seeds: str = "0"
    runs: Path = Path("runs")
