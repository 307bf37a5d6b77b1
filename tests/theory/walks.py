"""Random walks on the sphere: numpy optimizers under synthetic scale-invariant gradients.

They know nothing of the laws they are held against.
"""

from __future__ import annotations

import numpy as np

from smd_hooks.theory import AdamRule, LionRule, SGDRule, StepMoments, UpdateRule

VECTORS, ELEMENTS = 32, 256


def row_dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1, keepdims=True)


class Walk:
    """Scale-invariant weights under random gradients g ⊥ w, ‖g‖ = size/‖w‖.

    Args:
        rule: Whose step to make.
        rates: Learning rate of each step.
        start: Norm to start from.
        alignment: Share of the momentum's tangential direction mixed into the gradient.
        rescale_at: Steps before which weights are multiplied, and by what.
        growth: Factor per step on the gradient's size.
        sizes: Size of each coordinate of the gradient, RMS 1.

    Attributes are means over vectors, at each step: ``norm`` (‖w‖, RMS), ``angle`` (RMS,
    radians), ``moments`` (shape (steps, 1)), ``rescale`` (cumulative).
    """

    def __init__(
        self,
        rule: UpdateRule,
        rates: np.ndarray,
        start: float = 1.0,
        alignment: float = 0.0,
        rescale_at: dict[int, float] | None = None,
        growth: float = 1.0,
        sizes: np.ndarray | float = 1.0,
    ) -> None:
        rng = np.random.default_rng(0)
        w = rng.normal(size=(VECTORS, ELEMENTS))
        w *= start / np.linalg.norm(w, axis=1, keepdims=True)
        self._rule, self._m, self._s = rule, np.zeros_like(w), np.zeros_like(w)
        rows, total = [], 1.0
        for t, lr in enumerate(rates):
            c = (rescale_at or {}).get(t, 1.0)
            w, self._m, self._s, total = w * c, self._m / c, self._s / c**2, total * c
            r2 = row_dot(w, w)
            g = rng.normal(size=w.shape) * sizes
            g = (g - w * row_dot(g, w) / r2) * growth**t / np.sqrt(ELEMENTS * r2)
            if alignment:
                u = self._m - w * row_dot(self._m, w) / r2
                length = np.linalg.norm(u, axis=1, keepdims=True) + 1e-12
                g = g + alignment * u / length * np.linalg.norm(g, axis=1, keepdims=True)
            momentum = self._m
            decoupled, u = self._step(t, g, w)
            after = w * (1 - lr * rule.weight_decay if decoupled else 1) - lr * u
            chord = after / np.linalg.norm(after, axis=1, keepdims=True) - w / np.sqrt(r2)
            angle = 2 * np.arcsin(np.linalg.norm(chord, axis=1) / 2)
            measured = (r2, angle**2, row_dot(g, g) * r2, row_dot(momentum, g) * r2)
            rows.append([x.mean() for x in (*measured, row_dot(u, u), row_dot(w, u))] + [total])
            w = after
        r2, angle2, *self.measured, self.rescale = np.array(rows).T[:, :, None]
        self.norm, self.angle = np.sqrt(r2[:, 0]), np.sqrt(angle2[:, 0])
        self.moments = StepMoments(*self.measured)

    def _step(self, t: int, g: np.ndarray, w: np.ndarray) -> tuple[bool, np.ndarray]:
        """Whether decay is decoupled, and the step's direction."""
        rule = self._rule
        if isinstance(rule, SGDRule):
            full = g if rule.decoupled else g + rule.weight_decay * w
            self._m = rule.momentum * self._m + (full if t == 0 else (1 - rule.dampening) * full)
            return rule.decoupled, full + rule.momentum * self._m if rule.nesterov else self._m
        if isinstance(rule, AdamRule):
            full = g if rule.decoupled else g + rule.weight_decay * w
            self._m = rule.beta1 * self._m + (1 - rule.beta1) * full
            self._s = rule.beta2 * self._s + (1 - rule.beta2) * full**2
            mean = self._m / (1 - rule.beta1 ** (t + 1))
            return rule.decoupled, mean / np.sqrt(self._s / (1 - rule.beta2 ** (t + 1)))
        assert isinstance(rule, LionRule)
        u = rule.scale * np.sign(rule.beta1 * self._m + (1 - rule.beta1) * g)
        self._m = rule.beta2 * self._m + (1 - rule.beta2) * g
        return True, u

    def end_angle(self, last: int) -> float:
        """RMS angle of the last steps."""
        return float(np.sqrt((self.angle[-last:] ** 2).mean()))

    def end_moments(self, last: int) -> StepMoments:
        """Means over the last steps, shape (1,)."""
        return StepMoments(*(m[-last:].mean(0) for m in self.measured))
