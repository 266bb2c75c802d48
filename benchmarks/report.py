"""What a comparison came to: the machine, a table a setting, and every setting where we lose."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.compare import Comparison, Measured
from benchmarks.settings import Ours

LIBRARIES = ("torch", "transformers", "peft", "numpy")
HEADINGS = (
    "client-steps/s",
    "lowest-highest",
    "useful tokens/s",
    "x same dtype",
    "x best",
    "peak MiB",
    "start-up s",
    "loss off by",
    "change off by",
)
WIDTH = 170
EXPLAINED = (
    "x same dtype, x best: times as fast as the fastest PEFT loop in this dtype, in any; "
    "loss off by, change off by: distance from float32 PEFT, nats per token (root mean square over "
    "clients) and relative"
)


def machine(threads: int) -> dict[str, Any]:
    """Return the facts of this machine that decide speed."""
    import torch

    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "avx512_bf16": torch.cpu._is_avx512_bf16_supported(),
        "amx": torch.cpu._is_amx_tile_supported(),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{library: version(library) for library in LIBRARIES},
    }


def processor() -> str:
    """Name the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def table(comparison: Comparison) -> Table:
    """Put the systems side by side, the fastest of each side first."""
    title = f"{comparison.setting.name}; {comparison.setting.steps} steps of "
    title += f"{comparison.setting.clients} clients"
    shown = Table(title=title, title_justify="left", caption=EXPLAINED, caption_justify="left")
    shown.add_column("system")
    for heading in HEADINGS:
        shown.add_column(heading, justify="right")
    for measured in comparison.systems:
        shown.add_row(label(measured), *cells(comparison, measured))
    return shown


def label(measured: Measured) -> str:
    """Name a system in the table."""
    return measured.system.name + ("" if measured.trains else " (does not train: left out)")


def cells(comparison: Comparison, measured: Measured) -> list[str]:
    """Write the figures of one system."""
    apart = [f"{measured.deviation.loss:.1e}", f"{measured.deviation.change:.1e}"]
    if not measured.seconds:
        return ["-"] * (len(HEADINGS) - len(apart)) + apart
    speed = comparison.speed(measured)
    steps = comparison.setting.client_steps
    return [
        f"{speed:.1f}",
        f"{steps / max(measured.seconds):.1f}-{steps / min(measured.seconds):.1f}",
        f"{speed / steps * comparison.useful_tokens:,.0f}",
        times(comparison.ratio(measured, measured.system.dtype)),
        times(comparison.ratio(measured, "float32", "bfloat16")),
        f"{measured.peak_bytes / 2**20:,.0f}",
        f"{measured.startup_seconds:.1f}",
        *apart,
    ]


def times(ratio: float | None) -> str:
    """Write a ratio."""
    return "-" if ratio is None else f"{ratio:.2f}"


def slower(comparison: Comparison) -> list[str]:
    """List where we are slower: our best against their best, then each system in its dtype."""
    lines = []
    best = comparison.ours()[:1]
    if best and (ratio := comparison.ratio(best[0], "float32", "bfloat16") or 1.0) < 1:
        lines.append(f"{comparison.setting.name}: our best is {ratio:.2f} x their best")
    for measured in comparison.ours():
        ratio = comparison.ratio(measured, measured.system.dtype)
        if ratio is not None and ratio < 1:
            lines.append(
                f"{comparison.setting.name}: {measured.system.name} is {ratio:.2f} x their best in "
                f"{measured.system.dtype}"
            )
    return lines


def headline(comparison: Comparison) -> str:
    """Say in a line what a comparison came to."""
    name = comparison.setting.name
    if comparison.failure:
        return f"{name}: no figures count. {comparison.failure}"
    ours = comparison.ours()
    ratio = comparison.ratio(ours[0], "float32", "bfloat16") if ours else None
    if ratio is None or not isinstance(ours[0].system, Ours):
        return f"{name}: nothing to compare with"
    peer = comparison.peers("float32", "bfloat16")[0]
    return (
        f"{name}: {ratio:.2f} x ({ours[0].system.name}, {comparison.speed(ours[0]):.1f} "
        f"client-steps/s; {peer.system.name}, {comparison.speed(peer):.1f})"
    )


def print_summary(console: Console, comparisons: Sequence[Comparison]) -> None:
    """Print one line a setting, then every place where we are slower."""
    for comparison in comparisons:
        console.print(headline(comparison), soft_wrap=True)
    lost = [line for comparison in comparisons for line in slower(comparison)]
    console.print("slower nowhere" if not lost else "SLOWER:", soft_wrap=True)
    for line in lost:
        console.print(f"  {line}", soft_wrap=True)
