"""What the files of a work dir may hold that they should not, or that looks as if."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from tests.analysis.work_dirs import weight

HOSTILE = [
    "<script>window.pwned=1<\u2215script>",
    "<img src=x onerror=window.pwned=1>",
    '"><svg onload=window.pwned=1>',
    "</title>".replace("/", "\\") + "<b>",
    "a\nb",
    "a\r\nstatus,finished",
    "\x1b[2J\x1b[31m",
    "\u202egnp.exe",
    "a\u2028b\u2029c",
    b"\xff\xfe\x80".decode("utf-8", "surrogateescape"),
    "x" * 240,
    "名" * 80,
    "=cmd|' C'!A0",
    "+1+1",
    "-1",
    "@sum(1)",
    "..x",
    "$(touch executed)",
    "`touch executed`",
    "| a | b |",
    "[x](javascript:alert(1))",
    "**bold** _it_ ~no~",
    "%s%n%d",
    "{{7*7}}{%x%}${7}",
    "\\input{x}\\end{tabular}",
    "50% & #1 ^2 ~x {y} _z_",
    " ",
    "' OR 1=1 --",
    "NaN",
    "&lt;b&gt;&amp;",
]


def contents(trap: str) -> dict[str, list[str]]:
    """What files of each kind may hold; ``trap`` is code that must not run."""
    ok = weight("a")

    def run(**changes: Any) -> str:
        return json.dumps({"first_step": 0, "weights": [ok], **changes})

    deep, digits = "[" * 100_000, "9" * 400
    anything = ["[]", "5", '"text"', "null", deep, '{"a":' * 50_000, "{'single': 1}"]
    return {
        "run": [
            *anything,
            run(weights={"a": 1}),
            run(weights=[5]),
            run(weights=[{}]),
            run(weights=[{**ok, "parameter": 7}]),
            run(weights=[{**ok, "parameter": ["a"]}]),
            run(weights=[{**ok, "rule": "SGD"}]),
            run(weights=[{**ok, "rule": {"type": "SGD", "lr": "fast"}}]),
            run(weights=[{**ok, "measured": "yes"}]),
            run(weights=[{**ok, "scale_invariant": 1.5}]),
            run(weights=[{**ok, "changes": "never"}]),
            run(weights=[{**ok, "changes": [[0]]}]),
            run(weights=[{**ok, "changes": [["0", True]]}]),
            run(weights=[{**ok, "members": [1, 2]}]),
            run(weights=[{**ok, "first_step": float("nan")}]),
            run(weights=[{**ok, "reason": None}]),
            run(world_size="eight"),
            run(world_size=-1),
            run(first_step=float("inf")),
            f'{{"first_step": {digits}, "weights": []}}',
        ],
        "state": [
            *anything,
            '{"status": "exploded"}',
            '{"status": ["running"]}',
            '{"status": "running", "iteration": "many"}',
            '{"status": "running", "updated": NaN}',
            f'{{"status": "running", "updated": {digits}}}',
            f'{{"status": "running", "max_iterations": {digits}}}',
        ],
        "scalars": [
            *anything,
            '{"lr": 0.1}\n',
            '{"lr": 0.1, "step": "50"}\n',
            '{"lr": 0.1, "step": NaN}\n{"lr": 0.1, "step": -Infinity}\n',
            f'{{"lr": 0.1, "step": {digits}}}\n',
            '{"lr": 0.1, "step": [1]}\n',
            '{"lr": 0.1, "step": 1e300}\n',
            "\n".join(["no json"] * 1000),
            "x" * 3_000_000,
        ],
        "config": [
            f"a = {deep[:10_000]}{']' * 10_000}",
            f"a = {'-' * 100_000}1",
            f"a = b{'.c' * 100_000}",
            f"a = {'(' * 150}1{')' * 150}{'()' * 50_000}",
            "a = [0]\n" * 6_500_000,
            "model = dict(",
            "print 'Python 2'",
            "a = {[1]: 2}",
            f"a = {'9' * 5000}",
            f"import os\na = {trap}\n",
            f"model = dict(type={trap})\n{trap}\n",
            f"__import__('builtins').{trap}\n",
            "train_cfg = [1]",
            "optim_wrapper = 'x'",
            "optim_wrapper = dict(optimizer=dict(type='SGD', lr='fast'))",
            "optim_wrapper = dict(optimizer=dict(type=5))",
            "optim_wrapper = dict(accumulative_counts=-2)",
            "train_dataloader = dict(batch_size='32')",
            "train_dataloader = dict(dataset=5)",
            "train_dataloader = dict(dataset=dict(datasets=7))",
            "model = [1]",
            "model = dict(type='A', backbone=3)",
            "model = dict(type='A', backbone=dict(type='R', depth=[1]))",
            f"model = dict(backbone=dict(type='R', depth={digits}))",
            "custom_hooks = 1",
            "randomness = dict(seed='s')",
            "auto_scale_lr = 3",
            f"auto_scale_lr = dict(enable=True, base_batch_size={-1})\n"
            "train_dataloader = dict(batch_size=2)\n"
            "optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))",
        ],
    }


def _set(name: str, values: Callable[[pa.ChunkedArray], Any]) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        column = table.schema.get_field_index(name)
        return table.set_column(column, name, values(table.column(name)))

    return change


TABLES: dict[str, Callable[[pa.Table], pa.Table]] = {
    "without a column": lambda table: table.drop_columns(["angular_update"]),
    "without any": lambda table: pa.table({"x": [1]}),
    "of text": _set("lr", lambda c: c.cast(pa.string())),
    "of other integers": _set("step", lambda c: c.cast(pa.int64())),
    "of lists": _set("lr", lambda c: pa.array([[v] for v in c.to_pylist()])),
    "with gaps": _set("step", lambda c: pa.array([None, *c.to_pylist()[1:]], c.type)),
    "of negative steps": _set("step", lambda c: pa.array([-v for v in c.to_pylist()], c.type)),
    "of negative weights": _set("weight", lambda c: pa.array([-9] * len(c), c.type)),
    "of too many rows": lambda table: pa.table({"step": pa.nulls(2**25 + 1)}),
}


def _every(value: float) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        for name in table.column_names:
            if pa.types.is_floating(table.schema.field(name).type):
                table = _set(name, lambda c: pa.array([value] * len(c), c.type))(table)
        return table

    return change


ODD_TABLES: dict[str, Callable[[pa.Table], pa.Table]] = {
    "of NaN": _every(math.nan),
    "of infinities": _every(math.inf),
    "of zeros": _every(0.0),
    "of minus one": _every(-1.0),
    "of huge numbers": _every(1e38),
    "without rows": lambda table: table.slice(0, 0),
    "of one row": lambda table: table.slice(0, 1),
    "in reverse": lambda table: table.take(list(range(len(table)))[::-1]),
    "of one step": _set("step", lambda c: pa.array([5] * len(c), c.type)),
    "of unknown weights": _set("weight", lambda c: pa.array([9] * len(c), c.type)),
    "of unknown units": _set("unit", lambda c: pa.array([9] * len(c), c.type)),
    "with more columns": lambda table: table.append_column("x", table.column("lr")),
    "of late steps": _set("step", lambda c: pa.array([2**31 - 1] * len(c), c.type)),
}
