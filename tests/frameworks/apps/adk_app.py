"""Google's ADK server (`/run_sse`), with a model of its own that streams as Gemini's does."""

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


class Fake(BaseLlm):
    async def generate_content_async(self, llm_request, stream=False):
        text = ""
        async for word in model.words("hello"):
            text += word
            if stream:
                yield LlmResponse(content=content(word), partial=True)
        usage = types.GenerateContentResponseUsageMetadata(
            prompt_token_count=41, candidates_token_count=17, total_token_count=58
        )
        yield LlmResponse(
            content=content(text), partial=False, usage_metadata=usage, finish_reason=types.FinishReason.STOP
        )


class Loader(BaseAgentLoader):
    def load_agent(self, agent_name):
        return Agent(name="rivers", model=Fake(model="fake-model"), instruction="Be short.")

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
