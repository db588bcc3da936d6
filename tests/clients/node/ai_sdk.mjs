// The Vercel AI SDK through the proxy: streamText against an OpenAI-compatible backend, and the transport that
// useChat uses against FastAPI's UI message stream. Usage: ai_sdk.mjs PROXY_URL
import assert from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Chat } from "@ai-sdk/react";
import { DefaultChatTransport, streamText } from "ai";

const proxy = process.argv[2];

const provider = createOpenAICompatible({ name: "proxy", baseURL: `${proxy}/v1`, includeUsage: true });
const result = streamText({ model: provider("gpt-test"), prompt: "hello" });
let text = "";
for await (const delta of result.textStream) text += delta;
assert.match(text, /^A stream gauge/);
assert.equal(await result.finishReason, "stop");
assert.equal((await result.usage).outputTokens, 12);

const chat = new Chat({ transport: new DefaultChatTransport({ api: `${proxy}/api/chat` }) });
await chat.sendMessage({ text: "hello" });
assert.equal(chat.status, "ready", String(chat.error));
const answer = chat.messages.at(-1);
assert.equal(answer.role, "assistant");
assert.equal(answer.parts.filter((part) => part.type === "text").map((part) => part.text).join(""), text);
console.log("Vercel AI SDK: streamText and useChat's chat agree");
