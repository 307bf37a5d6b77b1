from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from smd_hooks import load_runs
from smd_hooks.analysis.claims import ledger as ledger_module
from smd_hooks.analysis.claims.claim import CannotTell, Claim, Experiment, Finding, seed_of
from smd_hooks.analysis.claims.ledger import CLAIMS, COLUMNS, experiments, ledger
from smd_hooks.analysis.claims.text import render_ledger
from smd_hooks.analysis.reading.run import Run
from smd_hooks.records import PlannedRun, RunState, write_suite
from smd_hooks.records.state import NOT_FINITE
from tests.analysis.claims.constructed import stage_run

SCALE = "time-scaled by 50: 6,500 steps for 450,360, weight decay × 50"
FIG3 = "smd-fig3-imagenet"


def planned_run(
    name: str = "a-plain-seed0",
    role: str = "plain",
    scale: str = SCALE,
    status: str = "finished",
    why: str = "",
    root: str = "suite",
    experiment: str = FIG3,
) -> Run:
    plan = PlannedRun("config.py", experiment=experiment, role=role, scale=scale)
    state = RunState("failed", error=why) if status == "failed" else None
    run = Run(name, Path(root) / name, state=state, planned=plan)
    run.__dict__["status"] = status
    return run


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fig. 3 on three seeds; of one rescaled run nothing is left but its plan."""
    root = tmp_path_factory.mktemp("replica")
    planned = {}
    for role in ("plain", "rescaled", "noise-free"):
        for seed in range(1 if role == "noise-free" else 3):
            name = f"{FIG3}-{role}-seed{seed}"
            planned[name] = PlannedRun("config.py", experiment=FIG3, role=role, scale=SCALE)
            if (role, seed) != ("rescaled", 2):
                stage_run(root / name, rescaled=role == "rescaled", seed=seed)
    write_suite(root, planned)
    return root


def test_names_are_unique_and_every_claim_says_everything() -> None:
    names = [claim.name for claim in CLAIMS]
    assert len(set(names)) == len(names)
    for claim in CLAIMS:
        assert claim.name.startswith(claim.experiment.split("-")[0])
        told = (claim.says, claim.source, claim.experiment, claim.criterion)
        assert all(text and text.isprintable() for text in told)
        assert claim.roles
        assert claim.is_control is ("control" in claim.name)


def test_nothing_run_is_a_row_per_claim() -> None:
    rows = ledger([])
    assert tuple(rows.columns) == COLUMNS
    assert rows["claim"].tolist() == [claim.name for claim in CLAIMS]
    assert set(rows["verdict"]) == {"not run"}
    assert set(rows["measured"]) == set(rows["scale"]) == {""}
    assert set(rows["kind"]) == {"claim", "control"}


def test_a_replica_is_judged(replica: Path) -> None:
    rows = ledger(load_runs(replica)).set_index("claim")
    its = rows[rows["scale"] == SCALE]
    assert set(its["experiment"]) == {FIG3}
    verdicts = its["verdict"].to_dict()
    assert verdicts[f"{FIG3}-stage-ends"] == "holds"
    assert verdicts[f"{FIG3}-half-way"] == "holds"
    assert verdicts[f"{FIG3}-control-noise-free"] == "DOES NOT FAIL"  # it is a plain one
    assert verdicts[f"{FIG3}-rescaled"] == verdicts[f"{FIG3}-control-norm-decay"] == "not run"
    told = "rescaled: 2 of 3 finished, 1 not ended"
    assert its.loc[f"{FIG3}-rescaled", "measured"] == told
    told = "no run of norm-decay"
    assert its.loc[f"{FIG3}-control-norm-decay", "measured"] == told
    assert rows.loc["smd-fig2-norm", "verdict"] == "not run"


def test_runs_that_no_suite_planned_are_passed_over(tmp_path: Path) -> None:
    stage_run(tmp_path / f"{FIG3}-plain-seed0")
    runs = load_runs(tmp_path)
    assert experiments(runs) == []
    assert set(ledger(runs)["verdict"]) == {"not run"}


def test_experiments_are_put_together_by_seed_and_apart_by_scale() -> None:
    runs = [
        planned_run("a-plain-seed10"),
        planned_run("a-plain-seed2"),
        planned_run("a-rescaled-seed2", role="rescaled"),
        planned_run("a-plain-seed0", scale=""),
        planned_run("a-plain-seed3", status="running"),
        planned_run("a-plain-seed4", status="missing"),
        planned_run("a-plain-seed5", status="failed", why="killed"),
        planned_run("a-plain-seed6", status="failed", why=f"{NOT_FINITE} since iteration 3"),
        planned_run("a-plain-seed7", status="dead"),
        planned_run("b", experiment="b", status="running"),
        planned_run("c", experiment=""),
    ]
    scaled, full = experiments(runs)
    assert (scaled.name, scaled.scale, full.scale) == (FIG3, SCALE, "")
    assert [run.name for run in scaled.runs["plain"]] == ["a-plain-seed2", "a-plain-seed10"]
    assert set(scaled.runs) == {"plain", "rescaled"}
    names = [
        [run.name for run in of.get("plain", ())]
        for of in (scaled.diverged, scaled.failed, scaled.unfinished)
    ]
    assert names == [
        ["a-plain-seed6"],
        ["a-plain-seed5"],
        ["a-plain-seed3", "a-plain-seed4", "a-plain-seed7"],
    ]
    assert len(full.runs["plain"]) == 1


def test_scales_that_differ_by_role_are_told_by_role() -> None:
    runs = [planned_run("a", "sgd", "one"), planned_run("b", "sgdm", "two")]
    assert experiments(runs)[0].scale == "sgd: one; sgdm: two"


def test_two_scales_of_one_role_are_two_experiments() -> None:
    """The replica on digits, and that on other data, in one folder: seeds do not add up."""
    runs = [
        planned_run("a-plain-seed0", scale="digits"),
        planned_run("b-plain-seed1", scale="photos"),
        planned_run("a-rescaled-seed0", role="rescaled", scale="digits"),
        planned_run("a-noise-free", role="noise-free", scale="digits without noise"),
    ]
    found = {one.scale: one for one in experiments(runs)}
    assert set(found) == {"digits", "photos", "digits without noise"}
    assert {role: len(of) for role, of in found["digits"].runs.items()} == {
        "plain": 1,
        "rescaled": 1,
    }
    assert set(found["photos"].runs) == {"plain"}
    rows = ledger(runs).set_index(["claim", "scale"])["measured"]
    assert rows[f"{FIG3}-stage-ends", "photos"] == "plain has 1 of 3 seeds"
    assert rows[f"{FIG3}-rescaled", "photos"] == "no run of rescaled"


DIVERGED = f"{NOT_FINITE} since iteration 3"


@pytest.mark.parametrize(
    ("ends", "told"),
    [
        ("finished finished killed", "plain: 2 of 3 finished, 1 failed (killed)"),
        ("finished finished running", "plain: 2 of 3 finished, 1 not ended"),
        ("finished dead killed", "plain: 1 of 3 finished, 1 failed, 1 not ended (killed)"),
        ("finished finished diverged", f"plain: 2 of 3 finished, 1 diverged ({DIVERGED})"),
        ("killed killed killed", "plain: 0 of 3 finished, 3 failed (killed)"),
        ("diverged diverged diverged", f"plain: 0 of 3 finished, 3 diverged ({DIVERGED})"),
    ],
)
def test_nothing_is_judged_by_the_survivors(
    monkeypatch: pytest.MonkeyPatch, ends: str, told: str
) -> None:
    row = row_of(monkeypatch, always_holds(), *ended(ends))
    assert (row["verdict"], row["measured"]) == ("not run", told)


def ended(ends: str) -> list[Run]:
    return [
        planned_run(f"plain-seed{seed}", status="failed", why=end.replace("diverged", DIVERGED))
        if end in ("killed", "diverged")
        else planned_run(f"plain-seed{seed}", status=end)
        for seed, end in enumerate(ends.split())
    ]


def always_holds() -> Claim:
    return given_claim(lambda e: Finding("so it is", True))


def test_roles_that_a_claim_does_not_need_may_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [planned_run(), planned_run("other", role="rescaled", status="failed", why="killed")]
    assert row_of(monkeypatch, always_holds(), *runs)["verdict"] == "holds"


@pytest.mark.parametrize(
    ("ends", "verdict"),
    [
        ("finished diverged", "holds"),
        ("finished diverged killed", "not run"),  # an interruption is no outcome
        ("finished diverged dead", "not run"),
        ("diverged diverged", "not run"),
    ],
)
def test_in_grids_to_diverge_is_an_outcome(
    monkeypatch: pytest.MonkeyPatch, ends: str, verdict: str
) -> None:
    grid = dataclasses.replace(always_holds(), diverged_counts=True)
    assert row_of(monkeypatch, grid, *ended(ends))["verdict"] == verdict


def test_grids_are_those_of_learning_rates() -> None:
    grids = {claim.experiment for claim in CLAIMS if claim.diverged_counts}
    assert grids == {"warmup-gpt", "warmup-imagenet", "warmup-coco", "re-imagenet-large-batch"}


def test_the_same_scale_in_two_folders_is_told_apart() -> None:
    runs = [planned_run(root="work_dirs/x"), planned_run(root="work_dirs/y")]
    assert [one.scale for one in experiments(runs)] == [f"{SCALE} [x]", f"{SCALE} [y]"]
    full = [planned_run(scale="", root=root) for root in ("x", "y")]
    assert [one.scale for one in experiments(full)] == ["[x]", "[y]"]


def given_claim(check: object, control: bool = False) -> Claim:
    return dataclasses.replace(
        CLAIMS[0], experiment=FIG3, roles=("plain",), seeds=1, check=check, is_control=control
    )


def row_of(monkeypatch: pytest.MonkeyPatch, claim: Claim, *runs: Run) -> dict[str, str]:
    monkeypatch.setattr(ledger_module, "CLAIMS", (claim,))
    (row,) = ledger(runs or [planned_run()]).to_dict("records")
    return row


@pytest.mark.parametrize(
    ("holds", "control", "verdict"),
    [
        (True, False, "holds"),
        (False, False, "fails"),
        (None, False, "not decided"),
        (True, True, "fails, as it must"),
        (False, True, "DOES NOT FAIL"),
        (None, True, "not decided"),
    ],
)
def test_verdicts(
    monkeypatch: pytest.MonkeyPatch, holds: bool | None, control: bool, verdict: str
) -> None:
    row = row_of(monkeypatch, given_claim(lambda e: Finding("so it is", holds), control))
    assert (row["verdict"], row["measured"], row["scale"]) == (verdict, "so it is", SCALE)


def test_what_cannot_be_told_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(experiment: Experiment) -> Finding:
        raise CannotTell("nobody looked")

    row = row_of(monkeypatch, given_claim(check))
    assert (row["verdict"], row["measured"]) == ("not run", "nobody looked")


def test_what_goes_wrong_costs_one_row_and_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(experiment: Experiment) -> Finding:
        raise KeyError("a\nb")

    with pytest.warns(UserWarning, match="not readable"):
        row = row_of(monkeypatch, given_claim(check))
    assert row["verdict"] == "not run"
    assert "\n" not in row["measured"]


def test_a_broken_record_costs_only_what_needs_it(tmp_path: Path) -> None:
    name = f"{FIG3}-noise-free-seed0"
    stage_run(tmp_path / name)
    plan = PlannedRun("config.py", experiment=FIG3, role="noise-free")
    write_suite(tmp_path, {name: plan})
    runs = load_runs(tmp_path)
    runs[0].weights.loc[0, "rule"] = None
    runs[0].weights["statistic"] = [{}, "x", math.nan]
    rows = ledger(runs)
    assert len(rows) == len(CLAIMS)


def test_each_run_is_measured_once_and_forgotten(replica: Path) -> None:
    calls = []

    def measure(run: Run) -> int:
        calls.append(run.name)
        return len(run.samples)

    (found,) = experiments(load_runs(replica))
    assert found.facts("plain", measure) == found.facts("plain", measure)
    assert list(found.by_seed("plain", measure)) == [0, 1, 2]
    assert len(calls) == 3
    assert not any("samples" in run.__dict__ for run in found.runs["plain"])


def test_seeds_come_from_the_config_or_the_folder() -> None:
    assert seed_of(planned_run("a-plain-seed12")) == 12
    assert seed_of(planned_run("a-plain-lr0.1-seed_3")) == 3
    assert seed_of(planned_run("linseed7b")) is None
    run = planned_run("a-plain-seed12")
    run.config = {"randomness": {"seed": 5}}
    assert seed_of(run) == 5


def test_text_for_a_terminal(replica: Path) -> None:
    text = render_ledger(ledger(load_runs(replica)), 80)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert f"{FIG3}, {SCALE}"[:60] in text
    assert f"  holds              {FIG3}-stage-ends" in lines
    assert "not run: smd-fig2-gradient, smd-fig2-norm" in text
    # the noise-free run is a plain one: neither its closed form nor ‖g̃‖² alone fails; and after
    # 15 epochs stage 2 is where theory says
    told = f"4 × holds, 1 × fails, 2 × DOES NOT FAIL, {len(CLAIMS) - 7} × not run"
    assert lines[-1] == told
    assert "full size" not in text
