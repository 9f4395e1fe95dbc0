//! What is restored how, and in which kind of cluster.

use sts_backup::api::restore::Strategy;

/// What kind of cluster it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Odd {
    #[default]
    Nothing,
    /// Pod 1 is not Ready on the content that it has before the restore.
    Sick,
    /// No pod becomes Ready on restored content.
    Broken,
    /// Somebody writes the replicas back, again and again.
    Rival,
    /// whenScaled: Delete.
    Scaled,
    /// The first node that is tried cannot serve.
    Far,
    /// Of the pods on restored content one becomes Ready and another does not.
    Half,
    /// Somebody restores with rights of their own, and there are no policies: the fence fences nobody.
    ByHand,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Setting {
    pub strategy: Strategy,
    pub odd: Odd,
}
