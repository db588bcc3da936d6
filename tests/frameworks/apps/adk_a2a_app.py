"""The agent of Google's ADK over A2A, as ADK itself serves it."""

from adk_app import rivers
from google.adk.a2a.utils.agent_to_a2a import to_a2a

app = to_a2a(rivers())
