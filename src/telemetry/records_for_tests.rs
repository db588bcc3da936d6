//! Records for tests.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use super::record::{
    Attempt, Cause, ClientInfo, LlmInfo, Outcome, Phase, Phases, Record, RequestInfo, ServedBy, ServerAddress,
    TraceIds, WebSocketInfo,
};
use crate::llm::price::{Bill, Cost, PriceSource};
use crate::llm::token_gaps::Gaps;
use crate::llm::{Background, Basis, Dialect, Framing, Reading, RequestFacts, Usage, UsageSource};

pub(crate) fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

/// A request that was passed on and answered, and had nothing to do with an LLM.
pub(crate) fn plain() -> Record {
    let mut phases = Phases::default();
    phases.add(Phase::Admit, ms(1));
    phases.add(Phase::Connect, ms(4));
    phases.add(Phase::UpstreamWait, ms(10));
    phases.add(Phase::Proxy, ms(2));
    Record {
        request_id: "req-1".into(),
        trace: TraceIds { trace_id: 0xabc, span_id: 0x1, parent: None, link: None, sampled: true },
        started: UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
        duration: phases.total(),
        client: ClientInfo { address: Some("192.0.2.7:4711".parse().unwrap()), ..ClientInfo::default() },
        request: RequestInfo { method: "GET".into(), path: "/docs".into(), http_version: "1.1" },
        route: Some("all".into()),
        served_by: Some(ServedBy { upstream: "fastapi".into(), variant: "fastapi".into() }),
        config_generation: 3,
        status: Some(200),
        outcome: Outcome::Completed,
        error: None,
        attempts: vec![attempt("fastapi", 0xa1)],
        passed_on: Some(0),
        phases,
        bytes_in: 0,
        bytes_out: 512,
        llm: None,
        websocket: None,
        prompt: None,
        stream: None,
        rpc: None,
        limit: None,
        canary: None,
        cost_at_first: None,
        of_websocket: false,
    }
}

pub(crate) fn attempt(upstream: &str, span_id: u64) -> Attempt {
    Attempt {
        upstream: upstream.into(),
        place: ServerAddress {
            endpoint: "127.0.0.1:8000".into(),
            address: "127.0.0.1".into(),
            port: Some(8000),
            peer: None,
        },
        span_id,
        started: ms(1),
        ended: ms(15),
        reused_connection: true,
        status: Some(200),
        error: None,
        cause: Cause::First,
    }
}

/// A streamed chat that went well.
pub(crate) fn chat(model: &str) -> Record {
    let request = RequestFacts {
        dialect: Some(Dialect::OpenAiChat),
        operation: Some("chat"),
        model: Some(model.to_owned()),
        stream: Some(true),
        max_tokens: Some(256),
        temperature: Some(0.7),
        top_p: Some(0.9),
        ..RequestFacts::default()
    };
    let mut gaps = Gaps::default();
    (0..7).for_each(|_| gaps.note(ms(10)));
    gaps.note(ms(5));
    gaps.note(ms(25));
    let reading = Reading {
        first_byte: Some(ms(20)),
        first_token: Some(ms(30)),
        first_answer: Some(ms(40)),
        last_token: Some(ms(130)),
        max_gap: Some(ms(25)),
        gaps,
        buffered: false,
        slow_gaps: Box::default(),
        slow_gap_count: 0,
        frames: 13,
        token_frames: 11,
        bytes: 2_048,
        usage: Usage {
            input: Some(100),
            cached_input: Some(40),
            cache_write: Some(7),
            output: Some(11),
            reasoning: Some(2),
            ..Usage::default()
        },
        calls: None,
        usage_source: UsageSource::Reported,
        server: None,
        finish_reasons: vec!["stop".to_owned()],
        response_id: Some("chatcmpl-1".into()),
        response_model: Some("gpt-4o-2024-08-06".into()),
        error: None,
        output: None,
        framing: Some(Framing::Sse),
        basis: Basis::Dialect,
        hint: None,
        normal_end: true,
        background: Background::No,
    };
    let mut record = plain();
    record.request = RequestInfo { method: "POST".into(), path: "/v1/chat/completions".into(), http_version: "1.1" };
    record.route = Some("chat".into());
    record.phases.add(Phase::Generation, ms(120));
    record.duration = record.phases.total();
    record.bytes_in = 300;
    record.bytes_out = 2_048;
    record.client.user = Some("alice".into());
    record.client.team = Some("search".into());
    record.llm = Some(LlmInfo {
        dialect: Dialect::OpenAiChat,
        request: Arc::new(request),
        reading,
        bill: Bill::Priced { cost: Cost(360_500), source: PriceSource::Config },
        provider: None,
        span_id: 0x2,
        asked_by: None,
    });
    record
}

/// A WebSocket that was closed in order.
pub(crate) fn websocket() -> Record {
    let mut record = plain();
    record.status = Some(101);
    record.request.path = "/ws".into();
    record.websocket = Some(WebSocketInfo {
        messages_in: 3,
        messages_out: 5,
        first_message: Some(ms(12)),
        close_code: Some(1000),
        ..WebSocketInfo::default()
    });
    record
}
