from __future__ import annotations

import json
import math

from smd_hooks.analysis.report.embedding import embed, rounded

HOSTILE = "</script><script>alert(1)</script> <!-- & \u2028\u2029 \udcff Δ"


def test_what_is_embedded_reads_back_and_has_no_markup() -> None:
    text = embed({HOSTILE: [HOSTILE, 1.5, None]})
    assert json.loads(text) == {HOSTILE: [HOSTILE, 1.5, None]}
    assert text.isascii()
    assert not set("<>&") & set(text)
    assert "<" in json.dumps(HOSTILE)  # control: JSON alone would end the script


def test_no_number_is_embedded_that_browsers_cannot_parse() -> None:
    numbers = {"lr": math.inf, "ratios": [1.5, math.nan, (-math.inf,)]}
    assert json.loads(embed(numbers)) == {"lr": None, "ratios": [1.5, None, [None]]}


def test_four_digits_whatever_the_size() -> None:
    values = [1.23456e-7, 12345.6, -0.00098765, 0.0, math.inf, -math.inf, math.nan]
    assert rounded(values) == [1.235e-7, 12350.0, -0.0009877, 0.0, None, None, None]
    errors = [abs(r / v - 1) for v, r in zip(values[:3], rounded(values)[:3], strict=True)]
    assert 0 < max(errors) <= 5e-4
