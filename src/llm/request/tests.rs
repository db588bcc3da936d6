//! Requests of every dialect.

use super::*;

fn read(path: &str, body: &str) -> RequestFacts {
    RequestFacts::read(path, Some(body.as_bytes()))
}

#[test]
fn openai_chat_is_read_whole() {
    let body = r#"{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}],"stream":true,
        "max_tokens":7,"max_completion_tokens":100,"temperature":0.5,"top_p":1}"#;
    let expected = RequestFacts {
        rpc: None,
        dialect: Some(Dialect::OpenAiChat),
        operation: Some("chat"),
        model: Some("gpt-4o".into()),
        stream: Some(true),
        max_tokens: Some(100),
        temperature: Some(0.5),
        top_p: Some(1.0),
        details: Details::default(),
        choices: 1,
        answers: 1,
        bad_count: false,
        odd_model: false,
        resumes: false,
        unseen: None,
        repeated: None,
    };
    assert_eq!(read("/v1/chat/completions", body), expected);
}

#[test]
fn paths_and_bodies_tell_the_dialect() {
    use Dialect::*;
    let chat = r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;
    let ui = r#"{"id":"c1","messages":[{"role":"user","parts":[]}],"trigger":"submit-message"}"#;
    let vectors = [
        ("/v1/chat/completions", "", Some((OpenAiChat, "chat"))),
        ("/openai/deployments/x/chat/completions?api-version=1", chat, Some((OpenAiChat, "chat"))),
        ("/v1/completions", r#"{"model":"m","prompt":"p"}"#, Some((OpenAiChat, "text_completion"))),
        ("/v1/embeddings", r#"{"model":"m","input":["a"]}"#, Some((OpenAiChat, "embeddings"))),
        ("/v1/messages", chat, Some((Anthropic, "chat"))),
        ("/v1/messages", "", Some((Anthropic, "chat"))),
        ("/anthropic/messages", chat, Some((Anthropic, "chat"))),
        ("/threads/7/messages", r#"{"text":"hello"}"#, None),
        ("/threads/7/messages", "", None),
        ("/v1/messages/count_tokens", r#"{"model":"m"}"#, Some((Anthropic, "count_tokens"))),
        ("/v1/responses/input_tokens", r#"{"model":"m","input":"x"}"#, Some((OpenAiResponses, "count_tokens"))),
        ("/tokenize", r#"{"model":"m","prompt":"x"}"#, Some((PlainSse, "count_tokens"))),
        ("/tokenize", r#"{"content":"x"}"#, None),
        ("/v1/responses/compact", "", Some((OpenAiResponses, "compaction"))),
        ("/codex/responses/compact", r#"{"model":"m","input":[]}"#, Some((OpenAiResponses, "compaction"))),
        ("/v1/images/generations", r#"{"model":"m","prompt":"x"}"#, Some((OpenAiResponses, "image_generation"))),
        ("/openai/deployments/d/images/edits?api-version=1", "", Some((OpenAiResponses, "image_edit"))),
        ("/images/edits", "", None),
        ("/v1/audio/speech", r#"{"model":"m","input":"x"}"#, Some((OpenAiResponses, "speech"))),
        ("/v1/audio/transcriptions", "", Some((OpenAiResponses, "transcription"))),
        ("/v1/audio/translations", "", Some((OpenAiResponses, "translation"))),
        ("/v1/moderations", r#"{"input":"x"}"#, Some((OpenAiChat, "moderation"))),
        ("/v2/rerank", r#"{"model":"m","query":"q","documents":["d"]}"#, Some((PlainSse, "rerank"))),
        ("/v1/embed", r#"{"model":"m","images":["x"]}"#, Some((PlainSse, "embeddings"))),
        ("/embed", r#"{"a":1}"#, None),
        ("/api/own", r#"{"model":"m","images":["x"],"embedding_types":["float"]}"#, Some((PlainSse, "embeddings"))),
        ("/api/own", r#"{"images":["x"],"embedding_types":["float"]}"#, None),
        ("/model/a.b-v1%3A0/converse", r#"{"messages":[]}"#, Some((PlainSse, "chat"))),
        ("/model/a.b-v1:0/count-tokens", "{}", Some((PlainSse, "count_tokens"))),
        ("/model/a.b-v1:0/edit", "{}", None),
        ("/v1/responses", "", Some((OpenAiResponses, "chat"))),
        ("/openai/responses", r#"{"model":"m","input":"a"}"#, Some((OpenAiResponses, "chat"))),
        ("/survey/responses", r#"{"input":"a"}"#, None),
        ("/v1beta/models/gemini-2.5-flash:generateContent", "", Some((Gemini, "generate_content"))),
        ("/v1beta/models/e:embedContent", "", Some((Gemini, "embeddings"))),
        ("/v1beta/models/gemini-2.5-flash:countTokens", "", Some((Gemini, "count_tokens"))),
        ("/api/chat", chat, Some((Ollama, "chat"))),
        ("/api/chat", ui, Some((PlainSse, "chat"))),
        ("/api/generate", r#"{"model":"m","prompt":"p"}"#, Some((Ollama, "text_completion"))),
        ("/api/embed", r#"{"model":"m","input":"p"}"#, Some((Ollama, "embeddings"))),
        ("/ask", r#"{"prompt":"p"}"#, Some((PlainSse, "text_completion"))),
        ("/ask", chat, Some((PlainSse, "chat"))),
        ("/ask", r#"{"model":"m","input":"p"}"#, Some((PlainSse, "chat"))),
        ("/cars", r#"{"model":"T","colour":"black"}"#, None),
        ("/docs", "", None),
    ];
    for (path, body, expected) in vectors {
        let facts = RequestFacts::read(path, (!body.is_empty()).then_some(body.as_bytes()));
        assert_eq!(facts.dialect.zip(facts.operation), expected, "{path} {body}");
        let runs_a_model = expected.is_some_and(|(_, operation)| operation != "count_tokens");
        assert_eq!(facts.is_llm(), runs_a_model, "{path} {body}");
    }
}

#[test]
fn ollama_options_count() {
    let facts = read("/api/chat", r#"{"model":"m","options":{"num_predict":5,"temperature":0.1,"top_p":0.9}}"#);
    assert_eq!((facts.max_tokens, facts.temperature, facts.top_p), (Some(5), Some(0.1), Some(0.9)));
    assert_eq!(read("/api/chat", r#"{"model":"m","options":{"num_predict":-1}}"#).max_tokens, None);
}

#[test]
fn geminis_path_tells_model_and_streaming() {
    let vectors = [
        ("/v1beta/models/g:streamGenerateContent?key=k&alt=sse", Some(true), false),
        ("/v1beta/models/g:streamGenerateContent", None, false),
        ("/v1/projects/p/locations/l/publishers/google/models/g:generateContent", Some(false), true),
    ];
    let body = r#"{"contents":[],"generationConfig":{"maxOutputTokens":9,"topP":0.9,"candidateCount":2}}"#;
    for (path, stream, whole) in vectors {
        let facts = read(path, body);
        assert_eq!((facts.model.as_deref(), facts.stream, facts.answers_whole()), (Some("g"), stream, whole), "{path}");
        assert_eq!((facts.max_tokens, facts.top_p, facts.choices), (Some(9), Some(0.9), 2));
    }
}

#[test]
fn what_writes_no_text_answers_in_one_piece() {
    let vectors = [
        ("/v1/rerank", r#"{"model":"m","query":"q"}"#, true, false),
        ("/v1/audio/speech", r#"{"model":"m","input":"x"}"#, true, false),
        ("/v1/images/generations", r#"{"model":"m","prompt":"x","stream":true}"#, false, false),
        ("/v1/embeddings", r#"{"model":"m","input":"x"}"#, true, true),
        ("/v1/responses/compact", r#"{"model":"m","input":"x"}"#, true, true),
        ("/model/m/converse", "{}", true, true),
        ("/model/m/converse-stream", "{}", false, true),
        ("/v1/messages/count_tokens", r#"{"model":"m"}"#, false, false),
    ];
    for (path, body, whole, countable) in vectors {
        let facts = read(path, body);
        assert_eq!((facts.answers_whole(), facts.has_countable_prompt()), (whole, countable), "{path}");
        assert_eq!(facts.model.as_deref(), Some("m"), "{path}");
    }
}

#[test]
fn answers_and_tokens_asked_for_are_checked() {
    let vectors = [
        ("{}", 1, None, false),
        (r#"{"n":3,"max_tokens":0}"#, 3, Some(0), false),
        (r#"{"n":0,"max_tokens":null}"#, 1, None, false),
        (r#"{"n":-2,"max_tokens":10000000}"#, 1, Some(10_000_000), true),
        (r#"{"n":"3"}"#, 3, None, false),
        (r#"{"n":null,"best_of":" 2 "}"#, 1, None, false),
        (r#"{"n":[100]}"#, 1, None, true),
        (r#"{"n":"0x64"}"#, 1, None, true),
        (r#"{"n":1.5}"#, 1, None, true),
        (r#"{"best_of":{}}"#, 1, None, true),
        (r#"{"generationConfig":{"candidateCount":"many"}}"#, 1, None, true),
        (r#"{"max_tokens":10000001}"#, 1, Some(10_000_001), true),
        (r#"{"max_output_tokens":-1}"#, 1, None, true),
        (r#"{"max_completion_tokens":1.5}"#, 1, Some(1), true),
        (r#"{"max_completion_tokens":[7]}"#, 1, None, true),
        (r#"{"options":{"num_predict":-1}}"#, 1, None, false),
        (r#"{"generationConfig":{"maxOutputTokens":-1}}"#, 1, None, true),
    ];
    for (body, choices, max_tokens, is_bad) in vectors {
        let facts = read("/v1/chat/completions", body);
        assert_eq!((facts.choices, facts.max_tokens, facts.bad_count), (choices, max_tokens, is_bad), "{body}");
    }
}

#[test]
fn however_a_path_is_spelled_it_tells_the_same() {
    use Dialect::*;
    for (path, expected) in [
        ("/v1beta/models/g:generate%43ontent", Gemini),
        ("/v1beta/models/g%3AgenerateContent", Gemini),
        ("/v1beta/models/g:generateContent/", Gemini),
        ("/v1beta/models/g:generateContent;x", Gemini),
        ("/v1beta/models/%67:GENERATECONTENT?key=k", Gemini),
        ("/v1beta/models%2fg:generateContent", Gemini),
        ("/v1/chat/completion%73", OpenAiChat),
        ("/v1//chat/completions/;a=b/", OpenAiChat),
        ("/V1/Chat/Completions", OpenAiChat),
        ("/v1/messages;jsessionid=1", Anthropic),
    ] {
        let facts = RequestFacts::read(path, None);
        assert_eq!(facts.dialect, Some(expected), "{path}");
        assert_eq!(facts.model.as_deref(), (expected == Gemini).then_some("g"), "{path}");
    }
    assert!(read("/app", r#"{"contents":[{"parts":[]}]}"#).is_llm(), "the shape of a body counts beside its path");
}

#[test]
fn the_largest_bound_counts_times_what_multiplies() {
    for (body, max_tokens, answers) in [
        (r#"{"max_tokens":9000,"max_completion_tokens":1}"#, Some(9_000), 1),
        (r#"{"max_tokens":1,"options":{"num_predict":9000}}"#, Some(9_000), 1),
        (r#"{"max_tokens":9000,"options":{"num_predict":1}}"#, Some(9_000), 1),
        (r#"{"generationConfig":{"maxOutputTokens":9000},"max_tokens":1}"#, Some(9_000), 1),
        (r#"{"generationConfig":{"maxOutputTokens":9,"max_output_tokens":9000}}"#, Some(9_000), 1),
        (r#"{"parameters":{"max_new_tokens":7,"best_of":3}}"#, Some(7), 3),
        (r#"{"inferenceConfig":{"maxTokens":7}}"#, Some(7), 1),
        (r#"{"max_tokens":5,"MAX_TOKENS":9000}"#, Some(9_000), 1),
        (r#"{"n":"5"}"#, None, 5),
        (r#"{"n":5.0}"#, None, 5),
        (r#"{"n":2,"best_of":7}"#, None, 7),
        (r#"{"n":"many"}"#, None, 1),
        (r#"{"n":2,"prompt":["a","b","c"]}"#, None, 6),
        (r#"{"prompt":[1,2,3]}"#, None, 1),
        (r#"{"prompt":[[1,2],[3]]}"#, None, 2),
        (r#"{"prompt":[]}"#, None, 1),
        (r#"{"n":1e300,"prompt":["a","b"]}"#, None, u64::MAX),
    ] {
        let facts = read("/v1/completions", body);
        assert_eq!((facts.max_tokens, facts.answers), (max_tokens, answers), "{body}");
    }
}

#[test]
fn a_key_in_another_case_is_the_same_key() {
    let facts = read("/x", r#"{"Model":"m","MESSAGES":[],"\u017ftream":true}"#);
    assert_eq!((facts.model.as_deref(), facts.stream, facts.repeated), (Some("m"), Some(true), None));
    for (body, repeated) in [
        (r#"{"model":"a","Model":"b"}"#, Some("model")),
        (r#"{"model":"a","mod\u0065l":"b"}"#, Some("model")),
        (r#"{"stream":true,"\u017ftream":false}"#, Some("stream")),
        (r#"{"stream_options":{},"Stream_Options":{}}"#, Some("stream_options")),
        (r#"{"other":1,"Other":2,"model":"a"}"#, None),
        (r#"{"max_tokens":1,"max_completion_tokens":1}"#, None),
    ] {
        assert_eq!(read("/x", body).repeated, repeated, "{body}");
    }
}

#[test]
fn what_forgiving_readers_read_is_read() {
    for body in [
        &b"{\"model\":\"m\",\"temperature\":NaN,\"messages\":[]}"[..],
        b"{\"model\":\"m\",\"messages\":[{\"content\":\"\\ud800\"}]}",
        b"{\"model\":\"m\",\"messages\":[{\"content\":\"\xff\"}]}",
        b"{\"model\":\"m\",\"messages\":[]}\n{\"next\":1}",
    ] {
        let facts = RequestFacts::read_json("/x", body).unwrap();
        assert!(facts.is_llm() && facts.model.as_deref() == Some("m"), "{}", String::from_utf8_lossy(body));
    }
    for body in ["{\"model\":\"m\"", "{model:1}", "{'model':1}", "{}{", "", "{\"a\":1}x"] {
        assert_eq!(RequestFacts::read_json("/x", body.as_bytes()), None, "{body}");
    }
}

#[test]
fn a_form_is_a_request() {
    use super::form::FormKind;
    let form = |body: &[u8]| {
        RequestFacts::read_form("/v1/audio/transcriptions", &FormKind::UrlEncoded.read(body).unwrap()).unwrap()
    };
    let facts = form(b"model=whisper&stream=true&n=2&prompt=x&temperature=0.5");
    assert_eq!((facts.model.as_deref(), facts.stream, facts.answers), (Some("whisper"), Some(true), 2));
    assert!(facts.is_llm() && facts.temperature == Some(0.5) && facts.repeated.is_none());
    assert_eq!(form(b"model=a&model=b").repeated, Some("model"));
    assert!(form(b"max_tokens=many").bad_count);
    assert!(form(b"colour=black").is_llm(), "the path tells");
    let paint = RequestFacts::read_form("/paint", &FormKind::UrlEncoded.read(b"colour=black").unwrap()).unwrap();
    assert!(!paint.is_llm());
}

#[test]
fn a_model_is_named_by_a_text() {
    let odd = |model: &str| read("/x", &format!(r#"{{"model":{model},"messages":[]}}"#)).odd_model;
    assert!(odd(r#"["big"]"#) && odd(r#"{"name":"big"}"#) && odd("7"));
    assert!(!odd(r#""big""#) && !odd("null"));
    assert!(!read("/x", r#"{"model":{"car":"T"}}"#).odd_model, "no LLM's");
}

#[test]
fn what_is_json_may_be_a_form_too() {
    use super::form::FormKind;
    let hides = |body: &str| RequestFacts::hides_in_form(&FormKind::UrlEncoded, body.as_bytes());
    assert!(hides(r#"{"x":"&model=m&y="}"#) && hides(r#"{"x":"&%6dodel=m"}"#) && hides(r#"{"x":";n=2"}"#));
    assert!(!hides(r#"{"model":"m","messages":[{"content":"a=b&c"}]}"#));
}

#[test]
fn names_of_fields_that_readers_differ_on_are_not_read() {
    use super::form::FormKind;
    let read = |body: &[u8]| RequestFacts::read_form("/x", &FormKind::UrlEncoded.read(body).unwrap());
    for body in [
        &b"[model]=a"[..],
        b"model[]=a",
        b"x%5Bn%5D=2",
        b"options[num_predict]=9",
        b"prompt=a;model=b",
        b"x;%6d%6fdel=b",
    ] {
        assert_eq!(read(body), None, "{}", String::from_utf8_lossy(body));
    }
    for body in [&b"tags[]=a"[..], b"prompt=a;b", b"prompt=%3Bmodel=b"] {
        assert!(read(body).is_some(), "{}", String::from_utf8_lossy(body));
    }
}

#[test]
fn a_query_stands_beside_a_form_and_in_for_a_model_that_no_body_names() {
    use super::form::FormKind;
    let form = |query: &str| {
        let fields = FormKind::UrlEncoded.read(b"model=a&prompt=p").unwrap();
        RequestFacts::read_form(&format!("/x?{query}"), &fields).unwrap()
    };
    assert_eq!(form("model=b").repeated, Some("model"));
    assert_eq!((form("n=3&max_tokens=7").answers, form("n=3&max_tokens=7").max_tokens), (3, Some(7)));
    let model = |path: &str, body: &str| read(path, body).model;
    assert_eq!(model("/v1/listen?mod%65l=nova", "").as_deref(), Some("nova"));
    assert_eq!(model("/v1/chat/completions?model=b", r#"{"model":"a"}"#).as_deref(), Some("a"));
    assert_eq!(model("/v1/chat/completions?model=b&n=7", "{}").as_deref(), Some("b"));
    assert_eq!(read("/v1/chat/completions?n=7", "{}").answers, 1, "a page's number, perhaps");
}

#[test]
fn a_model_in_the_path_goes_before_the_bodys() {
    let model = |path: &str| read(path, r#"{"model":"tiny","messages":[]}"#).model;
    for path in [
        "/openai/deployments/big/chat/completions?api-version=1",
        "/v1/projects/p/locations/l/publishers/anthropic/models/big:streamRawPredict",
        "/v1beta/models/big:generateContent?model=tiny",
        "/model/big/converse",
    ] {
        assert_eq!(model(path).as_deref(), Some("big"), "{path}");
    }
}

#[test]
fn bad_bodies_spoil_nothing_else() {
    for body in ["{", "", "null", "[1]", "\"x\"", "{\"model\":", "\u{fffd}"] {
        let facts = read("/v1/chat/completions", body);
        let expected =
            RequestFacts { dialect: Some(Dialect::OpenAiChat), operation: Some("chat"), ..Default::default() };
        assert_eq!(facts, expected, "{body}");
    }
    let odd = r#"{"model":["x"],"stream":"yes","max_tokens":"12","temperature":null,"top_p":{},"messages":"m"}"#;
    assert_eq!(read("/x", odd), RequestFacts { bad_count: true, ..RequestFacts::default() });
    let twice = r#"{"model":"a","stream":false,"stream":true,"model":"b","messages":[]}"#;
    let facts = read("/x", twice);
    assert_eq!((facts.model.as_deref(), facts.stream), (Some("b"), Some(true)));
    let deep = format!("{{\"x\":{}1{},\"model\":\"m\",\"prompt\":\"p\"}}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(read("/x", &deep).model.as_deref(), Some("m"), "depth costs no stack");
    let deep = deep.replace('[', "{\"options\":").replace(']', "}").replace("\"x\"", "\"options\"");
    assert_eq!(read("/x", &deep).model.as_deref(), Some("m"), "depth costs no stack");
}

#[test]
fn a_model_name_is_bounded() {
    let body = format!(r#"{{"model":"{}","prompt":"p"}}"#, "m".repeat(10_000));
    assert_eq!(read("/x", &body).model.map(|model| model.len()), Some(256));
}

#[test]
fn json_rpc_is_named_and_is_no_llms_unless_it_asks_an_agent() {
    use crate::llm::json_rpc::RpcProtocol::{A2a, JsonRpc, Mcp};
    let vectors = [
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t"}}"#, None, Some((Mcp, "tools/call"))),
        (r#"[{"jsonrpc":"2.0","id":1,"method":"tools/list"},7]"#, None, Some((Mcp, "tools/list"))),
        (r#"{"jsonrpc":"2.0","id":1,"method":"eth_call","params":[1]}"#, None, Some((JsonRpc, "eth_call"))),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tasks/get"}"#, None, Some((A2a, "tasks/get"))),
        (r#"{"jsonrpc":"2.0","id":1,"method":"message/send"}"#, Some(true), Some((A2a, "message/send"))),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"SendStreamingMessage"}"#,
            Some(false),
            Some((A2a, "SendStreamingMessage")),
        ),
        (r#"{"jsonrpc":"2.0","method":"tools/call","messages":[],"stream":true}"#, Some(false), None),
        (r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, None, None),
        (r#"{"method":"tools/call"}"#, None, None),
        ("[]", None, None),
    ];
    for (body, whole, call) in vectors {
        let facts = read("/rpc", body);
        assert_eq!(facts.is_llm().then(|| facts.answers_whole()), whole, "{body}");
        let named = facts.rpc.as_ref().map(|rpc| (rpc.protocol, rpc.method.as_deref().unwrap_or_default()));
        assert_eq!(named, call, "{body}");
    }
    let chat = read("/v1/chat/completions", r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#);
    assert!(chat.is_llm() && chat.rpc.is_none(), "its path says more");
    for (path, whole) in [("/agents/a/v1/message:stream", false), ("/v1/message:send", true)] {
        let facts = read(path, r#"{"message":{"parts":[]}}"#);
        assert_eq!((facts.operation, facts.answers_whole()), (Some("invoke_agent"), whole), "{path}");
    }
    let mut get = RequestFacts::read("/mcp", None);
    get.note_mcp();
    assert_eq!(get.rpc.map(|rpc| (rpc.protocol, rpc.method)), Some((Mcp, None)));
}

#[test]
fn only_what_generates_may_be_late_with_its_first_token() {
    assert!(read("/api/embed", r#"{"model":"m","input":"x"}"#).answers_whole());
    assert!(!read("/api/chat", r#"{"model":"m","messages":[]}"#).answers_whole());
}

#[test]
fn a_route_says_whose_its_answers_are() {
    let (chat, other) = (read("/v1/chat/completions", "{}"), read("/jobs", "{}"));
    assert!(chat.by_route(false).is_some_and(|facts| !facts.is_llm()));
    assert!(other.by_route(true).is_some_and(|facts| facts.is_llm() && !facts.answers_whole()));
    assert_eq!((chat.by_route(true), other.by_route(false)), (None, None));
}

#[test]
fn what_asks_for_an_answer_that_is_kept_runs_no_model() {
    let facts = |path: &str, safe: bool| {
        let mut facts = RequestFacts::read(path, None);
        facts.note_method(safe, false);
        assert!(!facts.retrieves() || !facts.is_llm());
        (facts.operation, facts.dialect)
    };
    let responses = Some(Dialect::OpenAiResponses);
    for (path, dialect) in [
        ("/v1/responses/resp_1", responses),
        ("/v1/responses/ad5663da-63e6", responses),
        ("/openai/responses/resp_1/", responses),
        ("/llm/responses/resp_1", responses),
        ("/v1/chat/completions/chatcmpl-1", Some(Dialect::OpenAiChat)),
        ("/v1beta/interactions/int_1", Dialect::named("gemini-interactions")),
    ] {
        assert_eq!(facts(path, true), (Some("retrieve_response"), dialect), "{path}");
        assert_eq!(facts(path, false), (None, None), "a POST may do anything: {path}");
        let cancel = format!("{}/cancel", path.trim_end_matches('/'));
        assert_eq!(facts(&cancel, false), (Some("cancel_response"), dialect), "{cancel}");
    }
    for path in
        ["/survey/responses/7", "/v1/responses", "/v1/responses/resp_1/input_items", "/v1/files/f", "/v1/responses/"]
    {
        assert!(!RequestFacts::read(path, None).retrieves(), "{path}");
    }
    assert_eq!(RequestFacts::read("/v1/responses/input_tokens", None).operation, Some("count_tokens"));
    let asks = read("/v1/responses/resp_1", r#"{"model":"m","input":"x"}"#);
    assert!(asks.is_llm() && !asks.retrieves(), "who asks a model is no fetcher, whatever the path");
    assert!(read("/v1/responses/resp_1/cancel", "{}").retrieves());
    // A handler for all paths may answer what is said under any.
    for path in ["/v1/responses/resp_1", "/chat/v1/responses/r/cancel", "/v1/threads/t/runs/r"] {
        let mut facts = read(path, r#"{"query":"write a novel"}"#);
        facts.note_method(true, true);
        assert!(!facts.retrieves(), "{path}");
    }
    let submit = "/v1/threads/t/runs/r/submit_tool_outputs";
    let mut goes_on = read(submit, r#"{"tool_outputs":[],"stream":true}"#);
    goes_on.note_method(false, true);
    assert!(goes_on.continues() && goes_on.retrieves() && goes_on.depends_on_method());
    assert!(read(submit, r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#).is_llm());
}
