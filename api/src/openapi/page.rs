//! The human page: the description as one HTML document, made here and not in the browser.

use serde_json::Value;
use std::fmt::Write;

const HEAD: &str = "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\
<title>SmartPulse API</title><style>\
body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem;color:#1a202c}\
h2{margin-top:2.5rem;font-size:1.05rem}code{background:#edf2f7;padding:.1rem .3rem;border-radius:.2rem}\
.m{display:inline-block;min-width:4rem;font-weight:600;color:#2b6cb0}\
table{border-collapse:collapse;width:100%;font-size:.9rem}td{border-top:1px solid #e2e8f0;padding:.3rem .6rem .3rem 0;\
vertical-align:top}@media(prefers-color-scheme:dark){body{background:#1a202c;color:#e2e8f0}code{background:#2d3748}\
td{border-color:#4a5568}.m{color:#63b3ed}}</style>";

/// The page of a description.
pub(super) fn render(document: &Value) -> String {
    let mut out = HEAD.to_owned();
    let text = |value: &Value| escape(value.as_str().unwrap_or_default());
    let _ = write!(
        out,
        "<h1>{}</h1><p>{}</p><p>For programs: <a href=/openapi.json><code>/openapi.json</code></a></p>",
        text(&document["info"]["title"]),
        text(&document["info"]["description"])
    );
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in item.as_object().into_iter().flatten() {
            let _ = write!(
                out,
                "<h2><span class=m>{}</span> <code>{}</code></h2><p>{} {}</p><table>",
                escape(&method.to_uppercase()),
                escape(path),
                text(&operation["summary"]),
                text(&operation["description"])
            );
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let (name, place) = (text(&parameter["name"]), text(&parameter["in"]));
                let about = text(&parameter["description"]);
                let _ = write!(out, "<tr><td><code>{name}</code><td>{place}<td>{about}");
            }
            for (kind, body) in operation["requestBody"]["content"].as_object().into_iter().flatten() {
                let _ = write!(out, "<tr><td>body<td><code>{}</code><td>{}", escape(kind), schema(&body["schema"]));
            }
            for (status, response) in operation["responses"].as_object().into_iter().flatten() {
                let _ = write!(out, "<tr><td>{}<td><td>{}", escape(status), text(&response["description"]));
            }
            out.push_str("</table>");
        }
    }
    out.push_str("<h1>Bodies</h1>");
    for (name, described) in document["components"]["schemas"].as_object().into_iter().flatten() {
        let _ = write!(out, "<h2 id={0}>{0}</h2><p>{1}</p><table>", escape(name), text(&described["description"]));
        for (member, of) in described["properties"].as_object().into_iter().flatten() {
            let _ = write!(
                out,
                "<tr><td><code>{}</code><td>{}<td>{}",
                escape(member),
                schema(of),
                text(&of["description"])
            );
        }
        out.push_str("</table>");
    }
    out
}

/// The type of a schema, in a few words.
fn schema(of: &Value) -> String {
    if let Some(target) = of["$ref"].as_str().and_then(|target| target.rsplit('/').next()) {
        return format!("<a href=#{0}>{0}</a>", escape(target));
    }
    if let Some(items) = of.get("items") {
        return format!("list of {}", schema(items));
    }
    let kind = match &of["type"] {
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "),
        kind => kind.as_str().unwrap_or("any").to_owned(),
    };
    match of["format"].as_str() {
        Some(format) => escape(&format!("{kind} ({format})")),
        None => escape(&kind),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn texts_are_escaped_and_nothing_is_left_out() {
        let page = render(&json!({
            "info": {"title": "T", "description": "<script>"},
            "paths": {"/a/{id}": {"get": {"summary": "Reads.", "parameters": [{"name": "id", "in": "path"}],
                "responses": {"200": {"description": "it"}}}}},
            "components": {"schemas": {"One": {"properties": {"n": {"type": ["number", "null"]}}}}}
        }));
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script>"), "{page}");
        for part in ["<code>/a/{id}</code>", "Reads.", "<code>id</code>", "<td>200", "number or null"] {
            assert!(page.contains(part), "{part} is not in {page}");
        }
    }
}
