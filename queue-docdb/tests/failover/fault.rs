//! What is done to the members, and taken back.

use std::fmt;

use mongodb_test_server::{CutFrom, FaultError, Member, MongoReplicaSet};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    KillPrimary,
    StopPrimary,
    CutOffPrimary,
    StalePrimary,
    FreezePrimary,
    RestartAll,
    KillSecondary,
}

impl Fault {
    /// Members that were cut off take the longest until they have found each other again, which
    /// a round waits for before its own fault; so these come last.
    pub(crate) const ALL: [Self; 7] = [
        Self::KillPrimary,
        Self::StopPrimary,
        Self::FreezePrimary,
        Self::RestartAll,
        Self::KillSecondary,
        Self::CutOffPrimary,
        Self::StalePrimary,
    ];

    /// Whether another primary takes over while the fault lasts.
    pub(crate) fn ends_a_reign(self) -> bool {
        !matches!(self, Self::RestartAll | Self::KillSecondary)
    }

    /// Strikes; what it strikes stays as it is until [`repair`](Self::repair).
    pub(crate) async fn strike(
        self,
        set: &MongoReplicaSet,
        primary: Member,
        secondary: Member,
    ) -> Result<(), FaultError> {
        match self {
            Self::KillPrimary => set.kill(primary).await,
            Self::StopPrimary => set.stop(primary).await,
            Self::CutOffPrimary => set.cut(primary, CutFrom::Everybody).await,
            Self::StalePrimary => set.cut(primary, CutFrom::Members).await,
            Self::FreezePrimary => set.freeze(primary).await,
            Self::KillSecondary => set.kill(secondary).await,
            Self::RestartAll => {
                for member in set.members() {
                    set.kill(member).await?;
                }
                for member in set.members() {
                    set.start_again(member).await?;
                }
                Ok(())
            }
        }
    }

    pub(crate) async fn repair(
        self,
        set: &MongoReplicaSet,
        primary: Member,
        secondary: Member,
    ) -> Result<(), FaultError> {
        match self {
            Self::KillPrimary | Self::StopPrimary => set.start_again(primary).await,
            Self::CutOffPrimary | Self::StalePrimary => set.heal(primary).await,
            Self::FreezePrimary => set.thaw(primary).await,
            Self::KillSecondary => set.start_again(secondary).await,
            Self::RestartAll => Ok(()),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::KillPrimary => "primary killed",
            Self::StopPrimary => "primary stopped",
            Self::CutOffPrimary => "primary cut off",
            Self::StalePrimary => "primary stale",
            Self::FreezePrimary => "primary frozen",
            Self::RestartAll => "all killed",
            Self::KillSecondary => "secondary killed",
        })
    }
}
