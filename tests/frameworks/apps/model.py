"""The fake model's address, for the apps: OpenAI's SDK and what is built on it reads it from the environment."""

import os

from openai import AsyncOpenAI

URL = os.environ["OPENAI_BASE_URL"]
NAME = "fake-model"

client = AsyncOpenAI(base_url=URL, api_key="unused", max_retries=0)


RIVER = {"type": "object", "properties": {"river": {"type": "string"}}, "required": ["river"]}
TOOL = {"type": "function", "function": {"name": "depth", "description": "How deep a river is.", "parameters": RIVER}}


async def deltas(text, result=None):
    """What the model says, as it comes: it may call a tool, unless that has answered."""
    messages = [{"role": "user", "content": text}]
    if result:
        messages.append({"role": "tool", "tool_call_id": "call_1", "content": result})
    stream = await client.chat.completions.create(model=NAME, messages=messages, stream=True, tools=[TOOL])
    async for chunk in stream:
        if chunk.choices:
            yield chunk.choices[0].delta


async def words(text):
    """The words of the model's answer, as they come."""
    messages = [{"role": "user", "content": text}]
    stream = await client.chat.completions.create(model=NAME, messages=messages, stream=True)
    async for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            yield chunk.choices[0].delta.content
