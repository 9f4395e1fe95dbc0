//! Lists, read as they come: one object at a time is decoded, what is needed of it is kept, and the rest is forgotten.
//! Neither a page nor what others have written into their objects is ever held whole.

use std::fmt::Debug;
use std::pin::pin;

use futures::AsyncBufReadExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use kube::api::ListParams;
use kube::core::Request;
use kube::{Api, Resource};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Error, IgnoredAny};

use super::Fault;
use super::observe::{answered, fault};

/// Objects per page of a list: what the API server holds at once for us.
const PAGE: u32 = 50;

/// What `keep` takes of each object, page after page; a list that expires between two pages begins anew with the next
/// try.
pub(super) async fn list<K, T>(
    api: &Api<K>,
    params: ListParams,
    path: &str,
    mut keep: impl FnMut(K) -> Option<T>,
) -> Result<Vec<T>, Fault>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let (mut all, mut token) = (vec![], String::new());
    loop {
        let mut params = params.clone().limit(PAGE);
        if !token.is_empty() {
            params = params.continue_token(&token);
        }
        let page = page(api, &params, |object| all.extend(keep(object)));
        token = answered("list", path, page).await?.map_err(|error| fault(&error, "list", path))?;
        if token.is_empty() {
            return Ok(all);
        }
    }
}

/// The token of the next page.
async fn page<K>(api: &Api<K>, params: &ListParams, mut each: impl FnMut(K)) -> kube::Result<String>
where
    K: Resource + Clone + DeserializeOwned,
{
    let request = Request::new(api.resource_url()).list(params).map_err(kube::Error::BuildRequest)?;
    let mut body = pin!(api.clone().into_client().request_stream(request).await?);
    let mut cutter = Cutter::default();
    loop {
        let chunk = body.fill_buf().await.map_err(kube::Error::ReadEvents)?;
        if chunk.is_empty() {
            return cutter.token().map_err(kube::Error::SerdeError);
        }
        let length = chunk.len();
        let take = |object: &[u8]| serde_json::from_slice(object).map(&mut each);
        cutter.feed(chunk, take).map_err(kube::Error::SerdeError)?;
        body.consume_unpin(length);
    }
}

/// Cuts the objects out of a list's JSON.
#[derive(Default)]
struct Cutter {
    depth: usize,
    /// Within a string, and behind a backslash in it.
    text: bool,
    escaped: bool,
    /// Among the objects.
    inside: bool,
    /// The object that has begun.
    object: Vec<u8>,
    /// All that is no object.
    rest: Vec<u8>,
}

impl Cutter {
    fn feed(
        &mut self,
        chunk: &[u8],
        mut take: impl FnMut(&[u8]) -> Result<(), serde_json::Error>,
    ) -> Result<(), serde_json::Error> {
        let mut from = 0; // what is before it is put away
        for (at, byte) in chunk.iter().enumerate() {
            if self.text {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.text = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.text = true,
                b'{' | b'[' => {
                    self.depth += 1;
                    if self.inside && self.depth == 3 {
                        self.object.clear(); // a comma
                        from = at;
                    } else if self.depth == 2 && *byte == b'[' {
                        self.put(&chunk[from..=at]);
                        from = at + 1;
                        self.inside = is_of_objects(&self.rest);
                    }
                }
                b'}' | b']' => {
                    self.depth = self.depth.checked_sub(1).ok_or_else(|| serde_json::Error::custom("no list"))?;
                    if self.inside && self.depth == 2 {
                        self.put(&chunk[from..=at]);
                        from = at + 1;
                        take(&self.object)?;
                        self.object.clear();
                    } else if self.inside && self.depth == 1 {
                        self.inside = false;
                        from = at;
                    }
                }
                _ => {}
            }
        }
        self.put(&chunk[from..]);
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) {
        let into = if self.inside { &mut self.object } else { &mut self.rest };
        into.extend_from_slice(bytes);
    }

    /// Of the page behind this one; empty if there is none. An error where the list has no end.
    fn token(&self) -> Result<String, serde_json::Error> {
        #[derive(Deserialize)]
        struct List {
            #[serde(default)]
            metadata: ListMeta,
            #[serde(rename = "items")]
            _items: IgnoredAny,
        }
        let list: List = serde_json::from_slice(&self.rest)?;
        Ok(list.metadata.continue_.unwrap_or_default())
    }
}

/// The bracket that has just been opened, at the list's own level, is that of its items.
fn is_of_objects(rest: &[u8]) -> bool {
    let key = rest.strip_suffix(b"[").unwrap_or(rest).trim_ascii_end();
    key.strip_suffix(b":").is_some_and(|key| key.trim_ascii_end().ends_with(b"\"items\""))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The objects and the token, of a text that comes in chunks of so many bytes.
    fn cut(text: &str, size: usize) -> Result<(Vec<Value>, String), serde_json::Error> {
        let (mut cutter, mut all) = (Cutter::default(), vec![]);
        for chunk in text.as_bytes().chunks(size) {
            cutter.feed(chunk, |object| serde_json::from_slice(object).map(|object| all.push(object)))?;
        }
        Ok((all, cutter.token()?))
    }

    #[test]
    fn objects_are_cut_wherever_a_chunk_ends() {
        let odd = json!({ "a": "]}\"\\{[,", "items": [[1], { "b": [] }], "\"items\":[": {} });
        let all = json!([{ "metadata": {} }, odd, {}, { "last": true }]);
        let metadata = json!({ "continue": "next", "remainingItemCount": 2, "odd": { "items": [{ "c": 1 }] } });
        let list = json!({ "kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": all, "x": [{}] });
        let behind = format!("{{\"items\": {all},\n \"metadata\": {metadata}}}");
        for text in [list.to_string(), serde_json::to_string_pretty(&list).unwrap(), behind] {
            for size in 1..=text.len() {
                let (objects, token) = cut(&text, size).unwrap();
                assert_eq!((Value::from(objects), token.as_str()), (all.clone(), "next"), "{size}: {text}");
            }
        }
    }

    #[test]
    fn a_list_without_objects_is_one_and_half_a_list_is_none() {
        for empty in
            [r#"{"items":[]}"#, r#"{"metadata":{"continue":""},"items":null}"#, r#"{"items":[ ],"metadata":{}}"#]
        {
            assert_eq!(cut(empty, 5).unwrap(), (vec![], String::new()), "{empty}");
        }
        let none =
            ["", "{}", r#"{"kind":"Status"}"#, r#"{"items":[{"a":1}"#, r#"{"items":[{"a":1}]"#, "]", "not found"];
        for none in none {
            assert!(cut(none, 5).is_err(), "{none}");
        }
    }
}
