//! Tokens as texts, and how often and how long they can be used.

use super::*;

struct Place(PathBuf);

impl Place {
    fn new() -> Place {
        let unique = crate::clock::random();
        Place(std::env::temp_dir().join(format!("evenkeel-tokens-{unique:x}")))
    }

    fn issue(&self) -> Token {
        let cluster = ModuleName::new("demo").unwrap();
        let addresses = vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        Token::issue(&Tokens::new(&self.0), &cluster, addresses, Fingerprint([7; 32])).unwrap()
    }

    fn take(&self, token: &Token) -> Result<(), String> {
        let node = NodeName::new("node2").unwrap();
        Tokens::new(&self.0).take(token.id, (b"hello", &token.proof(b"hello")), &node).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_token_is_read_as_it_is_written_and_nothing_else_is() {
    let token = Place::new().issue();
    let text = token.to_string();
    assert_eq!(text.parse(), Ok(token));
    for length in 0..text.len() {
        assert!(text[..length].parse::<Token>().is_err(), "{length}");
    }
    for wrong in [text.replace("evk1", "evk2"), text.replace("10.0.0.1", "host"), text + "+x"] {
        assert!(wrong.parse::<Token>().is_err(), "{wrong}");
    }
}

#[test]
fn it_can_be_used_once() {
    let place = Place::new();
    let tokens = Tokens::new(&place.0);
    assert!(!tokens.any());
    let token = place.issue();
    assert!(tokens.any());
    let other = Token { secret: [1; 16], ..token.clone() };
    assert!(place.take(&other).unwrap_err().contains("not the one that was made here"));
    assert!(place.take(&Token { id: [1; 8], ..token.clone() }).unwrap_err().contains("no such"));
    tokens.check(token.id, (b"hello", &token.proof(b"hello"))).unwrap().unwrap();
    place.take(&token).unwrap();
    assert!(place.take(&token).unwrap_err().contains("used already, by node2"));
    assert!(!tokens.any());
    tokens.give_back(token.id).unwrap();
    place.take(&token).unwrap();
}

#[test]
fn it_can_be_used_for_an_hour() {
    let place = Place::new();
    let token = place.issue();
    let tokens = Tokens::new(&place.0);
    let aged = tokens.change(|kept, now| {
        kept[0].expires_ms = now - 1;
        Ok(())
    });
    aged.unwrap().unwrap();
    assert!(place.take(&token).unwrap_err().contains("has expired"));
    assert!(!tokens.any());
}
