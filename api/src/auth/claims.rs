//! Claims to a caller: pure.

use super::verify::{LEEWAY_SECONDS, Refusal};
use super::{Caller, Role};
use crate::validate;
use serde_json::{Map, Value};
use smartpulse_config::ClaimNames;
use uuid::Uuid;

/// The most companies that a token may name.
const COMPANIES_MAX: usize = 100;

/// The caller that the claims of a checked token describe.
pub(super) fn caller(names: &ClaimNames, claims: &Map<String, Value>) -> Result<Caller, Refusal> {
    let user = claims.get(&names.user).and_then(Value::as_str).and_then(validate::id);
    let user = user.and_then(|text| Uuid::try_parse(&text).ok()).ok_or(Refusal::User)?;
    // A list may name roles of other systems too.
    let roles = texts(claims.get(&names.role)).ok_or(Refusal::Role)?;
    let role = roles.into_iter().filter_map(Role::parse).max().ok_or(Refusal::Role)?;
    let companies = texts(claims.get(&names.company)).ok_or(Refusal::Company)?;
    if companies.len() > COMPANIES_MAX {
        return Err(Refusal::Company);
    }
    let mut companies: Vec<Box<str>> = companies
        .into_iter()
        .map(|text| validate::id(text).map(Into::into).ok_or(Refusal::Company))
        .collect::<Result<_, _>>()?;
    companies.sort();
    companies.dedup();
    // Checked with the signature; here it is only read. A fraction is rounded, as the check did.
    let fraction = |exp: &Value| exp.as_f64().map(|exp| exp.round() as u64);
    let expires_at = claims.get("exp").and_then(|exp| exp.as_u64().or_else(|| fraction(exp)));
    let expires_at = expires_at.ok_or(Refusal::Claims)?.saturating_add(LEEWAY_SECONDS);
    Ok(Caller { user, role, companies: companies.into(), expires_at })
}

/// A text or a list of texts; none for an absent claim.
fn texts(claim: Option<&Value>) -> Option<Vec<&str>> {
    match claim {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::String(text)) => Some(vec![text]),
        Some(Value::Array(items)) => items.iter().map(Value::as_str).collect(),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const USER: &str = "0b0a1c60-0000-4000-8000-000000000001";
    const A: &str = "0b0a1c60-0000-4000-8000-00000000000a";
    const B: &str = "0b0a1c60-0000-4000-8000-00000000000b";

    fn check(claims: &Value, expected: Result<(Role, &[&str]), Refusal>) {
        let names = ClaimNames { user: "sub".into(), role: "roles".into(), company: "company".into() };
        let Value::Object(map) = claims else { panic!("claims are an object") };
        let found = caller(&names, map);
        let found = found.as_ref().map(|c| (c.role, c.companies.iter().map(|c| &**c).collect::<Vec<_>>()));
        assert_eq!(found.map_err(|refusal| *refusal), expected.map(|(role, of)| (role, of.to_vec())), "{claims}");
    }

    #[test]
    fn claims_are_texts_or_lists_and_the_highest_role_counts() {
        check(&json!({"sub": USER, "exp": 7, "roles": "viewer", "company": A}), Ok((Role::Viewer, &[A])));
        check(
            &json!({"sub": USER, "exp": 7.5, "roles": ["other", "editor", "viewer"], "company": [B, A.to_uppercase(), A]}),
            Ok((Role::Editor, &[A, B])),
        );
        check(&json!({"sub": USER, "exp": 7, "roles": "admin"}), Ok((Role::Admin, &[])));
        check(&json!({"sub": USER, "exp": 7, "roles": "admin", "company": null}), Ok((Role::Admin, &[])));
    }

    #[test]
    fn a_token_ends_when_its_check_says_so() {
        let names = ClaimNames { user: "sub".into(), role: "role".into(), company: "company".into() };
        for (exp, ends) in [(json!(7), 7), (json!(7.4), 7), (json!(7.5), 8)] {
            let Value::Object(claims) = json!({"sub": USER, "exp": exp, "role": "viewer"}) else { unreachable!() };
            assert_eq!(caller(&names, &claims).unwrap().expires_at, ends + LEEWAY_SECONDS, "{exp}");
        }
    }

    #[test]
    fn claims_that_say_nobody_are_refused() {
        for (claims, refusal) in [
            (json!({"exp": 7, "roles": "admin"}), Refusal::User),
            (json!({"sub": "root", "exp": 7, "roles": "admin"}), Refusal::User),
            (json!({"sub": 7, "exp": 7, "roles": "admin"}), Refusal::User),
            (json!({"sub": USER, "exp": 7}), Refusal::Role),
            (json!({"sub": USER, "exp": 7, "roles": "Admin"}), Refusal::Role),
            (json!({"sub": USER, "exp": 7, "roles": ["admin", 7]}), Refusal::Role),
            (json!({"sub": USER, "exp": 7, "roles": "viewer", "company": "acme"}), Refusal::Company),
            (json!({"sub": USER, "exp": 7, "roles": "viewer", "company": [A, 7]}), Refusal::Company),
            (json!({"sub": USER, "exp": 7, "roles": "viewer", "company": vec![A; 101]}), Refusal::Company),
            (json!({"sub": USER, "roles": "viewer"}), Refusal::Claims),
        ] {
            check(&claims, Err(refusal));
        }
    }
}
