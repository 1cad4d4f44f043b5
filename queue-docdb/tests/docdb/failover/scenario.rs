//! What happens to the members, and how it ends.

use std::fmt;

use mongodb_test_server::{CutFrom, Member, MemberError, MongoReplicaSet};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    PrimaryKilled,
    PrimaryStopped,
    PrimaryCutOff,
    PrimaryStale,
    PrimaryFrozen,
    AllKilled,
    SecondaryKilled,
}

impl Scenario {
    /// The cuts are last: members take the longest to find each other again, and the next round
    /// waits for that.
    pub(crate) const ALL: [Self; 7] = [
        Self::PrimaryKilled,
        Self::PrimaryStopped,
        Self::PrimaryFrozen,
        Self::AllKilled,
        Self::SecondaryKilled,
        Self::PrimaryCutOff,
        Self::PrimaryStale,
    ];

    /// Whether another member becomes the primary before the repair.
    pub(crate) fn replaces_primary(self) -> bool {
        !matches!(self, Self::AllKilled | Self::SecondaryKilled)
    }

    /// Causes the failure, which lasts until [`repair`](Self::repair).
    pub(crate) async fn begin(
        self,
        set: &MongoReplicaSet,
        primary: Member,
        secondary: Member,
    ) -> Result<(), MemberError> {
        match self {
            Self::PrimaryKilled => set.kill(primary).await,
            Self::PrimaryStopped => set.stop(primary).await,
            Self::PrimaryCutOff => set.cut(primary, CutFrom::MembersAndClients).await,
            Self::PrimaryStale => set.cut(primary, CutFrom::Members).await,
            Self::PrimaryFrozen => set.freeze(primary).await,
            Self::SecondaryKilled => set.kill(secondary).await,
            Self::AllKilled => {
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
    ) -> Result<(), MemberError> {
        match self {
            Self::PrimaryKilled | Self::PrimaryStopped => set.start_again(primary).await,
            Self::PrimaryCutOff | Self::PrimaryStale => set.heal(primary).await,
            Self::PrimaryFrozen => set.thaw(primary).await,
            Self::SecondaryKilled => set.start_again(secondary).await,
            Self::AllKilled => Ok(()),
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PrimaryKilled => "primary killed",
            Self::PrimaryStopped => "primary stopped",
            Self::PrimaryCutOff => "primary cut off",
            Self::PrimaryStale => "primary stale",
            Self::PrimaryFrozen => "primary frozen",
            Self::AllKilled => "all killed",
            Self::SecondaryKilled => "secondary killed",
        })
    }
}
