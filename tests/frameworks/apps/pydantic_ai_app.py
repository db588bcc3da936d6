"""Pydantic AI behind AG-UI, behind Vercel's protocol, and as plain text of an app."""

import model
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.ui.ag_ui import AGUIAdapter
from pydantic_ai.ui.vercel_ai import VercelAIAdapter

app = FastAPI()
agent = Agent(OpenAIChatModel(model.NAME, provider=OpenAIProvider(openai_client=model.client)))


@agent.tool_plain
def depth(river: str) -> str:
    """How deep a river is."""
    return "2 m"


@app.post("/ag-ui")
async def ag_ui(request: Request):
    return await AGUIAdapter.dispatch_request(request, agent=agent, include_usage=True)


@app.post("/vercel")
async def vercel(request: Request):
    return await VercelAIAdapter.dispatch_request(request, agent=agent)


@app.post("/text")
async def text(request: Request):
    asked = await request.json()

    async def pieces():
        async with agent.run_stream(asked["message"]) as result:
            async for piece in result.stream_text(delta=True):
                yield piece

    return StreamingResponse(pieces(), media_type="text/plain")
