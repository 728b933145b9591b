//! Permits: proof that somebody may do something. Actions ask for one, and only this module makes one (invariant I5).

use std::marker::PhantomData;
use std::net::IpAddr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use ostiary_domain::ids::UserId;
use serde::Serialize;

use crate::error::Error;

/// What people are. Each may do all that the one before may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads everything but secrets, users and the audit log.
    Viewer,
    /// Changes what nodes are asked and what is heard of, and runs live queries.
    Editor,
    /// Users, enroll secrets, destinations, audit log.
    Admin,
}

impl Role {
    /// All of them with what they mean, for forms.
    pub const ALL: [(Self, &'static str); 3] = [
        (
            Self::Viewer,
            "Sees nodes, findings and configs; changes nothing.",
        ),
        (
            Self::Editor,
            "Changes packs, queries, rules and tags, runs live queries, collects and downloads files of nodes, works on findings.",
        ),
        (
            Self::Admin,
            "Everything, also users, enroll secrets, destinations and the audit log.",
        ),
    ];

    /// The word itself.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Editor => "editor",
            Self::Admin => "admin",
        }
    }

    /// The role of a word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .map(|(role, _)| role)
            .find(|role| role.as_str() == text)
    }
}

/// Who acts.
#[derive(Debug, Clone)]
pub struct Actor {
    /// The user; `None` for a command of the operator.
    pub user_id: Option<UserId>,
    /// Their name.
    pub name: String,
    /// Their role.
    pub role: Role,
    /// Where the request came from.
    pub ip: Option<IpAddr>,
}

/// Something that a role allows.
pub trait Right: Send + Sync + 'static {
    /// The least role that has it.
    const LEAST: Role;
    /// Ends the sentence "Your role does not allow you to …".
    const MEANING: &'static str;
}

macro_rules! rights {
    ($($(#[$doc:meta])* $name:ident: $least:ident, $meaning:literal;)+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub struct $name;
        impl Right for $name {
            const LEAST: Role = Role::$least;
            const MEANING: &'static str = $meaning;
        }
    )+};
}

rights! {
    /// To read what all may read.
    View: Viewer, "see this";
    /// To change what nodes are asked, rules, tags, findings.
    Edit: Editor, "change this";
    /// To ask nodes now.
    RunLiveQuery: Editor, "run live queries";
    /// To take files of nodes out of the house.
    TakeFiles: Editor, "download files of nodes";
    /// To look after users, secrets and destinations.
    Admin: Admin, "do this; it takes an admin";
}

/// Proof that [`Actor`] has the right `R`.
#[derive(Debug, Clone)]
pub struct Permit<R> {
    actor: Actor,
    right: PhantomData<R>,
}

impl<R: Right> Permit<R> {
    /// The permit, if the role of the actor has the right.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub fn for_actor(actor: &Actor) -> Result<Self, Error> {
        if actor.role < R::LEAST {
            return Err(Error::Forbidden(format!(
                "Your role ({}) does not allow you to {}.",
                actor.role.as_str(),
                R::MEANING
            )));
        }
        Ok(Self {
            actor: actor.clone(),
            right: PhantomData,
        })
    }

    /// The permit of the operator at the command line, who holds the database's password anyway.
    #[must_use]
    pub fn for_command() -> Self {
        let actor = Actor {
            user_id: None,
            name: "command line".to_owned(),
            role: Role::Admin,
            ip: None,
        };
        Self {
            actor,
            right: PhantomData,
        }
    }

    /// Who holds it.
    #[must_use]
    pub fn actor(&self) -> &Actor {
        &self.actor
    }
}

impl Permit<Edit> {
    /// The permit of somebody who decides in a pager, which proves itself by its webhook's signature.
    #[must_use]
    pub(crate) fn for_pager(name: String) -> Self {
        let actor = Actor {
            user_id: None,
            name,
            role: Role::Editor,
            ip: None,
        };
        Self {
            actor,
            right: PhantomData,
        }
    }
}

impl<R: Right, S: Send + Sync> FromRequestParts<S> for Permit<R> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        Self::for_actor(
            parts
                .extensions
                .get::<Actor>()
                .ok_or(Error::Unauthenticated)?,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_has_the_rights_of_those_below_it() {
        let actor = |role| Actor {
            user_id: None,
            name: "x".into(),
            role,
            ip: None,
        };
        assert!(Permit::<View>::for_actor(&actor(Role::Viewer)).is_ok());
        assert!(Permit::<Edit>::for_actor(&actor(Role::Viewer)).is_err());
        assert!(Permit::<RunLiveQuery>::for_actor(&actor(Role::Viewer)).is_err());
        assert!(Permit::<Edit>::for_actor(&actor(Role::Editor)).is_ok());
        assert!(Permit::<Admin>::for_actor(&actor(Role::Editor)).is_err());
        assert!(Permit::<Admin>::for_actor(&actor(Role::Admin)).is_ok());
        assert_eq!(Role::parse("editor"), Some(Role::Editor));
        assert_eq!(Role::parse("root"), None);
    }
}
