"""FastAPI's own EventSourceResponse, and sse-starlette's, as their documents show them."""

import json
from collections.abc import AsyncIterable

import model
from fastapi import FastAPI
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel
from sse_starlette.sse import EventSourceResponse as StarletteEvents

app = FastAPI()


class Question(BaseModel):
    query: str


class Piece(BaseModel):
    content: str


@app.post("/texts", response_class=EventSourceResponse)
async def texts(question: Question) -> AsyncIterable[str]:
    async for word in model.words(question.query):
        yield word


@app.post("/items", response_class=EventSourceResponse)
async def items(question: Question) -> AsyncIterable[Piece]:
    async for word in model.words(question.query):
        yield Piece(content=word)


@app.post("/named", response_class=EventSourceResponse)
async def named(question: Question) -> AsyncIterable[ServerSentEvent]:
    yield ServerSentEvent(event="status", data={"text": "asking the model"})
    yield ServerSentEvent(event="sources", data=[{"title": "Rivers", "text": "Rivers run downhill."}])
    async for word in model.words(question.query):
        yield ServerSentEvent(event="token", data={"text": word})
    yield ServerSentEvent(event="done", raw_data="[DONE]")


@app.post("/starlette")
async def starlette(question: Question):
    async def events():
        yield {"event": "start", "data": json.dumps({"id": "1"})}
        async for word in model.words(question.query):
            yield {"event": "message", "data": json.dumps({"delta": word})}
        yield {"event": "end", "data": ""}

    return StarletteEvents(events())
