//! The attributes of spans and exported log records, under the names of the conventions.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::{Array, KeyValue, StringValue, Value};

use super::json::bounded;
use super::record::{ErrorType, LlmInfo, Record};
use super::semconv as names;

/// The most bytes of a name.
const TEXT_MAX: usize = 256;

/// Appends what is told of the request as HTTP, and what is ours.
pub(super) fn request(record: &Record, to: &mut Vec<KeyValue>) {
    http(record, to);
    let address = record.client.address;
    put(to, names::CLIENT_ADDRESS, address.map(|address| address.ip().to_canonical().to_string()));
    put(to, names::CLIENT_PORT, address.map(|address| i64::from(address.port())));
    user(record, to);
    own(record, to);
}

/// Appends what is told of the GenAI call, but for what was said.
pub(super) fn inference(llm: &LlmInfo, to: &mut Vec<KeyValue>) {
    to.push(KeyValue::new(names::GEN_AI_OPERATION_NAME, operation(llm)));
    put(to, names::GEN_AI_PROVIDER_NAME, llm.provider_name().map(str::to_owned));
    asked(llm, to);
    answered(llm, to);
    usage(llm, to);
}

/// What the request asks the model for, as a word of few.
pub(super) fn operation(llm: &LlmInfo) -> &'static str {
    llm.request.operation.unwrap_or(names::OPERATION_UNKNOWN)
}

pub(super) fn user(record: &Record, to: &mut Vec<KeyValue>) {
    put(to, names::USER_ID, record.client.user.clone());
}

pub(super) fn error(error: Option<ErrorType>, to: &mut Vec<KeyValue>) {
    put(to, names::ERROR_TYPE, error.map(ErrorType::as_str));
}

/// Appends an attribute where there is a value of it.
pub(super) fn put(to: &mut Vec<KeyValue>, name: &'static str, value: Option<impl Into<Value>>) {
    to.extend(value.map(|value| KeyValue::new(name, value)));
}

/// OpenTelemetry has no unsigned numbers.
pub(super) fn number(name: &'static str, value: u64) -> KeyValue {
    KeyValue::new(name, signed(value))
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn http(record: &Record, to: &mut Vec<KeyValue>) {
    let request = &record.request;
    let method = names::method(&request.method);
    to.push(KeyValue::new(names::HTTP_REQUEST_METHOD, method));
    let is_other = method != &*request.method;
    put(to, names::HTTP_REQUEST_METHOD_ORIGINAL, is_other.then(|| cut(&request.method, 64)));
    to.push(KeyValue::new(names::URL_PATH, shared(&request.path)));
    to.push(KeyValue::new(names::NETWORK_PROTOCOL_NAME, "http"));
    to.push(KeyValue::new(names::NETWORK_PROTOCOL_VERSION, request.http_version));
    put(to, names::HTTP_RESPONSE_STATUS_CODE, record.status.map(i64::from));
    error(record.error, to);
}

fn own(record: &Record, to: &mut Vec<KeyValue>) {
    to.push(KeyValue::new(names::REQUEST_ID, shared(&record.request_id)));
    put(to, names::ROUTE, record.route.clone());
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
        put(to, names::rpc_method(rpc.protocol), rpc.method.as_ref().map(ToString::to_string));
        put(to, names::GEN_AI_TOOL_NAME, rpc.tool.as_ref().map(ToString::to_string));
    }
    if let Some(stream) = &record.stream {
        to.push(number(names::STREAM_EVENTS, stream.events));
        put(to, names::STREAM_FIRST_EVENT, seconds(stream.first_event));
        put(to, names::STREAM_MAX_GAP, seconds(stream.max_gap));
    }
    if let Some(websocket) = &record.websocket {
        to.push(number(names::WEBSOCKET_MESSAGES_IN, websocket.messages_in));
        to.push(number(names::WEBSOCKET_MESSAGES_OUT, websocket.messages_out));
        put(to, names::WEBSOCKET_CLOSE_CODE, websocket.close_code.map(i64::from));
    }
}

/// What the request says of how it wants to be answered.
fn asked(llm: &LlmInfo, to: &mut Vec<KeyValue>) {
    let (request, details) = (&llm.request, &llm.request.details);
    put(to, names::GEN_AI_REQUEST_MODEL, request.model.as_deref().map(|model| cut(model, TEXT_MAX)));
    // By the conventions a request without it is none for a stream.
    put(to, names::GEN_AI_REQUEST_STREAM, llm.streams().then_some(true));
    put(to, names::GEN_AI_REQUEST_MAX_TOKENS, request.max_tokens.map(signed));
    put(to, names::GEN_AI_REQUEST_CHOICE_COUNT, (request.choices != 1).then_some(signed(request.choices)));
    put(to, names::GEN_AI_REQUEST_TEMPERATURE, request.temperature);
    put(to, names::GEN_AI_REQUEST_TOP_P, request.top_p);
    put(to, names::GEN_AI_REQUEST_FREQUENCY_PENALTY, details.frequency_penalty);
    put(to, names::GEN_AI_REQUEST_PRESENCE_PENALTY, details.presence_penalty);
    put(to, names::GEN_AI_REQUEST_SEED, details.seed);
    put(to, names::GEN_AI_REQUEST_TOP_K, details.top_k);
    put(to, names::GEN_AI_REQUEST_STOP_SEQUENCES, texts(&details.stop_sequences));
    put(to, names::GEN_AI_REQUEST_REASONING_LEVEL, details.reasoning_level.clone());
    put(to, names::GEN_AI_REQUEST_PREVIOUS_RESPONSE_ID, details.previous_response_id.clone());
    put(to, names::GEN_AI_CONVERSATION_ID, details.conversation_id.clone());
    put(to, names::GEN_AI_OUTPUT_TYPE, details.output_type);
}

fn answered(llm: &LlmInfo, to: &mut Vec<KeyValue>) {
    let reading = &llm.reading;
    put(to, names::GEN_AI_RESPONSE_ID, reading.response_id.as_deref().map(|id| cut(id, TEXT_MAX)));
    put(to, names::GEN_AI_RESPONSE_MODEL, reading.response_model.as_deref().map(|model| cut(model, TEXT_MAX)));
    let broke_off = reading.first_token.is_some() && !reading.normal_end;
    let reasons = texts(&reading.finish_reasons).or_else(|| texts(&[names::FINISH_REASON_ERROR]).filter(|_| broke_off));
    put(to, names::GEN_AI_RESPONSE_FINISH_REASONS, reasons);
    put(to, names::GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK, seconds(reading.first_token));
    put(to, names::TIME_TO_FIRST_TOKEN, seconds(reading.first_token));
    put(to, names::TIME_PER_OUTPUT_TOKEN, seconds(llm.time_per_output_token()));
    put(to, names::MAX_GAP, seconds(reading.max_gap));
    if let Some(server) = &reading.server {
        put(to, names::SERVER_QUEUE, seconds(server.queue));
        put(to, names::SERVER_LOAD, seconds(server.load));
        put(to, names::SERVER_PREFILL, seconds(server.prefill));
        put(to, names::SERVER_GENERATION, seconds(server.generation));
    }
    to.push(number(names::FRAMES, reading.frames));
    to.push(number(names::TOKEN_FRAMES, reading.token_frames));
    put(to, names::BUFFERED, reading.buffered.then_some(true));
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
        put(to, name, tokens.map(signed));
    }
    let cost = llm.bill.cost().map(|cost| cost.dollars());
    put(to, names::GEN_AI_USAGE_COST, cost);
    put(to, names::LLM_COST_TOTAL, cost);
    to.push(KeyValue::new(names::USAGE_SOURCE, llm.reading.usage_source.as_str()));
    put(to, names::ASKED_BY, llm.asked_by.as_ref().map(|by| shared(&by.request_id)));
}

fn seconds(time: Option<Duration>) -> Option<f64> {
    time.map(|time| time.as_secs_f64())
}

fn cut(text: &str, limit: usize) -> String {
    bounded(text, limit).0.to_owned()
}

/// `None` of no texts.
fn texts(texts: &[impl AsRef<str>]) -> Option<Value> {
    let each = texts.iter().map(|text| StringValue::from(cut(text.as_ref(), TEXT_MAX)));
    (!texts.is_empty()).then(|| Value::Array(Array::String(each.collect())))
}

/// A text that may be long; shared where it is not.
fn shared(text: &Arc<str>) -> StringValue {
    match bounded(text, 2_048) {
        (_, false) => Arc::clone(text).into(),
        (cut, true) => cut.to_owned().into(),
    }
}
