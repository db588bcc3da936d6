use super::*;

#[track_caller]
fn refused<T: FromStr<Err = String> + std::fmt::Debug>(text: &str, words: &str) {
    let error = text.parse::<T>().expect_err(text);
    assert!(error.contains(words), "{text}: {error}");
}

#[test]
fn listeners() {
    assert_eq!("127.0.0.1:0".parse(), Ok(Listen::Tcp(([127, 0, 0, 1], 0).into())));
    assert_eq!("[::]:8080".parse::<Listen>().unwrap().to_string(), "[::]:8080");
    assert_eq!("unix:/run/a.sock".parse(), Ok(Listen::Unix("/run/a.sock".into())));
    assert_eq!("unix:///run/a.sock".parse(), Ok(Listen::Unix("/run/a.sock".into())));
    refused::<Listen>("127.0.0.1", "port is missing");
    refused::<Listen>("::1", "[::]:8080");
    refused::<Listen>(":8080", "\"0.0.0.0:8080\"");
    refused::<Listen>("localhost:8080", "write \"127.0.0.1:8080\"");
    refused::<Listen>("http://127.0.0.1:8080", "no scheme");
    refused::<Listen>("unix:", "path is missing");
    refused::<Listen>("127.0.0.1:99999", "not an address");
    refused::<Listen>(&format!("unix:/{}", "a".repeat(200)), "107 bytes");
}

#[test]
fn local_listeners() {
    for (text, local) in [
        ("127.0.0.1:1", true),
        ("127.9.9.9:1", true),
        ("[::1]:1", true),
        ("[::ffff:127.0.0.1]:1", true),
        ("unix:/x", true),
        ("0.0.0.0:1", false),
        ("[::]:1", false),
        ("10.0.0.1:1", false),
    ] {
        assert_eq!(text.parse::<Listen>().unwrap().is_local(), local, "{text}");
    }
}

#[test]
fn networks_contain_addresses() {
    for (network, address, inside) in [
        ("10.0.0.0/8", "10.255.1.2", true),
        ("10.0.0.0/8", "11.0.0.0", false),
        ("10.0.0.0/8", "::ffff:10.1.2.3", true),
        ("::ffff:10.0.0.0/104", "10.1.2.3", true),
        ("10.0.0.7", "10.0.0.7", true),
        ("10.0.0.7", "10.0.0.8", false),
        ("0.0.0.0/0", "203.0.113.9", true),
        ("0.0.0.0/0", "2001:db8::1", false),
        ("::/0", "2001:db8::1", true),
        ("fd00::/8", "fd12::1", true),
        ("fd00::/8", "fe80::1", false),
        ("::1", "127.0.0.1", false),
    ] {
        let parsed: Network = network.parse().unwrap();
        assert_eq!(parsed.contains(address.parse().unwrap()), inside, "{address} in {network}");
    }
    refused::<Network>("10.0.0.5/8", "write \"10.0.0.0/8\"");
    refused::<Network>("10.0.0.0/33", "0 to 32");
    refused::<Network>("10.0.0.0/", "0 to 32");
    refused::<Network>("fd00::/129", "0 to 128");
    refused::<Network>("localhost", "not an address or network");
}

#[track_caller]
fn endpoint(text: &str) -> (bool, EndpointAddress, String, String) {
    let endpoint: Endpoint = text.parse().expect(text);
    (endpoint.tls, endpoint.address, endpoint.base_path, endpoint.authority)
}

fn tcp(host: &str, port: u16) -> EndpointAddress {
    EndpointAddress::Tcp { host: host.to_owned(), port }
}

#[test]
fn endpoints() {
    let text = |s: &str| s.to_owned();
    assert_eq!(endpoint("http://127.0.0.1:8000"), (false, tcp("127.0.0.1", 8000), text(""), text("127.0.0.1:8000")));
    assert_eq!(
        endpoint("HTTPS://API.example.com/v1/"),
        (true, tcp("api.example.com", 443), text("/v1"), text("api.example.com"))
    );
    assert_eq!(endpoint("http://[::1]:8000/"), (false, tcp("::1", 8000), text(""), text("[::1]:8000")));
    assert_eq!(endpoint("http://my_app"), (false, tcp("my_app", 80), text(""), text("my_app")));
    assert_eq!(endpoint("unix:/run/a").1, EndpointAddress::Unix("/run/a".into()));
    refused::<Endpoint>("127.0.0.1:8000", "scheme is missing");
    refused::<Endpoint>("ftp://host", "unknown scheme");
    refused::<Endpoint>("http://", "host is missing");
    refused::<Endpoint>("http://:8000", "host is missing");
    refused::<Endpoint>("http://host:0", "1 to 65535");
    refused::<Endpoint>("http://host:+80", "1 to 65535");
    refused::<Endpoint>("http://host:", "1 to 65535");
    refused::<Endpoint>("http://::1:8000", "host is missing");
    refused::<Endpoint>("http://fe80::1:8000", "stands in brackets");
    refused::<Endpoint>("http://[::1", "closing ]");
    refused::<Endpoint>("http://[::1]8000", "only a port");
    refused::<Endpoint>("http://host/a?b=c", "ends with its path");
    refused::<Endpoint>("http://host/a b", "%20");
    refused::<Endpoint>("http://höst", "xn--");
    refused::<Endpoint>("http://a b", "letters, digits");
}

#[test]
fn passwords_are_not_repeated() {
    let error = "http://user:hunter2@host".parse::<Endpoint>().unwrap_err();
    assert!(error.contains("api_key_env") && !error.contains("hunter2"), "{error}");
}
