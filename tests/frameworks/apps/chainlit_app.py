"""A chat of Chainlit, whose words go to the browser over a WebSocket."""

import chainlit
import model


@chainlit.on_message
async def answer(message: chainlit.Message):
    said = chainlit.Message(content="")
    async for word in model.words(message.content):
        await said.stream_token(word)
    await said.send()
