"""Wrong settings are refused, and what low precision costs is said, in one line each."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from smd_hooks.optim import LionA, LionAR, RotationalAdamW, RotationalLion, RotationalSGD
from tests.optim.cases import PLAIN, TURNING, Case, made, name_of, norms, stepped

each = pytest.mark.parametrize("case", PLAIN, ids=name_of)
each_turning = pytest.mark.parametrize("case", TURNING, ids=name_of)


WRONG: list[tuple[type, dict[str, Any], str]] = [
    *((case.kind, {"lr": -1.0}, "lr must be 0 or more") for case in PLAIN),
    *((case.kind, {"weight_decay": -0.1}, "weight_decay must be 0 or more") for case in PLAIN),
    (LionA, {"lr": float("nan")}, "lr must be 0 or more"),
    (LionA, {"beta": 1.0}, r"beta must lie in \[0, 1\)"),
    (LionAR, {"beta": -0.1}, r"beta must lie in \[0, 1\)"),
    (LionAR, {"matching": "lion"}, "matching must be 'adamw' or 'net', got 'lion'"),
    (LionAR, {"schedule": "cosine"}, "schedule must be 'linear' or 'sqrt', got 'cosine'"),
    (LionAR, {"angle": 0.0}, "angle must lie between 0 and 1.5 radians"),
    (LionAR, {"angle": 90}, "angle must lie between 0 and 1.5 radians"),
    (RotationalSGD, {"momentum": 1.5}, r"momentum must lie in \[0, 1\)"),
    (RotationalSGD, {"update_norm_decay": 1.0}, r"update_norm_decay must lie in \[0, 1\)"),
    (RotationalAdamW, {"betas": (0.9, 1.0)}, "betas must lie between 0 and 1"),
    (RotationalAdamW, {"eps": -1e-8}, "eps must be 0 or more"),
    (RotationalLion, {"betas": (0.0, 0.9)}, "betas must lie between 0 and 1"),
]


@pytest.mark.parametrize(
    ("kind", "settings", "message"), WRONG, ids=lambda x: getattr(x, "__name__", str(x))
)
def test_wrong_settings_are_refused_in_one_line(
    kind: Any, settings: dict[str, Any], message: str
) -> None:
    wanted = {"lr": 0.01, **settings}
    with pytest.raises(ValueError, match=rf"^{kind.__name__}: {message}") as error:
        kind([made(3, 4)], **wanted)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=message):
        kind([{"params": [made(3, 4)], **wanted}], 0.01)
    optimizer = kind([made(3, 4)], 0.01)
    with pytest.raises(ValueError, match=message):
        optimizer.add_param_group({"params": [made(2, 2)], **wanted})
    assert len(optimizer.param_groups) == 1


@each_turning
def test_rotational_without_anything_to_turn_by_is_refused(case: Case) -> None:
    group: Any = {"params": [made(3, 4)], "rotational": True}
    with pytest.raises(ValueError, match="rotational=True with weight_decay=0 would turn by"):
        case.build([group], weight_decay=0.0)
    assert case.build([{**group, "angle": 0.1}], weight_decay=0.0)
    with pytest.raises(ValueError, match="rotational must be True, False or None"):
        case.build([{**group, "rotational": "no"}])


@each
def test_there_is_no_maximize(case: Case) -> None:
    with pytest.raises(TypeError, match="maximize"):
        case.build([made(3, 4)], maximize=True)


@each_turning
def test_weights_in_bf16_are_warned_about_once_with_figures(case: Case) -> None:
    weights = [made(8, 9, dtype=torch.bfloat16), made(9, 9, dtype=torch.bfloat16)]
    with pytest.warns(UserWarning, match=r"bfloat16.*1\.7e-03.*turn by \d\.\de-0[345]") as caught:
        stepped(case, weights, 3, lr=1e-4, weight_decay=1e-3)
    ours = [w for w in caught if "rounding turns them" in str(w.message)]
    assert len(ours) == 1
    assert str(ours[0].message).startswith(case.kind.__name__)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stepped(case, [made(8, 9)], 2, lr=1e-4, weight_decay=1e-3)
        stepped(case, [made(8, 9, dtype=torch.bfloat16)], 2, angle=0.01)


@pytest.mark.filterwarnings("ignore:.*rounding turns them:UserWarning")
@each_turning
def test_state_is_in_the_weights_dtype_but_for_norms(case: Case) -> None:
    w = made(8, 9, dtype=torch.bfloat16)
    optimizer = stepped(case, [w])
    for name, value in optimizer.state[w].items():
        assert isinstance(value, Tensor)
        per_unit = name in ("step", "radius", "update_norm")
        assert value.dtype == (torch.float32 if per_unit else torch.bfloat16), name
    assert (norms(w, True) / optimizer.state[w]["radius"] - 1).abs().max() < 4e-3


@each_turning
def test_a_peak_of_zero_is_refused_once_the_rate_rises(case: Case) -> None:
    w = made(8, 9)
    optimizer = case.build([w], lr=0.0, weight_decay=0.1)
    w.grad = torch.ones_like(w)
    optimizer.step()
    optimizer.param_groups[0]["lr"] = 0.1
    with pytest.raises(ValueError, match="it was 0 when the parameter group was made"):
        optimizer.step()
