"""A crew of CrewAI: its chunks as an app writes them."""

import model
from crewai import LLM, Agent, Crew, Task
from crewai.tools import tool
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

app = FastAPI()


class Question(BaseModel):
    query: str


@tool("depth")
def depth(river: str) -> str:
    """How deep a river is."""
    return "2 m"


@app.post("/crew")
async def crew(question: Question):
    llm = LLM(model=f"openai/{model.NAME}", base_url=model.URL, api_key="unused", stream=True, max_retries=0)
    agent = Agent(role="Rivers", goal="Tells of rivers", backstory="Short.", llm=llm, tools=[depth], max_retry_limit=0)
    task = Task(description=question.query, expected_output="One sentence", agent=agent)
    running = await Crew(agents=[agent], tasks=[task], stream=True).akickoff()

    async def lines():
        async for chunk in running:
            yield f"data: {chunk.model_dump_json()}\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream")
