"""Puts a config's own optimizer into rotational equilibrium."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..optim.rotational import rotational_defaults
from ..optim.rotational_update import RotationalUpdate
from .runner_access import single_optimizer


@HOOKS.register_module()
class RotationalUpdateHook(Hook):
    """Turns matrices by the angle of the optimizer's own equilibrium, and keeps their norms.

    It makes of SGD what RotationalSGD is, and likewise of AdamW, Lion and others whose rule is
    known, by ``custom_hooks`` alone: see :class:`smd_hooks.optim.RotationalUpdate` for the
    step. Learning rate and weight decay then set the angle. Turned are matrices with
    weight decay; ``paramwise_cfg`` may say otherwise, as in
    ``custom_keys={'fc': dict(rotational=False)}``, and may give the options below likewise.
    Gradient accumulation, clipping, AMP, EMAHook and checkpoints work as ever.

    Args:
        per_neuron: Units are rows (the first dimension), so that all neurons turn alike;
            else whole tensors.
        zero_mean: Take each unit's mean off, at the first step and off every direction.
        update_norm_decay: Decay of the running mean that steps are measured against.
        schedule: ``"sqrt"``: the angle follows the root of lr, as equilibrium does;
            ``"linear"``: lr itself, with the equilibrium of its peak.
        angle: Angle at the peak of the schedule in radians per step, in place of what lr and
            weight decay say.

    Raises:
        ValueError: At the start of training, as RotationalUpdate.
        RuntimeError: Likewise; or there is more than one optimizer, or an
            EquilibriumRescaleHook.

    Example::

        custom_imports = dict(imports=['smd_hooks'])
        custom_hooks = [dict(type='RotationalUpdateHook'),
                        dict(type='SMDHook', interval=50)]

    Source: Kosson et al., *Rotational Equilibrium*, §5.
    """

    # before the SMDHook (NORMAL), which reads at the start what the optimizer does
    priority = "ABOVE_NORMAL"

    def __init__(
        self,
        per_neuron: bool = True,
        zero_mean: bool = True,
        update_norm_decay: float = 0.9,
        schedule: str = "sqrt",
        angle: float | None = None,
    ) -> None:
        self._options = rotational_defaults(
            per_neuron, zero_mean, update_norm_decay, schedule, angle
        )
        self._update: RotationalUpdate | None = None

    def before_train(self, runner: Runner) -> None:
        """Constrain the optimizer; weights and its state are loaded by now."""
        if any(type(hook).__name__ == "EquilibriumRescaleHook" for hook in runner.hooks):
            raise RuntimeError(
                "RotationalUpdateHook: EquilibriumRescaleHook changes the norms that it keeps, "
                "leave one of the two out"
            )
        self.after_run(runner)  # a training that failed, and is tried again
        optimizer = single_optimizer(runner, "RotationalUpdateHook")
        self._update = RotationalUpdate(optimizer, **self._options)

    def after_run(self, runner: Runner) -> None:
        """Leave the optimizer to itself; not before other hooks have had their last look."""
        if self._update is not None:
            self._update.detach()
            self._update = None
