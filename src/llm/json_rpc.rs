//! JSON-RPC and the protocols over it: names their calls. Of these only A2A's messages to an agent are an LLM's.

use serde::Deserialize;

use super::json::{Filled, Maybe, Word, read_object};
use super::reading::{TEXT_LIMIT, cut};
use super::sse::Event;
use crate::words::worded;

worded! {
    /// Which protocol a call or a message is of.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum RpcProtocol {
        /// The Model Context Protocol, over Streamable HTTP or SSE.
        Mcp = "mcp",
        /// Agent2Agent.
        A2a = "a2a",
        /// Any other.
        JsonRpc = "jsonrpc",
    }
}

/// What is known of a call. Texts are bounded to 256 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rpc {
    pub protocol: RpcProtocol,
    /// `None`: a stream or a session's end, which has none, or answers alone.
    pub method: Option<Box<str>>,
    /// The tool that MCP's `tools/call` names.
    pub tool: Option<Box<str>>,
}

impl Rpc {
    /// A call of `method`.
    pub(super) fn call(method: &str, name: Option<&str>) -> Self {
        let bounded = |text: &str| Box::from(cut(text, TEXT_LIMIT));
        Self {
            protocol: protocol(method),
            method: Some(bounded(method)),
            tool: name.filter(|_| method == "tools/call").map(bounded),
        }
    }

    /// Of a protocol that headers or the first event tell.
    pub fn of(protocol: RpcProtocol) -> Self {
        Self { protocol, method: None, tool: None }
    }

    /// Whether the call sends an agent a message and streams its answer: `Some(false)` where that comes in one piece. `None`:
    /// it does not.
    pub(super) fn asks_agent(&self) -> Option<bool> {
        match self.method.as_deref()? {
            "message/stream" | "SendStreamingMessage" | "tasks/sendSubscribe" => Some(true),
            "message/send" | "SendMessage" | "tasks/send" => Some(false),
            _ => None,
        }
    }
}

fn protocol(method: &str) -> RpcProtocol {
    const MCP: [&str; 9] =
        ["tools", "resources", "prompts", "notifications", "logging", "completion", "roots", "sampling", "elicitation"];
    match method.split_once('/') {
        Some((space, _)) if MCP.contains(&space) => RpcProtocol::Mcp,
        Some(("message" | "tasks", _) | ("agent", "getAuthenticatedExtendedCard")) => RpcProtocol::A2a,
        Some(_) => RpcProtocol::JsonRpc,
        None => match method {
            "initialize" => RpcProtocol::Mcp,
            "SendMessage"
            | "SendStreamingMessage"
            | "GetTask"
            | "ListTasks"
            | "CancelTask"
            | "SubscribeToTask"
            | "GetExtendedAgentCard" => RpcProtocol::A2a,
            push if push.contains("TaskPushNotificationConfig") => RpcProtocol::A2a,
            _ => RpcProtocol::JsonRpc,
        },
    }
}

/// What one message of a stream is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// What an agent sends of its work: A2A.
    OfAgent,
    Rpc(Rpc),
}

/// Reads an event as a message. `None`: it is none.
pub(super) fn message(event: Event<'_>) -> Option<Message> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Wire<'a> {
        #[serde(borrow)]
        jsonrpc: Word<'a>,
        method: Word<'a>,
        result: Maybe<Result<'a>>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Result<'a> {
        #[serde(borrow)]
        kind: Word<'a>,
        status_update: Filled,
        artifact_update: Filled,
        task: Filled,
        message: Filled,
    }
    // The first event of MCP's older transport tells where to post to.
    if event.name == b"endpoint" && !event.data.is_empty() {
        return Some(Message::Rpc(Rpc::of(RpcProtocol::Mcp)));
    }
    let wire = read_object::<Wire<'_>>(event.data)?;
    wire.jsonrpc.filled()?;
    let of_agent = wire.result.0.is_some_and(|result| {
        let kind = matches!(result.kind.filled(), Some("task" | "message" | "status-update" | "artifact-update"));
        kind || result.status_update.0 || result.artifact_update.0 || result.task.0 || result.message.0
    });
    Some(match wire.method.filled() {
        _ if of_agent => Message::OfAgent,
        Some(method) => Message::Rpc(Rpc::call(method, None)),
        None => Message::Rpc(Rpc::of(RpcProtocol::JsonRpc)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_named_by_its_protocol() {
        for (method, protocol) in [
            ("tools/call", RpcProtocol::Mcp),
            ("initialize", RpcProtocol::Mcp),
            ("notifications/tools/list_changed", RpcProtocol::Mcp),
            ("message/stream", RpcProtocol::A2a),
            ("tasks/get", RpcProtocol::A2a),
            ("GetTask", RpcProtocol::A2a),
            ("eth_call", RpcProtocol::JsonRpc),
            ("textDocument/hover", RpcProtocol::JsonRpc),
        ] {
            assert_eq!(Rpc::call(method, None).protocol, protocol, "{method}");
        }
        let call = Rpc::call("tools/call", Some(&"x".repeat(1_000)));
        assert_eq!(call.tool.as_ref().map(|tool| tool.len()), Some(256));
        assert_eq!(Rpc::call("prompts/get", Some("p")).tool, None);
    }

    #[test]
    fn a_message_shows_what_it_is() {
        let of = |data: &'static str| message(Event::of(data.as_bytes()));
        let named = |method| Some(Message::Rpc(Rpc::call(method, None)));
        let note = "notifications/message";
        assert_eq!(of(r#"{"jsonrpc":"2.0","method":"notifications/message"}"#), named(note));
        let answer = Some(Message::Rpc(Rpc::of(RpcProtocol::JsonRpc)));
        assert_eq!(of(r#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#), answer);
        for data in [
            r#"{"jsonrpc":"2.0","id":1,"result":{"kind":"status-update","taskId":"t"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{"artifactUpdate":{"artifact":{}}}}"#,
        ] {
            assert_eq!(of(data), Some(Message::OfAgent), "{data}");
        }
        for data in ["hello", "{}", r#"{"method":"x"}"#, r#"{"jsonrpc":2,"method":"x"}"#] {
            assert_eq!(of(data), None, "{data}");
        }
        let endpoint = Event { name: b"endpoint", ..Event::of(b"/messages?session=1") };
        assert_eq!(message(endpoint), Some(Message::Rpc(Rpc::of(RpcProtocol::Mcp))));
    }
}
