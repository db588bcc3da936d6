"""Agno's AgentOS, as it serves an agent and a team, and over AG-UI."""

import model
from agno.agent import Agent
from agno.models.openai import OpenAIChat
from agno.os import AgentOS
from agno.team import Team


def fake():
    return OpenAIChat(id=model.NAME, base_url=model.URL, api_key="unused", retries=0)


def depth(river: str) -> str:
    """How deep a river is."""
    return "2 m"


agent = Agent(id="rivers", name="Rivers", model=fake(), tools=[depth], telemetry=False)
member = Agent(id="lakes", name="Lakes", model=fake(), telemetry=False)
team = Team(id="waters", name="Waters", members=[member], model=fake(), tools=[depth], telemetry=False)
app = AgentOS(agents=[agent], teams=[team], telemetry=False).get_app()
