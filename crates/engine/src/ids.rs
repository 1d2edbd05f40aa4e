//! Keys that notice when a slot was reused.

slotmap::new_key_type! {
    /// A client connection of this worker.
    pub struct SessionId;
    /// A connection to a broker.
    pub struct UpstreamId;
    /// A client's channel.
    pub struct ChannelId;
    /// A channel on an upstream connection: what a binding binds to.
    pub struct UpChannelId;
    /// Credentials at one farm.
    pub struct LoginId;
    /// The pools of one farm, virtual host and credentials.
    pub struct TenantId;
}
