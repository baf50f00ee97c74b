//! Users of a host, looked up in its `/etc/passwd`. No other source of users is asked.

use std::fs;
use std::io;

/// What is needed to run a program as somebody.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: String,
}

/// Finds a user by name or number.
pub(crate) fn find(wanted: &str) -> io::Result<User> {
    let text = fs::read_to_string("/etc/passwd")?;
    find_in(&text, wanted)
        .ok_or_else(|| io::Error::other(format!("there is no user {wanted} in /etc/passwd")))
}

/// The environment that a program of this user starts with.
pub(crate) fn environment(user: &User) -> [(&'static str, String); 4] {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    [
        ("PATH", path.to_owned()),
        ("HOME", user.home.clone()),
        ("USER", user.name.clone()),
        ("LANG", "C.UTF-8".to_owned()),
    ]
}

fn find_in(passwd: &str, wanted: &str) -> Option<User> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, _] = fields.as_slice() else {
            return None;
        };
        let matches = *name == wanted || *uid == wanted;
        let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
        matches.then(|| User { name: (*name).to_owned(), uid, gid, home: (*home).to_owned() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\npg:x:101:103::/var/lib/pg:/bin/sh\n";
        assert_eq!(find_in(passwd, "pg").unwrap().gid, 103);
        assert_eq!(find_in(passwd, "101").unwrap().name, "pg");
        assert_eq!(find_in(passwd, "nobody"), None);
    }
}
