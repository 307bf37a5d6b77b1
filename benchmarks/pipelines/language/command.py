"""``python -m benchmarks prepare``: token files for the language pipeline."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from benchmarks.errors import UsageError
from benchmarks.pipelines.demo_data.text import TEXT
from benchmarks.pipelines.language.encodings import ENCODINGS
from benchmarks.pipelines.language.openwebtext import prepare_openwebtext
from benchmarks.pipelines.language.prepare import VAL_SHARE, prepare_text
from benchmarks.pipelines.language.token_files import SPLITS, TOKEN, read_meta


def add_parser(commands: Any) -> None:
    """Add the ``prepare`` command; each source of text is a command below it."""
    parser = commands.add_parser("prepare", help="make token files of text", description=__doc__)
    sources = parser.add_subparsers(dest="source", required=True)
    text = sources.add_parser("text", help="of text files in UTF-8")
    text.add_argument(
        "files", nargs="*", type=Path, metavar="FILE", help=f"default: the shipped {TEXT.name}"
    )
    text.add_argument("--tokens", choices=ENCODINGS, default=ENCODINGS[0])
    text.add_argument(
        "--val-share",
        type=float,
        default=VAL_SHARE,
        help="the part at the end that is for validation (default: %(default)s)",
    )
    text.set_defaults(run=run_text)
    web = sources.add_parser("openwebtext", help="of OpenWebText, by the library datasets")
    web.add_argument(
        "--workers", type=int, default=os.cpu_count(), help="processes (default: %(default)s)"
    )
    web.set_defaults(run=run_openwebtext)
    for source in (text, web):
        source.add_argument(
            "-o", "--output", type=Path, required=True, metavar="DIR", help="a folder to be made"
        )


def run_text(args: argparse.Namespace) -> int:
    """Write text files as tokens; 0."""
    _refuse_what_is_there(args.output)
    prepare_text(args.files or [TEXT], args.output, args.tokens, args.val_share)
    return _say(args.output)


def run_openwebtext(args: argparse.Namespace) -> int:
    """Write OpenWebText as tokens; 0."""
    if args.workers < 1:
        raise UsageError(f"--workers {args.workers}: give 1 or more")
    _refuse_what_is_there(args.output)
    prepare_openwebtext(args.output, args.workers)
    return _say(args.output)


def _refuse_what_is_there(folder: Path) -> None:
    if folder.exists():
        raise UsageError(f"{folder} is there already: remove it or choose another with -o")


def _say(folder: Path) -> int:
    counts = [(folder / f"{split}.bin").stat().st_size // TOKEN.itemsize for split in SPLITS]
    meta = read_meta(folder)
    assert meta is not None
    train, val = counts
    print(
        f"wrote {folder}: {train:,} tokens to train with, {val:,} to validate with, "
        f"vocab_size {meta.vocab_size:,} ({meta.encoding})"
    )
    return 0
