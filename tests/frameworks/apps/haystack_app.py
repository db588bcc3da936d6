"""Haystack: the chunks of an agent as an app writes them."""

import asyncio
import json

import model
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from haystack.components.agents import Agent
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.tools import Tool
from haystack.utils import Secret
from pydantic import BaseModel

app = FastAPI()


RIVER = {"type": "object", "properties": {"river": {"type": "string"}}, "required": ["river"]}
depth = Tool(name="depth", description="How deep a river is.", parameters=RIVER, function=lambda river: "2 m")


class Question(BaseModel):
    query: str


@app.post("/chunks")
async def chunks(question: Question):
    queue = asyncio.Queue()

    async def put(chunk):
        await queue.put(chunk)

    generator = OpenAIChatGenerator(
        model=model.NAME,
        api_base_url=model.URL,
        api_key=Secret.from_token("unused"),
        generation_kwargs={"stream_options": {"include_usage": True}},
        max_retries=0,
    )
    agent = Agent(chat_generator=generator, tools=[depth])

    async def run():
        try:
            await agent.run_async([ChatMessage.from_user(question.query)], streaming_callback=put)
        finally:
            await queue.put(None)

    async def lines():
        running = asyncio.create_task(run())
        while (chunk := await queue.get()) is not None:
            yield f"data: {json.dumps(chunk.to_dict(), default=str)}\n\n"
        await running

    return StreamingResponse(lines(), media_type="text/event-stream")
