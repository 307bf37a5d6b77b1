"""The demo's text: a novel that is in the public domain, see ``persuasion/README.md``."""

from __future__ import annotations

from pathlib import Path

from benchmarks.pipelines.language.prepare import prepare_text

TEXT = Path(__file__).parent / "persuasion" / "persuasion.txt"
TEXT_FOLDER = "text"


def write_text(root: Path) -> Path:
    """Write the novel as token files, a token per character: the last tenth is for validation.

    The set appears under its name only when whole; one that is there already is left alone.

    Args:
        root: folder to hold the set; made if missing.

    Returns:
        ``root/text``, holding ``{train,val}.bin`` and ``meta.json``.
    """
    return prepare_text([TEXT], root / TEXT_FOLDER)
