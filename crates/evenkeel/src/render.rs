//! Turns the daemon's data into text for people: colour and shape for state, reasons beneath.

use std::fmt::Write as _;
use std::io::IsTerminal;

use serde_json::{Value, json};

/// All modules, a line each, then reasons and the state of what connects the nodes.
pub(crate) fn overview(data: &Value, verbose: bool) -> String {
    let mut out = String::new();
    let empty = serde_json::Map::new();
    let modules = data["modules"].as_object().unwrap_or(&empty);
    if modules.is_empty() {
        out += "no module is configured; put one into etc/evenkeel/modules/NAME.toml\n";
    }
    for (name, module) in modules {
        let _ = writeln!(out, "{}", line(data, name, module));
    }
    for (name, module) in modules {
        for reason in module["reasons"].as_array().into_iter().flatten() {
            let shape = shape_of_severity(reason);
            let next = reason["next"][0].as_str().map(|next| format!("  → {next}"));
            let next = next.unwrap_or_default();
            let (code, sentence) = (text(reason, "code"), text(reason, "sentence"));
            let _ = writeln!(out, "{shape} {name}  {code}  {sentence}{next}");
        }
    }
    for reason in data["network_reasons"].as_array().into_iter().flatten() {
        out += &node_reason("network", reason);
    }
    for reason in data["configuration"]["reasons"].as_array().into_iter().flatten() {
        out += &node_reason("configuration", reason);
    }
    for reason in data["watchdog"]["reasons"].as_array().into_iter().flatten() {
        out += &node_reason("watchdog", reason);
    }
    if verbose {
        for name in modules.keys() {
            out += &module(data, name);
        }
    }
    out + &footer(data)
}

/// A reason that concerns no single module.
fn node_reason(of: &str, reason: &Value) -> String {
    let (code, sentence) = (text(reason, "code"), text(reason, "sentence"));
    let facts = reason["evidence"].as_array().into_iter().flatten();
    let facts: String =
        facts.map(|fact| format!("      · {}\n", fact.as_str().unwrap_or("?"))).collect();
    let next = reason["next"][0].as_str().map(|next| format!("  → {next}")).unwrap_or_default();
    format!("{} {of}  {code}  {sentence}{next}\n{facts}", shape_of_severity(reason))
}

/// One module in detail.
pub(crate) fn module(data: &Value, name: &str) -> String {
    let module = &data["modules"][name];
    let mut out = format!("{}\n", line(data, name, module));
    if !module["farm"].is_null() {
        return out + &farm(module) + &checks(data, name) + &reasons(data, module);
    }
    let peer = &module["peer"];
    let row =
        |label: &str, here: String, there: String| format!("  {label:<12}{here:<26}{there}\n");
    let last = &peer["last"];
    if peer.is_null() {
        out += &row("", text(data, "node").to_owned(), String::new());
        out += &row("role", role(module), String::new());
    } else {
        let there =
            |of: fn(&Value) -> String| if last.is_null() { "?".to_owned() } else { of(last) };
        out += &row("", text(data, "node").to_owned(), text(peer, "node").to_owned());
        out += &row("role", role(module), there(role));
        out += &row("data", copy(module), there(copy));
        out += &row("contact", "–".to_owned(), text(peer, "contact").to_owned());
    }
    let vips: Vec<&str> = module["detail"]["addresses_configured"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|vip| vip["address"].as_str())
        .collect();
    let held = module["addresses"].as_bool().unwrap_or(false);
    let here =
        if held { format!("{} {}", vips.join(" "), paint('✔', GREEN)) } else { "–".into() };
    out += &row("address", here, String::new());
    let service = module["service"].as_bool().unwrap_or(false);
    out += &row("application", if service { "runs" } else { "–" }.to_owned(), String::new());
    for path in module["detail"]["replicate"].as_array().into_iter().flatten() {
        out += &row("replicated", path.as_str().unwrap_or("?").to_owned(), String::new());
    }
    if let Some(cap) = module["detail"]["resync_rate"].as_f64() {
        out += &row("resync cap", format!("{}/s", size(cap)), String::new());
    }
    out + &checks(data, name) + &reasons(data, module)
}

/// The nodes of a farm, a line each, with what each serves.
fn farm(module: &Value) -> String {
    let farm = &module["farm"];
    let leader = farm["leader"].as_str();
    let mut out = String::new();
    for member in farm["members"].as_array().into_iter().flatten() {
        let node = text(member, "node");
        let percent = member["percent"].as_u64().unwrap_or(0);
        let state = match (member["heard"].as_bool(), text(member, "part")) {
            (Some(true), "ready") => "serves",
            (Some(true), "draining") => "drains",
            (Some(true), "standby") => "stands by",
            (Some(true), _) => "takes no part",
            _ => "is not heard",
        };
        let leads = if leader == Some(node) { "leads" } else { "" };
        let _ = writeln!(out, "  {node:<12}{percent:>3} %  {state:<14}{leads}");
    }
    out
}

/// The checks of a module, a line each and their evidence.
pub(crate) fn checks(data: &Value, name: &str) -> String {
    let mut out = String::new();
    let now = data["now"].as_u64().unwrap_or(0);
    let empty = serde_json::Map::new();
    let checks = data["modules"][name]["checks"].as_object().unwrap_or(&empty);
    for (name, check) in checks {
        let state = text(check, "state");
        let shape = match state {
            "up" => paint('✔', GREEN),
            "down" => paint('✖', RED),
            "unknown" => paint('↻', BLUE),
            _ => paint('–', GREY),
        };
        let since = ago(now.saturating_sub(check["since"].as_u64().unwrap_or(now)));
        let (looks_at, action) = (text(check, "looks_at"), text(check, "action"));
        let _ = writeln!(
            out,
            "  {shape} check {name:<14} {state} for {since}  [{looks_at}; when down: {action}]"
        );
        for evidence in check["evidence"].as_array().into_iter().flatten() {
            let _ = writeln!(out, "      · {}", evidence.as_str().unwrap_or("?"));
        }
    }
    if checks.is_empty() { "  no checks\n".to_owned() } else { out }
}

/// Why a module is in its state.
pub(crate) fn why(data: &Value, name: &str) -> String {
    let module = &data["modules"][name];
    let headline = text(module, "headline");
    let count = module["reasons"].as_array().map_or(0, Vec::len);
    let checks = checks(data, name);
    // What concerns the whole machine is no matter of the module's state.
    let checks = checks.trim_end();
    let networks = json!({ "reasons": data["network_reasons"] });
    let rest = match reasons(data, &data["watchdog"]) + &reasons(data, &networks) {
        machine if machine.is_empty() => checks.to_owned(),
        machine => format!("{checks}\nand its machine\n{}", machine.trim_end()),
    };
    if count == 0 {
        return format!("{name} is {}; nothing is wrong\n{rest}", spoken(headline));
    }
    let reasons = reasons(data, module);
    format!("{name} is {} because\n{reasons}{rest}", spoken(headline))
}

/// Events, a line each.
pub(crate) fn events(data: &Value) -> String {
    let mut out = String::new();
    for event in data["events"].as_array().into_iter().flatten() {
        let at = clock_time(event["at_ms"].as_u64().unwrap_or(0));
        let shape = shape_of_severity(event);
        let module = event["module"].as_str().unwrap_or("-");
        let (node, code) = (text(event, "node"), text(event, "code"));
        let _ = writeln!(out, "{at} {shape} {node} {module} {code}: {}", text(event, "sentence"));
    }
    if out.is_empty() { "nothing has happened yet".to_owned() } else { out.trim_end().to_owned() }
}

fn line(data: &Value, name: &str, module: &Value) -> String {
    let headline = text(module, "headline");
    let (shape, colour) = shape_of_headline(headline);
    let state = paint_text(&format!("{shape} {:<10}", spoken(headline).to_uppercase()), colour);
    let peer = &module["peer"];
    let mut line = format!(
        "{name:<10} {:<7} {state}  {} {:<22}",
        text(module, "kind"),
        text(data, "node"),
        role(module)
    );
    if peer.is_null() {
        return format!("{}{}", line.trim_end(), share(data, module));
    }
    let last = &peer["last"];
    let there = match text(peer, "contact") {
        "lost" | "listening" => "silent".to_owned(),
        _ if last.is_null() => "silent".to_owned(),
        _ => role(last),
    };
    let _ = write!(line, "{} {there}", text(peer, "node"));
    line + &progress(&module["detail"])
}

/// What the node serves of a farm.
fn share(data: &Value, module: &Value) -> String {
    let own = |member: &&Value| member["node"] == data["node"];
    let members = module["farm"]["members"].as_array();
    let member = members.and_then(|members| members.iter().find(own));
    member.map_or_else(String::new, |member| {
        let percent = member["percent"].as_u64().unwrap_or(0);
        let all = members.map_or(0, Vec::len);
        format!(" {percent} % of the clients, one of {all} nodes")
    })
}

fn progress(detail: &Value) -> String {
    let progress = &detail["progress"];
    if !progress["running"].as_bool().unwrap_or(false) {
        return String::new();
    }
    let number = |key: &str| progress[key].as_f64().unwrap_or(0.0);
    let (done, whole, rate) = (number("bytes"), number("bytes_total"), number("rate"));
    let mut out = format!("  resync {}", size(done));
    if whole > 0.0 {
        let percent = (done * 100.0 / whole).min(100.0);
        let _ = write!(out, " of {} ({percent:.0} %)", size(whole));
    }
    if rate > 0.0 {
        let _ = write!(out, "  {}/s", size(rate));
        if whole > done {
            let _ = write!(out, "  {:.0} s left", (whole - done) / rate);
        }
    }
    if let Some(cap) = detail["resync_rate"].as_f64() {
        let _ = write!(out, "  capped at {}/s", size(cap));
    }
    out
}

fn reasons(data: &Value, module: &Value) -> String {
    let mut out = String::new();
    let now = data["now"].as_u64().unwrap_or(0);
    for reason in module["reasons"].as_array().into_iter().flatten() {
        let since = now.saturating_sub(reason["since"].as_u64().unwrap_or(now));
        let shape = shape_of_severity(reason);
        let (code, sentence) = (text(reason, "code"), text(reason, "sentence"));
        let _ = writeln!(out, "  {shape} {sentence}  [{code}, for {}]", ago(since));
        for evidence in reason["evidence"].as_array().into_iter().flatten() {
            let _ = writeln!(out, "      · {}", evidence.as_str().unwrap_or("?"));
        }
        for next in reason["next"].as_array().into_iter().flatten() {
            let _ = writeln!(out, "      → {}", next.as_str().unwrap_or("?"));
        }
    }
    out
}

fn footer(data: &Value) -> String {
    let mut good = 0;
    let mut all = 0;
    for peers in data["networks"].as_object().into_iter().flatten().map(|(_, peers)| peers) {
        for (_, peer) in peers.as_object().into_iter().flatten() {
            all += 1;
            good += u32::from(peer["silent_ms"].as_u64().is_some_and(|silent| silent < 2000));
        }
    }
    let witness = match &data["witness"] {
        Value::Null => "no witness".to_owned(),
        witness if witness["error"].is_null() && witness["last_answer_ms"].is_u64() => {
            "witness ok".to_owned()
        }
        witness if witness["error"].is_null() => "witness not asked yet".to_owned(),
        witness => format!("witness: {}", text(witness, "error")),
    };
    let (cluster, node) = (text(data, "cluster"), text(data, "node"));
    let certificate = match &data["certificate"]["error"] {
        Value::Null => String::new(),
        _ => format!(" · certificate: {}", text(&data["certificate"], "error")),
    };
    let configuration = match data["configuration"]["number"].as_u64() {
        Some(number) if number > 0 => format!(" · configuration {number}"),
        _ => String::new(),
    };
    let watchdog = match data["watchdog"]["state"].as_str() {
        Some(state) => format!(" · watchdog {state}"),
        None => String::new(),
    };
    format!(
        "cluster {cluster} · seen from {node} · links {good}/{all} · \
         {witness}{watchdog}{certificate}{configuration}"
    )
}

fn role(of: &Value) -> String {
    let role = text(of, "role");
    match text(of, "phase") {
        "ready" => format!("{role} {}", paint('✔', GREEN)),
        "transient" => format!("{role} {}", paint('↻', BLUE)),
        _ => format!("{role} {}", paint('✖', RED)),
    }
}

fn copy(of: &Value) -> String {
    match text(of, "copy") {
        "intact" => "up to date".to_owned(),
        other => other.to_owned(),
    }
}

fn shape_of_headline(headline: &str) -> (char, u8) {
    match headline {
        "protected" | "runs" => ('✔', GREEN),
        "changing" => ('↻', BLUE),
        "at-risk" => ('▲', AMBER),
        "down" => ('✖', RED),
        _ => ('?', GREY),
    }
}

fn shape_of_severity(of: &Value) -> String {
    match text(of, "severity") {
        "critical" => paint('✖', RED),
        "warning" => paint('▲', AMBER),
        _ => paint('·', GREY),
    }
}

fn spoken(headline: &str) -> String {
    headline.replace('-', " ")
}

const RED: u8 = 31;
const GREEN: u8 = 32;
const AMBER: u8 = 33;
const BLUE: u8 = 34;
const GREY: u8 = 90;

fn paint(shape: char, colour: u8) -> String {
    paint_text(&shape.to_string(), colour)
}

fn paint_text(text: &str, colour: u8) -> String {
    let coloured = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    if coloured { format!("\u{1b}[{colour}m{text}\u{1b}[0m") } else { text.to_owned() }
}

fn text<'a>(of: &'a Value, key: &str) -> &'a str {
    of[key].as_str().unwrap_or("?")
}

pub(crate) fn size(bytes: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{value:.0} B") } else { format!("{value:.1} {}", units[unit]) }
}

fn ago(nanoseconds: u64) -> String {
    let seconds = nanoseconds / 1_000_000_000;
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

/// Time of day in UTC, which is the same on all nodes.
pub(crate) fn clock_time(at_ms: u64) -> String {
    let of_day = at_ms / 1000 % 86_400;
    let (hours, minutes, seconds) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}.{:03}Z", at_ms % 1000)
}

/// Date and time of day in UTC, to the second.
pub(crate) fn date_time(at_ms: u64) -> String {
    // Civil date from days, with years that begin in March.
    let days = at_ms / 86_400_000 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let time = clock_time(at_ms);
    format!("{year:04}-{month:02}-{day:02} {}", time.get(..8).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_easily() {
        assert_eq!(size(512.0), "512 B");
        assert_eq!(size(2_831_155.0), "2.7 MiB");
        assert_eq!(ago(90_000_000_000), "90 s");
        assert_eq!(ago(600_000_000_000), "10 min");
        assert_eq!(clock_time(50_531_007), "14:02:11.007Z");
        assert_eq!(date_time(0), "1970-01-01 00:00:00");
        assert_eq!(date_time(951_782_399_000), "2000-02-28 23:59:59");
        assert_eq!(date_time(951_868_800_000), "2000-03-01 00:00:00");
        assert_eq!(date_time(1_796_083_200_000), "2026-12-01 00:00:00");
    }

    #[test]
    fn a_reason_is_shown_with_evidence_and_mend() {
        let data = serde_json::json!({
            "node": "node1", "cluster": "demo", "now": 5_000_000_000_u64,
            "modules": { "shop": {
                "headline": "at-risk", "role": "ALONE", "phase": "ready",
                "peer": { "node": "node2", "contact": "lost", "last": null },
                "reasons": [{
                    "code": "alone", "sentence": "node2 is lost.", "severity": "warning",
                    "since": 1_000_000_000_u64, "evidence": ["silent for 4 s"],
                    "next": ["evenkeel status shop"],
                }],
            }},
        });
        let shown = why(&data, "shop");
        assert!(shown.contains("no checks"), "{shown}");
        assert!(shown.starts_with("shop is at risk because"), "{shown}");
        for part in ["node2 is lost.  [alone, for 4 s]", "· silent for 4 s", "→ evenkeel status"]
        {
            assert!(shown.contains(part), "{shown}");
        }
    }

    #[test]
    fn a_check_is_shown_with_its_time_and_evidence() {
        let data = serde_json::json!({ "now": 5_000_000_000_u64, "modules": { "shop": {
            "checks": { "web": {
                "state": "down", "since": 1_000_000_000_u64, "looks_at": "tcp 127.0.0.1:80",
                "action": "restart", "evidence": ["127.0.0.1:80: Connection refused"],
            }},
        }}});
        let expected = "  ✖ check web            down for 4 s  [tcp 127.0.0.1:80; when down: \
                        restart]\n      · 127.0.0.1:80: Connection refused\n";
        assert_eq!(checks(&data, "shop"), expected);
    }
}
