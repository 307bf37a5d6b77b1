"""Language models in MMEngine: GPT-2 on token files in nanoGPT's layout.

``custom_imports = dict(imports=['benchmarks.pipelines.language'])`` in a config registers
everything here in MMEngine's root registries.
"""

from benchmarks.pipelines.language.dataset import TokenFileDataset
from benchmarks.pipelines.language.gpt import GPT
from benchmarks.pipelines.language.metric import TokenLoss

__all__ = ["GPT", "TokenFileDataset", "TokenLoss"]
