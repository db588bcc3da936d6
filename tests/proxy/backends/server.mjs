// A backend in Node.js, for tests: answers each request with what each way of reading that Node programs use takes it for.
// The address stands on the first line of its output.
import http from "node:http";
import querystring from "node:querystring";
import { Readable } from "node:stream";
import zlib from "node:zlib";
import express from "express";
import multer from "multer";
import qs from "qs";

const number = (value) => (Number.isFinite(Number(value)) ? Number(value) : 0);

// A JavaScript program hardly asks for the types of what it reads.
function read(body) {
  if (body === null || typeof body !== "object") return null;
  const tokens = Math.max(
    ...[body.max_tokens, body.max_completion_tokens, body.max_output_tokens, body.options?.num_predict,
      body.generationConfig?.maxOutputTokens].map(number));
  // An upload is no name, however it is written out.
  const model = body.model instanceof Blob ? "" : body.model ?? "";
  return { model: `${model}`, tokens: tokens * Math.max(1, number(body.n), number(body.best_of)) };
}

const attempt = (reader) => { try { return reader(); } catch { return null; } };

function decoded(coding, body) {
  const decoders = { gzip: zlib.gunzipSync, "x-gzip": zlib.gunzipSync, deflate: zlib.inflateSync, br: zlib.brotliDecompressSync };
  const decoder = decoders[(coding ?? "").toLowerCase()];
  return decoder ? attempt(() => decoder(body)) : null;
}

// As programs put a path before them: one way takes a backslash for a slash.
function inPath(path) {
  const segments = path.split("/");
  for (const [at, segment] of segments.entries()) {
    const next = segments[at + 1];
    if (segment === "models" && next?.includes(":")) return next.slice(0, next.lastIndexOf(":"));
    if ((segment === "model" || segment === "deployments") && segments.length > at + 2) return next;
  }
  return "";
}

function paths(target) {
  const whole = attempt(() => new URL(target, "http://backend").pathname) ?? "";
  const plain = target.split("?")[0];
  const all = { "new URL": whole, "req.url": plain };
  for (const [name, path] of Object.entries(all)) {
    all[`${name}, decoded`] = attempt(() => decodeURIComponent(path)) ?? "";
  }
  return all;
}

// Express's own middleware and the usual one for uploads, each with a copy of the request.
const middleware = {
  "express.json": express.json({ limit: "64mb" }),
  "express.json of any type": express.json({ limit: "64mb", type: () => true, strict: false }),
  "express.urlencoded": express.urlencoded({ limit: "64mb", extended: true }),
  "express.urlencoded, plain": express.urlencoded({ limit: "64mb", extended: false }),
  multer: multer().any(),
};

function byMiddleware(request, body) {
  return Promise.all(Object.entries(middleware).map(([name, reader]) => new Promise((done) => {
    const headers = { ...request.headers, "content-length": `${body.length}` };
    delete headers["transfer-encoding"];
    const { method, url } = request;
    const copy = Object.assign(Readable.from(body.length ? [body] : [], { objectMode: false }), { headers, method, url });
    reader(copy, {}, () => done([name, read(copy.body)]));
  })));
}

async function understood(request, body) {
  const reads = Object.fromEntries(await byMiddleware(request, body));
  for (const [name, text] of [["", body], [" decoded", decoded(request.headers["content-encoding"], body)]]) {
    if (text === null) continue;
    reads[`JSON.parse${name}`] = attempt(() => read(JSON.parse(text.toString())));
    reads[`JSON.parse of a body without its mark${name}`] =
      attempt(() => read(JSON.parse(new TextDecoder().decode(text))));
    reads[`querystring${name}`] = read(querystring.parse(text.toString()));
    reads[`qs${name}`] = read(qs.parse(text.toString()));
    reads[`Response.formData${name}`] = await new Response(text, {
      headers: { "content-type": request.headers["content-type"] ?? "" },
    }).formData().then((form) => read(Object.fromEntries(form)), () => null);
  }
  const query = request.url.split("?").slice(1).join("?");
  reads["query by qs"] = read(qs.parse(query));
  reads["query by URLSearchParams"] = read(Object.fromEntries(new URLSearchParams(query)));
  for (const [name, path] of Object.entries(paths(request.url))) reads[name] = { model: inPath(path), tokens: 0 };
  return reads;
}

const server = http.createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", async () => {
    const reads = await understood(request, Buffer.concat(chunks));
    const told = Object.entries(reads).filter(([, one]) => one !== null)
      .map(([name, one]) => [name, { ...one, user: request.headers["x-user-id"] ?? "" }]);
    response.setHeader("content-type", "application/vnd.reads");
    response.end(JSON.stringify(Object.fromEntries(told)));
  });
});
server.listen(0, "127.0.0.1", () => console.log(`127.0.0.1:${server.address().port}`));
