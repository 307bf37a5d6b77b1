from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from benchmarks.__main__ import main
from benchmarks.sweep import results
from smd_hooks.analysis.claims import ledger as ledger_module
from smd_hooks.analysis.claims.claim import Claim, Experiment, Finding
from tests.benchmarks.sweep.small import FakeTrainings, experiment, write_suite_file

LR = "optim_wrapper.optimizer.lr"
TUNE = {"option": "lr", "key": LR, "factors": [0.5, 1], "seed": 9, "metric": "accuracy/top1"}


def check(found: Experiment) -> Finding:
    return Finding(f"{len(found.runs['plain'])} runs", len(found.runs["plain"]) > 1)


def claim(name: str, experiment: str, is_control: bool = False) -> Claim:
    source, says, criterion = "the paper", "it is so", "two runs"
    return Claim(name, says, source, experiment, criterion, ("plain",), check, 1, is_control)


@pytest.fixture
def _claims(monkeypatch: pytest.MonkeyPatch) -> None:
    claims = (
        claim("first-two", "first"),
        claim("first-control", "first", is_control=True),
        claim("third-two", "third"),
        claim("elsewhere-two", "elsewhere"),
    )
    monkeypatch.setattr(ledger_module, "CLAIMS", claims)


@pytest.mark.usefixtures("_claims")
def test_results_are_written_with_their_provenance(
    tmp_path: Path, fake: FakeTrainings, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = write_suite_file(
        tmp_path,
        experiment(tmp_path, "first"),
        experiment(tmp_path, "second", tune=TUNE),
        experiment(tmp_path, "third"),
    )
    arguments = ["--only", "first", "second", "--results", "results"]
    assert main(["sweep", str(suite), *arguments]) == 0
    said = capsys.readouterr().out
    assert "claims: 1 holds, 1 fails, as it must, 1 not run" in said
    folder = Path("results")
    table = pd.read_csv(folder / "table.csv")
    assert len(table) == 4 + 4 + 4
    claims = pd.read_csv(folder / "claims.csv").set_index("claim")
    assert claims["verdict"].to_dict() == {
        "first-two": "holds",
        "first-control": "fails, as it must",
        "third-two": "not run",
    }
    seeds = pd.read_csv(folder / "seeds.csv").set_index("run")
    assert not any("tune" in name for name in seeds.index)
    assert seeds.loc["first-plain", "runs"] == 2
    tuned = pd.read_csv(folder / "tuned.csv").set_index("role")
    assert tuned["seeds"].to_dict() == {"plain": 2, "other": 2}
    assert tuned["lr"].to_dict() == {"plain": 0.1, "other": 0.1}
    readme = (folder / "README.md").read_text()
    assert "A paper." in readme
    assert f"`python -m benchmarks sweep {suite} --only first second --results results`" in readme
    assert "- runs: 12, 12 of them trained by this command" in readme
    assert "| first | Fig. 1 | full size | 4 of 4 finished |" in readme
    assert "| third | Fig. 1 |  | not run (not asked for) |" in readme
    assert "## Claims: 1 holds, 1 fails, as it must, 1 not run" in readme
    assert (
        "2 values of lr × 1 run each, the same for every one, by the last accuracy/top1" in readme
    )
    assert "on seed 9: chosen by what is reported, on the same validation images" in readme
    for name in ("claims", "tuned", "seeds"):
        assert (folder / f"{name}.md").read_text() in readme


@pytest.mark.usefixtures("_claims")
def test_what_was_there_is_not_told_as_trained(tmp_path: Path, fake: FakeTrainings) -> None:
    suite = write_suite_file(tmp_path, experiment(tmp_path, "first"))
    assert main(["sweep", str(suite)]) == 0
    assert main(["sweep", str(suite), "--results", "results"]) == 0
    readme = Path("results/README.md").read_text()
    assert "- runs: 4, 0 of them trained by this command" in readme
    assert "## Tuned" not in readme
    assert not Path("results/tuned.md").exists()


@pytest.mark.usefixtures("_claims")
def test_a_claim_that_fails_is_counted_and_is_no_failure_of_the_sweep(
    tmp_path: Path, fake: FakeTrainings, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = write_suite_file(tmp_path, experiment(tmp_path, "first", seeds=[0]))
    assert main(["sweep", str(suite)]) == 0
    assert "claims: 1 fails, 1 DOES NOT FAIL" in capsys.readouterr().out


@pytest.mark.usefixtures("_claims")
def test_runs_of_other_suites_in_the_same_folder_are_left_out(
    tmp_path: Path, fake: FakeTrainings
) -> None:
    both = write_suite_file(tmp_path, experiment(tmp_path, "first"), experiment(tmp_path, "third"))
    assert main(["sweep", str(both), "--work-dir", "here"]) == 0
    suite = write_suite_file(tmp_path, experiment(tmp_path, "first"))
    assert main(["sweep", str(suite), "--work-dir", "here", "--results", "results"]) == 0
    assert len(pd.read_csv("results/table.csv")) == 4


@pytest.mark.usefixtures("_claims")
def test_rows_not_run_are_written_too(tmp_path: Path, fake: FakeTrainings) -> None:
    suite = write_suite_file(tmp_path, experiment(tmp_path, "first"))
    assert main(["sweep", str(suite), "--no-train", "--results", "results"]) == 0
    readme = Path("results/README.md").read_text()
    assert "| first | Fig. 1 |  | not run |" in readme
    assert "## Claims: 2 not run" in readme
    assert set(pd.read_csv("results/claims.csv")["verdict"]) == {"not run"}


def test_figures_show_a_run_of_each_role(
    tmp_path: Path, fake: FakeTrainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[str, list[str]] = {}

    def draw(runs: list, path: Path) -> None:
        drawn[path.name] = [run.name for run in runs]

    monkeypatch.setattr(results, "draw_angular_updates", draw)
    monkeypatch.setattr("smd_hooks.analysis.reading.run.Run.measured", True)
    suite = write_suite_file(
        tmp_path, experiment(tmp_path, "first"), experiment(tmp_path, "second", tune=TUNE)
    )
    assert main(["sweep", str(suite), "--results", "results"]) == 0
    assert drawn == {"first.png": ["first-plain-seed0", "first-other-seed0"]}
    assert "](first.png)" in Path("results/README.md").read_text()
