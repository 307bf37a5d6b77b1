"""All measures of size in a real MMEngine run of a small GPT."""

from __future__ import annotations

import uuid
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.pipelines.language.gpt import GPT
from smd_hooks import LionAR, agreement_table, load_runs
from smd_hooks.analysis import Run
from smd_hooks.theory import RotationalRule, UpdateRule

LAYERS, BLOCK, VOCABULARY = 2, 16, 23
STEPS, REPRESENTATION, NOISE = 20, 5, 4


def sequences() -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    starts = torch.randint(VOCABULARY, (4 * 2 * STEPS,), generator=generator)
    tokens = [(start + torch.arange(BLOCK + 1)) % VOCABULARY for start in starts]
    return [{"inputs": each[:-1], "targets": each[1:]} for each in tokens]


def train(folder: Path, make: Any) -> Run:
    torch.manual_seed(0)
    model = GPT(VOCABULARY, BLOCK, LAYERS, heads=2, width=8)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0}
    hook = {
        "type": "SMDHook",
        "interval": 1,
        "representation": {"layers": "blocks.*", "interval": REPRESENTATION},
        "noise": {"layers": "*", "interval": NOISE},
    }
    Runner(
        model=model,
        work_dir=str(folder),
        train_dataloader=DataLoader(sequences(), batch_size=4),
        train_cfg={"by_epoch": False, "max_iters": 2 * STEPS},
        optim_wrapper=OptimWrapper(make([{"params": matrices}, vectors]), accumulative_counts=2),
        custom_hooks=[hook],
        default_scope="mmengine",
        log_level="ERROR",
        experiment_name=uuid.uuid4().hex,
    ).train()
    (run,) = load_runs(folder)
    return run


def test_every_matrix_of_a_gpt_has_every_measure(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        run = train(tmp_path, lambda groups: torch.optim.AdamW(groups, 1e-3, weight_decay=0.1))
    frame = run.size_measures
    inner = [
        f"blocks.{i}.{part}.weight"
        for i in range(LAYERS)
        for part in ("attention.qkv", "attention.out", "mlp.up", "mlp.down")
    ]
    embeddings = ["embedding.token.weight", "embedding.position.weight"]
    assert list(dict.fromkeys(frame["parameter"])) == [*embeddings, *inner]
    for name, of_it in frame.groupby("parameter"):
        assert of_it["step"].tolist() == list(range(STEPS))
        measured = {key: of_it["step"][of_it[key].notna()].tolist() for key in frame.columns[2:]}
        assert measured["update_norm"] == measured["angular_update"] == list(range(STEPS))
        at = list(range(0, STEPS, REPRESENTATION))
        # the head borrows the embedding's weight: there is no response of a layer to compare
        assert measured["relative_representation_change"] == (at if name in inner else [])
        assert measured["gradient_momentum_alignment"] == list(range(NOISE, STEPS, NOISE))
        assert measured["signal_to_noise"] == measured["critical_batch_size"]
    of_rows = frame["signal_to_noise"] * frame["critical_batch_size"]
    assert of_rows.dropna().to_numpy() == pytest.approx(1.0)
    assert frame["gradient_momentum_alignment"].dropna().abs().le(1).all()
    # every sequence says the same of what follows what: all layers see a signal at the start
    early = frame[frame["step"] == 0]
    assert early["signal_to_noise"].gt(0).all()
    assert early["angular_update"].between(1e-4, 1).all()


def test_the_table_says_that_nothing_is_scale_invariant_and_why(tmp_path: Path) -> None:
    run = train(tmp_path, lambda groups: LionAR(groups, 1e-3, weight_decay=0.1))
    (row,) = agreement_table([run]).to_dict("records")
    assert row["si_params"] == f"0/{2 + 4 * LAYERS}"
    assert row["verdict"] == (
        "nothing is scale-invariant: reaches a sum with something else (residual, bias or lateral "
        "connection) before any norm; the optimizer sets the angle of 10 of 10 matrices all the "
        "same"
    )
    (rule,) = {UpdateRule.from_json(told) for told in run.weights["rule"].dropna()}
    assert isinstance(rule, RotationalRule)
    angles = run.samples["angular_update"].to_numpy()
    assert angles == pytest.approx(rule.angular_update, rel=1e-4)
