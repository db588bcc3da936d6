"""The fake model's address, for the apps: OpenAI's SDK and what is built on it reads it from the environment."""

import os

from openai import AsyncOpenAI

URL = os.environ["OPENAI_BASE_URL"]
NAME = "fake-model"

client = AsyncOpenAI(base_url=URL, api_key="unused", max_retries=0)


async def words(text):
    """The words of the model's answer, as they come."""
    messages = [{"role": "user", "content": text}]
    stream = await client.chat.completions.create(model=NAME, messages=messages, stream=True)
    async for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            yield chunk.choices[0].delta.content
