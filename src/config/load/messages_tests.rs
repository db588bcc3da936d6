use super::tests::parsed;

const WRONG: &str = include_str!("golden/wrong.toml");
const WRONG_PROBLEMS: &str = include_str!("golden/wrong.txt");

#[test]
fn every_problem_of_a_bad_file_is_told_at_once() {
    let problems = parsed(WRONG).unwrap_err().to_string();
    assert!(!problems.contains("canary"), "secrets stay in: {problems}");
    assert_eq!(format!("{problems}\n"), WRONG_PROBLEMS);
}

/// Texts and the whole of what is said about each.
const CASES: [(&str, &str); 77] = [
    (
        "[fleet]\nname = \"a\"\npeers = \"https://h:9090\"\n[[upstream]]\nurl = \"http://h\"",
        "3:9: `peers`: the admin address speaks plain HTTP: write http://",
    ),
    (
        "[fleet]\nname = \"a\"\npeers = [\"http://h:9090/x\"]\n[[upstream]]\nurl = \"http://h\"",
        "3:10: `peers`: no path belongs here: write a replica's admin address as \"http://10.0.0.7:9090\"",
    ),
    (
        "[fleet]\nname = \"a\"\npeers = \"dns:headless\"\n[[upstream]]\nurl = \"http://h\"",
        "3:9: `peers`: write a name and the port of the admin address, as \"dns:streamgauge-headless:9090\"",
    ),
    (
        "[fleet]\nname = \"a\"\npeers = []\nadvertise = \"unix:/x\"\n[[upstream]]\nurl = \"http://h\"",
        "4:13: `advertise`: write a replica's admin address as \"http://10.0.0.7:9090\"",
    ),
    (
        "[fleet]\nname = \"a\"\npeers = []\nsecret_env = \"UNSET_SECRET\"\n[[upstream]]\nurl = \"http://h\"",
        "4:14: the environment variable UNSET_SECRET is not set",
    ),
    (
        "[fleet]\nname = \"a\"\npeers = []\nsecret_env = \"REDIS_PASSWORD\"\n[[upstream]]\nurl = \"http://h\"",
        "4:14: `secret_env`: the secret is shorter than 32 bytes and can be guessed from what it signs: make one with `openssl rand -hex 32`",
    ),
    (
        "[fleet]\nname = \"a\"\n[[upstream]]\nurl = \"http://h\"",
        "1:1: the replicas of a fleet share what they know over Redis: add `redis` to [limits]",
    ),
    (
        "[fleet]\n[limits]\nredis = \"redis://r\"\n[[upstream]]\nurl = \"http://h\"",
        "1:1: this fleet has no `name`, which keeps it apart from others on the same Redis",
    ),
    (
        "[fleet]\nname = \"a}b\"\n[limits]\nredis = \"redis://r\"\n[[upstream]]\nurl = \"http://h\"",
        "2:8: `name` is 1 to 64 letters, digits, `-`, `_` and `.`: it is part of keys in Redis",
    ),
    ("", "1:1: the file is empty: at the least say where the backend is, with [[upstream]] and its url"),
    (" \n\u{feff}\t\n", "1:1: the file is empty: at the least say where the backend is, with [[upstream]] and its url"),
    (
        "# only a comment\n",
        "1:1: there is no [[upstream]]: say where the backend is, as [[upstream]] with url = \"http://127.0.0.1:8000\"",
    ),
    ("[[upstream]]\nurl = \"http://h", "2:16: not TOML: the text's closing quote is missing"),
    ("[[upstream]]\nname = fast\n", "2:8: not TOML: a text must stand in quotes (or write true or false)"),
    ("[[upstream]]\nurl = \"http://h\"\nurl = \"http://i\"", "3:1: not TOML: written twice: keep one of the two"),
    ("[[upstream\nurl = 1", "1:11: not TOML: unclosed array table, expected `]]`"),
    ("[[upstream]]\n", "1:1: this upstream has no `url`: say where it is, as url = \"http://127.0.0.1:8000\""),
    ("[[upstream]]\nuri = \"http://h\"\n", "2:1: unknown key `uri`: did you mean `url`?"),
    (
        "[[upstream]]\nurls = []\n",
        "2:8: this upstream has no `url`: say where it is, as url = \"http://127.0.0.1:8000\"",
    ),
    ("[[upstream]]\nurl = \"http://h\"\nurls = [\"http://h\"]", "3:8: either `url` or `urls`, not both"),
    (
        "[[upstream]]\nurls = [\"http://h\", \"https://h\"]",
        "2:21: the urls of one upstream are all http or all https: write two [[upstream]]",
    ),
    ("[[upstream]]\nurls = [\"http://h\", \"http://h/\"]", "2:21: this url is listed twice"),
    ("[upstream]\nurl = \"http://h\"", "1:1: [upstream] must be [[upstream]], with two brackets: there may be several"),
    (
        "[[server]]\nmax_body = 1\n[[upstream]]\nurl = \"http://h\"",
        "1:1: [[server]] must be [server], with one bracket: there is only one",
    ),
    ("upstream = 5", "1:12: `upstream`: expected a list, as [\"a\", \"b\"], found 5"),
    ("server = 1979-05-27\n[[upstream]]\nurl = \"http://h\"", "1:10: `server`: a date has no place here"),
    (
        "server = []\n[[upstream]]\nurl = \"http://h\"",
        "1:10: [[server]] must be [server], with one bracket: there is only one",
    ),
    ("[[upstream]]\nurl = \"http://h\"\nstream = [\"/t\"]", "3:10: `stream`: expected a table, found a list"),
    (
        "[[upstream]]\nurl = \"http://h\"\nstream = { text = \"t\", error = \"/a~b\", done = \"\" }",
        "3:19: a JSON pointer starts with a slash, as \"/choices/0/text\"\n3:32: in a JSON pointer ~ is written ~0, and a slash inside a key ~1\n3:47: `done` is the one line of data that ends a stream, as \"[DONE]\"",
    ),
    (
        "[[upstream]]\nurl = \"http://h\"\nstream = { usage = \"/u\", calls = \"id!\" }",
        "3:34: a JSON pointer starts with a slash, as \"/choices/0/text\"",
    ),
    (
        "[[upstream]]\nurl = \"http://h\"\nstream = { usage = \"/u\", calls = { pieces = [\"p\"] } }",
        "3:34: calls are told apart by the place of their `id`, or by the events after which one is over, `end`",
    ),
    (
        "[[upstream]]\nurl = \"http://h\"\nca = \"ca.pem\"",
        "3:6: `ca` says whom to trust over https, and this upstream's url is not https",
    ),
    (
        "[[upstream]]\nurl = \"https://h\"\nca = \"key.pem\"",
        "3:6: conf/key.pem holds no PEM block \"-----BEGIN CERTIFICATE-----\"",
    ),
    (
        "[[upstream]]\nurl = \"http://h\"\nhost = \"a b\"",
        "3:8: `host` is \"keep\", \"own\" or a name: the host may hold letters, digits, dots, hyphens and underscores alone",
    ),
    ("[[upstream]]\nurl = \"http://h\"\nname = \" \"", "3:8: `name`: it is empty"),
    (
        "[[upstream]]\nurl = \"http://h\"\napi_key_env = \"OPENAI_API_KEY\"\napi_key_file = \"internal.key\"",
        "4:16: either `api_key_env` or `api_key_file`, not both",
    ),
    (
        "[[upstream]]\nurl = \"http://h\"\napi_key_env = \"sk-canary\"",
        "3:15: this must be the name of an environment variable, as \"OPENAI_API_KEY\"",
    ),
    (
        "[[upstream]]\nurl = \"http://h\"\napi_key_env = \"sk_canary\"",
        "3:15: the environment variable named here is not set",
    ),
    ("[[upstream]]\nurl = \"http://h\"\napi_key_env = \"EMPTY\"", "3:15: the environment variable named here is empty"),
    (
        "[[upstream]]\nurl = \"http://h\"\napi_key_env = \"BROKEN\"",
        "3:15: the environment variable named here holds something that no header can carry: spaces, line breaks or letters outside ASCII",
    ),
    (
        "[[upstream]]\nurl = \"http://h\"\napi_key_file = [\"canary\"]",
        "3:16: `api_key_file`: expected a text in quotes, found a list",
    ),
    ("[[upstream]]\nurl = \"http://h\"\napi_key_file = \"none\"", "3:16: cannot read conf/none: entity not found"),
    (
        "[[upstream]]\nurl = \"http://a\"\n[[upstream]]\nurl = \"http://b\"",
        "1:1: there are several upstreams and no [[route]] that says which requests go where: add [[route]] with path = \"*\" and upstream = \"…\"",
    ),
    (
        "[[upstream]]\nurl = \"http://a\"\n[[upstream]]\nurl = \"http://b\"\n[[route]]",
        "5:1: this route has no target: say where requests go, as upstream = \"…\"",
    ),
    (
        "[[upstream]]\nurl = \"http://a\"\n[[route]]\nupstream = \"zebra\"",
        "4:12: unknown upstream \"zebra\": the only one known is \"a\"",
    ),
    (
        "[[upstream]]\nurl = \"http://a\"\n[[route]]\nupstream = \"a\"\ntargets = [{ upstream = \"a\" }]",
        "5:11: either `upstream` or `targets`, not both",
    ),
    (
        "[[upstream]]\nurl = \"http://a\"\n[[route]]\ntargets = [{ weight = 1 }]",
        "4:12: this target names no `upstream`",
    ),
    (
        "[[upstream]]\nurl = \"http://a\"\n[[route]]\ntargets = [{ upstream = \"a\", weight = 0 }]",
        "4:11: every target has weight 0, so no request could go anywhere",
    ),
    (
        "[[upstream]]\nurl = \"http://a\"\n[[route]]\ntargets = [{ upstream = \"a\" }, { upstream = \"a\" }]",
        "4:32: there is another target of this route called \"a\": give one of them another `name`",
    ),
    (
        "[[upstream]]\nurl = \"http://a\"\n[[route]]\npath = \"/v1*\"\ntargets = [{ upstream = \"a\", path = \"v2\" }]",
        "5:37: a target's `path` starts with /, without *, ? or #: it is put in as it stands",
    ),
    (
        "[[upstream]]\nurl = \"http://a\"\n[[route]]\npath = \"/a\"\n[[route]]\npath = \"/a\"",
        "5:1: there is another route called \"/a\": give one of them another `name`",
    ),
    (
        "[[upstream]]\nurl = \"http://a\"\n[[route]]\n[[route]]\npath = \"/a\"",
        "4:1: this route is never reached: \"*\" above it takes everything that it matches",
    ),
    (
        "[[upstream]]\nurl = \"http://a\"\n[[route]]\npath = \"/a?b\"",
        "4:8: `path` is matched without the query: no ? or #; any text is written *",
    ),
    (
        "[[upstream]]\nurl = \"http://a\"\n[[route]]\npath = \"/ü\"",
        "4:8: `path`: a path is written in ASCII: percent-encode \"ü\"",
    ),
    (
        "[[upstream]]\nurl = \"http://a\"\n[[route]]\nmethods = []\nmodels = [\"\"]",
        "4:11: `methods` is empty, so nothing would match: leave it out for all\n5:11: a model's name is missing here, as \"gpt-4o*\"",
    ),
    (
        "[[upstream]]\nurl = \"http://a\"\n[[route]]\nmethods = [\"trace\", \"purge\", \"a b\"]",
        "4:12: TRACE is always refused, so this would never match\n4:30: not a method, as \"POST\"",
    ),
    (
        "[[upstream]]\nurl = \"http://a\"\n[[route]]\nheaders = { x_tier = \"gold\", x-a = \" b\" }",
        "4:22: headers with an underscore are dropped, so this would never match: \"x-tier\"?\n4:36: a header's value has no line breaks, and no space around it",
    ),
    (
        "[server]\nlisten = []\n[[upstream]]\nurl = \"http://a\"",
        "2:10: `listen` is empty: leave it out for 127.0.0.1:8080",
    ),
    (
        "[server]\nlisten = [\"127.0.0.1:1\", \"127.0.0.1:1\"]\nadmin = \"127.0.0.1:1\"\n[[upstream]]\nurl = \"http://a\"",
        "2:26: 127.0.0.1:1 is listed twice\n3:9: `admin` cannot share 127.0.0.1:1 with `listen`: take another port",
    ),
    (
        "[server]\nadmin = \"[::]:9090\"\nadmin_token_env = \"NONE\"\n[[upstream]]\nurl = \"http://a\"",
        "3:19: this environment variable is not set, and the admin address can be reached from other machines: set it, or listen on loopback",
    ),
    (
        "[cors]\norigins = [\"*\"]\ncredentials = true\n[[upstream]]\nurl = \"http://a\"",
        "2:12: every origin with `credentials = true` would let any web page read answers as its visitor: list the origins",
    ),
    (
        "[[upstream]]\nurl = \"http://h\"\n[[limit]]\ntokens_per_minute = 5",
        "3:1: this limit has no `name`, so no route could be under it",
    ),
    (
        "[[upstream]]\nurl = \"http://h\"\n[[limit]]\nname = \"a\"",
        "3:1: this limit limits nothing: give it tokens_per_minute, for example",
    ),
    (
        "[[upstream]]\nurl = \"http://h\"\n[[limit]]\nname = \"a\"\ntokens_per_minute = 0",
        "5:21: `tokens_per_minute`: zero would let nothing pass",
    ),
    (
        "[[upstream]]\nurl = \"http://h\"\n[[limit]]\nname = \"a\"\nconcurrent = 1\nburst = 5",
        "6:9: `burst` belongs to tokens_per_minute, which is missing",
    ),
    (
        "[[upstream]]\nurl = \"http://h\"\n[[limit]]\nname = \"a\"\ncost_per_day = -1.0\n[[price]]\nmodel = \"*\"\ninput = 1\noutput = 1",
        "5:16: `cost_per_day` is an amount of US dollars above zero, as 5.0",
    ),
    (
        "[[upstream]]\nurl = \"http://h\"\n[[limit]]\nname = \"a\"\ncost_per_month = 5",
        "5:18: a limit in dollars needs to know what tokens cost: add a [[price]]",
    ),
    (
        "[[upstream]]\nurl = \"http://h\"\n[[price]]\nmodel = \"gpt-4o*\"\ninput = -1\noutput = 2_500_000",
        "5:9: `input` is US dollars per million tokens, as 2.5: at least 0, and at most 10000\n6:10: `output` is US dollars per million tokens, as 2.5: at least 0, and at most 10000",
    ),
    (
        "[[upstream]]\nurl = \"http://h\"\n[[price]]\ninput = 1",
        "3:1: this price has no `model`\n3:1: this price has no `output`",
    ),
    (
        "[[upstream]]\nurl = \"http://h\"\n[[price]]\nmodel = \"a*\"\ninput = 1\noutput = 1\n[[price]]\nmodel = \"ab\"\ninput = 1\noutput = 1\n[[price]]\nmodel = \"a*\"\ninput = nan\noutput = 1",
        "8:9: never used: \"a*\" stands before it and matches all of it. Put this one first\n12:9: \"a*\" has a price already\n13:9: `input` is US dollars per million tokens, as 2.5: at least 0, and at most 10000",
    ),
    (
        "[[upstream]]\nurl = \"http://h\"\n[price]\nmodel = \"a\"",
        "3:1: [price] must be [[price]], with two brackets: there may be several\n3:1: this price has no `input`\n3:1: this price has no `output`",
    ),
    (
        "[[upstream]]\nurl = \"http://h\"\n[[limit]]\nname = \"a\"\nconcurrent = 1\n[[limit]]\nname = \"a\"\nconcurrent = 1",
        "7:8: there is another limit called \"a\": give one of them another `name`",
    ),
    (
        "[[upstream]]\nurl = \"http://h\"\n[[route]]\nlimits = [\"x\"]",
        "4:11: there is no [[limit]]: add one with name = \"x\"",
    ),
    (
        "[[upstream]]\nurl = \"http://h\"\n[[limit]]\nname = \"per-user\"\nconcurrent = 1\n[[route]]\nlimits = [\"per-usr\"]",
        "7:11: unknown limit \"per-usr\": did you mean \"per-user\"?",
    ),
    (
        "[[upstream]]\nurl = \"http://h\"\n[limit]\nname = \"a\"",
        "3:1: [limit] must be [[limit]], with two brackets: there may be several\n3:1: this limit limits nothing: give it tokens_per_minute, for example",
    ),
    (
        "[[upstream]]\nurl = \"http://h\"\n[limits]\nredis = \"http://:canary-password@h\"",
        "4:9: this must be the address of a Redis or Valkey: \"redis://127.0.0.1:6379\", or with TLS and a password \"rediss://user:password@host:6379/0\"",
    ),
    (
        "[[upstream]]\nurl = \"http://h\"\n[[limit]]\nname = \"a\"\ncost_per_day = 1.0\n[[price]]\nmodel = \"x*\"\ninput = 1.0\noutput = 1.0\n[[route]]\nmodels = [\"xy\", \"y\"]\nlimits = [\"a\"]",
        "12:10: limit \"a\" counts what requests cost, and no [[price]] covers the model \"y\" of this route, nor does the catalogue for the `provider` of its upstreams: add a price, or name the route's `models`",
    ),
];

#[test]
fn each_message_tells_what_to_do() {
    for (text, expected) in CASES {
        let problems = parsed(text).map_or_else(|problems| problems.to_string(), |_| "no problem".to_owned());
        assert_eq!(problems.replace("conf/test.toml:", ""), expected, "of:\n{text}");
    }
}

/// References are looked up whatever else is wrong, in what could be read of the tables that they may mean.
const REFERENCES: [(&str, &str); 9] = [
    (
        "[[upstream]]\nurl = \"h\"\nname = \"a\"\ncolour = 1\n[[limit]]\nname = \"free\"\nkye = \"user\"\nconcurrent = 0\n[[route]]\n\
         upstream = \"b\"\nlimits = [\"fre\", \"free\"]",
        "2:7: `url`: the scheme is missing: write http:// or https:// in front\n\
         4:1: unknown key `colour`: known here are KNOWN\n\
         7:1: unknown key `kye`: did you mean `key`?\n\
         8:14: `concurrent`: zero would let nothing pass; leave it out for no limit\n\
         10:12: unknown upstream \"b\": the only one known is \"a\"\n\
         11:11: unknown limit \"fre\": did you mean \"free\"?",
    ),
    (
        "[[upstream]]\nurl = \"http://h\"\n[[limit]]\nnmae = \"free\"\nconcurrent = 1\n[[route]]\nlimits = [\"free\", \"x\"]",
        "4:1: unknown key `nmae`: did you mean `name`?\n7:19: there is no [[limit]]: add one with name = \"x\"",
    ),
    (
        "[[upstream]]\nurl = \"http://h\"\n[[limit]]\nname = 5\nconcurrent = 1\n[[route]]\nlimits = [\"x\"]",
        "4:8: `name`: expected a text in quotes, found 5",
    ),
    (
        "[[upstream]]\nurl = \"http://h\"\n[limit]\nname = \"free\"\nconcurrent = 1\n[[route]]\nlimits = [\"free\", \"x\"]",
        "3:1: [limit] must be [[limit]], with two brackets: there may be several\n\
         7:19: unknown limit \"x\": the only one known is \"free\"",
    ),
    (
        "[[upstream]]\nurl = \"h:80\"\n[[route]]\nupstream = \"h:80\"\n[[route]]\nname = \"r\"\npath = \"/r\"\nupstream = \"i\"",
        "2:7: `url`: the scheme is missing: write http:// or https:// in front\n\
         5:1: this route is never reached: \"*\" above it takes everything that it matches\n\
         8:12: unknown upstream \"i\": none are known here",
    ),
    (
        "[[upstream]]\nurl = \"http://h\"\nnaem = \"a\"\n[[route]]\nupstream = \"a\"\nlimits = [\"x\"]",
        "3:1: unknown key `naem`: did you mean `name`?\n6:11: there is no [[limit]]: add one with name = \"x\"",
    ),
    (
        "[[upstream]]\nurl = \"http://h\"\nname = \"a\"\n[[route]]\ntargets = [{ upstream = \"b\", name = \"new\" }, { upstream = \"a\" }]\n\
         canary = { target = \"nwe\" }",
        "5:25: unknown upstream \"b\": the only one known is \"a\"\n6:21: the route has no target \"nwe\": did you mean \"new\"?",
    ),
    (
        "[[upstream]]\nurl = \"http://h\"\n[[route]]\n[[route]]\nname = \"b\"\npath = \"/b\"\nkeepalive = 5",
        "4:1: this route is never reached: \"*\" above it takes everything that it matches\n\
         7:13: `keepalive`: expected a duration with its unit, as \"15s\", found 5",
    ),
    (
        "[[server]]\nlisen = 5\n[[upstream]]\nurl = \"http://h\"",
        "1:1: [[server]] must be [server], with one bracket: there is only one\n2:1: unknown key `lisen`: did you mean `listen`?",
    ),
];

#[test]
fn references_are_looked_up_whatever_else_is_wrong() {
    for (text, expected) in REFERENCES {
        let said = parsed(text).unwrap_err().to_string().replace("conf/test.toml:", "");
        let mut lines = said.lines();
        for wanted in expected.lines() {
            let line = lines.next().unwrap_or_default();
            match wanted.split_once("KNOWN") {
                Some((start, _)) => assert!(line.starts_with(start), "{line}\nof:\n{text}"),
                None => assert_eq!(line, wanted, "of:\n{text}"),
            }
        }
        assert_eq!(lines.next(), None, "of:\n{text}");
    }
}
