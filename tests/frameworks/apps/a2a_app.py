"""An agent behind the A2A SDK: JSON-RPC of versions 1.0 and 0.3, and REST of both."""

import model
from a2a.helpers import proto_helpers as parts
from a2a.server.agent_execution import AgentExecutor
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_jsonrpc_routes, create_rest_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import a2a_pb2 as types
from starlette.applications import Starlette


class Rivers(AgentExecutor):
    async def execute(self, context, event_queue):
        task = context.current_task or parts.new_task_from_user_message(context.message)
        await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        await updater.start_work()
        is_first = True
        async for word in model.words(context.get_user_input()):
            await updater.add_artifact(
                [parts.new_text_part(word)], artifact_id="answer", append=not is_first, last_chunk=False
            )
            is_first = False
        await updater.complete()

    async def cancel(self, context, event_queue):
        raise NotImplementedError


card = types.AgentCard(
    name="Rivers",
    description="Knows rivers",
    version="1.0",
    supported_interfaces=[
        types.AgentInterface(url="http://127.0.0.1/", protocol_binding="JSONRPC", protocol_version="1.0"),
        types.AgentInterface(url="http://127.0.0.1/", protocol_binding="HTTP+JSON", protocol_version="1.0"),
    ],
    capabilities=types.AgentCapabilities(streaming=True),
    default_input_modes=["text/plain"],
    default_output_modes=["text/plain"],
    skills=[types.AgentSkill(id="rivers", name="Rivers", description="Knows rivers", tags=["rivers"])],
)
handler = DefaultRequestHandler(agent_executor=Rivers(), task_store=InMemoryTaskStore(), agent_card=card)
app = Starlette(
    routes=create_jsonrpc_routes(handler, "/rpc", enable_v0_3_compat=True)
    + create_rest_routes(handler, enable_v0_3_compat=True, path_prefix="/rest")
)
