"""Several runs as one: mean and standard deviation over seeds, and differences."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Hashable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pandas as pd

from ..reading.run import Run
from ..reading.scalars import METRICS

AVERAGED = (
    *(*METRICS, "angle_ratio", "angle_ratio_p05", "angle_ratio_p95", "in_equilibrium"),
    *("trajectory_error", "norm_ratio"),
)
SETTING = ("task", "dataset", "model", "optimizer", "lr", "weight_decay", "batch_size", "iters")
_ENDED = ("finished", "unfinished")  # the latter are foreign runs that do not say
_SEED = re.compile(r"(?:^|[-_./])seed[-_=]?\d+(?![A-Za-z0-9])")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_NO_SETTING = ("work_dir", "resume", "launcher", "log_level", "visualizer", "vis_backends")


def over_seeds(table: pd.DataFrame, runs: Sequence[Run]) -> pd.DataFrame:
    """Put runs together that differ in nothing but their seed.

    That is: whose configs are equal but for the seed, and for where and how they were
    launched. Runs without a config (missing ones) go with those whose name is the same but
    for ``seed<number>``.

    Args:
        table: What :func:`~smd_hooks.analysis.table.table.agreement_table` returned.
        runs: The runs that it was made of.

    Returns:
        What :func:`group_rows` does.
    """
    return group_rows(table, seed_groups(runs))


def by_columns(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Put runs together that agree in some columns of the table.

    Returns:
        What :func:`group_rows` does.

    Raises:
        ValueError: A column is none that runs can be put together by.
    """
    known = [*SETTING, "seed", "status"]
    for name in columns:
        if name not in known:
            raise ValueError(f"--by: runs cannot be grouped by '{name}', but by {', '.join(known)}")
    cells = table[list(columns)].astype(object).where(table[list(columns)].notna(), None)
    return group_rows(table, [tuple(row) for row in cells.to_numpy()])


def group_rows(table: pd.DataFrame, keys: Sequence[Hashable]) -> pd.DataFrame:
    """Return one row for all rows of a key, in the order of their first.

    Each metric has a ``_mean`` and a ``_std`` (of the sample, ddof = 1; empty for one run)
    over the runs that ended; ``runs`` is their number. Failed, missing, dead and running
    ones are counted in ``status`` only. A setting is there where all agree in it; ``verdict``
    is the most frequent one.
    """
    rows = [_together(table.iloc[places]) for places in _places(keys)]
    metrics = [f"{name}_{part}" for name in AVERAGED for part in ("mean", "std")]
    before = ["run", "runs", "status", *SETTING, "seed"]
    return pd.DataFrame(rows, columns=[*before, *metrics, "si_params", "verdict"])


def compare(table: pd.DataFrame, runs: Sequence[Run], a: str, b: str) -> pd.DataFrame:
    """Return the difference of two runs, or groups of them, metric by metric: B − A.

    Args:
        table: What :func:`~smd_hooks.analysis.table.table.agreement_table` returned.
        runs: The runs that it was made of.
        a: A run's name; or the name that :func:`over_seeds` gives a group; or a shell
            pattern that names match.
        b: Likewise.

    Returns:
        One row per metric that either has: ``metric``, then ``<A>_mean``, ``<A>_std``,
        ``<A>_runs``, the same of B, ``difference`` and ``standard_error``, which comes of
        the pooled standard deviation and is empty where each is a single run.

    Raises:
        ValueError: A and B are the same, or one of them matches no run that ended.
    """
    if a == b:
        raise ValueError(f"--compare: '{a}' is compared with itself")
    chosen = [_chosen(table, runs, name) for name in (a, b)]
    if len(chosen[0].index.intersection(chosen[1].index)):
        raise ValueError(f"--compare: '{a}' and '{b}' have runs in common")
    rows = []
    for metric in AVERAGED:
        first, second = (frame[metric].astype(float).dropna().to_numpy() for frame in chosen)
        if len(first) or len(second):
            rows.append([metric, *_mean(first), *_mean(second), *_difference(first, second)])
    sides = [f"{name}_{part}" for name in (a, b) for part in ("mean", "std", "runs")]
    return pd.DataFrame(rows, columns=["metric", *sides, "difference", "standard_error"])


def seed_groups(runs: Sequence[Run]) -> list[Hashable]:
    """Return a key for each run; runs that differ in their seed only have the same."""
    keys: list[Hashable] = [_setting(run) if run.config else None for run in runs]
    of_stem = defaultdict(set)
    for run, key in zip(runs, keys, strict=True):
        if key is not None:
            of_stem[_stem(run.name)].add(key)
    for place, run in enumerate(runs):
        if keys[place] is None:
            known = of_stem.get(_stem(run.name), set())
            keys[place] = next(iter(known)) if len(known) == 1 else ("without", _stem(run.name))
    return keys


def _setting(run: Run) -> tuple[str, int]:
    config = {k: v for k, v in run.config.items() if k not in _NO_SETTING}
    randomness = config.get("randomness")
    if isinstance(randomness, dict):
        config["randomness"] = {k: v for k, v in randomness.items() if k != "seed"}
    return json.dumps(_plain(config), sort_keys=True), run.gpus


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return sorted(map(repr, value)) if isinstance(value, set) else value


def _stem(name: str) -> str:
    return _SEED.sub("", name).strip("/") or name


def _places(keys: Sequence[Hashable]) -> list[list[int]]:
    """Rows of each key, in the order of their first."""
    places: dict[Hashable, list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, []).append(place)
    return list(places.values())


def _label(names: pd.Series) -> str:
    return ", ".join(dict.fromkeys(map(_stem, names)))


def _together(rows: pd.DataFrame) -> dict[str, Any]:
    ended = rows[rows["status"].isin(_ENDED)]
    counts = rows["status"].value_counts(sort=False)
    result: dict[str, Any] = {
        "run": _label(rows["run"]),
        "runs": len(ended),
        "status": ", ".join(f"{n} {status}" for status, n in counts.items()),
        "seed": " ".join(f"{seed:.0f}" for seed in rows["seed"].dropna()) or None,
        "verdict": most_frequent(ended["verdict"] if len(ended) else rows["verdict"]),
    }
    for name in (*SETTING, "si_params"):
        told = (ended if len(ended) else rows)[name].dropna()
        result[name] = told.iloc[0] if told.nunique() == 1 else None
    for name in AVERAGED:
        mean, std, _ = _mean(ended[name].astype(float).dropna().to_numpy())
        result |= {f"{name}_mean": mean, f"{name}_std": std}
    return result


def most_frequent(verdicts: pd.Series) -> str | None:
    """Return the verdict of most runs, whatever its numbers, and of how many; all on a tie."""
    told = verdicts.dropna()
    if not len(told):
        return None
    alike = told.map(lambda verdict: _NUMBER.sub("#", verdict))  # but for its numbers
    counts = alike.value_counts(sort=False)
    most = counts[counts == counts.max()]
    found = [str(told[alike == kind].iloc[0]) for kind in most.index]
    if len(most) == len(told) > 1:
        return "; ".join(found)
    share = "" if counts.max() == len(told) else f" ({counts.max()} of {len(told)})"
    return "; ".join(f"{verdict}{share}" for verdict in found)


def _chosen(table: pd.DataFrame, runs: Sequence[Run], name: str) -> pd.DataFrame:
    """The rows that a name stands for, those that ended."""
    rows = table[table["run"] == name]
    if not len(rows):
        groups = [table.iloc[places] for places in _places(seed_groups(runs))]
        called = [group for group in groups if _label(group["run"]) == name]
        if len(called) > 1:
            raise ValueError(f"--compare: '{name}' stands for {len(called)} groups of runs")
        rows = called[0] if called else rows
    if not len(rows):
        rows = table[[fnmatchcase(run, name) for run in table["run"]]]
    if not len(rows):
        some = ", ".join(table["run"].head(8)) + (", …" if len(table) > 8 else "")
        raise ValueError(f"--compare: '{name}' matches no run; there are {some}")
    ended = rows[rows["status"].isin(_ENDED)]
    if not len(ended):
        statuses = ", ".join(sorted(set(rows["status"].dropna())))
        raise ValueError(f"--compare: no run of '{name}' has ended ({statuses})")
    return ended


def _mean(values: np.ndarray) -> tuple[float, float, int]:
    """Mean, standard deviation of the sample, and number."""
    n = len(values)
    mean = float(values.mean()) if n else np.nan
    return mean, float(values.std(ddof=1)) if n > 1 else np.nan, n


def _difference(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """b − a, and its standard error, of the pooled standard deviation."""
    if not len(a) or not len(b):
        return np.nan, np.nan
    difference = float(b.mean() - a.mean())
    freedom = len(a) + len(b) - 2
    if not freedom:
        return difference, np.nan
    pooled = (((a - a.mean()) ** 2).sum() + ((b - b.mean()) ** 2).sum()) / freedom
    return difference, float(np.sqrt(pooled * (1 / len(a) + 1 / len(b))))
