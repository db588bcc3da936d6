"""LlamaIndex: a workflow behind the workflow server, and an agent's events in an app of one's own."""

import contextlib
from typing import Any

import model
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from llama_agents.server import WorkflowServer
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, LLMMetadata
from llama_index.core.llms.function_calling import FunctionCallingLLM
from pydantic import BaseModel
from workflows import Context, Workflow, step
from workflows.events import Event, StartEvent, StopEvent


class Fake(FunctionCallingLLM):
    @property
    def metadata(self):
        return LLMMetadata(model_name=model.NAME, is_function_calling_model=True, is_chat_model=True)

    async def astream_chat_with_tools(self, tools, user_msg=None, chat_history=None, **_: Any):
        return await self.astream_chat(chat_history or [])

    async def astream_chat(self, messages, **_: Any):
        async def responses():
            text = ""
            async for word in model.words("hello"):
                text += word
                yield ChatResponse(message=ChatMessage(role="assistant", content=text), delta=word)

        return responses()

    def get_tool_calls_from_response(self, response, error_on_no_tool_call=True, **_: Any):
        return []

    async def achat(self, messages, **more: Any):
        async for response in await self.astream_chat(messages):
            last = response
        return last

    def _prepare_chat_with_tools(self, tools, **_: Any):
        return {}

    def chat(self, messages, **_: Any):
        raise NotImplementedError

    def stream_chat(self, messages, **_: Any):
        raise NotImplementedError

    def complete(self, prompt, **_: Any):
        raise NotImplementedError

    def stream_complete(self, prompt, **_: Any):
        raise NotImplementedError

    async def acomplete(self, prompt, **_: Any):
        raise NotImplementedError

    async def astream_complete(self, prompt, **_: Any):
        raise NotImplementedError


class Progress(Event):
    msg: str


class Delta(Event):
    delta: str


class Ask(Workflow):
    @step
    async def ask(self, context: Context, start: StartEvent) -> StopEvent:
        context.write_event_to_stream(Progress(msg="asking the model"))
        text = ""
        async for word in model.words("hello"):
            text += word
            context.write_event_to_stream(Delta(delta=word))
        return StopEvent(result=text)


class Question(BaseModel):
    query: str


server = WorkflowServer()
server.add_workflow("ask", Ask(timeout=60))
server.add_workflow("agent", FunctionAgent(name="rivers", llm=Fake(), tools=[], streaming=True))


@contextlib.asynccontextmanager
async def lifespan(_):
    async with server.contextmanager():
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/events")
async def events(question: Question):
    handler = FunctionAgent(name="rivers", llm=Fake(), tools=[], streaming=True).run(user_msg=question.query)

    async def lines():
        async for event in handler.stream_events():
            yield f"data: {event.model_dump_json()}\n\n"
        await handler

    return StreamingResponse(lines(), media_type="text/event-stream")


app.mount("/", server.app)
