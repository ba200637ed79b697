"""Systems: the LightningModules of the suite."""

from mntp.systems.audio_mar import AudioMAR
from mntp.systems.audio_mntp import AudioMNTP
from mntp.systems.audio_ntp import AudioNTP
from mntp.systems.base import AudioSystem
from mntp.systems.predictions import Predictions
from mntp.systems.registry import SYSTEMS, build_system, plain_arguments, with_sampling_defaults

__all__ = [
    "SYSTEMS",
    "AudioMAR",
    "AudioMNTP",
    "AudioNTP",
    "AudioSystem",
    "Predictions",
    "build_system",
    "plain_arguments",
    "with_sampling_defaults",
]
