"""The embedded corpus: procedural sound scenes whose captions are exact by construction."""

from data_modules.scenes.corpus import EmbeddedCorpus
from data_modules.scenes.instruments import CLASSES
from data_modules.scenes.scene import SPLITS, Scene, synthesise

__all__ = ["CLASSES", "SPLITS", "EmbeddedCorpus", "Scene", "synthesise"]
