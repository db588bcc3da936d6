"""A FastAPI app that streams tokens, as people write them. Nothing in it knows of Streamgauge.

    uvicorn app:app --port 8000
"""

import asyncio
import json
import time
import uuid

from fastapi import FastAPI, Request, UploadFile, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

app = FastAPI(title="Chat example", version="1.0.0")

WORDS = "A stream gauge measures a river without holding the water back .".split()


class Chat(BaseModel):
    message: str
    # Seconds before the first token, and between two.
    think: float = 0.05
    pace: float = 0.02


async def generate(think: float, pace: float):
    """Stands for your model: yields one token after the other."""
    await asyncio.sleep(think)
    for number, word in enumerate(WORDS):
        if number:
            await asyncio.sleep(pace)
        yield word if not number else f" {word}"


def sse(data: object) -> str:
    return f"data: {json.dumps(data)}\n\n"


@app.get("/health")
async def health():
    return {"status": "ok"}


@app.post("/api/v1/chat")
async def chat(body: Chat):
    """Plain server-sent events: one JSON value a token, then [DONE]."""

    async def events():
        async for token in generate(body.think, body.pace):
            yield sse({"token": token})
        yield "data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


@app.get("/api/v1/stream")
async def stream(think: float = 0.05, pace: float = 0.02):
    """The same for a browser's EventSource, which can only GET."""

    async def events():
        async for token in generate(think, pace):
            yield sse({"token": token})
        yield "event: end\ndata: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


@app.post("/v1/chat/completions")
async def completions(request: Request):
    """OpenAI's API, for its SDKs."""
    body = await request.json()
    head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": body["model"]}
    usage = {"prompt_tokens": 9, "completion_tokens": len(WORDS), "total_tokens": 9 + len(WORDS)}
    if not body.get("stream"):
        text = "".join([token async for token in generate(0.05, 0)])
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return {**head, "object": "chat.completion", "choices": [choice], "usage": usage}

    async def events():
        def chunk(delta, finish=None):
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            return sse({**head, "object": "chat.completion.chunk", "choices": [choice]})

        yield chunk({"role": "assistant", "content": ""})
        async for token in generate(0.05, 0.02):
            yield chunk({"content": token})
        yield chunk({}, "stop")
        if (body.get("stream_options") or {}).get("include_usage"):
            yield sse({**head, "object": "chat.completion.chunk", "choices": [], "usage": usage})
        yield "data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


@app.post("/api/chat")
async def ui_messages():
    """The Vercel AI SDK's UI message stream, for useChat."""

    async def events():
        yield sse({"type": "start", "messageId": uuid.uuid4().hex})
        yield sse({"type": "text-start", "id": "t1"})
        async for token in generate(0.05, 0.02):
            yield sse({"type": "text-delta", "id": "t1", "delta": token})
        yield sse({"type": "text-end", "id": "t1"})
        yield sse({"type": "finish"})
        yield "data: [DONE]\n\n"

    headers = {"x-vercel-ai-ui-message-stream": "v1"}
    return StreamingResponse(events(), media_type="text/event-stream", headers=headers)


@app.post("/api/v1/upload")
async def upload(file: UploadFile):
    size = 0
    while piece := await file.read(64 * 1024):
        size += len(piece)
    return {"name": file.filename, "bytes": size}


@app.get("/api/v1/items/")
async def items(request: Request):
    """Asked for without the slash, FastAPI redirects to here: with the host that the client knows."""
    return {"items": [], "host": request.headers["host"], "client": request.client.host if request.client else None}


@app.websocket("/ws/chat")
async def websocket_chat(socket: WebSocket):
    await socket.accept()
    try:
        while True:
            message = await socket.receive_text()
            if message == "bye":
                await socket.close(code=4000, reason="as you wish")
                return
            async for token in generate(0.02, 0.005):
                await socket.send_text(token)
            await socket.send_text("[DONE]")
    except WebSocketDisconnect:
        pass
