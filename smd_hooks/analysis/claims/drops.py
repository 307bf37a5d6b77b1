"""What a drop of the learning rate, and the rescaling with it, does to the accuracy at once.

For that a run validates after each of the last steps before a drop, and after the first step
behind it, as replicas do. In between lie the rescaling and one step at the new learning rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..reading.run import Run

METRICS = {"accuracy/top1": 0.5, "coco/bbox_mAP": 0.005}
"""What accuracy may be, in percent or as a fraction as it is logged; and half a point of it."""


@dataclass(frozen=True)
class Drop:
    """Accuracy around one drop, as it is logged.

    Attributes:
        before: After the last step of the old learning rate.
        after: After the first step of the new one.
        margin: The most that one of the steps just before changed it by, up or down: what a
            single step does at that place, by chance. Half a point at least: by then steps flip
            an image or two, and any of them is the largest of five in a row now and then.
    """

    before: float
    after: float
    margin: float

    @property
    def loses(self) -> bool:
        """Whether the drop cost more than a step does anyway."""
        return (
            round(self.before - self.after - self.margin, 6) > 0
        )  # percents are no binary numbers


def around_drops(run: Run) -> tuple[Drop | None, ...]:
    """Return what each drop of the run did; None for those that were not validated around."""
    if not len(run.predicted):
        return ()
    first_steps = run.predicted.groupby("stage")["step"].min().tolist()[1:]
    accuracy = dict(validations(run))
    least = next((METRICS[metric] for metric in METRICS if metric in run.scalars.series), 0.0)
    return tuple(drop_at(step, accuracy, least) for step in first_steps)


def drop_at(step: int, accuracy: Mapping[int, float], least: float) -> Drop | None:
    """Return what a drop after so many steps did; None without validations beside it.

    Args:
        step: Steps taken at the old learning rates.
        accuracy: By the number of steps taken.
        least: The smallest margin.

    >>> drop_at(500, {498: 90.0, 499: 91.5, 500: 91.0, 501: 90.0}, 0.5)
    Drop(before=91.0, after=90.0, margin=1.5)
    """
    if not {step - 1, step, step + 1} <= accuracy.keys():
        return None
    changes, last = [least], step
    while last - 1 in accuracy:
        changes.append(abs(accuracy[last] - accuracy[last - 1]))
        last -= 1
    return Drop(accuracy[step], accuracy[step + 1], round(max(changes), 6))


def validations(run: Run) -> list[tuple[int, float]]:
    """Return iterations done and accuracy, of each validation in order; empty without any."""
    for metric in METRICS:
        if metric in run.scalars.series:
            return run.scalars.series[metric].points
    return []
