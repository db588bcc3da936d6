"""A model without a network: OpenAI's chat completions and responses, on loopback, one answer at a time.

The answer comes in steps that the test lets happen: nothing before `reached` is passed on, the first word waits for
`speak`, what follows it for `go_on`. So what was before the first token and what after is known, and not guessed from times.
"""

import http.server
import itertools
import json
import re
import threading

# The first word of the answer. It stands in no request, so that the first event with it has the first generated text.
MARK = "Quicksilver"
# The same of a tool's call: frameworks tell of the tools themselves before, and of a call's id never.
CALL = f"call_{MARK}"
ARGUMENTS = ['{"river":', ' "Rhine"}']
WORDS = [MARK, " runs", " uphill", " at", " night."]
TEXT = "".join(WORDS)
TOKENS_IN, TOKENS_OUT = 41, 17

# Waited for at most, by whoever waits for a step.
PATIENCE_S = 60


class Script:
    """How the next answer goes."""

    def __init__(self, fails, calls=False):
        self.fails = fails
        self.calls = calls
        # Each answer has an id of its own, as those of real models have.
        self.asked = itertools.count(1)
        self.reached = threading.Event()
        self.speak = threading.Event()
        self.go_on = threading.Event()

    def let_go(self):
        self.speak.set()
        self.go_on.set()


class FakeModel:
    def __init__(self):
        self.script = Script(fails=False)
        self.script.let_go()
        model = self

        class Handler(Answer):
            fake = model

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def expect(self, fails=False, calls=False):
        """The next answer breaks off, or begins with a tool's call."""
        self.script = Script(fails, calls)
        return self.script

    def stop(self):
        self.script.let_go()
        self.server.shutdown()


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.number = 1
        self.whole({"object": "list", "data": [{"id": "fake-model", "object": "model", "owned_by": "test", "created": 1}]})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}")
        script = self.fake.script
        self.number = next(script.asked)
        script.reached.set()
        is_chat = self.path.endswith("/chat/completions")
        if not asked.get("stream"):
            script.speak.wait(PATIENCE_S)
            script.go_on.wait(PATIENCE_S)
            if script.fails:
                # Its connection breaks before the answer.
                self.close_connection = True
                return None
            return self.whole(chat_whole() if is_chat else responses_whole())
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        wants_usage = (asked.get("stream_options") or {}).get("include_usage")
        calls = script.calls and asked.get("tools") and not has_result(asked)
        if is_chat:
            before, words, after = chat_events(wants_usage, calls)
        else:
            before, words, after = responses_call() if calls else responses_events()
        self.events(before)
        script.speak.wait(PATIENCE_S)
        self.events(words[:1])
        script.go_on.wait(PATIENCE_S)
        if script.fails:
            # Its connection breaks inside the answer.
            self.events(words[1:2])
            self.close_connection = True
            return
        self.events(words[1:] + after)
        self.wfile.write(b"0\r\n\r\n")

    def events(self, events):
        for event in events:
            data = event if isinstance(event, str) else json.dumps(event)
            name = f"event: {event['type']}\n" if isinstance(event, dict) and "type" in event else ""
            text = self.own_id(f"{name}data: {data}\n\n")
            self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))
            self.wfile.flush()

    def own_id(self, text):
        return re.sub(r'"(chatcmpl|resp)-1"', rf'"\1-{self.number}"', text).encode()

    def whole(self, body):
        body = self.own_id(json.dumps(body))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def has_result(asked):
    """Whether the tool has answered."""
    said = asked.get("messages") or asked.get("input") or []
    return any("tool" in (item.get("role"), item.get("type")) or item.get("type") == "function_call_output" for item in said)


CHAT_USAGE = {
    "prompt_tokens": TOKENS_IN,
    "completion_tokens": TOKENS_OUT,
    "total_tokens": TOKENS_IN + TOKENS_OUT,
    "prompt_tokens_details": {"cached_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0},
}
RESPONSES_USAGE = {
    "input_tokens": TOKENS_IN,
    "output_tokens": TOKENS_OUT,
    "total_tokens": TOKENS_IN + TOKENS_OUT,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens_details": {"reasoning_tokens": 0},
}


def chat_chunk(delta, finish=None, **more):
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "fake-model"}
    return head | {"choices": choices} | more


def chat_call(**more):
    """A chunk with a piece of a tool's call."""
    return chat_chunk({"tool_calls": [{"index": 0, **more}]})


def chat_events(wants_usage, calls):
    if calls:
        begun = chat_call(id=CALL, type="function", function={"name": "depth", "arguments": ""})
        words = [begun] + [chat_call(function={"arguments": piece}) for piece in ARGUMENTS]
    else:
        words = [chat_chunk({"content": word}) for word in WORDS]
    after = [chat_chunk({}, "tool_calls" if calls else "stop")]
    if wants_usage:
        after.append(chat_chunk(None, usage=CHAT_USAGE))
    return [chat_chunk({"role": "assistant", "content": ""})], words, after + ["[DONE]"]


def chat_whole():
    message = {"role": "assistant", "content": TEXT, "refusal": None}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "fake-model",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        "usage": CHAT_USAGE,
    }


def responses_whole(status="completed", text=TEXT):
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    item = {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [part]}
    is_over = status == "completed"
    return {
        "id": "resp-1",
        "object": "response",
        "created_at": 1,
        "status": status,
        "model": "fake-model",
        "output": [item] if is_over else [],
        "usage": RESPONSES_USAGE if is_over else None,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "temperature": 1,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1,
    }


def responses_call():
    given = "".join(ARGUMENTS)
    item = {"type": "function_call", "id": "fc_1", "call_id": CALL, "name": "depth", "arguments": given, "status": "completed"}
    begun = item | {"arguments": "", "status": "in_progress"}
    place = {"item_id": "fc_1", "output_index": 0}
    before = [{"type": "response.created", "response": responses_whole("in_progress")}]
    words = [{"type": "response.output_item.added", "output_index": 0, "item": begun}]
    words += [{"type": "response.function_call_arguments.delta", "delta": piece} | place for piece in ARGUMENTS]
    after = [
        {"type": "response.function_call_arguments.done", "arguments": given, "name": "depth"} | place,
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": responses_whole() | {"output": [item]}},
    ]
    return numbered(before, words, after)


def responses_events():
    whole = responses_whole()
    item = whole["output"][0]
    opened = item | {"status": "in_progress", "content": []}
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    empty = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    before = [
        {"type": "response.created", "response": responses_whole("in_progress")},
        {"type": "response.in_progress", "response": responses_whole("in_progress")},
        {"type": "response.output_item.added", "output_index": 0, "item": opened},
        {"type": "response.content_part.added", "part": empty} | place,
    ]
    words = [{"type": "response.output_text.delta", "delta": word, "logprobs": []} | place for word in WORDS]
    after = [
        {"type": "response.output_text.done", "text": TEXT, "logprobs": []} | place,
        {"type": "response.content_part.done", "part": item["content"][0]} | place,
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": whole},
    ]
    return numbered(before, words, after)


def numbered(*parts):
    for number, event in enumerate(event for part in parts for event in part):
        event["sequence_number"] = number
    return parts
