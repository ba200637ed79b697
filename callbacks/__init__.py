"""Lightning callbacks, logger and checkpoint writer of the suite."""

from callbacks.atomic_checkpoint import AtomicCheckpointIO
from callbacks.audio_writer import AudioWriter
from callbacks.compile import Compile
from callbacks.ema import EMA
from callbacks.graceful_stop import GracefulStop
from callbacks.held_out_losses import HeldOutLosses
from callbacks.jsonl_logger import JSONLLogger
from callbacks.last_checkpoint import LastCheckpoint
from callbacks.progress_file import ProgressFile
from callbacks.sample_logger import SampleLogger
from callbacks.skip_non_finite import SkipNonFinite

__all__ = [
    "EMA",
    "AtomicCheckpointIO",
    "AudioWriter",
    "Compile",
    "GracefulStop",
    "HeldOutLosses",
    "JSONLLogger",
    "LastCheckpoint",
    "ProgressFile",
    "SampleLogger",
    "SkipNonFinite",
]
