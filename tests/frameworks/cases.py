"""What is tried: apps, what they are asked, and what has to be right about the answers. No value here was read off the
gauge: the tokens are the fake model's, and dialects and framings are what the frameworks document."""

import dataclasses
import json
import re
import urllib.parse
import uuid
from collections.abc import Callable

JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}


@dataclasses.dataclass
class Ask:
    path: str
    body: bytes | None
    headers: dict

    @property
    def method(self):
        return "GET" if self.body is None else "POST"


@dataclasses.dataclass
class App:
    """A program with a framework inside. `command` has `{bin}`, its environment's programs, `{node}` and where its apps are
    (`{server}`, `{mastra}`), `{port}` where it needs to be told one, and `{apps}`, where the apps are."""

    name: str
    venv: str
    command: str
    started: str = r"running on (http://[\d.:]+)"
    """What its log says when it listens; without a group it listens at `{port}`."""


@dataclasses.dataclass
class Case:
    framework: str
    package: str
    """Whose version the row has."""
    app: App
    what: str
    ask: Ask | Callable
    """What is asked; or what gets `call`, prepares, and returns it."""
    dialect: str
    framing: str = "sse"
    usage: bool = False
    """The stream says the model's token counts."""
    calls: bool = False
    """Its agent has a tool, whose call is streamed as it is generated."""
    calls_whole: bool = False
    """The call comes when it is whole."""
    in_one_piece: bool = False
    """The answer's text comes when it is whole."""
    needs: str = ""
    """The line that the upstream needs; empty: it is right without configuration."""
    failure: str = ""
    """Why the app may end the answer of a failed model as if nothing were; empty: it never does."""
    then: Callable | None = None
    """What is asked once its stream is open: gets `call`, or the WebSocket, and what waits until what came is as it should be."""
    endless: bool = False
    """The stream goes on after the answer, until its client goes."""
    is_socket: bool = False
    """It opens a WebSocket."""
    is_llm: bool = True
    basis: str = "dialect"
    """By what the first token is known."""

    @property
    def outcome(self):
        return "client_cancelled" if self.endless and not self.is_socket else "completed"


def post(path, body, headers=None):
    if isinstance(body, str):
        return Ask(path, body.encode(), FORM)
    return Ask(path, json.dumps(body).encode(), JSON | (headers or {}))


def uvicorn(name, venv):
    return App(name, venv, "{bin}/python -m uvicorn " + name + ":app --host 127.0.0.1 --port 0")


fastapi_events = uvicorn("fastapi_events", "agents")
openai_agents = uvicorn("openai_agents", "agents")
pydantic_ai = uvicorn("pydantic_ai_app", "agents")
agno = uvicorn("agno_app", "agents")
adk = uvicorn("adk_app", "agents")
llamaindex = uvicorn("llamaindex_app", "agents")
haystack = uvicorn("haystack_app", "agents")
a2a = uvicorn("a2a_app", "agents")
adk_a2a = uvicorn("adk_a2a_app", "agents")
mcp = uvicorn("mcp_app", "agents")
gradio = uvicorn("gradio_app", "agents")
langserve = uvicorn("langserve_app", "langserve")
langgraph_own = uvicorn("langgraph_app", "langgraph")
langgraph = App(
    "langgraph dev",
    "langgraph",
    "{bin}/langgraph dev --no-browser --no-reload --host 127.0.0.1 --port {port} --config {apps}/langgraph.json",
    started="Starting 1 background workers",
)

chainlit = App(
    "chainlit",
    "chainlit",
    "{bin}/chainlit run {apps}/chainlit_app.py --headless --host 127.0.0.1 --port {port}",
    started="Your app is available",
)
crewai = uvicorn("crewai_app", "crewai")
litellm = App(
    "litellm",
    "litellm",
    "{bin}/litellm --config {apps}/litellm.yaml --host 127.0.0.1 --port {port}",
)
vercel = App("vercel", "node", "{node} {server}")
mastra = App("mastra", "node", "{node} {mastra}")

QUERY = {"query": "What do rivers do?"}


CHAT = {"model": "fake-model", "stream": True, "messages": [{"role": "user", "content": QUERY["query"]}]}

# Else the proxy asks for the usage itself, and takes out the chunk that brings it.
USAGE_TOO = {"stream_options": {"include_usage": True}}


def agui(user):
    return {
        "protocolVersion": "1.0",
        "threadId": "t1",
        "runId": "r1",
        "state": {},
        "messages": [{"id": "1", "role": "user", "content": user}],
        "tools": [],
        "context": [],
        "forwardedProps": {},
    }


def adk_session(streaming, session):
    said = {"role": "user", "parts": [{"text": QUERY["query"]}]}
    body = {"appName": "rivers", "userId": "u", "sessionId": session, "newMessage": said, "streaming": streaming}
    return lambda call: post("/run_sse", body | {"sessionId": f"{session}-{call.number}"})


def langgraph_run(mode):
    given = {"messages": [{"role": "user", "content": QUERY["query"]}]}
    return post("/runs/stream", {"assistant_id": "rivers", "input": given, "stream_mode": mode})


def llamaindex_handler(query):
    def ask(call):
        started = call(post("/workflows/ask/run-nowait", {}))
        return Ask(f"/events/{started['handler_id']}{query}", None, {})

    return ask


def gradio_call(call):
    started = call(post("/gradio_api/call/chat", {"data": [QUERY["query"]]}))
    return Ask(f"/gradio_api/call/chat/{started['event_id']}", None, {})


MCP = {"accept": "application/json, text/event-stream"}


MCP_HELLO = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
MCP_GIVEN = {"name": "ask", "arguments": {"question": QUERY["query"]}, "_meta": {"progressToken": 1}}
MCP_MESSAGES = [
    {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": MCP_HELLO},
    {"jsonrpc": "2.0", "method": "notifications/initialized"},
    {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": MCP_GIVEN},
]


def mcp_tool(call):
    hello, greeted, tool = MCP_MESSAGES
    call(post("/mcp", hello, MCP))
    session = MCP | {"mcp-session-id": call.headers["mcp-session-id"]}
    call(post("/mcp", greeted, session))
    return post("/mcp", tool, session)


def mcp_messages(call, came):
    """The older transport: the stream's first event says where messages go, and their answers come over the stream."""
    address = came(lambda body: re.search(rb"event: endpoint\r?\ndata: (\S+)\r?\n", body))[1].decode()
    hello, greeted, tool = MCP_MESSAGES
    call(post(address, hello))
    came(lambda body: b'"serverInfo"' in body)
    call(post(address, greeted))
    call(post(address, tool))


def chainlit_chat(socket, came):
    """As its page does over Socket.IO."""
    socket.say("40" + json.dumps({"clientType": "webapp", "sessionId": str(uuid.uuid4()), "userEnv": "{}"}))
    came(lambda body: b'40{"sid"' in body)
    socket.say('42["connection_successful"]')
    said = {"id": str(uuid.uuid4()), "name": "User", "type": "user_message", "output": QUERY["query"], "createdAt": "2026-01-01T00:00:00Z"}
    socket.say("42" + json.dumps(["client_message", {"message": said, "fileReferences": []}]))


def a2a_rpc(method, role, parts, **more):
    message = {"messageId": "m1", "role": role, "parts": parts} | more
    return {"jsonrpc": "2.0", "id": "1", "method": method, "params": {"message": message}}


FASTAPI = "it ends the answer of a generator that raised in order, now and then (8 of 120)"

TEXT = [{"text": QUERY["query"]}]
TEXT_03 = [{"kind": "text", "text": QUERY["query"]}]
V1 = {"a2a-version": "1.0"}
TOPIC = {"input": {"topic": "rivers"}}
AGNO_ASKED = "stream=true&message=" + urllib.parse.quote(QUERY["query"])
VERCEL_ASKED = {
    "trigger": "submit-message",
    "id": "1",
    "messages": [{"id": "1", "role": "user", "parts": [{"type": "text", "text": QUERY["query"]}]}],
}

CASES = [
    Case("AG-UI", "ag-ui-protocol", pydantic_ai, "Pydantic AI's adapter", post("/ag-ui", agui(QUERY["query"])), "ag-ui", usage=True, calls=True),
    Case("Pydantic AI", "pydantic-ai-slim", pydantic_ai, "Vercel's protocol", post("/vercel", VERCEL_ASKED), "vercel-ui", calls=True),
    Case("Pydantic AI", "pydantic-ai-slim", pydantic_ai, "text of an app", post("/text", {"message": QUERY["query"]}), "plain-text", "opaque", needs='dialect = "plain-text"', basis="bytes"),
    Case("Vercel AI SDK", "ai", vercel, "UI messages", post("/ui", QUERY), "vercel-ui", usage=True, calls=True),
    Case("Vercel AI SDK", "ai", vercel, "text", post("/text", QUERY), "plain-text", "opaque", needs='dialect = "plain-text"', basis="bytes", failure="it ends the text in order where the model breaks off"),
    Case("LiteLLM", "litellm", litellm, "/v1/chat/completions", post("/v1/chat/completions", CHAT | USAGE_TOO), "openai-chat", usage=True),
    Case("LiteLLM", "litellm", litellm, "/v1/messages", post("/v1/messages", CHAT | {"max_tokens": 64}), "anthropic", usage=True),
    Case("LangServe", "langserve", langserve, "/stream of messages", post("/message/stream", TOPIC), "langserve", usage=True),
    Case("LangServe", "langserve", langserve, "/stream of text", post("/text/stream", TOPIC), "langserve"),
    Case("LangServe", "langserve", langserve, "/stream_log", post("/text/stream_log", TOPIC), "langserve-log-stream", usage=True),
    Case("LangServe", "langserve", langserve, "/stream_events", post("/text/stream_events", TOPIC), "langchain-events", usage=True),
    Case("LangGraph server", "langgraph-api", langgraph, "messages", langgraph_run("messages"), "langgraph", usage=True, calls=True),
    Case("LangGraph server", "langgraph-api", langgraph, "messages-tuple", langgraph_run("messages-tuple"), "langgraph", usage=True, calls=True),
    Case("LangGraph server", "langgraph-api", langgraph, "events", langgraph_run("events"), "langgraph", usage=True, calls=True),
    Case("LangGraph server", "langgraph-api", langgraph, "values", langgraph_run("values"), "langgraph", usage=True, in_one_piece=True),
    Case("LangGraph server", "langgraph-api", langgraph, "updates", langgraph_run("updates"), "langgraph", usage=True, in_one_piece=True),
    Case("LangGraph server", "langgraph-api", langgraph, "several modes", langgraph_run(["values", "updates", "messages-tuple"]), "langgraph", usage=True),
    Case("LangGraph app", "langgraph", langgraph_own, "messages", post("/json/messages", QUERY), "langgraph-app", usage=True, calls=True),
    Case("LangGraph app", "langgraph", langgraph_own, "messages, dumps", post("/dumps/messages", QUERY), "langgraph-app", usage=True),
    Case("LangGraph app", "langgraph", langgraph_own, "several modes", post("/json/updates,messages", QUERY), "langgraph-app", usage=True),
    Case("LangGraph app", "langgraph", langgraph_own, "values", post("/json/values", QUERY), "langgraph-app", usage=True, in_one_piece=True),
    Case("LangGraph app", "langgraph", langgraph_own, "updates", post("/json/updates", QUERY), "langgraph-app", usage=True, in_one_piece=True),
    Case("LangGraph app", "langgraph", langgraph_own, "astream_events", post("/json/events", QUERY), "langchain-events", usage=True, calls=True),
    Case("OpenAI Agents", "openai-agents", openai_agents, "over chat", post("/chat", QUERY), "openai-agents", usage=True, calls=True),
    Case("OpenAI Agents", "openai-agents", openai_agents, "over responses", post("/responses", QUERY), "openai-agents", usage=True, calls=True),
    Case("Agno", "agno", agno, "agent", post("/agents/rivers/runs", AGNO_ASKED), "agno", usage=True, calls=True, calls_whole=True),
    Case("Agno", "agno", agno, "team", post("/teams/waters/runs", AGNO_ASKED), "agno", usage=True, calls=True, calls_whole=True),
    Case("A2A", "a2a-sdk", a2a, "1.0", post("/rpc", a2a_rpc("SendStreamingMessage", "ROLE_USER", TEXT), V1), "a2a"),
    Case("A2A", "a2a-sdk", a2a, "0.3", post("/rpc", a2a_rpc("message/stream", "user", TEXT_03, kind="message")), "a2a"),
    Case("A2A", "a2a-sdk", a2a, "REST 1.0", post("/rest/message:stream", {"message": {"messageId": "m1", "role": "ROLE_USER", "parts": TEXT}}, V1), "a2a"),
    Case("A2A", "a2a-sdk", a2a, "REST 0.3", post("/rest/v1/message:stream", {"message": {"messageId": "m1", "role": "ROLE_USER", "content": TEXT}}), "a2a"),
    Case("A2A", "google-adk", adk_a2a, "Google ADK's agent, 0.3", post("/", a2a_rpc("message/stream", "user", TEXT_03, kind="message")), "a2a", calls=True, in_one_piece=True),
    Case("Google ADK", "google-adk", adk, "/run_sse, streaming", adk_session(True, "s"), "google-adk", usage=True, calls=True, calls_whole=True),
    Case("Google ADK", "google-adk", adk, "/run_sse, whole", adk_session(False, "w"), "google-adk", usage=True, calls=True, in_one_piece=True),
    Case("LlamaIndex", "llama-agents-server", llamaindex, "workflow server", llamaindex_handler(""), "llamaindex", calls=True, calls_whole=True),
    Case("LlamaIndex", "llama-agents-server", llamaindex, "workflow server, JSON lines", llamaindex_handler("?sse=false"), "llamaindex", "json-lines"),
    Case("LlamaIndex", "llama-index-core", llamaindex, "agent in an app", post("/events", QUERY), "llamaindex", calls=True, calls_whole=True),
    Case("CrewAI", "crewai", crewai, "chunks in an app", post("/crew", QUERY), "crewai", calls=True),
    Case("Mastra", "@mastra/core", mastra, "an agent behind the server", post("/api/agents/rivers/stream", {"messages": QUERY["query"]}), "mastra", usage=True, calls=True),
    Case("Haystack", "haystack-ai", haystack, "an agent in an app", post("/chunks", QUERY), "haystack", usage=True, calls=True),
    Case("FastAPI", "fastapi", fastapi_events, "EventSourceResponse, text", post("/texts", QUERY), "plain-sse", basis="guess", failure=FASTAPI),
    Case("FastAPI", "fastapi", fastapi_events, "EventSourceResponse, items", post("/items", QUERY), "plain-sse", basis="guess", failure=FASTAPI),
    Case("FastAPI", "fastapi", fastapi_events, "named events", post("/named", QUERY), "plain-sse", basis="guess", failure=FASTAPI),
    Case("sse-starlette", "sse-starlette", fastapi_events, "named events", post("/starlette", QUERY), "plain-sse", basis="guess"),
    Case("Gradio", "gradio", gradio, "chat over /call", gradio_call, "", is_llm=False, failure="its error is an event of the app's own"),
    Case("Chainlit", "chainlit", chainlit, "a chat over its WebSocket", Ask("/ws/socket.io/?EIO=4&transport=websocket", None, {}), "", then=chainlit_chat, endless=True, is_socket=True, is_llm=False),
    Case("MCP", "mcp", mcp, "tools/call, HTTP+SSE", Ask("/old/sse", None, {"accept": "text/event-stream"}), "", then=mcp_messages, endless=True, is_llm=False),
    Case("MCP", "mcp", mcp, "tools/call, Streamable HTTP", mcp_tool, "", is_llm=False, failure="a tool's error is an answer as others are"),
]
