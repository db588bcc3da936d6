//! Every coding, split anywhere, cut, broken and bounded.

use std::io::Write;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use proptest::prelude::*;

use super::*;

fn encoded(coding: Coding, body: &[u8]) -> Vec<u8> {
    match coding {
        Coding::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap()
        }
        Coding::Deflate => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap()
        }
        Coding::Zstd => zstd::encode_all(body, 3).unwrap(),
        Coding::Brotli => {
            let mut out = Vec::new();
            let parameters = brotli::enc::BrotliEncoderParams { quality: 3, ..Default::default() };
            brotli::BrotliCompress(&mut &*body, &mut out, &parameters).unwrap();
            out
        }
    }
}

fn raw_deflate(body: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

const ALL: [Coding; 4] = [Coding::Gzip, Coding::Deflate, Coding::Zstd, Coding::Brotli];

fn in_pieces(coding: Coding, bytes: &[u8], size: usize) -> Result<(Vec<u8>, bool), Fault> {
    let mut decoder = Decoder::new(&[coding]).unwrap();
    let mut out = Vec::new();
    for piece in bytes.chunks(size.max(1)) {
        decoder.feed(piece, &mut |piece| {
            assert!(piece.len() <= PIECE);
            out.extend_from_slice(piece);
            true
        })?;
    }
    Ok((out, decoder.is_whole()))
}

#[test]
fn names_are_read_as_clients_write_them() {
    let read = |values: &[&str]| codings(values.iter().map(|value| value.as_bytes()));
    assert_eq!(read(&[]), Some(vec![]));
    assert_eq!(read(&["identity"]), Some(vec![]));
    assert_eq!(read(&[" GZip "]), Some(vec![Coding::Gzip]));
    assert_eq!(read(&["x-gzip, identity", "zstd"]), Some(vec![Coding::Gzip, Coding::Zstd]));
    assert_eq!(read(&["br"]), Some(vec![Coding::Brotli]));
    assert_eq!(read(&["deflate"]), Some(vec![Coding::Deflate]));
    assert_eq!(read(&["compress"]), None);
    assert_eq!(read(&["gzip,gzip,gzip"]), None, "three layers nobody means to send");
}

#[test]
fn what_is_whole_comes_out_whole() {
    let body = "a river that runs ".repeat(10_000).into_bytes();
    for coding in ALL {
        let bytes = encoded(coding, &body);
        assert_eq!(Decoder::whole(&[coding], &bytes, body.len()).as_deref(), Ok(&*body), "{coding:?}");
        assert_eq!(Decoder::whole(&[coding], &bytes, body.len() - 1), Err(Fault::Stopped), "{coding:?}");
        assert_eq!(Decoder::whole(&[coding], bytes.get(..bytes.len() - 1).unwrap(), 1 << 20), Err(Fault::Corrupt));
        assert_eq!(Decoder::whole(&[coding], b"{\"model\":\"m\"}", 1 << 20), Err(Fault::Corrupt), "{coding:?}");
        for size in [1, 7, 1_000] {
            assert_eq!(in_pieces(coding, &bytes, size), Ok((body.clone(), true)), "{coding:?} by {size}");
        }
    }
    assert_eq!(in_pieces(Coding::Deflate, &raw_deflate(&body), 3), Ok((body.clone(), true)), "without zlib's frame");
    let twice = encoded(Coding::Zstd, &encoded(Coding::Gzip, &body));
    assert_eq!(Decoder::whole(&[Coding::Gzip, Coding::Zstd], &twice, 1 << 20).as_deref(), Ok(&*body));
    let members = [encoded(Coding::Gzip, b"ab"), encoded(Coding::Gzip, b"cd")].concat();
    assert_eq!(Decoder::whole(&[Coding::Gzip], &members, 9).as_deref(), Ok(&b"abcd"[..]), "two members");
    let frames = [encoded(Coding::Zstd, b"ab"), encoded(Coding::Zstd, b"cd")].concat();
    assert_eq!(Decoder::whole(&[Coding::Zstd], &frames, 9).as_deref(), Ok(&b"abcd"[..]), "two frames");
    assert_eq!(Decoder::whole(&[], b"plain", 9).as_deref(), Ok(&b"plain"[..]));
    for coding in ALL {
        assert_eq!(Decoder::whole(&[coding], &encoded(coding, b""), 9).as_deref(), Ok(&b""[..]), "{coding:?}");
    }
}

#[test]
fn a_bomb_is_left_when_there_is_enough() {
    let bomb = vec![0; 64 << 20];
    for coding in ALL {
        let bytes = encoded(coding, &bomb);
        let mut seen = 0;
        let mut decoder = Decoder::new(&[coding]).unwrap();
        let stopped = decoder.feed(&bytes, &mut |piece| {
            seen += piece.len();
            seen <= 100_000
        });
        assert_eq!(stopped, Err(Fault::Stopped), "{coding:?}");
        assert!(seen <= 100_000 + PIECE, "{coding:?} went on for {seen} bytes");
    }
}

#[test]
fn a_large_window_is_refused() {
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.set_parameter(zstd::stream::raw::CParameter::WindowLog(27)).unwrap();
    encoder.write_all(&vec![7; 1 << 20]).unwrap();
    assert_eq!(Decoder::whole(&[Coding::Zstd], &encoder.finish().unwrap(), 2 << 20), Err(Fault::Corrupt));
}

proptest! {
    #[test]
    fn any_split_yields_the_same(body in prop::collection::vec(any::<u8>(), 0..3_000), size in 1_usize..400, which in 0_usize..4) {
        let coding = ALL[which];
        prop_assert_eq!(in_pieces(coding, &encoded(coding, &body), size), Ok((body, true)));
    }

    #[test]
    fn no_bytes_make_it_panic_or_hang(mut bytes in prop::collection::vec(any::<u8>(), 0..300), at: prop::sample::Index,
        with: u8, size in 1_usize..50, which in 0_usize..4) {
        let coding = ALL[which];
        let _ = in_pieces(coding, &bytes, size);
        let mut broken = encoded(coding, &bytes.repeat(3));
        let place = at.index(broken.len());
        broken[place] = with;
        let _ = in_pieces(coding, &broken, size);
        bytes.truncate(1);
        let _ = in_pieces(coding, &bytes, size);
    }
}
