"""A graph that asks a model, and a tool where the model wants it; for LangGraph's server, and for an app of one's own."""

import os

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition


@tool
def depth(river: str) -> str:
    """How deep a river is."""
    return "2 m"


model = ChatOpenAI(
    model="fake-model",
    base_url=os.environ["OPENAI_BASE_URL"],
    api_key="unused",
    max_retries=0,
    stream_usage=True,
).bind_tools([depth])


async def ask(state: MessagesState):
    return {"messages": [await model.ainvoke(state["messages"])]}


nodes = StateGraph(MessagesState).add_node("ask", ask).add_node("tools", ToolNode([depth]))
nodes.add_edge(START, "ask").add_conditional_edges("ask", tools_condition).add_edge("tools", "ask")
graph = nodes.compile()
