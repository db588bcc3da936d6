"""Backends of the night: replicas that answer OpenAI chat streams, each of which can be told to turn slow or to break off.

Usage: backends.py NAME... — prints a line `NAME listens at URL` for each; reads lines `NAME KEY VALUE` from its standard input
and does from then on as they say (`slow 1.5`: seconds before the first token; `truncate 1`: every answer breaks off).
"""

import asyncio
import json
import sys

TOKENS = 8
GAP_S = 0.01
FIRST_S = 0.03


class Replica:
    def __init__(self, name):
        self.name = name
        self.slow = FIRST_S
        self.truncate = 0

    async def serve(self, reader, writer):
        try:
            while await self.answer(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # The proxy may leave when it likes.
        finally:
            writer.close()

    async def answer(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
        await reader.readexactly(int(fields.get(b"content-length", b"0")))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(self.slow)
        for number in range(TOKENS):
            if self.truncate and number == TOKENS // 2:
                return False
            await self.event(writer, {"choices": [{"index": 0, "delta": {"content": f"w{number} "}}]})
            await asyncio.sleep(GAP_S)
        await self.event(writer, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        usage = {"prompt_tokens": 10, "completion_tokens": TOKENS, "total_tokens": 10 + TOKENS}
        await self.event(writer, {"choices": [], "usage": usage})
        writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        await writer.drain()
        return True

    async def event(self, writer, event):
        event = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "night-1", **event}
        data = f"data: {json.dumps(event)}\n\n".encode()
        writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        await writer.drain()


async def main(names):
    replicas = {}
    for name in names:
        replica = replicas[name] = Replica(name)
        server = await asyncio.start_server(replica.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        print(f"{name} listens at http://127.0.0.1:{port}", flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        name, key, value = line.split()
        setattr(replicas[name], key, float(value))
        print(f"{name} {key} {value}", flush=True)


asyncio.run(main(sys.argv[1:]))
