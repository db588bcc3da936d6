//! Forms as browsers, SDKs and attackers write them.

use proptest::prelude::*;

use super::*;

const MULTIPART: &str = "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n\
    --b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a;b.wav\"\r\ncontent-type: audio/wav\r\n\r\n\0\r\nä\r\n\
    --b\r\ncontent-disposition: form-data; name=n\r\n\r\n2\r\n--b--\r\n";

fn kind(label: &str) -> FormKind {
    FormKind::of_label(label).unwrap()
}

fn fields(kind: &FormKind, body: &[u8]) -> Option<Vec<(String, String)>> {
    let form = kind.read(body)?;
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    Some(form.fields.iter().map(|field| (field.name.to_string(), text(&field.value))).collect())
}

fn pairs(pairs: &[(&str, &str)]) -> Option<Vec<(String, String)>> {
    Some(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
}

#[test]
fn labels_are_read() {
    assert_eq!(kind("application/x-www-form-urlencoded; charset=utf-8"), FormKind::UrlEncoded);
    let multipart = FormKind::Multipart(b"b".as_slice().into());
    assert_eq!(kind("Multipart/Form-Data; charset=x; Boundary=\"b\""), multipart);
    for label in [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/mixed; boundary=b",
        "application/json",
        "multipart/form-data; boundary=a; boundary=b",
        "multipart/form-data; boundary=a; boundary*=utf-8''b",
        "multipart/form-data; boundary*0=a; boundary*1=b",
        "multipart/form-data; boundary=\"a\\\"; boundary=b\"",
    ] {
        assert_eq!(FormKind::of_label(label), None, "{label}");
    }
}

#[test]
fn parts_and_their_places_are_found() {
    let kind = kind("multipart/form-data; boundary=b");
    assert_eq!(fields(&kind, MULTIPART.as_bytes()), pairs(&[("model", "whisper-1"), ("n", "2")]));
    let form = kind.read(MULTIPART.as_bytes()).unwrap();
    assert_eq!((form.files, form.text_bytes()), (1, 10));
    let renamed = kind.with_model(MULTIPART.as_bytes(), "local").unwrap();
    assert_eq!(renamed, MULTIPART.replace("whisper-1", "local").into_bytes());
    let bare = MULTIPART.replace("\r\n", "\n");
    assert_eq!(fields(&kind, bare.as_bytes()), pairs(&[("model", "whisper-1"), ("n", "2")]));
    assert_eq!(kind.with_model(b"--b--", "x"), None);
}

#[test]
fn what_readers_differ_on_is_not_read() {
    let kind = kind("multipart/form-data; boundary=b");
    let body = |head: &str, value: &str| format!("--b\r\n{head}\r\n\r\n{value}\r\n--b--");
    let plain = "content-disposition: form-data; name=\"model\"";
    assert!(kind.read(body(plain, "m").as_bytes()).is_some());
    for (head, value) in [
        (format!("{plain}; name=\"n\""), "m"),
        (format!("{plain}; name*=utf-8''n"), "m"),
        ("content-disposition: form-data; name=x; name*0=mod; name*1=el".to_owned(), "m"),
        ("content-disposition: form-data; name=\"mo\\\"del\"".to_owned(), "m"),
        (format!("{plain}\r\ncontent-transfer-encoding: base64"), "bQ=="),
        (format!("{plain}\r\n{plain}"), "m"),
        ("content-type: text/plain".to_owned(), "m"),
        (plain.to_owned(), "x--b"),
        (plain.to_owned(), "\r\n--bb"),
    ] {
        assert_eq!(kind.read(body(&head, value).as_bytes()), None, "{head} {value}");
    }
    for broken in
        ["", "--b", "--b\r\n", "--b\r\n\r\n", "--c--", "--b\r\ncontent-disposition: form-data; name=a\r\n\r\nx"]
    {
        assert_eq!(kind.read(broken.as_bytes()), None, "{broken}");
    }
    let many = "--b\r\ncontent-disposition: form-data; name=a\r\n\r\n\r\n".repeat(2_000);
    assert_eq!(kind.read(format!("{many}--b--").as_bytes()), None);
}

#[test]
fn a_file_may_hold_what_looks_like_a_mark() {
    let kind = kind("multipart/form-data; boundary=b");
    let file = "content-disposition: form-data; name=\"file\"; filename=\"a.wav\"";
    let body = |head: &str, data: &str| {
        format!(
            "--b\r\n{head}\r\n\r\n{data}\r\n--b\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nm\r\n--b--"
        )
    };
    let hidden = "content-disposition: form-data; name=\"model\"\r\n\r\nother";
    for data in ["x--b", "x--bx", "x--b\r\nx", "\r\n--bx", "\r\n--b-x", "\n--b\0", "x--bx--b-"] {
        let body = body(file, data);
        let form = kind.read(body.as_bytes()).unwrap_or_else(|| panic!("{data:?}"));
        assert_eq!((form.files, form.fields.len(), &*form.fields[0].value), (1, 1, &b"m"[..]), "{data:?}");
        let renamed = kind.with_model(body.as_bytes(), "local").unwrap();
        assert_eq!(renamed, body.replace("\r\n\r\nm\r\n", "\r\n\r\nlocal\r\n").into_bytes());
    }
    // Some readers see a part there, or the end of the form.
    for data in [format!("x--b\r\n{hidden}"), format!("\r\n--bx\r\n{}", hidden.to_uppercase()), "x--b--".to_owned()] {
        assert_eq!(kind.read(body(file, &data).as_bytes()), None, "{data:?}");
    }
    // A value is not the same to all.
    for data in ["x--b", "\r\n--bx"] {
        assert_eq!(
            kind.read(body("content-disposition: form-data; name=\"prompt\"", data).as_bytes()),
            None,
            "{data:?}"
        );
    }
    let named = "content-disposition: form-data; name=\"file\"; filename=\"a--b.wav\"";
    assert_eq!(kind.read(body(named, "x").as_bytes()), None);
}

#[test]
fn a_file_without_a_plain_name_is_a_value_too() {
    let kind = kind("multipart/form-data; boundary=b");
    for (named, is_value) in [
        ("filename=a.wav", false),
        ("filename=\"\"", true),
        ("filename*=utf-8''", true),
        ("filename=a; filename*=utf-8''", true),
        ("filename*=utf-8''; filename=a", true),
    ] {
        let body = format!("--b\r\ncontent-disposition: form-data; name=model; {named}\r\n\r\nm\r\n--b--");
        let form = kind.read(body.as_bytes()).unwrap();
        assert_eq!((form.files, form.fields.len()), (1, usize::from(is_value)), "{named}");
    }
}

#[test]
fn a_semicolon_may_begin_a_field() {
    let form = FormKind::UrlEncoded.read(b"prompt=a;mod%65l=b;c&x=%3Bn=2").unwrap();
    assert_eq!((form.fields.len(), form.doubtful), (2, vec!["model".to_owned(), "c".to_owned()]));
}

#[test]
fn plain_fields_are_decoded() {
    let kind = FormKind::UrlEncoded;
    let body = b"mod%65l=gpt+4%2B&n=2&&x&prompt=%zz";
    assert_eq!(fields(&kind, body), pairs(&[("model", "gpt 4+"), ("n", "2"), ("x", ""), ("prompt", "%zz")]));
    assert_eq!(kind.with_model(body, "a b").as_deref(), Some(&b"mod%65l=a%20b&n=2&&x&prompt=%zz"[..]));
    assert_eq!(kind.with_model(b"n=2", "m"), None);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(body: Vec<u8>, text in "[-b\\r\\n:;=\"a-z ]{0,80}") {
        let kind = FormKind::Multipart(b"b".as_slice().into());
        for body in [&body[..], text.as_bytes()] {
            let _ = (kind.with_model(body, "m"), FormKind::UrlEncoded.with_model(body, "m"));
        }
    }

    #[test]
    fn a_renamed_form_is_the_same_but_for_its_model(value in "[ -~]{1,20}", other in "[ -~]{0,20}", model in "[a-z/.:-]{1,20}") {
        prop_assume!([&value, &other, &model].iter().all(|text| !text.contains("--b")));
        let part = |name: &str, value: &str| format!("--b\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        let body = [part("x", &other), part("model", &value), "--b--".to_owned()].concat();
        let kind = FormKind::Multipart(b"b".as_slice().into());
        let renamed = kind.with_model(body.as_bytes(), &model).unwrap();
        prop_assert_eq!(fields(&kind, &renamed), pairs(&[("x", &other), ("model", &model)]));
    }
}
