"""The OpenAI Agents SDK: its events as an app writes them, over chat completions and over responses."""

import dataclasses
import json

import model
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

set_tracing_disabled(True)
app = FastAPI()
models = {
    "chat": OpenAIChatCompletionsModel(model.NAME, model.client),
    "responses": OpenAIResponsesModel(model.NAME, model.client),
}


@function_tool
def depth(river: str) -> str:
    """How deep a river is."""
    return "2 m"


class Question(BaseModel):
    query: str


def plain(value):
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.name != "agent"}
    return getattr(value, "name", None) or str(value)


@app.post("/{kind}")
async def run(kind: str, question: Question):
    settings = ModelSettings(include_usage=True)
    agent = Agent(
        name="Rivers", instructions="Be short.", model=models[kind], model_settings=settings, tools=[depth]
    )
    result = Runner.run_streamed(agent, question.query)

    async def events():
        async for event in result.stream_events():
            yield f"data: {json.dumps(event, default=plain)}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")
