from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from smd_hooks.analysis import Run, load_runs
from smd_hooks.analysis.report.early_sizes import MEASURES, POINTS, SHARE, early_sizes
from tests.analysis.report.sweep_runs import first_updates, layer_rows, write_run

MATRICES = 7
NAMES = [f"blocks.{i}.mlp.up.weight" for i in range(MATRICES)]


def _run(
    folder: Path,
    total: int,
    interval: int = 1,
    noise_interval: int | None = None,
    warmup: float = 0,
) -> Run:
    """Matrix i turns by i + 1 mrad times lognormal noise, and by nothing at the first step."""
    steps = range(0, total, interval)
    samples = first_updates(MATRICES, 0.0, steps, total)
    noise = np.random.default_rng(0).lognormal(0, 0.5, len(samples["step"]))
    samples["angular_update"] = samples["angular_update"] * noise * (samples["step"] > 0)
    layers = layer_rows(NAMES, range(0, total, noise_interval)) if noise_interval else None
    lines = [{"lr": 0.1, "loss": 2.0, "step": 2 * total}]
    write_run(folder, lines, 0, samples, layers, MATRICES, total)
    (run,) = load_runs(folder)
    return run


def test_quantiles_over_matrices_of_each_step(tmp_path: Path) -> None:
    """A plain loop over steps knows them too."""
    run = _run(tmp_path / "run", 300)
    sizes = early_sizes(run)
    course = sizes.courses["angular_update"]
    samples = run.samples
    assert sizes.layers == MATRICES
    assert course.steps.tolist() == list(range(1, 30))  # none turned at step 0
    for i, step in enumerate(course.steps):
        angles = sorted(samples[samples["step"] == step]["angular_update"])
        assert course.median[i] == pytest.approx(angles[3])
        assert course.low[i] == pytest.approx(angles[0] + 0.6 * (angles[1] - angles[0]))
        assert course.high[i] == pytest.approx(angles[5] + 0.4 * (angles[6] - angles[5]))


def test_a_tenth_of_optimizer_steps_not_of_iterations(tmp_path: Path) -> None:
    """Two micro-batches a step: of 600 iterations 300 are steps, and 30 of them are shown."""
    for interval in (1, 7, 50):
        run = _run(tmp_path / str(interval), 300, interval)
        assert run.iterations == 600
        sizes = early_sizes(run)
        assert sizes.end == pytest.approx(SHARE * 300)
        assert sizes.courses["update_norm"].steps.max() == 29 // interval * interval


def test_each_measure_at_its_own_interval(tmp_path: Path) -> None:
    courses = early_sizes(_run(tmp_path / "run", 300, 1, noise_interval=10)).courses
    assert set(courses) == set(MEASURES)
    assert len(courses["update_norm"].steps) == 30
    assert courses["signal_to_noise"].steps.tolist() == [0, 10, 20]
    assert courses["signal_to_noise"].median == pytest.approx(0.5)
    assert courses["relative_representation_change"].median == pytest.approx(0.02)


def test_what_was_not_measured_has_no_course(tmp_path: Path) -> None:
    assert set(early_sizes(_run(tmp_path / "some", 300)).courses) == {
        "update_norm",
        "angular_update",
    }
    write_run(tmp_path / "none", [{"lr": 0.1, "loss": 2.0, "step": 10}], 0)
    (run,) = load_runs(tmp_path / "none")
    assert early_sizes(run).courses == {}
    assert early_sizes(run).layers == 0


def test_long_courses_are_thinned_evenly_and_keep_their_ends(tmp_path: Path) -> None:
    course = early_sizes(_run(tmp_path / "run", 10 * 5 * POINTS)).courses["update_norm"]
    assert len(course.steps) == POINTS
    assert (course.steps[0], course.steps[-1]) == (0, 5 * POINTS - 1)
    assert set(np.diff(course.steps)) <= {5, 6}
    assert len(course.median) == len(course.low) == len(course.high) == POINTS
