"""Samples as arrays, layers × samples: weights that step alike are calculated together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ...theory import NoPrediction, UpdateRule
from .columns import Columns, whole_columns
from .own_steps import count_own_steps
from .windows import invariant_spans, stages

WHOLE = -1
"""Number of the unit that is a whole tensor or a joint group; filters are numbered from 0."""
SCHEDULE = ("lr", "weight_decay")
MOST_SAMPLES = 3 << 19
"""In a block, unless one layer alone has more: arrays of 12 MiB, small enough for their memory to
be used again. Larger ones are taken from the system and given back, time after time."""
TOLD = ("parameter", "scale_invariant", "changes", "rule")
"""What of a weight's entry a prediction goes by."""


@dataclass(frozen=True)
class Span:
    """A stretch of one weight's samples during which it was scale-invariant.

    Attributes:
        index: Which weight.
        parameter: Its name.
        rule: Its update rule.
        rows: Its samples' rows among all samples, by step, shape (samples,).
        own_step: Steps that moved it before each, shape (samples,).
        stage: Number of the schedule's stage, counted through all its spans, likewise.
        began_empty: Whether the first sample is the weight's first step; its momentum is 0
            then, or unknown.
    """

    index: int
    parameter: str
    rule: UpdateRule
    rows: np.ndarray
    own_step: np.ndarray
    stage: np.ndarray
    began_empty: bool


Member = tuple[Span, np.ndarray]
"""A span, and its rows among the samples of all spans."""


@dataclass(frozen=True)
class Block:
    """Spans of one rule and one schedule, sampled at the same steps.

    Attributes:
        rule: Their update rule.
        began_empty: As :class:`Span` has it.
        rows: Rows of their samples, shape (layers, samples).
        columns: Their samples, each column of shape (layers, samples); but for ``lr``,
            ``weight_decay``, ``own_step`` and ``stage`` (from 0 on), which are the same for
            all layers and of shape (samples,).
    """

    rule: UpdateRule
    began_empty: bool
    rows: np.ndarray
    columns: Columns


def find_spans(samples: pd.DataFrame, weights: pd.DataFrame) -> list[Span]:
    """Find what can be predicted: stretches of scale invariance of weights with a rule.

    Args:
        samples: Rows as in :data:`smd_hooks.records.schema.SAMPLES`, without filters.
        weights: One row per weight, as ``run.json`` has them.

    Returns:
        All spans, by weight and step.
    """
    rows = _rows_of_weights(samples)
    steps = samples["step"].to_numpy()
    own_steps = count_own_steps({index: steps[of] for index, of in rows.items()}, weights)
    table, spans = whole_columns(samples), []
    known: dict[Any, np.ndarray] = {}
    for index, weight, rule in predictable(weights):
        if index not in rows:
            continue
        before = 0
        for part in invariant_spans(steps[rows[index]], weight.get("changes")):
            of, own = rows[index][part], own_steps[index][part]
            schedule = [table[name][of] for name in SCHEDULE]
            key = tuple(values.tobytes() for values in schedule)
            if key not in known:
                known[key] = stages(*(values.astype(float) for values in schedule))
            stage = known[key] + before
            before = int(stage[-1]) + 1
            momentum = table["gradient_momentum_dot"][of[0]]
            empty = bool(own[0] == 0) and not abs(momentum) > 0
            spans.append(Span(index, weight["parameter"], rule, of, own, stage, empty))
    return spans


def _rows_of_weights(samples: pd.DataFrame) -> dict[int, np.ndarray]:
    """Rows of each weight's samples, in the order of their steps."""
    weight, step = samples["weight"].to_numpy(), samples["step"].to_numpy()
    order = np.argsort(weight, kind="stable")
    ends = np.flatnonzero(np.diff(weight[order])) + 1
    rows = {}
    for of in np.split(order, ends):
        steps = step[of]
        if (np.diff(steps) < 0).any():
            of = of[np.argsort(steps, kind="stable")]
        rows[int(weight[of[0]])] = of
    return rows


def predictable(weights: pd.DataFrame) -> Iterator[tuple[int, Mapping[str, Any], UpdateRule]]:
    """Yield index, entry (in part) and rule of what is or was scale-invariant and has a rule."""
    told = [name for name in TOLD if name in weights]
    for index, weight in enumerate(weights[told].to_dict("records")):
        changes = weight.get("changes")
        verdicts = [verdict for _, verdict in changes] if isinstance(changes, list) else []
        ever = any(verdict is True for verdict in [*verdicts, weight.get("scale_invariant")])
        if ever and isinstance(weight.get("rule"), dict):
            with suppress(NoPrediction):  # records of a later version, with a rule not known here
                yield index, weight, UpdateRule.from_json(weight["rule"])


def put_together(samples: pd.DataFrame, spans: list[Span]) -> list[Block]:
    """Put spans that are alike in all but what was measured into blocks.

    Args:
        samples: Those of the spans only, one span's after the other's.
        spans: As :func:`find_spans` gave them.
    """
    table, ends = whole_columns(samples), np.cumsum([len(span.rows) for span in spans])
    together: dict[Any, list[Member]] = {}
    for span, end in zip(spans, ends.tolist(), strict=True):
        rows = slice(end - len(span.rows), end)
        schedule = [table[name][rows].tobytes() for name in ("step", *SCHEDULE)]
        key = (span.rule.constants, span.began_empty, span.own_step.tobytes(), *schedule)
        together.setdefault(key, []).append((span, np.arange(rows.start, rows.stop)))
    return [_block(table, part) for members in together.values() for part in _parts(members)]


def _parts(members: list[Member]) -> Iterator[list[Member]]:
    """As many members at a time as :data:`MOST_SAMPLES` allows."""
    at_once = max(1, MOST_SAMPLES // len(members[0][1]))
    for begin in range(0, len(members), at_once):
        yield members[begin : begin + at_once]


def _block(table: Mapping[str, np.ndarray], members: list[Member]) -> Block:
    span, first = members[0]
    rows = np.stack([of for _, of in members])
    shared = {name: np.asarray(table[name][first], float) for name in SCHEDULE}
    shared |= {"own_step": span.own_step, "stage": span.stage - span.stage[0]}
    return Block(span.rule, span.began_empty, rows, Columns(table, rows, shared))
