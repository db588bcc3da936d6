"""Each kind of load for a moment, through a Streamgauge that is started as the bench starts it: LOADGEN STREAMGAUGE."""

import sys
import tempfile
import tomllib
import unittest
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "bench"))

from harness import curves, measure, report, variants  # noqa: E402
from harness.processes import processes  # noqa: E402

LOADGEN, PROXY = (Path(word).resolve() for word in sys.argv[1:3])
PLAN = measure.Plan(rounds=1, seconds=0.2, firsts=5, steps="3,5", idle=5, streams={100: 5})


class Load(unittest.TestCase):
    def test_a_round_through_streamgauge_and_without(self) -> None:
        with tempfile.TemporaryDirectory() as directory, processes(Path(directory)) as children:
            ends = measure.start_ends(children, LOADGEN, Path(directory))
            bench = measure.Bench(LOADGEN, children, ends)
            starts = [
                partial(variants.direct, ends),
                # In nginx's place, for the ratios: it may not be there.
                partial(variants.streamgauge, children, ends, PROXY, "nginx", "nginx"),
                partial(variants.streamgauge, children, ends, PROXY),
            ]
            ways = bench.measure(starts, PLAN)
            bench.many(ways, 20, 1)
            text = report.results(ways, 1)
            for label in ("one limit", "of one core", "100 streams", "first token, p50", "at 5 ", "HTTP/1", "HTTP/2", "open WebSocket"):
                found = [line for line in text.splitlines() if line.startswith("|") and label in line]
                self.assertEqual(len(found), 1, f"{label}:\n{text}")
            self.assertIn("Streamgauge: ", report.many(ways, 20, 1))
            made = measure.prove_telemetry(ways[-1], ends.sink, Path(directory) / "streamgauge.out")
            self.assertIn("log lines", made)


class Configurations(unittest.TestCase):
    def test_those_of_the_curves_are_what_they_say(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            proxy = curves.Counted(PROXY, Path(directory), "some", routes=7, endpoints=3, limits=True)
            proxy.spans = "127.0.0.1:1"
            proxy.write_config()
            first = tomllib.loads(proxy.config.read_text())
            self.assertEqual(len(first["upstream"][0]["urls"]), 3)
            self.assertEqual([len(route["limits"]) for route in first["route"]], [0, 1, 2, 3, 4] + [0] * 7)
            proxy.reloads += 1
            proxy.write_config()
            self.assertNotEqual(first, tomllib.loads(proxy.config.read_text()), "a reload has something to bring into effect")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
