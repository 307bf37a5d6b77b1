"""What a committed result must say of itself: command, commit, device, date, versions."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from pathlib import Path

import torch

import smd_hooks


def provenance(command: str, seconds: float) -> list[str]:
    """Describe how a result came about, as lines of Markdown.

    Args:
        command: What was run, from the repository's root.
        seconds: How long it took, wall clock.
    """
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, "
    versions += f"smd_hooks {smd_hooks.__version__}"
    return [
        f"- command: `{command}` ({seconds:.0f} s)",
        f"- commit: {_commit()}",
        f"- device: {_device()}",
        f"- date: {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}",
        f"- versions: {versions}",
    ]


def _git(*arguments: str) -> str:
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def _commit() -> str:
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return "unknown (no git checkout)"
    changed = _git("status", "--porcelain", "--", ".", ":!results")  # which nothing reads
    return f"{commit}, with uncommitted changes" if changed else commit


def _device() -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} × {torch.cuda.get_device_name()}"
    return f"CPU, {_cpu_name()}, {os.cpu_count()} cores"


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
