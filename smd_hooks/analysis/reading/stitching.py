"""Makes one history of a run's launches: whose samples count, and under which update rule.

What is measured is known by its parameter and its optimizer: a weight that two optimizers
step leaves two series. Records from before optimizers had names know it by parameter only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ...records import Launch
from ...theory import NoPrediction, UpdateRule

CHANGED = "no prediction: changed during training"


def newest_weights(launches: Sequence[Launch]) -> pd.DataFrame:
    """Return the weights of the newest launch that has verdicts, or else of the newest."""
    described = [launch.weights for launch in launches if launch.run]
    decided = [weights for weights in described if "scale_invariant" in weights]
    return (decided or described or [pd.DataFrame()])[-1]


def kept_samples(newest: pd.DataFrame, launches: Sequence[Launch]) -> list[pd.DataFrame]:
    """Return what counts of each launch's samples, ``weight`` being the row in ``newest``.

    Each launch supersedes what lies at or after its start, unless it died at once. Left
    out are weights that ``newest`` does not have, and rows of weights that the launch's
    ``run.json`` does not have: it was killed before it wrote them there.
    """
    if len(launches) == 1:  # nothing to stitch, for most runs
        samples = launches[0].samples
        samples["weight"] = samples["weight"].astype("int64")
        described = samples["weight"].to_numpy() < len(newest)
        return [samples if described.all() else samples[described]]
    kept: list[pd.DataFrame] = []
    for launch in launches:
        samples = launch.samples
        if len(samples):
            places = _places(newest, launch)
            starts = dict(zip(places, first_steps(launch), strict=True))
            starts.pop(-1, None)
            kept = [f[f["step"] < f["weight"].map(starts).fillna(np.inf)] for f in kept]
            index = np.minimum(samples["weight"].to_numpy(), len(places))
            place = np.array([*places, -1])[index]
            samples = samples.assign(weight=place)[place >= 0]
        kept.append(samples)
    return kept


def first_steps(launch: Launch) -> list[int]:
    """Return the step that each weight's optimizer began a launch with."""
    weights = launch.weights
    if "first_step" in weights:
        return [int(s) for s in weights["first_step"].fillna(weights["first_step"].min()).fillna(0)]
    return [int(launch.run.get("first_step", 0))] * len(weights)


def one_history(
    newest: pd.DataFrame, launches: Sequence[Launch], kept: Sequence[pd.DataFrame]
) -> pd.DataFrame:
    """Put what earlier launches say of verdicts and update rules into the newest weights.

    Args:
        newest: What :func:`newest_weights` returned.
        launches: All launches, oldest first.
        kept: What :func:`kept_samples` returned.

    Returns:
        The weights with the whole history of ``changes``, and with ``no_prediction`` for a
        rule where kept samples were taken under another one.
    """
    if len(launches) == 1:
        return newest
    entries = newest.to_dict("records")
    changes: dict[int, list[list[Any]]] = {}
    refusals: dict[int, str] = {}
    for launch, samples in zip(launches, kept, strict=True):
        contributes = set(samples["weight"].unique())
        rows = launch.weights.to_dict("records")
        starts = first_steps(launch)
        for place, start, row in zip(_places(newest, launch), starts, rows, strict=True):
            if place < 0:
                continue
            if isinstance(row.get("changes"), list):
                # a launch that goes on from another's verdicts has their history itself
                since = min([start, *(change[0] for change in row["changes"])])
                before = [c for c in changes.get(place, []) if c[0] < since]
                changes[place] = before + row["changes"]
            if place in contributes and isinstance(entries[place].get("rule"), dict):
                changed = _what_changed(row, entries[place])
                if changed:
                    refusals[place] = f"{CHANGED}: {changed}"
    if "changes" in newest:
        newest = newest.assign(changes=[changes.get(i, []) for i in range(len(newest))])
    if refusals:
        told, ruled = newest["no_prediction"].tolist(), newest["rule"].tolist()
        for place, reason in refusals.items():
            told[place], ruled[place] = reason, None
        newest = newest.assign(no_prediction=told, rule=ruled)
    return newest


def _places(newest: pd.DataFrame, launch: Launch) -> list[int]:
    """The row in ``newest`` of each of a launch's weights; −1 for what it does not have."""
    known = [_key(entry) for entry in newest.to_dict("records")]
    exact = {key: i for i, key in enumerate(known)}
    by_name = {known[i][0]: i for i in reversed(range(len(known)))}

    def place(name: str, optimizer: str | None) -> int:
        named = by_name.get(name, -1)
        if named < 0 or (name, optimizer) in exact:
            return exact.get((name, optimizer), -1)
        return named if optimizer is None or known[named][1] is None else -1

    return [place(*_key(entry)) for entry in launch.weights.to_dict("records")]


def _key(entry: Mapping[str, Any]) -> tuple[str, str | None]:
    optimizer = entry.get("optimizer")  # pandas fills what an entry does not say with NaN
    return entry["parameter"], optimizer if isinstance(optimizer, str) else None


def _what_changed(was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """How an earlier launch's rule differs from the newest one's; empty if it does not."""
    try:
        new = dict(UpdateRule.from_json(now["rule"]).constants)
    except NoPrediction:  # nothing is predicted anyway
        return ""
    reason = was.get("no_prediction")
    if isinstance(was.get("rule"), dict):
        try:
            old = dict(UpdateRule.from_json(was["rule"]).constants)
        except NoPrediction as unknown:
            reason = str(unknown)
        else:
            if old["type"] != new["type"]:
                return f"type from {old['type']} to {new['type']}"
            return ", ".join(f"{k} from {old[k]} to {v}" for k, v in new.items() if old[k] != v)
    if not isinstance(reason, str) or not reason:
        return ""
    if reason.startswith(CHANGED):
        return reason.removeprefix(f"{CHANGED}: ")
    return f"an earlier launch had {reason}"
