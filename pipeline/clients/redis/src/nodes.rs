//! The servers that have the data: a single one, or the primaries of a cluster. Which of them has a part is learned from
//! any of them, again every few seconds and when one fails, and from redirections at once.
//!
//! What is sent is a list of calls, each on one part: those of a node go in one pipeline, those of several nodes at the same
//! time, and a call that a node sends elsewhere is sent there. Calls of a part keep their order, but for those that are sent
//! elsewhere. A node that is away fails what it would have to answer, at once, and nothing else.

use crate::config::{Connector, RedisConfig};
use crate::errors::classify;
use crate::link::Link;
use crate::map::{Map, Range, ranges};
use crate::scripts::Scripts;
use crate::slots::{Part, Tags};
use futures::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::{Client, Cmd, ErrorKind, Pipeline, RedisError, RedisResult, ServerErrorKind, Value};
use smartpulse_pipeline::error::{Error, Result};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How old the map of a cluster becomes while somebody uses it.
const MAP_AGE_MAX: Duration = Duration::from_secs(2);

/// The shortest time from one look at the map to the next, however much fails.
const MAP_AGE_MIN: Duration = Duration::from_millis(100);

/// How often a call is sent on before whoever asked has to ask again.
const HOPS_MAX: usize = 8;

/// The wait before a call is sent again whose keys are just being moved one by one.
const MOVE_WAIT: Duration = Duration::from_millis(20);

/// A server.
pub(crate) struct Node {
    /// `host:port`, as the cluster calls it.
    pub name: String,
    pub client: Client,
    publishing: Link,
    asking: Link,
}

/// Which connection a call takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// That for publishing, which may send megabytes.
    Publishing,
    /// That for everything else, which must not wait behind them.
    Asking,
}

impl Node {
    fn new(name: String, client: Client, config: &RedisConfig) -> Self {
        let (publishing, asking) = (Link::new(client.clone(), config), Link::new(client.clone(), config));
        Self { name, client, publishing, asking }
    }

    /// Asks this server.
    ///
    /// # Errors
    /// Those of [`Link::ask`].
    pub(crate) async fn ask<T, F>(
        &self,
        lane: Lane,
        doing: &str,
        question: impl FnOnce(MultiplexedConnection) -> F,
    ) -> Result<T>
    where
        F: Future<Output = RedisResult<T>>,
    {
        match lane {
            Lane::Publishing => self.publishing.ask(doing, question).await,
            Lane::Asking => self.asking.ask(doing, question).await,
        }
    }
}

/// The servers.
pub(crate) struct Nodes {
    config: RedisConfig,
    connector: Connector,
    pub scripts: Scripts,
    /// That of the settings: the single server, or who names the first nodes of a cluster.
    home: Arc<Node>,
    state: Mutex<State>,
}

struct State {
    map: Option<Arc<Map>>,
    looked: Instant,
    /// Somebody is looking.
    looking: bool,
    /// Rises with every look, so that each asks another node first.
    turn: usize,
    /// Nodes that somebody was sent to although they have no slot yet.
    guests: Vec<Arc<Node>>,
    tags: Option<Arc<Tags>>,
}

/// A call, and where it was sent to.
struct Sent {
    call: usize,
    node: Arc<Node>,
    /// It was sent there for this once.
    guest: bool,
}

impl Nodes {
    pub(crate) fn new(config: &RedisConfig) -> Result<Self> {
        let connector = config.connector()?;
        let unusable = |error| Error::fatal(format!("`{}` is no address of a Redis", config.url)).because(error);
        let client = connector.client_at_home().map_err(unusable)?;
        let (host, port) = connector.home();
        let home = Arc::new(Node::new(format!("{host}:{port}"), client, config));
        let state =
            State { map: None, looked: Instant::now(), looking: false, turn: 0, guests: Vec::new(), tags: None };
        Ok(Self { config: config.clone(), connector, scripts: Scripts::new(), home, state: Mutex::new(state) })
    }

    /// Who has what. Asked for once, and looked at again beside whoever uses it.
    ///
    /// # Errors
    /// While nobody tells.
    pub(crate) async fn map(self: &Arc<Self>) -> Result<Arc<Map>> {
        let known = {
            let state = self.state();
            state.map.clone().map(|map| (map, state.looked.elapsed()))
        };
        match known {
            Some((map, age)) => {
                if age > MAP_AGE_MAX {
                    self.look_again(&map);
                }
                Ok(map)
            }
            None => self.look(&self.home).await,
        }
    }

    /// Sends calls, each on its part, and gives the answers in their order.
    ///
    /// # Errors
    /// The first one; other calls may have been answered.
    pub(crate) async fn send<T>(
        self: &Arc<Self>,
        lane: Lane,
        doing: &str,
        calls: &[(Part, T)],
        command: impl Fn(&T) -> Cmd,
    ) -> Result<Vec<Value>> {
        let mut answers = vec![Value::Nil; calls.len()];
        let mut map = self.map().await?;
        let mut open = (0..calls.len()).map(|call| place(&map, call, calls[call].0)).collect::<Result<Vec<_>>>()?;
        let mut why = None;
        for _ in 0..=HOPS_MAX {
            if open.is_empty() {
                return Ok(answers);
            }
            let asked = by_node(open).into_iter().map(|sent| async {
                let pipeline = pipeline(&sent, |call| command(&calls[call].1));
                let ask = |mut connection| async move { heard(pipeline.query_async(&mut connection).await?) };
                (sent[0].node.ask(lane, doing, ask).await, sent)
            });
            let mut elsewhere = Vec::new();
            let mut failed = None;
            for (answered, sent) in join_all(asked).await {
                match answered {
                    Ok(values) => elsewhere.extend(settle(sent, values, &mut answers)),
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            if let Some(error) = failed {
                self.look_again(&map);
                return Err(error);
            }
            open = Vec::new();
            let mut pause = false;
            let mut forgetful: Vec<Arc<Node>> = Vec::new();
            for (sent, error) in elsewhere {
                pause |= error.kind() == ErrorKind::Server(ServerErrorKind::TryAgain);
                let (now, next) = if error.kind() != ErrorKind::Server(ServerErrorKind::NoScript) {
                    self.follow(map, calls[sent.call].0, &sent, &error)?
                } else {
                    if !forgetful.iter().any(|node| Arc::ptr_eq(node, &sent.node)) {
                        self.load(lane, &sent.node).await?;
                        forgetful.push(sent.node.clone());
                    }
                    (map, sent)
                };
                map = now;
                open.push(next);
                why = Some(error);
            }
            if pause {
                sleep(MOVE_WAIT).await;
            }
        }
        self.look_again(&map);
        Err(why.map_or_else(
            || Error::unavailable(format!("redis did not do it: {doing}")),
            |error| classify(doing, error).0,
        ))
    }

    async fn load(&self, lane: Lane, node: &Node) -> Result<()> {
        let load = self.scripts.load();
        node.ask(lane, "load the scripts", |mut connection| async move { load.query_async(&mut connection).await })
            .await
    }

    /// Where a call goes whose server sent it elsewhere.
    fn follow(&self, map: Arc<Map>, part: Part, sent: &Sent, error: &RedisError) -> Result<(Arc<Map>, Sent)> {
        match (error.kind(), error.redirect_node(), part) {
            (ErrorKind::Server(ServerErrorKind::Ask), Some((address, _)), _) => {
                let node = self.guest(&map, &sent.node, address)?;
                Ok((map, Sent { call: sent.call, node, guest: true }))
            }
            (ErrorKind::Server(ServerErrorKind::Moved), Some((address, _)), Part::Slot(slot)) => {
                let node = self.guest(&map, &sent.node, address)?;
                let map = Arc::new(map.moved(slot, &node));
                self.state().map = Some(map.clone());
                Ok((map, Sent { call: sent.call, node, guest: false }))
            }
            (ErrorKind::Server(ServerErrorKind::TryAgain), ..) => {
                let next = place(&map, sent.call, part)?;
                Ok((map, next))
            }
            _ => {
                // It is a cluster, and was none when we looked.
                self.state().map = None;
                Err(classify("find the nodes of a cluster", error.clone()).0)
            }
        }
    }

    /// A server that another named.
    fn guest(&self, map: &Map, from: &Node, address: &str) -> Result<Arc<Node>> {
        let (host, port) = address
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host, port.parse().ok()?)))
            .ok_or_else(|| Error::unavailable(format!("redis named a node without an address: `{address}`")))?;
        let mut state = self.state();
        let known: Vec<Arc<Node>> = map.primaries.iter().chain(&state.guests).chain([&self.home]).cloned().collect();
        let node = self.node(&known, from, host, port)?;
        if !known.iter().any(|known| known.name == node.name) {
            state.guests.push(node.clone());
        }
        Ok(node)
    }

    /// A server by its address: the one that is known, or another. Without a host it is on that of who named it.
    fn node(&self, known: &[Arc<Node>], from: &Node, host: &str, port: u16) -> Result<Arc<Node>> {
        let host = match host {
            "" | "?" => from.name.rsplit_once(':').map_or("", |(host, _)| host),
            host => host,
        };
        let name = format!("{host}:{port}");
        if let Some(node) = known.iter().find(|node| node.name == name) {
            return Ok(node.clone());
        }
        let client = self.connector.client_at(host, port);
        let client =
            client.map_err(|error| Error::fatal(format!("`{name}` is no address of a Redis")).because(error))?;
        Ok(Arc::new(Node::new(name, client, &self.config)))
    }

    /// Looks at the map anew, beside whoever asked for it. A single server needs none.
    fn look_again(self: &Arc<Self>, map: &Map) {
        if !map.is_cluster() {
            return;
        }
        let mut state = self.state();
        if state.looking || state.looked.elapsed() < MAP_AGE_MIN {
            return;
        }
        state.looking = true;
        state.turn = state.turn.wrapping_add(1);
        // Whoever is cut off tells an old tale: each look begins with another node.
        let mut nodes = map.primaries.clone();
        let first = state.turn % nodes.len().max(1);
        nodes.rotate_left(first);
        nodes.push(self.home.clone());
        drop(state);
        let this = self.clone();
        tokio::spawn(async move {
            for node in nodes {
                match this.look(&node).await {
                    Ok(_) => break,
                    Err(error) => tracing::debug!(node = node.name, error = error.chain(), "no map of the cluster"),
                }
            }
            let mut state = this.state();
            state.looking = false;
            state.looked = Instant::now();
        });
    }

    /// Asks a node who has what.
    async fn look(&self, node: &Arc<Node>) -> Result<Arc<Map>> {
        let ask = |mut connection| async move {
            ranges(redis::cmd("CLUSTER").arg("SLOTS").query_async(&mut connection).await)
        };
        let map = match node.ask(Lane::Asking, "ask for the nodes of the cluster", ask).await? {
            Some(ranges) => self.cluster(node, &ranges)?,
            None => Map::single(self.home.clone()),
        };
        let map = Arc::new(map);
        let mut state = self.state();
        (state.map, state.looked) = (Some(map.clone()), Instant::now());
        state.guests.clear();
        Ok(map)
    }

    fn cluster(&self, from: &Node, ranges: &[Range]) -> Result<Map> {
        let (mut known, tags) = {
            let mut state = self.state();
            let tags = state.tags.get_or_insert_with(|| Arc::new(Tags::new())).clone();
            let primaries = state.map.as_ref().map(|map| map.primaries.clone()).unwrap_or_default();
            (
                primaries
                    .into_iter()
                    .chain(state.guests.iter().cloned())
                    .chain([self.home.clone()])
                    .collect::<Vec<_>>(),
                tags,
            )
        };
        let mut owned = Vec::with_capacity(ranges.len());
        for Range { first, last, host, port } in ranges {
            let node = self.node(&known, from, host, *port)?;
            known.push(node.clone());
            owned.push((*first..=*last, node));
        }
        if owned.is_empty() {
            return Err(Error::unavailable(
                "the Redis Cluster has no slots yet; `redis-cli --cluster create` deals them",
            ));
        }
        Ok(Map::cluster(owned, tags))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a call goes.
fn place(map: &Map, call: usize, part: Part) -> Result<Sent> {
    let node = map.owner(part).ok_or_else(|| Error::unavailable(format!("no node of the cluster has {part:?} now")))?;
    Ok(Sent { call, node: node.clone(), guest: false })
}

/// What goes to each node, in order.
fn by_node(open: Vec<Sent>) -> Vec<Vec<Sent>> {
    let mut nodes: Vec<Vec<Sent>> = Vec::new();
    for sent in open {
        match nodes.iter_mut().find(|of| Arc::ptr_eq(&of[0].node, &sent.node)) {
            Some(of) => of.push(sent),
            None => nodes.push(vec![sent]),
        }
    }
    nodes
}

fn pipeline(sent: &[Sent], command: impl Fn(usize) -> Cmd) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(sent.len());
    for Sent { call, guest, .. } in sent {
        if *guest {
            pipeline.cmd("ASKING").ignore();
        }
        pipeline.add_command(command(*call));
    }
    pipeline.ignore_errors();
    pipeline
}

/// The answers, and the errors that say where to go instead. Any other error is the whole pipeline's: what it says of the
/// connection has to be heard.
fn heard(answers: Vec<RedisResult<Value>>) -> RedisResult<Vec<RedisResult<Value>>> {
    let elsewhere = |error: &RedisError| {
        use ServerErrorKind::{Ask, CrossSlot, Moved, NoScript, TryAgain};
        matches!(error.kind(), ErrorKind::Server(Ask | CrossSlot | Moved | NoScript | TryAgain))
    };
    answers
        .into_iter()
        .map(|answer| match answer {
            Err(error) if !elsewhere(&error) => Err(error),
            answer => Ok(answer),
        })
        .collect()
}

/// Puts answers in their places; gives what has to be sent elsewhere.
fn settle(
    sent: Vec<Sent>,
    values: Vec<RedisResult<Value>>,
    answers: &mut [Value],
) -> impl Iterator<Item = (Sent, RedisError)> {
    sent.into_iter().zip(values).filter_map(|(sent, value)| match value {
        Ok(value) => {
            answers[sent.call] = value;
            None
        }
        Err(error) => Some((sent, error)),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn node(port: u16) -> Arc<Node> {
        let config = RedisConfig::at("redis://127.0.0.1");
        let client = config.connector().unwrap().client_at("h", port).unwrap();
        Arc::new(Node::new(format!("h:{port}"), client, &config))
    }

    pub(crate) fn single() -> Map {
        Map::single(node(1))
    }

    /// Of two nodes, `h:1` with the lower slots and `h:2` with the others.
    pub(crate) fn cluster() -> Map {
        Map::cluster(vec![(0..=8_191, node(1)), (8_192..=16_383, node(2))], Arc::new(Tags::new()))
    }

    #[test]
    fn a_slot_that_moved_is_where_it_went_and_no_other() {
        let map = cluster();
        let name = |map: &Map, slot| map.owner(Part::Slot(slot)).map(|node| node.name.clone()).unwrap();
        let moved = map.moved(5, &node(3));
        assert_eq!([name(&moved, 4), name(&moved, 5), name(&moved, 9_000)], ["h:1", "h:3", "h:2"]);
        assert_eq!((moved.primaries.len(), name(&map, 5).as_str()), (3, "h:1"));
        assert!(map.owner(Part::Whole).is_none() && single().owner(Part::Slot(5)).is_none());
    }

    #[test]
    fn what_goes_elsewhere_is_kept_apart_and_no_other_error_is_swallowed() {
        let refused = |kind| Err((ErrorKind::Server(kind), "refused").into());
        let ok = |n| Ok(Value::Int(n));
        let elsewhere = vec![ok(1), refused(ServerErrorKind::NoScript), ok(2), refused(ServerErrorKind::TryAgain)];
        let answers = heard(elsewhere).unwrap();
        assert_eq!(answers.iter().map(RedisResult::is_ok).collect::<Vec<_>>(), [true, false, true, false]);
        let error = heard(vec![ok(1), refused(ServerErrorKind::ReadOnly)]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Server(ServerErrorKind::ReadOnly));
    }
}
