"""Trainings that are a few lines of shell: what an engine does is seen without training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.engines.training import Training


@dataclass
class Script(Training):
    """Runs its config, as a script, in its work dir; ``$resume`` is ``--resume`` or nothing."""

    @property
    def command(self) -> list[str]:
        """What is launched."""
        resume = "--resume" if "--resume" in self.options else ""
        return ["sh", "-c", f"cd '{self.work_dir}'; resume={resume}\n{self.config}"]


def scripts(root: Path, **of: str) -> list[Script]:
    """Return one for each name."""
    return [Script(name, script, root / name) for name, script in of.items()]
