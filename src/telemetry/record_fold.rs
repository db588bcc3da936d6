//! The record of a request, as a fold over what happened to it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::event::{Attempted, Event};
use super::phases::Phases;
use super::record::{ClientInfo, ErrorType, Outcome, Record, RequestInfo, ServedBy, TraceIds};
use crate::llm::StreamReading;
use crate::llm::json_rpc::RpcProtocol;

impl Record {
    /// The record of a request whose head is complete. Until [`Event::Ended`] says otherwise, it ended in an internal error.
    pub fn begin(request: RequestInfo, config_generation: u64) -> Self {
        Self {
            request_id: Arc::from(""),
            trace: TraceIds { trace_id: 0, span_id: 0, parent: None, link: None, sampled: false },
            started: SystemTime::now(),
            duration: Duration::ZERO,
            client: ClientInfo::default(),
            request,
            route: None,
            served_by: None,
            config_generation,
            status: None,
            outcome: Outcome::InternalError,
            error: Some(ErrorType::Internal),
            attempts: Vec::new(),
            passed_on: None,
            phases: Phases::default(),
            bytes_in: 0,
            bytes_out: 0,
            llm: None,
            stream: None,
            rpc: None,
            websocket: None,
            prompt: None,
            limit: None,
            canary: None,
            cost_at_first: None,
            of_websocket: false,
        }
    }

    /// Keeps what `event` tells. Inlined, with one arm left of it: each stage tells an event that it names.
    #[inline(always)]
    pub fn apply(&mut self, event: Event<'_>) {
        match event {
            Event::Identified { request_id, trace, client } => {
                self.request_id = Arc::clone(request_id);
                (self.trace, self.client) = (trace, client);
            }
            Event::Authenticated(client) => self.client = client,
            Event::Received(bytes) => self.bytes_in += bytes,
            Event::Requested(facts) => self.rpc.clone_from(&facts.rpc),
            Event::PromptKept(prompt) => self.prompt = prompt,
            Event::Routed { route, target } => {
                self.route = Some(Arc::clone(route));
                self.served_by = target.map(served_by);
            }
            Event::Limited(info) => self.limit = Some(info),
            Event::PassedOn { upstream, variant, .. } => self.served_by = Some(served_by((upstream, variant))),
            Event::StatusSent(status) => self.status = Some(status),
            Event::Sent(bytes) => self.bytes_out += bytes,
            Event::Cut => self.limit.iter_mut().for_each(|limit| limit.cut = true),
            Event::Read(llm) => self.llm = Some(llm),
            Event::StreamRead(stream) => self.keep_stream(stream),
            Event::WebSocketClosed(info) => self.websocket = Some(info),
            Event::Ended(outcome, error) => (self.outcome, self.error) = (outcome, error),
            Event::Attempted(tried) => self.keep_attempts(tried),
            Event::HedgesBilled(cost, source) => {
                self.llm.iter_mut().for_each(|llm| llm.bill = llm.bill.plus(cost, source));
            }
            Event::Recognised(_) | Event::OtherStream(_) | Event::FirstToken(_) | Event::AnswerEnded(_) => {}
        }
    }

    /// Whether nobody has said how it ended.
    pub fn is_unended(&self) -> bool {
        (self.outcome, self.error) == (Outcome::InternalError, Some(ErrorType::Internal))
    }

    /// Its limits charge so many tokens.
    pub fn charge(&mut self, tokens: u64) {
        self.limit.iter_mut().for_each(|limit| limit.used = tokens);
    }

    fn keep_stream(&mut self, mut stream: Box<StreamReading>) {
        self.llm = None;
        if let Some(told) = stream.rpc.take() {
            let known = self.rpc.get_or_insert_with(|| told.clone());
            // The request has named its call; of a stream that asked for none the first message is the name.
            if known.method.is_none() {
                known.method = told.method;
                if known.protocol == RpcProtocol::JsonRpc {
                    known.protocol = told.protocol;
                }
            }
        }
        self.stream = Some(stream);
    }

    fn keep_attempts(&mut self, tried: Attempted) {
        if self.outcome == Outcome::Rejected && tried.attempts.is_empty() {
            // It would have gone there, and nobody there heard of it.
            self.served_by = None;
        }
        (self.attempts, self.passed_on) = (tried.attempts, tried.passed_on);
    }
}

fn served_by((upstream, variant): (&Arc<str>, &Arc<str>)) -> ServedBy {
    ServedBy { upstream: Arc::clone(upstream), variant: Arc::clone(variant) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::price::{Bill, Cost, PriceSource};
    use crate::telemetry::record::WebSocketInfo;
    use crate::telemetry::records_for_tests::{attempt, chat};

    fn folded(events: impl IntoIterator<Item = Event<'static>>) -> Record {
        let request = RequestInfo { method: "POST".into(), path: "/".into(), http_version: "1.1" };
        let mut record = Record::begin(request, 7);
        events.into_iter().for_each(|event| record.apply(event));
        record
    }

    fn tried(attempts: Vec<crate::telemetry::record::Attempt>) -> Event<'static> {
        Event::Attempted(Attempted { attempts, passed_on: None, sent: true, passed_over: None })
    }

    #[test]
    fn nobody_said_how_it_ended_until_somebody_does_and_the_last_word_counts() {
        let silent = folded([Event::Received(3), Event::Received(4), Event::Sent(5)]);
        assert!(silent.is_unended());
        assert_eq!((silent.config_generation, silent.bytes_in, silent.bytes_out), (7, 7, 5));
        let whole = Event::Ended(Outcome::Completed, None);
        let gone = Event::Ended(Outcome::ClientCancelled, Some(ErrorType::ClientGone));
        let told = folded([whole, gone, Event::WebSocketClosed(WebSocketInfo::default())]);
        assert!(!told.is_unended() && told.websocket.is_some());
        assert_eq!((told.outcome, told.error), (Outcome::ClientCancelled, Some(ErrorType::ClientGone)));
    }

    #[test]
    fn who_was_refused_before_anybody_was_asked_was_served_by_nobody() {
        let names: [&'static Arc<str>; 2] = ["up", "next"].map(|name| &*Box::leak(Box::new(Arc::from(name))));
        let [upstream, variant] = names;
        let routed = || Event::Routed { route: upstream, target: Some((upstream, variant)) };
        let rejected = || Event::Ended(Outcome::Rejected, Some(ErrorType::RateLimited));
        assert!(folded([routed(), rejected(), tried(Vec::new())]).served_by.is_none());
        let asked = folded([routed(), rejected(), tried(vec![attempt("up", 1)])]);
        assert_eq!((asked.upstream().map(|name| &**name), asked.attempts.len()), (Some("up"), 1));
        let elsewhere = Event::PassedOn { number: 1, upstream: variant, variant: upstream };
        assert_eq!(folded([routed(), elsewhere]).upstream().map(|name| &**name), Some("next"));
    }

    #[test]
    fn lost_hedges_are_on_the_bill() {
        let mut llm = chat("gpt-4o").llm.unwrap();
        llm.bill = Bill::Priced { cost: Cost(5), source: PriceSource::Config };
        let record = folded([Event::Read(llm), Event::HedgesBilled(Cost(2), PriceSource::Catalogue)]);
        assert_eq!(record.llm.unwrap().bill, Bill::Priced { cost: Cost(7), source: PriceSource::Config });
    }
}
