"""The official OpenAI SDK, streaming and not, through the proxy. Usage: openai_stream.py PROXY_URL"""

import sys

from openai import OpenAI

client = OpenAI(base_url=f"{sys.argv[1]}/v1", api_key="unused", max_retries=0)
messages = [{"role": "user", "content": "hello"}]

whole = client.chat.completions.create(model="gpt-test", messages=messages)
assert whole.choices[0].finish_reason == "stop", whole
assert whole.usage.completion_tokens > 0, whole

parts, finish, usage = [], None, None
stream = client.chat.completions.create(
    model="gpt-test", messages=messages, stream=True, stream_options={"include_usage": True}
)
for chunk in stream:
    if chunk.choices:
        parts.append(chunk.choices[0].delta.content or "")
        finish = chunk.choices[0].finish_reason or finish
    usage = chunk.usage or usage
assert "".join(parts) == whole.choices[0].message.content, parts
assert finish == "stop" and usage.completion_tokens == whole.usage.completion_tokens, (finish, usage)
print("openai SDK: whole and streamed answers agree")
