"""Streams to count instructions with: of each dialect an event as backends send it, and the streams of the corpus."""

import json
from dataclasses import dataclass
from pathlib import Path

WORDS = (" river", " is", ".", " high")

CHAT = (
    'data: {"id":"chatcmpl-C9aXb1","object":"chat.completion.chunk","created":1761000000,"model":"gpt-4o-mini",'
    '"choices":[{"index":0,"delta":{"content":" river"},"logprobs":null,"finish_reason":null}]}\r\n\r\n'
)
RESPONSES = (
    "event: response.output_text.delta\n"
    'data: {"type":"response.output_text.delta","sequence_number":9,"item_id":"msg_68c1","output_index":0,'
    '"content_index":0,"delta":" river","logprobs":[],"obfuscation":"kq8R2xPz"}\n\n'
)
ANTHROPIC = (
    "event: content_block_delta\n"
    'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" river"}}\n\n'
)
GEMINI = (
    'data: {"candidates": [{"content": {"parts": [{"text": " river"}],"role": "model"},"index": 0}],'
    '"usageMetadata": {"promptTokenCount": 8,"totalTokenCount": 9},"modelVersion": "gemini-2.5-flash"}\r\n\r\n'
)
OLLAMA = (
    '{"model":"llama3.2","created_at":"2025-10-20T12:00:00.000000Z","message":'
    '{"role":"assistant","content":" river"},"done":false}\n'
)


@dataclass(frozen=True)
class Sample:
    """A dialect, and an event of its: `varies` is what differs from event to event beside the text, if anything does."""

    title: str
    dialect: str
    framing: str
    event: str
    varies: str = ""
    # How it is asked for through the proxy; empty: not at all.
    path: str = ""
    content_type: str = "text/event-stream"

    def events(self, count: int) -> list[str]:
        """So many events, no two in turn with the same text."""
        made = []
        for turn in range(count):
            event = self.event.replace(" river", WORDS[turn % len(WORDS)])
            if self.varies:
                number = str(int(self.varies) + turn).zfill(len(self.varies))
                event = event.replace(self.varies, number)
            made.append(event)
        return made


SAMPLES = (
    Sample("OpenAI chat", "openai-chat", "sse", CHAT, path="/v1/chat/completions"),
    Sample("OpenAI chat, read in full", "openai-chat", "sse", CHAT, varies="1761000000", path="/v1/chat/completions"),
    Sample("OpenAI Responses", "openai-responses", "sse", RESPONSES, varies="9", path="/v1/responses"),
    Sample("Anthropic", "anthropic", "sse", ANTHROPIC, path="/v1/messages"),
    Sample("Gemini", "gemini", "sse", GEMINI, path="/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse"),
    Sample("Ollama", "ollama", "json-lines", OLLAMA, path="/api/chat", content_type="application/x-ndjson"),
    Sample("Vercel's UI stream", "vercel-ui", "sse", 'data: {"type":"text-delta","id":"txt-0","delta":" river"}\n\n'),
    Sample("Vercel's data stream", "vercel-data", "json-lines", '0:" river"\n'),
    Sample("plain events", "plain-sse", "sse", 'data: {"token": " river", "index": 17}\n\n', path="/chat"),
    Sample("bare text", "plain-text", "opaque", " river"),
)

# How the streams of a dialect's directory come where they do not say it themselves.
FRAMINGS = {sample.dialect: sample.framing for sample in SAMPLES}


def corpus(root: Path, older: Path | None) -> dict[str, list[list[str]]]:
    """By dialect the corpus's streams, each its reads as text; with `older` only those that it has too, byte for byte."""
    found: dict[str, list[list[str]]] = {}
    for dialect in FRAMINGS:
        for case in sorted((root / "tests/corpus" / dialect).iterdir()):
            text = (case / "stream.txt").read_bytes()
            setup = case / "setup.json"
            if setup.exists() or "base64:" in text.decode() or (older and unlike(older / case.relative_to(root), text)):
                continue
            found.setdefault(dialect, []).append(reads(text.decode()))
    return found


def unlike(older: Path, text: bytes) -> bool:
    """Whether an older corpus lacks the stream, or has another one by that name."""
    return not (older / "stream.txt").exists() or (older / "stream.txt").read_bytes() != text


def reads(stream: str) -> list[str]:
    """What each line of a `stream.txt` feeds."""
    lines = (line.split(" ", 1)[1] for line in stream.splitlines() if line and not line.startswith("#"))
    return [json.loads(read) for read in lines if read.startswith('"')]
