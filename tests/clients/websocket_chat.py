"""Python's websockets through the proxy to FastAPI. Usage: websocket_chat.py PROXY_URL"""

import sys

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

with connect(sys.argv[1].replace("http", "ws", 1) + "/ws/chat") as socket:
    socket.send("hello")
    tokens = []
    while (token := socket.recv(timeout=10)) != "[DONE]":
        tokens.append(token)
    assert "".join(tokens).startswith("A stream gauge"), tokens
    assert socket.ping().wait(10), "no pong"
    socket.send("bye")
    try:
        socket.recv(timeout=10)
        raise AssertionError("expected a close")
    except ConnectionClosed as closed:
        assert (closed.rcvd.code, closed.rcvd.reason) == (4000, "as you wish"), closed
print("websockets: messages, ping and close code pass")
