from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from smd_hooks import SMDHook, load_runs
from smd_hooks.hooks.verdict_text import describe_verdicts
from smd_hooks.measure.invariance import Verdict
from smd_hooks.measure.invariance_watch import Findings
from smd_hooks.measure.joint_groups import JointGroup
from tests.conftest import ROOT
from tests.hooks.runs import tiny_runner


def smd_folder(work_dir: Path) -> Path:
    return next(work_dir.glob("*_*/smd"))


def test_a_run_leaves_records_verdicts_and_a_finished_state(tmp_path: Path) -> None:
    runner = tiny_runner(tmp_path, [{"type": "SMDHook", "interval": 2}])
    runner.train()
    (run,) = load_runs(tmp_path)
    assert run.status == "finished"
    assert sorted(set(run.samples["step"])) == list(range(0, 40, 2))
    weights = run.weights.set_index("parameter")
    assert weights["scale_invariant"].to_dict() == {
        "conv.weight": True,
        "fc.weight": False,
        "bn.weight": False,
        "bn.bias": False,
        "fc.bias": False,
    }
    assert weights.loc["conv.weight", "reason"] == "normalized by bn"
    assert weights.loc["conv.weight", "rule"]["momentum"] == 0.9
    assert "before any norm" in weights.loc["fc.weight", "reason"]
    assert run.scores["trajectory_error"].iloc[0] < 0.05


def test_at_most_four_numbers_reach_the_console_and_no_series(tmp_path: Path) -> None:
    runner = tiny_runner(tmp_path, [{"type": "SMDHook", "interval": 1}], iterations=120)
    runner.train()
    ours = {name for name in runner.message_hub.log_scalars if "smd" in name}
    assert ours == {"train/smd_ratio", "train/smd_p05", "train/smd_p95"}
    lines = next(tmp_path.glob("*/vis_data/scalars.json")).read_text().splitlines()
    last = json.loads(lines[-1])
    assert last["smd_p05"] <= last["smd_ratio"] <= last["smd_p95"]


def test_a_resumed_run_is_stitched_at_its_checkpoint(tmp_path: Path) -> None:
    hooks = [{"type": "SMDHook", "interval": 1}]
    first = tiny_runner(tmp_path, hooks, iterations=30)
    first.train()
    first_folder = smd_folder(tmp_path).parent
    first_folder.rename(first_folder.with_name("20000101_000000"))  # a launch of its own second
    second = tiny_runner(
        tmp_path, hooks, iterations=40, resume=True, load_from=str(tmp_path / "iter_20.pth")
    )
    second.train()
    (run,) = load_runs(tmp_path)
    assert len(run.launches) == 2
    assert run.launches[1].weights["first_step"].dropna().tolist() == [20, 20]
    steps = run.samples[run.samples["weight"] == 0]["step"].tolist()
    assert steps == list(range(40))


def test_optimizer_steps_are_counted_and_iterations_kept(tmp_path: Path) -> None:
    runner = tiny_runner(tmp_path, [{"type": "SMDHook", "interval": 1}], accumulation=4)
    runner.train()
    (run,) = load_runs(tmp_path)
    conv = run.samples[run.samples["weight"] == 0]
    assert conv["step"].tolist() == list(range(10))
    assert conv["iteration"].tolist() == list(range(3, 40, 4))


def test_an_optimizer_that_theory_does_not_know_is_measured_without_prediction(
    tmp_path: Path,
) -> None:
    runner = tiny_runner(
        tmp_path,
        [{"type": "SMDHook", "interval": 1}],
        optimizer=lambda model: torch.optim.RMSprop(model.parameters()),
    )
    runner.train()
    (run,) = load_runs(tmp_path)
    assert run.weights["no_prediction"].iloc[0].startswith("no prediction for RMSprop")
    assert len(run.samples) == 80
    assert len(run.predicted) == 0


@pytest.mark.parametrize("interval", [0, -1, 1.5, "50", None, True])
def test_a_senseless_interval_is_refused_in_one_line(interval: object) -> None:
    with pytest.raises(ValueError, match=r"SMDHook: interval must be .* got") as error:
        SMDHook(interval=interval)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_our_errors_survive_mmengines_call_hook(tmp_path: Path) -> None:
    """``call_hook`` re-raises a TypeError without its frames; ours must be no TypeErrors."""
    runner = tiny_runner(
        tmp_path,
        [{"type": "EquilibriumRescaleHook"}],
        optimizer=lambda model: torch.optim.Adam(model.parameters(), weight_decay=0.1),
    )
    with pytest.raises(RuntimeError, match=r"EquilibriumRescaleHook: .*Adam with L2"):
        runner.train()


def test_in_another_launcher_an_exception_leaves_readable_records(tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        import sys
        sys.path.insert(0, {str(ROOT)!r})
        from pathlib import Path
        from mmengine.hooks import Hook
        from tests.hooks.runs import tiny_runner
        import smd_hooks

        class Fail(Hook):
            def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
                if runner.iter == 25:
                    raise OSError("the disk went away")

        runner = tiny_runner(Path({str(tmp_path)!r}), [dict(type="SMDHook", interval=1)])
        runner.register_hook(Fail())
        runner.train()
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    (run,) = load_runs(tmp_path)
    assert run.status == "failed"
    assert run.state is not None
    assert run.state.error == "OSError: the disk went away"
    assert run.samples["step"].max() == 25


def test_names_reach_the_registry_in_either_order_of_imports(tmp_path: Path) -> None:
    for first, second in (("smd_hooks", "mmengine"), ("mmengine", "smd_hooks")):
        script = (
            f"import {first}, {second}; from mmengine.registry import HOOKS; "
            "smd_hooks.StepProbe; assert HOOKS.get('SMDHook'), 'not registered'"
        )
        subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_the_command_line_needs_neither_torch_nor_mmengine() -> None:
    script = (
        "import sys, smd_hooks, smd_hooks.cli; smd_hooks.load_runs; "
        "assert not {'torch', 'mmengine'} & set(sys.modules), 'heavy'"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


VERDICTS = [
    Verdict("a.weight", (2, 2), True, 1e-9, 8, "normalized by n"),
    *(Verdict(f"b{i}.weight", (2, 2), False, 1.0, 8, "frozen") for i in range(8)),
    Verdict("c.weight", (2, 2), False, 1.0, 8, "only jointly with d"),
    Verdict("d.weight", (2, 2), False, 1.0, 8, "only jointly with c"),
    Verdict("c.bias", (2,), False, None, 0, "gain or bias"),
]
GROUP = JointGroup(("c.weight", "d.weight"), 1e-9, 8, ("n",), "normalized by n")


def test_verdicts_are_told_by_reason_in_few_words() -> None:
    text = describe_verdicts(Findings((0,), VERDICTS, [GROUP]))
    assert text.splitlines() == [
        "SMD: 3 of 11 weight matrices are scale-invariant.",
        "  jointly: c + d",
        "  left out, frozen: b0, b1, b2, b3, b4, b5 and 2 more",
    ]


def test_the_second_time_only_what_changed_is_told() -> None:
    first = Findings((0,), VERDICTS, [GROUP])
    thawed = replace(VERDICTS[1], scale_invariant=True, reason="normalized by n")
    second = Findings((700,), [VERDICTS[0], thawed, *VERDICTS[2:]], [GROUP])
    assert describe_verdicts(second, first).splitlines() == [
        "SMD: 4 of 11 weight matrices are scale-invariant from step 700 on.",
        "  jointly: c + d",
        "  now scale-invariant: b0",
    ]


def test_resuming_a_finished_run_keeps_what_it_measured(tmp_path: Path) -> None:
    hooks = [{"type": "SMDHook", "interval": 1}]
    tiny_runner(tmp_path, hooks, iterations=40).train()
    smd_folder(tmp_path).parent.rename(tmp_path / "20000101_000000")
    checkpoint = str(tmp_path / "iter_40.pth")
    tiny_runner(tmp_path, hooks, 40, resume=True, load_from=checkpoint).train()
    (run,) = load_runs(tmp_path)
    assert run.weights.set_index("parameter").loc["conv.weight", "scale_invariant"]
    assert len(run.samples) == 80
    assert run.scores["parameter"].tolist() == ["conv.weight"]


def test_two_of_them_are_refused(tmp_path: Path) -> None:
    runner = tiny_runner(tmp_path, [{"type": "SMDHook"}, {"type": "SMDHook", "interval": 7}])
    with pytest.raises(RuntimeError, match="in the config twice"):
        runner.train()


def test_weights_taken_from_another_run_do_not_bring_its_steps(tmp_path: Path) -> None:
    hooks = [{"type": "SMDHook", "interval": 1}]
    tiny_runner(tmp_path / "first", hooks, iterations=20).train()
    checkpoint = str(tmp_path / "first" / "iter_20.pth")
    tiny_runner(tmp_path / "tuned", hooks, iterations=20, load_from=checkpoint).train()
    (run,) = load_runs(tmp_path / "tuned")
    assert sorted(set(run.samples["step"])) == list(range(20))
    assert run.weights["first_step"].dropna().tolist() == [0, 0]
