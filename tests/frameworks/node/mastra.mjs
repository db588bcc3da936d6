// Mastra's server: an agent's stream as its own client reads it.
import express from "express";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Mastra } from "@mastra/core";
import { Agent } from "@mastra/core/agent";
import { createTool } from "@mastra/core/tools";
import { MastraServer } from "@mastra/express";
import { z } from "zod";

const provider = createOpenAICompatible({ name: "fake", baseURL: process.env.OPENAI_BASE_URL, includeUsage: true });

const depth = createTool({
  id: "depth",
  description: "How deep a river is.",
  inputSchema: z.object({ river: z.string() }),
  execute: async () => ({ depth: "2 m" }),
});

const rivers = new Agent({
  id: "rivers",
  name: "Rivers",
  instructions: "Be short.",
  model: provider("fake-model"),
  maxRetries: 0,
  tools: { depth },
});

process.on("unhandledRejection", (error) => console.error(error));

const app = express();
app.use(express.json());
const server = new MastraServer({ app, mastra: new Mastra({ agents: { rivers }, logger: false }) });
await server.init();
const listener = app.listen(0, "127.0.0.1", () => console.log(`running on http://127.0.0.1:${listener.address().port}`));
