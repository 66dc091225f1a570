//! An agent's name where nobody gave one: made from the host's.

use countersign_shared::name::{AgentName, Id};

/// An agent's name made from a host name: what does not fit the alphabet becomes `-`.
pub fn name_from_host(host: &str) -> Option<AgentName> {
    let host = host.split('.').next().unwrap_or_default();
    let mut id: String = host
        .chars()
        .map(|char| match char.to_ascii_lowercase() {
            char @ ('a'..='z' | '0'..='9') => char,
            _ => '-',
        })
        .take(57)
        .collect();
    if !id.starts_with(|first: char| first.is_ascii_lowercase()) {
        id.insert_str(0, "agent-");
    }
    let id = id.trim_end_matches('-');
    Id::chosen(id).ok().map(AgentName::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_become_agent_names() {
        for (host, name) in [
            ("edge-1", "agents/edge-1"),
            ("Edge_1.example.com", "agents/edge-1"),
            ("10-0-0-1", "agents/agent-10-0-0-1"),
            ("", "agents/agent"),
            ("ÄÖ", "agents/agent"),
            (&"1".repeat(99), &format!("agents/agent-{}", "1".repeat(57))),
        ] {
            let made = name_from_host(host).map(|it| it.to_string());
            assert_eq!(made.as_deref(), Some(name), "{host}");
        }
    }
}
