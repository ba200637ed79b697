from pathlib import Path

import pytest

from data_modules.scenes import EmbeddedCorpus
from experiments.config.options import JudgeOptions
from experiments.runs.data import prepare_data, score_set_of
from experiments.scoring.train_judge import JudgeTraining, load_or_train_judge
from mntp.metrics.networks.judge import Judge
from tests.experiments.runs.support import Shared, tiny_config

SMALL_CORPUS = EmbeddedCorpus(num_train=320, num_val=48, num_test=48)
SMALL_TRAINING = JudgeTraining(num_clips=320, num_epochs=8, batch_size=32)


@pytest.fixture(scope="session")
def judge_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("judges")


@pytest.fixture(scope="session")
def judge(judge_folder: Path) -> Judge:
    """A judge good enough for sanity checks, trained once per test session in a few seconds."""
    return load_or_train_judge(judge_folder, SMALL_CORPUS, SMALL_TRAINING)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """The prepared tiny corpus and its judge."""
    folder = tmp_path_factory.mktemp("shared")
    config = tiny_config(folder)
    judge = score_set_of(config, "embedded", JudgeOptions(folder))
    return folder, {"store": prepare_data(config), "judge": judge.fingerprint()}
