//! The commands by which a cluster begins and nodes come and go: `init`, `token`, `join`, `leave`,
//! and by which its key changes. What they do is done by the crate `node` or by the daemon.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

use clap::Args;
use model::{Fingerprint, ModuleName, NetworkName, NodeName};
use node::{Founding, JoinError, Joining, TOKEN_LIFETIME, Token, issue_token};
use serde_json::json;
use wire::control::{Exit, Reply, Verb};

use crate::command::Context;

/// The network that is meant when none is named.
const DEFAULT_NETWORK: &str = "lan0";

/// How a cluster begins.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Name of the cluster.
    #[arg(value_parser = ModuleName::new)]
    cluster: ModuleName,
    /// Address of this node, such as 10.0.0.1; with several networks one each: lan1=10.1.0.1.
    #[arg(long = "address", required = true, value_parser = address)]
    addresses: Vec<(NetworkName, IpAddr)>,
    /// Name of this node; the host name by default.
    #[arg(long, value_parser = NodeName::new)]
    node: Option<NodeName>,
    /// Address of the witness, with or without a port.
    #[arg(long, requires = "fingerprint", value_parser = witness_address)]
    witness: Option<SocketAddr>,
    /// By what the witness is known: `evenkeel witness show` on its machine prints it.
    #[arg(long, requires = "witness")]
    fingerprint: Option<Fingerprint>,
}

/// For whom a token is made.
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    /// Name of this node in cluster.toml; the host name by default.
    #[arg(long, value_parser = NodeName::new)]
    node: Option<NodeName>,
}

/// How a node joins.
#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// What `evenkeel token` has printed on a node of the cluster, not more than an hour ago.
    token: Token,
    /// Name of this node; the host name by default.
    #[arg(long, value_parser = NodeName::new)]
    node: Option<NodeName>,
    /// Address of this node on a network, such as lan1=10.1.0.2. The one from which it calls need
    /// not be given.
    #[arg(long = "address", value_parser = address)]
    addresses: Vec<(NetworkName, IpAddr)>,
}

/// Which node leaves.
#[derive(Debug, Args)]
pub(crate) struct LeaveArgs {
    /// A node that is gone for ever; this one when absent.
    #[arg(long, value_parser = NodeName::new)]
    node: Option<NodeName>,
}

pub(crate) fn init(context: &Context, args: InitArgs) -> ExitCode {
    let reply = begin(context, args).unwrap_or_else(|why| Reply::new(Exit::Refused, why));
    context.finish(&reply, with_next)
}

fn begin(context: &Context, args: InitArgs) -> Result<Reply, String> {
    let node = own_name(args.node)?;
    let cluster = args.cluster.clone();
    let witness = args.witness.zip(args.fingerprint);
    let founding =
        Founding { cluster: args.cluster, node: node.clone(), addresses: args.addresses, witness };
    let layout = context.layout();
    founding.found(&layout).map_err(|error| error.to_string())?;
    let made = format!(
        "cluster {cluster} begins with {node}: its keys are in {}, its configuration is {}",
        layout.keys_directory().display(),
        layout.cluster_file().display()
    );
    let mut reply = make_token(context, &node)?;
    reply.sentence = format!("{made}; {}", reply.sentence);
    reply.next.insert(0, format!("here: evenkeel{} daemon{}", root(context), name_of(&node)));
    if founding.witness.is_some() {
        let authority = layout.keys_directory().join("ca.pem");
        let copy = format!("copy {} to the witness, and there: ", authority.display());
        reply.next.push(copy + "evenkeel witness add ca.pem");
    }
    Ok(reply)
}

pub(crate) fn token(context: &Context, args: TokenArgs) -> ExitCode {
    let made = own_name(args.node).and_then(|node| make_token(context, &node));
    let reply = made.unwrap_or_else(|why| Reply::new(Exit::Failed, why));
    context.finish(&reply, with_next)
}

fn make_token(context: &Context, node: &NodeName) -> Result<Reply, String> {
    let layout = context.layout();
    let cluster = node::load_cluster(&layout).map_err(|error| error.to_string())?;
    let token = issue_token(&layout, &cluster, node).map_err(|error| error.to_string())?;
    let minutes = TOKEN_LIFETIME.as_secs() / 60;
    let sentence = format!("one node can join by this token, within {minutes} minutes");
    let mut reply = Reply::new(Exit::Done, sentence);
    reply.data = json!({ "token": token.to_string() });
    reply.next = vec![format!("on the node that shall join: evenkeel join {token}")];
    Ok(reply)
}

pub(crate) fn join(context: &Context, args: JoinArgs) -> ExitCode {
    let reply = match own_name(args.node) {
        Err(why) => Reply::new(Exit::Usage, why),
        Ok(node) => {
            let addresses: BTreeMap<_, _> = args.addresses.into_iter().collect();
            let joining = Joining { token: args.token, node, addresses };
            joined(context, &joining)
        }
    };
    context.finish(&reply, with_next)
}

fn joined(context: &Context, joining: &Joining) -> Reply {
    let node = &joining.node;
    match joining.join(&context.layout()) {
        Ok(nodes) => {
            let names: Vec<&str> = nodes.iter().map(NodeName::as_str).collect();
            let sentence = format!("{node} belongs to the cluster now, with {}", names.join(", "));
            let mut reply = Reply::new(Exit::Done, sentence);
            reply.data = json!({ "nodes": nodes });
            reply.next = vec![format!("evenkeel{} daemon{}", root(context), name_of(node))];
            reply
        }
        Err(error) => {
            let outcome = match error {
                JoinError::Belongs(_) | JoinError::Here(_) | JoinError::Refused(_) => Exit::Refused,
                JoinError::Unreachable(_) => Exit::Unreachable,
                JoinError::Unsure { .. } | JoinError::Local(_) | JoinError::Late(_) => Exit::Failed,
            };
            Reply::new(outcome, error.to_string())
        }
    }
}

pub(crate) fn leave(context: &Context, args: LeaveArgs) -> ExitCode {
    let reply = context.ask(Verb::Leave { node: args.node });
    context.finish(&reply, with_next)
}

pub(crate) fn rotate_key(context: &Context) -> ExitCode {
    let reply = context.ask(Verb::RotateKey);
    context.finish(&reply, with_next)
}

fn with_next(reply: &Reply) -> String {
    let next = reply.next.iter().map(|next| format!("\n  → {next}"));
    format!("✔ {}{}", reply.sentence, next.collect::<String>())
}

fn own_name(given: Option<NodeName>) -> Result<NodeName, String> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    given.map_or_else(
        || {
            NodeName::new(&host)
                .map_err(|error| format!("the host's name is no name of a node: {error}; --node"))
        },
        Ok,
    )
}

/// How to name a node to its daemon, where it is not called as its host.
fn name_of(node: &NodeName) -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if node.as_str() == host { String::new() } else { format!(" --node {node}") }
}

fn root(context: &Context) -> String {
    let root = context.root.display().to_string();
    if root == "/" { String::new() } else { format!(" --root {root}") }
}

fn address(text: &str) -> Result<(NetworkName, IpAddr), String> {
    let (network, address) = text.split_once('=').unwrap_or((DEFAULT_NETWORK, text));
    let network = NetworkName::new(network).map_err(|error| error.to_string())?;
    let address = address.parse().map_err(|_| format!("`{address}` is no IP address"))?;
    Ok((network, address))
}

fn witness_address(text: &str) -> Result<SocketAddr, String> {
    let with_port = text.parse();
    let alone = || text.parse().map(|address: IpAddr| SocketAddr::new(address, 7623));
    with_port.or_else(|_| alone()).map_err(|_| format!("`{text}` is no address of a witness"))
}
