from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.errors import UsageError
from benchmarks.pipelines.language import GPT, check
from benchmarks.pipelines.language.token_files import Meta, write_meta
from tests.benchmarks.pipelines.language.token_folders import VOCABULARY, write_folder

MODEL = dict(type="GPT", vocab_size=VOCABULARY, block_size=8, layers=1, heads=1, width=4)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "tokens")


def config(root: Path, split: str = "train", **options: Any) -> dict[str, Any]:
    return dict(type="TokenFileDataset", data_root=str(root), split=split, block_size=8, **options)


def refused(what: Any, *args: Any) -> str:
    with pytest.raises(UsageError) as caught:
        what(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_usable_configs_pass(root: Path) -> None:
    train, val = config(root), config(root, "val", windows=3)
    for dataset in (train, val):
        check.check_dataset(dataset)
        check.check_model(dataset, MODEL)
    check.check_same_encoding(train, val)
    write_meta(root, Meta("gpt2", VOCABULARY))
    check.check_dataset(train)
    check.check_model(train, MODEL)
    check.check_same_encoding(train, val)


def test_a_missing_file_says_how_to_make_it(tmp_path: Path) -> None:
    line = refused(check.check_dataset, config(tmp_path / "data"))
    assert f"token file {tmp_path}/data/train.bin is missing" in line
    assert f"python -m benchmarks prepare text FILE... -o {tmp_path}/data'" in line
    assert f"prepare openwebtext -o {tmp_path}/data'" in line


def test_a_cut_off_file_is_no_whole_number_of_tokens(root: Path) -> None:
    path = root / "train.bin"
    path.write_bytes(path.read_bytes()[:-1])
    assert "has 399 bytes, no whole number of 2-byte tokens" in refused(
        check.check_dataset, config(root)
    )
    path.write_bytes(b"")
    assert "holds 0 tokens, fewer than the 9" in refused(check.check_dataset, config(root))


@pytest.mark.parametrize("content", ["{", "[]", '{"encoding": "gpt2", "size": 3}'])
def test_a_meta_file_that_is_none(root: Path, content: str) -> None:
    (root / "meta.json").write_text(content)
    line = refused(check.check_dataset, config(root))
    assert f"{root}/meta.json cannot be read" in line


def test_unknown_options_are_one_line(root: Path) -> None:
    line = refused(check.check_dataset, config(root, shuffle=True))
    assert "unexpected keyword argument 'shuffle'; TokenFileDataset takes data_root, split" in line


@pytest.mark.parametrize("places", [4, 16])
def test_blocks_of_another_size_than_the_models(root: Path, places: int) -> None:
    line = refused(check.check_model, config(root), {**MODEL, "block_size": places})
    assert f"dataset.block_size=8, but model.block_size={places}" in line


def test_a_model_without_its_sizes_is_left_to_say_so_itself(root: Path) -> None:
    check.check_model(config(root), {"type": "GPT", "block_size": 4})
    with pytest.raises(TypeError, match="vocab_size"):
        GPT(block_size=4, layers=1, heads=1, width=4)


def test_a_token_that_the_model_does_not_have(root: Path) -> None:
    line = refused(check.check_model, config(root), {**MODEL, "vocab_size": VOCABULARY - 1})
    assert f"train.bin holds the token {VOCABULARY - 1}" in line
    assert f"has 0 to {VOCABULARY - 2}" in line


def test_a_vocabulary_that_the_model_does_not_have(root: Path) -> None:
    write_meta(root, Meta("gpt2", 50257))
    line = refused(check.check_model, config(root), MODEL)
    assert "50,257 tokens in its vocabulary (gpt2), but the model only 11" in line
    assert line.endswith("set model.vocab_size=50257")


@pytest.mark.parametrize(
    ("place", "seen"), [(0, True), (11_150, True), (99_999, True), (5_000, False)]
)
def test_stretches_of_a_large_file_are_looked_at(
    place: int, seen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten of a hundred tokens each, evenly over all, first and last included."""
    monkeypatch.setattr(check, "LOOKED_AT", 1000)
    monkeypatch.setattr(check, "STRETCHES", 10)
    tokens = np.zeros(100_000, dtype=np.uint16)
    tokens[place] = 9
    assert check.largest_token(tokens) == (9 if seen else 0)


def test_validation_must_read_something_else(root: Path) -> None:
    train = config(root)
    assert "training and validation both read" in refused(check.check_same_encoding, train, train)


def test_validation_must_mean_the_same_by_its_tokens(root: Path, tmp_path: Path) -> None:
    other = write_folder(tmp_path / "other")
    check.check_same_encoding(config(root), config(other))  # they do not say
    write_meta(root, Meta("characters", 3, "abc"))
    write_meta(other, Meta("characters", 3, "abd"))
    line = refused(check.check_same_encoding, config(root), config(other, "val"))
    assert f"{root} and {other} differ in what their tokens mean" in line
