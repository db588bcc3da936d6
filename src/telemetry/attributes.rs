//! The attributes of spans and exported log records, under the names of the conventions.

use std::sync::Arc;

use opentelemetry::{Array, KeyValue, StringValue, Value};

use super::json::bounded;
use super::record::{ErrorType, LlmInfo, Record};
use super::semconv as names;

/// Appends what is told of the request as HTTP, and what is ours.
pub(super) fn request(record: &Record, to: &mut Vec<KeyValue>) {
    http(record, to);
    if let Some(address) = record.client.address {
        to.push(KeyValue::new(names::CLIENT_ADDRESS, address.ip().to_canonical().to_string()));
        to.push(KeyValue::new(names::CLIENT_PORT, i64::from(address.port())));
    }
    user(record, to);
    own(record, to);
}

/// Appends what is told of the GenAI call, but for what was said.
pub(super) fn inference(llm: &LlmInfo, to: &mut Vec<KeyValue>) {
    to.push(KeyValue::new(names::GEN_AI_OPERATION_NAME, operation(llm)));
    to.extend(llm.provider_name().map(|provider| KeyValue::new(names::GEN_AI_PROVIDER_NAME, provider.to_owned())));
    asked(llm, to);
    answered(llm, to);
    usage(llm, to);
}

/// What the request asks the model for, as a word of few.
pub(super) fn operation(llm: &LlmInfo) -> &'static str {
    llm.request.operation.unwrap_or(names::OPERATION_UNKNOWN)
}

pub(super) fn user(record: &Record, to: &mut Vec<KeyValue>) {
    to.extend(record.client.user.as_ref().map(|user| KeyValue::new(names::USER_ID, Arc::clone(user))));
}

pub(super) fn error(error: Option<ErrorType>, to: &mut Vec<KeyValue>) {
    to.extend(error.map(|error| KeyValue::new(names::ERROR_TYPE, error.as_str())));
}

/// OpenTelemetry has no unsigned numbers.
pub(super) fn number(name: &'static str, value: u64) -> KeyValue {
    KeyValue::new(name, i64::try_from(value).unwrap_or(i64::MAX))
}

fn http(record: &Record, to: &mut Vec<KeyValue>) {
    let request = &record.request;
    let method = names::method(&request.method);
    to.push(KeyValue::new(names::HTTP_REQUEST_METHOD, method));
    if method != &*request.method {
        to.push(KeyValue::new(names::HTTP_REQUEST_METHOD_ORIGINAL, bounded(&request.method, 64).0.to_owned()));
    }
    to.push(KeyValue::new(names::URL_PATH, shared(&request.path)));
    to.push(KeyValue::new(names::NETWORK_PROTOCOL_NAME, "http"));
    to.push(KeyValue::new(names::NETWORK_PROTOCOL_VERSION, request.http_version));
    to.extend(record.status.map(|status| KeyValue::new(names::HTTP_RESPONSE_STATUS_CODE, i64::from(status))));
    error(record.error, to);
}

fn own(record: &Record, to: &mut Vec<KeyValue>) {
    to.push(KeyValue::new(names::REQUEST_ID, shared(&record.request_id)));
    to.extend(record.route.as_ref().map(|route| KeyValue::new(names::ROUTE, Arc::clone(route))));
    if let Some(served_by) = &record.served_by {
        to.push(KeyValue::new(names::UPSTREAM, Arc::clone(&served_by.upstream)));
        to.push(KeyValue::new(names::VARIANT, Arc::clone(&served_by.variant)));
    }
    to.push(KeyValue::new(names::OUTCOME, record.outcome.as_str()));
    to.push(number(names::CONFIG_GENERATION, record.config_generation));
    to.push(number(names::BYTES_IN, record.bytes_in));
    to.push(number(names::BYTES_OUT, record.bytes_out));
    for (phase, time) in record.phases.iter().filter(|(_, time)| !time.is_zero()) {
        to.push(KeyValue::new(names::phase(phase), time.as_secs_f64()));
    }
    if let Some(rpc) = &record.rpc {
        to.push(KeyValue::new(names::RPC_SYSTEM_NAME, names::JSONRPC));
        let told = [(names::rpc_method(rpc.protocol), &rpc.method), (names::GEN_AI_TOOL_NAME, &rpc.tool)];
        for (name, text) in told {
            to.extend(text.as_ref().map(|text| KeyValue::new(name, text.to_string())));
        }
    }
    if let Some(stream) = &record.stream {
        to.push(number(names::STREAM_EVENTS, stream.events));
        for (name, time) in [(names::STREAM_FIRST_EVENT, stream.first_event), (names::STREAM_MAX_GAP, stream.max_gap)] {
            to.extend(time.map(|time| KeyValue::new(name, time.as_secs_f64())));
        }
    }
    if let Some(websocket) = &record.websocket {
        to.push(number(names::WEBSOCKET_MESSAGES_IN, websocket.messages_in));
        to.push(number(names::WEBSOCKET_MESSAGES_OUT, websocket.messages_out));
        to.extend(websocket.close_code.map(|code| KeyValue::new(names::WEBSOCKET_CLOSE_CODE, i64::from(code))));
    }
}

/// What the request says of how it wants to be answered.
fn asked(llm: &LlmInfo, to: &mut Vec<KeyValue>) {
    let (request, details) = (&llm.request, &llm.request.details);
    if let Some(model) = &request.model {
        to.push(KeyValue::new(names::GEN_AI_REQUEST_MODEL, bounded(model, 256).0.to_owned()));
    }
    // By the conventions a request without it is none for a stream.
    if llm.streams() {
        to.push(KeyValue::new(names::GEN_AI_REQUEST_STREAM, true));
    }
    to.extend(request.max_tokens.map(|tokens| number(names::GEN_AI_REQUEST_MAX_TOKENS, tokens)));
    if request.choices != 1 {
        to.push(number(names::GEN_AI_REQUEST_CHOICE_COUNT, request.choices));
    }
    for (name, value) in [
        (names::GEN_AI_REQUEST_TEMPERATURE, request.temperature),
        (names::GEN_AI_REQUEST_TOP_P, request.top_p),
        (names::GEN_AI_REQUEST_FREQUENCY_PENALTY, details.frequency_penalty),
        (names::GEN_AI_REQUEST_PRESENCE_PENALTY, details.presence_penalty),
    ] {
        to.extend(value.map(|value| KeyValue::new(name, value)));
    }
    for (name, value) in [(names::GEN_AI_REQUEST_SEED, details.seed), (names::GEN_AI_REQUEST_TOP_K, details.top_k)] {
        to.extend(value.map(|value| KeyValue::new(name, value)));
    }
    if !details.stop_sequences.is_empty() {
        to.push(texts(names::GEN_AI_REQUEST_STOP_SEQUENCES, &details.stop_sequences));
    }
    for (name, text) in [
        (names::GEN_AI_REQUEST_REASONING_LEVEL, &details.reasoning_level),
        (names::GEN_AI_REQUEST_PREVIOUS_RESPONSE_ID, &details.previous_response_id),
        (names::GEN_AI_CONVERSATION_ID, &details.conversation_id),
    ] {
        to.extend(text.as_ref().map(|text| KeyValue::new(name, text.clone())));
    }
    to.extend(details.output_type.map(|kind| KeyValue::new(names::GEN_AI_OUTPUT_TYPE, kind)));
}

fn answered(llm: &LlmInfo, to: &mut Vec<KeyValue>) {
    let reading = &llm.reading;
    if let Some(id) = &reading.response_id {
        to.push(KeyValue::new(names::GEN_AI_RESPONSE_ID, bounded(id, 256).0.to_owned()));
    }
    if let Some(model) = &reading.response_model {
        to.push(KeyValue::new(names::GEN_AI_RESPONSE_MODEL, bounded(model, 256).0.to_owned()));
    }
    if !reading.finish_reasons.is_empty() {
        to.push(texts(names::GEN_AI_RESPONSE_FINISH_REASONS, &reading.finish_reasons));
    } else if reading.first_token.is_some() && !reading.normal_end {
        to.push(texts(names::GEN_AI_RESPONSE_FINISH_REASONS, &[names::FINISH_REASON_ERROR]));
    }
    for (name, time) in [
        (names::GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK, reading.first_token),
        (names::TIME_TO_FIRST_TOKEN, reading.first_token),
        (names::TIME_PER_OUTPUT_TOKEN, llm.time_per_output_token()),
        (names::MAX_GAP, reading.max_gap),
    ] {
        to.extend(time.map(|time| KeyValue::new(name, time.as_secs_f64())));
    }
    if let Some(server) = &reading.server {
        for (name, time) in [
            (names::SERVER_QUEUE, server.queue),
            (names::SERVER_LOAD, server.load),
            (names::SERVER_PREFILL, server.prefill),
            (names::SERVER_GENERATION, server.generation),
        ] {
            to.extend(time.map(|time| KeyValue::new(name, time.as_secs_f64())));
        }
    }
    to.push(number(names::FRAMES, reading.frames));
    to.push(number(names::TOKEN_FRAMES, reading.token_frames));
    if reading.buffered {
        to.push(KeyValue::new(names::BUFFERED, true));
    }
}

fn usage(llm: &LlmInfo, to: &mut Vec<KeyValue>) {
    let usage = &llm.reading.usage;
    for (name, tokens) in [
        (names::GEN_AI_USAGE_INPUT_TOKENS, usage.input),
        (names::GEN_AI_USAGE_OUTPUT_TOKENS, usage.output),
        (names::GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS, usage.cached_input),
        (names::GEN_AI_USAGE_CACHE_CREATION_INPUT_TOKENS, usage.cache_write),
        (names::GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS, usage.cache_write),
        (names::GEN_AI_USAGE_REASONING_OUTPUT_TOKENS, usage.reasoning),
        (names::GEN_AI_USAGE_AUDIO_INPUT_TOKENS, usage.input_audio),
        (names::GEN_AI_USAGE_AUDIO_OUTPUT_TOKENS, usage.output_audio),
    ] {
        to.extend(tokens.map(|tokens| number(name, tokens)));
    }
    if let Some(cost) = llm.bill.cost() {
        to.push(KeyValue::new(names::GEN_AI_USAGE_COST, cost.dollars()));
        to.push(KeyValue::new(names::LLM_COST_TOTAL, cost.dollars()));
    }
    to.push(KeyValue::new(names::USAGE_SOURCE, llm.reading.usage_source.as_str()));
    to.extend(llm.asked_by.as_ref().map(|by| KeyValue::new(names::ASKED_BY, shared(&by.request_id))));
}

fn texts(name: &'static str, texts: &[impl AsRef<str>]) -> KeyValue {
    let texts = texts.iter().map(|text| StringValue::from(bounded(text.as_ref(), 256).0.to_owned()));
    KeyValue::new(name, Value::Array(Array::String(texts.collect())))
}

/// A text that may be long; shared where it is not.
fn shared(text: &Arc<str>) -> StringValue {
    match bounded(text, 2_048) {
        (_, false) => Arc::clone(text).into(),
        (cut, true) => cut.to_owned().into(),
    }
}
