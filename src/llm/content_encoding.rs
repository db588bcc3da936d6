//! Decodes bodies by their `Content-Encoding`, in pieces of a bounded size: a small body can decode to a very large one, so
//! whoever reads says when it is enough.

use std::fmt;

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Decoder as ZstdDecoder, Operation};

/// A coding that can be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    Gzip,
    /// With zlib's frame, as RFC 9110 has it, or without, as some clients send it.
    Deflate,
    Zstd,
    Brotli,
}

/// Codings laid over one another are decoded up to this many: nobody means to send more.
const LAYERS_MAX: usize = 2;

/// What is handed out at once, in bytes.
const PIECE: usize = 16 << 10;

/// RFC 9659: no window of more than 8 MiB under `Content-Encoding: zstd`.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Why a body cannot be decoded further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is not what its coding says.
    Corrupt,
    /// Whoever reads has enough.
    Stopped,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Corrupt => "the bytes are not what their coding says",
            Self::Stopped => "the reader has enough",
        })
    }
}

impl std::error::Error for Fault {}

/// The codings that the values of `Content-Encoding` name, in the order in which they were applied; none for `identity`
/// alone. `None`: one is not known here, or there are more than two.
#[must_use]
pub fn codings<'a>(values: impl Iterator<Item = &'a [u8]>) -> Option<Vec<Coding>> {
    let mut found = Vec::new();
    for name in values.flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii) {
        let coding = match name.to_ascii_lowercase().as_slice() {
            b"" | b"identity" => continue,
            b"gzip" | b"x-gzip" => Coding::Gzip,
            b"deflate" => Coding::Deflate,
            b"zstd" => Coding::Zstd,
            b"br" => Coding::Brotli,
            _ => return None,
        };
        found.push(coding);
    }
    (found.len() <= LAYERS_MAX).then_some(found)
}

/// Decodes one body as it comes. Of any length of input it holds the coding's window (gzip and deflate 32 KiB, zstd 8 MiB,
/// Brotli 16 MiB at most) and a piece of 16 KiB.
pub struct Decoder {
    /// The last that was applied comes first.
    layers: Vec<Layer>,
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").field("layers", &self.layers.len()).finish_non_exhaustive()
    }
}

impl Decoder {
    /// `codings` in the order in which they were applied. `None`: there is no memory for it.
    #[must_use]
    pub fn new(codings: &[Coding]) -> Option<Self> {
        let layers = codings.iter().rev().map(|coding| Layer::new(*coding)).collect::<Option<Vec<_>>>()?;
        Some(Self { layers })
    }

    /// Takes the next bytes, and hands out what they decode to: `take` gets at most 16 KiB at once, and says whether it
    /// wants more.
    ///
    /// # Errors
    /// The bytes are not what their coding says, or `take` had enough. Nothing more can be decoded then.
    pub fn feed(&mut self, bytes: &[u8], take: &mut dyn FnMut(&[u8]) -> bool) -> Result<(), Fault> {
        decode(&mut self.layers, bytes, take)
    }

    /// Whether the bytes so far are a whole body.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.layers.iter().all(|layer| layer.ended)
    }

    /// Decodes a body that is in hand.
    ///
    /// # Errors
    /// [`Fault::Stopped`] where it would be longer than `max` bytes, [`Fault::Corrupt`] where it breaks off.
    pub fn whole(codings: &[Coding], body: &[u8], max: usize) -> Result<Vec<u8>, Fault> {
        let mut decoder = Self::new(codings).ok_or(Fault::Corrupt)?;
        let mut out = Vec::new();
        decoder.feed(body, &mut |piece| {
            let fits = out.len() + piece.len() <= max;
            if fits {
                out.extend_from_slice(piece);
            }
            fits
        })?;
        if decoder.is_whole() { Ok(out) } else { Err(Fault::Corrupt) }
    }
}

fn decode(layers: &mut [Layer], bytes: &[u8], take: &mut dyn FnMut(&[u8]) -> bool) -> Result<(), Fault> {
    let Some((first, rest)) = layers.split_first_mut() else {
        return if bytes.chunks(PIECE).all(take) { Ok(()) } else { Err(Fault::Stopped) };
    };
    let mut bytes = bytes;
    let mut piece = [0; PIECE];
    loop {
        let step = first.step(bytes, &mut piece)?;
        decode(rest, piece.get(..step.written).unwrap_or_default(), take)?;
        bytes = bytes.get(step.read..).unwrap_or_default();
        // A full piece may have more behind it; one that is not full is all that the bytes yield.
        if bytes.is_empty() && step.written < piece.len() {
            return Ok(());
        }
        if step.read == 0 && step.written == 0 {
            return Err(Fault::Corrupt);
        }
    }
}

/// One coding of a body.
struct Layer {
    machine: Machine,
    ended: bool,
}

enum Machine {
    Gzip(Decompress),
    /// Nothing came yet that tells which of the two it is.
    Deflate,
    Inflate(Decompress),
    Zstd(Box<ZstdDecoder<'static>>),
    Brotli(Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>),
}

/// How far one call came.
struct Step {
    read: usize,
    written: usize,
    /// Whether the coding's end came.
    ended: bool,
}

/// zlib's largest window, as an exponent of 2.
const ZLIB_WINDOW: u8 = 15;

impl Layer {
    fn new(coding: Coding) -> Option<Self> {
        let machine = match coding {
            Coding::Gzip => Machine::Gzip(Decompress::new_gzip(ZLIB_WINDOW)),
            Coding::Deflate => Machine::Deflate,
            Coding::Zstd => {
                let mut decoder = ZstdDecoder::new().ok()?;
                decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX)).ok()?;
                Machine::Zstd(Box::new(decoder))
            }
            Coding::Brotli => {
                let memory = StandardAlloc::default;
                Machine::Brotli(Box::new(BrotliState::new_strict(memory(), memory(), memory())))
            }
        };
        Some(Self { machine, ended: false })
    }

    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Fault> {
        if input.is_empty() && self.ended {
            return Ok(Step { read: 0, written: 0, ended: true });
        }
        if let (Machine::Deflate, Some(first)) = (&self.machine, input.first()) {
            // The low half of zlib's first byte is its method, 8; deflate's own blocks never begin so.
            self.machine = Machine::Inflate(Decompress::new(first & 0x0f == 8));
        }
        let step = match &mut self.machine {
            Machine::Deflate => Step { read: 0, written: 0, ended: false },
            Machine::Inflate(_) | Machine::Brotli(_) if self.ended => return Err(Fault::Corrupt),
            Machine::Gzip(machine) => {
                if self.ended {
                    // A gzip file may have several members.
                    *machine = Decompress::new_gzip(ZLIB_WINDOW);
                }
                inflate(machine, input, output)?
            }
            Machine::Inflate(machine) => inflate(machine, input, output)?,
            Machine::Zstd(machine) => {
                let status = machine.run_on_buffers(input, output).map_err(|_| Fault::Corrupt)?;
                Step { read: status.bytes_read, written: status.bytes_written, ended: status.remaining == 0 }
            }
            Machine::Brotli(machine) => unbrotli(machine, input, output)?,
        };
        self.ended = step.ended;
        Ok(step)
    }
}

fn inflate(machine: &mut Decompress, input: &[u8], output: &mut [u8]) -> Result<Step, Fault> {
    let (read, written) = (machine.total_in(), machine.total_out());
    let status = machine.decompress(input, output, FlushDecompress::None).map_err(|_| Fault::Corrupt)?;
    // Both differences are bounded by the lengths of the buffers.
    let read = usize::try_from(machine.total_in() - read).unwrap_or(input.len());
    let written = usize::try_from(machine.total_out() - written).unwrap_or(output.len());
    Ok(Step { read, written, ended: status == Status::StreamEnd })
}

fn unbrotli(
    machine: &mut BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>,
    input: &[u8],
    output: &mut [u8],
) -> Result<Step, Fault> {
    let (mut left, mut read, mut room, mut written, mut total) = (input.len(), 0, output.len(), 0, 0);
    let result =
        BrotliDecompressStream(&mut left, &mut read, input, &mut room, &mut written, output, &mut total, machine);
    match result {
        BrotliResult::ResultFailure => Err(Fault::Corrupt),
        result => Ok(Step { read, written, ended: matches!(result, BrotliResult::ResultSuccess) }),
    }
}

#[cfg(test)]
#[path = "content_encoding_tests.rs"]
mod tests;
