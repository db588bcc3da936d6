"""How long the openai SDK waits for the first token of a streamed chat: TARGET COUNT HEADERS, the headers as lines.

Runs in the environment of the gateways, which has the SDK. Prints one line of JSON, in microseconds.
"""

import json
import sys
import time

from openai import OpenAI

PROMPT = "How high is the river? events=1&rate=0;"
MESSAGES = [{"role": "user", "content": PROMPT}]


def main() -> None:
    """Asks one after the other on kept connections; a tenth more before those that count."""
    target, count, lines = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    headers = dict(line.split(": ", 1) for line in lines.splitlines())
    client = OpenAI(base_url=f"http://{target}/v1", api_key="unused", default_headers=headers, max_retries=0, timeout=30)
    for _ in range(max(count // 10, 3)):
        first_token(client)
    taken = sorted(first_token(client) for _ in range(count))
    told = {f"p{share}_us": round(taken[round((count - 1) * share / 100)] / 1_000, 1) for share in (50, 99)}
    print(json.dumps({"asked": count, **told}))


def first_token(client: OpenAI) -> int:
    """Nanoseconds from the call to the first token; the stream is read to its end."""
    began, first = time.perf_counter_ns(), None
    for chunk in client.chat.completions.create(model="bench", messages=MESSAGES, stream=True):
        if first is None and chunk.choices and chunk.choices[0].delta.content:
            first = time.perf_counter_ns()
    if first is None:
        sys.exit("a stream without a token")
    return first - began


if __name__ == "__main__":
    main()
