"""A Gradio chat, whose function streams."""

import gradio
import model
from fastapi import FastAPI


async def answer(message, history):
    text = ""
    async for word in model.words(message):
        text += word
        yield text


with gradio.Blocks() as demo:
    gradio.ChatInterface(answer, api_name="chat")
app = gradio.mount_gradio_app(FastAPI(), demo, path="")
