"""The embedded corpus: procedural sound scenes whose captions are exact by construction."""

from data_modules.scenes.corpus import EmbeddedCorpus
from data_modules.scenes.scene import SPLITS, Scene, synthesise
from data_modules.scenes.sources import CLASSES

__all__ = ["CLASSES", "SPLITS", "EmbeddedCorpus", "Scene", "synthesise"]
