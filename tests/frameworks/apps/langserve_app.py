"""LangServe: a chain that ends in a message, and one that ends in text."""

import asyncio
from typing import Any

import model
from fastapi import FastAPI
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langserve import add_routes


class Fake(BaseChatModel):
    @property
    def _llm_type(self):
        return "fake"

    def _generate(self, messages, stop=None, run_manager=None, **_: Any):
        raise NotImplementedError

    async def _agenerate(self, messages, stop=None, run_manager=None, **_: Any):
        text = "".join([word async for word in model.words("hello")])
        return ChatResult(generations=[ChatGeneration(message=AIMessage(content=text))])

    async def _astream(self, messages, stop=None, run_manager=None, **_: Any):
        yield ChatGenerationChunk(message=AIMessageChunk(content=""))
        async for word in model.words("hello"):
            yield ChatGenerationChunk(message=AIMessageChunk(content=word))
        usage = {"input_tokens": 41, "output_tokens": 17, "total_tokens": 58}
        yield ChatGenerationChunk(message=AIMessageChunk(content="", usage_metadata=usage))


app = FastAPI()
prompt = ChatPromptTemplate.from_template("Tell of {topic}")
add_routes(app, prompt | Fake(), path="/message")
add_routes(app, prompt | Fake() | StrOutputParser(), path="/text")
