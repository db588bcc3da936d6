"""Does to a proxy everything that a dashboard shows, and then asks every query, while a stream and a WebSocket are still open.
What is waited for is seen in Prometheus, so that rates have two samples.

Usage: drive.py PROXY_URL ADMIN_URL PROMETHEUS_URL CONFIG REDIS_PID
"""

import base64
import http.client
import json
import os
import pathlib
import signal
import sys
import time
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import queries
from websockets.sync.client import connect

ROUNDS = 4
# A token of whoever, by a key that is not known: it makes the proxy look for new keys.
STRANGERS = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (b'{"alg":"RS256","kid":"new"}', b'{"sub":"x"}', b"signature"))


class Run:
    def __init__(self, proxy, admin, prometheus, config, redis):
        self.proxy = urllib.parse.urlsplit(proxy)
        self.admin, self.prometheus, self.config, self.redis = admin, prometheus, pathlib.Path(config), int(redis)
        self.users = 0

    def begin(self, path, knobs="", model="demo-1", token=None, **body):
        """Asks for a stream, each time as another user: the connection on which its answer comes."""
        self.users += 1
        connection = http.client.HTTPConnection(self.proxy.hostname, self.proxy.port, timeout=30)
        body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "how high is the water?"}], **body}
        headers = {"content-type": "application/json", "x-user-id": f"user-{self.users}"}
        headers |= {"authorization": f"Bearer {token}"} if token else {}
        connection.request("POST", f"{path}/v1/chat/completions?{knobs}", json.dumps(body), headers)
        return connection

    def ask(self, *arguments, read=True, **more):
        """Streams one answer; without `read` it leaves after the head."""
        connection = self.begin(*arguments, **more)
        try:
            answer = connection.getresponse()
            if read:
                answer.read()
        except (http.client.HTTPException, OSError):
            pass  # Some answers break off; that is the point.
        finally:
            connection.close()

    def watch(self, path):
        """Reads an event stream that is no LLM's: bare text that nobody posted for."""
        connection = http.client.HTTPConnection(self.proxy.hostname, self.proxy.port, timeout=30)
        connection.request("GET", path, headers={"accept": "text/event-stream"})
        connection.getresponse().read()
        connection.close()

    def mix(self, pool):
        """One of everything that can be repeated."""
        chat = lambda knobs, **more: pool.submit(self.ask, "/chat", knobs, **more)
        for future in [
            *(chat("") for _ in range(4)),
            chat("reasoning=3", model="demo-2"),
            chat("", model="unlisted"),
            chat("cut_at=3"),
            chat("error_at=2"),
            chat("silent_at=3"),
            chat("never"),
            chat("gap_ms=250"),
            chat("status=422"),
            chat("status=429"),
            chat("pings=20&ttft_ms=400", read=False),
            chat("tokens=5000&pad=4096&gap_ms=0", read=False),
            *(pool.submit(self.ask, "/held") for _ in range(3)),
            *(pool.submit(self.ask, "/failover") for _ in range(20)),
            *(pool.submit(self.ask, "/copied") for _ in range(2)),
            *(pool.submit(self.ask, "/hedge") for _ in range(2)),
            *(pool.submit(self.ask, "/down") for _ in range(3)),
            *(pool.submit(self.ask, "/limited", max_tokens=50) for _ in range(6)),
            *(pool.submit(self.ask, "/sized", prompt=prompt) for prompt in ("short", "long " * 2_000)),
            pool.submit(self.watch, "/chat/api/v1/stream?tokens=3"),
            pool.submit(self.ask, "/nowhere"),
        ]:
            future.result()
        with connect(f"ws://{self.proxy.netloc}/ws/chat") as socket:
            socket.send("hello")
            while socket.recv(timeout=10) != "[DONE]":
                pass

    def canaries(self, pool):
        for route in ("/steps", "/rollback"):
            list(pool.map(lambda _, route=route: self.ask(route), range(30)))

    def query(self, text):
        url = f"{self.prometheus}/api/v1/query?" + urllib.parse.urlencode({"query": text})
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]["result"]

    def wait(self, what, text, enough=lambda value: value > 0):
        """Until the newest value of a query is enough."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            found = self.query(text)
            if found and enough(float(found[0]["value"][1])):
                return float(found[0]["value"][1])
            time.sleep(0.1)
        raise SystemExit(f"waited in vain for {what}: {text} is {self.query(text)}")

    def until(self, text, act):
        """Acts until a query finds something."""
        deadline = time.monotonic() + 30
        while not self.query(text):
            if time.monotonic() > deadline:
                raise SystemExit(f"waited in vain for {text}")
            act()
            time.sleep(0.05)

    def scraped(self):
        """Until what has happened so far is in Prometheus: a whole scrape later than now."""
        now = time.time()
        self.wait("the next scrape", 'min(timestamp(up{job="streamgauge"}))', lambda at: at > now)

    def configure(self, old, new, result):
        before = self.wait("reloads", f'sum(streamgauge_config_reloads_total{{result="{result}"}})', lambda _: True)
        self.config.write_text(self.config.read_text().replace(old, new))
        request = urllib.request.Request(f"{self.admin}/api/reload", method="POST")
        try:
            urllib.request.urlopen(request, timeout=10).close()
        except urllib.error.HTTPError as refused:
            refused.close()  # That it is told as rejected is what is waited for.
        self.wait("the reload", f'sum(streamgauge_config_reloads_total{{result="{result}"}})', lambda value: value > before)

    def mend(self, text):
        """Writes the file back that is in effect; the watch sees it."""
        self.config.write_text(text)
        self.wait("the mended configuration", "streamgauge_config_last_reload_successful")


def main(arguments):
    run = Run(*arguments)
    run.scraped()
    open_stream = run.begin("/limited", "tokens=10000&gap_ms=50", max_tokens=5000)
    open_stream.getresponse()
    with ThreadPoolExecutor(32) as pool, connect(f"ws://{run.proxy.netloc}/ws/chat"):
        for number in range(ROUNDS):
            run.mix(pool)
            run.canaries(pool)
            run.scraped()
            if number == 0:
                run.configure('slow_gap = "200ms"', 'slow_gap = "210ms"', "ok")
        run.until("sum(rate(streamgauge_jwks_fetches_total[4s])) > 0", lambda: run.ask("/chat", token=STRANGERS))
        for decided in ('route="steps",decision="step"', 'route="rollback",decision="roll_back"'):
            run.until(f"sum(streamgauge_canary_decisions_total{{{decided}}}) > 0", lambda: run.canaries(pool))
        os.kill(run.redis, signal.SIGTERM)
        run.until('streamgauge_limiter_mode{mode="local"} == 1', lambda: run.ask("/limited"))
        good = run.config.read_text()
        run.configure("[telemetry]", "[telemetri]", "rejected")
        run.mend(good)
        run.configure("[telemetry]", "[telemetri]", "rejected")
        run.scraped()
        print(f"{run.users} requests in {ROUNDS} rounds", flush=True)
        queries.main(run.prometheus)
    open_stream.close()


main(sys.argv[1:])
