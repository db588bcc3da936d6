"""From measurements to the table, its marks, and docs/benchmarks.md."""

import os
import platform
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from .failure import Failure
from .variants import Variant

# What an older binary's number may be exceeded by.
WORSE_MAX = 0.05
# Fewer rounds have no middle half worth telling.
QUARTILES_MIN = 4
# What a bare pingora proxy's number may be exceeded by, where that is more than nginx's share.
BARE_SHARE = 1.1

# A value in each round, or the one that there is of the whole run; none where it cannot be had.
Values = list[float] | None


@dataclass(frozen=True)
class Mark:
    """What Streamgauge's value is held to."""

    # So often nginx's of the same run.
    nginx: float | None = None
    # Or so often the bare proxy's, where that is more.
    bare: float | None = None
    # Or so much.
    plain: float | None = None
    unit: str = ""

    def told(self) -> str:
        """The mark in words."""
        if self.plain is not None:
            return f"{self.plain:g} {self.unit}".rstrip()
        bare = f" or {self.bare:g} × bare pingora where that is more" if self.bare else ""
        return f"{self.nginx:g} × nginx{bare}"

    def bound(self, nginx: float | None, bare: float | None) -> float | None:
        """The mark in this run; none where what it is compared with was not measured."""
        if self.plain is not None:
            return self.plain
        if nginx is None:
            return None
        return max(self.nginx * nginx, self.bare * bare if self.bare and bare is not None else 0.0)


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    label: str
    # From a variant and the way without a proxy.
    values: Callable[[Variant, Variant], Values]
    mark: Mark | None = None
    # The line whose nginx and whose bare proxy it is compared with, where these have no such thing.
    beside: str | None = None
    more_is_better: bool = False


def plain(mode: str, key: str, scale: float = 1.0) -> Callable[[Variant, Variant], Values]:
    """What was measured, as it is."""
    def values(variant: Variant, _: Variant) -> Values:
        each = [run[key] for run in variant.measurements.get(mode, [])]
        return None if not each or None in each else [value * scale for value in each]
    return values


def added(mode: str, key: str, scale: float = 1.0) -> Callable[[Variant, Variant], Values]:
    """What a proxy adds to the way without one, round by round."""
    def values(variant: Variant, direct: Variant) -> Values:
        if variant is direct or mode not in variant.measurements:
            return None
        pairs = zip(variant.measurements[mode], direct.measurements[mode], strict=True)
        return [(own[key] - base[key]) * scale for own, base in pairs]
    return values


def quietest(mode: str, key: str) -> Callable[[Variant, Variant], Values]:
    """The lowest of any round less the direct way's lowest."""
    def lowest(variant: Variant) -> float:
        return min(run[key] for run in variant.measurements[mode])
    return lambda variant, direct: None if variant is direct else [lowest(variant) - lowest(direct)]


def one_core(variant: Variant, _: Variant) -> Values:
    """Requests in each second of CPU time while the proxy has one core, and nothing else runs on that."""
    return [run["requests"] / run["cpu_s"] for run in variant.measurements.get("json-core", [])] or None


def per_stream(step: str) -> Callable[[Variant, Variant], Values]:
    """KiB that each live stream added to the fresh proxy."""
    def values(variant: Variant, _: Variant) -> Values:
        return [(held["kib"][step] - held["rest_kib"]) / int(step) for held in variant.measurements.get("hold", [])] or None
    return values


def per_connection(kind: str) -> Callable[[Variant, Variant], Values]:
    """KiB that each waiting connection added to the fresh proxy."""
    def values(variant: Variant, _: Variant) -> Values:
        runs = variant.measurements.get(f"idle-{kind}", [])
        return [(held["kib"] - held["rest_kib"]) / held["connections"] for held in runs] or None
    return values


REQUEST = "CPU µs per small JSON request"
STREAM_MARKS = {1_000: Mark(plain=20, unit="KiB"), 5_000: Mark(plain=20, unit="KiB")}
EVENT_MARKS = {50: Mark(nginx=1.05), 200: Mark(nginx=1.0), 4_000: Mark(nginx=1.1)}


def all_rows(variants: list[Variant]) -> list[Row]:
    """The lines of a full run's table, as far as they were measured."""
    some = next(variant for variant in variants if variant.child is not None).measurements
    streams = [int(mode.removeprefix("events-")) for mode in some if mode.startswith("events-")]
    return [
        Row(REQUEST, plain("json", "cpu_us"), Mark(nginx=2.5, bare=BARE_SHARE)),
        Row(f"{REQUEST}, one limit", plain("json-limited", "cpu_us"), Mark(nginx=2.7, bare=BARE_SHARE), beside=REQUEST),
        Row("small JSON requests a second of one core", one_core, Mark(nginx=0.5), more_is_better=True),
        Row("small JSON requests per second", plain("json", "per_second"), more_is_better=True),
        *(
            Row(f"CPU µs per streamed event, {count:,} streams", plain(f"events-{count}", "cpu_us"), EVENT_MARKS.get(count))
            for count in sorted(streams)
        ),
        *([Row("event ms p99, 4,000 streams", plain("events-4000", "p99_us", 1e-3))] if 4_000 in streams else []),
        Row("added µs per event, p50", added("events-100", "p50_us"), Mark(nginx=1.2)),
        Row("added µs per event, p99", added("events-100", "p99_us"), Mark(nginx=1.2)),
        Row("added µs per event, p99, quietest rounds", quietest("events-100", "p99_us")),
        Row("added µs to the first token, p50", added("ttft", "p50_us"), Mark(nginx=1.3)),
        Row("added µs to the first token, p99", added("ttft", "p99_us"), Mark(nginx=1.5)),
        *(
            Row(f"KiB per live stream, at {int(step):,}", per_stream(step), STREAM_MARKS.get(int(step)))
            for step in some["hold"][0]["kib"]
        ),
        Row("KiB per idle connection, HTTP/1", per_connection("http1")),
        Row("KiB per idle connection, HTTP/2", per_connection("http2")),
        Row("KiB per open WebSocket", per_connection("websocket")),
    ]


class Table:
    """Lines over variants, with the values of each round and their medians."""

    def __init__(self, variants: list[Variant], rows: list[Row]) -> None:
        self.variants, self.rows = variants, rows
        direct = next(variant for variant in variants if variant.child is None)
        self.rounds = {row.label: {variant.name: row.values(variant, direct) for variant in variants} for row in rows}

    def middle(self, label: str, name: str) -> float | None:
        """The median of the rounds."""
        values = self.rounds[label].get(name)
        return None if values is None else statistics.median(values)

    def compared(self, row: Row, name: str) -> float | None:
        """What a line is compared with."""
        return self.middle(row.beside or row.label, name)

    def markdown(self) -> str:
        """The table, each value with its ratio to nginx's."""
        lines = ["| | " + " | ".join(variant.title for variant in self.variants) + " |", "|---" * (len(self.variants) + 1) + "|"]
        for row in self.rows:
            nginx = self.compared(row, "nginx")
            cells = [cell(self.middle(row.label, variant.name), nginx, variant.name) for variant in self.variants]
            lines.append(f"| {row.label} | " + " | ".join(cells) + " |")
        return aligned(lines)

    def by_variant(self) -> str:
        """The table with a variant a line."""
        lines = ["| | " + " | ".join(row.label for row in self.rows) + " |", "|---" * (len(self.rows) + 1) + "|"]
        for variant in self.variants:
            cells = [cell(self.middle(row.label, variant.name), self.compared(row, "nginx"), variant.name) for row in self.rows]
            lines.append(f"| {variant.title} | " + " | ".join(cells) + " |")
        return aligned(lines)

    def marks(self) -> str:
        """Whether Streamgauge keeps its marks, and by how much it misses."""
        return "\n".join(self.verdict(row) for row in self.rows if row.mark is not None)

    def verdict(self, row: Row) -> str:
        """One mark."""
        bound = row.mark.bound(self.compared(row, "nginx"), self.compared(row, "bare"))
        value = self.middle(row.label, "streamgauge")
        side = "at least" if row.more_is_better else "at most"
        told = f"- {row.label}: {side} {row.mark.told()}"
        if bound is None or value is None:
            return f"{told}: not measured in this run"
        if min(bound, value) <= 0:
            return f"{told}: cannot be told, the machine was too noisy"
        kept = value >= bound if row.more_is_better else value <= bound
        amount = "" if row.mark.plain is not None else f" = {bound:,.1f}"
        verdict = "kept" if kept else f"missed by {abs(value - bound):,.1f} ({abs(value / bound - 1):.0%})"
        return f"{told}{amount}, is {value:,.1f}: {verdict}"

    def against(self) -> str:
        """Each number beside the older binary's: round by round, for what disturbs a round disturbs both."""
        return "\n".join(self.beside_older(row) for row in self.rows)

    def beside_older(self, row: Row) -> str:
        """One number."""
        by_name = self.rounds[row.label]
        if by_name["before"] is None or by_name["streamgauge"] is None:
            return f"- {row.label}: not measured in this run"
        pairs = list(zip(by_name["before"], by_name["streamgauge"], strict=True))
        if any(min(pair) <= 0 for pair in pairs):
            return f"- {row.label}: cannot be told, the machine was too noisy"
        costs = sorted((old / new if row.more_is_better else new / old) - 1 for old, new in pairs)
        worse = statistics.median(costs)
        old, new = (statistics.median(values) for values in zip(*pairs))
        line = f"- {row.label}: {old:,.1f} before, {new:,.1f} now: {'worse' if worse > WORSE_MAX else 'no worse'} ({worse:+.1%}"
        if len(costs) >= QUARTILES_MIN:
            low, _, high = statistics.quantiles(costs, n=4)
            line += f"; the middle half of the rounds {low:+.0%} to {high:+.0%}"
        return f"{line})"


def results(variants: list[Variant], count: int) -> str:
    """A full run's result as Markdown."""
    table = Table(variants, all_rows(variants))
    parts = [table.markdown()]
    names = {variant.name for variant in variants}
    if "streamgauge" in names:
        parts.append(f"Marks for Streamgauge:\n\n{table.marks()}")
    if {"before", "streamgauge"} <= names:
        parts.append(f"Against the older binary (more than {WORSE_MAX:.0%} is worse):\n\n{table.against()}")
    parts.append(f"{told_rounds(count)} {spread(variants)} {busy(variants)}".strip())
    return "\n\n".join(parts)


def told_rounds(count: int) -> str:
    """What the numbers are the middle of."""
    return "One round: a look, not a result." if count == 1 else f"Medians of {count} rounds."


def busy(variants: list[Variant]) -> str:
    """How busy the proxies kept the core that they had to themselves: where it was not all the time, the load was the slower one."""
    shares = {
        variant.title: statistics.median(run["cpu_s"] / run["seconds"] for run in variant.measurements["json-core"])
        for variant in variants if "json-core" in variant.measurements
    }
    if not shares:
        return ""
    return "Of the one core were busy: " + ", ".join(f"{title} {share:.0%}" for title, share in shares.items()) + "."


def many(variants: list[Variant], streams: int, count: int) -> str:
    """The result of very many live streams, as Markdown."""
    def share(variant: Variant, _: Variant) -> Values:
        return [run["late"] / run["timed"] * 100 for run in variant.measurements["many"]]
    table = Table(variants, [
        Row("CPU µs per event", plain("many", "cpu_us")),
        Row("event ms p50", plain("many", "p50_us", 1e-3)),
        Row("event ms p99", plain("many", "p99_us", 1e-3)),
        Row("% of events more than 50 ms late", share),
    ])
    late = {
        variant.title: (sum(run["late"] for run in variant.measurements["many"]), sum(run["timed"] for run in variant.measurements["many"]))
        for variant in variants
    }
    counts = "\n".join(f"- {title}: {few:,} of {all_:,}" for title, (few, all_) in late.items())
    own = late.get("Streamgauge")
    verdict = "" if own is None else f"\n\nThe mark, that no event of Streamgauge's is: {'kept' if own[0] == 0 else f'missed by {own[0]:,}'}."
    return f"{streams:,} live streams.\n\n{table.markdown()}\n\nEvents more than 50 ms late:\n\n{counts}{verdict}\n\n{told_rounds(count)}"


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


def spread(variants: list[Variant]) -> str:
    """How far the rounds lie apart: what a small difference is worth."""
    worst = []
    for mode, key, what in (("json", "cpu_us", "CPU per request"), ("events-100", "cpu_us", "CPU per event")):
        for variant in variants:
            values = [run[key] for run in variant.measurements.get(mode, [])]
            if values and None not in values:
                worst.append((max(values) / min(values) - 1, f"{what} of {variant.title}"))
    share, what = max(worst)
    return f"Rounds lie at most {share:.0%} apart ({what})."


def machine(versions: list[str]) -> str:
    """What the numbers were taken on."""
    info = Path("/proc/cpuinfo").read_text()
    model = next((line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")), "?")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}; {'; '.join(versions)}"


def write(path: Path, section: str, text: str, about: str) -> None:
    """Puts a section between its markers in `path`."""
    old = path.read_text()
    begin, end = markers(section)
    if begin not in old or end not in old.split(begin, 1)[1]:
        raise Failure(f"{path} has no section between {begin} and {end}")
    before, rest = old.split(begin, 1)
    path.write_text(f"{before}{begin}\n\n{date.today().isoformat()} · {about}\n\n{text}\n\n{end}{rest.split(end, 1)[1]}")


def markers(section: str) -> tuple[str, str]:
    """What stands around a section that a run writes."""
    option = "" if section == "results" else f" --{section}"
    return f"<!-- {section}: written by `bench/run{option} --write` -->", f"<!-- end of {section} -->"
