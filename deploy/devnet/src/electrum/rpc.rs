//! JSON-RPC as the Electrum protocol uses it: one value a line, alone or as a batch.

use bytes::{BufMut, BytesMut};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Requests in one batch; libraries that batch at all stay around 100.
const MAX_BATCH: usize = 2_000;
/// Bytes of the reply to one line; what does not fit is answered by an error.
const MAX_REPLY: usize = 16 * 1024 * 1024;

/// Why a request got no result: the code and text that the client receives.
#[derive(Debug)]
pub(super) struct RpcError {
    code: i32,
    message: String,
}

impl RpcError {
    /// The line is not JSON.
    pub(super) fn parse(message: impl ToString) -> Self {
        Self { code: -32700, message: message.to_string() }
    }

    /// JSON, but no request.
    pub(super) fn invalid_request(message: impl ToString) -> Self {
        Self { code: -32600, message: message.to_string() }
    }

    /// A method that this server does not have.
    pub(super) fn unknown_method(method: &str) -> Self {
        Self { code: -32601, message: format!("unknown method {method:?}") }
    }

    /// A parameter is missing or of the wrong kind.
    pub(super) fn invalid_params(message: impl ToString) -> Self {
        Self { code: -32602, message: message.to_string() }
    }

    /// A well-formed request that cannot be met (`BAD_REQUEST` of ElectrumX).
    pub(super) fn refused(message: impl ToString) -> Self {
        Self { code: 1, message: message.to_string() }
    }

    fn to_json(&self) -> Value {
        json!({ "code": self.code, "message": self.message })
    }
}

/// The parameters of one request, by position.
pub(super) struct Params(Vec<Value>);

impl Params {
    /// The parameter at `index`.
    ///
    /// # Errors
    /// It is missing or of another type.
    pub(super) fn get<T: DeserializeOwned>(&self, index: usize) -> Result<T, RpcError> {
        let value =
            self.0.get(index).ok_or_else(|| RpcError::invalid_params(format!("parameter {index} is missing")))?;
        T::deserialize(value).map_err(|error| RpcError::invalid_params(format!("parameter {index}: {error}")))
    }

    /// The parameter at `index`, or the type's default where it is left out or null.
    ///
    /// # Errors
    /// It is of another type.
    pub(super) fn get_or_default<T: DeserializeOwned + Default>(&self, index: usize) -> Result<T, RpcError> {
        match self.0.get(index) {
            None | Some(Value::Null) => Ok(T::default()),
            Some(_) => self.get(index),
        }
    }

    /// A parameter that is text on the wire: a hash, for example.
    ///
    /// # Errors
    /// It is missing, not text, or does not parse.
    pub(super) fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(&self, index: usize) -> Result<T, RpcError> {
        let text: String = self.get(index)?;
        text.parse().map_err(|error| RpcError::invalid_params(format!("parameter {index}: {error}")))
    }
}

/// Answers one line; `answer` is asked once for each request in it.
pub(super) fn handle_line(
    line: &[u8],
    out: &mut BytesMut,
    mut answer: impl FnMut(&str, &Params) -> Result<Value, RpcError>,
) {
    match serde_json::from_slice(line) {
        Err(error) => write_error(out, RpcError::parse(error)),
        Ok(Value::Array(requests)) if requests.is_empty() => {
            write_error(out, RpcError::invalid_request("an empty batch"));
        }
        Ok(Value::Array(requests)) if requests.len() > MAX_BATCH => {
            write_error(out, RpcError::invalid_request(format!("a batch of more than {MAX_BATCH}")));
        }
        Ok(Value::Array(requests)) => write_batch(out, requests, answer),
        Ok(request) => {
            if let Some(reply) = reply(request, MAX_REPLY, &mut answer) {
                write_line(out, &reply);
            }
        }
    }
}

/// Tells the client something that it did not ask for just now.
pub(super) fn notify(out: &mut BytesMut, method: &str, params: Value) {
    let note = json!({ "jsonrpc": "2.0", "method": method, "params": params });
    write_line(out, note.to_string().as_bytes());
}

/// An error that belongs to no request.
pub(super) fn write_error(out: &mut BytesMut, error: RpcError) {
    write_line(out, &encode(Value::Null, Err(error)));
}

fn write_batch(
    out: &mut BytesMut,
    requests: Vec<Value>,
    mut answer: impl FnMut(&str, &Params) -> Result<Value, RpcError>,
) {
    let mut batch = Vec::new();
    for request in requests {
        let room = MAX_REPLY.saturating_sub(batch.len());
        if let Some(reply) = reply(request, room, &mut answer) {
            batch.push(if batch.is_empty() { b'[' } else { b',' });
            batch.extend(reply);
        }
    }
    // A batch of notifications alone has no reply.
    if !batch.is_empty() {
        batch.push(b']');
        write_line(out, &batch);
    }
}

/// The encoded reply to one request, `None` for a notification; `room` is the most bytes it may have.
fn reply(
    request: Value,
    room: usize,
    answer: &mut impl FnMut(&str, &Params) -> Result<Value, RpcError>,
) -> Option<Vec<u8>> {
    let Value::Object(mut request) = request else {
        return Some(encode(Value::Null, Err(RpcError::invalid_request("neither an object nor an array"))));
    };
    let id = request.remove("id");
    let result = match (request.remove("method"), request.remove("params")) {
        (Some(Value::String(method)), Some(Value::Array(params))) => answer(&method, &Params(params)),
        (Some(Value::String(method)), None) => answer(&method, &Params(Vec::new())),
        (Some(Value::String(_)), Some(_)) => Err(RpcError::invalid_params("parameters go by position, in an array")),
        _ => Err(RpcError::invalid_request("no method")),
    };
    let id = id?;
    let reply = encode(id.clone(), result);
    if reply.len() > room {
        return Some(encode(id, Err(RpcError::refused("excessive resource usage: the reply is too large"))));
    }
    Some(reply)
}

fn encode(id: Value, result: Result<Value, RpcError>) -> Vec<u8> {
    let reply = match result {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Err(error) => json!({ "jsonrpc": "2.0", "id": id, "error": error.to_json() }),
    };
    reply.to_string().into_bytes()
}

fn write_line(out: &mut BytesMut, line: &[u8]) {
    out.reserve(line.len().saturating_add(1));
    out.put_slice(line);
    out.put_u8(b'\n');
}
