"""A client that opens a WebSocket (RFC 6455): what the server writes, as it comes, and its texts."""

import base64
import os
import socket
import struct
import threading
import time
import urllib.parse

TEXT, CLOSE = 1, 8


class SocketClient:
    def __init__(self, url, ask, mark, patience_s):
        self.body, self.texts = bytearray(), []
        self.began = time.monotonic()
        self.last_at = self.marked_at = None
        self.over = False
        self.mark = mark
        address = urllib.parse.urlsplit(url)
        self.socket = socket.create_connection((address.hostname, address.port), patience_s)
        key = base64.b64encode(os.urandom(16)).decode()
        head = [f"GET {ask.path} HTTP/1.1", f"host: {address.netloc}", "upgrade: websocket", "connection: upgrade"]
        head += [f"sec-websocket-key: {key}", "sec-websocket-version: 13", "", ""]
        self.socket.sendall("\r\n".join(head).encode())
        self.file = self.socket.makefile("rb")
        self.status = int(self.file.readline().split()[1])
        self.headers = {}
        while line := self.file.readline().strip().decode():
            name, _, value = line.partition(":")
            self.headers[name.lower()] = value.strip()
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def say(self, text, opcode=TEXT):
        payload, mask = text if opcode == CLOSE else text.encode(), os.urandom(4)
        size = len(payload)
        length = bytes([0x80 | size]) if size < 126 else b"\xfe" + struct.pack(">H", size)
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
        self.socket.sendall(bytes([0x80 | opcode]) + length + mask + masked)

    def leave(self):
        """Closes it in order."""
        self.say(struct.pack(">H", 1000), CLOSE)

    def join(self):
        self.thread.join(self.socket.gettimeout())

    def read(self):
        try:
            while self.message():
                self.last_at = time.monotonic()
                if self.marked_at is None and any(self.mark in text for text in self.texts):
                    self.marked_at = self.last_at
        except OSError:
            pass
        self.over = True

    def message(self):
        """Reads one frame; false at the end."""
        head = self.exactly(2)
        if not head:
            return False
        size = head[1] & 0x7F
        if size > 125:
            size = int.from_bytes(self.exactly(2 if size == 126 else 8), "big")
        payload = self.exactly(size)
        if head[0] & 0x0F == TEXT:
            self.texts.append(payload.decode())
        return head[0] & 0x0F != CLOSE

    def exactly(self, size):
        read = self.file.read(size)
        self.body += read
        return read
