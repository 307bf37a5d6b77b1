"""How large a run's updates are, by every measure of size, per layer over training.

The measures that Kosson et al., *Analyzing & Reducing the Need for Learning Rate Warmup in
GPT Training*, hold against each other: ℓ2 norm (§4), angular update (§5), relative
representation change and the gradient's signal-to-noise ratio (§6), and whether gradients
follow their momentum.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..agreement.windows import window_sums
from ..diagnosis.diagnose import is_joint

NOISE_WINDOW = 10
"""Measured steps around each that signal and noise are averaged over."""
KEY = ["step", "parameter"]
OF_EACH_WEIGHT = ["update_norm", "angular_update"]
"""What :data:`~smd_hooks.records.schema.SAMPLES` has of them, under these names."""
COLUMNS = {
    "step": "int64",
    "parameter": "object",
    "update_norm": "float64",
    "angular_update": "float64",
    "relative_representation_change": "float64",
    "signal_to_noise": "float64",
    "critical_batch_size": "float64",
    "gradient_momentum_alignment": "float64",
}


def size_measures(
    samples: pd.DataFrame, weights: pd.DataFrame, layers: pd.DataFrame
) -> pd.DataFrame:
    """Put all measures of a run's updates side by side.

    Signal and noise are averaged over :data:`NOISE_WINDOW` measured steps around each, each
    for itself, before they are divided: fewer than the records' own ratio is taken over,
    since φ falls fast when training begins.

    Args:
        samples: Rows as in :data:`smd_hooks.records.schema.SAMPLES`, ``weight`` counting in
            ``weights``.
        weights: One row per weight, as ``run.json`` has them.
        layers: Rows as in :data:`smd_hooks.records.schema.LAYERS`.

    Returns:
        One row per optimizer step and weight matrix (no filters, no joint groups), matrices
        in the model's order, steps ascending: ``step`` (optimizer steps taken before this
        one), ``parameter`` (the weight's name), ``update_norm`` (‖w' − w‖),
        ``angular_update`` (radians), ``relative_representation_change`` (‖XΔWᵀ‖/‖XWᵀ‖),
        ``signal_to_noise`` (φ of single examples; of a language model, of sequences),
        ``critical_batch_size`` (1/φ, examples) and ``gradient_momentum_alignment`` (cosine of
        gradient and momentum before the step, −1…1). NaN where a measure was not taken at
        that step or of that weight, and for both ratios where the mean signal or noise is not
        positive. Empty, with these columns, where nothing was measured.
    """
    parts = [_of_each_weight(samples, weights), _of_some_layers(layers)]
    joined = parts[0].merge(parts[1], on=KEY, how="outer")
    named = list(weights["parameter"]) if len(weights) else []
    place = {name: i for i, name in enumerate(dict.fromkeys([*named, *joined["parameter"]]))}
    order = np.lexsort((joined["step"], joined["parameter"].map(place)))
    return joined.iloc[order].reindex(columns=list(COLUMNS)).astype(COLUMNS).reset_index(drop=True)


def _empty() -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(dtype=COLUMNS[name]) for name in KEY})


def _of_each_weight(samples: pd.DataFrame, weights: pd.DataFrame) -> pd.DataFrame:
    """Whole tensors' samples, by the weights' names."""
    if not len(samples):
        return _empty()
    alone = np.array([not is_joint(entry) for entry in weights.to_dict("records")])
    index = samples["weight"].to_numpy()
    kept = (samples["unit"].to_numpy() < 0) & alone[index]
    frame = samples.loc[kept, ["step", *OF_EACH_WEIGHT]]
    return frame.assign(parameter=weights["parameter"].to_numpy()[index[kept]])


def _of_some_layers(layers: pd.DataFrame) -> pd.DataFrame:
    """What was sampled of some layers, a column a quantity, and the ratios of noise."""
    if not len(layers):
        return _empty()
    once = layers.drop_duplicates([*KEY, "quantity"], keep="last")
    frame = once.pivot(index=KEY, columns="quantity", values="value")
    frame = frame.rename(columns={"representation_change": "relative_representation_change"})
    if {"signal", "noise"} <= set(frame):
        ratios = [_ratio(of_one) for _, of_one in frame.groupby(level="parameter")]
        frame["signal_to_noise"] = pd.concat(ratios)
        frame["critical_batch_size"] = 1 / frame["signal_to_noise"]
    return frame.reset_index()


def _ratio(frame: pd.DataFrame) -> pd.Series:
    """φ of one layer's steps in order, each over its window."""
    known = frame[["signal", "noise"]].dropna()
    signal, noise = (window_sums(known[name].to_numpy(), NOISE_WINDOW)[0] for name in known)
    positive = (signal > 0) & (noise > 0)
    ratio = np.divide(signal, noise, out=np.full(len(known), np.nan), where=positive)
    return pd.Series(ratio, index=known.index)
