// The script of a page that traces its own calls with OpenTelemetry's web SDK, as its documentation says. Bundled by
// browser_trace.mjs.
import { SpanKind, context, trace } from "@opentelemetry/api";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-proto";
import { registerInstrumentations } from "@opentelemetry/instrumentation";
import { FetchInstrumentation } from "@opentelemetry/instrumentation-fetch";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { SimpleSpanProcessor, WebTracerProvider } from "@opentelemetry/sdk-trace-web";

// Asks for a streamed answer below a span of its own; the ids of that span, once all spans were sent.
globalThis.ask = async (proxy, collector) => {
  // The span of a fetch ends a moment after its answer: once the browser's own timings of it are there.
  let asked;
  const over = new Promise((resolve) => (asked = resolve));
  const ended = (span) => span.kind === SpanKind.CLIENT && asked();
  const exporter = new OTLPTraceExporter({ url: `${collector}/v1/traces` });
  const provider = new WebTracerProvider({
    resource: resourceFromAttributes({ "service.name": "page" }),
    spanProcessors: [new SimpleSpanProcessor(exporter), { onStart() {}, onEnd: ended, forceFlush: async () => {}, shutdown: async () => {} }],
  });
  provider.register();
  // To other origins it sends `traceparent` only where this says so. A string would have to be the whole URL.
  const propagateTraceHeaderCorsUrls = [new RegExp(`^${RegExp.escape(proxy)}/`)];
  registerInstrumentations({ instrumentations: [new FetchInstrumentation({ propagateTraceHeaderCorsUrls })] });
  const click = trace.getTracer("page").startSpan("click");
  const answer = await context.with(trace.setSpan(context.active(), click), () =>
    fetch(`${proxy}/v1/chat/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ model: "m", stream: true, messages: [{ role: "user", content: "hi" }] }),
    }),
  );
  const text = await answer.text();
  click.end();
  await over;
  await provider.forceFlush();
  const { traceId, spanId } = click.spanContext();
  return { traceId, spanId, status: answer.status, text };
};
