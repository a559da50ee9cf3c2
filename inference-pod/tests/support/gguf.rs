//! Writes a small Llama with random weights and a byte-level BPE vocabulary: everything that a real file has, in 200 KB.

use std::collections::BTreeMap;
use std::path::Path;

const LAYERS: u32 = 2;
const EMBEDDING: u32 = 64;
const FEED_FORWARD: u32 = 128;
const HEADS: u32 = 4;
const KV_HEADS: u32 = 2;
pub const CONTEXT: u32 = 512;
const ALIGNMENT: usize = 32;

pub const TEMPLATE: &str =
    "{% for m in messages %}<|begin|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}<|begin|>assistant\n";

/// What a test may want to be different.
#[derive(Clone, Debug)]
pub struct Options {
    pub pre: String,
    pub model: String,
    pub template: Option<String>,
    pub add_bos: bool,
    /// One token twice: llama.cpp aborts on that.
    pub duplicate: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pre: "smollm".into(),
            model: "gpt2".into(),
            template: Some(TEMPLATE.into()),
            add_bos: false,
            duplicate: false,
        }
    }
}

#[derive(Clone)]
enum Value {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    Ints(Vec<i32>),
}

/// Byte ↔ visible character, as GPT-2's tokenizer maps them.
fn byte_characters() -> Vec<String> {
    let visible = |byte: u32| (33..=126).contains(&byte) || (161..=172).contains(&byte) || (174..=255).contains(&byte);
    let mut next = 256;
    (0..256)
        .map(|byte| {
            let code = if visible(byte) {
                byte
            } else {
                next += 1;
                next - 1
            };
            char::from_u32(code).unwrap().to_string()
        })
        .collect()
}

fn vocabulary() -> (Vec<String>, Vec<i32>, Vec<String>) {
    let mut tokens: Vec<String> = ["<|begin|>", "<|end|>", "<|pad|>"].map(str::to_owned).to_vec();
    let mut kinds = vec![3, 3, 3];
    tokens.extend(byte_characters());
    kinds.extend([1; 256]);
    let merges = ["Ġ t", "h e", "Ġt he", "i n", "e r", "Ġ a", "o n", "r e", "a n", "Ġ Ġ", "0 0", "1 2", "n d", "Ġa nd"];
    tokens.extend(merges.iter().map(|merge| merge.replace(' ', "")));
    kinds.extend([1; 14]);
    (tokens, kinds, merges.map(str::to_owned).to_vec())
}

/// A repeatable random number in -1..1.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 40) as f32) / ((1_u64 << 23) as f32) - 1.0
    }
}

fn metadata(options: &Options) -> BTreeMap<String, Value> {
    let (mut tokens, kinds, merges) = vocabulary();
    if options.duplicate {
        tokens[200] = tokens[201].clone();
    }
    let mut map = BTreeMap::from([
        ("general.architecture".to_owned(), Value::Text("llama".into())),
        ("general.name".to_owned(), Value::Text("tiny".into())),
        ("llama.block_count".to_owned(), Value::U32(LAYERS)),
        ("llama.context_length".to_owned(), Value::U32(CONTEXT)),
        ("llama.embedding_length".to_owned(), Value::U32(EMBEDDING)),
        ("llama.feed_forward_length".to_owned(), Value::U32(FEED_FORWARD)),
        ("llama.attention.head_count".to_owned(), Value::U32(HEADS)),
        ("llama.attention.head_count_kv".to_owned(), Value::U32(KV_HEADS)),
        ("llama.attention.layer_norm_rms_epsilon".to_owned(), Value::F32(1e-5)),
        ("llama.rope.dimension_count".to_owned(), Value::U32(EMBEDDING / HEADS)),
        ("tokenizer.ggml.model".to_owned(), Value::Text(options.model.clone())),
        ("tokenizer.ggml.pre".to_owned(), Value::Text(options.pre.clone())),
        ("tokenizer.ggml.tokens".to_owned(), Value::Texts(tokens)),
        ("tokenizer.ggml.token_type".to_owned(), Value::Ints(kinds)),
        ("tokenizer.ggml.merges".to_owned(), Value::Texts(merges)),
        ("tokenizer.ggml.bos_token_id".to_owned(), Value::U32(0)),
        ("tokenizer.ggml.eos_token_id".to_owned(), Value::U32(1)),
        ("tokenizer.ggml.padding_token_id".to_owned(), Value::U32(2)),
        ("tokenizer.ggml.add_bos_token".to_owned(), Value::Bool(options.add_bos)),
    ]);
    if let Some(template) = &options.template {
        map.insert("tokenizer.chat_template".into(), Value::Text(template.clone()));
    }
    map
}

fn tensors() -> Vec<(String, Vec<u32>)> {
    let kv = EMBEDDING / HEADS * KV_HEADS;
    let vocabulary = vocabulary().0.len() as u32;
    let mut list = vec![
        ("token_embd.weight".to_owned(), vec![EMBEDDING, vocabulary]),
        ("output_norm.weight".to_owned(), vec![EMBEDDING]),
        ("output.weight".to_owned(), vec![EMBEDDING, vocabulary]),
    ];
    for layer in 0..LAYERS {
        let mut add = |name: &str, shape: &[u32]| list.push((format!("blk.{layer}.{name}.weight"), shape.to_vec()));
        add("attn_norm", &[EMBEDDING]);
        add("attn_q", &[EMBEDDING, EMBEDDING]);
        add("attn_k", &[EMBEDDING, kv]);
        add("attn_v", &[EMBEDDING, kv]);
        add("attn_output", &[EMBEDDING, EMBEDDING]);
        add("ffn_norm", &[EMBEDDING]);
        add("ffn_gate", &[EMBEDDING, FEED_FORWARD]);
        add("ffn_up", &[EMBEDDING, FEED_FORWARD]);
        add("ffn_down", &[FEED_FORWARD, EMBEDDING]);
    }
    list
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U32(number) => out.extend([4_u32.to_le_bytes(), number.to_le_bytes()].concat()),
        Value::F32(number) => out.extend([6_u32.to_le_bytes(), number.to_le_bytes()].concat()),
        Value::Bool(flag) => {
            out.extend(7_u32.to_le_bytes());
            out.push(u8::from(*flag));
        }
        Value::Text(text) => {
            out.extend(8_u32.to_le_bytes());
            put_text(out, text);
        }
        Value::Texts(texts) => {
            out.extend([9_u32.to_le_bytes(), 8_u32.to_le_bytes()].concat());
            out.extend((texts.len() as u64).to_le_bytes());
            texts.iter().for_each(|text| put_text(out, text));
        }
        Value::Ints(numbers) => {
            out.extend([9_u32.to_le_bytes(), 5_u32.to_le_bytes()].concat());
            out.extend((numbers.len() as u64).to_le_bytes());
            numbers.iter().for_each(|number| out.extend(number.to_le_bytes()));
        }
    }
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
}

/// The bytes of the file.
pub fn bytes(options: &Options) -> Vec<u8> {
    let (metadata, tensors) = (metadata(options), tensors());
    let mut out = b"GGUF".to_vec();
    out.extend(3_u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in &metadata {
        put_text(&mut out, key);
        put_value(&mut out, value);
    }
    let mut data = Vec::new();
    let mut random = Random(42);
    for (name, shape) in &tensors {
        put_text(&mut out, name);
        out.extend((shape.len() as u32).to_le_bytes());
        shape.iter().for_each(|size| out.extend(u64::from(*size).to_le_bytes()));
        out.extend(0_u32.to_le_bytes());
        out.extend((data.len() as u64).to_le_bytes());
        let norm = name.contains("norm");
        let scale = if name.starts_with("output.") { 0.6 } else { 0.2 };
        for _ in 0..shape.iter().product::<u32>() {
            let weight = if norm { 1.0 } else { random.next() * scale };
            data.extend(weight.to_le_bytes());
        }
        pad(&mut data);
    }
    pad(&mut out);
    out.extend(data);
    out
}

/// Writes the file.
pub fn write(path: &Path, options: &Options) {
    std::fs::write(path, bytes(options)).unwrap();
}
