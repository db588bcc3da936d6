"""The official OpenAI and Anthropic SDKs meet a limit: they wait as they are told, and try again by themselves.

Usage: rate_limited.py BINARY
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

import anthropic
import openai


def start(command, wanted):
    """Starts a program; it and what `wanted` finds in one of its lines. Its other lines are read away."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in process.stdout:
        if found := wanted(line):
            threading.Thread(target=lambda: [None for _ in process.stdout], daemon=True).start()
            return process, found
    raise SystemExit(f"{command} ended before it listened")


def url_in(line):
    return next((word.strip(".,") for word in line.split() if word.startswith("http://")), None)


def proxy_url(line):
    said = json.loads(line) if line.startswith("{") else {}
    return said["frontend_urls"][0] if said.get("event") == "started" else None


def refused_then_served(name, ask, refusal):
    """One answer takes so much that the next request does not fit, until what was taken has drained."""
    ask(retries=5)
    begin = time.monotonic()
    try:
        ask(retries=0)
    except refusal as refused:
        assert refused.status_code == 429, refused
        assert "600 tokens a minute" in str(refused), refused
        wait = int(refused.response.headers["retry-after"])
        assert wait >= 1, refused.response.headers
        assert refused.response.headers["x-ratelimit-limit-tokens"] == "600", refused.response.headers
    else:
        raise SystemExit(f"{name}: the second request was not refused")
    ask(retries=5)
    took = time.monotonic() - begin
    assert took >= wait * 0.5, f"{name} came again after {took:.1f} s, and was told {wait} s"
    return f"{name} waited {took:.1f} s as told"


def main(binary):
    processes = []
    with tempfile.TemporaryDirectory() as work:
        try:
            backend, backend_url = start([binary, "demo", "--listen", "127.0.0.1:0"], url_in)
            processes.append(backend)
            config = pathlib.Path(work) / "streamgauge.toml"
            config.write_text(f"""
[server]
listen = "127.0.0.1:0"
admin = "127.0.0.1:0"

[[upstream]]
url = "{backend_url.rstrip('/')}"

[[limit]]
name = "slow"
key = "global"
tokens_per_minute = 600
burst = 400

[[route]]
limits = ["slow"]
""")
            proxy, url = start([binary, "run", "--log", "json", "--config", str(config)], proxy_url)
            processes.append(proxy)
            messages = [{"role": "user", "content": "hello"}]
            ai = openai.OpenAI(base_url=f"{url}/v1", api_key="unused")
            claude = anthropic.Anthropic(base_url=url, api_key="unused")

            def ask_openai(retries):
                ai.with_options(max_retries=retries).chat.completions.create(
                    model="gpt-test", messages=messages, max_completion_tokens=385
                )

            def ask_anthropic(retries):
                claude.with_options(max_retries=retries).messages.create(
                    model="claude-test", messages=messages, max_tokens=385
                )

            first = refused_then_served("openai", ask_openai, openai.RateLimitError)
            second = refused_then_served("anthropic", ask_anthropic, anthropic.RateLimitError)
            print(f"refused once each, then served: {first}, {second}")
        finally:
            for process in processes:
                process.terminate()
                process.wait()


if __name__ == "__main__":
    main(sys.argv[1])
