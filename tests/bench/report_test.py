"""What the bench makes of measurements: lines, ratios, marks, and the sections of docs/benchmarks.md. Nothing is timed."""

import contextlib
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "bench"))

from harness import curves, measure, peers, report  # noqa: E402
from harness.failure import Failure  # noqa: E402
from harness.variants import Variant  # noqa: E402

ROUNDS = 5


def variant(name: str, title: str, cost: float, proxy: bool = True) -> Variant:
    """A variant whose every cost is `cost`, in five rounds of which the last is disturbed."""
    def each(**keys: float) -> list[dict]:
        return [{**keys, "cpu_us": keys["cpu_us"] * (3 if turn == ROUNDS - 1 else 1)} for turn in range(ROUNDS)]
    cpu = cost if proxy else None
    base = 100.0
    made = Variant(name, title, "127.0.0.1:1", child=object() if proxy else None)
    if not proxy:
        made.measurements = {mode: [{"p50_us": base, "p99_us": base, "cpu_us": None, "per_second": 9e4, "timed": 10, "late": 0}] * ROUNDS
                             for mode in ("json", "events-100", "events-4000", "ttft", "many", "events", "sdk")}
        return made
    requests = {"requests": 1_000, "per_second": 1e6 / cost}
    made.measurements = {
        "json": each(cpu_us=cpu, **requests),
        "json-core": [{"requests": 1_000, "cpu_s": cost / 1_000, "seconds": cost / 500}] * ROUNDS,
        **{
            f"events-{count}": each(cpu_us=cpu, p50_us=base + cost, p99_us=base + 2 * cost)
            for count in (50, 100, 200, 4_000)
        },
        "many": each(cpu_us=cpu, p50_us=base + cost, p99_us=base + 2 * cost, timed=1_000, late=int(cost) - 20),
        "events": each(cpu_us=cpu),
        "ttft": [{"requests": 10, "p50_us": base + cost, "p99_us": base + 2 * cost}] * ROUNDS,
        "sdk": [{"p50_us": 1_000 + cost, "p99_us": 2_000 + cost}] * ROUNDS,
        "hold": [{"rest_kib": 1_000, "kib": {str(step): 1_000 + step * cost for step in (100, 1_000, 5_000)}}],
        **{f"idle-{kind}": [{"connections": 500, "rest_kib": 900, "kib": 900 + 500 * cost}] for kind in ("http1", "http2", "websocket")},
    }
    return made


def variants(own: float, bare: float | None = None) -> list[Variant]:
    """nginx costs 20 of everything, Streamgauge `own`, and with its limit half more."""
    found = [variant("direct", "direct", 0, proxy=False), variant("nginx", "nginx", 20)]
    if bare is not None:
        found.append(variant("bare", "bare pingora", bare))
    found += [variant("before", "Streamgauge before", own), variant("streamgauge", "Streamgauge", own)]
    for each in found[-2:]:
        each.measurements["json-limited"] = [{"requests": 1_000, "cpu_us": own * 1.5}] * ROUNDS
    return found


def line(text: str, start: str) -> str:
    """The one line that begins so."""
    found = [part for part in text.splitlines() if part.startswith(start)]
    assert len(found) == 1, (start, text)
    return found[0]


class Results(unittest.TestCase):
    def test_a_line_has_medians_and_ratios_to_nginx(self) -> None:
        text = report.results(variants(30.0), ROUNDS)
        cells = [part.strip() for part in line(text, f"| {report.REQUEST}  ").strip("|").split("|")]
        self.assertEqual(cells, [report.REQUEST, "–", "20.0", "30.0 (1.50×)", "30.0 (1.50×)"])
        cells = [part.strip() for part in line(text, f"| {report.REQUEST}, one limit").strip("|").split("|")]
        self.assertEqual(cells[1:], ["–", "–", "45.0 (2.25×)", "45.0 (2.25×)"], "beside nginx without a limit")
        for start in ("| KiB per live stream, at 5,000", "| KiB per idle connection, HTTP/2", "| KiB per open WebSocket"):
            self.assertIn("30.0 (1.50×)", line(text, start))
        self.assertIn("50,000 ", line(text, "| small JSON requests a second of one core"))
        self.assertIn("Of the one core were busy: nginx 50%", text)
        self.assertIn("Rounds lie at most 200% apart", text)

    def test_every_mark_is_told(self) -> None:
        marks = report.results(variants(30.0), ROUNDS).split("Marks for Streamgauge:\n\n")[1].split("\n\n")[0].splitlines()
        told = {mark.removeprefix("- ").split(": ")[0]: mark for mark in marks}
        self.assertEqual(len(told), 12, told.keys())
        self.assertTrue(told[report.REQUEST].endswith("= 50.0, is 30.0: kept"), told)
        self.assertTrue(told[f"{report.REQUEST}, one limit"].endswith("= 54.0, is 45.0: kept"), told)
        self.assertTrue(told["CPU µs per streamed event, 200 streams"].endswith("= 20.0, is 30.0: missed by 10.0 (50%)"), told)
        self.assertTrue(told["CPU µs per streamed event, 4,000 streams"].endswith("= 22.0, is 30.0: missed by 8.0 (36%)"), told)
        self.assertTrue(told["KiB per live stream, at 1,000"].endswith("at most 20 KiB, is 30.0: missed by 10.0 (50%)"), told)
        core = told["small JSON requests a second of one core"]
        self.assertTrue("at least 0.5 × nginx = 25,000.0, is 33,333.3: kept" in core, core)

    def test_a_costly_engine_is_a_mark_of_its_own(self) -> None:
        with_bare = report.results(variants(70.0, bare=65.0), ROUNDS)
        self.assertTrue(line(with_bare, f"- {report.REQUEST}: at most 2.5 ×").endswith("= 71.5, is 70.0: kept"))
        without = report.results(variants(70.0), ROUNDS)
        self.assertTrue(line(without, f"- {report.REQUEST}: at most 2.5 ×").endswith("= 50.0, is 70.0: missed by 20.0 (40%)"))

    def test_what_was_not_measured_is_no_mark_kept(self) -> None:
        found = variants(10.0)
        found[-1].measurements.pop("json-core")
        found[-1].measurements.pop("json-limited")
        marks = report.results(found, ROUNDS)
        for start in ("- small JSON requests a second of one core: at least", f"- {report.REQUEST}, one limit: at most"):
            self.assertTrue(line(marks, start).endswith("not measured in this run"))

    def test_an_older_binary_is_compared_round_by_round(self) -> None:
        found = variants(30.0)
        found[-2].measurements["json"] = [{**run, "cpu_us": run["cpu_us"] / 1.5} for run in found[-2].measurements["json"]]
        text = report.results(found, ROUNDS)
        self.assertIn("20.0 before, 30.0 now: worse (+50.0%; the middle half of the rounds +50% to +50%)", text)
        self.assertIn("- small JSON requests per second: 33,333.3 before, 33,333.3 now: no worse (+0.0%", text)


class Memory(unittest.TestCase):
    def test_what_the_bare_proxy_cannot_is_left_out_and_no_other_may_fail(self) -> None:
        class Refused(measure.Bench):
            def one(self, variant: Variant, command: str, options: list[str], target: str | None = None, on: set[int] | None = None) -> dict:
                if "websocket" in options:
                    raise Failure("answered 502")
                return {"options": options}
        bench = Refused(Path("loadgen"), mock.Mock(), mock.Mock())
        with contextlib.redirect_stdout(None):
            held = bench.memory(lambda: variant("bare", "bare pingora", 20), measure.QUICK)
            self.assertEqual(sorted(held), ["hold", "idle-http1"], "and no HTTP/2 without an address for it")
            with self.assertRaises(Failure):
                bench.memory(lambda: variant("nginx", "nginx", 20), measure.QUICK)


class Others(unittest.TestCase):
    def test_late_events_are_counted(self) -> None:
        text = report.many(variants(30.0), 9_800, ROUNDS)
        self.assertIn("- Streamgauge: 50 of 5,000", text)
        self.assertIn("- nginx: 0 of 5,000", text)
        self.assertIn("missed by 50.", text)
        self.assertIn("is: kept.", report.many(variants(20.0), 9_800, ROUNDS))

    def test_gateways_are_lines(self) -> None:
        text = peers.report(variants(30.0), ROUNDS, [])
        cells = [part.strip() for part in line(text, "| Streamgauge  ").strip("|").split("|")]
        self.assertEqual(cells[1], "30.0 (1.50×)")
        self.assertEqual(cells[-1], "30.0 (1.50×)")
        self.assertTrue(line(text, "| direct  "))
        self.assertNotIn("Measured anew", text)

    def test_a_gateway_that_fails_is_measured_anew_and_named(self) -> None:
        found = variants(30.0)
        answers = iter([Failure("a stream was cut"), Failure("a stream was cut"), None])
        def measured() -> None:
            if answer := next(answers):
                raise answer
        with contextlib.redirect_stdout(None):
            peers.again(found[1], measured)
        self.assertIn("Measured anew, because a stream was cut short or a request failed: nginx (2).", peers.report(found, ROUNDS, []))
        def fails() -> None:
            raise Failure("always")
        for variant in (found[1], found[-1]):
            with self.assertRaises(Failure), contextlib.redirect_stdout(None):
                peers.again(variant, fails)
        self.assertEqual(found[-1].failed, 1, "no second try for Streamgauge")

    def test_a_gateway_that_cannot_be_measured_is_left_out_and_named(self) -> None:
        found = variants(30.0)
        def fails() -> None:
            raise Failure("always")
        with contextlib.redirect_stdout(None):
            peers.lasting(found[1], fails)
        self.assertTrue(found[1].lost)
        self.assertIn("Left out, because it failed 5 times at one measurement: nginx.", peers.report(found, ROUNDS, [found[1]]))
        with self.assertRaises(Failure):
            peers.lasting(found[-1], fails)

    def test_a_curve_is_flat_or_rises(self) -> None:
        flat = curves.told({"users": {10: 100.0, 1_000: 109.0}})
        self.assertIn("+9.0%", flat)
        self.assertIn("Flat within 10%: kept.", flat)
        self.assertIn("missed, it rises by 24%", curves.told({"routes": {1: 100.0, 100: 124.0, 1_000: 90.0}}))


class Sections(unittest.TestCase):
    def test_a_run_writes_its_own_section(self) -> None:
        text = (ROOT / "docs/benchmarks.md").read_text()
        with tempfile.TemporaryDirectory() as directory:
            copy = Path(directory) / "benchmarks.md"
            for section in ("results", "many", "curves", "peers"):
                begin, end = report.markers(section)
                copy.write_text(text)
                report.write(copy, section, "the table", "the machine")
                written = copy.read_text()
                self.assertIn("the machine\n\nthe table", written.split(begin)[1].split(end)[0])
                self.assertEqual(written.split(begin)[0], text.split(begin)[0])
                self.assertEqual(written.split(end)[1], text.split(end)[1])
            copy.write_text("no section")
            with self.assertRaises(Failure):
                report.write(copy, "results", "the table", "the machine")


if __name__ == "__main__":
    unittest.main()
