"""MCP servers of the Python SDK, over Streamable HTTP and over SSE, with a tool that asks a model."""

import contextlib

import model
from mcp.server import mcpserver
from starlette.applications import Starlette
from starlette.routing import Mount

server = mcpserver.MCPServer("rivers")


@server.tool()
async def ask(question: str, context: mcpserver.Context) -> str:
    """Asks a model, and tells how far it is."""
    text = ""
    async for word in model.words(question):
        text += word
        await context.report_progress(len(text), message=word)
    return text


@contextlib.asynccontextmanager
async def lifespan(_):
    async with server.session_manager.run():
        yield


streamable = server.streamable_http_app()
app = Starlette(routes=[Mount("/old", server.sse_app()), Mount("/", streamable)], lifespan=lifespan)
