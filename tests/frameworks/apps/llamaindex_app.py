"""LlamaIndex: a workflow behind the workflow server, and an agent's events in an app of one's own."""

import contextlib
import json
from typing import Any

import model
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from llama_agents.server import WorkflowServer
from llama_index.core.agent.workflow import FunctionAgent, ToolCall
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, LLMMetadata
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.tools import FunctionTool
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
        answered = messages and messages[-1].role == "tool"

        async def responses():
            text, calls = "", {}
            async for delta in model.deltas("hello", result="2 m" if answered else None):
                for piece in delta.tool_calls or []:
                    call = calls.setdefault(piece.index, [piece.id, piece.function.name, ""])
                    call[2] += piece.function.arguments or ""
                text += delta.content or ""
                message = ChatMessage(role="assistant", content=text, additional_kwargs={"tool_calls": [*calls.values()]})
                yield ChatResponse(message=message, delta=delta.content or "")

        return responses()

    def get_tool_calls_from_response(self, response, error_on_no_tool_call=True, **_: Any):
        calls = response.message.additional_kwargs.get("tool_calls", [])
        whole = [call for call in calls if call[2].endswith("}")]
        return [ToolSelection(tool_id=id, tool_name=name, tool_kwargs=json.loads(given)) for id, name, given in whole]

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
        text = await self.say(context)
        return StopEvent(result=text or await self.say(context, "2 m"))

    async def say(self, context, result=None):
        text, called, given = "", None, ""
        async for delta in model.deltas("hello", result):
            for piece in delta.tool_calls or []:
                called = called or piece
                given += piece.function.arguments or ""
            if delta.content:
                text += delta.content
                context.write_event_to_stream(Delta(delta=delta.content))
        if called:
            named = {"tool_id": called.id, "tool_name": called.function.name, "tool_kwargs": json.loads(given)}
            context.write_event_to_stream(ToolCall(**named))
        return text


def depth(river: str) -> str:
    """How deep a river is."""
    return "2 m"


def rivers():
    tools = [FunctionTool.from_defaults(depth)]
    return FunctionAgent(name="rivers", llm=Fake(), tools=tools, streaming=True, timeout=60)


class Question(BaseModel):
    query: str


server = WorkflowServer()
server.add_workflow("ask", Ask(timeout=60))


@contextlib.asynccontextmanager
async def lifespan(_):
    async with server.contextmanager():
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/events")
async def events(question: Question):
    handler = rivers().run(user_msg=question.query)

    async def lines():
        async for event in handler.stream_events():
            yield f"data: {event.model_dump_json()}\n\n"
        await handler

    return StreamingResponse(lines(), media_type="text/event-stream")


app.mount("/", server.app)
