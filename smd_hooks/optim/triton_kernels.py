"""The kernels of the two passes on a GPU; importing this needs Triton.

A program works on one tile (see :mod:`smd_hooks.measure.tiles`): some units of a tensor, or a
part of one, a few elements of each at a time. Arithmetic is in float64; what is stored is
rounded as torch rounds it, by way of float32.
"""

# mypy: disable-error-code="no-untyped-def,import-untyped,import-not-found"

import triton
import triton.language as tl

from ..measure.triton_kernels import pointer
from .passes import Direction

MOMENTUM = tl.constexpr(int(Direction.MOMENTUM))
ADAM = tl.constexpr(int(Direction.ADAM))
SIGN = tl.constexpr(int(Direction.SIGN))


@triton.jit
def _smooth_direction(KIND: tl.constexpr, m, q, s2, s3, s4):
    """u of MOMENTUM and ADAM; the root in float32, the quotient as good as in float64."""
    u = m
    if KIND == ADAM:
        above = s3 * m
        below = s4 * tl.sqrt_rn(q.to(tl.float32)).to(tl.float64) + s2
        rough = tl.div_rn(above.to(tl.float32), below.to(tl.float32))
        rest = (above - rough.to(tl.float64) * below).to(tl.float32) / below.to(tl.float32)
        # NaN where the rough quotient is 0, infinite or NaN, and right as it is
        u = rough.to(tl.float64) + tl.where(rest == rest, rest, 0.0).to(tl.float64)
    return u


@triton.jit
def _sign_direction(m, g, s1, s2):
    """u of SIGN; 0 for NaN. Where the gradient's share is 0, it does not count at all."""
    share = s2 + tl.zeros_like(m)
    blend = tl.where(share == 0, s1 * m, s1 * m + share * g)
    return (blend > 0).to(tl.float64) - (blend < 0).to(tl.float64)


@triton.jit
def sum_tiles(
    tiles,
    addresses,
    settings,
    decay,
    sums,
    KIND: tl.constexpr,
    DTYPE: tl.constexpr,
    DECAYS: tl.constexpr,
    NEEDED: tl.constexpr,
    UNITS: tl.constexpr,
    ELEMENTS: tl.constexpr,
):
    """Move the buffers over one tile, and sum up each unit if that is needed.

    Args:
        tiles: Of :data:`~smd_hooks.measure.tiles.COLUMNS`, int64; a program takes one.
        addresses: Of each tensor's weight, gradient and buffers, int64, 4 per tensor.
        settings: Of the direction, float64, 5 per tensor.
        decay: Coupled weight decay per unit, float64, if ``DECAYS``.
        sums: Float64, 5 per row, if ``NEEDED``.
        KIND: The direction.
        DTYPE: Of weights, gradients and buffers.
        DECAYS: Whether weight decay goes through the gradient (``MOMENTUM``).
        NEEDED: Whether to sum.
        UNITS: Units in a tile at most.
        ELEMENTS: Of each unit at a time.
    """
    tile = tiles + tl.program_id(0).to(tl.int64) * 6
    tensor = tl.load(tile)
    start = tl.load(tile + 3)
    length = tl.load(tile + 4).to(tl.int32)
    unit = tl.arange(0, UNITS)
    is_unit = unit < tl.load(tile + 2)
    s = settings + tensor * 5
    place = addresses + tensor * 4
    w_at = pointer(tl.load(place), DTYPE) + start
    g_at = pointer(tl.load(place + 1), DTYPE) + start
    m_at = pointer(tl.load(place + 2), DTYPE) + start
    q_at = pointer(tl.load(place + 3), DTYPE) + start
    keep, s1, s2, s3, s4 = (
        tl.load(s),
        tl.load(s + 1),
        tl.load(s + 2),
        tl.load(s + 3),
        tl.load(s + 4),
    )
    if DECAYS:
        share = tl.load(decay + tl.load(tile + 1) + unit, mask=is_unit, other=0.0)

    ww = tl.zeros([UNITS, ELEMENTS], tl.float64)
    wu = tl.zeros([UNITS, ELEMENTS], tl.float64)
    uu = tl.zeros([UNITS, ELEMENTS], tl.float64)
    sum_w = tl.zeros([UNITS, ELEMENTS], tl.float64)
    sum_u = tl.zeros([UNITS, ELEMENTS], tl.float64)
    for first in range(0, length, ELEMENTS):
        element = first + tl.arange(0, ELEMENTS)
        at = unit[:, None] * length + element[None, :]
        inside = is_unit[:, None] & (element < length)[None, :]
        g = tl.load(g_at + at, mask=inside, other=0.0).to(tl.float64)
        m = tl.load(m_at + at, mask=inside, other=0.0).to(tl.float64)
        w = g
        if NEEDED or DECAYS:
            w = tl.load(w_at + at, mask=inside, other=0.0).to(tl.float64)
        if KIND == MOMENTUM:
            push = g
            if DECAYS:
                push = g + share[:, None] * w
        else:
            push = (1 - keep) * g
        stored = (keep * m + push).to(tl.float32).to(DTYPE)
        tl.store(m_at + at, stored, mask=inside)
        m = stored.to(tl.float64)
        q = m
        if KIND == ADAM:
            q = tl.load(q_at + at, mask=inside, other=0.0).to(tl.float64)
            stored = (s1 * q + (1 - s1) * g * g).to(tl.float32).to(DTYPE)
            tl.store(q_at + at, stored, mask=inside)
            q = stored.to(tl.float64)
        if NEEDED:
            if KIND == SIGN:
                u = _sign_direction(m, g, s1, s2)
            else:
                u = _smooth_direction(KIND, m, q, s2, s3, s4)
            u = tl.where(inside, u, 0.0)  # ADAM outside: 0/0 where its ε is 0
            ww += w * w
            wu += w * u
            uu += u * u
            sum_w += w
            sum_u += u
    if NEEDED:
        row = sums + (tl.load(tile + 5) + unit) * 5
        tl.store(row, tl.sum(ww, 1), mask=is_unit)
        tl.store(row + 1, tl.sum(wu, 1), mask=is_unit)
        tl.store(row + 2, tl.sum(uu, 1), mask=is_unit)
        tl.store(row + 3, tl.sum(sum_w, 1), mask=is_unit)
        tl.store(row + 4, tl.sum(sum_u, 1), mask=is_unit)


@triton.jit
def move_tiles(
    tiles,
    addresses,
    settings,
    factors,
    KIND: tl.constexpr,
    DTYPE: tl.constexpr,
    UNITS: tl.constexpr,
    ELEMENTS: tl.constexpr,
):
    """Move the weights of one tile.

    Args:
        factors: Of weight and direction and the constant, float64, 3 per unit; the others
            are those of :func:`sum_tiles`.
    """
    tile = tiles + tl.program_id(0).to(tl.int64) * 6
    tensor = tl.load(tile)
    start = tl.load(tile + 3)
    length = tl.load(tile + 4).to(tl.int32)
    unit = tl.arange(0, UNITS)
    is_unit = unit < tl.load(tile + 2)
    s = settings + tensor * 5
    place = addresses + tensor * 4
    w_at = pointer(tl.load(place), DTYPE) + start
    g_at = pointer(tl.load(place + 1), DTYPE) + start
    m_at = pointer(tl.load(place + 2), DTYPE) + start
    q_at = pointer(tl.load(place + 3), DTYPE) + start
    s1, s2, s3, s4 = tl.load(s + 1), tl.load(s + 2), tl.load(s + 3), tl.load(s + 4)
    factor = factors + (tl.load(tile + 1) + unit) * 3
    a = tl.load(factor, mask=is_unit, other=0.0)[:, None]
    b = tl.load(factor + 1, mask=is_unit, other=0.0)[:, None]
    c = tl.load(factor + 2, mask=is_unit, other=0.0)[:, None]
    for first in range(0, length, ELEMENTS):
        element = first + tl.arange(0, ELEMENTS)
        at = unit[:, None] * length + element[None, :]
        inside = is_unit[:, None] & (element < length)[None, :]
        w = tl.load(w_at + at, mask=inside, other=0.0).to(tl.float64)
        m = tl.load(m_at + at, mask=inside, other=0.0).to(tl.float64)
        if KIND == MOMENTUM:
            u = m
        elif KIND == ADAM:
            q = tl.load(q_at + at, mask=inside, other=0.0).to(tl.float64)
            u = _smooth_direction(KIND, m, q, s2, s3, s4)
        else:
            read = inside & (s2 + tl.zeros([UNITS, ELEMENTS], tl.float64) != 0)
            g = tl.load(g_at + at, mask=read, other=0.0).to(tl.float64)
            u = _sign_direction(m, g, s1, s2)
        w = a * w + b * u + c
        tl.store(w_at + at, w.to(tl.float32).to(DTYPE), mask=inside)
