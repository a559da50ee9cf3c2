//! llama.cpp's quantiser, which `llama-cpp-2` doesn't wrap.

use crate::args::QuantizeArgs;
use crate::commands;
use crate::engine;
use crate::exit::{Failure, Reason};
use crate::gguf::Gguf;
use crate::prepare;
use llama_cpp_sys_2 as sys;
use serde_json::{Value, json};
use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};

/// Precisions by name.
const PRECISIONS: [(&str, sys::llama_ftype); 14] = [
    ("F32", sys::LLAMA_FTYPE_ALL_F32),
    ("F16", sys::LLAMA_FTYPE_MOSTLY_F16),
    ("BF16", sys::LLAMA_FTYPE_MOSTLY_BF16),
    ("Q8_0", sys::LLAMA_FTYPE_MOSTLY_Q8_0),
    ("Q6_K", sys::LLAMA_FTYPE_MOSTLY_Q6_K),
    ("Q5_K_M", sys::LLAMA_FTYPE_MOSTLY_Q5_K_M),
    ("Q5_0", sys::LLAMA_FTYPE_MOSTLY_Q5_0),
    ("Q5_1", sys::LLAMA_FTYPE_MOSTLY_Q5_1),
    ("Q4_K_M", sys::LLAMA_FTYPE_MOSTLY_Q4_K_M),
    ("Q4_K_S", sys::LLAMA_FTYPE_MOSTLY_Q4_K_S),
    ("Q4_0", sys::LLAMA_FTYPE_MOSTLY_Q4_0),
    ("Q4_1", sys::LLAMA_FTYPE_MOSTLY_Q4_1),
    ("Q3_K_M", sys::LLAMA_FTYPE_MOSTLY_Q3_K_M),
    ("Q2_K", sys::LLAMA_FTYPE_MOSTLY_Q2_K),
];

/// Quantizes a file; the output appears only when it is whole.
///
/// # Errors
/// Where the precision is unknown, the input is no model, or the output can't be written.
pub fn run(args: &QuantizeArgs) -> Result<Value, Failure> {
    let known = || PRECISIONS.map(|(name, _)| name).join(", ");
    let wanted = args.precision.to_ascii_uppercase();
    let precision = PRECISIONS.iter().find(|(name, _)| *name == wanted).map(|(_, precision)| *precision);
    let precision = precision.ok_or_else(|| {
        Failure::new(Reason::BadConfig, format!("--type {}: not known; {} are", args.precision, known()))
    })?;
    let (input, _) = prepare::inspect(&args.input)?;
    let system = |error: std::io::Error| {
        Failure::new(Reason::SystemFailed, format!("writing {}: {error}", args.output.display()))
    };
    engine::llama::backend().map_err(|error| Failure::new(Reason::EngineFailed, error.to_string()))?;
    let partial = partial_path(&args.output);
    let done = quantize(&args.input, &partial, precision);
    if let Err(failure) = done {
        drop(fs::remove_file(&partial));
        return Err(failure);
    }
    let output = Gguf::open(&partial)?;
    fs::File::open(&partial).and_then(|file| file.sync_all()).map_err(system)?;
    fs::rename(&partial, &args.output).map_err(system)?;
    Ok(json!({"precision": wanted, "inputBytes": input.file_bytes, "outputBytes": output.file_bytes}))
}

fn partial_path(output: &Path) -> PathBuf {
    let mut name = output.file_name().unwrap_or_default().to_owned();
    name.push(format!(".partial-{}", std::process::id()));
    output.with_file_name(name)
}

fn quantize(input: &Path, output: &Path, precision: sys::llama_ftype) -> Result<(), Failure> {
    let text = |path: &Path| {
        let bytes = path.as_os_str().as_encoded_bytes();
        CString::new(bytes).map_err(|error| Failure::new(Reason::BadConfig, format!("{}: {error}", path.display())))
    };
    let (from, to) = (text(input)?, text(output)?);
    let threads = i32::try_from(commands::threads()).unwrap_or(1);
    // SAFETY: the defaults are plain data with null pointers; both paths are NUL-terminated and outlive the call, which
    // keeps none of them. llama.cpp catches its own exceptions here and returns non-zero.
    #[expect(unsafe_code, reason = "llama-cpp-2 has no wrapper for the quantiser")]
    let code = unsafe {
        let mut params = sys::llama_model_quantize_default_params();
        params.nthread = threads;
        params.ftype = precision;
        params.allow_requantize = true;
        sys::llama_model_quantize(from.as_ptr(), to.as_ptr(), &raw const params)
    };
    if code == 0 {
        return Ok(());
    }
    let message = format!("quantizing {} to {}: llama.cpp returned {code}", input.display(), output.display());
    Err(Failure::new(Reason::SystemFailed, message))
}
