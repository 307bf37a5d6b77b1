"""ImageNet-style classification in MMEngine, with torchvision's models and transforms.

``custom_imports = dict(imports=['benchmarks.pipelines.classification'])`` in a config registers
everything here in MMEngine's root registries.
"""

from benchmarks.pipelines.classification.classifier import TorchvisionClassifier
from benchmarks.pipelines.classification.dataset import ImageFolderDataset
from benchmarks.pipelines.classification.metric import TopKAccuracy
from benchmarks.pipelines.classification.preprocessor import ImagePreprocessor

__all__ = ["ImageFolderDataset", "ImagePreprocessor", "TopKAccuracy", "TorchvisionClassifier"]
