"""From measurements to the table, its marks, and docs/benchmarks.md."""

import os
import platform
import statistics
from collections.abc import Callable
from datetime import date
from pathlib import Path

from .variants import Variant

# What an older binary's number may be exceeded by.
WORSE_MAX = 0.05
# Fewer rounds have no middle half worth telling.
QUARTILES_MIN = 4
BEGIN, END = "<!-- results: written by `bench/run --write` -->", "<!-- end of results -->"

# Label, first mark for Streamgauge as (text, bound given nginx's value).
Mark = tuple[str, Callable[[float], float]]
MARKS: dict[str, Mark] = {
    "CPU µs per small JSON request": ("55 µs", lambda _: 55.0),
    "CPU µs per streamed event": ("1.5 × nginx", lambda nginx: 1.5 * nginx),
    "added µs per event, p99": ("2 × nginx", lambda nginx: 2.0 * nginx),
    "KiB per live stream": ("48 KiB", lambda _: 48.0),
}


def results(variants: list[Variant], count: int) -> str:
    """The whole result as Markdown."""
    parts = [table(variants)]
    if any(variant.name == "streamgauge" for variant in variants):
        parts.append(f"Marks for Streamgauge:\n\n{marks(variants)}")
    if {"before", "streamgauge"} <= {variant.name for variant in variants}:
        parts.append(f"Against the older binary (more than {WORSE_MAX:.0%} is worse):\n\n{against(variants)}")
    one = "One round: a look, not a result."
    parts.append(one if count == 1 else f"Medians of {count} rounds. {spread(variants)}")
    return "\n\n".join(parts)


def rounds(variants: list[Variant]) -> dict[str, dict[str, list[float] | None]]:
    """Each line of the table: by variant name its value in each round, or the one that there is of the whole run."""
    direct = next(variant for variant in variants if variant.child is None)
    table: dict[str, dict[str, list[float] | None]] = {}

    def row(label: str, values: Callable[[Variant], list[float] | None]) -> None:
        table[label] = {variant.name: values(variant) for variant in variants}

    def plain(mode: str, key: str) -> Callable[[Variant], list[float] | None]:
        def values(variant: Variant) -> list[float] | None:
            each = [run[key] for run in variant.measurements[mode]]
            return None if None in each else each
        return values

    def added(mode: str, key: str) -> Callable[[Variant], list[float] | None]:
        def values(variant: Variant) -> list[float] | None:
            pairs = zip(variant.measurements[mode], direct.measurements[mode], strict=True)
            return None if variant is direct else [own[key] - base[key] for own, base in pairs]
        return values

    def quietest(mode: str, key: str) -> Callable[[Variant], list[float] | None]:
        def lowest(variant: Variant) -> float:
            return min(run[key] for run in variant.measurements[mode])
        return lambda variant: None if variant is direct else [lowest(variant) - lowest(direct)]

    row("CPU µs per small JSON request", plain("json", "cpu_us"))
    row("small JSON requests per second", plain("json", "per_second"))
    row("CPU µs per streamed event", plain("events", "cpu_us"))
    row("added µs per event, p50", added("events", "p50_us"))
    row("added µs per event, p99", added("events", "p99_us"))
    row("added µs per event, p99, quietest rounds", quietest("events", "p99_us"))
    row("added µs to the first token, p50", added("ttft", "p50_us"))
    row("added µs to the first token, p99", added("ttft", "p99_us"))
    steps = next(variant for variant in variants if variant.child).measurements["hold"][0]["kib"]
    for step in steps:
        row(f"KiB per live stream, at {int(step):,}", lambda variant, step=step: per_stream(variant, step))
    return table


def rows(variants: list[Variant]) -> dict[str, dict[str, float | None]]:
    """Each line of the table: its values by variant name, medians of the rounds."""
    def middle(values: list[float] | None) -> float | None:
        return None if values is None else statistics.median(values)
    return {
        label: {name: middle(values) for name, values in by_name.items()}
        for label, by_name in rounds(variants).items()
    }


def per_stream(variant: Variant, step: str) -> list[float] | None:
    """KiB that each live stream added to the fresh proxy."""
    if variant.child is None:
        return None
    held = variant.measurements["hold"][0]
    return [(held["kib"][step] - held["rest_kib"]) / int(step)]


def table(variants: list[Variant]) -> str:
    """The Markdown table, each value with its ratio to nginx's."""
    lines = ["| | " + " | ".join(variant.title for variant in variants) + " |", "|---" * (len(variants) + 1) + "|"]
    for label, values in rows(variants).items():
        cells = [cell(values[variant.name], values["nginx"], variant.name) for variant in variants]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return aligned(lines)


def cell(value: float | None, nginx: float | None, name: str) -> str:
    """A value as the table shows it."""
    if value is None:
        return "–"
    text = f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.1f}"
    # Noise can put a difference below zero, and a ratio of that says nothing.
    ratio = name not in ("nginx", "direct") and nginx is not None and min(nginx, value) > 0
    return f"{text} ({value / nginx:.2f}×)" if ratio else text


def aligned(lines: list[str]) -> str:
    """The same table with its columns in line, for terminals."""
    cells = [[part.strip() for part in line.strip("|").split("|")] for line in lines]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    fill = lambda row: [text.ljust(width, "-" if text.startswith("---") else " ") for text, width in zip(row, widths)]
    return "\n".join("| " + " | ".join(fill(row)) + " |" for row in cells)


def marks(variants: list[Variant]) -> str:
    """Whether Streamgauge keeps its marks, and by how much it misses."""
    lines = []
    for label, values in rows(variants).items():
        mark = next((mark for start, mark in MARKS.items() if label.startswith(start)), None)
        if mark is None or "streamgauge" not in values:
            continue
        text, bound = mark[0], mark[1](values["nginx"])
        value = values["streamgauge"]
        if min(bound, value) <= 0:
            lines.append(f"- {label}: at most {text}: cannot be told, the machine was too noisy")
            continue
        verdict = "kept" if value <= bound else f"missed by {value - bound:.1f} ({value / bound - 1:.0%})"
        lines.append(f"- {label}: at most {text}{f' = {bound:.1f}' if 'nginx' in text else ''}, is {value:.1f}: {verdict}")
    return "\n".join(lines)


def against(variants: list[Variant]) -> str:
    """Each number beside the older binary's: round by round, for what disturbs a round disturbs both."""
    lines = []
    for label, by_name in rounds(variants).items():
        pairs = list(zip(by_name["before"], by_name["streamgauge"], strict=True))
        if any(min(pair) <= 0 for pair in pairs):
            lines.append(f"- {label}: cannot be told, the machine was too noisy")
            continue
        costs = sorted((old / new if label.endswith("per second") else new / old) - 1 for old, new in pairs)
        worse = statistics.median(costs)
        old, new = (statistics.median(values) for values in zip(*pairs))
        verdict = "worse" if worse > WORSE_MAX else "no worse"
        line = f"- {label}: {old:,.1f} before, {new:,.1f} now: {verdict} ({worse:+.1%}"
        if len(costs) >= QUARTILES_MIN:
            low, _, high = statistics.quantiles(costs, n=4)
            line += f"; the middle half of the rounds {low:+.0%} to {high:+.0%}"
        lines.append(f"{line})")
    return "\n".join(lines)


def spread(variants: list[Variant]) -> str:
    """How far the rounds lie apart: what a small difference is worth."""
    worst = []
    for mode, key, what in (("json", "cpu_us", "CPU per request"), ("events", "cpu_us", "CPU per event")):
        for variant in variants:
            values = [run[key] for run in variant.measurements[mode]]
            if None not in values:
                worst.append((max(values) / min(values) - 1, f"{what} of {variant.title}"))
    share, what = max(worst)
    return f"Rounds lie at most {share:.0%} apart ({what})."


def machine(versions: list[str]) -> str:
    """What the numbers were taken on."""
    info = Path("/proc/cpuinfo").read_text()
    model = next((line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")), "?")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}; {'; '.join(versions)}"


def write(path: Path, text: str, about: str) -> None:
    """Puts the results between their markers in `path`."""
    section = f"{BEGIN}\n\n{date.today().isoformat()} · {about}\n\n{text}\n\n{END}"
    old = path.read_text()
    before, rest = old.split(BEGIN, 1)
    path.write_text(before + section + rest.split(END, 1)[1])
