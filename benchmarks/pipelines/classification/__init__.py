"""Classification in MMEngine, with torchvision's models and transforms, and timm's models.

``custom_imports = dict(imports=['benchmarks.pipelines.classification'])`` in a config registers
everything here in MMEngine's root registries.
"""

from benchmarks.pipelines.classification.cifar10 import Cifar10Dataset
from benchmarks.pipelines.classification.classifier import TorchvisionClassifier
from benchmarks.pipelines.classification.dataset import ImageFolderDataset
from benchmarks.pipelines.classification.decoding import DecodingPreprocessor, collate_encoded
from benchmarks.pipelines.classification.metric import TopKAccuracy
from benchmarks.pipelines.classification.preprocessor import ImagePreprocessor
from benchmarks.pipelines.classification.timm_classifier import TimmClassifier

__all__ = [
    "Cifar10Dataset",
    "DecodingPreprocessor",
    "ImageFolderDataset",
    "ImagePreprocessor",
    "TimmClassifier",
    "TopKAccuracy",
    "TorchvisionClassifier",
    "collate_encoded",
]
