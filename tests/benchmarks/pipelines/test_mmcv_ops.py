"""mmcv's operators through torchvision, against references written out here."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.errors import UsageError
from benchmarks.pipelines import mmcv_ops

mmcv_ops.install()

from mmcv.ops import batched_nms, nms, roi_align, sigmoid_focal_loss, soft_nms  # noqa: E402

REPOSITORY = Path(__file__).parents[3]
Floats = NDArray[np.float64]


def random_boxes(rng: np.random.Generator, count: int, extent: float = 20.0) -> Floats:
    corners = rng.uniform(0, extent, (count, 2))
    return np.concatenate([corners, corners + rng.uniform(0.5, extent / 2, (count, 2))], axis=1)


def reference_nms(boxes: Floats, scores: Floats, threshold: float) -> list[int]:
    """Greedy: take the best box left, drop all that overlap it by more than the threshold."""
    left, kept = list(np.argsort(-scores)), []
    while left:
        best = left.pop(0)
        kept.append(int(best))
        left = [other for other in left if iou(boxes[best], boxes[other]) <= threshold]
    return kept


def iou(a: Floats, b: Floats) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    overlap = max(width, 0) * max(height, 0)
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return overlap / (areas - overlap)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.floats(0.05, 0.95))
def test_nms_keeps_what_the_greedy_rule_keeps(seed: int, count: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    boxes, scores = random_boxes(rng, count), rng.permutation(count) / count
    dets, kept = nms(torch.from_numpy(boxes), torch.from_numpy(scores), threshold)
    expected = reference_nms(boxes, scores, threshold)
    assert kept.tolist() == expected
    np.testing.assert_array_equal(dets.numpy(), np.c_[boxes, scores][expected])


def test_batched_nms_is_nms_within_each_class() -> None:
    rng = np.random.default_rng(0)
    boxes, scores = random_boxes(rng, 60), rng.permutation(60) / 60
    classes = rng.integers(0, 3, 60)
    _, kept = batched_nms(
        torch.from_numpy(boxes),
        torch.from_numpy(scores),
        torch.from_numpy(classes),
        {"type": "nms", "iou_threshold": 0.3},
    )
    expected: list[int] = []
    for label in range(3):
        members = np.flatnonzero(classes == label)
        expected += members[reference_nms(boxes[members], scores[members], 0.3)].tolist()
    assert sorted(kept.tolist()) == sorted(expected)
    assert len(expected) < 60


def test_nms_with_the_legacy_offset_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"nms with offset=1.*needs a compiled mmcv"):
        nms(torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.ones(1), 0.5, offset=1)


def reference_roi_align(
    features: Floats, roi: Floats, size: int, scale: float, sampling_ratio: int, aligned: bool
) -> Floats:
    """Mean of bilinear samples in each of size × size bins, one RoI, (C, size, size)."""
    image, (x1, y1, x2, y2) = features[int(roi[0])], roi[1:] * scale - (0.5 if aligned else 0)
    width, height = x2 - x1, y2 - y1
    if not aligned:
        width, height = max(width, 1.0), max(height, 1.0)
    samples_x = sampling_ratio or int(np.ceil(width / size))
    samples_y = sampling_ratio or int(np.ceil(height / size))
    pooled = np.zeros((image.shape[0], size, size))
    for row, column in np.ndindex(size, size):
        for i, j in np.ndindex(samples_y, samples_x):
            y = y1 + (row + (i + 0.5) / samples_y) * height / size
            x = x1 + (column + (j + 0.5) / samples_x) * width / size
            pooled[:, row, column] += bilinear(image, y, x)
    return pooled / (samples_x * samples_y)


def bilinear(image: Floats, y: float, x: float) -> Floats:
    """Interpolate; the edge pixels reach one pixel out, beyond which there is nothing."""
    _, rows, columns = image.shape
    if not (-1 <= y <= rows and -1 <= x <= columns):
        return np.zeros(image.shape[0])
    y, x = np.clip(y, 0, rows - 1), np.clip(x, 0, columns - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
    dy, dx = y - top, x - left
    upper = (1 - dx) * image[:, top, left] + dx * image[:, top, right]
    lower = (1 - dx) * image[:, bottom, left] + dx * image[:, bottom, right]
    return (1 - dy) * upper + dy * lower


def random_rois(rng: np.random.Generator, count: int, images: int, extent: float) -> Floats:
    indices = rng.integers(0, images, count)
    # Some reach past the image's edges.
    return np.c_[indices, random_boxes(rng, count, extent) - 2.0]


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 1, 3])
@pytest.mark.parametrize(
    ("shape", "size", "scale"), [((2, 3, 9, 7), 4, 0.5), ((1, 1, 16, 16), 7, 1.0)]
)
def test_roi_align_is_the_mean_of_bilinear_samples(
    aligned: bool, sampling_ratio: int, shape: tuple[int, ...], size: int, scale: float
) -> None:
    rng = np.random.default_rng(1)
    features = rng.normal(size=shape)
    rois = random_rois(rng, 6, shape[0], 16.0)
    pooled = roi_align(
        torch.from_numpy(features),
        torch.from_numpy(rois),
        size,
        scale,
        sampling_ratio,
        "avg",
        aligned,
    )
    expected = [
        reference_roi_align(features, roi, size, scale, sampling_ratio, aligned) for roi in rois
    ]
    np.testing.assert_allclose(pooled.numpy(), np.stack(expected), atol=1e-12)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_roi_align_backward_is_the_transpose_of_forward(aligned: bool, sampling_ratio: int) -> None:
    """RoIAlign is linear in the features: ⟨v, A e_i⟩ for every unit feature map e_i is Aᵀv."""
    rng = np.random.default_rng(2)
    shape, size = (2, 1, 6, 5), 3
    rois = random_rois(rng, 5, 2, 10.0)
    features = torch.from_numpy(rng.normal(size=shape)).requires_grad_()
    pooled = roi_align(features, torch.from_numpy(rois), size, 0.5, sampling_ratio, "avg", aligned)
    upstream = rng.normal(size=pooled.shape)
    pooled.backward(torch.from_numpy(upstream))
    expected = np.zeros(shape)
    for index in np.ndindex(*shape):
        unit = np.zeros(shape)
        unit[index] = 1.0
        response = [
            reference_roi_align(unit, roi, size, 0.5, sampling_ratio, aligned) for roi in rois
        ]
        expected[index] = (np.stack(response) * upstream).sum()
    assert features.grad is not None
    np.testing.assert_allclose(features.grad.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_roi_align_takes_reduced_precision_and_gives_it_back(dtype: torch.dtype) -> None:
    """As AMP hands it over; the arithmetic in between is in fp32."""
    rng = np.random.default_rng(3)
    features = torch.from_numpy(rng.normal(size=(1, 2, 8, 8))).to(dtype).requires_grad_()
    rois = torch.from_numpy(random_rois(rng, 3, 1, 8.0)).to(dtype)
    pooled = roi_align(features, rois, 2, 1.0, 2, "avg", True)
    pooled.float().sum().backward()
    assert features.grad is not None
    assert pooled.dtype == features.grad.dtype == dtype
    exact = roi_align(features.detach().double(), rois.double(), 2, 1.0, 2, "avg", True)
    torch.testing.assert_close(pooled.detach(), exact.to(dtype), rtol=1e-2, atol=1e-2)


def test_roi_align_with_max_pooling_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"pool_mode='max'.*needs a compiled mmcv"):
        roi_align(torch.ones(1, 1, 4, 4), torch.tensor([[0.0, 0, 0, 4, 4]]), 2, 1.0, 2, "max", True)


def reference_focal_loss(logits: Floats, target: Floats, gamma: float, alpha: float) -> Floats:
    """−α (1 − p)^γ log p for a sample's own class, −(1 − α) p^γ log(1 − p) for the others."""
    p = 1 / (1 + np.exp(-logits))
    own = -alpha * (1 - p) ** gamma * np.log(p)
    other = -(1 - alpha) * p**gamma * np.log(1 - p)
    return np.where(target[:, None] == np.arange(logits.shape[1]), own, other)


def focal_case(
    seed: int, samples: int, classes: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(scale=3.0, size=(samples, classes))).requires_grad_()
    # Class number ``classes`` is background: no class of the sample's own.
    target = torch.from_numpy(rng.integers(0, classes + 1, samples))
    return logits, target, torch.from_numpy(rng.normal(size=(samples, classes)))


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 6),
    st.integers(1, 5),
    st.floats(0.5, 4.0),
    st.floats(0.05, 0.95),
)
def test_focal_loss_and_its_gradient_match_the_formula(
    seed: int, samples: int, classes: int, gamma: float, alpha: float
) -> None:
    logits, target, upstream = focal_case(seed, samples, classes)
    loss = sigmoid_focal_loss(logits, target, gamma, alpha, None, "none")
    loss.backward(upstream)
    at, labels = logits.detach().numpy(), target.numpy()
    np.testing.assert_allclose(
        loss.detach().numpy(), reference_focal_loss(at, labels, gamma, alpha), rtol=1e-9, atol=1e-12
    )
    # The loss is elementwise: its derivative by central differences, all logits at once.
    step = 1e-5
    slope = (
        reference_focal_loss(at + step, labels, gamma, alpha)
        - reference_focal_loss(at - step, labels, gamma, alpha)
    ) / (2 * step)
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.numpy(), slope * upstream.numpy(), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_focal_loss_reduces_and_weighs_by_class(reduction: str) -> None:
    logits, target, _ = focal_case(0, 7, 3)
    target = target.clamp(max=2)
    weight = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)
    loss = sigmoid_focal_loss(logits, target, 2.0, 0.25, weight, reduction)
    loss.backward()
    each = reference_focal_loss(logits.detach().numpy(), target.numpy(), 2.0, 0.25)
    expected = (each * weight.numpy()[target.numpy(), None]).sum()
    samples = 7 if reduction == "mean" else 1
    assert loss.item() == pytest.approx(expected / samples, rel=1e-9)
    unweighted = logits.detach().clone().requires_grad_()
    sigmoid_focal_loss(unweighted, target, 2.0, 0.25, None, "sum").backward()
    assert logits.grad is not None
    assert unweighted.grad is not None
    torch.testing.assert_close(logits.grad, unweighted.grad * weight[target, None] / samples)


def test_other_operators_raise_when_called_not_when_imported() -> None:
    with pytest.raises(RuntimeError, match=r"'softnms' needs a compiled mmcv") as raised:
        soft_nms(torch.rand(3, 4), torch.rand(3))
    assert "\n" not in str(raised.value)


def test_installing_twice_changes_nothing() -> None:
    before = sys.modules["mmcv._ext"]
    mmcv_ops.install()
    assert sys.modules["mmcv._ext"] is before


@pytest.fixture
def install_beside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], ModuleType]:
    """Install beside an mmcv whose extension holds the given code; gives what stands there then."""

    def install(extension: str) -> ModuleType:
        (tmp_path / "mmcv").mkdir()
        (tmp_path / "mmcv" / "__init__.py").touch()
        if extension:
            (tmp_path / "mmcv" / "_ext.py").write_text(extension)
        monkeypatch.delitem(sys.modules, "mmcv")
        monkeypatch.delitem(sys.modules, "mmcv._ext")
        monkeypatch.syspath_prepend(tmp_path)
        mmcv_ops.install()
        return sys.modules["mmcv._ext"]

    return install


def test_a_compiled_extension_wins(install_beside: Callable[[str], ModuleType]) -> None:
    assert install_beside("def nms(): return 'compiled'").nms() == "compiled"


@pytest.mark.filterwarnings("error")
def test_without_one_the_stand_in_takes_its_place(
    install_beside: Callable[[str], ModuleType],
) -> None:
    extension = install_beside("")
    assert extension.nms(torch.tensor([[0.0, 0, 4, 4]]), torch.ones(1), 0.5, 0).tolist() == [0]
    assert find_spec("mmcv._ext") is extension.__spec__


def test_one_that_does_not_load_is_replaced_with_a_warning(
    install_beside: Callable[[str], ModuleType],
) -> None:
    with pytest.warns(UserWarning, match="undefined symbol: _ZN3c10"):
        extension = install_beside("raise ImportError('undefined symbol: _ZN3c10')")
    assert extension.__spec__ is not None
    assert extension.__spec__.origin == "torchvision"


def test_missing_mmcv_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mmcv", None)
    with pytest.raises(UsageError, match=r"^mmcv is not installed.*pip install"):
        mmcv_ops.install()


@pytest.mark.slow
def test_mmdet_imports_and_forked_workers_have_the_ops_when_mmcv_came_first() -> None:
    code = """
import mmcv
import benchmarks.pipelines.detection
import mmdet.models, torch
from torch.utils.data import DataLoader, Dataset

class Kept(Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, index):
        from mmcv.ops import nms
        return nms(torch.tensor([[0., 0., 4., 4.]] * 2), torch.tensor([.5, .9]), .5)[1]

loader = DataLoader(Kept(), num_workers=2, multiprocessing_context='fork')
print(torch.cat(list(loader)).flatten().tolist())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.stdout.strip().endswith("[1, 1, 1, 1]"), done.stderr
