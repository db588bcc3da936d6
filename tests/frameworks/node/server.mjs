// The Vercel AI SDK as a server: the UI message stream that useChat reads, with the usage in its metadata, and text alone.
import { createServer } from "node:http";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { isStepCount, jsonSchema, streamText, tool } from "ai";

const provider = createOpenAICompatible({ name: "fake", baseURL: process.env.OPENAI_BASE_URL, includeUsage: true });

const depth = tool({
  description: "How deep a river is.",
  inputSchema: jsonSchema({ type: "object", properties: { river: { type: "string" } }, required: ["river"] }),
  execute: () => "2 m",
});

// A model that breaks off inside its answer rejects a promise of the SDK's own: Next.js logs that, and goes on.
process.on("unhandledRejection", (error) => console.error(error));

const server = createServer(async (request, response) => {
  let body = "";
  for await (const piece of request) body += piece;
  const messages = [{ role: "user", content: JSON.parse(body).query }];
  const result = streamText({ model: provider("fake-model"), messages, maxRetries: 0, onError: () => {},
    tools: { depth }, stopWhen: isStepCount(2) });
  const metadata = ({ part }) => (part.type === "finish" ? { totalUsage: part.totalUsage } : undefined);
  const passed = request.url === "/text"
    ? result.pipeTextStreamToResponse(response)
    : result.pipeUIMessageStreamToResponse(response, { messageMetadata: metadata });
  // As a framework does whose handler throws.
  await passed?.catch?.(() => response.destroy());
});
server.listen(0, "127.0.0.1", () => console.log(`running on http://127.0.0.1:${server.address().port}`));
