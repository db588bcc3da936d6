"""Google's ADK server (`/run_sse`), with a model of its own that streams as Gemini's does; and the same agent over A2A."""

import json
import os
import tempfile

import model
from google.adk.agents import Agent
from google.adk.cli.fast_api import get_fast_api_app
from google.adk.cli.utils.base_agent_loader import BaseAgentLoader
from google.adk.models.base_llm import BaseLlm
from google.adk.models.llm_response import LlmResponse
from google.genai import types


def content(text):
    return types.Content(role="model", parts=[types.Part(text=text)])


def depth(river: str) -> str:
    """How deep a river is."""
    return "2 m"


class Fake(BaseLlm):
    async def generate_content_async(self, llm_request, stream=False):
        last = llm_request.contents[-1].parts[-1]
        answered = last.function_response
        text, call, given = "", None, ""
        async for delta in model.deltas("hello", result="2 m" if answered else None):
            for piece in delta.tool_calls or []:
                call = call or piece
                given += piece.function.arguments or ""
            if delta.content:
                text += delta.content
                if stream:
                    yield LlmResponse(content=content(delta.content), partial=True)
        usage = types.GenerateContentResponseUsageMetadata(
            prompt_token_count=41, candidates_token_count=17, total_token_count=58
        )
        said = content(text)
        if call:
            called = types.FunctionCall(id=call.id, name=call.function.name, args=json.loads(given))
            said = types.Content(role="model", parts=[types.Part(function_call=called)])
        yield LlmResponse(content=said, partial=False, usage_metadata=usage, finish_reason=types.FinishReason.STOP)


def rivers():
    return Agent(name="rivers", model=Fake(model="fake-model"), instruction="Be short.", tools=[depth])


class Loader(BaseAgentLoader):
    def load_agent(self, agent_name):
        return rivers()

    def list_agents(self):
        return ["rivers"]

    def list_agents_detailed(self):
        return []


os.environ["ADK_DISABLE_LOCAL_STORAGE"] = "1"
app = get_fast_api_app(
    agents_dir=tempfile.mkdtemp(),
    agent_loader=Loader(),
    session_service_uri="memory://",
    artifact_service_uri="memory://",
    use_local_storage=False,
    auto_create_session=True,
    web=False,
)
