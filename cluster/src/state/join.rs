//! Join tokens: each lets one new node get its certificate, once and for a while.
//!
//! In: commands from [`State::apply`]; their time decides whether a token is still good, so that every
//! replica decides the same. Out: answers. Of a secret only the hash is here.
//!
//! Does not issue certificates: a node with the CA's key does, after a token was used up here.

use serde::{Deserialize, Serialize};
use wire::NodeId;
use wire::control::{Answer, JoinFault, KeyId, Refusal, SecretHash};

use super::State;

/// Most join tokens at a time, used and expired ones included. One more takes the place of one that
/// opens nothing any more; without such a one it is refused as overloaded.
pub(super) const MAX_JOIN_TOKENS: usize = 256;
/// Longest life of a join token, in seconds: a week.
pub(super) const MAX_JOIN_TTL_S: u32 = 7 * 86_400;
/// How long a token that opens nothing any more is remembered, so that its holder is told why.
const REMEMBERED_S: u64 = 86_400;

/// A join token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Token {
    hash: SecretHash,
    node: Option<NodeId>,
    expires_s: u64,
    used: Option<Use>,
}

/// Who used a token, and for which key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Use {
    by: NodeId,
    key: SecretHash,
}

impl State {
    pub(super) fn create_join_token(
        &mut self,
        id: KeyId,
        hash: SecretHash,
        node: Option<NodeId>,
        ttl_s: u32,
    ) -> Result<Answer, Refusal> {
        if let Some(known) = self.join_tokens.get(&id) {
            return if known.hash == hash {
                Ok(Answer::Done)
            } else {
                Err(Refusal::Conflict(format!("join token {id} exists")))
            };
        }
        if ttl_s == 0 || ttl_s > MAX_JOIN_TTL_S {
            return Err(Refusal::Invalid(format!(
                "a join token is good for 1 to {MAX_JOIN_TTL_S} seconds"
            )));
        }
        if let Some(removed) = node.as_ref().filter(|node| self.removed.contains(*node)) {
            return Err(Refusal::Removed(removed.clone()));
        }
        let now_s = self.clock_s;
        self.join_tokens.retain(|_, token| now_s < token.expires_s.saturating_add(REMEMBERED_S));
        if self.join_tokens.len() >= MAX_JOIN_TOKENS {
            let spent = |token: &Token| token.used.is_some() || token.expires_s <= now_s;
            let oldest = self.join_tokens.iter().filter(|(_, token)| spent(token));
            let oldest = oldest.min_by_key(|(_, token)| token.expires_s).map(|(id, _)| *id);
            let Some(oldest) = oldest else {
                let many = format!("the cluster has {MAX_JOIN_TOKENS} join tokens");
                return Err(Refusal::Overloaded(many));
            };
            self.join_tokens.remove(&oldest);
        }
        let expires_s = now_s.saturating_add(u64::from(ttl_s));
        self.join_tokens.insert(id, Token { hash, node, expires_s, used: None });
        Ok(Answer::Done)
    }

    pub(super) fn redeem_join_token(
        &mut self,
        id: KeyId,
        hash: &SecretHash,
        node: NodeId,
        key: SecretHash,
    ) -> Result<Answer, Refusal> {
        if self.removed.contains(&node) {
            return Err(Refusal::Removed(node));
        }
        let is_known = self.nodes.contains_key(&node)
            || self.members.values().any(|member| member.node == node);
        let now_s = self.clock_s;
        let token = self.join_tokens.get_mut(&id).filter(|token| token.hash == *hash);
        let token = token.ok_or(JoinFault::Unknown)?;
        if let Some(used) = &token.used {
            // The same node with the same key has not got its answer.
            return if used.by == node && used.key == key {
                Ok(Answer::Done)
            } else {
                Err(JoinFault::Used { by: used.by.clone() }.into())
            };
        }
        if token.expires_s <= now_s {
            return Err(JoinFault::Expired.into());
        }
        match &token.node {
            Some(only) if *only != node => {
                return Err(JoinFault::OtherNode { node: only.clone() }.into());
            }
            None if is_known => return Err(JoinFault::Known { node }.into()),
            _ => {}
        }
        token.used = Some(Use { by: node, key });
        Ok(Answer::Done)
    }
}

#[cfg(test)]
mod tests {
    use wire::ClusterId;

    use super::*;
    use crate::command::{Command, Stamped};
    use crate::state::Changes;

    const TTL_S: u32 = 600;

    fn node(id: &str) -> NodeId {
        NodeId::new(id).unwrap()
    }

    fn secret(byte: u8) -> SecretHash {
        SecretHash([byte; 32])
    }

    fn cluster() -> State {
        let founder = (node("o1"), "127.0.0.1:1".parse().unwrap());
        State::found(ClusterId::from_bits(1), &[founder], 7)
    }

    fn run(state: &mut State, at_s: u64, command: Command) -> Result<(), Refusal> {
        let index = state.revision() + 1;
        state.apply(index, Stamped { at_s, command }, &mut Changes::default()).map(|answer| {
            assert_eq!(answer, Answer::Done);
        })
    }

    fn create(state: &mut State, at_s: u64, id: u64, only: Option<&str>) -> Result<(), Refusal> {
        let (id, node) = (KeyId(id), only.map(node));
        run(state, at_s, Command::CreateJoinToken { id, hash: secret(1), node, ttl_s: TTL_S })
    }

    fn redeem(state: &mut State, at_s: u64, id: u64, by: &str, key: u8) -> Result<(), Refusal> {
        let (id, hash, node, key) = (KeyId(id), secret(1), node(by), secret(key));
        run(state, at_s, Command::RedeemJoinToken { id, hash, node, key })
    }

    #[test]
    fn a_token_admits_one_node_with_one_key_and_says_why_not_another() {
        let mut state = cluster();
        create(&mut state, 10, 1, None).unwrap();
        create(&mut state, 10, 1, None).expect("the answer was lost");
        assert_eq!(redeem(&mut state, 11, 2, "e1", 5), Err(JoinFault::Unknown.into()));
        let (id, node_id, key) = (KeyId(1), node("e1"), secret(5));
        let wrong = Command::RedeemJoinToken { id, hash: secret(2), node: node_id, key };
        assert_eq!(run(&mut state, 11, wrong), Err(JoinFault::Unknown.into()));
        let known = JoinFault::Known { node: node("o1") };
        assert_eq!(redeem(&mut state, 11, 1, "o1", 5), Err(known.into()));

        redeem(&mut state, 11, 1, "e1", 5).unwrap();
        redeem(&mut state, 11, 1, "e1", 5).expect("the answer was lost");
        let used: Refusal = JoinFault::Used { by: node("e1") }.into();
        assert_eq!(redeem(&mut state, 11, 1, "e2", 5), Err(used.clone()));
        assert_eq!(
            redeem(&mut state, 11, 1, "e1", 6),
            Err(used),
            "another key is another certificate"
        );
    }

    #[test]
    fn a_token_for_one_node_renews_it_too_and_ends_with_its_time() {
        let mut state = cluster();
        create(&mut state, 10, 1, Some("o1")).unwrap();
        let other = JoinFault::OtherNode { node: node("o1") };
        assert_eq!(redeem(&mut state, 11, 1, "e1", 5), Err(other.into()));
        redeem(&mut state, 11, 1, "o1", 5).unwrap();

        create(&mut state, 20, 2, None).unwrap();
        let over = 20 + u64::from(TTL_S);
        assert_eq!(redeem(&mut state, over, 2, "e1", 5), Err(JoinFault::Expired.into()));
        // The clock of the log never goes back, whoever leads.
        assert_eq!(redeem(&mut state, 21, 2, "e1", 5), Err(JoinFault::Expired.into()));
    }

    #[test]
    fn tokens_are_bounded_and_those_that_open_nothing_make_room() {
        let mut state = cluster();
        for id in 0..MAX_JOIN_TOKENS as u64 {
            create(&mut state, 10, id, None).unwrap();
        }
        assert!(matches!(create(&mut state, 10, 999, None), Err(Refusal::Overloaded(_))));
        redeem(&mut state, 10, 7, "e1", 5).unwrap();
        create(&mut state, 10, 999, None).unwrap();
        assert_eq!(state.join_tokens.len(), MAX_JOIN_TOKENS);
        assert_eq!(redeem(&mut state, 10, 7, "e2", 5), Err(JoinFault::Unknown.into()));
        create(&mut state, 10 + u64::from(TTL_S) + REMEMBERED_S, 1000, None).unwrap();
        assert_eq!(state.join_tokens.len(), 1, "what is long over is forgotten");
    }

    #[test]
    fn an_encoded_state_holds_tokens_and_one_without_is_of_the_first_format() {
        let mut state = cluster();
        assert_eq!(state.encode().unwrap()[0], 1);
        create(&mut state, 10, 1, Some("e1")).unwrap();
        redeem(&mut state, 10, 1, "e1", 5).unwrap();
        let bytes = state.encode().unwrap();
        assert_eq!(bytes[0], 2);
        assert_eq!(State::decode(&bytes).unwrap(), state);
        assert!(State::decode(&bytes[..bytes.len() - 1]).is_err());
    }
}
