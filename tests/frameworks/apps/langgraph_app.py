"""LangGraph in an app of one's own, which writes what `astream` yields."""

import json

from langchain_core.load import dumps
from langchain_core.messages import BaseMessage
from langgraph_graph import graph
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route


def plain(value):
    return value.model_dump(mode="json") if isinstance(value, BaseMessage) else str(value)


def line(item, how):
    text = dumps(item) if how == "dumps" else json.dumps(item, default=plain)
    return f"data: {text}\n\n"


async def stream(request):
    asked = await request.json()
    given = {"messages": [("user", asked["query"])]}
    mode = request.path_params["mode"]
    modes = mode.split(",")

    async def lines():
        if mode == "events":
            async for event in graph.astream_events(given):
                yield line(event, "json")
            return
        async for item in graph.astream(given, stream_mode=modes if len(modes) > 1 else mode):
            yield line(item, request.path_params["how"])

    return StreamingResponse(lines(), media_type="text/event-stream")


app = Starlette(routes=[Route("/{how}/{mode}", stream, methods=["POST"])])
