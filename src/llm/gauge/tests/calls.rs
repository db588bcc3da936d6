//! Answers that are made of several calls of models: each call's usage counts once, and all add up.

use super::*;

/// The sum that an answer of these events' data tells: input and output.
fn usage_of(dialect: &str, events: &[&str]) -> (Option<u64>, Option<u64>) {
    let events: Vec<String> = events.iter().map(|event| format!("{event}\n\n")).collect();
    let parts: Vec<&str> = events.iter().map(String::as_str).collect();
    let reading = read(gauge(Dialect::named(dialect).unwrap(), Framing::Sse), &parts);
    assert_eq!(reading.usage_source, UsageSource::Reported, "{dialect}");
    (reading.usage.input, reading.usage.output)
}

fn message(id: &str, kind: &str, tokens: u64) -> String {
    format!(
        r#"{{"content":"a","type":"{kind}","id":"{id}","usage_metadata":{{"input_tokens":{tokens},"output_tokens":{tokens}}}}}"#
    )
}

#[test]
fn langgraphs_messages_count_once_whatever_the_modes() {
    let [one, two] = ["run-1", "run-2"].map(|id| message(id, "ai", 40));
    let chunk = |id, tokens| format!("event: messages\ndata: [{},{{}}]", message(id, "AIMessageChunk", tokens));
    let partial = |message: &str| format!("event: messages/partial\ndata: [{message}]");
    let update = |message: &str| format!("event: updates\ndata: {{\"ask\":{{\"messages\":[{message}]}}}}");
    let human = r#"{"content":"q","type":"human","id":"h"}"#;
    let values = |messages: &[&str]| format!("event: values\ndata: {{\"messages\":[{}]}}", messages.join(","));
    for events in [
        vec![chunk("run-1", 40), chunk("run-2", 40)],
        vec![partial(&one), partial(&one), partial(&two)],
        vec![update(&one), update(&two)],
        vec![values(&[human]), values(&[human, &one]), values(&[human, &one, &two])],
        // A turn of before, which the first state repeats.
        vec![
            values(&[&message("old", "ai", 900), human]),
            values(&[&message("old", "ai", 900), human, &one]),
            update(&two),
        ],
        // As Gemini's usage comes through LangChain: in pieces that add up; then the whole message.
        vec![
            chunk("run-1", 30),
            chunk("run-1", 10),
            update(&one),
            values(&[human, &one]),
            chunk("run-2", 25),
            chunk("run-2", 15),
        ],
    ] {
        let events: Vec<&str> = events.iter().map(String::as_str).collect();
        assert_eq!(usage_of("langgraph", &events), (Some(80), Some(80)), "{events:?}");
    }
}

#[test]
fn an_apps_own_langgraph_adds_up_too() {
    let [one, two] = ["run-1", "run-2"].map(|id| message(id, "ai", 40));
    let chunk = |id| format!("data: [{},{{\"langgraph_node\":\"ask\"}}]", message(id, "AIMessageChunk", 40));
    let mode = |mode, data: String| format!("data: [\"{mode}\",{data}]");
    let update = |message: &str| format!("{{\"ask\":{{\"messages\":[{message}]}}}}");
    let dumped = |id| format!("{{\"lc\":1,\"type\":\"constructor\",\"kwargs\":{}}}", message(id, "ai", 40));
    let human = r#"{"content":"q","type":"human","id":"h"}"#;
    let values = |messages: &str| format!("data: {{\"messages\":[{messages}]}}");
    for events in [
        vec![chunk("run-1"), chunk("run-2")],
        vec![
            mode("updates", update(&one)),
            mode("updates", update(&two)),
            mode("values", format!("{{\"messages\":[{human}]}}")),
        ],
        vec![format!("data: {}", update(&one)), format!("data: {}", update(&two))],
        vec![mode("updates", update(&dumped("run-1"))), mode("updates", update(&dumped("run-2")))],
        vec![values(human), values(&format!("{human},{one}")), values(&format!("{human},{one},{two}"))],
    ] {
        let events: Vec<&str> = events.iter().map(String::as_str).collect();
        assert_eq!(usage_of("langgraph-app", &events), (Some(80), Some(80)), "{events:?}");
    }
}

#[test]
fn events_of_runnables_add_up() {
    let streamed = |id, tokens| {
        let chunk = message(id, "AIMessageChunk", tokens);
        format!(r#"data: {{"event":"on_chat_model_stream","run_id":"r","data":{{"chunk":{chunk}}}}}"#)
    };
    let ended = |id, tokens| {
        let output = message(id, "AIMessageChunk", tokens);
        format!(r#"data: {{"event":"on_chat_model_end","run_id":"r","data":{{"output":{output}}}}}"#)
    };
    let chain =
        format!(r#"data: {{"event":"on_chain_end","run_id":"r","data":{{"output":{}}}}}"#, message("run-2", "ai", 40));
    let events = [streamed("run-1", 30), streamed("run-1", 10), ended("run-1", 40), ended("run-2", 40), chain];
    let events = events.each_ref().map(String::as_str);
    assert_eq!(usage_of("langchain-events", &events), (Some(80), Some(80)));

    let op = |path, value: &str| {
        format!("event: data\ndata: {{\"ops\":[{{\"op\":\"add\",\"path\":\"{path}\",\"value\":{value}}}]}}")
    };
    let (one, two) = (message("run-1", "AIMessageChunk", 40), message("run-2", "AIMessageChunk", 40));
    let last = format!("{{\"generations\":[[{{\"message\":{two}}}]]}}");
    let events = [
        op("/logs/Fake/streamed_output/-", &one),
        op("/logs/RunnableSequence/streamed_output/-", &one),
        op("/logs/Fake:2/streamed_output/-", &two),
        op("/logs/Fake:2/final_output", &last),
    ];
    assert_eq!(usage_of("langserve-log-stream", &events.each_ref().map(String::as_str)), (Some(80), Some(80)));
}

#[test]
fn calls_without_ids_end_by_an_event() {
    let responses = |kind, usage| {
        format!(
            r#"data: {{"type":"raw_response_event","data":{{"type":"response.{kind}","response":{{"id":"__fake_id__","usage":{usage}}}}}}}"#
        )
    };
    let counts = r#"{"input_tokens":40,"output_tokens":40}"#;
    let events = ["created", "completed", "created", "completed"]
        .map(|kind| responses(kind, if kind == "created" { "null" } else { counts }));
    assert_eq!(usage_of("openai-agents", &events.each_ref().map(String::as_str)), (Some(80), Some(80)));

    let adk = |author, partial, tokens: u64| {
        let usage = format!(r#"{{"promptTokenCount":{tokens},"candidatesTokenCount":{tokens}}}"#);
        format!(
            r#"data: {{"content":{{"parts":[{{"text":"a"}}]}},"partial":{partial},"usageMetadata":{usage},"invocationId":"e","author":"{author}"}}"#
        )
    };
    // Two agents side by side, of which one calls its model twice.
    let events = [
        adk("a", true, 5),
        adk("b", true, 6),
        adk("a", true, 9),
        adk("a", false, 20),
        adk("b", false, 30),
        r#"data: {"content":{"parts":[{"functionResponse":{"name":"f"}}]},"invocationId":"e","author":"a"}"#.to_owned(),
        adk("a", true, 7),
        adk("a", false, 30),
    ];
    assert_eq!(usage_of("google-adk", &events.each_ref().map(String::as_str)), (Some(80), Some(80)));

    let haystack = |more: &str| {
        format!("data: {{\"component_info\":{{\"name\":\"llm\",\"type\":\"Chat\"}},\"content\":\"a\"{more}}}")
    };
    let usage = r#","meta":{"model":"m","usage":{"prompt_tokens":40,"completion_tokens":40}}"#;
    let result = r#","tool_call_result":{"result":"2 m"}"#;
    let events = [haystack(""), haystack(usage), haystack(result), haystack(""), haystack(usage)];
    assert_eq!(usage_of("haystack", &events.each_ref().map(String::as_str)), (Some(80), Some(80)));
}

#[test]
fn runs_of_agents_add_up_and_tell_their_total_at_their_end() {
    let call = |run, tokens: u64| {
        format!(
            r#"data: {{"event":"ModelRequestCompleted","run_id":"{run}","input_tokens":{tokens},"output_tokens":{tokens}}}"#
        )
    };
    let done = |event, run, tokens: u64| {
        format!(
            r#"data: {{"event":"{event}","run_id":"{run}","metrics":{{"input_tokens":{tokens},"output_tokens":{tokens}}}}}"#
        )
    };
    let whole = [call("m", 10), call("m", 20), done("RunCompleted", "m", 30), done("TeamRunCompleted", "t", 50)];
    let broken = [call("m", 10), call("m", 20), done("RunCompleted", "m", 30), call("t", 50)];
    for events in [whole, broken] {
        assert_eq!(usage_of("agno", &events.each_ref().map(String::as_str)), (Some(80), Some(80)), "{events:?}");
    }
    let run = |id| {
        format!(
            r#"data: {{"type":"RUN_FINISHED","threadId":"t","runId":"{id}","usage":[{{"inputTokens":40,"outputTokens":40}}]}}"#
        )
    };
    assert_eq!(usage_of("ag-ui", &[&run("1"), &run("2"), &run("2")]), (Some(80), Some(80)));
}

#[test]
fn rules_of_ones_own_tell_calls_apart() {
    let stream = [
        r#"data: {"chunk":{"id":"c","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}}"#,
        r#"data: {"done":true}"#,
        r#"data: {"chunk":{"id":"c","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":4}}}"#,
    ];
    let parts: Vec<String> = stream.iter().map(|event| format!("{event}\n\n")).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let inside = "inside = { '/chunk' = { at = '/chunk', as = 'openai-chat' } }";
    for (calls, expected) in
        [("", (5, 4)), ("calls = '/chunk/id'", (5, 4)), ("calls = { end = ['/done=true'] }", (8, 6))]
    {
        let rules = StreamRules::read(&format!("{inside}\n{calls}")).unwrap();
        let reading = read(gauge_with(Dialect::PlainSse, Framing::Sse, rules), &parts);
        assert_eq!((reading.usage.input, reading.usage.output), (Some(expected.0), Some(expected.1)), "{calls}");
    }
    for wrong in ["calls = 'id '", "calls = {}", "calls = { pieces = ['x'] }", "calls = { ends = ['x'] }", "calls = 5"]
    {
        assert!(StreamRules::read(wrong).is_err(), "{wrong}");
    }
}
